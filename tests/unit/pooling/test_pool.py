"""One pool: who gets which connection, the limits, and the time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import PoolMode
from pgpooler.errors import ServerUnavailable
from pgpooler.pooling.states import ServerState
from tests.scripted import Client, PostgreSQL, Setting, error


def test_the_connection_used_last_is_used_next() -> None:
    """W27: a stack, not a queue, so that what is not needed grows old and is closed."""
    setting = Setting(pool_size=3)
    clients = setting.clients(3)
    assert [setting.server(client) for client in clients] == [1, 2, 3]
    setting.leave(clients[1], clients[0], clients[2])
    assert setting.server(setting.client()) == 3
    assert setting.server(setting.client()) == 1
    assert setting.server(setting.client()) == 2


def test_no_more_connections_are_opened_than_pool_size() -> None:
    setting = Setting(pool_size=2)
    setting.clients(5)
    assert setting.sizes == (0, 2, 0, 3)
    assert len(setting.cluster.processes) == 2


def test_pool_size_0_is_no_limit() -> None:
    setting = Setting(pool_size=0)
    setting.clients(40)
    assert setting.sizes == (0, 40, 0, 0)


def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    """W9: nobody overtakes, nobody is lost."""
    setting = Setting(pool_size=1)
    clients = setting.clients(5)
    for client, following in itertools.pairwise(clients):
        assert client.logged_in
        assert not following.logged_in
        setting.leave(client)
    assert clients[-1].logged_in


def test_a_newcomer_does_not_overtake_a_waiter() -> None:
    setting = Setting(pool_size=1)
    first, waiter = setting.clients(2)
    setting.world.hold_opens = True
    first.terminate()
    newcomer = Client(setting.world, "newcomer")
    setting.world.settle()
    assert waiter.logged_in
    assert not newcomer.logged_in


def test_a_waiter_who_leaves_is_passed_over() -> None:
    setting = Setting(pool_size=1)
    first, second, third = setting.clients(3)
    second.leave()
    setting.world.settle()
    assert setting.sizes == (0, 1, 0, 1)
    setting.leave(first)
    assert third.logged_in


def test_a_waiter_is_served_when_a_connection_is_closed_instead_of_returned() -> None:
    """W9: a free place is as good as a free connection."""
    setting = Setting(pool_size=1)
    first, second = setting.clients(2)
    setting.cluster.processes[0].crash()
    setting.world.settle()
    assert first.over
    assert second.logged_in
    assert second.process_id == 2


def test_a_connection_opened_for_a_waiter_who_left_serves_the_next_client() -> None:
    setting = Setting(pool_size=1)
    setting.world.hold_opens = True
    client = setting.client()
    client.leave()
    setting.world.hold_opens = False
    setting.world.settle()
    assert setting.sizes == (1, 0, 0, 0)
    assert setting.client().process_id == 1


def test_who_waits_longer_than_query_wait_timeout_is_told_why() -> None:
    setting = Setting(pool_size=1, query_wait_timeout=5)
    _, second = setting.clients(2)
    setting.world.pass_time(4.9)
    assert not second.over
    setting.world.pass_time(0.1)
    assert second.over
    (reason,) = second.errors
    assert (reason.severity, reason.sqlstate) == ("FATAL", "53300")
    assert "query_wait_timeout" in reason.message
    setting.world.check_limits()


def test_query_wait_timeout_0_waits_for_ever() -> None:
    """W16: 0 is no limit, and not a limit of no time."""
    setting = Setting(pool_size=1, query_wait_timeout=0)
    first, second = setting.clients(2)
    setting.world.pass_time(100_000)
    assert not second.over
    setting.leave(first)
    assert second.logged_in


def test_each_waiter_has_a_time_of_its_own() -> None:
    setting = Setting(pool_size=1, query_wait_timeout=5)
    _, second = setting.clients(2)
    setting.world.pass_time(3)
    third = setting.client()
    setting.world.pass_time(2)
    assert second.over
    assert not third.over
    setting.world.pass_time(3)
    assert third.over


def test_max_queue_bounds_how_many_wait() -> None:
    setting = Setting(pool_size=1, max_queue=2)
    clients = setting.clients(4)
    assert [client.over for client in clients] == [False, False, False, True]
    assert clients[3].sqlstates == ["53300"]
    assert setting.sizes == (0, 1, 0, 2)


def test_clients_for_whom_a_connection_is_being_opened_do_not_count_for_max_queue() -> None:
    setting = Setting(pool_size=3, max_queue=1)
    setting.world.hold_opens = True
    clients = setting.clients(5)
    assert [client.over for client in clients] == [False, False, False, False, True]
    setting.world.hold_opens = False
    setting.world.settle()
    assert [client.logged_in for client in clients] == [True, True, True, False, False]


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_connection_idle_for_server_idle_timeout_is_closed_and_its_place_is_free() -> None:
    """W17: a limit that closes nothing keeps its slot for ever."""
    setting = Setting(pool_size=1, server_idle_timeout=50)
    setting.leave(setting.client())
    setting.world.pass_time(49)
    assert setting.sizes == (1, 0, 0, 0)
    setting.world.pass_time(1)
    assert setting.cluster.alive == []
    assert setting.world.counts()["used"] == 0
    assert setting.client().logged_in


def test_the_time_in_use_is_no_time_of_idleness() -> None:
    setting = Setting(pool_size=1, server_idle_timeout=50)
    client = setting.client()
    setting.world.pass_time(49)
    setting.leave(client)
    setting.world.pass_time(49)
    assert setting.sizes == (1, 0, 0, 0)
    setting.world.pass_time(1)
    assert setting.cluster.alive == []


def test_an_old_connection_is_closed_while_idle() -> None:
    """W17"""
    setting = Setting(pool_size=1, server_lifetime=50, server_idle_timeout=0)
    setting.leave(setting.client())
    setting.world.pass_time(51)
    assert setting.cluster.alive == []
    assert setting.world.counts()["used"] == 0


def test_an_old_connection_is_closed_when_it_comes_back_and_a_waiter_gets_a_new_one() -> None:
    """W17"""
    setting = Setting(pool_size=1, server_lifetime=50, query_wait_timeout=0)
    first = setting.client()
    setting.world.pass_time(60)
    second = setting.client()
    assert first.logged_in
    setting.leave(first)
    assert second.process_id == 2


def test_connections_do_not_all_grow_old_at_once() -> None:
    setting = Setting(pool_size=20, server_lifetime=1000)
    setting.clients(20)
    ages = {server.expires_at - setting.world.now for server in setting.world.pool.busy}
    assert len(ages) == 20
    assert all(900 <= age <= 1000 for age in ages)


@given(st.floats(0, 1e9), st.floats(0.001, 500), st.floats(0.001, 500))
def test_no_rounding_of_time_keeps_the_pool_from_its_work(start: float, idle: float, wait: float) -> None:
    setting = Setting(pool_size=1, server_idle_timeout=idle, query_wait_timeout=wait, server_lifetime=0)
    setting.world.now += start
    first, second = setting.clients(2)
    setting.world.pass_time(wait * 1.01 + 1)
    assert second.over
    setting.leave(first)
    setting.world.pass_time(idle * 1.01 + 200)
    assert setting.cluster.alive == [] or idle > 59, "closed, or probed again and again"
    setting.world.pass_time(idle)
    setting.world.check_limits()


def test_a_quiet_connection_is_asked_for_a_sign_of_life() -> None:
    """W18: a dead server is noticed before somebody needs it."""
    setting = Setting(pool_size=2, server_idle_timeout=0)
    setting.leave(*setting.clients(2))
    setting.world.pass_time(61)
    assert [process.statements[-1] for process in setting.cluster.processes] == [";", ";"]
    assert setting.sizes == (2, 0, 0, 0)


def test_a_connection_that_gives_no_sign_of_life_is_closed() -> None:
    """W18"""
    setting = Setting(pool_size=1, server_idle_timeout=0)
    setting.leave(setting.client())
    setting.cluster.processes[0].stalled = True
    setting.world.pass_time(60 + 9.9)
    assert setting.sizes == (0, 1, 0, 0)
    setting.world.pass_time(0.2)
    assert setting.world.counts()["used"] == 0


def test_a_probe_does_not_make_a_connection_younger() -> None:
    setting = Setting(pool_size=1, server_idle_timeout=100)
    setting.leave(setting.client())
    setting.world.pass_time(100)
    assert setting.cluster.alive == []


def test_a_client_that_comes_during_a_probe_gets_the_connection_after_it() -> None:
    setting = Setting(pool_size=1, server_idle_timeout=0)
    setting.leave(setting.client())
    setting.cluster.processes[0].stalled = True
    setting.world.pass_time(61)
    client = setting.client()
    assert not client.logged_in
    setting.cluster.processes[0].stalled = False
    setting.world.settle()
    assert client.process_id == 1


def test_a_connection_comes_back_from_its_probe_for_another_pool_that_waits() -> None:
    setting = Setting(pool_size=1, backend_pool_size=1, server_idle_timeout=0)
    setting.leave(setting.client("alice"))
    setting.cluster.processes[0].stalled = True
    setting.world.pass_time(61)
    client = setting.client("bob")
    assert not client.logged_in
    setting.cluster.processes[0].stalled = False
    setting.world.settle()
    assert client.logged_in
    setting.world.check_limits()


@pytest.mark.parametrize("end", [PostgreSQL.terminate, PostgreSQL.crash])
def test_an_idle_connection_that_dies_is_noticed_at_once(end) -> None:  # type: ignore[no-untyped-def]
    """W18.  PgDog #1318: a connection that had been closed was handed out."""
    setting = Setting(pool_size=1)
    setting.leave(setting.client())
    end(setting.cluster.processes[0])
    setting.world.settle()
    assert setting.world.counts()["used"] == 0
    assert setting.client().process_id == 2


