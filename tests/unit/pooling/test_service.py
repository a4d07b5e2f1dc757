"""What all sessions share: limits on clients, draining, the way out, and counts that come back to base."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod, PatternKind
from pgpooler.config.model import Pattern, Rule
from pgpooler.pooling.service import REMEMBERED_KEYS
from pgpooler.protocol.passwords import Cleartext, Derivation, ScramKeys, derive_keys
from tests.memory import World, configure
from tests.scripted import Client, Recording, Setting, query

BASE = dict.fromkeys(
    (
        "clients",
        "admitted",
        "by user",
        "by database",
        "cancel keys",
        "used",
        "in pools",
        "waiting",
        "clients of pools",
        "questions",
    ),
    0,
)


def test_no_more_clients_than_max_client_conn_are_let_in() -> None:
    """W24"""
    setting = Setting(max_client_conn=2)
    first, _, third = setting.clients(3)
    assert third.sqlstates == ["53300"]
    assert third.errors[0].message == "sorry, too many clients already"
    assert third.over
    assert setting.world.service.admitted == 2
    setting.leave(first)
    assert not setting.client().errors


def test_a_connection_that_does_not_log_in_does_not_count_as_a_client() -> None:
    setting = Setting(max_client_conn=1)
    for _ in range(5):
        Recording(setting.world.accept())
    assert setting.client().logged_in


def test_a_connection_that_says_nothing_is_closed_after_client_login_timeout() -> None:
    """W24: three bytes do not hold a descriptor for ever."""
    setting = Setting(client_login_timeout=10)
    port = setting.world.accept()
    recording = Recording(port)
    port.say(b"\0\0\0")
    setting.world.pass_time(9.9)
    assert not port.closed
    setting.world.pass_time(0.1)
    assert recording.over
    assert b"client_login_timeout" in recording.data
    assert len(setting.world.service.clients) == 0


def test_client_login_timeout_0_is_no_limit() -> None:
    setting = Setting(client_login_timeout=0)
    port = setting.world.accept()
    setting.world.pass_time(100_000)
    assert not port.closed


def test_who_waits_for_a_connection_has_logged_in() -> None:
    setting = Setting(client_login_timeout=10, query_wait_timeout=0)
    _, waiter = setting.clients(2)
    setting.world.pass_time(1000)
    assert not waiter.over


def test_who_drains_lets_nobody_in() -> None:
    setting = Setting()
    client = setting.client()
    setting.world.service.drain()
    late = setting.client()
    assert late.sqlstates == ["57P03"]
    client.ask(f"row {client.token}")
    setting.world.settle()
    assert client.rows == [client.token]


def test_clients_that_are_closed_are_told_57p01() -> None:
    setting = Setting()
    active, waiting = setting.clients(2)
    silent = setting.world.accept()
    assert setting.world.service.close_clients(setting.world.now) == 3
    setting.world.settle()
    assert active.sqlstates == waiting.sqlstates == ["57P01"]
    assert active.over
    assert waiting.over
    assert silent.finishing
    assert len(setting.world.service.clients) == 0


def test_a_client_in_the_middle_of_a_row_is_closed_without_another_byte() -> None:
    setting = Setting()
    client = setting.client()
    client.ask(f"row {client.token} 1 5000")
    process = setting.cluster.processes[0]
    setting.world.chunk = 100
    while not client.after_login:
        for step in setting.world.steps():
            step()
    process.stalled = True
    before = bytes(client.after_login + client.port.outgoing)
    setting.world.service.close_clients(setting.world.now)
    while client.port.step_far():
        pass
    assert client.over
    assert bytes(client.after_login) == before
    assert "E" not in client.kinds


def test_all_server_connections_are_closed_at_the_end() -> None:
    setting = Setting(pool_size=3)
    first, _, _ = setting.clients(3)
    setting.leave(first)
    setting.world.service.close_clients(setting.world.now)
    setting.world.service.close_servers(setting.world.now)
    setting.world.settle()
    assert setting.cluster.alive == []
    assert setting.world.counts() == BASE


def test_every_connection_that_ends_is_logged_with_its_reason() -> None:
    setting = Setting()
    setting.leave(setting.client())
    level, number, line = next(line for line in setting.world.log_lines if "user=alice" in line[2])
    assert (level, number) == ("info", 1)
    assert line == "closed: user=alice database=shop client=10.0.0.1:5000 reason=client disconnected"
    setting.cluster.processes[0].crash()
    setting.world.settle()
    assert "server connection 1 closed: user=alice" in setting.world.log_lines[-1][2]


def test_the_log_has_numbers_that_are_never_used_again() -> None:
    """W28: a descriptor's number names many connections."""
    setting = Setting(pool_size=5)
    numbers = []
    for _ in range(5):
        client = setting.client()
        numbers.append(client.session.number)  # type: ignore[union-attr]
        setting.leave(client)
    assert numbers == [1, 2, 3, 4, 5]


def test_a_snapshot_counts_everybody() -> None:
    setting = Setting(pool_size=1)
    setting.clients(3)
    Recording(setting.world.accept())
    snapshot = setting.world.service.snapshot()
    assert (snapshot["clients"], snapshot["admitted"], snapshot["waiting"]) == (4, 3, 2)
    assert snapshot["cancel_keys"] == 1
    assert snapshot["server_connections_made"] == 1
    assert snapshot["draining"] is False


