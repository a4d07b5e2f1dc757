"""What the contents of replies must be, given what was asked and answered before: statements, portals, status, rows.

`Facts` is what one reading of a conversation knows beside its grammar.  It is told every request when its turn comes
and every reply that the grammar allows, and returns what is wrong with the latter.  Where the trace does not tell, as
with a statement prepared in SQL, nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from spec.codec import Instance
from spec.results import NO_ROWS, Fault, Result, columns, length, shown
from spec.types import Item

STATUS_AFTER = {
    b"BEGIN": b"T",
    b"START TRANSACTION": b"T",
    b"COMMIT": b"I",
    b"PREPARE TRANSACTION": b"I",
    b"ROLLBACK": b"I",
}
"""The transaction status that a command leaves, by its tag; others do not change it."""

NAMED_BY = {
    b"BEGIN": frozenset({b"begin"}),
    b"START TRANSACTION": frozenset({b"start"}),
    b"COMMIT": frozenset({b"commit", b"end"}),
    b"PREPARE TRANSACTION": frozenset({b"prepare"}),
    b"ROLLBACK": frozenset({b"rollback", b"abort", b"commit", b"end", b"prepare"}),
}
"""The words that, by tag, one of must be in the command: in a failed transaction COMMIT says ROLLBACK."""

STAYS_INSIDE = {b"COMMIT": frozenset({b"chain"}), b"ROLLBACK": frozenset({b"chain", b"to"})}
"""The words that, by tag, make a command leave a transaction block open: COMMIT AND CHAIN, ROLLBACK TO SAVEPOINT."""

ENDS_BLOCK = frozenset({b"commit", b"end", b"prepare"})
"""The words of commands that, when they fail, leave no transaction block behind."""

FORGET_STATEMENTS = frozenset({b"PREPARE", b"DEALLOCATE", b"DEALLOCATE ALL", b"DISCARD ALL"})
FORGET_PORTALS = frozenset({b"DECLARE CURSOR", b"CLOSE CURSOR", b"CLOSE CURSOR ALL", b"DISCARD ALL"})
"""The tags of SQL commands that change prepared statements and portals behind the protocol's back."""


@dataclass(frozen=True)
class Request:
    """One request of the frontend: its name in REPLY, and the message."""

    kind: str
    instance: Instance

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
    """A prepared statement: its text, the types given for its parameters, and what descriptions of it said."""

    text: bytes
    types: Item = ()
    parameters: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Portal:
    """A portal: what it was made of, and what a description of it said."""

    prepared: Prepared | None = None
    described: int | None = None

    @property
    def width(self) -> int | None:
        """The number of columns, as far as anybody said it."""
        if self.described is None and self.prepared is not None:
            return self.prepared.width
        return self.described


