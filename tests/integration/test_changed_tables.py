"""Prepared statements that clients share, when the tables they speak of are changed behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from spec.codec import Instance
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import Wire, described, parse, prepared, ran, row_values, sqlstate

ALL_OF_IT = "SELECT * FROM thing"
ONE_OF_IT = "SELECT name FROM thing WHERE number = $1"


@pytest.fixture
def shared(two_servers: TwoServers, data_plane: DataPlaneFactory) -> RunningDataPlane:
    """A data plane whose clients share two server connections."""
    return data_plane(two_servers.configuration(routing={"defaults": {"pool_mode": "transaction", "pool_size": 2}}))


@pytest.fixture
def clients(shared: RunningDataPlane, two_servers: TwoServers, database: str) -> Iterator[list[Wire]]:
    """Three clients, and a table with one row."""
    server = two_servers.primary
    with ExitStack() as stack:
        wires = [Wire(("127.0.0.1", shared.port)) for _ in range(3)]
        for wire in wires:
            stack.enter_context(wire).log_in(server.superuser, server.password, database)
        wires[0].ask("CREATE TABLE thing (number int, name text)")
        wires[0].ask("INSERT INTO thing VALUES (1, 'one')")
        yield wires


def say(client: Wire, request: bytes) -> list[Instance]:
    client.send(request)
    return client.until()


def error(messages: list[Instance]) -> str:
    """The SQLSTATE of the error among these messages."""
    return next((sqlstate(message) for message in messages if message.name == "ErrorResponse"), "")


def test_a_statement_that_another_client_prepares_anew_does_not_change_its_columns(clients: list[Wire]) -> None:
    old, new, holder = clients
    say(old, parse(ALL_OF_IT, name=b"s") + described())
    holder.ask("BEGIN; ALTER TABLE thing ADD COLUMN size int DEFAULT 7; COMMIT; BEGIN")
    assert error(say(new, prepared(ALL_OF_IT))) == ""
    assert row_values(say(new, ran())) == ["1", "one", "7"]
    assert error(say(old, ran())) == "0A000"
    holder.ask("COMMIT")
    assert row_values(say(new, ran())) == ["1", "one", "7"]
    assert error(say(old, ran())) == "0A000"


def test_who_prepares_a_statement_after_a_type_has_changed_gets_the_type_that_holds_now(clients: list[Wire]) -> None:
    old, new, holder = clients
    say(old, prepared(ONE_OF_IT))
    assert row_values(say(old, ran(b"1"))) == ["one"]
    old.ask("ALTER TABLE thing ALTER number TYPE text")
    assert error(say(old, ran(b"1"))) == "42883"
    assert error(say(new, prepared(ONE_OF_IT))) == ""
    assert row_values(say(new, ran(b"1"))) == ["one"]
    holder.ask("BEGIN")
    assert row_values(say(new, ran(b"1"))) == ["one"]
