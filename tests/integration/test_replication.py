"""Replication connections, physical and logical, in session mode: PostgreSQL's own programs work through PgPooler."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgpooler.demo.postgres import TESTCONTAINERS, PostgresServer, Provider
from spec.codec import Instance, encode, frontend
from tests.integration import servers
from tests.integration.clients import opening, refusal, wait_for
from tests.integration.conversations import exchange, query
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.wire import Address, Wire

LOCAL = [provider for provider in servers.survey() if provider.is_available and provider.name != TESTCONTAINERS]
SETTINGS = {"wal_level": "logical", "max_wal_senders": "10", "max_replication_slots": "10"}
PASSWORD = "secret"
ORDINARY = "ordinary"  # may not replicate
POOLED = {"transaction": "in_transaction_mode", "statement": "in_statement_mode"}
"""The pool modes that share server connections, and the users who are in them."""
SHORT = 0.2  # seconds of the timeouts that must not end a stream
PATIENCE = 60.0
ENVIRONMENT = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable"}


@pytest.fixture(scope="module", params=LOCAL, ids=[provider.name for provider in LOCAL])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    provider: Provider = request.param
    with provider.start(password=PASSWORD, settings=SETTINGS) as started:
        started.execute(f"CREATE ROLE {ORDINARY} LOGIN PASSWORD '{PASSWORD}'", "CREATE TABLE changed (line text)")
        yield started


@pytest.fixture
def under_test(server: PostgresServer, data_plane: DataPlaneFactory) -> RunningDataPlane:
    users = ("postgres", ORDINARY, *POOLED.values())
    return data_plane(
        {
            "backends": [{"name": "source", "host": server.host, "port": server.port}],
            "auth": {"users": {user: {"password": PASSWORD} for user in users}},
            "routing": {
                "defaults": {
                    "pool_mode": "session",
                    "pool_size": 5,
                    "query_timeout": SHORT,
                    "transaction_timeout": SHORT,
                    "idle_transaction_timeout": SHORT,
                },
                "rules": [
                    *({"user": user, "backend": "source", "pool_mode": mode} for mode, user in POOLED.items()),
                    {"default": True, "backend": "source"},
                ],
            },
        }
    )


def command(server: PostgresServer, place: Address, program: str, *arguments: str, user: str = "postgres") -> list[str]:
    """The command line of one of the server's own programs against an address."""
    assert server.bindir is not None
    host, port = place
    return [str(server.bindir / program), "-h", host, "-p", str(port), "-U", user, "-w", *arguments]