def test_counts_are_back_to_base_when_all_have_gone() -> None:
    setting = Setting(pool_size=2, backend_pool_size=3, server_idle_timeout=5)
    clients = [*setting.clients(4, "alice"), *setting.clients(2, "bob")]
    clients[0].ask("slow c1")
    clients[1].say(query("begin c2")[:7])
    for number, client in enumerate(clients):
        (client.leave, client.break_off, client.terminate)[number % 3]()
        setting.world.settle()
        setting.world.check_limits()
    setting.world.pass_time(100)
    assert setting.world.counts() == BASE
    assert setting.world.ports == []


# -- keys --------------------------------------------------------------------------------------------------------------


def derive(world: World, password: bytes) -> list[object]:
    results: list[object] = []
    world.service.derive(Derivation(password, b"salt", 1), lambda result, now: results.append(result), world.now)
    return results


def test_keys_are_computed_once() -> None:
    world = World(configure())
    first = derive(world, b"secret")
    assert first == []
    world.settle()
    assert isinstance(first[0], ScramKeys)
    assert derive(world, b"secret") == first
    assert world.computations == []


def test_a_failed_computation_is_reported_and_not_remembered() -> None:
    world = World(configure())
    results: list[object] = []
    broken = Derivation(b"x", b"salt", 0)  # hashlib refuses
    world.service.derive(broken, lambda result, now: results.append(result), world.now)
    world.settle()
    assert isinstance(results[0], Exception)
    assert len(world.service.scram_keys) == 0


def test_no_more_keys_are_remembered_than_the_limit() -> None:
    world = World(configure())
    for number in range(REMEMBERED_KEYS + 10):
        derive(world, b"%d" % number)
        world.settle()
    assert len(world.service.scram_keys) == REMEMBERED_KEYS


def test_the_keys_that_are_used_are_remembered_longest() -> None:
    """A server that names another salt each time does not drive out those of the others."""
    world = World(configure())
    derive(world, b"used")
    world.settle()
    for number in range(REMEMBERED_KEYS + 10):
        derive(world, b"%d" % number)
        world.settle()
        derive(world, b"used")
        assert world.computations == []


@given(
    st.tuples(st.binary(max_size=3), st.binary(min_size=1, max_size=3), st.integers(1, 3)),
    st.tuples(st.binary(max_size=3), st.binary(min_size=1, max_size=3), st.integers(1, 3)),
)
def test_keys_are_taken_for_the_very_password_salt_and_count_alone(
    one: tuple[bytes, bytes, int], other: tuple[bytes, bytes, int]
) -> None:
    world = World(configure())
    results: list[object] = []
    for values in (one, other):
        world.service.derive(Derivation(*values), lambda result, now: results.append(result), world.now)
        world.settle()
    assert results == [derive_keys(*one), derive_keys(*other)]


def test_the_user_entry_logs_in_to_the_server_unless_the_backend_has_one() -> None:
    world = World(configure(users={"alice": "secret"}))
    assert world.service.access.server_credentials("alice") == Cleartext(b"secret")
    client = Client(world, "x")
    assert client.session is not None


# -- clients per user and per database ---------------------------------------------------------------------------------


def test_no_more_clients_of_a_user_than_max_user_client_connections_are_let_in() -> None:
    setting = Setting(pool_size=9, max_user_client_connections=2)
    first, _, third = setting.clients(3)
    assert third.sqlstates == ["53300"]
    assert third.errors[0].message == 'too many connections for user "alice"'
    assert third.errors[0].detail == "max_user_client_connections is 2."
    assert setting.client("bob").logged_in
    setting.leave(first)
    assert setting.client().logged_in


def test_no_more_clients_of_a_database_than_max_db_client_connections_are_let_in() -> None:
    setting = Setting(pool_size=9, max_db_client_connections=2)
    setting.clients(1)
    setting.client("bob")
    refused = setting.client("carol")
    assert refused.errors[0].message == 'too many connections for database "shop"'
    elsewhere = Client(setting.world, database="other")
    setting.world.settle()
    assert elsewhere.logged_in


def test_a_rule_may_allow_its_users_more() -> None:
    rules = (
        Rule(backend="primary", user=(Pattern(kind=PatternKind.EXACT, text="bob"),), max_user_client_connections=3),
        Rule(backend="primary", default=True),
    )
    setting = Setting(pool_size=9, max_user_client_connections=1, rules=rules)
    bobs = setting.clients(4, "bob")
    assert [client.logged_in for client in bobs] == [True, True, True, False]
    assert [client.logged_in for client in setting.clients(2)] == [True, False]


def test_who_is_refused_by_a_limit_was_known_to_be_who_it_says() -> None:
    """Nothing about limits of users and databases is told before the client has proved who it is."""
    setting = Setting(
        method=AuthMethod.PLAIN, users={"alice": "secret"}, max_user_client_connections=1, max_db_client_connections=1
    )
    assert Client(setting.world, password=b"secret").world.settle() is None
    wrong = Client(setting.world, password=b"wrong")
    setting.world.settle()
    assert wrong.sqlstates == ["28P01"]
