"""What one client leaves behind the next one on the same server connection does not find.

`POLICIES` are the values of server_reset_query that promise so for all `LEFTOVERS`; those that only `always` can clean
away are in `INVISIBLE`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import SYNC, TERMINATE, Wire, bind, close, execute, parse, query, row_values, sqlstate

POLICIES = ["always", "smart"]
MODES = ("transaction", "statement")

TRACES = {
    "settings": "SELECT name, setting FROM pg_settings WHERE source = 'session' "
    "AND name NOT IN ('client_encoding', 'application_name') ORDER BY 1",
    "own settings": "SELECT coalesce(current_setting('own.setting', true), '')",  # once known it is empty after RESET
    "startup parameters": "SELECT current_setting('client_encoding'), current_setting('application_name')",
    "users": "SELECT current_user, session_user",
    "temporary tables": "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
    "temporary functions": "SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()",
    "prepared statements": "SELECT name FROM pg_prepared_statements WHERE from_sql ORDER BY 1",
    "channels": "SELECT * FROM pg_listening_channels()",
    "advisory locks": "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "cursors": "SELECT name FROM pg_cursors WHERE is_holdable",
    "sequences": "SELECT lastval()",
    "a transaction": "SELECT now() = statement_timestamp(), pg_current_xact_id_if_assigned()",
}
"""Where a trace of another client would show."""

LEFTOVERS = {
    "SET": ["SET work_mem = '7MB'", "SET TimeZone = 'Asia/Tokyo'"],
    "SET in lower case behind a comment": ["/* SELECT */ set work_mem to '7MB'"],
    "SET in a transaction": ["BEGIN", "SET work_mem = '7MB'", "COMMIT"],
    "SET in a query of several statements": ["SELECT 1; SET search_path = pg_catalog; SELECT 2"],
    "SET of a setting of its own": ["SET own.setting = 'left'"],
    "SET of what clients set at startup": ["SET application_name = 'left'; SET client_encoding = 'LATIN1'"],
    "SET SESSION CHARACTERISTICS": ["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
    "set_config": ["SELECT set_config('work_mem', '7MB', false), set_config('own.setting', 'left', false)"],
    "set_config in DO": ["DO $$BEGIN PERFORM set_config('work_mem', '7MB', false); END$$"],
    "set_config in a function": ["SELECT leave_setting()"],
    "set_config in a procedure": ["CALL leave_setting_too()"],
    "an UPDATE of pg_settings": ["UPDATE pg_settings SET setting = '7000' WHERE name = 'work_mem'"],
    "SET ROLE": ["SET ROLE pg_monitor"],
    "SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION pg_monitor"],
    "SET ROLE after SET SESSION AUTHORIZATION": ["SET SESSION AUTHORIZATION postgres; SET ROLE pg_monitor"],
    "a temporary table": ["CREATE TEMP TABLE left_behind AS SELECT 1 AS x"],
    "a temporary table of SELECT INTO": ["SELECT 1 AS x INTO TEMPORARY left_behind"],
    "a table in pg_temp": ["CREATE TABLE pg_temp.left_behind (x int)"],
    "a temporary view and a sequence": ["CREATE TEMP VIEW left_behind AS SELECT 1", "CREATE TEMP SEQUENCE left_too"],
    "a temporary function": ["CREATE FUNCTION pg_temp.left_behind() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
    "LISTEN": ["LISTEN left_behind"],
    "advisory locks": ["SELECT pg_advisory_lock(42), pg_advisory_lock_shared(43)"],
    "an advisory lock that was tried": ["SELECT pg_try_advisory_lock(42)"],
    "a cursor WITH HOLD": ["BEGIN; DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1; COMMIT"],
    "a cursor WITH HOLD outside of a block": ["DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1"],
    "PREPARE": ["PREPARE left_behind AS SELECT 1"],
    "nextval": ["SELECT nextval('planted_sequence')"],
}
"""What a client says in requests of its own, and what of it a server connection remembers."""
SETTINGS = {name for name in LEFTOVERS if name.startswith("SET") or name in ("set_config", "an UPDATE of pg_settings")}
"""Of these, what belongs to the client and follows it."""

INVISIBLE = {
    "a setting made by a trigger": ["INSERT INTO planted VALUES (1)"],
    "a setting made by a view": ["SELECT * FROM planted_view"],
    "a temporary table made by a trigger": ["INSERT INTO planted_too VALUES (1)"],
}
"""Nothing on the wire tells of these: neither the text nor the reply."""

PLANTED = (
    "CREATE TABLE planted (x int)",
    "CREATE TABLE planted_too (x int)",
    "CREATE SEQUENCE planted_sequence",
    "CREATE FUNCTION leave_setting() RETURNS text LANGUAGE sql AS $$SELECT set_config('own.setting', 'left', false)$$",
    "CREATE PROCEDURE leave_setting_too() LANGUAGE sql AS $$SELECT leave_setting()$$",
    "CREATE VIEW planted_view AS SELECT leave_setting()",
    """CREATE FUNCTION plant() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM set_config('own.setting', 'left', false); RETURN NEW; END$$""",
    """CREATE FUNCTION plant_too() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN CREATE TEMP TABLE left_behind (x int); RETURN NEW; END$$""",
    "CREATE TRIGGER plant BEFORE INSERT ON planted FOR EACH ROW EXECUTE FUNCTION plant()",
    "CREATE TRIGGER plant BEFORE INSERT ON planted_too FOR EACH ROW EXECUTE FUNCTION plant_too()",
)

Start = Callable[..., RunningDataPlane]


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a pool of one in which nothing is pinned: `start("transaction", "always")`."""

    def run(mode: str, policy: str) -> RunningDataPlane:
        defaults = {"pool_mode": mode, "pool_size": 1, "server_reset_query": policy, "on_session_state": "allow"}
        return data_plane(two_servers.configuration(routing={"defaults": defaults}))

    return run


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> Iterator[str]:
    """One for all tests of this file, where functions, views and triggers are planted: what they leave is no data."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {name}")
    postgres.execute(*PLANTED, database=name)
    yield name
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def traces(client: Wire) -> dict[str, Any]:
    """What this client finds in its session: values, or the SQLSTATE of an error."""
    found: dict[str, Any] = {}
    for name, text in TRACES.items():
        messages = client.ask(text)
        errors = [sqlstate(message) for message in messages if message.name == "ErrorResponse"]
        found[name] = errors or row_values(messages)
    return found


def in_mode(mode: str, table: dict[str, list[str]]) -> list[str]:
    """Those leftovers that can be left in this mode: statement mode refuses blocks of several requests."""
    return [name for name, statements in table.items() if mode != "statement" or "BEGIN" not in statements]


def assert_nothing_is_found(under_test: RunningDataPlane, database: str, statements: list[str]) -> None:
    with under_test.wire() as first, under_test.wire() as second:
        first.log_in(database=database)
        second.log_in(database=database)
        expected = traces(second)
        (process,) = second.values("SELECT pg_backend_pid()")
        for statement in statements:
            assert first.ask(statement)[-1].name == "ReadyForQuery"
        assert traces(second) == expected
        assert second.values("SELECT pg_backend_pid()") == [process], "it was not the same server connection"
        for client in (first, second):
            client.send(TERMINATE)
            assert client.everything() == b""
    assert under_test.snapshot()["server_connections_made"] == 1


@pytest.mark.parametrize(
    ("mode", "name"), [(mode, name) for mode in MODES for name in in_mode(mode, LEFTOVERS)], ids=lambda word: word
)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_client_finds_nothing_of_what_a_request_left(
    policy: str, mode: str, name: str, start: Start, database: str
) -> None:
    """W5, W19: the first client is still connected, and may come back to find it as little.

    PgDog #1341: RESET ALL does not undo SET ROLE.  PgBouncer #452, PgDog #687: a SET came to others.
    """
    assert_nothing_is_found(start(mode, policy), database, LEFTOVERS[name])


@pytest.mark.parametrize("name", INVISIBLE)
@pytest.mark.parametrize("mode", MODES)
def test_with_always_the_next_client_finds_nothing_of_what_no_request_told_of_either(
    mode: str, name: str, start: Start, database: str
) -> None:
    """W19: this is what `always` is for."""
    assert_nothing_is_found(start(mode, "always"), database, INVISIBLE[name])


@pytest.mark.parametrize("name", INVISIBLE)
def test_what_no_request_tells_of_is_the_limit_of_smart(name: str, start: Start, database: str) -> None:
    """The documents say so (docs/explanation/pool-modes.md)."""
    under_test = start("transaction", "smart")
    with under_test.wire() as first, under_test.wire() as second:
        first.log_in(database=database)
        second.log_in(database=database)
        expected = traces(second)
        for statement in INVISIBLE[name]:
            assert first.ask(statement)[-1].name == "ReadyForQuery"
        assert traces(second) != expected


@pytest.mark.parametrize("name", [*LEFTOVERS, *INVISIBLE])
def test_with_never_the_next_client_finds_what_a_request_left(name: str, start: Start, database: str) -> None:
    """This is what `never` means; and it shows that the traces are found where they are.

    Settings are not left: they follow their client.  What a client asked for at startup it still gets.
    """
    under_test = start("transaction", "never")
    with under_test.wire() as first, under_test.wire() as second, under_test.wire() as third:
        first.log_in(database=database)
        second.log_in(database=database)
        third.log_in(database=database, work_mem="5MB")
        expected = traces(second)
        for statement in {**LEFTOVERS, **INVISIBLE}[name]:
            assert first.ask(statement)[-1].name == "ReadyForQuery"
        assert (traces(second) == expected) is (name in SETTINGS)
        assert third.values("SHOW work_mem") == ["5MB"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_notification_of_one_client_reaches_no_other(
    policy: str, start: Start, postgres: PostgresServer, database: str
) -> None:
    """PgDog #957, Odyssey #1444."""
    under_test = start("transaction", policy)
    with under_test.wire() as first, under_test.wire() as second:
        first.log_in(database=database)
        second.log_in(database=database)
        first.values("LISTEN news")
        second.values("SELECT 1")
        postgres.execute("NOTIFY news, 'for nobody'", database=database)
        for client in (second, first):
            assert [message.name for message in client.ask("SELECT 1")] == [
                "RowDescription",
                "DataRow",
                "CommandComplete",
                "ReadyForQuery",
            ]


