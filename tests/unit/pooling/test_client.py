"""A client connection: what it may send in which state, how it relays, and how it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod, PoolMode
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes, messages
from tests.roles import RolesSetting
from tests.scripted import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    Client,
    Recording,
    Setting,
    copy_data,
    extended,
    frame,
    query,
)

FRONTEND = "".join(map(chr, sorted(codes.FRONTEND_TYPES)))
BODIES = {"P": b"\0row c1\0\0\0", "B": b"\0\0" + bytes(6), "E": b"\0" + bytes(4), "D": b"S\0", "C": b"S\0"}


def body(kind: str) -> bytes:
    return BODIES.get(kind, b"row c1\0" if kind == "Q" else b"")


# -- every state and every type ----------------------------------------------------------------------------------------


def in_state(state: ClientState) -> tuple[Setting, Client]:
    """A client in this state, made in a few words."""
    if state is ClientState.STARTUP:
        setting = Setting(client_login_timeout=10)
        client = Client(setting.world, "c1", start=False)
    elif state is ClientState.AUTHENTICATION:
        setting = Setting(method=AuthMethod.MD5, users={"alice": "secret"}, client_login_timeout=10)
        client = Client(setting.world, "c1", start=False)
        client.port.far = Recording(client.port)
        client.port.say(messages.startup_message(codes.PROTOCOL_3_0, {"user": "alice"}))
    elif state is ClientState.COMPUTING:
        verifier = "SCRAM-SHA-256$2:c2FsdA==$" + ":".join(["A" * 43 + "="] * 2)
        setting = Setting(method=AuthMethod.PLAIN, users={"alice": verifier}, client_login_timeout=10)
        setting.world.hold_computations = True
        client = Client(setting.world, "c1", password=b"secret")
    elif state is ClientState.LOOKING_UP:
        setting = RolesSetting(client_login_timeout=10)
        setting.world.hold_opens = True
        client = Client(setting.world, "c1")
    elif state is ClientState.WAITING:
        setting = Setting(query_wait_timeout=10)
        setting.world.hold_opens = True
        client = Client(setting.world, "c1")
    elif state is ClientState.CANCELING:
        setting = Setting()
        other = setting.client()
        other.ask(f"slow {other.token}")
        setting.world.settle()
        setting.world.hold_cancels = True
        client = Client(setting.world, "c1", start=False)
        client.port.say(messages.cancel_request(other.process_id, other.cancel_key))
    elif state is ClientState.IDLE:
        setting = Setting(session_idle_timeout=10, pool_mode=PoolMode.TRANSACTION)
        client = Client(setting.world, "c1")
    else:
        setting = Setting(session_idle_timeout=10)
        client = Client(setting.world, "c1")
    setting.world.settle()
    return setting, client


STATES = [state for state in ClientState if state is not ClientState.CLOSED]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [*FRONTEND, "p", "R", "!", "\0", "\xff"])
@pytest.mark.parametrize("chunk", [1, 1000])
def test_any_message_in_any_state_is_in_the_table_or_a_clean_end(state: ClientState, kind: str, chunk: int) -> None:
    setting, client = in_state(state)
    session = client.session
    assert session.state == state  # type: ignore[union-attr]
    setting.world.chunk = chunk
    client.port.say(bytes((ord(kind),)) + (4 + len(body(kind))).to_bytes(4, "big") + body(kind))
    setting.world.settle()
    setting.world.check_limits()
    client.leave()
    setting.world.settle()
    setting.world.hold_opens = setting.world.hold_cancels = setting.world.hold_computations = False
    setting.world.settle()
    assert session.state == ClientState.CLOSED  # type: ignore[union-attr]
    assert client.session not in setting.world.service.clients.values()
    setting.world.check_limits()
    for one in list(setting.world.service.clients.values()):
        one.end("the test is over", setting.world.now)
    setting.world.settle()
    setting.world.pass_time(4000)
    assert set(setting.world.counts().values()) == {0}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", [Client.leave, Client.break_off])
def test_a_client_may_leave_in_any_state(state: ClientState, how) -> None:  # type: ignore[no-untyped-def]
    setting, client = in_state(state)
    how(client)
    setting.world.settle()
    assert client.session.state == ClientState.CLOSED  # type: ignore[union-attr]
    setting.world.check_limits()


@pytest.mark.parametrize("state", STATES)
def test_who_is_gone_is_not_looked_at_any_more(state: ClientState) -> None:
    setting, client = in_state(state)
    client.leave()
    setting.world.settle()
    assert client.session.due == 0.0  # type: ignore[union-attr]


@pytest.mark.parametrize("state", STATES)
def test_no_state_lasts_for_ever_without_a_word(state: ClientState) -> None:
    setting, client = in_state(state)
    setting.world.pass_time(61)
    assert client.session.state == ClientState.CLOSED  # type: ignore[union-attr]


@pytest.mark.parametrize("state", STATES)
def test_a_client_in_any_state_describes_itself(state: ClientState) -> None:
    _, client = in_state(state)
    assert state.name in repr(client.session)


# -- relaying ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 60))
def test_requests_and_answers_pass_in_pieces_of_any_size(chunk: int, capacity: int) -> None:
    setting = Setting()
    setting.world.server_capacity = capacity
    setting.world.chunk = chunk
    client = Client(setting.world, "x", capacity=capacity)
    setting.world.settle()
    client.say(query("row x 2 30") + extended("row x") + query("copyin x") + copy_data("x") * 3 + COPY_DONE)
    setting.world.settle()
    assert client.kinds == "TDDCZ12DCZGCZ"
    setting.leave(client)
    assert setting.sizes == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        frame("!"),
        frame("R", bytes(4)),
        frame("p", b"secret\0"),
        b"Q\0\0\0\0",
        b"Q\0\0\0\3",
        b"Q\xff\xff\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"d\x40\0\0\0",
        frame("S", bytes(10_000)),
        frame("X", bytes(10_000)),
        frame("E", bytes(10_000)),
    ],
)
def test_what_no_frontend_may_send_ends_the_client_and_not_the_server(bad: bytes) -> None:
    setting = Setting()
    client = setting.client()
    client.say(query(f"row {client.token}") + bad)
    setting.world.settle()
    assert client.over
    assert client.sqlstates == ["08P01"]
    assert client.errors[0].severity == "FATAL"
    assert setting.sizes == (1, 0, 0, 0)
    assert not setting.cluster.complaints


def test_what_came_before_an_illegal_message_is_executed() -> None:
    setting = Setting()
    client = setting.client()
    client.say(query(f"insert {client.token}") + frame("!"))
    setting.world.settle()
    assert setting.cluster.inserted == [client.token]


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
def test_insert_terminate_and_close_in_one_segment_is_executed(chunk: int) -> None:
    setting = Setting()
    client = setting.client()
    setting.world.chunk = chunk
    client.ask(f"insert {client.token}")
    client.terminate()
    setting.world.settle()
    assert setting.cluster.inserted == [client.token]
    assert setting.cluster.canceled == []
    assert setting.sizes == (1, 0, 0, 0)


def test_insert_terminate_and_close_is_executed_when_the_server_is_slow_to_read() -> None:
    setting = Setting()
    setting.world.server_capacity = 10
    client = setting.client()
    setting.cluster.processes[0].stalled = True
    client.say(query(f"insert {client.token}") * 20)
    client.terminate()
    setting.world.settle()
    setting.cluster.processes[0].stalled = False
    setting.world.settle()
    assert setting.cluster.inserted == [client.token] * 20
    assert setting.cluster.canceled == []


def test_terminate_is_consumed_and_not_sent_to_the_server() -> None:
    """W14"""
    setting = Setting()
    first = setting.client()
    setting.leave(first)
    assert not setting.cluster.processes[0].over
    assert setting.client().process_id == first.process_id


def test_nothing_behind_terminate_is_executed() -> None:
    setting = Setting()
    client = setting.client()
    client.say(TERMINATE + query(f"insert {client.token}"))
    setting.world.settle()
    assert setting.cluster.inserted == []
    assert client.over


def test_an_abrupt_end_in_a_query_cancels_it() -> None:
    """W3: nobody else gets its rows."""
    setting = Setting()
    client = setting.client()
    client.ask(f"slow {client.token}")
    setting.world.settle()
    waiter = setting.client()
    client.leave()
    setting.world.settle()
    assert len(setting.cluster.canceled) == 1
    waiter.ask(f"row {waiter.token}")
    setting.world.settle()
    assert waiter.rows == [waiter.token]


@pytest.mark.parametrize("how", [Client.leave, Client.break_off, Client.terminate])
def test_an_open_transaction_is_rolled_back_before_anybody_else_comes(how) -> None:  # type: ignore[no-untyped-def]
    """W3.  PgBouncer #972, #974: DISCARD ALL cannot run inside a transaction block."""
    setting = Setting()
    client = setting.client()
    client.ask(f"begin {client.token}")
    setting.world.settle()
    waiter = setting.client()
    how(client)
    setting.world.settle()
    assert waiter.process_id == 1
    assert setting.cluster.processes[0].statements[-3:-1] == ["ROLLBACK", "DISCARD ALL"]
    assert not setting.cluster.complaints


