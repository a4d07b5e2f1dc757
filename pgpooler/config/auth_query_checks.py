"""What must hold for looking users up: in the section `auth` and in the backends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pgpooler.config.reader import Read
from pgpooler.config.secret_checks import VERIFIES_ONLY, secret_of
from pgpooler.config.source import Sources
from pgpooler.protocol.passwords import SCRAM_PREFIX, ScramVerifier

AUTH_QUERY_KEYS: Final = frozenset(
    ("auth_query", "auth_user", "auth_password", "auth_dbname", "auth_query_cache_ttl", "auth_query_negative_ttl")
)
"""The keys of looking users up, which `auth_user` switches on."""


def check_auth_query(auth: Read, backends: Iterable[Read], sources: Sources) -> None:
    """What belongs to auth_query, in the section `auth` and in the backends."""
    for read in (auth, *backends):
        place = read.places.get("auth_query")
        if "$1" not in read.values.get("auth_query", "$1") and place:
            sources.error(place, "'auth_query' needs $1, in the place of the user's name")
        if isinstance(secret_of(read, sources, "auth_password"), ScramVerifier):
            sources.error(read.places["auth_password"], VERIFIES_ONLY)
        for name in sorted(AUTH_QUERY_KEYS & read.values.keys() if "auth_user" not in auth.places else ()):
            sources.error(read.places[name], f"{name!r} has no effect without 'auth_user' in the section 'auth'")
        _check_auth_user(read, auth, sources)


def _check_auth_user(read: Read, auth: Read, sources: Sources) -> None:
    """Whether there is something that lets the auth_user in at a server."""
    name = read.values.get("auth_user")
    if name is None or "auth_password" in read.places:
        return
    listed = auth.values["users"].get(name)
    if not listed or "password" not in listed.places:
        message = (
            f"auth_user {name!r} has no password, neither 'auth_password' nor in 'users': servers must not ask for one"
        )
        sources.warn(read.places["auth_user"], message)
    elif listed.values.get("password", "").startswith(SCRAM_PREFIX):
        sources.error(read.places["auth_user"], f"auth_user {name!r} needs 'auth_password': {VERIFIES_ONLY}")