def test_an_idle_connection_that_said_farewell_is_leased_to_nobody() -> None:
    """W18: the server's last words may arrive before its end does."""
    setting = Setting(pool_size=1)
    setting.leave(setting.client())
    process = setting.cluster.processes[0]
    process.say(error("57P01", "terminating connection due to administrator command", "FATAL"))
    setting.world.settle()
    assert setting.client().process_id == 2


def test_a_connection_that_is_in_a_transaction_after_its_probe_is_leased_to_nobody() -> None:
    setting = Setting(pool_size=1, server_idle_timeout=0)
    setting.leave(setting.client())
    setting.cluster.processes[0].status = "T"
    setting.world.pass_time(61)
    assert setting.cluster.alive == []
    assert setting.client().process_id == 2


# -- failures ----------------------------------------------------------------------------------------------------------


def test_while_nobody_can_connect_clients_are_told_the_reason_at_once() -> None:
    setting = Setting(pool_size=2)
    setting.world.unreachable["primary"] = "Connection refused"
    first, second = setting.clients(2)
    assert first.sqlstates == second.sqlstates == ["08006"]
    assert first.errors[0].detail == second.errors[0].detail == "Connection refused"
    assert setting.world.opening == []


def test_after_a_failure_the_next_attempt_waits_and_the_wait_doubles() -> None:
    setting = Setting(pool_size=1)
    setting.world.unreachable["primary"] = "Connection refused"
    waits = []
    for _ in range(8):
        setting.client()
        pool = setting.world.pool
        waits.append(pool.retry_at - setting.world.now)
        setting.world.now = pool.retry_at  # nobody looked meanwhile, so the pool still remembers
    for number, wait in enumerate(waits):
        most = min(0.1 * 2**number, 5.0)
        assert most / 2 <= wait <= most


