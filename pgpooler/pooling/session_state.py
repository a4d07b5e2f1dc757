"""What a client's statements may have put into the session of a server connection, and whether that pins the lease.

Texts and command tags are evidence (`evidence`).  Where they say that something outlives its transaction, the server
itself is asked, when the lease could end, what there is: a temporary table may be gone with its transaction, a lock
released, a LISTEN rolled back.  What the server finds pins the lease: the client keeps its connection between
transactions.  Anything else of which there was evidence is cleaned away (`cleaning`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.model import PoolMode, ResetPolicy, SessionStatePolicy
from pgpooler.errors import FeatureNotSupported, PeerError, TooManyConnections
from pgpooler.pooling import evidence
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.config.routing import Route
    from pgpooler.pooling.server import ServerSession
    from pgpooler.protocol.framer import Framer

PASS, WAIT, REFUSE, FORGET = range(4)
"""What becomes of a request that was looked at: it goes on, it is not here whole, the server is not to run it, the
server must first forget the unnamed statement."""

NONE, OWN, STRANGE = range(3)
"""Whose the unnamed statement on the server is: nobody's, this lease's, that of an earlier one."""
MAY_USE_UNNAMED = (codes.BIND, codes.CLOSE, codes.DESCRIBE, codes.EXECUTE)
"""Requests that begin a batch in which an unnamed statement may be used that the batch has not parsed."""

# What the server is asked; operators and functions are qualified, because the session's search_path is the client's.
QUESTIONS = {
    evidence.TEMPORARY: (
        "EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) "
        "'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid "
        "AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    ),
    evidence.LISTENING: "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())",
    evidence.ADVISORY_LOCK: (
        "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' "
        "AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())"
    ),
    evidence.HELD_CURSOR: "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
    evidence.PREPARED: "EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)",
}
UNREAD = evidence.CLEANING | evidence.UNREAD
TRUE = b"t"
REFUSED = "pgpooler_refuses_{}"
"""The server refuses for us: this is no statement, so that the transaction fails and a batch is skipped, as with any
other error.  The error quotes it, in whatever language, by which it is recognised and replaced."""


class SessionState:
    """What may be in the session of one server connection.

    `left` is all evidence since the session was clean; `pins` is what keeps the lease beyond its transaction, as the
    server has confirmed it.
    """

    __slots__ = (
        "_asked",
        "_doubts",
        "_lasting",
        "_policy",
        "_refusals",
        "_route",
        "_server",
        "_texts",
        "left",
        "observed",
        "pins",
        "unnamed",
    )

    def __init__(self, server: ServerSession) -> None:
        self._server = server
        self._route = server.pool.route
        self._texts = server.service.texts
        self._policy = SessionStatePolicy.ALLOW
        self._doubts = 0  # kinds of pins of which there is evidence since the server was asked last
        self._lasting = 0  # the same, from statements with a name, which may run again
        self._asked: tuple[int, ...] = ()
        self._refusals = 0  # statements ever refused on the connection
        self.observed = False  # somebody wants to know: the cleaning, or the pins
        self.left = 0
        self.pins = 0
        self.unnamed = NONE  # a simple Query ends it, ours too

    def begin(self, route: Route, mode: PoolMode) -> None:
        """A lease begins."""
        self._route = route
        self._policy = SessionStatePolicy.ALLOW if mode is PoolMode.SESSION else route.on_session_state
        self.observed = self._policy is not SessionStatePolicy.ALLOW or route.reset_policy is ResetPolicy.SMART
        if self.unnamed:
            self.unnamed = STRANGE
        if not self.observed:
            self.left |= evidence.CLEANING  # should the policy be another one when the lease ends

    def end(self) -> None:
        """The lease is over.  What is `left` stays until it is cleaned away."""
        self._doubts = self._lasting = self.pins = 0
        if self._server.pool.pinned:
            self._server.pool.pinned.discard(self._server)

    def cleaned(self) -> None:
        """Nothing is left."""
        self.left = 0

    # -- evidence ------------------------------------------------------------------------------------------------------

    def look(self, framer: Framer, kind: int) -> int:
        """Look at a request that the framer has stopped at; return what is to become of it."""
        if kind == codes.QUERY:
            return self._look_at_query(framer)
        if kind == codes.PARSE:
            return self._look_at_parse(framer)
        if kind == codes.FUNCTION_CALL:
            self.left |= evidence.CLEANING
        elif kind in MAY_USE_UNNAMED:
            if self.unnamed == STRANGE:
                return FORGET
            if self._lasting and kind == codes.EXECUTE:
                self._doubts |= self._lasting
        return PASS

    def _look_at_query(self, framer: Framer) -> int:
        """Look at the text of a Query, unless it is too long to be looked at."""
        bits = UNREAD
        if framer.length <= evidence.LONGEST_READ:
            if not framer.take(evidence.LONGEST_READ):
                return WAIT
            bits = self._texts.look(bytes(framer.buffer[framer.body_start : framer.body_stop - 1]))
        self.unnamed = NONE
        return self._decide(bits) if bits else PASS

    def _look_at_parse(self, framer: Framer) -> int:
        """Look at the name and the text of a Parse; one that is too long to be looked at has its name all the same."""
        bits = UNREAD
        read = framer.length <= evidence.LONGEST_READ
        if not (framer.take(evidence.LONGEST_READ) if read else framer.head(1)):
            return WAIT
        named = framer.body_stop > framer.body_start and framer.buffer[framer.body_start] != 0
        if named and self.unnamed == STRANGE:
            return FORGET
        if read:
            bits = self._texts.look(framer.body().partition(b"\0")[2].partition(b"\0")[0])
        if not named:
            self.unnamed = OWN
        return self._decide(bits, named=named) if bits or named else PASS

    def _decide(self, bits: int, *, named: bool = False) -> int:
        """Note what a statement may leave, unless it is not to run."""
        if bits & evidence.PINNING and self._refused(bits & evidence.PINNING):
            return REFUSE
        self._note(bits)
        if named:
            self.left |= evidence.PREPARED  # it lives under the client's name, which the next client may want to use
            self._lasting |= bits & evidence.PINNING
        return PASS

    def look_at_tag(self, tag: bytes) -> None:
        """Note the tag of a CommandComplete (protocol-message-formats).

        SET LOCAL and SET TRANSACTION have the tag of SET: where every text was read, the texts decide.
        """
        bits = evidence.of_tag(tag)
        if bits and (tag != b"SET" or self.left & evidence.UNREAD):
            self._note(bits)

    def parameter_changed(self) -> None:
        """The server reported a parameter while it served the client."""
        self.left |= evidence.CLEANING

    def _note(self, bits: int) -> None:
        self.left |= bits
        if bits & evidence.UNREAD:
            self._doubts |= evidence.PINNING
        if bits & evidence.RELEASING:
            self._doubts |= self.pins
        self._doubts |= bits & evidence.PINNING

    # -- pins ----------------------------------------------------------------------------------------------------------

    @property
    def unknown(self) -> bool:
        """The lease cannot end before the server was asked what is in the session."""
        return bool(self._doubts) and self._policy is SessionStatePolicy.PIN

    @property
    def reason(self) -> str:
        """What pins the lease, for people; empty: nothing."""
        return evidence.describe(self.pins)

    def question(self) -> str:
        """Make the statement that asks the server."""
        doubts = self._doubts | self.pins
        self._asked = tuple(kind for kind in QUESTIONS if kind & doubts)
        self._doubts = 0
        return "SELECT " + ", ".join(QUESTIONS[kind] for kind in self._asked)

    def answer(self, row: bytes) -> PeerError | None:
        """Take the server's answer, the body of a DataRow; empty: it did not answer, and the evidence counts.

        Returns the error that ends the client if it may not be pinned.
        """
        pool, before = self._server.pool, self.pins
        columns = messages.read_data_row(row) if row else [TRUE] * len(self._asked)
        self.pins = sum(kind for kind, value in zip(self._asked, columns, strict=False) if value == TRUE)
        if not self.pins:
            pool.pinned.discard(self._server)
        elif self._server not in pool.pinned:
            if len(pool.pinned) >= self._route.pinned_limit:
                return self._too_many_pinned()
            pool.pinned.add(self._server)
        if self.pins != before:
            self._server.service.pins_changed(self._server)
        return None

    # -- refusals ------------------------------------------------------------------------------------------------------

    def _refused(self, kinds: int) -> bool:
        """Say whether a statement must not run because of what it would leave; otherwise keep a place for its pin."""
        server, pool = self._server, self._server.pool
        if self._policy is SessionStatePolicy.ERROR:
            error: PeerError = FeatureNotSupported(
                f"not allowed in {self._route.pool_mode} pooling mode: {evidence.describe(kinds)}",
                detail="The rule says on_session_state error: nothing may be left in the session.",
                severity="ERROR",
                hint="Connect through a rule with pool_mode session or on_session_state pin.",
            )
        elif self._policy is SessionStatePolicy.PIN and server not in pool.pinned:
            if len(pool.pinned) < self._route.pinned_limit:
                pool.pinned.add(server)
                return False
            error = self._too_many_pinned(kinds)
        else:
            return False
        self._refusals += 1
        server.lease.replace_error(REFUSED.format(self._refusals).encode(), error)
        return True

    def refusal(self, framer: Framer, kind: int) -> bytes:
        """Make what the server gets instead of the request that was refused."""
        text = REFUSED.format(self._refusals).encode() + b"\0"
        if kind == codes.QUERY:
            return messages.message(kind, text)
        name = framer.body().split(b"\0", 1)[0]
        return messages.message(kind, name + b"\0" + text + bytes(2))

    def _too_many_pinned(self, kinds: int = 0) -> PeerError:
        route, pool = self._route, self._server.pool
        return TooManyConnections(
            f"too many clients of pool {pool.name} keep a server connection (max_pinned {route.pinned_limit})",
            severity="ERROR",
            detail=f"It would be kept for {evidence.describe(kinds or self.pins)}, which outlive the transaction.",
            hint="Raise max_pinned or pool_size, or connect through a rule with pool_mode session.",
        )
