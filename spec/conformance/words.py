"""What a message says, in a few words: these stand in expectations, in reports, and are compared.

`shown` leaves out what differs between two servers that both do right (process ids, keys, texts for people); `exact`
keeps what a direct server and a pooler in front of it should say alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from spec.codec import Instance
from spec.conformance.requests import Raw, Request

CLOSED = "closed"
"""Stands among messages for the end of the connection."""

SHORT = 100
"""Bytes that a value may have to be shown itself."""
LONG = 400
"""Characters that the words of one step, or of one answer, may have in a report."""
MANY = 20
"""How many messages of one name in a row are shown one by one."""

UNSAID = frozenset(b"FLR")
"""The error fields that say where in a server's source a message was written (protocol-error-fields)."""


def value(data: bytes | None) -> str:
    """Return a value in readable characters: NULL, a text, hexadecimal digits, or its size and checksum."""
    if data is None:
        return "NULL"
    if len(data) > SHORT:
        return f"{len(data)} bytes of {zlib.crc32(data):08x}"
    text = data.decode("utf-8", "replace").replace("\n", "\\n")
    return text if text.isprintable() and "\ufffd" not in text else "0x" + data.hex()


def values(items: Iterable[bytes | None]) -> str:
    """Return several values in a row."""
    return ", ".join(value(item) for item in items)


def error_fields(error: Instance) -> dict[str, str]:
    """Return the fields of an ErrorResponse or NoticeResponse by their codes."""
    fields: Any = error["fields"]
    return {code.decode("latin-1"): text.decode("utf-8", "replace") for code, text in fields if code[0] not in UNSAID}


def name_and_query(statement: bytes, text: bytes) -> str:
    """Return what a Parse says."""
    return f"{value(statement)} {value(text)!r}".strip()


Words = Callable[[Any], str]

SHOWN: dict[str, Words] = {
    "ReadyForQuery": lambda say: value(say["status"]),
    "CommandComplete": lambda say: value(say["tag"]),
    "DataRow": lambda say: values(say["values"]),
    "RowDescription": lambda say: ", ".join(f"{value(column[0])}:{column[3]}" for column in say["columns"]),
    "ParameterDescription": lambda say: ", ".join(map(str, say["types"])),
    "ErrorResponse": lambda say: error_fields(say).get("C", "without SQLSTATE"),
    "NoticeResponse": lambda say: value(error_fields(say).get("M", "").encode()),
    "NotificationResponse": lambda say: f"{value(say['channel'])} {value(say['payload'])}".strip(),
    "ParameterStatus": lambda say: f"{value(say['parameter'])}={value(say['setting'])}",
    "CopyData": lambda say: value(say["data"].removesuffix(b"\n")),
    "CopyInResponse": lambda say: f"{say['format']} of {len(say['column_formats'])}",
    "CopyOutResponse": lambda say: f"{say['format']} of {len(say['column_formats'])}",
    "FunctionCallResponse": lambda say: value(say["result"]),
    "NegotiateProtocolVersion": lambda say: (
        f"{say['version'] >> 16}.{say['version'] & 0xFFFF} {values(say['options'])}".strip()
    ),
    "BackendKeyData": lambda say: f"{len(say['key'])} bytes",
    "AuthenticationSASL": lambda say: values(say["mechanisms"]),
    "Query": lambda say: repr(value(say["query"])),
    "Parse": lambda say: name_and_query(say["statement"], say["query"]),
    "Bind": lambda say: f"{value(say['portal'])} {value(say['statement'])} ({values(say['values'])})".strip(),
    "Describe": lambda say: f"{value(say['kind'])} {value(say['target'])}".strip(),
    "Close": lambda say: f"{value(say['kind'])} {value(say['target'])}".strip(),
    "Execute": lambda say: f"{value(say['portal'])} {say['limit'] or ''}".strip(),
    "CopyFail": lambda say: repr(value(say["reason"])),
    "FunctionCall": lambda say: f"{say['function']} ({values(say['arguments'])})",
}
"""How a message's fields are put; messages that are not here are shown by their name alone."""


def shown(message: Request) -> str:
    """Return a message's name and the gist of it."""
    if isinstance(message, Raw):
        return f"<{message.meaning}>"
    words = SHOWN.get(message.name)
    return f"{message.name} {words(message)}".strip() if words else message.name


def exact(message: Instance) -> str:
    """Return what a direct server would say just so."""
    if message.name in ("ErrorResponse", "NoticeResponse"):
        return f"{message.name} {error_fields(message)}"
    if message.name == "RowDescription":
        columns: Any = message["columns"]
        return f"RowDescription {[(column[0], *column[3:]) for column in columns]}"
    return shown(message)


def shortened(text: str) -> str:
    """Return a long text without its middle."""
    return text if len(text) <= LONG else f"{text[: LONG // 2]} ... {text[-LONG // 2 :]}"


def name_of(token: str) -> str:
    """Return the name in what `shown` returned."""
    return token.split(" ", 1)[0]


def condensed(tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the same with long runs of one name put together as `DataRow (1000 times)`."""
    result: list[str] = []
    for name, run in groupby(tokens, name_of):
        alike = list(run)
        result += [f"{name} ({len(alike)} times)"] if len(alike) > MANY else alike
    return tuple(result)
