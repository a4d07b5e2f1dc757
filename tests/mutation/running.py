"""Runs tests on a mutant, in a process of its own that nothing but the mutant tells apart from an ordinary run.

The parent has imported what every run needs (pytest, Hypothesis, the specification) and nothing of PgPooler; a child is
forked from it, so that a run costs little more than its tests.  The mutant is put in by an import hook: no file is
written, and the checkout stays as it is.

Each test may take so many times what it takes without the mutant: in processor time, in which a busy machine does not
matter, and, much more generously, in real time, for a test that waits for something that never comes.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType

import pytest

from tests.mutation.operators import Mutant
from tests.mutation.selection import NOT_FOR_MUTANTS, TESTS, Surveyor, TestMap

PROFILE = "mutation"  # of Hypothesis, see tests/conftest.py
RATIO = 10  # times the processor time of a test on what is not mutated
AT_LEAST = 5.0  # seconds of processor time for a test that needs next to none
START = 60.0  # seconds of processor time until the first test begins
REAL_TIME = 10  # times the patience in processor time
MEMORY = 4 << 30  # bytes a child may address: a mutant that fills the memory fails
PRELOADED = ("hypothesis.stateful", "hypothesis.strategies", "hypothesis.extra", "spec.strategies", "spec.mutators")
OPTIONS = ("-q", "-x", "--assert=plain", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist")

KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; `test` has noticed it."""

    outcome: str
    test: str
    tests: int  # how many were selected
    seconds: float

    @property
    def noticed(self) -> bool:
        """Whether the tests tell the mutant from the original."""
        return self.outcome != SURVIVED


class MutantLoader(SourceFileLoader):
    """Loads a module from its file's name and the mutant's text."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.mutated = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.mutated.encode(), self.path)


class MutantFinder:
    """Finds the mutant instead of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name != self.mutant.module:
            return None
        file = str(Path(self.mutant.path).resolve())
        return spec_from_file_location(name, file, loader=MutantLoader(name, file, self.mutant.source))


class Chosen:
    """pytest plugin: runs the chosen tests in the order they were chosen, and writes down which one runs.

    Tests that the map does not know are run too when the mutant has made them: parameters that come from a table.
    """

    def __init__(self, tests: Sequence[str], known: Mapping[str, float], running: Path, patience: float) -> None:
        self.places = {test: place for place, test in enumerate(tests)}
        self.functions = {test.partition("[")[0] for test in tests}
        self.known = known
        self.running = running
        self.patience = patience
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        made = {item.nodeid for item in items if item.nodeid.partition("[")[0] in self.functions} - set(self.known)
        chosen = [item for item in items if item.nodeid in self.places or item.nodeid in made]
        items[:] = sorted(chosen, key=lambda item: self.places.get(item.nodeid, -1))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running.write_text(nodeid)
        be_patient(max(self.patience, RATIO * self.known.get(nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid or "conftest"


def be_patient(seconds: float) -> None:
    """Let the system end this process when it has used so much more processor time, or after much more real time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, REAL_TIME * seconds)


def preload() -> None:
    """Import what every run needs."""
    for name in PRELOADED:
        importlib.import_module(name)
    strangers = [name for name in sys.modules if name == "pgpooler" or name.startswith("pgpooler.")]
    assert not strangers, f"the mutants' own modules are loaded already: {strangers}"


def survey() -> TestMap:
    """Run all tests once and see what each runs."""

    def work(folder: Path) -> object:
        surveyor = Surveyor()
        surveyor.start()
        pytest.main([*OPTIONS[:1], *OPTIONS[2:], f"--basetemp={folder}/tests", *_everything()], plugins=[surveyor])
        surveyor.map().save(folder / "map.json")
        return None

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = Child(work, folder, quiet=False)
        child.wait()
        found = TestMap.load(folder / "map.json")
    if found is None:
        raise RuntimeError("the tests could not be run on what is not mutated")
    return found


def _everything() -> list[str]:
    return [*TESTS, *(f"--ignore={path}" for path in NOT_FOR_MUTANTS)]


class Child:
    """A process that does `work` and writes what comes of it into a file; a quiet one has limits."""

    def __init__(self, work: Callable[[Path], object], folder: Path, *, quiet: bool = True) -> None:
        self.folder = folder
        self.began = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._be(work, quiet)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)

    def _be(self, work: Callable[[Path], object], quiet: bool) -> None:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2) if quiet else (0,):
            os.dup2(nowhere, descriptor)
        if quiet:
            be_patient(START)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.environ["HYPOTHESIS_PROFILE"] = PROFILE
        os.environ.pop("PGPOOLER_IMPL", None)
        result = work(self.folder)
        (self.folder / "result.json").write_text(json.dumps(result))
        os._exit(0)

    @property
    def over(self) -> bool:
        """The process has ended, and with it all it had started."""
        if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            return False
        self.end()
        return True

    def end(self) -> None:
        """End the process and all it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        while not self.over:
            time.sleep(0.05)

    def read(self, name: str) -> str:
        """Return what the process has written into a file; empty: it did not come so far."""
        file = self.folder / name
        return file.read_text() if file.exists() else ""


def run_on(
    mutant: Mutant, tests: Sequence[str], known: Mapping[str, float], patience: float
) -> Callable[[Path], object]:
    """Make the work of a child: these tests on this mutant."""

    def work(folder: Path) -> object:
        sys.meta_path.insert(0, MutantFinder(mutant))
        chosen = Chosen(tests, known, folder / "running", patience)
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        code = pytest.main([*OPTIONS, f"--basetemp={folder}/tests", *files], plugins=[chosen])
        return [int(code), chosen.failed]

    return work


def outcome(child: Child, test_count: int) -> Outcome:
    """Read what a child that ended has left behind."""
    seconds = round(time.monotonic() - child.began, 1)
    result = child.read("result.json")
    if not result:
        return Outcome(TIMEOUT, child.read("running"), test_count, seconds)
    code, failed = json.loads(result)
    if code == pytest.ExitCode.OK:
        return Outcome(SURVIVED, "", test_count, seconds)
    return Outcome(KILLED, failed or f"pytest ended with {code}", test_count, seconds)


def run_all(mutants: Sequence[Mutant], tests: TestMap, jobs: int, patience: float) -> Iterator[tuple[Mutant, Outcome]]:
    """Run the tests on all mutants, so many at a time, and say of each what became of it as soon as it is known."""
    waiting = list(reversed(mutants))
    known = dict(zip(tests.tests, tests.seconds, strict=True))
    running: list[tuple[Child, Mutant, int]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                chosen = tests.select(mutant)
                if not chosen:
                    yield mutant, Outcome(SURVIVED, "", 0, 0.0)
                    continue
                folder = Path(tempfile.mkdtemp(prefix="mutant-"))
                running.append((Child(run_on(mutant, chosen, known, patience), folder), mutant, len(chosen)))
            for entry in list(running):
                child, mutant, count = entry
                if child.over:
                    running.remove(entry)
                    result = outcome(child, count)
                    shutil.rmtree(child.folder, ignore_errors=True)
                    yield mutant, result
            time.sleep(0.02)
    finally:
        for child, _, _ in running:
            child.end()
            os.waitpid(child.pid, 0)
            shutil.rmtree(child.folder, ignore_errors=True)
