"""The demonstration while it runs: two PostgreSQL servers, PgPooler in front of them, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pgpooler.demo import ports, postgres, scenario
from pgpooler.demo.postgres import PostgresServer, PostgresUnavailable
from pgpooler.errors import PgPoolerError

HOST = "127.0.0.1"
DEFAULT_PORT = 6432
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
POLL_INTERVAL = 0.02
LOG_TAIL = 2_000
"""Characters of PgPooler's log that an error message quotes."""

Say = Callable[[str], None]


class DemonstrationFailed(PgPoolerError):
    """The demonstration cannot go on; the message says why."""


class Demonstration(contextlib.ExitStack):
    """Two servers and a PgPooler; a context manager whose end stops and removes all of them.

    `directory` holds the configuration files and the log.  `say` is called with one line before each step.
    """

    primary: PostgresServer
    replica: PostgresServer
    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    def start(self, *, provider: str | None, image: str, port: int | None, say: Say) -> None:
        """Start everything: servers from the provider (None: the first that can be had), PgPooler on the port."""
        self.port = self._choose_port(port, say)
        sources = self._sources(provider, image)
        servers = []
        for name, source in zip((scenario.PRIMARY, scenario.REPLICA), sources, strict=True):
            say(f"Starting PostgreSQL for the backend {name}: {source}")
            server = self.enter_context(source.start(password=scenario.SUPERUSER_PASSWORD))
            self.enter_context(scenario.prepared(server, name))
            servers.append(server)
        self.primary, self.replica = servers
        self.directory = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="pgpooler-demo-")))
        files = scenario.configuration_files(self.primary, self.replica, host=HOST, port=self.port)
        self.configuration = scenario.write_configuration(self.directory, files)
        say(f"Starting PgPooler on {HOST}:{self.port}")
        self._start_pooler()

    @property
    def users(self) -> dict[str, str]:
        """The users that can connect, with their passwords; the superuser first."""
        return scenario.users(self.primary, self.replica)

    @property
    def log(self) -> Path:
        """The file with everything that PgPooler writes."""
        return self.directory / "pgpooler.log"

    def wait(self) -> None:
        """Return only by an exception: PgPooler's end, or the caller's interrupt."""
        self.process.wait()
        self._report_end()

    @staticmethod
    def _choose_port(wanted: int | None, say: Say) -> int:
        port = DEFAULT_PORT if wanted is None else wanted
        if ports.is_free(port, HOST):
            return port
        if wanted is not None:
            raise DemonstrationFailed(f"port {port} is taken by another program: choose another with --port")
        reservation = ports.reserve()
        reservation.release()
        say(f"Port {port} is taken by another program, so PgPooler listens on {reservation.number}")
        return reservation.number

    @staticmethod
    def _sources(wanted: str | None, image: str) -> list[postgres.Provider]:
        """Where the two servers come from: one or two URLs, otherwise one provider for both."""
        addresses = postgres.urls(wanted)
        if len(addresses) == 1:
            raise PostgresUnavailable("the demonstration needs two servers: give two URLs, separated by a space")
        if addresses:
            return [postgres.choose(address) for address in addresses[:2]]
        return [postgres.choose(wanted, image)] * 2

    def _start_pooler(self) -> None:
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal is for us, who stop PgPooler before the servers.
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "pgpooler", "run", "--config", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.callback(self._stop_pooler)
        deadline = time.monotonic() + START_TIMEOUT
        while not ports.is_answered(HOST, self.port):
            if self.process.poll() is not None:
                self._report_end()
            if time.monotonic() > deadline:
                raise DemonstrationFailed(f"PgPooler does not answer on port {self.port}; its log:\n{self._log_tail()}")
            time.sleep(POLL_INTERVAL)

    def _report_end(self) -> None:
        raise DemonstrationFailed(f"PgPooler ended with status {self.process.returncode}; its log:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]

    def _stop_pooler(self) -> None:
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        # Whatever of it is still there has had its time.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
