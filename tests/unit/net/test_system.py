"""The system calls of the data plane: what happened is told by a number."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from pgpooler.net import system
from tests.unit.net.fakes import reset


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def wait_for(connection: socket.socket) -> None:
    select.select([connection], [], [], 10)


def test_receive_tells_how_many_bytes_came(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    view = memoryview(bytearray(10))
    assert system.receive(ours, view) == system.WOULD_BLOCK
    theirs.send(b"abc")
    wait_for(ours)
    assert system.receive(ours, view) == 3
    assert bytes(view[:3]) == b"abc"


def test_receive_tells_the_end_and_a_reset_apart(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    wait_for(ours)
    assert system.receive(ours, memoryview(bytearray(10))) == 0


def test_receive_tells_a_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reset(theirs)
    wait_for(ours)
    assert system.receive(ours, memoryview(bytearray(10))) == system.BROKEN


def test_send_sends_a_stretch(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert system.send(ours, b"0123456789", 2, 5) == 3
    assert system.send(ours, bytearray(b"ab"), 0, 2) == 2
    assert theirs.recv(10) == b"234ab"


def test_send_tells_when_nothing_more_is_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    data = bytes(1 << 20)
    for _ in range(1000):
        accepted = system.send(ours, data, 0, len(data))
        if accepted == system.WOULD_BLOCK:
            return
        assert accepted > 0
    raise AssertionError("the kernel takes everything")


def test_send_tells_a_broken_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reset(theirs)
    wait_for(ours)
    assert system.send(ours, b"x", 0, 1) == system.BROKEN
