"""The words of PostgreSQL's SQL (sql-syntax-lexical), cut out of the raw bytes of a query in one pass.

`tokens` never fails and takes time in proportion to the text, whatever the bytes are.  What nobody can read for certain
becomes a token of kind DOUBT: a quote or comment that never ends, and a text that ends elsewhere

- if standard_conforming_strings is off: a backslash before a quote mark in '...';
- if the client's encoding is one whose characters may end in an ASCII byte (SJIS, BIG5, GBK, UHC, GB18030, JOHAB): in
  them a backslash behind a high byte may escape nothing, and a name may go on with what looks like an operator.

Encodings of servers have no such characters, and the server converts a text before it reads it.  Within quotes and
comments no other byte matters: quote marks, $, *, / and line ends are never the second byte of a character.

Two constants with only a line end between them are one to PostgreSQL and two here; white space and comments make no
token; the rest is cut as PostgreSQL 16 does, older versions differ only where newer ones report an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# -- kinds of tokens --
WORD = 1  # a keyword or an identifier without quotes; `word` is folded to lower case
QUOTED = 2  # "identifier"; `word` is what it names, empty for U&"...", whose escapes are not resolved
STRING = 3  # a constant of any kind: '...' E'...' N'...' B'...' X'...' U&'...' $tag$...$tag$
NUMBER = 4
PARAMETER = 5  # $1
OPERATOR = 6  # `word` is its text
PUNCTUATION = 7  # ( ) [ ] , ; : . and :: := ..; `word` is its text
UNKNOWN = 8  # one byte that begins nothing
DOUBT = 9  # nobody can say where it ends; for a quote or comment that does not end, the rest of the text

NAMES = (None, "word", "quoted", "string", "number", "parameter", "operator", "punctuation", "unknown", "doubt")


class Token(NamedTuple):
    """`text[start:stop]`, with the folded word, the quoted name or the operator that it says; else an empty `word`."""

    kind: int
    start: int
    stop: int
    word: bytes = b""


# One alternative per kind, the most frequent first; `lastgroup` tells which.  Every repetition is possessive (`*+`), so
# that a text which does not match is given up without trying shorter ones.  At every position one of them matches, if
# only `unknown` or `end`: the search never moves on by itself.
TOKEN = re.compile(
    rb"""
    (?: [ \t\n\r\f\v]++ | --[^\n\r]*+ | /\*(?: [^*/]++ | \*(?!/) | /(?!\*) )*+\*/ )*+
    (?:
      (?P<word> (?! [eEbBxXnN]' | [uU]&['"] ) [A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+ )
    | (?P<punctuation> [,()\[\];] | :[:=]? | \.\. | \.(?![0-9]) )
    | (?P<plain> [nN]?+'[^']*+(?: ''[^']*+ )*+' )
    | (?P<number> 0[xX](?: _?[0-9A-Fa-f] )++ | 0[oO](?: _?[0-7] )++ | 0[bB](?: _?[01] )++
        | (?: [0-9](?: _?[0-9] )*+(?: \.(?!\.)(?: [0-9](?: _?[0-9] )*+ )?+ )?+ | \.[0-9](?: _?[0-9] )*+ )
          (?: [eE][+-]?+[0-9](?: _?[0-9] )*+ )?+ )
    | (?P<operator> (?: [~!@\#^&|`?+*%<>=] | -(?!-) | /(?!\*) )++ )
    | (?P<quoted> "[^"]*+(?: ""[^"]*+ )*+" )
    | (?P<parameter> \$[0-9]++ )
    | (?P<escaped> [eE]'[^'\\]*+(?: (?: \\. | '' )[^'\\]*+ )*+' )
    | (?P<string> [bBxX]'[^']*+' | [uU]&'[^']*+(?: ''[^']*+ )*+' )
    | (?P<unicode> [uU]&"[^"]*+(?: ""[^"]*+ )*+" )
    | (?P<dollar> \$(?: [A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+ )?+\$ )
    | (?P<comment> /\* )
    | (?P<open> [eEbBxXnN]?+' | [uU]&['"] | " )
    | (?P<unknown> . )
    | (?P<end> \Z )
    )
    """,
    re.VERBOSE | re.DOTALL,
)
KINDS = {
    "word": WORD,
    "punctuation": PUNCTUATION,
    "number": NUMBER,
    "operator": OPERATOR,
    "quoted": QUOTED,
    "parameter": PARAMETER,
    "string": STRING,
    "unknown": UNKNOWN,
    "unicode": QUOTED,
    "plain": STRING,
    "escaped": STRING,
}
SPOKEN = {"word", "punctuation", "operator", "quoted"}  # groups that have a `word`
CAREFUL = {"word", "operator", "plain", "escaped", "dollar", "comment", "open", "quoted", "end"}  # have a rule below

COMMENT_MARK = re.compile(rb"/\*|\*/")
BACKSLASH_BEFORE_QUOTE = re.compile(rb"\\'")
HIGH_BYTE_BEFORE_ESCAPE = re.compile(rb"[\x80-\xff]\\++'")
SECOND_BYTES = frozenset(b"@[\\]^`{|}~")  # may be the second byte of a character, and go on with no name in ASCII
ONLY_THESE_MAY_END_IN_A_SIGN = frozenset(b"~!@#%^&|`?")


def tokens(text: bytes) -> list[Token]:
    """Cut a text into its tokens, in order."""
    found: list[Token] = []
    position = 0
    while position >= 0:
        position = _cut(text, position, found)
    return found


def _cut(text: bytes, position: int, found: list[Token]) -> int:
    """Cut from this position up to something that the expression cannot jump over; where to go on, -1 at the end."""
    for match in TOKEN.finditer(text, position):
        group = match.lastgroup
        assert group is not None
        start, stop = match.span(group)
        if group not in CAREFUL:
            found.append(Token(KINDS[group], start, stop, text[start:stop] if group in SPOKEN else b""))
        elif group == "word":
            found.append(Token(_word_kind(text, stop), start, stop, text[start:stop].lower()))
        elif group == "operator":
            found.extend(_operators(text, start, stop))
        elif group == "plain":
            doubt = BACKSLASH_BEFORE_QUOTE.search(text, start, stop)
            found.append(Token(DOUBT if doubt else STRING, start, stop))
        elif group == "escaped":
            doubt = HIGH_BYTE_BEFORE_ESCAPE.search(text, start, stop)
            found.append(Token(DOUBT if doubt else STRING, start, stop))
        elif group == "quoted":
            found.append(Token(QUOTED, start, stop, text[start + 1 : stop - 1].replace(b'""', b'"')))
        elif group == "open":
            found.append(Token(DOUBT, start, len(text)))
            break
        elif group == "end":
            break
        else:
            return _jump(text, start, stop, group, found)
    return -1


def _word_kind(text: bytes, stop: int) -> int:
    """DOUBT where the name may go on with a character whose second byte looks like something else."""
    if text[stop - 1] >= 0x80 and stop < len(text) and text[stop] in SECOND_BYTES:
        return DOUBT
    return WORD


def _operators(text: bytes, start: int, stop: int) -> Iterator[Token]:
    """An operator ends in + or - only if it holds a sign that SQL itself does not use: `<-` is two, `@-` is one."""
    word = text[start:stop]
    if word[-1] in b"+-" and stop - start > 1 and ONLY_THESE_MAY_END_IN_A_SIGN.isdisjoint(word):
        end = start + len(word.rstrip(b"+-"))
        if end > start:
            yield Token(OPERATOR, start, end, text[start:end])
        for position in range(end, stop):
            yield Token(OPERATOR, position, position + 1, text[position : position + 1])
    else:
        yield Token(OPERATOR, start, stop, word)


def _jump(text: bytes, start: int, stop: int, group: str, found: list[Token]) -> int:
    """Find the end of a dollar-quoted constant, or of a comment with comments inside; where to go on."""
    end = _end_of_comment(text, stop) if group == "comment" else _end_of_dollar_quote(text, start, stop)
    if end < 0:
        found.append(Token(DOUBT, start, len(text)))
    elif group == "dollar":
        found.append(Token(STRING, start, end))
    return end


def _end_of_dollar_quote(text: bytes, start: int, stop: int) -> int:
    end = text.find(text[start:stop], stop)
    return end if end < 0 else end + stop - start


def _end_of_comment(text: bytes, position: int) -> int:
    depth = 1
    for mark in COMMENT_MARK.finditer(text, position):
        depth += 1 if mark.group() == b"/*" else -1
        if not depth:
            return mark.end()
    return -1
