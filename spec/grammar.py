"""Expressions over message names and their derivatives: a conversation is a regular expression, judging is deriving.

`after` gives what remains of a conversation once a message was said, `legal` what may be said next, `may_end` whether
nothing more need be said.  The same three functions judge and generate.  Expressions are values: frozen, comparable,
and kept small by `alternative` and `sequence`, so that an expression never grows while it is consumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias


@dataclass(frozen=True)
class Never:
    """Matches nothing: the conversation cannot go on like this."""


@dataclass(frozen=True)
class Done:
    """Matches the empty conversation: there is nothing more to say."""


@dataclass(frozen=True)
class Msg:
    """One message of this name."""

    name: str


@dataclass(frozen=True)
class Alt:
    """Either of the two."""

    left: Expression
    right: Expression


@dataclass(frozen=True)
class Cat:
    """First the one, then the other."""

    left: Expression
    right: Expression


@dataclass(frozen=True)
class Many:
    """Any number of times, also none."""

    body: Expression


Expression: TypeAlias = "Never | Done | Msg | Alt | Cat | Many"
"""What a conversation may be."""


def may_end(e: Expression) -> bool:
    """Return whether the conversation may end here."""
    match e:
        case Done() | Many():
            return True
        case Alt(left, right):
            return may_end(left) or may_end(right)
        case Cat(left, right):
            return may_end(left) and may_end(right)
    return False


@cache
def after(e: Expression, name: str) -> Expression:
    """Return what remains of the conversation after this message (its Brzozowski derivative)."""
    match e:
        case Msg(said):
            return Done() if said == name else Never()
        case Alt(left, right):
            return alternative(after(left, name), after(right, name))
        case Many(body):
            return sequence(after(body, name), e)
        case Cat(left, right):
            remaining = sequence(after(left, name), right)
            return alternative(remaining, after(right, name)) if may_end(left) else remaining
    return Never()


@cache
def legal(e: Expression) -> frozenset[str]:
    """Return the names of the messages that may come next."""
    match e:
        case Msg(name):
            return frozenset((name,))
        case Alt(left, right):
            return legal(left) | legal(right)
        case Many(body):
            return legal(body)
        case Cat(left, right):
            return legal(left) | legal(right) if may_end(left) else legal(left)
    return frozenset()


def names(e: Expression) -> Iterator[str]:
    """Yield the name of every message in the expression, in the order in which they are written."""
    match e:
        case Msg(name):
            yield name
        case Alt(left, right) | Cat(left, right):
            yield from names(left)
            yield from names(right)
        case Many(body):
            yield from names(body)


def alternative(left: Expression, right: Expression) -> Expression:
    """Return either of the two, without what can never be said and without saying it twice."""
    if isinstance(left, Never) or left == right:
        return right
    return left if isinstance(right, Never) else Alt(left, right)


def sequence(left: Expression, right: Expression) -> Expression:
    """Return the one and then the other, without what need not be said."""
    if isinstance(left, Never) or isinstance(right, Done):
        return left
    if isinstance(left, Done) or isinstance(right, Never):
        return right
    if isinstance(left, Cat):
        return Cat(left.left, sequence(left.right, right))
    return Cat(left, right)


def seq(*parts: str | Expression) -> Expression:
    """Return the parts one after the other; a text stands for the message of that name."""
    whole: Expression = Done()
    for part in reversed(parts):
        whole = sequence(Msg(part) if isinstance(part, str) else part, whole)
    return whole


def either(*parts: str | Expression) -> Expression:
    """Return any one of the parts."""
    whole: Expression = Never()
    for part in reversed(parts):
        whole = alternative(Msg(part) if isinstance(part, str) else part, whole)
    return whole


def many(*parts: str | Expression) -> Expression:
    """Return the parts in a row, any number of times."""
    return Many(seq(*parts))


def optional(*parts: str | Expression) -> Expression:
    """Return the parts in a row, or nothing."""
    return alternative(seq(*parts), Done())
