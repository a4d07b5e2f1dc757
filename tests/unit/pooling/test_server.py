"""A server connection: logging in, being leased, cleaned and probed, and how it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod, PoolMode
from pgpooler.config.model import Backend
from pgpooler.pooling.between import STARTING_TIMEOUT
from pgpooler.pooling.server import CLEANING_TIMEOUT, ServerSession
from pgpooler.pooling.states import ServerState
from pgpooler.protocol import codes
from tests.memory import MemoryPort
from tests.scripted import COPY_FAIL, SYNC, Client, Recording, Setting, error, frame, query

BACKEND = "".join(map(chr, sorted(codes.BACKEND_TYPES)))
BODIES = {
    "Z": b"I",
    "S": b"TimeZone\0UTC\0",
    "E": error("22012", "division by zero")[5:],
    "N": error("00000", "notice", "NOTICE")[5:],
    "R": bytes(4),
    "K": bytes(8),
    "C": b"SELECT 1\0",
    "D": b"\0\1\0\0\0\3c1:",
    "v": b"\0\3\0\0\0\0\0\0",
}


MODES = {ServerState.REFUSING: PoolMode.STATEMENT, ServerState.ASKING: PoolMode.TRANSACTION}


def hand_made(setting: Setting) -> None:
    """Servers that say nothing by themselves."""

    def serve(port: MemoryPort, pool: object) -> None:
        Recording(port)

    setting.world.serve = serve


def in_state(state: ServerState) -> tuple[Setting, ServerSession, MemoryPort]:
    """A server connection in this state, whose server is silent from now on."""
    mode = MODES.get(state, PoolMode.SESSION)
    setting = Setting(server_connect_timeout=10, query_wait_timeout=20, server_idle_timeout=0, pool_mode=mode)
    if state is ServerState.LOGIN:
        hand_made(setting)
        setting.client()
        port = next(port for port in setting.world.ports if port.peer == "primary:5432")
        assert isinstance(port.session, ServerSession)
        return setting, port.session, port
    client = setting.client()
    port = setting.cluster.processes[0].port
    session = port.session
    assert isinstance(session, ServerSession)
    if state is ServerState.ACTIVE:
        client.ask(f"slow {client.token}")
        setting.world.settle()
        Recording(port)
    elif state is ServerState.REFUSING:
        client.ask(f"slow {client.token}")
        setting.world.settle()
        Recording(port)
        port.say(frame("C", b"BEGIN\0") + frame("Z", b"T"))
    elif state is ServerState.ASKING:
        client.ask(f"LISTEN {client.token}")
        port.step_read()
        port.step_far()
        client.port.step_read()
        Recording(port)
        port.say(frame("C", b"LISTEN\0") + frame("Z", b"I"))
    elif state is ServerState.CLEANING:
        Recording(port)
        client.terminate()
    else:
        setting.leave(client)
        Recording(port)
        if state is ServerState.STARTING:
            setting.client()
        elif state is ServerState.PROBING:
            setting.world.pass_time(61)
    setting.world.settle()
    return setting, session, port


STATES = [state for state in ServerState if state is not ServerState.CLOSED]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [*BACKEND, "R", "v", "!", "\0", "\xff", "p"])
def test_any_message_in_any_state_is_in_the_table_or_a_clean_end(state: ServerState, kind: str) -> None:
    setting, session, port = in_state(state)
    assert session.state == state
    body = BODIES.get(kind, b"")
    port.say(bytes((ord(kind),)) + (4 + len(body)).to_bytes(4, "big") + body)
    setting.world.settle()
    setting.world.check_limits()
    port.leave()
    setting.world.settle()
    assert session.state == ServerState.CLOSED
    setting.world.check_limits()
    for client in list(setting.world.service.clients.values()):
        client.end("the test is over", setting.world.now)
    for server_port in list(setting.world.ports):
        server_port.leave()
    setting.world.settle()
    setting.world.pass_time(100)
    assert set(setting.world.counts().values()) == {0}


@pytest.mark.parametrize("message", [frame("!", b"odd"), frame("Z", b"I") * 2, frame("p"), b"\xff\0\0\0\4"])
def test_what_no_server_may_say_is_not_passed_on(message: bytes) -> None:
    """A ReadyForQuery that nothing had asked for, a type that no server sends."""
    setting, session, port = in_state(ServerState.ACTIVE)
    (client,) = setting.world.service.clients.values()
    far = client.port.far  # type: ignore[attr-defined]
    port.say(message + frame("1"))
    setting.world.settle()
    assert session.state == ServerState.CLOSED
    assert far.kinds in ("E", "ZE")
    assert far.sqlstates == ["08P01"]
    assert far.errors[0].detail is None


def test_what_no_server_may_say_during_its_login_is_told_with_its_backend() -> None:
    setting, _, port = in_state(ServerState.LOGIN)
    (client,) = setting.world.service.clients.values()
    far = client.port.far  # type: ignore[attr-defined]
    port.say(frame("Z", b"I"))
    setting.world.settle()
    assert far.sqlstates == ["08P01"]
    assert far.errors[0].detail == "Backend primary (pg1:5432) did not let us in."


def test_a_replication_stream_is_passed_on_and_leaves_its_connection_to_nobody() -> None:
    setting, session, port = in_state(ServerState.ACTIVE)
    (client,) = setting.world.service.clients.values()
    far = client.port.far  # type: ignore[attr-defined]
    port.say(frame("W", bytes(3)) + frame("d", b"x"))
    setting.world.settle()
    assert far.kinds == "Wd"
    assert session.owed.doubt


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("length", [0, 3, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_impossible_length_ends_the_connection_in_any_state(state: ServerState, length: int) -> None:
    setting, session, port = in_state(state)
    port.say(b"T" + length.to_bytes(4, "big"))
    setting.world.settle()
    assert session.state == ServerState.CLOSED
    setting.world.check_limits()


@given(st.sampled_from(STATES), st.binary(max_size=80), st.sampled_from(("Z", "E", "S", "G", "K")))
def test_garbage_from_a_server_never_crashes_us(state: ServerState, garbage: bytes, kind: str) -> None:
    setting, session, port = in_state(state)
    port.say(frame(kind, garbage))
    port.say(garbage)
    setting.world.settle()
    port.break_off()
    setting.world.settle()
    assert session.state == ServerState.CLOSED
    setting.world.check_limits()


@pytest.mark.parametrize("state", STATES)
def test_no_state_but_idle_and_active_lasts_for_ever_without_a_word(state: ServerState) -> None:
    setting, session, _ = in_state(state)
    setting.world.pass_time(max(STARTING_TIMEOUT, CLEANING_TIMEOUT) + 1)
    assert (session.state == ServerState.CLOSED) == (state not in (ServerState.IDLE, ServerState.ACTIVE))
    setting.world.check_limits()


@pytest.mark.parametrize("state", STATES)
def test_a_server_connection_in_any_state_describes_itself(state: ServerState) -> None:
    _, session, _ = in_state(state)
    assert state.name in repr(session)


# -- login -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN])
@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_user_who_proved_a_password_is_logged_in_to_the_server_with_it(method: AuthMethod, chunk: int) -> None:
    setting = Setting(method=AuthMethod.PLAIN, users={"alice": "secret"})
    setting.cluster.login, setting.cluster.password = method, b"secret"
    setting.world.chunk = chunk
    client = Client(setting.world, "x", password=b"secret")
    setting.world.settle()
    assert client.logged_in


@pytest.mark.parametrize("method", [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN])
def test_a_password_that_the_server_refuses_is_told_in_its_words(method: AuthMethod) -> None:
    setting = Setting(method=AuthMethod.PLAIN, users={"alice": "secret"})
    setting.cluster.login, setting.cluster.password = method, b"other"
    client = Client(setting.world, "x", password=b"secret")
    setting.world.settle()
    assert client.over
    assert client.sqlstates == ["28P01"]
    assert setting.world.counts()["used"] == 0


def test_without_a_password_for_the_server_the_client_is_told_what_is_missing() -> None:
    setting = Setting()
    setting.cluster.login = AuthMethod.PLAIN
    client = setting.client()
    assert "a cleartext password" in client.errors[0].message


def test_the_backends_own_user_logs_in_where_it_has_one() -> None:
    setting = Setting(backends=(Backend(name="primary", host="pg1", user="pooler", password="secret"),))
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"secret"
    assert setting.client().logged_in
    assert setting.cluster.processes[0].user == "pooler"


def test_scram_keys_are_derived_once_for_all_connections() -> None:
    setting = Setting(pool_size=3, backends=(Backend(name="primary", host="pg1", user="pooler", password="secret"),))
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"secret"
    setting.clients(3)
    assert len(setting.world.service.scram_keys) == 1


def test_a_server_that_leaves_while_its_keys_are_computed_does_no_harm() -> None:
    setting = Setting(backends=(Backend(name="primary", host="pg1", user="pooler", password="secret"),))
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"secret"
    setting.world.hold_computations = True
    client = setting.client()
    setting.cluster.processes[0].crash()
    setting.world.settle()
    setting.world.hold_computations = False
    setting.world.settle()
    assert client.over
    assert setting.world.counts()["used"] == 0


def test_keys_that_cannot_be_computed_are_a_failed_login() -> None:
    setting = Setting(backends=(Backend(name="primary", host="pg1", user="pooler", password="secret"),))
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"secret"
    setting.world.hold_computations = True
    client = setting.client()
    ((_, done),) = setting.world.computations
    setting.world.computations.clear()
    done(RuntimeError("no thread"), setting.world.now)
    setting.world.settle()
    assert client.over
    assert setting.world.counts()["used"] == 0


# -- cleaning ----------------------------------------------------------------------------------------------------------


def test_a_connection_that_cannot_be_reset_is_closed_and_not_used() -> None:
    """W4: an error of DISCARD ALL is not swallowed."""
    setting = Setting()
    setting.cluster.reset_fails = True
    first, second = setting.clients(2)
    setting.leave(first)
    assert setting.cluster.processes[0].over
    assert second.process_id == 2


def test_what_a_client_left_unread_is_dropped_before_the_reset() -> None:
    setting = Setting()
    first, second = setting.clients(2)
    first.stalled = True
    first.port.capacity = 10
    first.say(query(f"row {first.token} 5 100") * 3)
    setting.world.settle()
    first.break_off()
    setting.world.settle()
    second.ask(f"row {second.token}")
    setting.world.settle()
    assert second.rows == [second.token]
    assert second.process_id == 1


def test_the_error_of_a_dropped_statement_is_not_taken_for_one_of_the_reset() -> None:
    setting = Setting()
    first, second = setting.clients(2)
    first.say(query(f"fail {first.token}"))
    first.terminate()
    setting.world.settle()
    assert second.process_id == 1


def test_a_failed_transaction_is_rolled_back() -> None:
    setting = Setting()
    first, second = setting.clients(2)
    first.say(query(f"begin {first.token}") + query(f"fail {first.token}"))
    setting.world.settle()
    setting.leave(first)
    assert second.process_id == 1
    assert not setting.cluster.complaints


def test_a_server_that_does_not_get_clean_in_time_is_closed() -> None:
    setting = Setting(query_wait_timeout=0)
    first, second = setting.clients(2)
    setting.cluster.processes[0].stalled = True
    first.terminate()
    setting.world.pass_time(CLEANING_TIMEOUT)
    assert second.process_id == 2
    assert setting.world.counts()["used"] == 1


def abandoned() -> tuple[Client, Recording, MemoryPort]:
    """A server that runs a harmless SELECT of a client that is gone, and another client of the pool."""
    setting = Setting(pool_mode=PoolMode.TRANSACTION, pool_size=1, server_reset_query="smart")
    first, second = Client(setting.world, ""), Client(setting.world, "")
    setting.world.settle()
    port = setting.cluster.processes[0].port
    recording = Recording(port)
    first.ask("SELECT 1")
    setting.world.settle()
    first.break_off()
    setting.world.settle()
    return second, recording, port


def test_a_setting_that_changes_when_its_client_is_gone_already_is_not_left_to_the_next() -> None:
    """A view or a trigger may set what no text speaks of: only the ParameterStatus tells, and nobody gets that."""
    second, recording, port = abandoned()
    port.say(frame("S", b"TimeZone\0Mars/Olympus\0") + frame("C", b"SELECT 0\0") + frame("Z", b"I"))
    second.world.settle()
    second.ask("SELECT 2")
    second.world.settle()
    assert b"RESET ALL" in recording.data
    port.say(frame("S", b"TimeZone\0UTC\0") + frame("C", b"RESET\0") + frame("Z", b"I"))
    second.world.settle()
    assert recording.data.endswith(query("SELECT 2"))
    assert [body for kind, body in second.received if kind == "S" and body.startswith(b"TimeZone")] == [
        b"TimeZone\0UTC\0"
    ]


def test_an_error_that_nobody_was_told_is_not_told_to_the_next_client() -> None:
    second, recording, port = abandoned()
    port.say(error("57014", "canceling statement due to user request") + frame("Z", b"I"))
    second.ask("SELECT 2")
    second.world.settle()
    assert recording.data.endswith(query("SELECT 2"))
    port.break_off()
    second.world.settle()
    assert second.sqlstates == ["08006"]
    assert second.errors[0].message == "server connection was lost"


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_server_that_dies_between_messages_ends_its_client_with_an_error() -> None:
    setting = Setting()
    client = setting.client()
    setting.cluster.processes[0].crash()
    setting.world.settle()
    assert client.over
    assert client.sqlstates == ["08006"]
    assert client.errors[0].message == "server connection was lost"
    assert client.errors[0].severity == "FATAL"


@pytest.mark.parametrize("end", ["leave", "break_off"])
@pytest.mark.parametrize("cut", [6, 20, 500])
def test_a_server_that_dies_inside_a_row_closes_its_client_without_another_byte(end: str, cut: int) -> None:
    setting, session, port = in_state(ServerState.ACTIVE)
    client = session.client
    row = frame("D", bytes(1000))
    port.say(row[:cut])
    setting.world.settle()
    getattr(port, end)()
    setting.world.settle()
    assert client is not None
    far = client.port.far
    assert isinstance(far, Client)
    assert bytes(far.after_login) == row[:cut]
    assert far.over


def test_a_server_that_dies_with_part_of_a_header_sent_ends_its_client_with_an_error() -> None:
    """Nothing of a header goes out before it is whole, so the client stands at a boundary."""
    setting, session, port = in_state(ServerState.ACTIVE)
    assert session.client is not None
    far = session.client.port.far
    assert isinstance(far, Client)
    port.say(b"D\0\0")
    setting.world.settle()
    port.break_off()
    setting.world.settle()
    assert far.sqlstates == ["08006"]


@pytest.mark.parametrize("chunk", [1, 1000])
def test_the_servers_own_fatal_error_is_the_last_thing_its_client_sees(chunk: int) -> None:
    setting = Setting()
    client = setting.client()
    setting.world.chunk = chunk
    setting.cluster.processes[0].terminate()
    setting.world.settle()
    assert client.sqlstates == ["57P01"]
    assert client.over


def test_a_fatal_error_while_the_parameters_are_set_is_told_to_the_client() -> None:
    setting, session, port = in_state(ServerState.STARTING)
    assert session.client is not None
    far = session.client.port.far
    assert isinstance(far, Client)
    port.say(error("57P01", "terminating connection due to administrator command", "FATAL"))
    port.leave()
    setting.world.settle()
    assert far.sqlstates == ["57P01"]


def test_parameters_that_do_not_get_set_in_time_end_the_client() -> None:
    """W9: a waiter is served, refused or timed out, also one who got a server that does not answer."""
    setting, session, _ = in_state(ServerState.STARTING)
    assert session.client is not None
    far = session.client.port.far
    assert isinstance(far, Client)
    setting.world.pass_time(STARTING_TIMEOUT)
    assert far.over
    assert far.sqlstates == ["08006"]


def test_a_client_is_told_the_parameters_as_the_server_says_them() -> None:
    setting = Setting()
    first = setting.client()
    setting.cluster.processes[0].say(frame("S", b"TimeZone\0Mars/Olympus\0"))
    setting.world.settle()
    assert ("S", b"TimeZone\0Mars/Olympus\0") in first.received
    setting.leave(first)
    second = setting.client()
    assert ("S", b"TimeZone\0Mars/Olympus\0") in second.received


def test_a_connection_is_closed_with_terminate_when_it_is_not_needed_any_more() -> None:
    setting = Setting(server_idle_timeout=5)
    setting.leave(setting.client())
    port = setting.cluster.processes[0].port
    recording = Recording(port)
    setting.world.pass_time(5)
    assert recording.data == b"X\0\0\0\4"
    assert recording.over


def test_nothing_is_written_behind_half_a_message() -> None:
    setting = Setting()
    client = setting.client()
    recording = Recording(setting.cluster.processes[0].port)
    half = query(f"row {client.token}")[:8]
    client.say(half)
    setting.world.settle()
    client.leave()
    setting.world.settle()
    assert recording.data == half
    assert recording.over


def test_nothing_is_written_behind_half_a_message_that_the_server_skips() -> None:
    setting = Setting()
    client = setting.client()
    client.say(frame("P", b"\0bad\0\0\0"))
    setting.world.settle()
    recording = Recording(setting.cluster.processes[0].port)
    half = frame("B", bytes(20))[:12]
    client.say(half)
    setting.world.settle()
    client.leave()
    setting.world.settle()
    assert recording.data == half
    assert recording.over


def test_a_server_that_waits_for_the_data_of_a_client_that_is_gone_is_ended_at_once() -> None:
    setting = Setting()
    client = setting.client()
    client.ask(f"copyin {client.token}")
    client.port.step_read()
    client.leave()
    client.port.step_read()
    setting.world.settle()
    assert setting.cluster.processes[0].over


def test_a_server_of_which_nobody_knows_what_it_owes_is_not_asked_to_clean_itself() -> None:
    """The doubt comes up while the replies are dropped: a COPY fails into which a Sync was sent."""
    setting = Setting()
    client = setting.client()
    client.say(query(f"copyin {client.token}") + SYNC + COPY_FAIL)
    client.port.step_read()
    client.leave()
    client.port.step_read()
    setting.world.settle()
    assert setting.cluster.processes[0].over
    assert "DISCARD ALL" not in setting.cluster.processes[0].statements
    setting.world.check_limits()


def test_an_idle_server_that_said_its_last_word_gives_its_place_back_before_it_closes() -> None:
    setting, session, port = in_state(ServerState.IDLE)
    port.say(error("57P01", "terminating connection due to administrator command", "FATAL"))
    setting.world.settle()
    assert session.state == ServerState.CLOSED
    setting.world.check_limits()


def test_a_server_that_was_in_use_keeps_its_place_until_it_has_closed() -> None:
    """Its locks and its transaction are there until then, and the next client must not meet them."""
    setting, session, port = in_state(ServerState.CLEANING)
    port.say(error("57P01", "terminating connection due to administrator command", "FATAL"))
    setting.world.settle()
    assert session.state == ServerState.CLEANING
    port.leave()
    setting.world.settle()
    assert session.state == ServerState.CLOSED
    setting.world.check_limits()
