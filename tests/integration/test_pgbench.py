"""pgbench in every protocol: with a server connection for each client, with few for many, and with some killed."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Connection, background
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.test_transaction_mode import sampled, sizes

SECONDS = os.environ.get("PGPOOLER_PGBENCH_SECONDS")
"""How long each pgbench runs; otherwise each of its clients ends after a number of transactions."""
PROTOCOLS = ("simple", "extended", "prepared")
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
POOL = 10
MANY = 100
CLIENTS = 4
"""Clients of each protocol, where all three run at the same time and each client has a server connection."""
CROWD = 10
"""The same where a transaction ends before another client begins: three times this many share the pool."""
SCALE = 5
KILL_EVERY = max(0.2, float(SECONDS or 0) / 40)
"""Seconds: not so often that all clients are lost before the end."""
CHECKED = r"""
\set aid random(1, 100000)
SELECT aid AS got, abalance AS balance FROM pgbench_accounts WHERE aid = :aid \gset
\if :got <> :aid
SELECT a_row_of_somebody_else;
\endif
"""
SUMS = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
    " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),"
    " (SELECT count(*) FROM pgbench_history)"
)


def duration(transactions_each: int) -> tuple[str, str]:
    return ("-t", str(transactions_each)) if SECONDS is None else ("-T", SECONDS)


class Bench:
    """pgbench on the test's database, through a data plane with one pool mode and pool size."""

    def __init__(self, data_plane: RunningDataPlane, url: str) -> None:
        self.data_plane = data_plane
        self.url = url

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(tools.require("pgbench")), "-d", self.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    def report(self, *arguments: str) -> str:
        """What a run says that neither fails nor complains."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr.lower(), done.stderr
        assert "number of failed transactions: 0 (0.000%)" in done.stdout, done.stdout
        return done.stdout

    def fill(self, scale: int = 1) -> None:
        made = self.run("-i", "-q", "-I", "dtGvp", "-s", str(scale))
        assert made.returncode == 0, made.stderr


def transactions(report: str) -> int:
    """How many transactions a report counts."""
    found = re.search(r"number of transactions actually processed: (\d+)", report)
    assert found is not None, report
    return int(found[1])


def bench(data_plane: DataPlaneFactory, servers: TwoServers, database: str, mode: str, pool_size: int) -> Bench:
    running = data_plane(servers.configuration(routing={"defaults": {"pool_mode": mode, "pool_size": pool_size}}))
    user, password = next(iter(servers.users.items()))
    return Bench(running, f"postgresql://{user}:{password}@127.0.0.1:{running.port}/{database}?sslmode=disable")


@pytest.fixture
def in_session_mode(data_plane: DataPlaneFactory, two_servers: TwoServers, database: str) -> Bench:
    """A connection for each client, and one to look."""
    return bench(data_plane, two_servers, database, "session", len(PROTOCOLS) * CLIENTS)


@pytest.fixture
def in_transaction_mode(data_plane: DataPlaneFactory, two_servers: TwoServers, database: str) -> Bench:
    """Ten connections for everybody."""
    return bench(data_plane, two_servers, database, "transaction", POOL)


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    """A direct connection to the database of the test, which is not one of PgPooler's."""
    with closing(psycopg.connect(postgres.url(database), autocommit=True, application_name="observer")) as connection:
        yield connection


def move_money(under_test: Bench, observer: Connection, clients: int) -> None:
    """TPC-B in all three protocols at the same time: money is only moved, and every transaction is in the history.

    Each client has a thread of its own: pgbench waits for PQprepare, and with it all other clients of the thread, also
    the one whose transaction would have to end first.
    """
    under_test.fill(scale=SCALE)
    arguments = ("-n", "-c", str(clients), "-j", str(clients), *duration(50))
    counted = 0
    with background() as run:
        reports = {name: run(under_test.report, "-M", name, *arguments) for name in PROTOCOLS}
        for name, report in reports.items():
            text = report.result(600)
            assert f"query mode: {name}\n" in text
            assert f"number of clients: {clients}\n" in text
            assert transactions(text) > 0
            counted += transactions(text)
    *sums, rows = observer.execute(SUMS).fetchone() or ()
    assert len(set(sums)) == 1, sums
    assert rows == counted


