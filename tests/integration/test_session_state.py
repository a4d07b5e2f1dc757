"""What clients leave in the session of a real server: pinned where it must last, cleaned where it need not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import value
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.servers import TwoServers
from tests.integration.wire import SYNC, Wire, bind, error_fields, execute, parse, query, row_values, sqlstate

Start = Callable[..., RunningDataPlane]

PINNING: dict[str, tuple[list[str], str, list[Any], list[str]]] = {
    # reason -> statements, a question that only the same session answers so, the answer, statements that undo it
    "temporary objects": (
        ["CREATE TEMP TABLE own AS SELECT 'mine' AS x"],
        "SELECT x FROM own",
        ["mine"],
        ["DROP TABLE own"],
    ),
    "LISTEN": (["LISTEN own"], "SELECT * FROM pg_listening_channels()", ["own"], ["UNLISTEN own"]),
    "session advisory locks": (
        ["SELECT pg_advisory_lock(42)"],
        "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        ["42"],
        ["SELECT pg_advisory_unlock(42)"],
    ),
    "cursors WITH HOLD": (
        ["BEGIN", "DECLARE own SCROLL CURSOR WITH HOLD FOR SELECT 'row'", "COMMIT"],
        "FETCH FIRST FROM own",
        ["row"],
        ["CLOSE own"],
    ),
    "prepared statements": (["PREPARE own AS SELECT 'run'"], "EXECUTE own", ["run"], ["DEALLOCATE own"]),
}
NOT_PINNING = {
    "rolled back": ["BEGIN", "CREATE TEMP TABLE own ()", "LISTEN own", "ROLLBACK"],
    "failed": ["BEGIN", "CREATE TEMP TABLE own ()", "SELECT 1/0", "COMMIT"],
    "dropped on commit": ["BEGIN", "CREATE TEMP TABLE own () ON COMMIT DROP", "COMMIT"],
    "a lock of the transaction": ["SELECT pg_advisory_xact_lock(42)"],
    "a cursor of the transaction": ["BEGIN", "DECLARE own CURSOR FOR SELECT 1", "COMMIT"],
    "a setting": ["SET work_mem = '7MB'"],
    "a setting of the transaction": ["BEGIN", "SET LOCAL work_mem = '7MB'", "COMMIT"],
    "words in a string": ["SELECT 'LISTEN own; CREATE TEMP TABLE own ()'"],
    "a table of its own": ["CREATE TABLE own_for_all AS SELECT 1 AS x", "DROP TABLE own_for_all"],
    "gone again": ["LISTEN own; UNLISTEN *"],
}


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a data plane in transaction mode: `start(pool_size=2, max_pinned=1)`."""

    def run(*, pool_size: int = 2, **defaults: Any) -> RunningDataPlane:
        routing = {"defaults": {"pool_mode": "transaction", "pool_size": pool_size, **defaults}}
        return data_plane(two_servers.configuration(routing=routing))

    return run


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    with closing(psycopg.connect(postgres.url(database), autocommit=True, application_name="observer")) as connection:
        yield connection


def pins(under_test: RunningDataPlane) -> list[str]:
    """The reasons of all pins."""
    return [pin["reason"] for pool in under_test.snapshot()["pools"] for pin in pool["pinned"]]


def logged_in(under_test: RunningDataPlane, database: str, count: int = 2) -> list[Wire]:
    return [under_test.wire().log_in(database=database) for _ in range(count)]


def say(client: Wire, statements: list[str]) -> None:
    for statement in statements:
        assert client.ask(statement)[-1].name == "ReadyForQuery"


