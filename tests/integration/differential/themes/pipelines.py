"""Series in one go, and prepared statements of the protocol that SQL speaks of."""

from __future__ import annotations

from spec.conformance.requests import (
    FLUSH,
    SYNC,
    bind,
    close_portal,
    close_statement,
    describe_statement,
    execute,
    parse,
    run,
)
from tests.integration.differential.scripts import SUM, Deviation, say, script, series, use

NAMES_OF_OURS = Deviation(
    "on servers a client's statements have names of PgPooler's, so that clients can share them",
    direct="DataRow s, SELECT $1::int + $2::int AS sum, {integer,integer}, f",
    heard="CommandComplete SELECT 0",
)
OF_THE_CLIENT = "name IN ('q', 's', 't')"
"""What is prepared under names of the script, not under PgPooler's."""

BY_SQL = (
    script(
        "PREPARE and EXECUTE",
        "PREPARE q (int) AS SELECT $1 + 1 AS x",
        "EXECUTE q (1)",
        "EXECUTE q (2)",
        f"SELECT name, statement, from_sql FROM pg_prepared_statements WHERE {OF_THE_CLIENT}",
        "DEALLOCATE q",
        "EXECUTE q (3)",
    ),
    script(
        "PREPARE wrongly",
        "PREPARE q AS SELEC",
        "EXECUTE q",
        "PREPARE q AS SELECT 1",
        "PREPARE q AS SELECT 2",
        "EXECUTE q (1)",
        "DEALLOCATE PREPARE q",
        "DEALLOCATE q",
        "DEALLOCATE none",
    ),
    script(
        "PREPARE, used by the protocol",
        "PREPARE q (int) AS SELECT $1 + 1 AS x",
        series(describe_statement("q"), *use("q", "1")),
        series(close_statement("q")),
        "EXECUTE q (1)",
    ),
    script(
        "EXECUTE of a statement of the protocol",
        series(parse(SUM, "s")),
        "EXECUTE s (1, 2)",
        "EXECUTE s (3, 4)",
        series(*run("EXECUTE s (5, 6)")),
        series(*use("s", "7", "8")),
    ),
    script(
        "DEALLOCATE of a statement of the protocol",
        series(parse(SUM, "s")),
        series(*use("s", "1", "2")),
        "DEALLOCATE s",
        series(*use("s", "3", "4")),
        series(parse("SELECT 9", "s"), *use("s")),
    ),
    script(
        "DEALLOCATE ALL",
        series(parse(SUM, "s"), parse("SELECT 2", "t")),
        "PREPARE q AS SELECT 3",
        "DEALLOCATE ALL",
        series(*use("s", "1", "2")),
        series(*use("t")),
        "EXECUTE q",
        series(parse("SELECT 4", "s"), *use("s")),
    ),
    script(
        "DEALLOCATE in the extended protocol",
        series(parse(SUM, "s")),
        series(*run("DEALLOCATE s")),
        series(*use("s", "1", "2")),
        series(parse(SUM, "s"), *run("DEALLOCATE ALL"), *use("s", "1", "2")),
    ),
    script(
        "DISCARD ALL and DISCARD PLANS",
        series(parse(SUM, "s")),
        "DISCARD PLANS",
        series(*use("s", "1", "2")),
        "DISCARD ALL",
        series(*use("s", "3", "4")),
        series(parse(SUM, "s"), *use("s", "5", "6")),
    ),
    script(
        "DEALLOCATE in a block that is rolled back",
        series(parse(SUM, "s")),
        "BEGIN; DEALLOCATE s; ROLLBACK",
        series(*use("s", "1", "2")),
    ),
    script(
        "PREPARE in a block that is rolled back", "BEGIN; PREPARE q AS SELECT 1; ROLLBACK", "EXECUTE q", "DEALLOCATE q"
    ),
    script(
        "EXECUTE of what is stale",
        "PREPARE q AS SELECT * FROM play",
        "EXECUTE q",
        "ALTER TABLE play ADD COLUMN word text",
        "EXECUTE q",
        "DEALLOCATE q",
        table="number int",
    ),
    script(
        "what is prepared, by the view",
        series(parse(SUM, "s"), parse("SELECT 1", "t")),
        (
            "SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements"
            f" WHERE {OF_THE_CLIENT} ORDER BY name"
        ),
        transaction=NAMES_OF_OURS,
        statement=NAMES_OF_OURS,
    ),
    script(
        "EXPLAIN EXECUTE, and CREATE TABLE AS EXECUTE",
        series(parse("SELECT $1::int AS x", "s")),
        "EXPLAIN (COSTS off) EXECUTE s (1)",
        "CREATE TEMP TABLE t AS EXECUTE s (7)",
        "SELECT x + 0 FROM t",
        "DROP TABLE t",
    ),
)


PIPELINES = (
    script(
        "several unnamed statements in one series",
        series(*run("SELECT 1"), *run("SELECT $1::text", "x"), *run("SELECT 1 WHERE false"), *run("SELECT 4")),
    ),
    script(
        "several series in one go",
        say(*run("SELECT 1"), SYNC, *run("SELECT 1 / 0"), *run("SELECT 2"), SYNC, *run("SELECT 3"), SYNC),
    ),
    script(
        "fifty series in one go",
        say(*[message for n in range(50) for message in (*run("SELECT $1::int", str(n)), SYNC)]),
    ),
    script(
        "named statements prepared and used in one go",
        say(
            parse("SELECT 1", "a"),
            SYNC,
            *use("a"),
            SYNC,
            parse("SELECT 2", "b"),
            *use("a"),
            *use("b"),
            SYNC,
            close_statement("a"),
            SYNC,
            *use("a"),
            SYNC,
            *use("b"),
            SYNC,
        ),
        series(*use("b")),
    ),
    script(
        "queries between series",
        say(*run("SELECT 1"), SYNC, "SELECT 2", *run("SELECT 3"), SYNC, "SELECT 4", "SELECT 5"),
    ),
    script(
        "a Flush behind each",
        say(parse(SUM), FLUSH, until="ParseComplete"),
        say(describe_statement(), FLUSH, until="RowDescription"),
        say(bind("1", "2"), FLUSH, until="BindComplete"),
        say(execute(), FLUSH, until="CommandComplete"),
        say(close_portal(""), FLUSH, until="CloseComplete"),
        say(SYNC),
    ),
    script(
        "a Flush behind an error",
        say(parse("SELEC"), FLUSH, until="ParseComplete"),
        say(bind(), execute(), SYNC),
        "SELECT 1",
    ),
    script("a Sync alone, and several", say(SYNC), say(SYNC, SYNC, SYNC), "SELECT 1"),
    script(
        "the type of everything before anything runs",
        say(
            parse("SELECT 1 AS a", "x"),
            parse("SELECT $1::text AS b", "y"),
            describe_statement("x"),
            describe_statement("y"),
            SYNC,
        ),
        series(*use("x"), *use("y", "z"), close_statement("x"), close_statement("y")),
    ),
)

SERIES = (*BY_SQL, *PIPELINES)
