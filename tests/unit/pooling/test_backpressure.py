"""Backpressure: memory is bounded, a slow peer slows only its own partner, and nobody waits for nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.pooling.states import ClientState
from tests.scripted import Client, Setting, copy_data, query

RECEIVE = 1 << 16  # bytes that the world in memory reads at a time


def test_a_slow_client_pauses_its_server_and_only_it() -> None:
    """W23"""
    setting = Setting(pool_size=2)
    slow, quick = setting.clients(2)
    slow.port.capacity = 100
    slow.stalled = True
    slow.ask(f"row {slow.token} 100 10000")
    setting.world.settle()
    assert not setting.cluster.process_of(slow).port.reading
    assert setting.cluster.process_of(quick).port.reading
    quick.ask(f"row {quick.token} 3")
    setting.world.settle()
    assert len(quick.rows) == 3
    slow.stalled = False
    setting.world.settle()
    assert len(slow.rows) == 100
    assert setting.cluster.process_of(slow).port.reading


def test_what_is_queued_towards_a_client_is_bounded_by_one_receive() -> None:
    """W23: a slow reader of a big result is no memory blow-up."""
    setting = Setting()
    client = setting.client()
    client.port.capacity = 100
    client.stalled = True
    client.ask(f"row {client.token} 300 10000")
    most = 0
    for _ in range(100):
        for step in setting.world.steps():
            step()
            most = max(most, len(client.port.queue))
    assert RECEIVE // 2 < most <= RECEIVE


def test_what_is_queued_towards_a_server_is_bounded_by_one_receive() -> None:
    setting = Setting()
    setting.world.server_capacity = 100
    client = setting.client()
    process = setting.cluster.processes[0]
    process.stalled = True
    client.say(query(f"insert {client.token}") * 20_000)
    most = 0
    for _ in range(100):
        for step in setting.world.steps():
            step()
            most = max(most, len(process.port.queue))
    assert RECEIVE // 2 < most <= RECEIVE
    assert not client.port.reading
    process.stalled = False
    setting.world.settle()
    assert len(setting.cluster.inserted) == 20_000


def test_the_two_directions_are_independent() -> None:
    """A client that does not read may still write, and the other way round."""
    setting = Setting()
    client = setting.client()
    process = setting.cluster.processes[0]
    client.port.capacity = 50
    client.stalled = True
    client.ask(f"row {client.token} 50 10000")
    setting.world.settle()
    assert not process.port.reading
    client.ask(f"insert {client.token}")
    setting.world.settle()
    assert setting.cluster.inserted == [client.token]
    assert client.port.reading


def test_a_drained_server_is_always_read() -> None:
    setting = Setting()
    client = setting.client()
    client.port.capacity = 50
    client.stalled = True
    client.ask(f"row {client.token} 50 10000")
    setting.world.settle()
    assert not setting.cluster.processes[0].port.reading
    client.break_off()
    setting.world.settle()
    assert setting.sizes == (1, 0, 0, 0)
    assert setting.cluster.processes[0].port.reading


def test_a_slow_server_does_not_make_a_waiting_client_speak() -> None:
    """While its parameters are queued towards the server nothing is read from a client that is not let in yet."""
    setting = Setting()
    setting.world.server_capacity = 20
    waiter = Client(setting.world, "x", parameters={"search_path": "y" * 500})
    setting.world.hold_opens = True
    setting.world.settle()
    setting.world.hold_opens = False
    waiter.say(query("row x") * 100)
    for _ in range(200):
        for step in setting.world.steps():
            step()
            state = waiter.session.state  # type: ignore[union-attr]
            assert state != ClientState.WAITING or len(waiter.port.incoming) == 100 * len(query("row x"))
    setting.world.settle()
    assert len(waiter.rows) == 100


def test_a_client_that_stops_reading_gets_its_error_when_it_reads_again() -> None:
    setting = Setting()
    client = setting.client()
    client.port.capacity = 10
    client.stalled = True
    client.ask(f"row {client.token} 1 2000")
    setting.world.settle()
    setting.cluster.processes[0].crash()
    setting.world.settle()
    client.stalled = False
    setting.world.settle()
    assert client.rows == [client.token]
    assert client.sqlstates == ["08006"]


def test_what_a_server_said_last_is_read_when_its_slow_client_allows() -> None:
    setting = Setting()
    client = setting.client()
    client.port.capacity = 10
    client.stalled = True
    client.ask(f"row {client.token} 30 10000")
    setting.world.settle()
    setting.cluster.processes[0].terminate()
    setting.world.settle()
    assert not client.over
    client.stalled = False
    setting.world.settle()
    assert len(client.rows) == 30
    assert client.sqlstates == ["57P01"]


@pytest.mark.parametrize("capacity", [20, 500, 5000])
def test_large_messages_pass_both_ways_through_narrow_connections(capacity: int) -> None:
    """W10"""
    setting = Setting()
    setting.world.server_capacity = capacity
    client = Client(setting.world, "x", capacity=capacity)
    setting.world.settle()
    big = "x" + "y" * 200_000
    client.say(query("copyin x") + copy_data(big) + b"c\0\0\0\4" + query("row x 1 200000"))
    setting.world.settle()
    assert client.kinds == "GCZTDCZ"
    assert len(client.received[-3][1]) > 200_000


requests = st.lists(st.sampled_from(("row", "insert", "big")), min_size=1, max_size=30)


@given(requests, st.integers(1, 300), st.integers(1, 300), st.sampled_from((1, 10, 1000)), st.randoms())
def test_a_pair_that_keeps_reading_never_stops(  # type: ignore[no-untyped-def]
    texts: list[str], client_capacity: int, server_capacity: int, chunk: int, order
) -> None:
    """As long as both ends read, everything asked is answered, in whatever order things happen."""
    setting = Setting()
    setting.world.server_capacity = server_capacity
    setting.world.chunk = chunk
    client = Client(setting.world, "x", capacity=client_capacity)
    setting.world.settle()
    for text in texts:
        client.ask("row x 2 400" if text == "big" else f"{text} x")
        for _ in range(order.randrange(6)):
            order.choice(list(setting.world.steps()))()
    setting.world.settle()
    assert client.kinds.count("Z") == len(texts)
    assert not client.port.queue
