"""What becomes of the replies to Parse, Close and Describe of a statement: one value for each that is still to come.

Each was noted as if it would succeed when its request was sent (a request behind it in the same batch is only run if
it did).  `undo` takes that back when the server reports an error before the reply has come: then it skips the request.
"""

from __future__ import annotations

from struct import error, unpack_from
from typing import TYPE_CHECKING

from pgpooler.errors import ProtocolViolation
from pgpooler.pooling.statements import ClientStatements, ServerStatements, Statement
from pgpooler.protocol import codes

if TYPE_CHECKING:
    from pgpooler.pooling.provider import Provider

GOES_ON, DROP = -1, 0
"""What to do with the reply: it goes to the client, or it does not.  Any other number: it goes as that type."""
ORIGIN = 6  # bytes of a column in a RowDescription that say which table it is of, behind its name
FORMAT = 2  # bytes of its format code, at its end
SHAPE = 10  # bytes between them: type, size and modifier


class Expected:
    """A reply of this type that is to come; by itself it changes nothing."""

    __slots__ = ("batch", "fate", "first", "kind", "number")

    def __init__(self, kind: int, fate: int) -> None:
        self.kind = kind
        self.fate = fate
        self.first = False  # of those that an error undoes
        self.batch = 0  # which of the requests that end in ReadyForQuery it belongs to
        self.number = 0  # in the order of what was noted

    def come(self) -> None:
        """The reply is here."""

    def undo(self) -> None:
        """It will not come."""


class OfServer(Expected):
    """We have a statement prepared, or closed (`before`: it was there), for ourselves."""

    __slots__ = ("_server", "statement")

    def __init__(self, kind: int, server: ServerStatements, statement: Statement) -> None:
        super().__init__(kind, DROP)
        self._server = server
        self.statement = statement
        if kind == codes.PARSE_COMPLETE:
            server.named[statement] = None
        else:
            del server.named[statement]

    def undo(self) -> None:
        """It is still there, or still not."""
        if self.kind == codes.PARSE_COMPLETE:
            self._server.named.pop(self.statement, None)
        else:
            self._server.named[self.statement] = None
            self._server.named.move_to_end(self.statement, last=False)


class OfStray(Expected):
    """We have a statement prepared under the name that its client gave it."""

    __slots__ = ("_name", "_server")

    def __init__(self, server: ServerStatements, name: bytes) -> None:
        super().__init__(codes.PARSE_COMPLETE, DROP)
        self._server = server
        self._name = name
        server.strays.add(name)

    def undo(self) -> None:
        """It is not there."""
        self._server.strays.discard(self._name)


class OfUnnamed(Expected):
    """The unnamed statement is prepared or closed, for the client (`client` given) or for ourselves.

    `alone`: nothing else stands between the expected reply before this one and this one, so that an error between the
    two can only be its own.
    """

    __slots__ = ("_alone", "_changes")

    def __init__(
        self,
        kind: int,
        server: ServerStatements,
        statement: Statement | None,
        *,
        client: ClientStatements | None = None,
        alone: bool = False,
    ) -> None:
        super().__init__(kind, DROP if client is None else GOES_ON)
        self._alone = alone and kind == codes.PARSE_COMPLETE
        self._changes = [server.change(statement)]
        if client is not None:
            self._changes.append(client.change(statement))

    def come(self) -> None:
        """It is so."""
        for change in self._changes:
            change.done()

    def undo(self) -> None:
        """A Parse that fails has closed the one before; one that is skipped has not.

        Where it may have been either, the one before counts: if the server had it, the server knows better.
        """
        for change in self._changes:
            change.undo(closed=self._alone and self.first)


class OfUnkept(Expected):
    """The client has a statement that only this server has: `keeps` are the names of such statements."""

    __slots__ = ("_keeps", "_name")

    def __init__(self, keeps: set[bytes], name: bytes) -> None:
        super().__init__(codes.PARSE_COMPLETE, GOES_ON)
        self._keeps = keeps
        self._name = name
        keeps.add(name)

    def undo(self) -> None:
        """It has not."""
        self._keeps.discard(self._name)


class OfClientParse(Expected):
    """The client has prepared a named statement; `fate` says what stands for its ParseComplete."""

    __slots__ = ("_client", "_name", "_server", "statement")

    def __init__(
        self, client: ClientStatements, name: bytes, statement: Statement, server: ServerStatements, *, shared: bool
    ) -> None:
        if shared:  # a Close that closes nothing stands for it, so that the server keeps its place
            super().__init__(codes.CLOSE_COMPLETE, codes.PARSE_COMPLETE)
        else:
            super().__init__(codes.PARSE_COMPLETE, GOES_ON)
            server.named[statement] = None
        self._client = client
        self._name = name
        self._server = server
        self.statement = statement
        client.add(name, statement)

    def undo(self) -> None:
        """A Parse that failed, or was skipped, leaves no trace."""
        self._client.remove(self._name)
        if self.kind == codes.PARSE_COMPLETE:
            self._server.named.pop(self.statement, None)


class OfClientClose(Expected):
    """The client has closed a named statement, if it had one of that name; and so it has on the server, if that did."""

    __slots__ = ("_client", "_name", "_server", "_statement", "_stray")

    def __init__(self, client: ClientStatements, name: bytes, server: ServerStatements) -> None:
        super().__init__(codes.CLOSE_COMPLETE, GOES_ON)
        self._client = client
        self._name = name
        self._server = server
        self._statement = client.named.get(name)
        self._stray = name in server.strays
        client.remove(name)
        server.strays.discard(name)

    def undo(self) -> None:
        """It is still there."""
        if self._statement is not None:
            self._client.add(self._name, self._statement)
        if self._stray:
            self._server.strays.add(self._name)


class OfDescribe(Expected):
    """Describe of a statement: the types of its parameters come first, then the shape of its rows.

    `compare`: the client's request waits for it, and may not be run if the shape is not the one that was known before.
    """

    __slots__ = ("_provider", "_types", "compare", "statement")

    def __init__(self, fate: int, provider: Provider, statement: Statement, *, compare: bool = False) -> None:
        super().__init__(codes.PARAMETER_DESCRIPTION, fate)
        self._provider = provider
        self._types = b""
        self.statement = statement
        self.compare = compare

    def types(self, body: bytes) -> None:
        """The types are here."""
        self._types = body

    def shape(self, kind: int, body: bytes) -> None:
        """The shape is here: all is known.  Who prepares the statement again asks for these types."""
        shape = shape_of(body) if kind == codes.ROW_DESCRIPTION else b""
        if self.statement.shape is None:
            self.statement.shape = shape
            self.statement.again = self.statement.text + b"\0" + self._types
        if self.compare:
            self._provider.compared(self.statement, same=self.statement.shape == shape)

    def undo(self) -> None:
        """Nobody has to wait for it any more."""
        if self.compare:
            self._provider.awaited = None


def shape_of(row_description: bytes) -> bytes:
    """Take of a RowDescription what must not change: names, types, sizes and modifiers of the columns.

    Which table they are of, and the format, which is not known before Bind, are left out.
    Raises ProtocolViolation when it is malformed.
    """
    parts = [row_description[:2]]
    position = 2
    try:
        for _ in range(unpack_from("!H", row_description)[0]):
            stop = row_description.index(b"\0", position) + 1
            parts.append(row_description[position:stop])
            parts.append(row_description[stop + ORIGIN : stop + ORIGIN + SHAPE])
            position = stop + ORIGIN + SHAPE + FORMAT
    except (error, ValueError):
        raise ProtocolViolation("malformed RowDescription message") from None
    return b"".join(parts)
