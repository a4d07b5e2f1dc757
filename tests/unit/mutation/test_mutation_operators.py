"""What operators make of small modules, and what they leave alone."""

from __future__ import annotations

import textwrap

import pytest

from tests.mutation.operators import Mutant, mutants


def made(text: str) -> list[Mutant]:
    return mutants("pgpooler/protocol/x.py", textwrap.dedent(text).lstrip())


def lines(text: str) -> set[str]:
    """The changed lines of all mutants."""
    return {" / ".join(line[1:].strip() for line in mutant.diff if line[0] == "+") for mutant in made(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a < b", {"x = a <= b", "x = a >= b"}),
        ("x = a >= b", {"x = a > b", "x = a < b"}),
        ("x = (a) == (b)", {"x = (a) != (b)"}),
        ("x = a is not b", {"x = a is b"}),
        ("x = a not in b", {"x = a in b"}),
        ("x = a in (b, c)", {"x = a not in (b, c)", "x = a in (b,)", "x = a in (c,)"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = not a", {"x = (a)"}),
        ("x = a + b", {"x = a - b"}),
        ("x = a << b", {"x = a >> b"}),
        ("x += b", {"x -= b"}),
        ("x = 1 if a else b", {"x = 1 if (not (a)) else b", "x = 2 if a else b", "x = (0) if a else b"}),
        ("x = 0", {"x = 1"}),
        ("x = True", {"x = False"}),
        ("x = b'ab'", {'x = b""'}),
        ("x = [a for a in b if a]", {"x = [a for a in b if (not (a))]"}),
        ("x = min(a)", {"x = max(a)"}),
        ("x = a.startswith(b)", {"x = a.endswith(b)"}),
        ("x = {a: b, c: d}", {"x = {a: d, c: b}"}),
        ("X = (a, b, c)", {"X = (b, c)", "X = (a, c)", "X = (a, b)"}),
        ("X = (a(), b)", {"X = (b, a())"}),
        ("x = frozenset((a, b))", {"x = frozenset((a,))", "x = frozenset((b,))"}),
        ("x = {a, b}", {"x = {a,}", "x = {b,}"}),
        ("x.y = a", {"pass"}),
        ("del x[a]", {"pass"}),
        ("f(a)", {"pass"}),
        ("raise a", {"pass"}),
        ("def f(a=1): f(a)", {"def f(a=2): f(a)", "def f(a=(0)): f(a)", "def f(a=1): pass"}),
        ("def f() -> int: return a", {"def f() -> int: return None"}),
        ("def f() -> bool: return a()", {"def f() -> bool: return not (a())"}),
        ("while a: break", {"while (not (a)): break", "while a: continue"}),
    ],
)
def test_an_operator_makes_these_mutants(text: str, expected: set[str]) -> None:
    assert lines(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "'''Text for people.'''",
        "from a import b",
        "x: int",
        "def f(a: tuple[int, str]) -> dict[int, str]: '''Text.'''",
        "@cached(1)\ndef f(): '''Text.'''",
        "class A(B, metaclass=C): '''Text.'''",
        "__slots__ = ('a', 'b')",
        "def __repr__(self): return f(1)",
        "x = f'{a + 1}'",
        "x = 'words'",
        "assert a < b",
        "raise NotImplementedError",
        "if TYPE_CHECKING: x = 1",
        "x = zip(a, b, strict=True)",
        "Alias = Callable[[int, str], None]",
        "def f(): return None",
        "def f(): return ''",
    ],
)
def test_what_no_test_should_pin_down_is_left_alone(text: str) -> None:
    assert made(text) == []


def test_what_is_no_python_is_no_mutant() -> None:
    """`-` of two texts compiles, a `break` outside a loop does not."""
    for mutant in made("for a in b:\n    if a: continue\nx = 1"):
        compile(mutant.source, "x", "exec")


def test_a_mutant_knows_its_lines_and_whether_it_happens_at_import() -> None:
    module = """
        LIMIT = 1

        def f(a=2):
            if a:
                return (
                    a +
                    3
                )
    """
    found = {(mutant.name, mutant.diff[0][1:].strip()): mutant for mutant in made(module)}
    assert found["constant", "LIMIT = 1"].lines == (1,)
    assert found["constant", "LIMIT = 1"].at_import
    assert found["constant", "def f(a=2):"].at_import
    assert not found["constant", "3"].at_import
    assert found["constant", "3"].lines == (7, 5), "its own, and that of its statement"
    assert found["condition negated", "if a:"].lines == (4,)
    assert found["return value", "a +"].lines == (6, 7, 5)


def test_letters_of_several_bytes_do_not_shift_what_is_changed() -> None:
    assert lines("x = f('é', a < b)") == {"x = f('é', a <= b)", "x = f('é', a >= b)"}


def test_the_key_changes_with_anything_in_the_module() -> None:
    (one,), (other, _) = made("x = 0"), made("x = 0\ny = 0")
    assert one.key != other.key
    assert one.key == made("x = 0")[0].key
    assert one.module == "pgpooler.protocol.x"
