"""Django through PgPooler: migrations, the object mapper, cursors on the server, and a time zone of its own."""

from __future__ import annotations

import datetime
import decimal
import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import DataError, IntegrityError, connection, connections, transaction
from django.db.models import F, Sum

from tests.integration.drivers.targets import CROWD, Both, Target, crowd

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "TIME_ZONE": "Asia/Tokyo"}},
    INSTALLED_APPS=["tests.integration.drivers.django_shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from tests.integration.drivers.django_shop.models import Author, Book  # noqa: E402 - models need the settings

NOON = datetime.datetime(2026, 2, 3, 12, tzinfo=datetime.UTC)
OPTIONS = {
    "as it is": {},
    "with prepared statements": {"server_side_binding": True, "prepare_threshold": 5},
}
each_kind = pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))


@contextmanager
def site(target: Target, options: dict[str, Any]) -> Iterator[None]:
    """The settings of a site whose database is the target's; every thread of it connects on its own."""
    connections.settings["default"].update(
        HOST=target.host,
        PORT=str(target.port),
        USER=target.user,
        PASSWORD=target.password,
        NAME=target.database,
        OPTIONS=options,
    )
    try:
        yield
    finally:
        connections.close_all()
        with suppress(AttributeError):  # only other threads connected
            del connections["default"]


def migrate(*arguments: str) -> None:
    call_command("migrate", *arguments, verbosity=0, interactive=False, stdout=io.StringIO())


def create_tables(both: Both) -> None:
    with site(both.direct, {}):
        migrate()


@each_kind
def test_migrations_run_forwards_and_backwards(options: dict[str, Any], both: Both) -> None:
    def work(target: Target) -> Any:
        with site(target, options):
            migrate()
            made = sorted(connection.introspection.table_names())
            with connection.cursor() as cursor:
                indexes = sorted(connection.introspection.get_constraints(cursor, "django_shop_author"))
            migrate("django_shop", "zero")
            return made, [name for name in indexes if "author" in name], sorted(connection.introspection.table_names())

    made, indexes, left = both.alike(work)
    assert made == ["django_migrations", "django_shop_author", "django_shop_book"]
    assert {"authors_by_birth", "one_author_each"} <= set(indexes)
    assert left == ["django_migrations"]


def new_author(owner: int, number: int) -> Author:
    return Author(
        owner=owner,
        number=number,
        key=uuid.UUID(int=owner * 1000 + number),
        facts={"owner": owner, "parts": ["ä", None, number]},
        born=NOON - datetime.timedelta(days=number),
    )


@transaction.atomic
def delete_and_fail(owner: int) -> None:
    Book.objects.filter(author__owner=owner).delete()
    raise ZeroDivisionError


def sell(owner: int) -> list[Any]:
    """A site's day: objects made, changed within a savepoint that is rolled back, read, counted and deleted."""
    Author.objects.filter(owner=owner).delete()
    for number in range(8):  # often enough for psycopg to prepare what it sends
        author = new_author(owner, number)
        author.save()
        price = decimal.Decimal(f"{number}.25")
        Book.objects.bulk_create(Book(author=author, title=f"{part} of {owner}", price=price) for part in range(3))
        author.slug = f"author-{owner}-{number}"
        author.save(update_fields=["slug"])
    with transaction.atomic():
        Book.objects.filter(author__owner=owner).update(price=F("price") * 2)
        with pytest.raises(IntegrityError), transaction.atomic():
            new_author(owner, 0).save()
        with pytest.raises(ZeroDivisionError):
            delete_and_fail(owner)
    with pytest.raises(DataError), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / CAST(%s AS int)", [0])
    found: list[Any] = []
    for number in range(8):
        author = Author.objects.get(owner=owner, number=number)
        books = list(author.books.order_by("title").values_list("title", "price"))
        found.append((author.key, author.facts, author.born, author.slug, books))
    found.append(Book.objects.filter(author__owner=owner).aggregate(Sum("price"))["price__sum"])
    with transaction.atomic():
        every = Book.objects.select_for_update().filter(author__owner=owner).order_by("id")
        found.append([book.title for book in every.iterator(chunk_size=5)])
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('TimeZone'), CAST('2026-02-03 12:00' AS timestamptz) = %s", [NOON])
        found.append(cursor.fetchone())
    return found


def expected(owner: int) -> list[Any]:
    """What `sell` must have found; noon in Tokyo is nine hours before the noon of Greenwich."""
    found: list[Any] = []
    titles = [f"{part} of {owner}" for part in range(3)]
    for number in range(8):
        author = new_author(owner, number)
        books = [(title, decimal.Decimal(f"{number}.25") * 2) for title in titles]
        found.append((author.key, author.facts, author.born, f"author-{owner}-{number}", books))
    total = sum(decimal.Decimal(f"{number}.25") * 6 for number in range(8))
    return [*found, total, titles * 8, ("Asia/Tokyo", False)]


@each_kind
def test_a_crowd_with_the_object_mapper_finds_what_it_wrote(options: dict[str, Any], in_transaction_mode: Both) -> None:
    create_tables(in_transaction_mode)

    def work(_: Target, owner: int) -> list[Any]:
        try:
            return sell(owner)
        finally:
            connections.close_all()

    def everybody(target: Target) -> list[Any]:
        with site(target, options):
            return crowd(work, target)

    found = in_transaction_mode.alike(everybody)
    assert found == [expected(owner) for owner in range(CROWD)]


@each_kind
def test_a_large_result_comes_through_a_cursor_that_outlives_its_transaction(
    options: dict[str, Any], both: Both
) -> None:
    create_tables(both)

    def work(target: Target) -> Any:
        with site(target, options):
            Author.objects.all().delete()
            Author.objects.bulk_create([new_author(1, number) for number in range(3000)], batch_size=500)
            numbers = []
            for author in Author.objects.order_by("number").iterator(chunk_size=700):
                numbers.append(author.number)
                if author.number % 1000 == 0:
                    assert Author.objects.filter(number=author.number).count() == 1
            return numbers

    assert both.alike(work) == list(range(3000))


def test_a_time_zone_that_a_site_sets_holds_until_it_sets_another(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        found = []
        with site(target, {}), connection.cursor() as cursor:
            for zone in ("America/New_York", "Asia/Tokyo"):
                cursor.execute("SET TIME ZONE %s", [zone])
                for _ in range(20):
                    cursor.execute("SELECT CAST('2026-02-03 12:00+00' AS timestamptz)::text")
                    found.append(cursor.fetchone()[0])
        return found

    assert both.alike(work) == ["2026-02-03 07:00:00-05"] * 20 + ["2026-02-03 21:00:00+09"] * 20
