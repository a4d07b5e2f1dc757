"""What the contents of replies must be, given what was asked and answered before: rows, tags, status, parameters.

`Facts` is what one reading of a conversation knows beside its grammar.  It is told every request when its turn comes
and every reply that the grammar allows, and returns what is wrong with the latter.  Where the trace does not tell, as
with a statement prepared in SQL, nothing is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from spec.codec import Instance
from spec.types import Item

Fault = tuple[str, str]
"""The name of a rule and a sentence that says how it is broken."""

NO_ROWS = -1
"""The width of what yields no rows; None where it is not known."""

CHANGE_TAGS = frozenset({b"INSERT", b"UPDATE", b"DELETE", b"MERGE"})
COUNTED_TAG = re.compile(rb"(SELECT|FETCH|COPY|UPDATE|DELETE|MERGE|INSERT(?= \d+ \d+$))(?: \d+)? (\d+)")

STATUS_AFTER = {
    b"BEGIN": b"T",
    b"START TRANSACTION": b"T",
    b"COMMIT": b"I",
    b"PREPARE TRANSACTION": b"I",
    b"ROLLBACK": b"I",
}
"""The transaction status that a command leaves, by its tag; others do not change it."""

STAYS_INSIDE = {b"COMMIT": frozenset({b"chain"}), b"ROLLBACK": frozenset({b"chain", b"to"})}
"""The words that, by tag, make a command leave a transaction block open: COMMIT AND CHAIN, ROLLBACK TO SAVEPOINT."""

ENDS_BLOCK = frozenset({b"commit", b"end", b"prepare"})
"""The words of commands that, when they fail, leave no transaction block behind."""

DESCRIBED_TAGS = frozenset({b"SELECT", b"FETCH", b"SHOW", b"EXPLAIN"})
"""The tags that no Query yields without a RowDescription before them, unless the rows went into a table."""

ROWS_INTO_A_TABLE = frozenset({b"create", b"into", b"execute"})
"""The words of commands with the tag SELECT that send no rows: CREATE TABLE AS, SELECT INTO, EXECUTE of one of them."""

FORGET_STATEMENTS = (b"PREPARE", b"DEALLOCATE", b"DEALLOCATE ALL", b"DISCARD ALL")
FORGET_PORTALS = (b"DECLARE CURSOR", b"CLOSE CURSOR", b"CLOSE CURSOR ALL", b"DISCARD ALL")
"""The tags of SQL commands that change prepared statements and portals behind the protocol's back."""

BINARY_COPY_HEADER = 19  # "PGCOPY\n\377\r\n\0", flags, length of the extension (sql-copy)


@dataclass(frozen=True)
class Request:
    """One request of the frontend: its name in REPLY, and the message."""

    kind: str
    instance: Instance

    def count(self, name: str) -> int:
        """Return how many items an array of the message has."""
        return length(self.instance[name])

    def text(self, name: str) -> bytes:
        """Return a field that is a text."""
        item = self.instance[name]
        assert isinstance(item, bytes)
        return item

    @property
    def limit(self) -> int:
        """The number of rows an Execute asks for; no limit if it is not positive."""
        item = self.instance.fields.get("limit")
        return item if isinstance(item, int) else 0


@dataclass(frozen=True)
class Prepared:
    """A prepared statement: its text, and what descriptions of it said."""

    text: bytes
    parameters: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Portal:
    """A portal: what it was made of, and what a description or its rows said."""

    prepared: Prepared | None
    width: int | None = None