def test_a_session_is_reset_before_anybody_else_gets_it() -> None:
    """W2"""
    setting = Setting()
    first = setting.client()
    first.ask(f"set {first.token}")
    setting.leave(first)
    second = setting.client()
    second.ask(f"show {second.token}")
    setting.world.settle()
    assert second.rows == [""]


@given(st.data())
def test_an_abrupt_end_at_any_byte_never_reaches_the_next_client(data: st.DataObject) -> None:
    """W3: half a message is never left on a server connection that another gets."""
    requests = (
        query("begin c1")
        + query("insert c1")
        + extended("row c1")
        + extended("copyin c1", sync=False)
        + copy_data("c1")
        + COPY_DONE
        + SYNC
        + query("copyin c1")
        + copy_data("c1")
    )
    at = data.draw(st.integers(0, len(requests)), "at")
    how = data.draw(st.sampled_from((Client.leave, Client.break_off)))
    setting = Setting()
    client, waiter = setting.clients(2)
    setting.world.chunk = data.draw(st.sampled_from((1, 5, 1000)), "chunk")
    client.say(requests[:at])
    if data.draw(st.booleans(), "settled"):
        setting.world.settle()
    how(client)
    setting.world.settle()
    setting.world.check_limits()
    waiter.ask(f"row {waiter.token}")
    waiter.ask(f"show {waiter.token}")
    setting.world.settle()
    assert waiter.rows == [waiter.token, ""]
    assert waiter.errors == []
    assert not setting.cluster.complaints


