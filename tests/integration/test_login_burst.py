"""A burst of logins with TLS and SCRAM, and what it does to those who are in: the 99th percentile of their queries.

The two are compared within one run: before, while and after a thousand log in.  Those who log in have the lowest
priority (`nice`), so that it is PgPooler's work that is seen and not theirs; queries begin at a given rate, and their
time counts from when they should have begun.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import PostgresServer
from tests.certificates import Authority
from tests.integration.data_planes import wait_until
from tests.integration.poolers import Pooler, PoolerFactory

LOGINS = 1000
TOGETHER = 10
QUIET = 3.0
"""Seconds, before the burst and after it."""
RATE = 300
"""Queries that begin in a second."""
PATIENCE = 300.0
CROWD = """
import sys, threading, psycopg
url, logins, together = sys.argv[1], iter(range(int(sys.argv[2]))), int(sys.argv[3])
def log_in():
    for _ in logins:
        with psycopg.connect(url) as connection:
            assert connection.pgconn.ssl_in_use
threads = [threading.Thread(target=log_in) for _ in range(together)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("all logged in")
"""


@pytest.fixture
def in_front(postgres: PostgresServer, pooler: PoolerFactory, authority: Authority) -> Pooler:
    certificate = authority.certify("pooler", hosts=("localhost",), file="burst")
    return pooler(
        {
            "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port}],
            "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
            "routing": {"defaults": {"pool_mode": "transaction", "pool_size": 5}},
            "tls": {"mode": "prefer", **certificate.keys},
        }
    )


def url(running: Pooler, postgres: PostgresServer, sslmode: str) -> str:
    return f"postgresql://{postgres.superuser}:{postgres.password}@127.0.0.1:{running.port}/postgres?sslmode={sslmode}"


@contextlib.contextmanager
def querying(address: str, folder: Path) -> Iterator[Path]:
    """Several clients that ask all the time while the block runs; the value is the file of how long that took."""
    script = folder / "query.sql"
    script.write_text("SELECT 1;\n", encoding="utf-8")
    command = [str(tools.require("pgbench")), "-n", "-f", str(script), "-c", "8", "-R", str(RATE), "-T", "600"]
    command += ["-l", f"--log-prefix={folder / 'log'}", "-d", address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as pgbench:
        log = folder / f"log.{pgbench.pid}"
        try:
            wait_until(lambda: log.exists() and log.stat().st_size)
            yield log
            assert pgbench.poll() is None, pgbench.stderr and pgbench.stderr.read()
        finally:
            pgbench.kill()


def slowest_of_a_hundred(log: Path, *spans: tuple[float, float]) -> float:
    """The 99th percentile, in microseconds, of what ended within these times (pgbench: Per-Transaction Logging)."""
    took = []
    for line in log.read_text(encoding="ascii").splitlines()[:-1]:  # the last may be cut off
        _, _, microseconds, _, seconds, fraction, *_ = line.split()
        ended = int(seconds) + int(fraction) / 1e6
        if any(start <= ended <= end for start, end in spans):
            took.append(int(microseconds))
    assert len(took) > RATE
    return sorted(took)[len(took) * 99 // 100]


def test_a_thousand_who_log_in_at_once_delay_the_queries_of_others_little(
    in_front: Pooler, postgres: PostgresServer, tmp_path: Path
) -> None:
    burst = [
        "nice",
        "-n",
        "19",
        sys.executable,
        "-c",
        CROWD,
        url(in_front, postgres, "require"),
        str(LOGINS),
        str(TOGETHER),
    ]
    with querying(url(in_front, postgres, "disable"), tmp_path) as log:
        began = time.time()
        time.sleep(QUIET)
        before = time.time()
        done = subprocess.run(burst, capture_output=True, text=True, timeout=PATIENCE, check=False)
        after = time.time()
        assert done.stdout == "all logged in\n", done.stderr
        time.sleep(QUIET)
        ended = time.time()
        size = log.stat().st_size
        wait_until(lambda: log.stat().st_size > size)
    quiet = slowest_of_a_hundred(log, (began, before), (after, ended))
    busy = slowest_of_a_hundred(log, (before, after))
    assert busy < 3 * quiet, f"{busy} us while they log in, {quiet} us before and after"
