"""What the text of a command tells without parsing it: its words, and how many statements it can be.

Everything here errs on one side.  Where a text is not plain (backslashes, comments in comments, bodies of SQL
functions), its words may stand in a literal, and its pieces may be fewer statements than they seem.  The judge accuses
nobody because of a word that may be hidden somewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

BLANK = b" \t\r\n\f\v"
WORD = re.compile(rb"[a-z_]+")
DELIMITER = re.compile(rb"([();])")

LITERAL = re.compile(
    rb"""--[^\n\r]* | /\*.*?\*/ | '(?:[^']|'')*' | "(?:[^"]|"")*" | (?<![\w$\x80-\xff])\$(|[^\W\d]\w*)\$.*?\$\1\$""",
    re.DOTALL | re.VERBOSE,
)
"""Comments, literals and quoted names (sql-syntax-lexical)."""

UNSURE = re.compile(rb"""[\\'"]|/\*|\$\$|\batomic\b""")
"""What makes a text hard to read, once its literals are out of the way."""


@dataclass(frozen=True)
class Statement:
    """One statement, or what may be several: its text in small letters, and the same without what is in parentheses."""

    text: bytes
    outside: bytes

    def has(self, some: frozenset[bytes]) -> bool:
        """Return whether one of these words stands anywhere."""
        return not some.isdisjoint(WORD.findall(self.text))

    def has_outside(self, some: frozenset[bytes]) -> bool:
        """Return whether one of these words stands outside all parentheses."""
        return not some.isdisjoint(WORD.findall(self.outside))


@dataclass(frozen=True)
class Text:
    """The text of a command.  If it is plain, these are its statements; if not, there are at most as many."""

    statements: tuple[Statement, ...]
    is_plain: bool
    whole: Statement


@lru_cache(maxsize=512)
def read(text: bytes) -> Text:
    """Return what can be told of a text."""
    bare = LITERAL.sub(without_content, text).lower()
    if UNSURE.search(bare.replace(b"''", b"").replace(b'""', b"")):
        pieces = [piece for piece in text.lower().split(b";") if piece.strip(BLANK)]
        return Text(tuple(Statement(piece, piece) for piece in pieces), False, Statement(text.lower(), text.lower()))
    statements = split(bare)
    return Text(tuple(statements), True, Statement(bare, bare))


def without_content(found: re.Match[bytes]) -> bytes:
    """Return what stands for a comment, literal or quoted name."""
    match found[0][:1]:
        case b"-":
            return b" "
        case b"/":
            return b" " if b"/*" not in found[0][2:] else b"/*"
        case b'"':
            return b'""'
    return b"''"


def split(text: bytes) -> list[Statement]:
    """Return the statements of a text without literals, cut at the semicolons outside parentheses."""
    statements = []
    depth, inside, outside = 0, b"", b""
    for part in [*DELIMITER.split(text), b";"]:
        if part == b";" and depth <= 0:
            if inside.strip(BLANK):
                statements.append(Statement(inside, outside))
            inside, outside = b"", b""
            continue
        depth += (part == b"(") - (part == b")")
        inside += part
        outside += part if depth <= 0 else b" "
    if inside.strip(BLANK):
        statements.append(Statement(inside, outside))
    return statements
