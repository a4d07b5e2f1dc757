"""A running PostgreSQL server, whoever started it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from pgpooler.demo import tools
from pgpooler.errors import PgPoolerError

RELOADING = "SIGHUP, reloading configuration files"
RELOAD_TIMEOUT = 20.0
"""Seconds a server may take to notice that it is to read its files again."""


class PostgresUnavailable(PgPoolerError):
    """A PostgreSQL server, or a client program, cannot be had; the message says why and what to install."""


class PostgresServer:
    """One PostgreSQL server that accepts connections on `host`:`port` over TCP.

    `bindir` is the directory of its programs and `data_directory` its files, each None when they are not on this
    machine.  `socket_directory` holds its unix socket, if it has one that can be reached.  A server is also a context
    manager: leaving it stops it.
    """

    provider = "none"
    password: str
    bindir: Path | None = None
    data_directory: Path | None = None
    socket_directory: Path | None = None

    def __init__(
        self, host: str, port: int, *, superuser: str, password: str, version: str, settings: Mapping[str, str]
    ) -> None:
        self.host = host
        self.port = port
        self.superuser = superuser
        self.password = password
        self.version = version
        self.settings = dict(settings)

    def __repr__(self) -> str:
        return f"<PostgreSQL {self.version} ({self.provider}) at {self.host}:{self.port}>"

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def version_number(self) -> int:
        """The major version, such as 18."""
        digits = self.version.split(".")[0]
        return int("".join(character for character in digits if character.isdigit()))

    def url(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A connection URI (manual: libpq-connstring); without a user, the superuser's, password included."""
        if user is None:
            user, password = self.superuser, self.password
        secret = "" if password is None else ":" + quote(password, safe="")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{quote(user, safe='')}{secret}@{host}:{self.port}/{quote(database, safe='')}"

    def psql(
        self, *arguments: str, database: str = "postgres", user: str | None = None, password: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run psql against this server with more arguments, unaligned and rows only; its start-up file is not read."""
        return tools.run_psql(self.url(database, user, password), *arguments)

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the superuser, each committed by itself, and return the rows of the last one."""
        psycopg = tools.import_psycopg()
        rows: list[tuple[object, ...]] = []
        with contextlib.closing(psycopg.connect(self.url(database), autocommit=True)) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def log_text(self) -> str:
        """What the server has logged so far; empty when it cannot be read."""
        return ""

    def set_authentication(self, *lines: str) -> None:
        """Put lines in front of pg_hba.conf (none: the original file again) and have them take effect."""
        raise PostgresUnavailable(f"the server at {self.host}:{self.port} was not started by PgPooler")

    def restart(self, mode: str = "fast", settings: Mapping[str, str] | None = None) -> None:
        """Stop and start again on the same port; `settings` are added to those it had."""
        raise PostgresUnavailable(f"the server at {self.host}:{self.port} was not started by PgPooler")

    def shut_down(self, mode: str = "fast") -> None:
        """Stop the server but keep its files and port (mode as for pg_ctl); `restart` starts it again."""
        raise PostgresUnavailable(f"the server at {self.host}:{self.port} was not started by PgPooler")

    def stop(self) -> None:
        """Stop the server for good and remove everything that belongs to it.  Doing so twice is allowed."""


@contextlib.contextmanager
def wait_for_reload(server: PostgresServer) -> Iterator[None]:
    """Leave the block only when the server has said in its log that it reads its configuration files again."""
    before = server.log_text().count(RELOADING)
    yield
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while server.log_text().count(RELOADING) == before:
        if time.monotonic() > deadline:
            raise PostgresUnavailable("the PostgreSQL server did not read its configuration again")
        time.sleep(0.005)


class ExternalServer(PostgresServer):
    """A server that was running before and goes on afterwards: PgPooler neither starts nor stops it."""

    provider = "url"

    @classmethod
    def from_url(cls, url: str) -> ExternalServer:
        """Connect to the server of a connection URI, to learn where it is and what it is."""
        psycopg = tools.import_psycopg()
        try:
            with contextlib.closing(psycopg.connect(url, connect_timeout=10)) as connection:
                information = connection.info
                return cls(
                    information.host,
                    information.port,
                    superuser=information.user,
                    password=information.password,
                    version=str(information.parameter_status("server_version")).split()[0],
                    settings={},
                )
        except psycopg.Error as error:
            raise PostgresUnavailable(f"the PostgreSQL server of the given URL cannot be used: {error}") from None