@dataclass
class Facts:
    """What is known at one place of a conversation.

    `status` is that of the last ReadyForQuery, `statuses` are those that the next one may have.
    """

    statements: dict[bytes, Prepared] = field(default_factory=dict)
    portals: dict[bytes, Portal] = field(default_factory=dict)
    status: bytes = b"I"
    statuses: frozenset[bytes] = frozenset((b"I",))
    is_in_series: bool = False
    """A Query or FunctionCall came in place of a Sync: some versions say T behind it, for the series' transaction."""
    result: Result = field(default_factory=Result)

    def fork(self) -> Facts:
        """Return the same facts, to go on independently."""
        return replace(self, statements=dict(self.statements), portals=dict(self.portals), result=replace(self.result))

    def continue_series(self) -> None:
        """Learn that a request that ends a cycle comes behind extended messages without their Sync."""
        self.is_in_series = True
        self.statuses |= {b"T"} if b"I" in self.statuses else set()

    def begin(self, request: Request) -> None:
        """Learn that it is the turn of this request."""
        text: bytes | None = b""
        width = None
        match request.kind:
            case "Query" | "ReplicationCommand":
                text = request.text("query")
                self.statements.pop(b"", None)
                self.portals.pop(b"", None)
            case "Parse" if not request.text("statement"):
                self.statements.pop(b"", None)
            case "Bind":
                self.portals.pop(request.text("portal"), None)
            case "Execute":
                portal = self.portals.get(request.text("portal"), Portal())
                text = portal.prepared.text if portal.prepared else None
                width = portal.width
        self.result = Result(request.kind, text, request.limit, width)

    def failed(self) -> None:
        """Learn that the request is answered with an error."""
        self.result.has_failed = True
        after = {b"E" if status == b"T" else status for status in self.statuses}
        if b"T" in self.statuses and self.result.says(ENDS_BLOCK):
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
                self._learn(request.text("target"), parameters=length(reply["types"]))
            case "ParseComplete":
                self.statements[request.text("statement")] = Prepared(request.text("query"), request.instance["types"])
            case "BindComplete":
                yield from self._bound(request)
            case "CloseComplete":
                self._closed(request)
            case "DataRow":
                yield from self.result.row(length(reply["values"]))
            case "PortalSuspended":
                yield from self.result.suspended()
            case "EmptyQueryResponse":
                self.result.completed += 1
            case "CopyInResponse" | "CopyOutResponse" | "CopyBothResponse":
                yield from self.result.copy_began(reply)
            case "CopyData":
                yield from self.result.copy_row(reply["data"])
            case "CommandComplete":
                yield from self._completed(reply["tag"])
            case "ReadyForQuery":
                yield from self.result.ended()
                yield from self._ready(reply["status"])

    def _described(self, request: Request, width: int) -> Iterator[Fault]:
        if request.kind == "DescribeStatement":
            self._learn(request.text("target"), width=width)
        elif request.kind == "DescribePortal":
            portal = self.portals.get(request.text("target"), Portal())
            if portal.width not in (None, width):
                yield "row-width", f"the portal yields {columns(width)}, its statement {columns(portal.width)}"
            self.portals[request.text("target")] = replace(portal, described=width)
        else:
            yield from self.result.described(width)

    def _learn(self, name: bytes, *, parameters: int | None = None, width: int | None = None) -> None:
        """Keep what a description says of a prepared statement."""
        if name in self.statements:
            known = self.statements[name]
            parameters = known.parameters if parameters is None else parameters
            self.statements[name] = replace(known, parameters=parameters, width=known.width if width is None else width)

    def _bound(self, request: Request) -> Iterator[Fault]:
        prepared = self.statements.get(request.text("statement"))
        given, codes = length(request.instance["values"]), length(request.instance["formats"])
        if prepared and prepared.parameters not in (None, given):
            yield "parameter-count", f"{given} values were bound to {prepared.parameters} parameters"
        elif codes not in (0, 1, given):
            yield "parameter-count", f"{codes} format codes were taken for {given} values"
        self.portals[request.text("portal")] = Portal(prepared)

    def _closed(self, request: Request) -> None:
        target = request.text("target")
        if request.instance["kind"] == b"P":
            self.portals.pop(target, None)
        elif target in self.statements:
            closed = self.statements.pop(target)
            self.portals = {name: portal for name, portal in self.portals.items() if portal.prepared is not closed}

    def _completed(self, tag: Item) -> Iterator[Fault]:
        assert isinstance(tag, bytes)
        if tag in NAMED_BY and not self.result.says(NAMED_BY[tag]):
            yield "transaction-status", f"{shown(tag)} of a command that is none"
        if tag in STATUS_AFTER:
            stays = self.statuses != {b"I"} and self.result.says(STAYS_INSIDE.get(tag, frozenset()))
            self.statuses = frozenset((STATUS_AFTER[tag], b"T") if stays else (STATUS_AFTER[tag],))
        if tag in FORGET_STATEMENTS:
            self.statements.clear()
        if tag in FORGET_PORTALS:
            self.portals.clear()
        yield from self.result.complete(tag)

    def _ready(self, status: Item) -> Iterator[Fault]:
        assert isinstance(status, bytes)
        if status not in self.statuses:
            expected = " or ".join(sorted(shown(one) for one in self.statuses))
            yield "transaction-status", f"status {shown(status)} where it must be {expected}"
        self.is_in_series &= status == b"T"
        self.status, self.statuses = status, frozenset((status, b"I") if self.is_in_series else (status,))
        if status == b"I":
            self.portals.clear()
