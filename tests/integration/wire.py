"""A client that speaks raw bytes over a socket and reads whole messages by the grammar in `spec`.

It knows no more of a session than it is told: it is there to send what a well-behaved library never sends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import struct
from typing import Any

from spec.codec import Instance, decode, encode, frontend, message_end
from spec.messages import LATEST, Sender, Version

TIMEOUT = 60.0
"""Seconds after which a silent peer counts as hanging: far beyond what anything here takes."""

SSL_REQUEST = encode(frontend("SSLRequest"))
GSSENC_REQUEST = encode(frontend("GSSENCRequest"))
TERMINATE = encode(frontend("Terminate"))
SYNC = encode(frontend("Sync"))
Address = tuple[str, int]


class Closed(Exception):
    """The peer closed the connection in the middle of what was awaited; the rest is what it had sent of it."""


def startup(user: str | None, database: str | None = None, *, minor: int = 0, **parameters: str) -> bytes:
    """A StartupMessage; protocol options are given as `_pq_x="y"` and sent as `_pq_.x`."""
    pairs = {} if user is None else {"user": user}
    if database is not None:
        pairs["database"] = database
    pairs |= {name.replace("_pq_", "_pq_.", 1): value for name, value in parameters.items()}
    encoded = tuple((name.encode(), value.encode()) for name, value in pairs.items())
    return encode(frontend("StartupMessage", minor=minor, parameters=encoded))


def cancel_request(process_id: int, key: bytes) -> bytes:
    """A CancelRequest with a key of any length."""
    return struct.pack("!iii", 12 + len(key), 80877102, process_id) + key


def typed(kind: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A message with any type, body and length word."""
    return struct.pack("!BI", kind, 4 + len(body) if length is None else length) + body


def query(text: str) -> bytes:
    return encode(frontend("Query", query=text.encode()))


def parse(text: str, *, name: bytes = b"", types: tuple[int, ...] = ()) -> bytes:
    return encode(frontend("Parse", statement=name, query=text.encode(), types=types))


def close(name: bytes = b"") -> bytes:
    """A Close of a statement."""
    return encode(frontend("Close", kind=b"S", target=name))


def bind(*values: bytes | None, name: bytes = b"") -> bytes:
    """A Bind of text values to the unnamed portal."""
    return encode(frontend("Bind", portal=b"", statement=name, formats=(), values=values, result_formats=()))


def execute(limit: int = 0) -> bytes:
    return encode(frontend("Execute", portal=b"", limit=limit))


def copy_data(data: bytes) -> bytes:
    return encode(frontend("CopyData", data=data))


def extended(text: str, *values: bytes | None) -> bytes:
    """Parse, Bind, Execute and Sync of one statement."""
    return parse(text) + bind(*values) + execute() + SYNC


def error_fields(error: Instance) -> dict[str, str]:
    """What an ErrorResponse says to people and programs; where in PostgreSQL's source it was written is left out."""
    assert error.name == "ErrorResponse", error
    fields: Any = error["fields"]
    return {code.decode(): text.decode("utf-8", "replace") for code, text in fields if code in b"SVCMDH"}


def sqlstate(error: Instance | None) -> str:
    assert error is not None, "the connection was closed without an ErrorResponse"
    return error_fields(error)["C"]


