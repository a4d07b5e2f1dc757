"""Evidence of what a client leaves in its session: from the texts it sends and from the tags the server answers.

`of_text` and `of_tag` answer in bits (`leavings`); 0 is the proof that nothing is left, within these limits, which are
those of every reader of texts:

- what a trigger, rule, view, default, operator, cast, domain or event trigger does is in no text.  A plain INSERT into
  a table with a serial column makes lastval() say something; functions as `table.function` and in FROM of a view
  are called without parentheses;
- a name is taken for that of pg_catalog (`harmless_functions` says where that fails);
- values that come as parameters are not seen, nor what PL/pgSQL and EXECUTE run: their callers are doubt.
"""

from __future__ import annotations

import re

from pgpooler.pooling.evidence.leavings import (
    ADVISORY_LOCK,
    CLEANING,
    FOR_THE_TRANSACTION,
    HARMLESS_TAGS,
    HELD_CURSOR,
    LISTENING,
    LOADED,
    NAMES,
    NOTHING,
    PINNING,
    PREPARED,
    READS_DATA,
    RELEASING,
    RESTORING,
    SETTINGS,
    STATEMENTS,
    TAGS,
    TEMPORARY,
    UNREAD,
)
from pgpooler.pooling.evidence.reading import NOT_UNDERSTOOD, of_every_statement

__all__ = [
    "ADVISORY_LOCK",
    "CLEANING",
    "FOR_THE_TRANSACTION",
    "HELD_CURSOR",
    "LISTENING",
    "LOADED",
    "LONGEST_READ",
    "NAMES",
    "NOTHING",
    "PINNING",
    "PREPARED",
    "READS_DATA",
    "RELEASING",
    "RESTORING",
    "SETTINGS",
    "STATEMENTS",
    "TEMPORARY",
    "UNREAD",
    "Texts",
    "describe",
    "is_plain",
    "of_tag",
    "of_text",
]

LONGEST_READ = 8192  # bytes; a longer text is not read
CACHE_SIZE = 8 << 20  # bytes
ENTRY_OVERHEAD = 128  # bytes of a cached text besides its own: the object's head and its place in the table


def of_text(text: bytes) -> int:
    """What the statements of a query may leave in the session."""
    return NOTHING if is_plain(text) else of_every_statement(text)


def of_tag(tag: bytes) -> int:
    """What the statement left whose CommandComplete has this tag (without its final zero)."""
    return NOTHING if tag[:4] in HARMLESS_TAGS else _of_rare_tag(tag)


def _of_rare_tag(tag: bytes) -> int:
    if tag in TAGS:
        return TAGS[tag]
    head = tag.partition(b" ")[0]
    return TAGS.get(head, NOTHING if head == b"CREATE" else CLEANING)


def describe(evidence: int) -> str:
    """The pinning bits in words, such as `temporary objects and LISTEN`; empty if there are none."""
    return " and ".join(name for bit, name in NAMES.items() if evidence & bit)


class Texts:
    """The evidence of texts that were read before, by text.

    Two generations: a text is remembered in the young one, and moves there when it is asked for again.  When the young
    one holds half of what is allowed, it becomes the old one and the old one is forgotten.  So a flood of texts that
    come once (literals instead of parameters) drives out only its own, at no cost per hit and without a list of ages.
    """

    __slots__ = ("_half", "_old", "_size", "_young")

    def __init__(self, size: int = CACHE_SIZE) -> None:
        self._half = size // 2
        self._size = 0  # of the young ones, in bytes
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def look(self, text: bytes) -> int:
        """The same as `of_text`; a text beyond LONGEST_READ is not read and therefore CLEANING | UNREAD."""
        found = self._young.get(text)
        return found if found is not None else self._look_further(text)

    def _look_further(self, text: bytes) -> int:
        if len(text) > LONGEST_READ:
            return NOT_UNDERSTOOD
        found = self._old.pop(text, None)
        if found is None:
            found = of_text(text)
        self._size += len(text) + ENTRY_OVERHEAD
        if self._size > self._half:
            self._old, self._young, self._size = self._young, {}, len(text) + ENTRY_OVERHEAD
        self._young[text] = found
        return found


# -- most texts, at a glance -------------------------------------------------------------------------------------------

PLAIN_COMMANDS = (
    rb"select update delete\s++from values with begin commit end rollback abort start savepoint release show fetch"
)
PLAIN_BEFORE_PARENTHESIS = (
    # reserved words first; then harmless functions
    rb"in values and or not on using as from where select case when then else any all some exists having union"
    rb" returning distinct limit offset array row cast coalesce nullif greatest least extract substring position trim"
    rb" numeric decimal varchar char timestamp count sum min max avg now lower upper length abs round floor ceil concat"
    rb" replace date_trunc date_part to_char to_timestamp string_agg array_agg json_agg jsonb_agg json_build_object"
    rb" jsonb_build_object row_to_json to_json to_jsonb row_number rank unnest generate_series gen_random_uuid md5"
    rb" random"
)
PARTS = {
    rb"COMMANDS": PLAIN_COMMANDS.replace(b" ", b"|"),
    rb"BEFORE_PARENTHESIS": PLAIN_BEFORE_PARENTHESIS.replace(b" ", b"|"),
    rb"LITERAL": rb"'[^'\\]*+' | [0-9]++(?: \.[0-9]*+ )?+(?![a-z_$\x80-\xff])",
    rb"NAME": rb"""NOT_WATCHED [a-z_][a-z0-9_$]*+ | "(?!pg_)[^"]++" """,
    rb"NOT_WATCHED": rb"(?! (?: temp | temporary | execute ) END_OF_WORD | pg_ )",
    rb"END_OF_WORD": rb"(?![a-z0-9_$\x80-\xff])",
}
PLAIN = rb"""
    \s*+ (?: COMMANDS END_OF_WORD | insert\s++into\s++ NAME (?: \. NAME )?+ END_OF_WORD )
    (?:
        [\s,=)]++
      | NAME (?! \s*+\( | [\x80-\xff] )
      | (?<! \. ) BEFORE_PARENTHESIS END_OF_WORD
      | (?: LITERAL [\s,()]*+ )++
      | \.(?!\s) | \( | \$[0-9]++ | [<>+*%|!~^@\#?:\[\]] | /(?!\*) | -(?!-) | &(?!["'])
    )*+
    (?: ; \s*+ )?+
"""
"""A single statement of words that nobody watches, in which every parenthesis stands behind something known.

It says yes only where `reading` finds nothing (a property in the tests); it says no to many harmless texts.
"""


def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    """Put the parts in their places, those that hold others first."""
    for name, part in PARTS.items():
        pattern = re.sub(rb"\b%s\b" % name, b"(?:%s)" % part.replace(b"\\", rb"\\"), pattern)
    return re.compile(pattern, re.VERBOSE | re.IGNORECASE)


_matches = _compiled(PLAIN).fullmatch


def is_plain(text: bytes) -> bool:
    """The text is one harmless statement of the simplest kind."""
    return _matches(text) is not None
