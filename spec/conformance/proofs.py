"""The client's side of authentication: what is said to a server that wants to know who is there.

Standard library only.  Passwords with characters beyond ASCII are taken as they are in UTF-8, which is what SASLprep
makes of nearly all of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from spec.codec import Instance, frontend

MECHANISM = b"SCRAM-SHA-256"
WITHOUT_CHANNEL_BINDING = b"n,,"


class Unanswerable(Exception):
    """The server wants a proof that this client cannot give; the message says which."""


class Proofs:
    """Answers the authentication requests of one login."""

    def __init__(self, user: str, password: str) -> None:
        self.user = user.encode()
        self.password = password.encode()
        self.first = b"n=,r=" + base64.b64encode(os.urandom(18))
        self.expected = b""
        """The signature by which the server will show that it knows the password too."""

    def answer(self, request: Instance) -> Instance | None:
        """Return what answers an authentication request; None if nothing does."""
        match request.name:
            case "AuthenticationCleartextPassword":
                return frontend("PasswordMessage", password=self.password)
            case "AuthenticationMD5Password":
                return frontend("PasswordMessage", password=md5(self.user, self.password, data_of(request, "salt")))
            case "AuthenticationSASL":
                mechanisms = request["mechanisms"]
                if not isinstance(mechanisms, tuple) or MECHANISM not in mechanisms:
                    raise Unanswerable(f"none of the SASL mechanisms is {MECHANISM.decode()}: {mechanisms!r}")
                return frontend("SASLInitialResponse", mechanism=MECHANISM, data=WITHOUT_CHANNEL_BINDING + self.first)
            case "AuthenticationSASLContinue":
                return frontend("SASLResponse", data=self.scram(data_of(request, "data")))
            case "AuthenticationOk" | "AuthenticationSASLFinal":
                return None
        raise Unanswerable(f"the target asks for {request.name.removeprefix('Authentication')}")

    def scram(self, challenge: bytes) -> bytes:
        """Return client-final-message (RFC 5802 section 3), and expect the server's signature."""
        attributes = dict(part.split(b"=", 1) for part in challenge.split(b","))
        salt, iterations = base64.b64decode(attributes[b"s"]), int(attributes[b"i"])
        salted = hashlib.pbkdf2_hmac("sha256", self.password, salt, iterations)
        without_proof = b"c=" + base64.b64encode(WITHOUT_CHANNEL_BINDING) + b",r=" + attributes[b"r"]
        said = self.first.removeprefix(WITHOUT_CHANNEL_BINDING) + b"," + challenge + b"," + without_proof
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self.expected = b"v=" + base64.b64encode(
            hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
        )
        return without_proof + b",p=" + base64.b64encode(proof)

    def is_genuine(self, final: Instance) -> bool:
        """Whether a AuthenticationSASLFinal proves that the server knows the password."""
        return data_of(final, "data") == self.expected


def md5(user: bytes, password: bytes, salt: bytes) -> bytes:
    """Return the MD5 proof (protocol-flow#PROTOCOL-FLOW-START-UP)."""
    inner = hashlib.md5(password + user, usedforsecurity=False).hexdigest().encode()
    return b"md5" + hashlib.md5(inner + salt, usedforsecurity=False).hexdigest().encode()


def data_of(request: Instance, field: str) -> bytes:
    """Return a field that holds bytes."""
    data = request[field]
    assert isinstance(data, bytes)
    return data
