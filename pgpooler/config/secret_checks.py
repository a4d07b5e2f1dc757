"""What must hold for secrets, wherever they are written."""

from __future__ import annotations

from typing import Final

from pgpooler.config.reader import Read
from pgpooler.config.source import Sources
from pgpooler.protocol.passwords import Secret, parse_secret

VERIFIES_ONLY: Final = "a SCRAM verifier proves who others are; to log in to a server the password itself is needed"


def secret_of(owner: Read, sources: Sources, key: str = "password") -> Secret | None:
    """Say what is written under a key; a secret that nobody could ever log in with is reported."""
    text = owner.values.get(key)
    if text is None:
        return None
    try:
        secret = parse_secret(text)
    except ValueError as error:
        sources.error(owner.places[key], f"bad secret: {error}")
        return None
    if secret is None:
        sources.error(owner.places[key], "bad secret: it is empty")
    return secret
