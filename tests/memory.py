"""The world in memory: ports without sockets, a clock that stands still, and effects that happen when a test says so.

A `World` is what `net` is in production.  Nothing in it happens by itself: every possible event is a step, and a test
either lets all of them happen (`settle`) or picks one after the other.  So queues, partial writes, chunks of any size
and all orders of events can be had again from the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Protocol

from pgpooler.config.choices import AuthMethod
from pgpooler.config.model import Auth, Backend, ClientTls, Configuration, Limits, Overrides, Routing, Timeouts, User
from pgpooler.config.model import Rule as RoutingRule
from pgpooler.errors import PeerError, ServerUnavailable
from pgpooler.pooling.access import Access
from pgpooler.pooling.deadlines import Deadlines
from pgpooler.pooling.effects import Effects
from pgpooler.pooling.pool import Pool
from pgpooler.pooling.port import Encryption, Port
from pgpooler.pooling.server import ServerSession
from pgpooler.pooling.service import Service
from pgpooler.pooling.states import ServerState
from pgpooler.protocol import codes

LINGER = 2.0  # seconds, as SocketPort lingers
START = 1000.0  # what the clock shows at first
SCRIBBLE = 0xAA  # what a borrowed buffer is overwritten with, once it was given back


NO_TLS = ClientTls()


class Far(Protocol):
    """The other end of a port: a scripted client or a scripted server."""

    stalled: bool  # reads nothing, so that bytes pile up

    def receive(self, data: bytes) -> None:
        """Take what the pooler sent."""

    def ended(self) -> None:
        """The pooler closed its side; everything it sent has been received."""


class MemoryPort(Port):
    """One connection.  It treats its session exactly as `net.port.SocketPort` does.

    `capacity`: how many bytes it holds on their way to the far end, None for any number.
    """

    __slots__ = (
        "capacity",
        "due",
        "end",
        "far",
        "far_knows",
        "hung_up",
        "incoming",
        "outgoing",
        "until",
        "world",
        "writing",
        "writing_ended",
    )

    def __init__(self, world: World, peer: str, capacity: int | None = None) -> None:
        super().__init__(peer)
        self.world = world
        self.capacity = capacity
        self.far: Far | None = None
        self.incoming = bytearray()  # sent by the far end and not read yet
        self.outgoing = bytearray()  # accepted by `send` and not read by the far end
        self.end = ""  # how the far end left, if it did
        self.hung_up = False  # the session of a paused port was told of that end
        self.far_knows = False  # that we closed
        self.writing = False
        self.writing_ended = False
        self.due = 0.0
        self.until = 0.0
        world.ports.append(self)

    # -- what sessions call --------------------------------------------------------------------------------------------

    def send(self, buffer: bytearray | bytes, start: int, stop: int) -> int:
        assert not self.closed
        assert 0 <= start <= stop <= len(buffer)
        if self.end:
            return stop - start
        room = stop - start if self.capacity is None else max(0, self.capacity - len(self.outgoing))
        accepted = min(stop - start, room)
        self.outgoing += memoryview(buffer)[start : start + accepted]
        return accepted

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True
        self.hung_up = False

    def encrypt(self, received: bytes) -> MemoryPort:
        """Hands are shaken at once, and nothing is encrypted; `received` is no part of what is said."""
        self.encryption = self.world.encryption
        return self

    def want_write(self) -> None:
        self.writing = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.session = None
            self.queue.clear()
            self.world.deadlines.forget(self)

    def finish(self) -> None:
        if self.closed or self.finishing:
            return
        self.finishing = True
        self.session = None
        self.reading = True
        self.until = self.world.now + LINGER
        self.world.deadlines.at(self.until, self)

    def end_writing(self) -> None:
        self.writing_ended = True

    def tick(self, now: float) -> float:
        if now >= self.until:
            self.close()
            return 0.0
        return self.until

    # -- what can happen; each returns whether it did ------------------------------------------------------------------

    def step_write(self) -> bool:
        """The connection takes bytes again."""
        if (
            self.closed
            or not self.writing
            or (not self.end and self.capacity is not None and len(self.outgoing) >= self.capacity)
        ):
            return False
        if self.flush():
            self.writing = False
            if self.session is not None:
                self.session.drained(self.world.now)
        return True

    def step_read(self, size: int | None = None) -> bool:
        """The port reads what came, or notices the end of its peer."""
        if self.closed or not self.reading:
            return False
        if self.incoming:
            size = min(size or self.world.chunk, len(self.incoming))
            before = self.world.offset
            buffer = bytearray(before) + self.incoming[:size] + bytearray(7)
            del self.incoming[:size]
            if self.session is not None:
                self.session.receive(buffer, before, before + size, self.world.now)
            buffer[:] = bytes((SCRIBBLE,)) * len(buffer)
            return True
        if self.end:
            if self.session is not None:
                self.session.end(self.end, self.world.now)
            self.close()
            return True
        return False

    def step_hang_up(self) -> bool:
        """A paused port notices that its peer is gone: once."""
        if self.closed or self.reading or not self.end or self.hung_up:
            return False
        self.hung_up = True
        if self.session is not None:
            if self.end == "reset":
                self.session.end(self.end, self.world.now)
                self.close()
            else:
                self.session.hang_up(self.world.now)
        return True

    def step_far(self) -> bool:
        """The far end reads what was sent, and the end."""
        far = self.far
        if far is None or far.stalled or self.far_knows:
            return False
        if self.outgoing:
            data = bytes(self.outgoing)
            self.outgoing.clear()
            far.receive(data)
            return True
        if self.closed or ((self.finishing or self.writing_ended) and not self.queue):
            self.far_knows = True
            far.ended()
            return True
        return False

    # -- what the far end does -----------------------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Send to the pooler."""
        if not self.closed and not self.end:
            self.incoming += data

    def leave(self) -> None:
        """Close in an orderly way: what was said before is still read."""
        self.end = self.end or "end of file"
        self.far_knows = True

    def break_off(self) -> None:
        """Reset: what was not read yet is lost."""
        self.end = "reset"
        self.incoming.clear()
        self.outgoing.clear()
        self.far_knows = True


