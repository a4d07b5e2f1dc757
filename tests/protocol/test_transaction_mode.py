"""Transaction mode in memory: who holds a server connection when, and what the others see of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgpooler.config.choices import AuthMethod, PoolMode, ResetPolicy
from pgpooler.config.model import Backend, Rule
from pgpooler.pooling.evidence import LONGEST_READ
from pgpooler.pooling.pool import REMEMBERED_SETTINGS
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import messages
from pgpooler.protocol.passwords import make_verifier
from tests.memory import configure
from tests.scripted import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    TERMINATE,
    Client,
    PostgreSQL,
    Recording,
    Setting,
    copy_data,
    extended,
    frame,
    query,
)

TRANSACTION = PoolMode.TRANSACTION
LONG = " " * 10_000  # makes a text too long to be looked at
SECRET = make_verifier(b"secret", salt=b"salt", iterations=2).text()
BACKENDS = (Backend(name="primary", host="pg1"), Backend(name="replica", host="pg2"))


class Transactions(Setting):
    """A world in transaction mode."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"pool_mode": TRANSACTION, "server_reset_query": "always", **settings})

    def say(self, client: Client, data: bytes) -> None:
        client.say(data)
        self.world.settle()
        self.world.check_limits()

    def ask(self, client: Client, text: str) -> None:
        self.say(client, query(text.replace("{}", client.token)))

    def cancel(self, client: Client) -> Recording:
        recording = Recording(port := self.world.accept())
        port.say(messages.cancel_request(client.process_id, client.cancel_key))
        self.world.settle()
        return recording

    @property
    def process(self) -> PostgreSQL:
        """The only server process."""
        (process,) = self.cluster.alive
        return process


def idle(client: Client) -> bool:
    """The client holds no server connection and does not want one."""
    session = client.session
    return session.state == ClientState.IDLE and session.server is None  # type: ignore[union-attr]


def holding(setting: Transactions) -> int:
    return sum(client.server is not None for client in setting.world.service.clients.values())


# -- the lease ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (query("row {}"), "TDCZ"),
        (query("begin {};row {};commit {}"), "CTDCCZ"),
        (query("row {}") * 3, "TDCZTDCZTDCZ"),
        (query("begin {}") + query("insert {}") + query("commit {}"), "CZCZCZ"),
        (extended("row {}"), "12DCZ"),
        (extended("begin {}", sync=False) + extended("insert {}") + extended("commit {}"), "12C12CZ12CZ"),
        (SYNC * 3, "ZZZ"),
        (extended("row {}", sync=False) + FLUSH + SYNC, "12DCZ"),
        (query("fail {}"), "EZ"),
        (extended("fail {}", sync=False) + extended("row {}"), "12EZ"),
        (query("copyin {}") + copy_data("{}") + COPY_DONE, "GCZ"),
        (query("copyin {}") + copy_data("{}") + COPY_FAIL, "GEZ"),
        (extended("copyin {}", sync=False) + copy_data("{}") + COPY_DONE + SYNC, "12GCZ"),
        (query("copyout {} 3"), "HdddcCZ"),
        (frame("F", bytes(8)), "VZ"),
        (query(""), "IZ"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 4, 1 << 16])
def test_a_lease_goes_from_the_first_message_to_the_last_reply(said: bytes, kinds: str, chunk: int) -> None:
    setting = Transactions()
    one, other = setting.clients(2)
    setting.world.chunk = chunk
    setting.say(one, said.replace(b"{}", b"c1") if b"d" not in said[:1] else said)
    assert one.kinds == kinds
    assert idle(one)
    assert setting.process.statements[-1] == "DISCARD ALL"
    setting.ask(other, "row {}")
    assert other.rows == [other.token]
    assert len(setting.cluster.processes) == 1
    assert not setting.cluster.complaints


