"""Plays a script against a target and says whether, where and how the target deviated."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spec.codec import Instance
from spec.conformance.client import Connection, Garbled, Silent, cancel_request, nobody, startup
from spec.conformance.proofs import Proofs, Unanswerable
from spec.conformance.requests import NAME, NOTHING, TERMINATE, Raw, Request
from spec.conformance.scripts import Answer, Ask, Cancel, Leave, Open, Script, Step, is_right
from spec.conformance.target import Target
from spec.conformance.words import CLOSED, condensed, exact, name_of, shown
from spec.conversation import ASYNCHRONOUS
from spec.messages import Sender
from spec.session import Violation

UNMENTIONED = ASYNCHRONOUS | {"BackendKeyData", "NegotiateProtocolVersion", "encryption"}
"""Names that, like those of the authentication, count only in an answer that names them: the login, and what may come
at any time."""

EXPECTATIONS = ("answer", "silence", "closed", "garbled", "direct")
"""The kinds of deviation that are no broken rule of the grammar: not the answer due, none, the connection closed or
refused, no message at all, and another answer than a direct server gives."""

LIMIT = 6.0
"""How many times a target's patience one script may take."""


@dataclass(frozen=True)
class Deviation:
    """Something a target did that it should not have done, or the other way round."""

    rule: str
    """The name of the rule of the grammar, or one of EXPECTATIONS."""
    anchor: str
    text: str
    step: int
    wanted: tuple[Answer, ...] = ()
    heard: Answer = ()

    def is_like(self, other: Deviation | None) -> bool:
        """Whether the other one, of a shorter script, shows the same."""
        if other is None or self.rule != other.rule:
            return False
        return self.rule not in EXPECTATIONS or self.heard == other.heard


@dataclass(frozen=True)
class Performance:
    """What came of a script: what was heard in each step, in two degrees of detail, and the deviation if any."""

    heard: tuple[Answer, ...]
    exact: tuple[Answer, ...]
    said: Answer
    """Everything the target said, also what does not count in an answer."""
    errors: tuple[Instance, ...]
    deviation: Deviation | None = None
    slips: tuple[str, ...] = ()
    """Rules that the script itself broke: a fault of the suite."""


class Deviates(Exception):
    """Ends a performance."""

    def __init__(
        self, rule: str, text: str, wanted: tuple[Answer, ...] = (), heard: Answer = (), anchor: str = ""
    ) -> None:
        super().__init__(text)
        self.rule, self.text, self.wanted, self.heard, self.anchor = rule, text, wanted, heard, anchor


class CouldNotRun(Exception):
    """The script cannot be played here; the message says why."""


def play(script: Script, target: Target, watch: Callable[[], None] = nobody, name: str = "") -> Performance:
    """Play a script; everything it opened is closed in the end."""
    stage = Stage(target, watch, name or NAME)
    deviation = None
    step = 0
    try:
        for step, action in enumerate(script.steps):  # noqa: B007  where it ended is told below
            stage.act(action)
        stage.take_leave()
    except Deviates as found:
        deviation = Deviation(found.rule, found.anchor or script.anchor, found.text, step, found.wanted, found.heard)
    except Unanswerable as missing:
        raise CouldNotRun(str(missing)) from None
    finally:
        stage.close()
    errors = tuple(message for message in stage.messages if message.name == "ErrorResponse")
    heard, details = tuple(stage.heard), tuple(stage.exact)
    return Performance(heard, details, tuple(stage.said), errors, deviation, tuple(stage.slips))


def unique_name() -> str:
    """Return a name that nobody else has, as long as NAME."""
    return NAME[:-10] + secrets.token_hex(5)


