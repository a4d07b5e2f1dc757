"""psycopg 3 through PgPooler, in session and in transaction mode, doing the same as on a direct connection."""

from __future__ import annotations

import datetime
import decimal
import re
import threading
import uuid
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.integration.clients import Connection, background, value
from tests.integration.drivers.targets import Both, Target


def test_psycopg_sends_and_reads_values_of_many_types_in_both_formats(both: Both) -> None:
    values = [
        1,
        2**40,
        1.5,
        decimal.Decimal("12345.678900"),
        "text 'quoted' ä €",
        b"\x00\xff bytes",
        True,
        None,
        [1, 2, None],
        datetime.datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=datetime.UTC),
        datetime.date(1999, 12, 31),
        datetime.timedelta(days=3, seconds=7),
        uuid.UUID(int=5),
    ]

    def work(target: Target) -> list[Any]:
        found = []
        with closing(target.connect()) as connection:
            for binary in (False, True):
                for prepare in (False, True):
                    cursor = connection.cursor(binary=binary)
                    columns = ", ".join("%s" for _ in values)
                    found.append(cursor.execute(f"SELECT {columns}".encode(), values, prepare=prepare).fetchone())
        return found

    assert both.alike(work) == [tuple(values)] * 4


def test_psycopg_transactions_commit_roll_back_and_nest(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        with target.connect(autocommit=False) as connection:
            connection.execute("DROP TABLE IF EXISTS numbers")
            connection.execute("CREATE TABLE numbers (number int PRIMARY KEY)")
            connection.commit()
            with connection.transaction():
                connection.execute("INSERT INTO numbers VALUES (1)")
                with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                    connection.execute("INSERT INTO numbers VALUES (1)")
                connection.execute("INSERT INTO numbers VALUES (2)")
            connection.execute("INSERT INTO numbers VALUES (3)")
            connection.rollback()
            connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
            shown = value(connection, "SHOW transaction_isolation")
            return [shown, *connection.execute("SELECT number FROM numbers ORDER BY 1").fetchall()]

    assert both.alike(work) == ["serializable", (1,), (2,)]


def fail_within_a_pipeline(connection: Connection) -> None:
    with connection.pipeline():
        for divisor in (1, 2, 0, 1, 2):
            connection.execute("SELECT 1 / %s::int", [divisor])


def test_psycopg_pipelines(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        with closing(target.connect()) as connection:
            with connection.pipeline() as pipeline:
                cursors = [connection.execute("SELECT %s::int * 2", [number]) for number in range(300)]
                pipeline.sync()
                found: list[Any] = [cursor.fetchone() for cursor in cursors]
            with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
                connection.execute("SELECT 1/0")
            with pytest.raises(psycopg.errors.DivisionByZero):
                fail_within_a_pipeline(connection)
            found.append(connection.execute("SELECT 'after'").fetchone())
            with connection.pipeline():
                connection.cursor().executemany("SELECT %s::text", [(str(number),) for number in range(500)])
            return [*found, value(connection, "SELECT 'still there'")]

    assert both.alike(work)[-2:] == [("after",), "still there"]


def test_psycopg_copies_in_and_out_and_an_error_within_ends_the_copy(both: Both) -> None:
    rows = [(number, f"line\t{number}\n", None if number % 3 else b"\x00\x01") for number in range(5000)]

    def work(target: Target) -> list[Any]:
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS copied")
            cursor.execute("CREATE TABLE copied (number int, line text, data bytea)")
            with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int4", "text", "bytea"])
                for row in rows:
                    copy.write_row(row)
            with pytest.raises(TypeError), cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write_row(5)  # type: ignore[arg-type]  # the program fails in the middle
            with pytest.raises(psycopg.errors.BadCopyFileFormat), cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write(b"1\tonly two\n")
            with cursor.copy("COPY (SELECT * FROM copied ORDER BY number) TO STDOUT") as copy:
                copy.set_types(["int4", "text", "bytea"])
                return list(copy.rows())

    assert both.alike(work) == rows


def test_psycopg_reads_a_large_result_through_a_cursor_on_the_server_and_row_by_row(both: Both) -> None:
    def work(target: Target) -> tuple[int, int, int]:
        query = "SELECT number, repeat('x', 100) FROM generate_series(1, 50000) AS number"
        with target.connect(autocommit=False) as connection:
            with connection.cursor(name="every") as cursor:
                cursor.itersize = 777
                cursor.execute(query.encode())
                whole = sum(row[0] for row in cursor)
            with connection.cursor(name="scrolling", scrollable=True) as cursor:
                cursor.execute(query.encode())
                cursor.scroll(40_000)
                (further,) = (row[0] for row in cursor.fetchmany(1))
            streamed = sum(row[0] for row in connection.cursor().stream(query.encode()))
            return whole, further, streamed

    assert both.alike(work) == (1250025000, 40001, 1250025000)


def test_psycopg_cancels_a_query_and_goes_on_with_the_session(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        found: list[Any] = []
        with background() as run, closing(target.connect()) as connection:
            for cancel in (connection.cancel, connection.cancel_safe):
                sleeping = run(connection.execute, "SELECT pg_sleep(120)")
                both.wait_until_active("SELECT pg_sleep(120)")
                cancel()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    sleeping.result(60)
                found.append(value(connection, "SELECT 'goes on'"))
            connection.execute("SET statement_timeout = '50ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(30)")
            found.append(value(connection, "SHOW statement_timeout"))
        return found

    assert both.alike(work) == ["goes on", "goes on", "50ms"]


def test_psycopg_gets_notifications_and_notices(both: Both) -> None:
    def work(target: Target) -> list[Any]:
        with closing(target.connect()) as listener, closing(target.connect()) as sender:
            notices: list[str] = []
            listener.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
            listener.execute("LISTEN news")
            for number in range(20):
                sender.execute("SELECT pg_notify('news', %s)", [f"number {number}"])
            found = [notify.payload for notify in listener.notifies(timeout=60, stop_after=20)]
            listener.execute("DO $$BEGIN RAISE NOTICE 'look'; RAISE WARNING 'out'; END$$")
            sender.execute("NOTIFY news, 'within a query'")
            listener.execute("SELECT 1")
            found += [notify.payload for notify in listener.notifies(timeout=60, stop_after=1)]
            return [found, notices]

    assert both.alike(work)[1] == ["look", "out"]


def test_psycopg_speaks_protocol_3_2_where_its_libpq_can(both: Both) -> None:
    can = psycopg.pq.version() >= 180000
    newest = {"max_protocol_version": "3.2", "min_protocol_version": "3.2"} if can else {}

    def work(target: Target) -> Any:
        with background() as run, closing(target.connect(**newest)) as connection:
            version = connection.pgconn.full_protocol_version if can else 30000
            sleeping = run(connection.execute, "SELECT pg_sleep(120)")
            both.wait_until_active("SELECT pg_sleep(120)")
            connection.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result(60)
            return version, value(connection, "SELECT 'goes on'")

    with closing(both.direct.connect()) as connection:
        server_can = connection.info.server_version >= 180000
    if can and not server_can:  # PgPooler speaks it also in front of an older server
        assert work(both.pooled) == (30002, "goes on")
    else:
        assert both.alike(work) == (30002 if can else 30000, "goes on")


def test_psycopg_sees_the_same_parameters_and_errors(both: Both) -> None:
    names = re.findall(
        r"\w+",
        "server_version server_encoding client_encoding application_name default_transaction_read_only in_hot_standby "
        "is_superuser session_authorization DateStyle IntervalStyle TimeZone integer_datetimes "
        "standard_conforming_strings scram_iterations search_path",
    )

    def work(target: Target) -> list[Any]:
        with closing(target.connect(application_name="a driver")) as connection:
            found: list[Any] = [connection.info.parameter_status(name) for name in names]
            connection.execute("SET TimeZone = 'Asia/Tokyo'")
            found.append(connection.info.parameter_status("TimeZone"))
            with pytest.raises(psycopg.errors.NotNullViolation) as failure:
                connection.execute("CREATE TEMP TABLE strict (x int NOT NULL); INSERT INTO strict VALUES (NULL)")
            diagnosis = failure.value.diag
            found += [getattr(diagnosis, name) for name in dir(diagnosis) if name[0] != "_" and name != "sqlstate"]
            return [part for part in found if not callable(part)]

    both.alike(lambda target: [re.sub(r"pg_temp_\d+", "pg_temp", str(part)) for part in work(target)])


def test_two_threads_may_share_one_psycopg_connection(both: Both) -> None:
    with closing(both.pooled.connect()) as connection:
        wrong: list[int] = []

        def ask(number: int) -> None:
            for _ in range(50):
                if value(connection, "SELECT %s::int", number) != number:
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
