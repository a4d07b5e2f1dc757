"""Servers that are broken, foreign or malicious: a clear error to the client, and nothing of PgPooler suffers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import backend, encode
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.faults import FakeServer, FaultProxy, reset
from tests.integration.servers import TwoServers
from tests.integration.wire import SYNC, TERMINATE, Closed, Wire, error_fields, parse, query, sqlstate, typed

Script = Callable[[socket.socket], None]

OK = encode(backend("AuthenticationOk"))
SASL = encode(backend("AuthenticationSASL", mechanisms=(b"SCRAM-SHA-256",)))
KEY = encode(backend("BackendKeyData", process_id=1, key=b"abcd"))
READY = encode(backend("ReadyForQuery", status=b"I"))
GREETING = OK + encode(backend("ParameterStatus", parameter=b"server_version", setting=b"18.0")) + KEY + READY
ENDLESS = 4 << 20  # bytes of something a server could send for ever


# -- scripts -------------------------------------------------------------------------------------------------------


def message(connection: socket.socket, *, typed_: bool = True) -> bytes:
    """The next whole message from PgPooler, its header included; empty when there is none."""
    data = b""
    header = 5 if typed_ else 4
    with contextlib.suppress(OSError):
        while len(data) < header or len(data) < header - 4 + int.from_bytes(data[header - 4 : header], "big"):
            received = connection.recv(1)
            if not received:
                return b""
            data += received
    return data


def says(*data: bytes, then: str = "stay") -> Script:
    """A server that says this after the startup packet, then stays silent, closes, or resets."""

    def script(connection: socket.socket) -> None:
        message(connection, typed_=False)
        connection.sendall(b"".join(data))
        finish(connection, then)

    return script


def finish(connection: socket.socket, then: str) -> None:
    if then == "stay":
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
    elif then == "reset":
        reset(connection)


def scram(challenge: Callable[[bytes], bytes], behind: bytes = b"") -> Script:
    """A server that asks for SCRAM, and answers the client's nonce with this challenge."""

    def script(connection: socket.socket) -> None:
        message(connection, typed_=False)
        connection.sendall(SASL)
        nonce = message(connection).rpartition(b"r=")[2]
        connection.sendall(typed(ord("R"), struct.pack("!I", 11) + challenge(nonce)) + behind)
        finish(connection, "stay")

    return script


def challenge_of(nonce: bytes, salt: bytes = b"c2FsdHNhbHRzYWx0c2E=", iterations: object = 4096) -> bytes:
    return b"r=%b,s=%b,i=%b" % (nonce, salt, str(iterations).encode())


def without_proof(final: bytes) -> Script:
    """A server that takes any proof and sends this instead of its signature."""

    def script(connection: socket.socket) -> None:
        message(connection, typed_=False)
        connection.sendall(SASL)
        nonce = message(connection).rpartition(b"r=")[2]
        connection.sendall(typed(ord("R"), struct.pack("!I", 11) + challenge_of(nonce + b"server")))
        message(connection)
        connection.sendall(final)
        finish(connection, "stay")

    return script


def final(signature: bytes) -> bytes:
    return typed(ord("R"), struct.pack("!I", 12) + signature)


def error(*fields: tuple[bytes, bytes]) -> bytes:
    return typed(ord("E"), b"".join(code + text + b"\0" for code, text in fields) + b"\0")


