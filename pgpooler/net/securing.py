"""Takes TLS up with a server, as its client: the request, the handshake, and what each mode tries (libpq-ssl)."""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from typing import Final

from pgpooler.config.choices import TlsMode
from pgpooler.config.model import Backend
from pgpooler.config.tls_files import words
from pgpooler.net.tunnel import Tunnel
from pgpooler.protocol import codes

PIECE: Final = 16 * 1024  # bytes received at a time
SSL_REQUEST: Final = (8).to_bytes(4) + codes.SSL_REQUEST.to_bytes(4)
YES: Final = b"S"
NO: Final = b"N"


class NoTls(ConnectionError):
    """There is no TLS with this server: it does not offer it, or is not whom we want to talk to."""


class Attempt(enum.Enum):
    """How a connection is attempted."""

    PLAIN = enum.auto()
    TLS = enum.auto()


PLAIN, TLS = Attempt

ATTEMPTS: Final = {
    TlsMode.DISABLE: (PLAIN,),
    TlsMode.ALLOW: (PLAIN, TLS),
    TlsMode.PREFER: (TLS, PLAIN),
    TlsMode.REQUIRE: (TLS,),
    TlsMode.VERIFY_CA: (TLS,),
    TlsMode.VERIFY_FULL: (TLS,),
}
"""What is tried, in this order: the second where the server refuses the first (libpq-connect-sslmode)."""


def attempts(backend: Backend) -> tuple[Attempt, ...]:
    """What is tried with this backend; over a unix socket nothing is encrypted."""
    return (PLAIN,) if backend.host.startswith("/") else ATTEMPTS[backend.tls.mode]


class Securing:
    """The handshakes with servers.  One step of one of them per turn of the event loop: queries are in a hurry."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turn = asyncio.Lock()

    async def secure(self, connection: socket.socket, context: ssl.SSLContext, host: str | None) -> Tunnel | None:
        """Ask for TLS and shake hands; None if the server does not offer it.  Raises OSError, NoTls if it fails.

        Of the answer only one byte is read, so that what stands behind it counts as part of the handshake, which it
        then breaks: nothing that came unencrypted is ever taken for encrypted.
        """
        await self._loop.sock_sendall(connection, SSL_REQUEST)
        said = await self._loop.sock_recv(connection, 1)
        if said == NO:
            return None
        if said != YES:
            raise NoTls(f"the server answered the request for TLS with {said!r}" if said else "the server hung up")
        tunnel = Tunnel(context, host)
        try:
            while not await self._step(tunnel):
                await self._send(connection, tunnel)
                received = await self._loop.sock_recv(connection, PIECE)
                if not received:
                    raise NoTls("the server ended the connection during the TLS handshake")
                tunnel.incoming.write(received)
        except ssl.SSLError as error:
            await self._send(connection, tunnel)  # the alert that says why
            raise NoTls(f"no TLS with the server: {words(error)}") from None
        await self._send(connection, tunnel)
        return tunnel

    async def _step(self, tunnel: Tunnel) -> bool:
        async with self._turn:
            await asyncio.sleep(0)
            return tunnel.shake()

    async def _send(self, connection: socket.socket, tunnel: Tunnel) -> None:
        records = tunnel.outgoing.read()
        if records:
            await self._loop.sock_sendall(connection, records)

    async def ask(self, connection: socket.socket, tunnel: Tunnel, request: bytes) -> bytes:
        """Send a request; return the first byte of what the server says to it, b"" if it ends the connection."""
        tunnel.tls.write(request)
        await self._send(connection, tunnel)
        while True:
            try:
                return tunnel.tls.read(1)
            except ssl.SSLWantReadError:
                received = await self._loop.sock_recv(connection, PIECE)
            except ssl.SSLError as error:
                raise NoTls(words(error)) from None
            if not received:
                return b""
            tunnel.incoming.write(received)