def run(
    server: PostgresServer, place: Address, program: str, *arguments: str, user: str = "postgres"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(server, place, program, *arguments, user=user),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def background(
    server: PostgresServer, place: Address, program: str, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """One of the server's own programs while the block runs."""
    with subprocess.Popen(
        command(server, place, program, *arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def well(completed: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert completed.returncode == 0, completed.stderr
    return completed


def direct(server: PostgresServer) -> Address:
    return server.host, server.port


def position(server: PostgresServer) -> str:
    """Where the next record of the write-ahead log will stand, whether those before it are written yet or not."""
    ((found,),) = server.execute("SELECT pg_current_wal_insert_lsn()")
    return str(found)


@pytest.mark.parametrize("arguments", [("-X", "stream"), ("-X", "fetch"), ("-X", "fetch", "-F", "tar")], ids=" ".join)
def test_pg_basebackup_takes_a_whole_backup(
    server: PostgresServer, under_test: RunningDataPlane, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    backup = tmp_path / "backup"
    well(run(server, under_test.address, "pg_basebackup", "-D", str(backup), "-c", "fast", *arguments))
    if "tar" in arguments:
        (backup / "unpacked").mkdir()
        subprocess.run(["tar", "-xf", backup / "base.tar", "-C", backup / "unpacked"], check=True)
        (backup / "backup_manifest").rename(backup / "unpacked" / "backup_manifest")
        backup /= "unpacked"
    assert server.bindir is not None
    verdict = well(
        subprocess.run(
            [server.bindir / "pg_verifybackup", backup], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    )
    assert "backup successfully verified" in verdict.stdout


@pytest.mark.parametrize("slot", [(), ("-S", "received")], ids=["without a slot", "with a slot"])
def test_pg_receivewal_receives_the_log_byte_for_byte(
    server: PostgresServer, under_test: RunningDataPlane, tmp_path: Path, slot: tuple[str, ...]
) -> None:
    if slot:
        well(run(server, under_test.address, "pg_receivewal", "--create-slot", *slot))
    try:
        ((segment,),) = server.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn() + 1)")
        received = tmp_path / str(segment)
        with background(
            server, under_test.address, "pg_receivewal", "-D", str(tmp_path), "--no-loop", *slot
        ) as process:
            wait_for(lambda: server.execute("SELECT count(*) FROM pg_stat_replication") == [(1,)])
            server.execute("INSERT INTO changed SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            server.execute("SELECT pg_switch_wal()", "INSERT INTO changed VALUES ('behind')")
            wait_for(received.exists)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, said
        assert server.data_directory is not None
        assert received.read_bytes() == (server.data_directory / "pg_wal" / str(segment)).read_bytes()
    finally:
        if slot:
            well(run(server, under_test.address, "pg_receivewal", "--drop-slot", *slot))


def test_pg_recvlogical_receives_every_change_in_order(
    server: PostgresServer, under_test: RunningDataPlane, tmp_path: Path
) -> None:
    slot = ("-d", "postgres", "-S", "logical")
    well(run(server, under_test.address, "pg_recvlogical", *slot, "--create-slot", "-P", "test_decoding"))
    try:
        for number in range(300):
            server.execute(f"INSERT INTO changed VALUES ('line {number}')")
        received = tmp_path / "received"
        stop = ("--endpos", position(server), "--no-loop")
        well(run(server, under_test.address, "pg_recvlogical", *slot, "--start", "-f", str(received), *stop))
        lines = [line for line in received.read_text(encoding="utf-8").splitlines() if "INSERT" in line]
        assert lines == [f"table public.changed: INSERT: line[text]:'line {number}'" for number in range(300)]
    finally:
        well(run(server, under_test.address, "pg_recvlogical", *slot, "--drop-slot"))


@pytest.mark.parametrize("mode", POOLED)
def test_a_pool_that_shares_its_connections_refuses_them_and_says_what_to_write(
    server: PostgresServer, under_test: RunningDataPlane, tmp_path: Path, mode: str
) -> None:
    user = POOLED[mode]
    completed = run(server, under_test.address, "pg_receivewal", "-D", str(tmp_path), "--no-loop", user=user)
    assert completed.returncode != 0
    assert f"replication connections need pool mode session, and this is a pool in {mode} mode" in completed.stderr
    fields = refusal(under_test.address, user, PASSWORD, replication="database")
    assert fields["C"] == "0A000"
    assert fields["H"] == f'Add a rule with pool_mode: session for user "{user}" to the routing.'


def script(wire: Wire) -> list[Instance]:
    """Commands of the replication protocol and plain SQL, with streams begun and ended."""
    heard = exchange(wire, query(b"IDENTIFY_SYSTEM"), query(b"SHOW work_mem"), query(b"TIMELINE_HISTORY 99"))
    heard += exchange(wire, query(b"SELECT 1; SELECT 2, 3"), query(b"SELECT 1/0"), query(b"BEGIN"), query(b"ROLLBACK"))
    heard += exchange(wire, query(b"CREATE_REPLICATION_SLOT kept TEMPORARY PHYSICAL RESERVE_WAL"))
    values = exchange(wire, query(b"IDENTIFY_SYSTEM"))[1]["values"]
    assert isinstance(values, tuple)
    assert isinstance(values[2], bytes)
    for _ in range(2):
        wire.send(encode(query(b"START_REPLICATION PHYSICAL " + values[2])))
        wire.until("CopyBothResponse")
        wire.send(encode(frontend("CopyDone")))
        heard += [message for message in wire.until("ReadyForQuery") if message.name != "CopyData"]
    heard += exchange(wire, query(b"START_REPLICATION PHYSICAL 0/0 TIMELINE 99"), query(b"DROP_REPLICATION_SLOT kept"))
    return heard


def names(messages: list[Instance]) -> list[object]:
    return [message["tag"] if message.name == "CommandComplete" else message.name for message in messages]


def test_a_client_hears_what_it_hears_from_the_server_itself(
    server: PostgresServer, under_test: RunningDataPlane
) -> None:
    heard = []
    for place in (direct(server), under_test.address):
        wire, _ = opening(place, "postgres", PASSWORD, "postgres", replication="database")
        with wire:
            heard.append(names(script(wire)))
    assert heard[0] == heard[1]


def test_who_may_not_replicate_is_told_so_by_the_server(server: PostgresServer, under_test: RunningDataPlane) -> None:
    for replication in ("database", "true"):
        asked = {"user": ORDINARY, "password": PASSWORD, "replication": replication}
        told = [refusal(place, **asked) for place in (direct(server), under_test.address)]
        assert told[0] == told[1]
    with opening(under_test.address, ORDINARY, PASSWORD, "postgres")[0] as wire:
        assert wire.values("SELECT 1") == ["1"]


@contextlib.contextmanager
def streaming(under_test: RunningDataPlane) -> Iterator[Wire]:
    """A connection on which the log is streamed."""
    wire, _ = opening(under_test.address, "postgres", PASSWORD, "postgres", replication="true")
    with wire:
        values = exchange(wire, query(b"IDENTIFY_SYSTEM"))[1]["values"]
        assert isinstance(values, tuple)
        assert isinstance(values[2], bytes)
        wire.send(encode(query(b"START_REPLICATION PHYSICAL " + values[2])))
        wire.until("CopyBothResponse")
        yield wire


def test_a_stream_lasts_longer_than_any_query_or_transaction_may(under_test: RunningDataPlane) -> None:
    with streaming(under_test) as wire:
        time.sleep(5 * SHORT)
        wire.send(encode(frontend("CopyDone")))
        assert wire.until("ReadyForQuery")[-2]["tag"] == b"START_REPLICATION"


@pytest.mark.parametrize("way", [Wire.close, Wire.reset, Wire.end_sending], ids=["closes", "resets", "half-closes"])
def test_the_stream_of_a_client_that_vanishes_ends_and_its_connection_with_it(
    server: PostgresServer, under_test: RunningDataPlane, way: object
) -> None:
    assert callable(way)
    with streaming(under_test) as wire:
        assert server.execute("SELECT count(*) FROM pg_stat_replication") == [(1,)]
        way(wire)
        wait_for(lambda: server.execute("SELECT count(*) FROM pg_stat_replication") == [(0,)])
        under_test.wait_until_unused()
        assert under_test.idle() == 0


def test_it_has_a_pool_of_its_own_which_opens_no_connection_beyond_its_clients(
    server: PostgresServer, data_plane: DataPlaneFactory
) -> None:
    under_test = data_plane(
        {
            "backends": [{"name": "source", "host": server.host, "port": server.port}],
            "auth": {"users": {"postgres": {"password": PASSWORD}}},
            "routing": {"defaults": {"pool_mode": "session", "pool_size": 2, "min_pool_size": 2}},
        }
    )
    with streaming(under_test), streaming(under_test), opening(under_test.address, "postgres", PASSWORD, "postgres")[0]:
        pools = {pool["replication"]: pool for pool in under_test.snapshot()["pools"]}
        assert (pools[True]["in_use"], pools[True]["opening"], pools[True]["idle"]) == (2, 0, 0)
        assert pools[False]["in_use"] == 1
