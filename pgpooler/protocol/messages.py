"""The messages a pooler itself reads or writes (protocol-message-formats).

Texts are decoded as UTF-8 with surrogateescape: whatever bytes a peer sent come back unchanged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from struct import Struct

from pgpooler.errors import PeerError, ProtocolViolation
from pgpooler.protocol import codes

INT16 = Struct("!h")
INT32 = Struct("!i")
UINT32 = Struct("!I")
TWO_INT32 = Struct("!ii")
SQLSTATE = re.compile("[0-9A-Z]{5}")


def decode_text(raw: bytes) -> str:
    """Decode bytes of the wire so that `encode_text` gives the same bytes again."""
    return raw.decode("utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """Encode text for the wire.  Raises ProtocolViolation for a zero character, which would end it early."""
    return _without_zero(text.encode("utf-8", "surrogateescape"))


def _without_zero(raw: bytes) -> bytes:
    if b"\0" in raw:
        raise ProtocolViolation("a zero byte cannot be part of a text on the wire")
    return raw


def message(kind: int, body: bytes) -> bytes:
    """Frame a body: type byte, Int32 length that counts itself, body."""
    return bytes((kind,)) + UINT32.pack(len(body) + 4) + body


def header(kind: int, length: int) -> bytes:
    """Make what stands in front of a body of this length: type byte, Int32 length that counts itself."""
    return bytes((kind,)) + UINT32.pack(length + 4)


def packet(body: bytes) -> bytes:
    """Frame a startup packet: Int32 length that counts itself, body, no type byte."""
    return UINT32.pack(len(body) + 4) + body


# -- written towards a client ------------------------------------------------------------------------------------------


def authentication(request: int, payload: bytes = b"") -> bytes:
    """AuthenticationXXX: the request's number, then what belongs to it (salt, mechanism names, SASL data)."""
    return message(codes.AUTHENTICATION, UINT32.pack(request) + payload)


def sasl_mechanisms(names: Sequence[str]) -> bytes:
    """Payload of AuthenticationSASL: names, each ended by a zero, and a final zero."""
    return b"".join(encode_text(name) + b"\0" for name in names) + b"\0"


def backend_key_data(process_id: int, cancel_key: bytes) -> bytes:
    """BackendKeyData: four bytes of key in protocol 3.0, up to 256 from 3.2 on."""
    return message(codes.BACKEND_KEY_DATA, UINT32.pack(process_id) + cancel_key)


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus: a parameter's name and its value now."""
    return message(codes.PARAMETER_STATUS, encode_text(name) + b"\0" + encode_text(value) + b"\0")


def ready_for_query(status: int) -> bytes:
    """ReadyForQuery with a transaction status (I, T or E)."""
    return message(codes.READY_FOR_QUERY, bytes((status,)))


def negotiate_protocol_version(version: int, options: Sequence[str]) -> bytes:
    """NegotiateProtocolVersion: the newest version supported, and the `_pq_.` options not recognised."""
    names = b"".join(encode_text(option) + b"\0" for option in options)
    return message(codes.NEGOTIATE_PROTOCOL_VERSION, UINT32.pack(version) + UINT32.pack(len(options)) + names)


def error_response(error: PeerError) -> bytes:
    """ErrorResponse with severity (twice: S may be translated, V never is), SQLSTATE, message, detail and hint."""
    return message(codes.ERROR_RESPONSE, _fields(error))


def notice_response(error: PeerError) -> bytes:
    """NoticeResponse with the same fields as an error; `severity` is WARNING, NOTICE, ..."""
    return message(codes.NOTICE_RESPONSE, _fields(error))


def _fields(error: PeerError) -> bytes:
    fields = [("S", error.severity), ("V", error.severity), ("C", error.sqlstate), ("M", error.message)]
    if error.detail:
        fields.append(("D", error.detail))
    if error.hint:
        fields.append(("H", error.hint))
    return b"".join(code.encode() + _harmless(value) + b"\0" for code, value in fields) + b"\0"


