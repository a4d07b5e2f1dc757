"""The lookup within one login: before the client is asked for its password, and perhaps again after it has answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.errors import PeerError
from pgpooler.pooling.access import ClientAuthentication, Entry, Lookup
from pgpooler.pooling.auth_query.found import Answer, Found
from pgpooler.pooling.states import ClientState
from pgpooler.protocol.passwords import ScramKeys

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.login import ClientLogin


class UserLookup:
    """Looks up the user of one login; `entry` is what came of it, None where there is no such user."""

    __slots__ = ("_access", "_cached", "_client", "_login", "_lookup", "_unfit", "entry")

    def __init__(self, login: ClientLogin, client: ClientSession, lookup: Lookup) -> None:
        self._login = login
        self._client = client
        self._lookup = lookup
        self._access = client.service.access
        self._cached = False  # the answer was remembered, and may be out of date
        self._unfit: tuple[ClientAuthentication, bytes] | None = None  # the exchange that failed, and its last message
        self.entry: Entry | None = None

    def begin(self, now: float, *, afresh: bool = False) -> None:
        """Ask; nothing is read from the client until there is an answer."""
        client = self._client
        request = self._lookup.request
        client.state = ClientState.LOOKING_UP
        client.service.auth_queries.ask(request.user, request.database, self._answered, now, afresh=afresh)
        if client.state == ClientState.LOOKING_UP:
            client.port.pause()

    def repeat(self, exchange: ClientAuthentication, body: bytes, now: float) -> bool:
        """Ask once more if the client's answer does not fit what was remembered; False: it is simply wrong.

        So a password that was changed works at once.  Where the exchange cannot be repeated (SCRAM) it does so at the
        next login: nothing is remembered any more.
        """
        if not self._cached or self.entry is None:
            return False
        self._cached = False
        if exchange.again(self.entry) is None:
            self._client.service.auth_queries.forget(self._lookup.request.user)
            return False
        self._unfit = exchange, body
        self.begin(now, afresh=True)
        return True

    def _answered(self, answer: Answer, now: float) -> None:
        client = self._client
        if client.state != ClientState.LOOKING_UP:
            return
        try:
            if client.service.access is not self._access:
                self._begin_anew(now)
            elif isinstance(answer, PeerError):
                raise answer
            else:
                self._derive(answer, now)
        except PeerError as error:
            client.refuse(error, now)

    def _begin_anew(self, now: float) -> None:
        """Let the configuration decide that holds now; one who was asked for a password already is refused."""
        if self._unfit is not None:
            raise self._unfit[0].failed()
        self._client.state = ClientState.AUTHENTICATION
        self._login.begin(self._lookup.request, now)
        self._read_on(now)

    def _derive(self, found: Found, now: float) -> None:
        derivation = self._access.to_derive(self._lookup, found)
        if derivation is None:
            self._go_on(found, None, now)
        else:
            self._client.service.derive(derivation, lambda result, now: self._derived(found, result, now), now)

    def _derived(self, found: Found, result: object, now: float) -> None:
        client = self._client
        if client.state != ClientState.LOOKING_UP:
            return
        try:
            if not isinstance(result, ScramKeys):
                raise PeerError("the password could not be checked", sqlstate="XX000")
            self._go_on(found, result, now)
        except PeerError as error:
            client.refuse(error, now)

    def _go_on(self, found: Found, keys: ScramKeys | None, now: float) -> None:
        """Ask the client for its password, or compare the one it has sent."""
        self._cached = found.cached
        exchange, entry = self._access.looked_up(self._lookup, found, keys, now)
        self.entry = entry if found.secret is not None else None
        self._client.state = ClientState.AUTHENTICATION
        if self._unfit is None:
            self._login.ask(exchange, now)
        else:
            unfit, body = self._unfit
            again = unfit.again(entry)
            if again is None:
                raise unfit.failed()
            self._login.compare(again, body, now)
        self._read_on(now)

    def _read_on(self, now: float) -> None:
        client = self._client
        if client.state == ClientState.AUTHENTICATION and not client.port.reading:
            client.resume(now)
