"""What all sessions share: configuration, access, routes, pools, cancel keys, deadlines, limits, the way out.

There is one Service in a worker.  It is built by the composition root and changed only by `reload` and `drain`.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgpooler.config.choices import PoolMode
from pgpooler.config.model import Configuration
from pgpooler.config.routing import Route, Router
from pgpooler.errors import CannotConnectNow, FeatureNotSupported, NoRoute, PeerError, TooManyConnections
from pgpooler.pooling.access import Access
from pgpooler.pooling.auth_query.queries import AuthQueries
from pgpooler.pooling.cancel import Cancels
from pgpooler.pooling.client import ClientSession
from pgpooler.pooling.evidence import Texts
from pgpooler.pooling.pools import Pools
from pgpooler.pooling.server import ServerSession
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.pooling.states import ClientState
from pgpooler.pooling.throttle import FailedLogins
from pgpooler.protocol.passwords import Derivation, ScramKeys, Secret, parse_secret

if TYPE_CHECKING:
    from pgpooler.pooling.deadlines import Deadlines
    from pgpooler.pooling.effects import Effects
    from pgpooler.pooling.pool import Pool
    from pgpooler.pooling.port import Port
    from pgpooler.protocol.startup import CancelRequest, StartupMessage

LIFETIME_JITTER = 0.1  # share of server_lifetime by which a connection may end early, so that not all end at once
REMEMBERED_KEYS = 1000


class Service:
    """The pooler, without sockets and without a clock."""

    def __init__(self, configuration: Configuration, access: Access, effects: Effects, deadlines: Deadlines) -> None:
        """Raises ConfigurationError for what this version does not do."""
        self.configuration = configuration
        self.access = access
        self.effects = effects
        self.router = Router(configuration)
        self.deadlines = deadlines
        self.cancels = Cancels()
        self.texts = Texts()
        self.pools = Pools(self)
        self.auth_queries = AuthQueries(self)
        self.clients: dict[int, ClientSession] = {}  # all connections from clients, by number
        self.admitted = 0  # those that count against max_client_conn
        self.by_user: Counter[str] = Counter()  # those who may use a pool, for max_user_client_connections
        self.by_database: Counter[str] = Counter()
        self.servers = 0  # server connections ever made
        self.failed_logins = FailedLogins()
        self.draining = False
        self.scram_keys: OrderedDict[Derivation, ScramKeys] = OrderedDict()
        self._number = 0

    # -- clients -------------------------------------------------------------------------------------------------------

    def accept(self, port: Port, now: float) -> None:
        """A client connected."""
        self._number += 1
        client = ClientSession(self, port, self._number, now)
        self.clients[client.number] = client
        self.deadlines.at(client.tick(now), client)
        self.effects.log("debug", client.number, f"client connected from {port.peer}")

    def admit(self, client: ClientSession) -> None:
        """Count a client that wants to log in.  Raises TooManyConnections, or CannotConnectNow while draining."""
        if self.draining:
            raise CannotConnectNow("PgPooler is shutting down")
        limit = self.configuration.limits.max_client_conn
        if 0 < limit <= self.admitted:
            raise TooManyConnections(
                "sorry, too many clients already", detail=f"max_client_conn is {limit}.", hint="Raise max_client_conn."
            )
        self.admitted += 1
        client.counted = True

    def pool_for(self, client: ClientSession, startup: StartupMessage) -> Pool:
        """Return the pool that serves this client.

        Raises NoRoute, FeatureNotSupported, or TooManyConnections at its first time.
        """
        route = self.router.route(startup.user, startup.database)
        if route is None:
            raise NoRoute(
                f'no route for user "{startup.user}" and database "{startup.database}"',
                hint="Add a rule to the routing that matches them, or a default rule.",
            )
        replication = bool(startup.replication)
        if replication and route.pool_mode is not PoolMode.SESSION:
            raise FeatureNotSupported(
                f"replication connections need pool mode session, and this is a pool in {route.pool_mode} mode",
                hint=f'Add a rule with pool_mode: session for user "{startup.user}" to the routing.',
            )
        if not client.named:
            self._count(startup, route)
            client.named = True
        pool = self.pools.get(startup.user, startup.database, route, replication=replication)
        if client.entry is not None:
            pool.adopt(client.entry)
        return pool

    def _count(self, startup: StartupMessage, route: Route) -> None:
        """Count a client for its user and its database.  Raises TooManyConnections."""
        for kind, name, count, setting in (
            ("user", startup.user, self.by_user, "max_user_client_connections"),
            ("database", startup.database, self.by_database, "max_db_client_connections"),
        ):
            limit = getattr(route, setting)
            if 0 < limit <= count[name]:
                raise TooManyConnections(
                    f'too many connections for {kind} "{name}"',
                    detail=f"{setting} is {limit}.",
                    hint=f"Raise {setting}.",
                )
        self.by_user[startup.user] += 1
        self.by_database[startup.database] += 1

    def client_closed(self, client: ClientSession, reason: str, now: float) -> None:
        """A client connection ended."""
        del self.clients[client.number]
        self.cancels.forget(client.process_id, client.cancel_key)
        startup = client.startup
        if client.counted:
            self.admitted -= 1
        if client.named and startup is not None:
            self.by_user -= Counter((startup.user,))
            self.by_database -= Counter((startup.database,))
        if client.pool is not None:
            client.pool.exit(now)
        who = f" user={startup.user} database={startup.database}" if startup is not None else ""
        level = "info" if startup is not None else "debug"
        self.effects.log(level, client.number, f"closed:{who} client={client.port.peer} reason={reason}")

    def cancel(self, request: CancelRequest, carrier: ClientSession, now: float) -> None:
        """Do what a cancel request asks; its own connection is closed, without an answer, when that is settled."""
        client = self.cancels.find(request.process_id, request.cancel_key)
        if client is not None and client.welcomed and client.state == ClientState.WAITING:
            client.cancel_waiting(now)
            carrier.close(f"cancel request for session {client.number}, which was waiting", now)
            return
        if client is None or client.server is None or not client.cancel():
            carrier.close("cancel request: nothing to cancel", now)
            return
        server = client.server
        server.cancels += 1

        def settled(orderly: bool, now: float) -> None:
            server.canceled(orderly, now)
            carrier.close(f"cancel request for session {client.number}", now)

        self.effects.cancel(server, settled)

    # -- servers -------------------------------------------------------------------------------------------------------

    def log_in(self, pool: Pool, port: Port, now: float) -> None:
        """A connection to the pool's backend stands: log in."""
        self.servers += 1
        route = pool.route
        lifetime = route.server_lifetime
        expires_at = now + lifetime * (1 - LIFETIME_JITTER * random.random()) if lifetime else 0.0  # noqa: S311
        server = ServerSession(self, pool, port, self.servers, expires_at, now)
        timeout = route.server_connect_timeout
        user = route.server_user or pool.key.user
        asked_for = pool.unshared.begin(server)
        login = ServerLogin(pool.use.backend, user, pool.key.database, self._secret(pool, user), asked_for)
        server.begin(login, now + timeout if timeout else 0.0)

    def _secret(self, pool: Pool, user: str) -> Secret | None:
        if pool.route.server_user:
            return parse_secret(pool.route.server_password)
        if pool.entry is not None and not self.access.lists(user):
            return pool.entry.credentials
        return self.access.server_credentials(user)

    def server_closed(self, server: ServerSession, reason: str, *, failed: bool) -> None:
        """A server connection ended; `failed`: it never was of use, which the operator must see to."""
        key = server.pool.key
        backend = server.pool.use.backend
        self.effects.log(
            "warning" if failed else "info",
            0,
            f"server connection {server.number} closed: user={key.user} database={key.database} "
            f"backend={key.backend} ({backend.host}:{backend.port}) process={server.process_id} reason={reason}",
        )

    def pins_changed(self, server: ServerSession) -> None:
        """Something else than before keeps a client's lease beyond its transaction."""
        client = server.client
        if client is not None:
            reason = server.kept_by
            text = f"pinned to server connection {server.number} by {reason}" if reason else "no longer pinned"
            self.effects.log("info", client.number, text)

    def derive(self, derivation: Derivation, done: Callable[[object, float], None], now: float) -> None:
        """Compute SCRAM keys elsewhere, or take those computed before; `done` gets them, or what went wrong."""
        known = self.scram_keys.get(derivation)
        if known is not None:
            self.scram_keys.move_to_end(derivation)
            done(known, now)
            return

        def computed(result: object, now: float) -> None:
            if isinstance(result, ScramKeys):
                self.scram_keys[derivation] = result
                if len(self.scram_keys) > REMEMBERED_KEYS:
                    self.scram_keys.popitem(last=False)
            done(result, now)

        self.effects.compute(derivation.run, computed)

    # -- the operator --------------------------------------------------------------------------------------------------

    def reload(self, configuration: Configuration, access: Access, now: float) -> None:
        """Go on with another configuration.  Raises ConfigurationError and changes nothing when it cannot be used."""
        self.router = Router(configuration)
        self.configuration = configuration
        self.access = access
        self.auth_queries.reload(now)
        self.pools.reload(now)

    def drain(self) -> None:
        """Let nobody in any more."""
        self.draining = True

    def close_clients(self, now: float, *, message: str = "terminating connection due to administrator command") -> int:
        """Close every client with 57P01, inside a message without another byte; return how many."""
        clients = list(self.clients.values())
        for client in clients:
            client.refuse(PeerError(message, sqlstate="57P01"), now)
        return len(clients)

    def close_servers(self, now: float) -> None:
        """Close every server connection, as the last thing the service does."""
        self.auth_queries.close(now)
        for pool in self.pools:
            pool.retired = True
            for server in [*pool.idle, *pool.busy]:
                server.close("PgPooler is shutting down", now)

    def snapshot(self) -> dict[str, object]:
        """Counts of everything, as plain values."""
        return {
            "clients": len(self.clients),
            "admitted": self.admitted,
            "waiting": sum(client.state == ClientState.WAITING for client in self.clients.values()),
            "cancel_keys": len(self.cancels),
            "server_connections_made": self.servers,
            "draining": self.draining,
            "pools": self.pools.snapshot(),
            "backends": self.pools.backends_snapshot(),
            "auth_queries": self.auth_queries.snapshot(),
        }
