"""Judges the bytes of one connection: cut into messages by `listener`, judged by `session`."""

from __future__ import annotations

from spec.codec import Malformed
from spec.conversation import RULE
from spec.listener import Listener
from spec.messages import LATEST, Sender, Version
from spec.session import Judge, Violation

HANDSHAKE = b"\x16"
"""The first byte of a TLS handshake: where a connection begins with it, TLS was begun without asking (libpq-ssl)."""


class ConnectionJudge:
    """One connection, heard from its first byte."""

    def __init__(self, version: Version = LATEST) -> None:
        self.listener = Listener()
        self.judge = Judge(version)
        self.is_opaque = False
        """Whether nothing more can be understood: the connection is encrypted, or one side said what is no message."""
        self._heard_anything = False

    def hear(self, sender: Sender, data: bytes) -> tuple[Violation, ...]:
        """Learn the next bytes of one side; return what is wrong with them."""
        if not self._heard_anything and data and sender is Sender.FRONTEND:
            self.is_opaque |= data.startswith(HANDSHAKE)
        self._heard_anything |= bool(data)
        if self.is_opaque:
            return ()
        violations: list[Violation] = []
        try:
            for heard in self.listener.hear(sender, data):
                violations += self.judge.hear(heard.instance)
        except Malformed as fault:
            self.is_opaque = True
            violations.append(self._unreadable(sender, str(fault)))
        return tuple(violations)

    def ended(self, sender: Sender) -> tuple[Violation, ...]:
        """Learn that one side has closed the connection."""
        if self.is_opaque:
            return ()
        return self.judge.ended(sender)

    def _unreadable(self, sender: Sender, what: str) -> Violation:
        legal = self.judge.legal if sender is Sender.BACKEND else self.judge.requests
        return Violation(RULE["well-formed"], sender, what, "", legal)
