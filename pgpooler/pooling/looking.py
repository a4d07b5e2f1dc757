"""Looks at a client's request before it goes to the server: at its text, and at the statements it speaks of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgpooler.pooling import evidence
from pgpooler.pooling.owed import EXTENDED
from pgpooler.pooling.requests import DROPPED, HOLD, PASS, REFUSE, WAIT
from pgpooler.pooling.session_state import UNREAD
from pgpooler.protocol import codes

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.lease import Lease
    from pgpooler.pooling.server import ServerSession

MAY_CLOSE = re.compile(rb"deallocate|discard", re.IGNORECASE)  # within a DO, prepared statements


class Looking:
    """Looks at the requests of one lease."""

    __slots__ = ("_lease", "_server")

    def __init__(self, server: ServerSession, lease: Lease) -> None:
        self._server = server
        self._lease = lease

    def look(self, client: ClientSession, kind: int, now: float) -> int:
        """Look at a request; return what is to become of it (`requests`)."""
        if self._lease.pooled and kind in EXTENDED:
            return self._lease.preparing.look(client, kind)
        if self._lease.pooled and kind == codes.SYNC:
            if self._server.owed.copy_in and not self._server.owed.doubt:
                return DROPPED  # the server would ignore it, unless the COPY fails before it is read
            self._lease.preparing.sync()
            return PASS
        if not self._lease.session_state.observed:
            return PASS
        if kind == codes.QUERY:
            return self._look_at_query(client, now)
        if kind == codes.PARSE:
            return self._look_at_parse(client)
        if kind == codes.FUNCTION_CALL:
            self._lease.session_state.note(evidence.CLEANING)
        return PASS

    def _look_at_query(self, client: ClientSession, now: float) -> int:
        """Look at the text of a Query, unless it is too long to be looked at."""
        framer, state = client.framer, self._lease.session_state
        if framer.length > evidence.LONGEST_READ:
            state.note(UNREAD)
        else:
            if not framer.take(evidence.LONGEST_READ):
                return WAIT
            text = bytes(framer.buffer[framer.body_start : framer.body_stop - 1])
            bits = self._server.service.texts.look(text)
            if bits:
                if bits & evidence.PINNING and state.refuses(bits):
                    return REFUSE
                if self._lease.pooled and self._closes_statements(client, bits, text, now):
                    return HOLD
                state.note_text(bits, text)
                owed = self._server.owed
                if bits & evidence.READS_DATA and self._lease.pooled and not (owed.skipping or owed.copy_in):
                    owed.begins_copy(codes.QUERY)
        if self._lease.pooled:
            self._lease.preparing.query(client)
        return PASS

    def _look_at_parse(self, client: ClientSession) -> int:
        """In session mode: what the statement may leave counts as left, and so does the statement if it has a name."""
        framer, state = client.framer, self._lease.session_state
        read = framer.length <= evidence.LONGEST_READ
        if not (framer.take(evidence.LONGEST_READ) if read else framer.head(1)):
            return WAIT
        named = framer.body_stop > framer.body_start and framer.buffer[framer.body_start] != 0
        text = framer.body().partition(b"\0")[2].partition(b"\0")[0] if read else b""
        bits = self._server.service.texts.look(text) if read else UNREAD
        state.note_text(bits | (evidence.PREPARED if named else 0), text)
        return PASS

    def _closes_statements(self, client: ClientSession, bits: int, text: bytes, now: float) -> bool:
        """See to the prepared statements of which a Query speaks, or may; True: it has to wait."""
        if bits & evidence.STATEMENTS:
            if self._make_known(client, text, now):
                return True
            self._lease.preparing.deallocates(client, text)
        elif bits & evidence.CLEANING and MAY_CLOSE.search(text):
            self._server.statements.lost = True
        return False

    def _make_known(self, client: ClientSession, text: bytes, now: float) -> bool:
        """Let the server know by name the client's statements of which a Query speaks; True: the Query has to wait."""
        server = self._server
        if server.owed.open_batch:
            return False
        if server.owed.requests:
            return bool(client.statements.named) or self._lease.preparing.pending.watches
        if server.status == codes.FAILED:
            return False
        unknown = self._lease.preparing.unknown(client, text)
        if unknown:
            self._lease.send_run(client)
            server.between.make_known(self._lease.preparing.strays(client, unknown), now)
        return bool(unknown)
