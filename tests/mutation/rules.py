"""Reads `rules.txt`: the rules of pooling, each broken by one small change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.mutation.operators import Module, Mutant

FILE = Path(__file__).with_name("rules.txt")


def mutants(modules: Mapping[str, str], rules: str | None = None) -> list[Mutant]:
    """Make the mutants.  Raises ValueError for a change whose lines are not, or not once, in the module."""
    text = FILE.read_text() if rules is None else rules
    return [_mutant(paragraph, modules) for paragraph in paragraphs(text)]


def paragraphs(text: str) -> Iterator[list[str]]:
    """Cut a text at its empty lines; lines that begin with # are for people."""
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line and not line.startswith("#")]
        if lines:
            yield lines


def _mutant(paragraph: list[str], modules: Mapping[str, str]) -> Mutant:
    name, path, *changed = paragraph
    before, after = ("\n" + "".join(f"{line[1:]}\n" for line in changed if line[0] == sign) for sign in "-+")
    text = "\n" + modules[path]  # so that only whole lines are found
    if len(before) == 1 or text.count(before) != 1:
        raise ValueError(f"{path} holds {text.count(before)} times what rule {name!r} changes")
    module = Module(path, modules[path])
    first = text[: text.index(before)].count("\n") + 1
    lines = tuple(range(first, first + before.count("\n") - 1))
    return Mutant(path, f"rule {name}", module.text, text.replace(before, after)[1:], lines, module.outside(lines))
