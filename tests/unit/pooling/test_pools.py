"""All pools: which client belongs to which, what a reload changes, and when a pool is forgotten."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import PatternKind
from pgpooler.config.model import Backend, Configuration, Pattern, Rule
from tests.memory import configure
from tests.scripted import Client, Setting

PRIMARY = Backend(name="primary", host="pg1")
REPLICA = Backend(name="replica", host="pg2")


def only(name: str) -> tuple[Pattern, ...]:
    return (Pattern(kind=PatternKind.EXACT, text=name),)


def two_backends(*rules: Rule) -> Configuration:
    return configure(backends=(PRIMARY, REPLICA), rules=rules)


def test_clients_of_the_same_database_and_user_share_a_pool() -> None:
    setting = Setting(pool_size=5)
    setting.clients(2, "alice")
    setting.client("bob")
    Client(setting.world, "x", database="other")
    setting.world.settle()
    keys = {(pool.key.database, pool.key.user): len(pool.busy) for pool in setting.world.pools}
    assert keys == {("shop", "alice"): 2, ("shop", "bob"): 1, ("other", "alice"): 1}


def test_pools_have_different_numbers() -> None:
    setting = Setting()
    setting.client("alice")
    setting.client("bob")
    assert [pool["id"] for pool in setting.world.service.pools.snapshot()] == [1, 2]
    assert len(setting.world.service.pools) == 2


def test_rules_decide_the_backend_of_a_pool() -> None:
    setting = Setting(
        backends=(PRIMARY, REPLICA), rules=(Rule(user=only("bob"), backend="replica"), Rule(backend="primary"))
    )
    setting.client("alice")
    setting.client("bob")
    assert [pool.key.backend for pool in setting.world.pools] == ["primary", "replica"]
    assert [use["server_connections"] for use in setting.world.service.pools.backends_snapshot()] == [1, 1]


def test_a_pool_without_connections_and_clients_is_forgotten() -> None:
    setting = Setting(server_idle_timeout=10)
    client = setting.client()
    setting.world.pass_time(100)
    assert len(setting.world.service.pools) == 1, "its client is still there"
    setting.leave(client)
    assert len(setting.world.service.pools) == 1, "its connection is still there"
    setting.world.pass_time(10)
    assert len(setting.world.service.pools) == 0
    assert all(not use.pools for use in setting.world.service.pools._uses.values())


def test_a_pool_whose_last_connection_made_room_for_another_is_forgotten() -> None:
    setting = Setting(backend_pool_size=1)
    setting.leave(setting.client("alice"))
    setting.client("bob")
    assert [pool.key.user for pool in setting.world.pools] == ["bob"]


def test_a_failure_is_remembered_as_long_as_it_matters() -> None:
    setting = Setting()
    setting.world.unreachable["primary"] = "Connection refused"
    setting.client()
    assert len(setting.world.service.pools) == 1
    setting.world.pass_time(1)
    assert len(setting.world.service.pools) == 0


# -- reload ------------------------------------------------------------------------------------------------------------


def test_a_larger_pool_serves_waiters_at_once() -> None:
    setting = Setting(pool_size=1)
    _, second, third = setting.clients(3)
    setting.world.reload(configure(pool_size=2))
    setting.world.settle()
    assert second.logged_in
    assert not third.logged_in


def test_a_smaller_pool_closes_idle_connections_at_once_and_busy_ones_as_they_come_back() -> None:
    setting = Setting(pool_size=3)
    clients = setting.clients(3)
    setting.leave(clients.pop())
    setting.world.reload(configure(pool_size=1))
    setting.world.settle()
    assert setting.sizes == (0, 2, 0, 0)
    setting.leave(clients[0])
    assert setting.sizes == (0, 1, 0, 0)
    setting.leave(clients[1])
    assert setting.sizes == (1, 0, 0, 0)


def test_a_lower_cap_of_the_backend_closes_what_is_above_it_as_it_comes_back() -> None:
    setting = Setting(pool_size=3, backend_pool_size=3)
    alice, bob = setting.client("alice"), setting.client("bob")
    setting.leave(setting.client("alice"))
    setting.world.reload(configure(pool_size=3, backend_pool_size=1))
    setting.world.settle()
    assert len(setting.cluster.alive) == 2
    alice.terminate()
    setting.world.settle()
    assert len(setting.cluster.alive) == 1
    setting.leave(bob)
    assert len(setting.cluster.alive) == 1


def test_a_reload_that_changes_nothing_disturbs_nobody() -> None:
    setting = Setting(pool_size=1)
    first, second = setting.clients(2)
    setting.world.reload(configure(pool_size=1))
    setting.leave(first)
    assert second.process_id == first.process_id


def test_who_waits_in_a_pool_that_is_gone_waits_where_the_new_rules_say() -> None:
    setting = Setting(backends=(PRIMARY, REPLICA))
    first, second = setting.clients(2)
    setting.world.reload(two_backends(Rule(backend="replica")))
    setting.world.settle()
    assert second.logged_in
    assert second.session.pool.key.backend == "replica"  # type: ignore[union-attr]
    first.ask("row c1")
    setting.world.settle()
    assert first.rows == ["c1"], "who holds a connection keeps it"
    setting.leave(first, second)
    setting.world.pass_time(4000)
    assert set(setting.world.counts().values()) == {0}


@pytest.mark.parametrize("limits", [{"pool_size": 2}, {"pool_size": 0}, {"pool_size": 2, "backend_pool_size": 2}])
def test_a_reload_that_lowers_no_limit_closes_nothing(limits: dict[str, int]) -> None:
    setting = Setting(**limits)
    setting.leave(*setting.clients(2))
    setting.world.reload(configure(**limits))  # type: ignore[arg-type]
    assert setting.sizes == (2, 0, 0, 0)


def test_who_waits_where_the_new_rules_know_no_way_is_told_so() -> None:
    setting = Setting(backends=(PRIMARY, REPLICA))
    first, second = setting.clients(2)
    setting.world.reload(two_backends(Rule(user=only("bob"), backend="replica")))
    setting.world.settle()
    assert second.sqlstates == ["3D000"]
    setting.leave(first)
    assert set(setting.world.counts().values()) == {0}


def test_a_backend_that_moved_gets_new_connections_and_the_old_ones_are_closed() -> None:
    setting = Setting(pool_size=2)
    first, second = setting.clients(2)
    setting.leave(second)
    setting.world.reload(
        configure(pool_size=2, backends=(Backend(name="primary", host="elsewhere"),)),
    )
    setting.world.settle()
    assert [process.number for process in setting.cluster.alive] == [1], "the idle one is closed at once"
    third = setting.client()
    assert third.process_id == 3
    setting.leave(first)
    assert [process.number for process in setting.cluster.alive] == [3]
    setting.leave(third)
    setting.world.pass_time(4000)
    assert set(setting.world.counts().values()) == {0}


def test_a_connection_being_opened_for_a_pool_that_is_gone_is_closed() -> None:
    setting = Setting(backends=(PRIMARY, REPLICA))
    setting.world.hold_opens = True
    client = setting.client()
    setting.world.reload(two_backends(Rule(backend="replica")))
    setting.world.hold_opens = False
    setting.world.settle()
    assert client.logged_in
    assert len(setting.cluster.alive) == 1
    assert [pool.key.backend for pool in setting.world.pools] == ["replica"]


def test_a_connection_being_probed_for_a_pool_that_is_gone_is_closed() -> None:
    setting = Setting(backends=(PRIMARY, REPLICA), server_idle_timeout=0, server_lifetime=0)
    setting.leave(setting.client())
    setting.cluster.processes[0].stalled = True
    setting.world.pass_time(61)
    setting.world.reload(two_backends(Rule(backend="replica")))
    setting.cluster.processes[0].stalled = False
    setting.world.settle()
    assert setting.cluster.alive == []
    assert set(setting.world.counts().values()) == {0}


def test_a_pool_that_is_gone_leaves_nothing_behind_when_it_had_only_waiters() -> None:
    setting = Setting(backends=(PRIMARY, REPLICA), query_wait_timeout=0)
    setting.world.unreachable["primary"] = "Connection refused"
    client = setting.client()
    setting.world.reload(two_backends(Rule(backend="replica")))
    setting.world.settle()
    assert client.over
    (primary, _) = setting.world.service.pools._uses.values()
    assert primary.pools == []
