"""Plays a script against one target and writes down everything that it hears, from the first byte to the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from spec.codec import Instance
from spec.conformance.client import Connection, Garbled, Silent, startup
from spec.conformance.proofs import Proofs
from spec.conformance.requests import TERMINATE
from spec.conformance.scripts import Open
from spec.conformance.target import Target
from spec.conformance.words import CLOSED
from spec.messages import Sender
from tests.integration.differential.comparison import Heard
from tests.integration.differential.scripts import NOTHING, READY, Say, Script

SILENCE = "silence"
"""Stands among messages for an answer that never came to its end."""
UNANSWERED = "unanswered"
"""Stands among messages for a step that waits for no answer."""

BeforeStep = Callable[[], None]
AT_REST = ("ReadyForQuery", b"I")


def nothing() -> None:
    """Do nothing between two steps."""


@dataclass
class Player:
    """The connections of one performance.

    `between` is called before each step of a client that is in no transaction and waits for nothing.
    """

    target: Target
    between: BeforeStep = nothing
    heard: list[Heard] = field(default_factory=list)
    connections: dict[str, Connection] = field(default_factory=dict)

    def play(self, script: Script) -> list[Heard]:
        """Play a script to its end, or until nothing more is said, and return everything heard."""
        with contextlib.ExitStack() as stack:
            for number, step in enumerate(script.steps):
                if step.on not in self.connections:
                    self.connections[step.on] = stack.enter_context(contextlib.closing(Connection(self.target)))
                    self.open(number, step if isinstance(step, Open) else Open(step.on))
                if isinstance(step, Say) and not self.say(number, step):
                    return self.heard
            for name in self.connections:
                self.leave(len(script.steps), name)
        return self.heard

    def open(self, number: int, step: Open) -> None:
        """Begin a session."""
        connection = self.connections[step.on]
        user, password = step.user or self.target.user, step.password or self.target.password
        messages: list[Instance] = []
        packet = startup(user, step.database or self.target.database, step.minor, step.parameters)
        with contextlib.suppress(Silent):
            connection.log_in(packet, Proofs(user, password), self.deadline(), messages)
        # What a server says is right here; whether it keeps the rules is judged by tests of its own.
        connection.judge = None
        self.note(number, step.on, messages)

    def say(self, number: int, step: Say) -> bool:
        """Send requests and hear the answer; return whether there was a whole one."""
        connection = self.connections[step.on]
        if connection.is_closed:
            return True
        if step.requests and self.is_at_rest(step.on):
            self.between()
        connection.send(*step.requests)
        if step.until == NOTHING:
            self.heard.append(Heard(number, step.on, UNANSWERED))
            return True
        return self.hear(number, step)

    def is_at_rest(self, name: str) -> bool:
        """Whether the last thing that a connection said is that it is idle."""
        last = next(entry.message for entry in reversed(self.heard) if entry.on == name)
        return isinstance(last, Instance) and (last.name, last.fields.get("status")) == AT_REST

    def hear(self, number: int, step: Say) -> bool:
        """Hear an answer to its end, or to that of the connection; return False if it never comes."""
        connection = self.connections[step.on]
        left = step.times
        messages: list[Instance] = []
        try:
            while left and (message := connection.receive(self.deadline())) is not None:
                messages.append(message)
                left -= message.name == step.until
                if message.name == "ErrorResponse" and step.until != READY:
                    left = 0
        except Silent:
            self.note(number, step.on, messages)
            self.heard.append(Heard(number, step.on, SILENCE))
            return False
        except Garbled as garbled:
            self.note(number, step.on, messages)
            self.heard.append(Heard(number, step.on, f"garbled: {garbled}"))
            return False
        self.note(number, step.on, messages)
        return True

    def leave(self, number: int, name: str) -> None:
        """End a session by Terminate and hear what comes until the connection is closed."""
        if not self.connections[name].is_closed:
            self.connections[name].send(TERMINATE)
            self.hear(number, Say((), CLOSED, on=name))

    def note(self, number: int, name: str, messages: list[Instance]) -> None:
        """Write down what was heard in a step, and whether the connection was closed."""
        connection = self.connections[name]
        self.heard += [Heard(number, name, message) for message in messages]
        is_whole = not connection.fault and not connection.listener.rest[Sender.BACKEND]
        if connection.is_closed and not connection.heard and is_whole:
            self.heard.append(Heard(number, name, CLOSED))

    def deadline(self) -> float:
        """Return until when the next message is waited for."""
        return time.monotonic() + self.target.patience
