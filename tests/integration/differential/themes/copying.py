"""COPY in and out, in all formats, its errors, and its place in other statements and series."""

from __future__ import annotations

import struct

from spec.conformance.requests import COPY_DONE, FLUSH, SYNC, bind, copy_data, copy_fail, execute, parse, query, run
from tests.integration.differential.scripts import NO_BLOCKS, Script, copy_in, no_blocks, say, script, series

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
ROW = struct.pack("!hii", 2, 4, 7) + struct.pack("!i", 5) + b"seven"
END = struct.pack("!h", -1)
NULL_ROW = struct.pack("!hii", 2, 4, 8) + struct.pack("!i", -1)

TABLE = "number int, word text"
INTO = "COPY play FROM STDIN"
ALL = "SELECT * FROM play ORDER BY number, word"


def taken(name: str, text: str, *data: bytes | str) -> Script:
    """Return a script of one COPY FROM STDIN and what it has left in the table."""
    return script(name, copy_in(text, *data), ALL, table=TABLE)


OUT = (
    script(
        "out, as text",
        "COPY item TO STDOUT",
        "COPY (SELECT NULL, E'a\\tb\\\\c\\n', 'ü') TO STDOUT",
        "COPY held TO STDOUT",
    ),
    script(
        "out, as CSV",
        "COPY item TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
        "COPY (SELECT 'a,\"b', NULL, '') TO STDOUT (FORMAT csv, NULL 'nil', DELIMITER ';')",
    ),
    script(
        "out, in binary",
        "COPY item (number, word, price) TO STDOUT (FORMAT binary)",
        "COPY (SELECT NULL::int, ARRAY[1, 2]) TO STDOUT WITH BINARY",
    ),
    script(
        "out, in another encoding",
        "COPY (SELECT 'üé') TO STDOUT (ENCODING latin1)",
        "COPY (SELECT '☃') TO STDOUT (ENCODING latin1)",
    ),
    script(
        "out, five hundred rows",
        "COPY (SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 500) AS n) TO STDOUT",
    ),
    script("out, rows longer than a buffer", "COPY (SELECT repeat('x', 100000) FROM generate_series(1, 5)) TO STDOUT"),
    script(
        "out, an error in the middle",
        "COPY (SELECT 10 / (3 - n) FROM generate_series(1, 5) AS n) TO STDOUT",
        "SELECT 'goes on'",
    ),
    script(
        "out, in a query of several statements", "SELECT 1; COPY place TO STDOUT; COPY (SELECT 2) TO STDOUT; SELECT 3"
    ),
    script(
        "out, in the extended protocol",
        series(*run("COPY place TO STDOUT")),
        series(parse("COPY place TO STDOUT"), bind(), execute(limit=1), execute()),
    ),
    script(
        "out, then an error, in series",
        say(*run("COPY place TO STDOUT"), *run("SELECT 1 / 0"), *run("SELECT 2"), SYNC, "SELECT 3"),
    ),
    script("out, what modifies", "COPY (INSERT INTO play VALUES (1, 'x') RETURNING *) TO STDOUT", ALL, table=TABLE),
    script(
        "out, from where nothing can be had",
        "COPY nowhere TO STDOUT",
        "COPY (SELECT 1 TO STDOUT",
        "COPY item (none) TO STDOUT",
        "COPY item TO STDOUT (FORMAT odd)",
    ),
    script("out, a parameter where none may be", series(*run("COPY (SELECT $1::int) TO STDOUT", "1"))),
)

