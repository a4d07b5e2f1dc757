"""A port over a socket with TLS."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from pgpooler.config.tls_files import ALPN, words
from pgpooler.net import system
from pgpooler.net.port import SocketPort
from pgpooler.net.tunnel import Tunnel
from pgpooler.protocol.client_hello import LONGEST, names_protocols

if TYPE_CHECKING:
    from pgpooler.net.relay import Relay

ANSWERS_LIMIT: Final = 1 << 14
"""Bytes of answers about TLS alone, to some hundred requests for new keys, that a peer gets beyond what it says."""
FIRST_READ: Final = 1 << 14
"""Bytes that are read at a time to begin with; more where most of them were data.

Those of new keys are not, and as many of them as the buffer holds would keep everybody waiting for a third of a second.
"""

logger = logging.getLogger("pgpooler.tls")


class TlsPort(SocketPort):
    """One connected socket, and the TLS on it.  `queue` holds records: what is written is encrypted at once.

    Its session hears nothing before hands are shaken, and what it writes before is lost: nobody could read it.
    """

    __slots__ = ("_answers", "_beginning", "_direct", "_end_point", "_established", "_most", "tunnel")

    def __init__(
        self,
        relay: Relay,
        connection: socket.socket,
        peer: str,
        tunnel: Tunnel,
        end_point: bytes | None = None,
        *,
        direct: bool = False,
    ) -> None:
        """Without `end_point`, hands have been shaken with a server; with it, a client is about to.

        `direct`: the client did not ask before, and has to name the protocol.
        """
        super().__init__(relay, connection, peer)
        self.tunnel = tunnel
        self._end_point = end_point
        self._direct = direct
        self._established = end_point is None
        self._beginning = b""  # of what the client sent
        self._answers = 0  # bytes about TLS alone that the peer has demanded lately
        self._most = FIRST_READ  # bytes read at a time
        if end_point is None:
            self.encryption = tunnel.encryption_of_server()

    # -- what sessions call --------------------------------------------------------------------------------------------

    def write(self, buffer: bytearray | bytes, start: int, stop: int) -> bool:
        """Encrypt buffer[start:stop] and send it after what is queued; return False when some of it is queued."""
        if self.closed or not self._established:
            return True
        try:
            while start < stop:  # OpenSSL may take one record at a time
                start += self.tunnel.tls.write(memoryview(buffer)[start:stop])
        except ssl.SSLError:  # a broken connection takes everything: its end is reported when it is read
            return True
        return self._push()

    def close(self) -> None:
        """Close now; the peer is told, if that is possible at once."""
        if not self.closed and self._established and not self.ending and not self.queue:
            self.tunnel.end()
            records = self.tunnel.outgoing.read()
            self.send(records, 0, len(records))
        super().close()

    def end_writing(self) -> None:
        """Tell the peer, once the queue is out, that nothing more will come."""
        if self._established and not self.ending:
            self.tunnel.end()
            self._push()
        super().end_writing()

    def _push(self) -> bool:
        """Send the records that OpenSSL has made, or queue them."""
        records = self.tunnel.outgoing.read()
        return super().write(records, 0, len(records)) if records else not self.queue

    # -- the handshake -------------------------------------------------------------------------------------------------

    def shake(self, now: float) -> None:
        """Take the next step of the handshake, with what the client has sent."""
        if self.closed or self.session is None:
            return
        self.resume()
        tunnel = self.tunnel
        size = system.receive(self.socket, self.relay.view[:FIRST_READ])
        if size > 0:
            self.take(bytes(self.relay.view[:size]))
        elif size != system.WOULD_BLOCK:
            self._fail("the client closed the connection", now)
            return
        if not tunnel.incoming.pending:
            return
        try:
            done = tunnel.shake()
        except ssl.SSLError as error:
            self._push()  # the alert that says why
            self._fail(words(error), now)
            return
        self._push()
        if done:
            self._accept(now)

    def take(self, received: bytes) -> None:
        """Take what the client sent for its handshake."""
        if len(self._beginning) < LONGEST:
            self._beginning += received
        self.tunnel.incoming.write(received)

    def _accept(self, now: float) -> None:
        """Hands are shaken: see with whom, and go on with what came behind."""
        beginning, self._beginning = self._beginning, b""
        # Python goes on with a client that names other protocols only, as with one that names none.
        if self.tunnel.tls.selected_alpn_protocol() != ALPN and (self._direct or names_protocols(beginning)):
            self._fail(f"it does not name the protocol {ALPN!r} (ALPN)", now)
            return
        try:
            self.encryption = self.tunnel.encryption_of_client(self._end_point or b"")
        except ValueError as error:
            self._fail(str(error), now)
            return
        self._established = True
        if self.tunnel.incoming.pending:
            self._hear(now)

    def _fail(self, reason: str, now: float) -> None:
        logger.info("no TLS with client %s: %s", self.peer, reason)
        self._end(f"TLS handshake failed: {reason}", now)

    # -- what the poller calls -----------------------------------------------------------------------------------------

    def _read(self, now: float) -> None:
        relay = self.relay
        if self.session is None:  # nobody hears it any more
            super()._read(now)
        elif not self._established:
            relay.shake_later(self)
        else:
            size = system.receive(self.socket, relay.view_of_records[: self._most])
            if size > 0:
                self.tunnel.incoming.write(relay.view[:size])
                self._hear(now)
            elif size == 0:  # also without a close_notify: PostgreSQL's messages say themselves how long they are
                self._end("end of file", now)
            elif size == system.BROKEN:
                self._end("connection reset by peer", now)

    def _hang_up(self, now: float) -> None:
        if self._established:  # otherwise its last words may stand behind the handshake, and are read at its turn
            super()._hang_up(now)

    def _hear(self, now: float) -> None:
        """Decrypt all that came into the shared buffer, so that nothing is left behind when the session pauses."""
        relay, tunnel = self.relay, self.tunnel
        view = relay.view
        stop = 0
        end = ""
        try:
            while tunnel.incoming.pending and not end:
                size = cast("int", tunnel.tls.read(len(view), view[stop:]))  # bytes only without a buffer
                stop += size
                if not size:
                    end = "end of file"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            end = "end of file"
        except ssl.SSLError as error:
            end = f"TLS: {words(error)}"
        if tunnel.outgoing.pending:
            self._answers += tunnel.outgoing.pending
            self._most = FIRST_READ
            self._push()
            if self._answers > ANSWERS_LIMIT:
                end = end or "TLS: the peer asks for other keys again and again"
        elif stop > self._most >> 1:
            self._most <<= 1
        if self._answers and stop:
            self._answers = max(0, self._answers - stop)
        session = self.session
        if stop and session is not None:
            session.receive(relay.buffer, 0, stop, now)
        if end and not self.closed:
            self._end(end, now)
