"""Run-time parameters: of the start, set, set back, rolled back, reported, and what else depends on them."""

from __future__ import annotations

from spec.conformance.requests import bind, execute, parse, run
from tests.integration.differential.scripts import NO_BLOCKS, Deviation, log_in, say, script, series

DATE = "SELECT date '2020-02-01', timestamptz '2020-02-01 12:00+00', interval '1 day 2 hours'"
PATH = "SHOW search_path"


def from_the_pool(code: str) -> dict[str, Deviation]:
    """Return how an error in a parameter of the start deviates, in every mode."""
    deviation = Deviation(
        "PgPooler sets parameters of the start on a server connection that is there already, and says itself what the "
        "server has said to that: not where in its source",
        direct=f"ErrorResponse {code}",
        heard=f"ErrorResponse {code} without FLR",
    )
    return {"session": deviation, "transaction": deviation, "statement": deviation}


OTHER_ORDER = (
    "what a RESET, or in session mode any SET, of a client with parameters of its start changes is reported when the "
    "values of the start are in force again, in an order of PgPooler's own"
)
ALL_AGAIN = Deviation(
    OTHER_ORDER, direct="ParameterStatus application_name=x", heard="ParameterStatus TimeZone=Asia/Tokyo"
)
BY_A_DO = Deviation(
    "what a DO sets is followed only where the server reports it", direct="DataRow 3MB", heard="DataRow 4MB"
)

START = (
    script(
        "of the start, reported ones",
        log_in(DateStyle="SQL, DMY", TimeZone="Europe/Berlin", IntervalStyle="iso_8601", application_name="a name"),
        DATE,
        "SHOW application_name",
    ),
    script(
        "of the start, in other spellings",
        log_in(datestyle="german", timezone="europe/paris", client_encoding="latin1"),
        DATE,
        "SHOW client_encoding",
        "SELECT 'é', chr(233)",
    ),
    script(
        "of the start, search_path",
        log_in(search_path='"Hostile, ""quoted"" schema", other'),
        PATH,
        "TABLE place",
        "SELECT current_schemas(false)",
    ),
    script("of the start, an empty search_path", log_in(search_path=""), PATH, "TABLE place", "SELECT 1"),
    script(
        "of the start, others",
        log_in(work_mem="5MB", statement_timeout="12345", extra_float_digits="0"),
        "SHOW work_mem",
        "SHOW statement_timeout",
        "SELECT 0.1::float8 + 0.2",
    ),
    script(
        "of the start, of a program's own",
        log_in(**{"my.start": "it's mine"}),
        "SHOW my.start",
        "SELECT current_setting('my.start')",
    ),
    script(
        "of the start, as options",
        log_in(options="-c work_mem=6MB -c search_path=other\\ ,public --datestyle=german"),
        "SHOW work_mem",
        PATH,
        DATE,
    ),
    script(
        "of the start, back to them",
        log_in(DateStyle="German", work_mem="7MB"),
        "SET DateStyle TO ISO",
        "SET work_mem TO '1MB'",
        DATE,
        "RESET DateStyle",
        "RESET work_mem",
        DATE,
        "SHOW work_mem",
    ),
    script(
        "of the start, back to all of them",
        log_in(DateStyle="German", TimeZone="Asia/Tokyo", application_name="x"),
        "SET DateStyle TO ISO; SET TimeZone TO UTC; SET application_name TO y",
        "RESET ALL",
        DATE,
        "SHOW application_name",
        session=Deviation(
            OTHER_ORDER, direct="ParameterStatus application_name=y", heard="ParameterStatus TimeZone=UTC"
        ),
        transaction=ALL_AGAIN,
        statement=ALL_AGAIN,
    ),
    script(
        "of the start, back by DISCARD ALL",
        log_in(DateStyle="German", TimeZone="Asia/Tokyo", search_path="other"),
        "SET DateStyle TO ISO; SET search_path TO public",
        "DISCARD ALL",
        DATE,
        PATH,
    ),
    script(
        "of the start, back by SET TO DEFAULT",
        log_in(IntervalStyle="sql_standard", search_path="other"),
        "SET IntervalStyle TO postgres; SET search_path TO public",
        "SET IntervalStyle TO DEFAULT",
        "SET search_path TO DEFAULT",
        DATE,
        PATH,
        session=Deviation(
            OTHER_ORDER,
            direct="ParameterStatus search_path=public",
            heard="ParameterStatus IntervalStyle=postgres",
        ),
    ),
    script(
        "of the start, back in one go with other requests",
        log_in(work_mem="7MB"),
        say("SET work_mem TO '1MB'", "RESET work_mem", "SELECT 1", "SELECT 2"),
        "SHOW work_mem",
        "SHOW work_mem",
    ),
    script(
        "of the start, back in a block that fails",
        log_in(work_mem="7MB"),
        "BEGIN",
        "RESET work_mem",
        "SELECT 1 / 0",
        "ROLLBACK",
        "SHOW work_mem",
        statement=NO_BLOCKS,
    ),
    script("of the start, one that does not exist", log_in(no_such_parameter="1"), **from_the_pool("42704")),
    script("of the start, one with a wrong value", log_in(work_mem="none at all"), **from_the_pool("22023")),
    script("of the start, one that may not be set", log_in(shared_buffers="1MB"), **from_the_pool("55P02")),
    script("of the start, of both protocol versions", log_in(minor=2, TimeZone="UTC"), "SHOW TimeZone"),
)

