"""What a script is made of: data only.

A script is a short list of steps on named connections.  A connection begins with its first step, by a usual login
unless that step is an `Open`.  Beyond what the grammar allows, which is judged always, a step may say what its answer
must be: messages as `words.shown` puts them, in their order, each with its gist or by its name alone; ` or ` stands
between several possible gists.  Messages that may come at any time, and those of the login, count only in an answer
that names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spec.conformance.requests import Request
from spec.conformance.words import shortened, shown

MANUAL = "https://www.postgresql.org/docs/current/"

Answer = tuple[str, ...]
"""Messages in their order."""

FIRST = "first"

READY = "ReadyForQuery I"
IN_BLOCK = "ReadyForQuery T"
IN_FAILED_BLOCK = "ReadyForQuery E"
LOGGED_IN: Answer = (READY,)


@dataclass(frozen=True)
class Open:
    """Begins a connection and a session on it; without user, password or database, the target's are used.

    `encryption` are the requests for encryption to be made first.  `packet` is sent in place of a StartupMessage.
    With `is_unproven` the request for a proof is not answered.  `reports` are parameters whose value must be reported.
    """

    on: str = FIRST
    answers: tuple[Answer, ...] = (LOGGED_IN,)
    parameters: tuple[tuple[str, str], ...] = ()
    minor: int = 0
    user: str = ""
    password: str = ""
    database: str = ""
    encryption: tuple[str, ...] = ()
    packet: Request | None = None
    is_unproven: bool = False
    reports: tuple[str, ...] = ()
    is_given: bool = True

    def __str__(self) -> str:
        words = [f"{name} {value!r}" for name, value in self.parameters]
        words += [f"user {self.user!r}"] if self.user else []
        words += ["another password"] if self.password else []
        words += [f"database {self.database!r}"] if self.database else []
        words += [f"protocol 3.{self.minor}"] if self.minor else []
        words += [f"after {name}" for name in self.encryption]
        words += ["no answer to the request for a proof"] if self.is_unproven else []
        if self.packet is not None:
            return f"connect and send {shown(self.packet)}"
        return "log in" + (f" with {', '.join(words)}" if words else "")


@dataclass(frozen=True)
class Ask:
    """Sends requests in one go (or in pieces of some bytes) and hears the answer; one of `answers` is right.

    With `is_given` later steps rest on this one, so that a script without it would mean something else.
    """

    requests: tuple[Request, ...]
    answers: tuple[Answer, ...]
    on: str = FIRST
    pieces: int = 0
    is_given: bool = False

    def __str__(self) -> str:
        return shortened("; ".join(map(shown, self.requests))) or "wait"


@dataclass(frozen=True)
class Leave:
    """Closes a connection from our side without Terminate, at TCP's level with a reset if `is_reset`."""

    on: str = FIRST
    is_reset: bool = False
    is_given: bool = True

    def __str__(self) -> str:
        return "close the connection" + (" with a reset" if self.is_reset else "") + " without Terminate"


@dataclass(frozen=True)
class Cancel:
    """Sends a CancelRequest for the session on `on` over a connection of its own, which must be closed unanswered.

    `spoil` says what is done to the key: nothing, `other` bytes, one byte `short`, one byte `long`.
    """

    on: str = FIRST
    spoil: str = ""
    is_given: bool = True

    def __str__(self) -> str:
        return "send a CancelRequest" + (f" with a wrong key ({self.spoil})" if self.spoil else "")


Step = Open | Ask | Leave | Cancel


@dataclass(frozen=True)
class Script:
    """One thing that a server does, and its place in the manual.

    `table` are the columns of a table called NAME that is there for this script alone.  `needs` are names of features
    without which the script says nothing.  With `is_own` a pooler may speak for itself, so that its answers are not
    compared with a direct server's.
    """

    name: str
    anchor: str
    steps: tuple[Step, ...]
    table: str = ""
    needs: tuple[str, ...] = ()
    is_own: bool = False


@dataclass(frozen=True)
class Theme:
    """Scripts about one part of the protocol.

    With `leaves_state` they leave something in their sessions, which is cleared away behind them: where a pooler does
    not do so, the next script is not to suffer.
    """

    name: str
    summary: str
    scripts: tuple[Script, ...]
    leaves_state: bool = False


def ask(*requests: Request, answer: Sequence[str] = LOGGED_IN, on: str = FIRST, pieces: int = 0) -> Ask:
    """Return a step on which no later one rests."""
    return Ask(requests, (tuple(answer),), on, pieces)


def given(*requests: Request, answer: Sequence[str] = LOGGED_IN, on: str = FIRST, pieces: int = 0) -> Ask:
    """Return a step on which later ones rest."""
    return Ask(requests, (tuple(answer),), on, pieces, is_given=True)


def either(*requests: Request, answers: Sequence[Sequence[str]], on: str = FIRST) -> Ask:
    """Return a step that has several right answers."""
    return Ask(requests, tuple(tuple(answer) for answer in answers), on)


def done(tag: str) -> Answer:
    """Return the answer to a statement without rows that is alone in a Query."""
    return (f"CommandComplete {tag}", READY)


def rows(*values: str, tag: str = "") -> Answer:
    """Return the answer to a statement with rows, without the ReadyForQuery behind it."""
    return (
        "RowDescription",
        *(f"DataRow {value}" for value in values),
        f"CommandComplete {tag or f'SELECT {len(values)}'}",
    )


def ran(*values: str, tag: str = "") -> Answer:
    """Return the answer to Parse, Bind and Execute of a statement."""
    words = tag or f"SELECT {len(values)}"
    return ("ParseComplete", "BindComplete", *(f"DataRow {value}" for value in values), f"CommandComplete {words}")


def error(*codes: str) -> str:
    """Return an ErrorResponse with one of these SQLSTATEs."""
    return f"ErrorResponse {' or '.join(codes)}"


def is_right(answer: Answer, heard: Sequence[str]) -> bool:
    """Whether what was heard is this answer."""
    return len(answer) == len(heard) and all(map(fits, answer, heard))


def fits(wanted: str, said: str) -> bool:
    """Whether one message is the one wanted."""
    name, _, gists = wanted.partition(" ")
    said_name, _, said_gist = said.partition(" ")
    return name == said_name and (not gists or said_gist in gists.split(" or "))
