"""A port over a plain socket, TCP or unix."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pgpooler.net import system
from pgpooler.net.poller import ERROR, HANG_UP, PAUSED, READABLE, WRITABLE
from pgpooler.pooling.port import Port

if TYPE_CHECKING:
    from pgpooler.net.relay import Relay

LINGER = 2.0  # seconds a peer gets to read our last words before the socket is closed under it


class SocketPort(Port):
    """One connected, non-blocking socket in the relay's poller."""

    __slots__ = ("batch", "descriptor", "due", "ending", "events", "relay", "socket", "until")

    def __init__(self, relay: Relay, connection: socket.socket, peer: str) -> None:
        super().__init__(peer)
        self.relay = relay
        self.socket = connection
        self.descriptor = connection.fileno()
        self.batch = 0
        self.due = 0.0
        self.ending = False  # nothing more is to be written
        self.until = 0.0  # when a finishing port is closed whatever the peer does
        self.events = READABLE
        relay.poller.register(self.descriptor, self, READABLE)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "finishing" if self.finishing else "open"
        return f"<{type(self).__name__} {self.descriptor} {self.peer} {state} {len(self.queue)} bytes queued>"

    # -- what sessions call --------------------------------------------------------------------------------------------

    def send(self, buffer: bytearray | bytes, start: int, stop: int) -> int:
        """Hand bytes to the kernel.  A broken connection takes everything: its end is reported when it is read."""
        accepted = system.send(self.socket, buffer, start, stop)
        if accepted >= 0:
            return accepted
        return 0 if accepted == system.WOULD_BLOCK else stop - start

    def pause(self) -> None:
        """Stop reading."""
        if self.reading:
            self.reading = False
            self._watch()

    def resume(self) -> None:
        """Read again."""
        if not self.reading:
            self.reading = True
            self._watch()

    def encrypt(self, received: bytes) -> Port:
        """Hand the socket over to a port that speaks TLS."""
        return self.relay.encrypt(self, received)

    def want_write(self) -> None:
        """Be told when the kernel takes bytes again."""
        self._watch(queued=True)

    def close(self) -> None:
        """Close now."""
        if not self.closed:
            self.leave()
            self.socket.close()

    def leave(self) -> None:
        """Have nothing more to do with the socket, which stays open."""
        self.closed = True
        self.session = None
        self.queue.clear()
        self.relay.forget(self)
        self.relay.poller.unregister(self.descriptor)

    def finish(self) -> None:
        """Close when the queue is out and the peer has closed its side, or after LINGER seconds.

        Closing at once, with bytes of the peer unread, would reset the connection and take our last words with it.
        """
        if self.closed or self.finishing:
            return
        self.finishing = True
        self.session = None
        self.reading = True
        self.until = self.relay.clock() + LINGER
        self.relay.lingering(self)
        self._watch()
        self.end_writing()

    def end_writing(self) -> None:
        """Shut our direction down, once the queue is out."""
        self.ending = True
        if not self.queue:
            self._shut()

    def _watch(self, *, queued: bool = False) -> None:
        events = READABLE if self.reading else PAUSED
        if queued or self.queue:
            events = READABLE | WRITABLE if self.reading else WRITABLE | PAUSED
        if events != self.events and not self.closed:
            self.events = events
            self.relay.poller.modify(self.descriptor, events)

    def _shut(self) -> None:
        """Say that nothing more will come."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            if self.session is None:  # otherwise it hears of the end when it is read
                self.close()

    # -- what the poller calls -----------------------------------------------------------------------------------------

    def ready(self, events: int, now: float) -> None:
        """Write what is queued, then read once."""
        if events & WRITABLE and self.queue:
            if self.flush():
                self._watch()
                if self.ending:
                    self._shut()
                elif self.session is not None:
                    self.session.drained(now)
            if self.closed:
                return
        if self.reading:
            self._read(now)
        elif events & ERROR:
            self._end("connection reset by peer", now)
        elif events & HANG_UP:
            self._hang_up(now)

    def _hang_up(self, now: float) -> None:
        if self.session is not None:
            self.session.hang_up(now)

    def _read(self, now: float) -> None:
        relay = self.relay
        size = system.receive(self.socket, relay.view)
        session = self.session
        if size > 0:
            if session is not None:
                session.receive(relay.buffer, 0, size, now)
        elif size == 0:
            self._end("end of file", now)
        elif size == system.BROKEN:
            self._end("connection reset by peer", now)

    def _end(self, reason: str, now: float) -> None:
        session = self.session
        if session is None:
            self.close()
        else:
            session.end(reason, now)
            self.close()

    def crashed(self, error: Exception, now: float) -> None:
        """A bug of ours: end this connection, and log it."""
        self.relay.report(error, self)
        session = self.session
        if session is not None:
            try:
                session.end("internal error", now)
            except Exception as another:  # what is broken may not even end well; the poller must go on
                self.relay.report(another, self)
        self.close()

    def tick(self, now: float) -> float:
        """Close a finishing port whose peer took too long."""
        if now >= self.until:
            self.close()
            return 0.0
        return self.until
