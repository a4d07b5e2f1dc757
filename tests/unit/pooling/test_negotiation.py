"""Whether a client's connection is encrypted: what it is offered, and what it must bring."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import TlsMode
from pgpooler.config.model import ClientTls
from pgpooler.pooling.port import ClientCertificate, Encryption
from pgpooler.protocol import codes, messages
from tests.memory import MemoryPort
from tests.scripted import Recording, Setting

SSL, GSS = (messages.packet(messages.UINT32.pack(code)) for code in (codes.SSL_REQUEST, codes.GSSENC_REQUEST))
ALICE = messages.startup_message(codes.PROTOCOL_3_0, {"user": "alice", "database": "shop"})
CLIENT_HELLO = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"
IN = b"R\0\0\0\x08\0\0\0\0"
UNIX = "unix"
PLAIN = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384")
OF_ALICE = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate=ClientCertificate("CN=alice", "alice"))
OF_BOB = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate=ClientCertificate("CN=bob", "bob"))


def setting(mode: TlsMode | None = None, encryption: Encryption = PLAIN) -> Setting:
    """A pooler with a certificate, and what its clients agree on with it."""
    made = Setting(tls=ClientTls(mode=mode, cert="server.crt", ca="ca.crt"))
    made.world.encryption = encryption
    return made


def connect(made: Setting, *pieces: bytes, peer: str = "10.0.0.1:5000") -> tuple[MemoryPort, Recording]:
    port = made.world.accept(peer)
    recording = Recording(port)
    for piece in pieces:
        port.say(piece)
        made.world.settle()
    return port, recording


def code(recording: Recording) -> bytes:
    """The SQLSTATE of an error."""
    return bytes(recording.data).partition(b"\0C")[2][:5]


@pytest.mark.parametrize("requests", [(SSL,), (GSS, SSL)])
def test_a_request_for_tls_is_granted_and_the_login_goes_on_within(requests: tuple[bytes, ...]) -> None:
    port, recording = connect(setting(), *requests, ALICE)
    assert recording.data.startswith(b"N" * (len(requests) - 1) + b"S" + IN)
    assert port.encryption == PLAIN


@pytest.mark.parametrize("again", [SSL, GSS])
def test_within_tls_nothing_can_be_asked_for(again: bytes) -> None:
    _, recording = connect(setting(), SSL, again)
    assert recording.data.startswith(b"SE")
    assert code(recording) == b"0A000"


@pytest.mark.parametrize("stuffed", [ALICE, b"\0", CLIENT_HELLO])
def test_what_stands_behind_a_request_that_would_be_granted_is_refused(stuffed: bytes) -> None:
    port, recording = connect(setting(), SSL + stuffed)
    assert recording.data.startswith(b"E")
    assert code(recording) == b"08P01"
    assert port.encryption is None


def test_who_begins_tls_at_once_gets_it() -> None:
    port, recording = connect(setting(), CLIENT_HELLO, SSL, ALICE)
    assert port.encryption == PLAIN
    assert recording.data.startswith(b"N" + IN), "the handshake is no part of the session"


def test_who_begins_tls_at_once_where_there_is_none_is_left_without_a_word() -> None:
    _, recording = connect(Setting(), CLIENT_HELLO)
    assert recording.over
    assert recording.data == b""


def test_who_begins_tls_after_a_refusal_sends_nonsense() -> None:
    _, recording = connect(setting(), GSS, CLIENT_HELLO)
    assert recording.data.startswith(b"NE")
    assert code(recording) == b"08P01"


@pytest.mark.parametrize("first", [SSL, CLIENT_HELLO])
def test_over_a_unix_socket_nothing_is_encrypted(first: bytes) -> None:
    port, recording = connect(setting(), first, peer=UNIX)
    assert port.encryption is None
    assert recording.data == (b"N" if first == SSL else b"")


DEMANDS = [
    # mode, over a unix socket?, what was agreed on, SQLSTATE of the refusal
    (TlsMode.PREFER, False, None, b""),
    (TlsMode.ALLOW, False, None, b""),
    (None, False, None, b""),
    (TlsMode.REQUIRE, False, None, b"28000"),
    (TlsMode.REQUIRE, True, None, b""),
    (TlsMode.REQUIRE, False, PLAIN, b""),
    (TlsMode.VERIFY_CA, False, None, b"28000"),
    (TlsMode.VERIFY_CA, True, None, b""),
    (TlsMode.VERIFY_CA, False, PLAIN, b"28000"),
    (TlsMode.VERIFY_CA, False, OF_BOB, b""),
    (TlsMode.VERIFY_FULL, False, PLAIN, b"28000"),
    (TlsMode.VERIFY_FULL, False, OF_BOB, b"28000"),
    (TlsMode.VERIFY_FULL, False, OF_ALICE, b""),
]


@pytest.mark.parametrize(("mode", "unix", "agreed", "refused"), DEMANDS)
def test_who_brings_less_than_is_demanded_is_refused(
    mode: TlsMode | None, unix: bool, agreed: Encryption | None, refused: bytes
) -> None:
    made = setting(mode, agreed or PLAIN)
    _, recording = connect(made, *([SSL] if agreed else []), ALICE, peer=UNIX if unix else "10.0.0.1:5000")
    answer = recording.data.removeprefix(b"S")
    assert code(recording) == refused
    assert answer.startswith(b"E" if refused else IN)


def test_who_is_refused_does_not_count_as_a_client() -> None:
    made = setting(TlsMode.REQUIRE)
    connect(made, ALICE)
    assert made.world.counts()["admitted"] == 0


def test_a_reload_that_demands_tls_lets_those_stay_who_are_in() -> None:
    made = setting(TlsMode.PREFER)
    port, _ = connect(made, ALICE)
    made.world.reload(setting(TlsMode.REQUIRE).world.service.configuration)
    made.world.settle()
    assert not port.closed
    _, recording = connect(made, ALICE)
    assert code(recording) == b"28000"
