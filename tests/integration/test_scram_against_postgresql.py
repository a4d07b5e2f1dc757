"""Both roles of every login method against the originals: a real PostgreSQL, and libpq."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgpooler.config.choices import AuthMethod
from pgpooler.config.model import Auth, User
from pgpooler.demo.postgres import PostgresServer
from pgpooler.errors import PeerError
from pgpooler.pooling.access import Access, Challenge, LoginRequest
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import (
    Cleartext,
    Derivation,
    Md5Digest,
    ScramVerifier,
    Secret,
    answer_cleartext,
    answer_md5,
    make_verifier,
    md5_digest,
    parse_secret,
)
from pgpooler.protocol.scram import MECHANISM, ScramClient, ScramServer, State
from tests.integration.conftest import StartServer

TIMEOUT = 30.0

PASSWORDS = [
    "secret",
    " ",
    "a,b=c,d",
    "p'q\"r\\s$t:u",
    "\t\x01\x7f",
    "x" * 1000,
    "пароль",
    "cafe\u0301",  # composed by SASLprep
    "I\u00adX \u2168 \u00aa",  # mapped by SASLprep
    "a\u00a0b",
    "\u05d0a1\u05d0",  # prohibited: mixed directions
    "\u0221",  # prohibited: unassigned in Unicode 3.2
    "\u00ad",  # nothing is left
    "😀🔑",
]

MakeRole = Callable[[str | None], str]


@pytest.fixture
def make_role(postgres: PostgresServer) -> Iterator[MakeRole]:
    """Make login roles with a password or secret: `make_role(secret)` gives the name."""
    names: list[str] = []

    def make(secret: str | None) -> str:
        name = f"scram_{uuid.uuid4().hex}"
        execute(postgres, sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), secret))
        names.append(name)
        return name

    yield make
    for name in names:
        execute(postgres, sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def execute(server: PostgresServer, *statements: sql.Composed | sql.SQL) -> list[tuple[object, ...]]:
    """Run statements on one connection and return the rows of the last one."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def stored_secret(server: PostgresServer, role: str) -> Secret | None:
    """The role's pg_authid.rolpassword."""
    [(text,)] = execute(server, sql.SQL("SELECT rolpassword FROM pg_authid WHERE rolname = {}").format(role))
    assert isinstance(text, str)
    return parse_secret(text)


# -- our client role, towards PostgreSQL -------------------------------------------------------------------------------


