"""Transaction mode: many clients on few server connections, and nobody meets what another one left."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import asyncpg
import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration import test_disconnects
from tests.integration.clients import Connection, background, server_process, terminate, value, wait_for
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.test_disconnects import SITUATIONS, WAYS, assert_no_trace, leave_state
from tests.integration.test_isolation import POLICIES
from tests.integration.wire import (
    TERMINATE,
    Wire,
    copy_data,
    error_fields,
    extended,
    query,
    row_values,
    sqlstate,
)

MANY = 200
"""Clients of the pool of ten."""
COPY_DONE = b"c\0\0\0\4"

Start = Callable[..., RunningDataPlane]


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a data plane in transaction mode: `start(pool_size=1, backend_size=0, server_reset_query="never")`."""

    def run(*, pool_size: int = 1, backend_size: int = 0, **defaults: Any) -> RunningDataPlane:
        return data_plane(
            two_servers.configuration(
                backends=[two_servers.backend("primary", pool_size=backend_size)],
                routing={"defaults": {"pool_mode": "transaction", "pool_size": pool_size, **defaults}},
            )
        )

    return run


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    """A direct connection to the database of the test, which is not one of PgPooler's."""
    with closing(psycopg.connect(postgres.url(database), autocommit=True, application_name="observer")) as connection:
        yield connection


def connect(under_test: RunningDataPlane, database: str, *, autocommit: bool = True, **parameters: Any) -> Connection:
    """A psycopg connection that prepares nothing of its own accord: prepared statements end with the transaction."""
    return psycopg.connect(
        **{
            "host": "127.0.0.1",
            "port": under_test.port,
            "user": "postgres",
            "password": "postgres",
            "dbname": database,
            "sslmode": "disable",
            "prepare_threshold": None,
            "autocommit": autocommit,
            **parameters,
        }
    )


def servers_of(observer: Connection) -> int:
    """How many server connections of others the server itself sees on the test's database."""
    return int(
        value(
            observer,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
    )


@contextmanager
def sampled(look: Callable[[], Any]) -> Iterator[list[Any]]:
    """Look at something again and again, from a thread of its own, for as long as the block lasts."""
    seen: list[Any] = [look()]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.005):
            seen.append(look())

    with background() as run:
        sampling = run(sample)
        try:
            yield seen
        finally:
            over.set()
            sampling.result(60)


def sizes(under_test: RunningDataPlane) -> tuple[list[int], int]:
    """The server connections of each pool, in use, idle and opening, and those of the first backend."""
    snapshot = under_test.snapshot()
    pools = [pool["in_use"] + pool["idle"] + pool["opening"] for pool in snapshot["pools"]]
    return pools, snapshot["backends"][0]["server_connections"]


# -- few server connections for many clients ---------------------------------------------------------------------------


def test_two_hundred_clients_share_ten_server_connections(start: Start, database: str, observer: Connection) -> None:
    """W21: clients are not bounded by the server connections, at login neither."""
    under_test = start(pool_size=10, backend_size=12)
    clients = [under_test.wire() for _ in range(MANY)]
    processes: set[str] = set()
    with sampled(lambda: sizes(under_test)) as counted, sampled(lambda: servers_of(observer)) as seen:
        for client in clients:
            client.log_in(database=database)
        for _ in range(3):
            for number, client in enumerate(clients):
                client.send(query(f"SELECT {number}, pg_backend_pid(), pg_sleep(0.01)"))
            for number, client in enumerate(clients):
                mine, process, _ = row_values(client.until())
                assert mine == str(number)
                processes.add(process)
    assert len(processes) == 10
    assert under_test.snapshot()["server_connections_made"] == 10
    assert max(seen) == 10
    assert max(size for pools, _ in counted for size in pools) == 10
    assert max(size for _, size in counted) == 10
    assert len(counted) > 20
    for client in clients:
        client.send(TERMINATE)
        client.close()


