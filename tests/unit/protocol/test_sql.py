"""The lexer: each rule of the manual (sql-syntax-lexical), and the whole against PostgreSQL's own."""

from __future__ import annotations

import postgast
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgast import pg_query_pb2

from pgpooler.protocol import sql
from pgpooler.protocol.sql import (
    DOUBT,
    NUMBER,
    OPERATOR,
    PARAMETER,
    PUNCTUATION,
    QUOTED,
    STRING,
    UNKNOWN,
    WORD,
    tokens,
)


def kinds(text: bytes) -> list[int]:
    return [token.kind for token in tokens(text)]


def pieces(text: bytes) -> list[bytes]:
    return [text[token.start : token.stop] for token in tokens(text)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"select", WORD),
        (b"_a1$", WORD),
        ("имя".encode(), WORD),
        (b"e", WORD),
        (b'"select"', QUOTED),
        (b'"a""b"', QUOTED),
        (b'"it\'s -- /* $$"', QUOTED),
        (b'U&"d\\0061"', QUOTED),
        (b"''", STRING),
        (b"'it''s -- /* $$'", STRING),
        (b"'\\d+'", STRING),
        (b"E'it\\'s'", STRING),
        (b"e'\\\\'", STRING),
        (b"E'a''b'", STRING),
        (b"B'01'", STRING),
        (b"x'1F'", STRING),
        (b"N'a'", STRING),
        (b"U&'\\0061'", STRING),
        (b"u&'a''b'", STRING),
        (b"$$it's$$", STRING),
        (b"$a$ $$ $b$ $a$", STRING),
        ("$тег$x$тег$".encode(), STRING),
        (b"$1", PARAMETER),
        (b"$12", PARAMETER),
        (b"1", NUMBER),
        (b"1.", NUMBER),
        (b".5", NUMBER),
        (b"1.5e-10", NUMBER),
        (b"1E5", NUMBER),
        (b"1_000.5", NUMBER),
        (b"0x1F", NUMBER),
        (b"0b01", NUMBER),
        (b"0o17", NUMBER),
        (b"<>", OPERATOR),
        (b"@-", OPERATOR),
        (b"?|", OPERATOR),
        (b"->>", OPERATOR),
        (b"::", PUNCTUATION),
        (b":=", PUNCTUATION),
        (b"..", PUNCTUATION),
        (b";", PUNCTUATION),
        (b"$", UNKNOWN),
        (b"\0", UNKNOWN),
        (b"\\", UNKNOWN),
        (b"{", UNKNOWN),
    ],
)
def test_what_is_one_token_of_one_kind(text: bytes, kind: int) -> None:
    assert [(token.kind, token.start, token.stop) for token in tokens(text)] == [(kind, 0, len(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a.b", [b"a", b".", b"b"]),
        (b"a -- b\nc", [b"a", b"c"]),
        (b"a--", [b"a"]),
        (b"-- only a comment", []),
        (b"/* only a comment */", []),
        (b"a/* b /* c */ d */e", [b"a", b"e"]),
        (b"a/*/*/*/**/*/*/*/b", [b"a", b"b"]),
        (b"a/**/b", [b"a", b"b"]),
        (b"a/***/b", [b"a", b"b"]),
        (b"a+--b\n-1", [b"a", b"+", b"-", b"1"]),
        (b"a*/*b*/c", [b"a", b"*", b"c"]),
        (b"a<-1", [b"a", b"<", b"-", b"1"]),
        (b"a@-1", [b"a", b"@-", b"1"]),
        (b"1+-+2", [b"1", b"+", b"-", b"+", b"2"]),
        (b"1..2", [b"1", b"..", b"2"]),
        (b"a[1:2]", [b"a", b"[", b"1", b":", b"2", b"]"]),
        (b"name'x'", [b"name", b"'x'"]),
        (b"a$b$c", [b"a$b$c"]),
        (b"$1$$x$$", [b"$1", b"$$x$$"]),
        (b"1e", [b"1", b"e"]),
        (b"'a' 'b'", [b"'a'", b"'b'"]),
        (b"'a'\n'b'", [b"'a'", b"'b'"]),
        (b"b'0''1'", [b"b'0'", b"'1'"]),
        (b" \t\r\n\f\v", []),
        (b"a\x0bb", [b"a", b"b"]),
    ],
)
def test_how_a_text_is_cut(text: bytes, expected: list[bytes]) -> None:
    assert pieces(text) == expected


def test_words_are_folded_and_quoted_names_are_not() -> None:
    assert [token.word for token in tokens(b'SeLeCt "SeLeCt" "a""b" U&"x"')] == [b"select", b"SeLeCt", b'a"b', b""]


def test_only_ascii_is_folded() -> None:
    assert tokens("É".encode())[0].word == "É".encode()


def test_operators_and_punctuation_say_what_they_are_and_constants_do_not() -> None:
    assert [token.word for token in tokens(b"( <> $1 'x' 5")] == [b"(", b"<>", b"", b"", b""]


@pytest.mark.parametrize(
    "text",
    [b"'a", b"E'a\\'", b"b'0", b'"a', b'U&"a', b"u&'a", b"/* a", b"/* /* */", b"$$ a", b"$a$ $b$", b"E'a\\", b"'''"],
)
def test_what_never_ends_is_one_doubt_to_the_end(text: bytes) -> None:
    assert [(token.kind, token.stop) for token in tokens(text + b" ; x")] == [(DOUBT, len(text) + 4)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(rb"'\'", id="ends the constant or not: standard_conforming_strings"),
        pytest.param(rb"'\\'", id="the same in some encodings"),
        pytest.param(rb"N'a\''''", id="a national one"),
        pytest.param(b"E'\x83\\'", id="an escape, or the second byte of a character"),
        pytest.param(b"\x83\\", id="a name"),
        pytest.param(b"a\x83|", id="a name or an operator"),
    ],
)
def test_what_may_end_elsewhere_is_doubt(text: bytes) -> None:
    assert DOUBT in kinds(text + b" '")


