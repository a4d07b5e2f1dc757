"""Whether a client names application protocols when it begins TLS (RFC 8446 section 4.1.2, RFC 7301).

PostgreSQL refuses a client that names others only.  Python takes it for one that names none, so this is read here.
"""

from __future__ import annotations

HANDSHAKE = 22  # ContentType of a record
CLIENT_HELLO = 1  # HandshakeType
ALPN = 16  # ExtensionType application_layer_protocol_negotiation
RECORD_HEADER = 5  # type, version, length of two bytes
VERSION_AND_RANDOM = 2 + 32
LENGTHS_BEFORE_EXTENSIONS = (1, 2, 1)  # of session id, cipher suites, compression methods: bytes of their length words
LONGEST = 1 << 14
"""Bytes of a beginning that are looked at; a usual one has a few hundred."""


class _CutOff(Exception):
    """There is less than there must be."""


def names_protocols(beginning: bytes) -> bool:
    """Say whether a client that has sent this first names application protocols; doubt counts as yes."""
    try:
        hello = _message(beginning)
        _, rest = _split(hello, VERSION_AND_RANDOM)
        for size in LENGTHS_BEFORE_EXTENSIONS:
            _, rest = _vector(rest, size)
        extensions = _vector(rest, 2)[0] if rest else b""
        while extensions:
            kind, extensions = _split(extensions, 2)
            if int.from_bytes(kind) == ALPN:
                return True
            _, extensions = _vector(extensions, 2)
    except _CutOff:
        return True
    return False


def _message(records: bytes) -> bytes:
    """Put the body of the ClientHello together, which may be spread over several records."""
    message = b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        header, records = _split(records, RECORD_HEADER - 2)
        fragment, records = _vector(records, 2)
        if header[0] != HANDSHAKE:
            raise _CutOff
        message += fragment
    if message[0] != CLIENT_HELLO:
        raise _CutOff
    return message[4 : 4 + int.from_bytes(message[1:4])]


def _split(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise _CutOff
    return data[:size], data[size:]


def _vector(data: bytes, size: int) -> tuple[bytes, bytes]:
    """Split off a vector whose length stands before it in `size` bytes."""
    length, rest = _split(data, size)
    return _split(rest, int.from_bytes(length))