@pytest.mark.parametrize(
    "open_end",
    [
        query("begin c1"),
        query("begin c1") + query("fail c1"),
        extended("row c1", sync=False),
        extended("row c1", sync=False) + FLUSH,
        extended("fail c1", sync=False),
        query("copyin c1"),
        query("copyin c1") + copy_data("c1"),
        query("row c1") + query("row c1" + LONG)[:5],
        query("row c1") + query("row c1" + LONG)[:-1],
        query("row c1") + extended("row c1", sync=False),
    ],
)
def test_a_lease_lasts_while_anything_is_open(open_end: bytes) -> None:
    setting = Transactions()
    one, other = setting.clients(2)
    setting.say(one, open_end)
    setting.ask(other, "row {}")
    setting.world.pass_time(30)
    assert one.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    assert other.rows == []
    one.leave()
    setting.world.settle()
    assert other.rows == [other.token]
    assert not setting.cluster.complaints


@pytest.mark.parametrize("single", [query("row c1"), frame("F", bytes(10))])
def test_nobody_else_gets_a_server_on_which_a_query_came_in_place_of_a_sync(single: bytes) -> None:
    """PostgreSQL 18 may then fail the next request with XX000, whoever sends it."""
    setting = Transactions()
    one, other = setting.clients(2)
    setting.say(one, extended("row c1", sync=False) + single)
    assert one.kinds.endswith("Z")
    assert idle(one)
    assert setting.cluster.alive == []
    setting.ask(other, "row {}")
    assert other.rows == [other.token]


@pytest.mark.parametrize("length", [4, 5, 9, -1])
@pytest.mark.parametrize("before", [b"", query("row c1")])
@pytest.mark.parametrize("request_", [query("row c1"), extended("row c1")[:15]])
def test_a_short_request_that_is_not_here_whole_holds_no_server(before: bytes, request_: bytes, length: int) -> None:
    setting = Transactions()
    one, other = setting.clients(2)
    setting.say(one, before + request_[:length])
    assert idle(one)
    setting.ask(other, "row {}")
    assert other.rows == [other.token]
    setting.say(one, request_[length:] + (SYNC if request_[:1] == b"P" else b""))
    assert one.kinds.endswith("Z")
    assert idle(one)
    assert not setting.cluster.complaints


@pytest.mark.parametrize(
    "nothing",
    [FLUSH, COPY_DONE, COPY_FAIL, copy_data("c1"), copy_data("c1") * 3 + COPY_DONE + FLUSH, frame("d", b"x" * 200)],
)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_what_means_nothing_to_an_idle_server_asks_for_none(nothing: bytes, chunk: int) -> None:
    setting = Transactions()
    client = setting.client()
    before = list(setting.process.statements)
    setting.world.chunk = chunk
    setting.say(client, nothing)
    assert idle(client)
    assert setting.process.statements == before
    setting.say(client, nothing + query("row c1") + nothing)
    assert client.kinds == "TDCZ"
    assert idle(client)


def test_what_means_nothing_to_an_idle_server_is_not_sent_with_what_does() -> None:
    setting = Transactions(server_reset_query="never")
    client = setting.client()
    setting.ask(client, "row {}")
    setting.process.stalled = True
    setting.say(client, copy_data("c1") + FLUSH + copy_data("c1") + query("row c1"))
    assert setting.process.port.outgoing == query("row c1")


def test_half_a_header_asks_for_no_server() -> None:
    setting = Transactions()
    client = setting.client()
    setting.say(client, query("row c1")[:4])
    assert idle(client)
    setting.say(client, query("row c1")[4:])
    assert client.kinds == "TDCZ"


@pytest.mark.parametrize(("length", "needs_server"), [(LONGEST_READ, False), (LONGEST_READ + 1, True)])
def test_half_a_text_asks_for_a_server_only_if_it_is_too_long_to_be_read(length: int, needs_server: bool) -> None:
    setting = Transactions()
    client = setting.client()
    whole = query("row c1".ljust(length - 6))
    assert len(whole) == length
    setting.say(client, whole[:-1])
    assert idle(client) is not needs_server
    setting.say(client, whole[-1:])
    assert client.kinds == "TDCZ"


def test_every_client_is_told_a_process_id_of_its_own() -> None:
    """No server's: a client is served by many."""
    setting = Transactions()
    told = [client.process_id for client in setting.clients(3)]
    assert told == [client.number for client in setting.world.service.clients.values()]


