"""What configuration files hold before it means anything: texts with their places, and the problems found so far.

Both file formats become this one tree, so that every rule about keys and values exists once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pgpooler.errors import ConfigurationError, Problem


class Place(NamedTuple):
    """Where something is written; line and column count from 1, 0 is nowhere in the file."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Text:
    """A single value as it was written."""

    text: str
    place: Place


@dataclass(frozen=True)
class Absent:
    """A key without a value (YAML's null)."""

    place: Place


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    place: Place


class Entry(NamedTuple):
    """A key's place, and its value."""

    place: Place
    node: Node


@dataclass(frozen=True)
class Section:
    """Keys and values, in the order of the file."""

    entries: Mapping[str, Entry]
    place: Place


@dataclass(frozen=True)
class Broken:
    """Something that could not be read; the problem has been reported."""

    place: Place


Node = Text | Absent | Items | Section | Broken

REFERENCE: Final = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
"""An environment variable `${NAME}`, an escaped `$${`, or a `${` that is neither."""


def is_text(value: str) -> bool:
    """Whether a value has only characters that a text may hold: no zero bytes, and none that UTF-8 cannot write."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


class Sources:
    """The files of one configuration: reads them, knows their order, and collects what is wrong in them."""

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        self.main = path
        self.environment = environment
        self.files: list[str] = []
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._shown: list[str] = []

    def absolute(self, path: str) -> str:
        """A path as written in any of the files; relative ones start at the folder of the main file."""
        return os.path.abspath(os.path.join(os.path.dirname(self.main), path))

    def error(self, place: Place, message: str) -> None:
        """Report something that makes the configuration unusable."""
        self._add(self.errors, place, message)

    def warn(self, place: Place, message: str) -> None:
        """Report something that is probably not meant."""
        self._add(self.warnings, place, message)

    def _add(self, problems: list[Problem], place: Place, message: str) -> None:
        problem = Problem(message, place.file, place.line, place.column)
        if problem not in problems:
            problems.append(problem)

    def in_file_order(self, problems: list[Problem]) -> list[Problem]:
        """The problems in the order in which the files were read, and by line within each."""
        order = {name: number for number, name in enumerate(self._shown)}
        return sorted(problems, key=lambda found: (order.get(found.file, len(order)), found.line, found.column))

    def raise_errors(self) -> None:
        """Raise ConfigurationError if anything is wrong."""
        if self.errors:
            raise ConfigurationError(self.in_file_order(self.errors))

    def read(self, path: str, asked_at: Place | None = None) -> str | None:
        """The text of a file, or None after reporting why not: at `asked_at`, or at the file itself."""
        absolute = self.absolute(path) if asked_at else os.path.abspath(path)
        shown = self.shown(path) if asked_at else path
        self.files.append(absolute)
        self._shown.append(shown)
        try:
            # A name that is no text could not be told to a worker or written into a log.
            absolute.encode("utf-8")
            with open(absolute, "rb") as file:
                content = file.read()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.error(asked_at or Place(shown, 0, 0), f"cannot read {absolute}: {reason}")
            return None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = content[: error.start]
            line_start = before.rfind(b"\n") + 1
            column = len(before[line_start:].decode("utf-8", "replace")) + 1
            self.error(Place(shown, before.count(b"\n") + 1, column), "the file is not UTF-8")
            return None

    def shown(self, path: str) -> str:
        """A path of a further file as the operator finds it from where the main file's path is valid."""
        return os.path.join(os.path.dirname(self.main), path)

    def expand(self, node: Text) -> str | None:
        """The text with `${NAME}` replaced from the environment (`$${` stands for `${`); None after a problem."""
        failed = False

        def replace(found: re.Match[str]) -> str:
            nonlocal failed
            if found[0] == "$${":
                return "${"
            name = found[1]
            if name is None:
                self.error(node.place, "'${' is not followed by NAME and '}'; write $${ for the characters themselves")
            elif name not in self.environment:
                self.error(node.place, f"the environment variable {name} is not set")
            elif not is_text(self.environment[name]):
                self.error(node.place, f"the environment variable {name} does not hold text in UTF-8")
            else:
                return self.environment[name]
            failed = True
            return ""

        text = REFERENCE.sub(replace, node.text)
        return None if failed else text
