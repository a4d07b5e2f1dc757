"""A real PgPooler for a test: `pgpooler run` in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import yaml

from pgpooler.demo import ports, tools
from tests.integration import servers

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
POLL_INTERVAL = 0.01
ATTEMPTS = 5
MARK = "PGPOOLER_TEST_MARK"
"""An environment variable that all processes of one PgPooler inherit, by which leftovers are found."""
PORT_PLACEHOLDER = "@PORT@"


class PoolerFailed(Exception):
    """PgPooler ended instead of serving; `code` is its exit status, `output` what it wrote."""

    def __init__(self, code: int | None, output: str) -> None:
        super().__init__(f"pgpooler run ended with {code} instead of serving:\n{output}")
        self.code = code
        self.output = output


class Pooler:
    """A running PgPooler.

    `directory` holds its configuration files (the main one is `configuration_path`) and `process` is its supervisor.
    """

    host = "127.0.0.1"

    def __init__(self, directory: Path, *, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.configuration_path = directory / "pgpooler.yaml"
        self.port = 0
        self._arguments = arguments
        self._mark = uuid.uuid4().hex
        self._environment = {**os.environ, **environment, MARK: self._mark}
        self._output = directory / "output.log"
        self._reservation: ports.PortReservation | None = None
        self.process: subprocess.Popen[bytes]

    # Starting and stopping

    def start(self, configuration: str | Mapping[str, Any], files: Mapping[str, str | Mapping[str, Any]]) -> None:
        """Write the configuration and run it on a free port; on another one if it was taken in the meantime."""
        for name, content in files.items():
            (self.directory / name).write_text(_text(content), encoding="utf-8")
        for attempt in range(1, ATTEMPTS + 1):
            self._reservation = ports.reserve()
            self.port = self._reservation.number
            self.write(configuration)
            try:
                self._start_once()
                return
            except PoolerFailed:
                if ports.is_free(self.port) or attempt == ATTEMPTS:
                    raise

    def write(self, configuration: str | Mapping[str, Any]) -> None:
        """Replace the main configuration file; it listens on this PgPooler's port unless it says otherwise.

        In a text, @PORT@ stands for the port; one that begins with `<` is the XML form.
        """
        if isinstance(configuration, str):
            text = configuration.replace(PORT_PLACEHOLDER, str(self.port))
            is_xml = text.startswith("<")
            self.configuration_path = self.configuration_path.with_suffix(".xml" if is_xml else ".yaml")
            if not is_xml and not any(line.startswith("listen:") for line in text.splitlines()):
                text = text.rstrip("\n") + f"\nlisten: {{host: {self.host}, port: {self.port}}}\n"
        else:
            listen = {"host": self.host, "port": self.port, **configuration.get("listen", {})}
            text = _text({**configuration, "listen": listen})
        self.configuration_path.write_text(text, encoding="utf-8")

    def _start_once(self) -> None:
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pgpooler", "run", "--config", str(self.configuration_path), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C at the terminal reaches pytest, which stops PgPooler in its own order.
                start_new_session=True,
            )
        try:
            self._wait_until_it_serves()
        except BaseException:
            self.kill()
            raise

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not ports.is_answered(self.host, self.port):
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                raise PoolerFailed(code, self.log_text())
            time.sleep(POLL_INTERVAL)

    def is_listening(self) -> bool:
        """Whether its port accepts connections now."""
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=5):
            return True
        return False

    def reload(self) -> None:
        """Ask it to read its configuration again (SIGHUP)."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop it with a signal, and assert that it obeyed and left nothing behind; return its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"PgPooler did not stop on signal {number}:\n{self.log_text()}") from None
        self._assert_nothing_is_left()
        return code

    def kill(self) -> None:
        """End all its processes at once."""
        for process in self.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        if self._reservation is not None:
            self._reservation.release()

    def _assert_nothing_is_left(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT
        while (left := self.process_ids()) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        if left:
            self.kill()
        assert not left, f"PgPooler left processes behind: {left}\n{self.log_text()}"
        assert not self.is_listening(), "somebody still listens on PgPooler's port"
        assert "Traceback" not in self.log_text(), f"PgPooler met a bug of its own:\n{self.log_text()}"
        if self._reservation is not None:
            self._reservation.release()

    # Looking at it

    def process_ids(self) -> list[int]:
        """All its processes, the supervisor's children too, also those that lost their parent."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return sorted(found)

    def log_text(self) -> str:
        """Everything it has written to standard output and error so far."""
        return self._output.read_text(encoding="utf-8", errors="replace") if self._output.exists() else ""

    # Connecting to it

    def url(
        self, database: str = "postgres", user: str | None = None, password: str | None = None, **parameters: str
    ) -> str:
        """A connection URI to it; keyword arguments become further connection parameters.

        Without a user it is the superuser's, here and below; without a password a user's URI has none.
        """
        if user is None:
            user, password = servers.superuser()
        secret = "" if password is None else ":" + quote(password, safe="")
        query = "?" + urlencode(parameters, quote_via=quote) if parameters else ""
        address = f"{self.host}:{self.port}"
        return f"postgresql://{quote(user, safe='')}{secret}@{address}/{quote(database, safe='')}{query}"

    def connect(
        self, database: str = "postgres", user: str | None = None, password: str | None = None, **parameters: Any
    ) -> psycopg.Connection[Any]:
        """A psycopg connection through it, in autocommit unless told otherwise."""
        if user is None:
            user, password = servers.superuser()
        return psycopg.connect(
            **{
                "host": self.host,
                "port": self.port,
                "dbname": database,
                "user": user,
                "password": password,
                "autocommit": True,
                "sslmode": "disable",
                **parameters,
            }
        )

    def psql(
        self, *arguments: str, database: str = "postgres", user: str | None = None, password: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run psql through it (rows only, unaligned, stopping at the first error)."""
        return tools.run_psql(self.url(database, user, password), *arguments)


class PoolerFactory:
    """Starts PgPoolers for one test, each in a directory of its own, and stops them all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Pooler] = []

    def __call__(
        self,
        configuration: str | Mapping[str, Any],
        *,
        files: Mapping[str, str | Mapping[str, Any]] | None = None,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Pooler:
        """Start `pgpooler run` with this configuration (text, or values to be written as YAML) and wait for its port.

        `files` are written beside it.  Raises PoolerFailed if it ends instead of serving.
        """
        directory = self._directory / f"pgpooler-{len(self._started)}"
        directory.mkdir()
        pooler = Pooler(directory, arguments=arguments, environment=environment or {})
        pooler.start(configuration, files or {})
        self._started.append(pooler)
        return pooler

    def stop(self) -> None:
        """Stop every PgPooler that still runs; each must end well and leave nothing."""
        with contextlib.ExitStack() as stack:
            for pooler in self._started:
                stack.callback(self._stop_one, pooler)

    @staticmethod
    def _stop_one(pooler: Pooler) -> None:
        if pooler.process.returncode is None:
            code = pooler.stop()
            assert code == 0, f"PgPooler ended with {code}:\n{pooler.log_text()}"


def _text(content: str | Mapping[str, Any]) -> str:
    return content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False)