def test_transactions_in_every_protocol_move_money_and_lose_none_with_a_connection_each(
    in_session_mode: Bench, observer: Connection
) -> None:
    move_money(in_session_mode, observer, CLIENTS)


def test_transactions_in_every_protocol_move_money_and_lose_none_on_few_connections(
    in_transaction_mode: Bench, observer: Connection
) -> None:
    move_money(in_transaction_mode, observer, CROWD)
    in_transaction_mode.data_plane.wait_until_unused()
    assert in_transaction_mode.data_plane.snapshot()["server_connections_made"] == POOL


@each_protocol
def test_a_hundred_clients_on_ten_connections_meet_no_error(protocol: str, in_transaction_mode: Bench) -> None:
    data_plane = in_transaction_mode.data_plane
    in_transaction_mode.fill()
    with sampled(lambda: sizes(data_plane)[1]) as counted:
        report = in_transaction_mode.report("-n", "-S", "-M", protocol, "-c", str(MANY), *duration(40))
    assert f"query mode: {protocol}\n" in report
    assert max(counted) == POOL
    data_plane.wait_until_unused()
    assert data_plane.snapshot()["server_connections_made"] == POOL


@each_protocol
def test_while_server_connections_are_killed_nothing_wrong_is_read_and_only_the_clients_on_them_are_lost(
    protocol: str, in_transaction_mode: Bench, observer: Connection, tmp_path: Path
) -> None:
    """W7, W8: places come free again, and who comes next is served on a new connection."""
    in_transaction_mode.fill()
    script = tmp_path / "checked.sql"
    script.write_text(CHECKED, encoding="utf-8")
    arguments = ("-n", "-f", str(script), "-M", protocol, "-c", str(MANY), *duration(40))
    kills = 0
    with background() as run:
        running = run(in_transaction_mode.run, *arguments)
        while not running.done():
            time.sleep(KILL_EVERY)
            kills += observer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY random() LIMIT 1"
            ).rowcount
        done = running.result(60)
    lost = re.findall(r"client \d+ (?:script \d+ )?aborted", done.stderr)
    assert 0 < len(lost) <= kills, done.stderr
    errors = set(re.findall(r"(?:ERROR|FATAL): +(.*)", done.stderr))
    assert errors <= {"terminating connection due to administrator command"}, done.stderr
    assert "number of failed transactions: 0 (0.000%)" in done.stdout, done.stdout
    assert transactions(done.stdout) > MANY
    in_transaction_mode.data_plane.wait_until_unused()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_pipelines_of_prepared_statements_are_answered(mode: str, request: Any, tmp_path: Path) -> None:
    under_test: Bench = request.getfixturevalue(f"in_{mode}_mode")
    script = tmp_path / "pipeline.sql"
    script.write_text("\\startpipeline\n" + "SELECT 1;\n" * 50 + "\\endpipeline\n", encoding="utf-8")
    clients, turns = (CLIENTS, 25) if mode == "session" else (MANY, 2)
    report = under_test.report("-n", "-M", "prepared", "-c", str(clients), "-t", str(turns), "-f", str(script))
    assert transactions(report) == clients * turns


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_clients_that_connect_for_every_transaction_meet_no_error(mode: str, request: Any, tmp_path: Path) -> None:
    """More of them than the pool has connections, each in a thread of its own: pgbench blocks it while it connects."""
    under_test: Bench = request.getfixturevalue(f"in_{mode}_mode")
    script = tmp_path / "one.sql"
    script.write_text("SELECT 1;\n", encoding="utf-8")
    clients = 2 * len(PROTOCOLS) * CLIENTS
    report = under_test.report("-n", "-C", "-c", str(clients), "-j", str(clients), "-t", "4", "-f", str(script))
    assert transactions(report) == clients * 4
