"""A lease: one client holds one server connection.  What the two say to each other, and how long it takes.

There is one such object for each server connection; `begin` and `end` say whose it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.model import PoolMode
from pgpooler.errors import PeerError
from pgpooler.pooling.blocks import BlockGuard
from pgpooler.pooling.owed import EXTENDED
from pgpooler.pooling.session_state import FORGET, PASS, WAIT, SessionState
from pgpooler.pooling.states import ServerState
from pgpooler.pooling.traffic import REPLIES, REPLIES_AND_TAGS, REQUESTS, TAKEN_LIMIT, VOID, check_request
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.server import ServerSession

OURS = (ServerState.STARTING, ServerState.REFUSING, ServerState.ASKING)
"""States in which the server of a client runs a statement of our own."""


class Lease:
    """Passes on what each says to the other, and notes what the rules of release and the timeouts need."""

    __slots__ = (
        "_blocks",
        "_replacements",
        "_server",
        "_unflushed",
        "_watched",
        "busy_since",
        "flush_due",
        "overdue",
        "session_state",
        "transaction_since",
    )

    def __init__(self, server: ServerSession) -> None:
        self._server = server
        self._blocks: BlockGuard | None = None  # in statement mode
        self._watched = REPLIES  # the messages of the server that are looked at
        self._replacements: list[tuple[bytes, bytes]] = []  # errors that hold the first become the second
        self.session_state = SessionState(server)
        self.busy_since = 0.0  # when the request was sent, or its turn came, that the server works on
        self.transaction_since = 0.0  # when the transaction began, if one is open or under way
        self._unflushed = False  # extended messages were sent, and no Flush behind them
        self.flush_due = False  # a Flush was sent behind extended messages, and nothing has come since
        self.overdue = False  # what the server works on took longer than query_timeout and is being canceled

    def begin(self, client: ClientSession) -> None:
        """The connection is this client's from now on."""
        self._blocks = BlockGuard(self._server, client) if client.mode is PoolMode.STATEMENT else None
        self.session_state.begin(self._server.pool.route, PoolMode.SESSION if self._server.unshared else client.mode)
        looked_at = self._blocks is not None or self.session_state.observed
        self._watched = REPLIES_AND_TAGS if looked_at else REPLIES

    def end(self) -> None:
        """The client is gone, or has given the connection back."""
        self._blocks = None
        self._replacements.clear()
        self.overdue = self.flush_due = self._unflushed = False
        self.session_state.end()

    # -- requests ------------------------------------------------------------------------------------------------------

    def forward(self, client: ClientSession, now: float) -> bool:
        """Note what is owed for each request and pass everything on in one stretch; True: the client said Terminate.

        Raises ProtocolViolation for what no frontend may send; what came before it has been sent.
        """
        server, framer = self._server, client.framer
        if not server.owed.requests:
            self._begin_request(client, now)
        try:
            while kind := framer.run(REQUESTS):
                if self._must_wait(kind):
                    client.hold()
                    return False
                check_request(kind, framer.length)
                if kind == codes.TERMINATE:
                    return True
                fate = self.session_state.look(framer, kind) if self.session_state.observed else PASS
                if fate == FORGET:
                    self._forget_unnamed(client, now)
                if fate in (WAIT, FORGET):
                    return False
                server.owed.sent(kind)
                if kind == codes.FLUSH:
                    self.flush_due, self._unflushed = self._unflushed and not server.owed.skipping, False
                elif kind in EXTENDED:
                    self._unflushed = True
                if fate == PASS:
                    framer.pass_on()
                else:
                    self._replace_request(client, kind)
            return False
        finally:
            self._send_run(client)

    def _must_wait(self, kind: int) -> bool:
        """Say whether a request is held back: the server does something of ours, or is being told to give a query up.

        In statement mode at most one ReadyForQuery is owed: what follows waits until it is here.  What is sent into an
        open COPY is for the server to judge: held back, it would wait for the end of the COPY.
        """
        server = self._server
        if server.state in OURS:
            return True
        if kind in VOID or server.owed.copy_in:
            return False
        if self.overdue and kind != codes.SYNC:
            return True
        return self._blocks is not None and server.owed.ready_due

    def _forget_unnamed(self, client: ClientSession, now: float) -> None:
        """Let the server forget an earlier client's unnamed statement, as soon as nothing is owed."""
        client.hold()
        self._send_run(client)
        if not self._server.owed.requests:
            self._server.prepare(";", now)

    def _replace_request(self, client: ClientSession, kind: int) -> None:
        """Send something that the server refuses instead of a request that is not to run."""
        self._send_run(client)
        if not self._server.port.write_all(self.session_state.refusal(client.framer, kind)):
            client.port.pause()
        client.framer.drop()

    def _send_run(self, client: ClientSession) -> None:
        """Send the server what the framer has passed over; while some of it is queued the client is not read."""
        framer = client.framer
        if framer.position > framer.mark:
            if not self._server.port.write(framer.buffer, framer.mark, framer.position):
                client.port.pause()
            framer.passed()

    def _begin_request(self, client: ClientSession, now: float) -> None:
        """The server has done everything: from now on counts how long it takes for what comes."""
        server = self._server
        self.busy_since = now
        if server.status == codes.IDLE:
            self.transaction_since = now
        patience = server.pool.patience
        if patience:
            server.service.deadlines.at(now + patience, client)

    def _request_done(self, client: ClientSession, now: float) -> None:
        """A ReadyForQuery has come: another request has its turn, or the lease may be over."""
        server = self._server
        self.busy_since = now
        if server.status == codes.IDLE:
            self.transaction_since = now
        if not server.cancels:
            self.overdue = False
        if not server.owed.requests:
            self._replacements.clear()
            self.pass_on_run()
            client.settle(now)  # what follows is not for a client whose lease is over

    def canceled(self, now: float) -> None:
        """A cancel request ended: what was held back so that it would not be hit goes on."""
        server, client = self._server, self._server.client
        if client is not None and not server.cancels and not server.owed.requests:
            self.overdue = False
            client.settle(now)
            client.release_hold(now)

    # -- replies -------------------------------------------------------------------------------------------------------

    def relay(self, client: ClientSession, now: float) -> None:
        """Pass everything on to the client, as long as the connection is its own."""
        server = self._server
        framer = server.framer
        while server.state == ServerState.ACTIVE:
            kind = framer.run(self._watched)
            if not kind or (kind == codes.ERROR_RESPONSE and self._replacements and not framer.take(TAKEN_LIMIT)):
                break
            if not server.note(kind):
                break
            if kind == codes.COMMAND_COMPLETE:
                if self.session_state.observed:
                    self.session_state.look_at_tag(bytes(framer.buffer[framer.body_start : framer.body_stop - 1]))
            elif kind == codes.PARAMETER_STATUS:
                self.session_state.parameter_changed()
            if not (self._blocks is not None or self._replacements) or not self._keep_back(client, kind, now):
                framer.pass_on()
            if kind == codes.READY_FOR_QUERY and server.client is client:
                self._request_done(client, now)
        else:
            return
        self.pass_on_run()
        if client.held and (server.owed.copy_in or not server.owed.ready_due):
            client.release_hold(now)

    def pass_on_run(self) -> None:
        """Send the client what the framer has passed over."""
        server = self._server
        framer, client = server.framer, server.client
        if framer.position > framer.mark and client is not None:
            self.flush_due = False
            if self._blocks is not None:
                self._blocks.let_go()
            if not client.port.write(framer.buffer, framer.mark, framer.position):
                server.port.pause()
            framer.passed()

    def _keep_back(self, client: ClientSession, kind: int, now: float) -> bool:
        """Say whether a message that has arrived whole does not go to the client as it is."""
        if kind == codes.ERROR_RESPONSE and self._replacements:
            return self._replace_error(client)
        return self._blocks is not None and self._blocks.takes(kind, now)

    # -- errors and blocks that the client is not to have --------------------------------------------------------------

    def replace_error(self, mark: bytes, error: PeerError) -> None:
        """Tell the client `error` instead of the next error of the server that holds `mark`."""
        self._replacements.append((mark, messages.error_response(error)))

    def _replace_error(self, client: ClientSession) -> bool:
        """Put our error in the place of the server's, if it is one that was meant."""
        framer = self._server.framer
        body = framer.body()
        for number, (mark, instead) in enumerate(self._replacements):
            if mark in body:
                self.pass_on_run()
                framer.drop()
                del self._replacements[number]
                if not client.port.write_all(instead):
                    self._server.port.pause()
                return True
        return False

    def rolled_back(self, now: float) -> None:
        """The transaction block that was refused in statement mode is rolled back."""
        if self._blocks is not None:
            self._blocks.rolled_back(now)
