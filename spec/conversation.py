"""NORMATIVE: which messages may follow which, in the start of a session and in normal operation.

A conversation is an expression (`grammar`) over message names.  Two things are stated that way: STARTUP, in which the
two sides take turns, and REPLY, what each request of normal operation is answered with.  Requests may be sent without
waiting for replies, so the whole of normal operation is no expression: it is a queue of requests, answered in their
order, and a few rules about that queue, which RULES states in words and `session` carries out.

Places in the manual are given as in `messages`: page#ANCHOR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spec.grammar import Done, Expression, either, many, optional, seq

# --- the start of a session: both sides take turns

ENCRYPTION = either(
    optional("SSLRequest", optional("GSSENCRequest")),
    seq("GSSENCRequest", optional("SSLRequest")),
)
"""Each request for encryption at most once, in either order.  The single bytes that answer are no messages."""

AUTHENTICATION = either(
    Done(),
    seq(either("AuthenticationCleartextPassword", "AuthenticationMD5Password"), "PasswordMessage"),
    seq(
        "AuthenticationSASL",
        "SASLInitialResponse",
        many("AuthenticationSASLContinue", "SASLResponse"),
        optional("AuthenticationSASLFinal"),
    ),
    seq(
        either("AuthenticationGSS", "AuthenticationSSPI"),
        "GSSResponse",
        many("AuthenticationGSSContinue", "GSSResponse"),
        optional("AuthenticationGSSContinue"),
    ),
    "AuthenticationKerberosV5",
)
"""What may come before AuthenticationOk: every answer is the one its request asks for."""

STARTUP = seq(
    ENCRYPTION,
    either(
        "CancelRequest",
        seq("StartupMessage", AUTHENTICATION, "AuthenticationOk", optional("BackendKeyData"), "ReadyForQuery"),
    ),
)
"""A connection up to the first ReadyForQuery, both sides; asynchronous messages and NegotiateProtocolVersion apart."""

# --- normal operation: what a request is answered with

COPY_IN = seq("CopyInResponse")
COPY_OUT = seq("CopyOutResponse", many("CopyData"), "CopyDone")
COPY_BOTH = seq("CopyBothResponse", many("CopyData"), "CopyDone")
COPY = either(COPY_IN, COPY_OUT)
ROWS = seq("RowDescription", many("DataRow"))
STATEMENT = seq(either(many(ROWS), COPY), "CommandComplete")
"""One statement of a Query: usually one set of rows or none; rewrite rules may add some (CREATE RULE ... DO ALSO)."""
STREAMED = seq(either(seq(either(COPY_BOTH, many(COPY_OUT)), many(ROWS)), COPY_IN), "CommandComplete")
"""A part of the reply to a replication command: a stream, or files one after the other, and a set of rows behind."""
SHAPE = either("RowDescription", "NoData")

REPLY: Mapping[str, Expression] = {
    "Query": seq(either("EmptyQueryResponse", seq(STATEMENT, many(STATEMENT))), "ReadyForQuery"),
    "Parse": seq("ParseComplete"),
    "Bind": seq("BindComplete"),
    "DescribeStatement": seq("ParameterDescription", SHAPE),
    "DescribePortal": SHAPE,
    "Execute": either(
        seq(many("DataRow"), "CommandComplete"),
        seq("DataRow", many("DataRow"), "PortalSuspended"),
        "EmptyQueryResponse",
        seq(COPY, "CommandComplete"),
    ),
    "Close": seq("CloseComplete"),
    "Sync": seq("ReadyForQuery"),
    "FunctionCall": seq("FunctionCallResponse", "ReadyForQuery"),
    "ReplicationCommand": seq(either("EmptyQueryResponse", seq(STREAMED, many(STREAMED))), "ReadyForQuery"),
    "Flush": Done(),
    "CopyData": Done(),
    "CopyDone": Done(),
    "CopyFail": Done(),
    "Terminate": Done(),
}
"""What each request is answered with if nothing fails.

