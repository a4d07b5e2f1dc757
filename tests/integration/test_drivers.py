"""Drivers and programs through PgPooler, each doing the same on a direct connection, where all must come out alike."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import os
import re
import subprocess
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Connection, background, value
from tests.integration.poolers import Pooler, PoolerFactory

PGBENCH_SECONDS = float(os.environ.get("PGPOOLER_PGBENCH_SECONDS", "10"))
"""How long pgbench runs in each protocol; all three run at the same time."""
PGBENCH_CLIENTS = 4
"""Clients of each of the three."""


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

    def alike(self, work: Callable[[Target], Any]) -> Any:
        """Do the same with both, and return what came of it: the same."""
        expected = work(self.direct)
        assert work(self.pooled) == expected
        return expected


def start(pooler: PoolerFactory, postgres: PostgresServer, pool_size: int) -> Pooler:
    return pooler(
        {
            "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port}],
            "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
            "routing": {
                "defaults": {"pool_size": pool_size},
                "rules": [{"name": "everybody", "default": True, "backend": "primary"}],
            },
        }
    )


@pytest.fixture
def both(pooler: PoolerFactory, postgres: PostgresServer, database: str) -> Iterator[Both]:
    """A database of its own, directly and through a PgPooler whose pool holds four connections."""
    running = start(pooler, postgres, 4)
    login = (postgres.superuser, postgres.password, database)
    yield Both(Target(postgres.host, postgres.port, *login), Target(running.host, running.port, *login))
    running.stop()


# -- psql --------------------------------------------------------------------------------------------------------------


def psql(target: Target, *arguments: str) -> str:
    """What psql prints; it must not fail, nor complain."""
    completed = tools.run_psql(target.url, *arguments)
    assert (completed.returncode, completed.stderr) == (0, ""), completed.stderr
    return completed.stdout


def commands(*texts: str) -> list[str]:
    return [word for text in texts for word in ("-c", text)]


def script(directory: Path, text: str) -> str:
    """A file for psql -f: what -c cannot hold is both SQL and commands of psql."""
    path = directory / "script.sql"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_psql_shows_the_same(both: Both, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        r"""