def test_terminate_while_idle_takes_no_server() -> None:
    """P29"""
    setting = Transactions()
    one, other = setting.clients(2)
    setting.ask(one, "begin {}")
    other.terminate()
    setting.world.settle()
    assert other.session.state == ClientState.CLOSED  # type: ignore[union-attr]
    assert setting.sizes == (0, 1, 0, 0)
    assert setting.process.statements[-1] == "begin c1"


@pytest.mark.parametrize("bad", [frame("!"), frame("R", bytes(4)), b"Q\0\0\0\3", frame("p", b"secret\0")])
def test_what_no_frontend_may_send_ends_an_idle_client_without_a_server(bad: bytes) -> None:
    setting = Transactions()
    client = setting.client()
    before = list(setting.process.statements)
    setting.say(client, bad)
    assert client.sqlstates == ["08P01"]
    assert setting.process.statements == before


def test_many_clients_share_few_servers() -> None:
    setting = Transactions(pool_size=3)
    clients = setting.clients(40)
    for _ in range(3):
        for client in clients:
            client.say(query(f"begin {client.token}") + query(f"row {client.token}") + query(f"commit {client.token}"))
        setting.world.settle()
    assert all(client.rows == [client.token] * 3 for client in clients)
    assert len(setting.cluster.processes) == 3
    assert not setting.cluster.complaints


def test_clients_are_served_in_the_order_in_which_they_asked() -> None:
    setting = Transactions()
    clients = setting.clients(20)
    setting.ask(clients[0], "slow {}")
    order = [clients[number] for number in (7, 3, 19, 1, 12)]
    for client in order:
        setting.ask(client, "insert {}")
    setting.process.release()
    setting.world.settle()
    assert setting.cluster.inserted == [client.token for client in order]


def test_what_a_server_says_behind_the_last_reply_is_not_cut_in_two() -> None:
    """A message that begins in the segment of the ReadyForQuery belongs to nobody, or to the client as a whole."""
    setting = Transactions(server_reset_query=ResetPolicy.NEVER)
    client = setting.client()
    setting.ask(client, "slow {}")
    port = setting.process.port
    notification = frame("A", bytes(4) + b"channel\0" + b"x" * 60 + b"\0")
    port.say(frame("C", b"SELECT 0\0") + frame("Z", b"I") + notification[:20])
    setting.world.settle()
    port.say(notification[20:])
    setting.world.settle()
    assert client.stream == b""
    assert client.kinds in ("CZ", "CZA")


def test_a_server_that_ends_right_behind_its_last_reply_ends_no_idle_client() -> None:
    setting = Transactions()
    client = setting.client()
    setting.ask(client, "slow {}")
    process = setting.process
    process.release()
    process.terminate()
    setting.world.settle()
    assert client.kinds == "TDCZ"
    assert idle(client)
    setting.ask(client, "row {}")
    assert client.rows == ["c1", "c1"]


# -- login and startup parameters --------------------------------------------------------------------------------------


def anonymous(setting: Transactions, **more: object) -> Client:
    """A client without startup parameters of its own."""
    client = Client(setting.world, "", **more)  # type: ignore[arg-type]
    setting.world.settle()
    return client


def test_login_needs_no_server_connection_once_the_settings_are_known() -> None:
    """W21"""
    setting = Transactions()
    holder, same = Client(setting.world, "c1"), Client(setting.world, "c1")
    setting.world.settle()
    setting.ask(holder, "begin {}")
    other = [Client(setting.world, "c1"), anonymous(setting)]
    setting.world.settle()
    assert all(client.logged_in for client in (*other, same))
    assert setting.sizes == (0, 1, 0, 0)
    assert Client(setting.world, "new").logged_in is False


@pytest.mark.parametrize("method", [AuthMethod.PLAIN, AuthMethod.MD5, AuthMethod.SCRAM_SHA_256])
def test_who_logs_in_without_a_server_is_heard_whatever_the_method(method: AuthMethod) -> None:
    setting = Transactions(method=method, users={"alice": "secret"})
    for _ in range(2):
        client = anonymous(setting, password=b"secret")
        assert client.logged_in
        setting.say(client, query("row x"))
        assert client.rows == ["x"]


