"""Settings that belong to a client and follow it from one server connection to the next (config-setting).

A client's own settings are what it asked for at its start and what it has SET since.  They are never read out of its
statements: the server is asked what is in force, so that rollbacks, savepoints and spellings need no understanding.

Both kinds of values here are interned: the same content is the same object, so that a lease compares by identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

from pgpooler.errors import ProtocolViolation
from pgpooler.protocol import messages

Digest = tuple[tuple[str, str], ...]

FOLDED = frozenset(
    # what PostgreSQL reads constants and names by, when it parses a statement
    (
        "array_nulls",
        "backslash_quote",
        "client_encoding",
        "datestyle",
        "default_text_search_config",
        "intervalstyle",
        "lc_monetary",
        "role",
        "search_path",
        "session_authorization",
        "standard_conforming_strings",
        "timezone",
        "timezone_abbreviations",
        "transform_null_equals",
        "xmlbinary",
        "xmloption",
    )
)
LOOKED_UP = ("search_path", "role", "session_authorization")
"""Of these, what PostgreSQL goes by again each time it runs the statement."""
IDENTITY = ("session_authorization", "role")
"""Who the session acts as: given up before anything else is set, and taken last, because it decides what may be set.
Neither is in the view pg_settings, and RESET ALL leaves both."""
BACK_TO_ITSELF = "SET SESSION AUTHORIZATION DEFAULT"
NO_ROLE = "none"
OF_A_TRANSACTION = "transaction_"  # settings of this name are the transaction's own
NULL = "NULL"
REPORTED_LIMIT = 1 << 20  # characters of all parameters that a server reports; PostgreSQL needs a few hundred


class Settings:
    """What a client has set, by names in lower case: an interned value (`of`).

    A value is text in the encoding of the database, with other bytes as surrogates.
    """

    __slots__ = ("__weakref__", "digest", "values")

    _known: WeakValueDictionary[frozenset[tuple[str, str]], Settings] = WeakValueDictionary()

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        self.digest: Digest = tuple(sorted(item for item in self.values.items() if item[0] in FOLDED))

    def __repr__(self) -> str:
        return f"Settings({self.values!r})"

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Settings:
        """Return the settings with these values."""
        key = frozenset(values.items())
        known = cls._known.get(key)
        if known is None:
            known = cls._known[key] = cls(values)
        return known

    def reading(self, digest: Digest) -> Settings:
        """Return these settings with the constants of statements read as they are under a digest."""
        values = {name: value for name, value in self.values.items() if name not in FOLDED or name in LOOKED_UP}
        return Settings.of(values | {name: value for name, value in digest if name not in LOOKED_UP})

    @property
    def acts_as_somebody(self) -> bool:
        """They name a role to act as."""
        return any(name in self.values for name in IDENTITY)


NONE_SET = Settings.of({})
"""The settings of a client that has set nothing."""


class Reported(dict[str, str]):
    """The parameters that a server has reported (protocol-async): an interned value (`of`), never changed."""

    __slots__ = ("__weakref__",)

    _known: WeakValueDictionary[frozenset[tuple[str, str]], Reported] = WeakValueDictionary()

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Reported:
        """Return the parameters with these values."""
        key = frozenset(values.items())
        known = cls._known.get(key)
        if known is None:
            known = cls._known[key] = cls(values)
        return known

    def changed(self, name: str, value: str) -> Reported:
        """Return what is reported now.  Raises ProtocolViolation for so much that it cannot be PostgreSQL."""
        values = {**self, name: value}
        if sum(len(name) + len(value) for name, value in values.items()) > REPORTED_LIMIT:
            raise ProtocolViolation(f"the server reports parameters of more than {REPORTED_LIMIT} characters")
        return Reported.of(values)

    def status(self, told: Mapping[str, str]) -> bytes:
        """Make the ParameterStatus messages for one who was told something else before."""
        changed = ((name, value) for name, value in self.items() if told.get(name) != value)
        return b"".join(messages.parameter_status(name, value) for name, value in changed)


# -- statements of our own ---------------------------------------------------------------------------------------------


def reconciliation(before: Settings | None, after: Settings) -> str:
    """Make the statement that turns the settings of a server connection into others; `before` is None if unknown.

    A setting that has another value is reset first: some values, such as DateStyle `dmy`, change only a part.
    """
    statements = []
    old = before.values if before is not None else {}
    if before is None:
        statements += [BACK_TO_ITSELF, "RESET ALL"]
    elif before.acts_as_somebody or after.acts_as_somebody:
        statements.append(BACK_TO_ITSELF)
    changes: list[tuple[str, str | None]] = []
    changes += [(name, None) for name, value in old.items() if name not in IDENTITY and after.values.get(name) != value]
    changes += [item for item in after.values.items() if item[0] not in IDENTITY and old.get(item[0]) != item[1]]
    changes += [(name, after.values[name]) for name in IDENTITY if name in after.values]
    if changes:
        statements.append("SELECT " + ", ".join(_set(name, value) for name, value in changes))
    return "; ".join(statements) or ";"


def rereading(before: Settings, after: Settings) -> str:
    """Make the statement that changes only how the constants of statements are read."""
    names = sorted(name for name in {*before.values, *after.values} if name in FOLDED and name not in LOOKED_UP)
    changed = [name for name in names if before.values.get(name) != after.values.get(name)]
    changes: list[tuple[str, str | None]] = [(name, None) for name in changed if name in before.values]
    changes += [(name, after.values[name]) for name in changed if name in after.values]
    return "SELECT " + ", ".join(_set(name, value) for name, value in changes)


def restoration(startup: Settings) -> str:
    """Make the statement that sets again what a client asked for at its start and has RESET since.

    To PostgreSQL those are the values to which RESET goes back; on a server connection that others use too they are
    settings like any other.  None of this may depend on what the client's search_path says.
    """
    equals, differs = "OPERATOR(pg_catalog.=)", "OPERATOR(pg_catalog.<>)"
    rows = ", ".join(f"({literal(name)}, {literal(value)})" for name, value in startup.values.items())
    return (
        f"SELECT pg_catalog.set_config(name, value, false) IS NULL FROM (VALUES {rows}) AS startup (name, value) "
        "WHERE CASE "
        f"WHEN name {equals} 'role' THEN pg_catalog.current_setting('role') {equals} '{NO_ROLE}' "
        f"WHEN name {equals} 'session_authorization' THEN false "
        f"WHEN pg_catalog.strpos(name, '.') {equals} 0 THEN EXISTS (SELECT FROM pg_catalog.pg_settings AS now "
        f"WHERE pg_catalog.lower(now.name) {equals} startup.name AND now.source {differs} 'session') "
        f"ELSE coalesce(pg_catalog.current_setting(name, true), '') {equals} '' END"
    )


def question(custom: Iterable[str]) -> str:
    """Make the statement that asks a server for the settings that its session has made, in two columns.

    `custom` names settings with a dot, which no view shows.  Values come in hexadecimal, as no encoding but the
    database's own can be trusted to hold them.
    """
    named = ", ".join(f"({literal(name)})" for name in (*IDENTITY, *custom))
    return (
        f"SELECT pg_catalog.lower(name), {_in_hexadecimal('setting')} FROM pg_catalog.pg_settings "
        "WHERE source OPERATOR(pg_catalog.=) 'session' UNION ALL "
        f"SELECT name, {_in_hexadecimal('pg_catalog.current_setting(name, true)')} FROM (VALUES {named}) AS own (name)"
    )


def answered(rows: Iterable[bytes], user: str) -> Settings:
    """Read the rows (bodies of DataRow) that answer `question` for a session which logged in as this user."""
    values = {}
    for row in rows:
        name, value = messages.read_data_row(row)
        if name is not None and value is not None:
            values[messages.decode_text(name)] = messages.decode_text(bytes.fromhex(value.decode("ascii")))
    if values.get("role") == NO_ROLE:
        del values["role"]
    if values.get("session_authorization") == user:
        del values["session_authorization"]
    return Settings.of({name: value for name, value in values.items() if not name.startswith(OF_A_TRANSACTION)})


def literal(text: str) -> str:
    """Write text as an expression that means the same under any standard_conforming_strings and any client_encoding."""
    if text.isascii() and text.isprintable():
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    digits = text.encode("utf-8", "surrogateescape").hex()
    return f"pg_catalog.convert_from(pg_catalog.decode('{digits}', 'hex'), pg_catalog.getdatabaseencoding())"


def _set(name: str, value: str | None) -> str:
    """Set, and answer with what any client_encoding can hold."""
    return f"pg_catalog.set_config({literal(name)}, {NULL if value is None else literal(value)}, false) IS NULL"


def _in_hexadecimal(expression: str) -> str:
    encoding = "pg_catalog.getdatabaseencoding()"
    return f"pg_catalog.encode(pg_catalog.convert_to({expression}, {encoding}), 'hex')"
