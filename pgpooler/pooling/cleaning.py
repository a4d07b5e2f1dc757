"""What is done with a server connection after its client is gone, until nobody can tell that a client was here.

What is owed is read and dropped, a failed batch is ended by Sync, a transaction by ROLLBACK, the session by the reset
query.  What cannot be brought to that end for certain is closed instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.choices import ResetPolicy
from pgpooler.config.routing import DISCARD_ALL
from pgpooler.pooling import evidence
from pgpooler.pooling.parameters import NONE_SET
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.server import ServerSession

CLEANING_TIMEOUT = 30.0  # seconds until a connection that does not get clean is closed
CANCEL_AGAIN = 0.2  # seconds; a cancel request that comes before the query it is meant for has no effect
KEEPING_PLANS = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); "
    "DISCARD TEMP; DISCARD SEQUENCES"
)
"""What DISCARD ALL does, but for prepared statements.  RESET ALL alone does not undo SET ROLE."""


CARRIED = (
    evidence.SETTINGS | evidence.RESTORING | evidence.FOR_THE_TRANSACTION | evidence.STATEMENTS | evidence.READS_DATA
)
"""Evidence of what is known of, and set right when the next client comes, or of what leaves nothing."""


class Cleaning:
    """The cleaning of one server connection.  `in_part`: the client left in the middle of a message."""

    __slots__ = ("_abrupt", "_cancel_again_at", "_reset", "_server", "doomed")

    def __init__(self, server: ServerSession, *, in_part: bool, abrupt: bool) -> None:
        self._server = server
        self._abrupt = abrupt  # the client left without Terminate: what it had running is canceled
        self._cancel_again_at = 0.0  # 0: not
        self._reset = False
        self.doomed = self._unusable(in_part)  # why the connection is used no more once the server has ended it

    def begin(self, now: float) -> None:
        """Cancel what runs for nobody, and go on to what is missing."""
        if self._runs_for_nobody:
            self._server.cancel()
        if self.doomed:
            self.doom(self.doomed)
        else:
            self.proceed(now)

    def doom(self, reason: str) -> None:
        """Give the connection up: let the server end the session, which commits nothing and frees its locks.

        Its place is free when the server has closed the socket: then the next client cannot meet those locks.
        """
        self.doomed = reason
        self._server.port.end_writing()

    def proceed(self, now: float) -> None:
        """Do the next thing that is missing."""
        server = self._server
        if self.doomed:
            return
        if server.owed.doubt or server.tainted:
            self.doom(server.owed.doubt or server.tainted)
        elif server.owed.skipping:
            server.owed.sent(codes.SYNC)
            server.port.write_all(messages.SYNC)
        elif server.owed.requests or server.cancels:
            return
        elif server.status != codes.IDLE:
            server.ask("ROLLBACK")
        elif server.statements.lost:
            server.statements.lost = False
            server.ask("DEALLOCATE ALL")
        elif server.statements.strays:
            strays = b"".join(messages.message(codes.CLOSE, b"S" + name + b"\0") for name in server.statements.strays)
            server.statements.strays.clear()
            server.send_batch("Close of statements", strays)
        elif not self._reset and (statement := self._reset_statement()):
            self._reset = True
            server.ask(statement)
        else:
            if self._reset and server.pool.route.reset_statement == DISCARD_ALL:
                server.settings = NONE_SET
            if self._reset:
                server.lease.session_state.cleaned()
            server.cleaned(now)

    def _reset_statement(self) -> str:
        """Make the statement that cleans the session; empty: it needs none."""
        server = self._server
        route, left = server.pool.route, server.lease.session_state.left
        if route.reset_policy is ResetPolicy.ALWAYS:
            return route.reset_statement
        if route.reset_policy is ResetPolicy.NEVER or not left & ~CARRIED:
            return ""
        return KEEPING_PLANS + ("; DEALLOCATE ALL" if left & evidence.PREPARED else "")

    def canceled(self, now: float) -> None:
        """A cancel request ended.  If what it was meant for still runs, it came too early: another one follows."""
        self.proceed(now)
        if self._runs_for_nobody:
            self._cancel_again_at = now + CANCEL_AGAIN
            self._server.service.deadlines.at(self._cancel_again_at, self._server)

    def tick(self, now: float) -> float:
        """Repeat a cancel request that did not help; return when to look next, 0 for never."""
        if self._cancel_again_at and now >= self._cancel_again_at:
            self._cancel_again_at = 0.0
            if self._runs_for_nobody:
                self._server.cancel()
        return self._cancel_again_at

    @property
    def _runs_for_nobody(self) -> bool:
        """The server is not done with what a client asked that left without Terminate."""
        server = self._server
        return self._abrupt and server.cleaning is self and bool(server.owed.requests) and not server.asked

    def _unusable(self, in_part: bool) -> str:
        """Say why nobody can use the connection after a client that left now; empty: it can be cleaned."""
        owed = self._server.owed
        if in_part:
            return "its client left in the middle of a message"
        if owed.copy_in:
            return "its client left in the middle of a COPY"
        if owed.open_batch:
            return "its client left without the Sync that ends its requests"
        if owed.unsynced:
            return "its client sent a Query in place of a Sync, which not every server survives"
        if self._server.lease.session_state.left & evidence.LOADED:
            return "a library was loaded into it, which nothing undoes"
        return owed.doubt or self._server.tainted
