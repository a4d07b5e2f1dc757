"""pg8000 through PgPooler: it speaks the protocol in Python alone, and waits for a Sync after every Parse."""

from __future__ import annotations

import datetime
import decimal
import io
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import pg8000.dbapi
import pg8000.exceptions
import pg8000.native
import pytest

from tests.integration.drivers.targets import Both, Target, crowd

T = TypeVar("T")

UNIQUE_VIOLATION, DIVISION_BY_ZERO = "23505", "22012"


def native(target: Target) -> Any:
    return pg8000.native.Connection(
        target.user, target.host, target.database, target.port, target.password, ssl_context=False
    )


def fail(sqlstate: str, work: Callable[[], object]) -> None:
    """Do what must fail with this error."""
    with pytest.raises((pg8000.exceptions.DatabaseError, pg8000.dbapi.ProgrammingError)) as failure:
        work()
    assert failure.value.args[0]["C"] == sqlstate


def test_pg8000_sends_and_reads_values_of_many_types(both: Both) -> None:
    values = {
        "number": 2**40,
        "ratio": 1.5,
        "money": decimal.Decimal("12345.678900"),
        "line": "text 'quoted' ä €",
        "data": b"\x00\xff bytes",
        "truth": True,
        "nothing": None,
        "moment": datetime.datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=datetime.UTC),
        "day": datetime.date(1999, 12, 31),
        "key": uuid.UUID(int=5),
        "several": [1, 2, None],
        "document": {"a": [1, None]},
    }
    columns = "number int8, ratio float8, money numeric, line text, data bytea, truth bool, nothing int, "
    columns += "moment timestamptz, day date, key uuid, several int[], document jsonb"

    def work(target: Target) -> list[Any]:
        with closing(native(target)) as connection:
            connection.run(f"DROP TABLE IF EXISTS kept; CREATE TABLE kept ({columns})")
            placeholders = ", ".join(f":{name}" for name in values)
            found: list[Any] = []
            for _ in range(4):
                connection.run(f"INSERT INTO kept VALUES ({placeholders})", **values)
                found = connection.run("SELECT * FROM kept WHERE number = :number", number=2**40)
            return found

    assert both.alike(work) == [list(values.values())] * 4


def test_a_crowd_with_pg8000_keeps_its_prepared_statements_in_and_out_of_transactions(
    in_transaction_mode: Both,
) -> None:
    in_transaction_mode.prepare("CREATE TABLE numbers (owner int, number int, PRIMARY KEY (owner, number))")

    def work(target: Target, owner: int) -> Any:
        with closing(native(target)) as connection:
            connection.run("DELETE FROM numbers WHERE owner = :owner", owner=owner)
            insert = connection.prepare("INSERT INTO numbers VALUES (:owner, :number) RETURNING number")
            total = connection.prepare("SELECT sum(number) FROM numbers WHERE owner = :owner")
            for number in range(10):
                assert insert.run(owner=owner, number=number) == [[number]]
                assert total.run(owner=owner) == [[sum(range(number + 1))]]
            connection.run("START TRANSACTION")
            insert.run(owner=owner, number=99)
            connection.run("SAVEPOINT here")
            fail(UNIQUE_VIOLATION, lambda: insert.run(owner=owner, number=99))
            connection.run("ROLLBACK TO SAVEPOINT here")
            assert total.run(owner=owner) == [[45 + 99]]
            connection.run("ROLLBACK")
            fail(UNIQUE_VIOLATION, lambda: insert.run(owner=owner, number=0))
            fail(DIVISION_BY_ZERO, lambda: connection.run("SELECT 1 / CAST(:zero AS int)", zero=0))
            found = total.run(owner=owner)
            insert.close()
            total.close()
            return found

    assert in_transaction_mode.alike(lambda target: crowd(work, target)) == [[[45]]] * 8


def test_a_crowd_with_pg8000s_standard_interface_inserts_copies_and_rolls_back(in_transaction_mode: Both) -> None:
    in_transaction_mode.prepare("CREATE TABLE lines (owner int, number int, line text)")
    read = "SELECT number, line FROM lines WHERE owner = %s ORDER BY number"

    def work(target: Target, owner: int) -> Any:
        login = {"host": target.host, "port": target.port, "database": target.database}
        with closing(
            pg8000.dbapi.connect(target.user, password=target.password, ssl_context=False, **login)
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("DELETE FROM lines WHERE owner = %s", (owner,))
            cursor.executemany(
                "INSERT INTO lines VALUES (%s, %s, %s)", [(owner, number, f"line {number}") for number in range(20)]
            )
            connection.commit()
            cursor.execute("UPDATE lines SET line = 'lost' WHERE owner = %s", (owner,))
            connection.rollback()
            copied = "".join(f"{owner}\t{number}\tcopied {number}\n" for number in range(20, 60))
            cursor.execute("COPY lines FROM STDIN", stream=io.BytesIO(copied.encode()))
            connection.commit()
            fail(DIVISION_BY_ZERO, lambda: cursor.execute("SELECT 1 / CAST(%s AS int)", (0,)))
            connection.rollback()
            cursor.execute(read, (owner,))
            found = [tuple(row) for row in cursor.fetchall()]
            out = io.BytesIO()
            cursor.execute(f"COPY (SELECT number FROM lines WHERE owner = {owner} ORDER BY 1) TO STDOUT", stream=out)
            connection.commit()
            assert out.getvalue().split() == [str(number).encode() for number in range(60)]
            return found

    rows = [(number, f"line {number}" if number < 20 else f"copied {number}") for number in range(60)]
    assert in_transaction_mode.alike(lambda target: crowd(work, target)) == [rows] * 8


def test_pg8000_listens(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        with closing(native(target)) as listener, closing(native(target)) as sender:
            listener.run("LISTEN news")
            for number in range(5):
                sender.run("SELECT pg_notify('news', :text)", text=f"number {number}")
            while len(listener.notifications) < 5:
                listener.run("SELECT 1")
            return [(channel, text) for _, channel, text in listener.notifications]

    assert both.alike(work)[-1] == ("news", "number 4")
