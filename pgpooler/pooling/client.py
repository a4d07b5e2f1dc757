"""A client connection: login, waiting for a server connection, relaying, and the end.

Its states are told in `states`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.choices import PoolMode
from pgpooler.errors import PeerError
from pgpooler.pooling import timeouts
from pgpooler.pooling.evidence import LONGEST_READ
from pgpooler.pooling.login import ClientLogin
from pgpooler.pooling.parameters import NONE_SET, Reported
from pgpooler.pooling.port import Port, Session
from pgpooler.pooling.statements import ClientStatements
from pgpooler.pooling.states import ClientState, ServerState
from pgpooler.pooling.traffic import AWAITED, REQUESTS, VOID, check_request, drop_request
from pgpooler.protocol import codes, messages
from pgpooler.protocol.framer import EMPTY, Framer

if TYPE_CHECKING:
    from pgpooler.pooling.access import Entry
    from pgpooler.pooling.pool import Pool
    from pgpooler.pooling.server import ServerSession
    from pgpooler.pooling.service import Service
    from pgpooler.protocol.startup import StartupMessage

CANCELED = messages.error_response(
    PeerError("canceling statement due to user request", sqlstate="57014", severity="ERROR")
) + messages.ready_for_query(codes.IDLE)


STARTUP, AUTHENTICATION, COMPUTING, WAITING, ACTIVE, CANCELING, CLOSED, IDLE, LOOKING_UP = ClientState


class ClientSession(Session):
    """One client connection.  `number` is unique over the life of the process."""

    __slots__ = (
        "cancel_key",
        "connected_at",
        "counted",
        "entry",
        "framer",
        "held",
        "last_traffic",
        "leaving",
        "login",
        "mode",
        "named",
        "number",
        "offence",
        "pool",
        "port",
        "process_id",
        "server",
        "service",
        "settings",
        "startup",
        "startup_settings",
        "state",
        "statements",
        "told",
        "turn",
        "unshared",
        "waiting_since",
        "welcomed",
    )

    def __init__(self, service: Service, port: Port, number: int, now: float) -> None:
        super().__init__()
        self.service = service
        self.port = port
        self.number = number
        self.framer = Framer()
        self.state = STARTUP
        self.login: ClientLogin | None = ClientLogin(self)
        self.startup: StartupMessage | None = None
        self.entry: Entry | None = None  # what was looked up about its user; None: the user is listed
        self.pool: Pool | None = None
        self.server: ServerSession | None = None
        self.process_id = 0
        self.cancel_key = b""
        self.connected_at = now
        self.counted = False  # against max_client_conn
        self.named = False  # counted for its user and its database
        self.last_traffic = now
        self.startup_settings = NONE_SET  # what it asked for at its start, to which RESET goes back
        self.settings = NONE_SET  # what it has set by now
        self.told = Reported.of({})  # the parameters as it was told last
        self.statements = ClientStatements()
        self.mode = PoolMode.SESSION
        self.unshared = False  # it needs a server connection of its own
        self.waiting_since = now  # when it asked for a server connection last, and
        self.turn = 0  # which in the order of all who asked
        self.welcomed = False  # it has been told that it may begin
        self.held = False  # its next request waits, though it has a server connection
        self.leaving = False  # it said Terminate, or something illegal: once it has got its replies it is done
        self.offence: PeerError | None = None  # what it is told then
        port.session = self

    def __repr__(self) -> str:
        who = f"{self.startup.user}@{self.startup.database}" if self.startup else self.port.peer
        return f"<ClientSession {self.number} {self.state.name} {who}>"

    # -- bytes from the client -----------------------------------------------------------------------------------------

    def receive(self, buffer: bytearray, start: int, stop: int, now: float) -> None:
        """Take what the client sent: for the login, or for the server."""
        self.last_traffic = now
        if self.state == CANCELING or self.leaving:
            return
        self.framer.feed(buffer, start, stop)
        self.proceed(now)
        if self.state != CLOSED:
            self.framer.keep()

    def proceed(self, now: float) -> None:
        """Work on the bytes at hand, as far as the state allows."""
        try:
            if self.login is not None:
                self.login.receive(now)
            if self.state == IDLE:
                self._wake(now)
            if self.state == ACTIVE:
                self._forward(now)
                self.settle(now)
        except PeerError as error:
            if self.state == ACTIVE and self.server is not None and self.server.owed.complete:
                self.leaving, self.offence = True, error  # as PostgreSQL does it has done first what came first
                self.port.pause()
            else:
                self.refuse(error, now)

    def _wake(self, now: float) -> None:
        """Ask for a server connection when a request begins.  What means nothing to an idle server is dropped."""
        framer = self.framer
        while True:
            kind = framer.run(REQUESTS)
            framer.passed()
            if kind not in VOID:
                break
            check_request(kind, self.framer.length)
            framer.pass_on()
            framer.passed()
        if not kind:
            return
        check_request(kind, framer.length)
        if kind in AWAITED and framer.length <= LONGEST_READ and not framer.take(LONGEST_READ):
            return  # half of it needs no server
        if kind == codes.TERMINATE:
            self.depart(now)
        elif self.pool is not None and not self.pool.retired:
            self.mode = self.pool.route.pool_mode
            self._wait(self.pool, now)
        else:
            self.join_pool(now)
        if self.state == WAITING:
            self.port.pause()

    def _forward(self, now: float) -> None:
        """Send the server what was asked; after Terminate leave, once everything is answered."""
        server = self.server
        if server is None or self.leaving:
            return
        if server.lease.forward(self, now):
            if server.owed.complete:
                self.leaving = True
            else:
                self.depart(now)

    def settle(self, now: float) -> None:
        """Nothing may be owed any more: give the server connection back, if the pool mode says so, or leave."""
        server = self.server
        if server is None or self.state != ACTIVE or server.owed.requests:
            return
        if self.leaving:
            self.depart(now)
        elif self.framer.passing:
            return
        elif server.state == ServerState.REFUSING:
            if not server.cancels:  # one under way could hit the ROLLBACK
                server.ask("ROLLBACK")  # now that no message of the client is half sent
        elif self.mode is PoolMode.SESSION or server.state != ServerState.ACTIVE:
            return
        elif not server.releasable:
            if server.owed.doubt:
                server.lease.resolve_doubt(now)
        elif server.lease.session_state.unknown:
            if not server.cancels:
                server.between.ask_for_session_state(now)
        elif server.unshared or server.lease.session_state.pins or server.lease.preparing.keeps:
            self.release_hold(now)
        elif server.lease.session_state.settings_unknown:
            if not server.cancels:
                server.between.ask_for_session_state(now)
        else:
            self.state = IDLE
            self.server = None
            self.last_traffic = now
            self.port.resume()  # the server may have answered before it has read everything
            server.release(now, in_part=False, abrupt=False)
            self.release_hold(now)

    def kept(self, error: PeerError | None, now: float, *, answered: bool = True) -> None:
        """The server has said what is in its session: the lease goes on, or ends, or may not go on (`error`)."""
        if error is not None:
            self.refuse(error, now)
        elif answered:
            self.settle(now)
        else:
            self.release_hold(now)

    def hold(self) -> None:
        """Read no more: the next request has to wait, though the client has a server connection."""
        self.held = True
        self.port.pause()

    def release_hold(self, now: float) -> None:
        """Go on with what was held back."""
        if self.held:
            self.held = False
            self.resume(now)

    def depart(self, now: float) -> None:
        """The client said its last, and has got the replies to everything that it had asked before."""
        if self.offence is not None:
            self.refuse(self.offence, now)
        else:
            self.close("client disconnected", now)

    def join_pool(self, now: float) -> None:
        """Belong to the pool that the rules name now, and wait for a server connection unless none is needed yet.

        Who may not is refused.
        """
        if self.startup is None:
            return
        try:
            left, self.pool = self.pool, None
            if left is not None:
                left.exit(now)
            pool = self.pool = self.service.pool_for(self, self.startup)
            pool.enter(now)
            self.mode = pool.route.pool_mode
            self.unshared = pool.key.replication or pool.unshared.needed_for(self.settings)
            needs_server = self.welcomed or self.mode is PoolMode.SESSION or pool.failure is not None
            known = None if needs_server else pool.known.get(self.settings)
            if known is None:
                self._wait(pool, now)
            else:
                self.state = IDLE
                self._welcome(known, self.number & 0x7FFFFFFF)
                if not self.port.reading:
                    self.resume(now)
        except PeerError as error:
            self.refuse(error, now)

    def _wait(self, pool: Pool, now: float) -> None:
        self.state = WAITING
        self.waiting_since = now
        pool.checkout(self, now)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def granted(self, now: float) -> None:
        """The leased server connection is ready: tell the client so, and go on with what it has sent meanwhile."""
        server = self.server
        if server is None:
            return
        self.state = ACTIVE
        was_held, self.held = self.held, False
        self.last_traffic = now
        if self.welcomed:
            self.tell(server.parameters)
        elif self.mode is PoolMode.SESSION or self.unshared:
            self._welcome(server.parameters, server.process_id)
        else:
            server.pool.remember(self.settings, server.parameters)
            self._welcome(server.parameters, self.number & 0x7FFFFFFF)
        if was_held or not self.port.reading:
            self.resume(now)

    def tell(self, parameters: Reported) -> None:
        """Report the parameters of which the client was told another value, or none (protocol-async)."""
        if self.welcomed and self.told is not parameters:
            self.port.write_all(parameters.status(self.told))
            self.told = parameters

    def _welcome(self, parameters: Reported, process_id: int) -> None:
        """Tell the client that it may begin (protocol-flow-start-up: from ParameterStatus to ReadyForQuery)."""
        if self.startup is None or self.pool is None:
            return
        self.welcomed = True
        self.process_id = process_id
        self.cancel_key = self.service.cancels.mint(self, process_id, self.startup.version)
        self.told = parameters
        self.port.write_all(
            parameters.status({})
            + messages.backend_key_data(process_id, self.cancel_key)
            + messages.ready_for_query(codes.IDLE)
        )
        if self.pool.route.session_idle_timeout:
            self.service.deadlines.at(self.last_traffic + self.pool.route.session_idle_timeout, self)

    def resume(self, now: float) -> None:
        """Read again, beginning with what was kept."""
        self.port.resume()
        self.framer.feed(EMPTY, 0, 0)
        self.proceed(now)
        if self.state != CLOSED:
            self.framer.keep()

    def cancel(self) -> bool:
        """A cancel request with this client's key came; return whether there is something to cancel."""
        server = self.server
        return self.state == ACTIVE and server is not None and bool(server.owed.requests) and not server.asked

    def cancel_waiting(self, now: float) -> None:
        """Answer the request that waits for a server connection as canceled, at once, if it is here whole."""
        try:
            found = drop_request(self.framer)
        except PeerError as error:
            self.refuse(error, now)
            return
        if not found:
            return
        self.port.write_all(CANCELED)
        if self.server is None:  # otherwise it is being made ready, and serves what follows
            if self.pool is not None:
                self.pool.leave(self, now)
            self.state = IDLE
            self.resume(now)

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self, reason: str, now: float) -> None:
        """The client closed its side or broke off; what it had running is canceled unless it said Terminate before."""
        if self.leaving:
            self.depart(now)
        else:
            self.close(f"client disconnected without Terminate ({reason})", now, abrupt=True)

    def hang_up(self, now: float) -> None:
        """The client closed its side while nothing is read from it: before it was let in, it wants nothing more."""
        if not self.welcomed:
            self.end("while it was waiting", now)

    def drained(self, now: float) -> None:
        """The client reads again: so may we from its server."""
        if self.server is not None:
            self.server.port.resume()

    def tick(self, now: float) -> float:
        """Lose patience with a login, a query, a transaction, or a client that has nothing to say."""
        return timeouts.look(self, now)

    def refuse(self, error: PeerError, now: float, *, abrupt: bool = False) -> None:
        """End the connection with an error that the client is told, as FATAL."""
        if self.login is not None:
            self.login.failed(error, now)
        last_words = b"" if self.server is not None and self.server.last_word_said else fatal(error)
        self.close(f"{error.sqlstate} {error.message}", now, last_words=last_words, abrupt=abrupt)

    def server_lost(self, error: PeerError | None, now: float) -> None:
        """The server connection ended.  No error: the client has been told, or can be told nothing inside a message."""
        self.server = None
        self.close("server connection was lost", now, last_words=fatal(error) if error is not None else b"")

    def close(self, reason: str, now: float, *, last_words: bytes = b"", abrupt: bool = False) -> None:
        """End the connection: tell the client, the server and the pool.  The only way out.

        `abrupt`: the client left without Terminate, or has to go: what it had running is canceled.
        """
        if self.state == CLOSED:
            return
        state, self.state = self.state, CLOSED
        server, self.server = self.server, None
        self.login = None
        self.service.deadlines.forget(self)
        if last_words:
            self.port.write_all(last_words)
        if last_words or self.port.queue or self.leaving:
            self.port.finish()
        else:
            self.port.close()
        if state == WAITING and self.pool is not None:
            self.pool.leave(self, now)
        if server is not None:
            server.release(now, in_part=self.framer.passing > 0, abrupt=abrupt)
        self.service.client_closed(self, reason, now)


def fatal(error: PeerError) -> bytes:
    """Frame the error that ends a client connection: always FATAL, whatever it was where it came from."""
    return messages.error_response(
        PeerError(error.message, sqlstate=error.sqlstate, detail=error.detail, hint=error.hint, severity="FATAL")
    )
