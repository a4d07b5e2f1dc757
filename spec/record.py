"""A recorder between any client and any server: it passes bytes on untouched, and everything it sees is an event.

One task carries each direction of a connection: read some bytes, note them, write them, and only then read again.  So
bytes keep their order, a slow reader slows the writer down as it would without the recorder, and what was noted first
was also on the wire first.  The end of a direction is passed on as such (a half close); a connection that is reset has
ended too.  What a side sends when nobody is left to take it is still noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

from spec.messages import Sender
from spec.trace import Event

Address = tuple[str, int]
Hear = Callable[[Event], None]
Complain = Callable[[str], None]

MOST_BYTES = 64 * 1024  # read at once
BACKLOG = 1024
FLEETING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
PAUSE = 0.1  # seconds until accepting is tried again after one of these


def listen(address: Address) -> socket.socket:
    """Return a socket that listens on an address; OSError if that cannot be."""
    listening = socket.create_server(
        address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=BACKLOG
    )
    listening.setblocking(False)
    return listening


class Recorder:
    """Accepts clients and connects each to `target`; calls `hear` with every event, before it is passed on."""

    def __init__(self, target: Address, hear: Hear, complain: Complain) -> None:
        self._target = target
        self._hear = hear
        self._complain = complain
        self._begun = asyncio.get_running_loop().time()
        self.unreachable = 0
        """How many clients were sent away because the target could not be reached."""

    async def serve(self, listening: socket.socket, most: int | None = None) -> None:
        """Serve until `most` connections are over, or until this is canceled, which cuts all connections."""
        number = 0
        async with asyncio.TaskGroup() as group:
            while most is None or number < most:
                client = await self._accept(listening)
                number += 1
                group.create_task(self._connection(number, client))
            listening.close()

    async def _accept(self, listening: socket.socket) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in FLEETING:
                    raise
                self._complain(f"no client can be accepted just now: {error.strerror}")
                await asyncio.sleep(PAUSE)
            else:
                return client

    async def _connection(self, number: int, client: socket.socket) -> None:
        """Serve one client from beginning to end."""
        with client:
            try:
                server = await connected(self._target)
            except OSError as error:
                self.unreachable += 1
                host, port = self._target
                self._complain(f"connection {number}: {host}:{port} cannot be reached: {reason(error)}")
                return
            with server:
                for side in (client, server):
                    with contextlib.suppress(OSError):
                        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await Relay(self._hear, number, self._begun).carry(client, server)


async def connected(address: Address) -> socket.socket:
    """Return a socket connected to the first address of a host that takes it; OSError if none does."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, place in await loop.getaddrinfo(*address, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, place)
        except OSError as error:
            failure = error
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


def reason(error: OSError) -> str:
    """Return why, in the system's words; the event loop puts its own in their place."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror or str(error)


class Relay:
    """The two directions of one connection."""

    def __init__(self, hear: Hear, number: int, begun: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._hear = hear
        self._number = number
        self._begun = begun
        self._ended: set[Sender] = set()

    async def carry(self, client: socket.socket, server: socket.socket) -> None:
        """Carry both directions until both are over."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._direction(Sender.FRONTEND, client, server))
            group.create_task(self._direction(Sender.BACKEND, server, client))

    async def _direction(self, sender: Sender, source: socket.socket, destination: socket.socket) -> None:
        is_taken = True
        while data := await self._read(source):
            self._note(sender, data)
            if is_taken:
                is_taken = await self._write(destination, data)
            if not is_taken and self._ended:
                return  # the receiver has gone, and all it had sent was delivered
            await asyncio.sleep(0)  # a read and a write that need not wait let nobody else run
        self._ended.add(sender)
        self._note(sender, b"")
        with contextlib.suppress(OSError):
            destination.shutdown(socket.SHUT_WR)

    async def _read(self, source: socket.socket) -> bytes:
        """Return what arrives next, nothing at the end, however that came."""
        try:
            return await self._loop.sock_recv(source, MOST_BYTES)
        except OSError:
            return b""

    async def _write(self, destination: socket.socket, data: bytes) -> bool:
        """Write all of it; say whether somebody was there to take it."""
        try:
            await self._loop.sock_sendall(destination, data)
        except OSError:
            return False
        return True

    def _note(self, sender: Sender, data: bytes) -> None:
        self._hear(Event(self._number, self._loop.time() - self._begun, sender, data))
