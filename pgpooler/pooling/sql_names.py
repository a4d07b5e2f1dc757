"""Names of prepared statements in SQL (sql-prepare, sql-execute, sql-deallocate)."""

from __future__ import annotations

from pgpooler.protocol.sql import QUOTED, WORD, tokens

ALL = b""
"""Stands for all names; no statement of which SQL can speak is called so."""
OPTIONAL = (b"prepare",)  # may stand between DEALLOCATE and the name


def spoken_of(text: bytes) -> set[bytes]:
    """Return every name in a text, whatever it names."""
    return {token.word for token in tokens(text) if token.kind in (WORD, QUOTED)}


def deallocated(text: bytes) -> list[bytes]:
    """Return the names of the statements that a text deallocates, in order; ALL: every one (so does DISCARD ALL)."""
    names = []
    command = b""
    for token in tokens(text):
        keyword = token.word if token.kind == WORD else b""
        if command and keyword not in OPTIONAL:
            if keyword == b"all":
                names.append(ALL)
            elif command == b"deallocate":  # what else can be discarded is no statement
                names.append(token.word)
            command = b""
        elif keyword in (b"deallocate", b"discard"):
            command = keyword
    return names
