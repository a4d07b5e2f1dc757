"""NORMATIVE: the rules that `pooling` judges a pooler by, and the kinds of messages that it may say by itself."""

from __future__ import annotations

from spec.conversation import REPLY, Rule

CONFORMANCE = Rule("conformance", "protocol-flow", "On each of its connections a pooler is a legal peer.")
ISOLATION = Rule(
    "isolation",
    "protocol-flow-pipelining",
    "What a server says between checkout and checkin goes to the client that holds it, and to nobody else.",
)
TRANSPARENCY = Rule(
    "transparency",
    "protocol-flow-pipelining",
    "A client gets every reply to what it asked, unchanged and in order, and none to what the pooler asked for itself; "
    "the server gets what the client asked, unchanged but for the names of statements. A transaction that the pooler "
    "ends by a ROLLBACK of its own the client is told of by an error, and by the status that the server then has.",
)
STATEMENTS = Rule(
    "statements",
    "protocol-flow-ext-query",
    "Bind and Describe use, on the server, a statement with the text and the types that this client has prepared under "
    "the name it gave.",
)
RELEASE = Rule(
    "release",
    "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY",
    "A server connection is leased only while it is idle: status I, nothing owed, nothing half said, no COPY.",
)
EXCLUSION = Rule("exclusion", "protocol-flow", "One client at a time holds a server connection, and it holds one.")
FIDELITY = Rule(
    "fidelity",
    "protocol-async",
    "At the first request of a lease the client was told the reported parameters of the server, and what the server "
    "reports from then on at the next ReadyForQuery at the latest; it is told none that the server has not reported.",
)
CANCEL = Rule(
    "cancel",
    "protocol-flow-canceling-requests",
    "A cancel request reaches only the server connection that the client of its key holds at that moment.",
)
RULES = (CONFORMANCE, ISOLATION, TRANSPARENCY, STATEMENTS, RELEASE, EXCLUSION, FIDELITY, CANCEL)

FORWARDED = frozenset(REPLY) - {"DescribeStatement", "DescribePortal", "Terminate"} | {"Describe"}
"""The requests of a client that a server is to get."""
INJECTED = frozenset(("Query", "Parse", "Describe", "Close", "Flush", "Sync", "Terminate"))
"""What a pooler may say to a server of its own accord.  It copies nothing that no client asked, and it binds and
executes only what is its own: a statement that it has prepared and no client has."""
VOID = frozenset(("CopyData", "CopyDone", "CopyFail", "Flush"))
"""The requests that a server need not get, because they mean nothing to it, unless it reads the data of a COPY."""
FAKED = frozenset(("ErrorResponse", "NoticeResponse", "ParameterStatus", "ReadyForQuery"))
"""What a pooler may say to a client of its own accord once it has let it in."""
ACKNOWLEDGED = frozenset(("ParseComplete", "CloseComplete"))
"""What else it may say, where the client has asked to prepare or to close a statement: the judge of the client's
conversation sees to it that they come in their order and none of them behind an error."""
DONE = frozenset(("CommandComplete", "EmptyQueryResponse"))
"""What a Query ends with that has not failed."""
REPLACED = frozenset(("CommandComplete", "ErrorResponse", "ReadyForQuery"))
"""What a client may fail to get where the pooler said something of its own instead."""
