"""Which messages the sessions look at, and what a header alone says: tables for both directions (protocol-flow)."""

from __future__ import annotations

from pgpooler.errors import ProtocolViolation
from pgpooler.pooling.owed import EXTENDED
from pgpooler.protocol import codes
from pgpooler.protocol.framer import EMPTY, Framer, watching

EVERYTHING = bytes([1]) * 256

# -- from clients ------------------------------------------------------------------------------------------------------

# CopyData is the one type that needs no look; everything else is a request whose reply is owed, or an error.
REQUESTS = watching(bytes(set(codes.FRONTEND_TYPES) - {codes.COPY_DATA}), unknown=codes.FRONTEND_TYPES)
VOID = (codes.COPY_DONE, codes.COPY_FAIL, codes.FLUSH)  # mean nothing to a server that owes nothing
AWAITED = (codes.QUERY, codes.PARSE, codes.BIND)  # may have to be here whole before something can be done about them
ENDS = (codes.QUERY, codes.FUNCTION_CALL, codes.SYNC)  # a ReadyForQuery answers them
SMALL = (*VOID, codes.CLOSE, codes.DESCRIBE, codes.EXECUTE, codes.SYNC, codes.TERMINATE)

# -- from servers ------------------------------------------------------------------------------------------------------

NOTED = (
    codes.READY_FOR_QUERY,
    codes.ERROR_RESPONSE,
    codes.PARAMETER_STATUS,
    codes.COPY_IN_RESPONSE,
    codes.COPY_BOTH_RESPONSE,
)
"""What a server session itself must know of."""
PREPARED = (
    codes.PARSE_COMPLETE,
    codes.CLOSE_COMPLETE,
    codes.PARAMETER_DESCRIPTION,
    codes.ROW_DESCRIPTION,
    codes.NO_DATA,
)
"""Replies to Parse, Close and Describe."""
REPLIES = watching(bytes(NOTED), unknown=codes.BACKEND_TYPES)
REPLIES_AND_TAGS = watching(bytes((*NOTED, codes.COMMAND_COMPLETE)), unknown=codes.BACKEND_TYPES)
PREPARING = watching(bytes((*NOTED, codes.COMMAND_COMPLETE, *PREPARED)), unknown=codes.BACKEND_TYPES)
PREPARING_QUIETLY = watching(
    bytes((*NOTED, codes.COMMAND_COMPLETE, codes.NOTICE_RESPONSE, *PREPARED)), unknown=codes.BACKEND_TYPES
)
_NOTED_IN_A_LEASE = (*NOTED, codes.NOTIFICATION_RESPONSE)  # while a statement of ours runs: that is the client's
REPLIES_AND_NOTIFICATIONS = watching(bytes(_NOTED_IN_A_LEASE), unknown=codes.BACKEND_TYPES)
REPLIES_AND_SHAPES = watching(bytes((*_NOTED_IN_A_LEASE, codes.ROW_DESCRIPTION)), unknown=codes.BACKEND_TYPES)
REPLIES_AND_ROWS = watching(bytes((*_NOTED_IN_A_LEASE, codes.DATA_ROW)), unknown=codes.BACKEND_TYPES)
REPLIES_OUT_OF_TURN = watching(
    bytes(set(codes.BACKEND_TYPES) - {codes.NOTICE_RESPONSE, codes.NOTIFICATION_RESPONSE}), unknown=codes.BACKEND_TYPES
)
ASYNCHRONOUS = (codes.PARAMETER_STATUS, codes.ERROR_RESPONSE)  # of those, what a server may say when it owes nothing
TAKEN_LIMIT = 1 << 20  # bytes of a reply we must see whole; a server that needs more is not PostgreSQL
SEVERITY_WITHIN = 64  # bytes of an ErrorResponse in which the untranslated severity stands
LAST_SEVERITIES = (b"\0VFATAL\0", b"\0VPANIC\0")


def check_request(kind: int, length: int) -> None:
    """Refuse what PostgreSQL refuses by its header alone; `length` counts the whole message.

    Raises ProtocolViolation.
    """
    if kind not in codes.FRONTEND_TYPES:
        raise ProtocolViolation(f"invalid frontend message type {kind}")
    if kind in SMALL and length - 1 > codes.SMALL_MESSAGE_LIMIT:
        raise ProtocolViolation("invalid message length")


def is_last_error(start_of_body: bytes) -> bool:
    """Say whether an ErrorResponse is one after which the server closes the connection."""
    return any(severity in start_of_body[:SEVERITY_WITHIN] for severity in LAST_SEVERITIES)


def drop_request(framer: Framer) -> bool:
    """Drop the first request that was kept, up to what a ReadyForQuery answers; False when it is not here whole.

    In a batch that fails everything is skipped up to the Sync, also a Query.
    """
    framer.feed(EMPTY, 0, 0)
    kind = 0
    ends: tuple[int, ...] = ENDS
    while kind not in ends:
        kind = framer.run(REQUESTS)
        here = framer.position + framer.length <= framer.end
        if not kind or not here or kind == codes.TERMINATE or kind not in codes.FRONTEND_TYPES:
            framer.position = framer.mark
            framer.passing = 0
            return False
        framer.pass_on()
        if kind in EXTENDED:
            ends = (codes.SYNC,)
    framer.passed()
    framer.keep()
    return True
