"""Replication connections: never shared, in a pool of their own, for as long as they last; in session mode only."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import PoolMode
from pgpooler.pooling import unshared
from tests.scripted import Client, PostgreSQL, Setting

KINDS = pytest.mark.parametrize(
    ("asked", "passed_on"), [("true", "true"), ("ON", "true"), ("1", "true"), ("database", "database")]
)


def arrive(setting: Setting, replication: str = "true") -> Client:
    client = Client(setting.world, "own", parameters={"replication": replication})
    setting.world.settle()
    return client


def serving(setting: Setting, client: Client) -> PostgreSQL:
    assert client.session is not None
    return setting.cluster.process_of(client.session.server)  # type: ignore[attr-defined]


@KINDS
def test_the_server_is_asked_for_what_the_client_asked_for(asked: str, passed_on: str) -> None:
    setting = Setting(pool_mode=PoolMode.SESSION)
    client = arrive(setting, asked)
    assert client.logged_in
    assert serving(setting, client).startup["replication"] == passed_on


def test_its_connection_is_closed_when_it_leaves_and_nobody_elses_is_used() -> None:
    setting = Setting(pool_mode=PoolMode.SESSION, pool_size=2)
    other = setting.client()
    setting.leave(other)
    client = arrive(setting)
    process = serving(setting, client)
    assert process is setting.cluster.processes[1], "the one that lies idle is no replication connection"
    client.terminate()
    setting.world.settle()
    assert process.over
    assert process.statements == []
    reasons = [text.partition("reason=")[2] for _, session, text in setting.world.log_lines if session == 0]
    assert reasons == [unshared.CLOSED_AFTER.format(unshared.REPLICATION)]


@pytest.mark.parametrize("mode", [PoolMode.TRANSACTION, PoolMode.STATEMENT])
def test_other_modes_refuse_it_before_any_server_is_asked(mode: PoolMode) -> None:
    """W19"""
    setting = Setting(pool_mode=mode)
    client = arrive(setting)
    assert client.sqlstates == ["0A000"]
    assert setting.cluster.processes == []
    assert set(setting.world.counts().values()) == {0}


def test_no_connection_is_kept_ready_for_the_next_one() -> None:
    setting = Setting(pool_mode=PoolMode.SESSION, pool_size=5, min_pool_size=3)
    clients = [arrive(setting), arrive(setting)]
    setting.world.pass_time(100)
    assert [process.startup["replication"] for process in setting.cluster.processes] == ["true"] * len(clients)


def test_the_limits_on_queries_and_transactions_leave_it_alone() -> None:
    limits = dict.fromkeys(("query_timeout", "transaction_timeout", "idle_transaction_timeout"), 5.0)
    setting = Setting(pool_mode=PoolMode.SESSION, **limits)
    client = arrive(setting)
    client.ask("slow own")
    setting.world.pass_time(1000)
    assert not client.over
    assert setting.cluster.canceled == []
