"""Read one statement for what it may leave in the session; what is not certainly harmless is doubt (CLEANING).

The first word decides by table (`leavings.COMMANDS`, and RULES here); then every word of the statement that is in
WATCHED is looked at in its place.  The grammar is PostgreSQL's (gram.y), but only as far as it tells a call of a
function from the other things that end in a name and an opening parenthesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgpooler.pooling.evidence.harmless_functions import HARMLESS, SYNTAX
from pgpooler.pooling.evidence.leavings import (
    CLEANING,
    COMMANDS,
    CREATES,
    FOR_THE_TRANSACTION,
    FUNCTIONS,
    HELD_CURSOR,
    NOTHING,
    READS_DATA,
    RESTORING,
    SETTINGS,
    STATEMENTS,
    TEMPORARY,
    UNREAD,
)
from pgpooler.protocol.sql import NUMBER, PARAMETER, PUNCTUATION, QUOTED, STRING, UNKNOWN, WORD, Token, tokens

Words = frozenset[bytes]

NOT_UNDERSTOOD = UNREAD | CLEANING

# -- where a name before a parenthesis is no call ----------------------------------------------------------------------

NO_CALL_AFTER = frozenset(
    # `name (` behind one of these: a table with its columns, an alias with its columns, a type with its size, a
    # function that is spoken of
    b"aggregate analyze as copy exists function into ordinality procedure references routine ::".split()
)
NO_CALL_BETWEEN: dict[bytes, Words] = {
    # words that a function may have as its name, but not behind these
    b"by": frozenset((b"group", b"order", b"partition")),
    b"sets": frozenset((b"grouping",)),
    b"key": frozenset((b"foreign", b"primary")),
    b"join": frozenset((b"cross", b"full", b"inner", b"left", b"natural", b"outer", b"right")),
    b"materialized": frozenset((b"as", b"not")),
    b"varying": frozenset((b"bit", b"char", b"character", b"nchar")),
    b"zone": frozenset((b"time",)),
    b"bernoulli": frozenset((b"tablesample",)),
    b"system": frozenset((b"tablesample",)),
    b"set": frozenset((b"update",)),
}
QUERIES = frozenset((b"select", b"with", b"table"))  # behind a parenthesis: a query in it, never an argument
BEGINS_NO_CTE = frozenset((b"select", b"insert", b"update", b"delete", b"merge", b"values", b"table"))

# -- what a statement evaluates ----------------------------------------------------------------------------------------

EVALUATE_NOTHING = frozenset((b"comment", b"drop", b"grant", b"revoke", b"security"))
DEFINITIONS = frozenset(
    # CREATE of these stores expressions without evaluating them; a table or foreign table up to AS or FOR VALUES
    b"aggregate cast domain foreign function operator policy procedure rule sequence statistics table transform trigger"
    b" type view".split()
)
CREATE_WHAT = frozenset(
    # words that may stand between CREATE and what is created
    b"or replace temp temporary local global unlogged recursive constraint event default trusted procedural".split()
)
TEMPORARY_AFTER = frozenset((b"create", b"replace", b"local", b"global"))
SPEAK_OF_EXECUTE = frozenset((b"function", b"on", b"procedure"))  # a trigger's function, a privilege

# What stands for a token that is neither word nor sign
SIGNS = {QUOTED: b'"', STRING: b"'", NUMBER: b"0", PARAMETER: b"$"}
END = b""

SERIAL = frozenset(b"serial serial2 serial4 serial8 smallserial bigserial identity".split())
LONGEST_CALL = 64  # tokens of a set_config that are looked at: a thousand of them, each in another, must not take long


def of_every_statement(text: bytes) -> int:
    """What all statements of a text may leave together."""
    found = NOTHING
    statement: list[Token] = []
    for token in tokens(text):
        if token.kind >= UNKNOWN:
            found |= NOT_UNDERSTOOD
        if token.kind == PUNCTUATION and token.word == b";":
            found |= Reading(text, statement).evidence()
            statement = []
        else:
            statement.append(token)
    return found | Reading(text, statement).evidence()


class Reading:
    """The reading of one statement, without its semicolon."""

    __slots__ = ("_closed", "_evaluates", "_first", "_found", "_keys", "_lists_ctes", "_open", "_text", "_tokens")

    def __init__(self, text: bytes, statement: Sequence[Token]) -> None:
        self._text = text
        self._tokens = statement
        self._keys = [SIGNS.get(token.kind) or token.word for token in statement]
        self._first = next((place for place, key in enumerate(self._keys) if key != b"("), len(statement))
        self._found = NOTHING
        self._evaluates = True  # calls in this part of the statement are made
        self._open: list[int] = []  # the places of the parentheses that are open
        self._lists_ctes = [False]  # the same, and for the outside: what stands here is the list of a WITH
        self._closed = -1  # where the parenthesis was opened that was closed last

    def evidence(self) -> int:
        """Read it."""
        if self._first == len(self._tokens):
            return NOT_UNDERSTOOD if self._tokens else NOTHING
        command = self._keys[self._first] if self._tokens[self._first].kind == WORD else END
        self._found = COMMANDS.get(command, CLEANING)
        self._evaluates = command not in EVALUATE_NOTHING
        if rule := RULES.get(command):
            rule(self)
        for place, key in enumerate(self._keys):
            if key in WATCHED:
                WATCHED[key](self, place)
        return self._found

    def _key(self, place: int) -> bytes:
        """What stands at a place, END outside the statement."""
        return self._keys[place] if 0 <= place < len(self._keys) else END

    def _names(self, place: int) -> bool:
        """A word or a quoted identifier stands there."""
        return 0 <= place < len(self._tokens) and self._tokens[place].kind in (WORD, QUOTED)

    # -- by the first word ---------------------------------------------------------------------------------------------

    def _set(self) -> None:
        """SET LOCAL, SET TRANSACTION, SET CONSTRAINTS, but not a setting of that name; pg_temp as a place to create."""
        scoped = self._key(self._first + 1) in (b"local", b"transaction", b"constraints")
        if scoped and self._names(self._first + 2) and self._key(self._first + 2) != b"to":
            self._found = FOR_THE_TRANSACTION
        elif b"default" in self._keys:
            self._found |= RESTORING
        before = END
        for token, key in zip(self._tokens, self._keys, strict=True):
            said = self._text[token.start : token.stop].lower()
            if b"pg_temp" in said:
                self._found |= TEMPORARY | CLEANING
            elif key == b"'" and (before == b"'" or b"\\" in said or said[:1] == b"u"):
                self._found |= CLEANING  # put together from parts or escapes: it may say anything
            before = key

    def _copy(self) -> None:
        """COPY ... FROM STDIN; the grammar takes STDOUT for the same there (gram.y, copy_file_name)."""
        depth = 0
        for place, key in enumerate(self._keys):
            depth += (key == b"(") - (key == b")")
            if not depth and key == b"from" and self._key(place + 1) in (b"stdin", b"stdout"):
                self._found |= READS_DATA

    def _prepare(self) -> None:
        if self._keys[self._first + 1 :] == [b"transaction", b"'"]:
            self._found = NOTHING

    def _discard(self) -> None:
        if self._key(self._first + 1) == b"all":
            self._found |= SETTINGS | RESTORING | STATEMENTS

    def _declare(self) -> None:
        header = self._keys[: self._keys.index(b"for")] if b"for" in self._keys else self._keys
        if any(header[place : place + 2] == [b"with", b"hold"] for place in range(len(header))):
            self._found |= HELD_CURSOR | CLEANING

    def _create(self) -> None:
        what = next((key for key in self._keys[self._first + 1 :] if key not in CREATE_WHAT), END)
        self._found |= CREATES.get(what, NOTHING)
        self._evaluates = what not in DEFINITIONS

    def _alter(self) -> None:
        """A new serial column takes numbers for the rows that are there; an extension's update runs a script."""
        if self._key(self._first + 1) == b"extension" or not SERIAL.isdisjoint(self._keys):
            self._found |= CLEANING

    # -- by a word in its place ----------------------------------------------------------------------------------------

    def _as_or_for(self, _place: int) -> None:
        """CREATE TABLE ... AS runs its query, FOR VALUES evaluates its bounds."""
        if not self._open and self._key(self._first) == b"create" and {b"table", b"foreign"} & set(self._keys[:6]):
            self._evaluates = True

    def _temporary(self, place: int) -> None:
        before = self._key(place - 1)
        into = before == b"into" and self._key(place - 2) not in (b"insert", b"merge")
        if before in TEMPORARY_AFTER or into:
            self._found |= TEMPORARY | CLEANING

    def _commit(self, place: int) -> None:
        """CREATE TEMP TABLE ... ON COMMIT DROP is gone with its transaction."""
        created = self._key(self._first) == b"create" and not self._open
        if created and self._key(place - 1) == b"on" and self._key(place + 1) == b"drop":
            self._found &= ~TEMPORARY

    def _execute(self, place: int) -> None:
        """EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE."""
        if self._evaluates and self._key(place + 1) not in SPEAK_OF_EXECUTE:
            self._found |= CLEANING | STATEMENTS

    def _settings(self, _place: int) -> None:
        """An UPDATE of the view pg_settings is a SET (view-pg-settings)."""
        if b"update" in self._keys or b"merge" in self._keys:
            self._found |= SETTINGS

    def _quoted(self, place: int) -> None:
        word = self._tokens[place].word
        if not word:
            self._found |= NOT_UNDERSTOOD
        elif word == b"pg_settings":
            self._settings(place)

    def _dot(self, place: int) -> None:
        """A name in the schema of temporary objects, pg_temp or pg_temp_7."""
        temporary = self._names(place - 1) and self._tokens[place - 1].word.startswith(b"pg_temp")
        if temporary and self._key(self._first) != b"drop":
            self._found |= TEMPORARY | CLEANING

    def _with(self, place: int) -> None:
        """A list of common table expressions begins: every name in it is that of one, up to the word of the query."""
        if place == self._first or self._key(place - 1) == b"(":
            self._lists_ctes[-1] = True

    def _query(self, _place: int) -> None:
        self._lists_ctes[-1] = False

    def _close(self, _place: int) -> None:
        if self._open:
            self._closed = self._open.pop()
            self._lists_ctes.pop()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _parenthesis(self, place: int) -> None:
        if self._names(place - 1):
            begin = place - 1
            while self._key(begin - 1) == b"." and self._names(begin - 2):
                begin -= 2
            if self._evaluates and begin > self._first:
                self._named(begin, place)
        else:
            self._lists_ctes[-1] = False  # behind the list: WITH x AS (...) (SELECT ...)
        self._open.append(place)
        self._lists_ctes.append(False)

    def _named(self, begin: int, place: int) -> None:
        """A name begins there and ends before the parenthesis: if it can be a call, note what that leaves."""
        name = self._tokens[place - 1]
        simple = begin == place - 1
        in_catalog = simple or (begin == place - 3 and self._tokens[begin].word == b"pg_catalog")
        if name.word in FUNCTIONS:
            self._found |= FUNCTIONS[name.word]
        elif name.word == b"set_config":
            self._set_config(place)
        elif simple and name.kind == WORD and name.word in SYNTAX:
            return
        elif not ((name.word in HARMLESS and in_catalog) or self._is_no_call(begin, place)):
            self._found |= CLEANING

    def _is_no_call(self, begin: int, place: int) -> bool:
        name = self._keys[begin] if begin == place - 1 else END
        before = self._key(begin - 1)
        if before in NO_CALL_AFTER or before in NO_CALL_BETWEEN.get(name, ()):
            return True
        if self._key(place + 1) in QUERIES or self._lists_ctes[-1]:
            return True
        if before == b")":
            # An alias or a clause: nothing else follows a parenthesis, but for two.
            opener = self._key(self._closed - 1)
            return not (opener == b"operator" or (opener == b"on" and self._key(self._closed - 2) == b"distinct"))
        command = self._key(self._first)
        if before in (b"on", b"using") and self._creates_index and not self._open:
            return True  # ON table (...), USING method (...); what is called within is another matter
        if name == b"conflict":
            return before == b"on" and b"join" not in self._keys
        if name in (b"stdin", b"stdout"):
            return command == b"copy" and not self._open
        if name in (b"cube", b"rollup"):
            return before == b"by" and self._key(begin - 2) == b"group"
        return name == b"set" and self._key(begin - 2) in (b"update", b"table", b"index")

    @property
    def _creates_index(self) -> bool:
        header = self._keys[self._first : self._first + 3]
        return header[:2] == [b"create", b"index"] or header == [b"create", b"unique", b"index"]

    def _set_config(self, place: int) -> None:
        """Harmless for the transaction only, spelled out as `true`, unless it may make pg_temp the place to create."""
        arguments = self._arguments(place)
        if len(arguments) == 3 and self._keys[arguments[2].start : arguments[2].stop] == [b"true"]:
            setting, value = self._constant(arguments[0]), self._constant(arguments[1])
            self._found |= FOR_THE_TRANSACTION
            if (setting and setting != b"search_path") or (value and b"pg_temp" not in value):
                return
            self._found |= CLEANING
        else:
            self._found |= SETTINGS | (RESTORING if b"null" in self._keys else NOTHING)
            if not arguments or not self._constant(arguments[0]):
                self._found |= CLEANING  # nobody knows which setting
        if b"pg_temp" in self._text[self._tokens[0].start : self._tokens[-1].stop].lower():
            self._found |= TEMPORARY | CLEANING

    def _arguments(self, place: int) -> list[slice]:
        """The places of the arguments behind this parenthesis, if it closes soon."""
        found: list[slice] = []
        depth, start = 0, place + 1
        for here in range(place, min(place + LONGEST_CALL, len(self._keys))):
            key = self._keys[here]
            depth += (key in (b"(", b"[")) - (key in (b")", b"]"))
            if depth == 0 or (depth == 1 and key == b","):
                found.append(slice(start, here))
                start = here + 1
                if depth == 0:
                    return found
        return []

    def _constant(self, argument: slice) -> bytes:
        """The text of an argument that is nothing but a plain constant, in lower case; else empty."""
        if self._keys[argument] != [b"'"]:
            return b""
        token = self._tokens[argument.start]
        said = self._text[token.start : token.stop].lower()
        return said[1:-1] if said[:1] == b"'" and b"\\" not in said else b""


RULES: dict[bytes, Callable[[Reading], None]] = {
    b"alter": Reading._alter,
    b"copy": Reading._copy,
    b"create": Reading._create,
    b"declare": Reading._declare,
    b"discard": Reading._discard,
    b"prepare": Reading._prepare,
    b"set": Reading._set,
}
WATCHED: dict[bytes, Callable[[Reading, int], None]] = {
    b"(": Reading._parenthesis,
    b")": Reading._close,
    b".": Reading._dot,
    b'"': Reading._quoted,
    b"as": Reading._as_or_for,
    b"commit": Reading._commit,
    b"execute": Reading._execute,
    b"for": Reading._as_or_for,
    b"pg_settings": Reading._settings,
    b"temp": Reading._temporary,
    b"temporary": Reading._temporary,
    b"with": Reading._with,
    **dict.fromkeys(BEGINS_NO_CTE, Reading._query),
}