IN = (
    taken("in, as text", INTO, "1\tone\n2\t\\N\n", "3\tt\\th\\nree\n"),
    taken("in, nothing at all", INTO),
    taken("in, cut anywhere", INTO, "1\to", "n", "e\n2", "\ttwo", "\n"),
    taken("in, without a last newline", INTO, "1\tone\n2\ttwo"),
    taken("in, with an end of its own", INTO, "1\tone\n\\.\n2\tafter the end\n"),
    taken("in, with other delimiters", INTO + " (DELIMITER '|', NULL 'nil', HEADER)", "number|word\n1|nil\n2|a\n"),
    taken("in, as CSV", INTO + " (FORMAT csv, HEADER match)", 'number,word\n1,"a ""b"", c\nd"\n2,\n3,""\n'),
    taken("in, some columns", "COPY play (word) FROM STDIN", "one\ntwo\n"),
    taken("in, some rows", INTO + " WHERE number > 1", "1\tone\n2\ttwo\n"),
    taken("in, in binary", INTO + " (FORMAT binary)", HEADER + ROW + NULL_ROW + END),
    taken(
        "in, in binary, cut anywhere",
        INTO + " (FORMAT binary)",
        HEADER[:5],
        HEADER[5:] + ROW[:3],
        ROW[3:] + END[:1],
        END[1:],
    ),
    taken("in, in another encoding", INTO + " (ENCODING latin1)", b"1\t\xe9\n"),
    taken(
        "in, five hundred rows",
        INTO,
        *("".join(f"{n}\tword {n}\n" for n in range(at, at + 25)) for at in range(0, 500, 25)),
    ),
    taken("in, a row of a megabyte", INTO, "1\t" + "x" * 1_000_000 + "\n"),
    taken("in, errors passed over", INTO + " (ON_ERROR ignore, LOG_VERBOSITY verbose)", "1\tone\nx\ttwo\n3\tthree\n"),
)

WRONG = (
    taken("wrong: a number", INTO, "1\tone\nx\ttwo\n"),
    taken("wrong: too few columns", INTO, "1\tone\n2\n"),
    taken("wrong: too many columns", INTO, "1\tone\n2\ttwo\tthree\n"),
    taken("wrong: the header", INTO + " (HEADER match)", "word\tnumber\n1\tone\n"),
    taken("wrong: a quote that never ends", INTO + " (FORMAT csv)", '1,"one\n'),
    taken("wrong: the signature", INTO + " (FORMAT binary)", b"PGCOPX\n\xff\r\n\0" + HEADER[11:] + END),
    taken("wrong: a binary row of the wrong size", INTO + " (FORMAT binary)", HEADER + struct.pack("!hii", 2, 3, 7)),
    taken("wrong: a binary stream that is cut off", INTO + " (FORMAT binary)", HEADER + ROW[:-2]),
    taken("wrong: bytes that are not UTF-8", INTO, b"1\t\xff\n"),
    taken("wrong: a carriage return", INTO, "1\tone\r\n2\ttwo\n"),
    taken("wrong: much more after it", INTO, "x\tone\n", *["1\tone\n" * 100] * 100),
    script(
        "wrong: a key twice", copy_in(INTO, "1\tone\n1\ttwo\n"), "TABLE play", table="number int PRIMARY KEY, word text"
    ),
    script(
        "wrong: a check and a NULL",
        copy_in(INTO, "-1\n"),
        copy_in(INTO, "\\N\n"),
        "TABLE play",
        table="number int NOT NULL CHECK (number > 0)",
    ),
    script(
        "wrong: nowhere, or not there",
        copy_in("COPY nowhere FROM STDIN", "1\n"),
        copy_in("COPY item (none) FROM STDIN", "1\n"),
        "SELECT 1",
    ),
)

