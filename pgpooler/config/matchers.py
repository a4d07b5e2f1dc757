"""Matchers: how a rule says which users or databases it means.

A pattern is a name (`sales`), a prefix (`sales_*`, and `*` for anything) or a regular expression (`~ ^sales_`),
which is searched for, not matched from the start.  A matcher is one pattern or a list of them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache

from pgpooler.config.choices import PatternKind
from pgpooler.config.model import Pattern

ANYTHING = Pattern(kind=PatternKind.PREFIX, text="")
"""What an absent matcher means."""


def parse_pattern(text: str) -> Pattern:
    """Read one pattern; raises ValueError with a message for the operator.

    `~ re`, `~ "re"` and the same within YAML's own quotes are one expression: the tilde, the blanks behind it and one
    pair of quotes are taken off.
    """
    if not text:
        raise ValueError("a matcher must not be empty; write * for anything")
    if text.startswith("~"):
        expression = _without_quotes(text[1:].strip())
        compile_expression(expression)
        return Pattern(kind=PatternKind.REGEX, text=expression)
    if text.count("*") == 1 and text.endswith("*"):
        return Pattern(kind=PatternKind.PREFIX, text=text[:-1])
    return Pattern(kind=PatternKind.EXACT, text=text)


def _without_quotes(text: str) -> str:
    for quote in ('"', "'"):
        if len(text) >= 2 and text[0] == text[-1] == quote:
            return text[1:-1]
        if text.startswith(quote):
            raise ValueError(
                f"the regular expression {text} opens a quote that it does not close; "
                'in a list, where a comma ends the value, quote the whole: "~ ^a{1,2}"'
            )
    return text


def compile_expression(expression: str) -> re.Pattern[str]:
    """Compile a regular expression; raises ValueError with a message for the operator."""
    if not expression:
        raise ValueError("the regular expression is empty; write * for anything")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"bad regular expression {expression!r}: {error}") from None


def pattern_text(pattern: Pattern) -> str:
    """The pattern as an operator writes it."""
    if pattern.kind is PatternKind.REGEX:
        return f"~ {pattern.text}"
    return pattern.text + ("*" if pattern.kind is PatternKind.PREFIX else "")


def matcher_function(matcher: tuple[Pattern, ...] | None) -> Callable[[str], bool]:
    """The test a matcher stands for, compiled once."""
    tests = [pattern_function(pattern) for pattern in ((ANYTHING,) if matcher is None else matcher)]
    if len(tests) == 1:
        return tests[0]
    return lambda name: any(test(name) for test in tests)


@lru_cache(maxsize=1024)
def pattern_function(pattern: Pattern) -> Callable[[str], bool]:
    """The test one pattern stands for."""
    text = pattern.text
    if pattern.kind is PatternKind.EXACT:
        return lambda name: name == text
    if pattern.kind is PatternKind.PREFIX:
        return lambda name: name.startswith(text)
    search = compile_expression(text).search
    return lambda name: search(name) is not None


def covers(wide: Pattern, narrow: Pattern) -> bool:
    """Whether everything that `narrow` matches is surely matched by `wide`; False also means "cannot tell"."""
    if wide in (narrow, ANYTHING):
        return True
    if narrow.kind is PatternKind.EXACT:
        return pattern_function(wide)(narrow.text)
    return wide.kind is PatternKind.PREFIX and narrow.kind is PatternKind.PREFIX and narrow.text.startswith(wide.text)
