"""The trace format: what passed on any number of connections, as JSON lines.

The first line says which format this is and what was recorded; every other line is one event of one connection, in the
order in which the events were seen at one point:

    {"trace": 1, "target": "127.0.0.1:5432"}
    {"connection": 1, "at": 0.001, "from": "F", "bytes": "0000000804d2162f"}
    {"connection": 1, "at": 0.002, "from": "B", "bytes": "4e"}
    {"connection": 1, "at": 0.003, "ended": "F"}

`connection` counts from 1, `at` is in seconds since the recording began, `F` is the frontend (the client) and `B` the
backend (the server).  `bytes` are hexadecimal, cut where they happened to arrive: an event is not a message.  A side
that has `ended` says nothing more on that connection, whether it closed its direction, the connection, or reset it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO

from spec.messages import Sender

FORMAT = 1
MOST_SECONDS = 1e12  # beyond it an `at` is a mistake
HEADER_KEYS = frozenset({"trace", "target"})
SAID_KEYS = frozenset({"connection", "at", "from", "bytes"})
ENDED_KEYS = frozenset({"connection", "at", "ended"})
SENDERS = {sender.value: sender for sender in Sender}


class BadTrace(Exception):
    """This is no trace: what is wrong, in which line of which file."""

    def __init__(self, what: str, line: int, name: str = "") -> None:
        super().__init__(f"{name}:{line}: {what}" if name else f"line {line}: {what}")
        self.what = what
        self.line = line


@dataclass(frozen=True)
class Event:
    """Bytes of one side of one connection; no bytes mean that this side has ended.

    `line` is where it stands in the trace it was read from.
    """

    connection: int
    at: float
    sender: Sender
    data: bytes = b""
    line: int = field(default=0, compare=False)

    @property
    def is_end(self) -> bool:
        """Whether this side has ended."""
        return not self.data


# --- writing


class Writer:
    """Writes a trace to an open text file, the header at once."""

    def __init__(self, file: TextIO, target: str = "") -> None:
        self._file = file
        self._write({"trace": FORMAT, "target": target})

    def write(self, event: Event) -> None:
        """Append one event."""
        line: dict[str, Any] = {"connection": event.connection, "at": round(event.at, 6)}
        if event.is_end:
            line["ended"] = event.sender.value
        else:
            line["from"] = event.sender.value
            line["bytes"] = event.data.hex()
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


# --- reading


def read(path: str | Path) -> Iterator[Event]:
    """Yield the events of a trace file; raise BadTrace at the first line that is none, OSError if it cannot be read."""
    with Path(path).open(encoding="utf-8", errors="backslashreplace") as file:
        yield from parse(file, str(path))


def target_of(path: str | Path) -> str:
    """Return what a trace file is a recording of; raise BadTrace if it does not begin as a trace does."""
    with Path(path).open(encoding="utf-8", errors="backslashreplace") as file:
        return Lines(file, str(path)).target


def parse(lines: Iterable[str], name: str = "") -> Iterator[Event]:
    """Yield the events of the lines of a trace, whose file is called `name`; raise BadTrace at the first bad one."""
    return Lines(lines, name).events()


class Lines:
    """The lines of one trace as they are read: the number of the last one, and which sides have ended."""

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._lines = iter(lines)
        self._name = name
        self._number = 0
        self._ended: set[tuple[int, Sender]] = set()
        self.target = self._header()

    def _header(self) -> str:
        first = self._next()
        if first is None:
            self._number = 1
            self._fail('nothing is there; a trace begins with {"trace": 1, "target": "host:port"}')
        if "trace" not in first:
            self._fail('a trace begins with {"trace": 1, "target": "host:port"}')
        self._check_keys(first, HEADER_KEYS)
        if first["trace"] != FORMAT or isinstance(first["trace"], bool):
            self._fail(f"this is format {first['trace']!r}; only format {FORMAT} is known")
        target = first["target"]
        if not isinstance(target, str):
            self._fail(f"target is a text, not {target!r}")
        return target

    def events(self) -> Iterator[Event]:
        """Yield the event of every line behind the header."""
        while (line := self._next()) is not None:
            yield self._event(line)

    def _next(self) -> dict[str, Any] | None:
        """Return the next line's JSON object, None behind the last one; empty lines are passed over."""
        for text in self._lines:
            self._number += 1
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                self._fail(f"this is no JSON: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                self._fail(f"this is no event: {error}")
            if not isinstance(line, dict):
                self._fail("a line is one JSON object")
            return line
        return None

    def _event(self, line: dict[str, Any]) -> Event:
        self._check_keys(line, ENDED_KEYS if "ended" in line else SAID_KEYS)
        connection, at = line["connection"], line["at"]
        if not isinstance(connection, int) or isinstance(connection, bool) or connection < 1:
            self._fail(f"connection is a whole number from 1, not {connection!r}")
        if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at <= MOST_SECONDS:
            self._fail(f"at is a number of seconds, not {at!r}")
        letter = line["ended"] if "ended" in line else line["from"]
        sender = SENDERS.get(letter) if isinstance(letter, str) else None
        if sender is None:
            self._fail(f"a side is F (frontend) or B (backend), not {letter!r}")
        data = b"" if "ended" in line else self._bytes(line["bytes"])
        if (connection, sender) in self._ended:
            self._fail(f"the {sender.name.lower()} of connection {connection} has ended before")
        if not data:
            self._ended.add((connection, sender))
        return Event(connection, float(at), sender, data, self._number)

    def _bytes(self, text: object) -> bytes:
        if not isinstance(text, str):
            self._fail(f"bytes are a text of hexadecimal digits, not {text!r}")
        try:
            data = bytes.fromhex(text)
        except ValueError:
            self._fail("bytes are an even number of hexadecimal digits")
        if not data:
            self._fail('bytes are never empty; a side that closes is written as "ended"')
        return data

    def _check_keys(self, line: dict[str, Any], wanted: frozenset[str]) -> None:
        missing, unknown = sorted(wanted - line.keys()), sorted(line.keys() - wanted)
        if missing:
            self._fail(f"the key {missing[0]!r} is missing")
        if unknown:
            self._fail(f"the key {unknown[0]!r} is unknown here")

    def _fail(self, what: str) -> NoReturn:
        raise BadTrace(what, self._number, self._name)
