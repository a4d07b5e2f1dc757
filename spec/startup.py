"""The start of a session: the two sides take turns, as `conversation.STARTUP` says, and agree on a protocol version."""

from __future__ import annotations

from collections.abc import Iterator

from spec.codec import Instance
from spec.conversation import ALWAYS, ASYNCHRONOUS, STARTUP
from spec.grammar import Expression, after, legal
from spec.messages import LEAST_KEY, MESSAGES, MOST_KEY, VERSIONS, Sender, Version
from spec.results import Fault, shown

FRONTEND_NAMES = frozenset(message.name for message in MESSAGES if message.sender is Sender.FRONTEND)

REPLICATION = frozenset({b"true", b"on", b"yes", b"1", b"database"})
"""The values of the parameter `replication` that open a replication connection (protocol-replication)."""

NEEDS_ITS_END = b"SCRAM-"
"""What the names of the SASL mechanisms begin with that have data for AuthenticationSASLFinal (sasl-authentication)."""


class Start:
    """One connection up to its first ReadyForQuery."""

    def __init__(self, newest: Version) -> None:
        self.newest = newest
        self.version = newest
        self.rest: Expression = STARTUP
        self.message: Instance | None = None
        """The StartupMessage."""
        self.is_authenticated = False
        self.is_negotiated = False
        self.mechanism = b""
        self.said_last = ""

    # --- what may come

    @property
    def is_cancelling(self) -> bool:
        """Whether this is no session at all: the connection carries a CancelRequest."""
        return self.said_last == "CancelRequest"

    @property
    def legal(self) -> frozenset[str]:
        """The names of the messages the backend may say next."""
        if self.is_cancelling:
            return frozenset()
        names = legal(self.rest) - FRONTEND_NAMES | {"ErrorResponse"}
        if self.message is None:
            return names
        names |= ASYNCHRONOUS if self.is_authenticated else ALWAYS
        return names | {"NegotiateProtocolVersion"} if self._may_negotiate else names

    @property
    def requests(self) -> frozenset[str]:
        """The names of the messages the frontend may say next."""
        names = legal(self.rest) & FRONTEND_NAMES
        return names | {"Terminate"} if self.is_authenticated else names

    # --- what comes

    def request(self, request: Instance) -> None:
        """Learn a legal message of the frontend."""
        if request.name == "Terminate":
            return
        self.rest, self.said_last = after(self.rest, request.name), request.name
        if request.name == "SASLInitialResponse":
            self.mechanism = content(request, "mechanism")
        elif request.name == "StartupMessage":
            self.message = request
            asked = min((3, number(request, "minor")), self.newest)
            self.version = max(version for version in VERSIONS if version <= asked)

    def reply(self, reply: Instance) -> Iterator[Fault]:
        """Learn a legal message of the backend, and yield what is wrong with its contents."""
        if reply.name == "NegotiateProtocolVersion":
            yield from self._negotiated(reply)
            return
        self.rest = after(self.rest, reply.name)
        match reply.name:
            case "AuthenticationOk":
                self.is_authenticated = True
                if self.said_last == "SASLResponse" and self.mechanism.startswith(NEEDS_ITS_END):
                    yield "startup", f"no AuthenticationSASLFinal, which {shown(self.mechanism)} needs"
            case "BackendKeyData":
                size, most = len(content(reply, "key")), MOST_KEY if self.version >= (3, 2) else LEAST_KEY
                if not LEAST_KEY <= size <= most:
                    yield "cancel-key", f"a cancel key of {size} bytes in protocol {written(self.version)}"
            case "ReadyForQuery":
                if reply["status"] != b"I":
                    yield "transaction-status", "a session that begins inside a transaction"
                minor, options = self._asked
                if not self.is_negotiated and (minor > self.newest[1] or options):
                    yield "negotiate-once", "no NegotiateProtocolVersion, though what was asked for does not exist"
        self.said_last = reply.name

    # --- versions and options

    @property
    def is_replication(self) -> bool:
        """Whether StartupMessage asks for a replication connection."""
        return self.message is not None and parameters(self.message).get(b"replication", b"").lower() in REPLICATION

    @property
    def _asked(self) -> tuple[int, frozenset[bytes]]:
        """The minor version and the protocol options that StartupMessage asks for."""
        if self.message is None:
            return 0, frozenset()
        options = (name for name in parameters(self.message) if name.startswith(b"_pq_."))
        return number(self.message, "minor"), frozenset(options)

    @property
    def _may_negotiate(self) -> bool:
        minor, options = self._asked
        return not self.is_negotiated and (minor > 0 or bool(options))

    def _negotiated(self, reply: Instance) -> Iterator[Fault]:
        self.is_negotiated = True
        minor, options = self._asked
        agreed, listed = number(reply, "version"), reply["options"]
        assert isinstance(listed, tuple)
        version = (agreed >> 16, agreed & 0xFFFF)
        if not (3, 0) <= version <= (3, minor):
            yield "negotiate-once", f"version {written(version)} where 3.{minor} was asked for"
        elif not options.issuperset(option for option in listed if isinstance(option, bytes)):
            yield "negotiate-once", "options that nobody asked for"
        elif version == (3, minor) and not listed:
            yield "negotiate-once", "everything asked for is accepted, so nothing is to be said"
        self.version = max((known for known in VERSIONS if known <= version), default=VERSIONS[0])


def parameters(startup: Instance) -> dict[bytes, bytes]:
    """Return the parameters of a StartupMessage by name."""
    pairs = startup["parameters"]
    assert isinstance(pairs, tuple)
    return {name: value for pair in pairs if isinstance(pair, tuple) for name, value in [texts(*pair)]}


def texts(name: object, value: object) -> tuple[bytes, bytes]:
    """Return a name and a value."""
    assert isinstance(name, bytes)
    assert isinstance(value, bytes)
    return name, value


def number(instance: Instance, field: str) -> int:
    """Return a field that is a number."""
    item = instance[field]
    assert isinstance(item, int)
    return item


def content(instance: Instance, field: str) -> bytes:
    """Return a field that is a text or other bytes."""
    item = instance[field]
    assert isinstance(item, bytes)
    return item


def written(version: Version) -> str:
    """Return a version for people."""
    return f"{version[0]}.{version[1]}"
