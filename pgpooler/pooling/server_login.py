"""Logging in to a server: what is sent and read from the StartupMessage to the first ReadyForQuery (protocol-flow)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from pgpooler.config.choices import ChannelBinding, ProtocolVersion, TlsMode
from pgpooler.config.model import Backend
from pgpooler.errors import INVALID_AUTHORIZATION, PeerError, ProtocolViolation, ServerUnavailable
from pgpooler.pooling.states import ServerState
from pgpooler.pooling.traffic import EVERYTHING, TAKEN_LIMIT
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Derivation, ScramKeys, Secret, answer_cleartext, answer_md5
from pgpooler.protocol.scram import MECHANISM, MECHANISM_PLUS, ScramClient, State

if TYPE_CHECKING:
    from pgpooler.pooling.port import Encryption, Port
    from pgpooler.pooling.service import Service
    from pgpooler.protocol.framer import Framer

NOTHING: Mapping[str, str] = MappingProxyType({})
AFTER_AUTHENTICATION = (codes.PARAMETER_STATUS, codes.BACKEND_KEY_DATA, codes.READY_FOR_QUERY)
LOGIN_LIMIT = 1 << 20  # bytes of all messages of a login; PostgreSQL needs one thousandth of that
VERSIONS = {
    ProtocolVersion.V3_0: codes.PROTOCOL_3_0,
    ProtocolVersion.V3_2: codes.PROTOCOL_3_2,
    ProtocolVersion.LATEST: codes.PROTOCOL_3_2,
}


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
        "_binds",
        "_channel_binding",
        "_heard",
        "_scram",
        "_tls_mode",
        "cancel_key",
        "challenged",
        "database",
        "done",
        "encryption",
        "parameters",
        "process_id",
        "secret",
        "status",
        "user",
        "version",
    )

    def __init__(
        self,
        backend: Backend,
        user: str,
        database: str,
        secret: Secret | None,
        asked_for: Mapping[str, str] = NOTHING,
    ) -> None:
        self.user = user
        self.version = VERSIONS[backend.max_protocol_version]  # what is asked for, and then what is agreed on
        self.encryption: Encryption | None = None  # of the connection it comes over, as `work` finds it
        self._tls_mode = backend.tls.mode
        self._channel_binding = backend.channel_binding
        self._binds = False  # with SCRAM-SHA-256-PLUS
        self._heard = 0  # bytes
        self.challenged = False  # the server has asked for an authentication
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

    def falls_back(self, error: PeerError | None) -> bool:
        """Say whether the server, which ended the login so, may not do so with TLS (mode allow), or without (prefer).

        Once it has asked for a proof, the refusal is about the proof: that of channel binding must not be dropped.
        """
        refused = error is not None and error.sqlstate == INVALID_AUTHORIZATION and not self.challenged
        return refused and self._tls_mode is (TlsMode.ALLOW if self.encryption is None else TlsMode.PREFER)

    def work(self, server: LoggingIn, now: float) -> None:
        """Work on what the server has sent; once it is ready for queries, its session is told.

        Raises what `receive` raises.
        """
        framer = server.framer
        self.encryption = server.port.encryption
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
        return messages.startup_message(self.version, parameters)

    def receive(self, kind: int, body: bytes) -> bytes | Derivation:
        """Take one message; return the answer (which may be empty), or what must be computed before `derived`.

        Raises the server's own error, ServerUnavailable when we cannot answer, ProtocolViolation for nonsense.
        """
        self._heard += len(body)
        if self._heard > LOGIN_LIMIT:
            raise ProtocolViolation(f"the server said more than {LOGIN_LIMIT} bytes before it was ready for queries")
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
            if self.version < codes.PROTOCOL_3_2 and len(self.cancel_key) != codes.CANCEL_KEY_3_0:
                raise ProtocolViolation(f"the server sent a cancel key of {len(self.cancel_key)} bytes in protocol 3.0")
        elif kind == codes.READY_FOR_QUERY:
            self.status = messages.read_ready_for_query(body)
            self.done = True
        elif kind == codes.NEGOTIATE_PROTOCOL_VERSION and not self.challenged:
            self._negotiate(*messages.read_negotiate_protocol_version(body))
        elif kind != codes.NOTICE_RESPONSE:
            raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} during the login")
        return b""

    def derived(self, keys: ScramKeys) -> bytes:
        """Go on with the keys that were computed: the client-final message."""
        if self._scram is None:
            raise ProtocolViolation("keys came for a login that does not need any")
        return messages.sasl_response(self._scram.client_final(keys))

    def _negotiate(self, version: int, options: list[str]) -> None:
        """Go on in the version that the server knows (protocol-flow-start-up); of options we ask for none."""
        if options or not codes.PROTOCOL_3_0 <= version < self.version:
            raise ProtocolViolation("the server negotiates what it was not asked for")
        self.version = version

    def _authenticate(self, request: int, payload: bytes) -> bytes | Derivation:
        self.challenged = True
        if request == codes.AUTHENTICATION_OK:
            if self._scram is not None and self._scram.state is not State.DONE:
                raise ProtocolViolation("the server let us in without proving that it knows the password")
            self._check_bound()
            self._accepted = True
            return b""
        if self._scram is not None:
            return self._continue_scram(self._scram, request, payload)
        if request == codes.AUTHENTICATION_SASL:
            return self._begin_scram(payload)
        self._check_bound()  # before a password is given away
        if request == codes.AUTHENTICATION_CLEARTEXT_PASSWORD:
            return messages.password_message(answer_cleartext(self.secret, self.user))
        if request == codes.AUTHENTICATION_MD5_PASSWORD:
            if len(payload) != 4:
                raise ProtocolViolation("the server sent an MD5 salt that is not 4 bytes long")
            return messages.password_message(answer_md5(self.secret, self.user, payload))
        raise ServerUnavailable(f"the server wants an authentication that PgPooler does not know (request {request})")

    def _begin_scram(self, payload: bytes) -> bytes:
        offered = messages.read_sasl_mechanisms(payload)
        mechanism = self._choose(offered)
        self._binds = mechanism == MECHANISM_PLUS
        self._check_bound()
        self._scram = ScramClient(self.secret, self.user, mechanism=mechanism, end_point=self._end_point)
        return messages.sasl_initial_response(mechanism, self._scram.client_first())

    def _choose(self, offered: list[str]) -> str:
        """Choose a mechanism, as libpq does (libpq-connect-channel-binding)."""
        if MECHANISM_PLUS in offered:
            if self._end_point:
                return MECHANISM_PLUS
            if self.encryption is None and self._channel_binding is not ChannelBinding.DISABLE:
                raise ServerUnavailable(
                    f"the server offers {MECHANISM_PLUS} on a connection that is not encrypted",
                    hint="Somebody ends TLS before the server. If that is meant so, set channel_binding to disable.",
                )
        if MECHANISM in offered:
            return MECHANISM
        raise ServerUnavailable(f"the server offers SASL mechanisms {offered!a}, none of which fits")

    @property
    def _end_point(self) -> bytes:
        """What the channel can be bound to and shall be; empty: nothing."""
        if self.encryption is None or self._channel_binding is ChannelBinding.DISABLE:
            return b""
        return self.encryption.end_point

    def _check_bound(self) -> None:
        """Go no further without channel binding where it is required."""
        if self._binds or self._channel_binding is not ChannelBinding.REQUIRE:
            return
        if self.encryption is None:
            reason = "the connection is not encrypted"
        elif not self.encryption.end_point:
            reason = "the server's certificate is signed in a way that gives nothing to bind to"
        else:
            reason = f"the server does not ask for {MECHANISM_PLUS}"
        raise ServerUnavailable(
            f"channel binding is required, but {reason}", hint="The backend sets channel_binding to require."
        )

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
