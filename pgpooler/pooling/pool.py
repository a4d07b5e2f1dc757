"""One pool: the server connections for one backend, database and user, and the clients that wait for one.

Idle connections are a stack (the warm ones are used, the others age and are closed), waiters a queue.  A connection
that comes back goes to the oldest waiter.  Every waiter is served, refused or timed out; none is lost.

The counts here are the truth about limits: a connection counts from the decision to open it until its socket is closed.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgpooler.config.routing import Route
from pgpooler.errors import CannotConnectNow, PeerError, ServerUnavailable, TooManyConnections
from pgpooler.pooling import timeouts
from pgpooler.pooling.backend_use import BackendUse
from pgpooler.pooling.parameters import NONE_SET, Reported, Settings
from pgpooler.pooling.statements import SharedStatements
from pgpooler.pooling.unshared import Unshared

if TYPE_CHECKING:
    from pgpooler.pooling.access import Entry
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.port import Port
    from pgpooler.pooling.server import ServerSession
    from pgpooler.pooling.service import Service

FIRST_RETRY = 0.1  # seconds until the next attempt after a failed one; doubles each time
LAST_RETRY = 5.0
REMEMBERED_SETTINGS = 1000  # what clients are told at login is remembered for so many different settings
PROBE_AFTER = 60.0  # seconds without traffic after which an idle connection is asked for a sign of life


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What the connections of a pool have in common.

    Replication connections (protocol-replication) are never shared, and have a pool of their own.
    """

    backend: str
    database: str
    user: str
    replication: bool = False