# -- pins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", PINNING)
@pytest.mark.parametrize(
    ("mode", "policy"), [("transaction", "smart"), ("transaction", "always"), ("statement", "smart")]
)
def test_what_outlives_the_transaction_stays_with_its_client(
    mode: str, policy: str, reason: str, start: Start, database: str
) -> None:
    statements, question, answer, undo = PINNING[reason]
    if mode == "statement":
        statements = ["; ".join(statements)]
    under_test = start(pool_mode=mode, server_reset_query=policy)
    one, other = logged_in(under_test, database)
    say(one, statements)
    wait_until(lambda: pins(under_test) == [reason])
    for _ in range(3):
        assert other.values("SELECT 'others work'") == ["others work"]
        assert one.values(question) == answer
    assert "own" not in "".join(map(str, other.values("SELECT string_agg(c, '') FROM pg_listening_channels() c")))
    say(one, undo)
    wait_until(lambda: pins(under_test) == [])
    say(one, statements)
    wait_until(lambda: pins(under_test) == [reason])
    one.close()
    wait_until(lambda: under_test.idle() == 2)
    for _ in range(3):
        assert other.ask(question)[0].name != "DataRow"
        assert other.values("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == ["0"]
    other.close()


def test_a_notification_reaches_the_client_that_listens(start: Start, database: str, observer: Connection) -> None:
    under_test = start()
    one, other = logged_in(under_test, database)
    say(one, ["LISTEN news"])
    wait_until(lambda: pins(under_test) == ["LISTEN"])
    assert other.values("SELECT 1") == ["1"]
    observer.execute("NOTIFY news, 'for one'")
    message = one.message()
    assert message is not None
    assert message.name == "NotificationResponse"
    one.close()
    other.close()


@pytest.mark.parametrize("what", NOT_PINNING)
def test_what_is_gone_with_its_transaction_pins_nothing(what: str, start: Start, database: str) -> None:
    under_test = start()
    one, other = logged_in(under_test, database)
    say(one, NOT_PINNING[what])
    wait_until(lambda: under_test.idle() > 0 and under_test.snapshot()["pools"][0]["in_use"] == 0)
    assert pins(under_test) == []
    assert other.values("SHOW work_mem") == ["4MB"]
    one.close()
    other.close()


def test_pins_end_and_begin_with_prepared_statements_of_a_driver(start: Start, database: str) -> None:
    """A named statement runs again long after its text was seen."""
    under_test = start()
    one, other = logged_in(under_test, database)
    one.send(parse("LISTEN own", name=b"s") + bind(name=b"s") + execute() + SYNC)
    assert one.until()[-1].name == "ReadyForQuery"
    wait_until(lambda: pins(under_test) == ["LISTEN"])
    one.send(query("BEGIN") + query("UNLISTEN own") + bind(name=b"s") + execute() + SYNC + query("COMMIT"))
    for _ in range(4):
        assert one.until()[-1].name == "ReadyForQuery"
    assert one.values("SELECT * FROM pg_listening_channels()") == ["own"]
    assert pins(under_test) == ["LISTEN"]
    one.close()
    other.close()


def test_a_hostile_search_path_does_not_fool_the_question(start: Start, database: str, observer: Connection) -> None:
    observer.execute(
        "CREATE SCHEMA trap; CREATE VIEW trap.pg_cursors AS SELECT true AS is_holdable;"
        "CREATE FUNCTION trap.pg_listening_channels() RETURNS SETOF text LANGUAGE sql AS $$SELECT 'x' WHERE false$$;"
        "CREATE FUNCTION trap.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.never)"
    )
    under_test = start()
    one, other = logged_in(under_test, database)
    say(one, ["BEGIN", "SET search_path = trap, pg_catalog", "LISTEN own", "SELECT pg_advisory_lock(7)", "COMMIT"])
    wait_until(lambda: pins(under_test) == ["LISTEN and session advisory locks"])
    one.close()
    other.close()


# -- limits ------------------------------------------------------------------------------------------------------------


def test_beyond_max_pinned_the_statement_is_refused_and_nothing_else(start: Start, database: str) -> None:
    under_test = start(pool_size=3, max_pinned=1)
    one, other = logged_in(under_test, database)
    say(one, ["LISTEN own"])
    wait_until(lambda: pins(under_test) == ["LISTEN"])
    refusal = other.ask("CREATE TEMP TABLE own ()")
    assert [message.name for message in refusal] == ["ErrorResponse", "ReadyForQuery"]
    fields = error_fields(refusal[0])
    assert (fields["C"], fields["V"]) == ("53300", "ERROR")
    assert "max_pinned 1" in fields["M"]
    assert "temporary objects" in fields["D"]
    assert other.values("SELECT to_regclass('own')") == [None]
    one.close()
    wait_until(lambda: under_test.idle() >= 2)
    assert other.ask("CREATE TEMP TABLE own ()")[0].name == "CommandComplete"
    other.close()


@pytest.mark.parametrize("reason", PINNING)
def test_with_on_session_state_error_the_statement_does_not_run_and_its_transaction_fails(
    reason: str, start: Start, database: str, observer: Connection
) -> None:
    observer.execute("CREATE TABLE IF NOT EXISTS written (x int)")
    under_test = start(on_session_state="error")
    (client,) = logged_in(under_test, database, 1)
    statements, question, _, _ = PINNING[reason]
    statement = "; ".join(statements)
    refusal = client.ask(statement)
    assert [message.name for message in refusal] == ["ErrorResponse", "ReadyForQuery"]
    fields = error_fields(refusal[0])
    assert fields["C"] == "0A000"
    assert reason in fields["M"]
    assert "pgpooler_refuses" not in str(fields)
    say(client, ["BEGIN", "INSERT INTO written VALUES (1)"])
    client.send(parse(statements[-2] if len(statements) > 1 else statements[0]) + bind() + execute() + SYNC)
    assert [message.name for message in client.until()] == ["ErrorResponse", "ReadyForQuery"]
    assert sqlstate(client.ask("SELECT 1")[0]) == "25P02"
    say(client, ["COMMIT"])
    assert client.values("SELECT count(*) FROM written") == ["0"]
    assert client.ask(question)[0].name != "DataRow"
    assert pins(under_test) == []
    client.close()


def test_a_pinned_client_that_is_quiet_too_long_makes_room(start: Start, database: str) -> None:
    under_test = start(pool_size=1, max_pinned=1, pinned_idle_timeout=0.5)
    one, other = logged_in(under_test, database)
    say(one, ["LISTEN own"])
    assert other.values("SELECT 'served'") == ["served"]
    assert sqlstate(one.last_words()) == "57P05"
    one.close()
    other.close()


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_query_beyond_query_timeout_is_canceled_and_its_client_goes_on(
    mode: str, start: Start, database: str
) -> None:
    under_test = start(pool_mode=mode, query_timeout=0.5)
    (client,) = logged_in(under_test, database, 1)
    (answer, ready) = client.ask("SELECT pg_sleep(60)")[-2:]
    fields = error_fields(answer)
    assert (fields["C"], fields["V"]) == ("57014", "ERROR")
    assert "query_timeout" in fields["M"]
    assert ready.name == "ReadyForQuery"
    assert client.values("SELECT 'goes on'") == ["goes on"]
    client.close()
    assert under_test.snapshot()["server_connections_made"] == 1


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize(
    ("setting", "statements", "code"),
    [
        ("transaction_timeout", ["BEGIN", "SELECT pg_sleep(60)"], "25P04"),
        ("transaction_timeout", ["BEGIN"], "25P04"),
        ("idle_transaction_timeout", ["BEGIN"], "25P03"),
        ("idle_transaction_timeout", ["BEGIN", "SELECT 1/0"], "25P03"),
        ("idle_transaction_timeout", ["COPY written FROM STDIN"], "25P03"),
    ],
)
def test_a_transaction_that_takes_too_long_or_is_idle_too_long_ends_its_client(
    mode: str, setting: str, statements: list[str], code: str, start: Start, database: str, observer: Connection
) -> None:
    observer.execute("CREATE TABLE written (x int)")
    under_test = start(pool_mode=mode, pool_size=1, **{setting: 0.5})
    one, other = [under_test.wire() for _ in range(2)]
    one.log_in(database=database)
    if mode == "transaction":
        other.log_in(database=database)
    for statement in ["INSERT INTO written VALUES (1)" if mode == "session" else "SELECT 1", *statements]:
        one.send(query(statement))
    last = one.rest()[-1]
    assert (last.name, sqlstate(last)) == ("ErrorResponse", code)
    if mode == "session":
        other.log_in(database=database)
    assert other.values("SELECT 'served'") == ["served"]
    one.close()
    other.close()


def test_half_a_request_holds_no_server_for_ever(start: Start, database: str) -> None:
    under_test = start(pool_size=1, idle_transaction_timeout=0.5)
    one, other = logged_in(under_test, database)
    one.send((parse("SELECT 1") + bind())[:-3])
    assert sqlstate(one.last_words()) in ("25P03", None)  # inside a message nothing can be said
    assert other.values("SELECT 'served'") == ["served"]
    one.close()
    other.close()


# -- limits of clients -------------------------------------------------------------------------------------------------


def test_limits_of_a_user_and_of_a_database_are_told_in_words(start: Start, database: str) -> None:
    under_test = start(max_user_client_connections=2)
    clients = logged_in(under_test, database, 2)
    with under_test.wire() as third:
        third.authenticate("postgres", "postgres", database)
        error = third.last_words()
        assert sqlstate(error) == "53300"
        assert error is not None
        assert error_fields(error)["M"] == 'too many connections for user "postgres"'
    for client in clients:
        client.close()


def test_the_reserve_and_the_minimum_of_a_pool(start: Start, database: str) -> None:
    under_test = start(pool_size=2, min_pool_size=2, reserve_pool_size=1, reserve_pool_timeout=0.3)
    clients = logged_in(under_test, database, 3)
    wait_until(lambda: under_test.idle() == 2)
    for client in clients:
        client.send(query("SELECT 'served', pg_sleep(1)"))
    assert [row_values(client.until())[0] for client in clients] == ["served"] * 3
    assert under_test.snapshot()["server_connections_made"] == 3
    for client in clients:
        client.close()


def test_a_pause_lets_the_server_be_restarted_unnoticed(start: Start, database: str, observer: Connection) -> None:
    under_test = start()
    one, other = logged_in(under_test, database)
    say(one, ["BEGIN"])
    under_test.inside(lambda data_plane: data_plane.pause())
    other.send(query("SELECT 'waited'"))
    wait_until(lambda: under_test.snapshot()["waiting"] == 1)
    say(one, ["COMMIT"])
    wait_until(lambda: under_test.snapshot()["backends"][0]["server_connections"] == 0)
    assert value(observer, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == 1
    under_test.inside(lambda data_plane: data_plane.resume())
    assert row_values(other.until()) == ["waited"]
    one.close()
    other.close()
