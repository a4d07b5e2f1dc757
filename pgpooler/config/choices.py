"""The values that keys may have where these are words: what each is called in the files, and what it means."""

from __future__ import annotations

import enum
from typing import Final

from pgpooler.config.hba import HbaMethod


class PoolMode(enum.StrEnum):
    """How long a client holds a server connection."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class ResetPolicy(enum.StrEnum):
    """When a server connection is reset before another client gets it; `smart`: where something may be left in it."""

    ALWAYS = "always"
    SMART = "smart"
    NEVER = "never"


class SessionStatePolicy(enum.StrEnum):
    """What happens when a statement leaves something in the session that only its own client may find again."""

    PIN = "pin"
    ERROR = "error"
    ALLOW = "allow"


class AuthMethod(enum.StrEnum):
    """How a client proves who it is; `trust` believes it without proof and must be written out."""

    SCRAM_SHA_256 = "scram-sha-256"
    MD5 = "md5"
    PLAIN = "plain"
    CERT = "cert"
    TRUST = "trust"


HBA_METHODS: Final = {
    AuthMethod.SCRAM_SHA_256: HbaMethod.SCRAM_SHA_256,
    AuthMethod.MD5: HbaMethod.MD5,
    AuthMethod.PLAIN: HbaMethod.PASSWORD,
    AuthMethod.CERT: HbaMethod.CERT,
    AuthMethod.TRUST: HbaMethod.TRUST,
}
"""What `method` is called in a pg_hba.conf."""


class TlsMode(enum.StrEnum):
    """Whether a connection is encrypted, and whom the other end must prove to be (libpq-ssl-sslmode-statements)."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def required(self) -> bool:
        """Nothing goes over a connection that is not encrypted."""
        return self in (TlsMode.REQUIRE, TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)

    @property
    def verified(self) -> bool:
        """The other end must show a certificate that can be trusted."""
        return self in (TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)


class TlsVersion(enum.StrEnum):
    """The versions of TLS that are not broken."""

    TLS_1_2 = "TLSv1.2"
    TLS_1_3 = "TLSv1.3"


class ChannelBinding(enum.StrEnum):
    """Whether a login to a server proves that TLS ends at that server, as libpq's connection parameter of this name."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


class ProtocolVersion(enum.StrEnum):
    """The versions of PostgreSQL's protocol that a server may be asked for, as libpq spells them."""

    V3_0 = "3.0"
    V3_2 = "3.2"
    LATEST = "latest"


class LogLevel(enum.StrEnum):
    """The least important messages that are still logged."""

    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"


class LogDestination(enum.StrEnum):
    """Where log lines go."""

    FILE = "file"
    STDERR = "stderr"


class LogFormat(enum.StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


class PatternKind(enum.StrEnum):
    """The three forms of one name in a matcher."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
