"""Who may log in, and how: the authentication exchanges that a client session drives, one per login.

As in PostgreSQL, a user who does not exist sees the same messages in the same order as one with a wrong password.
As in PgBouncer, a user's entry serves both sides: clients prove it, and it logs in to servers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pgpooler.config.hba import HbaMethod
from pgpooler.config.hba_rules import HbaRules, IdentMaps
from pgpooler.config.model import Auth
from pgpooler.errors import AuthenticationFailed, ConfigurationError, Problem, ProtocolViolation
from pgpooler.pooling.identity import check_certificate, check_peer, no_entry, rejected, unknown
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import (
    ITERATIONS,
    Cleartext,
    Derivation,
    Md5Digest,
    ScramKeys,
    ScramVerifier,
    Secret,
    equal,
    make_verifier,
    md5_digest,
    md5_response,
    parse_secret,
)
from pgpooler.protocol.scram import ITERATIONS_LIMIT, ScramServer, State, mechanisms, mock_salt, mock_verifier

if TYPE_CHECKING:
    from pgpooler.pooling.auth_query.found import Found
    from pgpooler.pooling.port import Encryption

T = TypeVar("T")

WITHOUT_PASSWORD = (HbaMethod.TRUST, HbaMethod.CERT, HbaMethod.PEER)
MD5_SALT_LENGTH = 4  # bytes (AuthenticationMD5Password)


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """Who asks to log in, from where and how.

    `user` and `database` are what the startup message says.  `peer` is the client's address as people write it,
    `address` the same as a value, None for a unix socket.  `encryption` is None for a connection in clear text.
    `replication`: a physical replication connection, which has no database.  `system_user` is whom the operating system
    names at the other end of a unix socket, empty if nobody knows.
    """

    user: str
    database: str
    peer: str
    address: IPv4Address | IPv6Address | None
    encryption: Encryption | None
    replication: bool = False
    system_user: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send AuthenticationSASLContinue with this payload and wait for the client's next message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client is who it says: send AuthenticationSASLFinal with the payload, if any, and then AuthenticationOk."""

    payload: bytes | None = None


Reply: TypeAlias = Challenge | Accepted | Derivation


@dataclass(frozen=True, slots=True)
class Lookup:
    """The user is not listed: look up who it is (`pooling.auth_query`) and go on with `Access.looked_up`."""

    request: LoginRequest
    method: HbaMethod


@dataclass(slots=True)
class Entry:
    """What a user's secret comes to under the configured method."""

    secret: Secret = field(repr=False)
    verifier: ScramVerifier | None = None
    digest: Md5Digest | None = None
    keys: ScramKeys | None = field(default=None, repr=False)  # of a client that proved to know them
    since: float = 0.0  # when it was looked up; 0: it is listed

    @property
    def credentials(self) -> Secret:
        """What logs in to servers.

        Where only a SCRAM verifier is known these are the keys of a client that logged in, if one did: they serve where
        the server stores the same verifier.
        """
        return self.keys if isinstance(self.secret, ScramVerifier) and self.keys is not None else self.secret


class ClientAuthentication:
    """One login of one client.

    `request` is what to send first: the number of an AuthenticationXXX message and its payload.  AUTHENTICATION_OK asks
    for no proof.  Then `respond` takes the body of each `p` message.  Every way to fail is an AuthenticationFailed,
    ProtocolViolation or FeatureNotSupported.
    """

    __slots__ = ("request", "user")

    def __init__(self, user: str, request: int, payload: bytes = b"") -> None:
        self.user = user
        self.request = (request, payload)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(user={self.user!r}, request={self.request[0]})"

    def respond(self, body: bytes) -> Reply:
        """Read a PasswordMessage, SASLInitialResponse or SASLResponse.

        A Derivation is to be run in a thread, and its keys handed to `derived`.
        """
        raise ProtocolViolation("no password was asked for")

    def derived(self, keys: ScramKeys) -> Accepted:
        """Go on with the keys that `respond` asked for."""
        raise ProtocolViolation("no keys were asked for")

    def again(self, entry: Entry) -> ClientAuthentication | None:
        """Ask what was asked already, of a client whose answer fits its old secret or none; None: that is not possible.

        The answer to a SCRAM challenge can be checked by the verifier alone from which the challenge was made.
        """
        return None

    def failed(self) -> AuthenticationFailed:
        """The one error for a wrong password and for a user who does not exist."""
        return AuthenticationFailed(f'password authentication failed for user "{self.user}"')