@dataclass
class Facts:
    """What is known at one place of a conversation."""

    statements: dict[bytes, Prepared] = field(default_factory=dict)
    portals: dict[bytes, Portal] = field(default_factory=dict)
    statuses: frozenset[bytes] = frozenset((b"I",))
    status: bytes = b"I"
    width: int | None = None
    sets: int = 0
    rows: int = 0
    copied: int = 0
    copy: Instance | None = None

    def copied_facts(self) -> Facts:
        """Return the same facts, to go on independently."""
        return replace(self, statements=dict(self.statements), portals=dict(self.portals))

    # Requests

    def begin(self, request: Request) -> None:
        """Learn that it is the turn of this request."""
        self._next_statement()
        match request.kind:
            case "Query" | "ReplicationCommand":
                self.statements.pop(b"", None)
                self.portals.pop(b"", None)
            case "Parse" if not request.text("statement"):
                self.statements.pop(b"", None)
            case "Bind":
                self.portals.pop(request.text("portal"), None)
            case "Execute":
                portal = self.portals.get(request.text("portal"))
                self.width = self._width(portal)

    def _next_statement(self) -> None:
        self.width, self.sets, self.rows, self.copied, self.copy = None, 0, 0, 0, None

    def _width(self, portal: Portal | None) -> int | None:
        if portal is None or portal.width is not None or portal.prepared is None:
            return portal.width if portal else None
        return portal.prepared.width

    def sql(self, request: Request) -> bytes | None:
        """Return the text that a request runs, None if it is not known, empty if it runs none."""
        match request.kind:
            case "Query" | "ReplicationCommand":
                return request.text("query")
            case "Execute":
                portal = self.portals.get(request.text("portal"))
                return portal.prepared.text if portal and portal.prepared else None
        return b""

    def says(self, request: Request, some: frozenset[bytes]) -> bool:
        """Return whether what a request runs contains one of these words, or may contain it."""
        text = self.sql(request)
        return text is None or not some.isdisjoint(words(text))

    # Replies

    def failed(self, request: Request) -> None:
        """Learn that the request was answered with an error."""
        after = {b"E" if status == b"T" else status for status in self.statuses}
        if b"T" in self.statuses and self.says(request, ENDS_BLOCK):
            after.add(b"I")
        self.statuses = frozenset(after)

    def answered(self, request: Request, reply: Instance) -> Iterator[Fault]:
        """Learn a reply that the grammar allows, and yield what is wrong with it."""
        match reply.name:
            case "RowDescription":
                yield from self._described(request, length(reply["columns"]))
            case "NoData":
                yield from self._described(request, NO_ROWS)
            case "ParameterDescription":
                self._describe_statement(request, parameters=length(reply["types"]))
            case "DataRow":
                yield from self._row(request, length(reply["values"]))
            case "ParseComplete":
                self.statements[request.text("statement")] = Prepared(request.text("query"))
            case "BindComplete":
                yield from self._bound(request)
            case "CloseComplete":
                self._closed(request)
            case "PortalSuspended":
                if not 0 < request.limit == self.rows:
                    yield "row-limit", f"suspended after {self.rows} rows, the limit was {request.limit}"
            case "CopyInResponse" | "CopyOutResponse" | "CopyBothResponse":
                self.copy, self.copied = reply, 0
                yield from copy_formats(reply)
            case "CopyData":
                yield from self._copy_row(reply["data"])
                self.copied += 1
            case "CommandComplete":
                tag = reply["tag"]
                assert isinstance(tag, bytes)
                yield from self._counted(request, tag)
                self._completed(request, tag)
                self._next_statement()
            case "ReadyForQuery":
                yield from self._ready(reply["status"])

    def _described(self, request: Request, width: int) -> Iterator[Fault]:
        if request.kind == "DescribeStatement":
            self._describe_statement(request, width=width)
        elif request.kind == "DescribePortal":
            portal = self.portals.get(request.text("target"), Portal(None))
            known = self._width(portal)
            if known not in (None, width):
                yield "row-width", f"the portal yields {columns(width)}, its statement {columns(known)}"
            self.portals[request.text("target")] = replace(portal, width=width)
        else:
            self.width, self.rows, self.sets = width, 0, self.sets + 1

    def _describe_statement(self, request: Request, **what: int) -> None:
        name = request.text("target")
        if name in self.statements:
            prepared = self.statements[name]
            self.statements[name] = replace(
                prepared,
                parameters=what.get("parameters", prepared.parameters),
                width=what.get("width", prepared.width),
            )

    def _row(self, request: Request, width: int) -> Iterator[Fault]:
        self.rows += 1
        if self.width is None:
            self.width = width
        elif self.width != width:
            yield "row-width", f"a row of {width} values where {columns(self.width)} were described"
        if 0 < request.limit < self.rows:
            yield "row-limit", f"more than {request.limit} rows"

    def _bound(self, request: Request) -> Iterator[Fault]:
        prepared = self.statements.get(request.text("statement"))
        given, codes = request.count("values"), request.count("formats")
        if prepared and prepared.parameters not in (None, given):
            yield "parameter-count", f"{given} values were bound to {prepared.parameters} parameters"
        elif codes not in (0, 1, given):
            yield "parameter-count", f"{codes} format codes were taken for {given} values"
        self.portals[request.text("portal")] = Portal(prepared)

    def _closed(self, request: Request) -> None:
        if request.instance["kind"] == b"P":
            self.portals.pop(request.text("target"), None)
            return
        closed = self.statements.pop(request.text("target"), None)
        if closed is not None:
            self.portals = {name: portal for name, portal in self.portals.items() if portal.prepared is not closed}

    def _copy_row(self, data: Item) -> Iterator[Fault]:
        """A row of a binary COPY to the frontend begins with the number of its fields, -1 at the end."""
        copy = self.copy
        assert isinstance(data, bytes)
        if copy is None or copy.name != "CopyOutResponse" or copy["format"] != 1:
            return
        start = BINARY_COPY_HEADER if self.copied == 0 else 0
        fields = int.from_bytes(data[start : start + 2], "big", signed=True)
        announced = length(copy["column_formats"])
        if fields not in (-1, announced):
            yield "copy-columns", f"a row of {fields} fields where {announced} columns were announced"

    def _counted(self, request: Request, tag: bytes) -> Iterator[Fault]:
        counted = COUNTED_TAG.fullmatch(tag)
        command, number = (counted[1], int(counted[2])) if counted else (tag, None)
        if request.kind == "Query":
            yield from self._sets_counted(request, tag, command)
        if number is None:
            return
        if command == b"COPY":
            yield from self._copies_counted(request, tag, number)
        elif number != self.rows and self._must_match(request, command, number):
            yield "tag-count", f"{shown(tag)} after {self.rows} rows"

    def _sets_counted(self, request: Request, tag: bytes, command: bytes) -> Iterator[Fault]:
        rewritten = command in CHANGE_TAGS and not self._returns(request)
        if self.sets > 1 and not rewritten:
            yield "row-sets", f"{self.sets} sets of rows for {shown(tag)}"
        if not self.sets and command in DESCRIBED_TAGS and not self.says(request, ROWS_INTO_A_TABLE):
            yield "row-sets", f"{shown(tag)} without a RowDescription"

    def _returns(self, request: Request) -> bool:
        """Return whether a Query is a single statement with RETURNING, so that its rows are counted."""
        text = self.sql(request) or b""
        return b";" not in text.rstrip(b"; \t\r\n") and b"returning" in words(text)

    def _must_match(self, request: Request, command: bytes, number: int) -> bool:
        """Return whether the number in a tag is bound to be the number of rows."""
        if request.kind == "Execute":
            if self.rows or command == b"FETCH":
                return True
            return self.width not in (None, NO_ROWS) or (
                self.width is None and command == b"SELECT" and not self.says(request, ROWS_INTO_A_TABLE)
            )
        return self.sets > 0 and (command not in CHANGE_TAGS or self._returns(request))

    def _copies_counted(self, request: Request, tag: bytes, number: int) -> Iterator[Fault]:
        copy = self.copy
        if copy is None or copy.name != "CopyOutResponse":
            return
        binary = copy["format"] == 1
        may_have_header = not binary and self.says(request, frozenset((b"header",)))
        if self.copied != number + binary and not (may_have_header and self.copied == number + 1):
            yield "tag-count", f"{shown(tag)} after {self.copied} messages of data"

    def _completed(self, request: Request, tag: bytes) -> None:
        if tag in STATUS_AFTER:
            stays = self.statuses != {b"I"} and self.says(request, STAYS_INSIDE.get(tag, frozenset(())))
            self.statuses = frozenset((STATUS_AFTER[tag], b"T") if stays else (STATUS_AFTER[tag],))
        if tag in FORGET_STATEMENTS:
            self.statements.clear()
        if tag in FORGET_PORTALS:
            self.portals.clear()

    def _ready(self, status: Item) -> Iterator[Fault]:
        assert isinstance(status, bytes)
        if status not in self.statuses:
            expected = " or ".join(sorted(shown(one) for one in self.statuses))
            yield "transaction-status", f"status {shown(status)} where it must be {expected}"
        self.status, self.statuses = status, frozenset((status,))
        if status == b"I":
            self.portals.clear()


def copy_formats(response: Instance) -> Iterator[Fault]:
    """Yield what is wrong with the beginning of a COPY."""
    formats = response["column_formats"]
    assert isinstance(formats, tuple)
    if response["format"] == 0 and any(formats):
        yield "copy-columns", "a textual COPY with columns that are not textual"


def length(item: Item) -> int:
    """Return how many items an array holds."""
    assert isinstance(item, tuple)
    return len(item)


def words(text: bytes) -> frozenset[bytes]:
    """Return the words of an SQL text in small letters, wherever they stand."""
    return frozenset(re.findall(rb"[a-z_]+", text.lower()))


def columns(width: int | None) -> str:
    """Return a width for people."""
    return "no rows" if width == NO_ROWS else f"{width} columns"


def shown(text: bytes) -> str:
    """Return a tag or status for people."""
    return text.decode("ascii", "replace")
