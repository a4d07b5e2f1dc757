"""A thousand clients that wait for one server connection: each is served in its turn, or told why not; none is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest

from pgpooler.demo.postgres import PostgresServer
from pgpooler.pooling.states import ClientState
from spec.codec import Instance
from tests.integration.data_planes import PATIENCE, DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import TERMINATE, Wire, cancel_request, error_fields, query, row_values, sqlstate, startup

WAITERS = 1000
HALF = WAITERS // 2
DESCRIPTORS = 2 * WAITERS + 500
"""Both ends of every client's connection are in this process."""
TURN = query("SELECT nextval('turns')")
LONG = query("DO $$BEGIN RAISE NOTICE 'it runs'; PERFORM pg_sleep(600); END$$")
"""It tells its client when it has begun, which no result does."""
SEED = "PGPOOLER_TEST_SEED"
"""An environment variable: the dice of a run that failed, to throw them again."""

Start = Callable[..., RunningDataPlane]


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Allow this process as many sockets as the tests here open."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(few, min(DESCRIPTORS, most)), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))


@pytest.fixture
def start(two_servers: TwoServers, postgres: PostgresServer, database: str, data_plane: DataPlaneFactory) -> Start:
    """Start a pool of one in transaction mode, for very many clients, whose logins cost them no arithmetic."""
    postgres.execute("CREATE SEQUENCE turns", database=database)

    def run(**defaults: Any) -> RunningDataPlane:
        configuration = two_servers.configuration(
            routing={"defaults": {"pool_mode": "transaction", "pool_size": 1, **defaults}},
            limits={"max_client_conn": 2 * WAITERS},
        )
        configuration["auth"]["method"] = "trust"
        return data_plane(configuration)

    return run


def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that asks the data plane: every look gives it time to get on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"


def ask_and_wait(client: Wire, under_test: RunningDataPlane, request: bytes) -> None:
    """Send a request and see to it that PgPooler has put this client into the queue."""

    def state(data_plane: Any) -> ClientState:
        session = data_plane.service.clients.get(client.process_id)  # in transaction mode this is the session's number
        return ClientState.CLOSED if session is None else session.state

    client.send(request)
    soon(lambda: under_test.inside(state) != ClientState.IDLE)


@contextlib.contextmanager
def crowd_of(make: Callable[[int], Any]) -> Iterator[list[Any]]:
    """A thousand clients, all of them closed in the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(make(number)) for number in range(WAITERS)]


def holding(under_test: RunningDataPlane, database: str) -> Wire:
    """A client in whose transaction the only server connection is."""
    holder = under_test.wire().log_in(database=database)
    assert holder.values("BEGIN; SELECT 'held'") == ["held"]
    return holder


def let_go(holder: Wire) -> None:
    holder.send(query("COMMIT") + TERMINATE)
    holder.everything()
    holder.close()


def assert_it_serves(under_test: RunningDataPlane, database: str) -> None:
    """Nothing is left of the crowd, and the pool serves as if it had never been there."""
    under_test.wait_until_unused()
    with under_test.wire() as client:
        client.log_in(database=database)
        assert client.values("SELECT 'served'") == ["served"]
        client.send(TERMINATE)
        assert client.everything() == b""
    under_test.wait_until_unused()
    assert under_test.idle() == 1


def test_a_thousand_waiters_are_served_in_the_order_in_which_they_came(start: Start, database: str) -> None:
    """W9: nobody is lost, nobody overtakes; W7: and all are served by a connection that is logged in already."""
    under_test = start(query_wait_timeout=0)
    with crowd_of(lambda number: under_test.wire()) as waiters, holding(under_test, database) as holder:
        for waiter in waiters:
            waiter.log_in(database=database)
        for waiter in waiters:
            ask_and_wait(waiter, under_test, TURN)
        assert under_test.snapshot()["waiting"] == WAITERS
        let_go(holder)
        turns = [int(row_values(waiter.until())[0]) for waiter in waiters]
    assert turns == list(range(1, WAITERS + 1))
    assert under_test.snapshot()["server_connections_made"] == 1
    assert_it_serves(under_test, database)


def test_of_a_thousand_waiters_each_is_served_in_its_turn_or_told_that_it_waited_too_long(
    start: Start, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W9: the connection comes back when the first have given up and the last have not."""
    caplog.set_level(logging.INFO, logger="pgpooler")
    under_test = start(query_wait_timeout=1.0)
    with crowd_of(lambda number: under_test.wire()) as waiters, holding(under_test, database) as holder:
        for waiter in waiters:
            waiter.log_in(database=database)
        for waiter in waiters[:HALF]:
            ask_and_wait(waiter, under_test, TURN)
        told = [outcome(waiters[0])]
        for waiter in waiters[HALF:]:
            ask_and_wait(waiter, under_test, TURN)
        let_go(holder)
        told += [outcome(waiter) for waiter in waiters[1:]]
    turns = [int(word) for word in told if word != "53300"]
    assert told[0] == "53300"
    assert turns == list(range(1, len(turns) + 1))
    gave_up = [vars(record)["session"] for record in under_test.records if "reason=53300" in record.getMessage()]
    assert len(gave_up) == WAITERS - len(turns)
    assert gave_up == sorted(gave_up), "somebody gave up before others who had come earlier"
    assert_it_serves(under_test, database)


