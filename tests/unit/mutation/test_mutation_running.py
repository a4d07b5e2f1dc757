"""The whole tool, on a project of a few lines: what is noticed, what is not, what never ends, going on after a stop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OPTIONS = ("--sample", "0", "--results", "results.json", "--patience", "1")
MODULE = """
LIMIT = 3


def below(number: int) -> bool:
    return number < LIMIT


def count(start: int) -> int:
    while start < LIMIT:
        start += 1
    return start


def never_called() -> None:
    print(LIMIT)
"""
TESTS = """
from pgpooler.protocol.x import below, count


def test_below() -> None:
    assert below(2)
    assert not below(3)


def test_count() -> None:
    assert count(0) == 3
"""
RULES = """
# -- a comment --

1: nothing is below
pgpooler/protocol/x.py
-    return number < LIMIT
+    return False
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout that holds the tool, the specification and one module."""
    for folder in ("pgpooler/protocol", "pgpooler/pooling", "tests/unit", "tests/protocol"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pgpooler/__init__.py").touch()
    (tmp_path / "pgpooler/protocol/__init__.py").touch()
    (tmp_path / "pgpooler/protocol/x.py").write_text(MODULE)
    (tmp_path / "tests/unit/test_x.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\npythonpath = .\n")
    shutil.copytree(ROOT / "tests/mutation", tmp_path / "tests/mutation")
    (tmp_path / "tests/mutation/rules.txt").write_text(RULES)
    (tmp_path / "spec").symlink_to(ROOT / "spec")
    return tmp_path


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(project), *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != str(ROOT))]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.mutation",
            "--sample",
            "0",
            "--results",
            "results.json",
            "--patience",
            "1",
            *arguments,
        ],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def outcomes(project: Path) -> dict[str, str]:
    entries = json.loads((project / "results.json").read_text()).values()
    return {" / ".join(line[1:].strip() for line in entry["diff"] if line[0] == "+"): entry for entry in entries}


def test_what_the_tests_notice_is_told_from_what_they_do_not(project: Path) -> None:
    first = run(project, "--only", "comparison")
    assert first.returncode == 0, first.stdout + first.stderr
    assert {line: entry["outcome"] for line, entry in outcomes(project).items()} == {
        "return number <= LIMIT": "killed",
        "return number >= LIMIT": "killed",
        "while start <= LIMIT:": "killed",
        "while start >= LIMIT:": "killed",
    }
    everything = run(project, "--report", "report.md")
    assert everything.returncode == 1, "one survives for which no reason is known"
    assert "; 9 to run" in everything.stdout, "all but the four that are known"
    found = outcomes(project)
    assert found["return False"]["outcome"] == "killed"
    assert found["pass"]["outcome"] == "survived", "nothing calls it"
    assert found["LIMIT = 4"]["outcome"] == "killed"
    assert found["start += (0)"]["outcome"] == "timeout"
    assert found["start -= 1"]["outcome"] == "timeout"
    assert found["start -= 1"]["test"].endswith("::test_count")
    assert "NO REASON KNOWN" in (project / "report.md").read_text()
    assert (project / "pgpooler/protocol/x.py").read_text() == MODULE


def test_tests_that_fail_on_what_is_not_mutated_say_nothing_about_mutants(project: Path) -> None:
    (project / "tests/unit/test_y.py").write_text("def test_wrong() -> None:\n    assert False\n")
    result = run(project)
    assert result.returncode == 2
    assert "tests/unit/test_y.py::test_wrong" in result.stdout