class Wire:
    """Whole messages over a blocking socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(TIMEOUT)
        self.socket = connected
        self.stream: io.BufferedReader = connected.makefile("rb")

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_packet(self) -> bytes:
        """The body of a startup packet."""
        return self.stream.read(int.from_bytes(self.stream.read(4), "big") - 4)

    def read_message(self) -> tuple[int, bytes]:
        kind = self.stream.read(1)[0]
        return kind, self.read_packet()

    def read_authentication(self) -> tuple[int, bytes]:
        """The next authentication request; raises the PeerError the server sent instead."""
        kind, body = self.read_message()
        if kind == codes.ERROR_RESPONSE:
            raise messages.read_error(body)
        assert kind == codes.AUTHENTICATION
        return messages.read_authentication(body)


@contextlib.contextmanager
def started(server: PostgresServer, user: str) -> Iterator[Wire]:
    """A connection to the server that has sent its startup message."""
    wire = Wire(socket.create_connection((server.host, server.port), timeout=TIMEOUT))
    try:
        wire.send(messages.startup_message(codes.PROTOCOL_3_0, {"user": user, "database": "postgres"}))
        yield wire
    finally:
        wire.close()


def log_in(server: PostgresServer, user: str, secret: Secret | None) -> int:
    """Log in with our own code; which request the server made, or the PeerError it or our client role raised."""
    with started(server, user) as wire:
        request, payload = wire.read_authentication()
        if request == codes.AUTHENTICATION_CLEARTEXT_PASSWORD:
            wire.send(messages.password_message(answer_cleartext(secret, user)))
        elif request == codes.AUTHENTICATION_MD5_PASSWORD:
            wire.send(messages.password_message(answer_md5(secret, user, payload)))
        else:
            assert request == codes.AUTHENTICATION_SASL
            assert MECHANISM in messages.read_sasl_mechanisms(payload)
            log_in_with_scram(wire, ScramClient(secret, user))
        assert wire.read_authentication() == (codes.AUTHENTICATION_OK, b"")
        return request


def log_in_with_scram(wire: Wire, scram: ScramClient) -> None:
    wire.send(messages.sasl_initial_response(MECHANISM, scram.client_first()))
    request, payload = wire.read_authentication()
    assert request == codes.AUTHENTICATION_SASL_CONTINUE
    step = scram.server_first(payload)
    wire.send(messages.sasl_response(scram.client_final(step.run() if isinstance(step, Derivation) else step)))
    request, payload = wire.read_authentication()
    assert request == codes.AUTHENTICATION_SASL_FINAL
    scram.server_final(payload)
    assert scram.state is State.DONE


@pytest.mark.parametrize("password", PASSWORDS, ids=ascii)
def test_postgresql_accepts_our_proof_of_a_password_it_stored_itself(
    postgres: PostgresServer, make_role: MakeRole, password: str
) -> None:
    role = make_role(password)
    assert log_in(postgres, role, Cleartext(password.encode())) == codes.AUTHENTICATION_SASL
    with pytest.raises(PeerError) as raised:
        log_in(postgres, role, Cleartext(password.encode() + b"?"))
    assert raised.value.sqlstate == "28P01"


@pytest.mark.parametrize("password", [b"\xff\xfe", b"caf\xe9", "пароль".encode(), b"secret"])
def test_postgresql_accepts_our_proof_against_a_verifier_of_libpq_and_one_of_ours(
    postgres: PostgresServer, make_role: MakeRole, password: bytes
) -> None:
    with psycopg.connect(postgres.url()) as connection:
        theirs = connection.pgconn.encrypt_password(password, b"", b"scram-sha-256").decode()
    for verifier in (theirs, make_verifier(password).text(), make_verifier(password, salt=b"s", iterations=1).text()):
        log_in(postgres, make_role(verifier), Cleartext(password))


def test_libpq_logs_in_to_postgresql_with_a_verifier_of_ours(postgres: PostgresServer, make_role: MakeRole) -> None:
    for password in PASSWORDS:
        role = make_role(make_verifier(password.encode()).text())
        psycopg.connect(postgres.url(user=role, password=password)).close()


def test_the_keys_a_client_proved_to_us_log_in_to_postgresql(postgres: PostgresServer, make_role: MakeRole) -> None:
    role = make_role("secret")
    verifier = stored_secret(postgres, role)
    assert isinstance(verifier, ScramVerifier)
    users = Access(Auth(users={role: User(name=role, password=verifier.text())}))
    with pytest.raises(PeerError, match="only a SCRAM verifier"):
        log_in(postgres, role, users.server_credentials(role))
    with listening(users) as port:
        psycopg.connect(libpq_parameters(port, role, "secret")).close()
    log_in(postgres, role, users.server_credentials(role))


def test_postgresql_accepts_our_answers_to_every_method(start_server: StartServer) -> None:
    with start_server() as server:
        execute(server, sql.SQL("CREATE ROLE scram LOGIN PASSWORD 'secret'"))
        execute(
            server,
            sql.SQL("SET password_encryption = 'md5'"),
            sql.SQL("CREATE ROLE md5 LOGIN PASSWORD 'secret'"),
            sql.SQL("CREATE ROLE plain LOGIN PASSWORD 'secret'"),
        )
        server.set_authentication("host all plain all password", "host all scram,md5 all md5")
        digest = stored_secret(server, "md5")
        assert digest == md5_digest(b"secret", "md5")
        assert isinstance(digest, Md5Digest)
        for user, secret, request in (
            ("plain", Cleartext(b"secret"), codes.AUTHENTICATION_CLEARTEXT_PASSWORD),
            ("md5", Cleartext(b"secret"), codes.AUTHENTICATION_MD5_PASSWORD),
            ("md5", digest, codes.AUTHENTICATION_MD5_PASSWORD),
            ("scram", Cleartext(b"secret"), codes.AUTHENTICATION_SASL),
        ):
            assert log_in(server, user, secret) == request
            with pytest.raises(PeerError) as raised:
                log_in(server, user, Cleartext(b"wrong"))
            assert raised.value.sqlstate == "28P01"


# -- our server role, towards libpq ------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(users: Access) -> Iterator[int]:
    """A port where clients log in by `users` and find a session that is ready for queries and reads none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        stop = threading.Event()
        thread = threading.Thread(target=serve, args=(listener, users, stop))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            socket.create_connection(listener.getsockname(), timeout=TIMEOUT).close()
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def serve(listener: socket.socket, users: Access, stop: threading.Event) -> None:
    while True:
        connected = listener.accept()[0]
        wire = Wire(connected)
        try:
            if stop.is_set():
                return
            fields = wire.read_packet()[4:].split(b"\0")
            names = dict(zip(fields[::2], fields[1::2], strict=False))
            try:
                accept_client(wire, users, messages.decode_text(names[b"user"]))
            except PeerError as error:
                wire.send(messages.error_response(error))
            else:
                wire.send(messages.authentication(codes.AUTHENTICATION_OK) + messages.ready_for_query(codes.IDLE))
                wire.stream.read()
        finally:
            wire.close()


