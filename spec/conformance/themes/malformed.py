"""Bytes that are no message: they end in an error or in the end of the connection, and never in silence.

The manual says little about what a server does with them.  Asked for here is what PostgreSQL does (08P01 and, where
it cannot know where the next message begins, the end of the connection), that nobody hangs, and that others are served.
"""

from __future__ import annotations

from spec.conformance.requests import NAME, SYNC, Raw, Request, encoded, parse, query, typed, untyped
from spec.conformance.scripts import FIRST, READY, Leave, Open, Script, Theme, ask, either, error, rows
from spec.conformance.words import CLOSED

CONCEPTS = "protocol-overview#PROTOCOL-MESSAGE-CONCEPTS"
FORMATS = "protocol-message-formats"
START = "protocol-flow#PROTOCOL-FLOW-START-UP"

LATER = ask(query("SELECT 1"), answer=(*rows("1"), READY), on="later")
SERVED = ask(query("SELECT 1"), answer=(*rows("1"), READY))
ENDS = ((error("08P01"), CLOSED), (CLOSED,))
FAILS = ((error("08P01"), READY), *ENDS)
PROOFS = (("AuthenticationSASL",), ("AuthenticationMD5Password",), ("AuthenticationCleartextPassword",))


def ending(name: str, request: Request, *behind: Request) -> Script:
    """Return a script of something after which the connection cannot go on."""
    return Script(name, CONCEPTS, (SERVED, either(request, *behind, answers=ENDS), LATER), is_own=True)


def failing(name: str, request: Request, *behind: Request) -> Script:
    """Return a script of a message whose end is known, but whose fields are wrong."""
    return Script(name, FORMATS, (SERVED, either(request, *behind, answers=FAILS), LATER), is_own=True)


def starting(name: str, packet: Request) -> Script:
    """Return a script of a packet that cannot begin a connection."""
    return Script(
        name, START, (Open(FIRST, ((error("08P01", "0A000"), CLOSED), (CLOSED,)), packet=packet), LATER), is_own=True
    )


def binding(name: str, body: bytes) -> Script:
    """Return a script of a Bind with wrong fields, to a statement that is there."""
    answers = [("ParseComplete", *answer) for answer in FAILS]
    message = typed(name, b"B", b"\0\0" + body)  # the unnamed portal and the unnamed statement
    return Script(
        name,
        FORMATS,
        (SERVED, either(parse("SELECT $1::text"), message, SYNC, answers=[*answers, *FAILS]), LATER),
        is_own=True,
    )


def series(name: str, type_: bytes, body: bytes) -> Script:
    """Return a script of an extended message with wrong fields, which an error and a Sync end."""
    return failing(name, typed(name, type_, body), SYNC)


THEME = Theme(
    "malformed",
    "wrong lengths, types, counts and texts",
    (
        ending("an unknown type", typed("an unknown type", b"y")),
        ending("a type of the other side", typed("a RowDescription from the frontend", b"T", b"\0\0")),
        ending("a password in a session", typed("a PasswordMessage", b"p", b"secret\0")),
        ending("a length of 3", typed("a Query of length 3", b"Q", b"", 3)),
        ending("a length of 0", typed("a Query of length 0", b"Q", b"", 0)),
        ending("a length of -1", typed("a Query of length -1", b"Q", b"", -1)),
        ending("a length of two gigabytes", typed("a Query of length 2^31 - 1", b"Q", b"SELECT 1\0", 2**31 - 1)),
        ending("a Sync of a megabyte", typed("a Sync of a megabyte", b"S", b"", 1_000_000)),
        failing("a Query without its zero byte", typed("a Query without its zero byte", b"Q", b"SELECT 1")),
        failing(
            "a Query with bytes behind its text", typed("a Query with bytes behind its text", b"Q", b"SELECT 1\0x")
        ),
        failing("a Query of nothing at all", typed("a Query without a text", b"Q")),
        failing("a Sync with a body", typed("a Sync with a body", b"S", b"x")),
        series("a Parse without a query", b"P", b"name\0"),
        series("a Parse with too few types", b"P", b"\0SELECT 1\0\0\2\0\0\0\x17"),
        series("a Parse with bytes behind its last field", b"P", b"\0SELECT 1\0\0\0x"),
        binding("a Bind that ends early", b"\0\0"),
        binding("a Bind with a value longer than the message", b"\0\0\0\1\0\0\1\0x\0\0"),
        binding("a Bind with a value of size -2", b"\0\0\0\1\xff\xff\xff\xfe\0\0"),
        series("a Describe of neither a statement nor a portal", b"D", b"X\0"),
        series("a Close of neither a statement nor a portal", b"C", b"X\0"),
        series("an Execute without its limit", b"E", b"\0"),
        failing("a FunctionCall that ends early", typed("a FunctionCall that ends early", b"F", b"\0\0\0\xb1")),
        Script(
            "a Query where a proof is due",
            START,
            (
                Open(answers=PROOFS, is_unproven=True),
                either(
                    Raw("a Query", encoded(query("SELECT 1"))),
                    answers=((error("08P01", "28000", "28P01"), CLOSED), (CLOSED,)),
                ),
                LATER,
            ),
            needs=("passwords",),
            is_own=True,
        ),
        Script(
            "half a message, then the end of the connection",
            CONCEPTS,
            (SERVED, ask(typed("half a Query", b"Q", b"SELECT", 100), answer=()), Leave(FIRST), LATER),
        ),
        Script(
            "half a series, then the end of the connection",
            CONCEPTS,
            (
                SERVED,
                ask(parse("SELECT 1", NAME), typed("half a Bind", b"B", b"\0", 100), answer=()),
                Leave(FIRST, is_reset=True),
                LATER,
            ),
        ),
        starting("a startup packet of length 0", untyped("a startup packet of length 0", b"", 0)),
        starting("a startup packet of length 3", untyped("a startup packet of length 3", b"", 3)),
        starting("a startup packet of a megabyte", untyped("a startup packet of a megabyte", b"\0\3\0\0", 1_000_000)),
        starting(
            "a startup packet without its last zero byte",
            untyped("a startup packet without its last zero byte", b"\0\3\0\0user\0x\0"),
        ),
        starting(
            "a startup packet with a name but no value",
            untyped("a startup packet with a name but no value", b"\0\3\0\0user\0"),
        ),
        starting("a request of another protocol", Raw("a request of HTTP", b"GET / HTTP/1.0\r\n\r\n")),
        Script(
            "a CancelRequest that ends early",
            "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST",
            (Open(FIRST, ENDS, packet=untyped("a CancelRequest without a key", b"\x04\xd2\x16\x2e\0\0\0\1")), LATER),
            is_own=True,
        ),
    ),
)
