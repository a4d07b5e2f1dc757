"""Counterexamples that the test of the whole data plane has found, each as its shortest script.

What a server says at the very end of a lease, and where nobody can tell yet which replies are still to come.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgpooler.config.choices import ResetPolicy, SessionStatePolicy
from spec import phrases as say
from spec.codec import Instance, encode
from tests.legal_server import reported, tagged
from tests.whole_data_plane import TaggedClient, WholeDataPlane, WholeTransactionMode

COPY_IN_SERIES = [say.parse(b"COPY t FROM STDIN"), say.bind(), say.execute()]
COPY_IN_QUERY = [say.query(b"COPY t FROM STDIN")]


def begun(reset: ResetPolicy) -> Iterator[WholeDataPlane]:
    """Two clients and one server connection in transaction mode."""
    machine = WholeTransactionMode()
    machine.begin(
        pool_size=1,
        wait=0.0,
        query_timeout=0.0,
        server_capacity=None,
        reset=reset,
        on_session_state=SessionStatePolicy.PIN,
    )
    yield machine
    machine.patch.undo()


@pytest.fixture
def machine() -> Iterator[WholeDataPlane]:
    yield from begun(ResetPolicy.SMART)


@pytest.fixture
def forgetful() -> Iterator[WholeDataPlane]:
    """The same, whose server connection keeps no statement from one lease to the next."""
    yield from begun(ResetPolicy.ALWAYS)


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


@pytest.mark.parametrize("name", [b"", b"r"])
@pytest.mark.parametrize("begins", [COPY_IN_SERIES, COPY_IN_QUERY], ids=["a series", "a Query"])
def test_a_sync_sent_into_a_copy_that_fails_leaves_no_doubt_about_what_is_pipelined_behind_it(
    machine: WholeDataPlane, begins: list[Instance], name: bytes
) -> None:
    """A trigger for the statement may fail when the server has asked for the data, before it has read anything.

    Whether it would then answer the Sync depends on when it reads it: so it does not get it (protocol-copy: the Syncs
    in a COPY are ignored).
    """
    client, _ = machine.clients
    (server,) = machine.servers
    send(client, *begins, say.SYNC, say.COPY_FAIL)
    while server.judge.replying_to is not None and "CopyInResponse" not in server.judge.legal:
        server.speak(None)
    server.speak(None)  # CopyInResponse
    machine.world.settle()
    send(client, say.parse(b"SELECT 1", name), say.describe_statement(name), say.bind(statement=name), say.SYNC)
    assert not server.judge.is_ambiguous
    server.tell(server.marked(say.error(), server.judge.replying_to))  # type: ignore[arg-type]
    server.has_failed = True
    server.runs.clear()
    machine.rest()
    machine.look()
    assert machine.is_answered(client), machine.owed(client)
    behind = [kind for kind, _ in client.received if kind in "1tT2EZ"][-6:]
    if begins is COPY_IN_QUERY:
        assert behind == ["Z", "1", "t", "T", "2", "Z"]
    else:  # and is skipped with the rest of the series
        assert behind[-2:] == ["E", "Z"]
        assert client.received[-1][0] == "Z"


def test_a_request_pipelined_behind_the_copy_of_a_query_in_place_of_a_sync_is_answered(machine: WholeDataPlane) -> None:
    client, _ = machine.clients
    send(client, *COPY_IN_SERIES, say.COPY_DONE, *COPY_IN_QUERY, say.COPY_DONE)
    send(client, say.parse(b"SELECT 1", b"s"), say.describe_statement(b"s"), say.SYNC)
    machine.rest()
    machine.rest()  # not on the same connection: a Query came in place of a Sync
    machine.look()
    assert machine.is_answered(client), machine.owed(client)
    assert "".join(kind for kind, _ in client.received if kind in "GCZ1tT").endswith("GCGCZ1tTZ")


def test_what_is_sent_into_the_copy_of_a_series_holds_nothing_up(machine: WholeDataPlane) -> None:
    client, _ = machine.clients
    send(client, *COPY_IN_SERIES, *COPY_IN_QUERY, say.parse(b"SELECT 1", b"s"), say.SYNC)
    machine.rest(are_waited_for=True)
    machine.look()
    assert machine.is_answered(client), machine.owed(client)


def test_nothing_is_prepared_in_front_of_half_a_bind(forgetful: WholeDataPlane) -> None:
    """An error about it would answer a request that the client has not made yet."""
    client, _ = forgetful.clients
    (server,) = forgetful.servers
    send(client, say.parse(b"SELECT 1", b"s"), say.SYNC)
    forgetful.rest()
    bind = encode(say.bind(statement=b"s"))
    client.say(bind[:-1])
    forgetful.world.settle()
    assert server.judge.idle
    client.say(bind[-1:] + encode(say.SYNC))
    forgetful.world.settle()
    assert not server.judge.idle
    forgetful.rest()
    forgetful.look()
    assert forgetful.is_answered(client), forgetful.owed(client)


def test_an_error_about_the_shape_of_a_statement_answers_what_the_client_says_next(machine: WholeDataPlane) -> None:
    """Behind the ParseComplete it would answer nothing, as long as the client asks no more."""
    client, _ = machine.clients
    (server,) = machine.servers
    send(client, say.parse(b"SELECT 1", b"s"), say.FLUSH)
    machine.rest()
    send(client, say.SYNC)
    assert server.judge.owed == ("DescribeStatement", "Sync")
    server.take_turn()
    server.tell(server.marked(say.error(), server.judge.replying_to))  # type: ignore[arg-type]
    server.has_failed = True
    machine.rest()
    machine.look()
    assert [kind for kind, _ in client.received if kind in "1tEZ"][-3:] == ["1", "E", "Z"]


def test_who_asks_for_the_shape_of_a_statement_is_answered_by_the_only_describe(machine: WholeDataPlane) -> None:
    client, _ = machine.clients
    (server,) = machine.servers
    send(client, say.parse(b"SELECT 1", b"s"), say.describe_statement(b"s"), say.SYNC)
    assert server.judge.owed == ("Parse", "DescribeStatement", "Sync")
    machine.rest()
    machine.look()
    assert machine.is_answered(client), machine.owed(client)
