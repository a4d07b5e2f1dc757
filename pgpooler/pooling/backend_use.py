"""What the pools of one backend share: the cap over all their server connections, and fairness between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.model import Backend

if TYPE_CHECKING:
    from pgpooler.pooling.pool import Pool
    from pgpooler.pooling.server import ServerSession

FAIRNESS_DELAY = 0.1  # seconds a waiter waits before a busy connection of another pool makes room for it


class BackendUse:
    """How many server connections all pools of one backend have, and the cap over them (0: none)."""

    __slots__ = ("backend", "last_transfer", "pools", "used")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.pools: list[Pool] = []
        self.used = 0
        self.last_transfer = float("-inf")

    @property
    def full(self) -> bool:
        """Another connection would exceed the cap."""
        return 0 < self.backend.pool_size <= self.used

    def make_room(self, wanting: Pool, now: float) -> bool:
        """Close the connection that has been idle longest in another pool; return whether there was one."""
        idle = [pool.idle[0] for pool in self.pools if pool.idle and pool is not wanting]
        if not idle:
            return False
        oldest = min(idle, key=lambda server: server.idle_since)
        oldest.close("makes room for another pool of the backend", now, share=False)  # the room is the asking pool's
        return True

    def oldest_waiting(self, now: float, other_than: Pool) -> Pool | None:
        """Return the pool whose first waiter has waited longest and that may open a connection if there is room."""
        waiting = [
            pool
            for pool in self.pools
            if pool.waiters and pool is not other_than and pool.may_open and now >= pool.retry_at
        ]
        return min(waiting, key=lambda pool: pool.first_wait, default=None)

    def share(self, now: float) -> None:
        """Give room that came free to the pools that wait for it, the longest waiting first."""
        for pool in sorted((pool for pool in self.pools if pool.waiters), key=lambda pool: pool.first_wait):
            pool.grow(now)

    def takes(self, server: ServerSession, now: float) -> bool:
        """Take a connection that comes back to a busy pool for another one whose waiter waits too long.

        At most once per FAIRNESS_DELAY: anything stricter would log in once per transaction.
        """
        pool = server.pool
        other = self.oldest_waiting(now, pool) if pool.waiters and self.full else None
        if other is None or now - other.first_wait < FAIRNESS_DELAY or now - self.last_transfer < FAIRNESS_DELAY:
            return False
        self.last_transfer = now
        pool.busy.add(server)
        server.close("makes room for another pool of the backend", now, share=False)
        other.grow(now)
        pool.grow(now)
        return True
