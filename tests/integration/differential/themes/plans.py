"""What a prepared statement rests on: types of parameters, definitions, settings."""

from __future__ import annotations

from spec.conformance.requests import (
    bind,
    close_statement,
    describe_statement,
    execute,
    parse,
)
from tests.integration.differential.scripts import NO_BLOCKS, SUM, Deviation, script, series, use

INT4, TEXT = 23, 25

TYPES = (
    script(
        "types left to the server",
        series(
            parse("SELECT $1 = number, $2 || word FROM item WHERE price > $3 LIMIT 1", "s"), describe_statement("s")
        ),
        series(*use("s", "1", "x", "1.5")),
    ),
    script(
        "types given",
        series(parse("SELECT $1, $2", "s", (INT4, TEXT)), describe_statement("s")),
        series(*use("s", "1", "x")),
        series(parse("SELECT $1, $2", "t", (TEXT, INT4)), describe_statement("t"), *use("t", "x", "1")),
    ),
    script(
        "types given in part",
        series(parse("SELECT $1, $2 + 1, $3", "s", (0, 0, INT4)), describe_statement("s"), *use("s", "a", "1", "2")),
        series(parse("SELECT $2::int", "t", (INT4,)), describe_statement("t")),
        series(parse("SELECT 1", "u", (INT4, TEXT)), describe_statement("u"), *use("u", "1", "x")),
    ),
    script(
        "the same text with other types",
        series(parse("SELECT $1 AS x", "i", (INT4,))),
        series(parse("SELECT $1 AS x", "t", (TEXT,))),
        series(parse("SELECT $1 AS x", "u")),
        series(*use("i", "1"), *use("t", "1"), *use("u", "1")),
    ),
    script(
        "types that cannot be",
        series(parse("SELECT $1", "s", (999_999_999,))),
        series(parse("SELECT $1 + $2")),
        series(parse("SELECT $1::int, $1::text", "t"), describe_statement("t")),
        series(parse("SELECT $0")),
        series(parse("SELECT $99999")),
    ),
    script(
        "too few and too many parameters",
        series(parse(SUM, "s")),
        series(*use("s", "1")),
        series(*use("s", "1", "2", "3")),
        series(*use("s")),
        series(*use("s", "1", "2")),
    ),
    script(
        "formats that do not fit",
        series(parse(SUM, "s")),
        series(bind("1", "2", statement="s", formats=(0, 0, 0)), execute()),
        series(bind("1", "2", statement="s", result_formats=(0, 1)), execute()),
        series(bind("1", "2", statement="s", formats=(1,)), execute()),
    ),
    script(
        "of statements that yield no rows",
        series(parse("INSERT INTO play VALUES ($1)", "s"), describe_statement("s")),
        series(*use("s", "1")),
        series(*use("s", "2")),
        "TABLE play",
        table="number int",
    ),
    script(
        "what may be prepared",
        *[
            series(parse(text, "s"), describe_statement("s"), *use("s"), close_statement("s"))
            for text in (
                "",
                "SHOW server_encoding",
                "EXPLAIN (COSTS off) SELECT 1",
                "VALUES (1), (2)",
                "CREATE TEMP VIEW none AS SELECT $1",
                "SELECT 1; SELECT 2",
            )
        ],
    ),
)


STALE_EVERYWHERE = Deviation(
    "PostgreSQL describes a stale statement by the rows it had where it was prepared; on another server connection it "
    "cannot have them, and is refused as it would be when it is used",
    direct="ParameterDescription",
    heard="ErrorResponse 0A000",
)

STALE = (
    script(
        "another definition: a column more",
        series(parse("SELECT * FROM play", "s"), describe_statement("s")),
        "ALTER TABLE play ADD COLUMN word text",
        series(*use("s")),
        series(describe_statement("s")),
        series(close_statement("s"), parse("SELECT * FROM play", "s"), *use("s")),
        table="number int",
        transaction=STALE_EVERYWHERE,
        statement=STALE_EVERYWHERE,
    ),
    script(
        "another definition: prepared again under another name",
        series(parse("SELECT * FROM play", "s"), *use("s")),
        "ALTER TABLE play ADD COLUMN word text",
        series(*use("s")),
        series(parse("SELECT * FROM play", "t"), *use("t")),
        series(*use("s")),
        series(*use("t")),
        table="number int",
    ),
    script(
        "another definition: a type",
        series(parse("SELECT number FROM play WHERE number = $1", "s")),
        "ALTER TABLE play ALTER number TYPE text",
        series(*use("s", "1")),
        series(parse("SELECT number FROM play WHERE number = $1", "t"), describe_statement("t"), *use("t", "1")),
        table="number int",
    ),
    script(
        "another definition in the same block",
        "BEGIN",
        series(parse("SELECT * FROM play", "s"), *use("s")),
        "ALTER TABLE play ADD COLUMN word text",
        series(*use("s")),
        "ROLLBACK",
        series(*use("s")),
        table="number int",
        statement=NO_BLOCKS,
    ),
    script(
        "another definition with the same columns",
        series(parse("SELECT * FROM play", "s")),
        "DROP TABLE play; CREATE TABLE play (number int); INSERT INTO play VALUES (7)",
        series(*use("s")),
        "DROP TABLE play",
        series(*use("s")),
        "SELECT 1",
        table="number int",
    ),
    script(
        "other settings: dates",
        series(parse("SELECT $1::date, '2020-02-01'::date::text", "s"), *use("s", "2/1/2020")),
        "SET DateStyle TO SQL, DMY",
        series(*use("s", "2/1/2020")),
        series(parse("SELECT $1::date, '2020-02-01'::date::text", "t"), *use("t", "2/1/2020")),
        series(*use("s", "2/1/2020")),
    ),
    script(
        "other settings: a literal read at Parse",
        series(parse("SELECT '2/1/2020'::date", "s"), *use("s")),
        "SET DateStyle TO ISO, DMY",
        series(*use("s")),
        series(parse("SELECT '2/1/2020'::date", "t"), *use("t")),
        "RESET DateStyle",
        series(*use("s"), *use("t")),
    ),
    script(
        "other settings: strings",
        "SET escape_string_warning TO off",
        "SET standard_conforming_strings TO off",
        series(parse("SELECT 'a\\nb'", "s"), *use("s")),
        "RESET standard_conforming_strings",
        series(*use("s")),
        series(parse("SELECT 'a\\nb'", "t"), *use("t")),
    ),
    script(
        "other settings: a role",
        series(parse("SELECT current_user, count(*) FROM held", "s"), *use("s")),
        "SET ROLE pg_monitor",
        series(*use("s")),
        "RESET ROLE",
        series(*use("s")),
    ),
    script(
        "a temporary table in front of another",
        # Only the first temporary table of a server process changes where names are looked up: have one already.
        "CREATE TEMP TABLE first ()",
        series(parse("SELECT * FROM place", "s"), *use("s")),
        "CREATE TEMP TABLE place (other int)",
        series(*use("s")),
        series(close_statement("s"), parse("SELECT * FROM place", "s"), *use("s")),
        "DROP TABLE pg_temp.place, first",
        "SELECT * FROM place",
    ),
)

PLANS = (*TYPES, *STALE)
