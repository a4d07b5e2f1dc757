"""The settings of clients: what is said to servers about them, and what servers answer."""

from __future__ import annotations

import gc
import re
import weakref
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.pooling.parameters import (
    NONE_SET,
    Reported,
    Settings,
    answered,
    literal,
    question,
    reconciliation,
    rereading,
    restoration,
)

HOSTILE = st.text(alphabet=st.sampled_from("'\\;-\"$E\n\t \x01é\udcff,"), max_size=12) | st.text(max_size=20)
NAMES = st.sampled_from(["work_mem", "datestyle", "search_path", "my.own", "role", "session_authorization"])
VALUES = st.dictionaries(NAMES, HOSTILE, max_size=6)
HEXADECIMAL = re.compile(
    r"pg_catalog\.convert_from\(pg_catalog\.decode\('([0-9a-f]*)', 'hex'\), pg_catalog\.getdatabaseencoding\(\)\)"
)


def read_literal(text: str, position: int) -> tuple[str, int]:
    """Read what `literal` wrote as PostgreSQL does; return its value and where it ends."""
    if found := HEXADECIMAL.match(text, position):
        return bytes.fromhex(found[1]).decode("utf-8", "surrogateescape"), found.end()
    assert text.startswith("E'", position)
    position += 2
    value = []
    while text[position] != "'" or text[position + 1 : position + 2] == "'":
        position += text[position] in "'\\"
        value.append(text[position])
        position += 1
    return "".join(value), position + 1


