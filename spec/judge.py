"""Judges the bytes of one connection: cut into messages by `listener`, judged by `session`."""

from __future__ import annotations

from collections.abc import Iterator

from spec.codec import Malformed
from spec.conversation import RULE
from spec.listener import Listener
from spec.messages import LATEST, Sender, Version
from spec.session import Judge, Violation

HANDSHAKE = b"\x16"
"""The first byte of a TLS handshake: a connection that begins with it was encrypted without asking (protocol-flow)."""


class ConnectionJudge:
    """One connection, heard from its first byte.

    `is_opaque` tells whether nothing more can be understood: the connection is encrypted, or one side has said what is
    no message.  From then on nothing is judged.
    """

    def __init__(self, version: Version = LATEST) -> None:
        self.listener = Listener()
        self.judge = Judge(version)
        self.is_opaque = False
        self._has_begun = False
        self._awaits_handshake = False
        self._frontend_ended = False

    def hear(self, sender: Sender, data: bytes) -> tuple[Violation, ...]:
        """Learn the next bytes of one side; return what is wrong with them."""
        return tuple(self._hear(sender, data)) if data else ()

    def ended(self, sender: Sender) -> tuple[Violation, ...]:
        """Learn that one side has closed the connection, or its direction of it."""
        if self.is_opaque:
            return ()
        violations = self.judge.ended(sender)
        # What the backend still sends to a frontend that is gone may be cut off anywhere.
        if self.listener.rest[sender] and not self._frontend_ended:
            violations += (self._violation("well-formed", sender, "the connection ended in the middle of a message"),)
        self._frontend_ended |= sender is Sender.FRONTEND
        return violations

    def _hear(self, sender: Sender, data: bytes) -> Iterator[Violation]:
        self.is_opaque |= not self._has_begun and sender is Sender.FRONTEND and data.startswith(HANDSHAKE)
        self._has_begun = True
        if self._awaits_handshake and sender is Sender.BACKEND:
            yield self._violation("encryption-request", sender, "the backend speaks before the handshake")
        self._awaits_handshake = False
        if self.is_opaque:
            return
        if self.listener.is_asking and sender is Sender.FRONTEND:
            yield self._violation("encryption-request", sender, "the frontend does not wait for the answer")
        try:
            for heard in self.listener.listen(sender, data):
                yield from self.judge.hear(heard.instance)
                if self.listener.is_asking and self.listener.rest[sender]:
                    yield self._violation("encryption-request", sender, "the frontend does not wait for the answer")
        except Malformed as fault:
            self.is_opaque = True
            yield self._violation("well-formed", sender, f"{sender.name.lower()}: {fault}")
            return
        if self.listener.is_encrypted:
            self.is_opaque = self._awaits_handshake = True
            if self.listener.rest[Sender.BACKEND]:
                yield self._violation("encryption-request", Sender.BACKEND, "unencrypted bytes behind the answer")

    def _violation(self, rule: str, sender: Sender, what: str) -> Violation:
        legal = self.judge.legal if sender is Sender.BACKEND else self.judge.requests
        return Violation(RULE[rule], sender, what, "", legal)
