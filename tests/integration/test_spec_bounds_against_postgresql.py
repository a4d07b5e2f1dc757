"""PostgreSQL refuses what the spec calls malformed, waits where the spec says cut off, and has the bounds it states."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance, encode, format_of, frontend, integer, read
from spec.messages import Phase, Sender
from spec.mutators import MUTATORS, Mutator, NearValid, Verdict, applicable, spoilt

# Errors of a server that reads a malformed message: protocol violation; or, where it stops before it comes to the
# fault: bytes that are no text, no such statement, no such function; or a version that is not supported.
REFUSALS = {b"08P01", b"22021", b"26000", b"42883", b"0A000"}

StartServer = Callable[..., PostgresServer]


@contextlib.contextmanager
def conversation(server: PostgresServer, phase: Phase) -> Iterator[socket.socket]:
    """A connection to the server: fresh, or logged in and idle."""
    if phase is Phase.STARTUP:
        with socket.create_connection((server.host, server.port)) as stream:
            yield stream
        return
    with (
        contextlib.closing(psycopg.connect(server.url(), sslmode="disable")) as connection,
        socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as stream,
    ):
        stream.setblocking(True)
        yield stream


def replies(server: PostgresServer, phase: Phase, data: bytes) -> bytes:
    """What the server answers, up to the end of the connection, to somebody who says this and then no more."""
    received = b""
    with conversation(server, phase) as stream:
        # A server that does not read on resets the connection, at whatever moment we are in.
        with contextlib.suppress(OSError):
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while chunk := stream.recv(65536):
                received += chunk
    return received


def sqlstates(received: bytes) -> set[bytes]:
    """The SQLSTATEs of a list of replies that holds nothing but errors and what follows them."""
    reading = read(received, Sender.BACKEND)
    assert reading.fault is None
    names = [instance.name for instance in reading.instances]
    assert not names or names[0] == "ErrorResponse"
    assert set(names) <= {"ErrorResponse", "ReadyForQuery"}
    errors: list[Any] = [instance["fields"] for instance in reading.instances if instance.name == "ErrorResponse"]
    return {dict(error)[b"C"] for error in errors}


def in_reach(mutator: Mutator) -> list[Any]:
    """The formats of requests to which this mutator applies and that need no dialogue to get at."""
    return [
        message
        for message in applicable(mutator)
        if message.sender is Sender.FRONTEND and (mutator.phase or message.phase) in (Phase.STARTUP, Phase.SESSION)
    ]


@pytest.mark.parametrize("mutator", [m for m in MUTATORS if in_reach(m)], ids=lambda mutator: mutator.name)
def test_what_the_spec_calls_malformed_is_never_accepted(mutator: Mutator, postgres: PostgresServer) -> None:
    @settings(max_examples=5, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(near=st.sampled_from(in_reach(mutator)).flatmap(lambda message: spoilt(mutator, message)))
    def is_refused(near: NearValid) -> None:
        received = replies(postgres, near.phase, near.data)
        if near.message in ("SSLRequest", "GSSENCRequest") and near.mutator == "bytes behind the last field":
            assert received in (b"N", b"S", b"G")  # here alone PostgreSQL does not look at the length
        elif near.verdict is Verdict.CUT_OFF:
            assert received == b""
        elif near.mutator == "startup packet of protocol 2 or 4" and received.startswith(b"EFATAL"):
            assert b"unsupported frontend protocol" in received  # as protocol 2 spelt errors, without a length
        else:
            assert sqlstates(received) <= REFUSALS

    is_refused()


def padded(length: int) -> Instance:
    """A StartupMessage with a length word of so many bytes."""
    user = (b"user", b"somebody")
    empty = encode(frontend("StartupMessage", minor=0, parameters=(user, (b"options", b""))))
    return frontend("StartupMessage", minor=0, parameters=(user, (b"options", b" " * (length - len(empty)))))


def beyond(data: bytes, type_size: int) -> bytes:
    """The same bytes with a length word that is one more, and one byte more."""
    length = int.from_bytes(data[type_size : type_size + 4], "big") + 1
    return data[:type_size] + integer(length, 32) + data[type_size + 4 :] + b"\0"


def test_a_startup_packet_may_be_exactly_as_long_as_the_spec_says(postgres: PostgresServer) -> None:
    longest = encode(padded(format_of(Sender.FRONTEND, "StartupMessage").most))
    assert replies(postgres, Phase.STARTUP, longest)[:1] in (b"R", b"E")
    assert replies(postgres, Phase.STARTUP, beyond(longest, 0)) == b""


@pytest.mark.parametrize("name", ["Describe", "Close"])
def test_a_small_request_may_be_exactly_as_long_as_the_spec_says(name: str, postgres: PostgresServer) -> None:
    most = format_of(Sender.FRONTEND, name).most
    longest = encode(frontend(name, kind=b"S", target=b"x" * (most - 6)))
    sync = encode(frontend("Sync"))
    assert replies(postgres, Phase.SESSION, longest + sync)[:1] in (b"E", b"3")
    assert replies(postgres, Phase.SESSION, beyond(longest, 1) + sync) == b""


def test_a_password_may_be_exactly_as_long_as_the_spec_says(start_server: StartServer) -> None:
    longest = encode(
        frontend("PasswordMessage", password=b"x" * (format_of(Sender.FRONTEND, "PasswordMessage").most - 5))
    )
    with start_server() as server:
        server.set_authentication("host all all 127.0.0.1/32 password")
        opening = encode(frontend("StartupMessage", minor=0, parameters=((b"user", server.superuser.encode()),)))
        refused = read(replies(server, Phase.STARTUP, opening + longest), Sender.BACKEND)
        unread = read(replies(server, Phase.STARTUP, opening + beyond(longest, 1)), Sender.BACKEND)
    assert [reply.name for reply in refused.instances] == ["AuthenticationCleartextPassword", "ErrorResponse"]
    assert [reply.name for reply in unread.instances] == ["AuthenticationCleartextPassword"]
