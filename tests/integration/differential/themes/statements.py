"""Prepared statements of the protocol, named and unnamed, across transactions."""

from __future__ import annotations

from spec.conformance.requests import (
    SYNC,
    bind,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    parse,
    run,
)
from tests.integration.differential.scripts import NO_BLOCKS, SUM, say, script, series, use

NAMED = (
    script(
        "a named statement over several transactions",
        series(parse(SUM, "s")),
        series(*use("s", "1", "2")),
        series(*use("s", "3", "4")),
        series(describe_statement("s")),
        series(*use("s", "5", None), *use("s", "6", "7")),
        series(close_statement("s")),
    ),
    script(
        "prepared and used in one series, then again",
        series(parse(SUM, "s"), describe_statement("s"), *use("s", "1", "2")),
        series(*use("s", "3", "4", result_formats=(1,))),
        "SELECT 'between'",
        series(*use("s", "5", "6")),
    ),
    script(
        "described again and again",
        series(parse("SELECT * FROM item WHERE number = $1", "s")),
        *[series(describe_statement("s"))] * 3,
        series(*use("s", "1")),
    ),
    script(
        "several statements with the same text",
        series(parse(SUM, "a")),
        series(parse(SUM, "b"), parse(SUM, "c")),
        series(*use("b", "1", "2")),
        series(close_statement("a")),
        series(*use("b", "3", "4"), *use("c", "5", "6")),
        series(*use("a", "7", "8")),
        series(parse(SUM, "a"), *use("a", "9", "9")),
    ),
    script(
        "several texts, in turns",
        *[series(parse(f"SELECT {n} + $1::int", f"s{n}")) for n in range(5)],
        *[series(*use(f"s{n}", "1")) for n in (3, 1, 4, 0, 2)],
    ),
    script(
        "closed, and gone",
        series(parse(SUM, "s")),
        series(close_statement("s")),
        series(*use("s", "1", "2")),
        series(describe_statement("s")),
        series(close_statement("s")),
    ),
    script(
        "closed and prepared again under its name",
        series(parse("SELECT 1 AS one", "s")),
        series(*use("s")),
        series(close_statement("s"), parse("SELECT 'two' AS two, 2", "s"), describe_statement("s"), *use("s")),
        series(*use("s")),
    ),
    script(
        "a name that is taken",
        series(parse("SELECT 1", "s")),
        series(parse("SELECT 1", "s")),
        series(parse("SELECT 2", "s"), *use("s")),
        series(*use("s")),
    ),
    script(
        "a name that is taken within one series",
        series(parse("SELECT 1", "s"), parse("SELECT 2", "s"), *use("s")),
        series(*use("s")),
    ),
    script(
        "a name that is not there",
        series(*use("none")),
        series(describe_statement("none")),
        series(close_statement("none")),
        series(describe_statement()),
        series(bind(), execute()),
    ),
    script(
        "names odd, quoted, long",
        *[
            series(parse("SELECT 1", name), describe_statement(name), *use(name))
            for name in ("a b", 'quo"te', "ünï", "x" * 200, "pgpooler_1", "UPPER")
        ],
        series(*use("upper")),
        series(*use("x" * 63)),
        'SELECT name FROM pg_prepared_statements ORDER BY 1 COLLATE "C"',
    ),
    script(
        "a Parse that fails",
        series(parse("SELEC", "s")),
        series(*use("s")),
        series(parse("SELECT 1", "s"), *use("s")),
        series(*use("s")),
    ),
    script(
        "a Parse that fails in place of one that is there",
        series(parse("SELECT 1", "s")),
        series(close_statement("s"), parse("SELECT nothing", "s")),
        series(*use("s")),
    ),
    script(
        "a Parse skipped after an error",
        series(*run("SELECT 1 / 0"), parse("SELECT 1", "s")),
        series(*use("s")),
        series(parse("SELECT 2", "s"), *use("s")),
    ),
    script(
        "a Close skipped after an error",
        series(parse("SELECT 1", "s")),
        series(*run("SELECT 1 / 0"), close_statement("s")),
        series(*use("s")),
    ),
    script(
        "a Parse outlives the error behind it", series(parse("SELECT 1", "s"), *run("SELECT 1 / 0")), series(*use("s"))
    ),
    script(
        "a Parse outlives the block it was in",
        "BEGIN",
        series(parse("SELECT 1", "s")),
        "ROLLBACK",
        series(*use("s")),
        statement=NO_BLOCKS,
    ),
    script(
        "a Parse in a failed block",
        "BEGIN",
        "SELECT 1 / 0",
        series(parse("SELECT 1", "s")),
        series(parse("ROLLBACK", "r"), *use("r")),
        series(*use("s")),
        series(*use("r")),
        statement=NO_BLOCKS,
    ),
    script(
        "two clients with statements of one name",
        say(parse("SELECT 1 AS one", "s"), SYNC),
        say(parse("SELECT 2 AS two", "s"), SYNC, on="second"),
        say(*use("s"), SYNC),
        say(*use("s"), SYNC, on="second"),
        say(close_statement("s"), SYNC),
        say(*use("s"), SYNC, on="second"),
        say(*use("s"), SYNC),
    ),
    script(
        "two clients with the same text",
        say(parse(SUM, "s"), SYNC),
        say(parse(SUM, "t"), SYNC, on="second"),
        say(*use("t", "1", "2"), SYNC, on="second"),
        say(*use("s", "3", "4"), SYNC),
        say(*use("t", "5", "6"), SYNC),
    ),
    script(
        "300 statements",
        *[say(*(parse(f"SELECT {n}", f"s{n}") for n in range(at, at + 100)), SYNC) for at in (0, 100, 200)],
        *[series(*use(f"s{n}")) for n in (0, 299, 150, 1)],
        series(*(close_statement(f"s{n}") for n in range(300))),
        series(*use("s7")),
    ),
    script(
        "a long text",
        series(parse("SELECT " + " + ".join(["$1::int"] * 3000), "s")),
        series(*use("s", "1")),
        series(*use("s", "2")),
    ),
    script(
        "many uses in one series",
        series(parse(SUM, "s")),
        series(*[message for n in range(50) for message in (bind(str(n), "1", statement="s"), execute())]),
    ),
)


