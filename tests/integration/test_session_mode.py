"""Session mode, proved with the process id of the server process: who holds which connection, and in what state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance
from tests.integration.clients import (
    Connection,
    background,
    exists,
    opening,
    refusal,
    server_process,
    value,
    wait_for,
)
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.poolers import Pooler, PoolerFactory
from tests.integration.wire import Address, error_fields


def configuration(postgres: PostgresServer, *, pool_size: int = 1, **settings: Any) -> dict[str, Any]:
    """Everybody to one server; the settings are those of `defaults`."""
    return {
        "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port}],
        "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
        "routing": {
            "defaults": {"pool_size": pool_size, **settings},
            "rules": [{"default": True, "backend": "primary"}],
        },
    }


Connect = Callable[..., Connection]


@pytest.fixture
def direct(postgres: PostgresServer, database: str) -> Connect:
    """Connect to the server itself: `direct()`."""

    def connect(**parameters: Any) -> Connection:
        return psycopg.connect(postgres.url(database), autocommit=True, **parameters)

    return connect


class Clients:
    """Connects to one PgPooler as the superuser to one database."""

    def __init__(self, port: int, postgres: PostgresServer, database: str) -> None:
        self._parameters: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": port,
            "user": postgres.superuser,
            "password": postgres.password,
            "dbname": database,
            "sslmode": "disable",
        }

    def __call__(self, *, autocommit: bool = True, **parameters: Any) -> Connection:
        return psycopg.connect(autocommit=autocommit, **{**self._parameters, **parameters})


Start = Callable[..., Clients]


@pytest.fixture
def connecting(pooler: PoolerFactory, postgres: PostgresServer, database: str) -> Start:
    """Start a PgPooler and return what connects to it: `connecting(pool_size=1)`."""

    def start(**settings: Any) -> Clients:
        return Clients(pooler(configuration(postgres, **settings)).port, postgres, database)

    return start


# -- who holds what ----------------------------------------------------------------------------------------------------


def test_each_client_has_one_server_connection_of_its_own_for_its_whole_session(connecting: Start) -> None:
    connect = connecting(pool_size=3)
    connections = [connect() for _ in range(3)]
    processes = [server_process(connection) for connection in connections]
    assert len(set(processes)) == 3
    for _ in range(3):
        for connection, process in zip(connections, processes, strict=True):
            assert server_process(connection) == process
            with connection.transaction():
                assert server_process(connection) == process
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1/0")
    for connection in connections:
        connection.close()


def test_the_process_id_that_a_client_is_told_is_the_servers_own(connecting: Start) -> None:
    connect = connecting(pool_size=2)
    with connect() as first, connect() as second:
        for connection in (first, second):
            assert connection.info.backend_pid == server_process(connection)
        assert value(first, "SELECT pg_terminate_backend(%s, 60000)", second.info.backend_pid)
        with pytest.raises(psycopg.errors.AdminShutdown):
            second.execute("SELECT 1")
        assert value(first, "SELECT 1") == 1


def test_a_notification_names_the_process_that_its_sender_knows(connecting: Start) -> None:
    connect = connecting(pool_size=2)
    with connect() as listener, connect() as sender:
        listener.execute("LISTEN news")
        sender.execute("NOTIFY news, 'hello'")
        (notification,) = listener.notifies(timeout=60, stop_after=1)
        assert (notification.payload, notification.pid) == ("hello", sender.info.backend_pid)


def test_the_next_client_gets_the_same_server_connection_and_terminate_does_not_end_it(connecting: Start) -> None:
    connect = connecting()
    processes = set()
    for _ in range(5):
        with closing(connect()) as connection:
            processes.add(server_process(connection))
    assert len(processes) == 1


# -- what the next client finds ----------------------------------------------------------------------------------------

TRACES = {
    "settings": "SELECT name, setting FROM pg_settings WHERE source = 'session' "
    "AND name NOT IN ('client_encoding', 'application_name') ORDER BY 1",
    "work_mem": "SHOW work_mem",
    "application_name": "SHOW application_name",
    "client_encoding": "SHOW client_encoding",
    "users": "SELECT current_user, session_user",
    "temporary tables": "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
    "prepared statements": "SELECT name FROM pg_prepared_statements ORDER BY 1",
    "channels": "SELECT * FROM pg_listening_channels()",
    "advisory locks": "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "cursors": "SELECT name FROM pg_cursors",
    "transaction": "SELECT now() = statement_timestamp(), pg_current_xact_id_if_assigned() IS NULL",
    "tables": "SELECT count(*) FROM pg_class WHERE relname = 'left_behind' AND relpersistence = 'p'",
    "rows": "SELECT count(*) FROM kept",
}


def traces(connection: Connection) -> dict[str, Any]:
    """Everything by which a session could tell that another one was there before, and what its client is told."""
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    found: dict[str, Any] = {}
    for name, query in TRACES.items():
        found[name] = connection.execute(query.encode(), prepare=False).fetchall()
    try:
        found["sequence"] = connection.execute("SELECT currval('numbers')").fetchone()
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        found["sequence"] = error.sqlstate
    for parameter in ("client_encoding", "TimeZone", "DateStyle", "application_name", "session_authorization"):
        found[f"told {parameter}"] = connection.info.parameter_status(parameter)
    return found


def prepare_in_the_protocol(connection: Connection) -> None:
    connection.execute("SELECT %s::int", [1], prepare=True)


def fail_in_a_pipeline(connection: Connection) -> None:
    with connection.pipeline() as pipeline:
        connection.execute("CREATE TABLE left_behind ()")
        connection.execute("SELECT 1/0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            pipeline.sync()


def leave_a_copy_half_read(connection: Connection) -> None:
    connection.execute("SET work_mem = '3MB'")
    copying = connection.cursor().copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT")
    copying.__enter__().read()


LEFTOVERS: dict[str, list[str] | Callable[[Connection], None]] = {
    "SET": ["SET work_mem = '7MB'", "SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'German'"],
    "a changed client_encoding": ["SET client_encoding = 'LATIN1'"],
    "SET of a startup parameter": ["SET application_name = 'someone else'"],
    "SET ROLE": ["SET ROLE pg_monitor"],
    "SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION pg_monitor"],
    "a temporary table": ["CREATE TEMP TABLE left_behind AS SELECT 1 AS x"],
    "a temporary table that hides another": ["CREATE TEMP TABLE kept (x int)", "INSERT INTO kept VALUES (1)"],
    "PREPARE": ["PREPARE left_behind AS SELECT 1"],
    "a statement prepared in the protocol": prepare_in_the_protocol,
    "LISTEN": ["LISTEN left_behind"],
    "advisory locks": ["SELECT pg_advisory_lock(42)", "SELECT pg_advisory_lock_shared(43)"],
    "a cursor WITH HOLD": ["BEGIN", "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1", "COMMIT"],
    "an open transaction": ["BEGIN", "INSERT INTO kept VALUES (1)", "CREATE TABLE left_behind ()"],
    "a failed transaction": ["BEGIN", "INSERT INTO kept VALUES (1)", "SELECT 1/0"],
    "a sequence's last value": ["SELECT nextval('numbers')"],
    "a failed pipeline": fail_in_a_pipeline,
    "a COPY that was not read to its end": leave_a_copy_half_read,
}


@pytest.fixture
def objects(direct: Connect) -> None:
    with closing(direct()) as connection:
        connection.execute("CREATE TABLE kept (x int)")
        connection.execute("CREATE SEQUENCE numbers")


def test_the_next_client_finds_nothing_of_what_its_predecessor_left(
    connecting: Start, direct: Connect, objects: None
) -> None:
    connect = connecting()
    with closing(direct(application_name="the next")) as connection:
        expected = traces(connection)
    for name, leftover in LEFTOVERS.items():
        with closing(connect(application_name="the first")) as first:
            process = server_process(first)
            if callable(leftover):
                leftover(first)
            else:
                for statement in leftover:
                    with_error = statement == "SELECT 1/0"
                    try:
                        first.execute(statement.encode())
                    except psycopg.errors.DivisionByZero:
                        assert with_error
        with closing(connect(application_name="the next")) as second:
            assert traces(second) == expected, name
            if name != "a COPY that was not read to its end":  # canceled or closed, as it comes
                assert server_process(second) == process, name


def test_a_lock_left_behind_is_free_again_before_anybody_uses_the_connection(
    connecting: Start, direct: Connect, objects: None
) -> None:
    connect = connecting(pool_size=2)
    with closing(direct()) as observer:
        with closing(connect()) as first:
            first.execute("SELECT pg_advisory_lock(7)")
            first.execute("BEGIN")
            first.execute("LOCK TABLE kept")
        wait_for(lambda: value(observer, "SELECT pg_try_advisory_lock(7)"))
        observer.execute("SET lock_timeout = '60s'")
        observer.execute("INSERT INTO kept VALUES (1)")


def test_a_client_that_rolls_nothing_back_leaves_nothing_and_one_that_commits_leaves_it(
    connecting: Start, objects: None
) -> None:
    connect = connecting()
    with closing(connect(autocommit=False)) as first:
        first.execute("INSERT INTO kept VALUES (1)")
    with closing(connect(autocommit=False)) as second:
        second.execute("INSERT INTO kept VALUES (2)")
        second.commit()
    with closing(connect()) as third:
        assert third.execute("SELECT x FROM kept").fetchall() == [(2,)]


def leave_with_a_blocked_reset(connect: Clients, blocker: Connection) -> int:
    """Let a client leave whose reset cannot go on: another session has locked the temporary table it must drop.

    Returns the server process, which after 300 ms gives its reset up with an error.
    """
    with closing(connect()) as first:
        process = server_process(first)
        first.execute("CREATE TEMP TABLE in_the_way ()")
        schema = value(first, "SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
        blocker.execute("BEGIN")
        blocker.execute(f"LOCK TABLE {schema}.in_the_way IN ACCESS SHARE MODE".encode())
        first.execute("SET statement_timeout = '300ms'")
    return process


def test_a_server_connection_whose_reset_fails_is_closed_and_never_used_again(
    connecting: Start, direct: Connect
) -> None:
    connect = connecting()
    with closing(direct()) as blocker:
        process = leave_with_a_blocked_reset(connect, blocker)
        with closing(connect()) as second:
            assert server_process(second) != process
            assert value(second, "SHOW statement_timeout") == "0"
        blocker.execute("COMMIT")
        wait_for(lambda: not exists(blocker, process))


def test_a_server_connection_that_dies_in_its_reset_is_not_used_again(connecting: Start, direct: Connect) -> None:
    connect = connecting()
    with background() as start, closing(direct()) as blocker, closing(direct()) as observer:
        with closing(connect()) as first:
            process = server_process(first)
            first.execute("CREATE TEMP TABLE in_the_way ()")
            schema = value(first, "SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
            blocker.execute("BEGIN")
            blocker.execute(f"LOCK TABLE {schema}.in_the_way IN ACCESS SHARE MODE".encode())
        resetting = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        wait_for(lambda: value(observer, resetting, process))
        waiting = start(connect)
        assert value(observer, "SELECT pg_terminate_backend(%s)", process)
        blocker.execute("COMMIT")
        with closing(waiting.result(60)) as second:
            assert server_process(second) != process
            assert value(second, "SELECT 1") == 1
        wait_for(lambda: not exists(observer, process))


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_a_client_beyond_pool_size_waits_and_gets_the_connection_that_comes_back(connecting: Start) -> None:
    connect = connecting(pool_size=2)
    with background() as start, closing(connect()) as first, closing(connect()) as second:
        waiting = start(connect)
        assert server_process(first) != server_process(second)
        assert not waiting.done()
        freed = server_process(first)
        first.close()
        with closing(waiting.result(60)) as third:
            assert server_process(third) == freed


def test_waiting_clients_are_served_in_the_order_in_which_they_came(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str
) -> None:
    running = data_plane(configuration(postgres))
    connect = Clients(running.port, postgres, database)
    served: list[int] = []

    def wait_for_turn(number: int) -> None:
        with closing(connect()) as connection:
            served.append(number)
            assert value(connection, "SELECT 1") == 1

    with background() as start:
        with closing(connect()):
            waiters = []
            for number in range(6):
                waiters.append(start(wait_for_turn, number))
                wait_for(lambda number=number: running.snapshot()["waiting"] == number + 1)
            assert served == []
        for waiter in waiters:
            waiter.result(60)
    assert served == list(range(6))
    assert running.snapshot()["server_connections_made"] == 1


def test_a_waiting_client_that_leaves_gives_its_place_up(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str
) -> None:
    running = data_plane(configuration(postgres))
    connect = Clients(running.port, postgres, database)
    with background() as start, closing(connect()):
        impatient = running.wire()
        assert impatient.authenticate(postgres.superuser, postgres.password, database).name == "AuthenticationOk"
        wait_for(lambda: running.snapshot()["waiting"] == 1)
        patient = start(connect)
        wait_for(lambda: running.snapshot()["waiting"] == 2)
        impatient.close()
        wait_for(lambda: running.snapshot()["waiting"] == 1)
        assert not patient.done()
    use(patient)


def use(future: Future[Connection]) -> None:
    """Take the connection that somebody waited for, and use it."""
    with closing(future.result(60)) as connection:
        assert value(connection, "SELECT 1") == 1


def test_a_client_that_waited_too_long_is_told_which_pool_and_which_limit(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    running = pooler(configuration(postgres, pool_size=2, query_wait_timeout="300ms"))
    connect = Clients(running.port, postgres, database)
    with closing(connect()) as first, closing(connect()) as second:
        held = {server_process(first), server_process(second)}
        fields = refusal((running.host, running.port), postgres.superuser, postgres.password, database)
        assert (fields["S"], fields["C"]) == ("FATAL", "53300")
        assert f"{database}.{postgres.superuser}.primary" in fields["M"]
        assert "within 0.3 s (query_wait_timeout)" in fields["M"]
        assert "2 are in use" in fields["D"]
        assert "pool_size is 2" in fields["D"]
        assert {server_process(first), server_process(second)} == held


def test_without_a_query_wait_timeout_a_client_waits_as_long_as_it_takes(connecting: Start) -> None:
    connect = connecting(query_wait_timeout=0)
    with background() as start:
        with closing(connect()) as first:
            waiting = start(connect)
            assert value(first, "SELECT pg_sleep(1)") == ""
            assert not waiting.done()
        use(waiting)


# -- startup parameters ------------------------------------------------------------------------------------------------

SHOWN = (
    "application_name", "TimeZone", "DateStyle", "IntervalStyle", "client_encoding", "search_path", "work_mem",
    "statement_timeout", "extra_float_digits", "enable_seqscan", "role", "default_transaction_read_only", "geqo",
)  # fmt: skip

STARTUPS: tuple[dict[str, str], ...] = (
    {},
    {"application_name": "a report"},
    {"application_name": "it's \"quoted\" \\' $$ '); DROP TABLE kept; --"},
    {"application_name": "a\nb\tc"},
    {"application_name": "größer"},
    {"application_name": "x" * 200},
    {"application_name": ""},
    {"TimeZone": "Europe/Paris"},
    {"timezone": "america/new_york"},
    {"TIMEZONE": "<-03>+03"},
    {"DateStyle": "German, DMY", "IntervalStyle": "iso_8601"},
    {"client_encoding": "latin1"},
    {"client_encoding": "UTF-8"},
    {"client_encoding": "'utf8'"},
    {"client_encoding": "LATIN1", "application_name": "größer", "search_path": "größer"},
    {"search_path": 'public, "Weird ""Schema", pg_temp'},
    {"search_path": '"$user", public'},
    {"search_path": "it's, \"a\\b\""},
    {"search_path": ""},
    {"extra_float_digits": "3", "geqo": "off"},
    {"options": "-c work_mem=5MB --statement-timeout=7s -cenable_seqscan=off"},
    {"options": "  -c   work_mem=6MB  "},
    {"options": r"-c application_name=two\ words\ and\ a\\backslash"},
    {"options": r'-c search_path=a,\ "B\ c",d'},
    {"options": "-c application_name=from_options", "application_name": "from the packet"},
    {"options": "-c default-transaction-read-only=on"},
    {"options": "-c role=pg_monitor"},
    {"options": "-c my.own=x -c work_mem=2MB -c work_mem=3MB"},
    {"options": ""},
    {"default_transaction_read_only": "on"},
)  # fmt: skip

REFUSED: tuple[dict[str, str], ...] = (
    {"TimeZone": "Nowhere/City"},
    {"DateStyle": "nonsense"},
    {"client_encoding": "klingon"},
    {"work_mem": "plenty"},
    {"work_mem": "1kB"},
    {"no_such_setting": "1"},
    {"search_path": 'unbalanced "quote'},
    {"max_connections": "5"},
    {"server_version": "99"},
    {"options": "-c no_such_setting=1"},
    {"options": "--work-mem=plenty"},
    {"options": "-c role=no_such_role"},
    {"options": "-c nonsense"},
    {"options": "-cnonsense"},
    {"options": "--nonsense"},
    {"options": "-c no-such-setting=1"},
    {"options": '-c "odd name"=1'},
)


def data_rows(messages: list[Instance]) -> list[Any]:
    """The values of the rows, as they are: not every client_encoding is UTF8."""
    return [message["values"] for message in messages if message.name == "DataRow"]


def session(address: Address, postgres: PostgresServer, database: str, startup: dict[str, str]) -> dict[str, Any]:
    """What a session that begins with these parameters is told and shows; or the error it gets instead."""
    wire, messages = opening(address, postgres.superuser, postgres.password, database, **startup)
    with wire:
        if messages[-1].name == "ErrorResponse":
            return error_fields(messages[-1])
        told = {message["parameter"]: message["setting"] for message in messages if message.name == "ParameterStatus"}
        shown = {name: data_rows(wire.ask(f"SHOW {name}")) for name in SHOWN}
        return {"told": told, "shown": shown}


def test_startup_parameters_mean_what_they_mean_on_a_direct_connection(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    running = pooler(configuration(postgres, pool_size=1))
    for startup in STARTUPS:
        expected = session((postgres.host, postgres.port), postgres, database, startup)
        assert "told" in expected, (startup, expected)
        assert session((running.host, running.port), postgres, database, startup) == expected, startup


def test_a_startup_parameter_that_postgresql_refuses_is_refused_with_its_error(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    running = pooler(configuration(postgres, pool_size=1))
    for startup in REFUSED:
        expected = session((postgres.host, postgres.port), postgres, database, startup)
        assert expected["S"] == "FATAL", (startup, expected)
        assert session((running.host, running.port), postgres, database, startup) == expected, startup
    assert session((running.host, running.port), postgres, database, {}) == session(
        (postgres.host, postgres.port), postgres, database, {}
    )


def test_a_refused_startup_parameter_costs_no_server_connection(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str
) -> None:
    running: RunningDataPlane = data_plane(configuration(postgres, pool_size=1))
    for _ in range(3):
        fields = refusal(running.address, postgres.superuser, postgres.password, database, TimeZone="Nowhere/City")
        assert fields["C"] == "22023"
    assert running.snapshot()["server_connections_made"] == 1


def test_what_roles_and_databases_set_holds_and_startup_parameters_win_over_it(
    pooler: PoolerFactory, postgres: PostgresServer, database: str, direct: Connect
) -> None:
    with closing(direct()) as connection:
        connection.execute(f"ALTER DATABASE {database} SET work_mem = '9MB'".encode())
        connection.execute(f"ALTER DATABASE {database} SET TimeZone = 'Asia/Tokyo'".encode())
    running: Pooler = pooler(configuration(postgres, pool_size=1))
    connect = Clients(running.port, postgres, database)
    with closing(connect(options="-c work_mem=2MB")) as first:
        assert value(first, "SHOW work_mem") == "2MB"
        assert first.info.parameter_status("TimeZone") == "Asia/Tokyo"
    with closing(connect()) as second:
        assert value(second, "SHOW work_mem") == "9MB"
        assert value(second, "SHOW TimeZone") == "Asia/Tokyo"
