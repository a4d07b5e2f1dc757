"""What drivers and programs say to PostgreSQL, and through PgPooler, conforms to spec: live, and judged again later."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import PostgresServer
from spec import trace
from spec.codec import Instance, backend, encode
from spec.messages import Sender
from spec.verdicts import CONFORMS, COULD_NOT_RUN, DEVIATES, Verdicts
from tests.integration.clients import Connection, background, value
from tests.integration.poolers import PoolerFactory
from tests.integration.wire import SSL_REQUEST, SYNC, TERMINATE, Address, Wire

PATIENCE = 120.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """Where a driver connects."""

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

    async def asyncpg(self) -> Any:
        # It asks for encryption first; the answer is no.
        return await asyncpg.connect(self.url, ssl="prefer", timeout=PATIENCE)


class Recording:
    """`python -m spec record` in a process of its own, in front of a target."""

    def __init__(self, target: Target, path: Path, *arguments: str) -> None:
        self.path = path
        command = [sys.executable, "-m", "spec", "record", "--listen", "127.0.0.1:0", "--trace", str(path)]
        command += ["--target", f"{target.host}:{target.port}", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()  # recording on HOST:PORT, in front of ...
        assert first.startswith("recording on 127.0.0.1:"), first
        port = int(first.split(",")[0].rpartition(":")[2])
        self.target = Target("127.0.0.1", port, target.user, target.password, target.database)

    @property
    def address(self) -> Address:
        return self.target.host, self.target.port

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.output, self.complaints = self.process.communicate(timeout=PATIENCE)

    @property
    def status(self) -> int:
        return self.process.returncode


@contextlib.contextmanager
def recording(target: Target, path: Path, *arguments: str) -> Iterator[Recording]:
    running = Recording(target, path, *arguments)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def direct(postgres: PostgresServer, database: str) -> Target:
    """The server itself, and a database of its own."""
    return Target(postgres.host, postgres.port, postgres.superuser, postgres.password, database)


@pytest.fixture(params=["PostgreSQL", "PgPooler"])
def recorded(request: pytest.FixtureRequest, direct: Target) -> Target:
    """What is recorded: the server itself, or PgPooler in session mode."""
    if request.param == "PostgreSQL":
        return direct
    pooler: PoolerFactory = request.getfixturevalue("pooler")
    running = pooler(
        {
            "backends": [{"name": "primary", "host": direct.host, "port": direct.port}],
            "auth": {"users": {direct.user: {"password": direct.password}}},
            "routing": {
                "defaults": {"pool_size": 8, "pool_mode": "session"},
                "rules": [{"name": "everybody", "default": True, "backend": "primary"}],
            },
        }
    )
    return Target(running.host, running.port, direct.user, direct.password, direct.database)


def wait_until_it_runs(target: Target, process: int) -> None:
    """Wait until a server process is busy with a query."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE '%%pg_sleep%%'"
    with closing(target.connect()) as observer:
        while not value(observer, query, process):
            pass


# -- what is done ------------------------------------------------------------------------------------------------------


TEXTS = (b"", b";", b"SELECT 1; SELECT 2, 3; SELECT", b"BEGIN; SELECT 4; COMMIT", b"BEGIN; SELECT 1/0; SELECT")


def queries_and_transactions(target: Target, direct: Target) -> list[Any]:
    found: list[Any] = []
    with target.connect(autocommit=False) as connection:
        connection.execute("CREATE TABLE numbers (number int PRIMARY KEY, name text)")
        connection.commit()
        with connection.transaction():
            connection.execute("INSERT INTO numbers VALUES (%s, %s)", (1, "one"))
            with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                connection.execute("INSERT INTO numbers VALUES (1)")
            connection.execute("INSERT INTO numbers VALUES (2, NULL) RETURNING number")
        for text, failure in (("SELECT 1/0", "DivisionByZero"), ("SELECT 1", "InFailedSqlTransaction")):
            with pytest.raises(getattr(psycopg.errors, failure)):
                connection.execute(text.encode())
        connection.rollback()
        found += connection.execute("SELECT * FROM numbers ORDER BY 1").fetchall()
        connection.rollback()
        connection.autocommit = True
        for text in TEXTS:
            found.append(connection.pgconn.exec_(text).status)
        connection.pgconn.exec_(b"ROLLBACK")
        connection.execute("CREATE RULE copy AS ON INSERT TO numbers DO ALSO SELECT NEW.number")
        found.append(connection.pgconn.exec_(b"INSERT INTO numbers VALUES (7)").status)
    return found


