"""All lookups of a service: finds the backend that the client's route leads to, and asks there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.pooling.auth_query.found import Asker, Found
from pgpooler.pooling.auth_query.pool import AuthQueryPool
from pgpooler.pooling.auth_query.source import Source

if TYPE_CHECKING:
    from pgpooler.pooling.service import Service


class AuthQueries:
    """The lookups by backend; each begins with the first login that needs it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pools: dict[str, AuthQueryPool] = {}
        self._paused = False

    def ask(self, user: str, database: str, asker: Asker, now: float, *, afresh: bool = False) -> None:
        """Look a user up where a client's route leads; `asker` gets what was found, or the error to be told.

        That may be at once.  Where no route leads anywhere nobody is found.
        """
        pool = self._pool(user, database)
        if pool is None:
            self._service.effects.log(
                "info", 0, f'auth_query: no route for user "{user}" and database "{database}", so nobody was asked'
            )
            asker(next((pool.nobody for pool in self._pools.values()), Found()), now)
        else:
            pool.ask(user, asker, now, afresh=afresh)

    def forget(self, user: str) -> None:
        """What was remembered about a user may be out of date."""
        for pool in self._pools.values():
            pool.forget(user)

    def _pool(self, user: str, database: str) -> AuthQueryPool | None:
        service = self._service
        route = service.router.route(user, database)
        if route is None:
            return None
        pool = self._pools.get(route.backend.name)
        if pool is None:
            source = Source.of(service.configuration, route.backend)
            if source is None:
                return None
            pool = self._pools[route.backend.name] = AuthQueryPool(service, source, route)
            pool.paused = self._paused
        pool.route = route
        return pool

    def reload(self, now: float) -> None:
        """Keep connections and caches of the backends for which nothing has changed, and end the others."""
        configuration = self._service.configuration
        backends = {backend.name: backend for backend in configuration.backends}
        for name, pool in list(self._pools.items()):
            backend = backends.get(name)
            if backend is None or Source.of(configuration, backend) != pool.source:
                del self._pools[name]
                pool.retire(now)

    def pause(self, now: float) -> None:
        """Ask nobody any more, with all pools."""
        self._paused = True
        for pool in self._pools.values():
            pool.pause(now)

    def resume(self, now: float) -> None:
        """Go on."""
        self._paused = False
        for pool in self._pools.values():
            pool.resume(now)

    def close(self, now: float) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close(now)

    def snapshot(self) -> list[dict[str, object]]:
        """Counts of every backend that has been asked."""
        return [pool.snapshot() for pool in self._pools.values()]
