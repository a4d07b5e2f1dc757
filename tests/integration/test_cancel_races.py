"""Cancel requests that come at the worst moment: whoever is not meant is not hit, in transaction and statement mode."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Connection, background, exists, value, wait_for
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.faults import CancelProxy, Fate, reset
from tests.integration.servers import TwoServers
from tests.integration.wire import TERMINATE, Wire, cancel_request, query, row_values, sqlstate

WAITING_FOR_THE_LOCK = "SELECT pg_advisory_xact_lock(1), 'got it'"
MODES = ("transaction", "statement")

Start = Callable[..., RunningDataPlane]


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a data plane: `start("transaction", proxy=None, backend_size=0, limits={}, pool_size=1, ...)`."""

    def run(
        mode: str,
        *,
        proxy: CancelProxy | None = None,
        backend_size: int = 0,
        limits: dict[str, int] | None = None,
        **defaults: Any,
    ) -> RunningDataPlane:
        backend = two_servers.backend("primary", pool_size=backend_size)
        if proxy is not None:
            backend |= {"host": "127.0.0.1", "port": proxy.port}
        return data_plane(
            two_servers.configuration(
                backends=[backend],
                routing={"defaults": {"pool_mode": mode, "pool_size": 1, **defaults}},
                limits=limits or {},
            )
        )

    return run


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    """A direct connection to the database of the test."""
    with closing(psycopg.connect(postgres.url(database), autocommit=True)) as connection:
        yield connection


@pytest.fixture
def proxied(postgres: PostgresServer) -> Iterator[Callable[[Fate], CancelProxy]]:
    """Start a relay to the server with this fate for cancel requests."""
    with contextlib.ExitStack() as stack:

        def run(fate: Fate) -> CancelProxy:
            proxy = CancelProxy((postgres.host, postgres.port), fate)
            stack.callback(proxy.stop)
            return proxy

        yield run


def runs(observer: Connection, text: str) -> bool:
    """Whether a session that is not the observer's runs something like this now."""
    return bool(
        value(
            observer,
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
            " AND state = 'active' AND wait_event_type IS NOT NULL AND query ~ %s",
            text,
        )
    )


def waiting(under_test: RunningDataPlane) -> int:
    return int(under_test.snapshot()["waiting"])


# -- the end of the cancel request's own connection --------------------------------------------------------------------


def reset_behind(connection: socket.socket, deliver: Callable[[], None]) -> None:
    deliver()
    reset(connection)


def reset_instead(connection: socket.socket, deliver: Callable[[], None]) -> None:
    reset(connection)


class ResetFirst:
    """The connection is reset, and the request comes to the server when the test says so."""

    def __init__(self) -> None:
        self.now = threading.Event()
        self.delivered = threading.Event()

    def __call__(self, connection: socket.socket, deliver: Callable[[], None]) -> None:
        reset(connection)
        self.now.wait(60)
        deliver()
        self.delivered.set()