def test_when_the_pause_is_over_the_next_client_is_served() -> None:
    setting = Setting(pool_size=1)
    setting.world.unreachable["primary"] = "Connection refused"
    setting.client()
    del setting.world.unreachable["primary"]
    assert setting.client().sqlstates == ["08006"], "the failure is remembered"
    setting.world.pass_time(0.1)
    assert setting.client().logged_in
    assert setting.world.pool.failure is None


def test_once_somebody_could_connect_clients_need_no_server_to_log_in() -> None:
    setting = quiet(pool_size=1)
    first, second, third = (Client(setting.world) for _ in range(3))
    setting.world.settle()
    setting.cluster.alive[0].crash()
    setting.world.unreachable["primary"] = "Connection refused"
    setting.world.settle()
    first.ask("row c")
    setting.world.settle()
    assert first.sqlstates == ["08006"]
    del setting.world.unreachable["primary"]
    setting.world.pass_time(0.1)
    second.ask("slow c")
    setting.world.settle()
    fourth = Client(setting.world)
    setting.world.settle()
    assert (third.logged_in, fourth.logged_in) == (True, True), "although the only server connection is in use"


def test_parameters_that_no_server_has_seen_are_shown_to_one_before_the_client_is_let_in() -> None:
    setting = quiet()
    assert setting.client().logged_in
    client = Client(setting.world, "broken")
    setting.world.settle()
    assert not client.logged_in
    assert client.sqlstates == ["42704"]


