"""Tables for people and JSON for machines."""

from __future__ import annotations

from typing import Any

import msgspec


def print_table(rows: list[list[str]]) -> None:
    """Print rows of cells as columns that line up."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object, indented."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
