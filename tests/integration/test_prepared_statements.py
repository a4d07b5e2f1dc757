"""Prepared statements outlive their transaction, whichever server connection serves the next one.

Most tests play a script on a direct connection and then through PgPooler, and nothing may differ.  Meanwhile the client
changes its server connection, and a stranger prepares statements under the same names wherever it can.
"""

from __future__ import annotations

import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Script, assert_as_direct
from tests.integration.conftest import DataPlanes
from tests.integration.wire import SYNC, bind, called, close, closed, described, execute, parse, prepared, query, ran

IN_STATEMENT_MODE = (
    "named", "unnamed", "unnamed, and a Query", "a name in use", "a name again", "Parse that was skipped",
    "Close that was skipped", "an error before a statement that the server may not know", "DEALLOCATE", "EXECUTE",
    "DEALLOCATE ALL", "DISCARD ALL",
)  # fmt: skip
"""What is asked in statement mode too, which differs in when a request is served and not in what becomes of it."""

# -- the life of a statement -------------------------------------------------------------------------------------------

ONE, TWO = "SELECT 'one', $1::int", "SELECT 'two', $1::text, 2"
BAD = query("SELECT 1 / 0")
LONG = b"n" * 63
LIVES: dict[str, Script] = {
    "named": (prepared(ONE), ran(b"1"), described(), ran(b"2"), closed(), ran(b"3"), described()),
    "unnamed": (prepared(ONE, b""), described(b""), ran(b"1", name=b""), ran(b"2", name=b""), ran(b"3", name=b"")),
    "unnamed, and a Query": (prepared(ONE, b""), query("SELECT 1"), ran(b"1", name=b""), ran(b"1", name=b"")),
    "unnamed, and an empty Query": (prepared(ONE, b""), query(""), ran(b"1", name=b"")),
    "unnamed, and a Query that fails": (prepared(ONE, b""), query("SELEC"), ran(b"1", name=b"")),
    "unnamed, and a failed Parse": (prepared(ONE, b""), prepared("SELEC", b""), ran(b"1", name=b"")),
    "unnamed, closed": (prepared(ONE, b""), closed(b""), ran(b"1", name=b""), described(b"")),
    "unnamed, replaced": (prepared(ONE, b""), prepared(TWO, b""), ran(b"1", name=b""), described(b"")),
    "unnamed, replaced behind an error": (
        prepared(ONE, b""),
        called(name=b"unknown") + prepared(TWO, b""),
        ran(b"1", name=b""),
    ),
    "unnamed and named": (prepared(ONE, b""), prepared(TWO), ran(b"1", name=b""), ran(b"1"), query(""), ran(b"1")),
    "never prepared": (ran(), described(), closed(), ran(name=b""), closed(b""), prepared(ONE), closed(), closed()),
    "a name in use": (prepared(ONE), prepared(TWO), ran(b"1"), prepared(ONE), ran(b"1"), closed(), ran(b"1")),
    "a name again": (prepared(ONE), closed(), prepared(TWO), ran(b"1"), described()),
    "a name again in one series": (prepared(ONE), close(b"s") + parse(TWO, name=b"s") + ran(b"1"), ran(b"2")),
    "a text again": (prepared(ONE), prepared(ONE, b"t"), closed(), ran(b"1", name=b"t"), prepared(ONE), ran(b"1")),
    "Parse that was skipped": (called(name=b"?") + prepared(ONE), ran(b"1"), prepared(TWO), ran(b"1")),
    "Parse that was skipped, of a text that is known": (
        prepared(ONE),
        called(name=b"?") + prepared(ONE, b"t"),
        ran(b"1", name=b"t"),
        prepared(TWO, b"t"),
        ran(b"1", name=b"t"),
    ),
    "Close that was skipped": (prepared(ONE), called(b"no number") + closed(), ran(b"1"), prepared(TWO), ran(b"1")),
    "Close and Parse that were skipped": (
        prepared(ONE),
        called(b"x") + close(b"s") + parse(TWO, name=b"s") + ran(b"1"),
        ran(b"1"),
    ),
    "Parse before an error": (parse(ONE, name=b"s") + ran(b"no number"), ran(b"1"), prepared(TWO), described()),
    "Close before an error": (prepared(ONE), close(b"s") + ran(b"1"), ran(b"1"), prepared(TWO), ran(b"1")),
    "Parse that failed": (prepared("SELEC"), ran(), described(), prepared(ONE), ran(b"1")),
    "Parse that failed, of a table to come": (
        "DROP TABLE IF EXISTS later",
        prepared("TABLE later"),
        ran(),
        "CREATE TABLE later AS SELECT 'now' AS x",
        prepared("TABLE later"),
        ran(),
        "DROP TABLE later",
        ran(),
    ),
    "an error before a statement that the server may not know": (
        prepared(ONE),
        called(name=b"?") + ran(b"1"),
        ran(b"2"),
        called(b"x") + called(b"3") + SYNC + ran(b"4"),
        parse("SELEC") + ran(b"5"),
        ran(b"6"),
    ),
    "types of parameters": (
        prepared("SELECT $1", types=(25,)),
        prepared("SELECT $1", b"t", types=(23,)),
        described(),
        described(b"t"),
        ran(b"x"),
        ran(b"x", name=b"t"),
        prepared("SELECT $1", b"u"),
        described(b"u"),
    ),
    "too few values and too many": (prepared(ONE), ran(), ran(b"1", b"2"), ran(b"1"), ran(None)),
    "several portals": (
        prepared(ONE),
        bind(b"1", name=b"s", portal=b"p") + bind(b"2", name=b"s") + execute(portal=b"p") + execute() + SYNC,
        execute(portal=b"p") + SYNC,
    ),
    "nothing": (prepared(""), described(), ran(), prepared("", b""), ran(name=b"")),
    "no SQL at all": (prepared("SELECT 1; SELECT 2"), ran(), prepared("\x01"), prepared(ONE), ran(b"1")),
    "names": tuple(
        request
        for name in (b'"', b"it's; --", b"a b\n", "größer".encode(), b"S", b"\\", LONG, b"pgpooler_1", b"S" * 999)
        for request in (prepared(ONE, name), ran(b"1", name=name), described(name), closed(name), ran(name=name))
    ),
    "names that differ where PostgreSQL does not look": (
        prepared(ONE, LONG + b"1"),
        prepared(TWO, LONG + b"2"),
        ran(b"1", name=LONG + b"3"),
        closed(LONG),
        ran(b"1", name=LONG + b"1"),
    ),
    "a name that SQL has taken": (
        query("PREPARE s AS SELECT 1; DEALLOCATE s"),
        prepared(ONE),
        query("PREPARE s AS SELECT 1"),
        ran(b"1"),
    ),
    "DEALLOCATE": (prepared(ONE), query("DEALLOCATE s"), ran(b"1"), query("DEALLOCATE s"), prepared(TWO), ran(b"1")),
    "DEALLOCATE in series": (
        prepared(ONE),
        prepared(ONE, b"T"),
        parse("DEALLOCATE s") + ran(name=b""),
        ran(b"1"),
        parse('DEALLOCATE PREPARE "T"') + ran(name=b""),
        ran(b"1", name=b"T"),
    ),
    "DEALLOCATE of another": (prepared(ONE), query("DEALLOCATE S; DEALLOCATE t"), ran(b"1"), prepared(ONE), ran(b"1")),
    "DEALLOCATE and an error": (prepared(ONE), query("SELECT 1; DEALLOCATE s; SELECT 1 / 0"), ran(b"1")),
    "DEALLOCATE ALL": (
        prepared(ONE),
        prepared(TWO, b"t"),
        query("DEALLOCATE ALL"),
        ran(b"1"),
        prepared(TWO),
        ran(b"1", name=b"t"),
        ran(b"1"),
    ),
    "DEALLOCATE ALL, and again in the same series": (
        prepared(ONE),
        parse("DEALLOCATE ALL") + called(name=b"") + parse(ONE, name=b"s") + ran(b"1"),
        ran(b"2"),
    ),
    "DISCARD ALL": (prepared(ONE), query("DISCARD ALL"), ran(b"1"), prepared(TWO), ran(b"1"), prepared(ONE, b"t")),
    "DISCARD ALL in series": (prepared(ONE), parse("DISCARD ALL") + ran(name=b""), ran(b"1"), ran(name=b"")),
    "DISCARD PLANS": (prepared(ONE), query("DISCARD PLANS"), ran(b"1"), query("DISCARD TEMP"), ran(b"1")),
    "EXECUTE": (
        prepared("SELECT 'one', $1::int"),
        query("EXECUTE s(1)"),
        query("EXPLAIN (COSTS off) EXECUTE s(1)"),
        query("EXECUTE s; SELECT 1"),
        query("SELECT 1; EXECUTE s(2)"),
        query("execute/**/S (3)"),
        parse("EXECUTE s(4)") + ran(name=b""),
        closed(),
        query("EXECUTE s(5)"),
        ran(b"1"),
    ),
}  # fmt: skip
BLOCKS: dict[str, Script] = {
    "Parse that is rolled back": (query("BEGIN"), prepared(ONE), query("ROLLBACK"), ran(b"1"), ran(b"1")),
    "Close that is rolled back": (prepared(ONE), query("BEGIN"), closed(), query("ROLLBACK"), ran(b"1")),
    "Close in a block that failed": (prepared(ONE), query("BEGIN"), BAD, closed(), query("ROLLBACK"), ran(b"1")),
    "Parse in a block that failed": (query("BEGIN"), BAD, prepared(ONE), query("ROLLBACK"), ran(b"1")),
    "Parse in a block that failed, of a text that is known": (
        prepared(ONE),
        query("BEGIN"),
        BAD,
        prepared(ONE, b"t"),
        query("ROLLBACK"),
        ran(b"1", name=b"t"),
        ran(b"1"),
    ),
    "Bind in a block that failed": (prepared(ONE), query("BEGIN"), BAD, ran(b"1"), query("ROLLBACK"), ran(b"1")),
    "ROLLBACK that was prepared": (
        prepared("ROLLBACK"),
        prepared("BEGIN", b"t"),
        ran(name=b"t"),
        BAD,
        ran(),
        ran(name=b"t"),
        ran(),
        query("SELECT 1"),
    ),
    "DEALLOCATE that is rolled back": (
        prepared(ONE),
        query("BEGIN"),
        query("DEALLOCATE s"),
        query("ROLLBACK"),
        ran(b"1"),
    ),
    "DEALLOCATE in a block that failed": (
        prepared(ONE),
        query("BEGIN"),
        BAD,
        query("DEALLOCATE ALL"),
        query("ROLLBACK"),
        ran(b"1"),
    ),
    "rows in portions": (
        prepared("SELECT generate_series(1, $1::int)"),
        query("BEGIN"),
        bind(b"5", name=b"s", portal=b"p") + execute(2, portal=b"p") + SYNC,
        ran(b"1"),
        execute(2, portal=b"p") + closed(),
        execute(2, portal=b"p") + SYNC,
        query("COMMIT"),
        execute(2, portal=b"p") + SYNC,
        ran(b"1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "case"),
    [("transaction", case) for case in LIVES] + [("statement", case) for case in IN_STATEMENT_MODE],
)
def test_a_statement_lives_as_long_as_on_a_direct_connection(
    mode: str, case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W20, and bugs 6 and 7: PgBouncer #972, #974, #991, #1038, Odyssey #588, #1361, #1483, Supavisor #1174, #1175."""
    assert_as_direct(LIVES[case], data_planes(mode).address, postgres, shared_database)


@pytest.mark.parametrize("case", BLOCKS)
def test_a_statement_is_no_part_of_the_transaction_in_which_it_was_prepared(
    case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W20, and bugs 6, 7 and 11: PgDog #763, #876."""
    assert_as_direct(BLOCKS[case], data_planes().address, postgres, shared_database)