def test_a_failure_does_not_refuse_those_whom_another_connection_may_serve() -> None:
    setting = Setting(pool_size=2)
    first = setting.client()
    setting.world.unreachable["primary"] = "Connection refused"
    second = setting.client()
    assert not second.over
    setting.leave(first)
    assert second.process_id == 1


def test_a_waiter_is_tried_again_for_after_the_pause() -> None:
    setting = Setting(pool_size=2)
    setting.client()
    setting.world.unreachable["primary"] = "Connection refused"
    second = setting.client()
    del setting.world.unreachable["primary"]
    setting.world.pass_time(0.1)
    assert second.process_id == 2


def test_who_waits_in_vain_for_an_unreachable_server_is_told_its_failure() -> None:
    setting = Setting(pool_size=1, query_wait_timeout=5)
    setting.client()
    setting.world.unreachable["primary"] = "Connection refused"
    setting.cluster.processes[0].stalled = True
    second = setting.client()
    setting.world.pass_time(5)
    assert second.over
    assert "query_wait_timeout" in second.errors[0].message


def test_a_login_that_the_server_refuses_is_told_in_its_own_words() -> None:
    setting = Setting(pool_size=1)
    setting.cluster.refusal = error("3D000", "no such database", "FATAL")
    client = setting.client()
    assert client.sqlstates == ["3D000"]
    assert client.errors[0].message == "no such database"
    assert setting.world.counts()["used"] == 0


def test_a_server_that_does_not_answer_the_login_is_given_up_after_server_connect_timeout() -> None:
    setting = Setting(pool_size=1, server_connect_timeout=3)
    setting.world.serve = lambda port, pool: None
    client = setting.client()
    setting.world.pass_time(3)
    assert client.sqlstates == ["08006"]
    assert "server_connect_timeout" in client.errors[0].message
    assert setting.world.counts()["used"] == 0


def test_server_connect_timeout_0_is_no_limit() -> None:
    setting = Setting(pool_size=1, server_connect_timeout=0, query_wait_timeout=0)
    setting.world.serve = lambda port, pool: None
    client = setting.client()
    setting.world.pass_time(100_000)
    assert setting.sizes == (0, 0, 1, 1)
    assert client.errors == []


# -- several pools of a backend ----------------------------------------------------------------------------------------


def test_the_cap_of_a_backend_holds_over_all_its_pools() -> None:
    setting = Setting(pool_size=5, backend_pool_size=3)
    setting.clients(3, "alice")
    setting.clients(3, "bob")
    assert len(setting.cluster.alive) == 3


def test_a_place_under_the_cap_goes_to_whoever_has_waited_longest() -> None:
    """W9 (d): waiters of another user are woken too."""
    setting = Setting(pool_size=5, backend_pool_size=1)
    first = setting.client("alice")
    second = setting.client("bob")
    third = setting.client("carol")
    setting.leave(first)
    assert second.logged_in
    assert not third.logged_in
    setting.leave(second)
    assert third.logged_in


