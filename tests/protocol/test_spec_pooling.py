"""What a pooler may do between its two sides: a right one breaks no rule, and each way to be wrong breaks its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spec.codec import Instance, backend, encode, frontend
from spec.conversation import RULE as CONVERSATION
from spec.messages import Sender
from spec.pooling import RULES, Canceled, Event, Gone, Leased, PoolingJudge, Released, Said, Side

STARTUP = frontend("StartupMessage", minor=0, parameters=((b"user", b"u"), (b"database", b"d")))
QUERY, OTHER = frontend("Query", query=b"SELECT 1"), frontend("Query", query=b"DISCARD ALL")
DONE, DISCARDED = backend("CommandComplete", tag=b"SELECT 1"), backend("CommandComplete", tag=b"DISCARD ALL")
COLUMN = (b"c", 0, 0, 25, -1, -1, 0)
REPLY = (
    backend("RowDescription", columns=(COLUMN,)),
    backend("DataRow", values=(b"mine",)),
    DONE,
)
ERROR = backend("ErrorResponse", fields=((b"S", b"ERROR"), (b"V", b"ERROR"), (b"C", b"57014"), (b"M", b"canceled")))


def ready(status: bytes = b"I") -> Instance:
    return backend("ReadyForQuery", status=status)


def said(side: Side, connection: int, *instances: Instance) -> list[Event]:
    return [Said(side, connection, instance, encode(instance)) for instance in instances]


def logged_in(side: Side, number: int, zone: bytes = b"UTC") -> list[Event]:
    return said(
        side,
        number,
        STARTUP,
        backend("AuthenticationOk"),
        backend("ParameterStatus", parameter=b"TimeZone", setting=zone),
        ready(),
    )


BEGIN = [*logged_in(Side.CLIENT, 1), *logged_in(Side.CLIENT, 2), *logged_in(Side.SERVER, 7)]


def asked(client: int, query: Instance = QUERY) -> list[Event]:
    """The client asks, gets the server connection, and its request is forwarded."""
    return [*said(Side.CLIENT, client, query), Leased(client, 7), *said(Side.SERVER, 7, query)]


def answered(client: int, *instances: Instance) -> list[Event]:
    return [*said(Side.SERVER, 7, *instances), *said(Side.CLIENT, client, *instances)]


CLEANED = said(Side.SERVER, 7, OTHER, DISCARDED, ready())

LEGAL: dict[str, list[Event]] = {
    "one request": [*asked(1), *answered(1, *REPLY, ready()), Released(1, 7)],
    "one after the other, cleaned in between": [
        *asked(1),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
        *CLEANED,
        *asked(2),
        *answered(2, *REPLY, ready()),
        Released(2, 7),
    ],
    "a statement of the pooler's own before the client's": [
        *said(Side.CLIENT, 1, QUERY),
        Leased(1, 7),
        *CLEANED,
        *said(Side.SERVER, 7, QUERY),
        *answered(1, *REPLY, ready()),
        Released(1, 7),
    ],
    "canceled while it waited": [*said(Side.CLIENT, 1, QUERY), *said(Side.CLIENT, 1, ERROR, ready())],
    "a client that is gone gets nothing": [*asked(1), Gone(Side.CLIENT, 1), *said(Side.SERVER, 7, *REPLY, ready())],
    "a cancel request in the lease": [*asked(1), Canceled(1, 7), *answered(1, ERROR, ready()), Released(1, 7)],
}

WRONG: dict[str, tuple[str, list[Event]]] = {
    "a server speaks out of turn": ("conformance", said(Side.SERVER, 7, DONE)),
    "the pooler speaks out of turn": ("conformance", said(Side.CLIENT, 1, ready())),
    "a row from nowhere": (
        "isolation",
        [*asked(1), *said(Side.SERVER, 7, *REPLY), *said(Side.CLIENT, 1, REPLY[0], backend("DataRow", values=(b"x",)))],
    ),
    "the reply to the pooler's own statement": (
        "isolation",
        [*said(Side.CLIENT, 1, QUERY), Leased(1, 7), *CLEANED, *said(Side.CLIENT, 1, DISCARDED)],
    ),
    "replies out of order": (
        "transparency",
        [*asked(1), *said(Side.SERVER, 7, *REPLY), *said(Side.CLIENT, 1, REPLY[0], DONE)],
    ),
    "a reply kept back": (
        "transparency",
        [*asked(1), *said(Side.SERVER, 7, *REPLY, ready()), *said(Side.CLIENT, 1, *REPLY), Released(1, 7)],
    ),
    "handed on in a transaction": (
        "release",
        [
            *asked(1, frontend("Query", query=b"BEGIN")),
            *answered(1, backend("CommandComplete", tag=b"BEGIN"), ready(b"T")),
            Released(1, 7),
            Leased(2, 7),
        ],
    ),
    "handed on with a reply owed": ("release", [*asked(1), Gone(Side.CLIENT, 1), Released(1, 7), Leased(2, 7)]),
    "leased twice": ("exclusion", [Leased(1, 7), Leased(2, 7)]),
    "another time zone": (
        "fidelity",
        [
            *said(Side.SERVER, 7, backend("ParameterStatus", parameter=b"TimeZone", setting=b"Asia/Tokyo")),
            *asked(1),
        ],
    ),
    "a cancel request for somebody else's query": ("cancel", [*asked(1), Canceled(2, 7)]),
    "a cancel request behind the lease": (
        "cancel",
        [*asked(1), *answered(1, *REPLY, ready()), Released(1, 7), Canceled(1, 7)],
    ),
}


def broken(events: list[Event]) -> list[str]:
    judge = PoolingJudge()
    return [violation.rule.name for event in [*BEGIN, *events] for violation in judge.hear(event)]


@pytest.mark.parametrize("name", LEGAL)
def test_a_right_pooler_breaks_no_rule(name: str) -> None:
    assert broken(LEGAL[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_each_way_to_be_wrong_breaks_its_rule(name: str) -> None:
    rule, events = WRONG[name]
    found = broken(events)
    of_one_connection = [name for name in found if name in CONVERSATION]
    if rule == "conformance":
        assert of_one_connection
    else:
        assert [name for name in found if name not in of_one_connection] == [rule]


def test_every_rule_is_broken_by_something_here() -> None:
    assert {rule for rule, _ in WRONG.values()} == {rule.name for rule in RULES}


def test_the_senders_of_violations_are_told() -> None:
    judge = PoolingJudge()
    hear: Callable[[Event], object] = judge.hear
    for event in BEGIN:
        hear(event)
    (violation,) = judge.hear(said(Side.SERVER, 7, DONE)[0])
    assert violation.sender is Sender.BACKEND