def test_who_logs_in_without_a_server_is_heard_after_a_slow_computation() -> None:
    setting = Transactions(method=AuthMethod.PLAIN, users={"alice": SECRET})
    for _ in range(2):
        client = anonymous(setting, password=b"secret")
        assert client.logged_in
        setting.say(client, query("row x"))
        assert client.rows == ["x"]


def test_a_pool_remembers_no_more_settings_than_the_limit() -> None:
    setting = Transactions(max_client_conn=0)
    for number in range(REMEMBERED_SETTINGS + 5):
        Client(setting.world, f"n{number}")
        if number % 100 == 0:
            setting.world.settle()
    setting.world.settle()
    assert len(setting.world.pool.known) <= REMEMBERED_SETTINGS
    assert anonymous(setting).logged_in


def test_a_thousand_who_wait_to_be_let_in_are_let_in() -> None:
    setting = Transactions(server_reset_query=ResetPolicy.NEVER, max_client_conn=0)
    setting.world.hold_opens = True
    clients = [anonymous(setting) for _ in range(1000)]
    setting.world.hold_opens = False
    setting.world.settle()
    assert all(client.logged_in for client in clients)
    assert setting.sizes == (1, 0, 0, 0)


def test_each_client_has_its_own_startup_parameters_on_every_server_connection() -> None:
    setting = Transactions(pool_size=2)
    one, other = setting.clients(2)
    for client in (one, other, one):
        setting.ask(client, "insert {}")
        last = next(process for process in setting.cluster.alive if f"insert {client.token}" in process.statements)
        at = len(last.statements) - 1 - last.statements[::-1].index(f"insert {client.token}")
        assert "set_config" in last.statements[at - 1]
        assert f"E'{client.token}'" in last.statements[at - 1]
        assert last.statements[at - 2] == "DISCARD ALL"
    setting.say(anonymous(setting), query("row x"))
    assert not setting.cluster.complaints


def test_without_reset_the_parameters_of_another_client_are_reset() -> None:
    setting = Transactions(server_reset_query=ResetPolicy.NEVER)
    one, other = setting.clients(2)
    setting.ask(one, "row {}")
    setting.ask(one, "row {}")
    assert setting.process.statements[-2:] == ["row c1", "row c1"], "its own are in force already"
    setting.ask(other, "row {}")
    assert setting.process.statements[-2].endswith(
        "NULL, false) IS NULL, pg_catalog.set_config(E'application_name', E'c2', false) IS NULL"
    )
    setting.say(anonymous(setting), query("row x"))
    assert setting.process.statements[-2:] == [
        "SELECT pg_catalog.set_config(E'application_name', NULL, false) IS NULL",
        "row x",
    ]
    assert not setting.cluster.complaints


def test_a_startup_parameter_that_the_server_refuses_ends_only_its_client() -> None:
    setting = Transactions()
    client = Client(setting.world, "c1", parameters={"broken": "x"})
    setting.world.settle()
    assert client.sqlstates == ["42704"]
    other = setting.client()
    setting.ask(other, "row {}")
    assert other.rows == [other.token]
    assert len(setting.cluster.processes) == 1


# -- cancel ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [query("row c2"), extended("row c2"), SYNC, frame("F", bytes(8))])
def test_a_cancel_while_waiting_answers_at_once_and_leaves_the_rest_of_the_pipeline(first: bytes) -> None:
    setting = Transactions()
    holder, waiter = setting.clients(2)
    setting.ask(holder, "slow {}")
    setting.say(waiter, first + query("insert c2"))
    setting.cancel(waiter)
    assert waiter.kinds == "EZ"
    assert waiter.sqlstates == ["57014"]
    assert setting.cluster.canceled == []
    setting.process.release()
    setting.world.settle()
    assert waiter.kinds == "EZCZ"
    assert setting.cluster.inserted == ["c2"]
    assert holder.errors == []


