"""The field types a message is made of: data only, no behaviour.

Interpreters of these values (`codec`, `strategies`) tell them apart with `match`.  The manual's own names for them are
in protocol-message-types; each class says which one it stands for.  All integers are big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Int:
    """An integer of `bits` bits between `least` and `most`; the manual's Int8, Int16 and Int32.

    `usual` lists the values that mean something today.  Others are well-formed: the receiver answers them with an
    ordinary error, not with the end of the connection.
    """

    bits: int
    least: int
    most: int
    usual: tuple[int, ...] = ()


@dataclass(frozen=True)
class Constant:
    """An integer of `bits` bits that is always `value`; the manual's Int32(80877103).  It tells formats apart."""

    bits: int
    value: int


@dataclass(frozen=True)
class Tag:
    """One byte out of `choices`; the manual's Byte1.

    With `may_grow` any other byte but zero is well-formed too: the manual reserves the right to add more.
    """

    choices: bytes
    may_grow: bool = False


@dataclass(frozen=True)
class Bytes:
    """Exactly `size` bytes of any content; the manual's Byte4."""

    size: int


@dataclass(frozen=True)
class Text:
    """At least `least` bytes, none of them zero, and a zero byte behind them; the manual's String."""

    least: int = 0


@dataclass(frozen=True)
class Value:
    """An Int32 size and that many bytes, or the size -1 alone, which is NULL."""


@dataclass(frozen=True)
class Rest:
    """Everything up to the end of the message, `least` to `most` bytes; the manual's Byten without a count."""

    least: int
    most: int


@dataclass(frozen=True)
class Group:
    """Several fields in a row that belong together, by name."""

    fields: tuple[tuple[str, Field], ...]


@dataclass(frozen=True)
class Array:
    """A count, then that many items; the manual's Int16[C]."""

    item: Field
    count: Int


@dataclass(frozen=True)
class Until0:
    """Items up to a zero byte, at least `least` of them.  No item begins with a zero byte."""

    item: Field
    least: int = 0


Field: TypeAlias = "Int | Constant | Tag | Bytes | Text | Value | Rest | Group | Array | Until0"
"""What a message or a group is made of."""

Item: TypeAlias = "int | bytes | tuple[Item, ...] | None"
"""The Python value of one field.

Int is an int; Tag, Bytes, Text and Rest are bytes (a text without its zero byte); Value is bytes or None; Group, Array
and Until0 are tuples.  A Constant has no value, since it cannot vary.
"""