def prepared_statements(target: Target, direct: Target) -> list[Any]:
    found: list[Any] = []
    with closing(target.connect(prepare_threshold=1)) as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            for number in range(4):
                found += cursor.execute("SELECT %s::int, %s::text, NULL", (number, "x" * number)).fetchall()
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("SELEC %s", (1,), prepare=True)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT %s::int", ("no number",), prepare=True)
        connection.execute("DEALLOCATE ALL")
        libpq = connection.pgconn
        found.append(libpq.prepare(b"named", b"SELECT $1::int").status)
        found.append(libpq.describe_prepared(b"named").nparams)
        libpq.exec_(b"BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1 AS one; COMMIT")
        found.append(libpq.describe_portal(b"held").fname(0))
        found.append(libpq.describe_prepared(b"missing").status)
        found.append(libpq.exec_prepared(b"named", [b"5"]).get_value(0, 0))
    return found


def pipelines(target: Target, direct: Target) -> list[Any]:
    def fail_within(connection: Connection) -> None:
        with connection.pipeline():
            for divisor in (1, 2, 0, 1, 2):
                connection.execute("SELECT 1 / %s::int", [divisor])

    with closing(target.connect()) as connection:
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::int * 2", [number]) for number in range(300)]
            pipeline.sync()
            more = [connection.execute("SELECT repeat('x', 1000)") for number in range(100)]
        found: list[Any] = [cursor.fetchone() for cursor in (*cursors, *more)]
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                fail_within(connection)
        with connection.pipeline(), connection.transaction():
            connection.execute("SELECT 1")
        connection.cursor().executemany("SELECT %s::text", [(str(number),) for number in range(500)])
        return [*found, value(connection, "SELECT 'still there'")]


def copies(target: Target, direct: Target) -> list[Any]:
    rows = [(number, f"line\t{number}\n") for number in range(3000)]
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied (number int, line text)")
        with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            for row in rows:
                copy.write_row(row)
        with pytest.raises(TypeError), cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write_row(5)  # type: ignore[arg-type]  # the program fails in the middle
        with pytest.raises(psycopg.errors.BadCopyFileFormat), cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write(b"1\tonly two\tx\n")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write(b"no number\n" * 1_000_000)
        failing = "COPY (SELECT 1 / (500 - number) FROM copied ORDER BY number) TO STDOUT"
        with pytest.raises(psycopg.errors.DivisionByZero), cursor.copy(failing) as copy:
            list(copy)
        with cursor.copy("COPY copied TO STDOUT WITH (FORMAT csv)") as copy:
            lines = b"".join(bytes(data) for data in copy)
        with cursor.copy("COPY (SELECT * FROM copied ORDER BY number) TO STDOUT") as copy:
            copy.set_types(["int4", "text"])
            return [lines, *copy.rows()]


def large_results_and_cursors(target: Target, direct: Target) -> list[Any]:
    query = b"SELECT number, repeat('x', 100) FROM generate_series(1, 10000) AS number"
    with target.connect(autocommit=False) as connection:
        with connection.cursor(name="every") as cursor:
            cursor.itersize = 777
            cursor.execute(query)
            whole = [row[0] for row in cursor]
        streamed = [row[0] for row in connection.cursor().stream(query)]
        return [whole, streamed, value(connection, "SELECT repeat('y', 10000000)")]


def notifications_and_notices(target: Target, direct: Target) -> list[Any]:
    with closing(target.connect()) as listener, closing(target.connect()) as sender:
        notices: list[str] = []
        listener.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        listener.execute("LISTEN news")
        for number in range(20):
            sender.execute("SELECT pg_notify('news', %s)", [f"number {number}"])
        found = [notify.payload for notify in listener.notifies(timeout=PATIENCE, stop_after=20)]
        listener.execute("DO $$BEGIN RAISE NOTICE 'look'; RAISE WARNING 'out'; END$$")
        sender.execute("NOTIFY news, 'within a query'")
        listener.execute("SET TimeZone = 'Asia/Tokyo'; SELECT 1")
        found += [notify.payload for notify in listener.notifies(timeout=PATIENCE, stop_after=1)]
        return [found, notices, listener.info.parameter_status("TimeZone")]


