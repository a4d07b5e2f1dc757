"""Protocol 3.2 on both sides: long cancel keys, and what old servers make of being asked for it (protocol-versions)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.judge import ConnectionJudge
from spec.listener import Heard, Listener
from spec.messages import Sender
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.recorder import Record, Recorder

SLEEP = "SELECT pg_sleep(600)"
FULL = {"3.0": 30000, "3.2": 30002}
NEWEST = 18
LIBPQ_KNOWS_3_2 = psycopg.pq.version() >= 180000
SPOKEN = ["3.0", "3.2"] if LIBPQ_KNOWS_3_2 else ["3.0"]


@pytest.fixture
def recorded_server(tls_server: PostgresServer) -> Iterator[Recorder]:
    recorder = Recorder(tls_server)
    yield recorder
    recorder.stop()


@pytest.fixture
def started(
    request: pytest.FixtureRequest, tls_server: PostgresServer, recorded_server: Recorder, data_plane: DataPlaneFactory
) -> RunningDataPlane:
    """PgPooler before a recorded server, which it asks for the version that is the fixture's parameter."""
    backend = {
        "name": "primary",
        "host": "127.0.0.1",
        "port": recorded_server.port,
        "max_protocol_version": request.param,
    }
    users = {tls_server.superuser: {"password": tls_server.password}}
    return data_plane({"backends": [backend], "auth": {"users": users}})


@pytest.fixture
def recorded_clients(started: RunningDataPlane) -> Iterator[Recorder]:
    recorder = Recorder(SimpleNamespace(host="127.0.0.1", port=started.port))  # type: ignore[arg-type]
    yield recorder
    recorder.stop()


def connect(recorder: Recorder, server: PostgresServer, **parameters: Any) -> psycopg.Connection[Any]:
    login = {"user": server.superuser, "password": server.password, "dbname": "postgres"}
    return psycopg.connect(
        host="127.0.0.1", port=recorder.port, sslmode="disable", autocommit=True, **login, **parameters
    )


def sleep_until_canceled(connection: psycopg.Connection[Any], caught: list[psycopg.Error]) -> None:
    try:
        connection.execute(SLEEP)
    except psycopg.Error as failure:
        caught.append(failure)


def cancel_a_query(connection: psycopg.Connection[Any], server: PostgresServer) -> None:
    caught: list[psycopg.Error] = []
    thread = threading.Thread(target=sleep_until_canceled, args=(connection, caught))
    thread.start()
    active = f"SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = '{SLEEP}'"
    wait_until(lambda: server.execute(active))
    connection.cancel_safe()
    thread.join(60)
    assert [type(failure) for failure in caught] == [psycopg.errors.QueryCanceled]


def heard(record: Record) -> list[Heard]:
    listener = Listener()
    return [found for sender, data in record for found in listener.hear(sender, data)]


def check_judged(recorder: Recorder) -> None:
    for record in recorder.connections:
        judge = ConnectionJudge()
        assert [violation for sender, data in list(record) for violation in judge.hear(sender, data)] == []
        assert not judge.is_opaque


def key_of(conversation: list[Heard]) -> bytes:
    (key,) = (one.instance["key"] for one in conversation if one.instance.name == "BackendKeyData")
    assert isinstance(key, bytes)
    return key


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("started", ["3.0", "3.2", "latest"], indirect=True)
def test_a_query_is_canceled_whatever_versions_both_sides_speak(
    spoken: str,
    request: pytest.FixtureRequest,
    tls_server: PostgresServer,
    recorded_server: Recorder,
    recorded_clients: Recorder,
) -> None:
    asked = request.node.callspec.params["started"]
    versions = {"min_protocol_version": spoken, "max_protocol_version": spoken} if LIBPQ_KNOWS_3_2 else {}
    with connect(recorded_clients, tls_server, **versions) as connection:
        if LIBPQ_KNOWS_3_2:
            assert connection.pgconn.full_protocol_version == FULL[spoken]
        cancel_a_query(connection, tls_server)
        assert connection.execute("SELECT 'goes on'").fetchone() == ("goes on",)
    check_judged(recorded_server)
    check_judged(recorded_clients)

    ours, our_cancel = (heard(record) for record in recorded_clients.connections)
    assert len(key_of(ours)) == (32 if spoken == "3.2" else 4)
    assert our_cancel[0].instance["key"] == key_of(ours)

    theirs, their_cancel = (heard(record) for record in recorded_server.connections)
    names = [one.instance.name for one in theirs if one.instance.sender is Sender.BACKEND]
    knows = tls_server.version_number >= NEWEST
    assert theirs[0].instance["minor"] == (0 if asked == "3.0" else 2)
    assert ("NegotiateProtocolVersion" in names) is (asked != "3.0" and not knows)
    assert len(key_of(theirs)) == (32 if asked != "3.0" and knows else 4)
    assert their_cancel[0].instance["key"] == key_of(theirs)
    assert key_of(ours) != key_of(theirs)