class World(Effects):
    """Clock, ports, effects, and one service."""

    def __init__(self, configuration: Configuration) -> None:
        self.now = START
        self.deadlines = Deadlines()
        self.ports: list[MemoryPort] = []
        self.chunk = 1 << 16  # bytes read at a time
        self.offset = 3  # where they begin in the buffer
        self.opening: list[Pool] = []
        self.cancels: list[tuple[ServerSession, Callable[[bool, float], None]]] = []
        self.computations: list[tuple[Callable[[], object], Callable[[object, float], None]]] = []
        self.hold_opens = self.hold_cancels = self.hold_computations = False
        self.serve: Callable[[MemoryPort, Pool], object] | None = None  # makes the server at the far end
        self.unreachable: dict[str, str] = {}  # backend name -> why nobody can connect to it
        self.on_cancel: Callable[[ServerSession], None] = lambda server: None
        self.server_capacity: int | None = None
        self.encryption = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384")  # what clients who want TLS agree on
        self.log_lines: list[tuple[str, int, str]] = []
        self.service = Service(configuration, Access(configuration.auth, mock_secret=b"mock"), self, self.deadlines)

    # -- Effects -------------------------------------------------------------------------------------------------------

    def open(self, pool: Pool) -> None:
        assert not pool.limit or pool.size <= pool.limit, pool
        assert not pool.use.backend.pool_size or pool.use.used <= pool.use.backend.pool_size, pool.use.backend.name
        self.opening.append(pool)

    def fall_back(self, pool: Pool) -> None:
        self.open(pool)

    def cancel(self, server: ServerSession, settled: Callable[[bool, float], None]) -> None:
        self.cancels.append((server, settled))

    def compute(self, work: Callable[[], object], done: Callable[[object, float], None]) -> None:
        self.computations.append((work, done))

    def log(self, level: str, session: int, text: str) -> None:
        assert level in ("debug", "info", "warning", "error")
        self.log_lines.append((level, session, text))

    # -- effects that happen -------------------------------------------------------------------------------------------

    def answer_open(self, index: int = 0, error: PeerError | None = None) -> MemoryPort | None:
        """One connection that was asked for is made, or fails."""
        pool = self.opening.pop(index)
        reason = self.unreachable.get(pool.key.backend)
        if error is None and reason is not None:
            error = ServerUnavailable("the server cannot be reached", detail=reason)
        if error is not None:
            pool.failed(error, self.now)
            return None
        port = MemoryPort(self, f"{pool.key.backend}:5432", self.server_capacity)
        if self.serve is not None:
            self.serve(port, pool)
        pool.connected(port, self.now)
        return port

    def answer_cancel(self, index: int = 0, *, orderly: bool = True) -> None:
        """One cancel request reaches its server, and its connection ends."""
        server, settled = self.cancels.pop(index)
        self.on_cancel(server)
        settled(orderly, self.now)

    def answer_computation(self, index: int = 0) -> None:
        """One computation is done."""
        work, done = self.computations.pop(index)
        try:
            result: object = work()
        except Exception as error:  # as the connector does: whoever asked is told
            result = error
        done(result, self.now)

    def step_effects(self) -> bool:
        """Every effect under way and not held back happens."""
        happened = False
        for held, waiting, answer in (
            (self.hold_computations, self.computations, self.answer_computation),
            (self.hold_opens, self.opening, self.answer_open),
            (self.hold_cancels, self.cancels, self.answer_cancel),
        ):
            for _ in range(0 if held else len(waiting)):
                answer()
                happened = True
        return happened

    def steps(self) -> Iterator[Callable[[], bool]]:
        """Everything that may happen now."""
        for port in list(self.ports):
            if port.closed and port.far_knows:
                self.ports.remove(port)
                continue
            yield port.step_far
            yield port.step_write
            yield port.step_read
            yield port.step_hang_up
        yield self.step_effects

    def settle(self) -> None:
        """Let everything happen that can, at the time it is."""
        for _ in range(100_000):
            happened = False
            for step in self.steps():
                while step():
                    happened = True
            if not happened:
                return
        raise AssertionError("the world does not come to rest")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, from deadline to deadline, and everything happen that this brings about."""
        until = self.now + seconds
        self.settle()
        while 0 < (due := self.deadlines.next()) <= until:
            self.now = max(self.now, due)
            self.deadlines.expire(self.now)
            self.settle()
        self.now = until

    # -- clients and configuration -------------------------------------------------------------------------------------

    def accept(self, peer: str = "10.0.0.1:5000", capacity: int | None = None) -> MemoryPort:
        """A client connects."""
        port = MemoryPort(self, peer, capacity)
        port.address = None if peer == "unix" else ip_address(peer.rpartition(":")[0].strip("[]"))
        self.service.accept(port, self.now)
        return port

    def reload(self, configuration: Configuration) -> None:
        """Go on with another configuration."""
        access = Access(configuration.auth, previous=self.service.access)
        self.service.reload(configuration, access, self.now)

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def pools(self) -> list[Pool]:
        return list(self.service.pools)

    @property
    def pool(self) -> Pool:
        """The only pool."""
        (pool,) = self.pools
        return pool

    def counts(self) -> dict[str, int]:
        """What must be back to zero when everybody has gone and every server connection is closed."""
        service = self.service
        uses = service.pools._uses.values()
        return {
            "clients": len(service.clients),
            "admitted": service.admitted,
            "by user": service.by_user.total(),
            "by database": service.by_database.total(),
            "cancel keys": len(service.cancels),
            "used": sum(use.used for use in uses),
            "in pools": sum(pool.size for pool in service.pools),
            "waiting": sum(len(pool.waiters) for pool in service.pools),
            "clients of pools": sum(pool.clients for pool in service.pools),
            "questions": sum(len(pool.queue) + len(pool.busy) for pool in service.auth_queries._pools.values()),
        }

    def check_limits(self) -> None:
        """What must hold at every moment."""
        service = self.service
        by_use: dict[int, int] = {}
        for pool in {*service.pools, *(pool for use in service.pools._uses.values() for pool in use.pools)}:
            assert pool.opening >= 0
            by_use[id(pool.use)] = by_use.get(id(pool.use), 0) + pool.size
            assert not pool.limit or pool.size <= pool.limit, pool
            assert pool.pinned <= pool.busy, f"{pool}: {pool.pinned} are pinned and not in use"
            assert len(pool.pinned) <= pool.route.pinned_limit, pool
            assert not (pool.paused and pool.idle), pool
            assert not (pool.idle and pool.unshared.next_taker(self.now)), f"{pool}: one waits for what is idle"
            assert set(pool.unshared.logins.values()) <= {None, *pool.waiters}, f"{pool}: a login for nobody"
            assert len(pool.unshared.logins) <= pool.opening, pool
            assert not set(pool.idle) & pool.busy
            assert len(set(pool.idle)) == len(pool.idle)
            for server in pool.idle:  # rule 1: never handed on with anything of a client in it
                by_itself = server.mid_message and server.status == codes.IDLE and server.owed.nothing
                assert server.releasable or by_itself, server  # a notice, say, of which only a part has come
                assert server.client is None, server
                assert (server.cancels, server.tainted, server.asked) == (0, "", ""), server
            for server in pool.busy:
                assert server.client is None or server.client.server is server
                assert not server.unshared or server.tainted, f"{server} may get to another client"
                if server.client is not None and server.state == ServerState.ACTIVE:
                    assert server.client.unshared is bool(server.unshared), f"{server} is not what its client needs"
        for use in service.pools._uses.values():
            assert use.used == by_use.get(id(use), 0), f"{use.backend.name}: {use.used} counted, {by_use} found"
            assert not use.backend.pool_size or use.used <= use.backend.pool_size, use.backend.name
        for lookups in service.auth_queries._pools.values():
            assert lookups.opening >= 0
            assert lookups.size <= lookups.limit, lookups
            assert not (lookups.queue and lookups.idle), f"{lookups}: a question waits for what is idle"
            assert not (lookups.paused and lookups.idle), lookups
        assert service.admitted == sum(client.counted for client in service.clients.values())
        holders = [client.server for client in service.clients.values() if client.server is not None]
        assert len(set(holders)) == len(holders), "a server connection is leased twice"
        for pool in service.pools:
            assert pool.clients == sum(client.pool is pool for client in service.clients.values()), pool


def configure(
    *,
    pool_size: int = 1,
    backend_pool_size: int = 0,
    method: AuthMethod = AuthMethod.TRUST,
    users: dict[str, str] | None = None,
    max_client_conn: int = 100,
    client_login_timeout: float = 60.0,
    backends: tuple[Backend, ...] | None = None,
    rules: tuple[RoutingRule, ...] = (),
    tls: ClientTls = NO_TLS,
    **pool_settings: object,
) -> Configuration:
    """Make a configuration: two users without passwords, one backend, no probing for trouble."""
    names = {"alice": "", "bob": "", "carol": ""} if users is None else users
    settings: dict[str, object] = {"query_wait_timeout": 60.0, **pool_settings}
    return Configuration(
        backends=backends or (Backend(name="primary", host="pg1", pool_size=backend_pool_size),),
        routing=Routing(defaults=Overrides(pool_size=pool_size, **settings), rules=rules),  # type: ignore[arg-type]
        auth=Auth(method=method, users={name: User(name=name, password=password) for name, password in names.items()}),
        limits=Limits(max_client_conn=max_client_conn),
        tls=tls,
        timeouts=Timeouts(client_login_timeout=client_login_timeout),
    )
