"""A client connection: login, waiting for a server connection, relaying, and the end.

Its states are told in `states`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.errors import PeerError, ProtocolViolation
from pgpooler.pooling.login import ClientLogin, startup_settings
from pgpooler.pooling.port import Port, Session
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes, messages
from pgpooler.protocol.framer import EMPTY, Framer, watching

if TYPE_CHECKING:
    from pgpooler.pooling.pool import Pool
    from pgpooler.pooling.server import ServerSession
    from pgpooler.pooling.service import Service
    from pgpooler.protocol.startup import StartupMessage

# CopyData is the one type that needs no look; everything else is a request whose reply is owed, or an error.
REQUESTS = watching(bytes(set(codes.FRONTEND_TYPES) - {codes.COPY_DATA}), unknown=codes.FRONTEND_TYPES)
SMALL = bytes(
    (
        codes.CLOSE,
        codes.COPY_DONE,
        codes.COPY_FAIL,
        codes.DESCRIBE,
        codes.EXECUTE,
        codes.FLUSH,
        codes.SYNC,
        codes.TERMINATE,
    )
)


STARTUP, AUTHENTICATION, COMPUTING, WAITING, ACTIVE, CANCELING, CLOSED = ClientState


class ClientSession(Session):
    """One client connection.  `number` is unique over the life of the process."""

    __slots__ = (
        "cancel_key",
        "connected_at",
        "counted",
        "framer",
        "last_traffic",
        "leaving",
        "login",
        "number",
        "pool",
        "port",
        "process_id",
        "server",
        "service",
        "startup",
        "state",
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
        self.pool: Pool | None = None
        self.server: ServerSession | None = None
        self.process_id = 0
        self.cancel_key = b""
        self.connected_at = now
        self.counted = False  # against max_client_conn
        self.last_traffic = now
        self.leaving = False  # it said Terminate: once it has got its replies it is done
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
            if self.state == ACTIVE:
                self._forward(now)
        except PeerError as error:
            self.refuse(error, now)

    def _forward(self, now: float) -> None:
        """Note what is owed for each request and pass everything on in one stretch."""
        framer = self.framer
        server = self.server
        if server is None or self.leaving:
            return
        try:
            while True:
                kind = framer.run(REQUESTS)
                if not kind or kind == codes.TERMINATE:
                    break
                self._check(kind)
                server.owed.sent(kind)
                framer.pass_on()
        finally:
            if framer.position > framer.mark:
                if not server.forward(framer.buffer, framer.mark, framer.position):
                    self.port.pause()
                framer.passed()
        if kind == codes.TERMINATE:
            self._check(kind)
            if server.owed.complete:
                self.leaving = True
            else:
                self.depart(now)

    def depart(self, now: float) -> None:
        """The client said Terminate, and has got the replies to everything that it had asked before."""
        self.close("client disconnected", now)

    def _check(self, kind: int) -> None:
        """Refuse what PostgreSQL refuses by its header alone."""
        if kind not in codes.FRONTEND_TYPES:
            raise ProtocolViolation(f"invalid frontend message type {kind}")
        if kind in SMALL and self.framer.length - 1 > codes.SMALL_MESSAGE_LIMIT:
            raise ProtocolViolation("invalid message length")

    def join_pool(self, now: float) -> None:
        """Wait for a server connection of the pool that the rules name now.  Who may not is refused."""
        if self.startup is None:
            return
        try:
            self.pool = self.service.pool_for(self.startup)
            self.pool.clients += 1
            self.state = WAITING
            self.pool.checkout(self, now)
        except PeerError as error:
            self.refuse(error, now)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def preparation(self) -> str:
        """The statement that gives a fresh server connection this client's startup parameters; empty: none."""
        return startup_settings(self.startup) if self.startup is not None else ""

    def granted(self, now: float) -> None:
        """The leased server connection is ready: tell the client so, and go on with what it has sent meanwhile."""
        server = self.server
        if server is None or self.startup is None:
            return
        self.state = ACTIVE
        self.last_traffic = now
        self.process_id = server.process_id
        self.cancel_key = self.service.cancels.mint(self, self.process_id, self.startup.version)
        self.port.write_all(
            b"".join(messages.parameter_status(name, value) for name, value in server.parameters.items())
            + messages.backend_key_data(self.process_id, self.cancel_key)
            + messages.ready_for_query(codes.IDLE)
        )
        if server.pool.route.session_idle_timeout:
            self.service.deadlines.at(now + server.pool.route.session_idle_timeout, self)
        self.resume(now)

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
        return self.state == ACTIVE and server is not None and bool(server.owed.requests)

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self, reason: str, now: float) -> None:
        """The client closed its side or broke off; what it had running is canceled unless it said Terminate before."""
        if self.leaving:
            self.depart(now)
        else:
            self.close(f"client disconnected without Terminate ({reason})", now, abrupt=True)

    def hang_up(self, now: float) -> None:
        """The client closed its side while nothing is read from it: before it was let in, it wants nothing more."""
        if self.state != ACTIVE:
            self.end("while it was waiting", now)

    def drained(self, now: float) -> None:
        """The client reads again: so may we from its server."""
        if self.server is not None:
            self.server.port.resume()

    def tick(self, now: float) -> float:
        """Lose patience with a login, or with a client that has nothing to say."""
        if self.state in (STARTUP, AUTHENTICATION, COMPUTING, CANCELING):
            timeout = self.service.configuration.timeouts.client_login_timeout or 0.0
            if not timeout:
                return 0.0
            if now >= self.connected_at + timeout:
                message = f"terminating connection: the login took longer than {timeout:g} s (client_login_timeout)"
                self.refuse(PeerError(message, sqlstate="08006"), now)
                return 0.0
            return self.connected_at + timeout
        if self.state == ACTIVE and self.server is not None:
            return self._idle_look(self.server, now)
        return 0.0

    def _idle_look(self, server: ServerSession, now: float) -> float:
        timeout = server.pool.route.session_idle_timeout
        if not timeout:
            return 0.0
        quiet_since = max(self.last_traffic, server.last_traffic)
        waits_for_client = self.framer.passing > 0 or server.owed.copy_in  # half a Bind holds a server too
        if (server.owed.requests and not waits_for_client) or now < quiet_since + timeout:
            return max(quiet_since + timeout, now + 0.1)
        message = f"terminating connection due to idle-session timeout ({timeout:g} s, session_idle_timeout)"
        self.refuse(PeerError(message, sqlstate="57P05"), now)
        return 0.0

    def refuse(self, error: PeerError, now: float) -> None:
        """End the connection with an error that the client is told, as FATAL."""
        last_words = b"" if self.server is not None and self.server.mid_message else fatal(error)
        self.close(f"{error.sqlstate} {error.message}", now, last_words=last_words)

    def server_lost(self, error: PeerError | None, now: float) -> None:
        """The server connection ended.  No error: the client has been told, or can be told nothing inside a message."""
        self.server = None
        self.close("server connection was lost", now, last_words=fatal(error) if error is not None else b"")

    def close(self, reason: str, now: float, *, last_words: bytes = b"", abrupt: bool = False) -> None:
        """End the connection: tell the client, the server and the pool.  The only way out.

        `abrupt`: the client left without Terminate, what it had running is canceled.
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
            self.pool.leave(self)
        if server is not None:
            server.release(now, in_part=self.framer.passing > 0, abrupt=abrupt)
        self.service.client_closed(self, reason, now)


def fatal(error: PeerError) -> bytes:
    """Frame the error that ends a client connection: always FATAL, whatever it was where it came from."""
    return messages.error_response(
        PeerError(error.message, sqlstate=error.sqlstate, detail=error.detail, hint=error.hint, severity="FATAL")
    )
