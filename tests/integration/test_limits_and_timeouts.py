"""Limits and timeouts over real servers.  Times are short and only their order is asserted, never how long it took."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import backend, encode
from tests.integration.clients import (
    Connection,
    background,
    exists,
    opening,
    refusal,
    server_process,
    terminate,
    value,
    wait_for,
)
from tests.integration.conftest import StartServer
from tests.integration.data_planes import DataPlaneFactory
from tests.integration.poolers import Pooler, PoolerFactory
from tests.integration.wire import Wire, error_fields, query, row_values, startup

Configuration = dict[str, Any]


def configuration(postgres: PostgresServer, *, cap: int = 0, **sections: Any) -> Configuration:
    """Everybody to one server, whose cap over all pools this is; `defaults` are those of the routing."""
    rules = [{"default": True, "backend": "primary"}]
    return {
        "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port, "pool_size": cap}],
        "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
        "routing": {"defaults": sections.pop("defaults", {}), "rules": rules},
        **sections,
    }


def connect(running: Any, postgres: PostgresServer, database: str = "postgres", **parameters: Any) -> Connection:
    """A client of a PgPooler, as the superuser."""
    return psycopg.connect(
        **{
            "host": "127.0.0.1",
            "port": running.port,
            "user": postgres.superuser,
            "password": postgres.password,
            "dbname": database,
            "sslmode": "disable",
            "autocommit": True,
            **parameters,
        }
    )


def refused(running: Any, postgres: PostgresServer, database: str = "postgres") -> dict[str, str]:
    return refusal(("127.0.0.1", running.port), postgres.superuser, postgres.password, database)


def logged_in(running: Any, postgres: PostgresServer, database: str = "postgres") -> Wire:
    wire, messages = opening(("127.0.0.1", running.port), postgres.superuser, postgres.password, database)
    assert messages[-1].name == "ReadyForQuery", messages
    return wire


@pytest.fixture
def observer(postgres: PostgresServer) -> Iterator[Connection]:
    """A direct connection to the server, to look at its processes and to end them."""
    with closing(psycopg.connect(postgres.url(), autocommit=True)) as connection:
        yield connection


# -- limits ------------------------------------------------------------------------------------------------------------


def test_clients_beyond_max_client_conn_are_refused_and_a_cancel_request_still_passes(
    pooler: PoolerFactory, postgres: PostgresServer, observer: Connection
) -> None:
    running = pooler(configuration(postgres, limits={"max_client_conn": 2}))
    with background() as start, closing(connect(running, postgres)) as first:
        second = connect(running, postgres)
        fields = refused(running, postgres)
        assert (fields["S"], fields["C"], fields["M"]) == ("FATAL", "53300", "sorry, too many clients already")
        assert "max_client_conn is 2" in fields["D"]
        sleeping = start(first.execute, "SELECT pg_sleep(120)")
        active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        wait_for(lambda: value(observer, active, first.info.backend_pid))
        first.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            sleeping.result(60)
        assert value(first, "SELECT 1") == 1
        second.close()
        # The place is free when PgPooler has seen the client go.
        wait_for(lambda: can_connect(running, postgres))


def can_connect(running: Any, postgres: PostgresServer, database: str = "postgres") -> bool:
    with contextlib.suppress(psycopg.OperationalError), closing(connect(running, postgres, database)):
        return True
    return False


def test_refused_logins_do_not_use_up_max_client_conn(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    running = pooler(configuration(postgres, limits={"max_client_conn": 1}))
    for _ in range(3):
        wrong = refusal(("127.0.0.1", running.port), postgres.superuser, "a wrong password")
        assert wrong["C"] == "28P01"
    with closing(connect(running, postgres)) as connection:
        assert value(connection, "SELECT 1") == 1


def test_clients_beyond_max_queue_are_refused_at_once(data_plane: DataPlaneFactory, postgres: PostgresServer) -> None:
    running = data_plane(configuration(postgres, defaults={"pool_size": 1, "max_queue": 2}))
    with background() as start:
        with closing(connect(running, postgres)):
            waiting = [start(can_connect, running, postgres) for _ in range(2)]
            wait_for(lambda: running.snapshot()["waiting"] == 2)
            fields = refused(running, postgres)
            assert (fields["S"], fields["C"]) == ("FATAL", "53300")
            assert "(max_queue 2)" in fields["M"]
            assert f"postgres.{postgres.superuser}.primary" in fields["M"]
            assert not any(waiter.done() for waiter in waiting)
        assert all(waiter.result(60) for waiter in waiting)


def test_pool_size_caps_each_pool_by_itself(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str
) -> None:
    running = data_plane(configuration(postgres, defaults={"pool_size": 1, "query_wait_timeout": "200ms"}))
    with closing(connect(running, postgres)), closing(connect(running, postgres, database)):
        for name in ("postgres", database):
            assert refused(running, postgres, name)["C"] == "53300"
        assert [pool["in_use"] for pool in running.snapshot()["pools"]] == [1, 1]


def test_an_idle_connection_of_one_pool_makes_room_for_another_pool_of_a_full_backend(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str, observer: Connection
) -> None:
    running = data_plane(configuration(postgres, cap=2))
    with closing(connect(running, postgres)) as second:
        with closing(connect(running, postgres)) as first:
            processes = [server_process(first), server_process(second)]
        wait_for(lambda: running.idle() == 1)
    wait_for(lambda: running.idle() == 2)
    with closing(connect(running, postgres, database)) as other:
        (backend,) = running.snapshot()["backends"]
        assert backend["server_connections"] == 2, "the cap holds while room is made"
        assert value(other, "SELECT current_database()") == database
        wait_for(lambda: [exists(observer, process) for process in processes] == [False, True])
        with closing(connect(running, postgres)) as warm:
            assert server_process(warm) == processes[1]


def test_the_cap_of_a_backend_is_never_exceeded_whatever_its_pools_want(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str
) -> None:
    running = data_plane(configuration(postgres, cap=3))
    highest = 0

    def come_and_go(name: str) -> None:
        for _ in range(8):
            with closing(connect(running, postgres, name)) as connection:
                assert value(connection, "SELECT current_database()") == name

    with background() as start:
        clients = [start(come_and_go, name) for name in ("postgres", database, "template1") for _ in range(3)]
        while not all(client.done() for client in clients):
            (backend,) = running.snapshot()["backends"]
            highest = max(highest, backend["server_connections"])
        for client in clients:
            client.result(60)
    assert highest == 3


def test_a_client_of_another_pool_waits_for_room_under_the_backends_cap_and_is_served(
    data_plane: DataPlaneFactory, postgres: PostgresServer, database: str
) -> None:
    running = data_plane(configuration(postgres, cap=1))
    with background() as start:
        with closing(connect(running, postgres)):
            waiting = start(connect, running, postgres, database)
            wait_for(lambda: running.snapshot()["waiting"] == 1)
            assert running.snapshot()["backends"][0]["server_connections"] == 1
        with closing(waiting.result(60)) as other:
            assert value(other, "SELECT current_database()") == database
            assert running.snapshot()["backends"][0]["server_connections"] == 1


def test_waiting_under_the_backends_cap_ends_with_an_error_that_names_it(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    running = pooler(configuration(postgres, cap=1, defaults={"query_wait_timeout": "200ms"}))
    with closing(connect(running, postgres)):
        fields = refused(running, postgres, database)
        assert fields["C"] == "53300"
        assert "backend primary allows 1" in fields["D"]


# -- timeouts of clients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [b"", b"\0\0\0", b"\0\0\0\x20\0\x03\0\0user\0post"], ids=["nothing", "3", "half"])
def test_a_client_that_does_not_log_in_is_disconnected_and_others_are_not(
    pooler: PoolerFactory, postgres: PostgresServer, words: bytes
) -> None:
    running = pooler(configuration(postgres, timeouts={"client_login_timeout": "500ms"}))
    with closing(connect(running, postgres)) as other, Wire(("127.0.0.1", running.port)) as silent:
        silent.send(words)
        last = silent.last_words()
        if last is not None:
            assert "client_login_timeout" in error_fields(last)["M"]
        assert value(other, "SELECT 1") == 1


def test_a_client_that_never_sends_its_password_is_told_why_it_is_disconnected(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    running = pooler(configuration(postgres, timeouts={"client_login_timeout": "500ms"}))
    with Wire(("127.0.0.1", running.port)) as silent:
        silent.send(startup(postgres.superuser, "postgres"))
        assert silent.until("AuthenticationSASL")
        last = silent.last_words()
        assert last is not None
        assert "client_login_timeout" in error_fields(last)["M"]


def test_waiting_for_a_server_connection_is_no_part_of_the_login(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    running = pooler(configuration(postgres, defaults={"pool_size": 1}, timeouts={"client_login_timeout": "500ms"}))
    with background() as start:
        with closing(connect(running, postgres)) as first:
            waiting = start(connect, running, postgres)
            assert value(first, "SELECT pg_sleep(1.5)") == ""
            assert not waiting.done()
        waiting.result(60).close()


def test_a_client_that_is_silent_for_session_idle_timeout_is_told_so_and_its_server_connection_is_reused(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    running = pooler(configuration(postgres, defaults={"pool_size": 1, "session_idle_timeout": "400ms"}))
    with logged_in(running, postgres) as idle:
        (process,) = row_values(idle.ask("SELECT pg_backend_pid()"))
        last = idle.last_words()
        assert last is not None
        fields = error_fields(last)
        assert (fields["S"], fields["C"]) == ("FATAL", "57P05")
        assert "session_idle_timeout" in fields["M"]
    with logged_in(running, postgres) as second:
        assert row_values(second.ask("SELECT pg_backend_pid()")) == [process]


def test_an_idle_transaction_counts_as_idle_and_is_rolled_back(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    running = pooler(configuration(postgres, defaults={"pool_size": 1, "session_idle_timeout": "400ms"}))
    with logged_in(running, postgres, database) as idle:
        idle.ask("CREATE TABLE kept (x int)")
        idle.ask("BEGIN")
        idle.ask("INSERT INTO kept VALUES (1)")
        last = idle.last_words()
        assert last is not None
        assert error_fields(last)["C"] == "57P05"
    with logged_in(running, postgres, database) as second:
        assert row_values(second.ask("SELECT count(*) FROM kept")) == ["0"]


def test_session_idle_timeout_does_not_end_a_long_query_nor_a_client_that_keeps_asking(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    running = pooler(configuration(postgres, defaults={"session_idle_timeout": "700ms"}))
    with logged_in(running, postgres) as busy:
        assert row_values(busy.ask("SELECT pg_sleep(1.6), 'done'")) == ["", "done"]
        for _ in range(3):
            busy.ask("SELECT pg_sleep(0.4)")
        # A pipeline without a Sync is unfinished business, not silence.
        busy.send(query("SELECT pg_sleep(1.2)"), query("SELECT 'last'"))
        busy.until()
        assert row_values(busy.until()) == ["last"]
        last = busy.last_words()
        assert last is not None
        assert error_fields(last)["C"] == "57P05"


# -- timeouts of server connections ------------------------------------------------------------------------------------


def test_a_server_connection_unused_for_server_idle_timeout_is_closed_and_one_in_use_is_not(
    pooler: PoolerFactory, postgres: PostgresServer, observer: Connection
) -> None:
    running = pooler(configuration(postgres, defaults={"server_idle_timeout": "400ms"}))
    with closing(connect(running, postgres)) as held:
        with closing(connect(running, postgres)) as first:
            process = server_process(first)
        wait_for(lambda: not exists(observer, process))
        assert exists(observer, held.info.backend_pid)
        assert value(held, "SELECT 1") == 1
    wait_for(lambda: "reason=server_idle_timeout" in running.log_text(), running.log_text)


def test_idle_connections_that_expired_do_not_keep_the_pool_full(
    data_plane: DataPlaneFactory, postgres: PostgresServer
) -> None:
    for limit in ("server_idle_timeout", "server_lifetime"):
        running = data_plane(configuration(postgres, cap=2, defaults={"pool_size": 2, limit: "300ms"}))
        with closing(connect(running, postgres)) as first, closing(connect(running, postgres)) as second:
            old = {server_process(first), server_process(second)}
        wait_for(lambda running=running: not running.snapshot()["backends"][0]["server_connections"])
        with closing(connect(running, postgres)) as first, closing(connect(running, postgres)) as second:
            assert old.isdisjoint({server_process(first), server_process(second)})


def test_the_connection_that_came_back_last_is_used_and_the_others_age_away(
    pooler: PoolerFactory, postgres: PostgresServer, observer: Connection
) -> None:
    running = pooler(configuration(postgres, defaults={"server_idle_timeout": "1s"}))
    with closing(connect(running, postgres)) as first, closing(connect(running, postgres)) as second:
        cold, warm = server_process(first), server_process(second)
        first.close()
        reset = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query = 'DISCARD ALL' AND state = 'idle'"
        wait_for(lambda: value(observer, reset, cold))
    wait_for(lambda: value(observer, reset, warm))
    used = set()

    def one_more() -> bool:
        with closing(connect(running, postgres)) as connection:
            used.add(server_process(connection))
        return not exists(observer, cold)

    wait_for(one_more)
    assert used == {warm}


def test_a_server_connection_older_than_server_lifetime_is_closed_when_its_client_leaves_and_not_before(
    pooler: PoolerFactory, postgres: PostgresServer, observer: Connection
) -> None:
    running = pooler(configuration(postgres, defaults={"pool_size": 1, "server_lifetime": "500ms"}))
    with closing(connect(running, postgres)) as first:
        process = server_process(first)
        assert value(first, "SELECT pg_sleep(1.2)") == ""
        assert server_process(first) == process
    with closing(connect(running, postgres)) as second:
        assert server_process(second) != process
    wait_for(lambda: not exists(observer, process))


# -- servers that cannot be reached ------------------------------------------------------------------------------------


NOT_NOW = encode(backend("ErrorResponse", fields=((b"S", b"FATAL"), (b"C", b"57P03"), (b"M", b"not now"))))


class SilentServer:
    """Listens and never answers.  `accepted` counts the connections it took."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, answers: bytes | None = None) -> None:
        self.accepted = 0
        self._answers = answers
        self._listening = socket.create_server((host, port))
        self.host, self.port = self._listening.getsockname()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            self._connections.append(connection)
            if self._answers == b"stop":
                return
            self.accepted += 1
            if self._answers is not None:
                connection.recv(1000)
                connection.sendall(self._answers)
                connection.close()

    def close(self) -> None:
        self._answers = b"stop"
        with socket.create_connection((self.host, self.port)):
            self._thread.join()
        for connection in [*self._connections, self._listening]:
            connection.close()