# -- prepared statements -----------------------------------------------------------------------------------------------


def replies(client: Wire, *requests: bytes) -> list[str]:
    """Names of what answers them up to ReadyForQuery, an error as its SQLSTATE."""
    client.send(*requests)
    return [sqlstate(one) if one.name == "ErrorResponse" else one.name for one in client.until()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", [b"same", b""], ids=["named", "unnamed"])
def test_a_statement_prepared_in_an_earlier_lease_is_never_the_one_that_another_client_calls_so(
    name: bytes, policy: str, mode: str, start: Start, database: str
) -> None:
    """W20, PgBouncer #1038, Odyssey #588, Supavisor #1174."""
    under_test = start(mode, policy)
    with under_test.wire() as one, under_test.wire() as other:
        clients = {"one": one, "other": other}
        for client in clients.values():
            client.log_in(database=database)
        for _ in range(3):
            for whose, client in clients.items():
                prepared = replies(client, parse(f"SELECT '{whose}'", name=name), SYNC)
                assert prepared == ["ParseComplete", "ReadyForQuery"], "another's statement is in the way"
            for whose, client in clients.items():
                client.send(bind(name=name), execute(), SYNC)
                assert row_values(client.until()) == [whose]
            for client in clients.values():
                assert replies(client, close(name=name), SYNC) == ["CloseComplete", "ReadyForQuery"]
                assert replies(client, bind(name=name), execute(), SYNC) == ["26000", "ReadyForQuery"]
            for whose, client in clients.items():
                assert client.ask(f"PREPARE in_sql AS SELECT '{whose}'")[0].name == "CommandComplete"
            for client in clients.values():
                assert replies(client, query("EXECUTE in_sql")) == ["26000", "ReadyForQuery"]
    assert under_test.snapshot()["server_connections_made"] == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_prepared_statement_outlives_its_transaction(policy: str, start: Start, database: str) -> None:
    """W20."""
    under_test = start("transaction", policy)
    with under_test.wire() as one, under_test.wire() as other:
        for client in (one, other):
            client.log_in(database=database)
        one.values("BEGIN")
        assert replies(one, parse("SELECT 'one'", name=b"same"), SYNC) == ["ParseComplete", "ReadyForQuery"]
        other.send(parse("SELECT 'other'", name=b"same") + bind(name=b"same") + execute() + SYNC)
        for _ in range(3):
            one.send(bind(name=b"same"), execute(), SYNC)
            assert row_values(one.until()) == ["one"]
        one.values("COMMIT")
        assert row_values(other.until()) == ["other"]
        one.send(bind(name=b"same"), execute(), SYNC)
        assert row_values(one.until()) == ["one"]
