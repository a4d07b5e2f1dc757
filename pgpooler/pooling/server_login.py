"""Logging in to a server: what is sent and read from the StartupMessage to the first ReadyForQuery (protocol-flow)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from pgpooler.errors import PeerError, ProtocolViolation, ServerUnavailable
from pgpooler.pooling.states import ServerState
from pgpooler.pooling.traffic import EVERYTHING, TAKEN_LIMIT
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Derivation, ScramKeys, Secret, answer_cleartext, answer_md5
from pgpooler.protocol.scram import MECHANISM, ScramClient, State

if TYPE_CHECKING:
    from pgpooler.pooling.port import Port
    from pgpooler.pooling.service import Service
    from pgpooler.protocol.framer import Framer

NOTHING: Mapping[str, str] = MappingProxyType({})
AFTER_AUTHENTICATION = (codes.PARAMETER_STATUS, codes.BACKEND_KEY_DATA, codes.READY_FOR_QUERY)


class LoggingIn(Protocol):
    """The session of a connection to a server that logs in."""

    framer: Framer
    port: Port
    service: Service
    state: ServerState

    def logged_in(self, login: ServerLogin, now: float) -> None:
        """The server let us in and is ready for queries."""

    def fail(self, error: PeerError, now: float) -> None:
        """The login cannot succeed."""


class ServerLogin:
    """One login.  `receive` takes message by message; `done` says that the server is ready for queries."""

    __slots__ = (
        "_accepted",
        "_asked_for",
        "_scram",
        "cancel_key",
        "database",
        "done",
        "parameters",
        "process_id",
        "secret",
        "status",
        "user",
    )

    def __init__(self, user: str, database: str, secret: Secret | None, asked_for: Mapping[str, str] = NOTHING) -> None:
        self.user = user
        self._asked_for = asked_for  # in the StartupMessage, beside user and database
        self._scram: ScramClient | None = None
        self._accepted = False
        self.database = database
        self.secret = secret
        self.parameters: dict[str, str] = {}
        self.process_id = 0
        self.cancel_key = b""
        self.status = codes.IDLE
        self.done = False

    def work(self, server: LoggingIn, now: float) -> None:
        """Work on what the server has sent; once it is ready for queries, its session is told.

        Raises what `receive` raises.
        """
        framer = server.framer
        while not self.done and framer.run(EVERYTHING) and framer.take(TAKEN_LIMIT):
            kind, body = framer.type, framer.body()
            framer.drop()
            answer = self.receive(kind, body)
            if isinstance(answer, Derivation):
                server.service.derive(answer, lambda result, now: self._computed(server, result, now), now)
            elif answer:
                server.port.write_all(answer)
        if self.done:
            server.logged_in(self, now)

    def _computed(self, server: LoggingIn, result: object, now: float) -> None:
        if server.state != ServerState.LOGIN:
            return
        if isinstance(result, ScramKeys):
            server.port.write_all(self.derived(result))
        else:
            server.fail(ServerUnavailable("the SCRAM keys could not be computed", detail=str(result)), now)

    def startup(self) -> bytes:
        """The StartupMessage."""
        parameters = {"user": self.user, "database": self.database, **self._asked_for}
        return messages.startup_message(codes.PROTOCOL_3_0, parameters)

    def receive(self, kind: int, body: bytes) -> bytes | Derivation:
        """Take one message; return the answer (which may be empty), or what must be computed before `derived`.

        Raises the server's own error, ServerUnavailable when we cannot answer, ProtocolViolation for nonsense.
        """
        if kind == codes.AUTHENTICATION:
            return self._authenticate(*messages.read_authentication(body))
        if kind == codes.ERROR_RESPONSE:
            raise messages.read_error(body)
        if not self._accepted and kind in AFTER_AUTHENTICATION:
            raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} before it let us in")
        if kind == codes.PARAMETER_STATUS:
            name, value = messages.read_parameter_status(body)
            self.parameters[name] = value
        elif kind == codes.BACKEND_KEY_DATA:
            self.process_id, self.cancel_key = messages.read_backend_key_data(body)
        elif kind == codes.READY_FOR_QUERY:
            self.status = messages.read_ready_for_query(body)
            self.done = True
        elif kind not in (codes.NOTICE_RESPONSE, codes.NEGOTIATE_PROTOCOL_VERSION):
            raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} during the login")
        return b""

    def derived(self, keys: ScramKeys) -> bytes:
        """Go on with the keys that were computed: the client-final message."""
        if self._scram is None:
            raise ProtocolViolation("keys came for a login that does not need any")
        return messages.sasl_response(self._scram.client_final(keys))

    def _authenticate(self, request: int, payload: bytes) -> bytes | Derivation:
        if request == codes.AUTHENTICATION_OK:
            if self._scram is not None and self._scram.state is not State.DONE:
                raise ProtocolViolation("the server let us in without proving that it knows the password")
            self._accepted = True
            return b""
        if self._scram is not None:
            return self._continue_scram(self._scram, request, payload)
        if request == codes.AUTHENTICATION_CLEARTEXT_PASSWORD:
            return messages.password_message(answer_cleartext(self.secret, self.user))
        if request == codes.AUTHENTICATION_MD5_PASSWORD:
            if len(payload) != 4:
                raise ProtocolViolation("the server sent an MD5 salt that is not 4 bytes long")
            return messages.password_message(answer_md5(self.secret, self.user, payload))
        if request == codes.AUTHENTICATION_SASL:
            return self._begin_scram(payload)
        raise ServerUnavailable(f"the server wants an authentication that PgPooler does not know (request {request})")

    def _begin_scram(self, payload: bytes) -> bytes:
        offered = messages.read_sasl_mechanisms(payload)
        if MECHANISM not in offered:
            raise ServerUnavailable(f"the server offers SASL mechanisms {offered!a}, none of which fits")
        self._scram = ScramClient(self.secret, self.user)
        return messages.sasl_initial_response(MECHANISM, self._scram.client_first())

    def _continue_scram(self, scram: ScramClient, request: int, payload: bytes) -> bytes | Derivation:
        """Once SCRAM has begun nothing else is answered: a server that then wants a password is not ours."""
        if request == codes.AUTHENTICATION_SASL_CONTINUE:
            answer = scram.server_first(payload)
            return answer if isinstance(answer, Derivation) else self.derived(answer)
        if request == codes.AUTHENTICATION_SASL_FINAL:
            scram.server_final(payload)
            return b""
        raise ProtocolViolation(
            f"the server asks for another authentication in the middle of SCRAM (request {request})"
        )
