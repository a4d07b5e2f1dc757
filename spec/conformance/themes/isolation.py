"""What two clients must not have of each other, though a pooler may serve them by the same server connection.

Each thing is looked for twice: while the client who made it is still there but idle, and after it has left.
"""

from __future__ import annotations

from collections.abc import Sequence

from spec.conformance.requests import NAME, SYNC, TERMINATE, bind, execute, parse, query
from spec.conformance.scripts import (
    IN_BLOCK,
    READY,
    Answer,
    Ask,
    Open,
    Script,
    Step,
    Theme,
    ask,
    done,
    error,
    given,
    rows,
)
from spec.conformance.words import CLOSED

SECOND = "second"
POOL = "protocol-flow#PROTOCOL-FLOW-START-UP"
LEAVE = given(TERMINATE, answer=(CLOSED,))


def yields(text: str, value: str) -> Ask:
    """Return a step in which the second client finds this value."""
    return ask(query(text), answer=(*rows(value), READY), on=SECOND)


def made(text: str, tag: str) -> Ask:
    """Return a step in which the first client does something."""
    return given(query(text), answer=done(tag))


def taken(text: str, value: str) -> Ask:
    """Return a step in which the first client calls a function."""
    return given(query(text), answer=(*rows(value), READY))


SEEN: tuple[tuple[str, str, Ask, Ask], ...] = (
    (
        "a setting",
        "sql-set",
        made("SET work_mem TO '777kB'", "SET"),
        yields("SELECT current_setting('work_mem') = '777kB'", "f"),
    ),
    (
        "a setting that is reported",
        "sql-set",
        made("SET application_name TO 'first'", "SET"),
        yields("SELECT current_setting('application_name') = 'first'", "f"),
    ),
    (
        "a setting of a program's own",
        "runtime-config-custom",
        made("SET conformance.own TO 'first'", "SET"),
        yields("SELECT coalesce(current_setting('conformance.own', true), '') = 'first'", "f"),
    ),
    (
        "a setting made by set_config",
        "functions-admin#FUNCTIONS-ADMIN-SET",
        taken("SELECT set_config('search_path', 'public, pg_temp', false)", "public, pg_temp"),
        yields("SELECT current_setting('search_path') = 'public, pg_temp'", "f"),
    ),
    (
        "the client's encoding",
        "multibyte",
        made("SET client_encoding TO 'LATIN1'", "SET"),
        yields("SELECT chr(233)", "é"),
    ),
    (
        "a temporary table",
        "sql-createtable#SQL-CREATETABLE-TEMPORARY",
        made(f"CREATE TEMPORARY TABLE {NAME} (x int)", "CREATE TABLE"),
        yields(f"SELECT to_regclass('pg_temp.{NAME}') IS NULL", "t"),
    ),
    (
        "a prepared statement",
        "protocol-flow#PROTOCOL-FLOW-EXT-QUERY",
        given(parse("SELECT 1", NAME), SYNC, answer=("ParseComplete", READY)),
        ask(bind(statement=NAME), execute(), SYNC, answer=(error("26000"), READY), on=SECOND),
    ),
    (
        "the unnamed statement",
        "protocol-flow#PROTOCOL-FLOW-EXT-QUERY",
        given(parse("SELECT 1"), SYNC, answer=("ParseComplete", READY)),
        ask(bind(), execute(), SYNC, answer=(error("26000"), READY), on=SECOND),
    ),
    (
        "a statement prepared by PREPARE",
        "sql-prepare",
        made(f"PREPARE {NAME} AS SELECT 1", "PREPARE"),
        ask(query(f"EXECUTE {NAME}"), answer=(error("26000"), READY), on=SECOND),
    ),
    (
        "a cursor WITH HOLD",
        "sql-declare",
        made(f"DECLARE {NAME} CURSOR WITH HOLD FOR SELECT 1", "DECLARE CURSOR"),
        ask(query(f"FETCH {NAME}"), answer=(error("34000"), READY), on=SECOND),
    ),
    (
        "what a session listens to",
        "sql-listen",
        made(f"LISTEN {NAME}", "LISTEN"),
        yields(f"SELECT count(*) FROM pg_listening_channels() AS c WHERE c = lower('{NAME}')", "0"),
    ),
)
"""What the first client makes, and how the second one looks for it."""


def steps(first: Ask, second: Ask, *, leaves: bool) -> tuple[Step, ...]:
    """Return the steps in which the second client comes when the first is idle, or gone."""
    return (first, LEAVE, second) if leaves else (first, second)


def shows_own(first: str, second: str) -> Sequence[Step]:
    """Return steps in which two clients with startup parameters of their own find these, in turns."""
    look = "SHOW application_name"
    asks = [ask(query(look), answer=(*rows(name, tag="SHOW"), READY), on=name) for name in (first, second)]
    return (*(Open(name, parameters=(("application_name", name),)) for name in (first, second)), *asks, *asks)


IN_A_BLOCK: Answer = ("CommandComplete BEGIN", IN_BLOCK)

THEME = Theme(
    "isolation",
    "nothing of one client is there for another",
    (
        *(
            Script(f"{name}, of a client that is idle", anchor, steps(first, second, leaves=False))
            for name, anchor, first, second in SEEN
        ),
        *(
            Script(f"{name}, of a client that has left", anchor, steps(first, second, leaves=True))
            for name, anchor, first, second in SEEN
        ),
        Script("startup parameters, in turns", POOL, tuple(shows_own("first", "second"))),
        Script(
            "an advisory lock is respected by the second client",
            "explicit-locking#ADVISORY-LOCKS",
            (
                taken(f"SELECT pg_try_advisory_lock(hashtext('{NAME}'))", "t"),
                yields(f"SELECT pg_try_advisory_lock(hashtext('{NAME}'))", "f"),
            ),
        ),
        Script(
            "a transaction block that was left open is no part of the second client's session",
            "sql-begin",
            (given(query("BEGIN"), answer=IN_A_BLOCK), LEAVE, yields("SELECT 1", "1")),
            needs=("transaction blocks",),
        ),
        Script(
            "the rows of an open transaction block are not there",
            "transaction-iso",
            (
                given(query("BEGIN"), answer=IN_A_BLOCK),
                given(query(f"INSERT INTO {NAME} VALUES (1)"), answer=("CommandComplete INSERT 0 1", IN_BLOCK)),
                yields(f"SELECT count(*) FROM {NAME}", "0"),
            ),
            table="x int",
            needs=("transaction blocks",),
        ),
        Script(
            "the end of a sequence",
            "functions-sequence",
            (
                made(f"INSERT INTO {NAME} DEFAULT VALUES", "INSERT 0 1"),
                LEAVE,
                ask(query("SELECT lastval()"), answer=("RowDescription", error("55000"), READY), on=SECOND),
            ),
            table="x serial",
        ),
        Script(
            "a role",
            "sql-set-role",
            (made("SET ROLE pg_monitor", "SET"), LEAVE, yields("SELECT current_user = session_user", "t")),
            needs=("another role",),
        ),
    ),
    leaves_state=True,
)
