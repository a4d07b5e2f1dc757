"""A server must prove itself: nothing is given to one that skips a step of the login."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import ProtocolVersion
from pgpooler.config.model import Backend
from pgpooler.errors import ProtocolViolation, ServerUnavailable
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Cleartext
from pgpooler.protocol.scram import MECHANISM

PRIMARY = Backend(name="primary", host="pg1")


def body(message: bytes) -> bytes:
    return message[5:]


def login_in_scram() -> ServerLogin:
    login = ServerLogin(PRIMARY, "alice", "app", Cleartext(b"secret"))
    offer = body(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms([MECHANISM])))
    assert login.receive(codes.AUTHENTICATION, offer)
    return login


def test_a_server_that_asks_for_the_cleartext_password_in_the_middle_of_scram_does_not_get_it() -> None:
    request = body(messages.authentication(codes.AUTHENTICATION_CLEARTEXT_PASSWORD))
    with pytest.raises(ProtocolViolation, match="in the middle of SCRAM"):
        login_in_scram().receive(codes.AUTHENTICATION, request)


def test_a_server_that_begins_scram_twice_is_refused() -> None:
    offer = body(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms([MECHANISM])))
    with pytest.raises(ProtocolViolation, match="in the middle of SCRAM"):
        login_in_scram().receive(codes.AUTHENTICATION, offer)


def test_a_server_that_lets_us_in_before_its_scram_proof_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="without proving"):
        login_in_scram().receive(codes.AUTHENTICATION, body(messages.authentication(codes.AUTHENTICATION_OK)))


@pytest.mark.parametrize(
    "message",
    [
        messages.ready_for_query(codes.IDLE),
        messages.backend_key_data(1, b"1234"),
        messages.parameter_status("TimeZone", "UTC"),
    ],
)
def test_a_server_that_is_ready_before_it_let_us_in_is_refused(message: bytes) -> None:
    for login in (ServerLogin(PRIMARY, "alice", "app", None), login_in_scram()):
        with pytest.raises(ProtocolViolation, match="before it let us in"):
            login.receive(message[0], body(message))
        assert not login.done


def test_unknown_mechanisms_are_named_without_control_characters() -> None:
    offer = body(messages.authentication(codes.AUTHENTICATION_SASL, b"EVIL\r\n\x1b\xff\0\0"))
    with pytest.raises(ServerUnavailable) as raised:
        ServerLogin(PRIMARY, "alice", "app", Cleartext(b"secret")).receive(codes.AUTHENTICATION, offer)
    assert raised.value.message.isascii()
    assert raised.value.message.isprintable()


# -- protocol versions (protocol-flow-start-up) ------------------------------------------------------------------------

ASKING_3_2 = [ProtocolVersion.V3_2, ProtocolVersion.LATEST]


def login_asking(version: ProtocolVersion) -> ServerLogin:
    return ServerLogin(Backend(name="primary", host="pg1", max_protocol_version=version), "alice", "app", None)


def negotiate(login: ServerLogin, version: int, *options: str) -> None:
    login.receive(codes.NEGOTIATE_PROTOCOL_VERSION, body(messages.negotiate_protocol_version(version, options)))


def let_in(login: ServerLogin, cancel_key: bytes) -> None:
    login.receive(codes.AUTHENTICATION, body(messages.authentication(codes.AUTHENTICATION_OK)))
    login.receive(codes.BACKEND_KEY_DATA, body(messages.backend_key_data(7, cancel_key)))
    login.receive(codes.READY_FOR_QUERY, body(messages.ready_for_query(codes.IDLE)))


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        (ProtocolVersion.V3_0, codes.PROTOCOL_3_0),
        (ProtocolVersion.V3_2, codes.PROTOCOL_3_2),
        (ProtocolVersion.LATEST, codes.PROTOCOL_3_2),
    ],
)
def test_the_server_is_asked_for_the_version_that_its_backend_says(version: ProtocolVersion, asked: int) -> None:
    login = login_asking(version)
    assert login.startup() == messages.startup_message(asked, {"user": "alice", "database": "app"})


@pytest.mark.parametrize("version", ASKING_3_2)
@pytest.mark.parametrize("length", [4, 32, 256])
def test_a_server_of_protocol_3_2_gives_a_key_of_up_to_256_bytes(version: ProtocolVersion, length: int) -> None:
    login = login_asking(version)
    let_in(login, b"k" * length)
    assert login.done
    assert (login.process_id, login.cancel_key) == (7, b"k" * length)


@pytest.mark.parametrize("version", ASKING_3_2)
@pytest.mark.parametrize("known", [codes.PROTOCOL_3_0, codes.PROTOCOL_3_0 + 1])
def test_a_server_that_does_not_know_3_2_is_talked_to_in_what_it_knows(version: ProtocolVersion, known: int) -> None:
    login = login_asking(version)
    negotiate(login, known)
    assert login.version == known
    let_in(login, b"abcd")
    assert login.done


@pytest.mark.parametrize("length", [5, 32, 256])
def test_a_long_key_does_not_belong_to_protocol_3_0(length: int) -> None:
    negotiated = login_asking(ProtocolVersion.V3_2)
    negotiate(negotiated, codes.PROTOCOL_3_0)
    for login in (negotiated, login_asking(ProtocolVersion.V3_0)):
        with pytest.raises(ProtocolViolation, match=f"cancel key of {length} bytes in protocol 3.0"):
            let_in(login, b"k" * length)


@pytest.mark.parametrize("length", [0, 3, 257])
@pytest.mark.parametrize("version", ProtocolVersion)
def test_an_impossible_key_is_refused_in_any_version(length: int, version: ProtocolVersion) -> None:
    with pytest.raises(ProtocolViolation, match="malformed BackendKeyData"):
        let_in(login_asking(version), b"k" * length)


@pytest.mark.parametrize(
    ("asked", "version", "options"),
    [
        (ProtocolVersion.V3_0, codes.PROTOCOL_3_0, ()),
        (ProtocolVersion.V3_0, codes.PROTOCOL_3_2, ()),
        (ProtocolVersion.V3_2, codes.PROTOCOL_3_2, ()),
        (ProtocolVersion.V3_2, codes.PROTOCOL_3_2 + 1, ()),
        (ProtocolVersion.V3_2, 0x00020000, ()),
        (ProtocolVersion.V3_2, 0, ()),
        (ProtocolVersion.V3_2, codes.PROTOCOL_3_0, ("_pq_.anything",)),
    ],
)
def test_what_cannot_be_negotiated_is_refused(asked: ProtocolVersion, version: int, options: tuple[str, ...]) -> None:
    with pytest.raises(ProtocolViolation, match="negotiates what it was not asked for"):
        negotiate(login_asking(asked), version, *options)


def test_a_version_is_negotiated_once_and_before_anything_else() -> None:
    login = login_asking(ProtocolVersion.V3_2)
    negotiate(login, codes.PROTOCOL_3_0)
    with pytest.raises(ProtocolViolation):
        negotiate(login, codes.PROTOCOL_3_0)
    login = login_asking(ProtocolVersion.V3_2)
    login.receive(codes.AUTHENTICATION, body(messages.authentication(codes.AUTHENTICATION_OK)))
    with pytest.raises(ProtocolViolation, match="'v' during the login"):
        negotiate(login, codes.PROTOCOL_3_0)
