"""CancelRequest: it comes on a connection of its own and is answered by what it hits."""

from __future__ import annotations

from spec.conformance.requests import SYNC, TERMINATE, query, run
from spec.conformance.scripts import (
    FIRST,
    IN_BLOCK,
    IN_FAILED_BLOCK,
    READY,
    Cancel,
    Open,
    Script,
    Theme,
    ask,
    done,
    error,
    given,
    rows,
)
from spec.conformance.words import CLOSED

CANCEL = "protocol-flow#PROTOCOL-FLOW-CANCELING-REQUESTS"
RUNNING = "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(30); END $$"
"""A statement that says when it runs: the server sends a notice at once."""
SHORT = "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(0.3); END $$"
SERVED = ask(query("SELECT 1"), answer=(*rows("1"), READY))
RUNS = given(query(RUNNING), answer=("NoticeResponse running",))
RUNS_SHORTLY = given(query(SHORT), answer=("NoticeResponse running",))
CANCELED = given(answer=(error("57014"), READY))
COMPLETED = given(answer=done("DO"))

THEME = Theme(
    "cancel",
    "while a statement runs, with a wrong key, when there is nothing to cancel",
    (
        Script("a running statement is canceled", CANCEL, (RUNS, Cancel(), CANCELED, SERVED)),
        Script(
            "a running statement of a series is canceled",
            CANCEL,
            (
                given(*run(RUNNING), SYNC, answer=("ParseComplete", "BindComplete", "NoticeResponse running")),
                Cancel(),
                CANCELED,
                SERVED,
            ),
        ),
        Script(
            "what is behind the canceled statement runs",
            CANCEL,
            (
                given(query(RUNNING), query("SELECT 2"), answer=("NoticeResponse running",)),
                Cancel(),
                ask(answer=(error("57014"), READY, *rows("2"), READY)),
            ),
        ),
        Script(
            "a canceled statement fails its block",
            CANCEL,
            (
                given(query("BEGIN"), answer=("CommandComplete BEGIN", IN_BLOCK)),
                RUNS,
                Cancel(),
                ask(answer=(error("57014"), IN_FAILED_BLOCK)),
                ask(query("ROLLBACK"), answer=done("ROLLBACK")),
            ),
            needs=("transaction blocks",),
        ),
        Script("a wrong key cancels nothing", CANCEL, (RUNS_SHORTLY, Cancel(spoil="other"), COMPLETED, SERVED)),
        Script(
            "a key that is too short cancels nothing", CANCEL, (RUNS_SHORTLY, Cancel(spoil="short"), COMPLETED, SERVED)
        ),
        Script(
            "a key that is too long cancels nothing", CANCEL, (RUNS_SHORTLY, Cancel(spoil="long"), COMPLETED, SERVED)
        ),
        Script("a cancel request for an idle session does nothing", CANCEL, (SERVED, Cancel(), SERVED)),
        Script(
            "a cancel request hits its own session alone",
            CANCEL,
            (
                given(query(SHORT), answer=("NoticeResponse running",), on="second"),
                RUNS,
                Cancel(),
                CANCELED,
                ask(answer=done("DO"), on="second"),
            ),
        ),
        Script("a session is canceled twice", CANCEL, (RUNS, Cancel(), CANCELED, RUNS, Cancel(), CANCELED, SERVED)),
        Script(
            "a cancel request for a session that is over",
            CANCEL,
            (
                given(query("SELECT 1"), TERMINATE, answer=(*rows("1"), READY, CLOSED)),
                Cancel(),
                ask(query("SELECT 1"), answer=(*rows("1"), READY), on="later"),
            ),
        ),
        Script(
            "a session of protocol 3.2 is canceled by its longer key",
            "protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST",
            (Open(FIRST, minor=2), RUNS, Cancel(), CANCELED, SERVED),
            needs=("protocol 3.2",),
        ),
    ),
)