def accept_client(wire: Wire, users: Access, user: str) -> None:
    address = IPv4Address("127.0.0.1")
    exchange = users.begin(LoginRequest(user, user, f"{address}:5000", address, encryption=None))
    if exchange.request[0] == codes.AUTHENTICATION_OK:
        return
    wire.send(messages.authentication(*exchange.request))
    while True:
        reply = exchange.respond(wire.read_message()[1])
        if isinstance(reply, Derivation):
            reply = exchange.derived(reply.run())
        if isinstance(reply, Challenge):
            wire.send(messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, reply.payload))
            continue
        if reply.payload is not None:
            wire.send(messages.authentication(codes.AUTHENTICATION_SASL_FINAL, reply.payload))
        return


def libpq_parameters(port: int, user: str, password: str) -> str:
    return psycopg.conninfo.make_conninfo(
        host="127.0.0.1", port=port, user=user, password=password, sslmode="disable", gssencmode="disable"
    )


@pytest.mark.parametrize("method", [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN])
def test_libpq_logs_in_by_what_postgresql_stored(
    postgres: PostgresServer, make_role: MakeRole, method: AuthMethod
) -> None:
    roles = {make_role(password): password for password in PASSWORDS}
    secrets = {role: stored_secret(postgres, role) for role in roles}
    assert all(isinstance(secret, ScramVerifier) for secret in secrets.values())
    texts = {role: secret.text() for role, secret in secrets.items() if isinstance(secret, ScramVerifier)}
    users = Access(Auth(method=method, users={role: User(name=role, password=text) for role, text in texts.items()}))
    with listening(users) as port:
        for role, password in roles.items():
            psycopg.connect(libpq_parameters(port, role, password)).close()
            for user in (role, f"not_{role}"):
                with pytest.raises(psycopg.OperationalError, match=f'password authentication failed for user "{user}"'):
                    psycopg.connect(libpq_parameters(port, user, password + "?"))


@pytest.mark.parametrize("method", [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN, AuthMethod.TRUST])
def test_libpq_logs_in_by_a_cleartext_secret_with_every_method_that_needs_no_certificate(method: AuthMethod) -> None:
    by_name = {f"user {number}": password for number, password in enumerate(PASSWORDS)}
    by_name["имя"] = "secret"
    users = Access(Auth(method=method, users={name: User(name=name, password=text) for name, text in by_name.items()}))
    with listening(users) as port:
        for user, password in by_name.items():
            psycopg.connect(libpq_parameters(port, user, password)).close()
        with pytest.raises(psycopg.OperationalError, match="nobody"):
            psycopg.connect(libpq_parameters(port, "nobody", "secret"))


# -- the same answers as PostgreSQL to bad messages --------------------------------------------------------------------

