"""What stands beside results: notices, notifications, function calls, empty queries, temporary objects, sequences."""

from __future__ import annotations

import struct

from spec.conformance.requests import (
    SYNC,
    bind,
    describe_portal,
    describe_statement,
    execute,
    function_call,
    parse,
    query,
    run,
)
from tests.integration.differential.scripts import NO_BLOCKS, Deviation, hear, say, script, series

INT4PL, NOW_IS_NO_FUNCTION, LENGTH = 177, 1, 1317

NO_SEQUENCE_IS_KEPT = Deviation(
    "nothing pins a client for what nextval did; its next transaction may have another server connection",
    direct="DataRow 1",
    heard="ErrorResponse 55000",
)

NOTICES = (
    script(
        "notices of every level",
        *[f"SELECT remark('{level}', 'words, ü')" for level in ("debug", "log", "info", "notice", "warning")],
    ),
    script(
        "notices of a level that is asked for",
        "SET client_min_messages TO debug1; SELECT remark('debug', 'x'); RESET client_min_messages",
        "SET client_min_messages TO error; SELECT remark('warning', 'x'); RESET client_min_messages",
    ),
    script(
        "notices in the middle of rows",
        "SELECT n, remark('notice', 'row ' || n) FROM generate_series(1, 3) AS n",
        series(*run("SELECT remark('notice', $1)", "in series")),
    ),
    script("two hundred notices", "DO $$ BEGIN FOR n IN 1..200 LOOP RAISE NOTICE 'notice %', n; END LOOP; END $$"),
    script("a long notice", "SELECT length(remark('notice', repeat('ü', 50000)))"),
    script(
        "notices of the server itself",
        "DROP TABLE IF EXISTS none",
        "CREATE TEMP TABLE t (number int PRIMARY KEY)",
        "CREATE TEMP TABLE IF NOT EXISTS t ()",
        "TRUNCATE t",
        "DROP TABLE t",
        "DROP SCHEMA IF EXISTS none CASCADE",
        "SELECT 'x' || E'\\x41'",
    ),
    script(
        "a notice in front of an error",
        "DO $$ BEGIN RAISE NOTICE 'before'; PERFORM 1 / 0; END $$",
        series(*run("SELECT remark('notice', 'x'), 1 / (number - number) FROM item")),
    ),
    script("NOTICE at COMMIT", "BEGIN", "COMMIT; COMMIT", "ROLLBACK", statement=NO_BLOCKS),
)

NOTIFICATIONS = (
    script(
        "to itself",
        "LISTEN news",
        "NOTIFY news, 'one'",
        "SELECT pg_notify('news', 'two')",
        "UNLISTEN news",
        "NOTIFY news, 'none'",
        "SELECT 1",
    ),
    script(
        "to itself, several in one transaction",
        "LISTEN news",
        "NOTIFY news, 'a'; NOTIFY news, 'b'; NOTIFY news, 'a'; NOTIFY news",
        "SELECT pg_notify('news', n::text) FROM generate_series(1, 3) AS n",
        "UNLISTEN *",
    ),
    script(
        "to itself, at COMMIT and not at ROLLBACK",
        "LISTEN news",
        "BEGIN",
        "NOTIFY news, 'later'",
        "SELECT 1",
        "COMMIT",
        "BEGIN; NOTIFY news, 'never'; ROLLBACK",
        "UNLISTEN *",
        statement=NO_BLOCKS,
    ),
    script(
        "to itself, in series",
        "LISTEN news",
        series(*run("NOTIFY news, 'in series'"), *run("SELECT 1")),
        say(*run("NOTIFY news, 'x'"), SYNC, *run("SELECT 1"), SYNC),
        series(*run("UNLISTEN *")),
        "SELECT 1",
    ),
    script(
        "to itself, long and odd",
        'LISTEN "Odd ""channel"""',
        "SELECT pg_notify('Odd \"channel\"', repeat('x', 7999))",
        'NOTIFY "Odd ""channel""", \'ü☃\'',
        "SELECT pg_notify('news', repeat('x', 8000))",
        "SELECT pg_notify('', 'x')",
        "SELECT * FROM pg_listening_channels()",
        "UNLISTEN *",
    ),
    script(
        "to another that is idle",
        say("LISTEN news", on="second"),
        say("NOTIFY news, 'to you'"),
        hear("NotificationResponse", on="second"),
        say("UNLISTEN *", on="second"),
        say("NOTIFY news, 'to nobody'"),
        say("SELECT 1", on="second"),
    ),
    script(
        "to another that is in a block",
        say("LISTEN news", on="second"),
        say("BEGIN", on="second"),
        say("NOTIFY news, 'wait'"),
        say("SELECT 1", on="second"),
        say("COMMIT", on="second"),
        say("UNLISTEN *", on="second"),
        statement=NO_BLOCKS,
    ),
    script(
        "LISTEN that is rolled back",
        "BEGIN; LISTEN news; ROLLBACK",
        "NOTIFY news",
        "SELECT count(*) FROM pg_listening_channels()",
    ),
    script(
        "ended by DISCARD ALL",
        "LISTEN news",
        "DISCARD ALL",
        "NOTIFY news",
        "SELECT count(*) FROM pg_listening_channels()",
    ),
)

