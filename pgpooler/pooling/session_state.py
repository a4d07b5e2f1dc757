"""What a client's statements may have put into the session of a server connection, and whether that pins the lease.

Texts and command tags are evidence (`evidence`).  Where they say that something outlives its transaction, the server
itself is asked, when the lease could end, what there is: a temporary table may be gone with its transaction, a lock
released, a LISTEN rolled back.  What the server finds pins the lease: the client keeps its connection between
transactions.  Settings are asked for likewise, and become the client's own (`parameters`).  Anything else of which
there was evidence is cleaned away (`cleaning`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgpooler.config.choices import ResetPolicy, SessionStatePolicy
from pgpooler.errors import FeatureNotSupported, PeerError, TooManyConnections
from pgpooler.pooling import evidence, parameters
from pgpooler.protocol import messages, sql

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.server import ServerSession

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
CHANGING = evidence.SETTINGS | evidence.RESTORING | evidence.FOR_THE_TRANSACTION | evidence.UNREAD
MAY_RESET = (b"DISCARD ALL", b"RESET", b"SET")  # tags; SET also of SET ... TO DEFAULT
TRUE = b"t"
CUSTOM = re.compile(rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*+(\.[A-Za-z_\x80-\xff][\w$\x80-\xff]*+)+")


class SessionState:
    """What may be in the session of one server connection.

    `left` is all evidence since the session was clean; `pins` is what keeps the lease beyond its transaction, as the
    server has confirmed it.
    """

    __slots__ = (
        "_asked",
        "_changed",
        "_client",
        "_custom",
        "_doubts",
        "_policy",
        "_reported",
        "_route",
        "_server",
        "_texts",
        "left",
        "observed",
        "pins",
        "restoring",
        "unsure",
    )

    def __init__(self, server: ServerSession) -> None:
        self._server = server
        self._client: ClientSession | None = None
        self._route = server.pool.route
        self._texts = server.service.texts
        self._policy = SessionStatePolicy.ALLOW
        self._doubts = 0  # kinds of pins of which there is evidence since the server was asked last
        self._asked: tuple[int, ...] = ()  # the kinds it is being asked for; empty: for settings
        self._changed = False  # settings of the session may be others than the client's
        self._custom: set[bytes] = set()  # names of settings with a dot of which statements have spoken
        self._reported = server.parameters  # when the settings were known last
        self.observed = False  # somebody wants to know: the cleaning, the pins, or the client's settings
        self.restoring = False  # the next request waits until the client's own settings of the start are in force
        self.unsure = False  # other settings may be in force than the client's own, if only for the transaction
        self.left = 0
        self.pins = 0

    def begin(self, client: ClientSession, *, pooled: bool) -> None:
        """A lease begins; `pooled`: it may end before the client's session does."""
        self._client = client
        self._route = route = self._server.pool.route
        self._policy = route.on_session_state if pooled else SessionStatePolicy.ALLOW
        self._reported = self._server.parameters
        self.unsure = self.restoring = False
        self.observed = pooled or route.reset_policy is ResetPolicy.SMART
        if not self.observed:
            self.left |= evidence.CLEANING  # should the policy be another one when the lease ends

    def end(self) -> None:
        """The lease is over.  What is `left` stays until it is cleaned away."""
        if self.settings_unknown:
            self._server.settings = None
        self._client = None
        self._changed = False
        self._custom.clear()
        self._doubts = self.pins = 0
        if self._server.pool.pinned:
            self._server.pool.pinned.discard(self._server)

    def cleaned(self) -> None:
        """Nothing is left."""
        self.left = 0

    # -- evidence ------------------------------------------------------------------------------------------------------

    def note(self, bits: int) -> None:
        """Note what a statement may leave that is going to run."""
        self.left |= bits
        if bits & evidence.UNREAD:
            self._doubts |= evidence.PINNING
        if bits & evidence.RELEASING:
            self._doubts |= self.pins
        self._doubts |= bits & evidence.PINNING
        if bits & CHANGING:
            self.unsure = True
            self._changed |= bool(bits & evidence.SETTINGS)
            self.restoring |= bool(bits & evidence.RESTORING)

    def note_text(self, bits: int, text: bytes) -> None:
        """Note what a statement may leave, and the settings it speaks of that have to be asked for by name."""
        self.note(bits)
        if bits & evidence.SETTINGS and b"." in text:
            self._custom.update(names_of_settings(text))

    def look_at_tag(self, tag: bytes) -> None:
        """Note the tag of a CommandComplete (protocol-message-formats).

        SET LOCAL and SET TRANSACTION have the tag of SET: where every text was read, the texts decide.  Where none was,
        any of these may have gone back to the server connection's own values.
        """
        if not self.observed:
            self.restoring |= tag in MAY_RESET
            return
        bits = evidence.of_tag(tag)
        if bits and (tag != b"SET" or self.left & evidence.UNREAD):
            self.note(bits)

    def parameter_changed(self) -> None:
        """The server reported a parameter while it served the client."""
        self.unsure = True

    # -- pins ----------------------------------------------------------------------------------------------------------

    @property
    def unknown(self) -> bool:
        """The lease cannot end before the server was asked what is in the session."""
        return bool(self._doubts) and self._policy is SessionStatePolicy.PIN

    @property
    def settings_unknown(self) -> bool:
        """The lease cannot end before the server was asked which settings are in force."""
        return self._changed or self._reported is not self._server.parameters

    @property
    def reason(self) -> str:
        """What pins the lease, for people; empty: nothing."""
        return evidence.describe(self.pins)

    def question(self) -> str:
        """Make the statement that asks the server: for what may pin the lease, or for its settings."""
        if not self.unknown:
            self._asked = ()
            return parameters.question(self._names_of_custom())
        doubts = self._doubts | self.pins
        self._asked = tuple(kind for kind in QUESTIONS if kind & doubts)
        self._doubts = 0
        return "SELECT " + ", ".join(QUESTIONS[kind] for kind in self._asked)

    def answer(self, rows: list[bytes]) -> PeerError | None:
        """Take the server's answer, the bodies of DataRows; empty: it did not answer.

        Returns the error that ends the client if it may not be pinned.
        """
        if self._asked:
            return self._pinned_by(rows)
        self._set(rows)
        return None

    @property
    def evidence_counts(self) -> bool:
        """What was asked last needs no answer: then the evidence decides."""
        return bool(self._asked)

    def _pinned_by(self, rows: list[bytes]) -> PeerError | None:
        """Without an answer the evidence counts."""
        pool, before = self._server.pool, self.pins
        columns = messages.read_data_row(rows[-1]) if rows else [TRUE] * len(self._asked)
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

    def _set(self, rows: list[bytes]) -> None:
        """Without an answer the client keeps the connection, and the server is asked again after its next request."""
        client, server = self._client, self._server
        if client is None or not rows:
            return
        self._changed = self.unsure = False
        self._reported = server.parameters
        server.settings = parameters.answered(rows, server.user)
        client.settings = parameters.Settings.of(client.startup_settings.values | server.settings.values)

    def _names_of_custom(self) -> list[str]:
        client = self._client
        known = {name for name in client.settings.values if "." in name} if client is not None else set()
        return sorted(known | {messages.decode_text(name).lower() for name in self._custom})

    # -- refusals ------------------------------------------------------------------------------------------------------

    def refuses(self, bits: int) -> bool:
        """Say whether a statement must not run because of what it would leave; otherwise keep a place for its pin."""
        server, pool = self._server, self._server.pool
        kinds = bits & evidence.PINNING
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
        server.lease.refusals.refuse(error)
        return True

    def _too_many_pinned(self, kinds: int = 0) -> PeerError:
        route, pool = self._route, self._server.pool
        return TooManyConnections(
            f"too many clients of pool {pool.name} keep a server connection (max_pinned {route.pinned_limit})",
            severity="ERROR",
            detail=f"It would be kept for {evidence.describe(kinds or self.pins)}, which outlive the transaction.",
            hint="Raise max_pinned or pool_size, or connect through a rule with pool_mode session.",
        )


def names_of_settings(text: bytes) -> Iterator[bytes]:
    """Name everything in a text that may be a setting with a dot, as two words or as a constant."""
    chain: list[bytes] = []
    for token in sql.tokens(text + b";"):
        if token.kind == sql.STRING and CUSTOM.fullmatch(said := text[token.start + 1 : token.stop - 1]):
            yield said
        goes_on = token.word == b"." or (bool(chain) and chain[-1] == b".")
        if not goes_on:
            if len(chain) > 2:
                yield b"".join(chain)
            chain = []
        chain.append(token.word)
