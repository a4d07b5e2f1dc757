"""What a lookup brings, and for how long that is remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from pgpooler.errors import PeerError, ServerUnavailable
from pgpooler.protocol.passwords import ITERATIONS, Md5Digest, ScramVerifier, Secret

REMEMBERED = 1000  # so many users of each backend, and as many who do not exist


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of a user.

    `secret` is None where nobody may log in: there is no such role, or it has no password, or an expired one.  What
    such a login gets to see is what one with a wrong password sees: `usual` is the kind of secret that the server
    makes, and `iterations` how many SCRAM iterations.
    """

    secret: Secret | None = field(default=None, repr=False)
    usual: type[Secret] = ScramVerifier
    iterations: int = ITERATIONS
    cached: bool = False


Answer: TypeAlias = Found | PeerError
Asker: TypeAlias = Callable[[Answer, float], None]
USUAL: dict[str, type[Secret]] = {"md5": Md5Digest, "on": Md5Digest}
"""What password_encryption makes; in any other case a SCRAM verifier (runtime-config-connection)."""


def unavailable() -> PeerError:
    """Make the error for a lookup that failed.  It is the same for every user and every reason."""
    return ServerUnavailable(
        "the password cannot be checked at the moment", hint="The reason is in the log of PgPooler, beside auth_query."
    )


class Cache:
    """Answers by user, each good until a time of its own; the oldest make room."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Found, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, user: str, now: float) -> Found | None:
        """Return what is known of the user and still good."""
        known = self._known.get(user)
        if known is None:
            return None
        if known[1] <= now:
            del self._known[user]
            return None
        return known[0]

    def put(self, user: str, found: Found, until: float) -> None:
        """Remember an answer."""
        self._known[user] = found, until
        self._known.move_to_end(user)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, user: str) -> None:
        """Ask again the next time."""
        self._known.pop(user, None)
