"""What a server says at the very end of a lease, and where nobody can tell yet which replies are still to come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgpooler.config.model import ResetPolicy, SessionStatePolicy
from spec import phrases as say
from spec.codec import Instance, encode
from tests.legal_server import reported, tagged
from tests.whole_data_plane import TaggedClient, WholeDataPlane, WholeTransactionMode


@pytest.fixture
def machine() -> Iterator[WholeDataPlane]:
    """Two clients and one server connection in transaction mode."""
    machine = WholeTransactionMode()
    machine.begin(
        pool_size=1,
        wait=0.0,
        query_timeout=0.0,
        server_capacity=None,
        reset=ResetPolicy.SMART,
        on_session_state=SessionStatePolicy.PIN,
    )
    yield machine
    machine.patch.undo()


def send(client: TaggedClient, *requests: Instance) -> None:
    client.say(b"".join(encode(tagged(request, client.tag)) for request in requests))
    client.world.settle()


def test_a_parameter_that_comes_with_the_end_of_a_lease_is_told_to_both_clients(machine: WholeDataPlane) -> None:
    """One read of PgPooler has the ReadyForQuery of the first client and what the server says of itself behind it."""
    first, second = machine.clients
    (server,) = machine.servers
    send(first, say.query(b"SELECT 1"))
    send(second, say.query(b"SELECT 1"))
    while not server.judge.idle:
        server.speak(None)
    server.tell(reported("TimeZone", "Mars/Olympus"))
    machine.world.settle()
    machine.rest()
    send(first, say.query(b"SELECT 1"))
    machine.rest()
    machine.look()
    for client in (first, second):
        assert [body for kind, body in client.received if kind == "S"][-1:] == [b"TimeZone\0Mars/Olympus\0"]


def test_a_copy_that_fails_before_it_has_read_what_is_pipelined_behind_it(machine: WholeDataPlane) -> None:
    """A trigger for the statement may fail when the server has asked for the data: then it has swallowed no Sync."""
    client, _ = machine.clients
    (server,) = machine.servers
    copy = [say.parse(b"COPY t FROM STDIN"), say.bind(), say.execute(), say.SYNC, say.COPY_FAIL]
    send(client, *copy)
    while server.judge.replying_to is not None and server.judge.replying_to.kind != "Execute":
        server.speak(None)
    server.speak(None)  # CopyInResponse
    machine.world.settle()
    send(client, say.parse(b"SELECT 1"), say.describe_statement(b""), say.bind(), say.SYNC)
    server.judge.choose(0)
    server.tell(server.marked(say.error(), server.judge.replying_to))  # type: ignore[arg-type]
    server.has_failed = True
    machine.rest()
    machine.look()
    assert machine.is_answered(client), machine.owed(client)
    assert [kind for kind, _ in client.received if kind in "12tTn"] == ["1", "2", "1", "t", "T", "2"]
