"""The protocol for programs: everything normative as one JSON object, and the way back.

    {"protocol": 1, "versions": ["3.0", "3.2"], "manual": "https://...",
     "messages": [{"sender": "F", "type": "Q", "name": "Query", "since": "3.0", "phase": "session", "most": 1073741822,
                   "anchor": "protocol-message-formats#...", "meaning": "...",
                   "fields": [{"name": "query", "field": {"is": "Text", "least": 0}}]}, ...],
     "answers": {"SSLRequest": "SN", ...}, "requested_phases": {"AuthenticationOk": "session", ...},
     "error_fields": [{"code": "S", "name": "severity", "always": true, "meaning": "..."}, ...],
     "startup": EXPRESSION, "replies": {"Sync": {"is": "Msg", "name": "ReadyForQuery"}, ...},
     "asynchronous": ["NoticeResponse", ...], "skipped_after_error": ["Bind", ...],
     "rules": [{"name": "...", "anchor": "...", "text": "..."}, ...]}

A field or an expression is an object whose key `is` names its kind, as in spec/types.py and spec/grammar.py, with the
attributes of that kind beside it: {"is": "Cat", "left": EXPRESSION, "right": EXPRESSION}.  Bytes are texts of Latin-1.
A `phase` says when the bytes of a frontend mean this message; null for a backend's, which always do.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from spec.conversation import ASYNCHRONOUS, REPLY, RULES, SKIPPED_AFTER_ERROR, STARTUP
from spec.grammar import Alt, Cat, Done, Expression, Many, Msg, Never
from spec.messages import ANSWERS, ERROR_FIELDS, MESSAGES, REQUESTED_PHASE, VERSIONS, Message, Phase, Sender, Version
from spec.tables import MANUAL
from spec.types import Array, Bytes, Constant, Group, Int, Rest, Tag, Text, Until0, Value

FORMAT = 1

FIELDS = (Int, Constant, Tag, Bytes, Text, Value, Rest, Group, Array, Until0)
EXPRESSIONS = (Never, Done, Msg, Alt, Cat, Many)
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*FIELDS, *EXPRESSIONS)}
"""What an object with `is` may be."""

BYTES = frozenset({("Tag", "choices")})
"""The attributes that are bytes, which JSON does not have."""


def text() -> str:
    """Return the whole as JSON."""
    return json.dumps(protocol(), indent=1) + "\n"


def protocol() -> dict[str, Any]:
    """Return the whole as values that JSON has."""
    return {
        "protocol": FORMAT,
        "versions": [version_text(version) for version in VERSIONS],
        "manual": MANUAL,
        "messages": [exported_message(message) for message in MESSAGES],
        "answers": {request: answers.decode() for request, answers in ANSWERS.items()},
        "requested_phases": {request: phase.value for request, phase in REQUESTED_PHASE.items()},
        "error_fields": [
            {"code": field.code.decode(), "name": field.name, "always": field.always, "meaning": field.meaning}
            for field in ERROR_FIELDS
        ],
        "startup": exported(STARTUP),
        "replies": {request: exported(reply) for request, reply in REPLY.items()},
        "asynchronous": sorted(ASYNCHRONOUS),
        "skipped_after_error": sorted(SKIPPED_AFTER_ERROR),
        "rules": [{"name": rule.name, "anchor": rule.anchor, "text": rule.text} for rule in RULES],
    }


def version_text(version: Version) -> str:
    """Return a protocol version as people write it."""
    return ".".join(map(str, version))


# --- messages


def exported_message(message: Message) -> dict[str, Any]:
    """Return the format of a message as JSON's values."""
    return {
        "sender": message.sender.value,
        "type": message.type.decode(),
        "name": message.name,
        "since": version_text(message.since),
        "phase": message.phase and message.phase.value,
        "most": message.most,
        "anchor": message.anchor,
        "meaning": message.meaning,
        "fields": exported(message.fields),
    }


def imported_message(exported_: dict[str, Any]) -> Message:
    """Return the format that `exported_message` was given."""
    major, minor = map(int, exported_["since"].split("."))
    return Message(
        Sender(exported_["sender"]),
        exported_["type"].encode(),
        exported_["name"],
        imported(exported_["fields"]),
        exported_["meaning"],
        exported_["most"],
        (major, minor),
        Phase(exported_["phase"]) if exported_["phase"] else None,
    )


# --- fields and expressions


def exported(value: Any) -> Any:
    """Return a field, an expression, or a tuple of such things, as JSON's values."""
    if dataclasses.is_dataclass(value):
        attributes = {field.name: exported(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": type(value).__name__, **attributes}
    match value:
        case (str(name), field) if isinstance(field, FIELDS):
            return {"name": name, "field": exported(field)}
        case tuple():
            return [exported(item) for item in value]
        case bytes():
            return value.decode("latin-1")
        case _:
            return value


def imported(value: Any) -> Any:
    """Return what `exported` was given."""
    if isinstance(value, list):
        return tuple(imported(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "is" not in value:
        return value["name"], imported(value["field"])
    kind = value["is"]
    return KINDS[kind](**{name: imported_attribute(kind, name, value[name]) for name in value if name != "is"})


def imported_attribute(kind: str, name: str, value: Any) -> Any:
    """Return the attribute of an object of this kind."""
    return value.encode("latin-1") if (kind, name) in BYTES else imported(value)


def expression(value: Any) -> Expression:
    """Return an exported expression as such; TypeError if it is something else."""
    built = imported(value)
    if not isinstance(built, EXPRESSIONS):
        raise TypeError(f"{built!r} is no expression")
    return built