def test_two_busy_pools_under_one_backend_limit_both_go_on_and_do_not_log_in_for_every_transaction(
    start: Start, database: str
) -> None:
    """The backend's limit is smaller than the two pools together; neither is ever exceeded."""
    under_test = start(pool_size=3, backend_size=4)
    over = threading.Event()

    def work(served: str, number: int) -> int:
        count = 0
        with under_test.wire() as client:
            client.log_in(database=served)
            while not over.is_set():
                assert client.values(f"SELECT current_database(), {number}") == [served, str(number)]
                count += 1
            client.send(TERMINATE)
        return count

    with sampled(lambda: sizes(under_test)) as counted, background() as run:
        tasks = [run(work, served, number) for served in (database, "postgres") for number in range(6)]
        time.sleep(1.5)
        over.set()
        done = [task.result(60) for task in tasks]
    assert min(done) > 0, done
    assert max(size for pools, _ in counted for size in pools) <= 3
    assert max(size for _, size in counted) == 4
    assert under_test.snapshot()["server_connections_made"] * 10 < sum(done)


def test_a_client_logs_in_while_every_server_connection_is_in_use(start: Start, database: str) -> None:
    """W21."""
    under_test = start()
    with closing(connect(under_test, database, autocommit=False)) as busy:
        busy.execute("SELECT 1")
        with under_test.wire() as client:
            client.log_in(database=database)
            assert under_test.snapshot()["waiting"] == 0
            client.send(query("SELECT 'served'"))
            wait_for(lambda: under_test.snapshot()["waiting"] == 1)
            busy.commit()
            assert row_values(client.until()) == ["served"]
            client.send(TERMINATE)
            client.everything()
    assert under_test.snapshot()["server_connections_made"] == 1


def test_a_transaction_keeps_its_server_and_the_next_one_may_have_another(start: Start, database: str) -> None:
    """W5, W6: whoever is in a transaction is alone with it."""
    under_test = start(pool_size=2)
    with (
        closing(connect(under_test, database, autocommit=False)) as one,
        closing(connect(under_test, database, autocommit=False)) as other,
    ):
        first = server_process(one)
        second = server_process(other)
        assert first != second
        for _ in range(5):
            assert server_process(one) == first
            assert server_process(other) == second
        with pytest.raises(psycopg.errors.DivisionByZero):
            one.execute("SELECT 1/0")
        with closing(connect(under_test, database)) as third, background() as run:
            served = run(server_process, third)  # the failed transaction holds its connection until it is over
            wait_for(lambda: under_test.snapshot()["waiting"] == 1)
            other.commit()
            assert served.result(60) == second
            one.rollback()
            with other.transaction():  # the connection that came back last
                assert {server_process(other), first} <= {first, second}
            wait_for(lambda: under_test.idle() == 2)
            assert server_process(one) in (first, second)
            one.commit()


def test_waiting_clients_are_served_in_the_order_in_which_they_came(start: Start, database: str) -> None:
    """W7, W8, W9: who waits is served in turn, on a connection that is logged in already, and none is lost."""
    under_test = start()
    with closing(psycopg.connect(f"host=127.0.0.1 port={under_test.port} user=postgres password=postgres")) as holder:
        holder.execute("CREATE TABLE IF NOT EXISTS served (turn serial, number int)")
        holder.execute("TRUNCATE served RESTART IDENTITY")
        holder.commit()
        holder.execute("SELECT 1")
        waiters = [under_test.wire().log_in() for _ in range(20)]
        for number, waiter in enumerate(waiters):
            waiter.send(query(f"INSERT INTO served (number) VALUES ({number})"))
            wait_for(lambda expected=number + 1: under_test.snapshot()["waiting"] == expected)
        holder.commit()
        for waiter in waiters:
            assert waiter.until()[0].name == "CommandComplete"
        rows = holder.execute("SELECT number FROM served ORDER BY turn").fetchall()
        holder.execute("DROP TABLE served")
        holder.commit()
    assert [number for (number,) in rows] == list(range(20))
    for waiter in waiters:
        waiter.close()
    assert under_test.snapshot()["server_connections_made"] == 1


def test_a_client_that_waits_too_long_is_told_so_and_the_others_go_on(start: Start, database: str) -> None:
    under_test = start(query_wait_timeout=0.3)
    with closing(connect(under_test, database, autocommit=False)) as busy, under_test.wire() as client:
        busy.execute("SELECT 1")
        client.log_in(database=database)
        client.send(query("SELECT 1"))
        error = client.last_words()
        assert sqlstate(error) == "53300"
        assert error is not None
        assert "query_wait_timeout" in error_fields(error)["M"]
        busy.commit()
        with closing(connect(under_test, database)) as next_client:
            assert value(next_client, "SELECT 1") == 1