def test_an_idle_connection_of_another_pool_makes_room_at_once() -> None:
    """W9 (d): idle connections of one user do not starve all others."""
    setting = Setting(pool_size=5, backend_pool_size=2)
    setting.leave(*setting.clients(2, "alice"))
    assert setting.client("bob").logged_in
    assert len(setting.cluster.alive) == 2


def test_the_connection_that_was_idle_longest_makes_room() -> None:
    setting = Setting(pool_size=5, backend_pool_size=2)
    setting.leave(setting.client("alice"))
    setting.world.pass_time(1)
    setting.leave(setting.client("carol"))
    setting.client("bob")
    assert [process.user for process in setting.cluster.alive] == ["carol", "bob"]


def test_room_that_one_pool_made_is_not_taken_twice() -> None:
    """Closing an idle connection must not let another pool open one, and then the first open another."""
    setting = Setting(pool_size=5, backend_pool_size=2)
    first = setting.client("alice")
    setting.leave(setting.client("carol"))
    setting.world.unreachable["primary"] = "Connection refused"
    setting.client("bob")
    second = setting.client("alice")
    setting.world.unreachable.clear()
    setting.world.pass_time(30)
    setting.world.check_limits()
    setting.leave(first)
    setting.world.check_limits()
    assert second.logged_in or second.over


def test_a_busy_connection_is_given_to_another_pool_only_after_fairness_delay() -> None:
    setting = Setting(pool_size=5, backend_pool_size=1)
    first, second, third = setting.clients(3, "alice")
    other = setting.client("bob")
    setting.leave(first)
    assert second.logged_in, "no login for each turn"
    assert not other.logged_in
    setting.world.pass_time(0.11)
    setting.leave(second)
    assert other.logged_in
    assert not third.logged_in
    setting.leave(other)
    assert third.logged_in


def test_pools_take_turns_at_most_once_per_fairness_delay() -> None:
    setting = Setting(pool_size=5, backend_pool_size=1)
    first, second = setting.clients(2, "alice")
    bobs = setting.clients(2, "bob")
    setting.world.pass_time(0.11)
    setting.leave(first)
    assert bobs[0].logged_in
    setting.leave(bobs[0])
    assert bobs[1].logged_in, "a transfer has just been"
    setting.world.pass_time(0.11)
    setting.leave(bobs[1])
    assert second.logged_in


def test_who_gives_a_connection_to_a_pool_that_needs_none_any_more_opens_it_again() -> None:
    setting = Setting(pool_size=5, backend_pool_size=2)
    first = setting.client("alice")
    setting.world.hold_opens = True
    bob, second = setting.client("bob"), setting.client("alice")
    setting.world.pass_time(0.11)
    setting.leave(first)
    setting.world.hold_opens = False
    setting.world.settle()
    assert bob.logged_in
    assert second.logged_in


def test_a_pool_that_cannot_connect_takes_nobody_elses_connection() -> None:
    setting = Setting(pool_size=5, backend_pool_size=2)
    (first, second), bob = setting.clients(2, "alice"), setting.client("bob")
    third = setting.client("alice")
    setting.world.pass_time(1)
    pools = {pool.key.user: pool for pool in setting.world.pools}
    pools["bob"].retry_at = setting.world.now + 3
    setting.leave(first)
    assert third.process_id == first.process_id
    assert not bob.logged_in
    setting.leave(second)
    setting.world.pass_time(4)
    assert bob.logged_in


# -- in words ----------------------------------------------------------------------------------------------------------


