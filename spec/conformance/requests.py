"""Short words for the frontend's messages, for tables of scripts."""

from __future__ import annotations

from dataclasses import dataclass

from spec.codec import Instance, encode, frontend
from spec.messages import LATEST, Version

NAME = "conformance_0000000000"
"""Stands in scripts for a name of their own; when a script is played, it becomes a unique name of the same length."""


@dataclass(frozen=True)
class Raw:
    """Bytes that are no message, or not one that may be said here, and what is the matter with them."""

    meaning: str
    data: bytes


Request = Instance | Raw
Bytes = bytes | str


def encoded(request: Request, version: Version = LATEST) -> bytes:
    """Return the bytes of a request."""
    return request.data if isinstance(request, Raw) else encode(request, version)


def as_bytes(text: Bytes) -> bytes:
    """Return a text in UTF-8."""
    return text.encode() if isinstance(text, str) else text


def query(text: Bytes) -> Instance:
    """Return a Query."""
    return frontend("Query", query=as_bytes(text))


def parse(text: Bytes, statement: str = "", types: tuple[int, ...] = ()) -> Instance:
    """Return a Parse, of the unnamed statement unless told otherwise."""
    return frontend("Parse", statement=statement.encode(), query=as_bytes(text), types=types)


def bind(
    *values: Bytes | None,
    statement: str = "",
    portal: str = "",
    formats: tuple[int, ...] = (),
    result_formats: tuple[int, ...] = (),
) -> Instance:
    """Return a Bind of the unnamed statement to the unnamed portal unless told otherwise."""
    items = tuple(None if value is None else as_bytes(value) for value in values)
    return frontend(
        "Bind",
        portal=portal.encode(),
        statement=statement.encode(),
        formats=formats,
        values=items,
        result_formats=result_formats,
    )


def describe_statement(name: str = "") -> Instance:
    """Return a Describe of a statement."""
    return frontend("Describe", kind=b"S", target=name.encode())


def describe_portal(name: str = "") -> Instance:
    """Return a Describe of a portal."""
    return frontend("Describe", kind=b"P", target=name.encode())


def execute(portal: str = "", limit: int = 0) -> Instance:
    """Return an Execute."""
    return frontend("Execute", portal=portal.encode(), limit=limit)


def close_statement(name: str = "") -> Instance:
    """Return a Close of a statement."""
    return frontend("Close", kind=b"S", target=name.encode())


def close_portal(name: str = "") -> Instance:
    """Return a Close of a portal."""
    return frontend("Close", kind=b"P", target=name.encode())


def run(text: Bytes, *values: Bytes | None) -> tuple[Instance, ...]:
    """Return Parse, Bind and Execute of one statement, without an end of the series."""
    return parse(text), bind(*values), execute()


def copy_data(data: Bytes) -> Instance:
    """Return a CopyData."""
    return frontend("CopyData", data=as_bytes(data))


def copy_fail(reason: str) -> Instance:
    """Return a CopyFail."""
    return frontend("CopyFail", reason=reason.encode())


def function_call(function: int, *arguments: Bytes | None, format_code: int = 0) -> Instance:
    """Return a FunctionCall with arguments and result in one format."""
    items = tuple(None if item is None else as_bytes(item) for item in arguments)
    return frontend(
        "FunctionCall", function=function, formats=(format_code,), arguments=items, result_format=format_code
    )


SYNC = frontend("Sync")
FLUSH = frontend("Flush")
COPY_DONE = frontend("CopyDone")
TERMINATE = frontend("Terminate")
NOTHING = Raw("nothing", b"")


def typed(meaning: str, type_: bytes, body: bytes = b"", length: int | None = None) -> Raw:
    """Return a message with any type, body and length word."""
    said = 4 + len(body) if length is None else length
    return Raw(meaning, type_ + (said % 2**32).to_bytes(4, "big") + body)


def untyped(meaning: str, body: bytes, length: int | None = None) -> Raw:
    """Return a packet for the start of a connection with any body and length word."""
    return typed(meaning, b"", body, length)
