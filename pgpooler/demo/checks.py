"""What the demonstration proves: each routing case, and each pool mode that is built.

A check connects to PgPooler like any application (psycopg, nothing special) and compares what PostgreSQL says.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pgpooler.demo import scenario, tools
from pgpooler.demo.scenario import RoutingCase

CONNECT_TIMEOUT = 20
SQLSTATE_FIELD = ord("C")
SETTLE_TIME = 0.05
"""Seconds between two attempts to meet the server connection that another client has just given back."""
PROOF_DATABASE = "app"
TRANSACTION_DATABASE = "by_transaction"
STATEMENT_DATABASE = "by_statement"
SHARING_CLIENTS = 10
"""So many clients share the two server connections of the pools in transaction and statement mode."""
LEAVE_BEHIND = (
    "SET statement_timeout = '1234s'",
    "CREATE TEMPORARY TABLE left_behind (secret text)",
    "PREPARE left_behind AS SELECT 1",
    "SELECT pg_advisory_lock(6432)",
)
LOOK_FOR_LEFTOVERS = """
SELECT concat_ws(', ',
    CASE WHEN current_setting('statement_timeout') <> '0' THEN 'setting' END,
    CASE WHEN to_regclass('pg_temp.left_behind') IS NOT NULL THEN 'temporary table' END,
    CASE WHEN EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'left_behind') THEN 'prepared statement' END,
    CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) THEN 'lock' END)
"""


@dataclass(frozen=True)
class Check:
    """One thing proved or not: what, by which client, and what was seen."""

    subject: str
    client: str
    expected: str
    got: str

    @property
    def passed(self) -> bool:
        """Whether what was seen is what must be."""
        return self.got == self.expected

    def values(self) -> dict[str, object]:
        """The same for a machine."""
        return {**asdict(self), "passed": self.passed}


class Client:
    """Opens connections through PgPooler as one of the users it knows."""

    def __init__(self, host: str, port: int, users: Mapping[str, str]) -> None:
        self._psycopg = tools.import_psycopg()
        self._host = host
        self._port = port
        self._users = users

    @property
    def superuser(self) -> str:
        """The user who may do everything on the servers."""
        return next(iter(self._users))

    @contextlib.contextmanager
    def connection(self, database: str, user: str | None = None) -> Iterator[Any]:
        """A connection in autocommit, closed at the end of the block."""
        name = self.superuser if user is None else user
        with contextlib.closing(
            self._psycopg.connect(
                host=self._host,
                port=self._port,
                user=name,
                password=self._users[name],
                dbname=database,
                autocommit=True,
                prepare_threshold=None,  # a prepared statement does not outlive a transaction in every pool mode
                connect_timeout=CONNECT_TIMEOUT,
                application_name="pgpooler demo",
            )
        ) as connection:
            yield connection

    def attempt(self, question: Callable[[Client], str]) -> str:
        """The answer to a question asked through us, or the error that came instead, on one line."""
        try:
            return question(self)
        except self._psycopg.Error as error:
            sqlstate = f"{error.sqlstate} " if error.sqlstate else ""
            return "error: " + sqlstate + " ".join(str(error).split())


def routing(client: Client) -> Iterator[Check]:
    """The routing cases: who answers when this user asks for this database?"""
    for case in scenario.routing_cases(client.superuser):

        def ask(client: Client, case: RoutingCase = case) -> str:
            with client.connection(case.database, case.user) as connection:
                return str(_value(connection, "SELECT name FROM backend_id"))

        yield Check(f"routed by {case.rule}", f"{case.user} / {case.database}", case.expected, client.attempt(ask))


def session_mode(client: Client) -> Iterator[Check]:
    """Session mode: one server connection for a whole session, alone, and clean for the next client."""
    yield from _proofs(
        client,
        PROOF_DATABASE,
        (
            ("session mode keeps the server connection", "1 backend process", _kept),
            ("session mode shares it with nobody", "2 backend processes", _alone),
            ("session mode resets it for the next client", "nothing left", _reset),
        ),
    )


def transaction_mode(client: Client) -> Iterator[Check]:
    """Transaction mode: many sessions share few server connections, but a transaction has one for itself."""
    yield from _proofs(
        client,
        TRANSACTION_DATABASE,
        (
            ("transaction mode shares server connections", "2 backend processes", _shared(TRANSACTION_DATABASE)),
            ("transaction mode keeps one for a transaction", "1 backend process", _kept_in_transaction),
            ("transaction mode resets it for the next", "nothing left", _reset_between_transactions),
            ("transaction mode keeps a temporary table", "kept", _pinned),
        ),
    )


def statement_mode(client: Client) -> Iterator[Check]:
    """Statement mode: every statement may run on another server connection, so transaction blocks are refused."""
    yield from _proofs(
        client,
        STATEMENT_DATABASE,
        (
            ("statement mode shares server connections", "2 backend processes", _shared(STATEMENT_DATABASE)),
            ("statement mode refuses transaction blocks", "error: 0A000", _block),
        ),
    )


PROOFS: Mapping[str, Callable[[Client], Iterator[Check]]] = {
    "session": session_mode,
    "transaction": transaction_mode,
    "statement": statement_mode,
}
"""The proof of each pool mode that is built."""


def run(client: Client) -> Iterator[Check]:
    """All checks, each as soon as it is done."""
    yield from routing(client)
    for proof in PROOFS.values():
        yield from proof(client)


def table(results: Sequence[Check]) -> str:
    """The results as columns that line up, and their sum."""
    rows = [("", "CHECK", "CLIENT (USER / DATABASE)", "EXPECTED", "GOT")]
    for check in results:
        rows.append(("ok" if check.passed else "FAIL", check.subject, check.client, check.expected, check.got))
    passed = sum(check.passed for check in results)
    return f"{aligned(rows)}\n\n{passed} of {len(results)} checks passed"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns that line up."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _proofs(
    client: Client, database: str, proofs: Sequence[tuple[str, str, Callable[[Client], str]]]
) -> Iterator[Check]:
    """One check for each subject, expected answer and question."""
    for subject, expected, ask in proofs:
        yield Check(subject, f"{client.superuser} / {database}", expected, client.attempt(ask))


def _kept(client: Client) -> str:
    """How many backend processes serve one session, seen in and between transactions."""
    seen = set()
    with client.connection(PROOF_DATABASE) as connection, client.connection(PROOF_DATABASE):
        for _ in range(5):
            seen.add(_process(connection))
            with connection.transaction():
                seen.add(_process(connection))
    return _count(len(seen))


def _alone(client: Client) -> str:
    """How many backend processes serve two sessions at the same time."""
    with client.connection(PROOF_DATABASE) as one, client.connection(PROOF_DATABASE) as other:
        return _count(len({_process(one), _process(other)}))


def _reset(client: Client) -> str:
    """What one client's session leaves for the next that gets the same server connection."""
    with client.connection(PROOF_DATABASE) as connection:
        process = _process(connection)
        for statement in LEAVE_BEHIND:
            connection.execute(statement)
    with contextlib.ExitStack() as others:
        # The connection is cleaned first, so the very next client may get another one; who keeps those it got and
        # asks again must come to it, at the latest when the pool has no other.
        for _ in range(scenario.POOL_SIZES[scenario.PRIMARY] - 1):
            time.sleep(SETTLE_TIME)
            connection = others.enter_context(client.connection(PROOF_DATABASE))
            if _process(connection) == process:
                left = str(_value(connection, LOOK_FOR_LEFTOVERS))
                return f"left: {left}" if left else "nothing left"
    return "the server connection was not used again"