def outcome(waiter: Wire) -> str:
    """How a request for a turn ended: the turn, or the SQLSTATE of the error that ended the connection too."""
    messages = waiter.until("ReadyForQuery", "ErrorResponse")
    if messages[-1].name == "ReadyForQuery":
        (turn,) = row_values(messages)
        return str(turn)
    fields = error_fields(messages[-1])
    assert fields["S"] == "FATAL"
    assert "query_wait_timeout" in fields["M"]
    assert waiter.message() is None
    return fields["C"]


# -- a crowd in motion -------------------------------------------------------------------------------------------------


class Patient(Wire):
    """Asks for a turn and waits.  The others do something besides, at a moment that the dice choose.

    `stories` are all the ways in which that may end: what became of its requests, one after the other.
    """

    request = TURN
    stories: ClassVar[set[tuple[str, ...]]] = {("turn",), ("53300",)}

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(crowd.under_test.address)
        self.crowd = crowd
        self.number = number
        self.story: tuple[str, ...] = ()
        self.turns: list[int] = []
        self.error = ""
        self.awaiting = False
        self.present = True

    def log_in_early(self) -> None:
        self.log_in(database=self.crowd.database)

    def join(self) -> None:
        """Join the queue."""
        self.awaiting = True
        ask_and_wait(self, self.crowd.under_test, self.request)

    def deed(self) -> None:
        """What this one does once."""

    def hear(self, message: Instance | None) -> None:
        """Take a message, or the end of the connection."""
        if message is None:
            if self.awaiting:
                self.ended(self.error or "closed without a word")
            self.present = False
        elif message.name == "ErrorResponse":
            self.error = sqlstate(message)
        elif message.name == "DataRow":
            self.turns += [int(turn) for turn in row_values([message])]
        elif message.name == "ReadyForQuery":
            self.ended(self.error or "turn")
            self.error = ""

    def ended(self, how: str) -> None:
        """One request has come to its end."""
        self.awaiting = False
        self.story += (how,)

    def vanish(self) -> None:
        if self.present:
            self.crowd.leave(self)
            self.present = self.awaiting = False
            self.crowd.dice.choice([Wire.close, Wire.reset])(self)


class Vanishing(Patient):
    """Is gone all of a sudden."""

    stories = {*Patient.stories, ()}
    deed = Patient.vanish


class Polite(Patient):
    """Says Terminate behind its request, which is served all the same."""

    def deed(self) -> None:
        self.send_if_possible(TERMINATE)


class Canceling(Patient):
    """Cancels its request, be it waiting, running or done; if it was in time, it asks again."""

    request = query("SELECT nextval('turns') FROM pg_sleep(0.003)")
    stories = {*Patient.stories, ("57014", "turn"), ("57014", "53300")}

    def deed(self) -> None:
        self.cancel()

    def ended(self, how: str) -> None:
        super().ended(how)
        if self.story == ("57014",):
            self.awaiting = True
            self.send(TURN)


class WithWrongKeys(Patient):
    """Sends cancel requests that fit nobody, or nearly somebody."""

    def deed(self) -> None:
        other = self.crowd.dice.choice(self.crowd.waiters)
        near = bytes((*self.key[:-1], self.key[-1] ^ 1))
        for process_id, key in ((other.process_id, near), (self.process_id, near), (self.process_id, b""), (0, b"")):
            with Wire(self.address) as carrier:
                carrier.send(cancel_request(process_id, key))
                assert carrier.everything() == b""


class Running(Patient):
    """Asks for something that does not end, and cancels it when it has begun."""

    request = LONG
    stories = {("57014",), ("53300",)}

    def hear(self, message: Instance | None) -> None:
        super().hear(message)
        if message is not None and message.name == "NoticeResponse":
            self.when_it_runs()

    def when_it_runs(self) -> None:
        self.cancel()


class RunningAndVanishing(Running):
    """... or is gone when it has begun: then PgPooler cancels it."""

    stories = {(), ("53300",)}
    when_it_runs = Patient.vanish


