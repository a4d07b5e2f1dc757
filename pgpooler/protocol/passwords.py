"""Stored secrets and what can be computed from them: cleartext, MD5 digests, SCRAM verifiers and keys.

A secret is written as in pg_authid.rolpassword and PgBouncer's userlist.txt: `md5` and 32 hexadecimal digits,
`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, or else the password itself.  No secret shows in a repr.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from typing import TypeAlias

from pgpooler.errors import ServerUnavailable
from pgpooler.protocol.saslprep import saslprep

ITERATIONS = 4096  # scram_iterations of PostgreSQL
SALT_LENGTH = 16  # bytes
KEY_LENGTH = 32  # bytes, of SHA-256
ITERATIONS_MAXIMUM = 2**31 - 1  # an int in PostgreSQL

MD5_SECRET = re.compile(r"md5[0-9a-f]{32}")
SCRAM_PREFIX = "SCRAM-SHA-256$"
SCRAM_SECRET = re.compile(
    r"SCRAM-SHA-256\$(?P<iterations>[^$:]*):(?P<salt>[^$:]*)\$(?P<stored>[^$:]*):(?P<server>[^$:]*)"
)


@dataclass(frozen=True, slots=True)
class Cleartext:
    """A password as the user types it: serves every method, towards clients and towards servers."""

    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Md5Digest:
    """md5(password + user) in 32 hexadecimal digits: serves the md5 method alone, on both sides."""

    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What PostgreSQL stores (RFC 5802 section 3): checks a client's proof, but cannot make one."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def text(self) -> str:
        """The secret as written in pg_authid.rolpassword."""
        salt, stored, server = (
            base64.b64encode(part).decode("ascii") for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{SCRAM_PREFIX}{self.iterations}:{salt}${stored}:{server}"


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a password becomes for one salt and iteration count: enough to log in where these are the server's own."""

    iterations: int
    salt: bytes = field(repr=False)
    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def verifier(self) -> ScramVerifier:
        """The verifier of these keys."""
        stored_key = hashlib.sha256(self.client_key).digest()
        return ScramVerifier(self.iterations, self.salt, stored_key, self.server_key)


@dataclass(frozen=True, slots=True)
class Derivation:
    """A slow computation (PBKDF2, milliseconds) to be run in a thread; hashable, so that its keys can be kept."""

    password: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    iterations: int

    def run(self) -> ScramKeys:
        """Compute the keys.  Releases the interpreter lock meanwhile."""
        return derive_keys(self.password, self.salt, self.iterations)


Secret: TypeAlias = Cleartext | Md5Digest | ScramVerifier | ScramKeys


def parse_secret(text: str) -> Secret | None:
    """Read a secret as it is written; None for an empty one, which never logs in (as in PostgreSQL).

    Raises ValueError, with a message that does not repeat the secret, for one that nobody could ever log in with.
    """
    if not text:
        return None
    if MD5_SECRET.fullmatch(text):
        return Md5Digest(text[3:])
    if text.startswith(SCRAM_PREFIX):
        return _parse_verifier(text)
    return Cleartext(_password_bytes(text))


def _password_bytes(text: str) -> bytes:
    try:
        password = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("the password contains a lone surrogate, which UTF-8 cannot encode") from None
    if b"\0" in password:
        raise ValueError("the password contains a zero byte, which cannot be sent")
    return password


def _parse_verifier(text: str) -> ScramVerifier:
    """Raises ValueError saying which part is wrong."""
    match = SCRAM_SECRET.fullmatch(text)
    if match is None:
        raise ValueError("the SCRAM secret is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>")
    digits = match["iterations"]
    iterations = parse_iterations(digits.encode("utf-8", "replace"))
    if iterations is None:
        raise ValueError("the iteration count of the SCRAM secret is not a number from 1 to 2147483647")
    salt = _decode_part(match["salt"], "salt")
    stored_key = _decode_part(match["stored"], "StoredKey")
    server_key = _decode_part(match["server"], "ServerKey")
    if not salt:
        raise ValueError("the salt of the SCRAM secret is empty")
    for name, key in (("StoredKey", stored_key), ("ServerKey", server_key)):
        if len(key) != KEY_LENGTH:
            raise ValueError(f"the {name} of the SCRAM secret has {len(key)} bytes instead of {KEY_LENGTH}")
    return ScramVerifier(iterations, salt, stored_key, server_key)


