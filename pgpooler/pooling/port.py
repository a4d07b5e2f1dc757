"""What a session sees of its connection: a way out with a queue, and reading that can be paused.

`net` derives a port over a socket, the tests one in memory.  Sessions never see a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate that a client proved to hold, verified against our certificate authorities."""

    subject: str  # the distinguished name as RFC 2253 writes it, last attribute first: `CN=alice,O=Shop`
    common_name: str  # "" if it has none


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a connection is encrypted, once its TLS handshake is over.

    `end_point` is what channel binding `tls-server-end-point` binds to (RFC 5929): on a client's port the digest of our
    certificate, on a server's port that of the server's, b"" where no binding can be.
    """

    protocol: str  # "TLSv1.3"
    cipher: str  # "TLS_AES_256_GCM_SHA384"
    end_point: bytes = b""
    certificate: ClientCertificate | None = None  # None on a server's port, and where a client showed none


class Session:
    """What a port talks to: a client session or a server session.

    `due` belongs to `Deadlines`: the time at which `tick` will be called, 0 for none.
    """

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = 0.0

    def receive(self, buffer: bytearray, start: int, stop: int, now: float) -> None:
        """Take buffer[start:stop], which the peer sent.  The buffer is borrowed until the call returns."""
        raise NotImplementedError

    def end(self, reason: str, now: float) -> None:
        """The peer is gone: it closed its side, or the connection broke.  Everything it sent has been received."""
        raise NotImplementedError

    def hang_up(self, now: float) -> None:
        """The peer closed its side while reading is paused: what it sent last may still be unread."""
        raise NotImplementedError

    def drained(self, now: float) -> None:
        """The queue towards the peer, which was not empty, is empty again."""
        raise NotImplementedError

    def tick(self, now: float) -> float:
        """Look at the clock; return when to look next, 0 for never."""
        raise NotImplementedError


class Port:
    """One connection, as its session sees it.

    `send` is what a kind of connection must do; `write` adds the queue: what the peer does not take now goes out first
    once it does.  Writing to a closed port is allowed and does nothing, so that no caller must ask first.
    """

    __slots__ = ("address", "closed", "encryption", "finishing", "peer", "queue", "reading", "session")

    def __init__(self, peer: str) -> None:
        self.session: Session | None = None
        self.peer = peer  # address of the other end, for people, and
        self.address: IPv4Address | IPv6Address | None = None  # as a value where it is a client's; None: unix socket
        self.encryption: Encryption | None = None  # None: nobody has encrypted it
        self.queue = bytearray()
        self.reading = True
        self.finishing = False
        self.closed = False

    def send(self, buffer: bytearray | bytes, start: int, stop: int) -> int:
        """Hand buffer[start:stop] to the connection; return how many bytes it took, 0 when it takes none now.

        A broken connection takes everything: its end is reported by the reading side, once.
        """
        raise NotImplementedError

    def pause(self) -> None:
        """Stop reading.  The end of the peer is still noticed."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read again."""
        raise NotImplementedError

    def want_write(self) -> None:
        """Ask for `flush` to be called when the connection takes bytes again."""
        raise NotImplementedError

    def close(self) -> None:
        """Close at once; what is queued is lost.  The session hears no more of this port."""
        raise NotImplementedError

    def finish(self) -> None:
        """Close when the queue is out and the peer had time to read it.  The session hears no more of this port."""
        raise NotImplementedError

    def end_writing(self) -> None:
        """Tell the peer, after what is queued, that nothing more will come; go on reading what it says."""
        raise NotImplementedError

    def write(self, buffer: bytearray | bytes, start: int, stop: int) -> bool:
        """Send buffer[start:stop] after what is queued; return False when some of it had to be queued."""
        if self.closed:
            return True
        if not self.queue:
            start += self.send(buffer, start, stop)
            if start == stop:
                return True
            self.want_write()
        self.queue += memoryview(buffer)[start:stop]
        return False

    def write_all(self, message: bytes) -> bool:
        """`write` a whole message of our own."""
        return self.write(message, 0, len(message))

    def flush(self) -> bool:
        """Send from the queue; return True when it is empty."""
        accepted = self.send(self.queue, 0, len(self.queue))
        if accepted:
            del self.queue[:accepted]
        return not self.queue