@pytest.mark.parametrize("part", [query("row c2")[:-1], extended("row c2", sync=False), query("row c2")[:6]])
def test_a_cancel_of_a_request_that_is_not_here_whole_does_nothing(part: bytes) -> None:
    setting = Transactions()
    holder, waiter = setting.clients(2)
    setting.ask(holder, "slow {}")
    setting.say(waiter, part)
    setting.cancel(waiter)
    assert waiter.kinds == ""
    setting.process.release()
    setting.world.settle()
    rest = query("row c2")[len(part) :] if part[:1] == b"Q" else SYNC
    setting.say(waiter, rest)
    assert waiter.rows == ["c2"]


def test_a_cancel_swallows_no_terminate_and_no_illegal_message() -> None:
    for end in (TERMINATE, frame("!")):
        setting = Transactions()
        holder, waiter = setting.clients(2)
        setting.ask(holder, "slow {}")
        setting.say(waiter, extended("insert c2", sync=False) + end + query("insert c2"))
        carrier = setting.cancel(waiter)
        assert carrier.data == b""
        setting.process.release()
        setting.world.settle()
        assert setting.cluster.inserted == ["c2"] or setting.cluster.inserted == []
        assert waiter.session.state == ClientState.CLOSED  # type: ignore[union-attr]
        setting.world.check_limits()


def test_a_cancel_that_finds_an_impossible_length_ends_the_waiter_and_not_the_carrier() -> None:
    setting = Transactions()
    holder, waiter = setting.clients(2)
    setting.ask(holder, "slow {}")
    setting.say(waiter, extended("row c2", sync=False) + b"d\xff\xff\xff\xff")
    carrier = setting.cancel(waiter)
    assert carrier.data == b""
    setting.process.release()
    setting.world.settle()
    assert waiter.sqlstates == ["08P01"]


@pytest.mark.parametrize("more", [b"", query("row c2")])
def test_a_cancel_while_the_parameters_are_being_set_answers_once_and_leases_once(more: bytes) -> None:
    setting = Transactions(pool_size=2)
    holder, waiter = setting.clients(2)
    setting.ask(holder, "row {}")
    for process in setting.cluster.alive:
        process.stalled = True
    setting.say(waiter, query("insert c2") + more)
    setting.cancel(waiter)
    assert waiter.sqlstates == ["57014"]
    setting.world.check_limits()
    for process in setting.cluster.alive:
        process.stalled = False
    setting.world.settle()
    assert waiter.kinds == "EZ" + ("TDCZ" if more else "")
    assert setting.cluster.inserted == []
    assert setting.cluster.canceled == []
    assert idle(waiter)
    assert holding(setting) == 0
    setting.world.check_limits()


def test_a_cancel_reaches_only_the_server_held_at_that_moment() -> None:
    setting = Transactions()
    one, other = setting.clients(2)
    setting.ask(one, "row {}")
    setting.cancel(one)
    setting.ask(other, "slow {}")
    setting.cancel(one)
    assert setting.cluster.canceled == []
    assert other.errors == []
    setting.cancel(other)
    assert other.sqlstates == ["57014"]
    assert one.errors == []


def test_a_server_is_not_handed_on_before_a_cancel_for_it_is_settled() -> None:
    setting = Transactions()
    one, other = setting.clients(2)
    setting.ask(one, "slow {}")
    setting.world.hold_cancels = True
    setting.cancel(one)
    setting.process.release()
    setting.ask(other, "slow {}")
    assert idle(one)
    assert other.session.state == ClientState.WAITING  # type: ignore[union-attr]
    setting.world.hold_cancels = False
    setting.world.settle()
    assert other.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    assert other.errors == []


@pytest.mark.parametrize("mode", [TRANSACTION, PoolMode.STATEMENT])
@pytest.mark.parametrize("how", [Client.terminate, Client.leave, None])
def test_a_cancel_that_ends_in_an_unknown_way_gives_the_server_to_nobody_not_even_to_its_client(
    mode: PoolMode, how: Callable[[Client], None] | None
) -> None:
    """It may still hit what runs there next: when what runs now is over, the server connection is closed."""
    setting = Transactions(pool_mode=mode)
    one, other = setting.clients(2)
    setting.ask(one, "slow {}")
    first = setting.process
    setting.world.hold_cancels = True
    setting.world.on_cancel = lambda server: None  # it does not arrive yet
    setting.cancel(one)
    setting.world.answer_cancel(orderly=False)
    setting.ask(other, "row {}")
    assert other.session.state == ClientState.WAITING  # type: ignore[union-attr]
    if how is not None:
        how(one)
    first.release()
    setting.world.settle()
    assert other.rows == [other.token]
    assert first.over
    assert "DISCARD ALL" not in first.statements[first.statements.index("slow c1") :]
    if how is None:
        assert idle(one)
        setting.ask(one, "row {}")
    assert len(setting.cluster.processes) == 2
    assert not setting.cluster.complaints


