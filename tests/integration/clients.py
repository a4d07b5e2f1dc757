"""What tests do with connections: ask for a value, change the server connection, play a script in two places."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance
from tests.integration.wire import (
    FLUSH,
    SYNC,
    Address,
    Wire,
    bind,
    called,
    close,
    error_fields,
    execute,
    parse,
    ran,
    row_values,
)

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


class Switch:
    """Makes the clients of a pool of two change their server connection, in whatever order the pool hands them out.

    One of two clients of its own always holds one of the two, by a series without Sync; everybody else gets the other
    one.  Nobody else may hold a server connection when `turn` is called.
    """

    def __init__(self, address: Address, database: str) -> None:
        self._holder, self._other = (Wire(address).log_in(database=database) for _ in range(2))
        self.held = self._hold(self._holder)
        self.turns = 0

    def __enter__(self) -> Switch:
        return self

    def __exit__(self, *exception: object) -> None:
        self._holder.close()
        self._other.close()

    def turn(self) -> None:
        """From now on the server connection that was held is free, and the one that was free is held."""
        taken = self._hold(self._other)
        assert taken != self.held, "this is the same server connection"
        self._holder.send(SYNC)
        assert {message.name for message in self._holder.until()} <= {"ParameterStatus", "ReadyForQuery"}
        self._holder, self._other, self.held = self._other, self._holder, taken
        self.turns += 1

    @staticmethod
    def _hold(client: Wire) -> int:
        """Take a server connection and keep it; return which it is."""
        client.send(parse("SELECT pg_backend_pid()"), bind(), execute(), FLUSH)
        return int(row_values(client.until("CommandComplete", "ErrorResponse"))[0])


Script = Sequence[bytes | str]
"""Requests of one client, each of which is answered by ReadyForQuery; a text is SQL that somebody else runs."""


def answers(client: Wire, *requests: bytes) -> list[Any]:
    """What answers these requests, sent in one segment: every message up to the ReadyForQuery of the last."""
    client.send(*requests)
    expected = sum(request[:1] == b"Q" for request in requests) + b"".join(requests).count(SYNC)
    return [message for _ in range(expected) for message in client.until()]


def comparable(message: Instance) -> tuple[str, Any]:
    """What two servers should say alike: no place in PostgreSQL's source, no object identifier of a table."""
    if message.name == "ErrorResponse":
        return message.name, error_fields(message)
    if message.name == "RowDescription":
        columns: Any = message["columns"]
        return message.name, [(name, *format_) for name, _table, _attribute, *format_ in columns]
    return message.name, message.fields


def played(
    client: Wire, script: Script, server: PostgresServer, database: str, between: Callable[[], None] = lambda: None
) -> list[Any]:
    """What the client hears, step by step, and what it was told of the parameters by then.

    `between` is called behind every request after which the client is in no transaction.
    """
    heard: list[Any] = []
    for step in script:
        if isinstance(step, str):
            server.execute(step, database=database)
            continue
        messages = answers(client, step)
        said = [comparable(message) for message in messages if message.name != "ParameterStatus"]
        heard.append((said, dict(client.told)))
        if messages[-1]["status"] == b"I":
            between()
    return heard


STRANGER = (
    b"".join(close(name) + parse("SELECT 'the stranger'", name=name) + called(name=name) for name in (b"s", b"t"))
    + parse("SELECT 'the stranger'")
    + ran(name=b"")
)
"""What the stranger does with the names that the scripts use."""


def assert_as_direct(
    script: Script, address: Address, server: PostgresServer, database: str, **parameters: str
) -> None:
    """Play the script without a change of the server connection, with one after every request, and every other."""
    direct = (server.host, server.port)
    with Wire(direct).log_in(database=database, **parameters) as client:
        expected = played(client, script, server, database)
    with Switch(address, database) as switch, Wire(address).log_in(database=database) as stranger:
        for every in (0, 1, 2):
            requests = 0

            def between(every: int = every) -> None:
                nonlocal requests
                requests += 1
                if every and requests % every == 0:
                    switch.turn()
                    assert row_values(answers(stranger, STRANGER)) == ["the stranger"] * 3

            with Wire(address).log_in(database=database, **parameters) as client:
                heard = played(client, script, server, database, between)
            for step, (mine, right) in enumerate(zip(heard, expected, strict=True)):
                assert mine == right, f"request {step}, another server connection after every {every}"
        assert switch.turns > 0
