"""Names of prepared statements in SQL (sql-prepare, sql-execute, sql-deallocate)."""

from __future__ import annotations

from pgpooler.protocol.sql import QUOTED, WORD, tokens

OPTIONAL = (b"prepare",)  # may stand between DEALLOCATE and the name


def spoken_of(text: bytes) -> set[bytes]:
    """Return every name in a text, whatever it names."""
    return {token.word for token in tokens(text) if token.kind in (WORD, QUOTED)}


def deallocated(text: bytes) -> list[bytes]:
    """Return the names of the statements that a text deallocates, in order; `all` is one of them."""
    names = []
    after = False
    for token in tokens(text):
        if after and token.word not in OPTIONAL:
            names.append(token.word)
            after = False
        elif token.kind == WORD and token.word == b"deallocate":
            after = True
    return names