def _decode_part(text: str, name: str) -> bytes:
    part = decode_base64(text.encode("utf-8", "replace"))
    if part is None:
        raise ValueError(f"the {name} of the SCRAM secret is not base64")
    return part


def parse_iterations(digits: bytes) -> int | None:
    """A positive number of at most ten digits without leading zeros (RFC 5802 posit-number), up to 2**31 - 1."""
    if not re.fullmatch(rb"[1-9][0-9]{0,9}", digits):
        return None
    iterations = int(digits)
    return iterations if iterations <= ITERATIONS_MAXIMUM else None


def decode_base64(text: bytes) -> bytes | None:
    """Decode base64 in its one canonical spelling; None for anything else."""
    try:
        decoded = base64.b64decode(text)
    except ValueError:
        return None
    return decoded if base64.b64encode(decoded) == text else None


def derive_keys(password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """The SCRAM keys of a password (RFC 5802 section 3).  Slow on purpose: 1.4 ms for 4096 iterations."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramKeys(iterations, salt, client_key, server_key)


def make_verifier(password: bytes, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> ScramVerifier:
    """The verifier of a cleartext password, with a random salt unless one is given.  As slow as `derive_keys`."""
    return derive_keys(password, os.urandom(SALT_LENGTH) if salt is None else salt, iterations).verifier()


def md5_digest(password: bytes, user: str) -> Md5Digest:
    """What PostgreSQL stores for password_encryption = md5: md5(password + user)."""
    return Md5Digest(_md5(password + user.encode("utf-8", "surrogateescape")))


def md5_response(secret: Md5Digest, salt: bytes) -> bytes:
    """The answer to AuthenticationMD5Password: `md5` + md5(md5(password + user) + salt)."""
    return b"md5" + _md5(secret.digest.encode("ascii") + salt).encode("ascii")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def equal(left: bytes, right: bytes) -> bool:
    """Compare two secrets in a time that does not depend on where they differ."""
    return hmac.compare_digest(left, right)


# -- towards a server --------------------------------------------------------------------------------------------------

CLEARTEXT_HINT = "Give the password in cleartext, to the user or to the backend."
DESCRIPTIONS: dict[type[Secret], str] = {
    Cleartext: "a cleartext password",
    Md5Digest: "an MD5 digest",
    ScramVerifier: "a SCRAM verifier, which checks passwords but cannot log in",
    ScramKeys: "the SCRAM key of the client's own login",
}


def answer_cleartext(secret: Secret | None, user: str) -> bytes:
    """The answer to a server's AuthenticationCleartextPassword.  Raises ServerUnavailable where the secret has none."""
    if isinstance(secret, Cleartext):
        return secret.password
    raise cannot_answer(secret, user, "a cleartext password")


def answer_md5(secret: Secret | None, user: str, salt: bytes) -> bytes:
    """The answer to a server's AuthenticationMD5Password.  Raises ServerUnavailable where the secret has none."""
    if isinstance(secret, Cleartext):
        secret = md5_digest(secret.password, user)
    if isinstance(secret, Md5Digest):
        return md5_response(secret, salt)
    raise cannot_answer(secret, user, "an MD5 password")


def cannot_answer(secret: Secret | None, user: str, wanted: str) -> ServerUnavailable:
    """The error for a secret that cannot give what a server wants."""
    have = "no password" if secret is None else f"only {DESCRIPTIONS[type(secret)]}"
    return ServerUnavailable(f'the server wants {wanted}, but for user "{user}" there is {have}', hint=CLEARTEXT_HINT)
