"""NORMATIVE: what a pooler may do between the two sides it stands between, and a judge of it.

The judge hears every message on every connection of a pooler, client side and server side, in the order in which the
pooler read or wrote them, and who holds which server connection.  It says which rule is broken, and where.

A message to a server that is the next one its client sent is *forwarded*; any other is the pooler's own, *injected*.
What a server says in reply to a forwarded request is *due* to the client; what a client gets that is not due to it is
*faked*, which only few kinds of messages may be.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from spec.codec import Instance, decode
from spec.conversation import REPLY, Rule
from spec.messages import Sender
from spec.session import Judge, Violation


class Side(enum.Enum):
    """Which side of the pooler a connection is on."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class Said:
    """A message: read by the pooler from its peer, or written to it.  `data` is its bytes."""

    side: Side
    connection: int
    instance: Instance
    data: bytes


@dataclass(frozen=True)
class Leased:
    """From now on this client holds this server connection."""

    client: int
    server: int


@dataclass(frozen=True)
class Released:
    """The lease is over; `lost`: because one of the two connections is."""

    client: int
    server: int
    lost: bool = False


@dataclass(frozen=True)
class Canceled:
    """A cancel request with this client's key made the pooler send one to this server connection."""

    client: int
    server: int


@dataclass(frozen=True)
class Gone:
    """A connection has ended, on whichever side it began."""

    side: Side
    connection: int


Event: TypeAlias = Said | Leased | Released | Canceled | Gone

# -- the rules ---------------------------------------------------------------------------------------------------------

CONFORMANCE = Rule("conformance", "protocol-flow", "On each of its connections a pooler is a legal peer.")
ISOLATION = Rule(
    "isolation",
    "protocol-flow-pipelining",
    "What a server says between checkout and checkin goes to the client that holds it, and to nobody else.",
)
TRANSPARENCY = Rule(
    "transparency",
    "protocol-flow-pipelining",
    "A client gets every reply to what it asked, unchanged and in order, and none to what the pooler asked for itself.",
)
RELEASE = Rule(
    "release",
    "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY",
    "A server connection is leased only while it is idle: status I, nothing owed, nothing half said, no COPY.",
)
EXCLUSION = Rule("exclusion", "protocol-flow", "One client at a time holds a server connection, and it holds one.")
FIDELITY = Rule(
    "fidelity",
    "protocol-async",
    "At the first request of a lease the reported parameters of the server are those its client was told last.",
)
CANCEL = Rule(
    "cancel",
    "protocol-flow-canceling-requests",
    "A cancel request reaches only the server connection that the client of its key holds at that moment.",
)
RULES = (CONFORMANCE, ISOLATION, TRANSPARENCY, RELEASE, EXCLUSION, FIDELITY, CANCEL)

FORWARDED = frozenset(REPLY) - {"DescribeStatement", "DescribePortal", "Terminate"} | {"Describe"}
"""The requests of a client that a server is to get."""
FAKED = frozenset(("ErrorResponse", "NoticeResponse", "ParameterStatus", "ReadyForQuery"))
"""What a pooler may say to a client of its own accord once it has let it in."""
REPLACED = frozenset(("CommandComplete", "ErrorResponse", "ReadyForQuery"))
"""What a client may fail to get where the pooler said something of its own instead."""
FOLLOWED = (b"client_encoding", b"DateStyle", b"IntervalStyle", b"TimeZone", b"standard_conforming_strings")
"""Reported parameters that change what statements mean or how values look."""


@dataclass
class Connection:
    """What is known of one connection."""

    judge: Judge
    parameters: dict[bytes, bytes] = field(default_factory=dict)
    holder: int | None = None  # of a server connection: the client that holds it; of a client: the server it holds
    welcomed: bool = False  # the first ReadyForQuery has come
    asked: deque[bytes] = field(default_factory=deque)  # of a client: requests not forwarded yet
    due: deque[tuple[bytes, bool]] = field(default_factory=deque)  # of a client: what it has not got; is it a reply?
    owners: dict[int, tuple[Instance, int | None]] = field(default_factory=dict)  # of a server: whose a request is
    fakes: int = 0  # of a client: messages of the pooler's own in this lease
    fresh: bool = False  # of a client: nothing has been forwarded in this lease