class Wire:
    """One connection to a server or a pooler, as a context manager."""

    def __init__(self, address: Address, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = address
        self.version: Version = LATEST
        self.process_id = 0
        self.key = b""
        self.received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Sending

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def send_if_possible(self, data: bytes) -> None:
        """Send as much as the peer takes before it closes the connection."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def end_sending(self) -> None:
        """Close our direction only."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # Receiving

    def receive(self, size: int = 65536) -> bytes:
        """What comes next, empty at the end, however the connection ended."""
        try:
            return self.socket.recv(size)
        except ConnectionResetError:
            return b""

    def byte(self) -> bytes:
        """One byte, such as the answer to a request for encryption; empty at the end."""
        if not self.received:
            self.received = self.receive()
        first, self.received = self.received[:1], self.received[1:]
        return first

    def message(self) -> Instance | None:
        """The next whole message, None when the peer has closed the connection between two messages."""
        while True:
            message = self.whole()
            if message is not None:
                return message
            data = self.receive()
            if not data:
                if self.received:
                    raise Closed(self.received)
                return None
            self.received += data

    def whole(self) -> Instance | None:
        """The next message if all of it has been received already."""
        end = message_end(self.received, Sender.BACKEND, version=self.version)
        if end is None or end > len(self.received):
            return None
        data, self.received = self.received[:end], self.received[end:]
        return decode(data, Sender.BACKEND, version=self.version)

    def until(self, *names: str) -> list[Instance]:
        """Every message up to the first with one of these names (ReadyForQuery if none is given), included."""
        messages = []
        while True:
            message = self.message()
            if message is None:
                raise Closed(messages)
            messages.append(message)
            if message.name in (names or ("ReadyForQuery",)):
                return messages

    def rest(self) -> list[Instance]:
        """Every message until the peer closes the connection."""
        messages = []
        while (message := self.message()) is not None:
            messages.append(message)
        return messages

    def everything(self) -> bytes:
        """Every byte until the peer closes the connection."""
        while data := self.receive():
            self.received += data
        data, self.received = self.received, b""
        return data

    def last_words(self) -> Instance | None:
        """The ErrorResponse after which the peer closed the connection; None if it closed it without one."""
        messages = self.rest()
        assert [message.name for message in messages[:-1] if message.name == "ErrorResponse"] == [], messages
        return messages[-1] if messages and messages[-1].name == "ErrorResponse" else None

    # Sessions

    def authenticate(self, user: str, password: str, database: str, *, minor: int = 0, **parameters: str) -> Instance:
        """Begin a session up to what answers the proof: AuthenticationOk or ErrorResponse."""
        self.version = (3, 2) if minor >= 2 else (3, 0)
        self.send(startup(user, database, minor=minor, **parameters))
        message = self.until("AuthenticationSASL", "AuthenticationOk", "ErrorResponse")[-1]
        if message.name != "AuthenticationSASL":
            return message
        first = b"n=,r=" + base64.b64encode(os.urandom(18))
        self.send(encode(frontend("SASLInitialResponse", mechanism=b"SCRAM-SHA-256", data=b"n,," + first)))
        challenge = self.until("AuthenticationSASLContinue", "ErrorResponse")[-1]
        if challenge.name == "ErrorResponse":
            return challenge
        server_first = challenge["data"]
        assert isinstance(server_first, bytes)
        self.send(encode(frontend("SASLResponse", data=scram_proof(password, first, server_first))))
        return self.until("AuthenticationOk", "ErrorResponse")[-1]

    def log_in(
        self,
        user: str = "postgres",
        password: str = "postgres",
        database: str = "postgres",
        *,
        minor: int = 0,
        **parameters: str,
    ) -> Wire:
        """Begin a session up to the first ReadyForQuery."""
        answer = self.authenticate(user, password, database, minor=minor, **parameters)
        assert answer.name == "AuthenticationOk", answer
        self.remember_key(self.until("ReadyForQuery", "ErrorResponse"))
        return self

    def remember_key(self, messages: list[Instance]) -> None:
        """Learn from what follows AuthenticationOk how to cancel."""
        for message in messages:
            assert message.name != "ErrorResponse", message
            if message.name == "BackendKeyData":
                process_id, key = message["process_id"], message["key"]
                assert isinstance(process_id, int)
                assert isinstance(key, bytes)
                self.process_id, self.key = process_id, key

    def ask(self, text: str) -> list[Instance]:
        """Run a simple query and return everything that answers it."""
        self.send(query(text))
        return self.until()

    def values(self, text: str) -> list[Any]:
        """The values of the rows that a simple query yields, row after row; it must not fail."""
        return row_values(self.ask(text))

    def cancel(self, behind: bytes = b"") -> bytes:
        """Ask over a connection of its own to cancel what this session runs; return what was answered, if anything."""
        with Wire(self.address) as carrier:
            carrier.send(cancel_request(self.process_id, self.key) + behind)
            return carrier.everything()


def row_values(messages: list[Instance]) -> list[Any]:
    """The values of all rows among these messages, none of which may be an error."""
    values: list[Any] = []
    for message in messages:
        assert message.name != "ErrorResponse", error_fields(message)
        if message.name == "DataRow":
            row = message["values"]
            assert isinstance(row, tuple)
            values.extend(value.decode() if isinstance(value, bytes) else value for value in row)
    return values


def scram_proof(password: str, client_first: bytes, server_first: bytes) -> bytes:
    """The client-final message of SCRAM-SHA-256 for an ASCII password (RFC 5802 section 3)."""
    nonce, salt, iterations = (part[2:] for part in server_first.split(b",")[:3])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = b"c=biws,r=" + nonce
    said = client_first + b"," + server_first + b"," + without_proof
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return without_proof + b",p=" + base64.b64encode(proof)