PLACES = (
    script("failed by the client", copy_in(INTO, "1\tone\n", end=copy_fail("the reason, ü")), ALL, table=TABLE),
    script(
        "failed by the client in a block",
        "BEGIN",
        copy_in(INTO, "1\tone\n", end=copy_fail("no")),
        "COMMIT",
        ALL,
        table=TABLE,
        statement=NO_BLOCKS,
    ),
    script(
        "asked for first, sent then",
        say(INTO, until="CopyInResponse"),
        say(copy_data("1\tone\n"), until=""),
        say(copy_data("2\ttwo\n"), COPY_DONE, times=1),
        ALL,
        table=TABLE,
    ),
    script("in a block", "BEGIN", copy_in(INTO, "1\tone\n"), ALL, "ROLLBACK", ALL, table=TABLE, statement=NO_BLOCKS),
    script(
        "in a query of several statements",
        say(
            f"SELECT 1; {INTO}; SELECT 2; {INTO}; {ALL}",
            copy_data("1\tone\n"),
            COPY_DONE,
            copy_data("2\ttwo\n"),
            COPY_DONE,
        ),
        table=TABLE,
    ),
    script(
        "wrong in a query of several statements",
        say(f"INSERT INTO play VALUES (9, 'nine'); {INTO}; SELECT 2", copy_data("x\n"), COPY_DONE),
        ALL,
        table=TABLE,
    ),
    script("in the extended protocol", say(*run(INTO), copy_data("1\tone\n"), COPY_DONE, SYNC), ALL, table=TABLE),
    script(
        "in the extended protocol, a Sync and a Flush in its midst",
        say(*run(INTO), copy_data("1\tone\n"), SYNC, FLUSH, copy_data("2\ttwo\n"), COPY_DONE, SYNC, times=1),
        ALL,
        table=TABLE,
    ),
    script(
        "wrong in the extended protocol",
        say(*run(INTO), copy_data("x\n"), copy_data("2\ttwo\n"), COPY_DONE, SYNC),
        ALL,
        table=TABLE,
    ),
    script(
        "failed in the extended protocol",
        say(*run(INTO), copy_data("1\tone\n"), copy_fail("no"), SYNC),
        ALL,
        table=TABLE,
    ),
    script(
        "wrong, and a series that goes on behind it",
        say(*run(INTO), copy_data("x\n"), COPY_DONE, *run("SELECT 1"), SYNC, *run(ALL), SYNC),
        table=TABLE,
    ),
    script(
        "failed, and a series that goes on behind it",
        say(*run(INTO), copy_data("1\tone\n"), copy_fail("no"), *run("SELECT 1"), SYNC, *run(ALL), SYNC),
        table=TABLE,
    ),
    script(
        "a foreign key at the Sync behind a COPY",
        say(*run("COPY part FROM STDIN"), copy_data("1\t100\n"), COPY_DONE, SYNC),
        "SELECT count(*) FROM part",
    ),
    script(
        "in series with others",
        say(
            *run("INSERT INTO play VALUES (0, $1)", "zero"),
            *run(INTO),
            copy_data("1\tone\n"),
            COPY_DONE,
            *run(ALL),
            SYNC,
        ),
        table=TABLE,
    ),
    script(
        "another message in its midst", say(INTO, copy_data("1\tone\n"), query("SELECT 1"), times=2), ALL, table=TABLE
    ),
    script(
        "messages of a COPY where there is none",
        say(copy_data("1\n"), COPY_DONE, copy_fail("no"), "SELECT 1"),
        series(*run("SELECT 2")),
    ),
    script(
        "with FREEZE, and into what is no table",
        say("COPY play FROM STDIN (FREEZE)", copy_data("1\tone\n"), COPY_DONE),
        "CREATE TEMP VIEW v AS SELECT 1 AS x",
        copy_in("COPY v FROM STDIN", "1\n"),
        "DROP VIEW v",
        table=TABLE,
    ),
    script(
        "one and the other way, one by one",
        *[step for n in range(5) for step in (copy_in(INTO, f"{n}\tword\n"), "COPY play TO STDOUT")],
        table=TABLE,
    ),
    script(
        "two-way in a failed block",
        "BEGIN",
        "SELECT 1 / 0",
        copy_in(INTO, "1\tone\n"),
        "COPY place TO STDOUT",
        "ROLLBACK",
        table=TABLE,
        statement=NO_BLOCKS,
    ),
    script(
        "of a block that a series begins",
        say(*run("BEGIN"), *run(INTO), copy_data("1\tone\n"), COPY_DONE, SYNC),
        "ROLLBACK",
        ALL,
        table=TABLE,
        statement=no_blocks("CommandComplete COPY 1"),
    ),
)

COPYING = (*OUT, *IN, *WRONG, *PLACES)
