"""Clients that vanish: whoever comes next on the same server connection sees nothing of them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import PostgresServer
from spec.codec import encode, frontend
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until, wait_until_gone
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
    sqlstate,
)

LOCK = 4711
LONG = "SELECT pg_sleep(600)"


@pytest.fixture
def one_connection(two_servers: TwoServers, database: str, data_plane: DataPlaneFactory) -> RunningDataPlane:
    """A pool of one: whoever comes next gets the same server connection, or a new one in its place."""
    with psycopg.connect(two_servers.primary.url(database), autocommit=True) as connection:
        connection.execute("CREATE TABLE marks (mark text)")
    return data_plane(two_servers.configuration(routing={"defaults": {"pool_size": 1}}))


def stray_queries(postgres: PostgresServer, database: str) -> list[tuple[object, ...]]:
    """Who is doing anything on the database, or holds a transaction open, or a lock."""
    return postgres.execute(
        f"SELECT pid, state, query FROM pg_stat_activity WHERE datname = '{database}' AND state <> 'idle'"
        f" UNION ALL SELECT l.pid, l.mode, l.locktype FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        f" WHERE d.datname = '{database}'"
    )


def assert_no_trace(under_test: RunningDataPlane, postgres: PostgresServer, database: str) -> None:
    """The next client is served, and finds nothing of the one before: no rows, no transaction, no session state."""
    with under_test.wire() as successor:
        successor.log_in(database=database)
        assert successor.values("SELECT 'mine'") == ["mine"]
        assert successor.values("SELECT count(*) FROM marks") == ["0"]
        assert successor.values("SHOW work_mem") == ["4MB"]
        assert successor.values("SELECT to_regclass('pg_temp.temporary')") == [None]
        assert successor.values(f"SELECT pg_try_advisory_lock({LOCK})") == ["t"]
        assert successor.values("SELECT name FROM pg_prepared_statements WHERE NOT name ^@ 'pgpooler_'") == []
        assert successor.values("SELECT count(*) FROM pg_cursors") == ["0"]
        assert successor.values("SELECT count(*) FROM pg_listening_channels()") == ["0"]
        assert successor.ask("LOCK TABLE marks NOWAIT")[0].name == "ErrorResponse", "a transaction was left open"
        assert successor.values("BEGIN; LOCK TABLE marks IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT") == []
        successor.send(TERMINATE)
        assert successor.everything() == b""
    under_test.wait_until_unused()
    wait_until_gone(lambda: stray_queries(postgres, database))


def leave_state(client: Wire) -> None:
    """Everything a session can leave behind outside a transaction."""
    client.values("SET work_mem = '11MB'")
    client.values("CREATE TEMPORARY TABLE temporary (a int)")
    client.values(f"SELECT pg_advisory_lock({LOCK})")
    client.values("LISTEN channel")
    client.values("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
    client.send(parse("SELECT 1", name=b"kept") + SYNC)
    client.until()


def idle(client: Wire) -> None:
    pass


def in_a_query(client: Wire) -> None:
    client.send(query(LONG))


def in_a_query_with_half_a_message_behind(client: Wire) -> None:
    client.send(query(LONG) + query("SELECT 1")[:7])


def in_a_query_with_more_behind(client: Wire) -> None:
    client.send(query(LONG) + 20 * query("SELECT 'secret'") + extended("SELECT 'secret'"))


def in_a_transaction(client: Wire) -> None:
    client.values("BEGIN")
    client.values("INSERT INTO marks VALUES ('uncommitted')")
    client.values("LOCK TABLE marks")


def in_a_failed_transaction(client: Wire) -> None:
    in_a_transaction(client)
    assert client.ask("SELECT nonsense")[0].name == "ErrorResponse"


def in_a_query_in_a_transaction(client: Wire) -> None:
    in_a_transaction(client)
    client.send(query(LONG))


def in_copy_in(client: Wire) -> None:
    client.send(query("COPY marks FROM STDIN"))
    client.until("CopyInResponse")
    client.send(copy_data(b"copied\n"))


def in_copy_in_before_it_began(client: Wire) -> None:
    client.send(query("COPY marks FROM STDIN"))


def in_copy_in_with_half_a_message(client: Wire) -> None:
    in_copy_in(client)
    client.send(copy_data(b"copied\n" * 1000)[:777])


def in_copy_in_of_the_extended_protocol(client: Wire) -> None:
    client.send(extended("COPY marks FROM STDIN"))
    client.until("CopyInResponse")
    client.send(copy_data(b"copied\n"))


def in_copy_out(client: Wire) -> None:
    client.send(query("COPY (SELECT repeat('secret', 100) FROM generate_series(1, 10000000)) TO STDOUT"))
    client.until("CopyData")


def in_a_long_result(client: Wire) -> None:
    client.send(query("SELECT repeat('secret', 100) FROM generate_series(1, 10000000)"))
    client.until("DataRow")


def in_a_pipeline(client: Wire) -> None:
    client.send(500 * extended("SELECT 'secret ' || $1::text", b"row"))
    client.until("DataRow")


def in_a_pipeline_without_sync(client: Wire) -> None:
    client.send(parse("SELECT 'secret'") + bind() + execute() + encode(frontend("Flush")))
    client.until("DataRow")


def in_a_pipeline_after_an_error(client: Wire) -> None:
    client.send(parse("SELECT nonsense") + bind() + execute() + encode(frontend("Flush")))
    client.until("ErrorResponse")
    client.send(parse("INSERT INTO marks VALUES ('skipped')") + bind() + execute())


def in_a_pipeline_that_writes(client: Wire) -> None:
    client.send(parse("INSERT INTO marks VALUES ('uncommitted')") + bind() + execute() + encode(frontend("Flush")))
    client.until("CommandComplete")


def in_a_suspended_portal(client: Wire) -> None:
    client.values("BEGIN")
    client.send(parse("SELECT generate_series(1, 100)") + bind() + execute(2) + encode(frontend("Flush")))
    client.until("PortalSuspended")


def in_half_a_header(client: Wire) -> None:
    client.send(query("SELECT 1")[:3])


SITUATIONS = (
    idle,
    in_a_query,
    in_a_query_with_half_a_message_behind,
    in_a_query_with_more_behind,
    in_a_transaction,
    in_a_failed_transaction,
    in_a_query_in_a_transaction,
    in_copy_in,
    in_copy_in_before_it_began,
    in_copy_in_with_half_a_message,
    in_copy_in_of_the_extended_protocol,
    in_copy_out,
    in_a_long_result,
    in_a_pipeline,
    in_a_pipeline_without_sync,
    in_a_pipeline_after_an_error,
    in_a_pipeline_that_writes,
    in_a_suspended_portal,
    in_half_a_header,
)
WAYS: dict[str, Callable[[Wire], None]] = {
    "close": Wire.close,
    "reset": Wire.reset,
    "Terminate": lambda client: (client.send(TERMINATE), client.close())[-1],
}


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_the_next_client_finds_nothing_of_one_that_vanished(
    situation: Callable[[Wire], None],
    way: str,
    one_connection: RunningDataPlane,
    postgres: PostgresServer,
    database: str,
) -> None:
    """W2, W3, W5, W6, W14."""
    client = one_connection.wire()
    client.log_in(database=database)
    leave_state(client)
    situation(client)
    WAYS[way](client)
    assert_no_trace(one_connection, postgres, database)


@pytest.mark.parametrize(
    "situation",
    [idle, in_a_transaction, in_a_failed_transaction, in_copy_in, in_a_pipeline, in_a_pipeline_without_sync],
    ids=lambda situation: situation.__name__,
)
def test_the_next_client_finds_nothing_of_one_that_said_goodbye(
    situation: Callable[[Wire], None], one_connection: RunningDataPlane, postgres: PostgresServer, database: str
) -> None:
    """W2, W14: Terminate ends the client's session, not the server connection."""
    client = one_connection.wire()
    client.log_in(database=database)
    leave_state(client)
    situation(client)
    WAYS["Terminate"](client)
    assert_no_trace(one_connection, postgres, database)