class Held:
    """The request is on its way until the test says so, and ends in an orderly way."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.now = threading.Event()

    def __call__(self, connection: socket.socket, deliver: Callable[[], None]) -> None:
        self.came.set()
        self.now.wait(60)
        deliver()


@pytest.mark.parametrize("fate", [reset_behind, reset_instead], ids=["delivered", "lost"])
@pytest.mark.parametrize(
    ("mode", "stays"),
    [("session", False), ("transaction", False), ("transaction", True), ("statement", False), ("statement", True)],
)
def test_a_cancel_request_whose_connection_is_reset_closes_the_server_connection_instead_of_reusing_it(
    mode: str, fate: Fate, stays: bool, start: Start, proxied: Any, database: str, observer: Connection
) -> None:
    """It may still hit what runs next there: the next client gets another server connection."""
    under_test = start(mode, proxy=proxied(fate), query_wait_timeout=5)
    observer.execute("SELECT pg_advisory_lock(1)")
    with under_test.wire() as client, under_test.wire() as other:
        client.log_in(database=database)
        (process,) = client.values("SELECT pg_backend_pid()")
        client.send(query(WAITING_FOR_THE_LOCK))
        wait_for(lambda: runs(observer, "xact_lock"))
        assert client.cancel() == b""
        observer.execute("SELECT pg_advisory_unlock(1)")
        words = [sqlstate(message) for message in client.until() if message.name == "ErrorResponse"]
        assert words == ([] if fate is reset_instead else ["57014"])
        if not stays:
            client.send(TERMINATE)
            client.everything()
        other.log_in(database=database)
        assert other.values("SELECT pg_backend_pid()") != [process]
        wait_for(lambda: not exists(observer, int(process)))
        if stays:
            assert client.values("SELECT 'goes on'") == ["goes on"]
    under_test.wait_until_unused()
    assert under_test.idle() == 1


def test_a_cancel_request_that_arrives_long_after_its_connection_was_reset_hits_nobody(
    start: Start, proxied: Any, database: str, observer: Connection
) -> None:
    """The client has left; the next one runs something while the request is still under way."""
    fate = ResetFirst()
    under_test = start("transaction", proxy=proxied(fate))
    observer.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
    with under_test.wire() as client, under_test.wire() as other:
        client.log_in(database=database)
        other.log_in(database=database)
        client.send(query("SELECT pg_advisory_xact_lock(1)"))
        wait_for(lambda: runs(observer, "xact_lock.1"))
        assert client.cancel() == b""
        client.send(TERMINATE)
        other.send(query("SELECT pg_advisory_xact_lock(2), 'not hit'"))
        wait_for(lambda: waiting(under_test) == 1)
        observer.execute("SELECT pg_advisory_unlock(1)")
        client.everything()
        wait_for(lambda: runs(observer, "xact_lock.2"))
        fate.now.set()
        assert fate.delivered.wait(60)
        observer.execute("SELECT pg_advisory_unlock(2)")
        assert row_values(other.until()) == ["", "not hit"]
    assert under_test.snapshot()["server_connections_made"] == 2


@pytest.mark.parametrize("policy", ["always", "never"])
@pytest.mark.parametrize("mode", MODES)
def test_a_server_connection_is_not_handed_on_before_the_end_of_a_cancel_request_for_it(
    mode: str, policy: str, start: Start, proxied: Any, database: str, observer: Connection
) -> None:
    """The statement that it was meant for ends before it comes: then it hits neither the next client nor the next
    statement of its own."""
    fate = Held()
    under_test = start(mode, proxy=proxied(fate), server_reset_query=policy)
    observer.execute("SELECT pg_advisory_lock(1)")
    with under_test.wire() as client, under_test.wire() as other, background() as run:
        client.log_in(database=database)
        other.log_in(database=database)
        (process,) = client.values("SELECT pg_backend_pid()")
        client.send(query(WAITING_FOR_THE_LOCK))
        wait_for(lambda: runs(observer, "xact_lock"))
        cancel = run(client.cancel)
        assert fate.came.wait(60)
        observer.execute("SELECT pg_advisory_unlock(1)")
        assert row_values(client.until()) == ["", "got it"]
        other.send(query("SELECT pg_backend_pid(), pg_sleep(0.1)"))
        client.send(query("SELECT pg_backend_pid(), pg_sleep(0.1)"))
        wait_for(lambda: waiting(under_test) == 2)
        assert under_test.snapshot()["pools"][0]["in_use"] == 1
        assert not cancel.done()
        fate.now.set()
        for waiter in (other, client):
            assert row_values(waiter.until()) == [process, ""]
        assert cancel.result(60) == b""


# -- wherever the client is --------------------------------------------------------------------------------------------


def test_cancel_requests_work_when_every_limit_is_reached(start: Start, database: str, observer: Connection) -> None:
    """pool_size, the backend's cap, max_queue and max_client_conn: a cancel request needs no place anywhere."""
    under_test = start("transaction", backend_size=1, limits={"max_client_conn": 3}, max_queue=1)
    with under_test.wire() as running, under_test.wire() as waiter, under_test.wire() as idle:
        for client in (running, waiter, idle):
            client.log_in(database=database)
        running.send(query("SELECT pg_sleep(600)"))
        wait_for(lambda: runs(observer, "sleep.600"))
        waiter.send(query("SELECT 'waits'"))
        wait_for(lambda: waiting(under_test) == 1)
        with under_test.wire() as refused:
            assert sqlstate(refused.authenticate("postgres", "postgres", database)) == "53300"
        assert waiter.cancel() == b""
        assert sqlstate(waiter.until()[0]) == "57014"
        waiter.send(query("SELECT 'waits again'"))
        wait_for(lambda: waiting(under_test) == 1)
        assert idle.cancel() == b""
        assert running.cancel() == b""
        assert sqlstate(running.until()[-2]) == "57014"
        assert row_values(waiter.until()) == ["waits again"]
        for client in (running, waiter, idle):
            assert client.values("SELECT 'goes on'") == ["goes on"]


