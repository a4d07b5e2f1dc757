"""A state machine: the whole data plane between drawn clients and drawn servers, every byte tagged with its owner."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgpooler.config.choices import PoolMode, ResetPolicy, SessionStatePolicy
from pgpooler.errors import ServerUnavailable
from pgpooler.protocol import messages
from spec import phrases as say
from spec.codec import Instance, encode
from spec.events import Leased, Released, Said, Side
from spec.messages import Sender
from spec.scripts import named_scripts, scripts
from tests.legal_server import LASTING, LegalServer, tagged, tags
from tests.memory import MemoryPort, World, configure
from tests.scripted import Client, Recording
from tests.two_sides import TwoSides

MOST_CLIENTS = 5
ENDS_EVERYTHING = encode(say.COPY_FAIL) + encode(say.SYNC)
"""What a client says that is not answered though it has sent its script: it ends a COPY, and a series without Sync."""


def requests() -> st.SearchStrategy[list[Instance]]:
    """What clients ask: any script, and now and then something that lasts, a statement or what it leaves."""
    text = st.sampled_from(sorted(LASTING))
    simple = text.map(lambda text: [say.query(text)])
    extended = text.map(lambda text: [say.parse(text), say.bind(), say.execute(), say.SYNC])
    return scripts() | named_scripts() | simple | extended


REQUESTS = requests()


class TaggedClient(Client):
    """A client with a tag, which sends its script in pieces of any size."""

    def __init__(self, world: World, number: int, *, user: str, capacity: int | None, has_name: bool) -> None:
        self.tag = b"c%d" % number
        self.strange: list[bytes] = []  # what it got that bears another tag
        self.rest = b""  # of its script, not sent yet
        name = f"<{self.tag.decode()}>" if has_name else ""
        super().__init__(world, name, user=user, capacity=capacity)

    def receive(self, data: bytes) -> None:
        before = len(self.received)
        super().receive(data)
        whole = [body for _, body in self.received[before:]]
        self.strange += [piece for piece in (*whole, bytes(self.stream)) if tags(piece) - {self.tag}]

    def send(self, most: int) -> None:
        """Send the next piece of the script."""
        piece, self.rest = self.rest[:most], self.rest[most:]
        if piece:
            self.say(piece)


class WholeDataPlane(RuleBasedStateMachine):
    mode = PoolMode.SESSION

    @initialize(
        pool_size=st.sampled_from((1, 2, 2, 3)),
        wait=st.sampled_from((0.0, 20.0)),
        query_timeout=st.sampled_from((0.0, 0.0, 5.0)),
        server_capacity=st.sampled_from((None, None, 7, 200)),
        reset=st.sampled_from((ResetPolicy.SMART, ResetPolicy.SMART, ResetPolicy.ALWAYS)),
        on_session_state=st.sampled_from((SessionStatePolicy.PIN, SessionStatePolicy.ALLOW, SessionStatePolicy.ERROR)),
    )
    def begin(
        self,
        pool_size: int,
        wait: float,
        query_timeout: float,
        server_capacity: int | None,
        reset: ResetPolicy,
        on_session_state: SessionStatePolicy,
    ) -> None:
        self.world = World(
            configure(
                pool_size=pool_size,
                pool_mode=self.mode,
                server_reset_query="always" if self.mode is PoolMode.SESSION else str(reset),
                on_session_state=on_session_state,
                max_pinned=100,
                query_wait_timeout=wait,
                query_timeout=query_timeout,
            )
        )
        self.world.server_capacity = server_capacity
        self.world.serve = self.serve
        self.world.on_cancel = self.canceled
        self.patch = pytest.MonkeyPatch()
        self.sides = TwoSides(self.world, self.patch)
        self.clients: list[TaggedClient] = []
        self.servers: list[LegalServer] = []
        self.holders: dict[int, int] = {}  # server -> client, as of the events that were looked at
        self.cleaned: dict[int, int] = {}  # server -> the client that held it last
        self.looked_at = 0
        self.break_something()
        self.connect("alice", None, has_name=False, count=2)

    def break_something(self) -> None:
        """Nothing: only the tests of this test have a pooler with a bug."""

    def serve(self, port: MemoryPort, pool: object) -> LegalServer:
        self.servers.append(LegalServer(port, len(self.servers) + 1))
        return self.servers[-1]

    def canceled(self, server: object) -> None:
        number = getattr(server, "process_id", 0)
        self.servers[number - 1].canceled = True

    # -- clients -------------------------------------------------------------------------------------------------------

    @property
    def present(self) -> list[TaggedClient]:
        return [client for client in self.clients if not client.over]

    @property
    def asking(self) -> list[TaggedClient]:
        return [client for client in self.present if client.logged_in]

    def one(self, data: st.DataObject, clients: list[TaggedClient]) -> TaggedClient:
        return data.draw(st.sampled_from(clients), "client")

    @precondition(lambda self: len(self.present) < MOST_CLIENTS)
    @rule(
        user=st.sampled_from(("alice", "alice", "bob")),
        capacity=st.sampled_from((None, None, 1, 40)),
        has_name=st.booleans(),
        count=st.integers(1, 3),
    )
    def connect(self, user: str, capacity: int | None, *, has_name: bool, count: int) -> None:
        for _ in range(count):
            number = len(self.clients) + 1
            self.clients.append(TaggedClient(self.world, number, user=user, capacity=capacity, has_name=has_name))
        self.world.settle()

    @precondition(lambda self: self.asking)
    @rule(
        data=st.data(),
        most=st.sampled_from((1 << 16, 1 << 16, 100, 7)),
        count=st.sampled_from((0, 0, 4, 16)),
    )
    def ask(self, data: st.DataObject, most: int, count: int) -> None:
        client = self.one(data, self.asking)
        request = data.draw(REQUESTS, label="request")
        client.rest += b"".join(encode(tagged(instance, client.tag)) for instance in request)
        client.send(most)
        if count:
            self.world.settle()
            self.let_servers_speak(data, count)
            self.world.settle()

    @precondition(lambda self: any(client.rest for client in self.asking))
    @rule(data=st.data(), most=st.sampled_from((1 << 16, 50, 1)))
    def send_more(self, data: st.DataObject, most: int) -> None:
        self.one(data, [client for client in self.asking if client.rest]).send(most)

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), how=st.sampled_from((Client.terminate, Client.leave, Client.break_off)))
    def go(self, data: st.DataObject, how: Callable[[Client], None]) -> None:
        client = self.one(data, self.asking)
        if how is Client.terminate:
            client.send(1 << 20)
        how(client)

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), right=st.sampled_from((True, True, False)))
    def cancel(self, data: st.DataObject, right: bool) -> None:
        busy = [client for client in self.asking if client.session.server is not None]  # type: ignore[union-attr]
        client = self.one(data, [*busy, *busy, *self.asking])
        Recording(port := self.world.accept())
        port.say(messages.cancel_request(client.process_id, client.cancel_key if right else b"no!!"))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), stalled=st.booleans())
    def stall(self, data: st.DataObject, stalled: bool) -> None:
        data.draw(st.sampled_from([*self.clients, *self.servers]), "peer").stalled = stalled

    # -- servers -------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[LegalServer]:
        return [server for server in self.servers if not server.over]

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), count=st.integers(1, 10), settles=st.booleans())
    def speak(self, data: st.DataObject, count: int, settles: bool) -> None:
        self.let_servers_speak(data, count)
        if settles:
            self.world.settle()

    def let_servers_speak(self, data: st.DataObject, count: int) -> None:
        """The servers say a few messages each."""
        for server in self.alive:
            for _ in range(count):
                if not server.speak(data.draw):
                    break

    @precondition(lambda self: self.alive and self.asking)
    @rule(data=st.data(), part=st.sampled_from((None, 0, 1, 4, 6, 11)))
    def end_server(self, data: st.DataObject, part: int | None) -> None:
        server = data.draw(st.sampled_from(self.alive), "server")
        server.draw = data.draw
        server.end() if part is None else server.crash(part)

    @rule(hold_opens=st.sampled_from((False, False, True)), hold_cancels=st.booleans())
    def hold(self, hold_opens: bool, hold_cancels: bool) -> None:
        self.world.hold_opens, self.world.hold_cancels = hold_opens, hold_cancels

    @precondition(lambda self: self.world.opening)
    @rule(succeeds=st.booleans())
    def answer_open(self, succeeds: bool) -> None:
        self.world.answer_open(error=None if succeeds else ServerUnavailable("cannot be reached"))

    @precondition(lambda self: self.world.cancels)
    @rule(orderly=st.booleans())
    def answer_cancel(self, orderly: bool) -> None:
        self.world.answer_cancel(orderly=orderly)

    # -- time and steps ------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.11, 6.0, 61.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(data=st.data(), chunk=st.sampled_from((1, 6, 50, 1 << 16)), count=st.integers(1, 12))
    def some_steps(self, data: st.DataObject, chunk: int, count: int) -> None:
        self.world.chunk = chunk
        choose = data.draw(st.randoms(use_true_random=False), "order")
        for _ in range(count):
            choose.choice(list(self.world.steps()))()
            self.look()

    @rule(chunk=st.sampled_from((1, 6, 1 << 16)))
    def settle(self, chunk: int) -> None:
        self.world.chunk = chunk
        self.world.settle()

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def look(self) -> None:
        self.world.check_limits()
        for event, violation in self.sides.violations:
            raise AssertionError((violation.rule.name, violation.message, self.sides.history(event)[-20:]))
        for server in self.servers:
            assert not server.complaints, server.complaints
        for client in self.clients:
            assert not client.strange, (client.tag, client.strange)
        self.nobody_sends_what_is_not_theirs()

    def nobody_sends_what_is_not_theirs(self) -> None:
        """What passes the pooler bears no tag but that of the client on whose connection, or in whose lease, it is."""
        owners = {client.session.number: client.tag for client in self.clients}  # type: ignore[union-attr]
        for event in self.sides.events[self.looked_at :]:
            if isinstance(event, Leased):
                self.holders[event.server] = self.cleaned[event.server] = event.client
            elif isinstance(event, Released):
                self.holders.pop(event.server, None)
            elif isinstance(event, Said) and (event.side is Side.CLIENT or event.instance.sender is Sender.FRONTEND):
                client = event.connection if event.side is Side.CLIENT else self.holders.get(event.connection, 0)
                if not client and event.instance.name == "Close":  # what the client before has left
                    client = self.cleaned.get(event.connection, 0)
                strange = tags(event.data) - {owners.get(client, b"")}
                assert not strange, (strange, event)
        self.looked_at = len(self.sides.events)

    # -- the end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.let_everything_finish()
        finally:
            self.patch.undo()

    def let_everything_finish(self) -> None:
        world = self.world
        world.hold_opens = world.hold_cancels = False
        world.chunk = 1 << 16
        for peer in (*self.clients, *self.servers):
            peer.stalled = False
        self.everybody_is_answered()
        world.pass_time(100)
        self.rest()
        for server in self.alive:
            server.end()
        world.pass_time(100)
        self.look()
        assert set(world.counts().values()) == {0}, world.counts()
        assert world.ports == []
        assert (world.opening, world.cancels, world.computations, world.deadlines.next()) == ([], [], [], 0.0)

    def rest(self, *, are_waited_for: bool = False) -> None:
        """Let the servers answer everything, in the plainest way; a COPY is waited for, unless they are."""
        for _ in range(2_000):
            self.world.settle()
            if sum(server.speak(None, is_waited_for=are_waited_for) for server in self.servers) == 0:
                return
        raise AssertionError("the servers never come to an end")

    def everybody_is_answered(self) -> None:
        """Every client sends the rest of its script, gets all its replies, and leaves."""
        patience = dict.fromkeys(self.clients, 3)
        idle_rounds = 0
        while self.present:
            for client in self.present:
                client.send(1 << 20)
            self.rest()
            self.look()
            for client in self.present:
                if self.is_answered(client):
                    client.terminate()
                    idle_rounds = 0
                elif client.session.server is not None:  # type: ignore[union-attr]
                    client.say(ENDS_EVERYTHING)
                    patience[client] -= 1
                    idle_rounds = 0
                    assert patience[client] >= 0, f"not answered: {client.session} {self.owed(client)}"
            assert idle_rounds < 3, f"nobody gets a turn: {self.world.pools}"
            idle_rounds += 1
            self.rest(are_waited_for=True)
            self.world.pass_time(6)

    def owed(self, client: TaggedClient) -> tuple[str, ...]:
        return self.sides.judge.clients[client.session.number].judge.owed  # type: ignore[union-attr]

    def is_answered(self, client: TaggedClient) -> bool:
        known = self.sides.judge.clients.get(client.session.number)  # type: ignore[union-attr]
        return client.logged_in and known is not None and known.judge.idle


class WholeTransactionMode(WholeDataPlane):
    mode = PoolMode.TRANSACTION


class WholeStatementMode(WholeDataPlane):
    mode = PoolMode.STATEMENT
