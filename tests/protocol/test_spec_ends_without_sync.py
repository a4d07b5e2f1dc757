"""The judge's view of series without their Sync, as PostgreSQL itself treats them."""

from __future__ import annotations

import pytest

from spec.codec import Instance, backend, frontend
from spec.messages import Sender
from spec.session import Judge, Violation

SELECT = (
    frontend("Parse", statement=b"", query=b"SELECT 1", types=()),
    frontend("Bind", portal=b"", statement=b"", formats=(), values=(), result_formats=()),
    frontend("Execute", portal=b"", limit=0),
)
SELECTED = (
    backend("ParseComplete"),
    backend("BindComplete"),
    backend("DataRow", values=(b"1",)),
    backend("CommandComplete", tag=b"SELECT 1"),
)
COLUMN = (b"one", 0, 0, 23, 4, -1, 0)
QUERY = frontend("Query", query=b"SELECT 1")
ROWS = (backend("RowDescription", columns=(COLUMN,)), *SELECTED[2:])
SYNC = frontend("Sync")
TERMINATE = frontend("Terminate")


def ready(status: bytes) -> Instance:
    return backend("ReadyForQuery", status=status)


def heard(judge: Judge, *messages: Instance) -> list[Violation]:
    return [violation for message in messages for violation in judge.hear(message)]


@pytest.fixture
def judge() -> Judge:
    """A judge of a session that has begun."""
    judge = Judge()
    startup = frontend("StartupMessage", minor=0, parameters=((b"user", b"somebody"),))
    assert heard(judge, startup, backend("AuthenticationOk"), ready(b"I")) == []
    return judge


@pytest.mark.parametrize("status", [b"I", b"T"])
def test_a_query_in_place_of_a_sync_may_be_inside_the_transaction_of_the_series(judge: Judge, status: bytes) -> None:
    assert heard(judge, *SELECT, QUERY, *SELECTED, *ROWS, ready(status), SYNC, ready(b"I")) == []
    assert [violation.rule.name for violation in heard(judge, QUERY, *ROWS, ready(b"T"))] == ["transaction-status"]


def test_what_nobody_asked_for_yet_need_not_be_said_before_the_end(judge: Judge) -> None:
    assert heard(judge, *SELECT, TERMINATE) == []
    assert judge.ended(Sender.BACKEND) == ()


def test_a_copy_need_not_be_answered_before_the_end(judge: Judge) -> None:
    begun = backend("CopyInResponse", format=0, column_formats=(0,))
    assert heard(judge, frontend("Query", query=b"COPY t FROM STDIN"), begun, TERMINATE) == []
    assert judge.ended(Sender.BACKEND) == ()


def test_a_query_is_answered_before_the_end(judge: Judge) -> None:
    assert heard(judge, QUERY, TERMINATE) == []
    assert [violation.rule.name for violation in judge.ended(Sender.BACKEND)] == ["closing-needs-a-reason"]
