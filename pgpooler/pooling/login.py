"""How a client gets in: startup packets, authentication, route, pool (protocol-flow-start-up).

Nothing about databases or rules is told before the client has proved who it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgpooler.errors import AuthenticationFailed, PeerError, ProtocolViolation
from pgpooler.pooling import negotiation
from pgpooler.pooling.access import Accepted, Challenge, ClientAuthentication, LoginRequest, Lookup, Reply
from pgpooler.pooling.auth_query.user_lookup import UserLookup
from pgpooler.pooling.parameters import Settings
from pgpooler.pooling.states import ClientState
from pgpooler.pooling.traffic import EVERYTHING
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Derivation, ScramKeys
from pgpooler.protocol.startup import (
    CancelRequest,
    EncryptionRequest,
    InvalidCancelRequest,
    Startup,
    StartupMessage,
    UnsupportedProtocol,
)

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession

OPTION = re.compile(r"(-c|--)([^=]+)(?:=(.*))?", re.DOTALL)


class ClientLogin:
    """One login.  It ends by handing the client to a pool, or by an error."""

    __slots__ = ("_client", "_exchange", "_lookup", "_request", "_said", "_startup")

    def __init__(self, client: ClientSession) -> None:
        self._client = client
        self._startup = Startup()
        self._request: LoginRequest | None = None
        self._exchange: ClientAuthentication | None = None
        self._lookup: UserLookup | None = None  # of a user who is not listed
        self._said = b""  # the client's last message, which may have to be compared again

    def receive(self, now: float) -> None:
        """Work on the bytes at hand.  Raises PeerError for what cannot be accepted."""
        client = self._client
        framer = client.framer
        while True:
            if client.state == ClientState.STARTUP:
                if negotiation.begun(client, self._startup, now) or not framer.startup(codes.STARTUP_LIMIT):
                    return
                body = framer.body()
                framer.drop()
                self._packet(body, now)
            elif client.state == ClientState.AUTHENTICATION:
                if not framer.run(EVERYTHING):
                    return
                if framer.type != codes.PASSWORD:
                    raise self._unexpected(framer.type)
                if not framer.take(codes.AUTHENTICATION_LIMIT):
                    return
                body = framer.body()
                framer.drop()
                self._answer(body, now)
            else:
                return

    def _packet(self, body: bytes, now: float) -> None:
        client = self._client
        try:
            packet = self._startup.receive(body)
        except UnsupportedProtocol as error:
            if not error.before_protocol_3:
                raise
            client.close(error.message, now, last_words=error.unframed())
            return
        except InvalidCancelRequest as error:
            client.close(error.message, now)
            return
        if isinstance(packet, EncryptionRequest):
            negotiation.answer(client, self._startup, packet)
        elif isinstance(packet, CancelRequest):
            client.state = ClientState.CANCELING
            client.service.cancel(packet, client, now)
        else:
            self._begin(packet, now)

    def _begin(self, startup: StartupMessage, now: float) -> None:
        client = self._client
        service = client.service
        if startup.negotiation:
            client.port.write_all(startup.negotiation)
        negotiation.check(client, startup)
        client.startup = startup
        service.admit(client)
        client.state = ClientState.AUTHENTICATION
        port = client.port
        self._request = LoginRequest(
            user=startup.user,
            database=startup.database,
            peer=port.peer,
            address=port.address,
            encryption=port.encryption,
            replication=startup.physical_replication,
            system_user=port.system_user,
        )
        self._check_failed_logins(now)
        self.begin(self._request, now)

    def begin(self, request: LoginRequest, now: float) -> None:
        """Decide how the client must prove who it is, and ask it to; a user who is not listed is looked up first."""
        answer = self._client.service.access.begin(request)
        if isinstance(answer, Lookup):
            self._lookup = UserLookup(self, self._client, answer)
            self._lookup.begin(now)
        else:
            self._lookup = None
            self.ask(answer, now)

    def ask(self, exchange: ClientAuthentication, now: float) -> None:
        """Ask the client for its proof, if one is needed."""
        self._exchange = exchange
        request, payload = exchange.request
        if request == codes.AUTHENTICATION_OK:
            self._authenticated(now)
        else:
            self._client.port.write_all(messages.authentication(request, payload))

    def compare(self, exchange: ClientAuthentication, body: bytes, now: float) -> None:
        """Let a message of the client answer what the exchange asks."""
        self._exchange = exchange
        self._said = body
        self._check_failed_logins(now)
        try:
            reply = exchange.respond(body)
        except AuthenticationFailed:
            if self._lookup is None or not self._lookup.repeat(exchange, body, now):
                raise
        else:
            self._reply(reply, now)

    def _answer(self, body: bytes, now: float) -> None:
        if self._exchange is None:
            raise ProtocolViolation("no password was asked for")
        self.compare(self._exchange, body, now)

    def _check_failed_logins(self, now: float) -> None:
        """To be called before each look at a proof: others may have failed since the last one."""
        service = self._client.service
        if self._request is not None:
            service.failed_logins.check(self._request, service.configuration.auth, now)

    def failed(self, error: PeerError, now: float) -> None:
        """The login ends with this error: count it if the client has guessed wrong."""
        service = self._client.service
        if self._request is not None and error.sqlstate == AuthenticationFailed.sqlstate:
            service.failed_logins.failed(self._request, service.configuration.auth, now)

    @property
    def _proved(self) -> bool:
        """The client was asked for a proof, unlike under a method that lets it in by what else is known of it."""
        return self._exchange is not None and self._exchange.request[0] != codes.AUTHENTICATION_OK

    def _unexpected(self, kind: int) -> ProtocolViolation:
        asked_for_sasl = self._exchange is not None and self._exchange.request[0] == codes.AUTHENTICATION_SASL
        response = "SASL" if asked_for_sasl else "password"
        return ProtocolViolation(f"expected {response} response, got message type {kind}")

    def _reply(self, reply: Reply, now: float) -> None:
        client = self._client
        if isinstance(reply, Challenge):
            client.port.write_all(messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, reply.payload))
        elif isinstance(reply, Accepted):
            if reply.payload is not None:
                client.port.write_all(messages.authentication(codes.AUTHENTICATION_SASL_FINAL, reply.payload))
            self._authenticated(now)
        else:
            self._compute(reply)

    def _compute(self, derivation: Derivation) -> None:
        client = self._client
        client.state = ClientState.COMPUTING
        client.port.pause()
        client.service.effects.compute(derivation.run, self._computed)

    def _computed(self, result: object, now: float) -> None:
        client = self._client
        if client.state != ClientState.COMPUTING or self._exchange is None:
            return
        client.state = ClientState.AUTHENTICATION
        try:
            if not isinstance(result, ScramKeys):
                raise PeerError("the password could not be checked", sqlstate="XX000")
            self._check_failed_logins(now)
            self._reply(self._exchange.derived(result), now)
        except AuthenticationFailed as error:
            if self._lookup is None or not self._lookup.repeat(self._exchange, self._said, now):
                client.refuse(error, now)
        except PeerError as error:
            client.refuse(error, now)

    def _authenticated(self, now: float) -> None:
        """The client is who it says: find its route and let it wait for a server connection."""
        client = self._client
        startup = client.startup
        if startup is None:
            return
        if self._request is not None and self._proved:
            client.service.failed_logins.succeeded(self._request)
        client.port.write_all(messages.authentication(codes.AUTHENTICATION_OK))
        client.entry = self._lookup.entry if self._lookup is not None else None
        client.service.deadlines.forget(client)
        client.settings = client.startup_settings = startup_settings(startup)
        client.framer.keep()  # the client may have sent more, which is read when it is granted a server
        client.login = None
        client.join_pool(now)
        if client.state == ClientState.WAITING:
            client.port.pause()


# -- startup parameters ------------------------------------------------------------------------------------------------


def startup_settings(startup: StartupMessage) -> Settings:
    """Say what the client asked for at startup; a parameter of its own counts more than one within `options`.

    Raises PeerError for `options` that PgPooler cannot set.
    """
    asked = [*parse_options(startup.options), *startup.parameters.items()]
    return Settings.of({name.lower(): value for name, value in asked})


def parse_options(options: str) -> list[tuple[str, str]]:
    """Split the startup parameter `options` (libpq-connect-options): `-c name=value` and `--name=value`.

    A backslash makes the next character part of the word.  Raises PeerError for any other command-line option.
    """
    words = _words(options)
    settings: list[tuple[str, str]] = []
    position = 0
    while position < len(words):
        word = words[position]
        if word == "-c" and position + 1 < len(words):
            position += 1
            word = "-c" + words[position]
        match = OPTION.fullmatch(word)
        if match is None:
            raise PeerError(
                f'invalid command-line argument in startup parameter "options": {word}',
                sqlstate="42601",
                hint="PgPooler sets what is written as -c name=value or --name=value.",
            )
        switch, name, value = match.groups()
        if value is None:
            raise PeerError(f"{switch}{' ' if switch == '-c' else ''}{name} requires a value", sqlstate="42601")
        settings.append((name.replace("-", "_"), value))
        position += 1
    return settings


def _words(options: str) -> list[str]:
    words: list[str] = []
    word: list[str] | None = None
    escaped = False
    for character in options:
        if escaped or not (character.isspace() or character == "\\"):
            word = [] if word is None else word
            word.append(character)
            escaped = False
        elif character == "\\":
            word = [] if word is None else word
            escaped = True
        elif word is not None:
            words.append("".join(word))
            word = None
    if word is not None:
        words.append("".join(word))
    return words
