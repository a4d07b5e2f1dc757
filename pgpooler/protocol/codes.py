"""Numbers and letters of the wire protocol, by their names in the manual (protocol-message-formats)."""

from __future__ import annotations

# -- message types sent by a frontend --
BIND = ord("B")
CLOSE = ord("C")
COPY_DATA = ord("d")
COPY_DONE = ord("c")
COPY_FAIL = ord("f")
DESCRIBE = ord("D")
EXECUTE = ord("E")
FLUSH = ord("H")
FUNCTION_CALL = ord("F")
PARSE = ord("P")
PASSWORD = ord("p")  # PasswordMessage, SASLInitialResponse, SASLResponse: the last request decides
QUERY = ord("Q")
SYNC = ord("S")
TERMINATE = ord("X")

# -- message types sent by a backend --
AUTHENTICATION = ord("R")
BACKEND_KEY_DATA = ord("K")
BIND_COMPLETE = ord("2")
CLOSE_COMPLETE = ord("3")
COMMAND_COMPLETE = ord("C")
COPY_BOTH_RESPONSE = ord("W")
COPY_IN_RESPONSE = ord("G")
COPY_OUT_RESPONSE = ord("H")
DATA_ROW = ord("D")
EMPTY_QUERY_RESPONSE = ord("I")
ERROR_RESPONSE = ord("E")
FUNCTION_CALL_RESPONSE = ord("V")
NEGOTIATE_PROTOCOL_VERSION = ord("v")
NO_DATA = ord("n")
NOTICE_RESPONSE = ord("N")
NOTIFICATION_RESPONSE = ord("A")
PARAMETER_DESCRIPTION = ord("t")
PARAMETER_STATUS = ord("S")
PARSE_COMPLETE = ord("1")
PORTAL_SUSPENDED = ord("s")
READY_FOR_QUERY = ord("Z")
ROW_DESCRIPTION = ord("T")

FRONTEND_TYPES = bytes(
    (
        BIND,
        CLOSE,
        COPY_DATA,
        COPY_DONE,
        COPY_FAIL,
        DESCRIBE,
        EXECUTE,
        FLUSH,
        FUNCTION_CALL,
        PARSE,
        QUERY,
        SYNC,
        TERMINATE,
    )
)
BACKEND_TYPES = bytes(
    (
        BACKEND_KEY_DATA,
        BIND_COMPLETE,
        CLOSE_COMPLETE,
        COMMAND_COMPLETE,
        COPY_BOTH_RESPONSE,
        COPY_DATA,
        COPY_DONE,
        COPY_IN_RESPONSE,
        COPY_OUT_RESPONSE,
        DATA_ROW,
        EMPTY_QUERY_RESPONSE,
        ERROR_RESPONSE,
        FUNCTION_CALL_RESPONSE,
        NO_DATA,
        NOTICE_RESPONSE,
        NOTIFICATION_RESPONSE,
        PARAMETER_DESCRIPTION,
        PARAMETER_STATUS,
        PARSE_COMPLETE,
        PORTAL_SUSPENDED,
        READY_FOR_QUERY,
        ROW_DESCRIPTION,
    )
)

# -- transaction status, in ReadyForQuery --
IDLE = ord("I")
IN_TRANSACTION = ord("T")
FAILED = ord("E")

# -- authentication requests (AuthenticationXXX) --
AUTHENTICATION_OK = 0
AUTHENTICATION_KERBEROS_V5 = 2
AUTHENTICATION_CLEARTEXT_PASSWORD = 3
AUTHENTICATION_MD5_PASSWORD = 5
AUTHENTICATION_GSS = 7
AUTHENTICATION_GSS_CONTINUE = 8
AUTHENTICATION_SSPI = 9
AUTHENTICATION_SASL = 10
AUTHENTICATION_SASL_CONTINUE = 11
AUTHENTICATION_SASL_FINAL = 12

# -- first words of an untyped startup packet --
PROTOCOL_3_0 = 0x00030000
PROTOCOL_3_2 = 0x00030002
CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104

# -- lengths, in bytes, counted as the length word counts (itself included, the type byte not) --
HEADER = 5
STARTUP_LIMIT = 10_004  # MAX_STARTUP_PACKET_LENGTH, which does not count the length word
AUTHENTICATION_LIMIT = 65_535  # PG_MAX_AUTH_TOKEN_LENGTH
SMALL_MESSAGE_LIMIT = 10_000  # PQ_SMALL_MESSAGE_LIMIT
LARGE_MESSAGE_LIMIT = 0x3FFFFFFE  # PQ_LARGE_MESSAGE_LIMIT: MaxAllocSize - 1

# The word that stands in a cancel key is four bytes in protocol 3.0 and up to 256 from 3.2 on.
CANCEL_KEY_3_0 = 4
CANCEL_KEY_LIMIT = 256