@pytest.mark.parametrize(
    "left",
    [
        query("copyin c1"),
        query("copyin c1") + copy_data("c1"),
        extended("copyin c1"),
        extended("copyin c1", sync=False) + copy_data("c1"),
        query("copyin c1") + copy_data("c1")[:-1],
        query("row c1")[:6],
        extended("insert c1", sync=False)[:-1],
    ],
)
def test_who_leaves_in_a_copy_or_in_a_message_takes_the_connection_along(left: bytes) -> None:
    """W3"""
    setting = Setting()
    client, waiter = setting.clients(2)
    client.say(left)
    setting.world.settle()
    client.leave()
    setting.world.settle()
    assert setting.cluster.processes[0].over
    assert waiter.process_id == 2
    setting.world.check_limits()


def test_a_batch_left_without_sync_is_not_committed_by_us() -> None:
    setting = Setting()
    client, waiter = setting.clients(2)
    client.say(extended(f"insert {client.token}", sync=False) + FLUSH)
    setting.world.settle()
    client.leave()
    setting.world.settle()
    assert waiter.process_id == 2


def test_a_batch_that_failed_is_ended_with_a_sync_and_the_connection_kept() -> None:
    setting = Setting()
    client, waiter = setting.clients(2)
    client.say(extended(f"fail {client.token}", sync=False))
    setting.world.settle()
    client.terminate()
    setting.world.settle()
    assert waiter.process_id == 1


# -- idle sessions -----------------------------------------------------------------------------------------------------


def test_a_session_without_traffic_is_closed_after_session_idle_timeout() -> None:
    """W24"""
    setting = Setting(session_idle_timeout=10)
    client = setting.client()
    setting.world.pass_time(6)
    client.ask(f"row {client.token}")
    setting.world.pass_time(9)
    assert not client.over
    setting.world.pass_time(1)
    assert client.sqlstates == ["57P05"]
    assert setting.sizes == (1, 0, 0, 0)


def test_a_session_whose_query_runs_is_not_idle() -> None:
    setting = Setting(session_idle_timeout=10)
    client = setting.client()
    client.ask(f"slow {client.token}")
    setting.world.pass_time(100)
    assert not client.over
    setting.cluster.processes[0].release()
    setting.world.pass_time(9)
    assert client.rows == [client.token]
    assert not client.over
    setting.world.pass_time(2)
    assert client.over


@pytest.mark.parametrize("half", [query("row c1")[:6], query("copyin c1"), query("begin c1")])
def test_a_session_that_owes_the_rest_of_a_request_is_idle(half: bytes) -> None:
    """Half a Bind, an open COPY and an open transaction hold a server connection too."""
    setting = Setting(session_idle_timeout=10)
    client = setting.client()
    client.say(half)
    setting.world.pass_time(11)
    assert client.over


def test_session_idle_timeout_0_is_no_limit() -> None:
    setting = Setting(server_lifetime=0)
    client = setting.client()
    setting.world.pass_time(1_000_000)
    assert not client.over
