"""What a server answers to the statements that PgPooler runs for itself, and the settings that they change.

`Settings` is what one session has in force: the values that it has set, and the server's own.  `OWN` says of every
statement of PgPooler's own what a server answers; anything else without a tag is meant to be refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

ROW = tuple[bytes, ...]
Pick = Callable[[tuple[bytes, ...]], bytes]

SEPARATOR = re.compile(r"; ?(?=(?:[^']*'[^']*')*[^']*$)")  # a semicolon outside of quotes
LITERAL = r"E'((?:[^']|'')*)'"
SET_CONFIG = re.compile(rf"pg_catalog\.set_config\({LITERAL}, (NULL|{LITERAL}), false\) IS NULL")
STARTUP = re.compile(rf"\({LITERAL}, {LITERAL}\)")
CUSTOM = re.compile(rf"\({LITERAL}\)")
MARK = re.compile(r"SELECT 1 AS (pgpooler_mark_\d+)")
IDENTITY = {"session_authorization": "alice", "role": "none"}
"""Who the session is, as long as nobody has said otherwise; every pool of the tests has one user of its own."""


@dataclass
class Settings:
    """What is in force in one session, and what of it the client was told.

    `durable` is what an error goes back to.
    """

    defaults: dict[str, str]
    user: str = ""
    own: dict[str, str] = field(default_factory=dict)
    durable: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, value: str | None) -> None:
        """Set a parameter, or reset it."""
        self.own.pop(name, None)
        if value is not None:
            self.own[name] = value

    def keep(self) -> None:
        """The transaction is committed."""
        self.durable = dict(self.own)

    def go_back(self) -> None:
        """The transaction is aborted."""
        self.own = dict(self.durable)

    def unreported(self) -> tuple[str, str] | None:
        """Return a reported parameter that has another value than was reported last."""
        for name, value in self.defaults.items():
            now = self.own.get(name.lower(), value)
            if self.told.get(name, value) != now:
                self.told[name] = now
                return name, now
        return None


@dataclass(frozen=True)
class Answer:
    """What a statement of PgPooler's own is answered with; `columns` None: no rows."""

    tag: bytes
    columns: ROW | None = None
    rows: tuple[ROW, ...] = ()
    changes: tuple[tuple[str, str | None], ...] = ()
    resets: bool = False


POOLER = b"pooler"  # the tag of what a server says while it works for the pooler itself
COLUMN = b"<pooler>"


def existing(statement: str, settings: Settings, pick: Pick) -> Answer:
    """Whether there is something of which PgPooler asks."""
    width = statement.count("EXISTS (")
    return Answer(b"SELECT 1", (COLUMN,) * width, (tuple(pick((b"f", b"t")) for _ in range(width)),))


def asked_for(statement: str, settings: Settings, pick: Pick) -> Answer:
    """The settings of the session, in hexadecimal."""
    identity = {**IDENTITY, "session_authorization": settings.user}
    custom = [name for name in CUSTOM.findall(statement) if name not in identity]
    known = {name: value for name, value in settings.own.items() if name not in identity and "." not in name}
    known |= {name: settings.own.get(name, value) for name, value in identity.items()}
    known |= {name: settings.own[name] for name in custom if name in settings.own}
    rows = tuple((name.encode(), value.encode().hex().encode()) for name, value in known.items())
    return Answer(b"SELECT %d" % len(rows), (COLUMN,) * 2, rows)


def setting(statement: str, settings: Settings, pick: Pick) -> Answer:
    """Settings, each of which is set or reset; whether the value is NULL."""
    changes = tuple(
        (name, None if given == "NULL" else value.replace("''", "'"))
        for name, given, value in SET_CONFIG.findall(statement)
    )
    return Answer(b"SELECT 1", (COLUMN,) * len(changes), ((b"f",) * len(changes),), changes)


def restoring(statement: str, settings: Settings, pick: Pick) -> Answer:
    """The values of a client's start, where the session has none of its own."""
    values = statement[: statement.index(" AS startup")]
    changes = tuple((name, value) for name, value in STARTUP.findall(values) if name not in settings.own)
    return Answer(b"SELECT %d" % len(changes), (COLUMN,), ((b"f",),) * len(changes), changes)


def marking(statement: str, settings: Settings, pick: Pick) -> Answer:
    """A column by whose name PgPooler knows where the replies to a client end."""
    found = MARK.fullmatch(statement)
    assert found is not None, statement
    return Answer(b"SELECT 1", (found[1].encode(),), ((b"1",),))


def unlocking(statement: str, settings: Settings, pick: Pick) -> Answer:
    """One row that says nothing."""
    return Answer(b"SELECT 1", (COLUMN,), ((b"",),))


def saying(tag: bytes, *, resets: bool = False) -> Callable[[str, Settings, Pick], Answer]:
    """Only a tag; perhaps all settings are reset."""
    return lambda statement, settings, pick: Answer(tag, resets=resets)


OWN: Mapping[str, Callable[[str, Settings, Pick], Answer]] = {
    "SELECT EXISTS (": existing,
    "SELECT pg_catalog.lower(name), ": asked_for,
    "SELECT pg_catalog.set_config(name, value, false) IS NULL FROM (VALUES ": restoring,
    "SELECT pg_catalog.set_config(E'": setting,
    "SELECT pg_catalog.pg_advisory_unlock_all()": unlocking,
    "SELECT 1 AS pgpooler_mark_": marking,
    "ROLLBACK": saying(b"ROLLBACK"),
    "CLOSE ALL": saying(b"CLOSE CURSOR ALL"),
    "SET SESSION AUTHORIZATION DEFAULT": saying(b"SET"),
    "RESET ALL": saying(b"RESET", resets=True),
    "UNLISTEN *": saying(b"UNLISTEN"),
    "DISCARD TEMP": saying(b"DISCARD TEMP"),
    "DISCARD SEQUENCES": saying(b"DISCARD SEQUENCES"),
    "DEALLOCATE ALL": saying(b"DEALLOCATE ALL"),
    "DISCARD ALL": saying(b"DISCARD ALL", resets=True),
}
"""How the statements of PgPooler's own begin, and what makes the answer."""


def own_statements(text: bytes) -> list[str]:
    """The statements of a Query of the pooler's own; `;` has none."""
    return [statement for statement in SEPARATOR.split(text.decode()) if statement.strip()]


def answer(statement: str, settings: Settings, pick: Pick) -> Answer | None:
    """Return what a statement is answered with; None: it is none of PgPooler's own, or one that is to fail."""
    made = next((made for start, made in OWN.items() if statement.startswith(start)), None)
    return made(statement, settings, pick) if made is not None else None
