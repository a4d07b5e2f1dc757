"""Locust users that behave as applications do, one class per pool mode, and check what their mode promises.

A class is there when the URL of a database with its pool mode is: PGPOOLER_LOAD_SESSION, PGPOOLER_LOAD_TRANSACTION,
PGPOOLER_LOAD_STATEMENT.  `python -m loadtests` sets them, starts everything and runs Locust without its web page.  By
hand, against a running `pgpooler demo`, with the web page on http://127.0.0.1:8089:

    PGPOOLER_LOAD_SESSION=postgresql://postgres:postgres@127.0.0.1:6432/main \\
        locust -f loadtests/locustfile.py --web-host 127.0.0.1

A broken promise is a failed request in Locust's report, and ends it with exit code 1.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import psycopg
from locust import User, between, task

URLS = {mode: os.environ.get(f"PGPOOLER_LOAD_{mode.upper()}", "") for mode in ("session", "transaction", "statement")}


class BrokenPromise(Exception):
    """The pooler did something that its pool mode rules out."""


class Application(User):
    """What the users of all pool modes share: a URL, connections, and how long things took."""

    abstract = True
    url: ClassVar[str] = ""
    options: ClassVar[dict[str, Any]] = {}
    """What the driver must be told for this pool mode."""
    wait_time = between(0, 0.02)

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Report the block to Locust as one request of this name, failed if it raises."""
        started = time.perf_counter()
        error: Exception | None = None
        try:
            yield
        except (psycopg.Error, BrokenPromise) as raised:
            error = raised
        self.environment.events.request.fire(
            request_type=type(self).__name__,
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection; every statement is a transaction of its own unless one is begun."""
        return psycopg.connect(self.url, autocommit=True, connect_timeout=60, **self.options)


def expect(found: object, wanted: object, promise: str) -> None:
    """Raise BrokenPromise unless the two are equal."""
    if found != wanted:
        raise BrokenPromise(f"{promise}: found {found!r} instead of {wanted!r}")


def value(connection: psycopg.Connection[Any], query: str, *parameters: object) -> object:
    """The single value that a query returns."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    return None if row is None else row[0]


class SessionUser(Application):
    """Session mode: one server connection from login to logout, clean at the beginning."""

    abstract = not URLS["session"]
    url = URLS["session"]

    @task
    def visit(self) -> None:
        """Log in, work for a moment, log out; the next visit may get anybody's server connection."""
        connection = None
        with self.measured("connect"):
            connection = self.connect()
        if connection is None:
            return
        with connection:
            with self.measured("find the session clean"):
                expect(value(connection, "SHOW application_name"), "", "settings of another client are gone")
                expect(
                    value(connection, "SELECT to_regclass('pg_temp.visit') IS NULL"), True, "temporary tables are gone"
                )
                expect(
                    value(connection, "SELECT count(*) FROM pg_prepared_statements"), 0, "prepared statements are gone"
                )
            with self.measured("keep state in the session"):
                server = value(connection, "SELECT pg_backend_pid()")
                name = f"visit {random.randrange(1_000_000)}"  # noqa: S311 - not a secret
                connection.execute("SELECT set_config('application_name', %s, false)", [name])
                connection.execute("CREATE TEMPORARY TABLE visit (number integer)")
                with connection.transaction():
                    connection.execute("INSERT INTO visit SELECT generate_series(1, 100)")
                expect(value(connection, "SELECT sum(number) FROM visit"), 5050, "temporary tables stay")
                expect(value(connection, "SHOW application_name"), name, "settings stay")
                expect(value(connection, "SELECT pg_backend_pid()"), server, "the server connection stays")
            for number in range(10):
                with self.measured("query with a parameter"):
                    expect(
                        value(connection, "SELECT %s::int + 1", number), number + 1, "the answer is to this question"
                    )


class TransactionUser(Application):
    """Transaction mode: one server connection from BEGIN to COMMIT."""

    abstract = not URLS["transaction"]
    url = URLS["transaction"]
    options = {"prepare_threshold": None}  # prepared statements end with the transaction

    def on_start(self) -> None:
        """Log in once; the connection is kept for all transactions."""
        self.connection = self.connect()

    def on_stop(self) -> None:
        """Log out."""
        self.connection.close()

    @task
    def transact(self) -> None:
        """One transaction of several statements."""
        with self.measured("transaction"), self.connection.transaction():
            server = value(self.connection, "SELECT pg_backend_pid()")
            name = f"transaction {random.randrange(1_000_000)}"  # noqa: S311 - not a secret
            self.connection.execute("SELECT set_config('application_name', %s, true)", [name])
            expect(value(self.connection, "SHOW application_name"), name, "local settings stay in the transaction")
            expect(value(self.connection, "SELECT pg_backend_pid()"), server, "the server connection stays")

    @task(3)
    def query(self) -> None:
        """One statement, a transaction of its own."""
        number = random.randrange(1_000_000)  # noqa: S311 - not a secret
        with self.measured("query with a parameter"):
            expect(value(self.connection, "SELECT %s::int + 1", number), number + 1, "the answer is to this question")


class StatementUser(Application):
    """Statement mode: a server connection for one statement; transactions of several are refused."""

    abstract = not URLS["statement"]
    url = URLS["statement"]
    options = {"prepare_threshold": None}  # prepared statements end with the statement

    def on_start(self) -> None:
        """Log in once; the connection is kept for all statements."""
        self.connection = self.connect()

    def on_stop(self) -> None:
        """Log out."""
        self.connection.close()

    @task(9)
    def query(self) -> None:
        """One statement."""
        number = random.randrange(1_000_000)  # noqa: S311 - not a secret
        with self.measured("query with a parameter"):
            expect(value(self.connection, "SELECT %s::int + 1", number), number + 1, "the answer is to this question")

    @task(1)
    def try_to_transact(self) -> None:
        """BEGIN must be an error."""
        with self.measured("BEGIN is refused"), self.connect() as connection:
            try:
                connection.execute("BEGIN")
            except psycopg.Error:
                return
            raise BrokenPromise("BEGIN was accepted")
