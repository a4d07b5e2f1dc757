"""asyncpg through PgPooler, in session and in transaction mode, doing the same as on a direct connection."""

from __future__ import annotations

import asyncio
import datetime
import decimal
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.integration.drivers.targets import Both, Target


def with_asyncpg(both: Both, work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run(target: Target) -> Any:
        connection = await target.asyncpg()
        try:
            return await work(connection)
        finally:
            await connection.close()

    return both.alike(lambda target: asyncio.run(run(target)))


def test_asyncpg_prepares_statements_and_reads_binary_values(both: Both) -> None:
    async def work(connection: Any) -> list[Any]:
        statement = await connection.prepare("SELECT $1::int[] || 4, $2::jsonb, $3::numeric, $4::timestamptz")
        moment = datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC)
        found = [tuple(await statement.fetchrow([1, 2], '{"a": 1}', decimal.Decimal("1.50"), moment))]
        found += [tuple(row) for row in await connection.fetch("SELECT * FROM generate_series(1, 1000) AS x")]
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetch("SELECT 1 / $1::int", 0)
        return [*found, await connection.fetchval("SELECT 'after'")]

    assert with_asyncpg(both, work)[-1] == "after"


def test_asyncpg_executes_many_copies_and_uses_cursors(both: Both) -> None:
    rows = [(number, f"line {number}") for number in range(3000)]

    async def work(connection: Any) -> list[Any]:
        await connection.execute("DROP TABLE IF EXISTS lines; CREATE TABLE lines (number int PRIMARY KEY, line text)")
        await connection.executemany("INSERT INTO lines VALUES ($1, $2)", rows[:1000])
        await connection.copy_records_to_table("lines", records=rows[1000:])
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.executemany("INSERT INTO lines VALUES ($1, $2)", [(9999, "new"), rows[0]])
        found = []
        async with connection.transaction():
            async for record in connection.cursor("SELECT * FROM lines ORDER BY number", prefetch=100):
                found.append(tuple(record))
        exported = bytearray()

        async def take(data: bytes) -> None:
            exported.extend(data)

        await connection.copy_from_query("SELECT number FROM lines ORDER BY number", output=take)
        assert exported.decode().split() == [str(number) for number in range(3000)]
        return found

    assert with_asyncpg(both, work) == rows


def test_asyncpg_cancels_on_its_timeout_and_goes_on_with_the_session(both: Both) -> None:
    async def work(connection: Any) -> list[Any]:
        await connection.execute("SET work_mem = '3MB'")
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await connection.fetch("SELECT pg_sleep(120)", timeout=0.5)
        return [await connection.fetchval("SHOW work_mem"), await connection.fetchval("SELECT 6 * 7")]

    assert with_asyncpg(both, work) == ["3MB", 42]


def test_asyncpg_listens(both: Both) -> None:
    async def work(connection: Any) -> list[Any]:
        heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        await connection.add_listener("news", lambda _, pid, channel, text: heard.put_nowait((channel, text)))
        for number in range(5):
            await connection.execute(f"NOTIFY news, 'number {number}'")
        return [await asyncio.wait_for(heard.get(), 60) for _ in range(5)]

    assert with_asyncpg(both, work)[-1] == ("news", "number 4")


def test_an_asyncpg_pool_with_more_users_than_connections_serves_them_all(both: Both) -> None:
    async def work(target: Target) -> list[int]:
        pool = asyncpg.create_pool(target.url, ssl=False, min_size=2, max_size=4)
        async with pool:
            return await asyncio.gather(*(pool.fetchval("SELECT $1::int * 2", number) for number in range(100)))

    assert both.alike(lambda target: asyncio.run(work(target))) == [number * 2 for number in range(100)]
