"""What is fuzzed: what reads bytes of somebody who has not proved who he is, and the files that say who may log in.

A target takes any bytes and must come back: with a value, or with the error that the peer is told.  Any other
exception, and an assertion in it that fails, is a bug.  `python -m tests.fuzz` lets atheris look for such bytes,
guided by the lines of code that they reach; `tests/protocol/test_fuzz_targets.py` lets Hypothesis draw them from
pieces that mean something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from typing import TypeVar

import msgspec

from pgpooler.config.choices import AuthMethod, ChannelBinding, ProtocolVersion
from pgpooler.config.hba import HbaRule, IdentLine, ident_text, rule_text
from pgpooler.config.hba_file import read_hba, read_ident
from pgpooler.config.hba_rules import HbaRules, IdentMaps
from pgpooler.config.model import Auth, Backend, User
from pgpooler.config.source import Sources
from pgpooler.config.userlist import parse_userlist
from pgpooler.errors import PeerError
from pgpooler.pooling.access import Accepted, Access, Challenge, LoginRequest
from pgpooler.pooling.login import startup_settings
from pgpooler.pooling.port import Encryption
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.pooling.traffic import EVERYTHING, TAKEN_LIMIT
from pgpooler.protocol import codes, messages
from pgpooler.protocol.certificates import end_point_binding
from pgpooler.protocol.framer import Framer
from pgpooler.protocol.passwords import Cleartext, Derivation, derive_keys, make_verifier, parse_secret
from pgpooler.protocol.scram import MECHANISM, MECHANISM_PLUS, ScramClient, ScramServer, State
from pgpooler.protocol.startup import CancelRequest, EncryptionRequest, Startup, StartupMessage
from tests.memory import MemoryPort
from tests.scripted import Client, Recording, Setting

T = TypeVar("T", HbaRule, IdentLine)

END = b"\n--\n"
"""Stands between two messages of one input."""
END_POINT = bytes(range(32))
ENCRYPTED = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384", END_POINT)
SALT = b"salty salt 16 by"
NONCE = b"clientnonce"
VERIFIER = make_verifier(b"secret", salt=SALT, iterations=1)
ACCESS = Access(Auth(method=AuthMethod.SCRAM_SHA_256, users={"alice": User(name="alice", password=VERIFIER.text())}))
SQLSTATES_OF_A_LOGIN = ("08P01", "0A000", "22023", "28000", "28P01", "42601")


def check_told(error: PeerError, *sqlstates: str) -> None:
    """An error that a peer is told can be told."""
    assert not sqlstates or error.sqlstate in sqlstates, error.sqlstate
    body = messages.error_response(error)[codes.HEADER :]
    assert body.endswith(b"\0\0")
    assert messages.read_error(body).sqlstate == error.sqlstate


def check_shown(text: str) -> None:
    """A text of ours about bytes of others can be shown to people."""
    assert text.isprintable()
    assert len(text) < 400


def startup_packet(data: bytes) -> None:
    """The packets of a client before it is asked who it is."""
    framer, startup = Framer(), Startup()
    framer.feed(bytearray(data), 0, len(data))
    try:
        while framer.startup(codes.STARTUP_LIMIT):
            packet = startup.receive(framer.body())
            framer.drop()
            if isinstance(packet, StartupMessage):
                assert 0 < len(packet.user.encode("utf-8", "surrogateescape")) <= 63
                assert codes.PROTOCOL_3_0 <= packet.version <= codes.PROTOCOL_3_2
                startup_settings(packet)
            else:
                assert isinstance(packet, CancelRequest | EncryptionRequest)
    except PeerError as error:
        check_told(error, *SQLSTATES_OF_A_LOGIN)


def sasl_of_a_client(data: bytes) -> None:
    """SASLInitialResponse and SASLResponse, to a login over TLS."""
    login = ACCESS.begin(LoginRequest("alice", "shop", "10.0.0.1:5000", None, ENCRYPTED))
    try:
        for body in data.split(END):
            answer = login.respond(body)
            assert not isinstance(answer, Accepted), "let in without a proof"
            assert isinstance(answer, Challenge)
    except PeerError as error:
        check_told(error, *SQLSTATES_OF_A_LOGIN)


def scram_of_a_client(data: bytes) -> None:
    """client-first-message and client-final-message, for either mechanism."""
    for mechanism in (MECHANISM, MECHANISM_PLUS):
        server = ScramServer(VERIFIER, "alice", mechanism=mechanism, end_point=END_POINT, nonce=b"servernonce")
        try:
            for payload in data.split(END):
                answer = server.receive(payload)
                assert len(answer) < 2048
            assert server.state is State.FINAL
        except PeerError as error:
            assert server.state is State.FAILED
            assert server.keys is None
            check_told(error, *SQLSTATES_OF_A_LOGIN)


def scram_of_a_server(data: bytes) -> None:
    """server-first-message and server-final-message."""
    first, _, final = data.partition(END)
    client = ScramClient(Cleartext(b"secret"), "alice", mechanism=MECHANISM_PLUS, end_point=END_POINT, nonce=NONCE)
    client.client_first()
    try:
        step = client.server_first(first)
        assert isinstance(step, Derivation)
        assert 0 < step.iterations <= 1_000_000
        client.client_final(derive_keys(step.password, step.salt, 1))
        client.server_final(final)
        raise AssertionError("a server without the password was believed")
    except PeerError as error:
        assert client.state is State.FAILED
        check_told(error, "08006")
        check_shown(error.message)


def login_to_a_server(data: bytes) -> None:
    """All that a server says from the StartupMessage on, to one login of every kind."""
    for encryption, binding in ((None, ChannelBinding.PREFER), (ENCRYPTED, ChannelBinding.REQUIRE)):
        latest = ProtocolVersion.LATEST
        backend = Backend(name="primary", host="pg1", channel_binding=binding, max_protocol_version=latest)
        login = ServerLogin(backend, "alice", "shop", Cleartext(b"the secret"))
        login.encryption = encryption
        framer = Framer()
        framer.feed(bytearray(data), 0, len(data))
        try:
            while not login.done and framer.run(EVERYTHING) and framer.take(TAKEN_LIMIT):
                kind, body = framer.type, framer.body()
                framer.drop()
                answer = login.receive(kind, body)
                if isinstance(answer, Derivation):
                    answer = login.derived(derive_keys(answer.password, answer.salt, 1))
                assert binding is not ChannelBinding.REQUIRE or b"the secret" not in answer
            assert not login.done or binding is not ChannelBinding.REQUIRE, "nothing was bound"
        except PeerError as error:
            check_told(error)


def error_response(data: bytes) -> None:
    """The body of an ErrorResponse or NoticeResponse of a server."""
    error = messages.read_error(data)
    assert len(error.sqlstate) == 5
    assert error.sqlstate.isascii()
    check_told(error)


def whole_client(data: bytes) -> None:
    """A client connection from its first byte, in the data plane: it is let in by nobody, and leaves nothing."""
    setting = Setting(method=AuthMethod.SCRAM_SHA_256, users={"alice": VERIFIER.text()})
    client = Client(setting.world, start=False)
    Recording(client.port)
    for piece in data.split(END):
        client.port.say(piece)
        setting.world.settle()
    client.port.leave()
    setting.world.pass_time(100)
    assert set(setting.world.counts().values()) == {0}
    assert not setting.world.ports


def whole_server(data: bytes) -> None:
    """A server connection from its first byte, in the data plane: its client is served or told, and nothing is left."""
    backend = Backend(name="primary", host="pg1", user="pooler", password="the secret")
    setting = Setting(backends=(backend,), server_connect_timeout=10, query_wait_timeout=20)

    def serve(port: MemoryPort, pool: object) -> None:
        Recording(port)
        for piece in data.split(END):
            port.say(piece)
        port.leave()

    setting.world.serve = serve
    client = Client(setting.world)
    setting.world.settle()
    client.leave()
    setting.world.pass_time(100)
    assert set(setting.world.counts().values()) == {0}


def userlist(data: bytes) -> None:
    """A file of users in PgBouncer's form, and the secrets in it."""
    text = data.decode("utf-8", "surrogateescape")
    for listed in parse_userlist(text, "userlist.txt", Sources("pgpooler.yaml", {})):
        assert listed.name
        assert 0 < listed.secret_place.line <= text.count("\n") + 1
        try:
            parse_secret(listed.secret)
        except ValueError as error:
            check_shown(str(error))


