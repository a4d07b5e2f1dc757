"""Where a backend's users are looked up: which query, as whom, in which database."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgpooler.config.model import Backend, Configuration
from pgpooler.protocol.passwords import Secret, parse_secret


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that an answer depends on; while it is the same, connections and caches stay good."""

    backend: Backend
    query: str
    user: str
    secret: Secret | None = field(repr=False)
    database: str
    cache_ttl: float  # seconds
    negative_ttl: float

    @classmethod
    def of(cls, configuration: Configuration, backend: Backend) -> Source | None:
        """Return what the configuration says for this backend; None: nobody is looked up.

        A password belongs to the auth_user beside which it is written; one that has none there is one of the users.
        """
        auth = configuration.auth
        if not auth.auth_user:
            return None
        user = backend.auth_user or auth.auth_user
        password = backend.auth_password or ("" if backend.auth_user else auth.auth_password)
        if not password and user in auth.users:
            password = auth.users[user].password
        return cls(
            backend=backend,
            query=backend.auth_query or auth.auth_query,
            user=user,
            secret=parse_secret(password),
            database=backend.auth_dbname or auth.auth_dbname,
            cache_ttl=auth.auth_query_cache_ttl,
            negative_ttl=auth.auth_query_negative_ttl,
        )

    def __str__(self) -> str:
        place = f"{self.backend.name} ({self.backend.host}:{self.backend.port})"
        return f"backend={place} user={self.user} database={self.database}"
