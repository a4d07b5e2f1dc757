from __future__ import annotations

import re
from pathlib import Path

import pytest

from spec.conformance.themes import THEMES
from tests.integration.intended import INTENDED

DOCUMENT = (Path(__file__).parents[3] / "docs/reference/conformance.md").read_text(encoding="utf-8")
HEADINGS = {
    "session": "### Session mode",
    "transaction": "### Transaction and statement mode",
    "statement": "### Transaction and statement mode",
}


@pytest.mark.parametrize("mode", INTENDED)
def test_the_page_lists_exactly_the_intended_deviations_of_each_mode(mode: str) -> None:
    section = re.split(r"^##", DOCUMENT.partition(HEADINGS[mode] + "\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert dict(re.findall(r"^- `([^`]+)`: (.*)$", section, re.MULTILINE)) == dict(INTENDED[mode])


@pytest.mark.parametrize("mode", INTENDED)
def test_every_intended_deviation_is_one_of_a_script(mode: str) -> None:
    names = {f"{theme.name}: {script.name}" for theme in THEMES.values() for script in theme.scripts}
    assert set(INTENDED[mode]) <= names


def test_the_table_of_the_page_has_every_theme_with_its_number_of_scripts() -> None:
    numbers = dict(re.findall(r"^\| (\w+) \| (\d+) \| \d+ / ", DOCUMENT, re.MULTILINE))
    assert numbers.pop("all") == str(sum(len(theme.scripts) for theme in THEMES.values()))
    assert numbers == {theme.name: str(len(theme.scripts)) for theme in THEMES.values()}