UNNAMED = (
    script(
        "an unnamed statement over several series",
        series(parse(SUM)),
        series(bind("1", "2"), execute()),
        series(bind("3", "4"), describe_portal(), execute()),
        series(describe_statement()),
    ),
    script(
        "an unnamed statement ends with a Query",
        series(parse(SUM), bind("1", "2"), execute()),
        "SELECT 1",
        series(bind("3", "4"), execute()),
        series(describe_statement()),
    ),
    script(
        "an unnamed statement, and an empty or a wrong Query",
        series(parse("SELECT 1")),
        "",
        series(bind(), execute()),
        series(parse("SELECT 1")),
        "SELEC",
        series(bind(), execute()),
    ),
    script(
        "an unnamed statement in place of another",
        series(parse("SELECT 1"), parse("SELECT 2"), bind(), execute()),
        series(parse("SELECT 3")),
        series(bind(), execute()),
    ),
    script(
        "an unnamed Parse that fails leaves none",
        series(parse("SELECT 1")),
        series(parse("SELEC")),
        series(bind(), execute()),
    ),
    script(
        "an unnamed statement closed",
        series(parse("SELECT 1")),
        series(close_statement()),
        series(bind(), execute()),
        series(close_statement()),
    ),
    script(
        "an unnamed Parse skipped after an error",
        series(parse("SELECT 1")),
        series(*run("SELECT 1 / 0"), parse("SELECT 2")),
        series(bind(), execute()),
    ),
    script(
        "an unnamed and a named statement with one text",
        series(parse(SUM, "s"), parse(SUM)),
        series(*use("s", "1", "2"), *use("", "3", "4")),
        "SELECT 1",
        series(*use("s", "5", "6")),
        series(*use("", "7", "8")),
    ),
    script(
        "an unnamed statement and other settings",
        series(parse("SELECT '2/1/2020'::date")),
        series(*run("SET DateStyle TO ISO, DMY")),
        series(parse("SELECT '2/1/2020'::date"), bind(), execute()),
        series(bind(), execute()),
    ),
    script(
        "an unnamed statement in a block and behind it",
        series(*run("BEGIN")),
        series(parse(SUM), bind("1", "2"), execute()),
        series(bind("3", "4"), execute()),
        series(*run("COMMIT")),
        series(bind("5", "6"), execute()),
        statement=NO_BLOCKS,
    ),
)

STATEMENTS = (*NAMED, *UNNAMED)
