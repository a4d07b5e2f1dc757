"""The protocol for people: tables in Markdown, made of the same values that everything else is made of.

`python -m spec tables` prints them; docs/reference/protocol.md is what it printed last, and a test compares the two.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from spec.conversation import ASYNCHRONOUS, REPLY, RULES, SKIPPED_AFTER_ERROR, STARTUP
from spec.grammar import Alt, Cat, Done, Expression, Many, Msg, Never
from spec.messages import (
    ANSWERS,
    BACKEND_MESSAGES,
    ERROR_FIELDS,
    FRONTEND_MESSAGES,
    MOST_LENGTH,
    PROOFS,
    STARTUP_PACKETS,
    VERSIONS,
    Message,
)
from spec.types import Array, Bytes, Constant, Field, Group, Int, Rest, Tag, Text, Until0, Value

WIDTH = 100  # of long expressions
MANUAL = "https://www.postgresql.org/docs/current/"

INTRODUCTION = """\
# The wire protocol

Made by `python -m spec tables` from `spec/messages.py` and `spec/conversation.py`; change those, not this page. It
describes protocol {versions}. For programs, `python -m spec export` says the same as JSON.

How fields are written: `Int16` is an integer of 16 bits with a sign, `UInt16` one without, both in network byte order;
`String` ends with a zero byte, `String+` has something before it; `Value` is an Int32 size and that many bytes, or the
size -1 alone, which is NULL; `X[UInt16]` is a count of 16 bits and that many X; `X...0` is any number of X up to a zero
byte. In front of every message stand its type byte and its length, an Int32 that counts itself, not the type byte."""

STARTUP_TEXT = """\
They have no type byte and at most 10,000 bytes behind their length."""

PROOFS_TEXT = """\
All of them have the type `p`; which one it is depends on the last authentication request."""

STARTUP_APART = """\
Apart from these, asynchronous messages and NegotiateProtocolVersion stand where the rules allow them."""

NOTATION = """\
`a b` is a, then b; `a | b` one of them; `a?` perhaps a; `a*` any number of a, `a+` at least one; `nothing` is no
message at all."""


def page() -> str:
    """Return the whole page."""
    return "\n".join(line for section in SECTIONS for line in (*section(), "")).rstrip("\n") + "\n"


# --- messages


def introduction() -> Iterator[str]:
    """Say what this page is and how to read its fields."""
    yield INTRODUCTION.format(versions=" and ".join(f"{major}.{minor}" for major, minor in VERSIONS))


def frontend_messages() -> Iterator[str]:
    """List what the frontend says."""
    yield from ("## Messages of the frontend", "", "### Packets that begin a connection", "", STARTUP_TEXT, "")
    yield from message_table(STARTUP_PACKETS)
    yield ""
    for request, answers in ANSWERS.items():
        letters = " or ".join(f"`{chr(answer)}`" for answer in answers)
        yield f"{request} is answered with a single byte that is no message: {letters}."
    yield from ("", "### Answers to authentication requests", "", PROOFS_TEXT, "")
    yield from message_table(PROOFS)
    yield from ("", "### Requests", "")
    yield from message_table(FRONTEND_MESSAGES)


def backend_messages() -> Iterator[str]:
    """List what the backend says."""
    yield from ("## Messages of the backend", "")
    yield from message_table(BACKEND_MESSAGES)
    yield from ("", "### Fields of ErrorResponse and NoticeResponse", "")
    rows = (
        (f"`{field.code.decode()}`", field.name, "always" if field.always else "", field.meaning)
        for field in ERROR_FIELDS
    )
    yield from table(("code", "field", "", "meaning"), rows)


def message_table(messages: Iterable[Message]) -> Iterator[str]:
    """List messages, one a row."""
    return table(("type", "message", "fields", "meaning"), map(message_row, messages))


def message_row(message: Message) -> tuple[str, str, str, str]:
    """Return the cells of one message."""
    major, minor = message.since
    name = link(message.name, message.anchor) + (f" (since {major}.{minor})" if message.since > VERSIONS[0] else "")
    fields = "; ".join(f"{name} `{notation_of_field(field)}`" for name, field in message.fields)
    type_ = f"`{message.type.decode()}`" if message.type else ""
    return type_, name, fields, message.meaning


def notation_of_field(field: Field) -> str:
    """Return the type of a field in a few letters."""
    match field:
        case Int(bits, least):
            return f"{'Int' if least < 0 else 'UInt'}{bits}"
        case Constant(bits, number):
            return f"Int{bits} = {number}"
        case Tag(choices, may_grow):
            return " or ".join(map(chr, choices)) if len(choices) < 4 and not may_grow else "a letter"
        case Bytes(size):
            return f"{size} bytes"
        case Text(least):
            return "String+" if least else "String"
        case Value():
            return "Value"
        case Rest(least, most):
            return f"{least} bytes" if least == most else rest_between(least, most)
        case Group(fields):
            return f"({', '.join(f'{name} {notation_of_field(member)}' for name, member in fields)})"
        case Array(item, count):
            return f"{notation_of_field(item)}[{notation_of_field(count)}]"
        case Until0(item):
            return f"{notation_of_field(item)}...0"


def rest_between(least: int, most: int) -> str:
    """Return the notation of what fills the message; bounds that only the longest message sets are left out."""
    return f"{least} to {most} bytes" if least else "the rest" if most == MOST_LENGTH - 4 else f"up to {most} bytes"


# --- conversations


def conversations() -> Iterator[str]:
    """List what is said in which order."""
    yield from ("## Conversations", "", NOTATION, "", "### How a connection begins", "")
    yield from ("```", *textwrap.wrap(notation(STARTUP), WIDTH), "```", "", STARTUP_APART, "")
    yield from ("### What a request is answered with", "")
    for request, reply in REPLY.items():
        yield f"- **{request}**: `{notation(reply)}`"
    yield from ("", f"At any time: {names(ASYNCHRONOUS)}.", "")
    yield f"Skipped after an error, up to the next Sync: {names(SKIPPED_AFTER_ERROR)}."


def rules() -> Iterator[str]:
    """List the rules that no expression says."""
    yield from ("## Rules", "")
    yield from table(("rule", "meaning"), ((link(rule.name, rule.anchor), rule.text) for rule in RULES))


def names(messages: Iterable[str]) -> str:
    """Return names in their order."""
    return ", ".join(sorted(messages))


def notation(expression: Expression) -> str:
    """Return an expression as people write regular expressions."""
    match expression:
        case Never():
            return "never"
        case Done():
            return "nothing"
        case Msg(name):
            return name
        case Many(body):
            return f"{tight(body)}*"
        case Alt():
            choices = list(alternatives(expression))
            some = [choice for choice in choices if choice != Done()]
            together = tight(some[0]) if len(some) == 1 else " | ".join(map(notation, some))
            return together if some == choices else f"{together}?" if len(some) == 1 else f"({together})?"
        case Cat():
            return " ".join(in_a_row(list(parts(expression))))


def in_a_row(row_: list[Expression]) -> Iterator[str]:
    """Yield the notation of every part of a row; something and any number of the same are at least one."""
    place = 0
    while place < len(row_):
        for end in range(place + 1, len(row_)):
            repeated = row_[end]
            if isinstance(repeated, Many) and list(parts(repeated.body)) == row_[place:end]:
                yield f"{tight(repeated.body)}+"
                place = end + 1
                break
        else:
            yield f"({notation(row_[place])})" if is_choice(row_[place]) else notation(row_[place])
            place += 1


def tight(expression: Expression) -> str:
    """Return the notation of something that a sign behind it applies to as a whole."""
    return expression.name if isinstance(expression, Msg) else f"({notation(expression)})"


def is_choice(expression: Expression) -> bool:
    """Whether the notation has alternatives at its outside."""
    return isinstance(expression, Alt) and Done() not in alternatives(expression)


def alternatives(expression: Expression) -> Iterator[Expression]:
    """Yield what a choice is between, however it was nested."""
    if isinstance(expression, Alt):
        yield from alternatives(expression.left)
        yield from alternatives(expression.right)
    else:
        yield expression


def parts(expression: Expression) -> Iterator[Expression]:
    """Yield what a row is made of, however it was nested."""
    if isinstance(expression, Cat):
        yield from parts(expression.left)
        yield from parts(expression.right)
    else:
        yield expression


# --- Markdown


def link(text: str, anchor: str) -> str:
    """Return a link to a place in the manual, which is `page` or `page#PLACE`."""
    manual_page, _, place = anchor.partition("#")
    return f"[{text}]({MANUAL}{manual_page}.html{'#' + place if place else ''})"


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield row(headings)
    yield row(("---",) * len(headings))
    for cells in rows:
        yield row(cells)


def row(cells: tuple[str, ...]) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


SECTIONS = (introduction, frontend_messages, backend_messages, conversations, rules)
