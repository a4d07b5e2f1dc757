"""psycopg 3 in asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.integration.drivers.targets import Both, Target


def test_async_psycopg_does_all_of_it_at_the_same_time(both: Both) -> None:
    async def session(target: Target, number: int) -> int:
        async with await psycopg.AsyncConnection.connect(target.url, autocommit=True) as connection:
            total = 0
            for _ in range(5):
                cursor = await connection.execute("SELECT %s::int + pg_backend_pid() * 0", [number])
                row = await cursor.fetchone()
                assert row is not None
                total += row[0]
            async with connection.pipeline():
                cursors = [await connection.execute("SELECT %s::int", [number]) for _ in range(20)]
            for cursor in cursors:
                total += (await cursor.fetchone() or (0,))[0]
            with pytest.raises(psycopg.errors.QueryCanceled):
                await canceled(connection, "SELECT pg_sleep(120)")
            async with connection.cursor().copy("COPY (SELECT 1 FROM generate_series(1, 1000)) TO STDOUT") as copy:
                async for row in copy.rows():
                    total += int(row[0])
            return total

    async def canceled(connection: Any, query: str) -> None:
        sleeping = asyncio.ensure_future(connection.execute(query))
        while not sleeping.done():  # a cancel request that comes before the query has no effect
            await asyncio.sleep(0.05)
            await connection.cancel_safe()
        await sleeping

    async def everybody(target: Target) -> list[int]:
        # More than the pool holds: some wait for others.
        return await asyncio.gather(*(session(target, number) for number in range(12)))

    assert both.alike(lambda target: asyncio.run(everybody(target))) == [number * 25 + 1000 for number in range(12)]
