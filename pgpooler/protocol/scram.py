"""SCRAM-SHA-256 in both roles (RFC 5802, RFC 7677; manual: sasl-authentication), as pure exchanges of SASL payloads.

With SCRAM-SHA-256-PLUS both sides prove too that their TLS connections end at the same certificate (channel binding,
RFC 5929): `end_point` is what `certificates.end_point_binding` gives for it, empty where nothing can be bound to.  The
slow part of the client role, PBKDF2, is handed out as a `Derivation`.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import os

from pgpooler.errors import AuthenticationFailed, FeatureNotSupported, ProtocolViolation, ServerUnavailable
from pgpooler.protocol.passwords import (
    ITERATIONS,
    KEY_LENGTH,
    SALT_LENGTH,
    Cleartext,
    Derivation,
    ScramKeys,
    ScramVerifier,
    Secret,
    cannot_answer,
    decode_base64,
    equal,
    parse_iterations,
)
from pgpooler.protocol.scram_attributes import Malformed, check_extensions, check_no_zero, quoted, take

MECHANISM = "SCRAM-SHA-256"
MECHANISM_PLUS = "SCRAM-SHA-256-PLUS"

NONCE_LENGTH = 18  # bytes before base64, as PostgreSQL
CLIENT_MESSAGE_LIMIT = 1024  # bytes; PG_MAX_SASL_MESSAGE_LENGTH
ITERATIONS_LIMIT = 1_000_000  # about 0.3 s of PBKDF2: more is computed for nobody

# GS2 headers (RFC 5802 section 7): whether the client binds the channel, and why not.
NO_CHANNEL_BINDING = b"n,,"  # it cannot, or does not want to
NOT_OFFERED = b"y,,"  # it could, and believes that the server cannot: somebody between them may have taken it away
BOUND = b"p=tls-server-end-point,,"
NONCE_CHARACTERS = frozenset(range(0x21, 0x7F)) - {ord(",")}


class State(enum.IntEnum):
    """How far an exchange has come."""

    FIRST = 0
    KEYS = 1  # client role: the server's first message is read, the keys are being derived
    FINAL = 2
    DONE = 3  # each side has proved what it must
    FAILED = 4


def mechanisms(end_point: bytes) -> list[str]:
    """What a server that can bind to `end_point` offers, best first."""
    return [MECHANISM_PLUS, MECHANISM] if end_point else [MECHANISM]


def make_nonce() -> bytes:
    """A fresh random nonce."""
    return base64.b64encode(os.urandom(NONCE_LENGTH))


def _exclusive_or(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


# -- server role, towards clients --------------------------------------------------------------------------------------


class ScramServer:
    """Checks one client against a verifier.

    `mechanism` is the one the client chose of `mechanisms(end_point)`.  `receive` takes the client's messages in order
    and returns the answers; `keys` holds the client's own keys after success, with which one can log in to a server
    that stores the same verifier.
    """

    __slots__ = (
        "_client_first_bare",
        "_end_point",
        "_gs2_header",
        "_mechanism",
        "_nonce",
        "_server_first",
        "_user",
        "_verifier",
        "keys",
        "state",
    )

    def __init__(
        self,
        verifier: ScramVerifier,
        user: str,
        *,
        mechanism: str = MECHANISM,
        end_point: bytes = b"",
        nonce: bytes | None = None,
    ) -> None:
        """Raises ProtocolViolation for a mechanism that is not offered."""
        if mechanism not in mechanisms(end_point):
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        self.state = State.FIRST
        self.keys: ScramKeys | None = None
        self._verifier = verifier
        self._user = user
        self._mechanism = mechanism
        self._end_point = end_point
        self._nonce = make_nonce() if nonce is None else nonce
        self._gs2_header = b""
        self._client_first_bare = b""
        self._server_first = b""

    def __repr__(self) -> str:
        return f"ScramServer(user={self._user!r}, state={self.state.name})"

    def receive(self, payload: bytes | None) -> bytes:
        """The answer to a client's message; `state` is DONE after the last one.

        None is a SASLInitialResponse without data: the answer is empty and client-first comes next.  Raises
        ProtocolViolation, FeatureNotSupported, and AuthenticationFailed for a wrong password.
        """
        state, self.state = self.state, State.FAILED  # until this message has proved right
        try:
            if state is State.FIRST:
                return self._receive_first(payload)
            if state is State.FINAL and payload is not None:
                return self._receive_final(payload)
        except Malformed as malformed:
            raise ProtocolViolation("malformed SCRAM message", detail=malformed.sentence()) from None
        raise ProtocolViolation("unexpected SCRAM message")

    def _receive_first(self, payload: bytes | None) -> bytes:
        if payload is None:
            self.state = State.FIRST
            return b""
        _check_client_message(payload)
        self._gs2_header, self._client_first_bare = _split_gs2_header(payload)
        self._check_channel_binding()
        attributes = self._client_first_bare.split(b",")
        if attributes[0].startswith(b"m="):
            raise FeatureNotSupported("client requires an unsupported SCRAM extension")
        take(attributes, "n")  # the user name of the startup message counts
        nonce = take(attributes, "r")
        if not NONCE_CHARACTERS.issuperset(nonce):
            raise ProtocolViolation("non-printable characters in SCRAM nonce")
        if not nonce:
            raise Malformed("the nonce is empty")
        self._nonce = nonce + self._nonce
        check_extensions(attributes)
        salt = base64.b64encode(self._verifier.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._verifier.iterations)
        self.state = State.FINAL
        return self._server_first

    def _check_channel_binding(self) -> None:
        """Compare what the client says of channel binding with the mechanism it chose and with what was offered."""
        header = self._gs2_header
        if header.startswith(b"p"):
            if self._mechanism != MECHANISM_PLUS:
                raise Malformed(f"the client selected {self._mechanism}, but its message binds the channel")
            if header != BOUND:
                raise ProtocolViolation(f"unsupported SCRAM channel-binding type {quoted(header[2:-2])}")
        elif self._mechanism == MECHANISM_PLUS:
            raise Malformed(f"the client selected {self._mechanism}, but its message does not bind the channel")
        elif header == NOT_OFFERED and self._end_point:
            raise AuthenticationFailed(
                "SCRAM channel binding negotiation error",
                sqlstate="28000",
                detail="The client supports channel binding and believes that the server does not, but it was offered.",
            )

    def _receive_final(self, payload: bytes) -> bytes:
        _check_client_message(payload)
        without_proof, separator, proof_text = payload.rpartition(b",p=")
        if not separator:
            raise Malformed('attribute "p" is missing')
        attributes = without_proof.split(b",")
        bound = self._mechanism == MECHANISM_PLUS
        binding = take(attributes, "c")
        if not equal(binding, base64.b64encode(self._gs2_header + self._end_point * bound)):
            if bound:
                raise AuthenticationFailed("SCRAM channel binding check failed", sqlstate="28000")
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
        if take(attributes, "r") != self._nonce:
            raise ProtocolViolation("invalid SCRAM response", detail="Nonce does not match.")
        check_extensions(attributes)
        proof = decode_base64(proof_text)
        if proof is None or len(proof) != KEY_LENGTH:
            raise Malformed("the proof in the last message is malformed")
        signature = self._verify(proof, without_proof)
        self.state = State.DONE
        return b"v=" + base64.b64encode(signature)

    def _verify(self, proof: bytes, without_proof: bytes) -> bytes:
        """The server's signature for a right proof (RFC 5802 section 3)."""
        verifier = self._verifier
        exchanged = b",".join((self._client_first_bare, self._server_first, without_proof))
        client_key = _exclusive_or(proof, hmac.digest(verifier.stored_key, exchanged, "sha256"))
        if not equal(hashlib.sha256(client_key).digest(), verifier.stored_key):
            raise AuthenticationFailed(f'password authentication failed for user "{self._user}"')
        self.keys = ScramKeys(verifier.iterations, verifier.salt, client_key, verifier.server_key)
        return hmac.digest(verifier.server_key, exchanged, "sha256")