def test_a_pool_describes_itself() -> None:
    setting = Setting(pool_size=1)
    setting.clients(2)
    pool = setting.world.pool
    assert repr(pool) == "<Pool shop.alice.primary: 0 idle, 1 in use, 0 opening, 1 waiting>"
    assert pool.snapshot() == {
        "id": 1,
        "name": "shop.alice.primary",
        "backend": "primary",
        "database": "shop",
        "user": "alice",
        "replication": False,
        "pool_mode": "session",
        "pool_size": 1,
        "idle": 0,
        "in_use": 1,
        "opening": 0,
        "waiting": 1,
        "pinned": [],
        "paused": False,
    }
    (server,) = pool.busy
    assert server.state is ServerState.ACTIVE
    assert "ACTIVE" in repr(server)


def test_a_failed_opening_without_anybody_waiting_is_only_remembered() -> None:
    setting = Setting(pool_size=1)
    setting.world.hold_opens = True
    client = setting.client()
    client.leave()
    setting.world.settle()
    setting.world.answer_open(error=ServerUnavailable("no"))
    assert len(setting.world.service.pools) == 1, "so that the next client does not try at once"
    setting.world.pass_time(1)
    assert len(setting.world.service.pools) == 0


# -- min_pool_size -----------------------------------------------------------------------------------------------------


def quiet(**settings: object) -> Setting:
    """Nobody waits in session mode, so that what opens connections is the pool itself."""
    return Setting(**{"pool_mode": PoolMode.TRANSACTION, "pool_size": 5, **settings})


def test_min_pool_size_connections_are_kept_while_there_are_clients() -> None:
    setting = quiet(min_pool_size=3, server_idle_timeout=10)
    client = setting.client()
    assert setting.sizes == (3, 0, 0, 0)
    setting.world.pass_time(100)
    assert setting.sizes == (3, 0, 0, 0)
    setting.leave(client)
    setting.world.pass_time(100)
    assert len(setting.world.pools) == 0


def test_more_than_min_pool_size_are_closed_when_idle() -> None:
    setting = quiet(min_pool_size=1, server_idle_timeout=10)
    clients = setting.clients(3)
    for client in clients:
        client.ask(f"slow {client.token}")
    setting.world.settle()
    assert setting.sizes == (0, 3, 0, 0)
    for process in setting.cluster.processes:
        process.release()
    setting.world.pass_time(11)
    assert setting.sizes == (1, 0, 0, 0)


def test_a_connection_that_dies_is_replaced_up_to_min_pool_size_but_not_without_end() -> None:
    setting = quiet(min_pool_size=2)
    setting.client()
    setting.cluster.alive[0].terminate()
    setting.world.settle()
    assert setting.sizes == (1, 0, 0, 0)
    setting.world.pass_time(0.2)
    assert setting.sizes == (2, 0, 0, 0)
    made = len(setting.cluster.processes)
    setting.cluster.refusal = error("53300", "sorry, too many clients already", "FATAL")
    setting.cluster.alive[0].terminate()
    setting.world.pass_time(60)
    assert len(setting.cluster.processes) - made < 30, "the pause between attempts grows"
    setting.cluster.refusal = b""
    setting.world.pass_time(6)
    assert setting.sizes == (2, 0, 0, 0)


def test_min_pool_size_takes_no_connection_from_another_pool() -> None:
    setting = quiet(min_pool_size=3, backend_pool_size=4)
    setting.client()
    setting.client("bob")
    assert sorted(len(pool.idle) for pool in setting.world.pools) == [1, 3]
    setting.world.pass_time(30)
    assert sorted(len(pool.idle) for pool in setting.world.pools) == [1, 3]


# -- the reserve -------------------------------------------------------------------------------------------------------


def test_the_reserve_is_used_when_somebody_has_waited_reserve_pool_timeout() -> None:
    setting = Setting(pool_size=1, reserve_pool_size=2, reserve_pool_timeout=5)
    setting.clients(5)
    assert setting.sizes == (0, 1, 0, 4)
    setting.world.pass_time(4.9)
    assert setting.sizes == (0, 1, 0, 4)
    setting.world.pass_time(0.2)
    assert setting.sizes == (0, 3, 0, 2)
    setting.world.pass_time(30)
    assert setting.sizes == (0, 3, 0, 2)