Describe is two requests, of a statement and of a portal; ReplicationCommand is what a Query is where StartupMessage
asked for replication.  The copy messages have no reply of their own: they belong to the request that began the COPY,
and where none is under way they mean nothing.
"""

ASYNCHRONOUS = frozenset({"NoticeResponse", "ParameterStatus", "NotificationResponse"})
"""Messages of the backend that nobody asked for: legal at any place once authentication is over."""

ALWAYS = frozenset({"NoticeResponse"})
"""Those of them that are legal before that, too."""

ENDS_A_CYCLE = frozenset({"Query", "ReplicationCommand", "Sync", "FunctionCall"})
"""The requests that are answered with a ReadyForQuery whatever happens."""

SKIPPED_AFTER_ERROR = frozenset(REPLY) - {"Sync", "Terminate"}
"""The requests that are void between an error in an extended message and the next Sync."""

IGNORED_IN_COPY = frozenset({"CopyData", "Flush", "Sync"})
"""The requests that do not end a COPY from the frontend; CopyDone ends it well, anything else makes it fail."""

# --- the rules in words


@dataclass(frozen=True)
class Rule:
    """Something a conversation must keep to: its name, its place in the manual, and what it says."""

    name: str
    anchor: str
    text: str


FLOW = "protocol-flow#PROTOCOL-FLOW-"
START_UP, SIMPLE, EXTENDED = FLOW + "START-UP", FLOW + "SIMPLE-QUERY", FLOW + "EXT-QUERY"
COPYING = "protocol-flow#PROTOCOL-COPY"
FORMATS = "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-"

RULES = (
    Rule(
        "asynchronous",
        "protocol-flow#PROTOCOL-ASYNC",
        "NoticeResponse, ParameterStatus and NotificationResponse may stand anywhere after AuthenticationOk, also in "
        "the middle of rows and of a COPY, and answer nothing. NoticeResponse may stand before it, too.",
    ),
    Rule(
        "reply-in-order",
        FLOW + "PIPELINING",
        "Requests need not wait for replies; replies come in the order of their requests, whole, and none of them "
        "without its request.",
    ),
    Rule(
        "error-skips-to-sync",
        EXTENDED,
        "After an ErrorResponse to Parse, Bind, Describe, Execute or Close every request up to the next Sync is void, "
        "whatever it is. An ErrorResponse ends what it answers and stands only where a reply is due.",
    ),
    Rule(
        "one-ready-for-query",
        EXTENDED,
        "Every Query, FunctionCall and Sync is answered with exactly one ReadyForQuery, also after an error; an error "
        "while processing Sync itself skips nothing.",
    ),
    Rule(
        "fatal-ends",
        FLOW + "TERMINATION",
        "An ErrorResponse of severity FATAL or PANIC may stand anywhere, also unasked for, and during start-up any "
        "ErrorResponse is of that kind. It is the last message of the backend, which closes the connection.",
    ),
    Rule(
        "closing-needs-a-reason",
        FLOW + "TERMINATION",
        "The backend closes the connection after Terminate, and after it has answered everything before that but a "
        "COPY from the frontend under way and a series without its Sync, whose replies nobody asked for yet; after a "
        "CancelRequest; when the frontend has closed it; and otherwise not without an error or a notice that says why.",
    ),
    Rule("terminate-ends", FLOW + "TERMINATION", "Terminate is the last message of the frontend."),
    Rule(
        "copy-in",
        COPYING,
        "After CopyInResponse the backend waits for CopyDone or CopyFail and ignores Flush and Sync; any other request "
        "makes the COPY fail. Copy messages where no COPY from the frontend is under way are legal and void. KNOWN "
        "AMBIGUITY: how many of the Syncs sent into a COPY that fails are still answered depends on when the backend "
        "noticed; all possibilities are kept until a reply tells them apart.",
    ),
    Rule(
        "copy-out",
        COPYING,
        "CopyOutResponse, CopyData and CopyDone stand together, with nothing but asynchronous messages and errors "
        "between them, and CommandComplete follows.",
    ),
    Rule(
        "copy-both",
        COPYING,
        "CopyBothResponse answers a replication command only. Either side sends CopyData until its own CopyDone; the "
        "command goes on when both have sent it.",
    ),
    Rule(
        "startup",
        START_UP,
        "The sides take turns up to the first ReadyForQuery: StartupMessage, authentication requests and their "
        "answers, AuthenticationOk, then ParameterStatus and at most one BackendKeyData; the frontend waits.",
    ),
    Rule(
        "encryption-request",
        FLOW + "SSL",
        "SSLRequest and GSSENCRequest come before StartupMessage, each at most once. Neither side sends anything "
        "between the request, its answer of one byte and the handshake that follows S or G.",
    ),
    Rule(
        "cancel-request",
        FLOW + "CANCELING-REQUESTS",
        "CancelRequest comes instead of StartupMessage, is the only request of its connection and has no reply.",
    ),
    Rule(
        "negotiate-once",
        START_UP,
        "NegotiateProtocolVersion comes once if a newer minor version or protocol options (_pq_.) were asked for that "
        "the backend does not know, otherwise never; before the first ReadyForQuery; it names no newer version than "
        "was asked for and no other options.",
    ),
    Rule(
        "cancel-key",
        FORMATS + "BACKENDKEYDATA",
        "A cancel key has 4 bytes in protocol 3.0 and 4 to 256 in 3.2; middleware should not use up all of them.",
    ),
    Rule(
        "password-meaning",
        "protocol-message-formats",
        "The type p means PasswordMessage, SASLInitialResponse, SASLResponse or GSSResponse, as the last "
        "authentication request asks, and nothing where none is open.",
    ),
    Rule(
        "well-formed",
        "protocol-overview#PROTOCOL-MESSAGE-CONCEPTS",
        "Every message has a known type and the fields of its format. Its length word is signed, counts itself, is at "
        "least 4 and below 1 GiB; startup packets have at most 10,000 bytes; counts of 16 bits have no sign.",
    ),
    Rule(
        "execute-never-describes",
        EXTENDED,
        "Execute yields neither RowDescription nor ReadyForQuery and ends with exactly one of CommandComplete, "
        "PortalSuspended, EmptyQueryResponse and ErrorResponse.",
    ),
    Rule(
        "simple-query-is-plain",
        EXTENDED,
        "Query yields no ParseComplete, BindComplete, CloseComplete, NoData, ParameterDescription or PortalSuspended.",
    ),
    Rule("empty-query-alone", SIMPLE, "EmptyQueryResponse stands instead of everything else a query yields."),
    Rule(
        "row-width",
        FORMATS + "DATAROW",
        "A DataRow has as many values as the RowDescription in force has columns (for Execute: that of the portal or "
        "its statement), and all rows of one set have the same number. Where NoData was said there are no rows.",
    ),
    Rule(
        "statement-count",
        FLOW + "MULTI-STATEMENT",
        "A Query yields one CommandComplete for each statement of its text, or an error instead of one of them and of "
        "all behind it.",
    ),
    Rule(
        "row-sets",
        SIMPLE,
        "A statement yields at most one set of rows, unless rewrite rules added some to an INSERT, UPDATE, DELETE or "
        "MERGE.",
    ),
    Rule(
        "row-limit",
        EXTENDED,
        "Execute yields no more rows than its limit allows, and PortalSuspended that it yielded exactly that many.",
    ),
    Rule(
        "tag-count",
        FORMATS + "COMMANDCOMPLETE",
        "The number in a tag is that of the rows sent: by this Execute for SELECT, FETCH and what has RETURNING; by "
        "COPY TO STDOUT one CopyData each, and one more for a header or for the end of the binary format.",
    ),
    Rule(
        "transaction-status",
        FORMATS + "READYFORQUERY",
        "ReadyForQuery says I outside a transaction block, T inside and E inside a failed one, as the tags BEGIN, "
        "START TRANSACTION, COMMIT, PREPARE TRANSACTION and ROLLBACK, which only the commands for that have, and the "
        "errors since the last one make it. Behind "
        "a Query or FunctionCall that comes in place of a Sync it may be T too, for the transaction of the series.",
    ),
    Rule(
        "parameter-count",
        FORMATS + "BIND",
        "Bind succeeds only with as many values as ParameterDescription named parameters, and with no, one or as many "
        "format codes as there are values.",
    ),
    Rule(
        "copy-columns",
        FORMATS + "COPYOUTRESPONSE",
        "In a textual COPY all columns have format 0, and in a binary one every row has as many fields as columns were "
        "announced.",
    ),
)

RULE: Mapping[str, Rule] = {rule.name: rule for rule in RULES}
"""The rules by name."""
