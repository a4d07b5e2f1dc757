"""Connects to servers, sends cancel requests, and does slow arithmetic: what must wait, in asyncio tasks.

None of this is on the path of a query.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor

from pgpooler.config.choices import TlsMode
from pgpooler.config.model import Backend, BackendTls
from pgpooler.errors import PeerError, ServerUnavailable
from pgpooler.net.addresses import tune
from pgpooler.net.names import Address, Names
from pgpooler.net.port import SocketPort
from pgpooler.net.relay import Relay
from pgpooler.net.securing import PLAIN, Attempt, NoTls, Securing, attempts
from pgpooler.net.tls import TlsPort
from pgpooler.net.tunnel import Tunnel
from pgpooler.pooling.effects import Effects, Opening
from pgpooler.pooling.port import Port
from pgpooler.pooling.server import ServerSession
from pgpooler.protocol import messages

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

logger = logging.getLogger("pgpooler.sessions")


class Connector(Effects):
    """The world outside, for real."""

    def __init__(self, loop: asyncio.AbstractEventLoop, relay: Relay) -> None:
        self._loop = loop
        self._relay = relay
        self._names = Names(loop)
        self._securing = Securing(loop)
        self.tls: Mapping[BackendTls, ssl.SSLContext] = {}  # what shakes hands with backends of these settings
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="pgpooler-compute")

    # -- Effects -------------------------------------------------------------------------------------------------------

    def open(self, pool: Opening) -> None:
        """Connect to the pool's backend."""
        self._start(self._open(pool, attempts(pool.use.backend)))

    def fall_back(self, pool: Opening) -> None:
        """Connect as the second attempt does."""
        self._start(self._open(pool, attempts(pool.use.backend)[1:]))

    def cancel(self, server: ServerSession, settled: Callable[[bool, float], None]) -> None:
        """Send a cancel request over a connection of its own and see how that ends."""
        request = messages.cancel_request(server.process_id, server.cancel_key)
        timeout = server.pool.route.cancel_wait_timeout
        self._start(self._cancel(server.port, request, timeout, settled))

    def compute(self, work: Callable[[], object], done: Callable[[object, float], None]) -> None:
        """Run `work` in a thread."""
        self._start(self._compute(work, done))

    def log(self, level: str, session: int, text: str) -> None:
        """Log a line about a session."""
        number = LEVELS[level]
        if logger.isEnabledFor(number):
            logger.log(number, text, extra={"session": session})

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # a bug of ours: the other connections go on
            self._relay.report(error, None)
        self._relay.rearm()

    async def _open(self, pool: Opening, ways: tuple[Attempt, ...]) -> None:
        timeout = pool.route.server_connect_timeout
        backend = pool.use.backend
        error: PeerError
        try:
            async with asyncio.timeout(timeout or None):
                connection, peer, tunnel = await self._reach(backend, timeout, ways)
        except TimeoutError:
            error = _unreachable(backend, f"no connection within {timeout:g} s (server_connect_timeout)")
        except OSError as reason:
            error = _unreachable(backend, _words(reason))
        except Exception as bug:  # whatever it is, the pool must hear of an end
            self._relay.report(bug, None)
            error = ServerUnavailable("internal error", sqlstate="XX000", detail=f"Backend {backend.name}.")
        else:
            self._hand_over(pool, self._relay.add(connection, peer, tunnel))
            return
        logger.warning("%s", f"{error.message} {error.detail}")
        pool.failed(error, self._relay.clock())

    async def _reach(
        self, backend: Backend, timeout: float, ways: tuple[Attempt, ...]
    ) -> tuple[socket.socket, str, Tunnel | None]:
        """Connect to a backend, with or without TLS.  Raises OSError, NoTls if there is none and there must be.

        What is tried first, and whether anything else is, is the mode's; each attempt has a connection of its own.
        """
        for number, way in enumerate(ways, 1):
            connection, peer = await self._connect(backend, timeout)
            if way is PLAIN:
                break
            try:
                host = None if backend.host.startswith("/") else backend.host
                tunnel = await self._securing.secure(connection, self._context(backend), host)
            except BaseException as error:
                connection.close()
                if isinstance(error, NoTls) and number < len(ways):
                    logger.info("backend %s: %s; trying without", backend.name, error)
                    continue
                raise
            if tunnel is None and backend.tls.mode is not TlsMode.PREFER:
                connection.close()
                raise NoTls(f"the server does not offer TLS, which mode {backend.tls.mode} demands")
            return connection, peer, tunnel
        return connection, peer, None

    def _context(self, backend: Backend) -> ssl.SSLContext:
        """What shakes hands with a backend.  Raises OSError if a reload has done away with it meanwhile."""
        try:
            return self.tls[backend.tls]
        except KeyError:
            raise ConnectionError("its section tls was changed by a reload") from None

    def _hand_over(self, pool: Opening, port: SocketPort) -> None:
        """Let the pool log in; if a bug of ours keeps it from beginning, its place does not stay taken."""
        try:
            pool.connected(port, self._relay.clock())
        except Exception as error:  # whatever it is, the pool must hear of an end
            self._relay.report(error, port)
            port.close()
            pool.failed(ServerUnavailable("internal error", sqlstate="XX000"), self._relay.clock())

    async def _connect(self, backend: Backend, timeout: float) -> tuple[socket.socket, str]:
        """Connect to the first of the backend's addresses that answers.  Raises the last OSError if none does.

        `timeout` (0: none) is shared out among the addresses, so that one which is silent leaves time for the next.
        """
        if backend.host.startswith("/"):
            path = f"{backend.host}/.s.PGSQL.{backend.port}"
            return await self._connect_to((socket.AF_UNIX, path)), path
        over = self._loop.time() + timeout
        found = await self._names.addresses(backend.host, backend.port)
        failure: OSError = OSError(f"{backend.host} has no address")
        for number, address in enumerate(found):
            share = (over - self._loop.time()) / (len(found) - number)
            try:
                async with asyncio.timeout(share if timeout else None):
                    return await self._connect_to(address), f"{backend.host}:{backend.port}"
            except OSError as error:  # TimeoutError is one
                failure = error
        raise failure

    async def _connect_to(self, place: Address) -> socket.socket:
        family, address = place
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            tune(connection)
            await self._loop.sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _cancel(self, port: Port, request: bytes, timeout: float, settled: Callable[[bool, float], None]) -> None:
        place = _other_end(port)
        orderly = False
        try:
            if place is not None:
                async with asyncio.timeout(timeout or None):
                    with await self._connect_to(place) as connection:
                        orderly = await self._deliver(request, connection, port)
        except OSError as error:  # TimeoutError is one
            logger.warning("a cancel request to %s ended in an unknown way: %s", port.peer, _words(error))
        settled(orderly, self._relay.clock())

    async def _deliver(self, request: bytes, connection: socket.socket, port: Port) -> bool:
        """Send a cancel request as its port sends: nothing of it goes unencrypted over a way that was encrypted.

        Returns whether the server has ended the connection without a word.
        """
        if not isinstance(port, TlsPort):
            await self._loop.sock_sendall(connection, request)
            return await self._loop.sock_recv(connection, 1) == b""
        tunnel = await self._securing.secure(connection, port.tunnel.context, port.tunnel.host)
        if tunnel is None:
            raise NoTls("the server does not offer TLS any more")
        return await self._securing.ask(connection, tunnel, request) == b""

    async def _compute(self, work: Callable[[], object], done: Callable[[object, float], None]) -> None:
        result: object
        try:
            result = await self._loop.run_in_executor(self._threads, work)
        except Exception as error:  # whoever asked is told, whatever it was
            result = error
        done(result, self._relay.clock())

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=True)


def _other_end(port: Port) -> Address | None:
    """The very address that a server connection goes to (its name may stand for several); None if its end is near."""
    if isinstance(port, SocketPort) and not port.closed:
        with contextlib.suppress(OSError):
            return port.socket.family, port.socket.getpeername()
    return None


def _unreachable(backend: Backend, reason: str) -> ServerUnavailable:
    return ServerUnavailable(
        "the server cannot be reached", detail=f"Backend {backend.name} ({backend.host}:{backend.port}): {reason}."
    )


def _words(error: BaseException) -> str:
    """What went wrong, in the system's words: asyncio puts the address there, which people know already."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
