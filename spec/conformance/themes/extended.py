"""Extended queries: prepared statements; portals and series are in `portals`."""

from __future__ import annotations

from spec.conformance.requests import (
    NAME,
    SYNC,
    bind,
    close_portal,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    parse,
    query,
    run,
)
from spec.conformance.scripts import READY, Script, Theme, ask, error, given, ran, rows
from spec.conformance.themes.portals import PORTALS, SERIES

EXTENDED = "protocol-flow#PROTOCOL-FLOW-EXT-QUERY"
PIPELINING = "protocol-flow#PROTOCOL-FLOW-PIPELINING"
COMMANDS = "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-"
PARSED, BOUND, CLOSED_IT = "ParseComplete", "BindComplete", "CloseComplete"
THREE = "SELECT generate_series(1, 3)"
SERVED = ask(query("SELECT 1"), answer=(*rows("1"), READY))

STATEMENTS = (
    Script("one row", EXTENDED, (ask(*run("SELECT 1"), SYNC, answer=(*ran("1"), READY)),)),
    Script(
        "a portal is described before it is executed",
        EXTENDED,
        (
            ask(
                parse("SELECT 1 AS one"),
                bind(),
                describe_portal(),
                execute(),
                SYNC,
                answer=(PARSED, BOUND, "RowDescription one:23", "DataRow 1", "CommandComplete SELECT 1", READY),
            ),
        ),
    ),
    Script(
        "a statement tells the types of its parameters",
        EXTENDED,
        (
            ask(
                parse("SELECT $1 || 'x', $2 + 1", types=(25, 23)),
                describe_statement(),
                SYNC,
                answer=(PARSED, "ParameterDescription 25, 23", "RowDescription", READY),
            ),
            ask(
                parse("SELECT $1::text, $2::bool"),
                describe_statement(),
                SYNC,
                answer=(PARSED, "ParameterDescription 25, 16", "RowDescription", READY),
            ),
        ),
    ),
    Script(
        "what yields no rows is described so",
        EXTENDED,
        (
            ask(
                parse(f"INSERT INTO {NAME} VALUES ($1)"),
                describe_statement(),
                bind("1"),
                describe_portal(),
                execute(),
                SYNC,
                answer=(
                    PARSED,
                    "ParameterDescription 23",
                    "NoData",
                    BOUND,
                    "NoData",
                    "CommandComplete INSERT 0 1",
                    READY,
                ),
            ),
        ),
        table="x int",
    ),
    Script(
        "parameters in text, in binary, and NULL",
        EXTENDED,
        (
            ask(
                parse("SELECT $1::int4 + 1, $2::text, $3::text", types=(23, 25, 25)),
                bind(b"\0\0\0\7", "x", None, formats=(1, 0, 0), result_formats=(1, 0, 0)),
                execute(),
                SYNC,
                answer=(*ran("0x00000008, x, NULL"), READY),
            ),
        ),
    ),
    Script(
        "a statement is bound twice",
        EXTENDED,
        (
            ask(
                parse("SELECT $1::int", NAME),
                bind("1", statement=NAME),
                execute(),
                bind("2", statement=NAME),
                execute(),
                close_statement(NAME),
                SYNC,
                answer=(
                    PARSED,
                    BOUND,
                    "DataRow 1",
                    "CommandComplete SELECT 1",
                    BOUND,
                    "DataRow 2",
                    "CommandComplete SELECT 1",
                    CLOSED_IT,
                    READY,
                ),
            ),
        ),
    ),
    Script(
        "the unnamed statement is replaced by the next Parse",
        EXTENDED,
        (ask(parse("SELECT 1"), parse("SELECT 2"), bind(), execute(), SYNC, answer=(PARSED, *ran("2"), READY)),),
    ),
    Script(
        "a name that is taken cannot be prepared again",
        EXTENDED,
        (ask(parse("SELECT 1", NAME), parse("SELECT 2", NAME), SYNC, answer=(PARSED, error("42P05"), READY)),),
    ),
    Script(
        "a statement that was closed is gone, and its name is free",
        EXTENDED,
        (
            ask(
                parse("SELECT 1", NAME),
                close_statement(NAME),
                parse("SELECT 2", NAME),
                bind(statement=NAME),
                execute(),
                close_statement(NAME),
                bind(statement=NAME),
                SYNC,
                answer=(
                    PARSED,
                    CLOSED_IT,
                    PARSED,
                    BOUND,
                    "DataRow 2",
                    "CommandComplete SELECT 1",
                    CLOSED_IT,
                    error("26000"),
                    READY,
                ),
            ),
        ),
    ),
    Script(
        "an unknown statement",
        EXTENDED,
        (
            ask(bind(statement=NAME), execute(), SYNC, answer=(error("26000"), READY)),
            ask(describe_statement(NAME), SYNC, answer=(error("26000"), READY)),
        ),
    ),
    Script(
        "closing what does not exist is no error",
        COMMANDS + "CLOSE",
        (ask(close_statement(NAME), close_portal(NAME), SYNC, answer=(CLOSED_IT, CLOSED_IT, READY)),),
    ),
    Script(
        "an empty statement",
        EXTENDED,
        (
            ask(
                parse(""),
                bind(),
                describe_portal(),
                execute(),
                SYNC,
                answer=(PARSED, BOUND, "NoData", "EmptyQueryResponse", READY),
            ),
        ),
    ),
    Script(
        "two statements cannot be prepared as one",
        EXTENDED,
        (ask(parse("SELECT 1; SELECT 2"), SYNC, answer=(error("42601"), READY)),),
    ),
    Script(
        "too few and too many values",
        COMMANDS + "BIND",
        (
            ask(parse("SELECT $1::int"), bind(), execute(), SYNC, answer=(PARSED, error("08P01"), READY)),
            ask(parse("SELECT $1::int"), bind("1", "2"), execute(), SYNC, answer=(PARSED, error("08P01"), READY)),
        ),
    ),
    Script(
        "a value that is none of its type",
        COMMANDS + "BIND",
        (ask(parse("SELECT $1::int"), bind("one"), execute(), SYNC, answer=(PARSED, error("22P02"), READY)), SERVED),
    ),
    Script(
        "a Query destroys the unnamed statement",
        EXTENDED,
        (
            ask(parse("SELECT 1"), SYNC, answer=(PARSED, READY)),
            given(query("SELECT 1"), answer=(*rows("1"), READY)),
            ask(bind(), execute(), SYNC, answer=(error("26000"), READY)),
        ),
    ),
    Script(
        "an Execute of each kind that is repeated",
        EXTENDED,
        (
            ask(
                parse("SELECT $1::text"),
                bind("a"),
                execute(),
                bind("b"),
                execute(),
                SYNC,
                answer=(
                    PARSED,
                    BOUND,
                    "DataRow a",
                    "CommandComplete SELECT 1",
                    BOUND,
                    "DataRow b",
                    "CommandComplete SELECT 1",
                    READY,
                ),
            ),
        ),
    ),
)

THEME = Theme(
    "extended",
    "statements and portals, limits of rows, Describe, Close, Flush, what an error skips",
    (*STATEMENTS, *PORTALS, *SERIES),
)