class PoolingJudge:
    """Judges a pooler by everything that happens on its connections."""

    def __init__(self) -> None:
        self.clients: dict[int, Connection] = {}
        self.servers: dict[int, Connection] = {}

    def hear(self, event: Event) -> list[Violation]:
        """Return what is wrong with this event, given everything before it."""
        match event:
            case Said(Side.CLIENT):
                return list(self._client_side(event))
            case Said(Side.SERVER):
                return list(self._server_side(event))
            case Leased():
                return list(self._leased(event))
            case Released():
                return list(self._released(event))
            case Canceled():
                return list(self._canceled(event))
            case Gone():
                self._gone(event)
        return []

    # -- messages ------------------------------------------------------------------------------------------------------

    def _client_side(self, said: Said) -> Iterator[Violation]:
        client = self.clients.setdefault(said.connection, Connection(Judge()))
        yield from client.judge.hear(said.instance)
        name = said.instance.name
        if said.instance.sender is Sender.FRONTEND:
            if name in FORWARDED:
                client.asked.append(said.data)
            return
        _note_parameter(client, said.instance)
        if not client.welcomed:
            client.welcomed = name == "ReadyForQuery"
        elif _delivered(client, said.data):
            pass
        elif name in FAKED:
            client.fakes += 1
        elif any(said.data == data for data, _ in client.due):
            yield _broken(TRANSPARENCY, said, "a reply comes before another one that was due first, or instead of it")
        else:
            yield _broken(ISOLATION, said, "the client gets what no server said to it")

    def _server_side(self, said: Said) -> Iterator[Violation]:
        server = self.servers.setdefault(said.connection, Connection(Judge()))
        turn = server.judge.replying_to
        yield from server.judge.hear(said.instance)
        client = self.clients.get(server.holder) if server.holder is not None else None
        if said.instance.sender is Sender.FRONTEND:
            yield from self._request(said, server, client)
            return
        _note_parameter(server, said.instance)
        if not server.welcomed:
            server.welcomed = said.instance.name == "ReadyForQuery"
        elif client is not None:
            owner = (
                server.holder
                if turn is None
                else server.owners.get(id(turn.instance), (turn.instance, server.holder))[1]
            )
            if owner == server.holder:
                client.due.append((said.data, turn is not None))
            elif owner is not None:
                what = f"a reply to client {owner} comes in the lease of client {server.holder}"
                yield _broken(ISOLATION, said, what)
            if server.judge.idle and not server.judge.is_ambiguous:
                server.owners.clear()

    def _request(self, said: Said, server: Connection, client: Connection | None) -> Iterator[Violation]:
        forwarded = client is not None and said.data in client.asked
        if not server.welcomed:
            return
        server.owners[id(said.instance)] = (said.instance, server.holder if forwarded else None)
        if client is None or not forwarded:
            return
        while client.asked.popleft() != said.data:  # what means nothing, or was canceled while it waited, is dropped
            pass
        if client.fresh:
            client.fresh = False
            yield from _fidelity(said, server, client)

    # -- leases --------------------------------------------------------------------------------------------------------

    def _leased(self, lease: Leased) -> Iterator[Violation]:
        client = self.clients.setdefault(lease.client, Connection(Judge()))
        server = self.servers.setdefault(lease.server, Connection(Judge()))
        if server.holder is not None or client.holder is not None:
            yield _broken(EXCLUSION, lease, f"{lease}: one of the two is in a lease already")
        if not server.judge.idle or server.judge.status != b"I":
            yield _broken(RELEASE, lease, f"{lease}: status {server.judge.status!r}, owed {server.judge.owed}")
        server.holder, client.holder = lease.client, lease.server
        client.fresh, client.fakes = True, 0

    def _released(self, lease: Released) -> Iterator[Violation]:
        client, server = self.clients.get(lease.client), self.servers.get(lease.server)
        if server is not None:
            server.holder = None
        if client is None:
            return
        client.holder = None
        left = {decode(data, Sender.BACKEND).name for data, is_reply in client.due if is_reply}
        client.due.clear()
        if left and not lease.lost and not client.judge.is_over and not (left <= REPLACED and client.fakes):
            yield _broken(TRANSPARENCY, lease, f"{lease}: the client never got {', '.join(sorted(left))}")

    def _canceled(self, cancel: Canceled) -> Iterator[Violation]:
        server = self.servers.get(cancel.server)
        if server is None or server.holder != cancel.client:
            yield _broken(CANCEL, cancel, f"{cancel}: the client does not hold that server connection")

    def _gone(self, gone: Gone) -> None:
        (self.clients if gone.side is Side.CLIENT else self.servers).pop(gone.connection, None)


def _delivered(client: Connection, data: bytes) -> bool:
    """Strike out what is delivered; what answers nothing may be missing, if the lease was over before it came."""
    due = client.due
    for number, (expected, is_reply) in enumerate(due):
        if expected == data:
            for _ in range(number + 1):
                due.popleft()
            return True
        if is_reply:
            return False
    return False


def _note_parameter(connection: Connection, instance: Instance) -> None:
    if instance.name == "ParameterStatus":
        name, value = instance["parameter"], instance["setting"]
        assert isinstance(name, bytes)
        assert isinstance(value, bytes)
        connection.parameters[name] = value


def _fidelity(said: Said, server: Connection, client: Connection) -> Iterator[Violation]:
    for name in FOLLOWED:
        theirs, told = server.parameters.get(name), client.parameters.get(name)
        if theirs != told:
            yield _broken(FIDELITY, said, f"{name.decode()} is {theirs!r}, and the client was told {told!r}")


def _broken(rule: Rule, event: Event, what: str) -> Violation:
    said = event.instance if isinstance(event, Said) else None
    sender = said.sender if said is not None else Sender.BACKEND
    return Violation(rule, sender, what, said.name if said is not None else "", frozenset())
