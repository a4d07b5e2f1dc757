"""Networks and servers that misbehave on purpose: a relay that splits and cuts, and a server that follows a script."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from tests.integration.wire import Address

CANCEL_REQUEST_CODE = 80877102
ABORT = struct.pack("ii", 1, 0)
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
READ_WAIT = 0.02
"""Seconds to wait for a peer to read one byte; it may have good reasons not to."""


def reset(connection: socket.socket) -> None:
    """Close a connection with a TCP reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        # A shutdown wakes whoever waits in recv on this socket, which close alone does not.
        connection.shutdown(socket.SHUT_RD)
    connection.close()


def unread(connection: socket.socket, netlink: socket.socket) -> int:
    """How many bytes sent on this connection its peer, on this machine, has not read yet (man 7 sock_diag)."""
    here, there = connection.getsockname(), connection.getpeername()
    addresses = socket.inet_aton(there[0]).ljust(16, b"\0") + socket.inet_aton(here[0]).ljust(16, b"\0")
    ports = struct.pack("!HH", there[1], here[1])
    any_cookie = b"\xff" * 8
    identity = ports + addresses + bytes(4) + any_cookie
    any_state = 0xFFFFFFFF
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, any_state) + identity
    netlink.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + request)
    answer = netlink.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return int(struct.unpack_from("=I", answer, 72)[0]) if kind == SOCK_DIAG_BY_FAMILY else 0


def wait_until_read(connection: socket.socket) -> None:
    """Wait, but not for long, until the peer (on this machine) has read everything that was sent to it."""
    deadline = time.monotonic() + READ_WAIT
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        while unread(connection, netlink) and time.monotonic() < deadline:
            time.sleep(0)


class Listening:
    """Accepts connections on a free port and gives each a thread."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: Address = self._socket.getsockname()
        self.port = self.address[1]
        self.accepted = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._start(self._accept)

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def handle(self, connection: socket.socket) -> None:
        """Serve one connection, which is closed when this returns."""
        raise NotImplementedError

    def stop(self) -> None:
        """Accept no more, end all connections, and wait until their threads are over."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def keep(self, connection: socket.socket) -> socket.socket:
        """Have this connection ended by `stop` too."""
        with self._lock:
            self._open.add(connection)
        return connection

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self._start(self._serve, self.keep(connection))

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                self.handle(connection)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


class FakeServer(Listening):
    """A server that does with each connection what a script says; with none it says nothing for ever."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._script = script
        super().__init__()

    def handle(self, connection: socket.socket) -> None:
        self._script(connection)


class FaultProxy(Listening):
    """A relay to a server, which can split what it passes on, and cut it off.

    `split` names the directions in which every byte is sent alone, after the one before it has been read:
    "to server", "to client".
    """

    def __init__(self, target: Address, *, split: tuple[str, ...] = ()) -> None:
        self._target = target
        self._split = split
        self._allowed: int | None = None
        self._with_reset = False
        self._passed = threading.Event()
        super().__init__()

    def cut_after(self, count: int, *, with_reset: bool = False) -> None:
        """From now on let `count` more bytes through towards the client, then end that connection."""
        self._with_reset = with_reset
        self._allowed = count

    def mend(self) -> None:
        """Cut no more."""
        self._allowed = None

    def handle(self, connection: socket.socket) -> None:
        with socket.create_connection(self._target) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.keep(server)
            upwards = threading.Thread(target=self._pass_on, args=(connection, server, "to server"))
            upwards.start()
            self._pass_on(server, connection, "to client")
            upwards.join()
            with self._lock:
                self._open.discard(server)

    def _pass_on(self, source: socket.socket, destination: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                allowed = self._allowed
                if allowed is not None and direction == "to client":
                    data = data[:allowed]
                    self._allowed = allowed - len(data)
                self._send(destination, data, direction)
                if direction == "to client" and self._allowed == 0:
                    self._end(source, destination)
                    return
        with contextlib.suppress(OSError):
            destination.shutdown(socket.SHUT_WR)

    def _send(self, destination: socket.socket, data: bytes, direction: str) -> None:
        if direction not in self._split:
            destination.sendall(data)
            return
        for at in range(len(data)):
            destination.sendall(data[at : at + 1])
            wait_until_read(destination)

    def _end(self, source: socket.socket, destination: socket.socket) -> None:
        for connection in (source, destination):
            if self._with_reset:
                reset(connection)
            else:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


Fate = Callable[[socket.socket, Callable[[], None]], None]
"""What becomes of a cancel request: it gets the connection it came on, and what delivers it to the server."""


class CancelProxy(FaultProxy):
    """A relay to a server that leaves sessions alone; what becomes of cancel requests is a `fate` that tests choose."""

    def __init__(self, target: Address, fate: Fate) -> None:
        self.fate = fate
        super().__init__(target)

    def handle(self, connection: socket.socket) -> None:
        while len(head := connection.recv(8, socket.MSG_PEEK)) < 8:
            if not head:
                return
        length, code = struct.unpack("!ii", head)
        if code != CANCEL_REQUEST_CODE:
            super().handle(connection)
            return
        request = connection.recv(length, socket.MSG_WAITALL)
        self.fate(connection, lambda: self._deliver(request))

    def _deliver(self, request: bytes) -> None:
        """Tell the server, and wait until it has closed: then it has sent the signal."""
        with socket.create_connection(self._target) as server:
            server.sendall(request)
            while server.recv(1):
                pass


def orderly(connection: socket.socket, deliver: Callable[[], None]) -> None:
    """The cancel request is delivered, then its connection ends as the server ends it."""
    deliver()
