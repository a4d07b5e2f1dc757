"""Simple queries: text in, everything else out."""

from __future__ import annotations

from spec.conformance.requests import NAME, query
from spec.conformance.scripts import READY, Script, Theme, ask, done, error, given, rows

SIMPLE = "protocol-flow#PROTOCOL-FLOW-SIMPLE-QUERY"
MULTI = "protocol-flow#PROTOCOL-FLOW-MULTI-STATEMENT"
COUNT = ask(query(f"SELECT count(*), sum(x) FROM {NAME}"), answer=(*rows("1, 1"), READY))
NONE = ask(query(f"SELECT count(*), sum(x) FROM {NAME}"), answer=(*rows("0, NULL"), READY))
NOTICE = "DO $$ BEGIN RAISE NOTICE 'look'; END $$"

THEME = Theme(
    "simple",
    "empty queries, several statements, errors, notices, implicit transactions",
    (
        Script("one row", SIMPLE, (ask(query("SELECT 1"), answer=(*rows("1"), READY)),)),
        Script(
            "columns have names and types, values may be NULL",
            SIMPLE,
            (
                ask(
                    query("SELECT 1 AS one, 'two'::text AS two, NULL::bool AS three"),
                    answer=(
                        "RowDescription one:23, two:25, three:16",
                        "DataRow 1, two, NULL",
                        "CommandComplete SELECT 1",
                        READY,
                    ),
                ),
            ),
        ),
        Script("no rows", SIMPLE, (ask(query("SELECT 1 WHERE false"), answer=(*rows(), READY)),)),
        Script(
            "no columns",
            SIMPLE,
            (ask(query("SELECT"), answer=("RowDescription", "DataRow", "CommandComplete SELECT 1", READY)),),
        ),
        Script(
            "characters beyond ASCII",
            SIMPLE,
            (ask(query("SELECT 'Grüße, 世界'"), answer=(*rows("Grüße, 世界"), READY)),),
        ),
        Script("a query of nothing", SIMPLE, (ask(query(""), answer=("EmptyQueryResponse", READY)),)),
        Script(
            "a query of a semicolon and a comment",
            SIMPLE,
            (ask(query(" ; -- nothing"), answer=("EmptyQueryResponse", READY)),),
        ),
        Script(
            "several statements in one query",
            MULTI,
            (
                ask(
                    query("SELECT 1; SELECT 2 WHERE false; SET LOCAL work_mem TO '1MB'; SELECT 3"),
                    answer=(*rows("1"), *rows(), "CommandComplete SET", *rows("3"), READY),
                ),
            ),
        ),
        Script(
            "a syntax error",
            SIMPLE,
            (ask(query("SELEC 1"), answer=(error("42601"), READY)), ask(query("SELECT 1"), answer=(*rows("1"), READY))),
        ),
        Script(
            "a syntax error in the last statement runs none of them",
            MULTI,
            (ask(query(f"INSERT INTO {NAME} VALUES (1); SELEC 1"), answer=(error("42601"), READY)), NONE),
            table="x int",
        ),
        Script(
            "an error after some rows",
            SIMPLE,
            (
                ask(
                    query("SELECT 6 / (3 - x) FROM generate_series(1, 3) AS x"),
                    answer=("RowDescription", "DataRow 3", "DataRow 6", error("22012"), READY),
                ),
            ),
        ),
        Script(
            "an error skips the rest of the query",
            MULTI,
            (
                ask(query("SELECT 1; SELECT 1 / 0; SELECT 2"), answer=(*rows("1"), error("22012"), READY)),
                ask(query("SELECT 3"), answer=(*rows("3"), READY)),
            ),
        ),
        Script(
            "a notice comes with the statement",
            "protocol-flow#PROTOCOL-ASYNC",
            (ask(query(NOTICE), answer=("NoticeResponse look", *done("DO"))),),
        ),
        Script(
            "the tags of the statements that change something",
            "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-COMMANDCOMPLETE",
            (
                ask(query(f"INSERT INTO {NAME} VALUES (1), (2)"), answer=done("INSERT 0 2")),
                ask(query(f"UPDATE {NAME} SET x = 3 WHERE x < 0"), answer=done("UPDATE 0")),
                ask(query(f"DELETE FROM {NAME} WHERE x < 0"), answer=done("DELETE 0")),
                ask(query(f"INSERT INTO {NAME} SELECT 7 RETURNING x"), answer=(*rows("7", tag="INSERT 0 1"), READY)),
            ),
            table="x int",
        ),
        Script(
            "the statements of one query are one transaction",
            MULTI,
            (
                ask(
                    query(f"INSERT INTO {NAME} VALUES (1); INSERT INTO {NAME} VALUES (1 / 0)"),
                    answer=("CommandComplete INSERT 0 1", error("22012"), READY),
                ),
                NONE,
            ),
            table="x int",
        ),
        Script(
            "a COMMIT in the middle divides the transaction",
            MULTI,
            (
                given(
                    query(f"BEGIN; INSERT INTO {NAME} VALUES (1); COMMIT; INSERT INTO {NAME} VALUES (2); SELECT 1 / 0"),
                    answer=(
                        "CommandComplete BEGIN",
                        "CommandComplete INSERT 0 1",
                        "CommandComplete COMMIT",
                        "CommandComplete INSERT 0 1",
                        error("22012"),
                        READY,
                    ),
                ),
                COUNT,
            ),
            table="x int",
        ),
        Script(
            "a query that arrives byte by byte",
            "protocol-overview#PROTOCOL-MESSAGE-CONCEPTS",
            (ask(query("SELECT 'piecemeal'"), answer=(*rows("piecemeal"), READY), pieces=1),),
        ),
    ),
)
