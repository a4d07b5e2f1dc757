"""Messages and answers that fit into no buffer."""

from __future__ import annotations

import zlib

from spec.conformance.requests import COPY_DONE, NAME, SYNC, bind, copy_data, execute, parse, query
from spec.conformance.scripts import READY, Script, Theme, ask, done, given, ran, rows

CONCEPTS = "protocol-overview#PROTOCOL-MESSAGE-CONCEPTS"
SIMPLE = "protocol-flow#PROTOCOL-FLOW-SIMPLE-QUERY"
MEGABYTE = 1_000_000
COLUMNS = 1_500
PARAMETERS = 10_000


def large(size: int) -> str:
    """Return how a value of so many letters x is shown."""
    return f"{size} bytes of {zlib.crc32(b'x' * size):08x}"


THEME = Theme(
    "large",
    "long queries, values, rows, answers; much of everything",
    (
        Script(
            "a query of a megabyte",
            CONCEPTS,
            (ask(query(f"SELECT length('{'x' * MEGABYTE}')"), answer=(*rows(str(MEGABYTE)), READY)),),
        ),
        Script(
            "a value of four megabytes, there and back",
            CONCEPTS,
            (
                ask(
                    parse("SELECT $1::text"),
                    bind("x" * 4 * MEGABYTE),
                    execute(),
                    SYNC,
                    answer=(*ran(large(4 * MEGABYTE)), READY),
                ),
            ),
        ),
        Script(
            "a row of eight megabytes",
            CONCEPTS,
            (ask(query(f"SELECT repeat('x', {8 * MEGABYTE})"), answer=(*rows(large(8 * MEGABYTE)), READY)),),
        ),
        Script(
            "five thousand rows",
            SIMPLE,
            (
                ask(
                    query("SELECT x, repeat('x', 90) FROM generate_series(1, 5000) AS x"),
                    answer=("RowDescription", "DataRow (5000 times)", "CommandComplete SELECT 5000", READY),
                ),
            ),
        ),
        Script(
            "fifteen hundred columns",
            SIMPLE,
            (
                ask(
                    query(f"SELECT {', '.join(['1'] * COLUMNS)}"),
                    answer=("RowDescription", "DataRow", "CommandComplete SELECT 1", READY),
                ),
            ),
        ),
        Script(
            "ten thousand parameters",
            "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-BIND",
            (
                ask(
                    parse(f"SELECT cardinality(ARRAY[{', '.join(f'${n}' for n in range(1, PARAMETERS + 1))}]::text[])"),
                    bind(*["x"] * PARAMETERS),
                    execute(),
                    SYNC,
                    answer=(*ran(str(PARAMETERS)), READY),
                ),
            ),
        ),
        Script(
            "a notice of a hundred thousand characters",
            "protocol-flow#PROTOCOL-ASYNC",
            (
                ask(
                    query("DO $$ BEGIN RAISE NOTICE '%', repeat('x', 100000); END $$"),
                    answer=(f"NoticeResponse {large(100_000)}", *done("DO")),
                ),
            ),
        ),
        Script(
            "ten megabytes of COPY out",
            "protocol-flow#PROTOCOL-COPY",
            (
                ask(
                    query("COPY (SELECT repeat('x', 10000) FROM generate_series(1, 1000)) TO STDOUT"),
                    answer=("CopyOutResponse", "CopyData (1000 times)", "CopyDone", "CommandComplete COPY 1000", READY),
                ),
            ),
        ),
        Script(
            "ten megabytes of COPY in",
            "protocol-flow#PROTOCOL-COPY",
            (
                given(query(f"COPY {NAME} FROM STDIN"), answer=("CopyInResponse",)),
                given(*[copy_data("x" * 9_999 + "\n")] * 1_000, COPY_DONE, answer=done("COPY 1000")),
                ask(query(f"SELECT count(*), sum(length(x)) FROM {NAME}"), answer=(*rows("1000, 9999000"), READY)),
            ),
            table="x text",
        ),
        Script(
            "three hundred requests with large answers, sent before any answer is read",
            "protocol-flow#PROTOCOL-FLOW-PIPELINING",
            (
                ask(
                    *[query("SELECT repeat('x', 20000) /*" + "y" * 20_000 + "*/")] * 300,
                    answer=(*rows(large(20_000)), READY) * 300,
                ),
            ),
        ),
    ),
)
