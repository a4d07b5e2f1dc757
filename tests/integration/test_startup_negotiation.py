"""The beginning of a connection, byte for byte as PostgreSQL 18 answers it (W13; protocol-flow-start-up).

Every case is sent to a real PostgreSQL and to PgPooler, and what comes back up to the close is compared.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgpooler.demo import postgres as providers
from pgpooler.demo.postgres import PostgresServer
from spec.codec import Malformed, decode, encode, frontend, message_end
from spec.messages import Sender
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    TERMINATE,
    Address,
    Wire,
    cancel_request,
    error_fields,
    query,
    startup,
    typed,
)

NEWEST = 18


@pytest.fixture(scope="module")
def postgresql_18(two_servers: TwoServers) -> Iterator[PostgresServer]:
    """A server of the version whose answers are ours: one that runs anyway, or else the embedded one."""
    if two_servers.primary.version_number >= NEWEST:
        yield two_servers.primary
    else:
        with providers.choose(providers.EMBEDDED).start(password="postgres") as server:
            yield server


@pytest.fixture(scope="module")
def in_front(postgresql_18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDataPlane]:
    """PgPooler before that server."""
    directory: Path = tmp_path_factory.mktemp("negotiation")
    factory = DataPlaneFactory(directory)
    backend = {"name": "primary", "host": postgresql_18.host, "port": postgresql_18.port}
    user = {postgresql_18.superuser: {"password": postgresql_18.password}}
    yield factory({"backends": [backend], "auth": {"users": user}})
    factory.stop()


def said(data: bytes) -> list[object]:
    """What the bytes of a server say, in a form that may be compared; bytes that are no message stay bytes."""
    found: list[object] = []
    while data:
        try:
            end = message_end(data, Sender.BACKEND)
            if end is None or end > len(data):
                raise Malformed("cut off", len(data))
            message = decode(data[:end], Sender.BACKEND)
        except Malformed:
            return [*found, data]
        data = data[end:]
        fields = error_fields(message) if message.name == "ErrorResponse" else message.fields
        found.append((message.name, fields))
    return found


def conversation(address: Address, *packets: bytes, at_once: bool = True) -> list[object]:
    """Send packets, each after the byte that answers the one before, close our side, and listen to the end."""
    answers: list[object] = []
    with Wire(address) as wire:
        for number, packet in enumerate(packets):
            if number:
                answers.append(wire.byte())
            for part in [packet] if at_once else [packet[at : at + 1] for at in range(len(packet))]:
                wire.send_if_possible(part)
        wire.end_sending()
        asked_for_encryption = packets[-1].startswith((SSL_REQUEST, GSSENC_REQUEST))
        if asked_for_encryption and (answer := wire.byte()) != b"E":
            answers.append(answer)
        elif asked_for_encryption:
            wire.received = answer + wire.received
        return [*answers, *said(wire.everything())]


def packet(code: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("!II", 8 + len(body) if length is None else length, code) + body


GOOD = startup("postgres", "postgres")
VERSION_3_0 = 196608

CONVERSATIONS: dict[str, tuple[bytes, ...]] = {
    "version 3.0": (GOOD,),
    "version 3.1": (startup("postgres", minor=1),),
    "version 3.2": (startup("postgres", minor=2),),
    "version 3.3": (startup("postgres", minor=3),),
    "version 3.9999": (startup("postgres", minor=9999),),
    "version 3.9999 and options": (startup("postgres", minor=9999, _pq_a="1", _pq_b="2"),),
    "unknown protocol options": (startup("postgres", minor=2, _pq_a="1", _pq_command_tag="yes"),),
    "an unknown protocol option in 3.0": (startup("postgres", _pq_a="1"),),
    "an unknown protocol option of 300 bytes": (startup("postgres", **{"_pq_" + "o" * 300: "1"}),),
    "the name of a protocol option twice": (packet(VERSION_3_0 + 2, b"user\0postgres\0_pq_.a\0x\0_pq_.a\0y\0\0"),),
    "an almost protocol option": (startup("postgres", _pq="1"),),
    "version 2.0": (packet(0x20000, b"postgres" + bytes(280)),),
    "version 2.0, short": (packet(0x20000),),
    "version 1.0": (packet(0x10000),),
    "version 0.0": (packet(0),),
    "version 4.0": (packet(0x40000, b"user\0postgres\0\0"),),
    "version 4.1 with nothing": (packet(0x40001),),
    "version 65535.65535": (packet(0xFFFFFFFF),),
    "the code after GSSENCRequest": (packet(80877105),),
    "TLS": (SSL_REQUEST, GOOD),
    "GSSAPI": (GSSENC_REQUEST, GOOD),
    "TLS, then GSSAPI": (SSL_REQUEST, GSSENC_REQUEST, GOOD),
    "GSSAPI, then TLS": (GSSENC_REQUEST, SSL_REQUEST, GOOD),
    "TLS twice": (SSL_REQUEST, SSL_REQUEST),
    "GSSAPI twice": (GSSENC_REQUEST, GSSENC_REQUEST),
    "TLS, GSSAPI, TLS": (SSL_REQUEST, GSSENC_REQUEST, SSL_REQUEST),
    "TLS and nothing more": (SSL_REQUEST,),
    "GSSAPI and nothing more": (GSSENC_REQUEST,),
    "a startup stuffed behind TLS": (SSL_REQUEST + GOOD,),
    "a startup stuffed behind GSSAPI": (GSSENC_REQUEST + GOOD,),
    "a byte stuffed behind TLS": (SSL_REQUEST + b"\0",),
    "GSSAPI stuffed behind TLS": (SSL_REQUEST + GSSENC_REQUEST,),
    "TLS after GSSAPI, with a startup stuffed behind": (GSSENC_REQUEST, SSL_REQUEST + GOOD),
    "TLS with a body": (packet(80877103, b"x"),),
    "GSSAPI with a body": (packet(80877104, b"xyz"), GOOD),
    "a cancel request after TLS": (SSL_REQUEST, cancel_request(1, b"none")),
    "a cancel request that fits nobody": (cancel_request(1, b"none"),),
    "a cancel request with Terminate behind": (cancel_request(1, b"none") + TERMINATE,),
    "a cancel request with 256 bytes of key": (cancel_request(1, bytes(256)),),
    "a cancel request with 257 bytes of key": (cancel_request(1, bytes(257)),),
    "a cancel request with one byte of key": (cancel_request(1, b"x"),),
    "a cancel request without a key": (cancel_request(1, b""),),
    "a cancel request without anything": (packet(80877102),),
    "no user": (startup(None, "postgres"),),
    "no parameters": (packet(VERSION_3_0, b"\0"),),
    "an empty user": (packet(VERSION_3_0, b"user\0\0database\0postgres\0\0"),),
    "an empty database": (packet(VERSION_3_0, b"user\0postgres\0database\0\0\0"),),
    "no database": (startup("postgres"),),
    "user twice": (packet(VERSION_3_0, b"user\0nobody\0user\0postgres\0\0"),),
    "nothing behind the version": (packet(VERSION_3_0),),
    "no final zero": (packet(VERSION_3_0, b"user\0postgres\0"),),
    "no final zero, and options": (packet(VERSION_3_0 + 3, b"user\0postgres\0_pq_.x\0y\0"),),
    "a name without a value": (packet(VERSION_3_0, b"user\0"),),
    "a name without a zero": (packet(VERSION_3_0, b"user"),),
    "a value without a zero": (packet(VERSION_3_0, b"user\0postgres"),),
    "bytes behind the final zero": (packet(VERSION_3_0, b"user\0postgres\0\0more"),),
    "zeros behind the final zero": (packet(VERSION_3_0, b"user\0postgres\0\0\0\0"),),
    "an odd number of texts": (packet(VERSION_3_0, b"user\0postgres\0database\0\0"),),
    "parameters that are no parameters": (startup("postgres", nonsense="1", work_mem="no"),),
    "bytes that are no UTF-8": (packet(VERSION_3_0, b"user\0\xff\xfe\0\0"),),
    "the longest startup": (packet(VERSION_3_0, b"user\0postgres\0application_name\0" + b"a" * 9963 + b"\0\0"),),
    "nothing": (b"",),
    "one byte": (b"\0",),
    "three bytes": (b"\0\0\0",),
    "four bytes": (struct.pack("!I", 8),),
    "half a startup": (GOOD[:12],),
    "a ClientHello of TLS": (bytes.fromhex("16030100a5010000a10303") + bytes(range(160)),),
    "replication that is neither": (startup("postgres", replication="perhaps"),),
    "replication that is a prefix of both": (startup("postgres", replication="o"),),
    "replication that is off": (startup("postgres", replication="of"),),
} | {
    f"a {what} of {length} bytes": (startup(**({"user": "postgres"} | {what: "n" * length})),)
    for what in ("user", "database")
    for length in (63, 64, 127, 1024)
}


# PostgreSQL closes these without a word, because what sends them is not its protocol; we say what is wrong.
WRONG_LENGTHS: dict[str, bytes] = {
    "length 0": struct.pack("!I", 0),
    "length 3": struct.pack("!I", 3) + b"abc",
    "length 4": struct.pack("!I", 4),
    "length 7": struct.pack("!I", 7) + b"abc",
    "one byte too long": packet(VERSION_3_0, b"user\0postgres\0application_name\0" + b"a" * 9964 + b"\0\0"),
    "length 2 GiB - 1": struct.pack("!I", 0x7FFFFFFF) + b"abcd",
    "a negative length": struct.pack("!i", -1) + b"abcd",
    "the most negative length": struct.pack("!I", 0x80000000) + b"abcd",
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a line of SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a query before the startup": query("SELECT 1"),
    "a password before the startup (CVE-2015-4054)": encode(frontend("PasswordMessage", password=b"postgres")),
}


@pytest.mark.parametrize("case", WRONG_LENGTHS)
def test_a_first_packet_of_impossible_length_is_refused_with_08p01(
    case: str, postgresql_18: PostgresServer, in_front: RunningDataPlane
) -> None:
    assert conversation((postgresql_18.host, postgresql_18.port), WRONG_LENGTHS[case]) == []
    (answer,) = conversation(in_front.address, WRONG_LENGTHS[case])
    assert isinstance(answer, tuple)
    assert answer[1]["M"] == "invalid length of startup packet"
    assert (answer[1]["S"], answer[1]["C"]) == ("FATAL", "08P01")


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_the_beginning_of_a_connection_is_answered_as_postgresql_answers_it(
    case: str, postgresql_18: PostgresServer, in_front: RunningDataPlane
) -> None:
    """W13, CVE-2012-4575, CVE-2015-4054, CVE-2021-3935.

    PgBouncer #1459, #1460, PgDog #578: two NegotiateProtocolVersion, a wrong answer to GSSENCRequest.
    """
    packets = CONVERSATIONS[case]
    theirs = conversation((postgresql_18.host, postgresql_18.port), *packets)
    assert conversation(in_front.address, *packets) == theirs


@pytest.mark.parametrize("case", ["version 3.0", "TLS, then GSSAPI", "version 3.9999 and options", "version 2.0"])
def test_a_startup_that_comes_byte_by_byte_is_answered_like_one_that_comes_at_once(
    case: str, in_front: RunningDataPlane
) -> None:
    packets = CONVERSATIONS[case]
    at_once = conversation(in_front.address, *packets)
    assert at_once
    assert conversation(in_front.address, *packets, at_once=False) == at_once


def answers_to_proof(address: Address, message: bytes) -> list[tuple[str, str]]:
    """Severity and SQLSTATE of what answers a message where a SASL response was asked for."""
    with Wire(address) as wire:
        wire.send(GOOD)
        wire.until("AuthenticationSASL")
        wire.send_if_possible(message)
        errors = [error_fields(error) for error in wire.rest()]
        return [(error["V"], error["C"]) for error in errors]


PASSWORD = ord("p")


def initial(mechanism: bytes, size: int, data: bytes) -> bytes:
    return typed(PASSWORD, mechanism + struct.pack("!i", size) + data)


PROOFS: dict[str, bytes] = {
    **{f"a message of type {kind}": typed(kind, b"x\0\0\0\0\0\0") for kind in b"BCDEFHPQSXcdf!\0\xffR"},
    "an empty password message": typed(PASSWORD),
    "an ordinary password": encode(frontend("PasswordMessage", password=b"postgres")),
    "no mechanism": typed(PASSWORD, b"\0"),
    "a mechanism without a zero": typed(PASSWORD, b"SCRAM-SHA-256"),
    "a mechanism without a size": typed(PASSWORD, b"SCRAM-SHA-256\0"),
    "three bytes of size": typed(PASSWORD, b"SCRAM-SHA-256\0\0\0\0"),
    "data of size 0": initial(b"SCRAM-SHA-256\0", 0, b""),
    "data of size 3 that are not there": initial(b"SCRAM-SHA-256\0", 3, b""),
    "data of size 0 that are there": initial(b"SCRAM-SHA-256\0", 0, b"n,,n=,r=abc"),
    "data of size 2^31 - 1": initial(b"SCRAM-SHA-256\0", 0x7FFFFFFF, b"n,,n=,r=abc"),
    "data of size -2^31": initial(b"SCRAM-SHA-256\0", -0x80000000, b"n,,n=,r=abc"),
    "data of size -1 that are there": initial(b"SCRAM-SHA-256\0", -1, b"n,,n=,r=abc"),
    "data of size -2": initial(b"SCRAM-SHA-256\0", -2, b""),
    "an unknown mechanism": initial(b"SCRAM-SHA-1\0", -1, b""),
    "a mechanism with channel binding without TLS": initial(b"SCRAM-SHA-256-PLUS\0", -1, b""),
    "a first message that is none": initial(b"SCRAM-SHA-256\0", 5, b"hello"),
    "a first message with a zero": initial(b"SCRAM-SHA-256\0", 12, b"n,,n=,r=abc\0"),
    "a first message without a nonce": initial(b"SCRAM-SHA-256\0", 5, b"n,,n="),
    "a first message with an authorization identity": initial(b"SCRAM-SHA-256\0", 15, b"n,a=x,n=,r=abcd"),
    "a first message with channel binding": initial(b"SCRAM-SHA-256\0", 24, b"p=tls-unique,,n=,r=abcde"),
}


@pytest.mark.parametrize("case", PROOFS)
def test_what_is_no_proof_is_refused_as_postgresql_refuses_it(
    case: str, postgresql_18: PostgresServer, in_front: RunningDataPlane
) -> None:
    """CVE-2015-4054, CVE-2026-6664: any message, and lengths that overflow in every place of a SASL message."""
    theirs = answers_to_proof((postgresql_18.host, postgresql_18.port), PROOFS[case])
    assert answers_to_proof(in_front.address, PROOFS[case]) == theirs


@pytest.mark.parametrize("length", [0, 1, 2, 3, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_password_message_of_impossible_length_is_a_failed_login(
    length: int, postgresql_18: PostgresServer, in_front: RunningDataPlane
) -> None:
    """PostgreSQL takes it for a wrong password; we say 08P01, which tells no more."""
    message = typed(PASSWORD, length=length)
    assert answers_to_proof((postgresql_18.host, postgresql_18.port), message) == [("FATAL", "28P01")]
    assert answers_to_proof(in_front.address, message) == [("FATAL", "08P01")]