class CleartextAuthentication(ClientAuthentication):
    """AuthenticationCleartextPassword, checked against any kind of secret."""

    __slots__ = ("_entry",)

    def __init__(self, user: str, entry: Entry) -> None:
        super().__init__(user, codes.AUTHENTICATION_CLEARTEXT_PASSWORD)
        self._entry = entry

    def respond(self, body: bytes) -> Reply:
        """Compare the password; against a SCRAM verifier that takes a Derivation."""
        password = read_password(body)
        secret = self._entry.secret
        if isinstance(secret, ScramVerifier):
            if secret.iterations > ITERATIONS_LIMIT:  # nothing ends a computation: others would wait for its thread
                raise self.failed()
            return Derivation(password, secret.salt, secret.iterations)
        if isinstance(secret, Md5Digest):
            right = equal(md5_digest(password, self.user).digest.encode(), secret.digest.encode())
        else:
            right = isinstance(secret, Cleartext) and equal(password, secret.password)
        if not right:
            raise self.failed()
        return Accepted()

    def again(self, entry: Entry) -> ClientAuthentication | None:
        """Compare the same password with another secret."""
        return CleartextAuthentication(self.user, entry)

    def derived(self, keys: ScramKeys) -> Accepted:
        """Compare the keys with the verifier."""
        secret = self._entry.secret
        if not isinstance(secret, ScramVerifier) or not equal(keys.verifier().stored_key, secret.stored_key):
            raise self.failed()
        self._entry.keys = keys
        return Accepted()


class Md5Authentication(ClientAuthentication):
    """AuthenticationMD5Password with a random salt."""

    __slots__ = ("_expected",)

    def __init__(self, user: str, digest: Md5Digest, salt: bytes = b"") -> None:
        salt = salt or os.urandom(MD5_SALT_LENGTH)
        super().__init__(user, codes.AUTHENTICATION_MD5_PASSWORD, salt)
        self._expected = md5_response(digest, salt)

    def again(self, entry: Entry) -> ClientAuthentication | None:
        """Compare the same answer with another digest."""
        return None if entry.digest is None else Md5Authentication(self.user, entry.digest, self.request[1])

    def respond(self, body: bytes) -> Reply:
        """Compare the answer."""
        if not equal(read_password(body), self._expected):
            raise self.failed()
        return Accepted()


class ScramAuthentication(ClientAuthentication):
    """AuthenticationSASL with SCRAM-SHA-256, and with SCRAM-SHA-256-PLUS where TLS gives something to bind to."""

    __slots__ = ("_end_point", "_entry", "_scram", "_verifier")

    def __init__(self, user: str, entry: Entry, verifier: ScramVerifier, encryption: Encryption | None = None) -> None:
        self._end_point = b"" if encryption is None else encryption.end_point
        super().__init__(user, codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(mechanisms(self._end_point)))
        self._entry = entry
        self._verifier = verifier
        self._scram: ScramServer | None = None  # once the client has chosen a mechanism

    def respond(self, body: bytes) -> Reply:
        """Take the SASLInitialResponse, then one SASLResponse."""
        scram = self._scram
        payload: bytes | None = body
        if scram is None:
            mechanism, payload = messages.read_sasl_initial_response(body)
            scram = ScramServer(self._verifier, self.user, mechanism=mechanism, end_point=self._end_point)
            self._scram = scram
        answer = scram.receive(payload)
        if scram.state is not State.DONE:
            return Challenge(answer)
        self._entry.keys = scram.keys
        return Accepted(answer)