SELECT 1 AS one, NULL, 'text', 1.5::numeric, '{1,2}'::int[];
\d pg_class
\l+ template1
\encoding
\dconfig TimeZone
SELECT 1\; SELECT 2\; SELECT 3;
BEGIN\; SELECT 4\; ROLLBACK;
DO $$BEGIN NULL; END$$;
SELECT 'a' AS x, 1 AS y \gdesc
SELECT 'set by gset' AS answer \gset
\echo :answer
SELECT $1::int + $2::int AS sum \bind 40 2 \g
""",
    )
    lines = both.alike(lambda target: psql(target, "-f", path)).splitlines()
    assert lines[-3:] == ["y|integer", "set by gset", "42"]


def test_psql_reports_errors_alike(both: Both) -> None:
    def work(target: Target) -> tuple[int, str]:
        arguments = ("-v", "ON_ERROR_STOP=0", "-v", "VERBOSITY=verbose")
        completed = tools.run_psql(
            target.url, *arguments, *commands("SELECT 1/0", "SELEC 1", "SELECT * FROM nowhere", "SELECT 'after'")
        )
        assert completed.stdout == "after\n"
        return completed.returncode, completed.stderr

    assert "22012" in both.alike(work)[1]


def test_psql_copies_in_and_out(both: Both, tmp_path: Path) -> None:
    rows = "".join(f"{number}\tline {number} \\N\n" for number in range(20_000)).replace("\\N", "ä\\\\")
    (tmp_path / "in").write_text(rows, encoding="utf-8")

    def work(target: Target) -> str:
        out = tmp_path / f"out-{target.port}"
        psql(
            target,
            *commands(
                "CREATE TEMP TABLE copied (number int, line text)",
                rf"\copy copied FROM '{tmp_path / 'in'}'",
                rf"\copy (SELECT * FROM copied ORDER BY number) TO '{out}'",
            ),
        )
        return out.read_text(encoding="utf-8")

    assert both.alike(work) == rows


def test_psql_reads_a_large_result_whole_and_in_portions(both: Both) -> None:
    query = "SELECT number, md5(number::text), repeat('x', 200) FROM generate_series(1, 100000) AS number"

    def work(target: Target) -> int:
        whole = psql(target, "-c", query)
        portions = psql(target, "-v", "FETCH_COUNT=1000", "-c", query)
        assert portions == whole
        return hash(whole)

    both.alike(work)


def test_psql_watches(both: Both, tmp_path: Path) -> None:
    path = script(tmp_path, "SELECT 'tick' \\watch i=0.05 c=5\n")

    def work(target: Target) -> list[str]:
        text = psql(target, "-f", path)
        return [line for line in text.splitlines() if line == "tick"]

    assert len(both.alike(work)) == 5


def test_psql_runs_a_script_with_transactions_cursors_and_copy_from_stdin(both: Both, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        r"""
CREATE TEMP TABLE items (id serial PRIMARY KEY, name text);
COPY items (name) FROM STDIN;
one
two
three
\.
BEGIN;
DECLARE every CURSOR FOR SELECT name FROM items ORDER BY id;
FETCH 2 FROM every;
MOVE 1 FROM every;
FETCH ALL FROM every;
SAVEPOINT here;
INSERT INTO items (name) VALUES ('four');
ROLLBACK TO here;
COMMIT;
PREPARE by_id(int) AS SELECT name FROM items WHERE id = $1;
EXECUTE by_id(3);
SELECT count(*) > 2 AS several FROM items \gset
\if :several
COPY items TO STDOUT;
\endif
INSERT INTO items (name) VALUES ('last') RETURNING name;
""",
    )
    assert both.alike(lambda target: psql(target, "-f", path)).splitlines()[-2:] == ["last", "INSERT 0 1"]


# -- psycopg -----------------------------------------------------------------------------------------------------------


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
        with background() as run, closing(target.connect()) as connection, closing(both.direct.connect()) as observer:
            for cancel in (connection.cancel, connection.cancel_safe):
                sleeping = run(connection.execute, "SELECT pg_sleep(120)")
                query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
                while not value(observer, query, connection.info.backend_pid):
                    pass
                cancel()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    sleeping.result(60)
                found.append(value(connection, "SELECT 'goes on'"))
            connection.execute("SET statement_timeout = '50ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(120)")
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
            with closing(both.direct.connect()) as observer:
                query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
                while not value(observer, query, connection.info.backend_pid):
                    pass
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


# -- asyncpg -----------------------------------------------------------------------------------------------------------


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
        process = connection.get_server_pid()
        await connection.add_listener("news", lambda _, pid, channel, text: heard.put_nowait((channel, text)))
        assert process == await connection.fetchval("SELECT pg_backend_pid()")
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


# -- pgbench -----------------------------------------------------------------------------------------------------------


def pgbench(target: Target, *arguments: str, timeout: float = 600) -> str:
    """Run pgbench; it must neither fail nor complain.  Returns its report."""
    command = [str(tools.require("pgbench")), "-d", target.url, *arguments]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert completed.returncode == 0, completed.stderr
    assert "error" not in completed.stderr.lower(), completed.stderr
    return completed.stdout


def test_pgbench_runs_in_every_protocol_with_as_many_clients_as_the_pool_holds_and_meets_no_error(
    pooler: PoolerFactory, postgres: PostgresServer, database: str
) -> None:
    running = start(pooler, postgres, 3 * PGBENCH_CLIENTS)
    target = Target(running.host, running.port, postgres.superuser, postgres.password, database)
    pgbench(target, "-i", "-q", "-s", str(3 * PGBENCH_CLIENTS), "--foreign-keys")
    arguments = ("-n", "-c", str(PGBENCH_CLIENTS), "-j", "1", "-T", f"{PGBENCH_SECONDS:g}")
    with background() as run:
        reports = {
            protocol: run(pgbench, target, "-M", protocol, *arguments)
            for protocol in ("simple", "extended", "prepared")
        }
        for protocol, report in reports.items():
            text = report.result(600)
            print(text)
            assert f"query mode: {protocol}\n" in text
            assert f"number of clients: {PGBENCH_CLIENTS}\n" in text
            assert "number of failed transactions: 0 (0.000%)" in text
            found = re.search(r"number of transactions actually processed: (\d+)", text)
            assert found is not None
            assert int(found[1]) > 0
    # Everything arrived: money was only moved.
    with closing(target.connect()) as connection:
        sums = [
            value(connection, f"SELECT sum({column}) FROM {table}")
            for table, column in (
                ("pgbench_accounts", "abalance"),
                ("pgbench_tellers", "tbalance"),
                ("pgbench_branches", "bbalance"),
                ("pgbench_history", "delta"),
            )
        ]
        assert len(set(sums)) == 1, sums
    assert "ERROR" not in running.log_text()


def test_pgbench_pipelines(both: Both, tmp_path: Path) -> None:
    script = tmp_path / "pipeline.sql"
    script.write_text("\\startpipeline\n" + "SELECT 1;\n" * 50 + "\\endpipeline\n", encoding="utf-8")
    for target in (both.direct, both.pooled):
        text = pgbench(target, "-n", "-M", "prepared", "-c", "4", "-t", "20", "-f", str(script))
        assert "number of transactions actually processed: 80/80" in text


def test_pgbench_that_connects_for_every_transaction_meets_no_error(both: Both, tmp_path: Path) -> None:
    script = tmp_path / "one.sql"
    script.write_text("SELECT 1;\n", encoding="utf-8")
    # More clients than the pool holds wait for each other, each in a thread of its own: pgbench blocks it meanwhile.
    text = pgbench(both.pooled, "-n", "-C", "-c", "8", "-j", "8", "-t", "20", "-f", str(script))
    assert "number of transactions actually processed: 160/160" in text
    assert "number of failed transactions: 0" in text


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
