"""What went wrong in other poolers and must not go wrong here, with real servers: one test for each lesson.

Each names the pooler, and the issue or CVE.  The whole list, with the lessons that are tested elsewhere, is
docs/reference/lessons-of-peers.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from pgpooler.net.relay import RECEIVE_BUFFER
from spec.codec import encode, frontend
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.servers import TwoServers
from tests.integration.wire import (
    SYNC,
    TERMINATE,
    Address,
    Wire,
    bind,
    error_fields,
    execute,
    extended,
    parse,
    query,
    row_values,
    sqlstate,
)

MODES = ["session", "transaction", "statement"]
FLUSH = encode(frontend("Flush"))
Start = Callable[..., RunningDataPlane]


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a pool of one: `start("transaction", on_session_state="allow")`."""

    def run(mode: str, **keys: Any) -> RunningDataPlane:
        defaults = {"pool_mode": mode, "pool_size": 1, **keys}
        return data_plane(two_servers.configuration(routing={"defaults": defaults}))

    return run


def logged_in(address: Address, database: str, **parameters: str) -> Wire:
    return Wire(address).log_in(database=database, **parameters)


def direct_address(server: PostgresServer) -> Address:
    return server.host, server.port


def goodbye(*clients: Wire) -> None:
    for client in clients:
        client.send(TERMINATE)
        assert client.everything() == b""
        client.close()


def answers(client: Wire, *requests: bytes) -> list[object]:
    """What answers these requests, sent in one segment: every message up to the ReadyForQuery of the last."""
    client.send(*requests)
    expected = sum(request[:1] == b"Q" for request in requests) + b"".join(requests).count(SYNC)
    heard: list[object] = []
    for _ in range(expected):
        heard += [
            (message.name, error_fields(message) if message.name == "ErrorResponse" else message.fields)
            for message in client.until()
        ]
    return heard


# -- settings ----------------------------------------------------------------------------------------------------------

SHOW = query("SELECT name, setting FROM pg_settings WHERE name IN ('work_mem', 'TimeZone', 'DateStyle', 'search_path')")
CHANGES: dict[str, tuple[str, ...]] = {
    "SET": ("SET work_mem = '7MB'", "SET TimeZone = 'Asia/Tokyo'"),
    "SET that is rolled back": ("SET TimeZone = 'Asia/Tokyo'", "ROLLBACK", "BEGIN"),
    "SET in a transaction that fails": ("SET TimeZone = 'Asia/Tokyo'", "SELECT 1/0", "ROLLBACK", "BEGIN"),
    "SET LOCAL": ("SET LOCAL TimeZone = 'Asia/Tokyo'", "SET LOCAL work_mem = '7MB'"),
    "SET LOCAL that ends": ("SET LOCAL TimeZone = 'Asia/Tokyo'", "COMMIT", "BEGIN"),
    "SET and SET LOCAL": ("SET TimeZone = 'Asia/Tokyo'", "SET LOCAL TimeZone = 'Asia/Kabul'"),
    "SET before a savepoint": ("SET DateStyle = 'German'", "SAVEPOINT s", "SELECT 1/0", "ROLLBACK TO s"),
    "SET behind a savepoint": ("SAVEPOINT s", "SET DateStyle = 'German'", "ROLLBACK TO s"),
    "SET behind a savepoint that is released": ("SAVEPOINT s", "SET DateStyle = 'German'", "RELEASE s"),
    "RESET": ("SET TimeZone = 'Asia/Tokyo'", "RESET TimeZone"),
    "RESET ALL": ("SET TimeZone = 'Asia/Tokyo'", "SET work_mem = '7MB'", "RESET ALL"),
    "SET TO DEFAULT": ("SET work_mem = '7MB'", "SET work_mem TO DEFAULT"),
    "set_config": ("SELECT set_config('work_mem', '7MB', false), set_config('TimeZone', 'Asia/Tokyo', true)",),
    "set_config of pg_dump": ("SELECT pg_catalog.set_config('search_path', '', false)",),
    "ALTER in disguise": ("UPDATE pg_settings SET setting = 'German' WHERE name = 'DateStyle'",),
    "SET of what there is not": ("SET no_such_setting = 1", "ROLLBACK", "BEGIN", "SET TimeZone = 'nowhere'"),
}


