"""A slow and obviously right encoder and decoder, derived from `messages`: the oracle.

`encode` and `decode` are inverse: what `decode` accepts is exactly what `encode` can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from spec.messages import LATEST, LEAST_LENGTH, Message, Phase, Sender, Version, in_force
from spec.types import Array, Bytes, Constant, Field, Group, Int, Item, Rest, Tag, Text, Until0, Value

NUL = b"\0"


@dataclass(frozen=True)
class Instance:
    """One message with its values: what was said, without the bytes."""

    sender: Sender
    name: str
    fields: Mapping[str, Item]

    def __getitem__(self, field: str) -> Item:
        return self.fields[field]


class Malformed(Exception):
    """These bytes are no message: what is wrong, and at which offset from their beginning."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} at byte {offset}")
        self.what = what
        self.offset = offset


class Unsayable(ValueError):
    """These values do not fit the message's format, so no bytes can say them."""


def frontend(name: str, **fields: Item) -> Instance:
    """Return a message of the frontend."""
    return Instance(Sender.FRONTEND, name, fields)


def backend(name: str, **fields: Item) -> Instance:
    """Return a message of the backend."""
    return Instance(Sender.BACKEND, name, fields)


@cache
def format_of(sender: Sender, name: str, version: Version = LATEST) -> Message:
    """Return the format of the message called `name`; KeyError if `sender` never sends one."""
    for message in in_force(version):
        if (message.sender, message.name) == (sender, name):
            return message
    raise KeyError(f"no message {name} from the {sender.name.lower()} in protocol {version}")


@cache
def formats_for(sender: Sender, type_: bytes, phase: Phase, version: Version) -> tuple[Message, ...]:
    """Return the formats that a message with this type byte may have; untagged packets have the empty type."""
    return tuple(
        message
        for message in in_force(version)
        if message.sender is sender and message.type == type_ and message.phase in (None, phase)
    )


# --- encoding


@dataclass(frozen=True)
class Piece:
    """A stretch of an encoded message: what it is for, and its bytes.

    The roles: type, length, constant, int, tag, bytes, text, nul (ends a text), size (of a value), value, rest, count
    (of an array), end (the zero byte behind an Until0).
    """

    role: str
    data: bytes


def encode(instance: Instance, version: Version = LATEST) -> bytes:
    """Return the bytes of a message; raise Unsayable if a value does not fit."""
    return b"".join(piece.data for piece in pieces(instance, version))


def pieces(instance: Instance, version: Version = LATEST) -> list[Piece]:
    """Return the encoded message in pieces, so that a piece can be tampered with."""
    message = format_of(instance.sender, instance.name, version)
    names = [name for name, field in message.fields if not isinstance(field, Constant)]
    if sorted(names) != sorted(instance.fields):
        raise Unsayable(f"{message.name} has the fields {names}, not {sorted(instance.fields)}")
    body = [piece for name, field in message.fields for piece in field_pieces(field, instance.fields.get(name))]
    length = LEAST_LENGTH + sum(len(piece.data) for piece in body)
    if length > message.most:
        raise Unsayable(f"{message.name} of {length} bytes; at most {message.most} are allowed")
    return [Piece("type", message.type), Piece("length", length.to_bytes(4, "big")), *body]


