"""Nearly valid conversations: a catalogue of what may be said wrong, or oddly but legally, each with its verdict.

`BEGINNINGS` are whole conversations from their first message, `ENDINGS` are what follows a session that is idle outside
a transaction.  In both, everything but the last message is legal, and the verdict is about that one.  `CHANGES` drop,
double and swap replies of any conversation.  All verdicts are certain, whatever conversation is spoilt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec import phrases as say
from spec.codec import Instance, backend
from spec.conversation import ASYNCHRONOUS
from spec.conversations import Conversation, sessions
from spec.messages import Sender
from spec.session import Judge

LEGAL = ""
"""The verdict that no rule is broken."""

ANY = "any rule, or something is left unanswered"
"""The verdict that something is wrong; what, depends on the conversation."""


@dataclass(frozen=True)
class NearValid:
    """A conversation, what was done to it, and the rule that its last message breaks (or LEGAL, or ANY)."""

    mutator: str
    conversation: Conversation
    verdict: str


Entry = tuple[str, str, tuple[Instance, ...]]
"""What is said, the verdict about its last message, and the messages."""

NEW = (say.parse(b"SELECT 1, 2 WHERE $1", b"new"), say.describe_statement(b"new"), say.SYNC)
NEW_ANSWERED = (*NEW, say.PARSED, say.parameters(16), say.described(2), say.ready())
"""A prepared statement with one parameter and two columns, and everybody knows."""

EXECUTE_NEW = (*NEW_ANSWERED, say.bind(b"t", statement=b"new"), say.execute(2), say.SYNC, say.BOUND)
SELECT, COPY_IN, COPY_OUT = say.query(b"SELECT 1"), say.query(b"COPY t FROM STDIN"), say.query(b"COPY t TO STDOUT")
EXTENDED = (say.parse(b"SELECT 1"), say.bind(), say.execute(), say.SYNC)
IN_COPY = (COPY_IN, say.copy_begins("CopyInResponse"))
FAILING_COPY = (*IN_COPY, say.copy_data(b"?"), say.SYNC, say.SYNC, say.error())
BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)

ENDINGS: tuple[Entry, ...] = (
    # Nobody asked
    *(
        (f"{name} unasked for", "reply-in-order", (backend(name),))
        for name in ("ParseComplete", "BindComplete", "NoData")
    ),
    ("a row unasked for", "reply-in-order", (say.row(1),)),
    ("an empty query unasked for", "empty-query-alone", (say.EMPTY,)),
    ("ReadyForQuery unasked for", "one-ready-for-query", (say.ready(),)),
    ("an error unasked for", "error-skips-to-sync", (say.error(),)),
    ("a COPY unasked for", "copy-in", (say.copy_begins("CopyInResponse"),)),
    ("a login in a session", "startup", (say.AUTHENTICATED,)),
    ("a cancel key in a session", "startup", (say.key_data(),)),
    ("a version negotiated in a session", "negotiate-once", (say.negotiate(0, b"_pq_.x"),)),
    ("a notice unasked for", LEGAL, (say.NOTICE,)),
    ("a parameter unasked for", LEGAL, (say.PARAMETER,)),
    ("a notification unasked for", LEGAL, (say.NOTIFICATION,)),
    ("a fatal error unasked for", LEGAL, (say.FATAL,)),
    # Ends
    ("a message behind a fatal error", "fatal-ends", (say.FATAL, say.NOTICE)),
    ("an error behind a fatal one", "fatal-ends", (SELECT, say.FATAL, say.error())),
    ("a request behind a fatal error", LEGAL, (say.FATAL, SELECT)),
    ("a request behind Terminate", "terminate-ends", (say.TERMINATE, SELECT)),
    ("Terminate twice", "terminate-ends", (say.TERMINATE, say.TERMINATE)),
    ("a reply behind Terminate", LEGAL, (say.query(b"SELECT"), say.TERMINATE, say.described(0))),
    # The frontend says what it may not
    ("a password in a session", "password-meaning", (say.PASSWORD,)),
    ("TLS in a session", "encryption-request", (say.SSL_REQUEST,)),
    ("a cancel request in a session", "cancel-request", (say.cancel(),)),
    ("StartupMessage in a session", "startup", (say.startup(),)),
    # Replies to the wrong request, or in the wrong order
    ("BindComplete for Parse", "reply-in-order", (*EXTENDED, say.BOUND)),
    ("ReadyForQuery before the error", "one-ready-for-query", (*EXTENDED, say.ready())),
    ("a row in reply to Parse", "reply-in-order", (*EXTENDED, say.row(1))),
    ("a void request answered", "reply-in-order", (*EXTENDED, say.PARSED, say.error(), say.row(1))),
    ("two errors in a series", "error-skips-to-sync", (*EXTENDED, say.error(), say.error())),
    ("two errors for a Query", "error-skips-to-sync", (SELECT, say.error(), say.error())),
    ("a row behind an error", "reply-in-order", (SELECT, say.error(), say.row(1))),
    ("an error while processing Sync", LEGAL, (*EXTENDED[:1], say.SYNC, say.PARSED, say.error(), say.ready())),
    ("two ReadyForQuery for one Sync", "one-ready-for-query", (say.SYNC, say.ready(), say.ready())),
    ("two Syncs and two ReadyForQuery", LEGAL, (say.SYNC, say.SYNC, say.ready(), say.ready())),
    ("a skipped Query answered", "reply-in-order", (EXTENDED[0], SELECT, say.SYNC, say.error(), say.described(1))),
    ("Flush answered by nothing", LEGAL, (say.FLUSH, say.FLUSH, say.SYNC, say.ready())),
    # Queries
    *((f"{reply.name} for Query", "simple-query-is-plain", (SELECT, reply)) for reply in (say.PARSED, say.NO_DATA)),
    ("PortalSuspended for Query", "simple-query-is-plain", (SELECT, say.described(1), say.SUSPENDED)),
    ("Execute describes", "execute-never-describes", (*EXTENDED, say.PARSED, say.BOUND, say.described(1))),
    ("Execute is ready", "execute-never-describes", (*EXTENDED, say.PARSED, say.BOUND, say.ready())),
    ("an empty query and more", "reply-in-order", (say.query(b""), say.EMPTY, say.complete(b"SELECT 0"))),
    ("an empty query behind others", "empty-query-alone", (say.query(b"SET a; "), say.complete(b"SET"), say.EMPTY)),
    ("rows without description", "reply-in-order", (SELECT, say.row(1))),
    ("a statement too many", "statement-count", (say.query(b"SET a"), say.complete(b"SET"), say.complete(b"SET"))),
    ("a statement too few", "statement-count", (say.query(b"SET a; SET b"), say.complete(b"SET"), say.ready())),
    ("two sets of rows for one statement", "row-sets", (SELECT, say.described(1), say.row(1), say.described(1))),
    ("SELECT without a set of rows", "row-sets", (SELECT, say.complete(b"SELECT 0"))),
    ("a FunctionCall without result", "one-ready-for-query", (say.function_call(), say.ready())),
    # Rows, tags, status
    ("a row too wide", "row-width", (SELECT, say.described(1), say.row(2))),
    ("a row narrower than the statement", "row-width", (*EXECUTE_NEW, say.row(1))),
    ("more rows than asked for", "row-limit", (*EXECUTE_NEW, say.row(2), say.row(2), say.row(2))),
    ("suspended too early", "row-limit", (*EXECUTE_NEW, say.row(2), say.SUSPENDED)),
    ("suspended in time", LEGAL, (*EXECUTE_NEW, say.row(2), say.row(2), say.SUSPENDED)),
    ("a tag that counts wrongly", "tag-count", (SELECT, say.described(1), say.row(1), say.complete(b"SELECT 2"))),
    ("an Execute's tag that counts wrongly", "tag-count", (*EXECUTE_NEW, say.row(2), say.complete(b"SELECT 0"))),
    ("rows of a table made", LEGAL, (say.query(b"CREATE TABLE t AS SELECT 1"), say.complete(b"SELECT 1"))),
    ("a transaction from nowhere", "transaction-status", (SELECT, say.error(), say.ready(b"E"))),
    ("a BEGIN forgotten", "transaction-status", (say.query(b"BEGIN"), say.complete(b"BEGIN"), say.ready(b"I"))),
    (
        "an error in a transaction forgotten",
        "transaction-status",
        (say.query(b"BEGIN; SELECT 1/0"), say.complete(b"BEGIN"), say.error(), say.ready(b"T")),
    ),
    (
        "a COMMIT that fails ends the block",
        LEGAL,
        (
            *(say.query(b"BEGIN"), say.complete(b"BEGIN"), say.ready(b"T")),
            *(say.query(b"COMMIT"), say.error(), say.ready(b"I")),
        ),
    ),
    (
        "too few values bound",
        "parameter-count",
        (*NEW_ANSWERED, say.bind(statement=b"new"), say.SYNC, say.BOUND),
    ),
    (
        "too few values refused",
        LEGAL,
        (*NEW_ANSWERED, say.bind(statement=b"new"), say.SYNC, say.error()),
    ),
    (
        "format codes that fit no values",
        "parameter-count",
        (*NEW_ANSWERED, say.bind(b"t", statement=b"new", formats=(0, 0)), say.SYNC, say.BOUND),
    ),
    # COPY
    ("void copy messages", LEGAL, (say.copy_data(b"x"), say.COPY_DONE, say.COPY_FAIL, say.SYNC, say.ready())),
    ("a COPY complete before its end", "copy-in", (*IN_COPY, say.copy_data(b"1"), say.complete(b"COPY 1"))),
    ("a COPY complete that was given up", "copy-in", (*IN_COPY, say.COPY_FAIL, say.complete(b"COPY 1"))),
    ("a COPY complete that was interrupted", "copy-in", (*IN_COPY, SELECT, say.COPY_DONE, say.complete(b"COPY 1"))),
    ("Sync and Flush in a COPY", LEGAL, (*IN_COPY, say.SYNC, say.FLUSH, say.COPY_DONE, say.complete(b"COPY 1"))),
    (
        "an ignored Sync answered",
        "one-ready-for-query",
        (*IN_COPY, say.SYNC, say.COPY_DONE, say.complete(b"COPY 1"), say.ready(), say.ready()),
    ),
    ("Syncs behind a failed COPY ignored", LEGAL, (*FAILING_COPY, say.ready(), SELECT, say.described(1))),
    ("Syncs behind a failed COPY answered", LEGAL, (*FAILING_COPY, say.ready(), say.ready(), say.ready())),
    ("more answered than there were", "one-ready-for-query", (*FAILING_COPY, *[say.ready()] * 4)),
    ("a COPY from nowhere", "copy-in", (COPY_IN, say.complete(b"COPY 1"))),
    (
        "a COPY out that ends early",
        "reply-in-order",
        (COPY_OUT, say.copy_begins("CopyOutResponse"), say.complete(b"COPY 0")),
    ),
    ("a row in a COPY", "reply-in-order", (COPY_OUT, say.copy_begins("CopyOutResponse"), say.row(1))),
    (
        "a COPY that counts wrongly",
        "tag-count",
        (COPY_OUT, say.copy_begins("CopyOutResponse"), say.copied(), say.COPIED_OUT, say.complete(b"COPY 2")),
    ),
    (
        "a COPY of mixed formats",
        "copy-columns",
        (COPY_OUT, backend("CopyOutResponse", format=0, column_formats=(0, 1))),
    ),
    (
        "a binary row too wide",
        "copy-columns",
        (COPY_OUT, say.copy_begins("CopyOutResponse", 1, 1), say.copied(BINARY_HEADER + b"\0\2")),
    ),
    ("both ways without replication", "copy-both", (SELECT, say.copy_begins("CopyBothResponse"))),
)

LOGIN = (say.startup(), say.AUTHENTICATED)
NEWER = say.startup(9999)
STREAM = (
    say.startup(replication=b"true"),
    *(say.AUTHENTICATED, say.ready(), say.query(b"START_REPLICATION"), say.copy_begins("CopyBothResponse")),
)
SASL = (say.startup(), backend("AuthenticationSASL", mechanisms=(b"SCRAM-SHA-256",)))
CLEARTEXT = (say.startup(), backend("AuthenticationCleartextPassword"))

BEGINNINGS: tuple[Entry, ...] = (
    ("TLS asked for twice", "encryption-request", (say.SSL_REQUEST, say.SSL_REQUEST)),
    ("TLS, GSSAPI and TLS again", "encryption-request", (say.SSL_REQUEST, say.GSSENC_REQUEST, say.SSL_REQUEST)),
    ("TLS behind StartupMessage", "encryption-request", (say.startup(), say.SSL_REQUEST)),
    ("StartupMessage twice", "startup", (say.startup(), say.startup())),
    ("a request that does not wait", "startup", (*LOGIN, SELECT)),
    ("a request before the login", "startup", (say.startup(), SELECT)),
    ("Terminate instead of waiting", LEGAL, (*LOGIN, say.TERMINATE)),
    ("the login twice", "startup", (*LOGIN, say.AUTHENTICATED)),
    ("a session without login", "startup", (say.startup(), say.ready())),
    ("a parameter before the login", "startup", (say.startup(), say.PARAMETER)),
    ("a notice before the login", LEGAL, (say.startup(), say.NOTICE)),
    ("a login that fails", LEGAL, (*CLEARTEXT, say.PASSWORD, say.FATAL)),
    ("a login that fails and goes on", "fatal-ends", (*CLEARTEXT, say.PASSWORD, say.error(), say.AUTHENTICATED)),
    ("a session that begins in a transaction", "transaction-status", (*LOGIN, say.ready(b"T"))),
    ("two cancel keys", "startup", (*LOGIN, say.key_data(), say.key_data())),
    ("a long cancel key in 3.0", "cancel-key", (*LOGIN, say.key_data(bytes(32)))),
    ("a long cancel key in 3.2", LEGAL, (say.startup(2), say.AUTHENTICATED, say.key_data(bytes(256)))),
    (
        "a long cancel key after agreeing on 3.0",
        "cancel-key",
        (say.startup(2), say.negotiate(0), say.AUTHENTICATED, say.key_data(bytes(32))),
    ),
    ("a version negotiated without need", "negotiate-once", (say.startup(), say.negotiate(0))),
    ("a version negotiated twice", "negotiate-once", (NEWER, say.negotiate(2), say.negotiate(2))),
    ("a newer version than asked for", "negotiate-once", (say.startup(1), say.negotiate(2))),
    ("the very version asked for", "negotiate-once", (say.startup(2), say.negotiate(2))),
    ("options nobody asked for", "negotiate-once", (NEWER, say.negotiate(2, b"_pq_.x"))),
    ("a version too new not negotiated", "negotiate-once", (NEWER, say.AUTHENTICATED, say.ready())),
    ("an older version agreed on", LEGAL, (say.startup(2), say.negotiate(0), say.AUTHENTICATED)),
    ("a password nobody asked for", "password-meaning", (say.startup(), say.PASSWORD)),
    ("a token where a password is due", "password-meaning", (*CLEARTEXT, say.GSS_RESPONSE)),
    ("SASL without its beginning", "password-meaning", (*SASL, say.SASL_RESPONSE)),
    ("SASL that begins twice", "password-meaning", (*SASL, say.SASL_INITIAL, say.SASL_INITIAL)),
    (
        "SCRAM without its end",
        "startup",
        (
            *SASL,
            say.SASL_INITIAL,
            backend("AuthenticationSASLContinue", data=b""),
            say.SASL_RESPONSE,
            say.AUTHENTICATED,
        ),
    ),
    ("a password asked for twice", "startup", (*CLEARTEXT, say.PASSWORD, CLEARTEXT[1])),
    ("a cancel request answered", "cancel-request", (say.cancel(), say.ready())),
    ("a cancel request refused", "cancel-request", (say.cancel(), say.error())),
    ("a request behind a cancel request", "cancel-request", (say.cancel(), say.startup())),
    ("a cancel request behind TLS", LEGAL, (say.SSL_REQUEST, say.cancel())),
    ("data behind our end of a stream", "copy-both", (*STREAM, say.COPY_DONE, say.copy_data(b"x"))),
    ("a stream complete before our end", "copy-both", (*STREAM, say.COPIED_OUT, say.complete(b"START_REPLICATION"))),
    ("data behind the server's end of a stream", "copy-both", (*STREAM, say.COPIED_OUT, say.copied())),
    ("a stream that both end", LEGAL, (*STREAM, say.COPY_DONE, say.copied(), say.COPIED_OUT, say.complete(b"START"))),
)


# --- changes of any conversation

DUE_ONCE = frozenset({"ParseComplete", "BindComplete", "CloseComplete", "NoData", "FunctionCallResponse"})
"""Replies that are all that is owed, or the last of it: without them, or with them twice, what follows is off."""

Change = Callable[[list[Instance], int], list[Instance]]


@dataclass(frozen=True)
class Mutator:
    """A way to change a conversation at one place: which places it applies to, and how."""

    name: str
    applies: Callable[[list[Instance], int], bool]
    change: Change


def next_reply(messages: list[Instance], place: int) -> str:
    """Return the name of the next reply behind this one that is not asynchronous; empty if there is none."""
    replies = (message.name for message in messages[place + 1 :] if message.sender is Sender.BACKEND)
    return next((name for name in replies if name not in ASYNCHRONOUS), "")


def previous_reply(messages: list[Instance], place: int) -> str:
    """Return the name of the reply before this one that is not asynchronous; empty if there is none."""
    names = [message.name for message in messages[:place] if message.sender is Sender.BACKEND]
    return next((name for name in reversed(names) if name not in ASYNCHRONOUS), "")


def is_due_once(messages: list[Instance], place: int) -> bool:
    """Say whether this reply can be missed: what follows is no error, which might have come instead, nor the same."""
    name = messages[place].name
    is_reply = messages[place].sender is Sender.BACKEND
    return is_reply and name in DUE_ONCE and next_reply(messages, place) not in (name, "ErrorResponse")


def is_last_ready(messages: list[Instance], place: int) -> bool:
    """Say whether this is the last ReadyForQuery."""
    return messages[place].name == "ReadyForQuery" and not any(
        later.name == "ReadyForQuery" for later in messages[place + 1 :]
    )


def is_first_row(messages: list[Instance], place: int) -> bool:
    """Say whether a row follows directly upon its description."""
    pair = [message.name for message in messages[place : place + 2] if message.sender is Sender.BACKEND]
    if previous_reply(messages, place) in ("RowDescription", "DataRow"):
        return False
    return pair in (["RowDescription", "DataRow"], ["CopyOutResponse", "CopyData"], ["CopyOutResponse", "CopyDone"])


def is_answered_sync(messages: list[Instance], place: int) -> bool:
    """Say whether this Sync is the last request, with nothing but its ReadyForQuery owed behind it."""
    rest = [message.name for message in messages[place:] if message.name not in ASYNCHRONOUS]
    return messages[place].name == "Sync" and rest == ["Sync", "ReadyForQuery"]


def without(messages: list[Instance], place: int) -> list[Instance]:
    """Drop a message."""
    return [*messages[:place], *messages[place + 1 :]]


def twice(messages: list[Instance], place: int) -> list[Instance]:
    """Say a message twice."""
    return [*messages[: place + 1], *messages[place:]]


def swapped(messages: list[Instance], place: int) -> list[Instance]:
    """Swap a message with the next."""
    return [*messages[:place], messages[place + 1], messages[place], *messages[place + 2 :]]


def too_late(messages: list[Instance], place: int) -> list[Instance]:
    """Say a request at the end of everything only."""
    return [*messages[:place], *messages[place + 1 :], messages[place]]


CHANGES = (
    Mutator("a reply is missing", is_due_once, without),
    Mutator("a reply is said twice", is_due_once, twice),
    Mutator("the last ReadyForQuery is missing", is_last_ready, without),
    Mutator("the last ReadyForQuery is said twice", is_last_ready, twice),
    Mutator("a row before its description", is_first_row, swapped),
    Mutator("a reply before its request", is_answered_sync, too_late),
)


def is_ambiguous(messages: list[Instance]) -> bool:
    """Return whether more than one reading of a conversation is possible anywhere."""
    judge = Judge()
    return any((judge.hear(message), judge.is_ambiguous)[1] for message in messages)


def has_one_end(messages: list[Instance]) -> bool:
    """Return whether there is one reading of a conversation in the end."""
    judge = Judge()
    for message in messages:
        judge.hear(message)
    return not judge.is_ambiguous


@st.composite
def changed(draw: DrawFn, mutator: Mutator) -> NearValid:
    """Draw a session and change it in one place."""
    messages = [message for _, message in draw(sessions(may_be_cut=False))]
    places = [place for place in range(len(messages)) if mutator.applies(messages, place)]
    assume(places and not is_ambiguous(messages))
    messages = mutator.change(messages, draw(st.sampled_from(places)))
    return NearValid(mutator.name, heard(messages), ANY)


@st.composite
def ended(draw: DrawFn, entry: Entry) -> NearValid:
    """Draw a session, leave whatever transaction it is in, and go on as in the catalogue.

    Where a COPY failed, what was owed before may be owed still, ROLLBACK and all: then no verdict is certain.
    """
    name, verdict, ending = entry
    messages = [message for _, message in draw(sessions(may_be_cut=False))]
    leave = (say.query(b"ROLLBACK"), say.complete(b"ROLLBACK"), say.ready())
    assume(has_one_end([*messages, *leave]))
    return NearValid(name, heard([*messages, *leave, *ending]), verdict)


def begun(entry: Entry) -> NearValid:
    """Return a beginning of the catalogue."""
    return NearValid(entry[0], heard(entry[2]), entry[1])


def heard(messages: Iterable[Instance]) -> Conversation:
    """Return messages with their senders."""
    return [(message.sender, message) for message in messages]


def near_valid_conversations() -> SearchStrategy[NearValid]:
    """Return a strategy for everything the catalogue can make."""
    return st.one_of(
        st.sampled_from(BEGINNINGS).map(begun),
        st.sampled_from(ENDINGS).flatmap(ended),
        st.sampled_from(CHANGES).flatmap(changed),
    )
