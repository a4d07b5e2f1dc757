"""Where the suite goes: a connection URI, and for how long an answer is waited for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

SCHEMES = ("postgres", "postgresql")
PORT = 5432
PATIENCE = 10.0
"""Seconds of silence after which a target counts as hanging."""


class Unusable(ValueError):
    """A URI from which no target can be made; the message says what is wrong with it."""


@dataclass(frozen=True)
class Target:
    """One address that speaks the protocol, and who logs in there."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    patience: float = PATIENCE

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


def target(uri: str, patience: float = PATIENCE) -> Target:
    """Return the target of a URI such as postgres://user:password@host:port/database (libpq-connect#LIBPQ-CONNSTRING).

    Without a password PGPASSWORD is used; the database is by default the one that is called like the user.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or PORT
    except ValueError as error:
        raise Unusable(f"no connection URI: {error}") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise Unusable("a connection URI reads postgres://user:password@host:port/database")
    if not parts.username:
        raise Unusable("the connection URI names no user: postgres://user:password@host:port/database")
    user = unquote(parts.username)
    password = unquote(parts.password) if parts.password is not None else os.environ.get("PGPASSWORD", "")
    return Target(parts.hostname, port, user, password, unquote(parts.path.strip("/")) or user, patience)
