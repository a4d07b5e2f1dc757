"""docs/reference/lessons-of-peers.md: every test it names exists, and no lesson that is tested is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "lessons-of-peers.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("|")]
LESSONS = [row for row in ROWS if row[0] and not row[0].startswith("---") and len(row) == 5]
NOT_YET = "oes not apply yet"


def names_in(paths: str) -> set[str]:
    """The names of the tests in these files."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob(paths)]
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def test_every_test_that_the_page_names_exists() -> None:
    assert named(PAGE) - names_in("**/test_*.py") == set()


def test_every_lesson_that_is_tested_is_on_the_page() -> None:
    assert names_in("*/test_lessons_of_peers.py") - names_in("unit/test_lessons_of_peers.py") - named(PAGE) == set()


def test_every_lesson_has_a_test_or_does_not_apply_yet() -> None:
    assert [row[0] for row in LESSONS if not named(row[4]) and NOT_YET not in row[3]] == []


def test_the_twenty_bugs_are_numbered() -> None:
    assert [int(row[0]) for row in LESSONS if row[0].isdecimal()] == list(range(1, 21))
