"""Server connections that one client has alone, because of what it asked for in its StartupMessage.

A client's startup parameters are set on a server connection that is there already (`server.lend`).  Where PostgreSQL
answers that it takes one of them only at the start of a connection, the client gets a connection of its own.  It is
opened with everything that the client asked for, and closed when the client leaves: nobody else asked for that.
Replication connections (protocol-replication) are such connections from the start.

Who needs one waits in the queue of the pool with all others (`pool.waiters`).  A connection that comes back is of no
use to it, but its room is.  A connection to a backend is nobody's until the StartupMessage goes out; only then it is
decided who gets it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from pgpooler.errors import PeerError
from pgpooler.pooling.states import ClientState

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.pool import Pool
    from pgpooler.pooling.server import ServerSession

TOO_LATE = "55P02"
"""cant_change_runtime_param: the parameter cannot be set after connection start (errcodes-appendix)."""
REASON = "startup parameters that can be set only at the start of a connection"
REPLICATION = "replication"
SPELT = {"": "", "physical": "true", "logical": "database"}
"""The kinds of replication connections as a StartupMessage asks for them (protocol-replication)."""
CLOSED_AFTER = "it was opened for its client alone, with {}"
MAKES_ROOM = "makes room for a client that needs a server connection of its own"
REMEMBERED = 1000  # so many different settings are known to need a connection of their own


class Unshared:
    """Who of a pool's clients needs a server connection of its own, and which one that is."""

    __slots__ = ("_needed", "_pool", "logins")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._needed: dict[Hashable, None] = {}  # settings of clients that need a connection of their own
        self.logins: dict[ServerSession, ClientSession | None] = {}  # under way -> the client it is for alone

    # -- who needs one -------------------------------------------------------------------------------------------------

    def needed_for(self, settings: Hashable) -> bool:
        """A client with these settings is known to need a connection of its own."""
        return settings in self._needed

    def forget(self) -> None:
        """It is another server now: what it takes when is not known."""
        self._needed.clear()

    def setting_failed(self, server: ServerSession, client: ClientSession, error: PeerError, now: float) -> None:
        """The server did not take the settings of a client: it came too late, or the client is told the error."""
        pool = self._pool
        if error.sqlstate != TOO_LATE or client.unshared or client.state != ClientState.WAITING:
            client.refuse(error, now)
            return
        self._needed[client.settings] = None
        if len(self._needed) > REMEMBERED:
            del self._needed[next(iter(self._needed))]
        pool.known.pop(client.settings, None)
        client.server = None
        if pool.retired:
            client.join_pool(now)
        else:
            client.unshared = True
            pool.wait_again(client, now)
        server.release(now, in_part=False, abrupt=False)

    # -- who is served next --------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Somebody waits for whom no connection is being opened."""
        return self._first_without(self._connecting) is not None

    @property
    def _connecting(self) -> int:
        """How many connections are being opened that are nobody's yet."""
        return self._pool.opening - len(self.logins)

    def _first_without(self, connecting: int) -> ClientSession | None:
        """Return the first waiter for whom there is no login, nor one of so many connections without a login yet."""
        waiters, logins = self._pool.waiters, self.logins
        if not self._pool.opening:
            return next(iter(waiters), None)
        anybody = sum(client is None for client in logins.values())
        for client in waiters:
            if client.unshared and client in logins.values():
                continue
            if anybody and not client.unshared:
                anybody -= 1
            elif connecting:
                connecting -= 1
            else:
                return client
        return None

    def next_taker(self, now: float) -> ClientSession | None:
        """Return who is to be served by a connection that comes back: by the connection itself, or by its room."""
        pool = self._pool
        connecting = self._connecting
        for client in pool.waiters:
            if not client.unshared:
                return client
            if client in self.logins.values():
                continue
            if connecting:
                connecting -= 1
            elif now >= pool.retry_at:
                return client
        return None

    def first_sharing(self) -> ClientSession | None:
        """Return the first waiter whom any connection serves."""
        return next((client for client in self._pool.waiters if not client.unshared), None)

    def make_room(self, now: float) -> None:
        """Close idle connections where a client that needs one of its own finds the limits reached."""
        pool = self._pool
        if pool.idle and self.next_taker(now) is not None:
            while pool.idle and (pool.full or pool.use.full):
                pool.idle[0].close(MAKES_ROOM, now, share=False)

    # -- logins --------------------------------------------------------------------------------------------------------

    def begin(self, server: ServerSession) -> Mapping[str, str]:
        """Decide for whom a connection is that is about to log in; return what is asked for beside user and database.

        That is what the client sent, for whom it is alone, as the client sent it; otherwise nothing.
        """
        client = self._first_without(0)
        if client is None or not client.unshared or client.startup is None:
            self.logins[server] = None
            return {}
        self.logins[server] = client
        startup = client.startup
        reserved = {"options": startup.options, "replication": SPELT[startup.replication]}
        return startup.parameters | {name: value for name, value in reserved.items() if value}

    def opened(self, server: ServerSession, now: float) -> bool:
        """The server let us in: lend the connection to the client it is for alone; False: it is for anybody."""
        pool = self._pool
        client = self.logins.pop(server)
        if client is None:
            return False
        if pool.no_place_for(server, now):  # the client waits on
            pool.busy.add(server)
            pool.checkin(server, now)
            return True
        del pool.waiters[client]
        server.settings = client.settings  # they are in force from the start
        server.unshared = REPLICATION if pool.key.replication else REASON
        server.tainted = CLOSED_AFTER.format(server.unshared)
        pool.busy.add(server)
        server.lend(client, now)
        if server.client is client:  # and has not left at once
            pool.service.pins_changed(server)
            pool.service.deadlines.at(pool.patience and now + pool.patience, client)
        return True

    def login_failed(self, server: ServerSession, error: PeerError, now: float) -> None:
        """The server did not let us in: with a client's own parameters that concerns nobody but this client."""
        pool = self._pool
        client = self.logins.pop(server)
        if client is None:
            pool.failed(error, now)
            return
        pool.opening -= 1
        pool.busy.add(server)  # its place is taken until the client is gone
        if client in pool.waiters:
            del pool.waiters[client]
            client.refuse(error, now)
        pool.closed(server, now)

    def fall_back(self, server: ServerSession) -> None:
        """Another connection is made in place of this one; for whom it is, is decided when it stands."""
        del self.logins[server]
        self._pool.service.effects.fall_back(self._pool)

    def leave(self, client: ClientSession, now: float) -> None:
        """The client waits no longer: nobody else has a use for a login with its parameters."""
        for server in [server for server, owner in self.logins.items() if owner is client]:
            server.close("its client left before the login was over", now)
