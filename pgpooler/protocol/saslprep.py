"""SASLprep (RFC 4013) as PostgreSQL applies it to passwords before SCRAM hashes them.

PostgreSQL is lenient on purpose: a password that SASLprep would refuse (not UTF-8, prohibited or unassigned
characters, mixed writing directions) is used as its raw bytes, and so is every pure ASCII password.  Client and server
agree because both do the same.
"""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable

PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_c12,  # non-ASCII spaces (mapped away before; kept because RFC 4013 section 2.3 lists them)
    stringprep.in_table_c21_c22,  # control characters
    stringprep.in_table_c3,  # private use
    stringprep.in_table_c4,  # non-characters
    stringprep.in_table_c5,  # surrogates
    stringprep.in_table_c6,  # inappropriate for plain text
    stringprep.in_table_c7,  # inappropriate for canonical representation
    stringprep.in_table_c8,  # change display properties, deprecated
    stringprep.in_table_c9,  # tagging characters
    stringprep.in_table_a1,  # unassigned in Unicode 3.2: a stored string must not contain them
)


def saslprep(password: bytes) -> bytes:
    """The bytes that SCRAM hashes for this password; the raw bytes where SASLprep does not apply.  Never fails."""
    if password.isascii():
        return password
    try:
        prepared = _prepare(password.decode("utf-8"))
    except UnicodeDecodeError:
        return password
    return password if prepared is None else prepared.encode("utf-8")


def _prepare(text: str) -> str | None:
    """RFC 4013 section 2: map, normalize, prohibit, check the writing direction; None where it is prohibited."""
    mapped = "".join(_mapped(character) for character in text)
    # PostgreSQL checks what was mapped, before it was normalized: NFKC never yields a prohibited character from an
    # allowed one, and an empty result is no password.
    if not mapped or any(prohibited(character) for character in mapped for prohibited in PROHIBITED):
        return None
    if not _direction_is_consistent(mapped):
        return None
    return unicodedata.normalize("NFKC", mapped)


def _mapped(character: str) -> str:
    """RFC 4013 section 2.1: non-ASCII spaces become a space, and what is commonly mapped to nothing vanishes."""
    if stringprep.in_table_c12(character):
        return " "
    return "" if stringprep.in_table_b1(character) else character


def _direction_is_consistent(text: str) -> bool:
    """RFC 3454 section 6: right-to-left text has no left-to-right character, and right-to-left ones at both ends."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    if any(map(stringprep.in_table_d2, text)):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
