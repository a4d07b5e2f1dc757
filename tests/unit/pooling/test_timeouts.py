"""When patience with a client ends: a query, a transaction, silence in a transaction."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import PoolMode
from pgpooler.protocol import codes
from tests.memory import configure
from tests.scripted import COPY_DONE, SYNC, Setting, copy_data, extended, query

MODES = [PoolMode.SESSION, PoolMode.TRANSACTION]
BIND = extended("row c1", sync=False)[15:]


# -- query_timeout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(PoolMode))
@pytest.mark.parametrize("said", [query("slow c1"), extended("slow c1")])
def test_a_query_that_takes_too_long_is_canceled_and_its_client_goes_on(mode: PoolMode, said: bytes) -> None:
    setting = Setting(pool_mode=mode, query_timeout=5)
    client = setting.client()
    client.say(said)
    setting.world.pass_time(4.9)
    assert client.errors == []
    setting.world.pass_time(0.2)
    assert client.sqlstates == ["57014"]
    assert client.errors[0].severity == "ERROR"
    assert client.errors[0].message == "canceling statement due to query timeout (5 s, query_timeout)"
    client.ask("row c1")
    setting.world.settle()
    assert client.rows == ["c1"]


@pytest.mark.parametrize("mode", list(PoolMode))
def test_the_shortest_of_several_limits_is_looked_at_in_time(mode: PoolMode) -> None:
    setting = Setting(pool_mode=mode, query_timeout=5, transaction_timeout=50, idle_transaction_timeout=500)
    client = setting.client()
    client.ask("slow c1")
    setting.world.pass_time(5.1)
    assert client.sqlstates == ["57014"]


def test_each_query_of_a_pipeline_has_its_own_time() -> None:
    setting = Setting(query_timeout=5)
    client = setting.client()
    client.say(query("slow c1") * 3)
    for _ in range(3):
        setting.world.pass_time(4)
        setting.cluster.processes[0].release()
    setting.world.settle()
    assert client.errors == []
    assert client.rows == ["c1"] * 3


def test_the_cancel_of_a_query_does_not_reach_the_one_behind_it() -> None:
    """The query ends just before its cancel request arrives: the next one waits until that is over."""
    setting = Setting(query_timeout=5)
    client = setting.client()
    setting.world.hold_cancels = True
    client.ask("slow c1")
    setting.world.pass_time(5)
    assert len(setting.world.cancels) == 1
    setting.cluster.processes[0].release()
    setting.world.settle()
    client.ask("slow c1")
    setting.world.settle()
    setting.world.hold_cancels = False
    setting.world.settle()
    assert client.errors == []
    setting.cluster.processes[0].release()
    setting.world.settle()
    assert client.rows == ["c1"] * 2


def test_a_server_that_does_not_heed_the_cancel_loses_its_client() -> None:
    setting = Setting(query_timeout=5)
    client = setting.client()
    setting.world.on_cancel = lambda server: None
    client.ask("slow c1")
    setting.world.pass_time(9)
    assert client.errors == []
    setting.world.pass_time(2)
    assert client.sqlstates == ["57014"]
    assert client.errors[0].severity == "FATAL"


def test_a_query_that_does_not_heed_the_cancel_has_as_long_again_unless_another_limit_is_shorter() -> None:
    setting = Setting(query_timeout=5, transaction_timeout=8)
    client = setting.client()
    setting.world.on_cancel = lambda server: None
    client.ask("slow c1")
    setting.world.pass_time(8)
    assert client.sqlstates == ["25P04"]


def test_somebody_elses_57014_is_not_taken_for_the_timeout() -> None:
    setting = Setting(query_timeout=5)
    client = setting.client()
    client.ask("slow c1")
    setting.world.pass_time(3)
    setting.cluster.cancel(client.session.server)  # type: ignore[union-attr]
    setting.world.settle()
    assert client.errors[0].message == "canceling statement due to user request"


def test_a_timeout_whose_cancel_came_too_late_is_not_told_for_a_later_query() -> None:
    setting = Setting(query_timeout=5)
    client = setting.client()
    setting.world.hold_cancels = True
    client.ask("slow c1")
    setting.world.pass_time(5)
    setting.cluster.processes[0].release()
    setting.world.hold_cancels = False
    setting.world.settle()
    client.ask("slow c1")
    setting.world.settle()
    setting.cluster.cancel(client.session.server)  # type: ignore[union-attr]
    setting.world.settle()
    assert [failure.message for failure in client.errors] == ["canceling statement due to user request"]


def test_an_idle_session_costs_no_looks() -> None:
    setting = Setting(query_timeout=5, transaction_timeout=5, idle_transaction_timeout=5, server_lifetime=0)
    client = setting.client()
    client.ask("row c1")
    setting.world.pass_time(20)
    assert client.session.due == 0  # type: ignore[union-attr]


# -- transaction_timeout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_transaction_that_takes_too_long_ends_its_client(mode: PoolMode) -> None:
    setting = Setting(pool_mode=mode, transaction_timeout=10)
    client = setting.client()
    client.ask("begin c1")
    for _ in range(3):
        setting.world.pass_time(3)
        client.ask("row c1")
    setting.world.pass_time(0.5)
    assert client.errors == []
    setting.world.pass_time(1)
    assert client.sqlstates == ["25P04"]
    assert "transaction_timeout" in client.errors[0].message
    (process,) = setting.cluster.alive
    assert process.status == "I"


@pytest.mark.parametrize("mode", MODES)
def test_a_statement_of_its_own_is_a_transaction_and_is_canceled(mode: PoolMode) -> None:
    setting = Setting(pool_mode=mode, transaction_timeout=10)
    client = setting.client()
    client.ask("slow c1")
    setting.world.pass_time(11)
    assert client.sqlstates == ["25P04"]
    assert len(setting.cluster.canceled) == 1
    assert setting.sizes == (1, 0, 0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_many_short_transactions_are_no_long_one(mode: PoolMode) -> None:
    setting = Setting(pool_mode=mode, transaction_timeout=10, server_lifetime=0)
    client = setting.client()
    for _ in range(8):
        client.say(query("begin c1") + query("row c1") + query("commit c1") + query("begin c1") + query("commit c1"))
        setting.world.pass_time(4)
    assert client.errors == []
    assert len(client.rows) == 8


# -- idle_transaction_timeout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "half",
    [
        query("begin c1"),
        query("begin c1") + query("fail c1"),
        query("row c1" + " " * 10_000)[:-1],
        extended("row c1", sync=False),
        extended("row c1", sync=False) + BIND[:6],
        extended("fail c1", sync=False),
        query("copyin c1"),
        query("copyin c1") + copy_data("c1"),
    ],
)
def test_a_lease_in_which_the_server_waits_for_the_client_too_long_ends(mode: PoolMode, half: bytes) -> None:
    """Half a Bind holds a server as well as an open transaction does."""
    setting = Setting(pool_mode=mode, idle_transaction_timeout=5)
    client = setting.client()
    client.say(half)
    setting.world.pass_time(4)
    assert "25P03" not in client.sqlstates
    setting.world.pass_time(1.5)
    assert client.sqlstates[-1] == "25P03"
    assert "idle_transaction_timeout" in client.errors[-1].message
    setting.world.pass_time(40)
    assert not any(pool.busy for pool in setting.world.pools)
    other = setting.client()
    other.ask("row c2")
    setting.world.settle()
    assert other.rows == ["c2"]
    assert not setting.cluster.complaints


@pytest.mark.parametrize("mode", MODES)
def test_a_transaction_with_traffic_or_a_running_query_is_not_idle(mode: PoolMode) -> None:
    setting = Setting(pool_mode=mode, idle_transaction_timeout=5)
    client = setting.client()
    client.say(query("begin c1"))
    setting.world.pass_time(4)
    client.say(query("slow c1"))
    setting.world.pass_time(50)
    assert client.errors == []
    setting.cluster.processes[0].release()
    setting.world.pass_time(4)
    client.say(query("copyin c1"))
    for _ in range(5):
        setting.world.pass_time(4)
        client.say(copy_data("c1"))
    client.say(COPY_DONE + query("commit c1"))
    setting.world.pass_time(20)
    assert client.errors == []


@pytest.mark.parametrize("mode", MODES)
def test_outside_of_a_transaction_nobody_is_idle_in_one(mode: PoolMode) -> None:
    setting = Setting(pool_mode=mode, idle_transaction_timeout=5, server_lifetime=0)
    client = setting.client()
    client.say(query("row c1") + SYNC)
    setting.world.pass_time(1000)
    assert client.errors == []


def test_a_shorter_limit_of_a_reload_counts_from_the_next_request() -> None:
    setting = Setting()
    client = setting.client()
    client.ask("begin c1")
    setting.world.settle()
    setting.world.reload(configure(idle_transaction_timeout=5))
    client.ask("row c1")
    setting.world.pass_time(6)
    assert client.sqlstates == ["25P03"]
    assert setting.world.pool.idle[0].status == codes.IDLE