CALLS = (
    script(
        "a function call",
        say(function_call(INT4PL, "1", "2")),
        say(function_call(INT4PL, struct.pack("!i", 1), struct.pack("!i", 2), format_code=1)),
        say(function_call(LENGTH, "ünï")),
    ),
    script("a function call with NULL", say(function_call(INT4PL, "1", None)), "SELECT 1"),
    script(
        "function calls that fail",
        say(function_call(NOW_IS_NO_FUNCTION)),
        say(function_call(INT4PL, "1")),
        say(function_call(INT4PL, "x", "1")),
        say(function_call(INT4PL, "2147483647", "1")),
        "SELECT 1",
    ),
    script(
        "a function call in a block, and in a failed one",
        "BEGIN",
        say(function_call(INT4PL, "1", "2")),
        "SELECT 1 / 0",
        say(function_call(INT4PL, "1", "2")),
        "ROLLBACK",
        statement=NO_BLOCKS,
    ),
    script(
        "function calls in one go with others",
        say(
            function_call(INT4PL, "1", "2"), query("SELECT 1"), *run("SELECT 2"), SYNC, function_call(INT4PL, "3", "4")
        ),
    ),
)

EMPTY = (
    script(
        "empty queries", "", "  \n", ";", ";;", "-- a comment", "/* another */", "SELECT 1;;SELECT 2;", "; SELECT 3"
    ),
    script(
        "empty queries in series",
        series(parse(""), describe_statement(), bind(), describe_portal(), execute()),
        series(parse("-- none"), bind(), execute(), *run("SELECT 1")),
        series(parse(";"), bind(), execute()),
    ),
    script(
        "empty queries in a failed block",
        "BEGIN",
        "SELECT 1 / 0",
        "",
        series(*run("")),
        "ROLLBACK",
        statement=NO_BLOCKS,
    ),
    script(
        "commands and their tags",
        "INSERT INTO play VALUES (1), (2)",
        "UPDATE play SET number = 3",
        "DELETE FROM play WHERE number = 4",
        "SELECT 1 UNION SELECT 2 ORDER BY 1",
        "MERGE INTO play USING (VALUES (3)) AS v (x) ON number = x WHEN MATCHED THEN DELETE",
        "TRUNCATE play",
        "VALUES (1)",
        "ANALYZE play",
        "CREATE INDEX ON play (number)",
        "COMMENT ON TABLE play IS 'x'",
        "LOCK TABLE item",
        "GRANT SELECT ON play TO PUBLIC",
        "EXPLAIN (COSTS off) TABLE play",
        "CHECKPOINT",
        "DO 'BEGIN END'",
        table="number int",
    ),
    script(
        "RETURNING",
        "INSERT INTO play VALUES (1), (2) RETURNING *",
        "UPDATE play SET number = number + 1 RETURNING old.number, new.number",
        "DELETE FROM play RETURNING number * 2 AS twice",
        "WITH gone AS (DELETE FROM play RETURNING *) SELECT count(*) FROM gone",
        table="number int",
    ),
)

KEPT = (
    script(
        "a temporary table",
        "CREATE TEMP TABLE own (number int)",
        "INSERT INTO own VALUES (1), (2)",
        "SELECT sum(number) FROM own",
        "COPY own TO STDOUT",
        "DROP TABLE own",
        "SELECT * FROM own",
    ),
    script(
        "a temporary table of its transaction",
        "BEGIN; CREATE TEMP TABLE own (number int) ON COMMIT DROP; SELECT count(*) FROM own; COMMIT",
        "SELECT * FROM own",
    ),
    script(
        "DISCARD TEMP",
        "CREATE TEMP TABLE own ()",
        "DISCARD TEMP",
        "SELECT * FROM own",
        "DISCARD SEQUENCES",
        "DISCARD PLANS",
    ),
    script(
        "a sequence in one transaction",
        "SELECT nextval('play_number_seq'), currval('play_number_seq'), lastval()",
        "INSERT INTO play DEFAULT VALUES RETURNING number, currval('play_number_seq')",
        "SELECT setval('play_number_seq', 10)",
        "SELECT nextval('play_number_seq')",
        table="number serial",
    ),
    script(
        "a sequence over several transactions",
        "SELECT nextval('play_number_seq')",
        "SELECT currval('play_number_seq')",
        table="number serial",
        transaction=NO_SEQUENCE_IS_KEPT,
        statement=NO_SEQUENCE_IS_KEPT,
    ),
    script(
        "large objects",
        "SELECT lo_from_bytea(424242, '\\x0102')",
        "SELECT lo_get(424242)",
        "BEGIN; SELECT loread(lo_open(424242, 262144), 10); COMMIT",
        "SELECT lo_unlink(424242)",
        "SELECT lo_get(424242)",
    ),
)

ASIDES = (*NOTICES, *NOTIFICATIONS, *CALLS, *EMPTY, *KEPT)