class Session:
    """A session that runs statements of ours on its settings, which begin with what the server says."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.acts_as_itself = True

    def run(self, text: str) -> None:
        for statement in (text,) if text.startswith("SELECT") else text.split("; ", 2 if "RESET ALL" in text else 1):
            if statement == "SET SESSION AUTHORIZATION DEFAULT":
                self.values.pop("role", None)
                self.values.pop("session_authorization", None)
            elif statement == "RESET ALL":
                identity = ("role", "session_authorization")
                self.values = {name: value for name, value in self.values.items() if name in identity}
            elif statement not in ("", ";"):
                self._set(statement)

    def _set(self, statement: str) -> None:
        position = len("SELECT ")
        assert statement.startswith("SELECT ")
        while True:
            assert statement.startswith("pg_catalog.set_config(", position)
            name, position = read_literal(statement, position + len("pg_catalog.set_config("))
            if statement.startswith(", NULL, false) IS NULL", position):
                self.values.pop(name, None)
                position += len(", NULL, false) IS NULL")
            else:
                assert not {"role", "session_authorization"} & self.values.keys() or name == "role", "set too late"
                self.values[name], position = read_literal(statement, position + 2)
                assert statement.startswith(", false) IS NULL", position)
                position += len(", false) IS NULL")
            if position == len(statement):
                return
            assert statement.startswith(", ", position)
            position += 2


@given(HOSTILE)
def test_a_literal_means_the_text_and_ends_where_it_ends(text: str) -> None:
    quoted = literal(text)
    assert read_literal(quoted, 0) == (text, len(quoted))
    assert quoted.isascii(), "it is the same in any client_encoding"


@given(VALUES, VALUES)
def test_a_reconciliation_leaves_exactly_what_is_wanted(before: dict[str, str], after: dict[str, str]) -> None:
    session = Session(dict(before))
    session.run(reconciliation(Settings.of(before), Settings.of(after)))
    assert session.values == after


@given(VALUES, VALUES)
def test_where_nobody_knows_what_is_set_everything_is_reset(before: dict[str, str], after: dict[str, str]) -> None:
    session = Session(dict(before))
    session.run(reconciliation(None, Settings.of(after)))
    assert session.values == after


def test_what_is_in_force_already_is_not_set_again() -> None:
    before = Settings.of({"a": "1", "b": "2"})
    assert reconciliation(before, before) == ";"
    assert "E'b'" not in reconciliation(before, Settings.of({"a": "3", "b": "2"}))


def test_a_value_that_changes_only_a_part_is_set_on_what_the_server_begins_with() -> None:
    """DateStyle `dmy` after `German` would still be German."""
    text = reconciliation(Settings.of({"datestyle": "German"}), Settings.of({"datestyle": "dmy"}))
    assert text.index("(E'datestyle', NULL") < text.index("(E'datestyle', E'dmy'")


@given(VALUES)
def test_settings_and_reported_parameters_are_the_same_object_when_they_say_the_same(values: dict[str, str]) -> None:
    backwards = dict(reversed(values.items()))
    assert Settings.of(values) is Settings.of(backwards)
    assert Reported.of(values) is Reported.of(backwards)


def test_settings_that_nobody_has_are_forgotten() -> None:
    values = {"application_name": "seen by nobody else"}
    kept = Settings.of(values)
    assert kept in Settings._known.values()
    seen = weakref.ref(kept)
    del kept
    gc.collect()
    assert seen() is None
    assert frozenset(values.items()) not in Settings._known
    assert Settings.of({}) is NONE_SET


def test_only_what_statements_are_read_by_is_in_the_digest() -> None:
    one = Settings.of({"application_name": "a", "datestyle": "German"})
    other = Settings.of({"application_name": "b", "datestyle": "German", "work_mem": "1MB"})
    assert one.digest == other.digest
    assert one.digest != NONE_SET.digest


def test_what_is_looked_up_each_time_a_statement_runs_is_not_what_it_is_read_by() -> None:
    """The tables that a statement means may be others the next time it runs; the constants in it may not."""
    then = Settings.of({"datestyle": "German", "search_path": "old", "role": "one", "work_mem": "1MB"})
    now = Settings.of({"timezone": "UTC", "search_path": "new", "role": "other", "work_mem": "2MB"})
    read = now.reading(then.digest)
    assert read.values == {"datestyle": "German", "search_path": "new", "role": "other", "work_mem": "2MB"}
    text = rereading(now, read)
    assert re.findall(r"E'(\w+)', (NULL|E'\w+')", text) == [("timezone", "NULL"), ("datestyle", "E'German'")]


@pytest.mark.parametrize(
    "name",
    [
        "array_nulls",  # '{NULL}'::text[]
        "backslash_quote",
        "client_encoding",
        "intervalstyle",
        "lc_monetary",  # '$1'::money
        "search_path",
        "standard_conforming_strings",
        "timezone",
        "timezone_abbreviations",
        "transform_null_equals",
        "xmlbinary",
        "xmloption",
    ],
)
def test_a_constant_or_a_name_that_is_read_by_a_setting_is_another_under_another(name: str) -> None:
    assert Settings.of({name: "a"}).digest != Settings.of({name: "b"}).digest


def row(*values: bytes | None) -> bytes:
    columns = (pack("!i", -1) if value is None else pack("!i", len(value)) + value for value in values)
    return pack("!h", len(values)) + b"".join(columns)


def test_the_answer_of_a_server_is_read_byte_for_byte() -> None:
    raw = b'"a""b", \'\\ \xff\xc3\xa9'
    rows = [
        row(b"search_path", raw.hex().encode()),
        row(b"role", b"none".hex().encode()),
        row(b"session_authorization", b"alice".hex().encode()),
        row(b"my.unset", None),
        row(b"transaction_isolation", b"serializable".hex().encode()),
    ]
    assert answered(rows, "alice").values == {"search_path": raw.decode("utf-8", "surrogateescape")}
    assert answered(rows, "bob").values.keys() == {"search_path", "session_authorization"}


@pytest.mark.parametrize("statement", [question(["my.own"]), restoration(Settings.of({"a": "1", "b.c": "2"}))])
def test_nothing_that_is_asked_depends_on_a_search_path(statement: str) -> None:
    bare = re.sub(r"OPERATOR\(pg_catalog\.[=<>]+\)|pg_catalog\.\w+|E?'[^']*'", "", statement)
    assert not re.search(r"[=<>]", bare)
    keywords = {"VALUES", "FROM", "SELECT", "WHERE", "WHEN", "THEN", "EXISTS", "coalesce"}
    assert set(re.findall(r"(\w+)\s*\(", bare)) <= keywords | {"startup", "own"}


def test_a_client_is_told_only_what_it_does_not_know() -> None:
    now = Reported.of({"TimeZone": "UTC", "DateStyle": "ISO, MDY"})
    assert now.status({"TimeZone": "UTC", "DateStyle": "German"}) == b"S\0\0\0\x17DateStyle\0ISO, MDY\0"
    assert now.status(now) == b""
