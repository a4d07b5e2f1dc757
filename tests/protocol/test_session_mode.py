"""Each pool mode as a whole: clients that do anything, servers that die, time that passes, all in memory.

Whatever happens, in whatever order: limits hold, nobody sees what belongs to another, a server connection is clean
before it is handed on, nobody waits in vain or is overtaken, and in the end everything is back to base.  What a client
gets is compared with what a server of its own would have answered to the same bytes.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgpooler.config.choices import PoolMode, ResetPolicy, SessionStatePolicy
from pgpooler.errors import ServerUnavailable
from pgpooler.pooling.client import ClientSession
from pgpooler.pooling.pool import Pool
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import messages
from spec.events import Said, Side
from spec.messages import Sender
from tests.memory import World, configure
from tests.scripted import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    TERMINATE,
    Client,
    Cluster,
    PostgreSQL,
    Recording,
    copy_data,
    cut,
    direct_transcript,
    extended,
    frame,
    query,
)
from tests.two_sides import TwoSides

MOST_CLIENTS = 7
STATEMENTS = (
    "row {} 1",
    "row {} 3 50",
    "row {} 2 300",
    "set {}",
    "show {}",
    "begin {}",
    "commit {}",
    "rollback {}",
    "insert {}",
    "fail {}",
    "slow {}",
    "copyout {} 3 20",
    "row {};fail {};row {}",
    "copyin {}",
    "copyin {};row {};copyin {}",
    "",
    "SELECT '{}'",
    "LISTEN {}",
    "CREATE TEMP TABLE {}",
    "UNLISTEN *",
)
OTHERS = (
    FLUSH,
    SYNC,
    COPY_DONE,  # outside COPY it means nothing
    COPY_FAIL,
    frame("P", b"\0bad\0\0\0"),
    frame("F", bytes(10)),
    frame("C", b"S\0"),
    frame("D", b"S\0"),
)
ILLEGAL = (frame("!"), b"Q\0\0\0\3", b"d\xff\xff\xff\xff", frame("S", bytes(20_000)), frame("R", bytes(4)))


@st.composite
def requests(draw: st.DrawFn, token: str) -> bytes:
    """One request of a client, or a few that belong together."""
    statement = draw(st.sampled_from(STATEMENTS)).replace("{}", token)
    style = draw(st.sampled_from(("simple", "simple", "extended", "batch", "open batch", "copy", "other")))
    if style == "simple":
        return query(statement)
    if style == "extended":
        return extended(statement.split(";")[0])
    if style == "batch":
        return extended("insert " + token, sync=False) + extended(statement.split(";")[0])
    if style == "open batch":
        return extended(statement.split(";")[0], sync=False)
    if style == "copy":
        text = f"copyin {token}"
        asking = draw(st.sampled_from((query(text), extended(text), extended(text, sync=False))))
        data = draw(
            st.lists(st.sampled_from((copy_data(token), copy_data(token) * 3, frame("d", b"bad"), FLUSH, SYNC)))
        )
        end = draw(st.sampled_from((COPY_DONE, COPY_DONE + SYNC, COPY_FAIL, COPY_FAIL + SYNC, b"")))
        return asking + b"".join(data) + end
    return draw(st.sampled_from(OTHERS))


class SessionMode(RuleBasedStateMachine):
    mode = PoolMode.SESSION

    @initialize(
        pool_size=st.integers(1, 3),
        cap=st.sampled_from((0, 0, 1, 2)),
        wait=st.sampled_from((0.0, 20.0)),
        idle=st.sampled_from((0.0, 30.0)),
        max_queue=st.sampled_from((0, 0, 1)),
        server_capacity=st.sampled_from((None, 1, 7, 200)),
        reset=st.sampled_from(ResetPolicy),
        on_session_state=st.sampled_from((SessionStatePolicy.PIN, SessionStatePolicy.ALLOW)),
    )
    def begin(
        self,
        pool_size: int,
        cap: int,
        wait: float,
        idle: float,
        max_queue: int,
        server_capacity: int | None,
        reset: ResetPolicy,
        on_session_state: SessionStatePolicy,
    ) -> None:
        self.settings: dict[str, object] = {
            "pool_mode": self.mode,
            "server_reset_query": "always" if self.mode is PoolMode.SESSION else str(reset),
            "on_session_state": on_session_state,
            "max_pinned": 100,
            "query_wait_timeout": wait,
            "server_idle_timeout": idle,
            "session_idle_timeout": idle,
            "max_queue": max_queue,
        }
        self.pool_size, self.cap = pool_size, cap
        self.world = World(self.configuration())
        self.world.server_capacity = server_capacity
        self.cluster = Cluster()
        self.cluster.attach(self.world)
        self.patch = pytest.MonkeyPatch()
        self.sides = TwoSides(self.world, self.patch)
        self.clients: list[Client] = []
        self.rests: dict[Client, bytes] = {}  # the second half of a message whose first half was sent
        self.disturbed: set[Client] = set()  # a cancel request may have changed their answers
        self.before: dict[Pool, list[ClientSession]] = {}
        self.number = 0

    def configuration(self):  # type: ignore[no-untyped-def]
        return configure(pool_size=self.pool_size, backend_pool_size=self.cap, **self.settings)  # type: ignore[arg-type]

    def some(self, data: st.DataObject, clients: list[Client]) -> Client:
        return data.draw(st.sampled_from(clients), "client")

    # -- clients -------------------------------------------------------------------------------------------------------

    @property
    def present(self) -> list[Client]:
        return [client for client in self.clients if not client.over]

    @property
    def asking(self) -> list[Client]:
        return [client for client in self.present if client.logged_in]

    @precondition(lambda self: len(self.present) < MOST_CLIENTS)
    @rule(
        user=st.sampled_from(("alice", "bob")),
        capacity=st.sampled_from((None, None, 1, 40, 1000)),
        broken=st.sampled_from((False, False, False, True)),
        eager=st.booleans(),
    )
    def connect(self, user: str, capacity: int | None, broken: bool, eager: bool) -> None:
        self.number += 1
        token = f"c{self.number}"
        parameters = {"broken": "x"} if broken else None
        client = Client(self.world, token, user=user, capacity=capacity, parameters=parameters)
        self.clients.append(client)
        if eager:  # does not wait for the server's leave to ask
            client.ask(f"row {token}")

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        client = self.some(data, self.asking)
        request = self.rests.pop(client, b"") + data.draw(requests(client.token), "request")
        if data.draw(st.sampled_from((False, False, True)), "in part"):
            split = data.draw(st.integers(0, len(request)), "split")
            request, self.rests[client] = request[:split], request[split:]
        client.say(request)

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def ask_something_illegal(self, data: st.DataObject) -> None:
        client = self.some(data, self.asking)
        client.say(self.rests.pop(client, b"") + data.draw(st.sampled_from(ILLEGAL)))

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), last=st.sampled_from(("", "insert {}", "slow {}", "begin {}", "copyin {}")))
    def terminate(self, data: st.DataObject, last: str) -> None:
        client = self.some(data, self.asking)
        if client not in self.rests and last:
            client.ask(last.replace("{}", client.token))
        client.say(self.rests.pop(client, b"") + TERMINATE)
        client.leave()

    @precondition(lambda self: self.present)
    @rule(data=st.data(), how=st.sampled_from((Client.leave, Client.break_off)))
    def go_abruptly(self, data: st.DataObject, how) -> None:  # type: ignore[no-untyped-def]
        how(self.some(data, self.present))

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), right=st.booleans())
    def cancel(self, data: st.DataObject, right: bool) -> None:
        client = self.some(data, self.asking)
        key = client.cancel_key if right else b"no!!"
        Recording(port := self.world.accept())
        port.say(messages.cancel_request(client.process_id, key))
        self.disturbed.add(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), stalled=st.booleans())
    def stall_client(self, data: st.DataObject, stalled: bool) -> None:
        self.some(data, self.clients).stalled = stalled

    # -- servers -------------------------------------------------------------------------------------------------------

    def one_server(self, data: st.DataObject) -> PostgreSQL:
        return data.draw(st.sampled_from(self.cluster.alive), "server")

    @precondition(lambda self: self.cluster.alive)
    @rule(data=st.data(), stalled=st.booleans())
    def stall_server(self, data: st.DataObject, stalled: bool) -> None:
        self.one_server(data).stalled = stalled

    @precondition(lambda self: self.cluster.alive)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self.one_server(data).release()

    @precondition(lambda self: self.cluster.alive)
    @rule(data=st.data(), how=st.sampled_from((PostgreSQL.terminate, PostgreSQL.crash)))
    def end_server(self, data: st.DataObject, how) -> None:  # type: ignore[no-untyped-def]
        how(self.one_server(data))

    @rule(hold_opens=st.booleans(), hold_cancels=st.booleans())
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

    # -- time, steps, the operator -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.05, 0.11, 1.0, 10.0, 31.0, 61.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(data=st.data(), chunk=st.sampled_from((1, 2, 5, 6, 1000)), count=st.integers(1, 12))
    def some_steps(self, data: st.DataObject, chunk: int, count: int) -> None:
        self.world.chunk = chunk
        choose = data.draw(st.randoms(use_true_random=False), "order")
        for _ in range(count):
            choose.choice(list(self.world.steps()))()
            self.look(finely=True)

    @rule(chunk=st.sampled_from((1, 6, 1 << 16)))
    def settle(self, chunk: int) -> None:
        self.world.chunk = chunk
        self.world.settle()

    @rule(pool_size=st.integers(1, 3), cap=st.sampled_from((0, 1, 3)))
    def reload(self, pool_size: int, cap: int) -> None:
        """Lower limits take hold as connections come back, so only what was there already may exceed them."""
        busiest = max((len(pool.busy) + pool.opening for pool in self.world.pools), default=0)
        used = max((use.used - sum(len(pool.idle) for pool in use.pools) for use in self.uses), default=0)
        self.pool_size = max(pool_size, busiest)
        self.cap = max(cap, used) if cap else 0
        self.world.reload(self.configuration())

    @property
    def uses(self):  # type: ignore[no-untyped-def]
        return list(self.world.service.pools._uses.values())

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def look(self, *, finely: bool = False) -> None:
        """`finely`: only one step was made since the last look."""
        self.world.check_limits()
        assert not self.cluster.complaints, self.cluster.complaints
        self.the_specification_is_kept()
        if finely or self.mode is PoolMode.SESSION:
            self.nobody_is_overtaken()
        disturbed = {client.session for client in self.disturbed}  # a canceled request gives up its place
        self.before = {
            pool: [client for client in pool.waiters if client not in disturbed] for pool in self.world.pools
        }

    def the_specification_is_kept(self) -> None:
        """Both sides are judged by `spec.pooling`, but for what clients do wrong themselves."""
        broken = [
            (event, violation)
            for event, violation in self.sides.violations
            if not (isinstance(event, Said) and event.side is Side.CLIENT and violation.sender is Sender.FRONTEND)
        ]
        assert not broken, (broken[0][1].rule.name, broken[0][1].message, self.sides.history(broken[0][0])[-12:])

    @invariant()
    def nobody_sees_what_is_not_theirs(self) -> None:
        for client in self.clients:
            assert set(client.rows) <= {client.token, ""}, client.token

    def nobody_is_overtaken(self) -> None:
        for pool, earlier in self.before.items():
            waiting = [client for client in earlier if client in pool.waiters]
            assert [client for client in pool.waiters if client in waiting] == waiting, "the order changed"
            for client in earlier:
                if client.server is not None and client.state == ClientState.ACTIVE:
                    ahead = earlier[: earlier.index(client)]
                    assert not any(one in pool.waiters for one in ahead), "somebody was overtaken"

    # -- the end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.let_everybody_go()
        finally:
            self.patch.undo()

    def let_everybody_go(self) -> None:
        world = self.world
        world.hold_opens = world.hold_cancels = False
        world.chunk = 1 << 16
        for process in self.cluster.processes:
            process.stalled, process.let_go = False, True
            process.release()
        for client in self.clients:
            client.stalled = False
        world.settle()
        self.everybody_who_waits_gets_a_turn()
        for client in self.present:
            client.leave()
        world.settle()
        for client in self.clients:
            if client not in self.disturbed and not self.differs_by_mode(client):
                check_answers(client)
        world.pass_time(100)
        for process in self.cluster.alive:
            process.terminate()
        world.pass_time(100)
        self.look()
        assert set(world.counts().values()) == {0}, world.counts()
        assert world.ports == []
        assert (world.opening, world.cancels, world.computations, world.deadlines.next()) == ([], [], [], 0.0)

    def differs_by_mode(self, client: Client) -> bool:
        """It asked for what a server of its own answers in another way."""
        of_leases = (b"show", frame("D", b"S\0"))  # what an earlier request has left in the session
        asked = {PoolMode.SESSION: (), PoolMode.TRANSACTION: of_leases, PoolMode.STATEMENT: (*of_leases, b"begin")}
        return any(word in client.said for word in asked[self.mode])

    def everybody_who_waits_gets_a_turn(self) -> None:
        world = self.world
        for _ in range(MOST_CLIENTS * 4):
            world.pass_time(6)
            for process in self.cluster.alive:
                process.let_go = True
                process.release()
            if not any(pool.waiters for pool in world.pools):
                return
            for client in self.asking:
                client.leave()
            world.settle()
        world.pass_time(40)
        assert not any(pool.waiters for pool in world.pools), f"lost: {world.pools}"


def check_answers(client: Client) -> None:
    """What the client got is what a server of its own would have said, up to the moment when one of the two ended."""
    expected = list(cut(bytearray(direct_transcript(bytes(client.said), client.token))))
    stream = bytearray(client.after_login)
    got = list(cut(stream))
    if got == expected[: len(got)]:
        return  # so far as it came; a message that was cut off has not become anything else
    *answers, (kind, body) = got
    assert answers == expected[: len(answers)], f"{client.token} got {got} instead of {expected}"
    assert kind == "E", "something else than the end came in between"
    assert not stream, "something follows the end"
    assert messages.read_error(body).severity == "FATAL"
    told = [messages.read_error(body).severity for kind, body in answers if kind == "E"]
    assert "FATAL" not in told, "the end was told twice"


class TransactionMode(SessionMode):
    mode = PoolMode.TRANSACTION


class StatementMode(SessionMode):
    mode = PoolMode.STATEMENT


TestSessionMode = SessionMode.TestCase
TestTransactionMode = TransactionMode.TestCase
TestStatementMode = StatementMode.TestCase
TestSessionMode.settings = settings(deadline=None, stateful_step_count=40)
TestTransactionMode.settings = TestStatementMode.settings = TestSessionMode.settings
