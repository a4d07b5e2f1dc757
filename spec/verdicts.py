"""The verdict on every connection of a recording, be it going on (`record`) or read from a trace (`judge`)."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

from spec.judge import ConnectionJudge
from spec.messages import Sender
from spec.session import Violation
from spec.trace import Event

CONFORMS, DEVIATES, COULD_NOT_RUN = 0, 1, 2
"""The exit statuses of every command that judges."""

COLUMNS = ("connection", "seconds", "bytes of client", "bytes of server", "violations", "verdict")
NUMBERS = 5  # columns that are aligned to the right
WIDTH = 100  # of what may be wrapped


class Verdict(enum.Enum):
    """What can be said of one connection."""

    CONFORMS = "conforms"
    VIOLATES = "violates"
    ENCRYPTED = "encrypted"  # nothing could be heard after that was agreed on


@dataclass(frozen=True)
class Found:
    """A violation and the event at which it became certain."""

    event: Event
    violation: Violation

    def lines(self) -> list[str]:
        """Say it to people: where, what happened, which rule of which section it breaks, what was legal."""
        event, violation = self.event, self.violation
        place = f"line {event.line}, " if event.line else ""
        what = violation.said or ("the end" if event.is_end else "bytes that are no message")
        legal = ", ".join(sorted(violation.legal)) or "nothing"
        return [
            f"{place}connection {event.connection}, {event.at:.6f} s: {violation.message}",
            f"    rule   {violation.rule.name} ({violation.rule.anchor})",
            *wrapped("", violation.rule.text),
            f"    said   {what}, by the {violation.sender.name.lower()}",
            *wrapped("legal", legal),
        ]


def wrapped(word: str, text: str) -> list[str]:
    """Return a text behind a word, in lines that are not too long."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"    {word:7}", subsequent_indent=" " * 11)


@dataclass
class Connection:
    """One connection so far."""

    judge: ConnectionJudge = field(default_factory=ConnectionJudge)
    begun: float = 0.0
    seen: float = 0.0
    said: dict[Sender, int] = field(default_factory=lambda: dict.fromkeys(Sender, 0))
    violations: int = 0
    encrypted_by: Event | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict so far."""
        if self.violations:
            return Verdict.VIOLATES
        return Verdict.ENCRYPTED if self.is_encrypted else Verdict.CONFORMS

    @property
    def is_encrypted(self) -> bool:
        """Whether nothing more can be understood."""
        is_opaque = self.judge.is_opaque and not self.violations
        return is_opaque or self.judge.listener.is_encrypted


class Verdicts:
    """Hears the events of many connections and judges each by itself."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}

    def hear(self, event: Event) -> list[Found]:
        """Take one event; return the violations it makes certain."""
        if event.connection not in self.connections:
            self.connections[event.connection] = Connection(begun=event.at)
        connection = self.connections[event.connection]
        connection.seen = event.at
        connection.said[event.sender] += len(event.data)
        judge = connection.judge
        violations = judge.ended(event.sender) if event.is_end else judge.hear(event.sender, event.data)
        connection.violations += len(violations)
        if connection.encrypted_by is None and connection.is_encrypted:
            connection.encrypted_by = event
        return [Found(event, violation) for violation in violations]

    def has_become_encrypted(self, event: Event) -> bool:
        """Whether nothing more can be understood on this event's connection because of just this event."""
        return self.connections[event.connection].encrypted_by is event

    @property
    def status(self) -> int:
        """The exit status: what could not be judged at all does not conform."""
        verdicts = {connection.verdict for connection in self.connections.values()}
        if Verdict.VIOLATES in verdicts:
            return DEVIATES
        return CONFORMS if Verdict.CONFORMS in verdicts else COULD_NOT_RUN

    def table(self) -> list[str]:
        """Return one line per connection under a line of headings, aligned, and one that sums up."""
        rows = [COLUMNS]
        for number, connection in sorted(self.connections.items()):
            rows.append(
                (
                    str(number),
                    f"{connection.seen - connection.begun:.3f}",
                    str(connection.said[Sender.FRONTEND]),
                    str(connection.said[Sender.BACKEND]),
                    str(connection.violations),
                    connection.verdict.value,
                )
            )
        return [*aligned(rows), self._sum()]

    def _sum(self) -> str:
        if not self.connections:
            return "No connection, so nothing was judged."
        verdicts = [connection.verdict for connection in self.connections.values()]
        counts = [f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict if verdict in verdicts]
        return f"Connections: {', '.join(counts)}."


def aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows of cells as lines whose columns line up."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = [
            cell.rjust(width) if place < NUMBERS else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
