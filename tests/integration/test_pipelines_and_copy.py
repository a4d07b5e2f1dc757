"""Prepared statements in pipelines, behind Flush, around COPY, and when their client vanishes in the middle of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import encode, frontend
from tests.integration.clients import Switch, answers, background, comparable
from tests.integration.conftest import DataPlanes
from tests.integration.data_planes import RunningDataPlane, wait_until
from tests.integration.test_prepared_statements import BLOCKS, LIVES, ONE, TWO
from tests.integration.wire import (
    COPY_DONE,
    FLUSH,
    SYNC,
    Address,
    Wire,
    bind,
    called,
    close,
    closed,
    copy_data,
    describe,
    execute,
    parse,
    prepared,
    query,
    ran,
    row_values,
    sqlstate,
)

MODES = ["transaction", "statement"]
COPY_FAIL = encode(frontend("CopyFail", reason=b"changed my mind"))
ADD = encode(frontend("FunctionCall", function=177, formats=(), arguments=(b"3", b"4"), result_format=0))
"""A call of int4pl."""


def logged_in(address: Address, database: str, **parameters: str) -> Wire:
    return Wire(address).log_in(database=database, **parameters)


def exchanged(client: Wire, request: bytes, ready: int) -> list[Any]:
    """What answers a request, up to so many ReadyForQuery."""
    client.send(request)
    return [comparable(message) for _ in range(ready) for message in client.until()]


# -- everything in one segment -----------------------------------------------------------------------------------------

AT_ONCE = {
    case: [step for step in script if isinstance(step, bytes)]
    for case, script in {**LIVES, **BLOCKS}.items()
    if all(isinstance(step, bytes) for step in script)
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_a_script_is_answered_alike_when_all_of_it_is_sent_at_once(
    case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W6, bugs 6, 7 and 8: what a request does to statements holds for what was sent behind it, and only then."""
    address = data_planes().address
    with logged_in((postgres.host, postgres.port), shared_database) as client:
        expected = [comparable(message) for message in answers(client, *AT_ONCE[case])]
    with Switch(address, shared_database) as switch:
        for _ in range(2):
            with logged_in(address, shared_database) as client:
                assert [comparable(message) for message in answers(client, *AT_ONCE[case])] == expected
            switch.turn()


