"""psycopg_pool in front of PgPooler: a pool of a program on a pool of the server, more clients than either has."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from tests.integration.drivers.targets import CROWD, Both, Target, crowd

TABLE = "CREATE TABLE moves (owner int, turn int, amount numeric, note text, PRIMARY KEY (owner, turn))"
TURNS = 12
"""Often enough for psycopg to prepare what it sends (prepare_threshold 5)."""


def work_of(pool: ConnectionPool, owner: int) -> list[Any]:
    """Transactions with a savepoint each, on whatever connection the pool has."""
    with pool.connection() as connection:
        connection.execute("DELETE FROM moves WHERE owner = %s", [owner])
    for turn in range(TURNS):
        with pool.connection() as connection:
            connection.execute("INSERT INTO moves VALUES (%s, %s, %s, %s)", [owner, turn, turn * 2, f"{owner}/{turn}"])
            with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                connection.execute("INSERT INTO moves VALUES (%s, %s, 0, '')", [owner, turn])
            found = connection.execute(
                "SELECT note FROM moves WHERE owner = %s AND turn = %s", [owner, turn]
            ).fetchone()
            assert found == (f"{owner}/{turn}",)
    with pytest.raises(psycopg.errors.DivisionByZero), pool.connection() as connection:
        connection.execute("DELETE FROM moves WHERE owner = %s AND 1 / %s::int = 1", [owner, 0])
    with pool.connection() as connection:
        return connection.execute("SELECT turn, amount FROM moves WHERE owner = %s ORDER BY 1", [owner]).fetchall()


def test_threads_share_a_pool_of_the_program(in_transaction_mode: Both) -> None:
    in_transaction_mode.prepare(TABLE)

    def work(target: Target) -> list[Any]:
        with ConnectionPool(target.url, min_size=2, max_size=5, check=ConnectionPool.check_connection) as pool:
            return crowd(lambda _, owner: work_of(pool, owner), target)

    assert in_transaction_mode.alike(work) == [[(turn, turn * 2) for turn in range(TURNS)]] * CROWD


def test_coroutines_share_a_pool_of_the_program_and_pipeline(in_transaction_mode: Both) -> None:
    in_transaction_mode.prepare(TABLE)

    async def session(pool: AsyncConnectionPool, owner: int) -> list[Any]:
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM moves WHERE owner = %s", [owner])
        for turn in range(TURNS):
            async with pool.connection() as connection, connection.pipeline():
                cursors = [await connection.execute("SELECT %s::int, %s::int", [owner, part]) for part in range(10)]
                await connection.execute("INSERT INTO moves VALUES (%s, %s, %s, '')", [owner, turn, turn * 2])
                assert [await cursor.fetchone() for cursor in cursors] == [(owner, part) for part in range(10)]
        async with pool.connection() as connection:
            cursor = connection.cursor()
            rows = [(owner, turn, turn * 2, "many") for turn in range(TURNS, 2 * TURNS)]
            await cursor.executemany("INSERT INTO moves VALUES (%s, %s, %s, %s)", rows)
            await cursor.execute("SELECT turn, amount FROM moves WHERE owner = %s ORDER BY 1", [owner])
            return await cursor.fetchall()

    async def everybody(target: Target) -> list[Any]:
        async with AsyncConnectionPool(target.url, min_size=2, max_size=5, open=False) as pool:
            return list(await asyncio.gather(*(session(pool, owner) for owner in range(CROWD))))

    found = in_transaction_mode.alike(lambda target: asyncio.run(everybody(target)))
    assert found == [[(turn, turn * 2) for turn in range(2 * TURNS)]] * CROWD