def hba_file(data: bytes) -> None:
    """A file in the form of pg_hba.conf: entries mean the same when they are written again, and decide any login."""
    text = data.decode("utf-8", "surrogateescape")
    sources = Sources("pgpooler.yaml", {})
    entries = read_hba(text, "pg_hba.conf", sources)
    check_places(sources, text)
    for entry in entries:
        assert written(read_hba, entry) == [msgspec.structs.replace(entry, place="pg_hba.conf:1:1")]
    rules = HbaRules(entries)
    for address in (None, IPv4Address("10.0.0.1"), IPv6Address("::1")):
        for encrypted, replication in product((False, True), repeat=2):
            found = rules.first("alice", "shop", address, encrypted=encrypted, replication=replication)
            assert found is None or found in entries


def ident_file(data: bytes) -> None:
    """A file in the form of pg_ident.conf: lines mean the same when they are written again, and judge any name."""
    text = data.decode("utf-8", "surrogateescape")
    sources = Sources("pgpooler.yaml", {})
    lines = read_ident(text, "pg_ident.conf", sources)
    check_places(sources, text)
    for line in lines:
        assert written(read_ident, line) == [line]
    maps = IdentMaps(lines)
    for name in {line.map for line in lines}:
        maps.allows(name, "alice.example.org", "alice")
    assert not maps.allows("a map that nobody wrote", "alice", "alice")


