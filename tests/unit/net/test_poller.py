"""The rules of the nested poller, each with real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from pgpooler.net.poller import BATCH, PAUSED, READABLE, Poller
from tests.unit.net.fakes import Bench, reset


class Handler:
    """Writes down what it is told."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.batch = 0
        self.events: list[int] = []
        self.crashes: list[Exception] = []
        self.act = act

    def ready(self, events: int, now: float) -> None:
        self.events.append(events)
        self.act()

    def crashed(self, error: Exception, now: float) -> None:
        self.crashes.append(error)


@pytest.fixture
def poller() -> Iterator[Poller]:
    poller = Poller(lambda: 1.0)
    yield poller
    poller.close()


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        both = socket.socketpair()
        made.extend(both)
        return both

    yield pair
    for one in made:
        one.close()


def test_nothing_ready_is_no_event(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    ours, _ = pairs()
    handler = Handler()
    poller.register(ours.fileno(), handler, READABLE)
    assert poller.run_ready() == 0
    assert handler.events == []


def test_a_handler_is_told_as_long_as_there_is_something_to_read(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = pairs()
    handler = Handler()
    poller.register(ours.fileno(), handler, READABLE)
    theirs.send(b"x")
    assert poller.run_ready() == 1
    assert poller.run_ready() == 1
    ours.recv(1)
    assert poller.run_ready() == 0


def test_no_more_events_than_a_batch_are_served_per_wake_up(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    handlers = []
    for _ in range(BATCH + 10):
        ours, theirs = pairs()
        handler = Handler(lambda ours=ours: ours.recv(10))  # type: ignore[misc]
        poller.register(ours.fileno(), handler, READABLE)
        handlers.append(handler)
        theirs.send(b"x")
    assert poller.run_ready() == BATCH
    assert poller.run_ready() == 10
    assert all(len(handler.events) == 1 for handler in handlers)


def test_an_exception_ends_only_the_connection_it_came_from(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    def fail() -> None:
        raise RuntimeError("a bug")

    handlers = [Handler(), Handler(fail), Handler()]
    for handler in handlers:
        ours, theirs = pairs()
        poller.register(ours.fileno(), handler, READABLE)
        theirs.send(b"x")
    assert poller.run_ready() == 3
    assert [len(handler.events) for handler in handlers] == [1, 1, 1]
    assert [len(handler.crashes) for handler in handlers] == [0, 1, 0]


def test_a_reused_descriptor_gets_no_stale_event_of_the_same_batch(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    """W27: an event for a number that was closed and opened again belongs to nobody."""
    first, first_peer = pairs()
    second, second_peer = pairs()
    newcomer = Handler()
    kept: list[socket.socket] = []

    def replace(other: socket.socket) -> Callable[[], None]:
        def act() -> None:
            number = other.fileno()
            poller.unregister(number)
            fresh, fresh_peer = pairs()
            os.dup2(fresh.fileno(), number)  # closes it and gives its number to another connection
            kept.append(fresh_peer)
            poller.register(number, newcomer, READABLE)

        return act

    # Whichever of the two is served first replaces the other.
    handlers = [Handler(replace(second)), Handler(replace(first))]
    poller.register(first.fileno(), handlers[0], READABLE)
    poller.register(second.fileno(), handlers[1], READABLE)
    first_peer.send(b"x")
    second_peer.send(b"x")
    assert poller.run_ready() == 2
    assert newcomer.events == []
    assert sum(len(handler.events) for handler in handlers) == 1
    for handler in handlers:
        handler.act = lambda: None
    kept[0].send(b"y")
    poller.run_ready()
    assert len(newcomer.events) == 1, "what comes after the batch is heard"


def test_an_event_for_a_connection_that_was_closed_in_the_same_batch_is_passed_over(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    """W27"""
    sockets = [pairs() for _ in range(2)]
    handlers = [Handler(), Handler()]
    for (ours, _), handler in zip(sockets, handlers, strict=True):
        poller.register(ours.fileno(), handler, READABLE)

    def close(number: int) -> Callable[[], None]:
        def act() -> None:
            poller.unregister(sockets[number][0].fileno())
            sockets[number][0].close()

        return act

    handlers[0].act, handlers[1].act = close(1), close(0)
    for _, theirs in sockets:
        theirs.send(b"x")
    assert poller.run_ready() == 2
    assert sum(len(handler.events) for handler in handlers) == 1


def test_unregistering_twice_does_no_harm(poller: Poller, pairs) -> None:  # type: ignore[no-untyped-def]
    ours, _ = pairs()
    poller.register(ours.fileno(), Handler(), READABLE)
    assert len(poller) == 1
    poller.unregister(ours.fileno())
    poller.unregister(ours.fileno())
    assert len(poller) == 0


@pytest.mark.parametrize("leave", [socket.socket.close, reset, lambda peer: peer.shutdown(socket.SHUT_WR)])
def test_a_paused_descriptor_whose_peer_goes_costs_one_wake_up_even_if_nobody_acts(poller: Poller, leave) -> None:  # type: ignore[no-untyped-def]
    """HUP cannot be masked: with an empty mask this is a wake-up without end."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as ours:
        theirs, _ = listening.accept()
        handler = Handler()
        poller.register(ours.fileno(), handler, PAUSED)
        theirs.send(b"unread")
        leave(theirs)
        for _ in range(50):
            poller.run_ready()
        theirs.close()
        # A graceful close can show twice: the end of their side, then the answer to what is still unread.
        assert 1 <= len(handler.events) <= 2


def test_a_paused_client_that_resets_costs_one_wake_up(bench: Bench) -> None:
    """W27"""
    port, session, peer = bench.pair()
    port.pause()
    peer.send(b"unread")
    reset(peer)
    assert bench.wake_ups() == 1
    assert session.ends == ["connection reset by peer"]
    assert port.closed
    assert len(bench.relay.poller) == 0


def test_a_paused_client_that_closes_costs_one_wake_up_and_what_it_said_is_kept(bench: Bench) -> None:
    port, session, peer = bench.pair()
    port.pause()
    peer.send(b"last words")
    peer.shutdown(socket.SHUT_WR)
    assert bench.wake_ups() == 1
    assert session.hang_ups == 1
    assert session.ends == []
    port.resume()
    bench.until(lambda: port.closed)
    assert session.received == b"last words"
    assert session.ends == ["end of file"]


def test_a_paused_client_with_a_queue_that_closes_its_side_does_not_keep_us_busy(bench: Bench) -> None:
    """Waiting to write and not reading, with the peer's end in sight and its buffers full."""
    port, session, peer = bench.pair(small=True)
    while port.write(bytes(100_000), 0, 100_000):
        pass
    port.pause()
    peer.shutdown(socket.SHUT_WR)
    assert bench.wake_ups() <= 2
    assert session.hang_ups >= 1
    before = len(port.queue)
    while port.queue:
        peer.recv(100_000)
        bench.turn(0.05)
    assert before > 0
    assert session.drains == 1
