"""Failed logins by address and user: after too many of them nobody may try again for a while.

Off unless `failed_logins_limit` says otherwise.  Attempts are counted, not names: a user who does not exist is treated
as any other.  Clients of a unix socket are never throttled.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from pgpooler.errors import PeerError

if TYPE_CHECKING:
    from pgpooler.config.model import Auth
    from pgpooler.pooling.access import LoginRequest

REMEMBERED = 10_000  # pairs of address and user; the one that failed first is forgotten for one more
CONFIGURATION_LIMIT_EXCEEDED = "53400"
NETWORK_BITS = 64  # of an IPv6 address: whoever has one has the other addresses of its network, too

Pair = tuple[int, int, str]


class FailedLogins:
    """What is remembered of failed logins.

    The first failure of a pair begins its window; at the end of the window it is forgotten, and all that followed it.
    So at most `failed_logins_limit` passwords of a user are tried from one address within `failed_logins_window`.
    """

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        # How often and since when, in the order in which the windows began.
        self._failures: OrderedDict[Pair, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def check(self, request: LoginRequest, auth: Auth, now: float) -> None:
        """Raise PeerError (53400) if this pair has failed too often.  To be called before each look at a proof."""
        if request.address is None or not auth.failed_logins_limit:
            return
        count, since = self._failures.get(_pair(request.address, request.user), (0, now))
        left = since + auth.failed_logins_window - now
        if count >= auth.failed_logins_limit and left > 0:
            seconds = math.ceil(left)
            raise PeerError(
                f'too many failed logins for user "{request.user}" from host "{request.address}"',
                sqlstate=CONFIGURATION_LIMIT_EXCEEDED,
                detail=f"failed_logins_limit is {auth.failed_logins_limit}.",
                hint=f"Try again in {seconds} {'second' if seconds == 1 else 'seconds'}.",
            )

    def failed(self, request: LoginRequest, auth: Auth, now: float) -> None:
        """Count a login that failed."""
        if request.address is None or not auth.failed_logins_limit:
            return
        pair = _pair(request.address, request.user)
        count, since = self._failures.get(pair, (0, now))
        if since + auth.failed_logins_window <= now:
            self._failures.pop(pair, None)  # even one that begins now is over where the window has no length
            count, since = 0, now
        self._failures[pair] = (count + 1, since)
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, request: LoginRequest) -> None:
        """Forget what failed before: the client has proved who it is."""
        if self._failures and request.address is not None:
            self._failures.pop(_pair(request.address, request.user), None)


def _pair(address: IPv4Address | IPv6Address, user: str) -> Pair:
    number = int(address)
    return address.version, number >> NETWORK_BITS if address.version == 6 else number, user
