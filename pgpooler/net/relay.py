"""The relay: all sockets of the data plane, in a poller of their own that the asyncio loop watches.

asyncio does what it is good at: it accepts, resolves names, connects, keeps time.  No query touches an asyncio object.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from pgpooler.net.poller import Poller
from pgpooler.net.port import SocketPort
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
        self.ports: set[SocketPort] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        loop.add_reader(self.poller.fileno(), self.run_ready)

    def add(self, connection: socket.socket, peer: str) -> SocketPort:
        """Take over a connected, non-blocking socket."""
        port = SocketPort(self, connection, peer)
        self.ports.add(port)
        return port

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
