"""A client that speaks raw bytes, remembers both sides, and has them judged as they pass.

It knows no more of a session than it is told, waits for nothing longer than its patience, and never stops reading
while it sends, so that a target which answers before it has read everything is no deadlock.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable

from spec.codec import Instance, Malformed, frontend
from spec.conformance.proofs import Proofs
from spec.conformance.requests import Raw, Request, encoded
from spec.conformance.target import Target
from spec.judge import ConnectionJudge
from spec.listener import Listener
from spec.messages import ANSWERS, Sender
from spec.session import Violation

CHUNK = 65_536
BREATH = 0.5
"""Seconds between two looks at the clock of somebody who watches a long wait."""


class Silent(Exception):
    """Nothing came within the patience that was left."""


class Garbled(Exception):
    """What came is no message; the text says what is wrong with it."""


def nobody() -> None:
    """Watch nothing."""


class Connection:
    """One connection to a target, from its first byte."""

    def __init__(self, target: Target, watch: Callable[[], None] = nobody) -> None:
        self.target = target
        self.watch = watch
        self.socket: socket.socket = socket.create_connection((target.host, target.port), timeout=target.patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.record: list[tuple[Sender, bytes]] = []
        self.violations: list[Violation] = []
        self.fault = ""
        """What was wrong with bytes that the target sent."""
        self.is_closed = False
        """The target has closed the connection."""
        self.process_id, self.key = 0, b""
        self._begin()

    def _begin(self) -> None:
        self.listener = Listener()
        self.judge: ConnectionJudge | None = ConnectionJudge()
        self.heard: deque[Instance] = deque()

    # Sending

    def send(self, *requests: Request, pieces: int = 0) -> None:
        """Send requests in one go, or in pieces of that many bytes; after raw bytes nothing is judged any more."""
        version = self.listener.version
        data = b"".join(encoded(request, version) for request in requests)
        if any(isinstance(request, Raw) for request in requests):
            self.judge = None
        self._say(data, pieces or len(data) or 1)

    def _say(self, data: bytes, size: int) -> None:
        self.record.append((Sender.FRONTEND, data))
        if self.judge is not None:
            self.violations += self.judge.hear(Sender.FRONTEND, data)
            self.listener.hear(Sender.FRONTEND, data)
        rest = memoryview(data)
        deadline = time.monotonic() + self.target.patience
        while rest and not self.is_closed:
            readable, writable = self._wait(deadline, is_sending=True)
            if readable:
                self._receive()
            if writable:
                try:
                    rest = rest[self.socket.send(rest[:size]) :]
                    deadline = time.monotonic() + self.target.patience
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    continue
                except OSError:
                    return  # what it had to say before it closed the connection can still be read

    def _wait(self, deadline: float, *, is_sending: bool) -> tuple[bool, bool]:
        """Wait until the socket can be read or written; Silent once the deadline has passed."""
        writers = [self.socket] if is_sending else []
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True, False
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silent
            readable, writable, _ = select.select([self.socket], writers, [], min(left, BREATH))
            if readable or writable:
                return bool(readable), bool(writable)
            self.watch()

    @property
    def breaks_a_rule(self) -> bool:
        """Whether the target has broken a rule that nobody has asked for yet."""
        return any(violation.sender is Sender.BACKEND for violation in self.violations)

    # Receiving

    def _receive(self) -> None:
        """Take what has arrived, or the end of it."""
        try:
            data = self.socket.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        self.record.append((Sender.BACKEND, data))
        if not data:
            self.is_closed = True
        if self.judge is not None:
            judge = self.judge
            self.violations += judge.hear(Sender.BACKEND, data) if data else judge.ended(Sender.BACKEND)
        if not self.fault:
            try:
                self.heard += (heard.instance for heard in self.listener.hear(Sender.BACKEND, data))
            except Malformed as malformed:
                self.fault = str(malformed)

    def receive(self, deadline: float) -> Instance | None:
        """Return the next message, None at the end of the connection; raise Silent or Garbled."""
        while not self.heard:
            if self.fault:
                raise Garbled(self.fault)
            if self.is_closed:
                if self.listener.rest[Sender.BACKEND]:
                    raise Garbled("the connection was closed in the middle of a message")
                return None
            if self._wait(deadline, is_sending=False)[0]:
                self._receive()
        return self.heard.popleft()

    def bytes_until_closed(self, deadline: float) -> bytes:
        """Return everything that comes until the target closes the connection, whatever it is."""
        start = len(self.record)
        while not self.is_closed:
            if self._wait(deadline, is_sending=False)[0]:
                self._receive()
        return b"".join(data for sender, data in self.record[start:] if sender is Sender.BACKEND)

    # Sessions

    def ask_for_encryption(self, name: str, deadline: float) -> str:
        """Ask for TLS or GSSAPI encryption; return the single byte that answers, or nothing if something else came."""
        self.send(frontend(name))
        answers = self.listener.answers
        while self.listener.answers == answers and not self.is_closed and not self.heard and not self.fault:
            if self._wait(deadline, is_sending=False)[0]:
                self._receive()
        given = self.listener.answers[len(answers) :].decode()
        return given if given.encode() in tuple(ANSWERS[name][i : i + 1] for i in range(2)) else ""

    def start_tls(self) -> None:
        """Go on in TLS, trusting whoever is there: the protocol is what is looked at."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket.settimeout(self.target.patience)
        self.socket = context.wrap_socket(self.socket)
        self.socket.setblocking(False)
        self._begin()

    def log_in(self, startup: Instance, proofs: Proofs | None, deadline: float, heard: list[Instance]) -> None:
        """Begin a session; add what is heard up to the first ReadyForQuery or the end of the connection to `heard`.

        Without proofs it is heard up to the first request for one.
        """
        self.send(startup)
        while (message := self.receive(deadline)) is not None:
            heard.append(message)
            if message.name == "BackendKeyData":
                process_id, key = message["process_id"], message["key"]
                assert isinstance(process_id, int)
                assert isinstance(key, bytes)
                self.process_id, self.key = process_id, key
            elif message.name.startswith("Authentication"):
                if proofs is None:
                    break
                if message.name == "AuthenticationSASLFinal" and not proofs.is_genuine(message):
                    raise Garbled("the server's signature in AuthenticationSASLFinal is wrong")
                answer = proofs.answer(message)
                if answer is not None:
                    self.send(answer)
            elif message.name == "ReadyForQuery":
                break

    def close(self, *, is_reset: bool = False) -> None:
        """Close the connection, at TCP's level with a reset if asked for."""
        if is_reset:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def startup(user: str | None, database: str, minor: int, parameters: tuple[tuple[str, str], ...]) -> Instance:
    """Return a StartupMessage."""
    pairs = [] if user is None else [("user", user), ("database", database)]
    encoded_pairs = tuple((name.encode(), text.encode()) for name, text in (*pairs, *parameters))
    return frontend("StartupMessage", minor=minor, parameters=encoded_pairs)


def cancel_request(process_id: int, key: bytes) -> Raw:
    """Return a CancelRequest with a key of any length."""
    words = struct.pack("!iii", 12 + len(key), 80877102, process_id)
    return Raw(f"CancelRequest with a key of {len(key)} bytes", words + key)
