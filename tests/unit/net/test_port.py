"""A port over a socket: its queue, its pauses, and how it ends."""

from __future__ import annotations

import contextlib
import socket

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.net.port import LINGER
from tests.unit.net.fakes import Bench, reset


def read_all(peer: socket.socket) -> bytes:
    data = b""
    while piece := peer.recv(1 << 16):
        data += piece
    return data


def test_what_arrives_is_received(bench: Bench) -> None:
    _, session, peer = bench.pair()
    peer.send(b"hello")
    bench.until(lambda: session.received)
    assert session.received == b"hello"


def test_one_wake_up_is_one_receive(bench: Bench) -> None:
    _, session, peer = bench.pair()
    peer.send(b"x" * 100)
    bench.turn()
    assert session.received == b"x" * 100
    assert bench.turn(0) == 0


def test_what_the_peer_does_not_take_is_queued_and_goes_out_in_order(bench: Bench) -> None:
    port, session, peer = bench.pair(small=True)
    data = bytes(range(256)) * 4000
    assert not port.write(data, 0, 500_000)
    assert port.queue
    assert not port.write(data, 500_000, len(data)), "what is queued goes first"
    got = bytearray()
    while len(got) < len(data):
        got += peer.recv(1 << 16)
        bench.turn(0.01)
    assert got == data
    assert session.drains == 1
    assert not port.queue
    assert bench.turn(0) == 0, "nobody waits for a socket that takes everything"


@given(st.lists(st.integers(0, 60_000), max_size=12), st.integers(1, 50_000))
def test_bytes_keep_their_order_whatever_is_taken_when(sizes: list[int], reading: int) -> None:
    bench = Bench()
    try:
        port, _, peer = bench.pair(small=True)
        peer.setblocking(False)
        sent, got = bytearray(), bytearray()

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                got.extend(peer.recv(reading))

        for number, size in enumerate(sizes):
            piece = bytes((number + 1,)) * size
            sent += piece
            port.write_all(piece)
            read()
            bench.turn(0)
        while port.queue or len(got) < len(sent):
            read()
            bench.turn(0)
        assert got == sent
    finally:
        bench.close()


def test_a_paused_port_reads_nothing(bench: Bench) -> None:
    port, session, peer = bench.pair()
    port.pause()
    port.pause()
    peer.send(b"x")
    assert bench.turn(0.05) == 0
    port.resume()
    bench.until(lambda: session.received)


def test_a_paused_port_still_writes(bench: Bench) -> None:
    port, session, peer = bench.pair(small=True)
    while port.write(bytes(100_000), 0, 100_000):
        pass
    port.pause()
    while port.queue:
        peer.recv(1 << 16)
        bench.turn(0.01)
    assert session.drains == 1
    peer.send(b"x")
    assert bench.turn(0.05) == 0
    assert session.received == b""


def test_the_end_of_the_peer_is_reported_once_after_everything_it_sent(bench: Bench) -> None:
    port, session, peer = bench.pair()
    peer.send(b"last words")
    peer.close()
    bench.until(lambda: port.closed)
    assert session.received == b"last words"
    assert session.ends == ["end of file"]
    assert port not in bench.relay.ports


def test_a_reset_is_reported_once(bench: Bench) -> None:
    port, session, peer = bench.pair()
    reset(peer)
    bench.until(lambda: port.closed)
    assert session.ends == ["connection reset by peer"]


def test_writing_to_a_broken_connection_is_no_error_and_its_end_is_read(bench: Bench) -> None:
    """W27: a failed send followed by an end touches nothing that is gone."""
    port, session, peer = bench.pair()
    reset(peer)
    for _ in range(5):
        port.write_all(b"x" * 1000)
    bench.until(lambda: port.closed)
    assert len(session.ends) == 1
    assert port.write_all(b"x"), "also not when it is closed"


def test_closing_twice_does_no_harm(bench: Bench) -> None:
    port, _, _ = bench.pair()
    port.close()
    port.close()
    port.finish()
    port.pause()
    port.resume()
    assert "closed" in repr(port)


def test_last_words_arrive_although_the_peer_is_still_sending(bench: Bench) -> None:
    """Closing with bytes unread would reset the connection, and the error would be lost with it."""
    port, _, peer = bench.pair()
    peer.send(b"x" * 50_000)
    port.write_all(b"the last words")
    port.finish()
    peer.send(b"x" * 50_000)
    bench.turn()
    peer.send(b"x" * 50_000)
    assert read_all(peer) == b"the last words"
    peer.close()
    bench.until(lambda: port.closed)


def test_long_last_words_arrive_whole(bench: Bench) -> None:
    port, session, peer = bench.pair(small=True)
    words = bytes(range(256)) * 2000
    port.write_all(words)
    port.finish()
    assert "finishing" in repr(port)
    got = bytearray()
    while len(got) < len(words):
        got += peer.recv(1 << 16)
        bench.turn(0.01)
    assert got == words
    assert read_all(peer) == b""
    peer.close()
    bench.until(lambda: port.closed)
    assert session.drains == 0
    assert session.ends == [], "the session hears no more of it"


def test_a_peer_that_never_closes_is_left_after_a_while(bench: Bench) -> None:
    port, _, _ = bench.pair()
    port.finish()
    port.finish()
    bench.loop.pass_time(LINGER - 0.1)
    assert not port.closed
    bench.loop.pass_time(0.2)
    assert port.closed
    assert bench.deadlines.next() == 0.0


def test_a_peer_that_floods_us_is_left_after_a_while(bench: Bench) -> None:
    port, _, peer = bench.pair()
    port.finish()
    for _ in range(20):
        peer.send(b"x" * 10_000)
        bench.turn()
    bench.loop.pass_time(LINGER + 0.1)
    assert port.closed


def test_a_port_that_ends_writing_still_reads(bench: Bench) -> None:
    port, session, peer = bench.pair()
    port.write_all(b"goodbye")
    port.end_writing()
    assert read_all(peer) == b"goodbye"
    peer.send(b"and yours")
    peer.close()
    bench.until(lambda: port.closed)
    assert session.received == b"and yours"
    assert session.ends == ["end of file"]


def test_a_port_that_ends_writing_sends_its_queue_first(bench: Bench) -> None:
    port, session, peer = bench.pair(small=True)
    words = bytes(range(256)) * 2000
    port.write_all(words)
    port.end_writing()
    got = bytearray()
    while len(got) < len(words):
        got += peer.recv(1 << 16)
        bench.turn(0.01)
    assert got + read_all(peer) == words
    assert session.ends == []


def test_a_bug_in_a_session_ends_its_connection_and_is_reported(bench: Bench) -> None:
    port, session, peer = bench.pair()
    other, other_session, other_peer = bench.pair()
    session.fails = {"receive"}
    peer.send(b"x")
    other_peer.send(b"y")
    bench.until(lambda: other_session.received and port.closed)
    assert session.ends == ["internal error"]
    assert not other.closed
    assert [str(error) for error in bench.reports] == ["a bug in receive"]


def test_a_bug_on_top_of_a_bug_does_not_stop_the_poller(bench: Bench) -> None:
    port, session, peer = bench.pair()
    session.fails = {"receive", "end"}
    peer.send(b"x")
    bench.until(lambda: port.closed)
    assert [str(error) for error in bench.reports] == ["a bug in receive", "a bug in end"]
    assert bench.turn(0) == 0
