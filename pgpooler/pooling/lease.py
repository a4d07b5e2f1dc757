"""A lease: one client holds one server connection.  What the two say to each other, and how long it takes.

There is one such object for each server connection; `begin` and `end` say whose it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.choices import PoolMode
from pgpooler.pooling.between import OURS
from pgpooler.pooling.blocks import BlockGuard
from pgpooler.pooling.expected import DROP, GOES_ON
from pgpooler.pooling.looking import Looking
from pgpooler.pooling.owed import EXTENDED, SINGLE
from pgpooler.pooling.parameters import NONE_SET, restoration
from pgpooler.pooling.preparing import Preparing
from pgpooler.pooling.refusals import Refusals, with_names_of_client
from pgpooler.pooling.requests import APART, DROPPED, PASS, REFUSE, REWRITTEN, WAIT
from pgpooler.pooling.session_state import SessionState
from pgpooler.pooling.statements import PREFIX
from pgpooler.pooling.states import ServerState
from pgpooler.pooling.traffic import (
    ENDS,
    PREPARED,
    PREPARING,
    PREPARING_QUIETLY,
    REPLIES,
    REPLIES_AND_TAGS,
    REQUESTS,
    TAKEN_LIMIT,
    VOID,
    check_request,
)
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.server import ServerSession

TAKEN = (codes.COMMAND_COMPLETE, codes.NOTICE_RESPONSE, *PREPARED)  # replies that are looked at whole


class Lease:
    """Passes on what each says to the other, and notes what the rules of release and the timeouts need."""

    __slots__ = (
        "_blocks",
        "_last",
        "_looking",
        "_mark",
        "_marks",
        "_server",
        "_tags",
        "_unflushed",
        "_written",
        "busy_since",
        "flush_due",
        "overdue",
        "pooled",
        "preparing",
        "refusals",
        "session_state",
        "transaction_since",
    )

    def __init__(self, server: ServerSession) -> None:
        self._server = server
        self._blocks: BlockGuard | None = None  # in statement mode
        self.pooled = False  # the lease may end before the session does
        self._last = 0  # the type of the request that was sent last
        self._marks = 0  # columns of ours ever asked for, to know where replies end
        self._mark = b""  # the one that was asked for and has not come
        self._tags = False  # the tags of CommandComplete are looked at
        self._written = bytearray()  # what the server gets before the rest of the run
        self.session_state = SessionState(server)
        self.preparing = Preparing(server, self)
        self.refusals = Refusals()
        self._looking = Looking(server, self)
        self.busy_since = 0.0  # when the request was sent, or its turn came, that the server works on
        self.transaction_since = 0.0  # when the transaction began, if one is open or under way
        self._unflushed = False  # extended messages were sent, and no Flush behind them
        self.flush_due = False  # a Flush was sent behind extended messages, and nothing has come since
        self.overdue = False  # what the server works on took longer than query_timeout and is being canceled

    def begin(self, client: ClientSession) -> None:
        """The connection is this client's from now on."""
        self._blocks = BlockGuard(self._server, client) if client.mode is PoolMode.STATEMENT else None
        shared = client.mode is not PoolMode.SESSION and not self._server.unshared
        self.session_state.begin(client, pooled=shared)
        self.pooled = shared
        if shared:
            self.preparing.begin(client)
        observed = self.session_state.observed
        self._tags = self._blocks is not None or observed or client.startup_settings is not NONE_SET

    def end(self) -> None:
        """The client is gone, or has given the connection back."""
        self._blocks = None
        self._written.clear()
        self._mark = b""
        self.refusals.clear()
        self.overdue = self.flush_due = self._unflushed = False
        self.preparing.end()
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
                fate = self._looking.look(client, kind, now)
                if fate == PASS:
                    self._note_request(kind)
                    framer.pass_on()
                elif fate == REWRITTEN:
                    self._note_request(kind)
                elif fate == DROPPED:
                    self._gather(client)
                    framer.drop()
                elif fate == REFUSE:
                    self._refuse_request(client, kind)
                else:
                    if fate == APART:
                        self.send_run(client)
                        server.between.prepare_apart(self.preparing.provider.batch, now)
                    if fate != WAIT:
                        client.hold()
                    return False
            return False
        finally:
            self.send_run(client)

    def _note_request(self, kind: int) -> None:
        if kind not in VOID or self._last not in SINGLE:
            self._last = kind
        self._server.owed.sent(kind)
        if kind == codes.FLUSH:
            self.flush_due, self._unflushed = self._unflushed and not self._server.owed.skipping, False
        elif kind in EXTENDED:
            self._unflushed = True

    def resolve_doubt(self, now: float) -> None:
        """Find out where the replies end, if the client has said all that it began: ask for a column of our own.

        What comes before it answers the client.  Whether a COPY ate a Sync cannot be told otherwise.
        """
        server, client = self._server, self._server.client
        at_rest = self._last in ENDS and not server.owed.copy_in and not server.owed.skipping
        if client is not None and at_rest and not self._mark and server.status == codes.IDLE and not server.cancels:
            self._marks += 1
            self._mark = b"pgpooler_mark_%d" % self._marks
            client.hold()
            server.port.write_all(messages.query(f"SELECT 1 AS {self._mark.decode()}"))

    def _is_mark(self, kind: int, now: float) -> bool:
        """Say whether the column of ours has come: the client has every reply, and the rest is for us."""
        server = self._server
        framer = server.framer
        if not self._mark or kind != codes.ROW_DESCRIPTION or self._mark not in framer.body():
            return False
        self._mark = b""
        self._leave_out()
        server.owed.settle()
        self.preparing.lost()
        server.between.find_end(now)
        return True

    def insert(self, message: bytes, kind: int) -> None:
        """Send a message of our own in front of the request that is being looked at."""
        client = self._server.client
        if client is not None:
            self._gather(client)
            self._written += message
            self._note_request(kind)

    def replace_head(self, head: bytes, count: int) -> None:
        """Let the request that is being looked at begin with `head` instead of the first `count` bytes of its body."""
        client = self._server.client
        if client is not None:
            framer = client.framer
            self._gather(client)
            self._written += messages.header(framer.type, framer.length - 5 - count + len(head)) + head
            framer.behead(count)

    def _must_wait(self, kind: int) -> bool:
        """Say whether a request is held back: the server does something of ours, or is being told to give a query up.

        In statement mode at most one ReadyForQuery is owed: what follows waits until it is here.  What is sent into an
        open COPY is for the server to judge: held back, it would wait for the end of the COPY.
        """
        server = self._server
        if server.state in OURS or self.preparing.provider.awaited is not None or self._mark:
            return True
        if kind in VOID or server.owed.copy_in:
            return False
        if server.owed.may_copy:
            return True  # nobody could tell whether the COPY took it
        if self.overdue and kind != codes.SYNC:
            return True
        return self._blocks is not None and server.owed.ready_due

    def _refuse_request(self, client: ClientSession, kind: int) -> None:
        """Send something that the server refuses: instead of a Query, or in front of what it will then skip."""
        framer = client.framer
        if kind == codes.QUERY:
            self.insert(self.refusals.request(kind), kind)
            framer.drop()
        else:
            self.insert(self.refusals.request(kind), codes.PARSE)
            self._note_request(kind)
            framer.pass_on()

    def _gather(self, client: ClientSession) -> None:
        """Keep what the framer has passed over: something of ours follows it."""
        framer = client.framer
        self._written += memoryview(framer.buffer)[framer.mark : framer.position]
        framer.passed()

    def send_run(self, client: ClientSession) -> None:
        """Send the server what the framer has passed over; while some of it is queued the client is not read."""
        framer, port = client.framer, self._server.port
        if self._written:
            self._gather(client)
            if not port.write(self._written, 0, len(self._written)):
                client.port.pause()
            self._written.clear()
        elif framer.position > framer.mark:
            if not port.write(framer.buffer, framer.mark, framer.position):
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
        if self.pooled:
            self.preparing.ready()
        if not server.owed.requests:
            self.refusals.clear()
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
        answered = server.owed.answered
        while server.state == ServerState.ACTIVE:
            kind = framer.run(self._watched)
            if not kind or not self._here(kind) or (kind not in TAKEN and not server.note(kind)):
                break
            if not self._takes(client, kind, now):
                framer.pass_on()
            if kind == codes.READY_FOR_QUERY and server.client is client:
                self._request_done(client, now)
                if server.client is None:
                    return
                client = server.client  # what follows may be for the next one already
        else:
            return
        self.pass_on_run()
        if client.held and (server.owed.copy_in or not server.owed.ready_due or server.owed.answered > answered):
            client.release_hold(now)

    @property
    def _watched(self) -> bytes:
        """The table of the messages of the server that are looked at now."""
        if self._mark or self.preparing.pending.watches:
            return PREPARING_QUIETLY if self.preparing.provider.quiet else PREPARING
        return REPLIES_AND_TAGS if self._tags else REPLIES

    def _here(self, kind: int) -> bool:
        """Say whether a message that is looked at whole has arrived whole."""
        whole = kind in TAKEN or (kind == codes.ERROR_RESPONSE and (self.pooled or bool(self.refusals)))
        return not whole or self._server.framer.take(TAKEN_LIMIT)

    def _takes(self, client: ClientSession, kind: int, now: float) -> bool:
        """Look at a message; True: it does not go to the client, or something else has gone instead."""
        if kind == codes.COMMAND_COMPLETE:
            self._look_at_tag()
        elif kind == codes.PARAMETER_STATUS:
            return self._takes_parameter(client)
        elif kind == codes.NOTICE_RESPONSE:
            self._leave_out()
            return True
        elif kind in PREPARED:
            return self._is_mark(kind, now) or self._takes_reply(kind)
        elif kind == codes.ERROR_RESPONSE and (self.pooled or self.refusals):
            return self._replace_error(client)
        if self._blocks is not None and self._blocks.takes(kind, now):
            return True
        return kind == codes.READY_FOR_QUERY and self.session_state.restoring and self._restores(client, now)

    def _takes_parameter(self, client: ClientSession) -> bool:
        """Look at a ParameterStatus; one that came of a RESET may not say what the client's own value is."""
        self.session_state.parameter_changed()
        if not self.session_state.restoring or self._nothing_lost(client):
            client.told = self._server.parameters
            return False
        self._leave_out()
        return True

    def _restores(self, client: ClientSession, now: float) -> bool:
        """Set again what the client asked for at its start and has RESET, before it hears that the server is ready.

        Where more is under way already that cannot be yet; then the client is told what is in force.
        """
        server = self._server
        self.pass_on_run()
        if server.owed.requests or server.status == codes.FAILED:
            client.tell(server.parameters)
            return False
        self.session_state.restoring = False
        if self._nothing_lost(client):
            return False
        server.framer.drop()
        server.between.restore(restoration(client.startup_settings), now)
        return True

    def _nothing_lost(self, client: ClientSession) -> bool:
        """RESET goes back to the client's own values without our doing."""
        return client.startup_settings is NONE_SET or bool(self._server.unshared)

    def _look_at_tag(self) -> None:
        framer = self._server.framer
        tag = bytes(framer.buffer[framer.body_start : framer.body_stop - 1])
        self.session_state.look_at_tag(tag)
        if self.pooled:
            self.preparing.look_at_tag(tag)

    def _takes_reply(self, kind: int) -> bool:
        """Look at a reply to Parse, Close or Describe that has arrived whole."""
        framer = self._server.framer
        fate = self.preparing.pending.reply(kind, framer.body())
        if fate == DROP:
            self._leave_out()
            self.flush_due = False
        elif fate != GOES_ON:
            framer.buffer[framer.position] = fate
        return fate == DROP

    def _leave_out(self) -> None:
        """Keep from the client the message that is being looked at, and nothing before it."""
        self.pass_on_run()
        self._server.framer.drop()

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

    # -- errors that the client is not to have as they are -------------------------------------------------------------

    def _replace_error(self, client: ClientSession) -> bool:
        """Put our error in the place of the server's, if it is one that was meant; or our names of statements right."""
        framer = self._server.framer
        body = framer.body()
        if self.pooled:
            self.preparing.error(body)
        instead = self.refusals.take(body)
        if instead is None and PREFIX in body:
            instead = messages.message(codes.ERROR_RESPONSE, with_names_of_client(body, client.statements))
        if instead is None:
            return False
        self._leave_out()
        if not client.port.write_all(instead):
            self._server.port.pause()
        return True

    def rolled_back(self, now: float) -> None:
        """The transaction block that was refused in statement mode is rolled back."""
        if self._blocks is not None:
            self._blocks.rolled_back(now)
