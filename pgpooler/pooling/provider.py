"""What a server connection lacks for a client's request on prepared statements, and how it gets it.

A statement that it does not have is prepared in front of the request that needs it, and the replies are dropped.  Where
it is known what the statement's rows have looked like so far, the request waits until the server has said that they
still do.  Statements are closed again when they are too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.errors import FeatureNotSupported, PeerError
from pgpooler.pooling.expected import DROP, Expected, OfDescribe, OfServer, OfStray, OfUnnamed
from pgpooler.pooling.parameters import rereading
from pgpooler.pooling.pending import Pending
from pgpooler.pooling.requests import APART, HOLD, PASS, REFUSE
from pgpooler.pooling.statements import PREFIX, UNNAMED, Statement
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.lease import Lease
    from pgpooler.pooling.server import ServerSession

NO_STATEMENT = PREFIX + b"none"  # the name of none
CLOSE_NOTHING = messages.message(codes.CLOSE, b"S" + NO_STATEMENT + b"\0")
CLOSE_UNNAMED = messages.message(codes.CLOSE, b"S\0")
FLUSH = messages.message(codes.FLUSH, b"")
RESULT_CHANGED = FeatureNotSupported("cached plan must not change result type", severity="ERROR")  # its own words
SETTINGS_CHANGED = FeatureNotSupported(
    "the prepared statement was made under other settings and cannot be prepared again in the middle of a pipeline",
    severity="ERROR",
    detail="DateStyle, TimeZone or another setting that constants are read by has another value now.",
    hint="Send a Sync before it, or prepare the statement again after changing such a setting.",
)


class Provider:
    """Provides one server connection with the statements of one client after the other."""

    __slots__ = ("_apart", "_failed_apart", "_lease", "_misshapen", "_pending", "_server", "awaited", "batch", "quiet")

    def __init__(self, server: ServerSession, lease: Lease, pending: Pending) -> None:
        self._server = server
        self._lease = lease
        self._pending = pending
        self._misshapen: Statement | None = None  # its rows have another shape here than its client was told
        self._apart: Statement | None = None  # is being prepared under other settings than those in force
        self._failed_apart: Statement | None = None
        self.batch = b""  # what prepares it
        self.awaited: OfDescribe | None = None  # the client waits for this reply
        self.quiet = False  # nothing but statements of ours is under way: notices are about them, and were told before

    def end(self) -> None:
        """The lease is over."""
        self.awaited = self._misshapen = self._apart = self._failed_apart = None
        self.quiet = False

    def make_ready(self, client: ClientSession, name: bytes, statement: Statement | None) -> int:
        """See to it that the server has the statement a request speaks of, or has none if the client has none."""
        server = self._server
        if self._pending.unsettled(name) or (statement is not None and self._pending.unsettled(statement)):
            return HOLD
        if statement is None:
            if not name and server.statements.unnamed is not None:
                self._lease.insert(CLOSE_UNNAMED, codes.CLOSE)  # somebody else's
                self._pending.expect(OfUnnamed(codes.CLOSE_COMPLETE, server.statements, None), UNNAMED)
            return PASS
        if statement is self._misshapen:
            self._misshapen = None
            self._forget(statement)
            return self._refuse(RESULT_CHANGED)
        if server.statements.has(statement):
            return PASS
        if not self._reads_alike(client, statement) and statement is not self._failed_apart:
            return self._prepare_apart(client, statement)
        self._failed_apart = None
        if statement.shape is not None:
            return self.prepare_and_compare(statement)
        self._prepare(statement)
        if statement.name:
            self.describe(statement)
        return PASS

    def _reads_alike(self, client: ClientSession, statement: Statement) -> bool:
        """The settings in force read the statement's constants as they were read when it was prepared."""
        if statement.digest is None or self._lease.session_state.unsure or statement.digest == client.settings.digest:
            return True
        return client.settings.reading(statement.digest) is client.settings

    def _prepare_apart(self, client: ClientSession, statement: Statement) -> int:
        """Have a statement prepared under the settings it was made with, which are not those in force any more."""
        server = self._server
        if server.owed.requests:
            return self._refuse(SETTINGS_CHANGED) if server.owed.open_batch else HOLD
        if statement.digest is not None:
            then, now = client.settings.reading(statement.digest), client.settings
            self._apart = statement
            self.batch = (
                _run(rereading(now, then))
                + statement.parse(statement.name)
                + messages.message(codes.DESCRIBE, b"S" + statement.name + b"\0")
                + _run(rereading(then, now))
            )
        return APART

    def prepared_apart(self, error: PeerError | None, shape: bytes) -> None:
        """That is done, or it failed: then it is tried again under the settings in force, and the client hears why."""
        statement, self._apart = self._apart, None
        if statement is None:
            return
        if error is not None:
            self._failed_apart = statement
            return
        if statement.name:
            self._server.statements.named[statement] = None
        else:
            self._server.statements.unnamed = statement
        if statement.shape is not None and statement.shape != shape:
            self.compared(statement, same=False)

    def compared(self, statement: Statement, *, same: bool) -> None:
        """The shape of a statement is known on this server too: the client's request is run, or refused."""
        self.awaited = None
        self.quiet = False
        if not same:
            self._misshapen = statement
            self._server.pool.statements.outdated(statement)

    def _prepare(self, statement: Statement) -> None:
        """Let the server prepare a statement for us, in front of what the client has said."""
        statements = self._server.statements
        if statement.name:
            self.make_room(statement)
        self._lease.insert(statement.parse(statement.name), codes.PARSE)
        if statement.name:
            self._pending.expect(OfServer(codes.PARSE_COMPLETE, statements, statement), statement)
        else:
            self._pending.expect(OfUnnamed(codes.PARSE_COMPLETE, statements, statement), UNNAMED)

    def prepare_and_compare(self, statement: Statement) -> int:
        """Let the server prepare a statement of which it is known what its rows have looked like so far."""
        self.quiet = not self._server.owed.requests
        self._prepare(statement)
        self.describe(statement, compare=True)
        self._lease.insert(FLUSH, codes.FLUSH)
        return HOLD

    def describe(self, statement: Statement, *, compare: bool = False) -> None:
        """Ask the server for the shape of a statement's rows."""
        self._lease.insert(messages.message(codes.DESCRIBE, b"S" + statement.name + b"\0"), codes.DESCRIBE)
        described = OfDescribe(DROP, self, statement, compare=compare)
        self._pending.expect(described)
        if compare:
            self.awaited = described

    def make_room(self, statement: Statement) -> None:
        """Close what was used longest ago, up to max_prepared_statements, and what may be there under the same name."""
        statements = self._server.statements
        if statements.lost:
            self._lease.insert(messages.message(codes.CLOSE, b"S" + statement.name + b"\0"), codes.CLOSE)
            self._pending.expect(Expected(codes.CLOSE_COMPLETE, DROP))
        limit = self._server.pool.route.max_prepared_statements
        while 0 < limit <= len(statements.named):
            oldest = next((known for known in statements.named if not self._pending.unsettled(known)), None)
            if oldest is None:
                return  # of none it is certain that it is there; the next time there is more to choose from
            self._forget(oldest)

    def forget_misshapen(self) -> None:
        """Let the server close what has another shape now: somebody prepares the same anew."""
        if self._misshapen is not None:
            self._forget(self._misshapen)
            self._misshapen = None

    def _forget(self, statement: Statement) -> None:
        """Let the server close a statement."""
        statements = self._server.statements
        self._lease.insert(messages.message(codes.CLOSE, b"S" + statement.name + b"\0"), codes.CLOSE)
        if statement.name:
            self._pending.expect(OfServer(codes.CLOSE_COMPLETE, statements, statement), statement)
        else:
            self._pending.expect(OfUnnamed(codes.CLOSE_COMPLETE, statements, None), UNNAMED)

    def make_stray(self, client: ClientSession, name: bytes) -> None:
        """Let the server know a client's statement by the client's own name."""
        statements = self._server.statements
        if name not in statements.strays and not name.startswith(self._server.pool.statements.prefix):
            self._lease.insert(client.statements.named[name].parse(name), codes.PARSE)
            self._pending.expect(OfStray(statements, name), name)

    def _refuse(self, error: PeerError) -> int:
        self._lease.refusals.refuse(error)
        return REFUSE


def _run(text: str) -> bytes:
    """Make what runs a statement of ours within a batch and leaves neither statement nor portal."""
    parse = NO_STATEMENT + b"\0" + messages.encode_text(text) + bytes(3)
    bind = NO_STATEMENT + b"\0" + NO_STATEMENT + bytes(7)
    return (
        messages.message(codes.PARSE, parse)
        + messages.message(codes.BIND, bind)
        + messages.message(codes.EXECUTE, NO_STATEMENT + bytes(5))
        + messages.message(codes.CLOSE, b"P" + NO_STATEMENT + b"\0")
        + CLOSE_NOTHING
    )