def test_terminate_of_an_idle_client_takes_no_server_connection(start: Start, database: str) -> None:
    """P29."""
    under_test = start()
    with closing(connect(under_test, database, autocommit=False)) as busy:
        busy.execute("SELECT 1")
        for _ in range(5):
            with under_test.wire() as client:
                client.log_in(database=database)
                client.send(TERMINATE)
                assert client.everything() == b""
        assert under_test.snapshot()["waiting"] == 0
        busy.commit()
    assert under_test.snapshot()["server_connections_made"] == 1


def test_session_idle_timeout_ends_clients_with_and_without_a_server_connection(
    start: Start, database: str, observer: Connection
) -> None:
    observer.execute("CREATE TABLE marks (mark text)")
    under_test = start(session_idle_timeout=1)
    with under_test.wire() as idle, under_test.wire() as in_transaction:
        idle.log_in(database=database)
        assert sqlstate(idle.last_words()) == "57P05"
        in_transaction.log_in(database=database)
        in_transaction.values("BEGIN; INSERT INTO marks VALUES ('x')")
        assert sqlstate(in_transaction.last_words()) == "57P05"
    with under_test.wire() as successor:
        successor.log_in(database=database)
        assert successor.values("SELECT count(*) FROM marks") == ["0"]
    assert under_test.snapshot()["server_connections_made"] == 1


# -- startup parameters ------------------------------------------------------------------------------------------------

SHOWN = ("application_name", "TimeZone", "search_path", "work_mem", "client_encoding", "DateStyle")


def shown(connection: Connection) -> list[Any]:
    """The settings as one transaction sees them."""
    with connection.transaction():
        return [value(connection, f"SHOW {name}") for name in SHOWN]


@pytest.mark.parametrize("policy", ["always", "never"])
def test_startup_parameters_hold_in_every_transaction_whichever_server_serves_it_and_for_nobody_else(
    policy: str, start: Start, postgres: PostgresServer, database: str
) -> None:
    """W19."""
    under_test = start(pool_size=2, server_reset_query=policy)
    kinds: list[dict[str, Any]] = [
        {},
        {"application_name": "it's \\ one"},
        {"options": "-c TimeZone=Asia/Tokyo -c search_path=pg_temp,\\ public --work-mem=5MB"},
        {"options": "-c DateStyle=German", "client_encoding": "LATIN1", "application_name": "two"},
    ]
    expected = []
    for kind in kinds:
        with closing(psycopg.connect(postgres.url(database), autocommit=True, **kind)) as direct:
            expected.append(shown(direct))
    connections = [connect(under_test, database, **kind) for kind in kinds]
    used: list[set[int]] = [set() for _ in kinds]
    with closing(connect(under_test, database, autocommit=False)) as in_the_way:
        for turn in range(24):
            if turn % 3 == 0:  # another server connection is on top of the stack
                in_the_way.execute("SELECT 1")
            for number in random.sample(range(len(kinds)), len(kinds)):
                assert shown(connections[number]) == expected[number], kinds[number]
                used[number].add(server_process(connections[number]))
            in_the_way.rollback()
    assert max(len(processes) for processes in used) == 2
    for connection in connections:
        connection.close()


def test_a_client_is_told_the_parameters_it_asked_for_although_its_login_needs_no_server(
    start: Start, database: str
) -> None:
    """W19, W21."""
    under_test = start()
    options: dict[str, Any] = {"application_name": "mine", "options": "-c TimeZone=Asia/Tokyo"}
    for _ in range(3):
        with closing(connect(under_test, database, **options)) as mine, closing(connect(under_test, database)) as other:
            assert mine.info.parameter_status("TimeZone") == "Asia/Tokyo"
            assert mine.info.parameter_status("application_name") == "mine"
            assert other.info.parameter_status("TimeZone") != "Asia/Tokyo"
            assert other.info.parameter_status("application_name") == ""
            assert value(other, "SHOW TimeZone") == other.info.parameter_status("TimeZone")


def test_a_startup_parameter_that_the_server_refuses_ends_the_login_in_the_servers_words(
    start: Start, database: str
) -> None:
    under_test = start()
    with pytest.raises(psycopg.OperationalError, match="nonsense"):
        connect(under_test, database, options="-c work_mem=nonsense")
    with closing(connect(under_test, database)) as connection:
        assert value(connection, "SELECT 1") == 1


# -- clients that vanish -----------------------------------------------------------------------------------------------


