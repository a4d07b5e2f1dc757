"""The relay: all sockets of the data plane, in a poller of their own that the asyncio loop watches.

asyncio does what it is good at: it accepts, resolves names, connects, keeps time.  No query touches an asyncio object.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque

from pgpooler.config.tls_files import ClientContext
from pgpooler.net.poller import Poller
from pgpooler.net.port import SocketPort
from pgpooler.net.tls import TlsPort
from pgpooler.net.tunnel import LONGEST_RECORD, Tunnel
from pgpooler.pooling.deadlines import Deadlines

RECEIVE_BUFFER = 256 * 1024  # bytes read at a time, shared by all connections

logger = logging.getLogger("pgpooler.relay")


class Relay:
    """The sockets, the shared buffer, and the one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        self._loop = loop
        self.clock = loop.time
        self.deadlines = deadlines
        self.poller = Poller(loop.time)
        self.buffer = bytearray(RECEIVE_BUFFER)
        self.view = memoryview(self.buffer)
        self.view_of_records = self.view[:-LONGEST_RECORD]  # what it makes readable has room in `view`
        self.tls: ClientContext | None = None  # what clients shake hands with
        self.ports: set[SocketPort] = set()
        self._handshakes: deque[TlsPort] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        loop.add_reader(self.poller.fileno(), self.run_ready)

    def add(self, connection: socket.socket, peer: str, tunnel: Tunnel | None = None) -> SocketPort:
        """Take over a connected, non-blocking socket; `tunnel`: the TLS on it, hands having been shaken."""
        port = SocketPort(self, connection, peer) if tunnel is None else TlsPort(self, connection, peer, tunnel)
        self.ports.add(port)
        return port

    def encrypt(self, port: SocketPort, received: bytes) -> TlsPort:
        """Let a port that speaks TLS, as a server, take the place of this one."""
        if self.tls is None:
            raise RuntimeError("TLS was offered to a client though it is not configured")
        session, queue = port.session, bytes(port.queue)
        port.leave()
        tunnel = Tunnel(self.tls.context, server_side=True)
        successor = TlsPort(self, port.socket, port.peer, tunnel, self.tls.end_point, direct=bool(received))
        successor.address = port.address
        successor.session = session
        successor.queue += queue
        self.ports.add(successor)
        if received:
            successor.take(received)
            self.shake_later(successor)
        return successor

    def shake_later(self, port: TlsPort) -> None:
        """Let the port take the next step of its handshake when it is its turn.

        A step takes as long as many queries: each turn of the event loop sees one, and serves the sockets in between.
        """
        port.pause()
        self._handshakes.append(port)
        if len(self._handshakes) == 1:
            self._loop.call_soon(self._shake_next)

    def _shake_next(self) -> None:
        port = self._handshakes[0]
        now = self.clock()
        try:
            port.shake(now)
        except Exception as error:  # one connection's bug must not end the others
            port.crashed(error, now)
        self._handshakes.popleft()
        if self._handshakes:
            self._loop.call_soon(self._shake_next)
        self.rearm()

    def forget(self, port: SocketPort) -> None:
        """A port is being closed."""
        self.ports.discard(port)
        self.deadlines.forget(port)

    def lingering(self, port: SocketPort) -> None:
        """A port is finishing: close it in time, whatever its peer does."""
        self.deadlines.at(port.until, port)
        self.rearm()

    def run_ready(self) -> None:
        """Serve the sockets that are ready, then set the timer for what came of it."""
        self.poller.run_ready()
        self.rearm()

    def rearm(self) -> None:
        """Set the one timer to the earliest deadline.  To be called after anything that may have made a new one."""
        when = self.deadlines.next()
        if when and (self._timer is None or when < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        try:
            self.deadlines.expire(self.clock())
        except Exception as error:  # a bug in one timeout must not stop the others
            self.report(error, None)
        self.rearm()

    def report(self, error: Exception, port: SocketPort | None) -> None:
        """Log a bug of ours."""
        logger.error("internal error on %s", port or "a timeout", exc_info=error)

    def close(self) -> None:
        """Close every socket and leave the event loop."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self.poller.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for port in list(self.ports):
            port.close()
        self.poller.close()