def cancel_requests(target: Target, direct: Target) -> list[Any]:
    found: list[Any] = []
    newest = {"max_protocol_version": "latest"} if psycopg.pq.version() >= 180000 else {}
    for parameters in ({}, newest):
        with background() as run, closing(target.connect(**parameters)) as connection:
            for cancel in (connection.cancel, connection.cancel_safe):
                sleeping = run(connection.execute, "SELECT pg_sleep(120)")
                wait_until_it_runs(direct, connection.info.backend_pid)
                cancel()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    sleeping.result(PATIENCE)
                found.append(value(connection, "SELECT 'goes on'"))
            connection.execute("SET statement_timeout = '50ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT %s, pg_sleep(120)", (1,))
    return found


def failed_logins(target: Target, direct: Target) -> list[Any]:
    found: list[Any] = []
    for parameters in ({"password": "wrong"}, {"dbname": "missing"}, {"user": "nobody"}):
        with pytest.raises(psycopg.OperationalError):
            target.connect(**parameters)
    with closing(target.connect(sslmode="prefer")) as connection:
        found.append(value(connection, "SELECT 1"))
    return found


def a_session_that_is_terminated(target: Target, direct: Target) -> list[Any]:
    with closing(target.connect()) as connection, background() as run:
        process = connection.info.backend_pid
        sleeping = run(connection.execute, "SELECT pg_sleep(120)")
        wait_until_it_runs(direct, process)
        with closing(direct.connect()) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (process,))
        with pytest.raises(psycopg.OperationalError):
            sleeping.result(PATIENCE)
        return [connection.closed]


def async_psycopg(target: Target, direct: Target) -> list[int]:
    async def session(number: int) -> int:
        async with await psycopg.AsyncConnection.connect(target.url, autocommit=True) as connection:
            total = 0
            for _ in range(5):
                cursor = await connection.execute("SELECT %s::int", [number])
                total += (await cursor.fetchone() or (0,))[0]
            async with connection.pipeline():
                cursors = [await connection.execute("SELECT %s::int", [number]) for _ in range(20)]
            for cursor in cursors:
                total += (await cursor.fetchone() or (0,))[0]
            async with connection.cursor().copy("COPY (SELECT 1 FROM generate_series(1, 1000)) TO STDOUT") as copy:
                async for row in copy.rows():
                    total += int(row[0])
            return total

    async def everybody() -> list[int]:
        return await asyncio.gather(*(session(number) for number in range(6)))

    return asyncio.run(everybody())


def with_asyncpg(target: Target, direct: Target) -> list[Any]:
    rows = [(number, f"line {number}") for number in range(2000)]

    async def work(connection: Any) -> list[Any]:
        statement = await connection.prepare("SELECT $1::int[] || 4, $2::text")
        found: list[Any] = [tuple(await statement.fetchrow([1, 2], "a"))]
        await connection.execute("CREATE TABLE lines (number int PRIMARY KEY, line text); SELECT 1")
        await connection.executemany("INSERT INTO lines VALUES ($1, $2)", rows[:1000])
        await connection.copy_records_to_table("lines", records=rows[1000:])
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.executemany("INSERT INTO lines VALUES ($1, $2)", [(9999, "new"), rows[0]])
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.copy_records_to_table("lines", records=rows)
        async with connection.transaction():
            async for record in connection.cursor("SELECT * FROM lines ORDER BY number", prefetch=100):
                found.append(tuple(record))
        heard: asyncio.Queue[str] = asyncio.Queue()
        await connection.add_listener("news", lambda _, process, channel, text: heard.put_nowait(text))
        await connection.execute("NOTIFY news, 'heard'")
        found.append(await asyncio.wait_for(heard.get(), PATIENCE))
        with pytest.raises(asyncio.TimeoutError):
            await connection.fetch("SELECT pg_sleep(120)", timeout=0.5)
        return [*found, await connection.fetchval("SELECT 6 * 7")]

    async def run() -> list[Any]:
        connection = await target.asyncpg()
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


WORKS: list[Callable[[Target, Target], list[Any]]] = [
    queries_and_transactions,
    prepared_statements,
    pipelines,
    copies,
    large_results_and_cursors,
    notifications_and_notices,
    cancel_requests,
    failed_logins,
    a_session_that_is_terminated,
    async_psycopg,
    with_asyncpg,
]


