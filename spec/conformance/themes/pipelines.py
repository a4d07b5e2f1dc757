"""Several requests under way at once."""

from __future__ import annotations

from spec.conformance.requests import FLUSH, NAME, SYNC, bind, execute, parse, query, run
from spec.conformance.scripts import IN_BLOCK, IN_FAILED_BLOCK, READY, Script, Theme, ask, done, error, ran, rows

PIPELINING = "protocol-flow#PROTOCOL-FLOW-PIPELINING"
SIMPLE = "protocol-flow#PROTOCOL-FLOW-SIMPLE-QUERY"
MANY = 200

THEME = Theme(
    "pipelines",
    "many Syncs in flight, errors in the middle",
    (
        Script(
            "three series in one go",
            PIPELINING,
            (
                ask(
                    *run("SELECT 1"),
                    SYNC,
                    *run("SELECT 2"),
                    SYNC,
                    *run("SELECT 3"),
                    SYNC,
                    answer=(*ran("1"), READY, *ran("2"), READY, *ran("3"), READY),
                ),
            ),
        ),
        Script(
            "a series of several statements",
            PIPELINING,
            (
                ask(
                    *run("SELECT 1"),
                    *run("SELECT 2"),
                    *run("SELECT 3"),
                    SYNC,
                    answer=(*ran("1"), *ran("2"), *ran("3"), READY),
                ),
            ),
        ),
        Script(
            "an error ends its own series alone",
            PIPELINING,
            (
                ask(
                    *run("SELECT 1"),
                    SYNC,
                    *run("SELEC"),
                    *run("SELECT 2"),
                    SYNC,
                    *run("SELECT 3"),
                    SYNC,
                    answer=(*ran("1"), READY, error("42601"), READY, *ran("3"), READY),
                ),
            ),
        ),
        Script(
            "each series is a transaction",
            PIPELINING,
            (
                ask(
                    *run(f"INSERT INTO {NAME} VALUES (1)"),
                    SYNC,
                    *run(f"INSERT INTO {NAME} VALUES (2)"),
                    *run("SELEC"),
                    *run(f"INSERT INTO {NAME} VALUES (4)"),
                    SYNC,
                    *run(f"SELECT sum(x) FROM {NAME}"),
                    SYNC,
                    answer=(
                        *ran(tag="INSERT 0 1"),
                        READY,
                        *ran(tag="INSERT 0 1"),
                        error("42601"),
                        READY,
                        *ran("1"),
                        READY,
                    ),
                ),
            ),
            table="x int",
        ),
        Script(
            "errors in every other series",
            PIPELINING,
            (
                ask(
                    *(*run("SELECT 1"), SYNC, *run("SELEC"), SYNC) * 5,
                    answer=(*ran("1"), READY, error("42601"), READY) * 5,
                ),
            ),
        ),
        Script(
            "series and simple queries in turns",
            PIPELINING,
            (
                ask(
                    query("SELECT 1"),
                    *run("SELECT 2"),
                    SYNC,
                    query("SELECT 3; SELECT 4"),
                    *run("SELECT 5"),
                    SYNC,
                    answer=(*rows("1"), READY, *ran("2"), READY, *rows("3"), *rows("4"), READY, *ran("5"), READY),
                ),
            ),
        ),
        Script(
            "several simple queries in one go",
            SIMPLE,
            (
                ask(
                    query("SELECT 1"),
                    query("SELECT 1 / 0"),
                    query(""),
                    query("SELECT 2"),
                    answer=(*rows("1"), READY, error("22012"), READY, "EmptyQueryResponse", READY, *rows("2"), READY),
                ),
            ),
        ),
        Script(
            "two hundred series in one go",
            PIPELINING,
            (ask(*(*run("SELECT 7"), SYNC) * MANY, answer=(*ran("7"), READY) * MANY),),
        ),
        Script(
            "a series is begun while the replies of the one before are awaited",
            PIPELINING,
            (
                ask(*run("SELECT 1"), SYNC, *run("SELECT 2"), FLUSH, answer=(*ran("1"), READY, *ran("2"))),
                ask(SYNC, answer=(READY,)),
            ),
        ),
        Script(
            "a transaction block in one go",
            PIPELINING,
            (
                ask(
                    query("BEGIN"),
                    query(f"INSERT INTO {NAME} VALUES (1)"),
                    query("COMMIT"),
                    query(f"SELECT count(*) FROM {NAME}"),
                    answer=(
                        "CommandComplete BEGIN",
                        IN_BLOCK,
                        "CommandComplete INSERT 0 1",
                        IN_BLOCK,
                        *done("COMMIT"),
                        *rows("1"),
                        READY,
                    ),
                ),
            ),
            table="x int",
            needs=("transaction blocks",),
        ),
        Script(
            "a transaction block of series, with an error in it",
            PIPELINING,
            (
                ask(
                    *run("BEGIN"),
                    SYNC,
                    *run(f"INSERT INTO {NAME} VALUES (1)"),
                    SYNC,
                    *run("SELEC"),
                    SYNC,
                    *run("SELECT 1"),
                    SYNC,
                    *run("COMMIT"),
                    SYNC,
                    *run(f"SELECT count(*) FROM {NAME}"),
                    SYNC,
                    answer=(
                        *ran(tag="BEGIN"),
                        IN_BLOCK,
                        *ran(tag="INSERT 0 1"),
                        IN_BLOCK,
                        error("42601"),
                        IN_FAILED_BLOCK,
                        error("25P02"),
                        IN_FAILED_BLOCK,
                        *ran(tag="ROLLBACK"),
                        READY,
                        *ran("0"),
                        READY,
                    ),
                ),
            ),
            table="x int",
            needs=("transaction blocks",),
        ),
        Script(
            "one statement is bound by several series in one go",
            PIPELINING,
            (
                ask(
                    parse("SELECT $1::int", NAME),
                    bind("1", statement=NAME),
                    execute(),
                    bind("2", statement=NAME),
                    execute(),
                    SYNC,
                    answer=(
                        "ParseComplete",
                        "BindComplete",
                        "DataRow 1",
                        "CommandComplete SELECT 1",
                        "BindComplete",
                        "DataRow 2",
                        "CommandComplete SELECT 1",
                        READY,
                    ),
                ),
            ),
        ),
    ),
)
