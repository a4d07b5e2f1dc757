"""JSON Schema of the configuration files, generated from the model, so that editors complete and check them."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import msgspec.inspect as types
from msgspec import Struct

from pgpooler.config.choices import ResetPolicy
from pgpooler.config.keys import Key, keys_of
from pgpooler.config.model import Configuration, Logging, Routing
from pgpooler.config.reader import FILE_SUFFIX
from pgpooler.config.values import BOOLEANS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DOCUMENTS: Final = ("pgpooler", "logging", "backends", "routing")
ENVIRONMENT: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
TIME: Final = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?$"}
WRITTEN: Final = {"type": ["string", "number", "boolean"], "minLength": 1}
"""A text.  Editors see `no` and `0123` as other types; PgPooler takes the text that is written."""
RESET: Final = {
    "anyOf": [
        {"type": "string", "enum": [policy.value for policy in ResetPolicy]},
        {"type": "string", "pattern": r"\S\s+\S"},
        ENVIRONMENT,
    ]
}
MATCHER: Final = {"anyOf": [WRITTEN, {"type": "array", "minItems": 1, "items": WRITTEN}]}

JsonSchema = dict[str, Any]


def schema(document: str = "pgpooler") -> JsonSchema:
    """The schema of one of the four files: `pgpooler` (with everything that may stand inline), `logging`, `backends`
    or `routing`.
    """
    properties = keys_of(Configuration)
    if document == "logging":
        body = _section(Logging)
    elif document == "backends":
        body = _closed({"backends": _value(properties["backends"])}, ["backends"])
    elif document == "routing":
        keys = keys_of(Routing)
        body = _closed({"defaults": _value(keys["defaults"]), "routing": _value(keys["rules"])}, [])
    else:
        body = _section(Configuration)
        for name in DOCUMENTS[1:]:
            body["properties"][name] = {
                "description": properties[name].description,
                "anyOf": [_closed({"path": {"type": "string", "minLength": 1}}, ["path"]), _value(properties[name])],
            }
    return {"$schema": DIALECT, "title": f"PgPooler: {document}.yaml", **body}


def _closed(properties: JsonSchema, required: list[str]) -> JsonSchema:
    body: JsonSchema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**body, "required": required} if required else body


def _section(kind: type[Struct]) -> JsonSchema:
    properties: JsonSchema = {}
    required = []
    for name, key in keys_of(kind).items():
        properties[name] = _value(key)
        if key.reader == "secret":
            properties[name + FILE_SUFFIX] = {"type": "string", "description": f"file that holds the {name}"}
        if key.required:
            required.append(name)
    return _closed(properties, required)


def _value(key: Key) -> JsonSchema:
    found = _typed(key.type, key.reader)
    if key.description:
        found["description"] = key.description
    if not key.required and key.default is not None and key.default is not msgspec.NODEFAULT:
        found.update({"default": f"0{key.default:o}"} if key.reader == "octal" else _default(key.default))
    return found


def _default(value: Any) -> JsonSchema:
    if isinstance(value, Struct) or value in ("", ()):
        return {}
    return {"default": msgspec.to_builtins(value)}


def _typed(kind: types.Type, reader: str) -> JsonSchema:
    """What an editor may accept for a type; it never refuses what PgPooler accepts."""
    if reader == "matcher":
        return dict(MATCHER)
    if reader == "reset_query":
        return dict(RESET)
    if reader == "octal":
        return dict(WRITTEN)
    if reader == "workers":
        return {"anyOf": [{"const": 1}, {"type": "array"}]}
    if isinstance(kind, types.StructType):
        return _section(kind.cls)
    if isinstance(kind, types.DictType):
        assert isinstance(kind.value_type, types.StructType)
        return {"type": "object", "additionalProperties": _section(kind.value_type.cls)}
    if isinstance(kind, types.VarTupleType):
        items = _typed(kind.item_type, "")
        several: JsonSchema = {"type": "array", "minItems": 1, "items": items}
        return several if items["type"] == "object" else {"anyOf": [items, several]}
    if isinstance(kind, types.Metadata):
        return _typed(kind.type, "")
    if isinstance(kind, types.EnumType):
        words = {"type": "string", "enum": [choice.value for choice in kind.cls]}
        return {"anyOf": [words, dict(ENVIRONMENT)]}
    if isinstance(kind, types.BoolType):
        return {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": list(BOOLEANS)}, dict(ENVIRONMENT)]}
    if isinstance(kind, types.IntType):
        number = {"type": "integer", "minimum": kind.ge, "maximum": kind.le}
        return {"anyOf": [number, dict(ENVIRONMENT)]}
    if isinstance(kind, types.FloatType):
        return {"anyOf": [{"type": "number", "minimum": 0, "maximum": kind.le}, dict(TIME), dict(ENVIRONMENT)]}
    return dict(WRITTEN)
