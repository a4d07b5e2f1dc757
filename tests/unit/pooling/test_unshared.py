"""Clients that ask for what can be set only at the start of a connection: each has a server connection of its own."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import PoolMode
from pgpooler.config.model import Backend
from pgpooler.config.model import Rule as RoutingRule
from pgpooler.errors import ServerUnavailable
from pgpooler.pooling import unshared
from pgpooler.pooling.parameters import NONE_SET
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes, messages
from tests.memory import configure
from tests.scripted import TERMINATE, Client, PostgreSQL, Recording, Setting

ALONE = {"ignore_system_indexes": "on"}
FORBIDDEN = {"ignore_system_indexes": "forbidden"}
MODES = pytest.mark.parametrize("mode", PoolMode)


def transactions(**settings: object) -> Setting:
    return Setting(**{"pool_mode": PoolMode.TRANSACTION, **settings})


def knowing(**settings: object) -> Setting:
    """A pool, without connections in use, that knows already what such a client needs; one client stays in it, idle."""
    setting = transactions(**settings)
    ask(setting, setting.client(), "row c1")
    setting.leave(arrive(setting))
    return setting


def arrive(
    setting: Setting, token: str = "own", parameters: dict[str, str] | None = None, *, user: str = "alice"
) -> Client:
    """A client that needs a server connection of its own comes as far as it can come at once."""
    client = Client(setting.world, token, user=user, parameters=ALONE if parameters is None else parameters)
    step(setting)
    return client


def step(setting: Setting) -> None:
    setting.world.settle()
    setting.world.check_limits()
    assert setting.cluster.complaints == []


def ask(setting: Setting, client: Client, text: str) -> None:
    client.ask(text)
    step(setting)


def serving(setting: Setting, client: Client) -> PostgreSQL:
    assert client.session is not None
    return setting.cluster.process_of(client.session.server)  # type: ignore[attr-defined]


def attempts(setting: Setting) -> int:
    """How often the parameter was to be set on a server connection that was there already."""
    statements = [statement for process in setting.cluster.processes for statement in process.statements]
    return sum("ignore_system_indexes" in statement for statement in statements)


def reasons(setting: Setting) -> list[str]:
    """Why server connections were closed, in order."""
    lines = [text for _, session, text in setting.world.log_lines if session == 0]
    return [text.partition("reason=")[2] for text in lines]


def close_everything(setting: Setting) -> None:
    for process in setting.cluster.processes:
        process.stalled = False
    for port in setting.world.ports:
        if isinstance(port.far, Client):
            port.far.leave()
    setting.world.pass_time(2000)
    assert set(setting.world.counts().values()) == {0}, setting.world.counts()
    assert setting.world.deadlines.next() == 0
    assert setting.world.ports == []


# -- having one --------------------------------------------------------------------------------------------------------


@MODES
def test_the_connection_is_opened_with_everything_that_the_client_sent_as_it_sent_it(mode: PoolMode) -> None:
    setting = Setting(pool_size=2, pool_mode=mode)
    sent = {**ALONE, "TimeZone": "Asia/Tokyo", "options": r"-c  work_mem=1MB --search_path=a\ b"}
    client = arrive(setting, parameters=sent)
    assert client.logged_in
    startup = serving(setting, client).startup
    expected = {"user": "alice", "database": "shop", "application_name": "own", **sent}
    assert {name: value for name, value in startup.items() if name} == expected
    assert serving(setting, client).statements == [], "nothing is left to be set"


def test_other_connections_are_opened_with_nothing_of_a_client() -> None:
    setting = transactions()
    ask(setting, client := setting.client(), "row c1")
    assert client.rows == ["c1"]
    assert [name for name in setting.cluster.processes[0].startup if name] == ["user", "database"]


@MODES
def test_the_client_has_the_connection_from_its_login_until_it_leaves(mode: PoolMode) -> None:
    setting = Setting(pool_size=3, pool_mode=mode)
    client = arrive(setting)
    process = serving(setting, client)
    assert client.process_id == process.number, "there is no other that would ever serve it"
    for _ in range(3):
        ask(setting, client, "row own")
        assert serving(setting, client) is process
    assert client.rows == ["own"] * 3
    client.terminate()
    step(setting)
    assert process.over
    assert process.statements == ["row own"] * 3, "what nobody gets any more needs no cleaning"
    assert reasons(setting) == [unshared.CLOSED_AFTER.format(unshared.REASON)]


def test_no_other_client_gets_it_even_while_it_is_idle() -> None:
    setting = transactions(pool_size=2)
    own = arrive(setting)
    others = setting.clients(3)
    for client in others:
        ask(setting, client, f"row {client.token}")
    ask(setting, own, "row own")
    assert [client.rows for client in (own, *others)] == [["own"], ["c1"], ["c2"], ["c3"]]
    assert serving(setting, own).statements == ["row own"]
    close_everything(setting)


def test_two_such_clients_have_one_each() -> None:
    setting = transactions(pool_size=3)
    one, two = arrive(setting, "one"), arrive(setting, "two")
    assert serving(setting, one) is not serving(setting, two)
    assert len(setting.world.pool.kept) == 2
    close_everything(setting)


def test_the_log_and_the_snapshot_say_who_has_one_and_why() -> None:
    setting = transactions(pool_size=2)
    client = arrive(setting)
    assert ("info", 1, f"pinned to server connection 2 by {unshared.REASON}") in setting.world.log_lines
    pinned = [{"server": 2, "client": 1, "reason": unshared.REASON}]
    assert setting.world.pool.snapshot()["pinned"] == pinned
    setting.leave(client)
    assert setting.world.pool.snapshot()["pinned"] == []


def test_it_does_not_count_against_max_pinned_and_what_the_session_holds_pins_nothing() -> None:
    setting = transactions(pool_size=2, max_pinned=0)
    client = arrive(setting)
    ask(setting, client, "LISTEN own")
    ask(setting, client, "row own")
    assert client.rows == ["own"]
    assert client.errors == []
    assert serving(setting, client).questions == 0
    assert setting.world.pool.pinned == set()


def test_a_block_is_refused_in_statement_mode_and_the_client_goes_on_with_its_connection() -> None:
    setting = Setting(pool_size=2, pool_mode=PoolMode.STATEMENT)
    client = arrive(setting)
    process = serving(setting, client)
    ask(setting, client, "BEGIN")
    ask(setting, client, "row own")
    assert client.sqlstates == ["0A000"]
    assert client.rows == ["own"]
    assert serving(setting, client) is process


def test_what_is_sent_ahead_in_statement_mode_is_answered_one_after_the_other() -> None:
    setting = Setting(pool_size=2, pool_mode=PoolMode.STATEMENT)
    client = arrive(setting)
    client.ask("row own")
    client.ask("row own")
    client.say(TERMINATE)
    step(setting)
    assert client.rows == ["own", "own"]


def test_a_client_that_ends_with_its_first_words_leaves_nothing() -> None:
    setting = transactions(pool_size=2, query_timeout=5)
    client = Client(setting.world, "own", parameters=ALONE)
    client.say(TERMINATE)
    close_everything(setting)


def test_a_client_is_told_when_the_server_ends_its_connection() -> None:
    setting = transactions(pool_size=2)
    client = arrive(setting)
    serving(setting, client).terminate()
    step(setting)
    assert client.sqlstates == ["57P01"]
    assert setting.sizes == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "told"), [(PoolMode.SESSION, []), (PoolMode.TRANSACTION, ["57P05"]), (PoolMode.STATEMENT, ["57P05"])]
)
def test_pinned_idle_timeout_ends_a_quiet_client_where_others_keep_no_connection(
    mode: PoolMode, told: list[str]
) -> None:
    setting = Setting(pool_size=2, pool_mode=mode, pinned_idle_timeout=10)
    client = arrive(setting)
    setting.world.pass_time(9)
    assert client.errors == []
    setting.world.pass_time(2)
    assert client.sqlstates == told


# -- room --------------------------------------------------------------------------------------------------------------


@MODES
def test_the_connection_that_did_not_take_the_setting_stays_for_others(mode: PoolMode) -> None:
    setting = Setting(pool_size=2, pool_mode=mode)
    arrive(setting)
    assert setting.sizes == (1, 1, 0, 0)
    ask(setting, other := setting.client(), "row c1")
    assert other.rows == ["c1"]
    assert len(setting.cluster.processes) == 2
    close_everything(setting)


@MODES
def test_it_makes_room_where_pool_size_allows_no_other(mode: PoolMode) -> None:
    setting = Setting(pool_size=1, pool_mode=mode)
    client = arrive(setting)
    assert client.logged_in
    assert setting.sizes == (0, 1, 0, 0)
    assert reasons(setting) == [unshared.MAKES_ROOM]


def test_an_idle_connection_makes_room_where_the_backend_allows_no_other() -> None:
    setting = transactions(pool_size=5, backend_pool_size=1)
    client = arrive(setting)
    assert client.logged_in
    assert setting.sizes == (0, 1, 0, 0)
    assert reasons(setting) == [unshared.MAKES_ROOM]


def test_an_idle_connection_of_another_pool_makes_room() -> None:
    setting = transactions(pool_size=5, backend_pool_size=2)
    ask(setting, setting.client(user="bob"), "row c1")
    client = arrive(setting, user="alice")
    another = arrive(setting, "another", user="alice")
    assert client.logged_in
    assert another.logged_in
    assert [len(pool.idle) for pool in setting.world.pools] == [0, 0]


def test_a_connection_in_use_in_another_pool_makes_room_after_the_fairness_delay() -> None:
    setting = knowing(pool_size=5, backend_pool_size=1)
    bob = setting.client(user="bob")
    ask(setting, bob, "slow c2")
    client = arrive(setting, user="alice")
    waiter = setting.client(user="bob")
    ask(setting, waiter, "row c3")
    setting.world.pass_time(0.2)
    assert not client.logged_in
    setting.cluster.let_go = True
    for process in setting.cluster.alive:
        process.release()
    step(setting)
    assert client.logged_in
    assert bob.rows == ["c2"]
    assert waiter.rows == []
    setting.leave(client)
    assert waiter.rows == ["c3"]
    close_everything(setting)


def test_room_that_comes_free_is_for_the_client_that_has_waited_longest() -> None:
    setting = transactions(pool_size=1)
    ask(setting, first := setting.client(), "BEGIN")
    own = arrive(setting)
    ask(setting, behind := Client(setting.world, "behind"), "row behind")
    ask(setting, first, "COMMIT")
    assert own.logged_in
    assert not behind.logged_in
    setting.leave(own)
    assert behind.rows == ["behind"]
    close_everything(setting)


def test_known_to_need_its_own_it_waits_for_the_first_room_and_not_for_a_connection() -> None:
    setting = knowing(pool_size=1)
    ask(setting, first := setting.client(), "BEGIN")
    own = arrive(setting)
    ask(setting, behind := Client(setting.world, "behind"), "row behind")
    assert setting.sizes == (0, 1, 0, 2)
    ask(setting, first, "COMMIT")
    assert own.logged_in
    assert not behind.logged_in
    assert attempts(setting) == 1


def test_who_came_before_it_gets_the_connection_that_comes_back() -> None:
    setting = knowing(pool_size=1)
    ask(setting, first := setting.client(), "BEGIN")
    ask(setting, before := Client(setting.world, "before"), "BEGIN")
    own = arrive(setting)
    ask(setting, first, "COMMIT")
    assert before.logged_in
    assert not own.logged_in
    ask(setting, before, "COMMIT")
    assert own.logged_in


def test_while_its_own_is_being_opened_others_get_what_comes_back() -> None:
    setting = knowing(pool_size=2)
    ask(setting, first := setting.client(), "BEGIN")
    setting.world.hold_opens = True
    own = arrive(setting)
    ask(setting, behind := Client(setting.world, "behind"), "row behind")
    ask(setting, first, "COMMIT")
    assert behind.rows == ["behind"]
    assert not own.logged_in
    setting.world.hold_opens = False
    step(setting)
    assert own.logged_in


def test_a_newcomer_gets_an_idle_connection_while_its_own_is_being_opened() -> None:
    setting = transactions(pool_size=2)
    setting.world.hold_opens = True
    own = Client(setting.world, "own", parameters=ALONE)
    setting.world.settle()
    setting.world.answer_open()
    step(setting)
    assert setting.sizes == (1, 0, 1, 1)
    ask(setting, other := setting.client(), "row c1")
    assert other.rows == ["c1"]
    assert not own.logged_in


def test_a_connection_that_is_nobodys_yet_goes_to_the_oldest_waiter() -> None:
    """Two connections are being opened, for one that takes any and one that needs its own."""
    setting = knowing(pool_size=3)
    setting.world.hold_opens = True
    ask(setting, setting.client(), "BEGIN")
    any_other = Client(setting.world, "any")
    step(setting)
    own = arrive(setting)
    assert setting.sizes == (0, 1, 2, 2)
    setting.world.answer_open()
    step(setting)
    assert any_other.logged_in
    assert not own.logged_in
    setting.world.answer_open()
    step(setting)
    assert own.logged_in
    close_everything(setting)


def test_a_login_for_one_client_alone_is_no_connection_for_who_comes_behind() -> None:
    setting = knowing(pool_size=3)
    ask(setting, setting.client(), "BEGIN")
    setting.world.hold_opens = True
    own = arrive(setting)
    setting.world.answer_open()
    setting.cluster.processes[-1].stalled = True
    setting.world.hold_opens = False
    behind = setting.client()
    ask(setting, behind, f"row {behind.token}")
    assert behind.rows == [behind.token]
    assert not own.logged_in
    close_everything(setting)


def test_the_place_in_the_queue_is_kept_while_settings_are_tried() -> None:
    setting = transactions(pool_size=1, query_wait_timeout=10)
    ask(setting, first := setting.client(), "BEGIN")
    setting.world.pass_time(1)
    own = arrive(setting)
    setting.world.pass_time(2)
    behind = Client(setting.world, "behind")
    step(setting)
    setting.world.hold_opens = True
    ask(setting, first, "COMMIT")
    assert [client.process_id for client in (own, behind)] == [0, 0]
    assert list(setting.world.pool.waiters) == [own.session, behind.session]
    assert list(setting.world.pool.waiters.values()) == [1001.0, 1003.0]
    setting.world.pass_time(8.5)
    assert own.sqlstates == ["53300"]
    assert behind.errors == []


def test_max_queue_does_not_refuse_who_has_waited_already() -> None:
    setting = transactions(pool_size=1, max_queue=1)
    ask(setting, first := setting.client(), "BEGIN")
    own = arrive(setting)
    first.ask("COMMIT")
    setting.world.hold_opens = True
    step(setting)
    assert own.errors == []
    setting.world.hold_opens = False
    step(setting)
    assert own.logged_in


def test_who_waits_too_long_for_room_is_refused_and_told_what_is_pinned() -> None:
    setting = transactions(pool_size=1, query_wait_timeout=5)
    arrive(setting)
    another = arrive(setting, "another")
    setting.world.pass_time(6)
    assert another.sqlstates == ["53300"]
    detail = another.errors[0].detail
    assert detail is not None
    assert "1 are in use (1 pinned)" in detail
    close_everything(setting)


def test_no_room_is_made_while_the_backend_cannot_be_reached() -> None:
    """What comes back serves others until the pause after the failure is over."""
    setting = knowing(pool_size=2)
    ask(setting, first := setting.client(), "BEGIN")
    setting.world.unreachable = {"primary": "Connection refused"}
    own = arrive(setting)
    ask(setting, behind := Client(setting.world, "behind"), "row behind")
    ask(setting, first, "COMMIT")
    assert behind.rows == ["behind"]
    assert setting.sizes == (1, 0, 0, 1)
    setting.world.unreachable = {}
    setting.world.pass_time(1)
    assert own.logged_in


# -- knowing who needs one ---------------------------------------------------------------------------------------------


@MODES
def test_the_next_client_with_the_same_settings_goes_straight_to_its_own_connection(mode: PoolMode) -> None:
    setting = Setting(pool_size=4, pool_mode=mode)
    clients = [arrive(setting), arrive(setting)]
    assert all(client.logged_in for client in clients)
    assert attempts(setting) == 1
    arrive(setting, "with another name")
    assert attempts(setting) == 2


def test_so_many_different_settings_are_remembered_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unshared, "REMEMBERED", 2)
    setting = transactions(pool_size=9)
    for token in ("one", "two", "three"):
        arrive(setting, token)
    assert attempts(setting) == 3
    for token in ("two", "three"):
        arrive(setting, token)
    assert attempts(setting) == 3
    arrive(setting, "one")
    assert attempts(setting) == 4


def test_a_server_with_another_configuration_is_asked_again() -> None:
    setting = knowing(pool_size=2)
    setting.cluster.start_only = set()
    setting.cluster.version = "19.0"
    for process in setting.cluster.alive:
        process.crash()
    step(setting)
    ask(setting, setting.client(), "row c2")
    client = arrive(setting)
    assert client.logged_in
    assert client.session.server is None, "it shares"  # type: ignore[union-attr]


def test_what_a_client_is_told_at_its_login_comes_from_its_own_connection() -> None:
    """And is not remembered for anybody else: not even for one that asks for nothing."""
    setting = transactions(pool_size=3)
    own = arrive(setting)
    other = Client(setting.world, "")
    step(setting)
    for client in (own, other):
        assert [kind for kind, _ in client.received].count("S") == 3
    assert set(setting.world.pool.known) == {NONE_SET}


def test_settings_that_were_taken_before_are_no_longer_taken() -> None:
    """A client that is logged in already is served by a connection of its own from then on."""
    setting = transactions(pool_size=2)
    setting.cluster.start_only = set()
    client = arrive(setting)
    ask(setting, client, "row own")
    ask(setting, setting.client(), "row c1")
    setting.cluster.start_only = set(ALONE)
    ask(setting, client, "row own")
    assert client.rows == ["own", "own"]
    assert serving(setting, client).startup["ignore_system_indexes"] == "on"
    assert [kind for kind, _ in client.received].count("K") == 1, "it was welcomed once"
    late = arrive(setting)
    assert serving(setting, late).startup["ignore_system_indexes"] == "on", "it is not let in without a server"


# -- what can go wrong -------------------------------------------------------------------------------------------------


@MODES
def test_the_error_of_the_login_is_told_to_its_client_and_to_nobody_else(mode: PoolMode) -> None:
    setting = Setting(pool_size=2, pool_mode=mode)
    ask(setting, other := setting.client(), "row c1")
    client = arrive(setting, parameters=FORBIDDEN)
    assert client.sqlstates == ["42501"]
    assert client.errors[0].severity == "FATAL"
    assert client.errors[0].message == "permission denied to set parameter"
    assert setting.world.pool.failure is None
    assert setting.client().logged_in
    assert other.errors == []


def test_who_waits_behind_a_login_that_fails_is_served() -> None:
    setting = transactions(pool_size=1)
    setting.world.hold_opens = True
    failing = Client(setting.world, "own", parameters=FORBIDDEN)
    step(setting)
    setting.world.answer_open()
    step(setting)
    assert setting.sizes == (0, 0, 1, 1)
    behind = Client(setting.world, "behind")
    step(setting)
    setting.world.hold_opens = False
    step(setting)
    assert failing.sqlstates == ["42501"]
    assert behind.logged_in
    assert setting.world.pool.failures == 0
    close_everything(setting)


def test_a_login_that_takes_too_long_concerns_only_its_client() -> None:
    """It may be what the client asked for: post_auth_delay."""
    setting = transactions(pool_size=2, server_connect_timeout=5)
    setting.world.hold_opens = True
    own = Client(setting.world, "own", parameters=ALONE)
    step(setting)
    setting.world.answer_open()
    step(setting)
    setting.world.answer_open()
    setting.cluster.processes[-1].stalled = True
    setting.world.pass_time(6)
    assert own.sqlstates == ["08006"]
    assert "server_connect_timeout" in own.errors[0].message
    assert setting.world.pool.failure is None


def test_another_error_than_that_it_is_too_late_is_told() -> None:
    setting = transactions()
    client = arrive(setting, parameters={"broken": "on"})
    assert client.sqlstates == ["42704"]
    assert len(setting.cluster.processes) == 1


def test_a_backend_that_cannot_be_reached_for_the_second_connection_is_tried_again() -> None:
    setting = transactions(pool_size=2)
    setting.world.hold_opens = True
    own = Client(setting.world, "own", parameters=ALONE)
    step(setting)
    setting.world.answer_open()
    step(setting)
    setting.world.answer_open(error=ServerUnavailable("cannot be reached"))
    step(setting)
    setting.world.hold_opens = False
    assert own.errors == []
    setting.world.pass_time(1)
    assert own.logged_in


@pytest.mark.parametrize("how", [Client.terminate, Client.leave, Client.break_off])
@pytest.mark.parametrize("logging_in", [False, True])
def test_a_client_that_leaves_while_its_connection_is_being_opened_leaves_nothing(how, logging_in: bool) -> None:  # type: ignore[no-untyped-def]
    setting = knowing(pool_size=1)
    setting.world.hold_opens = True
    own = arrive(setting)
    ask(setting, behind := Client(setting.world, "behind"), "row behind")
    if logging_in:
        setting.world.answer_open()
        setting.cluster.processes[-1].stalled = True
        assert setting.world.pool.unshared.logins.values()
    how(own)
    step(setting)
    setting.world.hold_opens = False
    step(setting)
    assert behind.rows == ["behind"]
    assert setting.world.pool.failure is None
    assert ("its client left before the login was over" in reasons(setting)) is logging_in
    close_everything(setting)


@pytest.mark.parametrize("logging_in", [False, True])
def test_a_request_is_canceled_while_a_connection_of_its_own_is_being_opened(logging_in: bool) -> None:
    setting = transactions(pool_size=2)
    setting.cluster.start_only = set()
    client = arrive(setting)
    ask(setting, setting.client(), "row c1")
    setting.cluster.start_only = set(ALONE)
    setting.world.hold_opens = True
    ask(setting, client, "row own")
    if logging_in:
        setting.world.answer_open()
        setting.cluster.processes[-1].stalled = True
    Recording(port := setting.world.accept())
    port.say(messages.cancel_request(client.process_id, client.cancel_key))
    step(setting)
    assert client.sqlstates == ["57014"]
    assert client.session.state == ClientState.IDLE  # type: ignore[union-attr]
    setting.world.hold_opens = False
    ask(setting, client, "row own")
    assert client.rows == ["own"]
    close_everything(setting)


def test_a_pool_that_is_paused_during_the_login_lends_nothing_before_it_is_resumed() -> None:
    setting = knowing(pool_size=1)
    setting.world.hold_opens = True
    own = arrive(setting)
    setting.world.service.pools.pause(setting.world.now)
    setting.world.hold_opens = False
    step(setting)
    assert not own.logged_in
    assert reasons(setting)[-1] == "the pool is paused"
    setting.world.service.pools.resume(setting.world.now)
    step(setting)
    assert own.logged_in


@pytest.mark.parametrize("logging_in", [False, True])
def test_a_client_whose_pool_is_no_longer_configured_waits_in_the_one_that_is(logging_in: bool) -> None:
    backends = (Backend(name="primary", host="pg1"), Backend(name="replica", host="pg2"))
    before, after = (RoutingRule(backend=name) for name in ("primary", "replica"))
    settings = {"pool_size": 1, "pool_mode": PoolMode.TRANSACTION, "backends": backends}
    setting = Setting(**settings, rules=(before,))
    setting.leave(arrive(setting))
    setting.world.hold_opens = True
    own = arrive(setting)
    if logging_in:
        setting.world.answer_open()
        setting.cluster.processes[-1].stalled = True
    setting.world.reload(configure(**settings, rules=(after,)))  # type: ignore[arg-type]
    setting.world.hold_opens = False
    step(setting)
    assert own.logged_in
    assert [pool.key.backend for pool in setting.world.pools] == ["replica"]
    close_everything(setting)


def test_a_pool_is_no_longer_configured_while_settings_are_tried() -> None:
    backends = (Backend(name="primary", host="pg1"), Backend(name="replica", host="pg2"))
    before, after = (RoutingRule(backend=name) for name in ("primary", "replica"))
    settings = {"pool_size": 2, "pool_mode": PoolMode.TRANSACTION, "backends": backends}
    setting = Setting(**settings, rules=(before,))
    ask(setting, setting.client(), "row c1")
    (process,) = setting.cluster.processes
    process.stalled = True
    own = arrive(setting)
    assert setting.sizes == (0, 1, 0, 0)
    setting.world.reload(configure(**settings, rules=(after,)))  # type: ignore[arg-type]
    process.stalled = False
    step(setting)
    assert own.logged_in
    assert own.session.pool.key.backend == "replica"  # type: ignore[union-attr]
    close_everything(setting)


def test_protocol_3_2_is_the_clients_alone() -> None:
    """The server is spoken to in 3.0 as ever: what was agreed on with the client is PgPooler's."""
    setting = transactions(pool_size=2)
    client = Client(setting.world, "own", parameters=ALONE, version=codes.PROTOCOL_3_2)
    step(setting)
    assert client.logged_in
    assert len(client.cancel_key) == 32
