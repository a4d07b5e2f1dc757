"""Statement mode: a server connection for one request, and no transaction blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance, encode, frontend
from tests.integration.clients import Connection, background, value, wait_for
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import (
    SYNC,
    TERMINATE,
    Wire,
    bind,
    copy_data,
    error_fields,
    execute,
    extended,
    parse,
    query,
    row_values,
    sqlstate,
)

COPY_DONE = b"c\0\0\0\4"
FLUSH = encode(frontend("Flush"))

Start = Callable[..., RunningDataPlane]


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a data plane in statement mode: `start(pool_size=1)`."""

    def run(*, pool_size: int = 1, **defaults: Any) -> RunningDataPlane:
        routing = {"defaults": {"pool_mode": "statement", "pool_size": pool_size, **defaults}}
        return data_plane(two_servers.configuration(routing=routing))

    return run


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    """A direct connection to the database of the test, in which a table holds ten rows."""
    with closing(psycopg.connect(postgres.url(database), autocommit=True)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 10) AS x")
        yield connection


def connect(under_test: RunningDataPlane, database: str) -> Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=under_test.port,
        user="postgres",
        password="postgres",
        dbname=database,
        sslmode="disable",
        prepare_threshold=None,
        autocommit=True,
    )


def conversation(client: Wire, count: int) -> list[str]:
    """The replies up to the given number of ReadyForQuery: their names, an error as its SQLSTATE."""
    heard: list[Instance] = []
    for _ in range(count):
        heard += client.until()
    assert all(message["status"] == b"I" for message in heard if message.name == "ReadyForQuery"), heard
    return [sqlstate(message) if message.name == "ErrorResponse" else message.name for message in heard]


REFUSED = ["0A000", "ReadyForQuery"]
"""What answers BEGIN: it is told to have failed, not to have been done."""


# -- transaction blocks ------------------------------------------------------------------------------------------------