class Newcomer(Patient):
    """Waits with its login already: nobody has had its startup parameters yet."""

    stories = {("let in", "turn"), ("let in", "53300"), ("53300",)}

    def log_in_early(self) -> None:
        """Not this one."""

    def join(self) -> None:
        self.awaiting = True
        self.send(startup("postgres", self.crowd.database, application_name=f"newcomer {self.number}"))

    def ended(self, how: str) -> None:
        if how == "turn" and not self.story:
            super().ended("let in")
            self.awaiting = True
            self.send(TURN)
        else:
            super().ended(how)


PARTS: dict[type[Patient], int] = {
    Patient: 40,
    Vanishing: 20,
    Polite: 5,
    Canceling: 15,
    WithWrongKeys: 5,
    Running: 6,
    RunningAndVanishing: 4,
    Newcomer: 5,
}
"""Who is in the crowd, and how often."""


class Crowd:
    """A thousand waiters whose parts and moments the dice choose, and the one loop that hears them all."""

    def __init__(self, under_test: RunningDataPlane, database: str, seed: int) -> None:
        self.under_test = under_test
        self.database = database
        self.dice = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.parts = self.dice.choices(list(PARTS), list(PARTS.values()), k=WAITERS)
        self.waiters: list[Patient] = []
        self.still_to_act: list[Patient] = []

    def make(self, number: int) -> Patient:
        waiter = self.parts[number](self, number)
        self.waiters.append(waiter)
        return waiter

    def come(self, waiters: Sequence[Patient]) -> None:
        """They join the queue one after the other; some act meanwhile, some get an answer."""
        for waiter in waiters:
            waiter.log_in_early()
        for waiter in waiters:
            self.selector.register(waiter.socket, selectors.EVENT_READ, waiter)
            waiter.join()
            self.still_to_act.insert(self.dice.randint(0, len(self.still_to_act)), waiter)
            self.listen(0)
            if self.dice.random() < 0.2:
                self.still_to_act.pop().deed()

    def listen(self, timeout: float) -> int:
        """Hear what has come; return from how many."""
        ready = self.selector.select(timeout)
        for key, _ in ready:
            waiter: Patient = key.data
            data = waiter.receive()
            waiter.received += data
            while waiter.present and (message := waiter.whole()) is not None:
                waiter.hear(message)
            if waiter.present and not data:
                assert waiter.received == b"", "the connection was closed in the middle of a message"
                self.leave(waiter)
                waiter.hear(None)
        return len(ready)

    def leave(self, waiter: Patient) -> None:
        self.selector.unregister(waiter.socket)

    def listen_until(self, condition: Callable[[], object]) -> None:
        """Go on until a condition holds: the rest acts, and answers come."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            heard = self.listen(0.01)
            if self.still_to_act and (not heard or self.dice.random() < 0.5):
                self.still_to_act.pop().deed()
            assert time.monotonic() < deadline, f"lost: {[one.number for one in self.waiters if one.awaiting]}"

    def over(self) -> bool:
        """Everybody who is there has acted and has got an answer."""
        return not self.still_to_act and not any(waiter.awaiting for waiter in self.waiters)


@pytest.mark.parametrize("timeout", [0, 2], ids=["without query_wait_timeout", "with query_wait_timeout"])
def test_in_a_thousand_waiters_of_whom_many_vanish_cancel_and_time_out_at_random_nobody_is_lost_or_overtaken(
    timeout: int, start: Start, database: str
) -> None:
    """W8, W9: places and the server connection come free again, whoever leaves and however."""
    seed = int(os.environ.get(SEED) or random.getrandbits(32))
    print(f"{SEED}={seed} throws the same dice again")
    under_test = start(query_wait_timeout=timeout)
    crowd = Crowd(under_test, database, seed)
    with crowd_of(crowd.make) as waiters, holding(under_test, database) as holder, crowd.selector:
        crowd.come(waiters[:HALF])
        if timeout:
            crowd.listen_until(lambda: any("53300" in waiter.story for waiter in waiters))
        crowd.come(waiters[HALF:])
        let_go(holder)
        crowd.listen_until(crowd.over)
    strange = {
        waiter.number: (type(waiter).__name__, waiter.story) for waiter in waiters if waiter.story not in waiter.stories
    }
    assert strange == {}
    timed_out = sum("53300" in waiter.story for waiter in waiters)
    assert bool(timed_out) == bool(timeout)
    in_order = [waiter.turns[0] for waiter in waiters if waiter.story[:1] == ("turn",)]
    assert in_order == sorted(in_order)
    turns = [turn for waiter in waiters for turn in waiter.turns]
    assert len(set(turns)) == len(turns)
    assert_it_serves(under_test, database)