SET = (
    script(
        "SET, and what depends on it",
        DATE,
        "SET DateStyle TO SQL, DMY",
        DATE,
        "SET TimeZone TO 'America/New_York'",
        DATE,
        "SET IntervalStyle TO iso_8601",
        DATE,
    ),
    script(
        "SET in several spellings",
        "SET work_mem = '3MB'",
        "SET SESSION work_mem TO 4096",
        "SHOW work_mem",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SHOW TimeZone",
        "SET TIME ZONE INTERVAL '+02:30' HOUR TO MINUTE",
        "SHOW TIME ZONE",
        "SET TIME ZONE DEFAULT",
        "SHOW TimeZone",
    ),
    script(
        "SET and RESET",
        "SET work_mem TO '3MB'",
        "SHOW work_mem",
        "RESET work_mem",
        "SHOW work_mem",
        "SET DateStyle TO German",
        DATE,
        "RESET DateStyle",
        DATE,
    ),
    script(
        "SET TO DEFAULT",
        "SET work_mem TO '3MB'",
        "SET work_mem TO DEFAULT",
        "SHOW work_mem",
        "SET DateStyle TO German",
        "SET DateStyle TO DEFAULT",
        DATE,
    ),
    script(
        "RESET ALL",
        "SET work_mem TO '3MB'; SET DateStyle TO German; SET my.reset_all TO 1",
        "RESET ALL",
        "SHOW work_mem",
        DATE,
        "SHOW my.reset_all",
    ),
    script(
        "DISCARD ALL",
        "SET work_mem TO '3MB'; SET DateStyle TO German",
        "DISCARD ALL",
        "SHOW work_mem",
        DATE,
        "SELECT 1; DISCARD ALL",
    ),
    script(
        "set_config",
        "SELECT set_config('work_mem', '3MB', false)",
        "SHOW work_mem",
        "SELECT set_config('DateStyle', 'German', false), date '2020-02-01'",
        DATE,
        "SELECT set_config('work_mem', '4MB', true)",
        "SHOW work_mem",
        "SELECT set_config('work_mem', NULL, false)",
        "SHOW work_mem",
    ),
    script("UPDATE of pg_settings", "UPDATE pg_settings SET setting = '3333' WHERE name = 'work_mem'", "SHOW work_mem"),
    script(
        "by a DO",
        "DO $$ BEGIN SET work_mem TO '3MB'; PERFORM set_config('my.by_do', 'x', false); END $$",
        "SHOW work_mem",
        "SHOW my.by_do",
        transaction=BY_A_DO,
        statement=BY_A_DO,
    ),
    script(
        "of a program's own",
        "SET my.own TO 'a value'",
        "SHOW my.own",
        "SELECT current_setting('my.own')",
        "SET my.own TO 'it''s \"other\" \\ one'",
        "SHOW my.own",
        "RESET my.own",
        "SHOW my.own",
        "SHOW my.unknown",
        "SELECT current_setting('my.unknown', true) IS NULL",
    ),
    script(
        "wrong ones",
        "SET no_such_parameter TO 1",
        "SET work_mem TO 'x'",
        "SET DateStyle TO never",
        "SET TimeZone TO 'Nowhere'",
        "SET shared_buffers TO '1MB'",
        "SET server_version TO '1'",
        "SHOW nothing",
        "RESET nothing",
        "SELECT 1",
    ),
    script(
        "SET in the extended protocol",
        series(*run("SET DateStyle TO German")),
        series(*run(DATE)),
        series(*run("SELECT set_config($1, $2, false)", "TimeZone", "Asia/Tokyo")),
        DATE,
    ),
    script(
        "SET at the end of a series",
        series(*run("SELECT 1"), *run("SET work_mem TO '3MB'"), *run("SHOW work_mem")),
        "SHOW work_mem",
    ),
    script(
        "SET in a series that fails",
        series(*run("SET DateStyle TO German"), *run("SELECT 1 / 0")),
        DATE,
        series(*run("SET work_mem TO '3MB'"), *run("SELECT nothing")),
        "SHOW work_mem",
    ),
    script(
        "SET in a Query that fails",
        "SET DateStyle TO German; SELECT 1 / 0",
        DATE,
        "SET DateStyle TO SQL; SELECT date '2020-02-01'; COMMIT; SELECT 1 / 0",
        DATE,
    ),
    script(
        "SET in the midst of results",
        "SELECT date '2020-02-01'; SET DateStyle TO German; SELECT date '2020-02-01'; RESET DateStyle; SELECT 1",
    ),
    script(
        "reported only when it changes",
        "SET application_name TO one",
        "SET application_name TO one",
        "SET application_name TO two",
        "SET application_name TO one; SET application_name TO two",
        "SHOW application_name",
    ),
    script(
        "an application's name beyond ASCII",
        "SET application_name TO 'ü☃'",
        "SHOW application_name",
        "SET application_name TO '" + "x" * 100 + "'",
        "SHOW application_name",
    ),
    script(
        "the client's encoding",
        "SET client_encoding TO latin1",
        "SELECT chr(233)",
        "SELECT chr(9731)",
        "SET NAMES 'UTF8'",
        "SELECT chr(9731)",
        "SET client_encoding TO sql_ascii",
        "SHOW client_encoding",
        "SET client_encoding TO nothing",
    ),
    script(
        "the client's encoding in a parameter",
        "SET client_encoding TO win1251",
        series(parse("SELECT $1::text, length($1)"), bind(b"\xcf\xf0\xe8"), execute()),
        "RESET client_encoding",
        series(parse("SELECT $1::text, length($1)"), bind("При"), execute()),
    ),
    script(
        "strings without escapes",
        "SET standard_conforming_strings TO off",
        "SET escape_string_warning TO off",
        "SELECT 'a\\nb'",
        "RESET standard_conforming_strings",
        "SELECT 'a\\nb'",
    ),
    script(
        "how floating-point numbers are put",
        "SET extra_float_digits TO -5",
        "SELECT pi()::float8",
        "SET extra_float_digits TO 3",
        "SELECT pi()::float8",
    ),
    script(
        "the plan: what EXPLAIN shows",
        "SET enable_seqscan TO off; SET enable_bitmapscan TO off",
        "EXPLAIN (COSTS off) SELECT * FROM item WHERE number = 1",
        "RESET enable_seqscan",
        "SHOW enable_bitmapscan",
    ),
)


SETTINGS = (*START, *SET)
