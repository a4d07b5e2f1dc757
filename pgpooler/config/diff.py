"""What a reload changes: the differences between two configurations, without secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, Final

from msgspec import Struct

from pgpooler.config import hba
from pgpooler.config.keys import keys_of
from pgpooler.config.matchers import pattern_text
from pgpooler.config.model import MASK, Backend, Configuration, Pattern, Rule

RESTART: Final = frozenset({"listen", "workers"})
"""The sections that are settled when PgPooler starts: a reload leaves them as they are."""

NOT_SET: Final = ""


class Change(Struct, frozen=True, kw_only=True):
    """One difference.  `old` and `new` are as an operator writes them, empty = not there, and masked if secret."""

    path: str
    old: str
    new: str
    restart: bool = False

    def __str__(self) -> str:
        if not self.old:
            text = f"{self.path}: {self.new} (new)"
        elif not self.new:
            text = f"{self.path}: {self.old} (gone)"
        else:
            text = f"{self.path}: {self.old} -> {self.new}"
        return text + ("; takes effect after a restart" if self.restart else "")


def difference(old: Configuration, new: Configuration) -> tuple[Change, ...]:
    """The changes from one configuration to another, in the order of the model.

    Moving things about in the files changes nothing.  Changes that a reload cannot make are marked `restart`.
    """
    before, after = dict(_values("", old)), dict(_values("", new))
    changes = [
        Change(
            path=path,
            old=_shown(before.get(path)),
            new=_shown(after.get(path)),
            restart=path.partition(".")[0] in RESTART,
        )
        for path in [*before, *(path for path in after if path not in before)]
        if before.get(path) != after.get(path)
    ]
    for path, text, of in ORDERED:
        changes += _line_changes(path, [text(line) for line in of(old)], [text(line) for line in of(new)])
    return tuple(changes)


class _Secret(Struct, frozen=True):
    value: str


def _values(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every single value with its path; the rules are compared apart, because they have an order."""
    if isinstance(value, Struct):
        for name, key in keys_of(type(value)).items():
            inner = getattr(value, key.field)
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(value, Backend) and name == "name":
                continue
            if key.reader == "secret" and inner:
                yield path, _Secret(inner)
            elif path == "backends":
                yield path, tuple(backend.name for backend in inner)
                yield from _values(path, {backend.name: backend for backend in inner})
            elif path != "routing.rules":
                yield from _values(path, inner)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(inner, Struct):
                continue
            yield f"{prefix}.{name}", name
            yield from _values(f"{prefix}.{name}", inner)
    elif value is not None:
        yield prefix, value


def _shown(value: Any) -> str:
    if value is None:
        return NOT_SET
    if isinstance(value, _Secret):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}s"
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value)
    return pattern_text(value) if isinstance(value, Pattern) else str(value) or '""'


def rule_text(rule: Rule) -> str:
    """A rule on one line, as an operator writes it, with the keys it sets."""
    parts = []
    for name, key in keys_of(Rule).items():
        value = getattr(rule, key.field)
        if value not in (key.default, None):
            parts.append(f"{name}: [{_shown(value)}]" if isinstance(value, tuple) else f"{name}: {_shown(value)}")
    return "{" + ", ".join(sorted(parts)) + "}"


ORDERED: Final[tuple[tuple[str, Callable[[Any], str], Callable[[Configuration], tuple[Any, ...]]], ...]] = (
    ("routing.rules", rule_text, lambda configuration: configuration.routing.rules),
    ("auth.hba_file", hba.rule_text, lambda configuration: configuration.auth.hba),
    ("auth.ident_file", hba.ident_text, lambda configuration: configuration.auth.ident),
)
"""What has an order, and is compared line by line: its path, how a line is written, and where the lines are."""


def _line_changes(path: str, before: list[str], after: list[str]) -> Iterator[Change]:
    for _, low, high, new_low, new_high in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        pairs = max(high - low, new_high - new_low)
        for step in range(pairs):
            was = before[low + step] if low + step < high else NOT_SET
            will = after[new_low + step] if new_low + step < new_high else NOT_SET
            number = new_low + step if will else low + step
            if was != will:
                yield Change(path=f"{path}[{number + 1}]", old=was, new=will)
