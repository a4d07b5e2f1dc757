"""The function call, which is obsolete and still spoken."""

from __future__ import annotations

from spec.conformance.requests import SYNC, function_call, query, run
from spec.conformance.scripts import IN_BLOCK, READY, Script, Theme, ask, done, error, given, ran, rows

CALL = "protocol-flow#PROTOCOL-FLOW-FUNCTION-CALL"
INT4PL = 177  # pg_proc.dat: int4pl(int4, int4), the operator +

THEME = Theme(
    "function",
    "the function call",
    (
        Script(
            "a call in text", CALL, (ask(function_call(INT4PL, "1", "2"), answer=("FunctionCallResponse 3", READY)),)
        ),
        Script(
            "a call in binary",
            CALL,
            (
                ask(
                    function_call(INT4PL, b"\0\0\0\1", b"\0\0\0\2", format_code=1),
                    answer=("FunctionCallResponse 0x00000003", READY),
                ),
            ),
        ),
        Script(
            "an argument that is NULL",
            CALL,
            (ask(function_call(INT4PL, "1", None), answer=("FunctionCallResponse NULL", READY)),),
        ),
        Script(
            "a function that does not exist",
            CALL,
            (
                ask(function_call(4_000_000_000, "1"), answer=(error("42883"), READY)),
                ask(query("SELECT 1"), answer=(*rows("1"), READY)),
            ),
        ),
        Script("a wrong number of arguments", CALL, (ask(function_call(INT4PL, "1"), answer=(error("08P01"), READY)),)),
        Script(
            "calls among other requests",
            CALL,
            (
                ask(
                    query("SELECT 1"),
                    function_call(INT4PL, "1", "2"),
                    *run("SELECT 2"),
                    SYNC,
                    function_call(INT4PL, "2", "2"),
                    answer=(
                        *rows("1"),
                        READY,
                        "FunctionCallResponse 3",
                        READY,
                        *ran("2"),
                        READY,
                        "FunctionCallResponse 4",
                        READY,
                    ),
                ),
            ),
        ),
        Script(
            "a call in a transaction block",
            CALL,
            (
                given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK)),
                ask(function_call(INT4PL, "1", "2"), answer=("FunctionCallResponse 3", IN_BLOCK)),
                ask(query("COMMIT"), answer=done("COMMIT")),
            ),
            needs=("transaction blocks",),
        ),
    ),
)
