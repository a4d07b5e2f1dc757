"""Startup packets as PostgreSQL 18 reads and answers them (protocol-flow-start-up, protocol-flow-ssl)."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgpooler.errors import FeatureNotSupported, PeerError, ProtocolViolation
from pgpooler.protocol import codes
from pgpooler.protocol.messages import UINT32, decode_text, negotiate_protocol_version

NAME_LIMIT = 63  # NAMEDATALEN - 1: PostgreSQL cuts longer user and database names
EARLIEST_MAJOR = 3
LATEST = codes.PROTOCOL_3_2
TRUE = ("on", "true", "yes", "1")
FALSE = ("off", "false", "no", "0")


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """What a client asked for: protocol version (as agreed), user, database and all other parameters as sent."""

    version: int
    user: str
    database: str
    parameters: dict[str, str] = field(default_factory=dict)
    options: str = ""
    replication: str = ""
    unknown_options: tuple[str, ...] = ()
    negotiation: bytes = b""  # the NegotiateProtocolVersion to send first, or nothing

    @property
    def physical_replication(self) -> bool:
        """Whether the client asked for a connection that streams the log and has no database."""
        return self.replication == "physical"


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A request to cancel what the session with this process id and key is running."""

    process_id: int
    cancel_key: bytes


@dataclass(frozen=True, slots=True)
class EncryptionRequest:
    """SSLRequest or GSSENCRequest: to be answered with one byte."""

    kind: str


class UnsupportedProtocol(FeatureNotSupported):
    """A protocol version outside 3; below 3 the error has no frame (`unframed`)."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}: "
            f"server supports {EARLIEST_MAJOR}.0 to {LATEST >> 16}.{LATEST & 0xFFFF}"
        )
        self.before_protocol_3 = 0 < version < codes.PROTOCOL_3_0  # to PostgreSQL 0.0 is no version yet

    def unframed(self) -> bytes:
        """Spell the error as protocol 2 did: a type byte and a text ended by zero, no length."""
        return b"E" + f"{self.severity}:  {self.message}\n".encode() + b"\0"


class InvalidCancelRequest(ProtocolViolation):
    """A cancel request that is malformed; like any other it is not answered."""


class Startup:
    """Reads the packets before authentication, in the order they come.  Refuses what PostgreSQL refuses."""

    __slots__ = ("gss_asked", "ssl_asked")

    def __init__(self) -> None:
        self.ssl_asked = False
        self.gss_asked = False

    def receive(self, body: bytes) -> StartupMessage | CancelRequest | EncryptionRequest:
        """Read one packet (without its length word).  Raises PeerError for what cannot be accepted."""
        version = UINT32.unpack_from(body)[0]
        if version == codes.CANCEL_REQUEST:
            return _cancel_request(body)
        if version == codes.SSL_REQUEST and not self.ssl_asked:
            self.ssl_asked = True
            return EncryptionRequest("SSL")
        if version == codes.GSSENC_REQUEST and not self.gss_asked:
            self.gss_asked = True
            return EncryptionRequest("GSSAPI")
        if version >> 16 != EARLIEST_MAJOR:
            raise UnsupportedProtocol(version)
        return _startup_message(version, body)

    @staticmethod
    def stuffed(request: EncryptionRequest) -> ProtocolViolation:
        """Make the error for bytes that stand behind an encryption request before it was answered."""
        name = "SSL" if request.kind == "SSL" else "GSSAPI encryption"
        return ProtocolViolation(
            f"received unencrypted data after {name} request",
            detail="This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
        )


def _cancel_request(body: bytes) -> CancelRequest:
    key = body[8:]
    if not key or len(key) > codes.CANCEL_KEY_LIMIT:
        raise InvalidCancelRequest("invalid length of cancel key in cancel request packet")
    return CancelRequest(UINT32.unpack_from(body, 4)[0], key)


def _startup_message(version: int, body: bytes) -> StartupMessage:
    parameters, unknown = _parameters(body)
    agreed = min(version, LATEST)
    negotiation = b""
    if version > LATEST or unknown:
        negotiation = negotiate_protocol_version(agreed, unknown)
    user = _name(parameters.pop("user", ""))
    database = _name(parameters.pop("database", "")) or user
    options = parameters.pop("options", "")
    replication = _replication(parameters.pop("replication", None))
    if not user:
        raise PeerError("no PostgreSQL user name specified in startup packet", sqlstate="28000")
    return StartupMessage(agreed, user, database, parameters, options, replication, tuple(unknown), negotiation)


def _parameters(body: bytes) -> tuple[dict[str, str], list[str]]:
    """Split names and values.  The last byte of the packet must be the zero that ends the list."""
    parameters: dict[str, str] = {}
    unknown: list[str] = []
    position = 4
    while position < len(body) and body[position]:
        name_stop = body.find(b"\0", position)
        value_stop = body.find(b"\0", name_stop + 1) if name_stop >= 0 else -1
        if value_stop < 0:
            break
        name = decode_text(body[position:name_stop])
        if name.startswith("_pq_."):
            unknown.append(name)
        else:
            parameters[name] = decode_text(body[name_stop + 1 : value_stop])
        position = value_stop + 1
    if position != len(body) - 1:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    return parameters, unknown


def _name(text: str) -> str:
    return decode_text(text.encode("utf-8", "surrogateescape")[:NAME_LIMIT])


def _replication(value: str | None) -> str:
    """Return "" (no), "physical" or "logical".  Booleans are spelt as PostgreSQL reads them, prefixes included."""
    if value is None:
        return ""
    if value == "database":
        return "logical"
    word = value.lower()
    if word and any(spelling.startswith(word) for spelling in TRUE) and word != "o":
        return "physical"
    if word and any(spelling.startswith(word) for spelling in FALSE) and word != "o":
        return ""
    raise PeerError(
        f'invalid value for parameter "replication": "{value}"',
        sqlstate="22023",
        hint='Valid values are: "false", 0, "true", 1, "database".',
    )
