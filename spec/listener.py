"""Listens to both sides of one connection and says what each message means there.

Bytes alone are not enough: the first packets carry no type, `p` means what the last authentication request makes it
mean, and the length of cancel keys depends on the protocol version.  A listener keeps track of exactly that and judges
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spec.codec import Instance, decode, message_end
from spec.messages import ANSWERS, LATEST, LEAST_LENGTH, REQUESTED_PHASE, Phase, Sender, Version

MOST_HEADER = 1 + LEAST_LENGTH  # a type byte and the length


@dataclass(frozen=True)
class Heard:
    """One message, the bytes it came in, and the protocol version it was read in."""

    instance: Instance
    data: bytes
    version: Version


class Listener:
    """One connection, heard from its first byte."""

    def __init__(self) -> None:
        self.phase = Phase.STARTUP
        self.version = LATEST
        self.rest = {Sender.FRONTEND: bytearray(), Sender.BACKEND: bytearray()}
        """What each side has said of a message that is not whole yet."""
        self.answers = b""
        """The single bytes by which the backend answered requests for encryption."""
        self._asked = ""

    @property
    def is_asking(self) -> bool:
        """Whether a request for encryption waits for the single byte that answers it."""
        return bool(self._asked)

    @property
    def is_encrypted(self) -> bool:
        """Whether an encrypted connection was agreed on, of which nothing more can be understood."""
        return self.answers[-1:] in (b"S", b"G")

    def hear(self, sender: Sender, data: bytes) -> list[Heard]:
        """Return the messages that these bytes of one side complete; raise Malformed if they can be none.

        What was sent as an answer must be heard after what it answers.  After an encrypted connection was agreed on,
        nothing more can be understood, and nothing is returned.
        """
        return list(self.listen(sender, data))

    def listen(self, sender: Sender, data: bytes) -> Iterator[Heard]:
        """Yield the same one by one, also those before the bytes that can be none."""
        rest = self.rest[sender]
        rest += data
        while not self._hear_answer(sender) and not self.is_encrypted:
            # A long message arrives in many pieces, a piece holds many short ones: neither is copied again and again.
            end = message_end(bytes(rest[:MOST_HEADER]), sender, self.phase, self.version)
            if end is None or end > len(rest):
                break
            whole = bytes(rest[:end])
            instance = decode(whole, sender, self.phase, self.version)
            del rest[:end]
            self._learn(instance)
            yield Heard(instance, whole, self.version)

    def _hear_answer(self, sender: Sender) -> bool:
        """Take the single byte that answers a request for encryption; say whether more must arrive first."""
        if sender is Sender.FRONTEND or not self._asked:
            return False
        answer = bytes(self.rest[sender][:1])
        if answer and answer in ANSWERS[self._asked]:
            self.answers += answer
            del self.rest[sender][:1]
            self._asked = ""
            return self._hear_answer(sender)
        return answer == b""

    def _learn(self, instance: Instance) -> None:
        if instance.name in ANSWERS:
            self._asked = instance.name
        elif instance.name == "StartupMessage":
            minor = instance["minor"]
            assert isinstance(minor, int)
            self.version = LATEST if (3, minor) >= LATEST else (3, 0)
            self.phase = Phase.SESSION
        elif instance.name == "NegotiateProtocolVersion":
            agreed = instance["version"]
            assert isinstance(agreed, int)
            self.version = (agreed >> 16, agreed & 0xFFFF)
        elif instance.name in REQUESTED_PHASE:
            self.phase = REQUESTED_PHASE[instance.name]
