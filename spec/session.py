"""The judge of one connection: hears both sides, message by message, and says which rule is broken, and what was legal.

Messages must be heard in the order in which they passed one point between the two sides.  The start of a session is
one expression (`conversation.STARTUP`); normal operation is a queue of requests (`queue`), of which several readings
are kept where the messages alone do not tell.  After a violation the judge goes on as if the message had not been
said, and is silent about the backend until the next ReadyForQuery, so that one mistake is one violation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spec.codec import Instance
from spec.conversation import ALWAYS, ASYNCHRONOUS, ENDS_A_CYCLE, REPLY, RULE, STARTUP, Rule
from spec.grammar import Expression, after, legal
from spec.messages import LATEST, LEAST_KEY, MESSAGES, MOST_KEY, VERSIONS, Sender, Version
from spec.queue import Configuration, Requests, merged
from spec.results import Fault, shown
from spec.semantics import Facts, Request

FRONTEND_NAMES = frozenset(message.name for message in MESSAGES if message.sender is Sender.FRONTEND)
STARTUP_REQUESTS = frozenset({"SSLRequest", "GSSENCRequest", "CancelRequest", "StartupMessage"})
SESSION_REQUESTS = frozenset(name for name in REPLY if name in FRONTEND_NAMES) | {"Describe"}
NOT_KEPT = frozenset({"CopyData", "Flush"})

FATAL = frozenset({b"FATAL", b"PANIC"})

BROKEN_BY = {
    "SSLRequest": "encryption-request",
    "GSSENCRequest": "encryption-request",
    "CancelRequest": "cancel-request",
    "PasswordMessage": "password-meaning",
    "SASLInitialResponse": "password-meaning",
    "SASLResponse": "password-meaning",
    "GSSResponse": "password-meaning",
    "NegotiateProtocolVersion": "negotiate-once",
    "EmptyQueryResponse": "empty-query-alone",
    "CopyInResponse": "copy-in",
    "CopyOutResponse": "copy-out",
    "CopyBothResponse": "copy-both",
    "ReadyForQuery": "one-ready-for-query",
    "ErrorResponse": "error-skips-to-sync",
}
"""The rule that an illegal message breaks, by its name, where the request it stands behind does not say more."""

BROKEN_IN_REPLY_TO = {
    ("Execute", "RowDescription"): "execute-never-describes",
    ("Execute", "ReadyForQuery"): "execute-never-describes",
    **{
        ("Query", name): "simple-query-is-plain"
        for name in (
            "ParseComplete",
            "BindComplete",
            "CloseComplete",
            "NoData",
            "ParameterDescription",
            "PortalSuspended",
        )
    },
}


@dataclass(frozen=True)
class Violation:
    """A rule broken: by whom, in words, by which message, and what would have been legal there."""

    rule: Rule
    sender: Sender
    message: str
    said: str
    legal: frozenset[str]


class Judge:
    """One connection, both sides, judged from its first message."""

    def __init__(self, version: Version = LATEST) -> None:
        """Judge what the protocol versions up to `version` allow."""
        self.newest = version
        self.version = version
        self._startup: Expression | None = STARTUP
        self._begun: Instance | None = None
        self._mechanism = b""
        self._is_authenticated = False
        self._is_negotiated = False
        self._is_replication = False
        self._requests = Requests()
        self._readings = [Configuration(self._requests, Facts())]
        self._over = ""
        self._said_last = ""
        self._is_terminated = False
        self._frontend_ended = False
        self._is_lost = False

    # --- what may come

    @property
    def legal(self) -> frozenset[str]:
        """The names of the messages the backend may say next; an ErrorResponse perhaps only if it is fatal."""
        if self._over or self._said_last == "CancelRequest":
            return frozenset()
        if self._startup is None:
            return frozenset({"ErrorResponse"}).union(ASYNCHRONOUS, *(reading.legal for reading in self._readings))
        names = legal(self._startup) - FRONTEND_NAMES
        if self._begun is None:
            return names | {"ErrorResponse"}
        names |= {"ErrorResponse"} | (ASYNCHRONOUS if self._is_authenticated else ALWAYS)
        return names | {"NegotiateProtocolVersion"} if self._may_negotiate() else names

    @property
    def requests(self) -> frozenset[str]:
        """The names of the messages the frontend may say next."""
        if self._is_terminated:
            return frozenset()
        if self._startup is None:
            return SESSION_REQUESTS
        names = legal(self._startup) & FRONTEND_NAMES
        return names | {"Terminate"} if self._is_authenticated else names

    @property
    def owed(self) -> tuple[str, ...]:
        """The requests that are not answered yet, in order, by their names in REPLY."""
        if self._startup is not None:
            return ("StartupMessage",) if self._begun else ()
        return tuple(request.kind for request in self._readings[0].owed)

    @property
    def idle(self) -> bool:
        """Whether a new cycle may begin: nothing owed, no series without its Sync, no COPY; of the readings, in one."""
        return self._startup is None and any(reading.is_idle for reading in self._readings)

    @property
    def status(self) -> bytes:
        """The transaction status of the last ReadyForQuery; idle before the first."""
        return self._readings[0].facts.status

    @property
    def replying_to(self) -> Request | None:
        """The request whose reply is under way or due next; None if the backend waits."""
        return self._readings[0].request if self._startup is None else None

    @property
    def is_ambiguous(self) -> bool:
        """Whether more than one reading is possible at the moment."""
        return len(self._readings) > 1

    # --- what comes

    def hear(self, instance: Instance) -> tuple[Violation, ...]:
        """Learn the next message of either side; return what is wrong with it."""
        if instance.sender is Sender.FRONTEND:
            return tuple(self._request(instance))
        return tuple(self._reply(instance))

    def ended(self, sender: Sender) -> tuple[Violation, ...]:
        """Learn that this side has closed the connection, or its direction of it."""
        if sender is Sender.FRONTEND:
            self._frontend_ended = True
            return ()
        was_over, self._over = self._over, self._over or "the backend has closed the connection"
        if was_over or self._frontend_ended or self._said_last in ("CancelRequest", "NoticeResponse"):
            return ()
        if self._begun is None:
            return ()
        if self._is_terminated and not (ENDS_A_CYCLE.intersection(self.owed) and not self._readings[0].is_copying):
            return ()
        unanswered = f"; not answered: {', '.join(self.owed)}" if self.owed else ""
        what = f"the backend closed the connection without saying why{unanswered}"
        return (Violation(RULE["closing-needs-a-reason"], sender, what, "", frozenset()),)

    # --- the frontend

    def _request(self, instance: Instance) -> Iterator[Violation]:
        name = instance.name
        if name not in self.requests:
            yield self._violation(self._broken_request(name), instance, self.requests)
        if self._startup is not None and name in self.requests:
            self._startup = after(self._startup, name) if name != "Terminate" else self._startup
            self._said_last = name
            self._begin(instance)
        elif name in SESSION_REQUESTS:
            self._ask(instance)
        if name == "CopyData" and all(reading.has_ended_copy_both for reading in self._readings):
            yield self._violation("copy-both", instance, self.requests - {"CopyData"})
        self._is_terminated |= name == "Terminate"

    def _begin(self, instance: Instance) -> None:
        """Learn from a StartupMessage what session it opens."""
        if instance.name == "SASLInitialResponse":
            mechanism = instance["mechanism"]
            assert isinstance(mechanism, bytes)
            self._mechanism = mechanism
        if instance.name != "StartupMessage":
            return
        self._begun = instance
        minor = instance["minor"]
        assert isinstance(minor, int)
        self.version = max(version for version in VERSIONS if version <= max((3, 0), min((3, minor), self.newest)))
        wanted = dict(startup_parameters(instance)).get(b"replication", b"off").lower()
        self._is_replication = wanted in (b"true", b"on", b"yes", b"1", b"database")

    def _ask(self, instance: Instance) -> None:
        """Put a request into the queue, if it means anything there."""
        if instance.name in NOT_KEPT:
            return
        kind = instance.name
        if kind == "Describe":
            kind = "DescribeStatement" if instance["kind"] == b"S" else "DescribePortal"
        if kind == "Query" and self._is_replication:
            kind = "ReplicationCommand"
        self._requests.append(Request(kind, instance))
        self._settle()

    def _settle(self) -> None:
        """Bring every reading up to the queue, and drop what is needed no more."""
        if self._startup is not None:
            return
        for reading in self._readings:
            reading.advance()
        self._readings = merged(self._readings)
        self._requests.forget_before(min(reading.next for reading in self._readings))

    def _broken_request(self, name: str) -> str:
        if self._is_terminated:
            return "terminate-ends"
        if self._said_last == "CancelRequest":
            return "cancel-request"
        return BROKEN_BY.get(name, "startup")

    # --- the backend

    def _reply(self, instance: Instance) -> Iterator[Violation]:
        name = instance.name
        if self._over:
            yield self._violation("fatal-ends", instance, frozenset())
            return
        legal_now = self.legal
        if name == "ErrorResponse" and name in legal_now and (self._startup is not None or is_fatal(instance)):
            self._over = "a fatal error"
        elif name in ASYNCHRONOUS and name in legal_now:
            pass
        elif self._startup is not None:
            yield from self._started(instance, legal_now)
        else:
            yield from self._answered(instance, legal_now)
        self._said_last = name

    def _started(self, instance: Instance, legal_now: frozenset[str]) -> Iterator[Violation]:
        """Learn a message of the start of a session."""
        assert self._startup is not None
        name = instance.name
        if name not in legal_now:
            yield self._violation(self._broken_reply(name), instance, legal_now)
        elif name == "NegotiateProtocolVersion":
            yield from self._faults(self._negotiated(instance), instance, legal_now)
        else:
            self._startup = after(self._startup, name)
            self._is_authenticated |= name == "AuthenticationOk"
            yield from self._faults(self._checked_startup(instance), instance, legal_now)
        if name == "ReadyForQuery":
            self._startup = None
            self._settle()

    def _checked_startup(self, instance: Instance) -> Iterator[Fault]:
        if instance.name == "AuthenticationOk":
            if self._said_last == "SASLResponse" and self._mechanism.startswith(b"SCRAM-"):
                yield "startup", f"no AuthenticationSASLFinal, which {shown(self._mechanism)} requires"
        elif instance.name == "BackendKeyData":
            key = instance["key"]
            assert isinstance(key, bytes)
            least, most = (LEAST_KEY, LEAST_KEY if self.version < (3, 2) else MOST_KEY)
            if not least <= len(key) <= most:
                yield "cancel-key", f"a cancel key of {len(key)} bytes in protocol {self.version[0]}.{self.version[1]}"
        elif instance.name == "ReadyForQuery":
            if instance["status"] != b"I":
                yield "transaction-status", "a session that begins inside a transaction"
            if self._must_negotiate() and not self._is_negotiated:
                yield "negotiate-once", "no NegotiateProtocolVersion, though what was asked for does not exist"

    def _asked(self) -> tuple[int, frozenset[bytes]]:
        """Return the minor version and the protocol options that StartupMessage asks for."""
        assert self._begun is not None
        minor = self._begun["minor"]
        assert isinstance(minor, int)
        return minor, frozenset(name for name, _ in startup_parameters(self._begun) if name.startswith(b"_pq_."))

    def _may_negotiate(self) -> bool:
        minor, options = self._asked()
        return not self._is_negotiated and (minor > 0 or bool(options))

    def _must_negotiate(self) -> bool:
        minor, options = self._asked()
        return minor > self.newest[1] or bool(options)

    def _negotiated(self, instance: Instance) -> Iterator[Fault]:
        self._is_negotiated = True
        minor, options = self._asked()
        agreed, listed = instance["version"], instance["options"]
        assert isinstance(agreed, int)
        assert isinstance(listed, tuple)
        if not 0x30000 <= agreed <= 0x30000 + minor:
            yield "negotiate-once", f"version {agreed >> 16}.{agreed & 0xFFFF} for 3.{minor} wanted"
        elif not options.issuperset(option for option in listed if isinstance(option, bytes)):
            yield "negotiate-once", "options that nobody asked for"
        elif agreed == 0x30000 + minor and not listed:
            yield "negotiate-once", "everything asked for is accepted, so nothing is to be said"
        self.version = max([version for version in VERSIONS if version <= (agreed >> 16, agreed & 0xFFFF)] or [(3, 0)])

    def _answered(self, instance: Instance, legal_now: frozenset[str]) -> Iterator[Violation]:
        """Learn a reply of normal operation."""
        name = instance.name
        if name == "ErrorResponse":
            failed = [after for reading in self._readings if reading.may_fail() for after in reading.failed()]
            if failed:
                self._readings = merged(failed)
                return
            legal_now -= {"ErrorResponse"}
        else:
            taken = [
                (reading, faults) for reading in self._readings if (faults := reading.replied(instance)) is not None
            ]
            if taken:
                right = [reading for reading, faults in taken if not faults]
                self._readings = merged(right or [reading for reading, _ in taken])
                self._is_lost &= name != "ReadyForQuery"
                if not right:
                    yield from self._faults(iter(taken[0][1]), instance, legal_now)
                return
        if not self._is_lost:
            yield self._violation(self._broken_reply(name), instance, legal_now)
        self._is_lost = name != "ReadyForQuery"
        if name == "ReadyForQuery":
            self._readings = self._readings[:1]
            self._readings[0].said_ready()

    def _broken_reply(self, name: str) -> str:
        if self._said_last == "CancelRequest":
            return "cancel-request"
        if self._startup is not None:
            return BROKEN_BY.get(name, "startup") if name == "NegotiateProtocolVersion" else "startup"
        if name not in BROKEN_BY and name in ("NegotiateProtocolVersion", "BackendKeyData"):
            return "startup"
        reading = self._readings[0]
        if reading.is_copying:
            return "copy-in"
        kind = reading.request.kind if reading.request else ""
        return BROKEN_IN_REPLY_TO.get((kind, name), BROKEN_BY.get(name, "reply-in-order"))

    # --- violations

    def _faults(self, faults: Iterator[Fault], instance: Instance, legal_now: frozenset[str]) -> Iterator[Violation]:
        for rule, what in faults:
            yield Violation(RULE[rule], instance.sender, f"{instance.name}: {what}", instance.name, legal_now)

    def _violation(self, rule: str, instance: Instance, legal_now: frozenset[str]) -> Violation:
        where = f"in reply to {self.owed[0]}" if self.owed and instance.sender is Sender.BACKEND else "now"
        what = f"the {instance.sender.name.lower()} may not say {instance.name} {where}"
        return Violation(RULE[rule], instance.sender, what, instance.name, legal_now)


def is_fatal(error: Instance) -> bool:
    """Return whether an ErrorResponse says that the backend will close the connection."""
    fields = error["fields"]
    assert isinstance(fields, tuple)
    severities = {pair[0]: pair[1] for pair in fields if isinstance(pair, tuple)}
    return severities.get(b"V", severities.get(b"S")) in FATAL


def startup_parameters(startup: Instance) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and values of the parameters of a StartupMessage."""
    parameters = startup["parameters"]
    assert isinstance(parameters, tuple)
    for pair in parameters:
        assert isinstance(pair, tuple)
        name, value = pair
        assert isinstance(name, bytes)
        assert isinstance(value, bytes)
        yield name, value