@pytest.mark.parametrize("text", [rb"'\d'", rb"'C:\x'", rb"'\\a'", "E'é'".encode(), b"E'\\\\'", rb"U&'\'"])
def test_a_backslash_that_cannot_change_the_end_is_no_doubt(text: bytes) -> None:
    assert kinds(text) == [STRING]


def test_every_kind_has_a_name() -> None:
    assert sql.NAMES[DOUBT] == "doubt"
    assert sql.NAMES[WORD] == "word"
    assert len(sql.NAMES) == DOUBT + 1


# -- properties --------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(b"select", b"a", b"E", b"u&", b"n", b"x", b"1", b"0x", b"1.", b"e5", b"_", b"\xc3\xa9", b"\x83", b"$1"),
    *(b"'", b"''", b'"', b"\\", b"$$", b"$a$", b"$", b"--", b"/*", b"*/", b"\n", b" ", b"\t", b";", b"(", b")"),
    *(b"+", b"-", b"*", b"/", b"<", b"=", b"@", b"?", b"&", b"::", b":", b".", b"..", b",", b"[", b"]", b"{", b"\0"),
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join)


@given(st.one_of(st.binary(max_size=200), texts))
def test_tokens_tile_any_text_up_to_white_space_and_comments(text: bytes) -> None:
    position = 0
    for token in tokens(text):
        assert position <= token.start < token.stop
        assert passed_over(text[position : token.start])
        position = token.stop
    assert position <= len(text)
    assert passed_over(text[position:])


def passed_over(gap: bytes) -> bool:
    """Whether this is nothing but white space and whole comments, by another way than the lexer's."""
    depth = position = 0
    while position < len(gap):
        pair = gap[position : position + 2]
        if pair == b"/*" or (pair == b"*/" and depth):
            depth += 1 if pair == b"/*" else -1
            position += 2
        elif not depth and pair == b"--":
            end = min((gap.find(mark, position) % (len(gap) + 1) for mark in (b"\n", b"\r")), default=len(gap))
            position = end
        elif depth or gap[position] in b" \t\n\r\f\v":
            position += 1
        else:
            return False
    return depth == 0


@given(texts, texts)
def test_texts_one_below_the_other_have_the_tokens_of_both(first: bytes, second: bytes) -> None:
    if DOUBT not in kinds(first):
        first += b"\n"
        both = pieces(first + second)
        assert both == pieces(first) + pieces(second)


