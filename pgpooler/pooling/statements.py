"""Prepared statements of clients, and where they are prepared (protocol-flow-ext-query).

A client's statement is known by the name that the client gave it.  On servers it has a name of ours, which is never
used again, and which it shares with the statements of other clients that say the same: the same text, the same types
of parameters, the same settings that PostgreSQL reads a text by.  What is here changes as replies come, or are certain
to come unless an error does: see `preparing`.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from weakref import WeakValueDictionary

from pgpooler.pooling.parameters import Digest
from pgpooler.protocol import codes, messages

PREFIX = b"pgpooler_"
"""How our names of statements begin."""
LONGEST_NAME = 63  # bytes; PostgreSQL tells names apart by so many (NAMEDATALEN - 1)
LONGEST_KEPT = 4 << 20  # bytes of text and types; a longer statement stays on the one server that has it
MOST_KEPT = 16 << 20  # bytes of all named statements of one client
UNNAMED = b""


class Statement:
    """A prepared statement as servers know it.

    `body` is the text, a zero and the types of parameters, as its client's Parse has them; `again` is the same with the
    types that PostgreSQL has found, so that it finds the same ones when the statement is prepared again.  `shape` is
    what the first server that was asked has said of its rows (`expected.shape_of`), or None.  `digest` are the settings
    it was read by; None: nobody knows, and nobody shares it.  `left` is the evidence of what it leaves (`evidence`)
    each time it runs.
    """

    __slots__ = ("__weakref__", "again", "body", "digest", "left", "name", "shape")

    def __init__(self, name: bytes, body: bytes, digest: Digest | None, left: int) -> None:
        self.name = name
        self.body = self.again = body
        self.digest = digest
        self.left = left
        self.shape: bytes | None = None

    def __repr__(self) -> str:
        return f"<Statement {self.name.decode() or 'unnamed'} {self.body.partition(bytes(1))[0][:60]!r}>"

    @property
    def text(self) -> bytes:
        """What it says."""
        return self.body.partition(b"\0")[0]

    def parse(self, name: bytes) -> bytes:
        """Make the Parse that prepares it under a name."""
        return messages.message(codes.PARSE, name + b"\0" + self.again)


class SharedStatements:
    """The statements of one pool, by what they say.  What no client and no server has is forgotten.

    Their names cannot be guessed: SQL may say EXECUTE and DEALLOCATE, and is not to meet them by chance.
    """

    __slots__ = ("_known", "_made", "prefix")

    def __init__(self) -> None:
        self._made = 0
        self.prefix = PREFIX + secrets.token_hex(4).encode()
        self._known: WeakValueDictionary[tuple[Digest, bytes], Statement] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, body: bytes, digest: Digest | None, left: int) -> Statement:
        """Return the statement that says this, a new one if there is none that may be shared."""
        found = self._known.get((digest, body)) if digest is not None else None
        if found is None:
            self._made += 1
            found = Statement(b"%b_%d" % (self.prefix, self._made), body, digest, left)
            if digest is not None:
                self._known[digest, body] = found
        return found

    def outdated(self, statement: Statement) -> None:
        """The tables it speaks of have changed: who prepares the same from now on gets another one."""
        if statement.digest is not None and self._known.get((statement.digest, statement.body)) is statement:
            del self._known[statement.digest, statement.body]


class Change:
    """A change of an unnamed statement.  Until it is certain, what was `before` is known too, should it not happen."""

    __slots__ = ("before", "never", "statement")

    def __init__(self, statement: Statement | None, before: Change | None = None) -> None:
        self.statement = statement
        self.before = before
        self.never = False

    def done(self) -> None:
        """It is certain."""
        self.before = None

    def undo(self, *, closed: bool) -> None:
        """It does not happen; `closed`: but what was before is gone all the same."""
        self.never = True
        if closed:
            self.before = None


class HasUnnamed:
    """A client or a server, and its unnamed statement."""

    __slots__ = ("_change",)

    def __init__(self) -> None:
        self._change = Change(None)

    @property
    def unnamed(self) -> Statement | None:
        """The unnamed statement, as far as it is known."""
        change: Change | None = self._change
        while change is not None and change.never:
            change = change.before
        self._change = change or Change(None)
        return self._change.statement

    @unnamed.setter
    def unnamed(self, statement: Statement | None) -> None:
        self._change = Change(statement)

    def change(self, statement: Statement | None) -> Change:
        """Let it be another one, or none, unless an error comes."""
        self._change = Change(statement, self._change)
        return self._change


class ClientStatements(HasUnnamed):
    """The statements of one client, by its names for them; the unnamed one apart."""

    __slots__ = ("named", "size")

    def __init__(self) -> None:
        super().__init__()
        self.named: dict[bytes, Statement] = {}
        self.size = 0  # bytes of the named ones

    def add(self, name: bytes, statement: Statement) -> None:
        """The client has prepared a statement under this name."""
        self.named[name] = statement
        self.size += len(statement.body)

    def remove(self, name: bytes) -> None:
        """The client has no statement of this name, or no longer."""
        statement = self.named.pop(name, None)
        if statement is not None:
            self.size -= len(statement.body)

    def clear(self) -> None:
        """The client has no named statement any more."""
        self.named.clear()
        self.size = 0

    def name_of(self, statement_name: bytes) -> bytes | None:
        """Say which of the client's names a name of ours stands for."""
        return next((name for name, known in self.named.items() if known.name == statement_name), None)


class ServerStatements(HasUnnamed):
    """What is prepared on one server connection.

    `named` are ours, the one used last at the end.  `unnamed` is whose the unnamed statement is, or SOMEBODYS.
    `strays` are names of clients that a client's own SQL made necessary; they must be gone before the next client.
    """

    __slots__ = ("lost", "named", "strays")

    def __init__(self) -> None:
        super().__init__()
        self.named: OrderedDict[Statement, None] = OrderedDict()
        self.strays: set[bytes] = set()
        self.lost = False  # nobody knows what is prepared here

    def has(self, statement: Statement) -> bool:
        """The statement is prepared here."""
        return statement in self.named if statement.name else self.unnamed is statement

    def clear(self) -> None:
        """Nothing with a name is prepared here any more."""
        self.named.clear()
        self.strays.clear()


SOMEBODYS = Statement(UNNAMED, b"", None, 0)
"""Stands for an unnamed statement of which nobody can say whether it is there."""
