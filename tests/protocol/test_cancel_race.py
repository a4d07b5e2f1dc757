"""The cancel race in memory: a cancel request, its arrival at the server and the end of its connection, in any order.

A cancel request names a server process, not a statement: it hits whatever that process runs when it arrives.  Three
things happen apart from each other, between all steps of everybody else: PgPooler sends it, the server gets it, and its
connection ends, in an orderly way (then the server has got it) or not (then the server may get it later, or never).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from hypothesis import given, note, settings
from hypothesis import strategies as st

from pgpooler.config.choices import PoolMode, ResetPolicy
from pgpooler.config.model import Configuration
from pgpooler.pooling.client import ClientSession
from pgpooler.pooling.server import ServerSession
from pgpooler.protocol import codes, messages
from tests.memory import MemoryPort, World, configure
from tests.scripted import WAIT, Client, Cluster, PostgreSQL, Recording, extended, query

CANCELED = "57014"
MOST_CLIENTS = 4
LEAST_EVENTS, MOST_EVENTS = 10, 60
EXAMPLES = 1000
REQUESTS: tuple[tuple[Callable[[str], bytes], str], ...] = (
    (query, "slow {}"),
    (extended, "slow {}"),
    (query, "slow {};row {};slow {}"),
    (query, "begin {};slow {}"),
    (query, "commit {}"),
    (query, "row {}"),
)
Event = tuple[str, Callable[[], object]]


@dataclass(eq=False)
class Shot:
    """One cancel request for a server process, on its way since PgPooler sent it for `meant`, a client's token."""

    server: ServerSession
    meant: str
    settled: Callable[[bool, float], None]
    arrived: bool = False

    def __str__(self) -> str:
        return f"the shot at server {self.server.process_id} for {self.meant}"


class RaceWorld(World):
    """A world whose cancel requests are kept in `shots`, for the test to answer."""

    def __init__(self, configuration: Configuration, cluster: Cluster) -> None:
        super().__init__(configuration)
        self.cluster = cluster
        self.shots: list[Shot] = []
        cluster.attach(self)

    def cancel(self, server: ServerSession, settled: Callable[[bool, float], None]) -> None:
        # A session belongs to who had its parameters set there, also when PgPooler cancels for one who is gone.
        owner = self.cluster.process_of(server).owner
        assert owner is not None, "a session that is nobody's is to be canceled"
        if server.client is not None and server.client.startup is not None:
            assert server.client.startup.parameters["application_name"] == owner, "somebody else's is to be canceled"
        self.shots.append(Shot(server, owner, settled))