@dataclass
class Stage:
    """The connections of one performance."""

    target: Target
    watch: Callable[[], None]
    name: str
    connections: dict[str, Connection] = field(default_factory=dict)
    heard: list[Answer] = field(default_factory=list)
    exact: list[Answer] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    messages: list[Instance] = field(default_factory=list)
    slips: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = time.monotonic() + LIMIT * self.target.patience

    def act(self, step: Step) -> None:
        """Take one step; raise Deviates if the target does not do its part."""
        self.heard.append(())
        self.exact.append(())
        if step.on not in self.connections and not isinstance(step, Open):
            self.open(Open(step.on))
        match step:
            case Open():
                self.open(step)
            case Ask():
                self.ask(step)
            case Leave():
                self.connections.pop(step.on).close(is_reset=step.is_reset)
            case Cancel():
                self.cancel(step)

    def deadline(self) -> float:
        """Return until when an answer is waited for."""
        return min(self.end, time.monotonic() + self.target.patience)

    def connect(self) -> Connection:
        """Return a new connection."""
        try:
            return Connection(self.target, self.watch)
        except OSError as problem:
            raise Deviates("closed", f"a new connection is refused: {problem}") from None

    def renamed(self, request: Request) -> Request:
        """Return a request that uses the name of this performance."""
        old, new = NAME.encode(), self.name.encode()
        if isinstance(request, Raw):
            return Raw(request.meaning, request.data.replace(old, new))
        fields = {
            name: item.replace(old, new) if isinstance(item, bytes) else item for name, item in request.fields.items()
        }
        return Instance(request.sender, request.name, fields)

    # Steps

    def open(self, step: Open) -> None:
        """Begin a connection and a session."""
        connection = self.connections[step.on] = self.connect()
        target = self.target
        tokens: list[str] = []
        messages: list[Instance] = []
        deadline = self.deadline()
        try:
            for name in step.encryption:
                answer = connection.ask_for_encryption(name, deadline)
                tokens.append(f"encryption {answer}")
                if answer == "S":
                    connection.start_tls()
                elif answer == "G":  # which this client does not speak
                    break
                elif answer != "N":
                    raise Deviates("answer", f"{name} is not answered by one byte", (("encryption N",),), tuple(tokens))
            if tokens[-1:] == ["encryption G"] or step.packet == NOTHING:
                pass
            elif step.packet is not None:
                connection.send(self.renamed(step.packet))
                hear_until(connection, step.answers, self.deadline, messages)
            else:
                user = (step.user or target.user).replace(NAME, self.name)
                packet = startup(user, step.database or target.database, step.minor, step.parameters)
                proofs = None if step.is_unproven else Proofs(user, step.password or target.password)
                connection.log_in(packet, proofs, deadline, messages)
        except (Silent, OSError) as problem:
            self.silent(connection, str(step), step.answers, messages, problem)
        except Garbled as garbled:
            self.garbled(connection, garbled)
        self.compare(connection, str(step), step.answers, messages, tokens)
        reported = {message["parameter"] for message in messages if message.name == "ParameterStatus"}
        if missing := [name for name in step.reports if name.encode() not in reported]:
            raise Deviates("answer", f"no ParameterStatus of {', '.join(missing)}")

    def ask(self, step: Ask) -> None:
        """Send requests and hear what answers them."""
        connection = self.connections[step.on]
        requests = [self.renamed(request) for request in step.requests]
        words = str(step)
        messages: list[Instance] = []
        try:
            connection.send(*requests, pieces=step.pieces)
            hear_until(connection, step.answers, self.deadline, messages)
        except Silent as problem:
            self.silent(connection, words, step.answers, messages, problem)
        except Garbled as garbled:
            self.garbled(connection, garbled)
        self.compare(connection, words, step.answers, messages, [])

    def cancel(self, step: Cancel) -> None:
        """Ask on another connection to cancel what this session does."""
        session = self.connections[step.on]
        key = session.key
        if step.spoil == "other":
            key = bytes(byte ^ 0xFF for byte in key)
        elif step.spoil:
            key = key[:-1] if step.spoil == "short" else key + b"\0"
        carrier = self.connect()
        try:
            carrier.send(cancel_request(session.process_id, key))
            said = carrier.bytes_until_closed(self.deadline())
        except Silent:
            raise Deviates("silence", "the connection of a CancelRequest is not closed") from None
        finally:
            carrier.close()
        if said:
            raise Deviates("answer", f"a CancelRequest is answered with {said[:40]!r}", ((CLOSED,),))

    def take_leave(self) -> None:
        """End every session that is still there by Terminate, and hear nothing more of it."""
        for name, connection in self.connections.items():
            if connection.is_closed or connection.judge is None:
                continue
            try:
                connection.send(TERMINATE)
                deadline = self.deadline()
                while connection.receive(deadline) is not None:
                    pass
            except Silent:
                raise Deviates("silence", f"the connection {name!r} is not closed after Terminate") from None
            except Garbled as garbled:
                self.garbled(connection, garbled)
            self.judged(connection)

    def close(self) -> None:
        """Close every connection."""
        for connection in self.connections.values():
            connection.close()

    # What came of them

    def compare(
        self,
        connection: Connection,
        words: str,
        answers: tuple[Answer, ...],
        messages: Sequence[Instance],
        tokens: list[str],
    ) -> None:
        """Note what was heard; raise Deviates if it breaks a rule or is not the answer."""
        for message in messages:
            tokens.append(shown(message))
        if connection.is_closed and not connection.heard:
            tokens.append(CLOSED)
        self.said += tokens
        self.messages += messages
        counted = [token.replace(self.name, NAME) for token in tokens if counts(token, answers)]
        self.heard[-1] = condensed(counted)
        self.exact[-1] = tuple(
            exact(message).replace(self.name, NAME) for message in messages if counts(message.name, answers)
        )
        self.judged(connection)
        if answers and not any(is_right(answer, self.heard[-1]) for answer in answers):
            raise Deviates("answer", f"the answer to {words} is not the one due", answers, self.heard[-1])

    def judged(self, connection: Connection) -> None:
        """Raise Deviates if the target broke a rule of the grammar on this connection."""
        violations = [violation for violation in connection.violations if violation.sender is Sender.BACKEND]
        self.slips += [found.said for found in connection.violations if found.sender is Sender.FRONTEND]
        connection.violations = []
        if violations:
            raise broken(violations[0], self.heard[-1])

    def silent(
        self,
        connection: Connection,
        words: str,
        answers: tuple[Answer, ...],
        messages: Sequence[Instance],
        problem: Exception,
    ) -> None:
        """Raise Deviates for a target that says nothing more."""
        self.judged(connection)
        heard = condensed(shown(message).replace(self.name, NAME) for message in messages)
        reason = f" ({problem})" if str(problem) else ""
        raise Deviates(
            "silence",
            f"nothing more came within {self.target.patience:g} seconds in answer to {words}{reason}",
            answers,
            heard,
        )

    def garbled(self, connection: Connection, garbled: Garbled) -> None:
        """Raise Deviates for bytes that are no message."""
        self.judged(connection)
        raise Deviates("garbled", str(garbled))