def field_pieces(field: Field, item: Item) -> Iterator[Piece]:
    """Yield the pieces of one field; raise Unsayable if `item` is no value of it."""
    match field, item:
        case Constant(bits, number), None:
            yield Piece("constant", integer(number, bits))
        case Int(bits, least, most), int(number) if least <= number <= most:
            yield Piece("int", integer(number, bits))
        case Tag(choices, may_grow), bytes(tag) if len(tag) == 1 and (tag in choices or (may_grow and tag != NUL)):
            yield Piece("tag", tag)
        case Bytes(size), bytes(data) if len(data) == size:
            yield Piece("bytes", data)
        case Text(least), bytes(data) if len(data) >= least and NUL not in data:
            yield Piece("text", data)
            yield Piece("nul", NUL)
        case Value(), None:
            yield Piece("size", integer(-1, 32))
        case Value(), bytes(data):
            yield Piece("size", integer(len(data), 32))
            yield Piece("value", data)
        case Rest(least, most), bytes(data) if least <= len(data) <= most:
            yield Piece("rest", data)
        case Group(fields), tuple(items) if len(items) == len(fields):
            for (_, member), member_item in zip(fields, items, strict=True):
                yield from field_pieces(member, member_item)
        case Array(member, Int(bits, _, most)), tuple(items) if len(items) <= most:
            yield Piece("count", integer(len(items), bits))
            for member_item in items:
                yield from field_pieces(member, member_item)
        case Until0(member, least), tuple(items) if len(items) >= least:
            for member_item in items:
                yield from field_pieces(member, member_item)
            yield Piece("end", NUL)
        case _:
            raise Unsayable(f"{item!r} is no value of {field}")


