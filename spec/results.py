"""What one request yields: sets of rows, data of a COPY, and tags, checked against each other and against its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from spec.codec import Instance
from spec.texts import Statement, read
from spec.types import Item

Fault = tuple[str, str]
"""The name of a rule and a sentence that says how it is broken."""

NO_ROWS = -1
"""The width of what yields no rows; None where it is not known."""

COUNTED_TAG = re.compile(rb"(SELECT|FETCH|COPY|UPDATE|DELETE|MERGE|INSERT(?= \d+ \d+$))(?: \d+)? (\d+)")
CHANGE_TAGS = frozenset({b"INSERT", b"UPDATE", b"DELETE", b"MERGE"})

CHANGES = frozenset({b"insert", b"update", b"delete", b"merge", b"execute"})
RETURNING = frozenset({b"returning"})
"""The words of commands that rewrite rules may add sets of rows to, and of those that count their rows themselves."""

DESCRIBED_TAGS = frozenset({b"SELECT", b"FETCH", b"SHOW", b"EXPLAIN"})
"""The tags that no Query yields without a RowDescription before them, unless the rows went into a table."""

ROWS_INTO_A_TABLE = frozenset({b"create", b"into", b"execute"})
"""The words of commands with the tag SELECT that send no rows: CREATE TABLE AS, SELECT INTO, EXECUTE of one of them."""

SINGLE_ROW_TAGS = {b"SHOW": frozenset({b"all"}), b"CALL": frozenset[bytes]()}
"""The tags of commands that send one row, if they send rows, unless their text has one of these words."""

HEADER = frozenset({b"header"})
SURE_HEADER = re.compile(
    rb"\bto\s+stdout\b(?!.*force)[^;]*(?:csv|text|[(,])\s*header\b(?!\s*(?:false|off|0|match|'))", re.DOTALL
)
FOR_THE_FRONTEND = re.compile(rb"\b(from|to)\s+(stdin|stdout)\b")

BINARY_COPY_HEADER = 19  # "PGCOPY\n\377\r\n\0", flags, length of the extension (sql-copy)


@dataclass
class Result:
    """What a request has yielded so far.  `kind` is its name in REPLY, `text` what it runs, None if that is not known.

    `width` is the number of columns in force.  The counts are those of the statement under way.
    """

    kind: str = ""
    text: bytes | None = b""
    limit: int = 0
    width: int | None = None
    sets: int = 0
    rows: int = 0
    copied: int = 0
    copy: Instance | None = None
    completed: int = 0
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.reading = read(self.text or b"")

    @property
    def statement(self) -> Statement:
        """The statement under way; all of the text where statements cannot be told apart for certain."""
        statements = self.reading.statements
        if self._is_sure and self.completed < len(statements):
            return statements[self.completed]
        return self.reading.whole

    @property
    def _is_sure(self) -> bool:
        """Whether it is certain which statement is under way."""
        return self.text is not None and self.reading.is_plain

    def says(self, some: frozenset[bytes]) -> bool:
        """Return whether what runs contains one of these words, or may contain it."""
        return self.text is None or self.statement.has(some)

    @property
    def may_fail(self) -> bool:
        """Whether something is left that could fail: the last statement of a Query is complete when all is.

        A text without statements can fail, too: its bytes may be none of the client's encoding.
        """
        number = max(1, len(self.reading.statements))
        return self.kind != "Query" or not self.reading.is_plain or self.completed < number

    # Rows

    def described(self, width: int) -> Iterator[Fault]:
        """Learn that a set of rows begins."""
        self.width, self.rows, self.sets = width, 0, self.sets + 1
        if self.sets > 1 and self.kind == "Query" and not self.says(CHANGES):
            yield "row-sets", "a second RowDescription for one statement"

    def row(self, width: int) -> Iterator[Fault]:
        """Learn a row."""
        self.rows += 1
        if self.width is None:
            self.width = width
        elif self.width != width:
            yield "row-width", f"a row of {width} values where {columns(self.width)} were described"
        if 0 < self.limit < self.rows:
            yield "row-limit", f"more than {self.limit} rows"

    def suspended(self) -> Iterator[Fault]:
        """Learn that the limit of rows is reached."""
        if not 0 < self.limit == self.rows:
            yield "row-limit", f"suspended after {self.rows} rows, the limit was {self.limit}"

    # COPY

    def copy_began(self, response: Instance) -> Iterator[Fault]:
        """Learn that a COPY begins."""
        self.copy, self.copied = response, 0
        formats = response["column_formats"]
        assert isinstance(formats, tuple)
        if response["format"] == 0 and any(formats):
            yield "copy-columns", "a textual COPY with columns that are not textual"

    @property
    def is_copying_out(self) -> bool:
        """Whether a COPY to the frontend was begun by this statement."""
        return self.copy is not None and self.copy.name == "CopyOutResponse"

    def copy_row(self, data: Item) -> Iterator[Fault]:
        """Learn a row of a COPY; in the binary format it begins with the number of its fields, -1 at the end."""
        self.copied += 1
        copy = self.copy
        assert isinstance(data, bytes)
        if copy is None or copy["format"] != 1 or not self.is_copying_out or self.kind == "ReplicationCommand":
            return
        start = BINARY_COPY_HEADER if self.copied == 1 else 0
        fields = int.from_bytes(data[start : start + 2], "big", signed=True)
        announced = length(copy["column_formats"])
        if fields not in (-1, announced):
            yield "copy-columns", f"a row of {fields} fields where {announced} columns were announced"

    # Ends

    def complete(self, tag: bytes) -> Iterator[Fault]:
        """Learn that a statement is complete."""
        counted = COUNTED_TAG.fullmatch(tag)
        command, number = (counted[1], int(counted[2])) if counted else (tag, None)
        if self.kind == "Query":
            yield from self._check_sets(tag, command)
        # Executed a second time, a portal of these yields none.
        is_single = command in SINGLE_ROW_TAGS and not self.says(SINGLE_ROW_TAGS[command])
        if is_single and (self.rows > 1 or (self.sets and not self.rows)):
            yield "tag-count", f"{shown(tag)} after {self.rows} rows"
        if command == b"COPY" and number is not None:
            yield from self._check_copy(tag, number)
        elif number not in (None, self.rows) and self._must_count(command):
            yield "tag-count", f"{shown(tag)} after {self.rows} rows"
        self.completed += 1
        most = len(self.reading.statements)
        if self.kind == "Query" and self.completed > most:
            yield "statement-count", f"{self.completed} statements where there are {most} at most"
        self.sets, self.rows, self.copied, self.copy = 0, 0, 0, None

    def ended(self) -> Iterator[Fault]:
        """Learn that there is nothing more."""
        missing = len(self.reading.statements) - self.completed
        if self.kind == "Query" and self.reading.is_plain and missing > 0 and not self.has_failed:
            yield "statement-count", f"{missing} of {len(self.reading.statements)} statements are not complete"

    def _check_sets(self, tag: bytes, command: bytes) -> Iterator[Fault]:
        if self.sets > 1 and (command not in CHANGE_TAGS or self._returns()):
            yield "row-sets", f"{self.sets} sets of rows for {shown(tag)}"
        is_described = command in DESCRIBED_TAGS and not self.says(ROWS_INTO_A_TABLE)
        if not self.sets and (is_described or (command in CHANGE_TAGS and self._returns())):
            yield "row-sets", f"{shown(tag)} without a RowDescription"

    def _returns(self) -> bool:
        """Return whether the statement under way has RETURNING, for certain, so that its rows are counted."""
        return self._is_sure and self.statement.has_outside(RETURNING)

    def _must_count(self, command: bytes) -> bool:
        """Return whether the number in a tag is bound to be the number of rows."""
        if self.kind == "Execute":
            if self.rows or command == b"FETCH":
                return True
            if self.width is None:
                return self._returns() or (command == b"SELECT" and not self.says(ROWS_INTO_A_TABLE))
            return self.width != NO_ROWS
        return self.sets > 0 and (command not in CHANGE_TAGS or self._returns())

    def _check_copy(self, tag: bytes, number: int) -> Iterator[Fault]:
        if self.copy is None and self._is_sure and FOR_THE_FRONTEND.search(self.statement.outside):
            yield "copy-in", f"{shown(tag)} without a response that begins the COPY"
        if self.copy is None or not self.is_copying_out:
            return
        expected = {number}
        if self.copy["format"] == 1:
            expected = {number + 1}
        elif self.says(HEADER):
            is_sure = self.reading.is_plain and SURE_HEADER.search(self.statement.text)
            expected = {number + 1} if is_sure else {number, number + 1}
        if self.copied not in expected:
            yield "tag-count", f"{shown(tag)} after {self.copied} messages of data"


def length(item: Item) -> int:
    """Return how many items an array holds."""
    assert isinstance(item, tuple)
    return len(item)


def columns(width: int | None) -> str:
    """Return a width for people."""
    return "no rows" if width == NO_ROWS else f"{width} columns"


def shown(text: bytes) -> str:
    """Return a tag or status for people."""
    return text.decode("ascii", "replace")