def test_a_client_that_waits_with_its_login_has_no_key_that_anybody_could_guess(start: Start, database: str) -> None:
    """Nor is it reached by the keys of others; when its turn comes, it is let in."""
    under_test = start("transaction")
    with under_test.wire() as holder, under_test.wire() as newcomer:
        holder.log_in(database=database)
        holder.values("BEGIN; SELECT 1")
        newcomer.authenticate("postgres", "postgres", database, application_name="new")
        wait_for(lambda: waiting(under_test) == 1)
        for process_id in (0, 1, holder.process_id, holder.process_id + 1):
            for key in (b"", bytes(4), bytes(32)):
                with under_test.wire() as carrier:
                    carrier.send(cancel_request(process_id, key))
                    assert carrier.everything() == b""
        assert holder.cancel() == b""  # nothing runs in its transaction
        assert waiting(under_test) == 1
        assert holder.values("COMMIT; SELECT 'mine'") == ["mine"]
        newcomer.remember_key(newcomer.until("ReadyForQuery", "ErrorResponse"))
        assert newcomer.values("SHOW application_name") == ["new"]


@pytest.mark.parametrize(("policy", "reset"), [("always", "^DISCARD ALL"), ("smart", "^CLOSE ALL")])
def test_a_cancel_request_does_not_hit_the_reset_that_follows_its_clients_statement(
    policy: str, reset: str, start: Start, postgres: PostgresServer, database: str, observer: Connection
) -> None:
    """The reset is PgPooler's own: it is not canceled, and the server connection goes on to the next client."""
    under_test = start("transaction", server_reset_query=policy, on_session_state="allow")
    with (
        under_test.wire() as client,
        under_test.wire() as other,
        closing(psycopg.connect(postgres.url(database))) as blocker,
    ):
        client.log_in(database=database)
        other.log_in(database=database)
        (process,) = client.values("BEGIN; CREATE TEMP TABLE dropped (x int); SELECT pg_backend_pid()")
        blocker.execute("LOCK TABLE pg_depend IN EXCLUSIVE MODE")  # what drops the table must wait
        client.values("COMMIT")
        wait_for(lambda: runs(observer, reset))
        other.send(query("SELECT pg_backend_pid()"))
        client.send(query("SELECT 'again'"))
        wait_for(lambda: waiting(under_test) == 2)
        for _ in range(5):
            assert other.cancel() == b""
            assert sqlstate(other.until()[0]) == "57014"
            other.send(query("SELECT pg_backend_pid()"))
            wait_for(lambda: waiting(under_test) == 2)
        assert client.cancel() == b""
        assert sqlstate(client.until()[0]) == "57014"
        assert client.cancel() == b""
        assert runs(observer, reset)
        blocker.rollback()
        assert row_values(other.until()) == [process]
    assert under_test.snapshot()["server_connections_made"] == 1


