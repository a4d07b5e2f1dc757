"""What a session keeps between two transactions: does the same connection still have it?"""

from __future__ import annotations

from spec.conformance.requests import NAME, SYNC, bind, execute, parse, query, run
from spec.conformance.scripts import READY, Ask, Open, Script, Theme, ask, done, given, ran, rows

BOUND = "BindComplete"
EXTENDED = "protocol-flow#PROTOCOL-FLOW-EXT-QUERY"
SERVED = ask(query("SELECT 1"), answer=(*rows("1"), READY))


def shown(parameter: str, setting: str) -> Ask:
    """Return a step that finds a parameter set so."""
    return ask(query(f"SHOW {parameter}"), answer=(*rows(setting, tag="SHOW"), READY))


THEME = Theme(
    "state",
    "settings, temporary tables, prepared statements, cursors, locks",
    (
        Script(
            "a setting",
            "sql-set",
            (given(query("SET work_mem TO '777kB'"), answer=done("SET")), SERVED, shown("work_mem", "777kB")),
        ),
        Script(
            "a setting, in series",
            "sql-set",
            (
                given(*run("SET work_mem TO '777kB'"), SYNC, answer=(*ran(tag="SET"), READY)),
                SERVED,
                ask(*run("SHOW work_mem"), SYNC, answer=(*ran("777kB", tag="SHOW"), READY)),
            ),
        ),
        Script(
            "a setting that is reported",
            "sql-set",
            (
                given(query("SET application_name TO 'kept'"), answer=done("SET")),
                SERVED,
                shown("application_name", "kept"),
            ),
        ),
        Script(
            "a setting made by set_config",
            "functions-admin#FUNCTIONS-ADMIN-SET",
            (
                given(
                    query("SELECT set_config('search_path', 'pg_catalog', false)"), answer=(*rows("pg_catalog"), READY)
                ),
                SERVED,
                shown("search_path", "pg_catalog"),
            ),
        ),
        Script(
            "a setting of a program's own",
            "runtime-config-custom",
            (
                given(query("SET conformance.own TO 'kept'"), answer=done("SET")),
                SERVED,
                shown("conformance.own", "kept"),
            ),
        ),
        Script(
            "the client's encoding",
            "multibyte",
            (
                given(query("SET client_encoding TO 'LATIN1'"), answer=done("SET")),
                SERVED,
                ask(query("SELECT chr(233)"), answer=(*rows("0xe9"), READY)),
            ),
        ),
        Script(
            "RESET returns to the value of the start",
            "sql-reset",
            (
                Open(parameters=(("application_name", "started"),)),
                given(query("SET application_name TO 'changed'"), answer=done("SET")),
                given(query("RESET application_name"), answer=done("RESET")),
                shown("application_name", "started"),
            ),
        ),
        Script(
            "DISCARD ALL returns to the values of the start",
            "sql-discard",
            (
                Open(parameters=(("application_name", "started"),)),
                given(query("SET application_name TO 'changed'"), answer=done("SET")),
                given(query("DISCARD ALL"), answer=done("DISCARD ALL")),
                shown("application_name", "started"),
            ),
        ),
        Script(
            "the characteristics of the transactions to come",
            "sql-set-transaction",
            (
                given(query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"), answer=done("SET")),
                SERVED,
                shown("transaction_read_only", "on"),
            ),
        ),
        Script(
            "a temporary table",
            "sql-createtable#SQL-CREATETABLE-TEMPORARY",
            (
                given(query(f"CREATE TEMPORARY TABLE {NAME}_temporary (x int)"), answer=done("CREATE TABLE")),
                given(query(f"INSERT INTO {NAME}_temporary VALUES (7)"), answer=done("INSERT 0 1")),
                SERVED,
                ask(query(f"SELECT x FROM {NAME}_temporary"), answer=(*rows("7"), READY)),
            ),
        ),
        Script(
            "a prepared statement",
            EXTENDED,
            (
                given(parse("SELECT $1::int + 1", NAME), SYNC, answer=("ParseComplete", READY)),
                SERVED,
                ask(
                    bind("1", statement=NAME),
                    execute(),
                    SYNC,
                    answer=(BOUND, "DataRow 2", "CommandComplete SELECT 1", READY),
                ),
            ),
        ),
        Script(
            "the unnamed statement",
            EXTENDED,
            (
                given(parse("SELECT $1::int + 1"), SYNC, answer=("ParseComplete", READY)),
                ask(bind("1"), execute(), SYNC, answer=(BOUND, "DataRow 2", "CommandComplete SELECT 1", READY)),
                ask(bind("2"), execute(), SYNC, answer=(BOUND, "DataRow 3", "CommandComplete SELECT 1", READY)),
            ),
        ),
        Script(
            "a statement prepared by PREPARE",
            "sql-prepare",
            (
                given(query(f"PREPARE {NAME} AS SELECT 7"), answer=done("PREPARE")),
                SERVED,
                ask(query(f"EXECUTE {NAME}"), answer=(*rows("7"), READY)),
                ask(
                    bind(statement=NAME),
                    execute(),
                    SYNC,
                    answer=(BOUND, "DataRow 7", "CommandComplete SELECT 1", READY),
                ),
            ),
        ),
        Script(
            "a cursor WITH HOLD",
            "sql-declare",
            (
                given(
                    query(f"DECLARE {NAME} CURSOR WITH HOLD FOR SELECT generate_series(1, 3)"),
                    answer=done("DECLARE CURSOR"),
                ),
                given(query(f"FETCH {NAME}"), answer=(*rows("1", tag="FETCH 1"), READY)),
                SERVED,
                ask(query(f"FETCH {NAME}"), answer=(*rows("2", tag="FETCH 1"), READY)),
            ),
        ),
        Script(
            "an advisory lock",
            "explicit-locking#ADVISORY-LOCKS",
            (
                given(query(f"SELECT pg_try_advisory_lock(hashtext('{NAME}'))"), answer=(*rows("t"), READY)),
                SERVED,
                ask(query(f"SELECT pg_advisory_unlock(hashtext('{NAME}'))"), answer=(*rows("t"), READY)),
            ),
        ),
        Script(
            "the last value of a sequence",
            "functions-sequence",
            (
                given(query(f"INSERT INTO {NAME} DEFAULT VALUES"), answer=done("INSERT 0 1")),
                SERVED,
                ask(query("SELECT lastval()"), answer=(*rows("1"), READY)),
            ),
            table="x serial",
        ),
        Script(
            "a role",
            "sql-set-role",
            (
                given(query("SET ROLE pg_monitor"), answer=done("SET")),
                SERVED,
                ask(query("SELECT current_user"), answer=(*rows("pg_monitor"), READY)),
            ),
            needs=("another role",),
        ),
    ),
)
