"""Compares what two conversations of the same script heard: every message, every byte, but for one short table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from spec.codec import Instance
from spec.conformance.words import shortened, shown
from spec.types import Item


@dataclass(frozen=True)
class Heard:
    """A message, in which step and on which connection it came; in place of one, a word for what else ended a step."""

    step: int
    on: str
    message: Instance | str

    def __str__(self) -> str:
        words = self.message if isinstance(self.message, str) else shown(self.message)
        return f"step {self.step}, {self.on}: {words}"


Rename = Callable[[int], int]


def size(item: Any, rename: Rename) -> Item:
    """Return how long a value is."""
    return len(item)


def iterations(item: Any, rename: Rename) -> Item:
    """Return what is not random in a server-first-message of SCRAM: the iteration count."""
    return tuple(part for part in item.split(b",") if part.startswith(b"i="))


def nothing(item: Any, rename: Rename) -> Item:
    """Return what is the same for all values."""
    return None


def named_columns(columns: Any, rename: Rename) -> Item:
    """Return the columns of a RowDescription with tables and types renamed."""
    return tuple((name, rename(table), at, rename(kind), *rest) for name, table, at, kind, *rest in columns)


def named_types(types: Any, rename: Rename) -> Item:
    """Return parameter types renamed."""
    return tuple(map(rename, types))


Reading = Callable[[Any, Rename], Item]

LEFT_OPEN: Mapping[tuple[str, str], Reading] = {
    # what one server, asked twice, does not say twice; everything that is not here is compared as it came
    ("AuthenticationSASLContinue", "data"): iterations,  # a nonce and a salt
    ("AuthenticationSASLFinal", "data"): nothing,  # a proof made from the nonce; the player has verified it
    ("BackendKeyData", "process_id"): nothing,
    ("BackendKeyData", "key"): size,
    ("NotificationResponse", "process_id"): nothing,
    # identifiers of objects that the script itself has made: the first to appear becomes -1, the next -2
    ("RowDescription", "columns"): named_columns,
    ("ParameterDescription", "types"): named_types,
}


def comparable(heard: Sequence[Heard], newest: int) -> list[Heard]:
    """Return the same with what is left open made equal; objects up to the identifier `newest` were there before."""
    new: dict[int, int] = {}

    def rename(identifier: int) -> int:
        return identifier if identifier <= newest else new.setdefault(identifier, -1 - len(new))

    def read(message: Instance) -> Instance:
        fields = dict(message.fields)
        for name, item in fields.items():
            if reading := LEFT_OPEN.get((message.name, name)):
                fields[name] = reading(item, rename)
        return Instance(message.sender, message.name, fields)

    return [
        entry if isinstance(entry.message, str) else Heard(entry.step, entry.on, read(entry.message)) for entry in heard
    ]


@dataclass(frozen=True)
class Difference:
    """The first place where two conversations differ; None stands for no message more."""

    direct: Heard | None
    heard: Heard | None

    def __str__(self) -> str:
        words = f"{self.direct or 'nothing'}\n  became {self.heard or 'nothing'}"
        if self.direct is None or self.heard is None:
            return words
        one, other = parts(self.direct.message), parts(self.heard.message)
        missing, added = [part for part in one if part not in other], [part for part in other if part not in one]
        return f"{words}\n  where {shortened(str(added))} took the place of {shortened(str(missing))}"


def parts(message: Instance | str) -> list[object]:
    """Return the smallest parts of a message that are worth naming."""
    if isinstance(message, str):
        return [message]
    found: list[object] = []
    for name, item in message.fields.items():
        found += item if isinstance(item, tuple) else [(name, item)]
    return found


def difference(direct: Sequence[Heard], heard: Sequence[Heard], newest: int) -> Difference | None:
    """Return the first difference between what was heard directly and otherwise, None if there is none."""
    originals = zip_longest(direct, heard)
    for (one, other), pair in zip(
        zip_longest(comparable(direct, newest), comparable(heard, newest)), originals, strict=True
    ):
        if one != other:
            return Difference(*pair)
    return None
