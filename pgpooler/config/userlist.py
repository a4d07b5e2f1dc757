"""PgBouncer's userlist.txt: one `"user" "secret"` per line, quotes doubled inside, `;` starts a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pgpooler.config.source import Place, Sources

_BLANKS: Final = re.compile(r"[ \t\r]*")
_QUOTED: Final = re.compile(r'"((?:[^"]|"")*)"')


class Listed(NamedTuple):
    """One line: the name and the secret as written, and where each stands."""

    name: str
    name_place: Place
    secret: str
    secret_place: Place


def parse_userlist(text: str, file: str, sources: Sources) -> Iterator[Listed]:
    """The users of the file; reports each line that cannot be read."""
    for number, line in enumerate(text.split("\n"), 1):
        found: list[tuple[str, Place]] = []
        position = _skip_blanks(line, 0)
        while position < len(line) and line[position] != ";":
            place = Place(file, number, position + 1)
            quoted = _QUOTED.match(line, position)
            if not quoted or len(found) == 2 or "\0" in quoted[0]:
                sources.error(place, 'expected "user" "secret", quotes inside doubled, and nothing else on the line')
                break
            found.append((quoted[1].replace('""', '"'), place))
            position = _skip_blanks(line, quoted.end())
        else:
            if len(found) == 1:
                sources.error(found[0][1], f"user {found[0][0]!r} has no secret beside it")
            elif found:
                (name, name_place), (secret, secret_place) = found
                if name:
                    yield Listed(name, name_place, secret, secret_place)
                else:
                    sources.error(name_place, "the user's name is empty")


def _skip_blanks(line: str, position: int) -> int:
    blanks = _BLANKS.match(line, position)
    return blanks.end() if blanks else position