# -- the tests ---------------------------------------------------------------------------------------------------------


def assert_it_conforms(running: Recording) -> None:
    """Nothing was found wrong, and judging the trace again says the same."""
    assert (running.status, running.complaints) == (CONFORMS, ""), running.output + running.complaints
    verdicts = Verdicts()
    found = [found for event in trace.read(running.path) for found in verdicts.hear(event)]
    assert found == []
    assert running.output.splitlines() == verdicts.table()


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_what_a_driver_does_conforms_and_comes_out_the_same(
    work: Callable[[Target, Target], list[Any]], recorded: Target, direct: Target, tmp_path: Path
) -> None:
    with recording(recorded, tmp_path / "one.trace") as running:
        found = work(running.target, direct)
    assert_it_conforms(running)
    with closing(direct.connect()) as connection:
        connection.execute("DROP TABLE IF EXISTS numbers, copied, lines")
    assert found == work(direct, direct)


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_what_pgbench_does_conforms(protocol: str, recorded: Target, direct: Target, tmp_path: Path) -> None:
    pipelined = tmp_path / "pipeline.sql"
    pipelined.write_text("\\startpipeline\n" + "SELECT 1;\n" * 20 + "\\endpipeline\n", encoding="utf-8")
    with recording(recorded, tmp_path / "pgbench.trace") as running:
        # Client-side data is a COPY of 100,000 rows: once is enough.
        run_pgbench(running.target, "-i", "-q", "-I", "dtgvp" if protocol == "simple" else "dtGvp")
        report = run_pgbench(running.target, "-n", "-M", protocol, "-c", "4", "-t", "25")
        if protocol != "simple":
            run_pgbench(running.target, "-n", "-M", protocol, "-c", "2", "-t", "5", "-f", str(pipelined))
    assert f"query mode: {protocol}\n" in report
    assert "number of transactions actually processed: 100/100" in report
    assert "number of failed transactions: 0 (0.000%)" in report
    assert_it_conforms(running)


def run_pgbench(target: Target, *arguments: str) -> str:
    """What pgbench reports; it must neither fail nor complain of errors."""
    command = [str(tools.require("pgbench")), "-d", target.url, *arguments]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert completed.returncode == 0, completed.stderr
    assert "error" not in completed.stderr.lower(), completed.stderr
    return completed.stdout


def test_two_recordings_of_the_same_connections_hold_the_same_bytes(direct: Target, tmp_path: Path) -> None:
    with recording(direct, tmp_path / "far.trace") as far, recording(far.target, tmp_path / "near.trace") as near:
        for work in (queries_and_transactions, pipelines, copies):
            work(near.target, direct)
    assert_it_conforms(near)
    assert_it_conforms(far)
    assert said_in(near.path) == said_in(far.path)


def said_in(path: Path) -> dict[tuple[int, Sender], bytes]:
    """All that each side of each connection said."""
    said: dict[tuple[int, Sender], bytes] = {}
    for event in trace.read(path):
        key = (event.connection, event.sender)
        said[key] = said.get(key, b"") + event.data
    return said


# -- what does not conform, or cannot be judged ------------------------------------------------------------------------


LOGIN = (
    backend("AuthenticationOk"),
    backend("ParameterStatus", parameter=b"server_version", setting=b"18.0"),
    backend("BackendKeyData", process_id=1, key=b"keys"),
    backend("ReadyForQuery", status=b"I"),
)


