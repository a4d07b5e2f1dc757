"""The poolers under load: PgPooler and PgBouncer, each with a configuration of its own in a temporary directory."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from loadtests.processes import with_descendants
from pgpooler.demo import ports, privileges

START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
LOG_TAIL = 2_000
"""Characters of a pooler's output that an error message quotes."""


class PoolerFailed(Exception):
    """A pooler did not start; the message ends with what it printed."""


@dataclass(frozen=True)
class Login:
    """A role and its password, good for the server and for the poolers in front of it."""

    user: str
    password: str


@dataclass(frozen=True)
class Pool:
    """What stands behind one database name of a pooler: pool mode, and how many server connections at most."""

    mode: str
    size: int


@dataclass(frozen=True)
class Target:
    """An address that speaks PostgreSQL, and the process in charge of it (None: not ours to measure)."""

    name: str
    host: str
    port: int
    process: int | None = None

    def url(self, login: Login, database: str) -> str:
        """A connection URI for this target."""
        return f"postgresql://{quote(login.user)}:{quote(login.password)}@{self.host}:{self.port}/{quote(database)}"

    def processes(self) -> list[int]:
        """The process ids whose time counts: the one in charge and all its descendants."""
        return [] if self.process is None else with_descendants(self.process)


def pgbouncer_program() -> str | None:
    """Where PgBouncer is, or None; Debian puts it into /usr/sbin, which is not on everybody's PATH."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def pgpooler(server: Target, login: Login, pools: Mapping[str, Pool], max_clients: int) -> Iterator[Target]:
    """Run PgPooler in front of a server; `pools` says how each database is pooled."""
    with _directory() as directory, _port() as port:
        configuration = {
            "listen": {"host": "127.0.0.1", "port": port},
            "logging": {"destination": "stderr", "level": "warn"},
            "auth": {"method": "scram-sha-256", "users": {login.user: {"password": login.password}}},
            "limits": {"max_client_conn": max_clients},
            "backends": [{"name": "server", "host": server.host, "port": server.port}],
            "routing": {
                "rules": [
                    {
                        "name": database,
                        "database": database,
                        "backend": "server",
                        "pool_mode": pool.mode,
                        "pool_size": pool.size,
                    }
                    for database, pool in pools.items()
                ]
            },
        }
        file = directory / "pgpooler.yaml"
        file.write_text(json.dumps(configuration, indent=2), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "pgpooler", "run", "--config", str(file)]
        with _running("PgPooler", command, port, login, next(iter(pools)), directory, None) as target:
            yield target


@contextlib.contextmanager
def pgbouncer(
    program: str, server: Target, login: Login, pools: Mapping[str, Pool], max_clients: int
) -> Iterator[Target]:
    """Run PgBouncer in front of a server, as nearly like PgPooler as its settings allow."""
    identity = privileges.choose()  # PgBouncer refuses root as PostgreSQL does
    with _directory() as directory, _port() as port:
        users = directory / "userlist.txt"
        users.write_text(f'"{login.user}" "{login.password}"\n', encoding="utf-8")
        databases = [
            f"{database} = host={server.host} port={server.port} pool_mode={pool.mode} pool_size={pool.size}"
            for database, pool in pools.items()
        ]
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "max_client_conn": max_clients,
            "log_connections": 0,
            "log_disconnections": 0,
        }
        file = directory / "pgbouncer.ini"
        lines = ["[databases]", *databases, "[pgbouncer]", *(f"{key} = {value}" for key, value in settings.items())]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        identity.own(directory)
        command = [*identity.prefix, program, "-q", str(file)]
        with _running("PgBouncer", command, port, login, next(iter(pools)), directory, identity) as target:
            yield target


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pgpooler-load-") as name:
        yield Path(name)


@contextlib.contextmanager
def _port() -> Iterator[int]:
    reservation = ports.reserve()
    try:
        yield reservation.number
    finally:
        reservation.release()


@contextlib.contextmanager
def _running(
    name: str,
    command: list[str],
    port: int,
    login: Login,
    database: str,
    directory: Path,
    identity: privileges.Identity | None,
) -> Iterator[Target]:
    """Start a pooler, wait until one can log in through it, and stop it in the end."""
    output = directory / "output.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            user=identity.user if identity else None,
            group=identity.group if identity else None,
            start_new_session=True,  # Ctrl-C reaches us, and we end it in order
        )
    target = Target(name, "127.0.0.1", port, process.pid)
    try:
        _wait_until_it_answers(target.url(login, database), process, name, output)
        yield target
    finally:
        _end(process)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], name: str, output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                printed = output.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
                raise PoolerFailed(f"{name} does not answer: {error}\nIt printed:\n{printed}") from None
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