BAD_FIRST = [
    b"",
    b"n",
    b"n,",
    b"n,,",
    b"n,,n",
    b"n,,n=",
    b"n,,n=x",
    b"n,,n=,",
    b"n,,n=,s=x",
    b"n,,r=x,n=",
    b"n,,n=,r= x",
    b"n,,n=,r=\xff",
    b"n,,n=,r=x\0",
    b"n,,n=,r=x,1=y",
    b"n,a=bob,n=,r=x",
    b"n,b=bob,n=,r=x",
    b"n,,m=x,n=,r=x",
    b"x,,n=,r=x",
    b"p=tls-server-end-point,,n=,r=x",
    b"p=,,n=,r=x",
]
BAD_FINAL = [
    b"",
    b"c=biws",
    b"c=biws,r=NONCE",
    b"c=biws,r=NONCE,",
    b"c=biws,r=NONCE,p",
    b"c=biws,r=NONCE,p=",
    b"c=biws,r=NONCE,p=YQ==",
    b"c=biws,r=NONCE,p=" + b"A" * 43 + b"=,x=y",
    b"c=biws,r=NONCE,p=" + b"*" * 43 + b"=",
    b"c=biws,r=NONCEx,p=" + b"A" * 43 + b"=",
    b"c=biws,r=x,p=" + b"A" * 43 + b"=",
    b"c=eSws,r=NONCE,p=" + b"A" * 43 + b"=",
    b"c=,r=NONCE,p=" + b"A" * 43 + b"=",
    b"r=NONCE,c=biws,p=" + b"A" * 43 + b"=",
    b"c=biws,r=NONCE,x=y,p=" + b"A" * 43 + b"=",
    b"c=biws,r=NONCE,p=" + b"A" * 43 + b"=",
]


def answer(first: bytes, final: bytes | None, send: Callable[[bytes], bytes]) -> tuple[str, str]:
    """SQLSTATE and message that come of these messages; NONCE stands for the nonce of the server."""
    try:
        reply = send(first)
        if final is not None:
            send(final.replace(b"NONCE", reply.split(b",")[0][2:]))
    except PeerError as error:
        return error.sqlstate, error.message
    pytest.fail("the messages were accepted")


@pytest.mark.parametrize("exists", [True, False], ids=["known user", "unknown user"])
@pytest.mark.parametrize(
    ("first", "final"),
    [(first, None) for first in BAD_FIRST] + [(b"n,,n=,r=x", final) for final in BAD_FINAL],
    ids=ascii,
)
def test_a_bad_message_is_refused_as_postgresql_refuses_it(
    postgres: PostgresServer, make_role: MakeRole, first: bytes, final: bytes | None, exists: bool
) -> None:
    role = make_role("secret") if exists else "nobody"
    server = ScramServer(make_verifier(b"secret"), role)
    with started(postgres, role) as wire:
        wire.read_authentication()

        def send(payload: bytes) -> bytes:
            is_first = payload is first
            wire.send(
                messages.sasl_initial_response(MECHANISM, payload) if is_first else messages.sasl_response(payload)
            )
            return wire.read_authentication()[1]

        theirs = answer(first, final, send)
    assert answer(first, final, server.receive) == theirs


# -- SASLprep, as libpq does it ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def same_verifier(postgres: PostgresServer) -> Iterator[Callable[[bytes], bool]]:
    """Whether libpq and we make the same verifier of a password (PostgreSQL 16 lets it be made in one iteration)."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        if postgres.version_number >= 16:
            connection.execute("SET scram_iterations = 1")

        def compare(password: bytes) -> bool:
            theirs = connection.pgconn.encrypt_password(password, b"", b"scram-sha-256").decode()
            verifier = parse_secret(theirs)
            assert isinstance(verifier, ScramVerifier)
            ours = make_verifier(password, salt=verifier.salt, iterations=verifier.iterations)
            return ours.text() == theirs

        yield compare


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
    | st.text("aé\u0301\u00ad\u00a0\u05d0\u0627٣1\u200e\u0221ﬁⅨ", min_size=1)
)
def test_a_password_is_prepared_as_libpq_prepares_it(same_verifier: Callable[[bytes], bool], text: str) -> None:
    assert same_verifier(text.encode())


@given(password=st.binary(min_size=1).filter(lambda password: b"\0" not in password))
def test_bytes_that_are_not_utf8_are_used_as_libpq_uses_them(
    same_verifier: Callable[[bytes], bool], password: bytes
) -> None:
    assert same_verifier(password)


def test_characters_from_all_over_unicode_are_prepared_as_libpq_prepares_them(
    postgres: PostgresServer, same_verifier: Callable[[bytes], bool]
) -> None:
    stride = 31 if postgres.version_number >= 16 else 4001
    frames = ["{}", "a{}b", "\u05d0{}\u05d0", "e{}"]
    different = []
    for number, point in enumerate(range(0x80, 0x110000, stride)):
        if not 0xD800 <= point <= 0xDFFF:
            password = frames[number % len(frames)].format(chr(point))
            if not same_verifier(password.encode()):
                different.append(hex(point))
    assert different == []