def mock_salt(secret: bytes, user: str) -> bytes:
    """The salt that this user name has as long as the secret is the same, whether or not there is such a user."""
    return hmac.digest(secret, b"salt" + user.encode("utf-8", "surrogateescape"), "sha256")[:SALT_LENGTH]


def mock_verifier(secret: bytes, user: str, iterations: int = ITERATIONS) -> ScramVerifier:
    """A verifier for a user who does not exist: nobody knows a key whose hash is its StoredKey."""
    name = user.encode("utf-8", "surrogateescape")
    stored_key = hmac.digest(secret, b"stored" + name, "sha256")
    server_key = hmac.digest(secret, b"server" + name, "sha256")
    return ScramVerifier(iterations, mock_salt(secret, user), stored_key, server_key)


def _check_client_message(payload: bytes) -> None:
    if not payload:
        raise Malformed("the message is empty")
    if len(payload) > CLIENT_MESSAGE_LIMIT:
        raise Malformed(f"the message has {len(payload)} bytes, more than {CLIENT_MESSAGE_LIMIT}")
    check_no_zero(payload)


def _split_gs2_header(payload: bytes) -> tuple[bytes, bytes]:
    """client-first-message -> GS2 header and client-first-message-bare."""
    parts = payload.split(b",", 2)
    flag = parts[0]
    if flag not in (b"n", b"y") and not flag.startswith(b"p="):
        raise Malformed(f"unexpected channel-binding flag {quoted(flag)}")
    if len(parts) < 3:
        raise Malformed('attribute "n" is missing')
    if parts[1].startswith(b"a="):
        raise FeatureNotSupported("client uses authorization identity, but it is not supported")
    if parts[1]:
        raise Malformed(f"expected a comma but found {quoted(parts[1])}")
    return flag + b",,", parts[2]