# -- clients that leave ------------------------------------------------------------------------------------------------


def test_a_waiting_client_that_asked_said_terminate_and_closed_is_served() -> None:
    setting = Transactions()
    holder, waiter = setting.clients(2)
    setting.ask(holder, "slow {}")
    waiter.ask("insert c2")
    waiter.terminate()
    setting.world.settle()
    assert setting.sizes == (0, 1, 0, 1)
    setting.process.release()
    setting.world.settle()
    assert setting.cluster.inserted == ["c2"]
    assert setting.cluster.canceled == []
    assert setting.sizes == (1, 0, 0, 0)


def test_a_waiting_client_that_resets_leaves_the_queue() -> None:
    setting = Transactions()
    holder, waiter = setting.clients(2)
    setting.ask(holder, "slow {}")
    setting.ask(waiter, "insert {}")
    waiter.break_off()
    setting.world.settle()
    assert setting.sizes == (0, 1, 0, 0)
    setting.process.release()
    setting.world.settle()
    assert setting.cluster.inserted == []


@pytest.mark.parametrize("how", [Client.leave, Client.break_off, Client.terminate])
def test_a_transaction_left_open_is_rolled_back_before_the_next_client(how) -> None:  # type: ignore[no-untyped-def]
    setting = Transactions()
    one, other = setting.clients(2)
    setting.ask(one, "begin {}")
    setting.ask(other, "row {}")
    how(one)
    setting.world.settle()
    assert other.rows == [other.token]
    assert "ROLLBACK" in setting.process.statements
    assert not setting.cluster.complaints


def test_a_client_whose_copy_failed_early_may_go_on() -> None:
    """The server has answered before it has read the rest of the data: the client must not stay unheard."""
    setting = Transactions()
    client = setting.client()
    process = setting.process
    process.port.capacity = 40
    setting.say(client, query("copyin c1"))
    setting.say(client, frame("d", b"bad"))
    process.stalled = True
    client.say(copy_data("c1") * 200)
    setting.world.settle()
    process.stalled = False
    setting.world.settle()
    assert client.kinds == "GEZ"
    setting.say(client, COPY_DONE + query("row c1"))
    assert client.kinds == "GEZTDCZ"


def test_a_client_is_heard_when_its_server_is_let_go_with_unread_data() -> None:
    setting = Transactions()
    client = setting.client()
    setting.ask(client, "slow {}")
    process = setting.process
    process.stalled = True
    process.port.capacity = 10
    setting.say(client, copy_data("c1") * 100)
    process.release()
    setting.world.settle()
    process.stalled = False
    setting.world.settle()
    setting.ask(client, "row {}")
    assert client.kinds == "TDCZTDCZ"


# -- slow and silent clients -------------------------------------------------------------------------------------------


def test_a_slow_client_keeps_no_server_once_its_replies_are_out_of_it() -> None:
    setting = Transactions()
    client, other = Client(setting.world, "slow", capacity=10), setting.client()
    setting.world.settle()
    client.stalled = True
    setting.say(client, query("row slow 1 500"))
    assert idle(client)
    setting.ask(other, "row {}")
    assert other.rows == [other.token]
    client.stalled = False
    setting.world.settle()
    assert client.kinds == "TDCZ"
    setting.say(client, query("row slow"))
    assert client.rows == ["slow", "slow"]


def test_session_idle_timeout_ends_an_idle_client_and_takes_no_server() -> None:
    setting = Transactions(session_idle_timeout=10)
    one, other = setting.clients(2)
    setting.ask(other, "begin {}")
    setting.world.pass_time(9)
    setting.ask(other, "row {}")
    setting.world.pass_time(2)
    assert one.sqlstates == ["57P05"]
    assert not other.over