LOGINS: dict[str, Script] = {
    "closes at once": says(then="close"),
    "resets at once": says(then="reset"),
    "closes after a byte": says(b"R", then="close"),
    "closes in the middle of a message": says(SASL[:9], then="close"),
    "closes after AuthenticationOk": says(OK, then="close"),
    "closes before ReadyForQuery": says(OK + KEY, then="close"),
    "random bytes": says(bytes(range(256)) * 4),
    "an HTTP answer": says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", then="close"),
    "the error of protocol 2": says(b"EFATAL:  unsupported frontend protocol\n\0", then="close"),
    **{
        f"a message of length {length}": says(typed(ord("R"), length=length))
        for length in (0, 3, 0x7FFFFFFF, 0xFFFFFFFF)
    },
    "a message of type 0": says(typed(0, b"abc")),
    "an authentication request without a number": says(typed(ord("R"), b"\0\0")),
    "an authentication request of an unknown number": says(typed(ord("R"), struct.pack("!I", 99))),
    "Kerberos": says(encode(backend("AuthenticationKerberosV5"))),
    "GSSAPI": says(encode(backend("AuthenticationGSS"))),
    "an MD5 salt of 3 bytes": says(typed(ord("R"), struct.pack("!I", 5) + b"abc")),
    "an MD5 salt of 5 bytes": says(typed(ord("R"), struct.pack("!I", 5) + b"abcde")),
    "no SASL mechanism": says(typed(ord("R"), struct.pack("!I", 10) + b"\0")),
    "SASL mechanisms without an end": says(typed(ord("R"), struct.pack("!I", 10) + b"SCRAM-SHA-2")),
    "an unknown SASL mechanism": says(typed(ord("R"), struct.pack("!I", 10) + b"PLAIN\0\0")),
    "SASLContinue before SASL": says(typed(ord("R"), struct.pack("!I", 11) + challenge_of(b"nonce"))),
    "SASLFinal before SASL": says(final(b"v=abcd")),
    "SASL twice": says(SASL + SASL),
    "a cleartext request after SASL": says(SASL + encode(backend("AuthenticationCleartextPassword"))),
    "AuthenticationOk before the proof": says(SASL + GREETING),
    "AuthenticationOk before SASLFinal": scram(lambda nonce: challenge_of(nonce + b"x"), GREETING),
    "AuthenticationOk instead of SASLFinal": without_proof(GREETING),
    "a wrong signature": without_proof(final(b"v=" + base64.b64encode(bytes(32))) + GREETING),
    "a signature that is no base64": without_proof(final(b"v=!!!") + GREETING),
    "an empty SASLFinal": without_proof(final(b"") + GREETING),
    "an error in SASLFinal": without_proof(final(b"e=invalid-proof") + GREETING),
    "the client's own nonce": scram(challenge_of),
    "another nonce": scram(lambda nonce: challenge_of(b"x" * len(nonce))),
    "an empty challenge": scram(lambda nonce: b""),
    "a challenge of commas": scram(lambda nonce: b"," * 500),
    "a challenge with a zero": scram(lambda nonce: challenge_of(nonce + b"x") + b"\0"),
    "a nonce of 64 kB (CVE-2026-6665)": scram(lambda nonce: challenge_of(nonce + b"x" * 65_536)),
    "a nonce of 2 MB": scram(lambda nonce: challenge_of(nonce + b"x" * 2_000_000)),
    "no salt": scram(lambda nonce: b"r=" + nonce + b"x,i=4096"),
    "an empty salt": scram(lambda nonce: challenge_of(nonce + b"x", salt=b"")),
    "a salt that is no base64": scram(lambda nonce: challenge_of(nonce + b"x", salt=b"####")),
    "no iteration count": scram(lambda nonce: b"r=" + nonce + b"x,s=c2FsdA=="),
    **{
        f"{count} iterations": scram(lambda nonce, count=count: challenge_of(nonce + b"x", iterations=count))
        for count in (0, -1, 2**31 - 1, 2**31, 2**64, "", "x", "1e9", "٣")
    },
    "an unknown message": says(OK + typed(ord("?"), b"what")),
    "a row before ReadyForQuery": says(OK + encode(backend("DataRow", values=(b"1",)))),
    "a ParameterStatus without a value": says(OK + typed(ord("S"), b"name\0")),
    "a ParameterStatus without zeros": says(OK + typed(ord("S"), b"name")),
    "a ParameterStatus of 2 MB": says(OK + typed(ord("S"), b"name\0" + b"v" * 2_000_000 + b"\0")),
    "a cancel key without bytes": says(OK + typed(ord("K"), struct.pack("!I", 1))),
    "a cancel key of 300 bytes": says(OK + typed(ord("K"), struct.pack("!I", 1) + bytes(300))),
    "a ReadyForQuery without a status": says(OK + KEY + typed(ord("Z"))),
    "a ReadyForQuery of an unknown status": says(OK + KEY + typed(ord("Z"), b"X")),
    "ReadyForQuery before AuthenticationOk": says(KEY + READY),
    "an ErrorResponse without fields (CVE-2026-6666)": says(typed(ord("E"), b"\0"), then="close"),
    "an empty ErrorResponse": says(typed(ord("E")), then="close"),
    "an ErrorResponse without a SQLSTATE": says(error((b"S", b"FATAL"), (b"M", b"no")), then="close"),
    "an ErrorResponse without a message": says(error((b"S", b"FATAL"), (b"C", b"53300")), then="close"),
    "an ErrorResponse without a severity": says(error((b"C", b"53300"), (b"M", b"full")), then="close"),
    "an ErrorResponse without an end": says(typed(ord("E"), b"SFATAL\0Cabc"), then="close"),
    "an ErrorResponse with an impossible SQLSTATE": says(error((b"C", b"\xff\n"), (b"M", b"no")), then="close"),
    "an ErrorResponse of 2 MB": says(error((b"M", b"x" * 2_000_000)), then="close"),
    "an ErrorResponse and no close": says(error((b"S", b"FATAL"), (b"C", b"53300"), (b"M", b"full"))),
    "never answers": says(),
    "endless notices": says(typed(ord("N"), b"SNOTICE\0Mhello\0\0") * (ENDLESS // 20)),
    "endless parameters": says(OK + typed(ord("S"), b"a\0b\0") * (ENDLESS // 10)),
}


def with_hostile(two_servers: TwoServers, hostile: FakeServer | FaultProxy, **keys: Any) -> dict[str, Any]:
    """A configuration in which the database `hostile` is on that server, and every other one on the primary."""
    return two_servers.configuration(
        backends=[
            two_servers.backend("primary"),
            {"name": "hostile", "host": "127.0.0.1", "port": hostile.port, "server_connect_timeout": 1, **keys},
        ],
        routing={
            "rules": [{"database": "hostile", "backend": "hostile"}, {"default": True, "backend": "primary"}],
        },
    )


def assert_served(under_test: RunningDataPlane) -> None:
    with under_test.wire() as client:
        client.log_in()
        assert client.values("SELECT 1") == ["1"]
        client.send(TERMINATE)
        client.everything()


def warnings_about(under_test: RunningDataPlane, hostile: FakeServer) -> list[str]:
    """What the operator reads about a server: the reasons of all warnings that name it."""
    lines = [record.getMessage() for record in under_test.records if record.levelno == logging.WARNING]
    named = [line for line in lines if f"backend=hostile (127.0.0.1:{hostile.port})" in line]
    return [line.partition(" reason=")[2] for line in named]


@pytest.mark.parametrize("case", LOGINS)
def test_a_server_that_does_not_let_us_in_is_a_clear_error_to_the_client(
    case: str, two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    """CVE-2026-6665, CVE-2026-6666, W22."""
    with FakeServer(LOGINS[case]) as hostile:
        under_test = data_plane(with_hostile(two_servers, hostile))
        with under_test.wire() as client:
            assert client.authenticate("postgres", "postgres", "hostile").name == "AuthenticationOk"
            refusal = client.last_words()
            assert refusal is not None
            fields = error_fields(refusal)
            assert fields["S"] == fields["V"] == "FATAL"
            assert len(fields["C"]) == 5
            assert fields["C"].isascii()
            assert fields["C"].isalnum()
            assert fields["M"].strip()
            assert f"hostile (127.0.0.1:{hostile.port})" in fields["D"]
        assert_served(under_test)
        assert warnings_about(under_test, hostile) == [f"login failed: {fields['M']}"]
        under_test.wait_until_unused()
        assert {pool["database"] for pool in under_test.snapshot()["pools"] if pool["idle"]} == {"postgres"}


# -- in the session ------------------------------------------------------------------------------------------------


def serves(answer: bytes, *, reset_query: bool = True) -> Script:
    """A server without a password that answers every Query with this, and DISCARD ALL in the proper way."""

    def script(connection: socket.socket) -> None:
        if message(connection, typed_=False)[4:8] != struct.pack("!I", 196608):
            return  # a cancel request
        connection.sendall(GREETING)
        while request := message(connection):
            if request[:1] == b"X":
                return
            cleaning = request[5:-1] in (b"DISCARD ALL", b"ROLLBACK")
            connection.sendall(CLEANED if cleaning and reset_query else answer)

    return script


CLEANED = encode(backend("CommandComplete", tag=b"DISCARD ALL")) + READY
DONE = encode(backend("CommandComplete", tag=b"SELECT 0"))


@pytest.mark.parametrize(
    "answer",
    [
        typed(ord("?"), b"what") + READY,
        typed(0) + READY,
        typed(ord("D"), length=2),
        typed(ord("D"), length=0x7FFFFFFF),
        typed(ord("Z")),
        typed(ord("Z"), b"X"),
        DONE + READY + READY,
        typed(ord("S"), b"name"),
        typed(ord("S"), b"v" * 2_000_000),
        typed(ord("R"), struct.pack("!I", 0)) + READY,
    ],
    ids=[
        "unknown type",
        "type 0",
        "length 2",
        "length 2 GiB - 1",
        "no status",
        "unknown status",
        "ready twice",
        "broken ParameterStatus",
        "huge ParameterStatus",
        "AuthenticationOk",
    ],
)
def test_a_server_that_breaks_the_protocol_in_a_session_is_closed_and_its_client_told(
    answer: bytes, two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    with FakeServer(serves(answer)) as hostile:
        under_test = data_plane(with_hostile(two_servers, hostile))
        with under_test.wire() as client:
            client.log_in(database="hostile")
            client.send(query("SELECT 1"))
            assert sqlstate(client.last_words()) == "08P01"
        assert_served(under_test)
        under_test.wait_until_unused()


@pytest.mark.parametrize(
    "answer",
    [typed(ord("E")), typed(ord("E"), b"\0"), error((b"M", b"no SQLSTATE")), typed(ord("E"), b"SERROR\0Cabc")],
    ids=["no body", "no fields", "no SQLSTATE", "no end"],
)
def test_strange_errors_of_a_server_pass_unchanged(
    answer: bytes, two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    with FakeServer(serves(answer + READY)) as hostile:
        under_test = data_plane(with_hostile(two_servers, hostile))
        with under_test.wire() as client:
            client.log_in(database="hostile")
            client.send(query("SELECT 1"))
            received = b""
            while not received.endswith(READY):
                received += client.receive()
            assert received == answer + READY
        under_test.wait_until_unused()


@pytest.mark.parametrize(
    "answer",
    [error((b"S", b"ERROR"), (b"M", b"no")) + READY, typed(ord("E"), b"\0") + READY, typed(ord("?")), b"garbage"],
    ids=["an error", "an error without fields", "an unknown message", "garbage"],
)
def test_a_connection_that_cannot_be_cleaned_is_not_used_again(
    answer: bytes, two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    """W4."""
    with FakeServer(serves(answer, reset_query=False)) as hostile:
        under_test = data_plane(with_hostile(two_servers, hostile))
        with under_test.wire() as client:
            client.log_in(database="hostile")
            client.send(TERMINATE)
            client.everything()
        under_test.wait_until_unused()
        assert under_test.idle() == 0


@pytest.mark.parametrize("says_what", [b"\0", b"X" * 100, READY, typed(ord("E"), b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0")])
def test_an_idle_connection_whose_server_speaks_out_of_turn_is_not_given_to_the_next_client(
    says_what: bytes, two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    connections: list[socket.socket] = []

    def script(connection: socket.socket) -> None:
        connections.append(connection)
        serves(DONE + READY)(connection)

    with FakeServer(script) as hostile:
        under_test = data_plane(with_hostile(two_servers, hostile))
        with under_test.wire() as client:
            client.log_in(database="hostile")
            client.send(TERMINATE)
            client.everything()
        wait_until(lambda: under_test.idle() == 1)
        connections[0].sendall(says_what)
        if len(says_what) > 1:
            wait_until(lambda: under_test.idle() == 0)
        with under_test.wire() as client:
            client.log_in(database="hostile")
            if len(says_what) > 1:
                assert [reply.name for reply in client.ask("SELECT 1")] == ["CommandComplete", "ReadyForQuery"]


# -- a server that dies in the middle of what it says --------------------------------------------------------------


@pytest.fixture
def cuttable(postgres: PostgresServer) -> Iterator[FaultProxy]:
    """A relay to PostgreSQL that can be told to cut."""
    with FaultProxy((postgres.host, postgres.port)) as proxy:
        yield proxy


def pooled_behind(two_servers: TwoServers, proxy: FaultProxy) -> dict[str, Any]:
    return two_servers.configuration(backends=[{"name": "primary", "host": "127.0.0.1", "port": proxy.port}])


@pytest.mark.parametrize("with_reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("count", [100, 5_000, 70_000, 1_000_000])
def test_server_death_inside_a_row_closes_the_client_without_one_more_byte(
    count: int, with_reset: bool, two_servers: TwoServers, cuttable: FaultProxy, data_plane: DataPlaneFactory
) -> None:
    under_test = data_plane(pooled_behind(two_servers, cuttable))
    text = "SELECT repeat('x', 2000000)"
    with under_test.wire() as client:
        client.log_in()
        client.send(query(text))
        whole = b""
        while not whole.endswith(b"SELECT 1\0" + READY):
            whole += client.receive()
        cuttable.cut_after(count, with_reset=with_reset)
        client.send(query(text))
        received = client.everything()
        assert whole.startswith(received)
        assert with_reset or len(received) == count
    cuttable.mend()
    assert_served(under_test)


def test_server_death_at_any_byte_of_a_reply_leaves_the_client_a_valid_stream(
    two_servers: TwoServers, cuttable: FaultProxy, data_plane: DataPlaneFactory
) -> None:
    """Whole messages, then an error of ours; or, where part of a message has been passed on, nothing more at all."""
    under_test = data_plane(pooled_behind(two_servers, cuttable))
    request = query("SELECT 'abc', NULL") + parse("SELECT nonsense") + SYNC
    with Wire(cuttable.address) as direct:
        direct.log_in()
        direct.send(request)
        whole = direct.until() + direct.until()
    length = sum(len(encode(message)) for message in whole)
    boundaries = {0}
    for each in whole:
        boundaries.add(max(boundaries) + len(encode(each)))
    for count in range(1, length):
        cuttable.mend()
        with under_test.wire() as client:
            client.log_in()
            cuttable.cut_after(count)
            client.send(request)
            try:
                messages = client.rest()
            except Closed:
                assert count not in boundaries
            else:
                assert messages[-1].name == "ErrorResponse"
                assert sqlstate(messages[-1]) == "08006"
                arrived = sum(0 < boundary <= count for boundary in boundaries)
                assert messages[:-1] == whole[:arrived]
    cuttable.mend()
    assert_served(under_test)


def test_a_server_that_proves_that_it_knows_the_password_is_believed(
    two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    """The scripts above fail for the reason they name: a fake that does everything right is served from."""

    def script(connection: socket.socket) -> None:
        message(connection, typed_=False)
        connection.sendall(SASL)
        first = message(connection).partition(b"n,,")[2]
        nonce = first.partition(b"r=")[2] + base64.b64encode(os.urandom(9))
        challenge = challenge_of(nonce)
        connection.sendall(typed(ord("R"), struct.pack("!I", 11) + challenge))
        without = message(connection)[5:].rpartition(b",p=")[0]
        salted = hashlib.pbkdf2_hmac("sha256", b"postgres", base64.b64decode(b"c2FsdHNhbHRzYWx0c2E="), 4096)
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        signature = hmac.digest(server_key, b",".join((first, challenge, without)), "sha256")
        connection.sendall(final(b"v=" + base64.b64encode(signature)) + GREETING)
        while request := message(connection):
            connection.sendall(CLEANED if request[:1] == b"Q" else b"")

    with FakeServer(script) as fake:
        under_test = data_plane(with_hostile(two_servers, fake))
        with under_test.wire() as client:
            client.log_in(database="hostile")