@contextlib.contextmanager
def full_backlog(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """The port of a listener that takes no more connections: attempts to connect hang."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield int(address[1])


def two_backends(postgres: PostgresServer, port: int, **keys: Any) -> Configuration:
    """The database `elsewhere` on another port, everything else on the real server."""
    elsewhere = {"name": "elsewhere", "host": "127.0.0.1", "port": port, **keys}
    rules = [{"database": "elsewhere", "backend": "elsewhere"}, {"default": True, "backend": "primary"}]
    whole = configuration(postgres, routing={"rules": rules})
    return {**whole, "backends": [*whole["backends"], elsewhere]}


def test_a_server_that_accepts_and_never_answers_is_given_up_after_server_connect_timeout(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    with closing(SilentServer()) as silent:
        running = pooler(two_backends(postgres, silent.port, server_connect_timeout="500ms"))
        assert_given_up_while_others_work(running, postgres, silent.port)
        assert silent.accepted >= 1


def test_a_server_that_does_not_even_accept_is_given_up_after_server_connect_timeout(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    with full_backlog() as port:
        running = pooler(two_backends(postgres, port, server_connect_timeout="500ms"))
        assert_given_up_while_others_work(running, postgres, port)


def assert_given_up_while_others_work(running: Pooler, postgres: PostgresServer, port: int) -> None:
    with background() as start, closing(connect(running, postgres)) as other:
        hopeless = start(refused, running, postgres, "elsewhere")
        answered = 0
        while not hopeless.done():
            assert value(other, "SELECT 1") == 1
            answered += 1
        assert answered > 1
        fields = hopeless.result(60)
        assert (fields["S"], fields["C"]) == ("FATAL", "08006")
        assert "server_connect_timeout" in fields["M"] + fields.get("D", "")
        assert f"elsewhere (127.0.0.1:{port})" in fields["M"] + fields.get("D", "")
        with closing(connect(running, postgres)) as another:
            assert value(another, "SELECT 1") == 1


def test_clients_of_a_server_that_is_down_are_told_so_and_served_when_it_is_back(
    pooler: PoolerFactory, start_server: StartServer
) -> None:
    server = start_server()
    running = pooler(configuration(server))
    with closing(connect(running, server)) as before:
        process = server_process(before)
    server.shut_down()
    for _ in range(3):
        fields = refused(running, server)
        assert (fields["S"], fields["C"]) == ("FATAL", "08006")
        assert f"primary ({server.host}:{server.port})" in fields["D"]
        assert "refused" in fields["D"]
    server.restart()
    wait_for(lambda: can_connect(running, server))
    with closing(connect(running, server)) as after:
        assert server_process(after) != process


def test_a_server_that_is_down_is_not_asked_again_for_every_client(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    with closing(SilentServer(answers=NOT_NOW)) as broken:
        running = pooler(two_backends(postgres, broken.port))
        clients = 60
        for _ in range(clients):
            fields = refused(running, postgres, "elsewhere")
            assert (fields["C"], fields["M"]) == ("57P03", "not now")
        assert 1 <= broken.accepted < clients / 3


def test_the_servers_own_error_is_told_to_clients(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    backend = {"name": "primary", "host": postgres.host, "port": postgres.port}
    users = {"users": {"someone": {"password": "a secret of the pooler"}}}
    own = {"user": postgres.superuser, "password": postgres.password}
    running = pooler({"backends": [{**backend, **own}], "auth": users})
    address = ("127.0.0.1", running.port)
    missing = refusal(address, "someone", "a secret of the pooler", "no_such_database")
    assert (missing["S"], missing["C"]) == ("FATAL", "3D000")
    assert missing["M"] == 'database "no_such_database" does not exist'
    wrong = pooler({"backends": [{**backend, **own, "password": "not the password"}], "auth": users})
    fields = refusal(("127.0.0.1", wrong.port), "someone", "a secret of the pooler")
    assert (fields["S"], fields["C"]) == ("FATAL", "28P01")
    assert fields["M"] == f'password authentication failed for user "{postgres.superuser}"'
    assert f"primary ({postgres.host}:{postgres.port})" in fields["D"]
    assert "not the password" not in wrong.log_text()


def test_a_pool_that_has_connections_keeps_its_clients_waiting_when_the_server_refuses_more(
    pooler: PoolerFactory, postgres: PostgresServer, observer: Connection
) -> None:
    role = f"limited_{postgres.port}_{observer.info.backend_pid}"
    observer.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 1".encode())
    try:
        whole = configuration(postgres)
        whole["auth"] = {"users": {role: {"password": "x"}}}
        running = pooler(whole)
        with background() as start:
            with closing(connect(running, postgres, user=role, password="x")) as first:
                process = server_process(first)
                waiting = start(connect, running, postgres, user=role, password="x")
                wait_for(lambda: "too many connections for role" in running.log_text())
                assert not waiting.done()
            with closing(waiting.result(60)) as second:
                assert server_process(second) == process
        running.stop()
    finally:
        wait_for(lambda: not value(observer, "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", role))
        observer.execute(f"DROP ROLE {role}".encode())


# -- idle connections that die -----------------------------------------------------------------------------------------


def test_an_idle_connection_that_the_server_ends_is_noticed_at_once_and_the_next_client_is_fine(
    pooler: PoolerFactory, postgres: PostgresServer, observer: Connection
) -> None:
    running = pooler(configuration(postgres, defaults={"pool_size": 1}))
    idle = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query = 'DISCARD ALL' AND state = 'idle'"
    processes: list[int] = []
    for _ in range(5):
        with closing(connect(running, postgres)) as connection:
            processes.append(server_process(connection))
        wait_for(lambda: value(observer, idle, processes[-1]))
        terminate(observer, processes[-1])
    assert len(set(processes)) == 5
    wait_for(lambda: running.log_text().count("terminating connection due to administrator command") == 5)


def test_idle_connections_do_not_survive_a_restart_of_the_server_and_clients_do_not_notice(
    pooler: PoolerFactory, start_server: StartServer
) -> None:
    server = start_server()
    running = pooler(configuration(server))
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(closing(connect(running, server))) for _ in range(3)]
        processes = {server_process(connection) for connection in held}
    server.restart()
    with closing(connect(running, server)) as after:
        assert value(after, "SELECT 1") == 1
        assert server_process(after) not in processes


# -- the log -----------------------------------------------------------------------------------------------------------


def test_session_numbers_are_never_used_twice_although_descriptors_are(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    running = pooler(configuration(postgres))
    for _ in range(5):
        with closing(connect(running, postgres)) as connection:
            assert value(connection, "SELECT 1") == 1
    wait_for(lambda: running.log_text().count("client disconnected") == 5, running.log_text)
    numbers = [int(number) for number in re.findall(r"\[session (\d+)\] closed: user=", running.log_text())]
    assert len(numbers) == 5
    assert numbers == sorted(set(numbers))