@pytest.mark.parametrize(
    "part",
    [b"'", b'"', b"/*", b"*/", b"/**/", b"--\n", b"-- ", b"$a$", b"$a", b"$", b"+", b"-", b"E'\\", b"u&'", b"1_", b"("],
)
def test_time_grows_with_the_text_only(part: bytes) -> None:
    """A quadratic lexer would need minutes for this."""
    assert len(tokens(part * (400_000 // len(part)))) <= 400_000


# -- PostgreSQL's own lexer --------------------------------------------------------------------------------------------

COMMENTS = {pg_query_pb2.Token.Value("SQL_COMMENT"), pg_query_pb2.Token.Value("C_COMMENT")}
STRINGS = {pg_query_pb2.Token.Value(name) for name in ("SCONST", "USCONST", "BCONST", "XCONST")}
THEIRS = {
    **dict.fromkeys(STRINGS, STRING),
    pg_query_pb2.Token.Value("UIDENT"): QUOTED,
    pg_query_pb2.Token.Value("ICONST"): NUMBER,
    pg_query_pb2.Token.Value("FCONST"): NUMBER,
    pg_query_pb2.Token.Value("PARAM"): PARAMETER,
    pg_query_pb2.Token.Value("Op"): OPERATOR,
}
ORACLE_FRAGMENTS = [fragment for fragment in FRAGMENTS if fragment not in (b"\x83", b"\0", b"1", b"_", b"e5", b"$1")]
oracle_texts = st.lists(
    st.sampled_from([*ORACLE_FRAGMENTS, b" 1 ", b" 1.5 ", b" $1 ", b" 'a' ", b" E'\\'' ", b" $q$ ' $q$ ", b'"q"']),
    max_size=20,
).map(b"".join)


def theirs(text: bytes) -> list[tuple[int, int]] | None:
    """Where PostgreSQL's tokens begin and end, without comments; None where it reports an error."""
    try:
        result = postgast.scan(text.decode())
    except postgast.PgQueryError:
        return None
    return [(token.start, token.end) for token in result.tokens if token.token not in COMMENTS]


def ours(text: bytes) -> list[tuple[int, int]]:
    """The same of ours; to PostgreSQL, constants below each other are one token, and N'...' is two."""
    joined: list[tuple[int, int]] = []
    previous = 0
    for token in tokens(text):
        gap = text[joined[-1][1] : token.start] if joined else b""
        below = previous == STRING and token.kind == STRING and text[token.start : token.start + 1] == b"'"
        if below and (b"\n" in gap or b"\r" in gap) and b"/*" not in gap and joined and not dollar(text, joined[-1]):
            joined[-1] = joined[-1][0], token.stop
        elif token.kind == STRING and text[token.start] in b"nN":
            joined += [(token.start, token.start + 1), (token.start + 1, token.stop)]
        else:
            joined.append((token.start, token.stop))
        previous = token.kind
    return joined


def dollar(text: bytes, place: tuple[int, int]) -> bool:
    return text[place[0]] == ord("$")


@given(oracle_texts)
def test_postgresql_cuts_the_same_tokens(text: bytes) -> None:
    expected = theirs(text)
    if expected is None:
        return
    if DOUBT in kinds(text):
        # PostgreSQL's lexer alone runs with standard_conforming_strings on, and in UTF-8.
        assert b"\\" in text or any(f"é{second:c}".encode() in text for second in sql.SECOND_BYTES)
    else:
        assert ours(text) == expected


@given(oracle_texts)
def test_what_postgresql_finds_unterminated_is_doubt(text: bytes) -> None:
    try:
        postgast.scan(text.decode())
    except postgast.PgQueryError as error:
        if "unterminated" in str(error):
            assert DOUBT in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT a, 'b', E'c\\n', $1, 1.5, \"d\", U&\"e\", U&'f', b'0', x'1', $$g$$, h::int, i <-> j FROM k -- l",
        b"INSERT INTO t (a) VALUES (1), (-2), (+ 3) ON CONFLICT DO NOTHING RETURNING *;",
        b"select a->>'b', c @> '{}'::jsonb, d[1:2], f(x => 1, y := 2) /* e /* f */ */ where not g ?| h",
    ],
)
def test_postgresql_sees_the_same_kinds(text: bytes) -> None:
    expected = [
        (token.start, token.end, THEIRS[token.token])
        for token in postgast.scan(text.decode()).tokens
        if token.token in THEIRS
    ]
    found = {(token.start, token.stop): token.kind for token in tokens(text)}
    assert expected
    assert [(start, stop, found[start, stop]) for start, stop, _ in expected] == expected