class Race:
    """Clients on one or two server connections, and everything that can happen to them and to cancel requests."""

    def __init__(self, mode: PoolMode, pool_size: int, reset: ResetPolicy) -> None:
        self.mode = mode
        self.cluster = Cluster()
        settings = {"pool_mode": mode, "server_reset_query": reset, "query_wait_timeout": 0.0}
        self.world = RaceWorld(configure(pool_size=pool_size, **settings), self.cluster)  # type: ignore[arg-type]
        self.clients: list[Client] = []
        self.shots = self.world.shots
        self.stray: list[Shot] = []  # their connections ended before they arrived
        self.asked_for: Counter[str] = Counter()  # whose cancellation was asked for, and how often
        for _ in range(3):
            self.connect()
            self.world.settle()

    # -- what can happen next ------------------------------------------------------------------------------------------

    def choose(self, number: int) -> Event:
        """The event that this number stands for: every kind of events has the same share, be they few or many."""
        kinds = [kind for kind in self.kinds() if kind]
        kind = kinds[number % len(kinds)]
        return kind[number // len(kinds) % len(kind)]

    def kinds(self) -> list[list[Event]]:
        """What was said arrives step by step, or all of it when the world settles."""
        present = [client for client in self.clients if client.logged_in and not client.over]
        holders = [client for client in present if client.session.server is not None]  # type: ignore[union-attr]
        running = [process for process in self.cluster.alive if process.wants == WAIT]
        return [
            2 * [("the world settles", self.world.settle)],
            [(f"{shot} arrives", partial(self.arrive, shot)) for shot in self.shots if not shot.arrived],
            [(f"{shot} ends", partial(self.end, shot, orderly=True)) for shot in self.shots if shot.arrived]
            + [(f"{shot} breaks off", partial(self.end, shot, orderly=False)) for shot in self.shots],
            [(f"{shot} arrives late", partial(self.arrive_late, shot)) for shot in self.stray],
            [event for client in present for event in self.requests(client)],
            [(f"{client.token} cancels", partial(self.cancel, client, client)) for client in holders or present],
            [(f"server {process.number} is done", process.release) for process in running],
            [event for port in self.world.ports for event in self.steps(port)],
            [event for client in present for event in self.rare(client)]
            + [("time passes", partial(self.world.pass_time, 0.25))],
        ]

    def requests(self, client: Client) -> Iterator[Event]:
        for make, text in REQUESTS:
            statement = text.replace("{}", client.token)
            yield f"{client.token} asks: {statement}", partial(client.say, make(statement))

    @staticmethod
    def steps(port: MemoryPort) -> Iterator[Event]:
        if port.incoming or port.end:
            yield f"PgPooler hears {port.peer}", lambda: port.step_read() or port.step_hang_up()
        if port.outgoing or port.closed:
            yield f"{port.peer} hears PgPooler", port.step_far

    def rare(self, client: Client) -> Iterator[Event]:
        for how in (Client.terminate, Client.leave, Client.break_off):
            yield f"{client.token}: {how.__name__}", partial(how, client)
        yield f"{client.token} cancels", partial(self.cancel, client, client)
        for other in self.clients:
            if other is not client:
                yield f"{client.token} is canceled with the key of {other.token}", partial(self.cancel, client, other)
        if sum(not one.over for one in self.clients) < MOST_CLIENTS:
            yield "somebody comes", self.connect
        for process in self.cluster.alive:
            yield f"server {process.number} reads or not", partial(self.stall, process)
            yield f"server {process.number} crashes", process.crash

    # -- what happens then ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        token = f"c{len(self.clients) + 1}"
        self.clients.append(client := Client(self.world, token))
        client.port.peer = token

    def cancel(self, client: Client, whose: Client) -> None:
        """Somebody sends a cancel request for the client, with its own key or with another's."""
        Recording(port := self.world.accept("10.0.0.9:5000"))
        port.say(messages.cancel_request(client.process_id, whose.cancel_key))
        self.asked_for[client.token] += whose is client

    def arrive(self, shot: Shot) -> None:
        """The server gets the cancel request: it must be running for whom that was meant, or nothing."""
        self.strike(shot)
        if not self.cluster.process_of(shot.server).over:
            assert not shot.server.asked, f"{shot} hits {shot.server.asked!r}"

    def arrive_late(self, shot: Shot) -> None:
        """The server gets it after its end was unknown to PgPooler, which gives the server to nobody else then."""
        self.stray.remove(shot)
        self.strike(shot)

    def strike(self, shot: Shot) -> None:
        shot.arrived = True
        process = self.cluster.process_of(shot.server)
        if not process.over:
            assert process.owner in (None, shot.meant), f"{shot} hits {process.owner}"
            process.cancel()

    def end(self, shot: Shot, *, orderly: bool) -> None:
        """Its connection ends."""
        self.shots.remove(shot)
        if not shot.arrived:
            self.stray.append(shot)
        shot.settled(orderly, self.world.now)

    @staticmethod
    def stall(process: PostgreSQL) -> None:
        process.stalled = not process.stalled

    # -- what must hold ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        self.world.check_limits()
        assert not self.cluster.complaints, self.cluster.complaints
        for client in self.clients:
            told = client.sqlstates.count(CANCELED)
            assert told <= self.asked_for[client.token], f"{client.token} was canceled and had not asked for it"
            assert set(client.rows) <= {client.token}

    @property
    def waiters(self) -> list[ClientSession]:
        return [client for pool in self.world.pools for client in pool.waiters]

    def come_to_rest(self) -> None:
        """All statements end, and all cancel requests, each after it has arrived."""
        for _ in range(100):
            for process in self.cluster.alive:
                process.stalled, process.let_go = False, True
                process.release()
            self.world.pass_time(0.3)
            if not self.shots and not any(process.wants == WAIT for process in self.cluster.alive):
                return
            for shot in list(self.shots):
                if not shot.arrived:
                    self.arrive(shot)
                self.end(shot, orderly=True)
        raise AssertionError(f"no end of cancel requests: {self.shots}")

    @staticmethod
    def in_a_transaction(client: Client) -> bool:
        server = client.session.server  # type: ignore[union-attr]
        return not client.over and server is not None and server.status != codes.IDLE

    def conclude(self) -> None:
        """Whoever waits is served as soon as nobody is in a transaction; in the end nothing is left."""
        self.come_to_rest()
        while open_ones := [client for client in self.clients if self.in_a_transaction(client)]:
            open_ones[0].ask(f"commit {open_ones[0].token}")
            self.come_to_rest()
        self.look()
        assert self.mode is PoolMode.SESSION or self.waiters == [], "somebody is kept waiting by one who asks nothing"
        for client in self.clients:
            if not client.over:
                client.leave()
                self.come_to_rest()
        assert self.waiters == []
        for process in self.cluster.alive:
            process.terminate()
        self.world.pass_time(100)
        assert set(self.world.counts().values()) == {0}, self.world.counts()


@settings(max_examples=max(EXAMPLES, settings.default.max_examples))
@given(
    dice=st.lists(st.integers(0, 999), min_size=LEAST_EVENTS, max_size=MOST_EVENTS),
    mode=st.sampled_from((PoolMode.TRANSACTION, PoolMode.STATEMENT, PoolMode.SESSION)),
    pool_size=st.integers(1, 2),
    reset=st.sampled_from((ResetPolicy.ALWAYS, ResetPolicy.NEVER)),
)
def test_a_cancel_request_hits_what_its_client_runs_or_nothing_in_whatever_order_things_happen(
    dice: list[int], mode: PoolMode, pool_size: int, reset: ResetPolicy
) -> None:
    """W12: never another client, never a statement of PgPooler's own; and nobody waits for ever.

    PgBouncer #544, Odyssey, pgagroal: it came when the server had another client, and canceled that one's query.
    """
    race = Race(mode, pool_size, reset)
    for number in dice:
        name, happen = race.choose(number)
        note(name)
        happen()
        race.look()
    race.conclude()
