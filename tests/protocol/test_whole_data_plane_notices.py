"""That the test of the whole data plane notices bugs: each is planted, and found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pgpooler.config.choices import ResetPolicy, SessionStatePolicy
from pgpooler.pooling.client import ClientSession
from pgpooler.pooling.lease import Lease
from pgpooler.pooling.owed import Owed
from pgpooler.pooling.parameters import Digest
from pgpooler.pooling.pool import Pool
from pgpooler.pooling.server import ServerSession
from pgpooler.pooling.statements import SharedStatements, Statement
from pgpooler.pooling.states import ClientState
from pgpooler.pooling.traffic import REPLIES
from pgpooler.protocol import messages
from spec import phrases as say
from spec.codec import Instance, encode
from tests.legal_server import tagged, tags
from tests.memory import MemoryPort
from tests.scripted import Recording
from tests.whole_data_plane import TaggedClient, WholeDataPlane, WholeTransactionMode


def released_too_early(machine: WholeDataPlane) -> None:
    """One ReadyForQuery answers everything."""
    ready = Owed.ready

    def hasty(owed: Owed) -> bool:
        found = ready(owed)
        owed.requests.clear()
        return found

    machine.patch.setattr(Owed, "ready", hasty)


def to_the_previous_client(machine: WholeDataPlane) -> None:
    """What is said in a lease goes to the client of the one before, while that is there."""
    begin, relay = Lease.begin, Lease.relay
    holders: dict[Lease, list[ClientSession]] = {}

    def noted(lease: Lease, client: ClientSession) -> None:
        holders.setdefault(lease, []).append(client)
        begin(lease, client)

    def misled(lease: Lease, client: ClientSession, now: float) -> None:
        previous = [one for one in holders[lease] if one is not client and one.state == ClientState.IDLE]
        server = lease._server
        if previous:
            server.client = previous[-1]
            lease.pass_on_run()
            server.framer.run(REPLIES)
            lease.pass_on_run()
            server.client = client
        relay(lease, client, now)

    machine.patch.setattr(Lease, "begin", noted)
    machine.patch.setattr(Lease, "relay", misled)


def without_a_row(machine: WholeDataPlane) -> None:
    """Of what goes to a client in one stretch the first whole DataRow is lost."""
    write = MemoryPort.write

    def lossy(port: MemoryPort, buffer: bytearray | bytes, start: int, stop: int) -> bool:
        place = start
        while isinstance(port.session, ClientSession) and place + 5 <= stop:
            end = place + 1 + int.from_bytes(buffer[place + 1 : place + 5], "big")
            if buffer[place : place + 1] == b"D" and end <= stop:
                left = bytes(buffer[start:place] + buffer[end:stop])
                return write(port, left, 0, len(left))
            place = end
        return write(port, buffer, start, stop)

    machine.patch.setattr(MemoryPort, "write", lossy)


def canceling_another(machine: WholeDataPlane) -> None:
    """A cancel request goes to a server connection of the pool that somebody else holds."""
    cancel = machine.world.cancel

    def astray(server: ServerSession, settled: Callable[[bool, float], None]) -> None:
        others = [other for other in server.pool.busy if other is not server and other.client is not None]
        cancel(others[0] if others else server, settled)

    machine.patch.setattr(machine.world, "cancel", astray)


def without_reading(machine: WholeDataPlane) -> None:
    """Statements are shared, whatever they say."""
    get = SharedStatements.get
    made: list[Statement] = []

    def first(shared: SharedStatements, body: bytes, digest: Digest | None, left: int) -> Statement:
        made.append(get(shared, body, digest, left))
        return made[0]

    machine.patch.setattr(SharedStatements, "get", first)


def forgetting_who_waits(machine: WholeDataPlane) -> None:
    """A server connection that comes back is not handed on."""
    take_back = Pool._take_back

    def forgetful(pool: Pool, server: ServerSession, now: float, probed: bool) -> None:
        pool.waiters.clear()
        take_back(pool, server, now, probed)

    machine.patch.setattr(Pool, "_take_back", forgetful)


BUGS = (
    released_too_early,
    to_the_previous_client,
    without_a_row,
    forgetting_who_waits,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_noticed(bug: Callable[[WholeDataPlane], None]) -> None:
    class Broken(WholeTransactionMode):
        def break_something(self) -> None:
            bug(self)

    enough = settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        stateful_step_count=25,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow],
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=enough)


@pytest.fixture
def machine() -> Iterator[WholeDataPlane]:
    """Two clients and two server connections in transaction mode."""
    machine = WholeTransactionMode()
    machine.begin(
        pool_size=2,
        wait=0.0,
        query_timeout=0.0,
        server_capacity=None,
        reset=ResetPolicy.SMART,
        on_session_state=SessionStatePolicy.PIN,
    )
    yield machine
    machine.patch.undo()


def ask(client: TaggedClient, *requests: Instance) -> None:
    client.say(b"".join(encode(tagged(request, client.tag)) for request in requests))
    client.world.settle()


def test_a_statement_of_another_client_is_noticed(machine: WholeDataPlane) -> None:
    without_reading(machine)
    preparing, using = machine.clients
    ask(preparing, say.parse(b"SELECT 1", b"s"), say.SYNC)
    machine.rest()
    machine.look()
    ask(using, say.parse(b"SELECT", b"s"), say.bind(statement=b"s"), say.describe_portal(), say.SYNC)
    machine.rest()
    assert "statements" in {violation.rule.name for _, violation in machine.sides.violations}
    assert tags(using.strange[0]) == {preparing.tag}


def test_a_cancel_request_that_goes_to_another_client_s_server_is_noticed(machine: WholeDataPlane) -> None:
    canceling_another(machine)
    first, second = machine.clients
    ask(first, say.query(b"SELECT 1"))
    ask(second, say.query(b"SELECT 1"))
    machine.look()
    Recording(port := machine.world.accept())
    port.say(messages.cancel_request(first.process_id, first.cancel_key))
    machine.world.settle()
    assert [violation.rule.name for _, violation in machine.sides.violations] == ["cancel"]
