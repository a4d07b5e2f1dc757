"""A loop that only keeps time and timers, a relay on it, and sockets to try it with."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable

from pgpooler.net.addresses import tune
from pgpooler.net.port import SocketPort
from pgpooler.net.relay import Relay
from pgpooler.pooling.deadlines import Deadlines
from pgpooler.pooling.port import Session


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True


class Loop:
    """As much of an event loop as the relay uses; time passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readers: dict[int, Callable[[], None]] = {}
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        self.readers[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        self.readers.pop(descriptor, None)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.now, callback)

    @property
    def pending(self) -> list[float]:
        return [timer.when for timer in self.timers if not timer.canceled]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if not timer.canceled and timer.when <= self.now]
        for timer in due:
            self.timers.remove(timer)
            timer.callback()


class Listening(Session):
    """A session that keeps what it hears."""

    __slots__ = ("drains", "ends", "fails", "hang_ups", "port", "received")

    def __init__(self, port: SocketPort) -> None:
        super().__init__()
        self.port = port
        self.received = bytearray()
        self.ends: list[str] = []
        self.hang_ups = 0
        self.drains = 0
        self.fails: set[str] = set()
        port.session = self

    def receive(self, buffer: bytearray, start: int, stop: int, now: float) -> None:
        self.received += buffer[start:stop]
        if "receive" in self.fails:
            raise RuntimeError("a bug in receive")

    def end(self, reason: str, now: float) -> None:
        self.ends.append(reason)
        if "end" in self.fails:
            raise RuntimeError("a bug in end")

    def hang_up(self, now: float) -> None:
        self.hang_ups += 1

    def drained(self, now: float) -> None:
        self.drains += 1


class Bench:
    """A relay whose batches are run by hand."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.deadlines = Deadlines()
        self.relay = Relay(self.loop, self.deadlines)  # type: ignore[arg-type]
        self.reports: list[Exception] = []
        self.relay.report = lambda error, port: self.reports.append(error)  # type: ignore[method-assign]
        self.peers: list[socket.socket] = []

    def pair(self, *, small: bool = False) -> tuple[SocketPort, Listening, socket.socket]:
        """A TCP connection over loopback: our port, its session, and the peer's end."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            if small:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ours = socket.create_connection(listening.getsockname())
            theirs, _ = listening.accept()
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        tune(ours)
        theirs.settimeout(20)
        self.peers.append(theirs)
        port = self.relay.add(ours, "peer")
        return port, Listening(port), theirs

    def turn(self, timeout: float = 10.0) -> int:
        """Wait until something is ready, and run one batch of it; return how many events there were."""
        select.select([self.relay.poller.fileno()], [], [], timeout)
        return self.relay.poller.run_ready()

    def until(self, condition: Callable[[], object]) -> None:
        """Run batches until the condition holds."""
        for _ in range(10_000):
            if condition():
                return
            assert self.turn(), "nothing happens any more"
        raise AssertionError("too many wake-ups")

    def wake_ups(self) -> int:
        """How many events there are until nothing is ready any more, or a hundred."""
        count = 0
        while count < 100 and (happened := self.turn(0.05)):
            count += happened
        return count

    def close(self) -> None:
        self.relay.close()
        for peer in self.peers:
            peer.close()


def reset(peer: socket.socket) -> None:
    """Close so that the other side gets a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
