"""The processes of a real PgPooler: signals, reload, restart of the worker, the log, the listening sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgpooler.demo import ports
from pgpooler.demo.postgres import PostgresServer
from tests.integration.poolers import Pooler, PoolerFactory

PATIENCE = 30.0


def configuration(postgres: PostgresServer, **more: Any) -> dict[str, Any]:
    """Everybody to one server; `more` are sections that are added or replaced."""
    return {
        "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port}],
        "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
        **more,
    }


def connect(pooler: Pooler, postgres: PostgresServer, **parameters: Any) -> psycopg.Connection[Any]:
    return pooler.connect(user=postgres.superuser, password=postgres.password, **parameters)


def value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def wait_until(condition: Callable[[], object], explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.01)


def wait_for_log(pooler: Pooler, words: str, times: int = 1) -> str:
    wait_until(lambda: pooler.log_text().count(words) >= times, lambda: f"no {words!r} in:\n{pooler.log_text()}")
    return pooler.log_text()


def worker_of(pooler: Pooler) -> int:
    """The process id of the worker, once it serves."""
    wait_for_log(pooler, "serves (")
    (worker,) = (process for process in pooler.process_ids() if process != pooler.process.pid)
    return worker


def leave(pooler: Pooler, number: signal.Signals) -> None:
    wait_for_log(pooler, "connect with")
    pooler.process.send_signal(number)


def ended(pooler: Pooler) -> int:
    """Wait until it has ended by itself and left nothing behind; its exit status."""
    return pooler.stop(0)  # signal 0 is none


def test_sigterm_lets_a_transaction_end_and_accepts_nobody_new(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres, database=database, autocommit=False)
    client.execute("CREATE TABLE kept (x int)")
    leave(pgpooler, signal.SIGTERM)
    wait_until(lambda: not pgpooler.is_listening(), pgpooler.log_text)
    client.execute("INSERT INTO kept VALUES (1)")
    client.commit()
    client.close()
    assert ended(pgpooler) == 0
    assert postgres.execute("SELECT x FROM kept", database=database) == [(1,)]
    assert "0 clients had to be disconnected" in pgpooler.log_text()


def test_after_the_drain_timeout_clients_are_told_and_disconnected(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    pgpooler = pooler(configuration(postgres, timeouts={"drain_timeout": "100ms"}))
    client = connect(pgpooler, postgres)
    leave(pgpooler, signal.SIGTERM)
    assert ended(pgpooler) == 0
    with pytest.raises(psycopg.errors.AdminShutdown):
        client.execute("SELECT 1")
    client.close()
    assert "1 client had to be disconnected" in pgpooler.log_text()


def test_a_second_sigterm_does_not_wait_any_longer(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    pgpooler = pooler(configuration(postgres, timeouts={"drain_timeout": "1h"}))
    client = connect(pgpooler, postgres)
    leave(pgpooler, signal.SIGTERM)
    wait_for_log(pgpooler, "SIGTERM: draining")
    pgpooler.process.send_signal(signal.SIGTERM)
    assert ended(pgpooler) == 0
    with pytest.raises(psycopg.errors.AdminShutdown):
        client.execute("SELECT 1")
    client.close()


def test_sigint_tells_the_clients_and_ends(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres)
    leave(pgpooler, signal.SIGINT)
    assert ended(pgpooler) == 0
    with pytest.raises(psycopg.errors.AdminShutdown):
        client.execute("SELECT 1")
    client.close()


def test_sigquit_ends_at_once_in_the_middle_of_a_query(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres)
    client.pgconn.send_query(b"SELECT pg_sleep(3600)")
    leave(pgpooler, signal.SIGQUIT)
    assert ended(pgpooler) == 0
    result = client.pgconn.get_result()
    assert result is not None
    assert result.status == psycopg.pq.ExecStatus.FATAL_ERROR
    client.close()


def test_ending_leaves_no_server_connection_behind(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres, database=database)
    server_connection = value(client, "SELECT pg_backend_pid()")
    assert pgpooler.stop() == 0
    client.close()
    wait_until(
        lambda: not postgres.execute(f"SELECT FROM pg_stat_activity WHERE pid = {server_connection}"),
        lambda: "the server connection is still there",
    )


def test_a_killed_supervisor_leaves_no_worker_and_no_server_connection(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres)
    server_connection = value(client, "SELECT pg_backend_pid()")
    assert pgpooler.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(
        lambda: not postgres.execute(f"SELECT FROM pg_stat_activity WHERE pid = {server_connection}"),
        lambda: "the server connection is still there",
    )
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    client.close()


def test_a_killed_worker_is_replaced_and_waiting_clients_are_served(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    pgpooler = pooler(configuration(postgres))
    lost = connect(pgpooler, postgres)
    first = worker_of(pgpooler)
    os.kill(first, signal.SIGKILL)
    # At once, while nobody serves: these wait in the queue of the listening socket, none is refused or reset.
    clients = [connect(pgpooler, postgres) for _ in range(3)]
    assert [value(client, "SELECT 42") for client in clients] == [42, 42, 42]
    assert worker_of(pgpooler) != first
    assert f"worker {first} was ended by SIGKILL" in pgpooler.log_text()
    with pytest.raises(psycopg.OperationalError):
        lost.execute("SELECT 1")
    for client in (lost, *clients):
        client.close()


def test_sigusr1_pauses_and_sigusr2_resumes_also_over_the_end_of_a_worker(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    defaults = {"pool_mode": "transaction", "min_pool_size": 1}
    pgpooler = pooler(configuration(postgres, routing={"defaults": defaults}))
    client = connect(pgpooler, postgres, database=database)
    assert value(client, "SELECT 1") == 1
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    first = worker_of(pgpooler)
    leave(pgpooler, signal.SIGUSR1)
    wait_for_log(pgpooler, "paused: clients wait; 0 server connections still in use")
    wait_until(lambda: postgres.execute(sessions) == [(0,)], lambda: "its server connections are still there")
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(value, client, "SELECT 'waited'")
        leave(pgpooler, signal.SIGUSR2)
        assert waiting.result(PATIENCE) == "waited"
        leave(pgpooler, signal.SIGUSR1)
        wait_for_log(pgpooler, "paused: clients wait", times=2)
        os.kill(first, signal.SIGKILL)
        newcomer = threads.submit(connect, pgpooler, postgres, database=database)
        wait_for_log(pgpooler, "serves (", times=2)
        assert postgres.execute(sessions) == [(0,)]
        leave(pgpooler, signal.SIGUSR2)
        with newcomer.result(PATIENCE) as connection:
            assert value(connection, "SELECT 2") == 2
    client.close()


def test_a_reload_lets_a_new_user_in_and_keeps_clients_connected(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres)
    before = value(client, "SELECT pg_backend_pid()")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        pgpooler.connect(user="newcomer", password="welcome")
    more = {postgres.superuser: {"password": postgres.password}, "newcomer": {"password": "welcome"}}
    login = {"user": postgres.superuser, "password": postgres.password}
    backend = {"name": "primary", "host": postgres.host, "port": postgres.port, **login}
    pgpooler.write(configuration(postgres, auth={"users": more}, backends=[backend]))
    pgpooler.reload()
    text = wait_for_log(pgpooler, "the configuration is reloaded")
    assert "configuration: auth.users.newcomer" in text
    assert "welcome" not in text
    newcomer = pgpooler.connect(user="newcomer", password="welcome")
    assert value(newcomer, "SELECT 1") == 1
    assert value(client, "SELECT pg_backend_pid()") == before
    client.close()
    newcomer.close()


def test_a_reload_with_an_error_names_its_place_and_everything_runs_on(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    pgpooler = pooler(configuration(postgres))
    client = connect(pgpooler, postgres)
    good = pgpooler.configuration_path.read_text()
    pgpooler.configuration_path.write_text(good + "routing:\n  rules:\n    - {database: x, backend: nowhere}\n")
    pgpooler.reload()
    text = wait_for_log(pgpooler, "the configuration is not reloaded (1 error)")
    line = len(good.splitlines()) + 3
    assert f"{pgpooler.configuration_path}:{line}:30: there is no backend called 'nowhere'" in text
    assert value(client, "SELECT 1") == 1
    with connect(pgpooler, postgres) as another:
        assert value(another, "SELECT 2") == 2
    client.close()
    pgpooler.configuration_path.write_text(good)
    pgpooler.reload()
    wait_for_log(pgpooler, "the configuration is reloaded; 0 changes")


def test_a_reload_to_another_pool_mode_holds_for_the_next_lease(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    def configured(mode: str) -> dict[str, Any]:
        return configuration(postgres, routing={"defaults": {"pool_mode": mode, "pool_size": 1}})

    pgpooler = pooler(configured("session"))
    wait_for_log(pgpooler, "serves (")
    before = connect(pgpooler, postgres)
    before.execute("SET work_mem = '7MB'")
    pgpooler.write(configured("transaction"))
    pgpooler.reload()
    wait_for_log(pgpooler, "the configuration is reloaded; 1 change")
    assert value(before, "SHOW work_mem") == "7MB"  # it keeps what it was given for its whole session
    before.close()
    with connect(pgpooler, postgres) as one, connect(pgpooler, postgres) as other:
        for client in (one, other, one, other):
            assert value(client, "SELECT 1") == 1
        pgpooler.write(configured("session"))
        pgpooler.reload()
        wait_for_log(pgpooler, "the configuration is reloaded; 1 change", 2)
        one.execute("SET work_mem = '7MB'")
        assert value(one, "SHOW work_mem") == "7MB"
        one.close()
        assert value(other, "SHOW work_mem") != "7MB"


def test_another_port_in_a_reload_is_told_to_need_a_restart(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    pgpooler = pooler(configuration(postgres))
    wait_for_log(pgpooler, "serves (")
    pgpooler.write(configuration(postgres, listen={"port": 1}))
    pgpooler.reload()
    wait_for_log(pgpooler, f"listen.port: {pgpooler.port} -> 1; takes effect after a restart")
    assert pgpooler.is_listening()


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_file_has_the_records_of_the_worker(
    pooler: PoolerFactory, postgres: PostgresServer, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "logs" / "pgpooler.log"
    logging = {"level": "debug", "format": form, "file": {"path": str(path)}}
    users = {postgres.superuser: {"password": postgres.password}, "alice": {"password": "hush"}}
    pgpooler = pooler(configuration(postgres, logging=logging, auth={"users": users}))
    with pytest.raises(psycopg.OperationalError):
        pgpooler.connect(user="eve\r\n[forged] [INFO]", password="hush too")
    connect(pgpooler, postgres).close()
    assert pgpooler.stop() == 0
    lines = path.read_text().splitlines()
    if form == "json":
        records = [json.loads(line) for line in lines]
        assert {record["process"] for record in records} >= {pgpooler.process.pid}
        assert any(record["process"] != pgpooler.process.pid and record.get("session") for record in records)
    else:
        assert any(re.search(r"\[session \d+\] ", line) for line in lines)
        assert all(re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[[A-Z]+\] ", line) for line in lines), lines
    assert "hush" not in path.read_text()


def test_the_unix_socket_serves_and_is_removed_at_the_end(
    pooler: PoolerFactory, postgres: PostgresServer, tmp_path: Path
) -> None:
    pgpooler = pooler(configuration(postgres, listen={"unix_socket_dir": str(tmp_path)}))
    path = tmp_path / f".s.PGSQL.{pgpooler.port}"
    with connect(pgpooler, postgres, host=str(tmp_path)) as client:
        assert value(client, "SELECT 1") == 1
        assert client.info.host == str(tmp_path)
    assert pgpooler.stop() == 0
    assert not path.exists()


def test_all_addresses_of_both_families_serve(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    pgpooler = pooler(configuration(postgres, listen={"host": ["127.0.0.1", "::1"]}))
    for host in ("127.0.0.1", "::1"):
        with connect(pgpooler, postgres, host=host) as client:
            assert value(client, "SELECT 1") == 1


def test_a_second_run_on_the_same_port_fails_and_says_so(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    first = pooler(configuration(postgres))
    result = run_once(first.configuration_path)
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{first.port}: another process listens there" in result.stderr
    with connect(first, postgres) as client:
        assert value(client, "SELECT 1") == 1


def run_once(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgpooler", "run", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "pgpooler", "run", "--config", sys.argv[2]])
"""


def test_a_socket_of_systemd_serves_in_place_of_the_section_listen(postgres: PostgresServer, tmp_path: Path) -> None:
    reservation = ports.reserve()
    path = tmp_path / "pgpooler.yaml"
    path.write_text(json.dumps(configuration(postgres, listen={"port": 1})))
    with (
        contextlib.closing(reservation_listener(reservation.number)) as listener,
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(listener.fileno()), str(path)],
            pass_fds=[listener.fileno()],
            stderr=output,
        ) as process,
    ):
        parameters: Mapping[str, Any] = {"user": postgres.superuser, "password": postgres.password}
        url = f"postgresql://127.0.0.1:{reservation.number}/postgres"
        with psycopg.connect(url, **parameters, sslmode="disable") as client:
            assert value(client, "SELECT 1") == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        # systemd keeps the socket: the next client waits for the next start instead of being refused.
        socket.create_connection(("127.0.0.1", reservation.number)).close()
    reservation.release()
    assert "systemd passed 1 socket" in (tmp_path / "output").read_text()


def reservation_listener(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))
