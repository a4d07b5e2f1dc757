"""SQLAlchemy through PgPooler, with its dialects for psycopg, pg8000 and asyncpg; the tables are in shop.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, selectinload

from tests.integration.drivers.shop import Author, Base, Book, new_author
from tests.integration.drivers.targets import CROWD, Both, Target, crowd

THREADS = 3
"""Of one program with one engine, beside the others."""


@contextmanager
def engine(target: Target, driver: str) -> Iterator[Engine]:
    made = create_engine(target.url.replace("postgresql://", f"postgresql+{driver}://"))
    try:
        yield made
    finally:
        made.dispose()


@asynccontextmanager
async def async_engine(target: Target, driver: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(target.url.replace("postgresql://", f"postgresql+{driver}://"))
    try:
        yield made
    finally:
        await made.dispose()


def create_tables(both: Both) -> None:
    with engine(both.direct, "psycopg") as made:
        Base.metadata.create_all(made)


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_a_schema_is_made_looked_at_and_dropped(driver: str, both: Both) -> None:
    def work(target: Target) -> Any:
        with engine(target, driver) as made:
            Base.metadata.create_all(made)
            seen = inspect(made)
            columns = {name: [column["name"] for column in seen.get_columns(name)] for name in seen.get_table_names()}
            keys = [key["referred_table"] for key in seen.get_foreign_keys("books")]
            Base.metadata.drop_all(made)
            return columns, keys

    columns, keys = both.alike(work)
    assert sorted(columns) == ["authors", "books"]
    assert keys == ["authors"]


def sell(session: Session, owner: int) -> list[Any]:
    """A program's day: objects made, changed in a savepoint that is rolled back, read, counted and deleted."""
    session.execute(delete(Book).where(Book.owner == owner))
    session.execute(delete(Author).where(Author.owner == owner))
    session.commit()
    for number in range(6):  # often enough for psycopg to prepare what it sends
        session.add(new_author(owner, number))
        session.commit()
    with pytest.raises(IntegrityError), session.begin_nested():
        session.add(new_author(owner, 0))
    session.execute(update(Book).where(Book.owner == owner).values(price=Book.price * 2))
    session.commit()
    session.execute(delete(Book).where(Book.owner == owner))
    session.rollback()
    with pytest.raises(DBAPIError):
        session.execute(text("SELECT 1 / CAST(:zero AS int)"), {"zero": 0})
    session.rollback()
    found: list[Any] = []
    for number in range(6):
        query = select(Author).where(Author.owner == owner, Author.number == number).options(selectinload(Author.books))
        author = session.scalars(query).one()
        found.append((author.facts, author.born, author.key, [(book.title, book.price) for book in author.books]))
        session.commit()
    streamed = session.scalars(select(Book.title).where(Book.owner == owner).execution_options(yield_per=5))
    found.append(sorted(streamed))
    session.commit()
    found.append(session.scalar(select(func.sum(Book.price)).where(Book.owner == owner)))
    session.commit()
    return found


def expected(owner: int) -> list[Any]:
    """What `sell` must have found."""
    authors = [new_author(owner, number) for number in range(6)]
    found: list[Any] = [
        (author.facts, author.born, author.key, [(book.title, book.price * 2) for book in author.books])
        for author in authors
    ]
    found.append(sorted(book.title for author in authors for book in author.books))
    return [*found, sum(book.price * 2 for author in authors for book in author.books)]


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_a_crowd_with_the_object_mapper_finds_what_it_wrote(driver: str, in_transaction_mode: Both) -> None:
    create_tables(in_transaction_mode)

    def work(target: Target, owner: int) -> list[Any]:
        with engine(target, driver) as made, Session(made) as session:
            return sell(session, owner)

    found = in_transaction_mode.alike(lambda target: crowd(work, target))
    assert found == [expected(owner) for owner in range(CROWD)]


def test_threads_share_one_engine(in_transaction_mode: Both) -> None:
    create_tables(in_transaction_mode)

    def work(target: Target) -> list[Any]:
        with engine(target, "psycopg") as made:

            def thread(_: Target, owner: int) -> list[Any]:
                with Session(made) as session:
                    return sell(session, owner)

            return crowd(thread, target, THREADS)

    assert in_transaction_mode.alike(work) == [expected(owner) for owner in range(THREADS)]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_crowd_in_asyncio_shares_one_engine(driver: str, in_transaction_mode: Both) -> None:
    create_tables(in_transaction_mode)

    async def work(made: AsyncEngine, owner: int) -> list[Any]:
        async with AsyncSession(made) as session:
            return await session.run_sync(sell, owner)

    async def everybody(target: Target) -> list[Any]:
        async with async_engine(target, driver) as made:
            return list(await asyncio.gather(*(work(made, owner) for owner in range(CROWD))))

    found = in_transaction_mode.alike(lambda target: asyncio.run(everybody(target)))
    assert found == [expected(owner) for owner in range(CROWD)]


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_many_rows_are_inserted_at_once_and_their_keys_come_back(driver: str, both: Both) -> None:
    create_tables(both)
    rows = [
        {"owner": 1, "number": number, "key": new_author(1, number).key, "facts": {"number": number}}
        for number in range(1500)
    ]

    def work(target: Target) -> Any:
        with engine(target, driver) as made, made.begin() as connection:
            connection.execute(delete(Author))
            returned = connection.execute(insert(Author).returning(Author.number, sort_by_parameter_order=True), rows)
            numbers = list(returned.scalars())
            stored = connection.execute(select(Author.number, Author.facts).order_by(Author.number)).all()
            return numbers, [tuple(row) for row in stored]

    numbers, stored = both.alike(work)
    assert numbers == list(range(1500))
    assert stored == [(number, {"number": number}) for number in range(1500)]


def test_an_isolation_level_holds_for_the_transactions_of_its_engine(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        found = []
        with engine(target, "psycopg") as made:
            for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"):
                with made.execution_options(isolation_level=level).connect() as connection:
                    found.append(connection.scalar(text("SHOW transaction_isolation")))
            with made.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text("VACUUM"))
        return found

    assert both.alike(work) == ["serializable", "repeatable read", "read committed"]
