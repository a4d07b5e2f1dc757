"""The pools of one backend under anything that can happen to them: checkout, checkin, failure, time, reload.

Most clients here ask for no parameters, so that a lease is granted at once, in the middle of whatever brought it about.
The others ask for one that most of the time can be set only at the start of a connection, and need one of their own.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgpooler.config.choices import PoolMode, ResetPolicy
from pgpooler.config.model import Backend, Configuration
from pgpooler.config.model import Rule as RoutingRule
from pgpooler.errors import ServerUnavailable
from pgpooler.pooling.client import ClientSession
from pgpooler.pooling.pool import Pool
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import messages
from tests.memory import World, configure
from tests.scripted import Client, Cluster, PostgreSQL, Recording

USERS = ("alice", "bob", "carol")


class PoolMachine(RuleBasedStateMachine):
    @initialize(
        pool_size=st.integers(0, 3),
        cap=st.integers(0, 4),
        wait=st.sampled_from((0, 7)),
        lifetime=st.sampled_from((0, 40)),
        max_queue=st.sampled_from((0, 0, 2)),
        mode=st.sampled_from(PoolMode),
        policy=st.sampled_from(ResetPolicy),
        minimum=st.sampled_from((0, 0, 1)),
        reserve=st.sampled_from((0, 1)),
        query_timeout=st.sampled_from((0, 3)),
    )
    def begin(
        self,
        pool_size: int,
        cap: int,
        wait: float,
        lifetime: float,
        max_queue: int,
        mode: PoolMode,
        policy: ResetPolicy,
        minimum: int,
        reserve: int,
        query_timeout: float,
    ) -> None:
        self.pool_size, self.cap, self.host = pool_size, cap, "pg1"
        self.settings = {
            "query_wait_timeout": wait,
            "server_lifetime": lifetime,
            "server_idle_timeout": 90,
            "max_queue": max_queue,
            "pool_mode": mode,
            "server_reset_query": str(policy),
            "min_pool_size": minimum,
            "reserve_pool_size": reserve,
            "reserve_pool_timeout": 2,
            "query_timeout": query_timeout,
        }
        self.target = "primary"
        self.world = World(self.configuration())
        self.cluster = Cluster()
        self.cluster.attach(self.world)
        self.clients: list[Client] = []
        self.before: dict[Pool, list[ClientSession]] = {}
        self.canceled: set[ClientSession] = set()  # their waiting may end, and begin anew at the end of the queue

    def configuration(self) -> Configuration:
        backends = (
            Backend(name="primary", host=self.host, pool_size=self.cap),
            Backend(name="replica", host="pg2", pool_size=self.cap),
        )
        return configure(
            pool_size=self.pool_size,
            backends=backends,
            rules=(RoutingRule(backend=self.target),),
            **self.settings,
        )

    @property
    def present(self) -> list[Client]:
        return [client for client in self.clients if not client.over]

    @precondition(lambda self: len(self.present) < 8)
    @rule(
        user=st.sampled_from(USERS),
        start_only=st.sampled_from(("", "", "", "on", "off", "forbidden")),
        settled=st.booleans(),
    )
    def connect(self, user: str, start_only: str, settled: bool) -> None:
        parameters = {"ignore_system_indexes": start_only} if start_only else {}
        self.clients.append(Client(self.world, "", user=user, parameters=parameters))
        if settled:
            self.world.settle()

    @precondition(lambda self: self.present)
    @rule(
        data=st.data(), how=st.sampled_from((Client.terminate, Client.leave, Client.break_off)), settled=st.booleans()
    )
    def leave(self, data: st.DataObject, how, settled: bool) -> None:  # type: ignore[no-untyped-def]
        how(data.draw(st.sampled_from(self.present)))
        if settled:
            self.world.settle()

    @precondition(lambda self: self.present)
    @rule(
        data=st.data(),
        text=st.sampled_from(
            ("SELECT 'c'", "slow c", "BEGIN", "COMMIT", "ROLLBACK", "LISTEN c", "UNLISTEN *", "SET x TO 'c'")
        ),
        settled=st.booleans(),
    )
    def ask(self, data: st.DataObject, text: str, settled: bool) -> None:
        """A checkout, in the modes that have leases; a checkin when the answer is there."""
        client = data.draw(st.sampled_from(self.present))
        if client.logged_in:
            client.ask(text)
        if settled:
            self.world.settle()

    @precondition(lambda self: self.cluster.alive)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        """A slow statement ends."""
        data.draw(st.sampled_from(self.cluster.alive)).release()

    @precondition(lambda self: self.present)
    @rule(data=st.data(), hold=st.booleans())
    def cancel(self, data: st.DataObject, hold: bool) -> None:
        client = data.draw(st.sampled_from(self.present))
        self.world.hold_cancels = hold
        self.canceled.add(client.session)  # type: ignore[arg-type]
        Recording(port := self.world.accept())
        port.say(messages.cancel_request(client.process_id, client.cancel_key))

    @precondition(lambda self: self.world.cancels)
    @rule(orderly=st.booleans())
    def end_cancel(self, orderly: bool) -> None:
        self.world.answer_cancel(orderly=orderly)

    @rule()
    def pause(self) -> None:
        self.world.service.pools.pause(self.world.now)

    @rule()
    def resume(self) -> None:
        self.world.service.pools.resume(self.world.now)

    @precondition(lambda self: self.cluster.alive)
    @rule(data=st.data(), how=st.sampled_from((PostgreSQL.terminate, PostgreSQL.crash)))
    def end_server(self, data: st.DataObject, how) -> None:  # type: ignore[no-untyped-def]
        how(data.draw(st.sampled_from(self.cluster.alive)))

    @rule(too_late=st.booleans())
    def change_when_the_parameter_can_be_set(self, too_late: bool) -> None:
        self.cluster.start_only = {"ignore_system_indexes"} if too_late else set()

    @precondition(lambda self: self.cluster.alive)
    @rule(data=st.data(), stalled=st.booleans())
    def stall_server(self, data: st.DataObject, stalled: bool) -> None:
        data.draw(st.sampled_from(self.cluster.alive)).stalled = stalled

    @rule(hold=st.booleans())
    def hold_opens(self, hold: bool) -> None:
        self.world.hold_opens = hold

    @precondition(lambda self: self.world.opening)
    @rule(data=st.data(), succeeds=st.booleans())
    def answer_open(self, data: st.DataObject, succeeds: bool) -> None:
        index = data.draw(st.integers(0, len(self.world.opening) - 1))
        self.world.answer_open(index, error=None if succeeds else ServerUnavailable("cannot be reached"))

    @rule(unreachable=st.booleans())
    def reach(self, unreachable: bool) -> None:
        self.world.unreachable = {"primary": "Connection refused"} if unreachable else {}

    @rule(seconds=st.sampled_from((0.05, 0.11, 0.5, 8.0, 61.0, 100.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def settle(self) -> None:
        self.world.settle()

    @rule(
        pool_size=st.integers(0, 3),
        cap=st.integers(0, 4),
        host=st.sampled_from(("pg1", "pg1", "elsewhere")),
        goal=st.sampled_from(("primary", "primary", "replica")),
    )
    def reload(self, pool_size: int, cap: int, host: str, goal: str) -> None:
        """Limits only grow below what is busy: lower ones take hold as connections come back (tried elsewhere)."""
        uses = list(self.world.service.pools._uses.values())
        busiest = max((len(pool.busy) + pool.opening for pool in self.world.pools), default=0)
        busiest = max([busiest, *(2 * len(pool.pinned) for pool in self.world.pools)])
        busy = max(use.used - sum(len(pool.idle) for pool in use.pools) for use in uses)
        self.pool_size = max(pool_size, busiest) if pool_size else 0
        self.cap = max(cap, busy) if cap else 0
        self.host, self.target = host, goal
        self.world.reload(self.configuration())

    @invariant()
    def limits_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check_limits()

    @invariant()
    def nobody_is_overtaken(self) -> None:
        """Who needs a connection of its own may be served later, or earlier, than those who wait for any."""
        if not hasattr(self, "world"):
            return
        for pool, earlier in self.before.items():
            still = [client for client in earlier if client in pool.waiters and client not in self.canceled]
            assert [client for client in pool.waiters if client in still] == still, "the order changed"
            for client in earlier:
                if client.state == ClientState.ACTIVE and client.pool is pool and not client.unshared:
                    ahead = earlier[: earlier.index(client)]
                    assert not any(one in pool.waiters and not one.unshared for one in ahead)
        self.before = {pool: list(pool.waiters) for pool in self.world.pools}

    @invariant()
    def room_is_not_wasted(self) -> None:
        """Who waits while there is room has a connection being opened, or the pool pauses after a failure."""
        if not hasattr(self, "world"):
            return
        for pool in self.world.pools:
            if pool.waiters and pool.may_open and not pool.use.full and not self.world.now < pool.retry_at:
                assert not pool.unshared.wanted or pool.due, pool

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.hold_opens, world.hold_cancels, world.unreachable = False, False, {}
        world.service.pools.resume(world.now)
        self.cluster.let_go = True
        for process in self.cluster.processes:
            process.stalled = False
            process.release()
        for _ in range(20):
            world.pass_time(6)
            if not any(pool.waiters for pool in world.pools):
                break
            for client in self.present:
                if client.logged_in:
                    client.leave()
        assert not any(pool.waiters for pool in world.pools), f"lost: {world.pools}"
        for client in self.present:
            client.leave()
        world.pass_time(500)
        assert set(world.counts().values()) == {0}, world.counts()
        assert world.ports == []
        assert (world.opening, world.cancels, world.computations, world.deadlines.next()) == ([], [], [], 0.0)
        assert len(world.service.pools) == 0
        assert not any(use.pools for use in world.service.pools._uses.values())


TestPools = PoolMachine.TestCase
TestPools.settings = settings(deadline=None, stateful_step_count=40)
