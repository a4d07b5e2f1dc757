"""Cancel requests reach what their own client runs at that moment, and nothing else (W12)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import encode, frontend
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.servers import TwoServers
from tests.integration.wire import TERMINATE, Wire, cancel_request, copy_data, query, sqlstate

LONG = "SELECT pg_sleep(600)"
STORM = 200


@pytest.fixture
def under_test(two_servers: TwoServers, data_plane: DataPlaneFactory) -> RunningDataPlane:
    return data_plane(two_servers.configuration(routing={"defaults": {"pool_size": 2}}))


@pytest.fixture
def runs(postgres: PostgresServer) -> Callable[[Wire, str], None]:
    """Start a query and wait until the server runs it."""

    def run(client: Wire, text: str) -> None:
        client.send(query(text))
        wait_until(
            lambda: postgres.execute(
                f"SELECT 1 FROM pg_stat_activity WHERE pid = {client.process_id} AND state = 'active'"
                " AND wait_event IN ('PgSleep', 'ClientWrite', 'ClientRead')"
            )
        )

    return run


def canceled(client: Wire) -> bool:
    messages = client.until()
    errors = [sqlstate(message) for message in messages if message.name == "ErrorResponse"]
    assert errors in ([], ["57014"])
    return bool(errors)


@pytest.mark.parametrize("minor", [0, 2])
def test_a_cancel_request_ends_the_query_of_its_client_alone(
    minor: int, under_test: RunningDataPlane, runs: Callable[[Wire, str], None]
) -> None:
    with under_test.wire() as one, under_test.wire() as other:
        one.log_in(minor=minor)
        other.log_in(minor=minor)
        runs(one, LONG)
        runs(other, "SELECT pg_sleep(0.5), 'not disturbed'")
        assert one.cancel() == b""
        assert canceled(one)
        assert not canceled(other)
        assert one.values("SELECT 'goes on'") == ["goes on"]


def test_the_key_has_four_bytes_in_protocol_3_0_and_32_in_3_2_and_the_process_is_the_servers(
    under_test: RunningDataPlane,
) -> None:
    keys = set()
    for minor, length in ((0, 4), (1, 4), (2, 32)):
        with under_test.wire() as client:
            client.log_in(minor=minor)
            assert len(client.key) == length
            assert client.values("SELECT pg_backend_pid()") == [str(client.process_id)]
            keys.add(client.key)
            client.send(TERMINATE)
            client.everything()
    assert len(keys) == 3


def sleep_until_canceled(connection: psycopg.Connection[Any], caught: list[psycopg.Error]) -> None:
    try:
        connection.execute(LONG.encode())
    except psycopg.Error as failure:
        caught.append(failure)


def test_psycopg_cancels_its_own_query(under_test: RunningDataPlane) -> None:
    libpq_knows_3_2 = psycopg.pq.version() >= 180000
    for parameters in ({}, {"max_protocol_version": "3.2"} if libpq_knows_3_2 else {}):
        with psycopg.connect(
            host="127.0.0.1", port=under_test.port, user="postgres", password="postgres", **parameters
        ) as connection:
            caught: list[psycopg.Error] = []
            thread = threading.Thread(target=sleep_until_canceled, args=(connection, caught))
            thread.start()
            while thread.is_alive():
                connection.cancel_safe()
                thread.join(0.05)
            assert [type(failure) for failure in caught] == [psycopg.errors.QueryCanceled]


def test_a_cancel_request_works_when_no_more_clients_are_let_in(
    two_servers: TwoServers, data_plane: DataPlaneFactory, runs: Callable[[Wire, str], None]
) -> None:
    under_test = data_plane(two_servers.configuration(limits={"max_client_conn": 1}))
    with under_test.wire() as client:
        client.log_in()
        runs(client, LONG)
        client.cancel()
        assert canceled(client)


@pytest.mark.parametrize(
    "behind", [TERMINATE, b"\0" * 100, query("SELECT 1")], ids=["Terminate, as Go sends it", "zeros", "a query"]
)
def test_bytes_behind_a_cancel_request_do_not_matter(
    behind: bytes, under_test: RunningDataPlane, runs: Callable[[Wire, str], None]
) -> None:
    """PgBouncer #1383: Go sends Terminate there."""
    with under_test.wire() as client:
        client.log_in()
        runs(client, LONG)
        assert client.cancel(behind) == b""
        assert canceled(client)


