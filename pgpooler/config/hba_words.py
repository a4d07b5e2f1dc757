"""The words of pg_hba.conf and pg_ident.conf, split as PostgreSQL splits them (auth-pg-hba-conf).

A record is one line; a backslash at its end continues it, also in quotes and comments.  Its fields are separated by
blanks, a field is a list of words separated by commas, `"..."` takes blanks, commas and `#` into a word and a keyword
its meaning, and `#` begins a comment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from pgpooler.config.source import Place, Sources, is_text

BLANKS: Final = " \t\r"
INCLUDES: Final = ("include", "include_if_exists", "include_dir")


class Word(NamedTuple):
    """One word; `quoted`: it begins with a quote, so that it is no keyword."""

    text: str
    quoted: bool
    place: Place


Field = tuple[Word, ...]


class Record(NamedTuple):
    """One line that says something, and the place of its end."""

    fields: tuple[Field, ...]
    end: Place


def read_records(text: str, file: str, sources: Sources) -> Iterator[Record]:
    """Split a file.  What would read another file, and what is no text, is reported and left out."""
    for line in _lines(text, file):
        if not is_text(line.text):
            sources.error(line.place(0), "the line holds a character that no text can hold")
            continue
        fields = tuple(_fields(line))
        if not fields:
            continue
        first = fields[0][0]
        named = next((word for field in fields for word in field if word.text[:1] == "@" and not word.quoted), None)
        if first.text in INCLUDES:
            sources.error(first.place, f"{first.text!r} is not done here; write the lines of that file into this one")
        elif named is not None and len(named.text) > 1:
            message = f"names are not read from a file ({named.text}); write them here, or quote a name that begins so"
            sources.error(named.place, message)
        else:
            yield Record(fields, line.place(len(line.text)))


@dataclass
class _Line:
    """A line with what continues it; `starts` are the offsets at which the lines of the file begin in it."""

    text: str
    starts: list[tuple[int, int]]
    file: str

    def place(self, offset: int) -> Place:
        start, number = next(found for found in reversed(self.starts) if found[0] <= offset)
        return Place(self.file, number, offset - start + 1)


def _lines(text: str, file: str) -> Iterator[_Line]:
    open_line: _Line | None = None
    continued_at = 0
    for number, piece in enumerate(text.split("\n"), 1):
        line = open_line or _Line("", [], file)
        line.starts.append((len(line.text), number))
        line.text = (line.text + piece).rstrip("\r")
        # The backslash must be one of this piece: `\\` and an empty line behind it are not continued once more.
        if len(line.text) > continued_at and line.text.endswith("\\"):
            line.text = line.text[:-1]
            open_line, continued_at = line, len(line.text)
            continue
        yield line
        open_line, continued_at = None, 0
    if open_line is not None:
        yield open_line


def _fields(line: _Line) -> Iterator[Field]:
    position = 0
    while position < len(line.text):
        words: list[Word] = []
        goes_on = True
        while goes_on:
            word, position, goes_on = _word(line, position)
            if word is None:
                break
            words.append(word)
        if words:
            yield tuple(words)


def _word(line: _Line, position: int) -> tuple[Word | None, int, bool]:
    """Return the next word, where it ends, and whether a comma stands behind it; no word at the end of the line."""
    text = line.text
    while position < len(text) and (text[position] in BLANKS or text[position] == ","):
        position += 1
    start = position
    characters: list[str] = []
    in_quotes = was_quote = saw_quote = quoted = comma = False
    while position < len(text):
        character = text[position]
        if not in_quotes:
            if character in BLANKS:
                break
            if character == "#":
                position = len(text)
                break
            if character == ",":
                comma = True
                break
        if character != '"' or was_quote:
            characters.append(character)
        was_quote = character == '"' and in_quotes and not was_quote
        if character == '"':
            in_quotes = not in_quotes
            saw_quote = True
            quoted = quoted or not characters
        position += 1
    if not saw_quote and not characters:
        return None, position, False
    return Word("".join(characters), quoted, line.place(start)), position, comma
