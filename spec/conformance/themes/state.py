"""What a session keeps between two transactions: does the same connection still have it?

Another client is being served when that is asked, so that a pooler which keeps nothing does not keep it by chance.
"""

from __future__ import annotations

from spec.conformance.requests import NAME, SYNC, bind, execute, parse, query, run
from spec.conformance.scripts import READY, Ask, Leave, Open, Script, Step, Theme, ask, done, given, ran, rows

BOUND = "BindComplete"
EXTENDED = "protocol-flow#PROTOCOL-FLOW-EXT-QUERY"
OTHER = "other"
BUSY = "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(1); END $$"
"""Keeps another client's server busy; it says when it runs, because a server sends a notice at once."""

MEANWHILE = ask(query(BUSY), answer=("NoticeResponse running",), on=OTHER)
AFTERWARDS = Leave(OTHER, is_given=False)


def made(text: str, tag: str) -> Ask:
    """Return a step that runs a statement."""
    return given(query(text), answer=done(tag))


def called(text: str, value: str) -> Ask:
    """Return a step that calls a function."""
    return given(query(text), answer=(*rows(value), READY))


def yields(text: str, value: str, tag: str = "") -> Ask:
    """Return a step that finds this value."""
    return ask(query(text), answer=(*rows(value, tag=tag), READY))


def shows(parameter: str, setting: str) -> Ask:
    """Return a step that finds a parameter set so."""
    return yields(f"SHOW {parameter}", setting, "SHOW")


def kept(name: str, anchor: str, *steps: Step, table: str = "", needs: tuple[str, ...] = ()) -> Script:
    """Return a script whose last step looks for what the steps before it made."""
    return Script(name, anchor, (*steps[:-1], MEANWHILE, steps[-1], AFTERWARDS), table, needs)


STARTED = Open(parameters=(("application_name", "started"),))
BOUND_TWO = (BOUND, "DataRow 2", "CommandComplete SELECT 1", READY)
BOUND_SEVEN = (BOUND, "DataRow 7", "CommandComplete SELECT 1", READY)

SETTINGS = (
    kept("a setting", "sql-set", made("SET work_mem TO '777kB'", "SET"), shows("work_mem", "777kB")),
    kept(
        "a setting, in series",
        "sql-set",
        given(*run("SET work_mem TO '777kB'"), SYNC, answer=(*ran(tag="SET"), READY)),
        ask(*run("SHOW work_mem"), SYNC, answer=(*ran("777kB", tag="SHOW"), READY)),
    ),
    kept(
        "a setting that is reported",
        "sql-set",
        made("SET application_name TO 'kept'", "SET"),
        shows("application_name", "kept"),
    ),
    kept(
        "a setting made by set_config",
        "functions-admin#FUNCTIONS-ADMIN-SET",
        called("SELECT set_config('search_path', 'public, pg_temp', false)", "public, pg_temp"),
        shows("search_path", "public, pg_temp"),
    ),
    kept(
        "a setting of a program's own",
        "runtime-config-custom",
        made("SET conformance.own TO 'kept'", "SET"),
        yields("SELECT current_setting('conformance.own', true)", "kept"),
    ),
    kept(
        "the client's encoding",
        "multibyte",
        made("SET client_encoding TO 'LATIN1'", "SET"),
        yields("SELECT chr(233)", "0xe9"),
    ),
    kept(
        "the characteristics of the transactions to come",
        "sql-set-transaction",
        made("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET"),
        shows("transaction_isolation", "serializable"),
    ),
    kept(
        "the value of the start, after RESET",
        "sql-reset",
        STARTED,
        made("SET application_name TO 'changed'", "SET"),
        made("RESET application_name", "RESET"),
        shows("application_name", "started"),
    ),
    kept(
        "the value of the start, after DISCARD ALL",
        "sql-discard",
        STARTED,
        made("SET application_name TO 'changed'", "SET"),
        made("DISCARD ALL", "DISCARD ALL"),
        shows("application_name", "started"),
    ),
    kept(
        "a role",
        "sql-set-role",
        made("SET ROLE pg_monitor", "SET"),
        yields("SELECT current_user", "pg_monitor"),
        needs=("another role",),
    ),
)

OBJECTS = (
    kept(
        "a temporary table",
        "sql-createtable#SQL-CREATETABLE-TEMPORARY",
        made(f"CREATE TEMPORARY TABLE {NAME} AS SELECT 7 AS x", "SELECT 1"),
        yields(f"SELECT x FROM {NAME}", "7"),
    ),
    kept(
        "a prepared statement",
        EXTENDED,
        given(parse("SELECT $1::int + 1", NAME), SYNC, answer=("ParseComplete", READY)),
        ask(bind("1", statement=NAME), execute(), SYNC, answer=BOUND_TWO),
    ),
    kept(
        "the unnamed statement",
        EXTENDED,
        given(parse("SELECT $1::int + 1"), SYNC, answer=("ParseComplete", READY)),
        ask(bind("1"), execute(), SYNC, answer=BOUND_TWO),
    ),
    kept(
        "a statement prepared by PREPARE",
        "sql-prepare",
        made(f"PREPARE {NAME} AS SELECT 7", "PREPARE"),
        yields(f"EXECUTE {NAME}", "7"),
    ),
    kept(
        "a statement prepared by PREPARE, for Bind",
        "sql-prepare",
        made(f"PREPARE {NAME} AS SELECT 7", "PREPARE"),
        ask(bind(statement=NAME), execute(), SYNC, answer=BOUND_SEVEN),
    ),
    kept(
        "a cursor WITH HOLD",
        "sql-declare",
        made(f"DECLARE {NAME} CURSOR WITH HOLD FOR SELECT generate_series(1, 3)", "DECLARE CURSOR"),
        given(query(f"FETCH {NAME}"), answer=(*rows("1", tag="FETCH 1"), READY)),
        yields(f"FETCH {NAME}", "2", "FETCH 1"),
    ),
    kept(
        "an advisory lock",
        "explicit-locking#ADVISORY-LOCKS",
        called(f"SELECT pg_try_advisory_lock(hashtext('{NAME}'))", "t"),
        yields(f"SELECT pg_advisory_unlock(hashtext('{NAME}'))", "t"),
    ),
    kept(
        "the last value of a sequence",
        "functions-sequence",
        made(f"INSERT INTO {NAME} DEFAULT VALUES", "INSERT 0 1"),
        yields("SELECT lastval()", "1"),
        table="x serial",
    ),
    kept(
        "what a session listens to",
        "sql-listen",
        made(f"LISTEN {NAME}", "LISTEN"),
        yields(f"SELECT count(*) FROM pg_listening_channels() AS c WHERE c = '{NAME}'", "1"),
    ),
)

THEME = Theme(
    "state",
    "settings, temporary tables, prepared statements, cursors, locks",
    (*SETTINGS, *OBJECTS),
    leaves_state=True,
)
