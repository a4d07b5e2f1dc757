"""Configuration files for the tests: written, loaded, and their problems compared with marks in the text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pgpooler.config.load import Loaded, load
from pgpooler.config.model import Configuration
from pgpooler.errors import ConfigurationError, Problem

MARK = "▸"

TRUST = "auth: {method: trust}\n"
ONE_BACKEND = "backends: [{name: primary, host: pg1}]\n"


class Folder:
    """A folder of configuration files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment: dict[str, str] = {}

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, text: str, *, name: str = "pgpooler.yaml", files: Mapping[str, str] | None = None) -> Loaded:
        for other, content in (files or {}).items():
            self.write(other, content)
        return load(self.write(name, text), self.environment)

    def configuration(self, text: str, **more: str) -> Configuration:
        """The configuration of a main file; a backend and an explicit trust are added where the text has none."""
        added = ("" if "auth:" in text else TRUST) + ("" if "backends:" in text else ONE_BACKEND)
        return self.load(text + ("" if text.endswith("\n") else "\n") + added, **more).configuration

    def problems(
        self, text: str, *, name: str = "pgpooler.yaml", files: Mapping[str, str] | None = None
    ) -> list[Problem]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, name=name, files=files)
        assert caught.value.problems
        return caught.value.problems

    def marked(self, text: str, *, name: str = "pgpooler.yaml", files: Mapping[str, str] | None = None) -> list[str]:
        """The messages for files whose offending places carry a mark each: all marks are hit, and nothing else."""
        written = {name: text, **(files or {})}
        wanted = {(other, *place) for other, content in written.items() for place in marks(content)}
        unmarked = {other: content.replace(MARK, "") for other, content in written.items()}
        found = self.problems(unmarked.pop(name), name=name, files=unmarked)
        places = {(Path(problem.file).name, problem.line, problem.column) for problem in found}
        assert places == wanted, [str(problem) for problem in found]
        return [problem.message for problem in found]

    def warnings(self, text: str) -> list[str]:
        """The warnings for a main file with marks, in the order of the marks."""
        loaded = self.load(text.replace(MARK, ""))
        assert [(warning.line, warning.column) for warning in loaded.warnings] == marks(text)
        return [warning.message for warning in loaded.warnings]


def marks(text: str) -> list[tuple[int, int]]:
    """Line and column, from 1, of what each mark stands before."""
    places = []
    for number, line in enumerate(text.split("\n"), 1):
        parts = line.split(MARK)
        places += [(number, len("".join(parts[: count + 1])) + 1) for count in range(len(parts) - 1)]
    return places


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for configuration files."""
    return Folder(tmp_path)