@contextlib.contextmanager
def serving(*answers: bytes) -> Iterator[Target]:
    """A server that answers whatever arrives first, then second, and so on, with these bytes, and then closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening, background() as run:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for answer in answers:
                    connection.recv(65536)
                    connection.sendall(answer)
                while connection.recv(65536):
                    pass

        served = run(serve)
        yield Target("127.0.0.1", listening.getsockname()[1], "somebody", "", "somewhere")
        served.result(PATIENCE)


def exactly(client: Wire, size: int) -> bytes:
    """The next bytes, as many as that."""
    return b"".join(client.byte() for _ in range(size))


def said(*instances: Instance) -> bytes:
    return b"".join(encode(instance, (3, 0)) for instance in instances)


def test_a_violation_is_printed_as_it_happens_and_the_bytes_go_on(tmp_path: Path) -> None:
    ready = backend("ReadyForQuery", status=b"I")
    wrong = said(backend("CommandComplete", tag=b"SELECT 1"), ready, backend("DataRow", values=()))
    trace_path = tmp_path / "bad.trace"
    with (
        serving(said(*LOGIN), wrong) as server,
        recording(server, trace_path) as running,
        Wire(running.address) as client,
    ):
        client.log_in("somebody", "", "somewhere")
        client.send(SYNC)
        assert exactly(client, len(wrong)) == wrong
        printed, _, _ = select.select([running.process.stdout], [], [], PATIENCE)
        assert printed, "nothing is said while the connection goes on"
        client.send(TERMINATE)
    assert (running.status, running.complaints) == (DEVIATES, "")
    lines = running.output.splitlines()
    assert re.match(r"connection 1, \d+\.\d{6} s: .*CommandComplete", lines[0])
    assert lines[-1] == "Connections: 1 violates."
    verdicts = Verdicts()
    again = [line for event in trace.read(trace_path) for found in verdicts.hear(event) for line in found.lines()]
    assert [re.sub(r"^line \d+, ", "", line) for line in again] + verdicts.table() == lines


def test_with_verdict_only_there_is_nothing_but_the_table(tmp_path: Path) -> None:
    wrong = said(backend("CommandComplete", tag=b"SELECT 1"))
    arguments = ("--verdict-only", "--connections", "1")
    with serving(said(*LOGIN), wrong) as server, recording(server, tmp_path / "bad.trace", *arguments) as running:
        with Wire(running.address) as client:
            client.log_in("somebody", "", "somewhere")
            client.send(SYNC)
            assert exactly(client, len(wrong)) == wrong
            client.send(TERMINATE)
        assert running.process.wait(PATIENCE) == DEVIATES  # by itself, after one connection
    heading, row, last = running.output.splitlines()
    assert heading.split()[0] == "connection"
    assert row.split()[-1] == "violates"
    assert last == "Connections: 1 violates."


def test_an_encrypted_connection_is_passed_on_and_not_judged(tmp_path: Path) -> None:
    hello, answer = b"\x16\x03\x01 not really TLS", b"\x16\x03\x03 neither"
    with serving(b"S", answer) as server, recording(server, tmp_path / "tls.trace", "--connections", "1") as running:
        with Wire(running.address) as client:
            client.send(SSL_REQUEST)
            assert client.byte() == b"S"
            client.send(hello)
            assert exactly(client, len(answer)) == answer
        assert running.process.wait(PATIENCE) == COULD_NOT_RUN
    assert "encrypted from here on; only bytes are passed on" in running.complaints
    assert running.output.splitlines()[-1] == "Connections: 1 encrypted."
    assert said_in(running.path)[1, Sender.FRONTEND] == SSL_REQUEST + hello


def test_a_target_that_cannot_be_reached_is_no_success(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = Target("127.0.0.1", taken.getsockname()[1], "", "", "")
        with recording(nobody, tmp_path / "none.trace", "--connections", "1") as running:
            with Wire(running.address) as client:
                assert client.everything() == b""
            assert running.process.wait(PATIENCE) == COULD_NOT_RUN
    assert "cannot be reached: Connection refused" in running.complaints


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("listen", "Address already in use"),
        ("missing/one.trace", "No such file or directory"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_what_it_cannot_open_or_write_is_said(what: str, why: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if what == "listen" else 0
        path = tmp_path / ("one.trace" if what == "listen" else what)
        command = [sys.executable, "-m", "spec", "record", "--listen", f"127.0.0.1:{port}", "--trace", str(path)]
        command += ["--target", f"127.0.0.1:{taken.getsockname()[1]}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (COULD_NOT_RUN, "")
    assert re.fullmatch(rf"python -m spec: .*{why}.*\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_the_middle_of_a_session(number: signal.Signals, direct: Target, tmp_path: Path) -> None:
    with recording(direct, tmp_path / "cut.trace") as running, Wire(running.address) as client:
        client.log_in(direct.user, direct.password, direct.database)
        assert client.values("SELECT 1") == ["1"]
        running.process.send_signal(number)
        assert client.everything() == b""
        assert running.process.wait(PATIENCE) == CONFORMS
    assert_it_conforms(running)
    assert running.output.splitlines()[-1] == "Connections: 1 conforms."
