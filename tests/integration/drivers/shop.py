"""The tables that SQLAlchemy maps in its tests: authors and their books."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

from sqlalchemy import DateTime, ForeignKey, Numeric, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NOON = datetime.datetime(2026, 2, 3, 12, tzinfo=datetime.UTC)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    __table_args__ = (UniqueConstraint("owner", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int]
    number: Mapped[int]
    key: Mapped[uuid.UUID]
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)
    born: Mapped[datetime.datetime | None] = mapped_column(DateTime(timezone=True))
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.title")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    owner: Mapped[int]
    title: Mapped[str]
    price: Mapped[decimal.Decimal] = mapped_column(Numeric(10, 2))
    author: Mapped[Author] = relationship(back_populates="books")


def new_author(owner: int, number: int) -> Author:
    """An author whose every value tells whose it is; `owner` is who works with it."""
    return Author(
        owner=owner,
        number=number,
        key=uuid.UUID(int=owner * 1000 + number),
        facts={"owner": owner, "parts": ["ä", None, number]},
        born=NOON - datetime.timedelta(days=number),
        books=[
            Book(owner=owner, title=f"book {part} of {number} of {owner}", price=decimal.Decimal(f"{number + part}.25"))
            for part in range(3)
        ],
    )
