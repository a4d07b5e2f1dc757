"""Extended queries: portals, and series of messages with their errors."""

from __future__ import annotations

from spec.conformance.requests import (
    FLUSH,
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
from spec.conformance.scripts import IN_BLOCK, READY, Script, ask, done, error, given, ran, rows

EXTENDED = "protocol-flow#PROTOCOL-FLOW-EXT-QUERY"
PIPELINING = "protocol-flow#PROTOCOL-FLOW-PIPELINING"
COMMANDS = "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-"
PARSED, BOUND, CLOSED_IT = "ParseComplete", "BindComplete", "CloseComplete"
THREE = "SELECT generate_series(1, 3)"
SERVED = ask(query("SELECT 1"), answer=(*rows("1"), READY))

PORTALS = (
    Script(
        "a limit of rows suspends a portal",
        EXTENDED,
        (
            ask(
                parse(THREE),
                bind(),
                execute(limit=2),
                execute(limit=2),
                SYNC,
                answer=(
                    PARSED,
                    BOUND,
                    "DataRow 1",
                    "DataRow 2",
                    "PortalSuspended",
                    "DataRow 3",
                    "CommandComplete SELECT 1",
                    READY,
                ),
            ),
        ),
    ),
    Script(
        "a portal that was read to its end has no more rows",
        EXTENDED,
        (
            ask(
                parse(THREE),
                bind(),
                execute(limit=3),
                execute(),
                execute(),
                SYNC,
                answer=(
                    PARSED,
                    BOUND,
                    "DataRow 1",
                    "DataRow 2",
                    "DataRow 3",
                    "PortalSuspended",
                    "CommandComplete SELECT 0",
                    "CommandComplete SELECT 0",
                    READY,
                ),
            ),
        ),
    ),
    Script(
        "two portals are read in turns",
        EXTENDED,
        (
            ask(
                parse(THREE),
                bind(portal=f"{NAME}a"),
                bind(portal=f"{NAME}b"),
                execute(f"{NAME}a", 1),
                execute(f"{NAME}b", 1),
                execute(f"{NAME}a"),
                execute(f"{NAME}b"),
                SYNC,
                answer=(
                    PARSED,
                    BOUND,
                    BOUND,
                    "DataRow 1",
                    "PortalSuspended",
                    "DataRow 1",
                    "PortalSuspended",
                    "DataRow 2",
                    "DataRow 3",
                    "CommandComplete SELECT 2",
                    "DataRow 2",
                    "DataRow 3",
                    "CommandComplete SELECT 2",
                    READY,
                ),
            ),
        ),
    ),
    Script(
        "a portal lasts as long as its transaction block",
        EXTENDED,
        (
            given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK)),
            given(
                parse(THREE),
                bind(portal=NAME),
                execute(NAME, 1),
                SYNC,
                answer=(PARSED, BOUND, "DataRow 1", "PortalSuspended", IN_BLOCK),
            ),
            ask(execute(NAME, 1), SYNC, answer=("DataRow 2", "PortalSuspended", IN_BLOCK)),
            given(query("COMMIT"), answer=done("COMMIT")),
            ask(execute(NAME), SYNC, answer=(error("34000"), READY)),
        ),
        needs=("transaction blocks",),
    ),
    Script(
        "a portal is gone after the end of its transaction",
        EXTENDED,
        (
            given(parse("SELECT 1"), bind(portal=NAME), SYNC, answer=(PARSED, BOUND, READY)),
            ask(execute(NAME), SYNC, answer=(error("34000"), READY)),
        ),
    ),
    Script(
        "a portal that was closed is gone",
        EXTENDED,
        (
            ask(
                parse("SELECT 1"),
                bind(portal=NAME),
                close_portal(NAME),
                execute(NAME),
                SYNC,
                answer=(PARSED, BOUND, CLOSED_IT, error("34000"), READY),
            ),
        ),
    ),
    Script(
        "a name that is taken cannot be bound again",
        EXTENDED,
        (
            ask(
                parse("SELECT 1"),
                bind(portal=NAME),
                bind(portal=NAME),
                SYNC,
                answer=(PARSED, BOUND, error("42P03"), READY),
            ),
        ),
    ),
)

SERIES = (
    Script(
        "Flush brings the replies without an end of the series",
        EXTENDED,
        (
            given(
                parse("SELECT 1"),
                describe_statement(),
                FLUSH,
                answer=(PARSED, "ParameterDescription", "RowDescription"),
            ),
            given(bind(), execute(), FLUSH, answer=(BOUND, "DataRow 1", "CommandComplete SELECT 1")),
            ask(SYNC, answer=(READY,)),
        ),
    ),
    Script(
        "an error is reported upon Flush",
        EXTENDED,
        (given(parse("SELEC"), FLUSH, answer=(error("42601"),)), given(SYNC, answer=(READY,)), SERVED),
    ),
    Script(
        "after an error everything up to Sync is skipped",
        PIPELINING,
        (
            ask(
                parse("SELEC"),
                bind(),
                describe_portal(),
                execute(),
                *run("SELECT 1"),
                close_statement(NAME),
                FLUSH,
                SYNC,
                answer=(error("42601"), READY),
            ),
            SERVED,
        ),
    ),
    Script(
        "an error while executing skips the rest",
        PIPELINING,
        (
            ask(
                *run("SELECT 1"),
                *run("SELECT 1 / x FROM generate_series(0, 0) AS x"),
                *run("SELECT 2"),
                SYNC,
                answer=(*ran("1"), PARSED, BOUND, error("22012"), READY),
            ),
            SERVED,
        ),
    ),
    Script(
        "what was done before an error in the same series is rolled back",
        PIPELINING,
        (
            ask(
                *run(f"INSERT INTO {NAME} VALUES (1)"),
                *run("SELECT 1 / x FROM generate_series(0, 0) AS x"),
                SYNC,
                answer=(*ran(tag="INSERT 0 1"), PARSED, BOUND, error("22012"), READY),
            ),
            ask(query(f"SELECT count(*) FROM {NAME}"), answer=(*rows("0"), READY)),
        ),
        table="x int",
    ),
    Script("a series of nothing", EXTENDED, (ask(SYNC, answer=(READY,)), ask(FLUSH, SYNC, answer=(READY,)))),
    Script(
        "a series that arrives byte by byte",
        "protocol-overview#PROTOCOL-MESSAGE-CONCEPTS",
        (
            ask(
                parse("SELECT $1::text"),
                bind("piecemeal"),
                describe_portal(),
                execute(),
                SYNC,
                answer=(PARSED, BOUND, "RowDescription", "DataRow piecemeal", "CommandComplete SELECT 1", READY),
                pieces=1,
            ),
        ),
    ),
)