def check_places(sources: Sources, text: str) -> None:
    """What is wrong with a file is said at a place that it has."""
    for problem in sources.errors:
        assert 0 < (problem.line or 0) <= text.count("\n") + 1
        assert (problem.column or 0) > 0
        assert problem.message


def written(read: Callable[[str, str, Sources], tuple[T, ...]], line: T) -> list[T]:
    """What comes of a line as we write it."""
    text, file = (rule_text(line), "pg_hba.conf") if isinstance(line, HbaRule) else (ident_text(line), "pg_ident.conf")
    sources = Sources("pgpooler.yaml", {})
    lines = read(text, file, sources)
    assert sources.errors == []
    return list(lines)


def certificate(data: bytes) -> None:
    """A server's certificate."""
    assert len(end_point_binding(data)) in (0, 28, 32, 48, 64)


# -- the table ---------------------------------------------------------------------------------------------------------


def startup(*parameters: bytes, version: int = codes.PROTOCOL_3_0) -> bytes:
    return messages.packet(version.to_bytes(4, "big") + b"".join(text + b"\0" for text in parameters) + b"\0")


def initial(mechanism: str, data: bytes) -> bytes:
    return messages.sasl_initial_response(mechanism, data)


FIRST = b"n,,n=,r=" + NONCE
FIRST_BOUND = b"p=tls-server-end-point,,n=,r=" + NONCE
FINAL = b"c=biws,r=clientnonceservernonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
SERVER_FIRST = b"r=clientnoncex,s=c2FsdA==,i=4096"
SERVER_FINAL = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
GREETING = startup(b"user", b"alice", b"database", b"shop", b"options", b"-c a=b --c=d", b"_pq_.x", b"y")
SASL = messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms([MECHANISM_PLUS, MECHANISM]))
OK = messages.authentication(codes.AUTHENTICATION_OK)
KEY = messages.backend_key_data(1, b"abcd")
READY = messages.ready_for_query(codes.IDLE)
ERROR = messages.error_response(PeerError("full", sqlstate="53300", detail="detail", hint="hint"))
PIECES_OF_A_SERVER = (
    SASL,
    messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, SERVER_FIRST),
    messages.authentication(codes.AUTHENTICATION_SASL_FINAL, SERVER_FINAL),
    messages.authentication(codes.AUTHENTICATION_CLEARTEXT_PASSWORD),
    messages.authentication(codes.AUTHENTICATION_MD5_PASSWORD, b"salt"),
    messages.negotiate_protocol_version(codes.PROTOCOL_3_0, []),
    messages.parameter_status("TimeZone", "UTC"),
    OK,
    KEY,
    READY,
    ERROR,
)
REQUESTS = tuple(messages.packet(code.to_bytes(4, "big")) for code in (codes.SSL_REQUEST, codes.GSSENC_REQUEST))


