"""What is drawn, what is run again, how it is reported, and whether everything that is written down still holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation import rules
from tests.mutation.campaign import Results, report, sample
from tests.mutation.operators import mutants
from tests.mutation.running import KILLED, SURVIVED, TIMEOUT, Outcome
from tests.mutation.selection import PACKAGES, TestMap
from tests.mutation.survivors import REASONS

ROOT = Path(__file__).parents[3]
SOURCES = {"pgpooler/protocol/x.py": "a = 1\nb = 2\nc = d < e\n", "pgpooler/pooling/y.py": "def f():\n    g(1)\n"}


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """The modules that are mutated."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_the_same_seed_draws_the_same_mutants_and_a_larger_sample_holds_the_smaller() -> None:
    few, population = sample(SOURCES, 3, 7)
    more, _ = sample(dict(reversed(SOURCES.items())), 6, 7)
    assert population == 9
    assert more[:3] == few
    assert len(sample(SOURCES, 0, 7)[0]) == population
    assert sample(SOURCES, 6, 8)[0] != more


def test_no_mutant_of_a_sample_is_the_same_as_another(sources: dict[str, str]) -> None:
    drawn, population = sample({path: sources[path] for path in sources if path.endswith("/framer.py")}, 0, 1)
    assert len({mutant.key for mutant in drawn}) == population > 100


def test_a_change_elsewhere_in_a_module_changes_no_place_in_the_draw() -> None:
    changed = {path: text + "\n# a comment\n" for path, text in SOURCES.items()}
    assert [mutant.diff for mutant in sample(changed, 0, 7)[0]] == [mutant.diff for mutant in sample(SOURCES, 0, 7)[0]]


def test_a_mutant_that_was_noticed_is_not_run_again_until_its_module_changes(tmp_path: Path) -> None:
    first, second, third = sample(SOURCES, 3, 7)[0]
    results = Results(tmp_path / "results.json")
    results.add(first, Outcome(KILLED, "test", 5, 0.1), "before")
    results.add(second, Outcome(TIMEOUT, "test", 5, 0.1), "before")
    again = Results(tmp_path / "results.json")
    assert again.to_run([first, second, third], "after") == [third]
    assert again.of(first) == Outcome(KILLED, "test", 5, 0.1)
    changed = {path: text + "z = 0\n" for path, text in SOURCES.items()}
    assert len(again.to_run(sample(changed, 0, 7)[0], "after")) == 11


def test_a_survivor_is_run_again_when_any_test_changes(tmp_path: Path) -> None:
    (mutant,) = sample(SOURCES, 1, 7)[0]
    results = Results(tmp_path / "results.json")
    results.add(mutant, Outcome(SURVIVED, "", 5, 0.1), "before")
    assert results.to_run([mutant], "before") == []
    assert results.to_run([mutant], "after") == [mutant]


def test_the_report_counts_by_module_and_shows_every_survivor(tmp_path: Path) -> None:
    chosen = sorted(sample(SOURCES, 0, 7)[0], key=lambda mutant: (mutant.path, mutant.lines, mutant.diff))
    results = Results(tmp_path / "results.json")
    for mutant, outcome in zip(chosen, (KILLED, TIMEOUT, SURVIVED, SURVIVED, KILLED), strict=False):
        results.add(mutant, Outcome(outcome, "", 1, 1.0), "state")
    assert "\n".join(report("Title", chosen, results)) == (
        """## Title

4 of 9 have not been run.

| module        | mutants | killed | timeout | survived | noticed |
|---------------|--------:|-------:|--------:|---------:|--------:|
| pooling/y.py  |       3 |      1 |       1 |        1 |   66.7% |
| protocol/x.py |       2 |      1 |       0 |        1 |   50.0% |
| all           |       5 |      2 |       1 |        2 |   60.0% |

Survivors:

`pgpooler/pooling/y.py:2` (statement dropped): NO REASON KNOWN

```diff
-    g(1)
+    pass
```

`pgpooler/protocol/x.py:1` (constant): NO REASON KNOWN

```diff
-a = 1
+a = (0)
```"""
    )


# -- which tests -------------------------------------------------------------------------------------------------------


def test_the_tests_that_run_a_line_are_chosen_the_quick_ones_first(tmp_path: Path) -> None:
    lines = {"pgpooler/pooling/y.py": {"2": [0, 2]}, "pgpooler/protocol/x.py": {"1": [1]}}
    tests = [f"{tmp_path}/test.py::{name}" for name in "abcd"]
    (tmp_path / "test.py").write_text("from pgpooler.protocol import x\n")
    known = TestMap("", tests, [2.0, 0.1, 1.0, 0.1], [], lines, {})
    inside = mutants("pgpooler/pooling/y.py", SOURCES["pgpooler/pooling/y.py"])[0]
    outside = mutants("pgpooler/protocol/x.py", SOURCES["pgpooler/protocol/x.py"])[0]
    assert [test[-1] for test in known.select(inside)] == ["c", "a"]
    assert [test[-1] for test in known.select(outside)] == ["b", "c", "a", "d"], "then those that may look at it"
    known.save(tmp_path / "map.json")
    assert TestMap.load(tmp_path / "map.json") == known


# -- what is written down ----------------------------------------------------------------------------------------------


def test_every_broken_rule_changes_lines_that_stand_once_in_their_module(sources: dict[str, str]) -> None:
    found = rules.mutants(sources)
    assert len(found) >= 100
    assert len({mutant.name for mutant in found}) == len({mutant.key for mutant in found}) == len(found)
    for mutant in found:
        compile(mutant.source, mutant.path, "exec")
        assert 1 <= len(mutant.lines) <= 10, mutant.name


@pytest.mark.parametrize("lines", ["-nowhere", "-a = 1\n-nowhere", "- = 1", "-a =", "+a = 1"])
def test_a_rule_whose_lines_are_not_in_the_module_is_an_error(lines: str) -> None:
    with pytest.raises(ValueError, match="rule '1: x'"):
        rules.mutants(SOURCES, f"# comment\n\n1: x\npgpooler/protocol/x.py\n{lines}")


def test_every_reason_for_a_survivor_is_about_a_mutant_that_can_be_made(sources: dict[str, str]) -> None:
    paths = {path for path, _ in REASONS}
    possible = {(path, mutant.diff) for path in paths for mutant in mutants(path, sources[path])}
    assert REASONS.keys() - possible == set()
