"""Nearly valid messages: a catalogue of ways to spoil a valid one, each with the verdict that is due.

The catalogue is the table `MUTATORS`.  A mutator is certain: whatever valid message it gets (among those it applies
to), its verdict holds.  That is why, for instance, only a count in front of the last field is changed: elsewhere the
bytes behind it might by chance make up the difference.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec.codec import Piece, integer, pieces, read
from spec.messages import LATEST, LEAST_KEY, LEAST_LENGTH, MESSAGES, MOST_KEY, Message, Phase, Sender, Version, in_force
from spec.strategies import instances_of, startup_messages
from spec.types import Array, Constant, Field, Group, Rest, Tag, Text, Until0, Value


class Verdict(enum.Enum):
    """What a receiver must think of a stretch of bytes, judged by formats alone."""

    WELL_FORMED = "whole messages and nothing else"
    CUT_OFF = "the end of the last message is missing"
    MALFORMED = "no message; a server ends the connection, or answers with an error"


Spoil = Callable[[DrawFn, list[Piece], Message], list[Piece]]


@dataclass(frozen=True)
class Mutator:
    """One way to spoil a message: to which formats it applies, how it is done, and what a receiver must think of it.

    `phase` is set where the message is fine and only arrives in the wrong phase, `version` where it is for another one.
    """

    name: str
    verdict: Verdict
    anchor: str
    applies: Callable[[Message], bool]
    spoil: Spoil
    phase: Phase | None = None
    version: Version = LATEST


@dataclass(frozen=True)
class NearValid:
    """The spoilt bytes of one message, what was done, and the verdict due."""

    mutator: str
    message: str
    data: bytes
    sender: Sender
    phase: Phase
    version: Version
    verdict: Verdict


# --- to which formats a mutator applies


def any_message(message: Message) -> bool:
    """Every message."""
    return True


def tagged(message: Message) -> bool:
    """Messages with a type byte."""
    return bool(message.type)


def with_body(message: Message) -> bool:
    """Self-delimiting messages that have a body: a byte less and a field is incomplete."""
    return bool(message.fields) and self_delimiting(message)


def self_delimiting(message: Message) -> bool:
    """Messages whose fields tell where they end, so that a byte more or less is one too many or too few."""
    return not any(isinstance(field, Rest) for _, field in message.fields)


def ends_in_text(message: Message) -> bool:
    """Messages whose last byte is the zero of a text."""
    return bool(message.fields) and isinstance(message.fields[-1][1], Text)


def ends_in_array(message: Message) -> bool:
    """Messages whose last field is counted."""
    return bool(message.fields) and isinstance(message.fields[-1][1], Array)


def ends_in_list(message: Message) -> bool:
    """Messages that end with the zero byte behind a list."""
    return bool(message.fields) and isinstance(message.fields[-1][1], Until0)


def contains(kind: type[Field]) -> Callable[[Message], bool]:
    """Messages with a field of this kind anywhere, be it in an array."""

    def found(field: Field) -> bool:
        match field:
            case Group(fields):
                return any(found(member) for _, member in fields)
            case Array(member) | Until0(member):
                return found(member)
            case Tag(_, may_grow):
                return kind is Tag and not may_grow
        return isinstance(field, kind)

    return lambda message: any(found(field) for _, field in message.fields)


def keyed(message: Message) -> bool:
    """Messages with a cancel key."""
    return any(name == "key" for name, _ in message.fields)


def named(*names: str) -> Callable[[Message], bool]:
    """Messages with one of these names."""
    return lambda message: message.name in names


# --- how it is done; `parts` is the valid message in pieces, type and length first


def framed(parts: list[Piece]) -> list[Piece]:
    """Correct the length word after the body was changed."""
    length = LEAST_LENGTH + sum(len(part.data) for part in parts[2:])
    return [parts[0], Piece("length", integer(length, 32)), *parts[2:]]


def with_length(change: Callable[[int, Message], int]) -> Spoil:
    """Announce another length."""

    def spoil(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
        length = change(int.from_bytes(parts[1].data, "big"), message)
        return [parts[0], Piece("length", integer(length, 32)), *parts[2:]]

    return spoil


def with_type(choose: Callable[[Message], list[bytes]]) -> Spoil:
    """Put another type byte in front."""

    def spoil(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
        return [Piece("type", draw(st.sampled_from(choose(message)))), *parts[1:]]

    return spoil


def with_piece(role: str, change: Callable[[bytes], bytes], last: bool = False) -> Spoil:
    """Change one piece of this role (the last one, or any), and frame the result correctly.

    Where the message drawn has no such piece (an empty array, say), its first size or the like is made up at the end,
    which is wrong as well: trailing bytes.
    """

    def spoil(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
        places = [place for place, part in enumerate(parts) if part.role == role]
        if not places:
            return framed([*parts, Piece(role, change(bytes(4)))])
        place = places[-1] if last else draw(st.sampled_from(places))
        return framed([*parts[:place], Piece(role, change(parts[place].data)), *parts[place + 1 :]])

    return spoil


def without_last_byte(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
    """Leave out the last byte of the body, and frame the result correctly."""
    body = b"".join(part.data for part in parts[2:])[:-1]
    return framed([*parts[:2], Piece("rest", body)])


def with_trailing_bytes(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
    """Add bytes behind the last field, inside the message."""
    return framed([*parts, Piece("rest", draw(st.binary(min_size=1, max_size=8)))])


def with_zero_inside(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
    """Put a zero byte into the last text, which thereby ends early."""
    return framed([*parts[:-1], Piece("text", b"\0"), parts[-1]])


def cut_off(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
    """Leave out any number of bytes at the end, but not all, as if they had not arrived yet."""
    whole = b"".join(part.data for part in parts)
    return [Piece("rest", whole[: draw(st.integers(1, len(whole) - 1))])]


def with_key(size: int) -> Spoil:
    """Send a cancel key of this many bytes."""

    def spoil(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
        return framed([*parts[:-1], Piece("rest", bytes(size))])

    return spoil


def with_constant(*values: int) -> Spoil:
    """Put another number where a constant is due."""

    def spoil(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
        constant = next(field for _, field in message.fields if isinstance(field, Constant))
        number = integer(draw(st.sampled_from(values)), constant.bits)
        return [*parts[:2], Piece("constant", number), *parts[3:]]

    return spoil


def as_it_is(draw: DrawFn, parts: list[Piece], message: Message) -> list[Piece]:
    """Leave the message alone: it is wrong where it arrives."""
    return parts


def unknown_types(message: Message) -> list[bytes]:
    """Type bytes that nobody sends."""
    known = {other.type for other in MESSAGES}
    return [bytes((byte,)) for byte in range(256) if bytes((byte,)) not in known]


def foreign_types(message: Message) -> list[bytes]:
    """Type bytes that only the other side sends; `p` is none of them, it is a matter of the phase."""
    own = {other.type for other in MESSAGES if other.sender is message.sender}
    return sorted({other.type for other in MESSAGES if other.sender is not message.sender} - own - {b"", b"p"})


def plus_one(number: bytes) -> bytes:
    """Return the number that is one more."""
    return integer(int.from_bytes(number, "big") + 1, 8 * len(number))


def minus_one(number: bytes) -> bytes:
    """Return the number that is one less; zero becomes the largest."""
    return integer((int.from_bytes(number, "big") - 1) % 2 ** (8 * len(number)), 8 * len(number))


FORMATS = "protocol-message-formats"
OVERVIEW = "protocol-overview#PROTOCOL-MESSAGE-CONCEPTS"
START = "protocol-flow#PROTOCOL-FLOW-START-UP"
BAD, OPEN = Verdict.MALFORMED, Verdict.CUT_OFF

MUTATORS = (
    Mutator("length one too small", BAD, OVERVIEW, self_delimiting, with_length(lambda length, _: length - 1)),
    Mutator("length one too big", OPEN, OVERVIEW, any_message, with_length(lambda length, _: length + 1)),
    Mutator("length 0", BAD, OVERVIEW, any_message, with_length(lambda length, _: 0)),
    Mutator("length 3", BAD, OVERVIEW, any_message, with_length(lambda length, _: 3)),
    Mutator("length 2^31 - 1", BAD, OVERVIEW, any_message, with_length(lambda length, _: 2**31 - 1)),
    Mutator("length -2^31", BAD, OVERVIEW, any_message, with_length(lambda length, _: -(2**31))),
    Mutator("length -1", BAD, OVERVIEW, any_message, with_length(lambda length, _: -1)),
    Mutator("length above the bound", BAD, FORMATS, any_message, with_length(lambda _, message: message.most + 1)),
    Mutator("unknown type", BAD, FORMATS, tagged, with_type(unknown_types)),
    Mutator("type of the other side", BAD, FORMATS, tagged, with_type(foreign_types)),
    Mutator("end of the stream missing", OPEN, OVERVIEW, any_message, cut_off),
    Mutator("last byte of the body missing", BAD, FORMATS, with_body, without_last_byte),
    Mutator("bytes behind the last field", BAD, FORMATS, self_delimiting, with_trailing_bytes),
    Mutator("zero byte of the last text missing", BAD, FORMATS, ends_in_text, without_last_byte),
    Mutator("zero byte inside the last text", BAD, FORMATS, ends_in_text, with_zero_inside),
    Mutator("zero byte behind a list missing", BAD, FORMATS, ends_in_list, without_last_byte),
    Mutator("last count too big", BAD, FORMATS, ends_in_array, with_piece("count", plus_one, last=True)),
    Mutator("last count too small", BAD, FORMATS, ends_in_array, with_piece("count", minus_one, last=True)),
    Mutator("value of size -2", BAD, FORMATS, contains(Value), with_piece("size", lambda _: integer(-2, 32))),
    Mutator("value of size -2^31", BAD, FORMATS, contains(Value), with_piece("size", lambda _: integer(-(2**31), 32))),
    Mutator(
        "value of size 2^31 - 1", BAD, FORMATS, contains(Value), with_piece("size", lambda _: integer(2**31 - 1, 32))
    ),
    Mutator("letter that is no choice", BAD, FORMATS, contains(Tag), with_piece("tag", lambda _: b"!")),
    Mutator("number of an unknown request", BAD, FORMATS, named("AuthenticationOk"), with_constant(1, 4, 6, 13, 2**31)),
    Mutator("cancel key of 3 bytes", BAD, FORMATS, keyed, with_key(LEAST_KEY - 1)),
    Mutator("cancel key of 257 bytes", BAD, FORMATS, keyed, with_key(MOST_KEY + 1)),
    Mutator("startup packet of protocol 2 or 4", BAD, START, named("StartupMessage"), with_constant(0, 2, 4)),
    Mutator("long cancel key in 3.0", BAD, FORMATS, keyed, with_key(32), version=(3, 0)),
    Mutator("password where SASL begins", BAD, START, named("PasswordMessage"), as_it_is, Phase.SASL_INITIAL),
    Mutator("SASL where a password is due", BAD, START, named("SASLInitialResponse"), as_it_is, Phase.PASSWORD),
    Mutator("query where a password is due", BAD, START, named("Query"), as_it_is, Phase.PASSWORD),
    Mutator("password in a session", BAD, START, lambda message: message.type == b"p", as_it_is, Phase.SESSION),
)
"""The catalogue."""


def applicable(mutator: Mutator) -> tuple[Message, ...]:
    """Return the formats this mutator applies to."""
    return tuple(message for message in in_force(mutator.version) if mutator.applies(message))


@st.composite
def spoilt(draw: DrawFn, mutator: Mutator, message: Message) -> NearValid:
    """Draw a valid message of this format and spoil it."""
    instance = draw(startup_messages() if message.name == "StartupMessage" else instances_of(message))
    parts = mutator.spoil(draw, pieces(instance, mutator.version), message)
    data = b"".join(part.data for part in parts)
    phase = mutator.phase or message.phase or Phase.SESSION
    return NearValid(mutator.name, message.name, data, message.sender, phase, mutator.version, mutator.verdict)


def near_valid(sender: Sender | None = None, phase: Phase | None = None) -> SearchStrategy[NearValid]:
    """Return a strategy for everything the catalogue can make, for one side and one phase or for all of them."""
    return st.one_of(
        [
            spoilt(mutator, message)
            for mutator in MUTATORS
            for message in applicable(mutator)
            if sender in (None, message.sender)
            if phase in (None, mutator.phase or message.phase or Phase.SESSION)
        ]
    )


def verdict(data: bytes, sender: Sender, phase: Phase, version: Version = LATEST) -> Verdict:
    """Return what the codec thinks of a stretch of bytes."""
    reading = read(data, sender, phase, version)
    if reading.fault:
        return Verdict.MALFORMED
    return Verdict.CUT_OFF if reading.rest else Verdict.WELL_FORMED
