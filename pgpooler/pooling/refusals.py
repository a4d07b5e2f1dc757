"""Errors of ours in the place of the server's.

Where a statement is not to run, the server is given something that it refuses: then the transaction fails, and a batch
is skipped, as with any error.  What the server says about it quotes what it was given, in whatever language, by which
it is recognised and replaced.
"""

from __future__ import annotations

import re

from pgpooler.errors import PeerError
from pgpooler.pooling.statements import PREFIX, ClientStatements
from pgpooler.protocol import codes, messages

NO_STATEMENT_TEXT = "pgpooler_refuses_{}"
QUOTED_NAME = re.compile(rb'"(?:none of )?(' + PREFIX + rb'[^"\0]*)"')


class Refusals:
    """The errors that one lease replaces."""

    __slots__ = ("_made", "_replacements")

    def __init__(self) -> None:
        self._made = 0  # ever, on the connection
        self._replacements: list[tuple[bytes, bytes]] = []  # errors that hold the first become the second

    def __bool__(self) -> bool:
        return bool(self._replacements)

    def clear(self) -> None:
        """Nothing is owed any more of what was refused."""
        self._replacements.clear()

    def replace(self, mark: bytes, error: PeerError) -> None:
        """Tell the client `error` instead of the next error of the server that holds `mark`."""
        self._replacements.append((mark, messages.error_response(error)))

    def refuse(self, error: PeerError) -> None:
        """Let the next request be refused with this error: `request` makes what the server gets."""
        self._made += 1
        self.replace(self._text(), error)

    def request(self, kind: int) -> bytes:
        """Make what the server refuses: a Query in the place of a Query, a Parse in front of anything else."""
        text = self._text() + b"\0"
        if kind == codes.QUERY:
            return messages.message(kind, text)
        return messages.message(codes.PARSE, PREFIX + b"none\0" + text + bytes(2))

    def take(self, body: bytes) -> bytes | None:
        """Return what the client gets for an error of the server's with this body; None: what the server says."""
        for number, (mark, instead) in enumerate(self._replacements):
            if mark in body:
                del self._replacements[number]
                return instead
        return None

    def _text(self) -> bytes:
        return NO_STATEMENT_TEXT.format(self._made).encode()


def with_names_of_client(body: bytes, statements: ClientStatements) -> bytes:
    """Put the client's names of statements in the place of ours, in the body of an ErrorResponse."""

    def name(found: re.Match[bytes]) -> bytes:
        own = statements.name_of(found[1])
        return b'"' + (found[1] if own is None else own) + b'"'

    return QUOTED_NAME.sub(name, body)
