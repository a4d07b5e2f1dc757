"""Transaction blocks and the status in ReadyForQuery."""

from __future__ import annotations

from spec.conformance.requests import NAME, SYNC, query, run
from spec.conformance.scripts import (
    IN_BLOCK,
    IN_FAILED_BLOCK,
    READY,
    Ask,
    Script,
    Step,
    Theme,
    ask,
    done,
    error,
    given,
    ran,
    rows,
)

READY_FOR_QUERY = "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY"
SECOND = "second"
BEGIN = given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK))
COMMIT = given(query("COMMIT"), answer=done("COMMIT"))
ROLLBACK = given(query("ROLLBACK"), answer=done("ROLLBACK"))
FAIL = given(query("SELECT 1 / 0"), answer=(error("22012"), IN_FAILED_BLOCK))


def insert(value: int = 1) -> Ask:
    """Return a step that inserts a row inside a block."""
    return given(query(f"INSERT INTO {NAME} VALUES ({value})"), answer=("CommandComplete INSERT 0 1", IN_BLOCK))


def sum_is(total: str, status: str = READY, on: str = "first") -> Ask:
    """Return a step that finds this sum in the table."""
    return ask(query(f"SELECT sum(x) FROM {NAME}"), answer=(*rows(total), status), on=on)


def block(name: str, anchor: str, *steps: Step) -> Script:
    """Return a script with a table and transaction blocks."""
    return Script(name, anchor, steps, "x int", ("transaction blocks",))


THEME = Theme(
    "transactions",
    "the statuses I, T and E, savepoints, failed blocks",
    (
        block("a block that is committed", READY_FOR_QUERY, BEGIN, insert(), COMMIT, sum_is("1")),
        block("a block that is rolled back", READY_FOR_QUERY, BEGIN, insert(), ROLLBACK, sum_is("NULL")),
        block(
            "an error fails the block",
            READY_FOR_QUERY,
            BEGIN,
            insert(),
            FAIL,
            ask(query("SELECT 1"), answer=(error("25P02"), IN_FAILED_BLOCK)),
            ask(*run("SELECT 1"), SYNC, answer=(error("25P02"), IN_FAILED_BLOCK)),
            ROLLBACK,
            sum_is("NULL"),
        ),
        block(
            "COMMIT of a failed block rolls it back",
            "sql-commit",
            BEGIN,
            insert(),
            FAIL,
            given(query("COMMIT"), answer=done("ROLLBACK")),
            sum_is("NULL"),
        ),
        block(
            "a savepoint saves a failed block",
            "sql-savepoint",
            BEGIN,
            insert(),
            given(query("SAVEPOINT s"), answer=("CommandComplete SAVEPOINT", IN_BLOCK)),
            insert(2),
            FAIL,
            given(query("ROLLBACK TO s"), answer=("CommandComplete ROLLBACK", IN_BLOCK)),
            sum_is("1", IN_BLOCK),
            COMMIT,
            sum_is("1"),
        ),
        block(
            "BEGIN in a block is a warning",
            "sql-begin",
            BEGIN,
            ask(query("BEGIN"), answer=("NoticeResponse", "CommandComplete BEGIN", IN_BLOCK)),
            COMMIT,
        ),
        Script(
            "COMMIT outside a block is a warning",
            "sql-commit",
            (ask(query("COMMIT"), answer=("NoticeResponse", *done("COMMIT"))),),
        ),
        block(
            "a block that begins and fails in one query",
            READY_FOR_QUERY,
            given(
                query(f"BEGIN; INSERT INTO {NAME} VALUES (1); SELECT 1 / 0"),
                answer=("CommandComplete BEGIN", "CommandComplete INSERT 0 1", error("22012"), IN_FAILED_BLOCK),
            ),
            ROLLBACK,
            sum_is("NULL"),
        ),
        Script(
            "a whole block in one query",
            READY_FOR_QUERY,
            (
                given(
                    query(f"BEGIN; INSERT INTO {NAME} VALUES (1); COMMIT"),
                    answer=("CommandComplete BEGIN", "CommandComplete INSERT 0 1", *done("COMMIT")),
                ),
                sum_is("1"),
            ),
            table="x int",
        ),
        block(
            "a block by extended queries",
            READY_FOR_QUERY,
            given(*run("BEGIN"), SYNC, answer=(*ran(tag="BEGIN"), IN_BLOCK)),
            given(*run(f"INSERT INTO {NAME} VALUES (1)"), SYNC, answer=(*ran(tag="INSERT 0 1"), IN_BLOCK)),
            ask(SYNC, answer=(IN_BLOCK,)),
            given(*run("COMMIT"), SYNC, answer=(*ran(tag="COMMIT"), READY)),
            sum_is("1"),
        ),
        block(
            "COMMIT AND CHAIN begins the next block",
            "sql-commit",
            BEGIN,
            insert(),
            given(query("COMMIT AND CHAIN"), answer=("CommandComplete COMMIT", IN_BLOCK)),
            insert(2),
            ROLLBACK,
            sum_is("1"),
        ),
        Script(
            "a deferred constraint fails the COMMIT",
            "sql-set-constraints",
            (BEGIN, insert(), insert(), given(query("COMMIT"), answer=(error("23505"), READY)), sum_is("NULL")),
            "x int UNIQUE DEFERRABLE INITIALLY DEFERRED",
            ("transaction blocks",),
        ),
        block(
            "SET LOCAL ends with its block",
            "sql-set",
            BEGIN,
            given(query("SET LOCAL work_mem TO '777kB'"), answer=("CommandComplete SET", IN_BLOCK)),
            ask(query("SHOW work_mem"), answer=(*rows("777kB", tag="SHOW"), IN_BLOCK)),
            COMMIT,
            ask(query("SELECT current_setting('work_mem') = '777kB'"), answer=(*rows("f"), READY)),
        ),
        block(
            "a block that only reads refuses to write",
            "sql-set-transaction",
            given(query("BEGIN READ ONLY"), answer=("CommandComplete BEGIN", IN_BLOCK)),
            given(query(f"INSERT INTO {NAME} VALUES (1)"), answer=(error("25006"), IN_FAILED_BLOCK)),
            ROLLBACK,
        ),
        block(
            "two blocks at the same time do not see each other",
            "transaction-iso",
            BEGIN,
            insert(),
            given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK), on=SECOND),
            sum_is("NULL", IN_BLOCK, SECOND),
            COMMIT,
            sum_is("1", IN_BLOCK, SECOND),
            given(query("COMMIT"), answer=done("COMMIT"), on=SECOND),
        ),
    ),
)