def _harmless(text: str) -> bytes:
    """Encode any text at all: to report an error must not fail."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "replace")
    return raw.replace(b"\0", b"")


# -- written towards a server ------------------------------------------------------------------------------------------

SSL_REQUEST = packet(UINT32.pack(codes.SSL_REQUEST))
SYNC = message(codes.SYNC, b"")
TERMINATE = message(codes.TERMINATE, b"")


def startup_message(version: int, parameters: Mapping[str, str]) -> bytes:
    """StartupMessage: protocol version, then names and values, then a final zero."""
    pairs = b"".join(encode_text(name) + b"\0" + encode_text(value) + b"\0" for name, value in parameters.items())
    return packet(UINT32.pack(version) + pairs + b"\0")


def cancel_request(process_id: int, cancel_key: bytes) -> bytes:
    """CancelRequest for the session with this process id and key."""
    return packet(UINT32.pack(codes.CANCEL_REQUEST) + UINT32.pack(process_id) + cancel_key)


def password_message(secret: bytes) -> bytes:
    """PasswordMessage: cleartext or MD5 answer, ended by a zero.  Raises ProtocolViolation for a zero inside."""
    return message(codes.PASSWORD, _without_zero(secret) + b"\0")


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """SASLInitialResponse: the chosen mechanism and its first data."""
    return message(codes.PASSWORD, encode_text(mechanism) + b"\0" + INT32.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    """SASLResponse: further data of the mechanism."""
    return message(codes.PASSWORD, data)


def query(text: str) -> bytes:
    """Query: a simple query."""
    return message(codes.QUERY, encode_text(text) + b"\0")


# -- read from a client ------------------------------------------------------------------------------------------------


def read_password(body: bytes) -> bytes:
    """PasswordMessage -> the password without its final zero.  Raises ProtocolViolation for a missing or early zero."""
    if not body.endswith(b"\0") or b"\0" in body[:-1]:
        raise ProtocolViolation("invalid password packet size")
    return body[:-1]


def read_sasl_initial_response(body: bytes) -> tuple[str, bytes | None]:
    """SASLInitialResponse -> mechanism and data (None: sent without any).  Raises ProtocolViolation when malformed."""
    name, zero, rest = body.partition(b"\0")
    if not zero or len(rest) < 4:
        raise ProtocolViolation("malformed SASLInitialResponse message")
    (size,) = INT32.unpack_from(rest)
    data = rest[4:]
    if size == -1 and not data:
        return decode_text(name), None
    if size != len(data):
        raise ProtocolViolation("malformed SASLInitialResponse message", detail=f"It announces {size} bytes of data.")
    return decode_text(name), data


# -- read from a server ------------------------------------------------------------------------------------------------


def read_authentication(body: bytes) -> tuple[int, bytes]:
    """AuthenticationXXX -> the request's number and its payload.  Raises ProtocolViolation below 4 bytes."""
    if len(body) < 4:
        raise ProtocolViolation("malformed authentication request")
    return UINT32.unpack_from(body)[0], body[4:]


def read_sasl_mechanisms(payload: bytes) -> list[str]:
    """Payload of AuthenticationSASL -> mechanism names."""
    return [decode_text(name) for name in payload.split(b"\0") if name]


def read_backend_key_data(body: bytes) -> tuple[int, bytes]:
    """BackendKeyData -> process id and cancel key.  Raises ProtocolViolation when the key is not 4..256 bytes."""
    if not 8 <= len(body) <= 4 + codes.CANCEL_KEY_LIMIT:
        raise ProtocolViolation("malformed BackendKeyData message")
    return UINT32.unpack_from(body)[0], body[4:]


def read_negotiate_protocol_version(body: bytes) -> tuple[int, list[str]]:
    """NegotiateProtocolVersion -> the newest version the server knows, and the options it does not know.

    Raises ProtocolViolation when malformed.
    """
    names = body[8:].split(b"\0")
    if len(body) < 8 or names.pop() or UINT32.unpack_from(body, 4)[0] != len(names):
        raise ProtocolViolation("malformed NegotiateProtocolVersion message")
    return UINT32.unpack_from(body)[0], [decode_text(name) for name in names]


def read_parameter_status(body: bytes) -> tuple[str, str]:
    """ParameterStatus -> name and value.  Raises ProtocolViolation unless there are exactly two texts."""
    parts = body.split(b"\0")
    if len(parts) != 3 or parts[2]:
        raise ProtocolViolation("malformed ParameterStatus message")
    return decode_text(parts[0]), decode_text(parts[1])


def read_ready_for_query(body: bytes) -> int:
    """ReadyForQuery -> transaction status.  Raises ProtocolViolation unless it is I, T or E."""
    if len(body) != 1 or body[0] not in b"ITE":
        raise ProtocolViolation("malformed ReadyForQuery message")
    return body[0]


def read_data_row(body: bytes) -> list[bytes | None]:
    """DataRow -> its values, None for null.  Raises ProtocolViolation when malformed."""
    values: list[bytes | None] = []
    position = INT16.size
    try:
        (count,) = INT16.unpack_from(body)
        least = count
        for _ in range(count):
            (size,) = INT32.unpack_from(body, position)
            position += INT32.size
            values.append(None if size == -1 else body[position : position + size])
            position += max(size, 0)
            least = min(least, size + 1)
    except struct.error:
        least = -1
    if least < 0 or position != len(body):
        raise ProtocolViolation("malformed DataRow message")
    return values


def read_error(body: bytes) -> PeerError:
    """ErrorResponse or NoticeResponse -> the error.  Any field may be missing: a hostile server must not crash us."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(body) and body[position]:
        stop = body.find(b"\0", position + 1)
        if stop < 0:
            stop = len(body)
        fields[chr(body[position])] = decode_text(body[position + 1 : stop])
        position = stop + 1
    return PeerError(
        fields.get("M", "the server sent an error without a message"),
        sqlstate=code if SQLSTATE.fullmatch(code := fields.get("C", "")) else "XX000",
        severity=fields.get("V") or fields.get("S") or "ERROR",
        detail=fields.get("D"),
        hint=fields.get("H"),
    )
