"""All pools by key, and what concerns several of them: the backends' caps, reload, and forgetting pools nobody uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgpooler.config.model import Backend
from pgpooler.config.routing import Route
from pgpooler.pooling.backend_use import BackendUse
from pgpooler.pooling.pool import Pool, PoolKey

if TYPE_CHECKING:
    from pgpooler.pooling.service import Service


class Pools:
    """The pools of a service.  A pool is made for its first client and forgotten after its last connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pools: dict[PoolKey, Pool] = {}
        self._uses = {backend.name: BackendUse(backend) for backend in service.configuration.backends}
        self._number = 0
        self.paused = False  # pools that are made later are paused too

    def __iter__(self) -> Iterator[Pool]:
        return iter(list(self._pools.values()))

    def __len__(self) -> int:
        return len(self._pools)

    def get(self, user: str, database: str, route: Route, *, replication: bool) -> Pool:
        """Return the pool for these, made when there is none."""
        key = PoolKey(route.backend.name, database, user, replication)
        pool = self._pools.get(key)
        if pool is None:
            self._number += 1
            pool = self._pools[key] = Pool(self._service, self._number, key, route, self._uses[key.backend])
            pool.paused = self.paused
        return pool

    def forget_unused(self, pool: Pool, now: float) -> None:
        """Forget the pool if it has neither connections nor clients nor a failure to remember."""
        if pool.size or pool.clients:
            return
        if now < pool.retry_at and not pool.retired:
            self._service.deadlines.at(pool.retry_at, pool)
            return
        if self._pools.get(pool.key) is pool:
            del self._pools[pool.key]
        if pool in pool.use.pools:
            pool.use.pools.remove(pool)
        self._service.deadlines.forget(pool)

    def reload(self, now: float) -> None:
        """Fit the pools to a new configuration: other limits apply at once, what has no place any more is closed.

        A client keeps the connection it holds.  A pool whose backend moved, or whose clients now go elsewhere, closes
        its connections as they come back, and new clients get a new pool.
        """
        configuration = self._service.configuration
        uses = {}
        for backend in configuration.backends:
            use = self._uses.get(backend.name)
            if use is None or not _same_server(use.backend, backend):
                use = BackendUse(backend)
            use.backend = backend
            uses[backend.name] = use
        self._uses = uses
        for pool in self:
            route = self._service.router.route(pool.key.user, pool.key.database)
            if route is None or route.backend.name != pool.key.backend or pool.use is not uses[pool.key.backend]:
                self._retire(pool, now)
            else:
                pool.use_route(route)
            pool.trim(now)
        for use in uses.values():
            use.share(now)
        for pool in self:
            pool.grow(now)

    def pause(self, now: float) -> int:
        """Pause every pool; return how many server connections are still in use."""
        self.paused = True
        self._service.auth_queries.pause(now)
        for pool in self:
            pool.pause(now)
        return sum(len(pool.busy) + pool.opening for pool in self)

    def resume(self, now: float) -> None:
        """Let every pool go on."""
        self.paused = False
        self._service.auth_queries.resume(now)
        for pool in self:
            pool.resume(now)

    def _retire(self, pool: Pool, now: float) -> None:
        """Give no connection of this pool to anybody any more; who waits here waits where the new rules say."""
        pool.retired = True
        if self._pools.get(pool.key) is pool:
            del self._pools[pool.key]
        waiting = list(pool.waiters)
        pool.waiters.clear()
        for client in waiting:
            pool.leave(client, now)
            client.join_pool(now)
        self.forget_unused(pool, now)

    def snapshot(self) -> list[dict[str, object]]:
        """Counts and limits of every pool."""
        return [pool.snapshot() for pool in self]

    def backends_snapshot(self) -> list[dict[str, object]]:
        """Counts and caps of every backend."""
        return [
            {
                "name": name,
                "host": use.backend.host,
                "port": use.backend.port,
                "pool_size": use.backend.pool_size,
                "server_connections": use.used,
            }
            for name, use in self._uses.items()
        ]


OF_A_LOGIN = ("host", "port", "user", "password", "tls", "channel_binding", "max_protocol_version")
"""The fields of a Backend by which a connection was made: with others it would be another one."""


def _same_server(one: Backend, other: Backend) -> bool:
    """Connections to the one serve for the other."""
    return all(getattr(one, field) == getattr(other, field) for field in OF_A_LOGIN)
