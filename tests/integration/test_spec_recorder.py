"""spec.record carries every byte unchanged and in order, and ends a connection as its two sides do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from spec.messages import Sender
from spec.record import Address, Recorder, listen
from spec.trace import Event
from tests.integration.clients import background, wait_for

F, B = Sender.FRONTEND, Sender.BACKEND
LOOPBACK = ("127.0.0.1", 0)
PATIENCE = 60.0
MEGABYTE = 1 << 20


class Running:
    """A recorder in a thread of its own, in front of a listening socket that the test plays the server with."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.listening = listen(LOOPBACK)
        self.address: Address = self.listening.getsockname()
        self.noted = {F: 0, B: 0}
        self.events: list[Event] = []
        self.keeps_events = True
        self.complaints: list[str] = []
        self.unreachable = 0
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self.failure = failure

    async def _serve(self) -> None:
        recorder = Recorder(self.target, self._hear, self.complaints.append)
        await recorder.serve(self.listening, most=1)
        self.unreachable = recorder.unreachable

    def _hear(self, event: Event) -> None:
        self.noted[event.sender] += len(event.data)
        if self.keeps_events:
            self.events.append(event)

    def finish(self) -> None:
        """Wait until its connection is over."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the connection does not end"
        assert self.failure is None, self.failure

    def said(self, sender: Sender) -> bytes:
        return b"".join(event.data for event in self.events if event.sender is sender)

    def order(self) -> list[tuple[Sender, bytes]]:
        """Who said what, with what arrived in pieces put together."""
        order: list[tuple[Sender, bytes]] = []
        for event in self.events:
            if order and event.data and order[-1][1] and order[-1][0] is event.sender:
                order[-1] = (event.sender, order[-1][1] + event.data)
            else:
                order.append((event.sender, event.data))
        return order


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket, Running]]:
    """Both ends of a connection that a recorder carries."""
    with socket.create_server(LOOPBACK) as waiting:
        running = Running(waiting.getsockname())
        with socket.create_connection(running.address, PATIENCE) as client:
            server, _ = waiting.accept()
            server.settimeout(PATIENCE)
            with server:
                yield client, server, running
        running.finish()


def everything(side: socket.socket) -> bytes:
    """What arrives up to the end, however it ends."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := side.recv(MEGABYTE):
            received += data
    return bytes(received)


def reset(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def test_many_bytes_both_ways_at_the_same_time_arrive_unchanged_and_are_all_noted() -> None:
    asked, answered = (random.Random(seed).randbytes(20 * MEGABYTE) for seed in (1, 2))

    def talk(side: socket.socket, data: bytes) -> None:
        side.sendall(data)
        side.shutdown(socket.SHUT_WR)

    with connection() as (client, server, running), background() as run:
        talking = [run(talk, client, asked), run(talk, server, answered)]
        hearing = [run(everything, server), run(everything, client)]
        for work in talking:
            work.result(PATIENCE)
        assert hearing[0].result(PATIENCE) == asked
        assert hearing[1].result(PATIENCE) == answered
    assert (running.said(F), running.said(B)) == (asked, answered)
    assert sorted(event.sender.value for event in running.events if event.is_end) == ["B", "F"]
    times = [event.at for event in running.events]
    assert times == sorted(times)


def test_a_question_is_noted_before_its_answer() -> None:
    with connection() as (client, server, running):
        for number in range(50):
            client.sendall(b"question %d" % number)
            assert server.recv(100) == b"question %d" % number
            server.sendall(b"answer %d" % number)
            assert client.recv(100) == b"answer %d" % number
    assert running.order()[:100] == [
        said for number in range(50) for said in ((F, b"question %d" % number), (B, b"answer %d" % number))
    ]


def test_a_slow_reader_slows_the_writer_down() -> None:
    size, kernel = 256 * MEGABYTE, 64 * MEGABYTE  # far more than all the buffers on the way hold
    with connection() as (client, server, running), background() as run:
        running.keeps_events = False

        def send() -> None:
            for _ in range(size // MEGABYTE):
                client.sendall(bytes(MEGABYTE))

        sending = run(send)
        received = 0
        while received < size:
            received += len(server.recv(MEGABYTE))
            assert running.noted[F] - received < kernel, "the recorder keeps what nobody has taken"
        sending.result(PATIENCE)
        assert running.noted[F] == size


@pytest.mark.parametrize("first", [F, B])
def test_a_side_that_has_ended_still_hears_the_other(first: Sender) -> None:
    with connection() as (client, server, running):
        one, other = (client, server) if first is F else (server, client)
        one.sendall(b"all I have")
        one.shutdown(socket.SHUT_WR)
        assert everything(other) == b"all I have"
        other.sendall(b"and")
        assert one.recv(100) == b"and"
        other.sendall(b" more")
        other.shutdown(socket.SHUT_WR)
        assert everything(one) == b" more"
    second = B if first is F else F
    assert running.order() == [(first, b"all I have"), (first, b""), (second, b"and more"), (second, b"")]


@pytest.mark.parametrize("resetting", [F, B])
def test_a_side_that_resets_has_ended_and_what_it_said_before_is_delivered(resetting: Sender) -> None:
    with connection() as (client, server, running):
        one, other = (client, server) if resetting is F else (server, client)
        one.sendall(b"last words")
        assert other.recv(100) == b"last words"
        reset(one)
        assert everything(other) == b""
    assert running.order()[:2] == [(resetting, b"last words"), (resetting, b"")]


def test_the_last_words_of_a_server_that_closes_in_the_middle_of_a_request_reach_the_client() -> None:
    with connection() as (client, server, running), background() as run:

        def send() -> None:
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    client.sendall(bytes(MEGABYTE))

        sending = run(send)
        wait_for(lambda: running.noted[F] > MEGABYTE)
        server.sendall(b"FATAL")
        server.close()  # with bytes unread: a reset
        assert everything(client) == b"FATAL"
        sending.result(PATIENCE)
    assert running.said(B) == b"FATAL"
    assert (B, b"") in running.order()


def test_a_client_that_goes_away_in_the_middle_of_an_answer_ends_the_answer() -> None:
    with connection() as (client, server, running), background() as run:

        def send() -> None:
            for _ in range(1000):
                server.sendall(bytes(MEGABYTE))

        sending = run(send)
        wait_for(lambda: running.noted[B] > MEGABYTE)
        client.close()
        with pytest.raises(ConnectionError):
            sending.result(PATIENCE)
    assert (F, b"") in running.order()


def test_a_target_that_cannot_be_reached_is_said_and_the_client_is_sent_away() -> None:
    with socket.socket() as taken:
        taken.bind(LOOPBACK)  # bound, so that nobody else has the port, but not listening
        running = Running(taken.getsockname())
        with socket.create_connection(running.address, PATIENCE) as client:
            assert everything(client) == b""
        running.finish()
    assert running.unreachable == 1
    assert running.events == []
    host, port = running.target
    assert running.complaints == [f"connection 1: {host}:{port} cannot be reached: Connection refused"]
