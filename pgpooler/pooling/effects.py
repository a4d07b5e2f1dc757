"""What sessions and pools ask of the world outside: connecting, slow arithmetic, the log.

`net` does these things for real, the tests in memory.  Nothing here waits: answers come back as calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pgpooler.config.routing import Route
    from pgpooler.errors import PeerError
    from pgpooler.pooling.backend_use import BackendUse
    from pgpooler.pooling.pool import PoolKey
    from pgpooler.pooling.port import Port
    from pgpooler.pooling.server import ServerSession


class Opening(Protocol):
    """Who wants a connection to a backend: a pool, or the lookups of an auth_query."""

    key: PoolKey
    route: Route
    use: BackendUse

    def connected(self, port: Port, now: float) -> None:
        """The network reached the backend."""

    def failed(self, error: PeerError, now: float) -> None:
        """It did not."""


class Effects:
    """The world outside, as `pooling` sees it."""

    def open(self, pool: Opening) -> None:
        """Connect to the pool's backend; answers `pool.connected(port, now)` or `pool.failed(error, now)`."""
        raise NotImplementedError

    def fall_back(self, pool: Opening) -> None:
        """Connect as TLS mode `allow` or `prefer` does after the server refused the first attempt; answers likewise."""
        raise NotImplementedError

    def cancel(self, server: ServerSession, settled: Callable[[bool, float], None]) -> None:
        """Send a cancel request for what the server runs; `settled` learns whether it ended in an orderly way."""
        raise NotImplementedError

    def compute(self, work: Callable[[], object], done: Callable[[object, float], None]) -> None:
        """Do slow arithmetic elsewhere and call `done` with its result, or with the exception it raised."""
        raise NotImplementedError

    def log(self, level: str, session: int, text: str) -> None:
        """Log a line about a session (0: about none); level is debug, info, warning or error."""
        raise NotImplementedError
