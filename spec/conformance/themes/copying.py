"""COPY in both directions."""

from __future__ import annotations

from spec.conformance.requests import COPY_DONE, FLUSH, NAME, SYNC, copy_data, copy_fail, query, run
from spec.conformance.scripts import (
    IN_BLOCK,
    IN_FAILED_BLOCK,
    READY,
    Script,
    Theme,
    ask,
    done,
    either,
    error,
    given,
    rows,
)

COPY = "protocol-flow#PROTOCOL-COPY"
BEGUN = "CopyInResponse 0 of 1"
FROM = f"COPY {NAME} FROM STDIN"
TO = "COPY (SELECT generate_series(1, 3)) TO STDOUT"
SENT = ("CopyOutResponse 0 of 1", "CopyData 1", "CopyData 2", "CopyData 3", "CopyDone", "CommandComplete COPY 3")
TABLE = "x int"
EMPTY = ask(query(f"SELECT count(*) FROM {NAME}"), answer=(*rows("0"), READY))
TWO = ask(query(f"SELECT count(*) FROM {NAME}"), answer=(*rows("2"), READY))

THEME = Theme(
    "copy",
    "COPY in and out, failing, data ahead, Sync inside",
    (
        Script("out", COPY, (ask(query(TO), answer=(*SENT, READY)),)),
        Script(
            "out, in binary",
            COPY,
            (
                either(
                    query("COPY (SELECT 1) TO STDOUT (FORMAT binary)"),
                    answers=[
                        ("CopyOutResponse 1 of 1", *pieces * ("CopyData",), "CopyDone", "CommandComplete COPY 1", READY)
                        for pieces in (1, 2, 3)
                    ],
                ),
            ),
        ),
        Script(
            "out, with other statements around it",
            COPY,
            (ask(query(f"SELECT 1; {TO}; SELECT 2"), answer=(*rows("1"), *SENT, *rows("2"), READY)),),
        ),
        Script(
            "out, ended by an error",
            COPY,
            (
                ask(
                    query("COPY (SELECT 6 / (2 - x) FROM generate_series(1, 2) AS x) TO STDOUT"),
                    answer=("CopyOutResponse", "CopyData 6", error("22012"), READY),
                ),
            ),
        ),
        Script(
            "out, in a series", COPY, (ask(*run(TO), SYNC, answer=("ParseComplete", "BindComplete", *SENT, READY)),)
        ),
        Script(
            "in",
            COPY,
            (given(query(FROM), answer=(BEGUN,)), given(copy_data("1\n2\n"), COPY_DONE, answer=done("COPY 2")), TWO),
            table=TABLE,
        ),
        Script(
            "in, of nothing",
            COPY,
            (given(query(FROM), answer=(BEGUN,)), given(COPY_DONE, answer=done("COPY 0")), EMPTY),
            table=TABLE,
        ),
        Script(
            "in, cut anywhere",
            COPY,
            (
                given(query(FROM), answer=(BEGUN,)),
                given(
                    copy_data("1"),
                    copy_data(""),
                    copy_data("\n"),
                    copy_data("2\n"),
                    COPY_DONE,
                    answer=done("COPY 2"),
                    pieces=3,
                ),
                TWO,
            ),
            table=TABLE,
        ),
        Script(
            "in, given up",
            COPY,
            (
                given(query(FROM), answer=(BEGUN,)),
                given(copy_data("1\n"), copy_fail("enough"), answer=(error("57014"), READY)),
                EMPTY,
            ),
            table=TABLE,
        ),
        Script(
            "in, of wrong data",
            COPY,
            (
                given(query(FROM), answer=(BEGUN,)),
                given(copy_data("1\none\n"), COPY_DONE, answer=(error("22P02"), READY)),
                EMPTY,
            ),
            table=TABLE,
        ),
        Script(
            "in, with more data behind the error",
            COPY,
            (
                given(query(FROM), answer=(BEGUN,)),
                given(copy_data("one\n"), answer=(error("22P02"), READY)),
                ask(copy_data("2\n"), copy_data("3\n"), COPY_DONE, query("SELECT 1"), answer=(*rows("1"), READY)),
                EMPTY,
            ),
            table=TABLE,
        ),
        Script(
            "in, with the data sent ahead",
            COPY,
            (
                given(
                    query(FROM),
                    copy_data("1\n2\n"),
                    COPY_DONE,
                    query("SELECT 1"),
                    answer=(BEGUN, *done("COPY 2"), *rows("1"), READY),
                ),
                TWO,
            ),
            table=TABLE,
        ),
        Script(
            "in, with the data sent ahead of an error",
            COPY,
            (
                ask(
                    query(f"COPY {NAME}x FROM STDIN"),
                    copy_data("1\n"),
                    COPY_DONE,
                    query("SELECT 1"),
                    answer=(error("42P01"), READY, *rows("1"), READY),
                ),
            ),
        ),
        Script(
            "in, with Sync and Flush inside, which mean nothing",
            COPY,
            (
                given(query(FROM), answer=(BEGUN,)),
                given(copy_data("1\n"), SYNC, FLUSH, copy_data("2\n"), SYNC, COPY_DONE, answer=done("COPY 2")),
                TWO,
                ask(SYNC, answer=(READY,)),
            ),
            table=TABLE,
        ),
        Script(
            "in, twice in one query",
            COPY,
            (
                given(query(f"{FROM}; {FROM}"), answer=(BEGUN,)),
                given(copy_data("1\n"), COPY_DONE, answer=("CommandComplete COPY 1", BEGUN)),
                given(copy_data("2\n"), COPY_DONE, answer=done("COPY 1")),
                TWO,
            ),
            table=TABLE,
        ),
        Script(
            "in, in a series",
            COPY,
            (
                given(*run(FROM), FLUSH, answer=("ParseComplete", "BindComplete", BEGUN)),
                given(copy_data("1\n2\n"), COPY_DONE, SYNC, answer=done("COPY 2")),
                TWO,
            ),
            table=TABLE,
        ),
        Script(
            "in, in a series whose Sync comes too early",
            COPY,
            (
                given(*run(FROM), SYNC, answer=("ParseComplete", "BindComplete", BEGUN)),
                given(copy_data("1\n2\n"), COPY_DONE, SYNC, answer=done("COPY 2")),
                TWO,
            ),
            table=TABLE,
        ),
        Script(
            "in, in a series, given up",
            COPY,
            (
                given(*run(FROM), FLUSH, answer=("ParseComplete", "BindComplete", BEGUN)),
                given(copy_fail("enough"), *run("SELECT 1"), SYNC, answer=(error("57014"), READY)),
                EMPTY,
            ),
            table=TABLE,
        ),
        Script(
            "in, in a transaction block",
            COPY,
            (
                given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK)),
                given(query(FROM), answer=(BEGUN,)),
                given(copy_data("1\n"), COPY_DONE, answer=("CommandComplete COPY 1", IN_BLOCK)),
                given(query(FROM), answer=(BEGUN,)),
                given(copy_data("one\n"), COPY_DONE, answer=(error("22P02"), IN_FAILED_BLOCK)),
                given(query("COMMIT"), answer=done("ROLLBACK")),
                EMPTY,
            ),
            table=TABLE,
            needs=("transaction blocks",),
        ),
        Script(
            "copy messages where there is no COPY mean nothing",
            COPY,
            (ask(copy_data("1\n"), COPY_DONE, copy_fail("no reason"), query("SELECT 1"), answer=(*rows("1"), READY)),),
        ),
    ),
)