def test_a_server_connection_is_used_again_after_its_client_said_goodbye(one_connection: RunningDataPlane) -> None:
    """W14: reuse is real."""
    processes = set()
    for _ in range(5):
        with one_connection.wire() as client:
            client.log_in()
            processes.update(client.values("SELECT pg_backend_pid()"))
            client.send(TERMINATE)
            client.everything()
    assert len(processes) == 1
    assert one_connection.snapshot()["server_connections_made"] == 1


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_the_query_of_a_killed_psql_is_canceled(
    one_connection: RunningDataPlane, postgres: PostgresServer, database: str, signal_number: int
) -> None:
    url = f"postgresql://postgres:postgres@127.0.0.1:{one_connection.port}/{database}?sslmode=disable"
    command = [tools.require("psql"), url, "-X", "-c", f"INSERT INTO marks SELECT 'late' FROM ({LONG})"]
    psql = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until(lambda: stray_queries(postgres, database))
    psql.send_signal(signal_number)
    psql.communicate()
    assert_no_trace(one_connection, postgres, database)


# -- at every byte -------------------------------------------------------------------------------------------------

REQUESTS = {
    "simple": query("INSERT INTO marks VALUES ('x')"),
    "extended": extended("INSERT INTO marks VALUES ($1)", b"x"),
    "transaction": query("BEGIN") + query("INSERT INTO marks VALUES ('x')"),
    "copy": query("COPY marks FROM STDIN") + copy_data(b"x\n") + encode(frontend("CopyDone")),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_request_cut_off_at_any_byte_has_no_effect(
    request_name: str, one_connection: RunningDataPlane, postgres: PostgresServer, database: str
) -> None:
    """Half a message never stays on a server that another client gets.

    PgDog #805: half a request was passed on when its client had gone.
    """
    request = REQUESTS[request_name]
    for count in range(1, len(request)):
        client = one_connection.wire()
        client.log_in(database=database)
        client.send(request[:count])
        client.reset() if count % 2 else client.close()
        with one_connection.wire() as successor:
            successor.log_in(database=database)
            assert successor.values("SELECT count(*) FROM marks") == ["0"], f"after {count} bytes"
    assert_no_trace(one_connection, postgres, database)


@pytest.mark.parametrize("request_name", ["simple", "extended"])
def test_insert_terminate_and_close_in_one_segment_commits(
    request_name: str, one_connection: RunningDataPlane, postgres: PostgresServer, database: str
) -> None:
    for _ in range(20):
        client = one_connection.wire()
        client.log_in(database=database)
        client.send(REQUESTS[request_name] + TERMINATE)
        client.close()
    with one_connection.wire() as successor:
        successor.log_in(database=database)
        assert successor.values("SELECT count(*) FROM marks") == ["20"]


@pytest.mark.parametrize("text", ["SELECT 'last words'", "SELECT repeat('x', 3000000)", "SELECT nonsense", ""])
def test_replies_to_what_stands_before_terminate_are_delivered(
    text: str, one_connection: RunningDataPlane, postgres: PostgresServer
) -> None:
    """As PostgreSQL does it: Terminate comes after them."""
    answers = []
    for address in ((postgres.host, postgres.port), one_connection.address):
        with Wire(address) as client:
            client.log_in(postgres.superuser, postgres.password)
            client.send(query(text) + extended("SELECT 1") + TERMINATE)
            answers.append([(message.name, message.fields) for message in client.rest()])
    assert answers[0] == answers[1]


# -- servers that end ----------------------------------------------------------------------------------------------


@pytest.fixture
def terminate(postgres: PostgresServer, database: str) -> Callable[[], None]:
    """Ends every session on the test's database, as an administrator would."""

    def run() -> None:
        ended = postgres.execute(
            f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        )
        assert ended
        wait_until_gone(lambda: postgres.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"))

    return run


def test_an_idle_server_connection_that_ends_is_noticed_at_once(
    one_connection: RunningDataPlane, database: str, terminate: Callable[[], None]
) -> None:
    """W18."""
    with one_connection.wire() as client:
        client.log_in(database=database)
        client.send(TERMINATE)
        client.everything()
    wait_until(lambda: one_connection.idle() == 1)
    terminate()
    wait_until(lambda: one_connection.idle() == 0)
    assert one_connection.leftovers() == {}
    with one_connection.wire() as client:
        client.log_in(database=database)
        assert client.values("SELECT 1") == ["1"]


@pytest.mark.parametrize("busy", [False, True], ids=["between queries", "in a query"])
def test_a_client_is_told_once_in_the_servers_own_words_that_its_session_was_ended(
    busy: bool,
    one_connection: RunningDataPlane,
    postgres: PostgresServer,
    database: str,
    terminate: Callable[[], None],
) -> None:
    heard = []
    for address in ((postgres.host, postgres.port), one_connection.address):
        with Wire(address) as client:
            client.log_in(postgres.superuser, postgres.password, database)
            if busy:
                client.send(query(LONG))
                wait_until(lambda: stray_queries(postgres, database))
            terminate()
            heard.append([(message.name, message.fields) for message in client.rest()])
    assert heard[0] == heard[1]
    assert [name for name, _ in heard[1]].count("ErrorResponse") == 1
    with one_connection.wire() as client:
        client.log_in(database=database)
        assert client.values("SELECT 1") == ["1"]


@pytest.fixture
def own_server(start_server: Callable[..., PostgresServer]) -> PostgresServer:
    return start_server()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_clients_are_served_again_when_their_server_has_restarted(
    own_server: PostgresServer, data_plane: DataPlaneFactory, mode: str
) -> None:
    backend = {"name": "only", "host": own_server.host, "port": own_server.port}
    users = {own_server.superuser: {"password": own_server.password}}
    under_test = data_plane({"backends": [backend], "auth": {"users": users}})
    with under_test.wire() as holder:
        holder.log_in()
        with under_test.wire() as leaver:
            leaver.log_in()
            leaver.send(TERMINATE)
            leaver.everything()
        wait_until(lambda: under_test.idle() == 1)
        own_server.shut_down(mode)
        error = holder.last_words()
        # In mode immediate the server sends a WARNING and closes; the error is ours.
        assert sqlstate(error) == ("57P01" if mode == "fast" else "08006")
    wait_until(lambda: under_test.idle() == 0)
    with under_test.wire() as refused:
        assert refused.authenticate("postgres", "postgres", "postgres").name == "AuthenticationOk"
        error = refused.last_words()
        assert sqlstate(error) == "08006"
        assert error is not None
        assert "only" in error_fields(error)["D"]
    own_server.restart()

    def served() -> bool:
        with under_test.wire() as client:
            client.authenticate("postgres", "postgres", "postgres")
            return any(message.name == "ReadyForQuery" for message in client.until("ReadyForQuery", "ErrorResponse"))

    wait_until(served)