@pytest.mark.parametrize("policy", ["always", "smart"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_setting_changes_as_on_a_direct_connection_and_for_nobody_else(
    case: str, policy: str, start: Start, postgres: PostgresServer, database: str
) -> None:
    """PgBouncer #452, #879, PgDog #687, #1298: a SET came to others, or outlived its ROLLBACK, or was told twice.

    What outlives the transaction is the client's own from then on.
    """
    under_test = start("transaction", server_reset_query=policy)
    said = [query(text) for text in ("BEGIN", *CHANGES[case])]
    ends = [SHOW, query("COMMIT")]
    with logged_in(direct_address(postgres), database) as direct:
        untouched = answers(direct, SHOW)
        rounds = [[answers(direct, request) for request in [*said, *ends, SHOW]] for _ in range(2)]
    one, other = (logged_in(under_test.address, database) for _ in range(2))
    for expected in rounds:
        for number, request in enumerate([*said, *ends, SHOW]):
            assert answers(one, request) == expected[number]
        assert answers(other, SHOW) == untouched
    assert under_test.snapshot()["server_connections_made"] == 1
    goodbye(one, other)


SEARCH_PATHS = ('"a"', '"a b", "c,d"', '"$user", public', "", '""', '"A", b', '"quo""te"', "'x'", '"\\a"', '"a;b"')


@pytest.mark.parametrize("policy", ["always", "smart", "never"])
def test_search_path_is_the_same_after_a_thousand_leases(
    policy: str, start: Start, postgres: PostgresServer, database: str
) -> None:
    """PgBouncer #452, #396, Odyssey #809: quotes grew with every replay, and pg_dump's empty search_path stayed."""
    under_test = start("transaction", server_reset_query=policy)
    expected, clients = [], []
    for path in SEARCH_PATHS:
        with logged_in(direct_address(postgres), database, search_path=path) as direct:
            expected.append(direct.values("SHOW search_path"))
        clients.append(logged_in(under_test.address, database, search_path=path))
    for _ in range(1000 // len(clients) + 1):
        for client, path in zip(clients, expected, strict=True):
            assert client.values("SHOW search_path") == path
    assert under_test.snapshot()["server_connections_made"] == 1
    goodbye(*clients)


TRAP = """
CREATE SCHEMA trap;
CREATE TABLE trap.fallen (what text);
CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('set_config'); SELECT ''$$;
CREATE FUNCTION trap.set_config(varchar, varchar, boolean) RETURNS text LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('set_config'); SELECT ''$$;
CREATE FUNCTION trap.pg_advisory_unlock_all() RETURNS void LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('pg_advisory_unlock_all')$$;
CREATE FUNCTION trap.pg_listening_channels() RETURNS SETOF text LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('pg_listening_channels'); SELECT NULL::text WHERE false$$;
CREATE FUNCTION trap.pg_my_temp_schema() RETURNS oid LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('pg_my_temp_schema'); SELECT 0::oid$$;
CREATE FUNCTION trap.pg_backend_pid() RETURNS int LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('pg_backend_pid'); SELECT 0$$;
CREATE FUNCTION trap.equal(text, text) RETURNS boolean LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('='); SELECT false$$;
CREATE FUNCTION trap.equal(oid, oid) RETURNS boolean LANGUAGE sql AS
    $$INSERT INTO trap.fallen VALUES ('='); SELECT false$$;
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.equal);
CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.equal);
CREATE VIEW trap.pg_cursors AS SELECT true AS is_holdable, trap.pg_backend_pid() AS fallen;
CREATE VIEW trap.pg_prepared_statements AS SELECT true AS from_sql, trap.pg_backend_pid() AS fallen;
CREATE VIEW trap.pg_locks AS SELECT 'advisory'::text AS locktype, trap.pg_backend_pid() AS pid;
CREATE VIEW trap.pg_depend AS SELECT 0::oid AS refclassid, 0::oid AS refobjid;
"""
LEAVINGS = (
    "LISTEN own",
    "SELECT pg_catalog.pg_advisory_lock(7)",
    "CREATE TEMP TABLE own ()",
    "BEGIN; DECLARE own CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "PREPARE own AS SELECT 1",
)


@pytest.mark.parametrize("policy", ["always", "smart"])
@pytest.mark.parametrize("pin", ["pin", "allow"])
def test_our_own_statements_call_nothing_that_a_search_path_puts_in_their_way(
    pin: str, policy: str, start: Start, postgres: PostgresServer, database: str
) -> None:
    """PgBouncer, CVE-2025-12819: its own query ran with the search_path a client had asked for at startup."""
    postgres.execute(TRAP, database=database)
    under_test = start("transaction", server_reset_query=policy, on_session_state=pin, pool_size=2, max_pinned=2)
    hostile = {"search_path": "trap, pg_catalog", "application_name": "hostile"}
    for _ in range(2):
        client = logged_in(under_test.address, database, **hostile)
        for statement in LEAVINGS:
            assert client.ask(statement)[-1].name == "ReadyForQuery"
        goodbye(client)
        wait_until(lambda: not any(pool["in_use"] for pool in under_test.snapshot()["pools"]))
    with logged_in(under_test.address, database) as client:
        assert client.values("SELECT what FROM trap.fallen") == []
        assert client.values("SHOW search_path") == ['"$user", public']


# -- statements and portals --------------------------------------------------------------------------------------------

RUN = bind(name=b"s") + execute() + SYNC
DEALLOCATIONS: dict[str, tuple[bytes, ...]] = {
    "DEALLOCATE ALL": (parse("SELECT 1", name=b"s") + SYNC, RUN, query("DEALLOCATE ALL"), RUN),
    "DEALLOCATE by name": (parse("SELECT 1", name=b"s") + SYNC, query("DEALLOCATE s"), RUN),
    "DEALLOCATE of what there is not": (query("DEALLOCATE s"), SYNC, parse("SELECT 1", name=b"s") + SYNC, RUN),
    "DISCARD ALL": (parse("SELECT 1", name=b"s") + SYNC, query("DISCARD ALL"), RUN, query("SELECT 2")),
    "DISCARD PLANS": (parse("SELECT 1", name=b"s") + SYNC, query("DISCARD PLANS"), RUN),
    "DISCARD ALL in a transaction": (query("BEGIN"), query("DISCARD ALL"), query("ROLLBACK"), query("SELECT 2")),
    "DISCARD ALL in a query with others": (query("SELECT 1; DISCARD ALL"), query("SELECT 2")),
    "DISCARD ALL in a pipeline": (parse("SELECT 1") + bind() + execute() + extended("DISCARD ALL"), query("SELECT 2")),
    "a statement again": (parse("SELECT 1", name=b"s") + SYNC, parse("SELECT 2", name=b"s") + SYNC, RUN),
    "PREPARE and Bind": (query("PREPARE s AS SELECT 1"), RUN, query("DEALLOCATE s"), RUN),
    "Parse and EXECUTE": (parse("SELECT 1", name=b"s") + SYNC, query("EXECUTE s"), query("DEALLOCATE s"), RUN),
    "another result": (
        query("BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS a"),
        parse("SELECT * FROM t", name=b"s") + SYNC,
        RUN,
        query("ALTER TABLE t ADD b int"),
        RUN,
        query("ROLLBACK"),
    ),
}


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("case", DEALLOCATIONS)
def test_statements_dropped_by_sql_are_dropped_as_on_a_direct_connection(
    case: str, mode: str, start: Start, postgres: PostgresServer, database: str
) -> None:
    """PgBouncer #972, #974, #991, Odyssey #1483: DEALLOCATE and DISCARD in SQL were not noticed, or hit a pipeline.

    In one segment, so that it is one lease in every mode.
    """
    under_test = start(mode, on_session_state="allow")
    with logged_in(direct_address(postgres), database) as direct:
        expected = answers(direct, *DEALLOCATIONS[case])
    client = logged_in(under_test.address, database)
    assert answers(client, *DEALLOCATIONS[case]) == expected
    goodbye(client)
    client = logged_in(under_test.address, database)
    assert answers(client, *DEALLOCATIONS[case]) == expected, "something was left"
    goodbye(client)
    assert under_test.snapshot()["server_connections_made"] == 1


def portal(name: bytes, text: str, limit: int) -> bytes:
    """Parse and Bind a portal of this name, and fetch some rows."""
    bound = frontend("Bind", portal=name, statement=b"", formats=(), values=(), result_formats=())
    return parse(text) + encode(bound) + fetch(name, limit)


def fetch(name: bytes, limit: int) -> bytes:
    return encode(frontend("Execute", portal=name, limit=limit))


SERIES = "SELECT '{}' || x FROM generate_series(1, 5) x"


@pytest.mark.parametrize("name", [b"", b"p"])
def test_rows_are_fetched_from_a_portal_of_ones_own_as_long_as_its_transaction_lasts(
    name: bytes, start: Start, postgres: PostgresServer, database: str
) -> None:
    """PgDog #763, #1332, Odyssey: a suspended portal was lost with its server, or read by somebody else."""
    under_test = start("transaction", pool_size=2)
    with logged_in(direct_address(postgres), database) as direct:
        script = (query("BEGIN"), portal(name, SERIES.format("one"), 2) + SYNC, fetch(name, 2) + SYNC)
        script += (fetch(name, 0) + SYNC, fetch(name, 1) + SYNC, query("ROLLBACK"), fetch(name, 1) + SYNC)
        expected = [answers(direct, request) for request in script]
    one, other, third = (logged_in(under_test.address, database) for _ in range(3))
    heard = []
    for request in script:
        heard.append(answers(one, request))
        other.send(portal(name, SERIES.format("other"), 1), SYNC)
        assert row_values(other.until()) == ["other1"]
        for stranger in (other, third):
            stranger.send(fetch(name, 1), SYNC)
            refused = [message for message in stranger.until() if message.name == "ErrorResponse"]
            assert [sqlstate(message) for message in refused] == ["34000"]
    assert heard == expected
    goodbye(one, other, third)


def test_an_answer_to_flush_comes_before_anything_more_is_said(start: Start, database: str) -> None:
    """PgCat PR 953, pgpool-II #79, asyncpg #1058: without a Sync the client waited for ever."""
    for mode in MODES:
        client = logged_in(start(mode).address, database)
        client.send(parse("SELECT $1::text"), encode(frontend("Describe", kind=b"S", target=b"")), FLUSH)
        assert client.until("RowDescription")[-1].name == "RowDescription"
        client.send(bind(b"value"), execute(), FLUSH)
        assert row_values(client.until("CommandComplete")) == ["value"]
        client.send(SYNC)
        assert [message.name for message in client.until()] == ["ReadyForQuery"]
        goodbye(client)


@pytest.mark.parametrize("name", ["idle_transaction_timeout", "session_idle_timeout"])
@pytest.mark.parametrize("mode", MODES)
def test_who_waits_behind_a_flush_for_a_long_query_is_not_idle(
    mode: str, name: str, start: Start, database: str
) -> None:
    """pg_doorman: a timeout struck a client whose query ran, because it had sent a Flush and no Sync."""
    client = logged_in(start(mode, **{name: 0.3}).address, database)
    client.send(parse("SELECT pg_sleep(1.5)"), bind(), execute(), FLUSH)
    assert [message.name for message in client.until("CommandComplete", "ErrorResponse")][-1] == "CommandComplete"
    assert sqlstate(client.last_words()) in ("25P03", "57P05")
    client.close()


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooled(two_servers: TwoServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDataPlane]:
    """PgPooler in transaction mode, shared by tests that each leave it as it was."""
    factory = DataPlaneFactory(tmp_path_factory.mktemp("pooled"))
    defaults = {"pool_mode": "transaction", "pool_size": 1}
    yield factory(two_servers.configuration(routing={"defaults": defaults}))
    factory.stop()


@pytest.mark.parametrize("size", [8192, 10_000, 65_536, RECEIVE_BUFFER, 4 * RECEIVE_BUFFER])
def test_messages_about_as_long_as_a_buffer_pass_both_ways(size: int, pooled: RunningDataPlane, database: str) -> None:
    """PgBouncer #1058, #1446, #1520, PgDog #1228: what just fitted into a buffer, or not, was cut or waited for."""
    client = logged_in(pooled.address, database)
    for length in range(size - 3, size + 4):
        text = "SELECT length('')"
        request = query(text[:-2] + "x" * (length - len(query(text))) + text[-2:])
        assert len(request) == length
        client.send(request, query("SELECT 'behind it'"))
        assert row_values(client.until()) == [str(length - len(query(text)))]
        assert row_values(client.until()) == ["behind it"]
        row = length - 1 - 4 - 2 - 4
        client.send(query(f"SELECT repeat('y', {row})"), query("SELECT 'behind it'"))
        assert row_values(client.until()) == ["y" * row]
        assert row_values(client.until()) == ["behind it"]
    goodbye(client)


# -- how libraries begin -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gssencmode", ["disable", "prefer"])
@pytest.mark.parametrize(("sslmode", "lets_in"), [("disable", 1), ("allow", 1), ("prefer", 1), ("require", 0)])
def test_libpq_comes_in_or_is_told_why_not_however_it_asks_for_encryption(
    sslmode: str, lets_in: int, gssencmode: str, pooled: RunningDataPlane, database: str
) -> None:
    """PgBouncer #1459, #1460, PgDog #578: the answer to a request for encryption was such that libpq gave up."""
    address = f"postgresql://postgres:postgres@127.0.0.1:{pooled.port}/{database}"
    url = f"{address}?sslmode={sslmode}&gssencmode={gssencmode}"
    if lets_in:
        with contextlib.closing(psycopg.connect(url)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    else:
        with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
            psycopg.connect(url)
    pooled.wait_until_unused()