class Pool:
    """The connections and the waiters of one pool key."""

    def __init__(self, service: Service, number: int, key: PoolKey, route: Route, use: BackendUse) -> None:
        self.service = service
        self.number = number
        self.key = key
        self.use_route(route)
        self.use = use
        self.idle: list[ServerSession] = []
        self.busy: set[ServerSession] = set()
        self.opening = 0
        self.clients = 0  # connected clients whose route leads here
        self.waiters: OrderedDict[ClientSession, float] = OrderedDict()  # -> since when
        self.turn = 0  # of the last client that asked for a connection
        self.failure: PeerError | None = None  # of the last attempt to open a connection, if it failed
        self.failures = 0
        self.retry_at = 0.0
        self.known: dict[Settings, Reported] = {}  # what a client with these settings is told at login
        self.statements = SharedStatements()
        self.returned: deque[tuple[ServerSession, bool]] = deque()  # clean, to be handed on one after the other
        self.unshared = Unshared(self)
        self.entry: Entry | None = None  # of the client that logged in last, if its user was looked up
        self.pinned: set[ServerSession] = set()  # those of `busy` that outlast their transaction, or may
        self.reserve_open = False  # somebody has waited reserve_pool_timeout
        self.retired = False  # no longer in the configuration: connections are closed as they come back
        self.paused = False  # by the operator: everybody waits, connections are closed as they come back
        self.due = 0.0
        use.pools.append(self)

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name}: {len(self.idle)} idle, {len(self.busy)} in use, {self.opening} opening, "
            f"{len(self.waiters)} waiting>"
        )

    @property
    def name(self) -> str:
        """The name for people: the rule's, or database, user and backend."""
        return self.route.rule_name or f"{self.key.database}.{self.key.user}.{self.key.backend}"

    @property
    def size(self) -> int:
        """All connections that count against the limits."""
        return len(self.idle) + len(self.busy) + self.opening

    @property
    def limit(self) -> int:
        """Most connections of the pool by its own settings, the reserve included; 0: any number."""
        return self.route.pool_size and self.route.pool_size + self.route.reserve_pool_size

    @property
    def full(self) -> bool:
        """Another connection would exceed the pool's own limit."""
        return 0 < (self.limit if self.reserve_open else self.route.pool_size) <= self.size

    @property
    def may_open(self) -> bool:
        """The pool itself has no reason not to open another connection."""
        return not self.full and not self.retired and not self.paused

    @property
    def minimum(self) -> int:
        """How many connections are kept while the pool has clients."""
        return self.route.min_pool_size if self.clients and not self.key.replication else 0

    @property
    def kept(self) -> list[ServerSession]:
        """The connections that their clients keep between transactions."""
        return [server for server in self.busy if server.kept_by]

    @property
    def first_wait(self) -> float:
        """Since when the first waiter waits."""
        return next(iter(self.waiters.values()))

    def use_route(self, route: Route) -> None:
        """Go by these settings from now on."""
        self.route = route
        # Seconds after which a lease must be looked at; 0: never.  A stream of replication lasts as long as it lasts.
        self.patience = 0.0 if self.key.replication else timeouts.shortest(route)

    def adopt(self, entry: Entry) -> None:
        """Log in to servers with what was looked up about a client's user, unless there is something better.

        That is what was looked up later, or the same secret with the keys of a client that has proved it.
        """
        known = self.entry
        if known is not None and (entry.since < known.since or (entry.secret == known.secret and entry.keys is None)):
            return
        if known is None or known.credentials != entry.credentials:
            self.failure, self.failures, self.retry_at = None, 0, 0.0  # that was with the secret before
        self.entry = entry

    # -- clients -------------------------------------------------------------------------------------------------------

    def enter(self, now: float) -> None:
        """One more client belongs to the pool."""
        self.clients += 1
        self.grow(now)

    def exit(self, now: float) -> None:
        """One client less belongs to the pool."""
        self.clients -= 1
        self._look_again(now)
        self.service.pools.forget_unused(self, now)

    def checkout(self, client: ClientSession, now: float) -> None:
        """Lease a connection to the client now, or let it wait.

        Raises the server's own error while no connection can be opened and none exists, TooManyConnections when
        max_queue clients wait already.
        """
        client.turn = self.turn = self.turn + 1
        if self.idle and not client.unshared and not (self.waiters and self.unshared.first_sharing()):
            self._lease(self.idle.pop(), client, now)
            return
        if self.failure is not None and now < self.retry_at and not self.size:
            raise self.failure
        self.waiters[client] = now
        self.grow(now)
        if 0 < self.route.max_queue < len(self.waiters) - self.opening:  # each opening one is for one of them
            del self.waiters[client]
            raise TooManyConnections(
                f"too many clients wait for a server connection of pool {self.name} (max_queue {self.route.max_queue})",
                hint="Raise pool_size or max_queue, or connect fewer clients.",
            )
        self._look_again(now)

    def wait_again(self, client: ClientSession, now: float) -> None:
        """Let a client to whom its connection was of no use wait in the place it had in the queue."""
        behind = [other for other in self.waiters if other.turn > client.turn]
        self.waiters[client] = client.waiting_since
        for other in behind:
            self.waiters.move_to_end(other)
        self.grow(now)
        self._look_again(now)

    def leave(self, client: ClientSession, now: float) -> None:
        """Let the client wait no longer, because it is gone."""
        self.waiters.pop(client, None)
        if client.unshared:
            self.unshared.leave(client, now)

    def remember(self, settings: Settings, parameters: Reported) -> None:
        """Remember what a client with these settings is told at login, so that the next one needs no server for it."""
        self.known[settings] = parameters
        if len(self.known) > REMEMBERED_SETTINGS:
            del self.known[next(known for known in self.known if known is not NONE_SET)]  # the oldest

    def _lease(self, server: ServerSession, client: ClientSession, now: float) -> None:
        self.busy.add(server)
        server.lend(client, now)

    # -- server connections --------------------------------------------------------------------------------------------

    def grow(self, now: float) -> None:
        """Open connections for waiters and up to min_pool_size, as the limits and the pause after a failure allow."""
        while (wanted := self.unshared.wanted) or self.size < self.minimum:
            self.unshared.make_room(now)
            if not self.may_open:
                return
            if now < self.retry_at:
                self.service.deadlines.at(self.retry_at, self)
                return
            if self.use.full and not (wanted and self.use.make_room(self, now)):
                return
            self.opening += 1
            self.use.used += 1
            self.service.effects.open(self)

    def connected(self, port: Port, now: float) -> None:
        """The network reached the backend: log in over this port."""
        self.service.log_in(self, port, now)

    def opened(self, server: ServerSession, now: float) -> None:
        """The server let us in."""
        self.failure = None
        self.failures = 0
        self.retry_at = 0.0
        self.opening -= 1
        if self.unshared.opened(server, now):
            return
        if self.known.get(NONE_SET) is not server.parameters:  # another server, or another configuration of the same
            self.known = {NONE_SET: server.parameters}
            self.unshared.forget()
        self.busy.add(server)
        self.checkin(server, now)

    def failed(self, error: PeerError, now: float) -> None:
        """A connection could not be opened.  If the pool has none at all, its waiters are told why."""
        self.opening -= 1
        self.use.used -= 1
        self.failure = error
        delay = min(FIRST_RETRY * 2**self.failures, LAST_RETRY)
        self.failures = min(self.failures + 1, 16)
        self.retry_at = now + delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        if not self.size:
            while self.waiters:
                client, _ = self.waiters.popitem(last=False)
                client.refuse(error, now)
        self.use.share(now)
        self._look_again(now)
        self.service.pools.forget_unused(self, now)

    def checkin(self, server: ServerSession, now: float, *, probed: bool = False) -> None:
        """Take back a clean connection: for the oldest waiter, for another pool that waits too long, or for later.

        `probed`: nobody had it, it only gave a sign of life and returns to its place at the bottom.
        """
        self.returned.append((server, probed))
        if len(self.returned) > 1:  # the loop below is at work, further up in the stack
            return
        while self.returned:
            returned, was_probed = self.returned[0]
            try:
                if returned in self.busy:  # and not closed meanwhile
                    self._take_back(returned, now, was_probed)
            finally:
                self.returned.popleft()

    def _take_back(self, server: ServerSession, now: float, probed: bool) -> None:
        self.busy.discard(server)
        reason = self.no_place_for(server, now)
        if reason:
            self.busy.add(server)
            server.close(reason, now)
            return
        if self.use.takes(server, now):
            return
        client = self.unshared.next_taker(now) if self.waiters else None
        if client is not None and not client.unshared:
            del self.waiters[client]
            self._lease(server, client, now)
            return
        if client is None:
            self.reserve_open = False
        if probed:
            self.idle.insert(0, server)
        else:
            self.idle.append(server)
            server.idle_since = now
        self.use.share(now)
        while self.idle and (client := self.unshared.first_sharing()) is not None:
            del self.waiters[client]
            self._lease(self.idle.pop(), client, now)
        self._look_again(now)

    def no_place_for(self, server: ServerSession, now: float) -> str:
        """Say why a connection that comes back is to be closed; empty: it stays."""
        cap = self.use.backend.pool_size
        if not server.releasable or server.tainted:
            return server.owed.doubt or server.tainted or "the server is not idle"
        if self.retired:
            return "no longer configured"
        if server.expired(now):
            return "server_lifetime is over"
        if self.paused:
            return "the pool is paused"
        if 0 < self.limit <= self.size or 0 < cap < self.use.used:
            return "the limits were lowered"
        return ""

    def closed(self, server: ServerSession, now: float, share: bool = True) -> None:
        """The connection's socket is closed: its place is free."""
        if server in self.busy:
            self.busy.remove(server)
        else:
            self.idle.remove(server)
        self.use.used -= 1
        if share:
            self.use.share(now)
        if self.size < self.minimum:  # not at once: a server that ends every connection would be asked without end
            self.service.deadlines.at(now + FIRST_RETRY, self)
        self.service.pools.forget_unused(self, now)

    def trim(self, now: float) -> None:
        """Close idle connections that have no place any more after a change of limits; let the others be looked at."""
        cap = self.use.backend.pool_size
        while self.idle and (self.retired or 0 < self.limit < self.size or 0 < cap < self.use.used):
            self.idle[0].close("the configuration changed", now)
        self._look_again(now)

    def pause(self, now: float) -> None:
        """Lease nothing any more: idle connections are closed now, the others as they come back, clients wait."""
        self.paused = True
        while self.idle:
            self.idle[0].close("the pool is paused", now)

    def resume(self, now: float) -> None:
        """Serve those who wait, and go on."""
        self.paused = False
        self.grow(now)
        self._look_again(now)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> float:
        """Time out waiters, close connections idle too long, probe quiet ones; return when to look next."""
        wait, limit = self.route.query_wait_timeout, self.route.server_idle_timeout
        self.reserve_open = self.reserve_open or 0 < self._reserve_due() <= now
        while wait and self.waiters and now >= self.first_wait + wait:
            client, _ = self.waiters.popitem(last=False)
            client.refuse(self._waited_too_long(), now)
        for server in [server for server in self.idle if limit and now >= server.idle_since + limit]:
            if self.size > self.minimum:
                server.close("server_idle_timeout", now)
        for server in [server for server in self.idle if server.expired(now)]:
            server.close("server_lifetime is over", now)
        for server in [server for server in self.idle if now >= server.last_traffic + PROBE_AFTER]:
            self.idle.remove(server)
            self.busy.add(server)
            server.probe(now)
        self.grow(now)
        self.service.pools.forget_unused(self, now)
        return self._next_look(now)

    def _next_look(self, now: float) -> float:
        route = self.route
        times = [server.last_traffic + PROBE_AFTER for server in self.idle]
        if route.server_idle_timeout and self.size > self.minimum:
            times += [server.idle_since + route.server_idle_timeout for server in self.idle]
        times += [server.expires_at for server in self.idle if server.expires_at]
        if self.waiters and route.query_wait_timeout:
            times.append(self.first_wait + route.query_wait_timeout)
        if self.retry_at > now:
            times.append(self.retry_at)
        if not self.reserve_open and (due := self._reserve_due()):
            times.append(due)
        return min(times, default=0.0)

    def _reserve_due(self) -> float:
        """When the reserve is opened for the first waiter; 0: there is no reserve, or nobody waits."""
        route = self.route
        usable = route.reserve_pool_size and route.reserve_pool_timeout and self.waiters
        return self.first_wait + route.reserve_pool_timeout if usable else 0.0

    def _look_again(self, now: float) -> None:
        self.service.deadlines.at(self._next_look(now), self)

    def _waited_too_long(self) -> PeerError:
        timeout = self.route.query_wait_timeout
        if self.paused:
            return CannotConnectNow(
                f"pool {self.name} is paused, and was not resumed within {timeout:g} s (query_wait_timeout)"
            )
        if self.failure is not None and not self.busy:
            return ServerUnavailable(
                f"no server connection could be opened within {timeout:g} s (query_wait_timeout)",
                sqlstate=self.failure.sqlstate,
                detail=self.failure.message,
            )
        return TooManyConnections(
            f"no server connection of pool {self.name} became free within {timeout:g} s (query_wait_timeout)",
            detail=f"{len(self.busy)} are in use ({len(self.kept)} pinned), pool_size is {self.route.pool_size}, "
            f"backend {self.key.backend} allows {self.use.backend.pool_size or 'any number'}.",
            hint="Raise pool_size or query_wait_timeout, or use fewer connections at a time.",
        )

    # -- for people ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """Counts and limits, as plain values."""
        return {
            "id": self.number,
            "name": self.name,
            "backend": self.key.backend,
            "database": self.key.database,
            "user": self.key.user,
            "replication": self.key.replication,
            "pool_mode": str(self.route.pool_mode),
            "pool_size": self.route.pool_size,
            "idle": len(self.idle),
            "in_use": len(self.busy),
            "opening": self.opening,
            "waiting": len(self.waiters),
            "pinned": [
                {"server": server.number, "client": server.client.number, "reason": server.kept_by}
                for server in sorted(self.kept, key=lambda server: server.number)
                if server.client is not None
            ],
            "paused": self.paused,
        }