ORDERLY = (
    test_disconnects.idle,
    test_disconnects.in_a_transaction,
    test_disconnects.in_a_failed_transaction,
    test_disconnects.in_copy_in,
    test_disconnects.in_copy_in_before_it_began,
    test_disconnects.in_copy_in_of_the_extended_protocol,
    test_disconnects.in_a_pipeline,
    test_disconnects.in_a_pipeline_without_sync,
    test_disconnects.in_a_pipeline_that_writes,
    test_disconnects.in_a_suspended_portal,
)
"""Where Terminate is understood, and nothing long stands before it."""


@pytest.mark.parametrize("way", ["close", "reset", "Terminate"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_client_finds_nothing_of_one_that_vanished_in_any_situation(
    policy: str, way: str, start: Start, postgres: PostgresServer, database: str, observer: Connection
) -> None:
    """W5, W6, W8: in the middle of a query, a transaction, a COPY, a pipeline, a message."""
    observer.execute("CREATE TABLE marks (mark text)")
    under_test = start(server_reset_query=policy)
    for situation in SITUATIONS if way != "Terminate" else ORDERLY:
        client = under_test.wire()
        client.log_in(database=database)
        leave_state(client)
        situation(client)
        WAYS[way](client)
        assert_no_trace(under_test, postgres, database)


@pytest.mark.parametrize("name", test_disconnects.REQUESTS)
@pytest.mark.parametrize(
    ("mode", "policy"), [*(("transaction", policy) for policy in POLICIES), ("statement", "smart")]
)
def test_a_request_cut_off_at_any_byte_has_no_effect(
    mode: str, policy: str, name: str, start: Start, postgres: PostgresServer, database: str, observer: Connection
) -> None:
    """W8: also when a half of it has been given a server connection.

    PgDog #805: half a request was passed on when its client had gone.
    """
    observer.execute("CREATE TABLE marks (mark text)")
    under_test = start(pool_mode=mode, server_reset_query=policy)
    request = test_disconnects.REQUESTS[name]
    with under_test.wire() as successor:
        successor.log_in(database=database)
        for count in range(1, len(request)):
            client = under_test.wire()
            client.log_in(database=database)
            client.send(request[:count])
            client.reset() if count % 2 else client.close()
            assert successor.values("SELECT count(*), now() = statement_timestamp() FROM marks") == ["0", "t"], count
    assert_no_trace(under_test, postgres, database)


def test_insert_and_terminate_in_one_segment_commits_also_when_the_client_must_wait(
    start: Start, database: str, observer: Connection
) -> None:
    observer.execute("CREATE TABLE marks (mark text)")
    under_test = start()
    with closing(connect(under_test, database, autocommit=False)) as busy:
        busy.execute("SELECT 1")
        clients = [under_test.wire().log_in(database=database) for _ in range(3)]
        for client in clients:
            client.send(query("INSERT INTO marks VALUES ('x')") + TERMINATE)
        wait_for(lambda: under_test.snapshot()["waiting"] == 3)
        busy.commit()
        for client in clients:
            assert [message.name for message in client.rest()] == ["CommandComplete", "ReadyForQuery"]
            client.close()
    assert value(observer, "SELECT count(*) FROM marks") == 3


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_cancel_request_ends_what_its_client_runs_whichever_server_runs_it(
    start: Start, database: str, observer: Connection
) -> None:
    under_test = start(pool_size=2)
    with under_test.wire() as one, under_test.wire() as other:
        for client in (one, other):
            client.log_in(database=database)
        for turn in range(4):
            victim, spared = (one, other) if turn % 2 else (other, one)
            spared.send(query("SELECT pg_sleep(0.3), 'not disturbed'"))
            victim.send(query("SELECT pg_sleep(600)"))
            wait_for(lambda: value(observer, "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'sleep.600'") == 2)
            assert victim.cancel() == b""
            assert sqlstate(victim.until()[-2]) == "57014"
            assert row_values(spared.until()) == ["", "not disturbed"]
            assert victim.values("SELECT 'goes on'") == ["goes on"]


@pytest.mark.parametrize(
    "request_bytes", [query("SELECT 'lost'"), extended("SELECT 'lost'")], ids=["simple", "extended"]
)
def test_a_waiting_client_is_canceled_at_once_and_its_next_query_works(
    request_bytes: bytes, start: Start, database: str
) -> None:
    under_test = start()
    with closing(connect(under_test, database, autocommit=False)) as busy, under_test.wire() as client:
        busy.execute("SELECT 1")
        client.log_in(database=database)
        for _ in range(3):
            client.send(request_bytes)
            wait_for(lambda: under_test.snapshot()["waiting"] == 1)
            client.cancel()
            messages = client.until()
            assert [message.name for message in messages] == ["ErrorResponse", "ReadyForQuery"]
            assert sqlstate(messages[0]) == "57014"
            assert error_fields(messages[0])["S"] == "ERROR"
            assert under_test.snapshot()["waiting"] == 0
        client.send(query("SELECT 'goes on'"))
        wait_for(lambda: under_test.snapshot()["waiting"] == 1)
        busy.commit()
        assert row_values(client.until()) == ["goes on"]
        client.send(TERMINATE)


def test_a_client_that_is_canceled_while_its_parameters_are_set_does_not_keep_the_server_connection(
    start: Start, postgres: PostgresServer, database: str, observer: Connection
) -> None:
    """It has been answered, and asks nothing: the connection belongs to whoever comes next."""
    under_test = start()
    with under_test.wire() as client, under_test.wire() as other:
        client.log_in(database=database, default_text_search_config="pg_catalog.german")
        other.log_in(database=database)
        terminate(observer, int(other.values("SELECT pg_backend_pid()")[0]))
        wait_for(lambda: under_test.idle() == 0)
        blocker = psycopg.connect(postgres.url(database))
        blocker.execute("LOCK TABLE pg_ts_config")  # a new server process must look into it
        client.send(query("SELECT 'canceled'"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'set_config'"
        wait_for(lambda: value(observer, waiting))
        client.cancel()
        assert sqlstate(client.until()[0]) == "57014"
        other.send(query("SELECT 'served'"))
        blocker.close()
        assert row_values(other.until()) == ["served"]
        assert client.values("SHOW default_text_search_config") == ["pg_catalog.german"]
        assert under_test.snapshot()["server_connections_made"] == 2


def test_a_storm_of_cancel_requests_hits_nobody_elses_query(start: Start, database: str) -> None:
    under_test = start(pool_size=3)
    over = threading.Event()
    hits: list[bool] = []

    def victim() -> None:
        with under_test.wire() as client:
            client.log_in(database=database)
            victims.append(client)
            while not over.is_set():
                messages = client.ask("SELECT pg_sleep(0.005)")
                errors = [sqlstate(message) for message in messages if message.name == "ErrorResponse"]
                assert errors in ([], ["57014"])
                hits.append(bool(errors))
            storm.result(60)

    def innocent(number: int) -> int:
        with under_test.wire() as client:
            client.log_in(database=database)
            count = 0
            while not over.is_set():
                assert client.values(f"SELECT {number}, {count}, pg_sleep(0.002)") == [str(number), str(count), ""]
                count += 1
            return count

    def cancel() -> None:
        while len(victims) < 2:
            time.sleep(0.01)
        for number in range(150):
            victims[number % 2].cancel()
        over.set()

    victims: list[Wire] = []
    with background() as run:
        storm = run(cancel)
        tasks = [run(victim), run(victim)]
        innocents = [run(innocent, number) for number in range(4)]
        storm.result(60)
        for task in tasks:
            task.result(60)
        assert all(task.result(60) for task in innocents)
    assert any(hits)


# -- what drivers send -------------------------------------------------------------------------------------------------


def fail_in_a_pipeline(connection: Connection) -> None:
    with connection.pipeline():
        for divisor in (1, 0, 1):
            connection.execute("INSERT INTO numbers SELECT 99 / %s::int", [divisor])


def test_pipelines_with_several_syncs_are_answered_in_order(start: Start, database: str, observer: Connection) -> None:
    """W6: whoever has requests on the way keeps the connection until all replies are there."""
    observer.execute("CREATE TABLE numbers (number int)")
    under_test = start(pool_size=2)

    def work(number: int) -> None:
        with closing(connect(under_test, database)) as connection:
            for turn in range(5):
                with connection.pipeline() as pipeline:
                    cursors = []
                    for part in range(20):
                        cursors.append(connection.execute("SELECT %s::int, %s::int, %s::int", [number, turn, part]))
                        if part % 4 == 0:
                            pipeline.sync()
                    connection.execute("INSERT INTO numbers VALUES (%s)", [number])
                assert [cursor.fetchone() for cursor in cursors] == [(number, turn, part) for part in range(20)]
                with pytest.raises(psycopg.errors.DivisionByZero):
                    fail_in_a_pipeline(connection)

    with background() as run:
        for task in [run(work, number) for number in range(8)]:
            task.result(60)
    rows = observer.execute("SELECT number, count(*) FROM numbers GROUP BY 1 ORDER BY 1").fetchall()
    assert rows == [(number, 5) for number in range(8)]


def test_simple_queries_pipelined_over_a_transaction_stay_on_one_server(
    start: Start, database: str, observer: Connection
) -> None:
    """W6."""
    observer.execute("CREATE TABLE numbers (number int)")
    under_test = start(pool_size=3)
    texts = ["BEGIN", *(f"INSERT INTO numbers VALUES ({number})" for number in range(10)), "ROLLBACK", "SELECT 'last'"]
    clients = [under_test.wire().log_in(database=database) for _ in range(6)]
    for _ in range(5):
        for client in clients:
            client.send(b"".join(query(text) for text in texts))
        for client in clients:
            for text in texts:
                messages = client.until()
                assert [message.name for message in messages if message.name == "ErrorResponse"] == [], text
            assert row_values(messages) == ["last"]
    assert value(observer, "SELECT count(*) FROM numbers") == 0
    for client in clients:
        client.close()


def test_copy_in_and_out_and_cursors_on_the_server_work(start: Start, database: str, observer: Connection) -> None:
    observer.execute("CREATE TABLE numbers (number int)")
    under_test = start(pool_size=2)

    def work(first: int) -> int:
        with closing(connect(under_test, database)) as connection, connection.cursor() as cursor:
            with cursor.copy("COPY numbers FROM STDIN") as copy:
                for number in range(first, first + 1000):
                    copy.write_row([number])
            with pytest.raises(psycopg.errors.BadCopyFileFormat), cursor.copy("COPY numbers FROM STDIN") as copy:
                copy.write(b"1\t2\n")
            query_text = f"SELECT number FROM numbers WHERE number >= {first} AND number < {first + 1000}"
            with cursor.copy(f"COPY ({query_text}) TO STDOUT".encode()) as copy:
                copied = sum(int(row[0]) for row in copy.rows())
            with connection.transaction(), connection.cursor(name="every") as every:
                every.itersize = 77
                every.execute(query_text.encode())
                assert sum(row[0] for row in every) == copied
            return copied

    with background() as run:
        tasks = [run(work, 1000 * number) for number in range(6)]
        assert sum(task.result(60) for task in tasks) == sum(range(6000))


def test_a_copy_whose_data_the_client_sends_ahead_is_one_request(
    start: Start, database: str, observer: Connection
) -> None:
    observer.execute("CREATE TABLE numbers (number int)")
    under_test = start()
    with under_test.wire() as client, under_test.wire() as other:
        client.log_in(database=database)
        other.log_in(database=database)
        for _ in range(10):
            data = copy_data(b"1\n2\n") + COPY_DONE
            client.send(query("COPY numbers FROM STDIN") + data + query("SELECT 'after'"))
            other.send(query("SELECT 'other'"))
            names = [message.name for message in client.until()]
            assert names == ["CopyInResponse", "CommandComplete", "ReadyForQuery"]
            assert row_values(client.until()) == ["after"]
            assert row_values(other.until()) == ["other"]
    assert value(observer, "SELECT count(*) FROM numbers") == 20


def test_asyncpg_without_its_statement_cache_works(start: Start, database: str) -> None:
    under_test = start(pool_size=2)

    async def session(number: int) -> int:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=under_test.port,
            user="postgres",
            password="postgres",
            database=database,
            ssl=False,
            statement_cache_size=0,
        )
        try:
            total = 0
            for _ in range(5):
                async with connection.transaction():
                    total += await connection.fetchval("SELECT $1::int", number)
                    async for row in connection.cursor("SELECT generate_series(1, $1::int) AS x", 30, prefetch=7):
                        total += row["x"]
                    with pytest.raises(asyncpg.DivisionByZeroError):
                        async with connection.transaction():
                            await connection.fetchval("SELECT 1 / $1::int", 0)
                await connection.execute("SELECT 1; SELECT 2")
                total += await connection.fetchval("SELECT $1::int - $1::int", number)
            return total
        finally:
            await connection.close()

    async def everybody() -> list[int]:
        return await asyncio.gather(*(session(number) for number in range(12)))

    assert asyncio.run(everybody()) == [5 * (number + 465) for number in range(12)]