class Access:
    """The users of one configuration.

    Making one computes a SCRAM verifier for every cleartext password that needs it, 1.4 ms each: make it in a thread
    where the event loop already serves.  `previous`, the Access of the configuration before, saves what did not change.
    `mock_secret` decides the salts of cleartext and of unknown users; processes that share it answer alike.
    """

    def __init__(self, auth: Auth, *, mock_secret: bytes | None = None, previous: Access | None = None) -> None:
        """Raises ConfigurationError, naming every user whose secret cannot be read."""
        if mock_secret is None:
            mock_secret = os.urandom(32) if previous is None else previous._mock_secret
        rules = auth.rules
        self._hba = HbaRules(rules)
        self._maps = IdentMaps(auth.ident)
        self._methods = frozenset(rule.method for rule in rules)
        self._mock_secret: bytes = mock_secret
        self._users = frozenset(auth.users)
        self._looks_up = bool(auth.auth_user)
        kept: Mapping[str, Entry] = {}
        if previous is not None and (previous._methods, previous._mock_secret) == (self._methods, self._mock_secret):
            kept = previous._entries
        self._entries: dict[str, Entry] = {}
        for user, secret in _read_secrets(auth).items():
            entry = kept.get(user)
            self._entries[user] = (
                entry if entry is not None and entry.secret == secret else self._entry(user, secret, self._methods)
            )
        self._usual_secret = _most_common((type(entry.secret) for entry in self._entries.values()), Cleartext)
        verifiers = (entry.verifier for entry in self._entries.values())
        self._usual_iterations = _most_common((known.iterations for known in verifiers if known), ITERATIONS)

    def __repr__(self) -> str:
        return f"Access(methods={', '.join(sorted(self._methods))}, users={len(self._users)})"

    def lists(self, user: str) -> bool:
        """The user is one of those written down."""
        return user in self._users

    @property
    def asks_system(self) -> bool:
        """Some entry wants to know whom the operating system names; that name may take the system a while to find."""
        return HbaMethod.PEER in self._methods

    def begin(self, request: LoginRequest) -> ClientAuthentication | Lookup:
        """Start a client's login.

        Raises AuthenticationFailed where no password can help: no entry of the HBA file lets the client in, or its
        method asks for none and the client is not who may be this user.
        """
        rule = self._hba.first(
            request.user,
            request.database,
            request.address,
            encrypted=request.encryption is not None,
            replication=request.replication,
        )
        if rule is None:
            raise no_entry(request)
        if rule.method is HbaMethod.REJECT:
            raise rejected(request)
        check_certificate(rule, self._maps, request)
        if rule.method is HbaMethod.PEER:
            check_peer(rule, self._maps, request)
        user = request.user
        if self._looks_up and not self.lists(user):
            return Lookup(request, rule.method)
        if rule.method in WITHOUT_PASSWORD and self._users and not self.lists(user):
            # As in PgBouncer that needs a name that is listed; where no list is written at all everybody is let in.
            raise unknown(rule.method, user)
        entry = self._entries.get(user) or self._mock_entry(user, self._usual_secret, self._usual_iterations)
        return self._authentication(request, rule.method, entry, self._usual_iterations)

    def to_derive(self, lookup: Lookup, found: Found) -> Derivation | None:
        """Say what must be computed before `looked_up`, which then gets the keys."""
        if isinstance(found.secret, Cleartext) and lookup.method is HbaMethod.SCRAM_SHA_256:
            return Derivation(
                found.secret.password, mock_salt(self._mock_secret, lookup.request.user), found.iterations
            )
        return None

    def looked_up(
        self, lookup: Lookup, found: Found, keys: ScramKeys | None, now: float
    ) -> tuple[ClientAuthentication, Entry]:
        """Go on with what was found, also where that is nobody.

        Raises AuthenticationFailed only for nobody under a method that asks for no password.
        """
        user = lookup.request.user
        if lookup.method in WITHOUT_PASSWORD and found.secret is None:
            raise unknown(lookup.method, user)
        if found.secret is None:
            entry = self._mock_entry(user, found.usual, found.iterations)
        elif keys is not None:
            entry = Entry(found.secret, verifier=keys.verifier())
        else:
            entry = self._entry(user, found.secret, (lookup.method,))
        entry.since = now
        return self._authentication(lookup.request, lookup.method, entry, found.iterations), entry

    def server_credentials(self, user: str) -> Secret | None:
        """What logs in to servers as this user, who is listed; None where there is no password."""
        entry = self._entries.get(user)
        return None if entry is None else entry.credentials

    def _authentication(
        self, request: LoginRequest, method: HbaMethod, entry: Entry, iterations: int
    ) -> ClientAuthentication:
        """Ask for what the method asks for; `iterations` is how many a user has of whom no verifier is known."""
        user = request.user
        if method in WITHOUT_PASSWORD:
            return ClientAuthentication(user, codes.AUTHENTICATION_OK)
        if method is HbaMethod.PASSWORD:
            return CleartextAuthentication(user, entry)
        if method is HbaMethod.MD5 and entry.digest is not None:
            return Md5Authentication(user, entry.digest)
        # An MD5 secret has no verifier: its user fails as one does who is unknown.
        verifier = entry.verifier or mock_verifier(self._mock_secret, user, iterations)
        return ScramAuthentication(user, entry, verifier, request.encryption)

    def _entry(self, user: str, secret: Secret, methods: Collection[HbaMethod]) -> Entry:
        """What the secret comes to under these methods; slow for a cleartext password under scram-sha-256."""
        if isinstance(secret, ScramVerifier):
            return Entry(secret, verifier=secret)
        if isinstance(secret, Md5Digest):
            return Entry(secret, digest=secret)
        entry = Entry(secret)
        if isinstance(secret, Cleartext) and HbaMethod.SCRAM_SHA_256 in methods:
            # With the salt an unknown user of this name would have, the salt does not tell who exists.
            entry.verifier = make_verifier(secret.password, salt=mock_salt(self._mock_secret, user))
        if isinstance(secret, Cleartext) and HbaMethod.MD5 in methods:
            entry.digest = md5_digest(secret.password, user)
        return entry

    def _mock_entry(self, user: str, usual: type[Secret], iterations: int) -> Entry:
        """The entry of a user who does not exist: of the kind that most users have, and no password fits it."""
        verifier = mock_verifier(self._mock_secret, user, iterations)
        if usual is ScramVerifier:
            return Entry(verifier, verifier=verifier)
        digest = Md5Digest(verifier.stored_key.hex()[:32])
        return Entry(digest, verifier=verifier, digest=digest)


def read_password(body: bytes) -> bytes:
    """PasswordMessage -> the password.  Raises AuthenticationFailed for an empty one, as PostgreSQL does."""
    password = messages.read_password(body)
    if not password:
        raise AuthenticationFailed("empty password returned by client")
    return password


def _read_secrets(auth: Auth) -> dict[str, Secret]:
    """The users who have a secret.  Raises ConfigurationError."""
    secrets: dict[str, Secret] = {}
    problems = []
    for name, user in auth.users.items():
        try:
            secret = parse_secret(user.password)
        except ValueError as error:
            problems.append(Problem(f'user "{name}": {error}'))
            continue
        if secret is not None:
            secrets[name] = secret
    if problems:
        raise ConfigurationError(problems)
    return secrets


def _most_common(values: Iterable[T], otherwise: T) -> T:
    """The value that occurs most often, the first of several."""
    most = Counter(values).most_common(1)
    return most[0][0] if most else otherwise
