"""What a script of the differential suite is made of: data only.

A script is a list of steps on one or more client connections.  A text is a step that sends it as a Query; everything
else is a `Say`, in the frontend's messages as `spec.conformance.requests` builds them, or an `Open`.  A connection
begins with its first step, by a usual login unless that step is an `Open`.  Nothing is said about the answers: the
right ones are those of PostgreSQL itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spec.codec import Instance
from spec.conformance.requests import COPY_DONE, SYNC, Bytes, Request, bind, copy_data, describe_portal, execute, query
from spec.conformance.scripts import FIRST, Open

SECOND = "second"
READY = "ReadyForQuery"
NOTHING = ""
"""In place of the message that ends an answer: none is waited for."""

ANSWERED_BY_READY = ("Query", "Sync", "FunctionCall")


@dataclass(frozen=True)
class Say:
    """Sends requests in one go and hears everything up to a message called `until` for the `times`-th time.

    An ErrorResponse ends the answer too where something other than ReadyForQuery is waited for.
    """

    requests: tuple[Request, ...]
    until: str = READY
    times: int = 1
    on: str = FIRST


Step = Open | Say


@dataclass(frozen=True)
class Deviation:
    """The first message that is another than PostgreSQL's, where that is so by design: as `words.shown` puts both.

    If an ErrorResponse only lacks fields that PostgreSQL's has, their codes stand behind it: `ErrorResponse 22012
    without FLR`.
    """

    reason: str
    direct: str
    heard: str


@dataclass(frozen=True)
class Script:
    """One conversation.

    `table` are the columns of a table called `play` that is there for this script alone.  `deviations` are the pool
    modes in which PgPooler deviates by design.
    """

    name: str
    steps: tuple[Step, ...]
    table: str = ""
    deviations: Mapping[str, Deviation] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def clients(self) -> frozenset[str]:
        """The names of its connections."""
        return frozenset(step.on for step in self.steps)


def script(
    name: str,
    *steps: str | Step,
    table: str = "",
    session: Deviation | None = None,
    transaction: Deviation | None = None,
    statement: Deviation | None = None,
) -> Script:
    """Return a script; what a pool mode does otherwise by design is said for each."""
    declared = {"session": session, "transaction": transaction, "statement": statement}
    deviations = {mode: deviation for mode, deviation in declared.items() if deviation is not None}
    return Script(name, tuple(say(step) if isinstance(step, str) else step for step in steps), table, deviations)


def say(*requests: str | Request, on: str = FIRST, until: str = READY, times: int | None = None) -> Say:
    """Return a step; without more words it ends when all that ReadyForQuery answers is answered."""
    sent = tuple(query(request) if isinstance(request, str) else request for request in requests)
    owed = sum(isinstance(request, Instance) and request.name in ANSWERED_BY_READY for request in sent)
    return Say(sent, until, times if times is not None else owed if until == READY else 1, on)


def series(*requests: Request, on: str = FIRST) -> Say:
    """Return a step of extended messages that a Sync ends."""
    return say(*requests, SYNC, on=on)


def copy_in(text: str, *data: Bytes, on: str = FIRST, end: Request = COPY_DONE) -> Say:
    """Return a COPY FROM STDIN whose data is sent before it is asked for: where there is no COPY it is lost."""
    return say(text, *map(copy_data, data), end, on=on)


def hear(until: str, *, on: str = FIRST, times: int = 1) -> Say:
    """Return a step that says nothing and hears what comes unasked."""
    return Say((), until, times, on)


def log_in(*, on: str = FIRST, minor: int = 0, **parameters: str) -> Open:
    """Return the beginning of a session with parameters of its own."""
    return Open(on, parameters=tuple(parameters.items()), minor=minor)


SUM = "SELECT $1::int + $2::int AS sum"


def use(name: str, *values: str | None, result_formats: tuple[int, ...] = ()) -> tuple[Instance, ...]:
    """Return Bind, Describe of the portal and Execute of a prepared statement."""
    return bind(*values, statement=name, result_formats=result_formats), describe_portal(), execute()


def no_blocks(direct: str = "CommandComplete BEGIN") -> Deviation:
    """Return how statement mode deviates where a transaction block would begin, which the server answers so."""
    return Deviation(
        "statement mode refuses transaction blocks: nothing of one is kept", direct, heard="ErrorResponse 0A000"
    )


NO_BLOCKS = no_blocks()
NO_FAILED_BLOCKS = Deviation(
    "statement mode refuses transaction blocks: one that fails within a Query is rolled back with it",
    direct="ReadyForQuery E",
    heard="ReadyForQuery I",
)