def test_the_idle_time_of_a_client_begins_with_the_last_reply() -> None:
    setting = Transactions(session_idle_timeout=10)
    client = setting.client()
    setting.ask(client, "slow {}")
    setting.world.pass_time(60)
    setting.process.release()
    setting.world.settle()
    setting.world.pass_time(9)
    assert not client.over
    setting.world.pass_time(2)
    assert client.over


# -- reload ------------------------------------------------------------------------------------------------------------


def elsewhere(**settings: object):  # type: ignore[no-untyped-def]
    """Everybody goes to the replica."""
    rules = (Rule(backend="replica"),)
    return configure(
        backends=BACKENDS, rules=rules, **{"pool_mode": TRANSACTION, "server_reset_query": "always", **settings}
    )  # type: ignore[arg-type]


def test_idle_and_waiting_clients_follow_the_rules_to_another_backend() -> None:
    setting = Transactions(backends=BACKENDS)
    holder, waiter, idler = setting.clients(3)
    setting.ask(holder, "begin {}")
    setting.ask(waiter, "row {}")
    setting.world.reload(elsewhere())
    setting.world.settle()
    assert waiter.rows == [waiter.token]
    assert waiter.session.pool.key.backend == "replica"  # type: ignore[union-attr]
    setting.ask(idler, "row {}")
    setting.ask(holder, "commit {}")
    assert holder.session.pool.key.backend == "primary", "who holds a connection keeps it"  # type: ignore[union-attr]
    setting.ask(holder, "row {}")
    assert (holder.rows, idler.rows) == ([holder.token], [idler.token])
    primary, replica = setting.world.service.pools._uses.values()
    assert primary.pools == []
    assert replica.used == 1
    setting.leave(holder, waiter, idler)
    setting.world.pass_time(4000)
    assert set(setting.world.counts().values()) == {0}


def test_a_pool_that_only_idle_clients_belonged_to_is_forgotten_when_they_leave() -> None:
    setting = Transactions(backends=BACKENDS)
    client = setting.client()
    setting.world.reload(elsewhere())
    setting.leave(client)
    assert all(use.pools == [] for use in setting.world.service.pools._uses.values())


def test_a_client_that_waits_to_be_let_in_is_let_in_by_the_new_pool() -> None:
    setting = Transactions(backends=BACKENDS)
    setting.world.reload(elsewhere())
    setting.say(anonymous(setting), query("row x"))
    setting.world.reload(configure(backends=BACKENDS, pool_mode=TRANSACTION))
    setting.world.hold_opens = True
    waiter = anonymous(setting)
    assert not waiter.logged_in
    setting.world.reload(elsewhere())
    setting.world.hold_opens = False
    setting.world.settle()
    assert waiter.logged_in
    setting.say(waiter, query("row x"))
    assert waiter.rows == ["x"]


@pytest.mark.parametrize(("before", "after"), [(TRANSACTION, PoolMode.SESSION), (PoolMode.SESSION, TRANSACTION)])
def test_a_lease_ends_as_it_began_whatever_a_reload_says(before: PoolMode, after: PoolMode) -> None:
    setting = Transactions(pool_mode=before, pool_size=2)
    client = setting.client()
    setting.ask(client, "begin {}")
    setting.world.reload(configure(pool_size=2, pool_mode=after))
    setting.ask(client, "commit {}")
    assert idle(client) == (before is TRANSACTION)
    setting.ask(client, "row {}")
    assert client.rows == [client.token]
    setting.leave(client)
    setting.world.check_limits()


def test_while_no_server_can_be_reached_a_login_is_told_so_although_its_settings_are_known() -> None:
    """DESIGN 5.6: not only at the first request."""
    setting = Transactions()
    first = anonymous(setting)
    assert first.logged_in
    setting.world.unreachable["primary"] = "it is down"
    for process in setting.cluster.alive:
        process.terminate()
    setting.world.settle()
    setting.say(first, query("row x"))
    assert first.sqlstates == ["08006"]
    second = anonymous(setting)
    assert not second.logged_in
    assert second.sqlstates == ["08006"]
