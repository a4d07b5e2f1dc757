"""Every error PgPooler raises on purpose, in one tree.

Two families matter.  A `PeerError` is told to the peer on the wire, with its SQLSTATE.  A `ConfigurationError` is
told to the operator, with the place in the file.  Anything else that escapes is a bug of ours: it is logged with its
traceback, and the peer learns only "internal error".
"""

from __future__ import annotations

from dataclasses import dataclass

INVALID_AUTHORIZATION = "28000"
"""invalid_authorization_specification: a login refused for another reason than its password (errcodes-appendix)."""


class PgPoolerError(Exception):
    """Base of all errors raised by PgPooler on purpose."""


class PeerError(PgPoolerError):
    """An error that the peer is told: severity, SQLSTATE, message, and optionally detail and hint.

    The meaning of the fields is the manual's (protocol-error-fields).
    """

    sqlstate = "XX000"

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        severity: str = "FATAL",
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = self.sqlstate if sqlstate is None else sqlstate
        self.severity = severity
        self.detail = detail
        self.hint = hint


class ProtocolViolation(PeerError):
    """The peer broke the wire protocol (SQLSTATE 08P01)."""

    sqlstate = "08P01"


class FeatureNotSupported(PeerError):
    """The peer asked for something that PgPooler does not do (SQLSTATE 0A000)."""

    sqlstate = "0A000"


class AuthenticationFailed(PeerError):
    """The client did not prove to be who it says it is (SQLSTATE 28P01)."""

    sqlstate = "28P01"


class NoRoute(PeerError):
    """No routing rule matches the user and the database (SQLSTATE 3D000)."""

    sqlstate = "3D000"


class TooManyConnections(PeerError):
    """A limit is reached: clients, waiters or server connections (SQLSTATE 53300)."""

    sqlstate = "53300"


class CannotConnectNow(PeerError):
    """PgPooler is draining, paused or starting (SQLSTATE 57P03)."""

    sqlstate = "57P03"


class ServerUnavailable(PeerError):
    """No server connection could be opened (SQLSTATE 08006, or the server's own)."""

    sqlstate = "08006"


@dataclass(frozen=True)
class Problem:
    """One thing wrong in the configuration: where (file, line and column counted from 1, 0 = unknown) and what."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}"
        return f"{place}: {self.message}" if place else self.message


class ConfigurationError(PgPoolerError):
    """The configuration is wrong; `problems` lists everything that was found, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