# -- a storm -----------------------------------------------------------------------------------------------------------

CLIENTS = 12
ROUNDS = 25
SHORT = ("SELECT {}", "SELECT {} FROM pg_sleep(0.002)", "SELECT {} FROM pg_sleep(0.02)")
BLOCK = "BEGIN; SELECT 1 FROM pg_sleep(0.005); SELECT {} FROM pg_sleep(0.005); COMMIT"
"""It ends idle, which statement mode allows too."""


class Storm:
    """Targets, whose statements are canceled while they run, and innocents, whose statements are not."""

    def __init__(self, under_test: RunningDataPlane, database: str, shooters: ThreadPoolExecutor) -> None:
        self.under_test = under_test
        self.database = database
        self.shooters = shooters
        self.targets: list[Wire] = []
        self.innocents: list[Wire] = []
        self.hits = 0

    def shoot(self, process_id: int, key: bytes) -> None:
        with self.under_test.wire() as carrier:
            carrier.send(cancel_request(process_id, key))
            assert carrier.everything() == b""

    def target(self, client: Wire, dice: random.Random) -> None:
        """Everything that it asks while no cancel request is under way must succeed, and belong to it."""
        for number in range(ROUNDS):
            texts = dice.choice(([dice.choice(SHORT)], [dice.choice(SHORT) for _ in range(3)], [BLOCK]))
            client.send(b"".join(query(text.format(number)) for text in texts))
            shots = [
                self.shooters.submit(self.shoot, client.process_id, client.key) for _ in range(dice.choice((1, 4)))
            ]
            replies = [client.until() for _ in texts]
            for messages in replies:
                words = [sqlstate(message) for message in messages if message.name == "ErrorResponse"]
                assert words in ([], ["57014"])
                self.hits += len(words)
            for shot in shots:
                shot.result(60)
            if replies[-1][-1]["status"] == b"E":
                assert client.values("ROLLBACK") == []
            self.ask(client, dice.choice((*SHORT, BLOCK)), -number)

    def innocent(self, client: Wire, dice: random.Random) -> None:
        """Cancel requests with nearly the right key fly at it all the time."""
        for number in range(ROUNDS):
            target = dice.choice(self.targets)
            near = bytes((*client.key[:-1], client.key[-1] ^ (1 << dice.randrange(8))))
            wrong = [(client.process_id, target.key), (client.process_id, near), (target.process_id, client.key)]
            shots = [self.shooters.submit(self.shoot, *dice.choice(wrong)) for _ in range(2)]
            self.ask(client, dice.choice((*SHORT, BLOCK)), number)
            for shot in shots:
                shot.result(60)

    def ask(self, client: Wire, text: str, number: int) -> None:
        assert client.values(text.format(number))[-1] == str(number)


@pytest.mark.parametrize("mode", MODES)
def test_in_a_storm_of_cancel_requests_no_statement_is_hit_that_was_not_meant(
    mode: str, start: Start, database: str
) -> None:
    """Neither another client's, nor the next one of the client whose cancel request has ended."""
    under_test = start(mode, pool_size=3)
    dice = random.Random()
    with ThreadPoolExecutor(16) as shooters, contextlib.ExitStack() as stack:
        storm = Storm(under_test, database, shooters)
        for crowd in (storm.targets, storm.innocents):
            crowd += [stack.enter_context(under_test.wire()).log_in(database=database) for _ in range(CLIENTS)]
        with background() as run:
            tasks = [run(storm.target, client, random.Random(dice.random())) for client in storm.targets]
            tasks += [run(storm.innocent, client, random.Random(dice.random())) for client in storm.innocents]
            for task in tasks:
                task.result(120)
    assert storm.hits > 0
    under_test.wait_until_unused()
    assert under_test.snapshot()["server_connections_made"] == 3