def _shared(database: str) -> Callable[[Client], str]:
    """Make the question how many backend processes serve many sessions that are all open at once."""

    def ask(client: Client) -> str:
        with contextlib.ExitStack() as opened:
            connections = [opened.enter_context(client.connection(database)) for _ in range(SHARING_CLIENTS)]
            seen = {_process(connection) for _ in range(5) for connection in connections}
            # One after the other they may all be served by the same connection: two at once need both.
            with concurrent.futures.ThreadPoolExecutor(2) as threads:
                seen.update(threads.map(_slow_process, connections[:2]))
            return _count(len(seen))

    return ask


def _kept_in_transaction(client: Client) -> str:
    """How many backend processes serve one transaction while others come and go."""
    with client.connection(TRANSACTION_DATABASE) as one, client.connection(TRANSACTION_DATABASE) as other:
        with one.transaction():
            seen = {_process(one)}
            for _ in range(5):
                _process(other)
                seen.add(_process(one))
        return _count(len(seen))


def _reset_between_transactions(client: Client) -> str:
    """What one client's statements leave for the others, while it is there and after it has gone."""
    with client.connection(TRANSACTION_DATABASE) as other:
        with client.connection(TRANSACTION_DATABASE) as one:
            for statement in LEAVE_BEHIND:
                one.execute(statement)
            left = {str(_value(other, LOOK_FOR_LEFTOVERS)) for _ in range(3)}
        left |= {str(_value(other, LOOK_FOR_LEFTOVERS)) for _ in range(3)}
    left -= {""}
    return f"left: {', '.join(sorted(left))}" if left else "nothing left"


def _pinned(client: Client) -> str:
    """Whether a client finds its temporary table again, in a later transaction and while others work."""
    with client.connection(TRANSACTION_DATABASE) as one, client.connection(TRANSACTION_DATABASE) as other:
        one.execute("CREATE TEMPORARY TABLE own AS SELECT 'kept' AS state")
        seen = []
        for _ in range(3):
            _process(other)
            seen.append(str(_value(one, "SELECT state FROM own")))
        return seen[-1]


def _block(client: Client) -> str:
    """What a client gets that begins a transaction block: the SQLSTATE, if the connection works afterwards."""
    with client.connection(STATEMENT_DATABASE) as connection:
        answer = connection.pgconn.exec_(b"BEGIN")
        sqlstate = (answer.error_field(SQLSTATE_FIELD) or b"none").decode()
        return f"error: {sqlstate}" if _value(connection, "SELECT 1") == 1 else "the connection is broken"


def _slow_process(connection: Any) -> int:
    """The backend process that ran a statement which took a moment."""
    return int(_value(connection, "SELECT pg_backend_pid() FROM pg_sleep(0.3)"))


def _process(connection: Any) -> int:
    return int(_value(connection, "SELECT pg_backend_pid()"))


def _value(connection: Any, statement: str) -> Any:
    (value,) = connection.execute(statement).fetchone()
    return value


def _count(processes: int) -> str:
    return f"{processes} backend process{'es' if processes != 1 else ''}"
