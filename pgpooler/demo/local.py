"""A PostgreSQL server of our own on this machine, from the programs in a directory."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgpooler.demo import keeper, ports, privileges, tools
from pgpooler.demo.server import PostgresServer, PostgresUnavailable, wait_for_reload

DEFAULT_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # The data is thrown away: nothing need survive a power failure.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
}
INITIALISE = ("-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
ATTEMPTS = 5
SOCKET_PATH_LIMIT = 103
"""Bytes that the path of a unix socket may have on every system (Linux: 107)."""
LOG_TAIL = 2_000
"""Characters of the server's log that an error message quotes."""


def _make_directory() -> Path:
    """A new directory for a server; in /tmp if the usual place is too deep for a unix socket."""
    deepest = Path(tempfile.gettempdir(), "pgpooler-postgres-12345678", ".s.PGSQL.12345")
    parent = "/tmp" if len(os.fsencode(deepest)) > SOCKET_PATH_LIMIT else None  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="pgpooler-postgres-", dir=parent))


class LocalServer(PostgresServer):
    """A server with its own data directory, made, started and removed by us through a keeper process.

    Whatever happens to this process, the keeper stops the server and removes its directory (see `keeper`).
    """

    def __init__(
        self,
        bindir: Path,
        *,
        provider: str,
        superuser: str = "postgres",
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            "127.0.0.1",
            0,
            superuser=superuser,
            password=secrets.token_urlsafe(12) if password is None else password,
            version=tools.version_text(bindir),
            settings={**DEFAULT_SETTINGS, **(settings or {})},
        )
        self.provider = provider
        self._identity = privileges.choose()
        self._reservation: ports.PortReservation | None = None
        self._directory = _make_directory()
        self._keeper = self._start_keeper()
        try:
            # Entered by the user PostgreSQL runs as, and by clients of the unix socket.
            self._directory.chmod(0o755)
            self._identity.own(self._directory)
            self.bindir = privileges.reachable_programs(bindir, self._identity, self._directory)
            self.data_directory = self._directory / "data"
            self.socket_directory = self._directory
            self._initialise()
            self._start_on_a_free_port()
        except BaseException:
            self.stop()
            raise

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C at the terminal must reach us, not the keeper.
        command = [sys.executable, "-I", "-S", str(Path(keeper.__file__)), str(self._directory)]
        try:
            return subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError:
            self._directory.rmdir()
            raise

    def _ask(self, **request: object) -> dict[str, Any]:
        """Send the keeper one request and wait for its answer."""
        questions, answers = self._keeper.stdin, self._keeper.stdout
        if questions is None or answers is None or questions.closed:
            raise PostgresUnavailable("the PostgreSQL server was already stopped")
        questions.write(json.dumps(request).encode() + b"\n")
        questions.flush()
        line = answers.readline()
        if not line:
            raise PostgresUnavailable("the process that keeps the PostgreSQL server has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _command(self, program: str, *arguments: str) -> dict[str, object]:
        """The part of a request that says what to run and as whom."""
        if self.bindir is None:
            raise PostgresUnavailable("no PostgreSQL programs were found")
        command = [*self._identity.prefix, str(self.bindir / program), *arguments]
        return {"command": command, "user": self._identity.user, "group": self._identity.group}

    def _initialise(self) -> None:
        secret = self._directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password + "\n", encoding="utf-8")
        self._identity.own(secret)
        arguments = ("-D", str(self.data_directory), "-U", self.superuser, f"--pwfile={secret}", *INITIALISE)
        if self._ask(do="run", **self._command("initdb", *arguments))["code"] != 0:
            raise PostgresUnavailable(f"initdb failed:\n{self.log_text()[-LOG_TAIL:]}")
        secret.unlink()
        with self._data_file("postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("include_if_exists = 'pgpooler.conf'\n")
        shutil.copy2(self._data_file("pg_hba.conf"), self._data_file("pg_hba.conf.original"))

    def _data_file(self, name: str) -> Path:
        return self._directory / "data" / name

    def _write_settings(self) -> None:
        settings = {**self.settings, "unix_socket_directories": str(self._directory)}
        lines = (name + " = '" + value.replace("'", "''") + "'\n" for name, value in settings.items())
        self._data_file("pgpooler.conf").write_text("".join(lines), encoding="utf-8")

    def _start_on_a_free_port(self) -> None:
        """Choose a port and start; when another program took it in the meantime, choose again."""
        for _ in range(ATTEMPTS):
            self._reservation = ports.reserve()
            self.port = self._reservation.number
            if self._start():
                return
            self._reservation.release()
            if ports.is_free(self.port):
                break
        raise PostgresUnavailable(f"the PostgreSQL server did not start:\n{self.log_text()[-LOG_TAIL:]}")

    def _start(self) -> bool:
        self._write_settings()
        arguments = ("-D", str(self.data_directory), "-p", str(self.port))
        return bool(self._ask(do="start", **self._command("postgres", *arguments))["ready"])

    def log_text(self) -> str:
        """What initdb and the server have written so far."""
        try:
            return (self._directory / "log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def process_id(self) -> int:
        """The process id of the postmaster."""
        return int(self._data_file("postmaster.pid").read_text(encoding="utf-8").splitlines()[0])

    def set_authentication(self, *lines: str) -> None:
        """Put lines in front of pg_hba.conf (none: the original file again) and have them take effect."""
        original = self._data_file("pg_hba.conf.original").read_text(encoding="utf-8")
        self._data_file("pg_hba.conf").write_text("".join(line + "\n" for line in lines) + original, encoding="utf-8")
        with wait_for_reload(self):
            os.kill(self.process_id, signal.SIGHUP)

    def restart(self, mode: str = "fast", settings: Mapping[str, str] | None = None) -> None:
        """Stop and start again on the same port; `settings` are added to those it had."""
        self.settings.update(settings or {})
        self.shut_down(mode)
        if not self._start():
            raise PostgresUnavailable(f"the PostgreSQL server did not restart:\n{self.log_text()[-LOG_TAIL:]}")

    def shut_down(self, mode: str = "fast") -> None:
        """Stop the server but keep its files and port (`smart`, `fast` or `immediate`, as for pg_ctl)."""
        self._ask(do="stop", signal=int(STOP_SIGNALS[mode]))

    def stop(self) -> None:
        """Stop the server and remove its directory; harmless when done before."""
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
            self._keeper.wait()
            if self._keeper.stdout is not None:
                self._keeper.stdout.close()
        if self._reservation is not None:
            self._reservation.release()
