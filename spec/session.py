"""The judge of one connection: hears both sides, message by message, and says which rule is broken, and what was legal.

Messages must be heard in the order in which they passed one point between the two sides.  The start of a session is
one expression (`startup`); normal operation is a queue of requests (`queue`), of which several readings
are kept where the messages alone do not tell.  After a violation the judge goes on as if the message had not been
said, and is silent about the backend until the next ReadyForQuery, so that one mistake is one violation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spec.codec import Instance
from spec.conversation import ASYNCHRONOUS, ENDS_A_CYCLE, REPLY, RULE, Rule
from spec.messages import AUTHENTICATION_REQUESTS, LATEST, Sender, Version
from spec.queue import Configuration, Requests, merged
from spec.results import Fault
from spec.semantics import Facts, Request
from spec.startup import FRONTEND_NAMES, Start

SESSION_REQUESTS = frozenset(REPLY) & FRONTEND_NAMES | {"Describe"}
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
    "BackendKeyData": "startup",
    **{message.name: "startup" for message in AUTHENTICATION_REQUESTS},
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
        self._start = Start(version)
        self._is_started = False
        self._requests = Requests()
        self._readings = [Configuration(self._requests, Facts())]
        self._is_over = False
        self._has_said_why = False
        self._is_terminated = False
        self._frontend_ended = False
        self._is_lost = False

    # --- what may come

    @property
    def legal(self) -> frozenset[str]:
        """The names of the messages the backend may say next; an ErrorResponse only if it is fatal or `may_fail`."""
        if self._is_over:
            return frozenset()
        if not self._is_started:
            return self._start.legal
        return frozenset({"ErrorResponse"}).union(ASYNCHRONOUS, *(reading.legal for reading in self._readings))

    @property
    def may_fail(self) -> bool:
        """Whether an ErrorResponse that does not end the session is legal now; one that does always is."""
        return self._is_started and not self._is_over and any(reading.may_fail() for reading in self._readings)

    @property
    def requests(self) -> frozenset[str]:
        """The names of the messages the frontend may say next."""
        if self._is_terminated:
            return frozenset()
        return SESSION_REQUESTS if self._is_started else self._start.requests

    @property
    def owed(self) -> tuple[str, ...]:
        """The requests that are not answered yet, in order, by their names in REPLY."""
        if not self._is_started:
            return ("StartupMessage",) if self._start.message else ()
        return tuple(request.kind for request in self._readings[0].owed)

    @property
    def idle(self) -> bool:
        """Whether a new cycle may begin: nothing owed, no series without its Sync, no COPY; of the readings, in one."""
        return self._is_started and any(reading.is_idle for reading in self._readings)

    @property
    def status(self) -> bytes:
        """The transaction status of the last ReadyForQuery; idle before the first."""
        return self._readings[0].facts.status

    @property
    def version(self) -> Version:
        """The protocol version in force."""
        return self._start.version

    # --- readings

    @property
    def replying_to(self) -> Request | None:
        """The request whose reply is under way or due next; None if the backend waits."""
        return self._readings[0].request if self._is_started else None

    def replied_to(self, reply: Instance) -> Request | None:
        """Return the request that a reply would answer; None if the readings differ in that, or it answers none."""
        if not self.is_ambiguous:
            return self.replying_to
        is_error = reply.name == "ErrorResponse"
        taking = [one for one in self._readings if (one.may_fail() if is_error else reply.name in one.legal)]
        requests = [one.request for one in taking if one.request is not None]
        is_one = len({id(request.instance) for request in requests}) == 1
        return requests[0] if is_one else None

    @property
    def is_over(self) -> bool:
        """Whether the backend can say nothing more."""
        return self._is_over

    @property
    def readings(self) -> tuple[Configuration, ...]:
        """Every reading of the conversation that is possible at the moment."""
        return tuple(self._readings)

    @property
    def is_ambiguous(self) -> bool:
        """Whether that is more than one."""
        return len(self._readings) > 1

    def choose(self, number: int) -> None:
        """Keep one of the readings only: for who knows which is right."""
        self._readings = [self._readings[number]]

    def rolled_back(self) -> None:
        """Learn that who stands between the two sides has ended the transaction: the next status may be that."""
        for reading in self._readings:
            reading.facts.statuses |= {b"I"}

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
        owed, self._is_over = self.owed, True
        is_waited_for = ENDS_A_CYCLE.intersection(owed) and not self._readings[0].is_copying
        is_asked_to = self._is_terminated and not is_waited_for
        is_no_session = self._start.is_cancelling or self._start.message is None
        if self._has_said_why or self._frontend_ended or is_asked_to or is_no_session:
            return ()
        unanswered = f"; not answered: {', '.join(owed)}" if owed else ""
        what = f"the backend closed the connection without saying why{unanswered}"
        return (Violation(RULE["closing-needs-a-reason"], sender, what, "", frozenset()),)

    # --- the frontend

    def _request(self, instance: Instance) -> Iterator[Violation]:
        name, legal_now = instance.name, self.requests
        if name not in legal_now:
            yield self._violation(self._broken_request(name), instance, legal_now)
        elif not self._is_started:
            self._start.request(instance)
        if name in SESSION_REQUESTS and name not in NOT_KEPT:
            self._requests.append(Request(self._kind(instance), instance))
            self._settle()
        if name == "CopyData" and all(reading.has_ended_copy_both for reading in self._readings):
            yield self._violation("copy-both", instance, legal_now - {"CopyData"})
        self._is_terminated |= name == "Terminate"

    def _kind(self, request: Instance) -> str:
        """Return the name of a request in REPLY."""
        if request.name == "Describe":
            return "DescribeStatement" if request["kind"] == b"S" else "DescribePortal"
        return "ReplicationCommand" if request.name == "Query" and self._start.is_replication else request.name

    def _settle(self) -> None:
        """Bring every reading up to the queue, and drop what is needed no more."""
        if self._is_started:
            for reading in self._readings:
                reading.advance()
            self._readings = merged(self._readings)
            self._requests.forget_before(min(reading.next for reading in self._readings))

    def _broken_request(self, name: str) -> str:
        """Return the name of the rule that a request breaks by being where it is."""
        if self._is_terminated:
            return "terminate-ends"
        return "cancel-request" if self._start.is_cancelling else BROKEN_BY.get(name, "startup")

    # --- the backend

    def _reply(self, instance: Instance) -> Iterator[Violation]:
        name, legal_now = instance.name, self.legal
        if self._is_over:
            yield self._violation("fatal-ends", instance, legal_now)
            return
        is_end = name == "ErrorResponse" and name in legal_now and (not self._is_started or is_fatal(instance))
        self._has_said_why = is_end or name == "NoticeResponse"
        if is_end:
            self._is_over = True
        elif name not in ASYNCHRONOUS or name not in legal_now:
            yield from (self._answered if self._is_started else self._started)(instance, legal_now)

    def _started(self, instance: Instance, legal_now: frozenset[str]) -> Iterator[Violation]:
        """Learn a message of the start of a session."""
        if instance.name in legal_now:
            yield from self._faults(self._start.reply(instance), instance, legal_now)
        else:
            yield self._violation(self._broken_reply(instance.name), instance, legal_now)
        if instance.name == "ReadyForQuery" and not self._start.is_cancelling:
            self._is_started = True
            self._settle()

    def _answered(self, instance: Instance, legal_now: frozenset[str]) -> Iterator[Violation]:
        """Learn a reply of normal operation."""
        if instance.name == "ErrorResponse":
            if self.may_fail:
                failed = (reading.failed() for reading in self._readings if reading.may_fail())
                self._readings = merged([reading for readings in failed for reading in readings])
                return
            legal_now -= {"ErrorResponse"}
        judged = [(reading, reading.replied(instance)) for reading in self._readings]
        taken = [(reading, faults) for reading, faults in judged if faults is not None]
        if taken:
            right = [reading for reading, faults in taken if not faults]
            self._readings = merged(right or [reading for reading, _ in taken])
            self._is_lost &= instance.name != "ReadyForQuery"
            yield from self._faults(() if right else taken[0][1], instance, legal_now)
            return
        if not self._is_lost:
            yield self._violation(self._broken_reply(instance.name), instance, legal_now)
        self._is_lost = instance.name != "ReadyForQuery"
        if not self._is_lost:
            self.choose(0)
            self._readings[0].said_ready()

    def _broken_reply(self, name: str) -> str:
        """Return the name of the rule that a reply breaks by being where it is."""
        if self._start.is_cancelling:
            return "cancel-request"
        if not self._is_started:
            return "negotiate-once" if name == "NegotiateProtocolVersion" else "startup"
        reading = self._readings[0]
        if reading.is_copying:
            return "copy-both" if reading.goes_both_ways else "copy-in"
        kind = reading.request.kind if reading.request else ""
        return BROKEN_IN_REPLY_TO.get((kind, name), BROKEN_BY.get(name, "reply-in-order"))

    # --- violations

    def _faults(self, faults: Iterable[Fault], instance: Instance, legal_now: frozenset[str]) -> Iterator[Violation]:
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
