"""One course of the stress: the clients, the data plane they use, its memory, and what is left in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import value, wait_for
from tests.integration.data_planes import RunningDataPlane
from tests.stress.clients import Findings, Orders
from tests.stress.plans import TABLE

ROOT = Path(__file__).parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE")
MEBIBYTE = 1 << 20
LOOK_EVERY = 0.2
WARM = 0.5
"""The part of the course after which caches are full: memory is compared from then on."""
POOL = 10
TIME_TO_STOP = 180.0
SERVER_CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)
BUSY = SERVER_CONNECTIONS + " AND (state <> 'idle' OR xact_start IS NOT NULL)"


@dataclass(frozen=True)
class Course:
    """What the clients found, and how much memory the data plane held when it was warm and in the end, in bytes."""

    findings: Findings
    warm: int
    end: int
    server_connections: int

    @property
    def growth(self) -> float:
        return self.end / self.warm

    def __str__(self) -> str:
        found = self.findings
        steps = ", ".join(f"{name} {count}" for name, count in sorted(found.steps.items()))
        return (
            f"{sum(found.steps.values())} steps ({steps}), {found.messages} messages, {found.logins} logins,"
            f" {found.canceled} queries canceled by their own client; wrong: {len(found.wrong)};"
            f" memory {self.warm / MEBIBYTE:.1f} MiB when warm, {self.end / MEBIBYTE:.1f} MiB in the end"
            f" ({self.growth:.3f}); {self.server_connections} server connections"
        )


def run(
    data_plane: RunningDataPlane,
    postgres: PostgresServer,
    database: str,
    *,
    clients: int,
    seconds: float,
    seed: int,
    transactions: bool,
) -> Course:
    """Let the clients work, then assert that nothing is left of them: here, nor on the server."""
    login = (postgres.superuser, postgres.password, database)
    orders = Orders("127.0.0.1", data_plane.port, *login, clients, seconds, seed, transactions)
    with psycopg.connect(postgres.url(database), autocommit=True, application_name="observer") as observer:
        observer.execute(f"CREATE TABLE {TABLE} (client int, token text)".encode())
        command = [sys.executable, "-m", "tests.stress.clients", json.dumps(asdict(orders))]
        with watched(data_plane) as memory:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + TIME_TO_STOP, check=False
            )
        assert done.returncode == 0, done.stderr
        findings = Findings(**json.loads(done.stdout))
        data_plane.wait_until_unused()
        made = data_plane.idle()
        wait_for(
            lambda: value(observer, SERVER_CONNECTIONS) == made, lambda: "the server knows of other connections than we"
        )
        wait_for(lambda: value(observer, BUSY) == 0, lambda: "a server connection is still in use")
        assert value(observer, f"SELECT count(*) FROM {TABLE} WHERE client < 0") == 0, "a half request had an effect"
    return Course(findings, memory[int(len(memory) * WARM)], memory[-1], made)


@contextmanager
def watched(data_plane: RunningDataPlane) -> Iterator[list[int]]:
    """The resident memory of this process, again and again; at the end of the block, too.

    What the data plane logs is looked through and thrown away meanwhile: it would be what grows.
    """
    seen = [resident()]
    over = threading.Event()
    bugs: list[str] = []

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            bugs.extend(data_plane.bugs())
            data_plane.records.clear()
            seen.append(resident())

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()
        seen.append(resident())
    assert not bugs, bugs


def resident() -> int:
    """The memory of this process that is in use, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE
