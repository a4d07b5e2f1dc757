"""spec.grammar: derivatives say the same as the languages that expressions stand for."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from spec.conversation import REPLY, STARTUP
from spec.grammar import (
    Alt,
    Cat,
    Done,
    Expression,
    Many,
    Msg,
    Never,
    after,
    either,
    legal,
    many,
    may_end,
    names,
    optional,
    seq,
)

Word = tuple[str, ...]


def expressions() -> SearchStrategy[Expression]:
    """Expressions over three letters, written without the help of the functions that keep them small."""
    leaves: SearchStrategy[Expression] = st.sampled_from([Never(), Done(), Msg("a"), Msg("b"), Msg("c")])
    return st.recursive(
        leaves,
        lambda part: st.builds(Alt, part, part) | st.builds(Cat, part, part) | st.builds(Many, part),
        max_leaves=6,
    )


def language(e: Expression, longest: int) -> frozenset[Word]:
    """Every word of an expression up to a length, straight from what expressions mean."""
    match e:
        case Done():
            return frozenset({()})
        case Msg(name):
            return frozenset({(name,)} if longest else ())
        case Alt(left, right):
            return language(left, longest) | language(right, longest)
        case Cat(left, right):
            pairs = itertools.product(language(left, longest), language(right, longest))
            return frozenset(first + second for first, second in pairs if len(first + second) <= longest)
        case Many(body):
            words: frozenset[Word] = frozenset({()})
            for _ in range(longest):
                pairs = itertools.product(words, language(body, longest))
                words |= {first + second for first, second in pairs if len(first + second) <= longest}
            return words
    return frozenset()


@given(e=expressions())
def test_the_words_after_a_message_are_those_that_began_with_it(e: Expression) -> None:
    words = language(e, 4)
    for name in "abc":
        assert language(after(e, name), 3) == {word[1:] for word in words if word[:1] == (name,)}


@given(e=expressions())
def test_what_is_legal_is_what_words_begin_with(e: Expression) -> None:
    for name in "abc":
        if isinstance(after(e, name), Never):
            assert language(after(e, name), 4) == frozenset()
    assert {word[0] for word in language(e, 6) if word} <= legal(e) <= set(names(e))


@given(e=expressions())
def test_an_expression_may_end_if_the_empty_word_is_one_of_it(e: Expression) -> None:
    assert may_end(e) == (() in language(e, 0))


@given(e=expressions(), word=st.lists(st.sampled_from("abc"), max_size=40))
def test_expressions_do_not_grow_while_they_are_consumed(e: Expression, word: list[str]) -> None:
    reached = {e}
    for name in word:
        e = after(e, name)
        reached.add(e)
    assert len(list(names(e))) <= 200


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (seq(), Done()),
        (seq("a"), Msg("a")),
        (seq("a", "b", "c"), Cat(Msg("a"), Cat(Msg("b"), Msg("c")))),
        (seq(seq("a", "b"), "c"), seq("a", "b", "c")),
        (seq("a", Never()), Never()),
        (seq(Never(), "a"), Never()),
        (seq("a", Done()), Msg("a")),
        (either(), Never()),
        (either("a", "a"), Msg("a")),
        (either("a", "b"), Alt(Msg("a"), Msg("b"))),
        (either(Never(), "a"), Msg("a")),
        (optional("a", "b"), Alt(seq("a", "b"), Done())),
        (many("a", "b"), Many(seq("a", "b"))),
    ],
    ids=str,
)
def test_expressions_are_written_without_what_says_nothing(written: Expression, expected: Expression) -> None:
    assert written == expected


@pytest.mark.parametrize("e", [STARTUP, *REPLY.values()], ids=["STARTUP", *REPLY])
def test_the_normative_expressions_have_few_states(e: Expression) -> None:
    states, new = {e}, [e]
    while new:
        found = [after(state, name) for state in new for name in legal(state)]
        new = [state for state in dict.fromkeys(found) if state not in states]
        states.update(new)
    assert len(states) < 60
    assert Never() not in states