# -- client role, towards servers --------------------------------------------------------------------------------------


class ScramClient:
    """Logs in to one server: `client_first`, `server_first`, `client_final`, `server_final`, in this order.

    Only a server that passed `server_final` has proved to know the password: an AuthenticationOk before `state` is
    DONE must be refused.  Everything a server does wrong raises ServerUnavailable, which says what it is.  `end_point`
    is empty too where the channel could be bound and shall not be.
    """

    __slots__ = (
        "_binding",
        "_client_first_bare",
        "_gs2_header",
        "_nonce",
        "_secret",
        "_server_first",
        "_server_signature",
        "_user",
        "state",
    )

    def __init__(
        self,
        secret: Secret | None,
        user: str,
        *,
        mechanism: str = MECHANISM,
        end_point: bytes = b"",
        nonce: bytes | None = None,
    ) -> None:
        if not isinstance(secret, Cleartext | ScramKeys):
            raise cannot_answer(secret, user, "SCRAM authentication")
        self.state = State.FIRST
        self._secret = secret
        self._user = user
        self._gs2_header = _gs2_header(mechanism, end_point)
        self._binding = end_point if self._gs2_header == BOUND else b""
        self._nonce = make_nonce() if nonce is None else nonce
        # PostgreSQL takes the user name of the startup message, and libpq leaves this one empty.
        self._client_first_bare = b"n=,r=" + self._nonce
        self._server_first = b""
        self._server_signature = b""

    def __repr__(self) -> str:
        return f"ScramClient(user={self._user!r}, state={self.state.name})"

    def client_first(self) -> bytes:
        """The data of SASLInitialResponse."""
        return self._gs2_header + self._client_first_bare

    def server_first(self, payload: bytes) -> Derivation | ScramKeys:
        """Read the data of the first AuthenticationSASLContinue.

        The Derivation returned is to be run elsewhere; keys come back at once where the secret already is keys.
        """
        self._enter(State.FIRST)
        try:
            salt, iterations = self._read_server_first(payload)
        except Malformed as malformed:
            raise _server_is_wrong(malformed) from None
        if iterations > ITERATIONS_LIMIT:
            raise ServerUnavailable(
                f"the server asks for {iterations} SCRAM iterations, more than the {ITERATIONS_LIMIT} allowed"
            )
        self._server_first = payload
        if isinstance(self._secret, Cleartext):
            self.state = State.KEYS
            return Derivation(self._secret.password, salt, iterations)
        if self._secret.salt != salt or self._secret.iterations != iterations:
            raise ServerUnavailable(
                f'the SCRAM key of user "{self._user}" belongs to another verifier than the server has',
                hint="If the password was changed, log in again. Otherwise let both have the same SCRAM secret: "
                "Copy it from pg_authid of one server with ALTER ROLE ... PASSWORD, or give the password in cleartext.",
            )
        self.state = State.KEYS
        return self._secret

    def _read_server_first(self, payload: bytes) -> tuple[bytes, int]:
        check_no_zero(payload)
        attributes = payload.split(b",")
        _check_server_error(attributes)
        if attributes[0].startswith(b"m="):
            raise Malformed("the server requires an extension that is not supported")
        nonce = take(attributes, "r")
        if not NONCE_CHARACTERS.issuperset(nonce):
            raise Malformed("the nonce contains characters that are not printable")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise Malformed("the nonce does not extend the nonce that was sent")
        salt = decode_base64(take(attributes, "s"))
        if not salt:
            raise Malformed("the salt is not base64 or is empty")
        digits = take(attributes, "i")
        iterations = parse_iterations(digits)
        if iterations is None:
            raise Malformed(f"the iteration count {quoted(digits)} is not a positive number")
        check_extensions(attributes)
        self._nonce = nonce
        return salt, iterations

    def client_final(self, keys: ScramKeys) -> bytes:
        """The data of SASLResponse, made with the keys that `server_first` gave or asked to derive."""
        self._enter(State.KEYS)
        binding = base64.b64encode(self._gs2_header + self._binding)
        without_proof = b"c=%b,r=%b" % (binding, self._nonce)
        exchanged = b",".join((self._client_first_bare, self._server_first, without_proof))
        signature = hmac.digest(hashlib.sha256(keys.client_key).digest(), exchanged, "sha256")
        self._server_signature = hmac.digest(keys.server_key, exchanged, "sha256")
        self.state = State.FINAL
        return without_proof + b",p=" + base64.b64encode(_exclusive_or(keys.client_key, signature))

    def server_final(self, payload: bytes) -> None:
        """Check the data of AuthenticationSASLFinal: the server knows the verifier of this password."""
        self._enter(State.FINAL)
        try:
            check_no_zero(payload)
            attributes = payload.split(b",")
            _check_server_error(attributes)
            signature = decode_base64(take(attributes, "v"))
            check_extensions(attributes)
        except Malformed as malformed:
            raise _server_is_wrong(malformed) from None
        if signature is None:
            raise _server_is_wrong("the server's signature is not base64")
        if not equal(signature, self._server_signature):
            raise ServerUnavailable(
                f'the server\'s SCRAM signature is wrong: it does not know the password of user "{self._user}"'
            )
        self.state = State.DONE

    def _enter(self, state: State) -> None:
        """Take the step that belongs to this state; what goes wrong in it leaves the exchange failed."""
        if self.state is not state:
            self.state = State.FAILED
            raise ServerUnavailable("the server sent a SCRAM message out of order")
        self.state = State.FAILED  # until this message has proved right


def _gs2_header(mechanism: str, end_point: bytes) -> bytes:
    """Say, as libpq does, that we could bind the channel where the server did not offer it."""
    if mechanism == MECHANISM_PLUS:
        return BOUND
    return NOT_OFFERED if end_point else NO_CHANNEL_BINDING


def _check_server_error(attributes: list[bytes]) -> None:
    """A server may answer with e= and one of the names of RFC 5802 section 7."""
    if attributes[0].startswith(b"e="):
        raise ServerUnavailable(f"the server refused SCRAM authentication: {quoted(attributes[0][2:])}")


def _server_is_wrong(what: object) -> ServerUnavailable:
    return ServerUnavailable(f"the server sent a malformed SCRAM message: {what}")
