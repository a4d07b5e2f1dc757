"""Many clients that do everything at once and leave in every way: each sees its own token and nobody else's."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance, encode, frontend
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import (
    SYNC,
    TERMINATE,
    Closed,
    Wire,
    bind,
    copy_data,
    error_fields,
    execute,
    extended,
    parse,
    query,
    row_values,
)

CLIENTS = 8
SESSIONS = 15
POOL_SIZE = 3
ENDED_BY_THE_SERVER = {"57P01", "08006"}
FRESH = """SELECT current_setting('work_mem'), to_regclass('pg_temp.own'), pg_current_xact_id_if_assigned(),
    (SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql), (SELECT count(*) FROM pg_cursors),
    (SELECT count(*) FROM pg_listening_channels())"""


class Ended(Exception):
    """The server ended the session, as an administrator told it."""


class Client:
    """Runs sessions with random requests; every value it asks for carries its token."""

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.token = uuid.uuid4().hex
        self.wire: Wire
        self.ended = 0

    def run(self) -> None:
        for _ in range(SESSIONS):
            with Wire(self.address) as self.wire:
                try:
                    self.session()
                except (Ended, Closed, BrokenPipeError, ConnectionResetError):
                    self.ended += 1

    def session(self) -> None:
        assert self.wire.authenticate("postgres", "postgres", "postgres").name == "AuthenticationOk"
        self.wire.remember_key(self.replies())
        assert self.values(FRESH) == ["4MB", None, None, "0", "0", "0"]
        actions: list[Callable[[], None]] = [
            self.ask,
            self.pipeline,
            self.fail,
            self.copy_out,
            self.copy_in,
            self.cancel,
            self.leave_state,
            self.transact,
        ]
        for action in self.random.choices(actions, k=self.random.randrange(5)):
            action()
        self.random.choice(
            [self.say_goodbye, self.vanish, self.vanish_in_a_request, self.vanish_in_a_transaction, self.vanish_unread]
        )()

    def replies(self, count: int = 1) -> list[Instance]:
        messages: list[Instance] = []
        for _ in range(count):
            messages += self.wire.until("ReadyForQuery", "ErrorResponse")
            while messages[-1].name == "ErrorResponse":
                if error_fields(messages[-1])["C"] in ENDED_BY_THE_SERVER:
                    raise Ended
                messages += self.wire.until("ReadyForQuery", "ErrorResponse")
        return messages

    def values(self, text: str) -> list[object]:
        self.wire.send(query(text))
        return row_values(self.replies())

    # What a client does

    def ask(self) -> None:
        number = self.random.randrange(100)
        assert self.values(f"SELECT '{self.token}', {number}") == [self.token, str(number)]

    def pipeline(self) -> None:
        count = self.random.randrange(1, 30)
        self.wire.send(*(extended("SELECT $1::text", f"{self.token} {n}".encode()) for n in range(count)))
        assert row_values(self.replies(count)) == [f"{self.token} {n}" for n in range(count)]

    def fail(self) -> None:
        self.wire.send(parse(f"SELECT nonsense_{self.token}") + bind() + execute() + SYNC + query("SELECT 1"))
        errors = [error_fields(message) for message in self.replies(2) if message.name == "ErrorResponse"]
        assert [self.token in error["M"] for error in errors] == [True]

    def copy_out(self) -> None:
        self.wire.send(query(f"COPY (SELECT '{self.token}' FROM generate_series(1, 500)) TO STDOUT"))
        rows = [message["data"] for message in self.replies() if message.name == "CopyData"]
        assert rows == [self.token.encode() + b"\n"] * 500

    def copy_in(self) -> None:
        self.values("DROP TABLE IF EXISTS own; CREATE TEMPORARY TABLE own (a text)")
        self.wire.send(query("COPY own FROM STDIN") + copy_data(self.token.encode() + b"\n"))
        self.wire.send(encode(frontend("CopyDone")))
        self.replies()
        assert self.values("SELECT a FROM own") == [self.token]

    def cancel(self) -> None:
        self.wire.send(query(f"SELECT pg_sleep(0.02), '{self.token}'"))
        self.wire.cancel()
        errors = [error_fields(message)["C"] for message in self.replies() if message.name == "ErrorResponse"]
        assert errors in ([], ["57014"])

    def leave_state(self) -> None:
        self.wire.send(parse("SELECT 1", name=uuid.uuid4().hex.encode()) + SYNC)
        self.replies()
        self.values("SET work_mem = '11MB'; LISTEN here; CREATE TEMPORARY TABLE IF NOT EXISTS own (a text)")

    def transact(self) -> None:
        self.values(f"BEGIN; CREATE TABLE own_{self.token} (a int); DECLARE c CURSOR FOR SELECT 1")
        self.values("ROLLBACK")

    # How it leaves

    def say_goodbye(self) -> None:
        self.wire.send(TERMINATE)
        errors = [error_fields(message)["C"] for message in self.wire.rest()]
        assert set(errors) <= ENDED_BY_THE_SERVER
        if errors:
            raise Ended

    def vanish(self) -> None:
        self.random.choice([Wire.close, Wire.reset])(self.wire)

    def vanish_in_a_request(self) -> None:
        request = extended(f"SELECT '{self.token}'") + query(f"SELECT '{self.token}', pg_sleep(10)")
        self.wire.send(request[: self.random.randrange(1, len(request) + 1)])
        self.vanish()

    def vanish_in_a_transaction(self) -> None:
        self.values(f"BEGIN; CREATE TABLE own_{self.token} (a int); DECLARE c CURSOR FOR SELECT 1")
        self.vanish()

    def vanish_unread(self) -> None:
        self.wire.send(query(f"SELECT repeat('{self.token}', 100) FROM generate_series(1, 100000)"))
        self.vanish()


def run_all(under_test: RunningDataPlane) -> list[Client]:
    clients = [Client(under_test.address, seed) for seed in range(CLIENTS)]
    failures: list[BaseException] = []

    def run(client: Client) -> None:
        try:
            client.run()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    under_test.wait_until_unused()
    return clients


def test_no_client_ever_sees_anything_of_another(two_servers: TwoServers, data_plane: DataPlaneFactory) -> None:
    """PgDog #876, #887, #913, pgagroal #142: after an error the next client read what was left of it."""
    under_test = data_plane(two_servers.configuration(routing={"defaults": {"pool_size": POOL_SIZE}}))
    clients = run_all(under_test)
    assert [client.ended for client in clients] == [0] * CLIENTS
    assert under_test.idle() <= POOL_SIZE


@pytest.mark.parametrize("settings", [{}, {"pool_size": 1}], ids=["many", "one"])
def test_no_client_ever_sees_anything_of_another_while_servers_are_ended_under_them(
    settings: dict[str, int], two_servers: TwoServers, postgres: PostgresServer, data_plane: DataPlaneFactory
) -> None:
    """PgBouncer #1019, #506, #384: clients waited although there was room."""
    under_test = data_plane(two_servers.configuration(routing={"defaults": {"pool_size": POOL_SIZE, **settings}}))
    over = threading.Event()
    chooser = random.Random(0)

    def end_servers() -> None:
        with psycopg.connect(postgres.url(), autocommit=True) as administrator:
            while not over.wait(0.02):
                made = administrator.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
                    " AND backend_type = 'client backend'"
                ).fetchall()
                if made:
                    administrator.execute("SELECT pg_terminate_backend(%s)", chooser.choice(made))

    administrator = threading.Thread(target=end_servers)
    administrator.start()
    try:
        run_all(under_test)
    finally:
        over.set()
        administrator.join()
    with under_test.wire() as client:
        client.log_in()
        assert client.values("SELECT 'served'") == ["served"]
        client.send(TERMINATE)
        client.everything()
