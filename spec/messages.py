"""NORMATIVE: every message of protocol 3.0 and 3.2, except the replication sub-protocol inside CopyData.

Each entry states who sends the message, its type byte, its fields, since which protocol version this form is in force,
how long it may be, and what it means.  The manual's page for an entry is `Message.anchor`; limits the manual does not
state are those of PostgreSQL 18 itself, named beside the constant.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from spec.types import Array, Bytes, Constant, Field, Group, Int, Rest, Tag, Text, Until0, Value

Version = tuple[int, int]
"""A protocol version: major and minor."""

VERSIONS: tuple[Version, ...] = ((3, 0), (3, 2))
"""The versions described here; 3.1 was never used."""

LATEST: Version = (3, 2)


class Sender(enum.Enum):
    """Who says it: `FRONTEND` is the client, `BACKEND` the server."""

    FRONTEND = "F"
    BACKEND = "B"


class Phase(enum.Enum):
    """What a receiver must know to read a frontend's bytes: the first have no type byte, and `p` means four things.

    The backend's messages are always recognised by their bytes alone.
    """

    STARTUP = "startup"
    PASSWORD = "password"  # noqa: S105  the name of a phase
    SASL_INITIAL = "SASL initial"
    SASL = "SASL"
    GSS = "GSS"
    SESSION = "session"


# A length word counts itself and the body, not the type byte.
LEAST_LENGTH = 4
MOST_LENGTH = 0x3FFFFFFE  # PQ_LARGE_MESSAGE_LIMIT: MaxAllocSize - 1, just under 1 GiB
SMALL_LENGTH = 10_000  # PQ_SMALL_MESSAGE_LIMIT
STARTUP_LENGTH = 10_004  # MAX_STARTUP_PACKET_LENGTH, 10,000, which does not count the length word
AUTHENTICATION_LENGTH = 65_535  # PG_MAX_AUTH_TOKEN_LENGTH; SCRAM itself stays under 1,024
REQUEST_LENGTH = 2_000  # libpq takes no longer authentication request or version negotiation

LEAST_KEY, MOST_KEY = 4, 256  # bytes of a cancel key in 3.2; always 4 in 3.0


@dataclass(frozen=True)
class Message:
    """The format of one message.

    `type` is the type byte, empty for the untagged packets of the start.  `most` is the largest length word allowed.
    `phase` is set where the bytes mean this message in that phase only.
    """

    sender: Sender
    type: bytes
    name: str
    fields: tuple[tuple[str, Field], ...]
    meaning: str
    most: int = MOST_LENGTH
    since: Version = (3, 0)
    phase: Phase | None = None

    @property
    def anchor(self) -> str:
        """The place of this message in the manual."""
        return f"protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-{self.name.upper()}"


def signed(bits: int, *usual: int) -> Int:
    """Return an integer type of `bits` bits with a sign."""
    return Int(bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, usual)


def unsigned(bits: int, *usual: int) -> Int:
    """Return an integer type of `bits` bits without a sign."""
    return Int(bits, 0, 2**bits - 1, usual)


i16, i32 = signed(16), signed(32)
oid = unsigned(32)  # an object identifier; the manual writes Int32
count = unsigned(16)  # the manual writes Int16, PostgreSQL reads it without a sign: 65,535 parameters are possible
text, value = Text(), Value()
format_code = signed(16, 0, 1)  # 0 text, 1 binary; anything else is an ordinary error
formats = Array(format_code, count)
copy_format = Int(8, 0, 1)  # 0 text, 1 binary
anything = Rest(0, MOST_LENGTH - LEAST_LENGTH)
token = Rest(0, AUTHENTICATION_LENGTH - LEAST_LENGTH)
challenge = Rest(0, REQUEST_LENGTH - LEAST_LENGTH - 4)


@dataclass(frozen=True)
class ErrorField:
    """One field of ErrorResponse and NoticeResponse (protocol-error-fields)."""

    code: bytes
    name: str
    always: bool
    meaning: str


ERROR_FIELDS = (
    ErrorField(b"S", "severity", True, "ERROR, FATAL, PANIC, or a kind of notice; perhaps translated"),
    ErrorField(b"V", "severity, not localized", True, "the same, never translated; since PostgreSQL 9.6"),
    ErrorField(b"C", "SQLSTATE code", True, "five characters that name the condition; never translated"),
    ErrorField(b"M", "message", True, "what happened, for a human, usually one line"),
    ErrorField(b"D", "detail", False, "more about it, perhaps several lines"),
    ErrorField(b"H", "hint", False, "advice on what to do about it"),
    ErrorField(b"P", "position", False, "where in the query it happened, in characters from 1"),
    ErrorField(b"p", "internal position", False, "where in the internal query it happened"),
    ErrorField(b"q", "internal query", False, "the text of a command the server generated itself"),
    ErrorField(b"W", "where", False, "the call stack of the failing function, newest first"),
    ErrorField(b"s", "schema name", False, "the schema of the object concerned"),
    ErrorField(b"t", "table name", False, "the table concerned"),
    ErrorField(b"c", "column name", False, "the column concerned"),
    ErrorField(b"d", "data type name", False, "the data type concerned"),
    ErrorField(b"n", "constraint name", False, "the constraint concerned"),
    ErrorField(b"F", "file", False, "the source file that reported it"),
    ErrorField(b"L", "line", False, "the line in that file"),
    ErrorField(b"R", "routine", False, "the routine in that file"),
)

error_field = Group((("code", Tag(b"".join(field.code for field in ERROR_FIELDS), may_grow=True)), ("text", text)))
startup_parameter = Group((("name", Text(least=1)), ("value", text)))
column = Group(
    (
        ("name", text),
        ("table", oid),
        ("attribute", i16),
        ("type", oid),
        ("type_size", i16),
        ("type_modifier", i32),
        ("format", format_code),
    )
)


def frontend(
    type_: bytes, name: str, meaning: str, *, most: int = MOST_LENGTH, phase: Phase = Phase.SESSION, **fields: Field
) -> Message:
    """Return the format of a message that the frontend sends."""
    return Message(Sender.FRONTEND, type_, name, tuple(fields.items()), meaning, most, phase=phase)


def startup(name: str, meaning: str, *, since: Version = (3, 0), **fields: Field) -> Message:
    """Return the format of an untagged packet, which the frontend sends at the start of a connection."""
    return Message(
        Sender.FRONTEND, b"", name, tuple(fields.items()), meaning, STARTUP_LENGTH, since, phase=Phase.STARTUP
    )


def proof(name: str, phase: Phase, meaning: str, **fields: Field) -> Message:
    """Return the format of an answer to an authentication request: they all have the type `p`."""
    return frontend(b"p", name, meaning, most=AUTHENTICATION_LENGTH, phase=phase, **fields)


def backend(
    type_: bytes, name: str, meaning: str, *, most: int = MOST_LENGTH, since: Version = (3, 0), **fields: Field
) -> Message:
    """Return the format of a message that the backend sends."""
    return Message(Sender.BACKEND, type_, name, tuple(fields.items()), meaning, most, since)


def authentication(code: int, name: str, meaning: str, **fields: Field) -> Message:
    """Return the format of an authentication request: they all have the type `R` and differ in a number."""
    code_first = (("code", Constant(32, code)), *fields.items())
    return Message(Sender.BACKEND, b"R", "Authentication" + name, code_first, meaning, REQUEST_LENGTH)


STARTUP_PACKETS = (
    startup(
        "StartupMessage",
        "Opens a session: the version wanted and parameters. `user` is required, `database` defaults to it, names that "
        "begin with `_pq_.` are protocol options, `replication` opens the replication protocol.",
        major=Constant(16, 3),
        minor=unsigned(16, 0, 2),
        parameters=Until0(startup_parameter),
    ),
    startup(
        "CancelRequest",
        "Asks to cancel what a session is doing; sent on a connection of its own, which the server closes unanswered.",
        code=Constant(32, 80877102),
        process_id=i32,
        key=Rest(4, 4),
    ),
    startup(
        "CancelRequest",
        "The same with the longer keys of 3.2. The packet does not tell its version: the key's length does.",
        since=(3, 2),
        code=Constant(32, 80877102),
        process_id=i32,
        key=Rest(LEAST_KEY, MOST_KEY),
    ),
    startup(
        "SSLRequest",
        "Asks for TLS. Answered with a single byte, `S` or `N`, or by an old server with an ErrorResponse.",
        code=Constant(32, 80877103),
    ),
    startup(
        "GSSENCRequest",
        "Asks for GSSAPI encryption. Answered with a single byte, `G` or `N`, or with an ErrorResponse.",
        code=Constant(32, 80877104),
    ),
)

ANSWERS = {"SSLRequest": b"SN", "GSSENCRequest": b"GN"}
"""The single bytes, which are not messages, that answer a request for encryption (protocol-flow#PROTOCOL-FLOW-SSL)."""

PROOFS = (
    proof("PasswordMessage", Phase.PASSWORD, "The password, in clear or as the MD5 digest asked for.", password=text),
    proof(
        "SASLInitialResponse",
        Phase.SASL_INITIAL,
        "The SASL mechanism chosen and its first data, NULL if it has none.",
        mechanism=text,
        data=value,
    ),
    proof("SASLResponse", Phase.SASL, "What the SASL mechanism answers to a challenge.", data=token),
    proof("GSSResponse", Phase.GSS, "A token of GSSAPI or SSPI.", data=token),
)

REQUESTED_PHASE = {
    "AuthenticationCleartextPassword": Phase.PASSWORD,
    "AuthenticationMD5Password": Phase.PASSWORD,
    "AuthenticationSASL": Phase.SASL_INITIAL,
    "AuthenticationSASLContinue": Phase.SASL,
    "AuthenticationGSS": Phase.GSS,
    "AuthenticationGSSContinue": Phase.GSS,
    "AuthenticationSSPI": Phase.GSS,
    "AuthenticationOk": Phase.SESSION,
}
"""The phase of the frontend that an authentication request begins: what the next `p` means (protocol-flow)."""

FRONTEND_MESSAGES = (
    frontend(b"Q", "Query", "Runs one or more statements given as text (simple query).", query=text),
    frontend(
        b"P",
        "Parse",
        "Prepares a statement; the empty name is the unnamed one. A parameter type of 0 is left to the server.",
        statement=text,
        query=text,
        types=Array(oid, count),
    ),
    frontend(
        b"B",
        "Bind",
        "Makes a portal of a prepared statement and parameter values. No format code means text for all, one is for "
        "all of them.",
        portal=text,
        statement=text,
        formats=formats,
        values=Array(value, count),
        result_formats=formats,
    ),
    frontend(
        b"D",
        "Describe",
        "Asks what a statement (S) or portal (P) takes and yields.",
        most=SMALL_LENGTH,
        kind=Tag(b"SP"),
        target=text,
    ),
    frontend(
        b"E",
        "Execute",
        "Runs a portal, for at most `limit` rows if that is positive.",
        most=SMALL_LENGTH,
        portal=text,
        limit=i32,
    ),
    frontend(
        b"C",
        "Close",
        "Closes a statement (S) or portal (P), which need not exist.",
        most=SMALL_LENGTH,
        kind=Tag(b"SP"),
        target=text,
    ),
    frontend(b"S", "Sync", "Ends a series of extended messages; answered by one ReadyForQuery.", most=SMALL_LENGTH),
    frontend(b"H", "Flush", "Asks for the replies so far without ending the series.", most=SMALL_LENGTH),
    frontend(
        b"F",
        "FunctionCall",
        "Calls a function by its object identifier (obsolete).",
        function=oid,
        formats=formats,
        arguments=Array(value, count),
        result_format=format_code,
    ),
    frontend(b"d", "CopyData", "A piece of a COPY stream, cut anywhere.", data=anything),
    frontend(b"c", "CopyDone", "The COPY stream is complete.", most=SMALL_LENGTH),
    frontend(b"f", "CopyFail", "The COPY cannot go on, and why.", most=SMALL_LENGTH, reason=text),
    frontend(b"X", "Terminate", "The frontend is about to close the connection.", most=SMALL_LENGTH),
)

AUTHENTICATION_REQUESTS = (
    authentication(0, "Ok", "The client is who it says it is."),
    authentication(2, "KerberosV5", "Kerberos V5 is required; no longer supported by anybody."),
    authentication(3, "CleartextPassword", "The password in clear is required."),
    authentication(5, "MD5Password", "The password as an MD5 digest with this salt is required.", salt=Bytes(4)),
    authentication(7, "GSS", "GSSAPI is required."),
    authentication(8, "GSSContinue", "The next token of GSSAPI or SSPI.", data=challenge),
    authentication(9, "SSPI", "SSPI is required."),
    authentication(10, "SASL", "SASL is required; the mechanisms, best first.", mechanisms=Until0(Text(least=1))),
    authentication(11, "SASLContinue", "A challenge of the SASL mechanism.", data=challenge),
    authentication(12, "SASLFinal", "SASL is done; the mechanism's last data.", data=challenge),
)

BACKEND_MESSAGES = (
    *AUTHENTICATION_REQUESTS,
    backend(
        b"v",
        "NegotiateProtocolVersion",
        "The version wanted is too new or protocol options are unknown: the version to use, and those options. The "
        "manual says minor version; servers send the whole number, 196610 for 3.2.",
        most=REQUEST_LENGTH,
        version=i32,
        options=Array(text, Int(32, 0, 2**31 - 1)),
    ),
    backend(
        b"K", "BackendKeyData", "What a CancelRequest must name to reach this session.", process_id=i32, key=Rest(4, 4)
    ),
    backend(
        b"K",
        "BackendKeyData",
        "The same with the longer keys of 3.2; PostgreSQL 18 sends 32 bytes. Middleware should leave room in 256.",
        since=(3, 2),
        process_id=i32,
        key=Rest(LEAST_KEY, MOST_KEY),
    ),
    backend(b"S", "ParameterStatus", "A run-time parameter has this value now.", parameter=text, setting=text),
    backend(
        b"Z",
        "ReadyForQuery",
        "A new cycle may begin. `I` idle, `T` in a transaction, `E` in a failed one.",
        status=Tag(b"ITE"),
    ),
    backend(b"T", "RowDescription", "The columns of the rows to come.", columns=Array(column, count)),
    backend(b"D", "DataRow", "One row.", values=Array(value, count)),
    backend(b"C", "CommandComplete", "A command is done; its tag, such as `SELECT 1`.", tag=text),
    backend(b"I", "EmptyQueryResponse", "The query text was empty; stands for CommandComplete."),
    backend(
        b"E",
        "ErrorResponse",
        "Something failed. Fields in any order; unknown codes are to be ignored.",
        fields=Until0(error_field, least=1),
    ),
    backend(
        b"N",
        "NoticeResponse",
        "A warning or note, at any time. Fields as in ErrorResponse.",
        fields=Until0(error_field, least=1),
    ),
    backend(
        b"A",
        "NotificationResponse",
        "Somebody notified a channel this session listens to; at any time.",
        process_id=i32,
        channel=text,
        payload=text,
    ),
    backend(b"1", "ParseComplete", "Parse is done."),
    backend(b"2", "BindComplete", "Bind is done."),
    backend(b"3", "CloseComplete", "Close is done."),
    backend(b"n", "NoData", "What was described yields no rows."),
    backend(b"s", "PortalSuspended", "Execute reached its limit of rows; there may be more."),
    backend(b"t", "ParameterDescription", "The parameter types of a statement.", types=Array(oid, count)),
    backend(
        b"G",
        "CopyInResponse",
        "COPY FROM STDIN begins: the frontend is to send.",
        format=copy_format,
        column_formats=formats,
    ),
    backend(
        b"H",
        "CopyOutResponse",
        "COPY TO STDOUT begins: the backend will send.",
        format=copy_format,
        column_formats=formats,
    ),
    backend(
        b"W",
        "CopyBothResponse",
        "A stream both ways begins; in replication only.",
        format=copy_format,
        column_formats=formats,
    ),
    backend(b"d", "CopyData", "A piece of a COPY stream; from PostgreSQL always one row.", data=anything),
    backend(b"c", "CopyDone", "The COPY stream is complete."),
    backend(b"V", "FunctionCallResponse", "What the function returned.", result=value),
)

MESSAGES = (*STARTUP_PACKETS, *PROOFS, *FRONTEND_MESSAGES, *BACKEND_MESSAGES)
"""Every form of every message."""


def in_force(version: Version) -> tuple[Message, ...]:
    """Return the messages of one protocol version, one form of each."""
    oldest_first = sorted(MESSAGES, key=lambda message: message.since)
    newest = {(message.sender, message.name): message for message in oldest_first if message.since <= version}
    return tuple(newest.values())
