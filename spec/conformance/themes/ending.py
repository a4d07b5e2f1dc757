"""How a session ends, and what is undone when it does."""

from __future__ import annotations

from spec.conformance.requests import FLUSH, NAME, SYNC, TERMINATE, copy_data, query, run
from spec.conformance.scripts import (
    FIRST,
    IN_BLOCK,
    READY,
    Ask,
    Leave,
    Script,
    Step,
    Theme,
    ask,
    done,
    error,
    given,
    ran,
    rows,
)
from spec.conformance.words import CLOSED

END = "protocol-flow#PROTOCOL-FLOW-TERMINATION"
SECOND = "second"
BEGIN = given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK))
INSERT = given(query(f"INSERT INTO {NAME} VALUES (1)"), answer=("CommandComplete INSERT 0 1", IN_BLOCK))
COPY = given(query(f"COPY {NAME} FROM STDIN"), copy_data("1\n2\n"), answer=("CopyInResponse",))
SERIES = given(*run(f"INSERT INTO {NAME} VALUES (1)"), FLUSH, answer=ran(tag="INSERT 0 1"))
GOODBYE = given(TERMINATE, answer=(CLOSED,))
LEAVES_COPY = Ask(
    (TERMINATE,), ((CLOSED,), (error("08P01"), CLOSED), (error("08P01"), error("08P01"), CLOSED)), is_given=True
)
CLOSE = Leave(FIRST)
RESET = Leave(FIRST, is_reset=True)


def count(number: int) -> Ask:
    """Return a step that waits until nobody uses the table, and finds so many rows in it."""
    text = f"BEGIN; LOCK TABLE {NAME}; SELECT count(*) FROM {NAME}; COMMIT"
    answer = ("CommandComplete BEGIN", "CommandComplete LOCK TABLE", *rows(str(number)), *done("COMMIT"))
    return ask(query(text), answer=answer, on=SECOND)


def script(name: str, *steps: Step, needs: tuple[str, ...] = ()) -> Script:
    """Return a script with a table."""
    return Script(name, END, steps, "x int", needs)


BLOCKS = ("transaction blocks",)

THEME = Theme(
    "termination",
    "Terminate in every state, and connections that just end",
    (
        Script("Terminate of an idle session", END, (given(query("SELECT 1"), answer=(*rows("1"), READY)), GOODBYE)),
        Script(
            "Terminate behind requests",
            END,
            (
                ask(
                    query("SELECT 1"),
                    *run("SELECT 2"),
                    SYNC,
                    TERMINATE,
                    answer=(*rows("1"), READY, *ran("2"), READY, CLOSED),
                ),
            ),
        ),
        script(
            "Terminate behind an insertion, which is done",
            given(
                query(f"INSERT INTO {NAME} VALUES (1)"), TERMINATE, answer=("CommandComplete INSERT 0 1", READY, CLOSED)
            ),
            count(1),
        ),
        script("Terminate in a transaction block", BEGIN, INSERT, GOODBYE, count(0), needs=BLOCKS),
        script(
            "Terminate in a failed transaction block",
            BEGIN,
            INSERT,
            given(query("SELEC"), answer=("ErrorResponse 42601", "ReadyForQuery E")),
            GOODBYE,
            count(0),
            needs=BLOCKS,
        ),
        Script("Terminate in a COPY", END, (COPY, LEAVES_COPY, count(0)), "x int", is_own=True),
        script("Terminate in a series", SERIES, GOODBYE, count(0)),
        script(
            "a connection that ends when idle", given(query("SELECT 1"), answer=(*rows("1"), READY)), CLOSE, count(0)
        ),
        script("a connection that ends in a transaction block", BEGIN, INSERT, CLOSE, count(0), needs=BLOCKS),
        script("a connection that is reset in a transaction block", BEGIN, INSERT, RESET, count(0), needs=BLOCKS),
        script("a connection that ends in a COPY", COPY, CLOSE, count(0)),
        script("a connection that ends in a series", SERIES, CLOSE, count(0)),
        script(
            "a connection that ends while its answer is on the way",
            given(query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"), answer=("RowDescription",)),
            CLOSE,
            count(0),
        ),
        script(
            "a lock of the session ends with it",
            given(
                query(f"SELECT pg_advisory_lock(hashtext('{NAME}'))"),
                answer=("RowDescription", "DataRow", "CommandComplete SELECT 1", READY),
            ),
            GOODBYE,
            ask(
                query(f"SELECT pg_advisory_lock(hashtext('{NAME}')), pg_advisory_unlock(hashtext('{NAME}'))"),
                answer=(*rows(", t"), READY),
                on=SECOND,
            ),
        ),
    ),
)
