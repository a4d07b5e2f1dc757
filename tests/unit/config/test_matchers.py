"""Matchers against an obvious oracle."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import PatternKind
from pgpooler.config.matchers import covers, matcher_function, parse_pattern, pattern_function, pattern_text
from pgpooler.config.model import Pattern

LETTERS = "ab_1"
names = st.text(LETTERS, min_size=1, max_size=4)
expressions = st.sampled_from(["^a", "b$", "a|b", "^(a|b)_", "a.b", "^a{1,2}$", "[ab]1", "_"])

Oracle = Callable[[str], bool]


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Oracle]:
    """A pattern as an operator writes it, and what it means."""
    kind = draw(st.sampled_from(PatternKind))
    if kind is PatternKind.REGEX:
        expression = draw(expressions)
        spelling = draw(st.sampled_from(["~ {}", '~ "{}"', "~ '{}'", "~{}", "~   {}"]))
        return spelling.replace("{}", expression), lambda name: bool(re.search(expression, name))
    text = draw(names)
    if kind is PatternKind.PREFIX:
        return f"{text}*", lambda name: name[: len(text)] == text
    return text, lambda name: name == text


patterns = written().map(lambda pair: parse_pattern(pair[0])) | st.just(parse_pattern("*"))


@given(written(), names)
def test_every_form_matches_what_it_says(pair: tuple[str, Oracle], name: str) -> None:
    text, oracle = pair
    assert pattern_function(parse_pattern(text))(name) == oracle(name)


@given(st.lists(written(), min_size=1, max_size=4), names)
def test_a_list_matches_when_any_of_its_items_does(pairs: list[tuple[str, Oracle]], name: str) -> None:
    matcher = tuple(parse_pattern(text) for text, _ in pairs)
    assert matcher_function(matcher)(name) == any(oracle(name) for _, oracle in pairs)


@given(patterns, patterns, names)
def test_a_pattern_that_covers_another_matches_all_the_other_matches(wide: Pattern, narrow: Pattern, name: str) -> None:
    if covers(wide, narrow) and pattern_function(narrow)(name):
        assert pattern_function(wide)(name)


@given(patterns)
def test_a_pattern_written_out_reads_back_the_same(pattern: Pattern) -> None:
    assert parse_pattern(pattern_text(pattern)) == pattern


@given(names)
def test_a_star_alone_and_no_matcher_mean_anything(name: str) -> None:
    assert pattern_function(parse_pattern("*"))(name)
    assert matcher_function(None)(name)


@pytest.mark.parametrize("text", ["a*b", "a**", "*a", "**", "a*b*"])
def test_only_one_star_at_the_very_end_makes_a_prefix(text: str) -> None:
    assert parse_pattern(text) == Pattern(kind=PatternKind.EXACT, text=text)


@pytest.mark.parametrize("text", ['~ "^re"', "~ ^re", "~ '^re'", "~^re"])
def test_quotes_around_an_expression_are_no_part_of_it(text: str) -> None:
    assert parse_pattern(text) == Pattern(kind=PatternKind.REGEX, text="^re")


def test_only_one_pair_of_quotes_is_taken_off() -> None:
    assert parse_pattern("~ '\"a\"'").text == '"a"'


def test_expressions_are_searched_for_anywhere_in_the_name() -> None:
    matches = pattern_function(parse_pattern("~ porti"))
    assert matches("reporting")
    assert not matches("dwh")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must not be empty"),
        ("~", "expression is empty"),
        ("~ ", "expression is empty"),
        ('~ ""', "expression is empty"),
        ("~ (", "bad regular expression"),
        ("~ a{99999999999999}", "bad regular expression"),
        ('~ "^a{1', "does not close"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_pattern(text)


def test_an_expression_that_python_wonders_about_is_taken_as_it_is() -> None:
    assert pattern_function(parse_pattern("~ [[a]"))("[")


@given(st.text())
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    with suppress(ValueError):
        pattern_function(parse_pattern(text))("name")


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("*", "~ x", True),
        ("a*", "ab*", True),
        ("ab*", "a*", False),
        ("a*", "abc", True),
        ("~ ^a", "abc", True),
        ("~ ^a", "a*", False),
        ("~ ^a", "~ ^a", True),
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a*", False),
    ],
)
def test_covering_is_claimed_only_where_it_is_sure(wide: str, narrow: str, covered: bool) -> None:
    assert covers(parse_pattern(wide), parse_pattern(narrow)) is covered