def broken(violation: Violation, heard: Answer) -> Deviates:
    """Return the deviation that a broken rule is."""
    legal = f" (legal: {', '.join(sorted(violation.legal))})" if violation.legal else ""
    text = f"{violation.message}: {violation.rule.text}{legal}"
    return Deviates(violation.rule.name, text, heard=heard, anchor=violation.rule.anchor)


def counts(token: str, answers: tuple[Answer, ...]) -> bool:
    """Whether a message counts in a step with these answers."""
    name = name_of(token)
    is_unmentioned = name in UNMENTIONED or name.startswith("Authentication")
    return not is_unmentioned or any(name == name_of(wanted) for answer in answers for wanted in answer)


def hear_until(
    connection: Connection, answers: tuple[Answer, ...], deadline: Callable[[], float], messages: list[Instance]
) -> None:
    """Hear messages up to the end of one of the answers, of the connection, or of the hope for one."""
    names = [[name_of(wanted) for wanted in answer] for answer in answers if answer]
    errors_are_last = not any({"ReadyForQuery", CLOSED} & set(answer) for answer in names)
    while names and not any(is_over(answer, messages) for answer in names):
        message = connection.receive(deadline())
        if message is None:
            break
        messages.append(message)
        if connection.breaks_a_rule or (errors_are_last and message.name == "ErrorResponse"):
            break


def is_over(answer: list[str], messages: list[Instance]) -> bool:
    """Whether the last message of an answer has been heard as often as it stands in it."""
    last = answer[-1]
    if not messages or messages[-1].name != last:
        return False
    return [message.name for message in messages].count(last) >= answer.count(last)
