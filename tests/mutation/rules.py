"""Reads `rules.txt`: the rules of pooling, each broken by one small change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.mutation.operators import Module, Mutant

FILE = Path(__file__).with_name("rules.txt")


def mutants(modules: Mapping[str, str], rules: str | None = None) -> list[Mutant]:
    """Make the mutants.  Raises ValueError for a change whose lines are not, or not once, in the module."""
    text = FILE.read_text() if rules is None else rules
    return [_mutant(paragraph, modules) for paragraph in _paragraphs(text)]


def _paragraphs(text: str) -> Iterator[list[str]]:
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line and not line.startswith("#")]
        if lines:
            yield lines


def _mutant(paragraph: list[str], modules: Mapping[str, str]) -> Mutant:
    name, path, *changed = paragraph
    before, after = ("".join(f"{line[1:]}\n" for line in changed if line[0] == sign) for sign in "-+")
    original = modules[path]
    if not before or original.count(before) != 1:
        raise ValueError(f"{path} holds {original.count(before)} times what rule {name!r} changes")
    module = Module(path, original)
    first = original[: original.index(before)].count("\n") + 1
    lines = tuple(range(first, first + before.count("\n")))
    return Mutant(path, f"rule {name}", original, original.replace(before, after), lines, module.outside(lines))
