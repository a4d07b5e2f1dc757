"""When patience with a client ends: its login, its query, its transaction, its silence.

Each limit is one row of `LIMITS`: a setting of the route, since when it counts, and what happens.  The client's `tick`
looks at those that concern it now; nothing is done per query but to ask for a look.  SQLSTATEs are PostgreSQL's
(runtime-config-client, errcodes-appendix).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgpooler.config.choices import PoolMode
from pgpooler.config.routing import Route
from pgpooler.errors import PeerError
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.server import ServerSession

IN_LOGIN = (
    ClientState.STARTUP,
    ClientState.LOOKING_UP,
    ClientState.AUTHENTICATION,
    ClientState.COMPUTING,
    ClientState.CANCELING,
)
CANCELED_QUERY = b"\0C57014\0"
"""What every error of a canceled query holds, in whatever language (protocol-error-fields)."""

# -- since when; 0: not now --------------------------------------------------------------------------------------------


def _query(client: ClientSession, server: ServerSession) -> float:
    return server.lease.busy_since if server.owed.ready_due and not server.asked else 0.0


def _transaction(client: ClientSession, server: ServerSession) -> float:
    return server.lease.transaction_since if in_transaction(client, server) else 0.0


def _idle_transaction(client: ClientSession, server: ServerSession) -> float:
    """Half a Bind holds a server too: what counts is who waits for whom, not the transaction status."""
    if not in_transaction(client, server) or not waits_for_client(client, server):
        return 0.0
    return max(client.last_traffic, server.last_traffic)


def _pinned(client: ClientSession, server: ServerSession) -> float:
    if not server.kept_by or client.mode is PoolMode.SESSION or in_transaction(client, server):
        return 0.0
    return max(client.last_traffic, server.last_traffic)


def in_transaction(client: ClientSession, server: ServerSession) -> bool:
    """A transaction is open, or a request under way."""
    return server.status != codes.IDLE or not server.owed.nothing or client.framer.passing > 0


def waits_for_client(client: ClientSession, server: ServerSession) -> bool:
    """The server can do nothing before the client sends more, or nothing that the client would hear of."""
    return client.framer.passing > 0 or server.owed.copy_in or not (server.owed.ready_due or server.lease.flush_due)


# -- what happens ------------------------------------------------------------------------------------------------------


def _cancel_query(client: ClientSession, server: ServerSession, limit: float, now: float) -> None:
    """Cancel what runs; a server that does not heed it within as long again loses its client."""
    if server.lease.overdue:
        _end("57014", "terminating connection due to query timeout ({:g} s, query_timeout): the query does not end")(
            client, server, limit, now
        )
        return
    server.lease.overdue = True
    server.lease.busy_since = now
    message = f"canceling statement due to query timeout ({limit:g} s, query_timeout)"
    server.lease.refusals.replace(CANCELED_QUERY, PeerError(message, sqlstate="57014", severity="ERROR"))
    server.cancel()


Action = Callable[["ClientSession", "ServerSession", float, float], None]


def _end(sqlstate: str, message: str) -> Action:
    def end(client: ClientSession, server: ServerSession, limit: float, now: float) -> None:
        client.refuse(PeerError(message.format(limit), sqlstate=sqlstate), now, abrupt=True)

    return end


LIMITS: tuple[tuple[str, Callable[[ClientSession, ServerSession], float], Action], ...] = (
    ("query_timeout", _query, _cancel_query),
    (
        "transaction_timeout",
        _transaction,
        _end("25P04", "terminating connection due to transaction timeout ({:g} s, transaction_timeout)"),
    ),
    (
        "idle_transaction_timeout",
        _idle_transaction,
        _end("25P03", "terminating connection due to idle-in-transaction timeout ({:g} s, idle_transaction_timeout)"),
    ),
    (
        "pinned_idle_timeout",
        _pinned,
        _end("57P05", "terminating connection due to idle-session timeout while pinned ({:g} s, pinned_idle_timeout)"),
    ),
)
"""In the order in which they are looked at."""


def shortest(route: Route) -> float:
    """Return the shortest limit on a lease, 0 when there is none."""
    return min((limit for name, _, _ in LIMITS if (limit := getattr(route, name))), default=0.0)


def look(client: ClientSession, now: float) -> float:
    """End or cancel what has taken too long; return when to look next, 0 for not before something happens."""
    if client.state in IN_LOGIN:
        return _login(client, now)
    if client.pool is None or not client.welcomed:
        return 0.0
    route, server = client.pool.route, client.server
    leased = server is not None and client.state == ClientState.ACTIVE and client.pool.patience
    again = _look_at_lease(client, server, route, now) if leased and server is not None else []
    if route.session_idle_timeout and client.service.clients.get(client.number) is client:
        again.append(_idle_session(client, route.session_idle_timeout, now))
    return min((when for when in again if when), default=0.0)


def _look_at_lease(client: ClientSession, server: ServerSession, route: Route, now: float) -> list[float]:
    """Look at the limits one after the other, until one of them has ended the lease; return when to look next."""
    again = []
    for name, since, act in LIMITS:
        limit = getattr(route, name)
        if not limit or client.server is None:
            continue
        start = since(client, server)
        if start and now >= start + limit:
            act(client, server, limit, now)
            again.append(now + limit)
        elif start:
            again.append(start + limit)
        elif in_transaction(client, server):
            again.append(now + limit)  # it may begin to count without another request
    return again if client.server is not None else []


def _login(client: ClientSession, now: float) -> float:
    timeout = client.service.configuration.timeouts.client_login_timeout or 0.0
    if not timeout:
        return 0.0
    if now >= client.connected_at + timeout and client.state == ClientState.CANCELING:
        client.close(f"a cancel request took longer than {timeout:g} s (client_login_timeout)", now)  # it has no reply
        return 0.0
    if now >= client.connected_at + timeout:
        message = f"terminating connection: the login took longer than {timeout:g} s (client_login_timeout)"
        client.refuse(PeerError(message, sqlstate="08006"), now)
        return 0.0
    return client.connected_at + timeout


def _idle_session(client: ClientSession, timeout: float, now: float) -> float:
    """Lose patience with a client that has nothing to say, whether it holds a server connection or not."""
    server = client.server
    quiet_since, busy = client.last_traffic, client.state == ClientState.WAITING
    if server is not None:
        quiet_since = max(quiet_since, server.last_traffic)
        busy = busy or (bool(server.owed.requests) and not waits_for_client(client, server))
    if busy or now < quiet_since + timeout:
        return max(quiet_since + timeout, now + 0.1)
    message = f"terminating connection due to idle-session timeout ({timeout:g} s, session_idle_timeout)"
    client.refuse(PeerError(message, sqlstate="57P05"), now)
    return 0.0