def integer(number: int, bits: int) -> bytes:
    """Return a number as `bits` bits in network byte order, negative numbers in two's complement."""
    return number.to_bytes(bits // 8, "big", signed=number < 0)


# --- decoding


def decode(data: bytes, sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST) -> Instance:
    """Return what one whole message says; raise Malformed if it is not exactly one."""
    end = message_end(data, sender, phase, version)
    if end is None or end > len(data):
        raise Malformed("the message is cut off", len(data))
    if end < len(data):
        raise Malformed("something follows the message", end)
    type_, start = header(sender, phase, data)
    message = chosen(formats_for(sender, type_, phase, version), data, start)
    if end - len(type_) > message.most:
        raise Malformed(f"{message.name} is longer than {message.most}", len(type_))
    reader = Reader(data, start)
    fields = {name: reader.field(field) for name, field in message.fields}
    if reader.offset < len(data):
        raise Malformed(f"bytes behind the last field of {message.name}", reader.offset)
    values = {name: fields[name] for name, field in message.fields if not isinstance(field, Constant)}
    return Instance(sender, message.name, values)


def header(sender: Sender, phase: Phase, data: bytes) -> tuple[bytes, int]:
    """Return the type byte (empty for an untagged packet) and the offset of the body."""
    size = 0 if sender is Sender.FRONTEND and phase is Phase.STARTUP else 1
    return data[:size], size + LEAST_LENGTH


def message_end(
    data: bytes, sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST, start: int = 0
) -> int | None:
    """Return where the message that begins at `start` ends, perhaps behind the data; None before its header is whole.

    Raises Malformed for an unknown type as soon as the type byte is there, and for a length out of bounds as soon as
    the header is whole, as PostgreSQL does.
    """
    type_, body = header(sender, phase, data[start : start + 1])
    messages = formats_for(sender, type_, phase, version)
    if len(data) == start:
        return None
    if not messages:
        raise Malformed(f"{type_!r} is no message of the {sender.name.lower()} in phase {phase.value}", start)
    if len(data) < start + body:
        return None
    length = int.from_bytes(data[start + len(type_) : start + body], "big", signed=True)
    if not LEAST_LENGTH <= length <= max(message.most for message in messages):
        raise Malformed(f"invalid length {length}", start + len(type_))
    return start + len(type_) + length


def chosen(messages: tuple[Message, ...], data: bytes, start: int) -> Message:
    """Return that format whose leading constants stand at `start`."""
    for message in messages:
        constants = [field for _, field in message.fields if isinstance(field, Constant)]
        expected = b"".join(integer(constant.value, constant.bits) for constant in constants)
        if data[start : start + len(expected)] == expected:
            return message
    raise Malformed(f"none of {', '.join(message.name for message in messages)}", start)


class Reader:
    """Takes one field after the other from the bytes of a message."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset

    def field(self, field: Field) -> Item:
        """Take one field; raise Malformed at the offset where it is wrong."""
        start = self.offset
        match field:
            case Constant(bits, expected):
                if self.take(bits // 8) != integer(expected, bits):
                    raise Malformed(f"not the constant {expected}", start)
                return None
            case Int(bits, least, most):
                number = int.from_bytes(self.take(bits // 8), "big", signed=least < 0)
                if not least <= number <= most:
                    raise Malformed(f"{number} is not between {least} and {most}", start)
                return number
            case Tag(choices, may_grow):
                tag = self.take(1)
                if tag not in choices and (not may_grow or tag == NUL):
                    raise Malformed(f"{tag!r} is none of {choices!r}", start)
                return tag
            case Bytes(size):
                return self.take(size)
            case Text(least):
                return self.text(least)
            case Value():
                size = int.from_bytes(self.take(4), "big", signed=True)
                if size < -1:
                    raise Malformed(f"invalid size {size}", start)
                return None if size == -1 else self.take(size)
            case Rest(least, most):
                rest = self.take(len(self.data) - start)
                if not least <= len(rest) <= most:
                    raise Malformed(f"{len(rest)} bytes are not between {least} and {most}", start)
                return rest
            case Group(fields):
                return tuple(self.field(member) for _, member in fields)
            case Array(member, counter):
                items = self.field(counter)
                assert isinstance(items, int)
                return tuple(self.field(member) for _ in range(items))
            case Until0(member, least):
                return self.until0(member, least)

    def take(self, size: int) -> bytes:
        """Take `size` bytes."""
        taken = self.data[self.offset : self.offset + size]
        if len(taken) < size:
            raise Malformed(f"{size} bytes wanted, {len(taken)} left", self.offset)
        self.offset += size
        return taken

    def text(self, least: int) -> bytes:
        """Take the bytes up to a zero byte, and that too."""
        start = self.offset
        end = self.data.find(NUL, start)
        if end < 0:
            raise Malformed("a text without its zero byte", start)
        if end - start < least:
            raise Malformed(f"a text of less than {least} bytes", start)
        self.offset = end + 1
        return self.data[start:end]

    def until0(self, member: Field, least: int) -> tuple[Item, ...]:
        """Take items up to a zero byte, and that too."""
        start = self.offset
        items = []
        while self.data[self.offset : self.offset + 1] not in (NUL, b""):
            items.append(self.field(member))
        if self.take(1) == NUL and len(items) < least:
            raise Malformed(f"less than {least} items", start)
        return tuple(items)


# --- streams


@dataclass(frozen=True)
class Reading:
    """What a stretch of bytes says: whole messages, then a rest that is cut off, or the fault that ends it."""

    instances: tuple[Instance, ...]
    rest: bytes
    fault: Malformed | None


def split(
    stream: bytes, sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST
) -> tuple[list[bytes], bytes]:
    """Return the whole messages at the beginning of a stream, and the bytes left; raise Malformed for a bad header."""
    messages = []
    start = 0
    while (end := message_end(stream, sender, phase, version, start)) is not None and end <= len(stream):
        messages.append(stream[start:end])
        start = end
    return messages, stream[start:]


def read(stream: bytes, sender: Sender, phase: Phase = Phase.SESSION, version: Version = LATEST) -> Reading:
    """Return what a stream says up to its end or its first fault; the fault's offset counts from the stream's start."""
    instances: list[Instance] = []
    start = 0
    while True:
        try:
            end = message_end(stream, sender, phase, version, start)
        except Malformed as fault:
            return Reading(tuple(instances), stream[start:], fault)
        if end is None or end > len(stream):
            return Reading(tuple(instances), stream[start:], None)
        try:
            instances.append(decode(stream[start:end], sender, phase, version))
        except Malformed as fault:
            return Reading(tuple(instances), stream[start:], Malformed(fault.what, start + fault.offset))
        start = end
