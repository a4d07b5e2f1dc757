"""The spec's judge finds nothing wrong with what PostgreSQL really says, and finds what is missing or said twice."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import TESTCONTAINERS, PostgresServer, Provider
from spec.codec import Instance, encode, frontend
from spec.conversation import ASYNCHRONOUS
from spec.judge import ConnectionJudge
from spec.listener import Listener
from spec.messages import Sender
from spec.session import Judge, Violation
from tests.integration import conversations, servers
from tests.integration.conversations import PASSWORD, PREPARATION, SCRIPTS, Script, exchange, query
from tests.integration.recorder import Record, Recorder
from tests.integration.wire import Wire, cancel_request, startup

LOCAL = [provider for provider in servers.survey() if provider.is_available and provider.name != TESTCONTAINERS]
"""The servers to hold the spec against: the newest version, and what the system has."""

SETTINGS = {"max_prepared_transactions": "5", "wal_level": "logical", "max_wal_senders": "5"}

LEAST_REJECTED = 0.95


@pytest.fixture(scope="module", params=LOCAL, ids=[provider.name for provider in LOCAL])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    provider: Provider = request.param
    with provider.start(password=PASSWORD, settings=SETTINGS) as started:
        started.execute(*PREPARATION)
        yield started


@contextlib.contextmanager
def recording(server: PostgresServer) -> Iterator[Recorder]:
    recorder = Recorder(server)
    try:
        yield recorder
    finally:
        recorder.stop()


def recorded(server: PostgresServer, script: Script, **parameters: str) -> list[Record]:
    """What passes on the connections of one script, the one it is given first."""
    with recording(server) as recorder, Wire(("127.0.0.1", recorder.port)) as wire:
        minor = 2 if server.version_number >= 18 else 0
        wire.log_in(password=PASSWORD, minor=minor, **parameters)
        script(wire)
        wire.send(encode(frontend("Terminate")))
        assert wire.rest() == []
    return recorder.connections


def judged(record: Record) -> tuple[ConnectionJudge, list[Violation]]:
    """What the judge says of one connection."""
    judge = ConnectionJudge()
    violations: list[Violation] = []
    for sender, data in record:
        violations += judge.hear(sender, data) if data else judge.ended(sender)
    return judge, violations


def assert_conform(records: list[Record]) -> None:
    for record in records:
        judge, violations = judged(record)
        assert violations == []
        assert not judge.is_opaque


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_real_conversation_keeps_to_every_rule(server: PostgresServer, script: Script) -> None:
    records = recorded(server, script)
    assert_conform(records)
    judge, _ = judged(records[0])
    assert judge.judge.idle
    assert judge.judge.owed == ()
    assert judge.judge.status == b"I"


# --- real clients


def by_psycopg(port: int) -> None:
    parameters = {"host": "127.0.0.1", "port": port, "user": "postgres", "password": PASSWORD, "dbname": "postgres"}
    with psycopg.connect(**parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute("create temporary table t (a int, b text)")
        for _ in range(8):
            connection.execute("insert into t values (%s, %s) returning a", (1, "x")).fetchall()
        with connection.pipeline():
            for number in range(50):
                connection.execute("select %s::int, %s::text", (number, None))
        with contextlib.suppress(psycopg.Error), connection.pipeline():
            connection.execute("select 1")
            connection.execute("select 1/0")
            connection.execute("select 2")
        with connection.cursor() as cursor:
            with cursor.copy("copy t from stdin") as copying:
                for number in range(1000):
                    copying.write_row((number, "y" * number))
            with cursor.copy("copy t to stdout (format binary)") as copying:
                assert sum(len(bytes(piece)) for piece in copying)
            with contextlib.suppress(ValueError), cursor.copy("copy t from stdin"):
                raise ValueError("the program gives up")
            cursor.executemany("insert into t values (%s, %s)", [(number, "z") for number in range(30)])
            list(cursor.stream("select generate_series(1, 100)"))
        with connection.transaction(), connection.cursor("named") as named:
            named.execute("select generate_series(1, 100)")
            assert len(named.fetchmany(10)) == 10
        with contextlib.suppress(psycopg.Error), connection.transaction():
            with contextlib.suppress(psycopg.Error), connection.transaction():
                connection.execute("selec")
            connection.execute("select 1/0")


async def by_asyncpg(port: int) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", password=PASSWORD, database="postgres", ssl=False
    )
    await connection.execute("create temporary table t (a int, b text); insert into t values (1, 'x')")
    assert await connection.fetch("select generate_series(1, $1::int)", 1000)
    await connection.executemany("insert into t values ($1, $2)", [(number, "y") for number in range(500)])
    await connection.copy_records_to_table("t", records=[(number, "z") for number in range(500)])
    async with connection.transaction():
        async for _ in connection.cursor("select a from t", prefetch=50):
            pass
    with contextlib.suppress(asyncpg.PostgresError):
        async with connection.transaction():
            await connection.execute("select 1/0")
    with contextlib.suppress(asyncio.TimeoutError):
        await connection.execute("select pg_sleep(60)", timeout=0.2)
    heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    await connection.add_listener("here", lambda *said: heard.done() or heard.set_result(said))
    await connection.execute("notify here, 'x'")
    await asyncio.wait_for(heard, 60)
    await connection.close()


def by_pgbench(port: int) -> None:
    program = tools.find("pgbench")
    assert program is not None
    address = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgres"]
    environment = {"PGPASSWORD": PASSWORD, "PGSSLMODE": "disable", "PATH": ""}
    subprocess.run([program, "-i", "-q", "-s", "1", *address], check=True, env=environment, capture_output=True)
    for protocol in ("simple", "extended", "prepared"):
        command = [program, "-M", protocol, "-n", "-c", "4", "-t", "50", *address]
        subprocess.run(command, check=True, env=environment, capture_output=True)


def clients() -> list[Callable[[int], None]]:
    def asyncpg_in_a_loop(port: int) -> None:
        asyncio.run(by_asyncpg(port))

    return [by_psycopg, asyncpg_in_a_loop, by_pgbench]


@pytest.mark.parametrize("client", clients(), ids=["psycopg", "asyncpg", "pgbench"])
def test_what_a_real_client_talks_with_the_server_keeps_to_every_rule(
    server: PostgresServer, client: Callable[[int], None]
) -> None:
    with recording(server) as recorder:
        client(recorder.port)
    assert recorder.connections
    assert_conform(recorder.connections)


# --- beginnings and ends


def test_a_login_that_fails_and_a_session_that_is_terminated_keep_to_every_rule(server: PostgresServer) -> None:
    with recording(server) as recorder:
        address = ("127.0.0.1", recorder.port)
        with Wire(address) as wire:
            assert wire.authenticate("postgres", "wrong", "postgres").name == "ErrorResponse"
            assert wire.rest() == []
        with Wire(address) as wire:
            wire.send(startup("postgres", "nowhere"), b"")
            wire.until("AuthenticationSASL", "ErrorResponse")
        with Wire(address) as wire, Wire(address) as other:
            process_id = wire.log_in(password=PASSWORD).process_id
            other.log_in(password=PASSWORD).ask(f"SELECT pg_terminate_backend({process_id})")
            assert wire.last_words() is not None
        with Wire(address) as wire:
            wire.send(cancel_request(1, b"none"))
            assert wire.everything() == b""
    assert_conform(recorder.connections)


def test_versions_and_options_that_do_not_exist_are_negotiated_once(server: PostgresServer) -> None:
    with recording(server) as recorder:
        for minor, options in ((9999, {"_pq_unheard_of": "1"}), (2, {}), (0, {"_pq_a": "1", "_pq_b": "2"}), (1, {})):
            with Wire(("127.0.0.1", recorder.port)) as wire:
                wire.version = (3, 2) if server.version_number >= 18 else (3, 0)
                wire.send(startup("postgres", "postgres", minor=minor, **options))
                wire.until("AuthenticationSASL")
    assert_conform(recorder.connections)


def test_a_replication_connection_keeps_to_every_rule(server: PostgresServer) -> None:
    def stream(wire: Wire) -> None:
        position = conversations.exchange(wire, query(b"IDENTIFY_SYSTEM"))[1]["values"]
        assert isinstance(position, tuple)
        assert isinstance(position[2], bytes)
        exchange(wire, query(b"SHOW work_mem"), query(b"SELECT 1; SELECT 2, 3"), query(b"TIMELINE_HISTORY 99"))
        exchange(wire, query(b"CREATE_REPLICATION_SLOT kept TEMPORARY PHYSICAL"))
        for _ in range(2):
            wire.send(encode(query(b"START_REPLICATION PHYSICAL " + position[2])))
            wire.until("CopyBothResponse")
            wire.send(encode(frontend("CopyDone")))
            wire.until("ReadyForQuery")
        exchange(
            wire,
            query(b"START_REPLICATION PHYSICAL 0/0 TIMELINE 99"),
            query(b"BASE_BACKUP (CHECKPOINT 'fast', WAIT false)"),
        )

    assert_conform(recorded(server, stream, replication="database"))


# --- a judge that finds nothing wrong with spoilt conversations is worth nothing


def instances(record: Record) -> list[Instance]:
    listener = Listener()
    heard = [heard.instance for sender, data in record if data for heard in listener.hear(sender, data)]
    return [instance for instance in heard if instance.name != "Terminate"]


def next_reply(conversation: list[Instance], start: int, step: int = 1) -> Instance | None:
    """The next reply (backwards: the last one) that is not asynchronous and differs from what is at `start`."""
    stop = len(conversation) if step > 0 else -1
    replies = (conversation[place] for place in range(start, stop, step))
    return next(
        (
            reply
            for reply in replies
            if reply.sender is Sender.BACKEND and reply.name not in ASYNCHRONOUS and reply != conversation[start]
        ),
        None,
    )


def is_excluded(conversation: list[Instance], place: int, asked: bytes | None) -> str:
    """The class of changes, fixed in advance, that nobody can notice; empty if this reply is in none of them."""
    reply = conversation[place]
    if reply.name in ASYNCHRONOUS:
        return "asynchronous"
    following = next_reply(conversation, place)
    if following and following.name == "ErrorResponse" and reply.name not in ("ReadyForQuery", "ErrorResponse"):
        return "directly before an error"
    before = next_reply(conversation, place, -1)
    if (
        asked is not None
        and b";" in asked.strip(b" ;")
        and reply.name == "CommandComplete"
        and (before is None or before.name in ("CommandComplete", "ReadyForQuery"))
    ):
        return "a whole statement of several"
    return ""


def is_rejected(judge: Judge, conversation: Iterator[Instance]) -> bool:
    """Whether the rest of a conversation breaks a rule, or leaves something unanswered."""
    return any(judge.hear(instance) for instance in conversation) or not judge.idle


def rejections(conversation: list[Instance], tally: Counter[str], missed: Counter[tuple[str, str]]) -> None:
    """Count which deletions and duplications of single replies are rejected."""
    judge = Judge()
    for place, instance in enumerate(conversation):
        if instance.sender is Sender.BACKEND:
            request = judge.replying_to
            asked = request.text("query") if request and request.kind == "Query" else None
            excluded = is_excluded(conversation, place, asked)
            for change, times in (("deletion", 0), ("duplication", 2)):
                if excluded:
                    tally[f"excluded: {excluded}"] += 1
                    continue
                rest = itertools.chain([instance] * times, itertools.islice(conversation, place + 1, None))
                tally["tried"] += 1
                if is_rejected(copy.deepcopy(judge), rest):
                    tally["rejected"] += 1
                else:
                    missed[change, instance.name] += 1
        assert judge.hear(instance) == ()


def test_almost_every_reply_that_is_missing_or_said_twice_is_noticed(
    server: PostgresServer, record_property: Callable[[str, Any], None]
) -> None:
    """What is missed are the real ambiguities of the wire; the figures are in the report (`pytest -rP` shows them)."""
    tally: Counter[str] = Counter()
    missed: Counter[tuple[str, str]] = Counter()
    for script in SCRIPTS:
        if script is not conversations.pipelines:  # the same few replies hundreds of times would only flatter
            rejections(instances(recorded(server, script)[0]), tally, missed)
    rate = tally["rejected"] / tally["tried"]
    for name, value in (*tally.items(), ("rate", round(rate, 4)), ("missed", dict(missed.most_common()))):
        record_property(name, str(value))
        print(f"{server.version}: {name}: {value}")
    assert tally["tried"] > 2000
    assert rate >= LEAST_REJECTED, missed