def test_cancel_requests_that_fit_nobody_do_nothing(
    under_test: RunningDataPlane, runs: Callable[[Wire, str], None]
) -> None:
    with under_test.wire() as client, under_test.wire() as gone:
        gone.log_in(minor=2)
        gone.send(TERMINATE)
        assert gone.everything() == b""
        client.log_in(minor=2)
        runs(client, "SELECT pg_sleep(0.5)")
        keys = [
            b"\0" * 4,
            b"none",
            bytes(32),
            bytes(256),
            client.key[:31],
            client.key[:4],
            client.key + b"\0",
            gone.key,
        ]
        for key in keys:
            for process_id in (client.process_id, gone.process_id, 0, -1):
                with under_test.wire() as carrier:
                    carrier.send(cancel_request(process_id, key))
                    assert carrier.everything() == b""
        with under_test.wire() as carrier:
            carrier.send(cancel_request(client.process_id + 1, client.key))
            assert carrier.everything() == b""
        assert not canceled(client)


def test_a_cancel_request_between_two_queries_hits_neither(under_test: RunningDataPlane) -> None:
    with under_test.wire() as client:
        client.log_in()
        for _ in range(20):
            assert client.cancel() == b""
            assert client.values("SELECT 1") == ["1"]


def test_a_client_in_the_queue_is_not_reached_by_the_key_of_the_one_it_waits_for(
    two_servers: TwoServers, data_plane: DataPlaneFactory, runs: Callable[[Wire, str], None]
) -> None:
    under_test = data_plane(two_servers.configuration(routing={"defaults": {"pool_size": 1}}))
    with under_test.wire() as holder, under_test.wire() as waiter:
        holder.log_in()
        runs(holder, LONG)
        waiter.authenticate("postgres", "postgres", "postgres")
        wait_until(lambda: under_test.snapshot()["waiting"] == 1)
        old_key = holder.process_id, holder.key
        holder.cancel()
        assert canceled(holder)
        holder.send(TERMINATE)
        waiter.until()
        with under_test.wire() as carrier:
            carrier.send(cancel_request(*old_key))
            waiter.send(query("SELECT pg_sleep(0.2)"))
            assert carrier.everything() == b""
        assert not canceled(waiter)


def test_a_storm_of_cancel_requests_never_hits_the_next_client_of_the_same_server_connection(
    two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    """The connection is not handed on before its last cancel request has ended (W12).

    PgBouncer #544, Odyssey, pgagroal.
    """
    under_test = data_plane(two_servers.configuration(routing={"defaults": {"pool_size": 1}}))
    victims = 0
    for _ in range(STORM // 10):
        with under_test.wire() as attacker:
            attacker.log_in()
            attacker.send(query("SELECT pg_sleep(0.001)"))
            storm = []
            for _ in range(10):
                carrier = under_test.wire()
                carrier.send(cancel_request(attacker.process_id, attacker.key))
                storm.append(carrier)
            attacker.until()
            attacker.send(TERMINATE)
            with under_test.wire() as victim:
                victim.log_in()
                for _ in range(5):
                    victim.send(query("SELECT pg_sleep(0.001), 'victim'"))
                    victims += canceled(victim)
                victim.send(TERMINATE)
                victim.everything()
            for carrier in storm:
                assert carrier.everything() == b""
                carrier.close()
    assert victims == 0


def test_a_client_that_cancels_and_vanishes_leaves_nothing(
    under_test: RunningDataPlane, runs: Callable[[Wire, str], None]
) -> None:
    for way in (Wire.close, Wire.reset):
        client = under_test.wire()
        client.log_in()
        runs(client, LONG)
        carrier = under_test.wire()
        carrier.send(cancel_request(client.process_id, client.key))
        way(client)
        way(carrier)
        under_test.wait_until_unused()


def test_copy_can_be_canceled_in_either_direction(under_test: RunningDataPlane) -> None:
    with under_test.wire() as client:
        client.log_in()
        client.values("CREATE TEMPORARY TABLE copied (a text)")
        client.send(query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT"))
        client.until("CopyData")
        client.cancel()
        assert canceled(client)
        client.send(query("COPY copied FROM STDIN"))
        client.until("CopyInResponse")
        client.cancel()
        client.send(copy_data(b"row\n"))  # the server looks at the cancel request when it has read something
        assert canceled(client)
        client.send(encode(frontend("CopyDone")))  # as a client does that had not seen the error yet
        assert client.values("SELECT count(*) FROM copied") == ["0"]
