"""Crowds with psycopg and asyncpg in transaction mode: typed values, savepoints, bulk inserts, COPY, all at once."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.integration.clients import value
from tests.integration.drivers.targets import CROWD, Both, Target, async_crowd, crowd

TABLE = (
    "CREATE TABLE things (owner int, number int, price numeric, moment timestamptz, day date, key uuid, data bytea,"
    " tags text[], PRIMARY KEY (owner, number))"
)
NOON = datetime.datetime(2026, 2, 3, 12, tzinfo=datetime.UTC)
ONE_BY_ONE = 12
"""Often enough for psycopg to prepare what it sends (prepare_threshold 5)."""
AT_ONCE, COPIED = 40, 80
"""Up to which number rows are inserted by executemany, and the rest by COPY."""


def thing(owner: int, number: int) -> tuple[Any, ...]:
    """A row of every common type, in which every value tells whose it is."""
    moment = NOON + datetime.timedelta(seconds=number, days=owner)
    price, key = decimal.Decimal(f"{owner}.{number:03}"), uuid.UUID(int=owner * 1000 + number)
    return (
        owner,
        number,
        price,
        moment,
        moment.date(),
        key,
        bytes([0, 255, owner, number]),
        [f"ä {owner}", str(number)],
    )


EXPECTED = [[thing(owner, number) for number in range(COPIED)] for owner in range(CROWD)]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_a_crowd_with_psycopg_finds_what_it_wrote(binary: bool, in_transaction_mode: Both) -> None:
    in_transaction_mode.prepare(TABLE)
    insert = f"INSERT INTO things VALUES ({', '.join(['%b' if binary else '%s'] * 8)}) RETURNING number"
    one = "SELECT * FROM things WHERE owner = %s AND number = %s"

    def work(target: Target, owner: int) -> list[Any]:
        with target.connect() as connection, connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT set_config('TimeZone', 'UTC', false)")
            cursor.execute("DELETE FROM things WHERE owner = %s", [owner])
            for number in range(ONE_BY_ONE):
                assert cursor.execute(insert.encode(), thing(owner, number)).fetchone() == (number,)
                assert cursor.execute(one, [owner, number]).fetchone() == thing(owner, number)
                with pytest.raises(psycopg.errors.UniqueViolation):
                    cursor.execute(insert.encode(), thing(owner, number))
            with connection.transaction(force_rollback=True):
                cursor.execute(insert.encode(), thing(owner, 200))
                with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                    cursor.execute(insert.encode(), thing(owner, 200))
                assert cursor.execute(one, [owner, 200]).fetchone() == thing(owner, 200)
            cursor.executemany(insert.encode(), [thing(owner, number) for number in range(ONE_BY_ONE, AT_ONCE)])
            with cursor.copy("COPY things FROM STDIN") as copy:
                for number in range(AT_ONCE, COPIED):
                    copy.write_row(thing(owner, number))
            with connection.transaction(), connection.cursor(name="every", binary=binary) as every:
                every.itersize = 30
                every.execute("SELECT * FROM things WHERE owner = %s ORDER BY number", [owner])
                found = list(every)
            assert value(connection, "SHOW TimeZone") == "UTC"
            return found

    assert in_transaction_mode.alike(lambda target: crowd(work, target)) == EXPECTED


def test_a_crowd_with_asyncpg_finds_what_it_wrote(in_transaction_mode: Both) -> None:
    in_transaction_mode.prepare(TABLE)
    insert = "INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING number"
    one = "SELECT * FROM things WHERE owner = $1 AND number = $2"
    every = "SELECT * FROM things WHERE owner = $1 ORDER BY number"

    async def work(target: Target, owner: int) -> list[Any]:
        connection = await target.asyncpg()
        try:
            await connection.execute("DELETE FROM things WHERE owner = $1", owner)
            statement = await connection.prepare(one)
            for number in range(ONE_BY_ONE):
                assert await connection.fetchval(insert, *thing(owner, number)) == number
                assert tuple(await connection.fetchrow(one, owner, number)) == thing(owner, number)
                assert tuple(await statement.fetchrow(owner, number)) == thing(owner, number)
                with pytest.raises(asyncpg.UniqueViolationError):
                    await connection.fetchval(insert, *thing(owner, number))
            transaction = connection.transaction()
            await transaction.start()
            await connection.fetchval(insert, *thing(owner, 200))
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.transaction():  # a savepoint
                    await connection.fetchval(insert, *thing(owner, 200))
            assert tuple(await statement.fetchrow(owner, 200)) == thing(owner, 200)
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetchval("SELECT 1 / $1::int", 0)
            await transaction.rollback()
            await connection.executemany(insert, [thing(owner, number) for number in range(ONE_BY_ONE, AT_ONCE)])
            records = [thing(owner, number) for number in range(AT_ONCE, COPIED)]
            await connection.copy_records_to_table("things", records=records)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return [tuple(record) async for record in connection.cursor(every, owner, prefetch=30)]
        finally:
            await connection.close()

    assert in_transaction_mode.alike(lambda target: async_crowd(work, target)) == EXPECTED
