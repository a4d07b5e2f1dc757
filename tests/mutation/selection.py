"""Which tests can notice a change of a line: those that run it.  And how long each of them takes.

The map is made once, by running all tests with coverage.py and telling it which test runs.  It is void as soon as any
file changes that it was made from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from tests.mutation.operators import Mutant

PACKAGES = ("pgpooler/protocol", "pgpooler/pooling")
TESTS = ("tests/unit", "tests/protocol")
NOT_FOR_MUTANTS = ("tests/unit/mutation",)  # tests of this tool
READ = ("pgpooler/**/*.py", "spec/**/*.py", "tests/*.py", "tests/unit/**/*.py", "tests/protocol/**/*.py")


def modules() -> dict[str, str]:
    """Read the modules that are mutated: path -> text."""
    paths = sorted(path for package in PACKAGES for path in Path(package).rglob("*.py"))
    return {path.as_posix(): path.read_text() for path in paths}


def state_of_tests() -> str:
    """Name the state of everything that the map depends on."""
    digest = sha256()
    for path in sorted(path for pattern in READ for path in Path().glob(pattern)):
        if path.as_posix().startswith(NOT_FOR_MUTANTS):
            continue
        digest.update(f"{path} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


@dataclass
class TestMap:
    """The tests and the lines they run.  A test is a number: its place in `tests`."""

    __test__ = False

    state: str
    tests: list[str]  # as pytest names them
    seconds: list[float]  # of processor time
    failed: list[str]
    lines: dict[str, dict[str, list[int]]]  # path -> line -> tests
    imports: dict[str, list[int]]  # path -> lines that ran outside any test

    def select(self, mutant: Mutant) -> list[str]:
        """List the tests that may notice the mutant: those that run its lines first, and the quick ones first.

        What happens at import may be noticed by every test that runs anything of the two packages, or only looks at
        what is in them: a limit, a table.
        """
        lines = self.lines.get(mutant.path, {})
        near = {test for line in mutant.lines for test in lines.get(str(line), ())}
        groups = [near]
        if mutant.at_import or set(self.imports.get(mutant.path, ())).intersection(mutant.lines):
            of_module = {test for tests in lines.values() for test in tests}
            anywhere = {test for path in self.lines.values() for tests in path.values() for test in tests}
            looking = {test for test, name in enumerate(self.tests) if _speaks_of_them(name.partition("::")[0])}
            groups += [of_module - near, anywhere - of_module - near, looking - anywhere - of_module - near]
        return [self.tests[test] for group in groups for test in sorted(group, key=lambda test: self.seconds[test])]

    def save(self, file: Path) -> None:
        """Write the map."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, file: Path) -> TestMap | None:
        """Read the map; None: there is none."""
        return cls(**json.loads(file.read_text())) if file.exists() else None


@cache
def _speaks_of_them(file: str) -> bool:
    """A file of tests names one of the packages."""
    text = Path(file).read_text()
    return any(package.replace("/", ".") in text for package in PACKAGES)


class Surveyor:
    """pytest plugin: notes which test runs which lines."""

    def __init__(self) -> None:
        import coverage  # here, because nothing else needs it

        self.coverage = coverage.Coverage(
            data_file=None, include=[f"{package}/*" for package in PACKAGES], config_file=False, messages=False
        )
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def start(self) -> None:
        """Begin before anything is imported."""
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        began = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = round(time.process_time() - began, 4)
            self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def map(self) -> TestMap:
        """End, and sum up."""
        self.coverage.stop()
        data = self.coverage.get_data()
        tests = list(self.seconds)
        number = {test: index for index, test in enumerate(tests)}
        found = TestMap(state_of_tests(), tests, list(self.seconds.values()), self.failed, {}, {})
        for file in data.measured_files():
            path = Path(file).relative_to(Path.cwd()).as_posix()
            found.lines[path], found.imports[path] = {}, []
            for line, contexts in data.contexts_by_lineno(file).items():
                found.lines[path][str(line)] = [number[context] for context in contexts if context]
                if "" in contexts:
                    found.imports[path].append(line)
        return found
