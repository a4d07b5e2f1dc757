"""Where drivers connect: the server itself, or PgPooler in front of it; and the others who use it at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import psycopg

from tests.integration.clients import Connection, background, value, wait_for
from tests.integration.wire import SYNC, TERMINATE, Wire, bind, execute, parse, query, row_values

T = TypeVar("T")

CROWD = 8
"""Sessions that work at the same time: more than the pool has connections."""
NEIGHBOURS = 2
NAMES_OF_DRIVERS = ("_pg3_0", "_pg3_1", "__asyncpg_stmt_1__", "__asyncpg_stmt_2__", "pg8000_statement_0", "by_number")
"""Statement names that drivers make up (psycopg, asyncpg, pg8000) or that the tests of node-postgres use."""


@dataclass(frozen=True)
class Target:
    """Where a driver connects: the server itself, or PgPooler in front of it."""

    host: str
    port: int
    user: str
    password: str
    database: str

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    def connect(self, **parameters: Any) -> Connection:
        return psycopg.connect(self.url, **{"autocommit": True, "sslmode": "disable", **parameters})

    async def asyncpg(self, **parameters: Any) -> Any:
        return await asyncpg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=self.database,
            ssl=False,
            timeout=60,
            **parameters,
        )


@dataclass(frozen=True)
class Both:
    """The server itself and PgPooler in front of it."""

    direct: Target
    pooled: Target

    def alike(self, work: Callable[[Target], T]) -> T:
        """Do the same with both, and return what came of it: the same."""
        expected = work(self.direct)
        found = work(self.pooled)
        assert found == expected, f"{found!r} through PgPooler, {expected!r} directly"
        return expected

    def prepare(self, *texts: str) -> None:
        """Run SQL on the server itself, before a test begins."""
        with self.direct.connect() as connection:
            for text in texts:
                connection.execute(text.encode())

    def wait_until_active(self, text: str) -> None:
        """Wait until the server runs a statement with this text."""
        found = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s AND datname = %s"
        with self.direct.connect() as observer:
            wait_for(lambda: value(observer, found, text, self.direct.database), lambda: f"nobody runs {text}")


def crowd(work: Callable[[Target, int], T], target: Target, size: int = CROWD) -> list[T]:
    """What comes of `work(target, number)`, done by several threads at the same time."""
    with background() as run:
        return [task.result(120) for task in [run(work, target, number) for number in range(size)]]


def async_crowd(work: Callable[[Target, int], Awaitable[T]], target: Target, size: int = CROWD) -> list[T]:
    """The same with coroutines."""

    async def everybody() -> Sequence[T]:
        return await asyncio.gather(*(work(target, number) for number in range(size)))

    return list(asyncio.run(everybody()))


@contextlib.contextmanager
def neighbours(target: Target) -> Iterator[None]:
    """Clients that take server connections and give them back all the time, so that others change theirs.

    They call their prepared statements as drivers do, with texts of their own, and set parameters that would spoil
    anybody else's work; and they look at every answer.
    """
    over = threading.Event()
    with background() as run:
        tasks = [run(_neighbour, target, number, over) for number in range(NEIGHBOURS)]
        try:
            yield
        finally:
            over.set()
            for task in tasks:
                task.result(60)


def _neighbour(target: Target, number: int, over: threading.Event) -> None:
    dice = random.Random(number)
    with Wire((target.host, target.port)) as client:
        client.log_in(target.user, target.password, target.database)
        client.ask(f"SET search_path = nowhere; SET application_name = 'neighbour {number}'")
        client.ask("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET statement_timeout = '59s'")
        for name in NAMES_OF_DRIVERS:
            client.send(parse(f"SELECT '{number} {name}', $1, pg_sleep(0.001)", name=name.encode()), SYNC)
            assert [message.name for message in client.until()] == ["ParseComplete", "ReadyForQuery"]
        while not over.is_set():
            name, token = dice.choice(NAMES_OF_DRIVERS), str(dice.random())
            ending = dice.choice(["COMMIT", "ROLLBACK"])
            client.send(query("BEGIN"), bind(token.encode(), name=name.encode()), execute(), SYNC, query(ending))
            assert row_values(client.until()) == []
            assert row_values(client.until()) == [f"{number} {name}", token, ""]
            assert row_values(client.until()) == []
            if dice.random() < 0.1:
                shown = client.values("SELECT current_setting('application_name'), current_setting('search_path')")
                assert shown == [f"neighbour {number}", "nowhere"]
            time.sleep(dice.uniform(0, 0.004))
        client.send(TERMINATE)
