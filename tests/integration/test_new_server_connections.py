"""Server connections that are opened for clients already logged in, fail to open, or are lost while others wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Connection, terminate, wait_for
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.faults import FaultProxy
from tests.integration.servers import TwoServers
from tests.integration.wire import Wire, extended, query, row_values, sqlstate

Start = Callable[..., RunningDataPlane]
MODES = ("transaction", "statement")
MINE = "SELECT 'mine'"
ANSWER = {"ParseComplete", "BindComplete", "RowDescription", "DataRow", "CommandComplete", "ReadyForQuery"}


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy((postgres.host, postgres.port)) as running:
        yield running


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory, proxy: FaultProxy) -> Start:
    """Start a data plane whose server is reached through the proxy: `start("transaction", pool_size=1)`."""

    def run(mode: str, **defaults: Any) -> RunningDataPlane:
        backend = {**two_servers.backend("primary"), "host": "127.0.0.1", "port": proxy.port}
        routing = {"defaults": {"pool_mode": mode, "pool_size": 1, **defaults}}
        return data_plane(two_servers.configuration(backends=[backend], routing=routing))

    return run


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    """A direct connection to the database of the test."""
    with closing(psycopg.connect(postgres.url(database), autocommit=True)) as connection:
        yield connection


def end_the_server_connection(under_test: RunningDataPlane, observer: Connection, client: Wire) -> None:
    """The only server connection, which is idle, is ended by an administrator."""
    terminate(observer, int(client.values("SELECT pg_backend_pid()")[0]))
    wait_for(lambda: under_test.snapshot()["backends"][0]["server_connections"] == 0)


@pytest.mark.parametrize("request_bytes", [query(MINE), extended(MINE)], ids=["simple", "extended"])
@pytest.mark.parametrize("mode", MODES)
def test_a_server_connection_that_is_opened_for_a_request_logs_in_without_its_client_noticing(
    request_bytes: bytes, mode: str, start: Start, database: str, observer: Connection
) -> None:
    """W7: no idle connection is there, but room; the server wants a password, which PgPooler gives, not the client."""
    under_test = start(mode)
    with under_test.wire() as client:
        client.log_in(database=database)
        for turn in range(5):
            end_the_server_connection(under_test, observer, client)
            client.send(request_bytes + request_bytes)
            for _ in range(2):
                messages = client.until()
                assert row_values(messages) == ["mine"]
                assert {message.name for message in messages} <= ANSWER
            assert under_test.snapshot()["server_connections_made"] == turn + 2


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("mode", MODES)
def test_a_server_connection_that_fails_to_open_at_any_point_of_its_login_gives_its_place_back(
    mode: str, with_reset: bool, start: Start, proxy: FaultProxy, database: str, observer: Connection
) -> None:
    """W8: the client is told so, its place in the pool of one is free, the next client is served."""
    under_test = start(mode)
    with under_test.wire() as witness:
        witness.log_in(database=database)
        for count in range(0, 400, 45):
            end_the_server_connection(under_test, observer, witness)
            proxy.cut_after(count, with_reset=with_reset)
            with under_test.wire() as client:
                client.log_in(database=database)
                client.send(query("SELECT 'not served'"))
                assert sqlstate(client.last_words())[:2] in ("08", "53")
            wait_for(lambda: under_test.snapshot()["backends"][0]["server_connections"] == 0)
            proxy.mend()
            wait_for(lambda: is_served(under_test, database))
            assert witness.values("SELECT 'still here'") == ["still here"]


def is_served(under_test: RunningDataPlane, database: str) -> bool:
    """Whether a new client is; for a moment after a failure it is told of that instead."""
    with under_test.wire() as client:
        client.authenticate("postgres", "postgres", database)
        if client.until("ReadyForQuery", "ErrorResponse")[-1].name == "ErrorResponse":
            return False
        client.send(query("SELECT 'served'"))
        messages = client.until("ReadyForQuery", "ErrorResponse")
        return messages[-1].name == "ReadyForQuery" and row_values(messages) == ["served"]


@pytest.mark.parametrize("mode", MODES)
def test_when_the_only_server_connection_is_lost_the_first_who_waits_gets_the_next_one(
    mode: str, start: Start, database: str, observer: Connection
) -> None:
    """W9 (c): a place that comes free wakes a waiter as a connection does, and the order stays."""
    under_test = start(mode)
    observer.execute("CREATE SEQUENCE turns")
    with under_test.wire() as holder:
        holder.log_in(database=database)
        (process,) = holder.values("SELECT pg_backend_pid()")
        waiters = [under_test.wire().log_in(database=database) for _ in range(10)]
        newcomer = under_test.wire()
        holder.send(query("SELECT pg_sleep(600)"))
        wait_for(lambda: under_test.snapshot()["pools"][0]["in_use"] == 1)
        for number, waiter in enumerate(waiters):
            waiter.send(query("SELECT nextval('turns')"))
            wait_for(lambda expected=number + 1: under_test.snapshot()["waiting"] == expected)
        newcomer.authenticate("postgres", "postgres", database, application_name="waits with its login")
        wait_for(lambda: under_test.snapshot()["waiting"] == 11)
        terminate(observer, int(process))
        assert sqlstate(holder.last_words()) == "57P01"
        assert [int(row_values(waiter.until())[0]) for waiter in waiters] == list(range(1, 11))
        assert newcomer.until()[-1].name == "ReadyForQuery"
        for client in (*waiters, newcomer):
            client.close()
    assert under_test.snapshot()["server_connections_made"] == 2