@dataclass(frozen=True)
class Target:
    """`run` is what is fuzzed; `pieces` are what inputs are made of: seeds of atheris, letters of Hypothesis."""

    run: Callable[[bytes], None]
    pieces: tuple[bytes, ...]
    longest: int = 4096


TARGETS = {
    target.run.__name__: target
    for target in (
        Target(
            startup_packet,
            (
                *REQUESTS,
                GREETING,
                startup(b"user", b"alice", b"replication", b"database", version=codes.PROTOCOL_3_2 + 1),
                messages.cancel_request(1, b"abcd"),
            ),
        ),
        Target(
            sasl_of_a_client,
            (
                initial(MECHANISM, FIRST)[codes.HEADER :],
                initial(MECHANISM_PLUS, FIRST_BOUND)[codes.HEADER :],
                b"SCRAM-SHA-256\0\xff\xff\xff\xff",
                FIRST,
                END,
                FINAL,
            ),
        ),
        Target(scram_of_a_client, (FIRST, FIRST_BOUND, b"y,,", b"p=tls-unique,,", b"a=x", b"m=x", b",", END, FINAL)),
        Target(scram_of_a_server, (SERVER_FIRST, END, SERVER_FINAL, b"e=other-error", b"m=x", b"i=2147483648", b",")),
        Target(login_to_a_server, PIECES_OF_A_SERVER),
        Target(
            error_response, (ERROR[codes.HEADER :], b"SFATAL\0", b"C53300\0", b"Mfull\0", b"\0", b"C\r\n\xff\xff\0")
        ),
        Target(
            whole_client,
            (
                *REQUESTS,
                END,
                GREETING,
                initial(MECHANISM, FIRST),
                messages.sasl_response(FINAL),
                messages.password_message(b"secret"),
                messages.query("SELECT 1"),
                messages.SYNC,
                messages.TERMINATE,
            ),
        ),
        Target(whole_server, (*PIECES_OF_A_SERVER, END)),
        Target(
            userlist,
            (
                b'"alice" "secret"\n',
                b'"bob" "md5' + b"0" * 32 + b'"',
                VERIFIER.text().encode(),
                b'"',
                b'""',
                b";",
                b"\n",
            ),
        ),
        Target(
            hba_file,
            (
                b"local all all peer map=staff\n",
                b'hostssl shop,"sales" /^svc_ 10.0.0.0/8 cert clientname=DN\n',
                b'host replication al,"B o" ::1 ffff:: scram-sha-256 # why\n',
                b"hostnossl sameuser alice all reject\n",
                b" clientcert=verify-full",
                b'"',
                b'""',
                b",",
                b"\\\n",
                b"#",
            ),
        ),
        Target(
            ident_file,
            (
                b"staff root postgres\n",
                b"certs /^(.*)\\.example\\.org$ \\1\n",
                b'"a map" "alice.example.org" all\n',
                b"m /(a)|b \\1x",
                b'"',
                b"\\\n",
                b"#",
            ),
        ),
        Target(
            certificate,
            (
                bytes.fromhex(
                    "30293005020105302006092a864886f70d01010a3013a00d300b0609608648016503040202a2030201200300"
                ),
                bytes.fromhex("06092a864886f70d01010b0500"),
                bytes.fromhex("06032b65700500"),
                b"0\x82\x01\x00",
                b"0",
            ),
        ),
    )
}
