"""A server connection: login, lease, cleaning, and the end.

Its states are told in `states`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.choices import PoolMode
from pgpooler.errors import PeerError, ProtocolViolation, ServerUnavailable
from pgpooler.pooling.between import APART, OURS, Between
from pgpooler.pooling.cleaning import CLEANING_TIMEOUT, Cleaning
from pgpooler.pooling.dropped import DEALLOCATE_ALL
from pgpooler.pooling.expected import shape_of
from pgpooler.pooling.lease import Lease
from pgpooler.pooling.owed import Owed
from pgpooler.pooling.parameters import NONE_SET, Reported, Settings, reconciliation
from pgpooler.pooling.port import Port, Session
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.pooling.statements import SOMEBODYS, ServerStatements
from pgpooler.pooling.states import ServerState
from pgpooler.pooling.traffic import (
    ASYNCHRONOUS,
    REPLIES,
    REPLIES_AND_NOTIFICATIONS,
    REPLIES_AND_ROWS,
    REPLIES_AND_SHAPES,
    REPLIES_AND_TAGS,
    REPLIES_OUT_OF_TURN,
    SEVERITY_WITHIN,
    TAKEN_LIMIT,
    is_last_error,
)
from pgpooler.protocol import codes, messages
from pgpooler.protocol.framer import Framer

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.pool import Pool
    from pgpooler.pooling.service import Service

PROBE_TIMEOUT = 10.0

LOGIN, IDLE, STARTING, ACTIVE, CLEANING, PROBING, CLOSED, REFUSING, ASKING = ServerState
WATCHED = {
    ASKING: REPLIES_AND_ROWS,
    CLEANING: REPLIES_AND_TAGS,
    REFUSING: REPLIES_AND_NOTIFICATIONS,
    STARTING: REPLIES_AND_SHAPES,
    IDLE: REPLIES_OUT_OF_TURN,
}
"""What is looked at of what is for us; else REPLIES."""


class ServerSession(Session):
    """One connection to PostgreSQL."""

    __slots__ = (
        "asked",
        "between",
        "cancel_key",
        "cancels",
        "cleaning",
        "client",
        "error",
        "expires_at",
        "farewell",
        "framer",
        "idle_since",
        "last_traffic",
        "lease",
        "login",
        "number",
        "owed",
        "parameters",
        "pool",
        "port",
        "process_id",
        "service",
        "settings",
        "state",
        "statements",
        "status",
        "tainted",
        "unshared",
        "until",
        "user",
    )

    def __init__(self, service: Service, pool: Pool, port: Port, number: int, expires_at: float, now: float) -> None:
        super().__init__()
        self.service = service
        self.pool = pool
        self.port = port
        self.number = number
        self.framer = Framer()
        self.owed = Owed()
        self.state = LOGIN
        self.status = codes.IDLE
        self.client: ClientSession | None = None
        self.login: ServerLogin | None = None
        self.user = ""  # who logged in
        self.parameters = Reported.of({})
        self.settings: Settings | None = NONE_SET  # those of clients that are in force on it; None: nobody knows
        self.statements = ServerStatements()
        self.process_id = 0
        self.cancel_key = b""
        self.cancels = 0  # cancel requests on their way whose end is not known yet
        self.cleaning: Cleaning | None = None
        self.lease = Lease(self)
        self.between = Between(self)
        self.asked = ""  # the statement of our own that the server is running
        self.tainted = ""  # why nobody may use the connection after its client
        self.unshared = ""  # why only its client can have it; it is tainted then
        self.error: PeerError | None = None  # the last one that no client was told
        self.farewell = False  # the server has said why it will close the connection
        self.expires_at = expires_at
        self.idle_since = now
        self.last_traffic = now
        self.until = 0.0  # when patience with the login, the cleaning or the probe ends; 0: for ever
        port.session = self

    def __repr__(self) -> str:
        return f"<ServerSession {self.number} {self.state.name} {chr(self.status)} {self.owed!r}>"

    @property
    def mid_message(self) -> bool:
        """A message has been passed on, or dropped, in part."""
        return self.framer.passing > 0

    @property
    def last_word_said(self) -> bool:
        """The client can be told nothing more: it is inside a message, or has the server's last error."""
        return self.mid_message or (self.farewell and self.state == ACTIVE)

    @property
    def kept_by(self) -> str:
        """What keeps it with its client between transactions, for people; empty: nothing."""
        return self.unshared or self.lease.session_state.reason or self.lease.preparing.reason

    def expired(self, now: float) -> bool:
        """The connection is older than server_lifetime."""
        return 0 < self.expires_at <= now

    # -- login ---------------------------------------------------------------------------------------------------------

    def begin(self, login: ServerLogin, until: float) -> None:
        """Send the StartupMessage; the login must be over by `until` (0: no limit)."""
        self.login = login
        self.until = until
        self.service.deadlines.at(until, self)
        self.port.write_all(login.startup())

    def logged_in(self, login: ServerLogin, now: float) -> None:
        """The server let us in and is ready for queries."""
        self.login = None
        self.until = 0.0
        self.process_id, self.cancel_key = login.process_id, login.cancel_key
        self.user = login.user
        self.parameters = Reported.of(login.parameters)
        self.status = login.status
        self.state = IDLE
        self.pool.opened(self, now)

    def fail(self, error: PeerError, now: float) -> None:
        """The login cannot succeed."""
        backend = self.pool.use.backend
        if self.pool.unshared.logins[self] is None:  # otherwise it is about what the client asked for
            where = f"Backend {backend.name} ({backend.host}:{backend.port}) did not let us in."
            error.detail = f"{error.detail} {where}" if error.detail else where
        self.error = error
        self.close(f"login failed: {error.message}", now)

    # -- lease ---------------------------------------------------------------------------------------------------------

    def lend(self, client: ClientSession, now: float) -> None:
        """Belong to this client from now on: first with its parameters set, then its bytes are relayed.

        What the server has begun to say by itself is not for the client: the rest is dropped, in front of an answer.
        """
        self.client = client
        self.error = None  # what nobody was told concerned somebody else
        self.lease.begin(client)
        client.server = self
        unnamed = self.statements.unnamed is not None and client.mode is PoolMode.SESSION  # somebody else's
        if self.settings is client.settings and not self.mid_message and not unnamed:
            self.state = ACTIVE
            client.granted(now)
        else:
            self.between.prepare(reconciliation(self.settings, client.settings), now, client.settings)
        if client.mode is PoolMode.SESSION:
            self.statements.unnamed = SOMEBODYS

    def send_batch(self, asked: str, messages_of_ours: bytes) -> None:
        """Send extended messages of our own, and the Sync that ends them."""
        self.asked = asked
        self.error = None
        self.owed.sent(codes.PARSE)
        self.owed.sent(codes.SYNC)
        self.port.write_all(messages_of_ours + messages.SYNC)

    @property
    def releasable(self) -> bool:
        """Nothing is owed or half asked, and no transaction is open: the lease may end."""
        return self.status == codes.IDLE and self.owed.nothing and not self.framer.passing

    def have_patience(self, seconds: float, now: float) -> None:
        """Close the connection unless it gets on within this time."""
        self.until = now + seconds
        self.service.deadlines.at(self.until, self)

    def release(self, now: float, *, in_part: bool, abrupt: bool) -> None:
        """The client is gone.  `in_part`: it left in the middle of a message; `abrupt`: without Terminate."""
        self.client = None
        self.lease.end()
        self.between.end()
        self.state = CLEANING
        self.have_patience(CLEANING_TIMEOUT, now)
        self.port.resume()
        self.cleaning = Cleaning(self, in_part=in_part, abrupt=abrupt)
        self.cleaning.begin(now)

    def cleaned(self, now: float) -> None:
        """Nobody can tell that a client was here."""
        self.cleaning = None
        self.until = 0.0
        self.state = IDLE
        self.pool.checkin(self, now)

    # -- bytes from the server -----------------------------------------------------------------------------------------

    def receive(self, buffer: bytearray, start: int, stop: int, now: float) -> None:
        """Take what the server sent: for the login, for the client, or to be dropped."""
        self.last_traffic = now
        self.framer.feed(buffer, start, stop)
        try:
            self._receive(now)
        except PeerError as error:
            if self.state == LOGIN:
                self.fail(error, now)
            else:
                self.error = error
                self.close(f"protocol error: {error.message}", now)
        if self.state != CLOSED:
            self.framer.keep()

    def _receive(self, now: float) -> None:
        while True:
            state = self.state
            if state == ACTIVE and self.client is not None:
                self.lease.relay(self.client, now)
            elif state == LOGIN:
                if self.login is not None:
                    self.login.work(self, now)
            elif state != CLOSED:
                self._absorb(now)
            if self.state == state or self.state == CLOSED:
                return

    def _absorb(self, now: float) -> None:
        """Drop everything: it is meant for us, or for a client that is gone."""
        framer = self.framer
        state = self.state
        watched = WATCHED.get(state, REPLIES)
        while self.state == state:
            kind = framer.run(watched)
            if state == IDLE and kind and kind not in ASYNCHRONOUS:
                raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} though it was asked nothing")
            if kind == codes.ERROR_RESPONSE:
                if not framer.take(TAKEN_LIMIT):
                    break
                self.error = messages.read_error(framer.body())
            if not kind or not self.note(kind):
                break
            if kind == codes.NOTIFICATION_RESPONSE and self.client is not None and not self.between.begins:
                self.client.port.write_all(messages.message(kind, framer.body()))
            framer.pass_on()
            framer.passed()
            if kind == codes.READY_FOR_QUERY:
                self._ready(now)
            elif kind == codes.COPY_IN_RESPONSE and self.owed.copy_in and self.cleaning is not None:
                self.cleaning.doom("its client left before it sent the data of a COPY")
            elif self.cleaning is not None and (self.owed.doubt or self.owed.skipping):
                self.cleaning.proceed(now)
            elif state == IDLE and self.farewell:
                # Only here: a session that was in use holds its locks until the server has closed the socket.
                self.close(f"the server ends the connection ({self.error.message if self.error else ''})", now)
        framer.passed()

    def note(self, kind: int) -> bool:
        """Note a watched message; False when it has not arrived whole."""
        framer = self.framer
        if kind == codes.READY_FOR_QUERY:
            if not framer.take(5):
                return False
            self.status = messages.read_ready_for_query(framer.body())
            if not self.owed.ready() and not self.owed.doubt:
                raise ProtocolViolation("the server is ready for a query although none was under way")
        elif kind == codes.NOTIFICATION_RESPONSE:
            return framer.take(TAKEN_LIMIT)
        elif kind == codes.COMMAND_COMPLETE:
            if not framer.take(TAKEN_LIMIT):
                return False
            if framer.body()[:-1] in DEALLOCATE_ALL:
                self.statements.clear()
        elif kind == codes.PARAMETER_STATUS:
            if not framer.take(TAKEN_LIMIT):
                return False
            name, value = messages.read_parameter_status(framer.body())
            self.parameters = self.parameters.changed(name, value)
            if self.state == IDLE:
                self.pool.known.clear()  # the server's own values are others now
            elif self.state == CLEANING:
                self.settings = None  # of the client that is gone, perhaps
        elif kind == codes.ERROR_RESPONSE:
            if not framer.head(SEVERITY_WITHIN):
                return False
            self.farewell = is_last_error(framer.body())
            self.owed.error()
        elif kind == codes.ROW_DESCRIPTION and self.state == STARTING:
            if not framer.take(TAKEN_LIMIT):
                return False
            if self.asked == APART:
                self.between.shape = shape_of(framer.body())
        elif kind == codes.DATA_ROW and self.state == ASKING:
            if not framer.take(TAKEN_LIMIT):
                return False
            self.between.rows.append(framer.body())
        elif kind == codes.COPY_IN_RESPONSE:
            if not framer.take(TAKEN_LIMIT):
                return False
            self.owed.copy_in_response()
        elif kind == codes.COPY_BOTH_RESPONSE:
            self.owed.doubt = "a replication stream ran on the connection"
        else:
            raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} out of place")
        return True

    # -- statements of our own -----------------------------------------------------------------------------------------

    def ask(self, statement: str) -> None:
        """Let the server run a statement of ours."""
        self.asked = statement
        self.error = None
        self.statements.unnamed = None  # a Query ends it
        self.owed.sent(codes.QUERY)
        self.port.write_all(messages.query(statement))

    def _ready(self, now: float) -> None:
        """The server is ready while we, not a client, read its replies."""
        if self.owed.requests:
            return
        asked, self.asked = self.asked, ""
        error = self.error if asked else None
        if self.state in OURS and self.client is not None:
            self.between.answered(self.client, asked, error, now)
        elif error is not None:
            self.close(f"{asked} failed: {error.message}", now)
        elif self.state == PROBING:
            self.state = IDLE
            self.until = 0.0
            self.pool.checkin(self, now, probed=True)
        elif self.cleaning is not None:
            self.cleaning.proceed(now)

    def probe(self, now: float) -> None:
        """Ask for a sign of life."""
        self.state = PROBING
        self.have_patience(PROBE_TIMEOUT, now)
        self.ask(";")

    # -- cancel --------------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Send a cancel request for what the server runs now.  Until its end is known nobody else gets this one."""
        self.cancels += 1
        self.service.effects.cancel(self, self.canceled)

    def canceled(self, settled: bool, now: float) -> None:
        """A cancel request ended; unless in an orderly way, it may still hit what runs next here."""
        self.cancels -= 1
        if not settled:
            self.tainted = "a cancel request for it ended in an unknown way"
        if self.cleaning is not None:
            self.cleaning.canceled(now)
        else:
            self.lease.canceled(now)

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self, reason: str, now: float) -> None:
        """The server closed the connection, or it broke."""
        if self.state == LOGIN:
            self.fail(ServerUnavailable(f"the server ended the connection during the login ({reason})"), now)
            return
        if self.error is not None and self.farewell:
            reason = self.error.message
        self.close(self._doom() or f"the server ended the connection ({reason})", now)

    def hang_up(self, now: float) -> None:
        """The server closed its side while its client is slow: what it sent last is read when the client allows."""

    def drained(self, now: float) -> None:
        """The server reads again: so may we from its client, once it has been let in."""
        if self.client is not None and self.state == ACTIVE:
            self.client.port.resume()

    def tick(self, now: float) -> float:
        """Lose patience with a login, a cleaning or a probe; repeat a cancel request that did not help."""
        cancel_again_at = self.cleaning.tick(now) if self.cleaning is not None else 0.0
        if self.until and now >= self.until:
            if self.state == LOGIN:
                timeout = self.pool.route.server_connect_timeout
                self.fail(ServerUnavailable(f"no login within {timeout:g} s (server_connect_timeout)"), now)
            else:
                self.close(self._doom() or "it did not become ready in time", now)
        return min((when for when in (self.until, cancel_again_at) if when), default=0.0)

    def _doom(self) -> str:
        return self.cleaning.doomed if self.cleaning is not None else ""

    def close(self, reason: str, now: float, *, share: bool = True) -> None:
        """End the connection: tell the server, the pool and the client.  The only way out."""
        if self.state == CLOSED:
            return
        silent = self.last_word_said
        state, self.state = self.state, CLOSED
        client, self.client = self.client, None
        self.until = 0.0
        self.service.deadlines.forget(self)
        if state not in (ACTIVE, LOGIN) and not self._doom() and not self.port.queue:
            self.port.write_all(messages.TERMINATE)
        self.lease.end()
        self.cleaning = None  # a cancel request that ends later has nothing to follow it up
        self.port.close()
        falls_back = self.login is not None and not self.pool.retired and self.login.falls_back(self.error)
        self.service.server_closed(self, reason, failed=state == LOGIN and self.error is not None and not falls_back)
        if falls_back:
            self.pool.unshared.fall_back(self)
        elif state == LOGIN:
            error = self.error or ServerUnavailable(f"server login failed: {reason}")
            self.pool.unshared.login_failed(self, error, now)
        else:
            self.pool.closed(self, now, share)
        if client is not None:
            client.server_lost(None if silent else self._lost(reason), now)

    def _lost(self, reason: str) -> PeerError:
        if self.error is not None:
            return self.error
        backend = self.pool.use.backend
        return ServerUnavailable(
            "server connection was lost", detail=f"Backend {backend.name} ({backend.host}:{backend.port}): {reason}."
        )
