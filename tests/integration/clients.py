"""What tests ask connections: one value, which server process serves, and with which error a login ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg

from spec.codec import Instance
from tests.integration.wire import Address, Wire, error_fields

PATIENCE = 60.0
"""Seconds that something may take to come about before a test fails: far beyond what anything here takes."""
INTERVAL = 0.02

Connection = psycopg.Connection[Any]


def value(connection: Connection, query: str, *parameters: object) -> Any:
    """The first value of the first row."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]


def server_process(connection: Connection) -> int:
    """The process id of the PostgreSQL server process that answers."""
    return int(value(connection, "SELECT pg_backend_pid()"))


def exists(connection: Connection, process: int) -> bool:
    """Whether the server process with this id is there, as this connection's server sees it."""
    return bool(value(connection, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", process))


def terminate(connection: Connection, process: int) -> None:
    """End a server process, and wait until it is gone."""
    assert value(connection, "SELECT pg_terminate_backend(%s, 60000)", process)


def wait_for(condition: Callable[[], object], what: Callable[[], str] = lambda: "it did not come about") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(INTERVAL)


def opening(
    address: Address, user: str, password: str, database: str, **parameters: str
) -> tuple[Wire, list[Instance]]:
    """Log in and return the connection and what came behind the proof: up to ReadyForQuery, or to an error."""
    wire = Wire(address)
    try:
        answer = wire.authenticate(user, password, database, **parameters)
        if answer.name == "ErrorResponse":
            return wire, [answer]
        return wire, wire.until("ReadyForQuery", "ErrorResponse")
    except BaseException:
        wire.close()
        raise


def refusal(
    address: Address, user: str = "postgres", password: str = "postgres", database: str = "postgres", **parameters: str
) -> dict[str, str]:
    """The fields of the error with which a login ends; it must not succeed."""
    wire, messages = opening(address, user, password, database, **parameters)
    with wire:
        fields = error_fields(messages[-1])
        assert wire.message() is None, "the connection goes on after a refusal"
        return fields


@contextmanager
def background() -> Iterator[Callable[..., Future[Any]]]:
    """A function that runs others in threads of their own, all of which have ended when the block is left."""
    with ThreadPoolExecutor(max_workers=32) as executor:
        yield executor.submit
