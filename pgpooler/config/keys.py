"""What the classes of `model` say about their keys, and how the readers, the schema and the tests learn of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Meta, Struct

TEN_YEARS: Final = 315_360_000
LARGEST_NUMBER: Final = 2**31 - 1


def meaning(description: str, reader: str = "", *, low: int | None = None, high: int | None = None) -> Meta:
    """A key's meaning and bounds; `reader` names the function that reads its text where the type alone does not say."""
    return Meta(description=description, ge=low, le=high, extra={"reader": reader} if reader else None)


def count(description: str, low: int = 0, high: int = LARGEST_NUMBER) -> Meta:
    """Say what a number means, and its bounds."""
    return meaning(description, low=low, high=high)


def time(description: str) -> Meta:
    """Say what a time in seconds means."""
    return meaning(description, low=0, high=TEN_YEARS)


INTERNAL: Final = Meta(extra={"internal": True})
"""Marks a field that is filled by the reader and is no key of any file."""


@cache
def secret_fields(kind: type[Struct]) -> frozenset[str]:
    """The names of the fields of a model class that hold secrets."""
    return frozenset(key.field for key in keys_of(kind).values() if key.reader == "secret")


class Key(Struct, frozen=True, kw_only=True):
    """One key of a model class, as the readers and the schema need it.

    `field` is the attribute that holds the value, `type` its msgspec type without metadata and "or None", `default`
    what an absent key means (None = inherited).
    """

    name: str
    field: str
    type: Any
    reader: str
    description: str
    required: bool
    default: Any


@cache
def keys_of(kind: type[Struct]) -> Mapping[str, Key]:
    """The keys of a model class by their names in files, without its internal fields."""
    keys = {}
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        plain, reader, description, internal = _strip(field.type)
        if not internal:
            keys[field.encode_name] = Key(
                name=field.encode_name,
                field=field.name,
                type=plain,
                reader=reader,
                description=description,
                required=field.required,
                default=field.default,
            )
    return keys


def _strip(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, str, str, bool]:
    """Take the metadata and the "or None" off a type."""
    reader, description, internal = "", "", False
    while True:
        if isinstance(kind, msgspec.inspect.Metadata):
            extra = kind.extra or {}
            reader = reader or extra.get("reader", "")
            internal = internal or bool(extra.get("internal"))
            description = description or (kind.extra_json_schema or {}).get("description", "")
            kind = kind.type
        elif isinstance(kind, msgspec.inspect.UnionType):
            (kind,) = (part for part in kind.types if not isinstance(part, msgspec.inspect.NoneType))
        else:
            return kind, reader, description, internal