@pytest.mark.parametrize("mode", MODES)
def test_thousands_of_syncs_are_answered_in_order(mode: str, data_planes: DataPlanes, shared_database: str) -> None:
    """W6, bugs 8 and 13: PgBouncer #52."""
    depth, clients = 2400, 2
    address = data_planes(mode).address
    with ExitStack() as stack:
        switch = stack.enter_context(Switch(address, shared_database))
        everybody = [stack.enter_context(logged_in(address, shared_database)) for _ in range(clients)]
        for number, client in enumerate(everybody):
            answers(client, prepared(f"SELECT {number}, 60 / $1::int"), prepared(f"SELECT 'unnamed', {number}", b""))
        switch.turn()
        requests = b"".join(ran(b"%d" % (turn % 4)) + ran(name=b"") + SYNC for turn in range(depth // 3))
        with background() as run:
            sending = [run(client.send, requests) for client in everybody]
            for number, client in enumerate(everybody):
                for turn in range(depth // 3):
                    messages = client.until()
                    if turn % 4:
                        assert row_values(messages) == [str(number), str(60 // (turn % 4))]
                    else:
                        assert [sqlstate(one) for one in messages if one.name == "ErrorResponse"] == ["22012"]
                    assert row_values(client.until()) == ["unnamed", str(number)]
                    assert [message.name for message in client.until()] == ["ReadyForQuery"]
            for task in sending:
                task.result(60)


@pytest.mark.parametrize("mode", MODES)
def test_more_statements_than_a_server_connection_may_hold_pass_in_one_pipeline(
    mode: str, data_planes: DataPlanes, shared_database: str
) -> None:
    """Bug 6: PgCat #875, pg_doorman 3.10.0: evicted while requests for it are under way."""
    address = data_planes(mode, max_prepared_statements=2).address
    with Switch(address, shared_database) as switch, logged_in(address, shared_database) as client:
        for _ in range(2):
            for end in (SYNC, b""):
                series = [
                    parse(f"SELECT {number}", name=b"%d" % number) + called(name=b"%d" % number) + end
                    for number in range(300)
                ]
                again = [called(name=b"%d" % number) + close(b"%d" % number) + end for number in range(300)]
                with background() as run:
                    sending = run(client.send, b"".join(series + again) + SYNC)
                    rows = [row for _ in range(601 if end else 1) for row in row_values(client.until())]
                    sending.result(60)
                assert rows == [str(number) for number in range(300)] * 2
            switch.turn()


# -- Flush and errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [b"s", b""], ids=["named", "unnamed"])
def test_who_waits_behind_flush_for_each_answer_gets_it(
    name: bytes, mode: str, data_planes: DataPlanes, shared_database: str
) -> None:
    """Bug 10: PgCat PR 953, pgpool-II #79, asyncpg #1058, with statements that the server may not know."""
    address = data_planes(mode).address
    with Switch(address, shared_database) as switch, logged_in(address, shared_database) as client:

        def asked(request: bytes, last: str) -> list[str]:
            """The messages up to the last one that answers, without a Sync."""
            client.send(request, FLUSH)
            return [message.name for message in client.until(last, "ErrorResponse")]

        for turn in range(4):
            assert asked(parse(f"SELECT {turn}, $1::int", name=name), "ParseComplete") == ["ParseComplete"]
            assert asked(describe(name), "RowDescription") == ["ParameterDescription", "RowDescription"]
            client.send(SYNC)
            assert [message.name for message in client.until()] == ["ReadyForQuery"]
            switch.turn()
            assert asked(describe(name), "RowDescription") == ["ParameterDescription", "RowDescription"]
            for _ in range(3):
                assert asked(bind(b"1", name=name), "BindComplete") == ["BindComplete"]
                assert asked(execute(), "CommandComplete") == ["DataRow", "CommandComplete"]
            client.send(SYNC)
            assert [message.name for message in client.until()] == ["ReadyForQuery"]
            switch.turn()
            assert asked(close(name), "CloseComplete") == ["CloseComplete"]
            assert asked(bind(b"1", name=name), "BindComplete") == ["ErrorResponse"]
            client.send(SYNC)
            assert [message.name for message in client.until()] == ["ReadyForQuery"]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_sent_between_an_error_and_its_sync_is_skipped_however_late_it_comes(
    mode: str, data_planes: DataPlanes, shared_database: str
) -> None:
    """W6, bug 6: PgDog #876, #887: Parse, Close and Bind behind an error that the client has seen already."""
    address = data_planes(mode).address
    with Switch(address, shared_database) as switch, logged_in(address, shared_database) as client:
        for _ in range(2):
            answers(client, prepared(ONE), prepared(TWO, b"t"))
            switch.turn()
            client.send(called(b"no number"), FLUSH)
            assert sqlstate(client.until("ErrorResponse")[-1]) == "22P02"
            for late in (parse(ONE, name=b"u"), close(b"s"), called(b"1", name=b"t"), parse(TWO), FLUSH):
                client.send(late)
            client.send(SYNC)
            assert [message.name for message in client.until()] == ["ReadyForQuery"]
            for _ in range(2):
                assert row_values(answers(client, ran(b"1"), ran(b"1", name=b"t"))) == ["one", "1", "two", "1", "2"]
                assert [sqlstate(answers(client, ran(b"1", name=name))[0]) for name in (b"u", b"")] == ["26000"] * 2
                switch.turn()
            answers(client, closed(), closed(b"t"))


# -- COPY, function calls, notices -------------------------------------------------------------------------------------

COPY_IN = prepared("COPY kept FROM STDIN", b"in")
COPY_OUT = prepared("COPY (SELECT count(*) FROM kept) TO STDOUT", b"out")
GOOD, WRONG = copy_data(b"1\n2\n"), copy_data(b"one\n")
IN, OUT = called(name=b"in"), ran(name=b"out")
EXCHANGES: dict[str, list[tuple[bytes, int]]] = {
    # requests, and by how many ReadyForQuery they are answered
    "in": [(COPY_IN + COPY_OUT, 2), (IN + GOOD + COPY_DONE + SYNC, 1), (OUT, 1)],
    "in, with Sync ahead of the data": [(COPY_IN + COPY_OUT, 2), (IN + SYNC + GOOD + COPY_DONE + SYNC, 1), (OUT, 1)],
    "in, given up": [(COPY_IN + COPY_OUT, 2), (IN + GOOD + COPY_FAIL + SYNC + OUT, 2), (OUT, 1)],
    "in, of wrong data": [
        (COPY_IN + COPY_OUT, 2),
        (IN + WRONG + 3 * GOOD + COPY_DONE + SYNC + OUT, 2),
        (IN + SYNC + GOOD + WRONG + GOOD + COPY_DONE + SYNC + OUT, 2),
        (IN + WRONG + GOOD + COPY_FAIL + close(b"in") + SYNC + SYNC + OUT, 3),
        (IN + GOOD + COPY_DONE + SYNC + OUT, 2),
    ],
    "in, behind an error": [
        (COPY_IN + COPY_OUT, 2),
        (called(name=b"?") + IN + GOOD + COPY_DONE + SYNC + OUT, 2),
        (IN + GOOD + COPY_DONE + SYNC + OUT, 2),
    ],
    "in, by a Query that fails": [
        (COPY_OUT + prepared(ONE), 2),
        (ran(b"1") + query("COPY kept FROM STDIN") + WRONG + GOOD + COPY_DONE + SYNC + ran(b"2") + OUT, 5),
        (ran(b"3") + query("COPY kept FROM STDIN") + GOOD + COPY_DONE + ran(b"4"), 3),
        (OUT, 1),
    ],
    "in, twice in a series": [(COPY_IN + COPY_OUT, 2), (2 * (IN + GOOD + COPY_DONE) + SYNC + OUT, 2), (OUT, 1)],
    "out, in a series": [(COPY_OUT + prepared(ONE), 2), (OUT[:-5] + called(b"1") + OUT, 1), (ran(b"1") + OUT, 2)],
    "late data": [(prepared(ONE), 1), (GOOD + COPY_DONE + COPY_FAIL + ran(b"1"), 1), (COPY_DONE + ran(b"2") + GOOD, 1)],
    "a function call": [(prepared(ONE) + prepared(TWO, b""), 2), (ADD, 1), (ran(b"1") + ADD + ran(b"2", name=b""), 3)],
    "notices": [
        (prepared("DO $$ BEGIN RAISE NOTICE 'said'; END $$"), 1),
        (ran() + ran(), 2),
        (ran() + query("SELECT 1") + ran(), 3),
    ],
    "an empty series": [(SYNC, 1), (5 * SYNC, 5), (FLUSH + SYNC, 1)],
    "portions": [
        (prepared("SELECT generate_series(1, $1::int)"), 1),
        (bind(b"5", name=b"s", portal=b"p") + 2 * execute(2, portal=b"p") + called(b"1") + SYNC, 1),
        (execute(2, portal=b"p") + SYNC, 1),
    ],
    "several unnamed": [
        (parse(ONE) + called(b"1", name=b"") + parse(TWO) + called(b"2", name=b"") + SYNC, 1),
        (ran(b"3", name=b""), 1),
        (parse(TWO) + parse(ONE) + SYNC, 1),
        (describe(b"") + called(b"4", name=b"") + close(b"") + parse(TWO) + ran(b"5", name=b""), 1),
        (ran(b"6", name=b"") + query("SELECT 7") + ran(b"8", name=b"") + prepared(ONE, b""), 4),
        (ran(b"9", name=b""), 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("mode", "case"), [(mode, case) for mode in MODES for case in EXCHANGES])
def test_an_exchange_is_as_on_a_direct_connection(
    mode: str, case: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W6, bugs 8, 9, 11 and 20: PgBouncer #52, #1025, #1471, pgpool-II #79, pg_doorman 3.10.7, PgDog #957."""
    address = data_planes(mode).address
    expected: list[Any] = []
    with ExitStack() as stack:
        switch = stack.enter_context(Switch(address, shared_database))
        for place, every in (((postgres.host, postgres.port), 0), (address, 0), (address, 1)):
            postgres.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (x int)", database=shared_database)
            client = stack.enter_context(logged_in(place, shared_database))
            heard = []
            for request, ready in EXCHANGES[case]:
                heard.append(exchanged(client, request, ready))
                if every:
                    switch.turn()
            expected = expected or heard
            assert heard == expected


def test_what_the_server_remarks_on_a_text_is_told_once(data_planes: DataPlanes, shared_database: str) -> None:
    """Bug 20: not again when the statement is prepared on another server connection."""
    address = data_planes().address
    with Switch(address, shared_database) as switch, logged_in(address, shared_database) as client:
        said = answers(client, prepared(f"SELECT 1 AS {'n' * 70}"))
        assert [message.name for message in said] == ["NoticeResponse", "ParseComplete", "ReadyForQuery"]
        for _ in range(3):
            switch.turn()
            said = answers(client, ran())
            assert [message.name for message in said] == ["BindComplete", "DataRow", "CommandComplete", "ReadyForQuery"]


# -- clients that vanish -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "reset"])
def test_the_next_client_meets_nothing_of_a_pipeline_that_was_cut_anywhere(
    way: str, data_planes: DataPlanes, database: str
) -> None:
    """W3, bugs 14 and 15: also when what was cut had to be prepared on this server connection first."""
    address = data_planes(max_prepared_statements=3).address
    text = "SELECT 'vanished', $1::int"
    series = b"".join(
        parse(f"SELECT {number}", name=b"%d" % number) + called(name=b"%d" % number) for number in range(5)
    )
    pipeline = ran(b"1") + series + called(b"x") + close(b"s") + SYNC + ran(b"2")
    with Switch(address, database) as switch, logged_in(address, database) as next_one:
        answers(next_one, prepared(text), prepared("SELECT 'next'", b"t"), prepared("SELECT 'unnamed'", b""))
        for cut in range(3, len(pipeline), 23):
            with logged_in(address, database) as client:
                answers(client, prepared(text))
                switch.turn()
                client.send(pipeline[:cut])
                if way == "reset":
                    client.reset()
            for _ in range(2):
                heard = row_values(answers(next_one, ran(b"3"), ran(name=b"t"), ran(name=b"")))
                assert heard == ["vanished", "3", "next", "unnamed"], cut
                switch.turn()


def test_a_copy_that_its_client_leaves_is_undone_and_disturbs_nobody(
    data_planes: DataPlanes, postgres: PostgresServer, database: str
) -> None:
    """W3, bug 9."""
    postgres.execute("CREATE TABLE kept (x int)", database=database)
    address = data_planes().address
    with Switch(address, database) as switch, logged_in(address, database) as other:
        answers(other, COPY_IN, COPY_OUT)
        for number in range(6):
            with logged_in(address, database) as client:
                answers(client, COPY_IN)
                switch.turn()
                client.send(IN, GOOD, GOOD[: 3 + number], SYNC if number % 2 else b"")
                assert client.until("CopyInResponse", "ErrorResponse")[-1].name == "CopyInResponse"
            for _ in range(2):
                (row,) = [message["data"] for message in answers(other, OUT) if message.name == "CopyData"]
                assert row == b"0\n"
                switch.turn()
        assert exchanged(other, IN + GOOD + COPY_DONE + SYNC, 1)[-1] == ("ReadyForQuery", {"status": b"I"})
    assert postgres.execute("SELECT count(*) FROM kept", database=database) == [(2,)]


def test_an_answer_that_comes_while_half_of_the_next_bind_is_forwarded_releases_nothing(
    data_planes: DataPlanes, shared_database: str
) -> None:
    """W6, bugs 8 and 15: what begins behind ReadyForQuery belongs to the same server connection."""
    under_test: RunningDataPlane = data_planes("transaction", pool_size=1)
    second = ran(b"z" * 2**20)
    with (
        logged_in(under_test.address, shared_database) as client,
        logged_in(under_test.address, shared_database) as other,
    ):
        answers(client, prepared("SELECT length($1)"))
        for cut in (1, 5, 7, 100, 2**16, 2**19, len(second) - len(SYNC)):
            client.send(ran(b"first"), second[:cut])
            assert row_values(client.until()) == ["5"]
            other.send(query("SELECT 'other'"))
            if cut >= 100:  # behind both names, so that some of it has been forwarded
                wait_until(lambda: under_test.snapshot()["waiting"] == 1)
            client.send(second[cut:])
            assert row_values(client.until()) == [str(2**20)]
            assert row_values(other.until()) == ["other"]