def test_the_reserve_is_closed_again_once_nobody_waits() -> None:
    setting = Setting(pool_size=1, reserve_pool_size=1, reserve_pool_timeout=5, server_idle_timeout=0)
    one, other = setting.clients(2)
    setting.world.pass_time(5)
    assert setting.sizes == (0, 2, 0, 0)
    setting.leave(one, other)
    assert setting.sizes == (2, 0, 0, 0), "it is there, and is used like any other"
    setting.cluster.alive[0].terminate()
    setting.cluster.alive[0].terminate()
    setting.clients(2)
    assert setting.sizes == (0, 1, 0, 1), "but it is not opened anew before somebody has waited"


def test_the_reserve_is_not_opened_by_a_look_at_the_clock_while_nobody_waits() -> None:
    setting = quiet(pool_size=1, reserve_pool_size=1, reserve_pool_timeout=5, server_idle_timeout=10)
    one, other = setting.clients(2)
    setting.world.pass_time(11)
    for client in (one, other):
        client.ask(f"slow {client.token}")
    setting.world.settle()
    assert setting.sizes == (0, 1, 0, 1)


@pytest.mark.parametrize(("reserve", "after"), [(0, 5), (2, 0)])
def test_there_is_no_reserve_without_its_size_and_its_time(reserve: int, after: float) -> None:
    setting = Setting(pool_size=1, reserve_pool_size=reserve, reserve_pool_timeout=after)
    setting.clients(3)
    setting.world.pass_time(50)
    assert setting.sizes == (0, 1, 0, 2)


def test_the_reserve_never_exceeds_the_cap_of_the_backend() -> None:
    setting = Setting(pool_size=1, reserve_pool_size=5, reserve_pool_timeout=1, backend_pool_size=2)
    setting.clients(4)
    setting.world.pass_time(10)
    assert setting.sizes == (0, 2, 0, 2)


# -- pause and resume --------------------------------------------------------------------------------------------------


def test_a_paused_pool_closes_its_connections_and_lets_everybody_wait() -> None:
    setting = quiet(pool_size=2)
    busy, other = setting.clients(2)
    busy.ask(f"slow {busy.token}")
    setting.world.settle()
    other.ask(f"row {other.token}")
    setting.world.settle()
    world = setting.world
    assert world.service.pools.pause(world.now) == 1
    assert setting.sizes == (0, 1, 0, 0)
    other.ask(f"row {other.token}")
    setting.cluster.process_of(next(iter(world.pool.busy))).release()
    world.settle()
    assert busy.rows == [busy.token]
    assert setting.sizes == (0, 0, 0, 1)
    world.pass_time(30)
    assert setting.cluster.alive == []
    world.service.pools.resume(world.now)
    world.settle()
    assert other.rows == [other.token] * 2
    assert other.errors == []


def test_who_waits_too_long_for_a_paused_pool_is_told_that_it_is_paused() -> None:
    setting = Setting(query_wait_timeout=5)
    setting.world.service.pools.pause(setting.world.now)
    client = setting.client()
    assert not client.logged_in
    setting.world.pass_time(5)
    assert client.sqlstates == ["57P03"]
    assert "paused" in client.errors[0].message


def test_a_connection_that_was_being_opened_when_the_pause_came_is_not_leased() -> None:
    setting = Setting(pool_size=1)
    setting.world.hold_opens = True
    client = setting.client()
    setting.world.service.pools.pause(setting.world.now)
    setting.world.hold_opens = False
    setting.world.settle()
    assert not client.logged_in
    assert setting.cluster.alive == []
    setting.world.service.pools.resume(setting.world.now)
    setting.world.settle()
    assert client.logged_in


def test_a_pool_made_during_a_pause_is_paused() -> None:
    setting = Setting()
    setting.world.service.pools.pause(setting.world.now)
    client = setting.client("bob")
    assert not client.logged_in
    setting.world.service.pools.resume(setting.world.now)
    setting.world.settle()
    assert client.logged_in
    assert setting.client("carol").logged_in, "and one made after it is not"
