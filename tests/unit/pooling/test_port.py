"""The queue of a port: whatever is taken when, bytes keep their order and none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.memory import MemoryPort, World, configure
from tests.scripted import Recording


def connected(capacity: int | None) -> tuple[World, MemoryPort, Recording]:
    world = World(configure())
    port = MemoryPort(world, "peer", capacity)
    return world, port, Recording(port)


def test_what_the_peer_takes_at_once_is_not_queued() -> None:
    world, port, far = connected(None)
    assert port.write(b"0123456789", 2, 5)
    assert not port.queue
    world.settle()
    assert far.data == b"234"


def test_what_the_peer_does_not_take_is_queued() -> None:
    world, port, far = connected(4)
    far.stalled = True
    assert not port.write_all(b"0123456789")
    assert port.queue == b"456789"
    assert not port.write_all(b"x"), "what is queued goes first"
    far.stalled = False
    world.settle()
    assert far.data == b"0123456789x"
    assert not port.queue


def test_writing_nothing_queues_nothing() -> None:
    _, port, _ = connected(0)
    assert port.write(b"abc", 1, 1)


def test_writing_to_a_closed_port_does_nothing() -> None:
    _, port, _ = connected(4)
    port.write_all(b"0123456789")
    port.close()
    assert port.write_all(b"x")
    assert not port.queue


@given(st.lists(st.binary(max_size=30) | st.none(), max_size=30), st.integers(1, 20))
def test_bytes_keep_their_order(pieces: list[bytes | None], capacity: int) -> None:
    world, port, far = connected(capacity)
    for piece in pieces:
        if piece is None:
            port.step_far()
            port.step_write()
        else:
            port.write_all(piece)
    world.settle()
    assert far.data == b"".join(piece for piece in pieces if piece is not None)