def test_begin_is_refused_and_the_connection_is_usable_afterwards(start: Start, database: str) -> None:
    """W5."""
    under_test = start()
    with under_test.wire() as client, under_test.wire() as other:
        client.log_in(database=database)
        other.log_in(database=database)
        for text in ("BEGIN", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT 1; BEGIN"):
            messages = client.ask(text)
            fields = error_fields(messages[-2])
            assert (fields["C"], fields["S"]) == ("0A000", "ERROR")
            assert "statement" in fields["M"]
            assert messages[-1]["status"] == b"I"
            assert other.values("SELECT now() = statement_timestamp()") == ["t"]
            assert client.values("SELECT 'usable'") == ["usable"]
    assert under_test.snapshot()["server_connections_made"] == 1


def test_a_driver_that_begins_a_transaction_is_told_so_and_goes_on(start: Start, database: str) -> None:
    with closing(connect(start(), database)) as connection:
        for _ in range(3):
            with pytest.raises(psycopg.errors.FeatureNotSupported), connection.transaction():
                pass
            assert value(connection, "SELECT 1") == 1


def test_a_whole_transaction_in_one_query_is_allowed(start: Start, database: str, observer: Connection) -> None:
    with start().wire() as client:
        client.log_in(database=database)
        assert conversation_of(client, "BEGIN; DELETE FROM kept WHERE x = 1; COMMIT") == [
            *3 * ["CommandComplete"],
            "ReadyForQuery",
        ]
        assert conversation_of(client, "BEGIN; DELETE FROM kept; ROLLBACK")[-1] == "ReadyForQuery"
        assert conversation_of(client, "DELETE FROM kept WHERE x = 2; DELETE FROM kept WHERE x = 3; SELECT 1/0")[
            -2:
        ] == [
            "22012",
            "ReadyForQuery",
        ]
    assert value(observer, "SELECT count(*) FROM kept") == 9


def conversation_of(client: Wire, text: str) -> list[str]:
    client.send(query(text))
    return conversation(client, 1)


def test_a_block_that_failed_is_rolled_back_and_its_own_error_is_the_only_one(
    start: Start, database: str, observer: Connection
) -> None:
    with start().wire() as client:
        client.log_in(database=database)
        assert conversation_of(client, "BEGIN; DELETE FROM kept; SELECT 1/0") == [
            "CommandComplete",
            "CommandComplete",
            "22012",
            "ReadyForQuery",
        ]
        assert client.values("SELECT count(*) FROM kept") == ["10"]


PIPELINES = {
    "simple queries": query("BEGIN") + query("DELETE FROM kept") + query("COMMIT"),
    "one block": query("BEGIN; DELETE FROM kept") + query("COMMIT"),
    "the extended protocol": extended("BEGIN") + extended("DELETE FROM kept") + extended("COMMIT"),
    "one batch": b"".join(parse(text) + bind() + execute() for text in ("BEGIN", "DELETE FROM kept"))
    + SYNC
    + query("COMMIT"),
    "the end of the session behind it": query("BEGIN") + query("DELETE FROM kept") + query("COMMIT") + TERMINATE,
}


def test_what_is_sent_behind_a_block_that_failed_is_not_run_either(
    start: Start, database: str, observer: Connection
) -> None:
    with start().wire() as client:
        client.log_in(database=database)
        client.send(query("BEGIN; SELECT 1/0") + query("DELETE FROM kept") + query("COMMIT"))
        assert sqlstate(next(message for message in client.rest() if message.name == "ErrorResponse")) == "22012"
    assert value(observer, "SELECT count(*) FROM kept") == 10


@pytest.mark.parametrize("pool_size", [1, 3])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipelined_begin_delete_commit_deletes_nothing(
    name: str, pool_size: int, start: Start, database: str, observer: Connection
) -> None:
    """W5, W6: what stands behind BEGIN in the same segment runs neither inside a block nor, worse, outside of it."""
    under_test = start(pool_size=pool_size)
    for _ in range(5):
        with under_test.wire() as client:
            client.log_in(database=database)
            client.send(PIPELINES[name])
            error = client.last_words()
            assert sqlstate(error) == "0A000"
            assert error is not None
            assert error_fields(error)["S"] == "FATAL"
    under_test.wait_until_unused()
    assert value(observer, "SELECT count(*) FROM kept") == 10
    assert under_test.snapshot()["server_connections_made"] <= pool_size  # they are clean, and used again


def test_a_block_of_the_extended_protocol_is_refused_too(start: Start, database: str, observer: Connection) -> None:
    with start().wire() as client:
        client.log_in(database=database)
        client.send(extended("BEGIN"))
        assert conversation(client, 1) == ["ParseComplete", "BindComplete", *REFUSED]
        client.send(b"".join(parse(text) + bind() + execute() for text in ("BEGIN", "DELETE FROM kept")) + SYNC)
        assert conversation(client, 1)[-2:] == REFUSED
        assert client.values("SELECT count(*) FROM kept") == ["10"]


def test_a_client_that_vanishes_behind_begin_leaves_no_transaction_open(
    start: Start, database: str, observer: Connection
) -> None:
    under_test = start()
    for number in range(20):
        client = under_test.wire()
        client.log_in(database=database)
        client.send(query("BEGIN; DELETE FROM kept") + query("COMMIT") + (TERMINATE if number % 3 == 0 else b""))
        client.reset() if number % 2 else client.close()
        with under_test.wire() as successor:
            successor.log_in(database=database)
            assert successor.values("SELECT now() = statement_timestamp()") == ["t"]
    under_test.wait_until_unused()
    assert value(observer, "SELECT count(*) FROM kept") == 10


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_autocommit_statements_rotate_over_the_server_connections(start: Start, database: str) -> None:
    under_test = start(pool_size=3)
    clients = [under_test.wire().log_in(database=database) for _ in range(12)]
    used: list[set[str]] = [set() for _ in clients]
    for turn in range(20):
        order = clients[turn % 12 :] + clients[: turn % 12]
        for client in order:
            client.send(query("SELECT pg_backend_pid(), pg_sleep(0.001)"))
        for client in order:
            used[clients.index(client)].add(row_values(client.until())[0])
    assert len(set.union(*used)) == 3
    assert max(len(processes) for processes in used) > 1
    for client in clients:
        client.close()
    assert under_test.snapshot()["server_connections_made"] == 3


def test_no_client_keeps_others_from_the_only_connection_by_sending_ahead(
    start: Start, database: str, observer: Connection
) -> None:
    """Each request takes its turn: a client that has sent many does not hold the connection until all are done."""
    observer.execute("CREATE SEQUENCE turns")
    under_test = start()
    with under_test.wire() as greedy, under_test.wire() as modest:
        greedy.log_in(database=database)
        modest.log_in(database=database)
        greedy.send(100 * query("SELECT nextval('turns'), pg_sleep(0.01)"))
        assert row_values(greedy.until()) == ["1", ""]
        assert int(modest.values("SELECT nextval('turns')")[0]) < 50
        turns = [int(row_values(greedy.until())[0]) for _ in range(99)]
        assert turns == sorted(turns)
        assert turns[-1] == 101


@pytest.mark.parametrize("policy", ["always", "smart"])
def test_settings_outlive_their_statement_and_nothing_else_does(policy: str, start: Start, database: str) -> None:
    """W19."""
    with start(server_reset_query=policy, on_session_state="allow").wire() as client:
        client.log_in(database=database, TimeZone="Asia/Tokyo")
        for statement, query_text, expected in (
            ("SET work_mem = '7MB'", "SHOW work_mem", ["7MB"]),
            ("SET TimeZone = 'UTC'", "SHOW TimeZone", ["UTC"]),
            ("RESET TimeZone", "SHOW TimeZone", ["Asia/Tokyo"]),
            ("SET ROLE pg_monitor", "SELECT current_user", ["pg_monitor"]),
            ("RESET ROLE", "SELECT current_user", ["postgres"]),
            ("CREATE TEMP TABLE left_behind ()", "SELECT to_regclass('pg_temp.left_behind')", [None]),
            ("PREPARE left_behind AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements", ["0"]),
        ):
            assert client.ask(statement)[-1].name == "ReadyForQuery"
            assert client.values(query_text) == expected


# -- what drivers send -------------------------------------------------------------------------------------------------


def test_copy_in_and_out_work(start: Start, database: str, observer: Connection) -> None:
    under_test = start(pool_size=2)

    def work(first: int) -> int:
        with closing(connect(under_test, database)) as connection, connection.cursor() as cursor:
            with cursor.copy("COPY kept FROM STDIN") as copy:
                for number in range(first, first + 500):
                    copy.write_row([number])
            with pytest.raises(psycopg.errors.BadCopyFileFormat), cursor.copy("COPY kept FROM STDIN") as copy:
                copy.write(b"1\t2\n")
            rows = f"SELECT x FROM kept WHERE x >= {first} AND x < {first + 500}"
            with cursor.copy(f"COPY ({rows}) TO STDOUT".encode()) as copy:
                return sum(int(row[0]) for row in copy.rows())

    with background() as run:
        tasks = [run(work, 1000 * number) for number in range(1, 7)]
        assert [task.result(60) for task in tasks] == [
            sum(range(1000 * number, 1000 * number + 500)) for number in range(1, 7)
        ]


@pytest.mark.parametrize("asked", [query("COPY kept FROM STDIN"), None], ids=["simple", "extended"])
def test_a_copy_whose_data_the_client_sends_ahead_is_one_request(
    asked: bytes | None, start: Start, database: str, observer: Connection
) -> None:
    data = copy_data(b"11\n12\n") + COPY_DONE
    with start().wire() as client:
        client.log_in(database=database)
        for _ in range(5):
            if asked is not None:
                client.send(asked + data + query("SELECT 'after'"))
            else:
                client.send(parse("COPY kept FROM STDIN") + bind() + execute() + data + SYNC + query("SELECT 'after'"))
            heard = conversation(client, 1)
            assert heard[-3:] == ["CopyInResponse", "CommandComplete", "ReadyForQuery"]
            assert row_values(client.until()) == ["after"]
    assert value(observer, "SELECT count(*) FROM kept") == 20


def test_the_extended_protocol_works_with_pipelines_flush_and_several_statements_before_one_sync(
    start: Start, database: str, observer: Connection
) -> None:
    """W6: one ReadyForQuery is owed at a time; a batch is one request, whatever stands in it."""
    under_test = start(pool_size=2)
    with under_test.wire() as client:
        client.log_in(database=database)
        client.send(100 * extended("SELECT $1::text", b"value"))
        for _ in range(100):
            assert row_values(client.until()) == ["value"]
        client.send(parse("SELECT 'flushed'") + bind() + execute() + FLUSH)
        assert row_values(client.until("CommandComplete")) == ["flushed"]
        client.send(parse("SELECT 'more'") + bind() + execute() + SYNC)
        assert row_values(client.until()) == ["more"]
        client.send(parse("SELECT 1/0") + bind() + execute() + parse("DELETE FROM kept") + bind() + execute() + SYNC)
        client.send(extended("SELECT count(*) FROM kept"))
        assert conversation(client, 1)[-2:] == ["22012", "ReadyForQuery"]
        assert row_values(client.until()) == ["10"]
    with closing(connect(under_test, database)) as connection:
        with connection.pipeline() as pipeline:
            cursors = []
            for number in range(50):
                cursors.append(connection.execute("SELECT %s::int", [number]))
                pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(50)]


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_cancel_request_ends_the_running_statement_and_what_was_sent_behind_it_runs(
    start: Start, database: str, observer: Connection
) -> None:
    with start().wire() as client:
        client.log_in(database=database)
        client.send(query("SELECT pg_sleep(600)") + query("SELECT 'behind'"))
        wait_for(lambda: value(observer, "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'sleep.600'") == 2)
        assert client.cancel() == b""
        assert conversation(client, 1)[-2:] == ["57014", "ReadyForQuery"]
        assert row_values(client.until()) == ["behind"]


def test_cancel_of_a_client_that_waits_with_several_requests_ends_the_first_alone(start: Start, database: str) -> None:
    under_test = start()
    with under_test.wire() as busy, under_test.wire() as client:
        busy.log_in(database=database)
        client.log_in(database=database)
        busy.send(query("SELECT pg_sleep(1)"))
        wait_for(lambda: under_test.snapshot()["pools"][0]["in_use"] == 1)
        client.send(query("SELECT 'first'") + query("SELECT 'second'"))
        wait_for(lambda: under_test.snapshot()["waiting"] == 1)
        client.cancel()
        assert conversation(client, 1) == ["57014", "ReadyForQuery"]
        assert row_values(client.until()) == ["second"]
        busy.until()
