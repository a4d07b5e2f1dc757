"""The page made of spec says all of it, in a notation that people read as they read regular expressions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spec import tables
from spec.conversation import REPLY, RULES
from spec.grammar import Alt, Cat, Done, Expression, Many, Msg, Never, either, many, optional, seq
from spec.messages import MESSAGES
from spec.types import Array, Bytes, Constant, Field, Group, Int, Rest, Tag, Text, Until0, Value

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "protocol.md"
A, B, C = Msg("a"), Msg("b"), Msg("c")


def test_the_page_in_docs_is_what_is_printed_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == tables.page(), (
        "write it again: python -m spec tables > docs/reference/protocol.md"
    )


def test_the_page_lists_every_message_every_request_and_every_rule() -> None:
    page = tables.page()
    for message in MESSAGES:
        assert f"[{message.name}]({tables.MANUAL}{message.anchor.replace('#', '.html#')})" in page
        assert message.meaning.replace("|", "\\|") in page
    for request in REPLY:
        assert f"- **{request}**: `" in page
    for rule in RULES:
        assert f"| [{rule.name}](" in page
        assert rule.text in page


def test_every_row_of_a_table_has_as_many_cells_as_its_headings() -> None:
    widths: list[int] = []
    for line in tables.page().splitlines():
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)))
        assert widths[-1] == widths[0], line


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Never(), "never"),
        (Done(), "nothing"),
        (A, "a"),
        (either("a", "b", "c"), "a | b | c"),
        (seq("a", "b", "c"), "a b c"),
        (Cat(Cat(A, B), C), "a b c"),
        (seq("a", either("b", "c")), "a (b | c)"),
        (either(seq("a", "b"), "c"), "a b | c"),
        (many("a"), "a*"),
        (many("a", "b"), "(a b)*"),
        (Many(either("a", "b")), "(a | b)*"),
        (Many(many("a")), "(a*)*"),
        (optional("a"), "a?"),
        (optional("a", "b"), "(a b)?"),
        (Alt(Done(), A), "a?"),
        (Alt(Alt(A, Done()), B), "(a | b)?"),
        (seq("a", Alt(either("b", "c"), Done())), "a (b | c)?"),
        (Many(optional("a")), "(a?)*"),
        (seq("a", many("a")), "a+"),
        (seq("c", "a", "b", many("a", "b"), "c"), "c (a b)+ c"),
        (seq(either("a", "b"), Many(either("a", "b"))), "(a | b)+"),
        (seq("a", many("b")), "a b*"),
    ],
)
def test_the_notation_of_an_expression(expression: Expression, text: str) -> None:
    assert tables.notation(expression) == text


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (Int(16, -32768, 32767), "Int16"),
        (Int(32, 0, 2**32 - 1), "UInt32"),
        (Constant(32, 5), "Int32 = 5"),
        (Tag(b"SP"), "S or P"),
        (Tag(b"SVCM", may_grow=True), "a letter"),
        (Bytes(4), "4 bytes"),
        (Text(), "String"),
        (Text(1), "String+"),
        (Value(), "Value"),
        (Rest(4, 4), "4 bytes"),
        (Rest(4, 256), "4 to 256 bytes"),
        (Rest(0, 100), "up to 100 bytes"),
        (Array(Group((("x", Text()), ("y", Value()))), Int(16, 0, 65535)), "(x String, y Value)[UInt16]"),
        (Until0(Text(1)), "String+...0"),
    ],
)
def test_the_notation_of_a_field(field: Field, text: str) -> None:
    assert tables.notation_of_field(field) == text
