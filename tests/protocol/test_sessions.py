"""Every state and every message: in the table below, or a clean end, however the bytes arrive.

`CLIENTS` and `ACCEPTED` together reach every state of `pgpooler.pooling.states`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pgpooler.config.choices import AuthMethod, PoolMode
from pgpooler.pooling.states import ClientState, ServerState
from pgpooler.protocol import codes, messages
from tests.memory import MemoryPort
from tests.protocol.test_session_mode import check_answers
from tests.roles import RolesSetting
from tests.scripted import (
    SYNC,
    TERMINATE,
    Client,
    Recording,
    Setting,
    cut,
    extended,
    frame,
    query,
)
from tests.unit.pooling.test_server import BODIES, in_state

FAILED = query("begin c1") + query("fail c1")
VERIFIER = "SCRAM-SHA-256$2:c2FsdA==$" + ":".join(["A" * 43 + "="] * 2)

# -- situations of a client --------------------------------------------------------------------------------------------


def logged_in(said: bytes = b"", mode: PoolMode = PoolMode.SESSION, **settings: object) -> tuple[Setting, Client]:
    """A client that has said this, and whose server has done what it could."""
    setting = Setting(pool_mode=mode, server_idle_timeout=5, **settings)
    client = setting.client()
    client.say(said)
    setting.world.settle()
    return setting, client


def in_startup() -> tuple[Setting, Client]:
    setting = Setting(server_idle_timeout=5)
    return setting, Client(setting.world, "c1", start=False)


def in_authentication() -> tuple[Setting, Client]:
    setting = Setting(server_idle_timeout=5, method=AuthMethod.MD5, users={"alice": "secret"})
    client = Client(setting.world, "c1", start=False)
    client.port.say(messages.startup_message(codes.PROTOCOL_3_0, {"user": "alice"}))
    Listener(client)
    setting.world.settle()
    return setting, client


def in_computation() -> tuple[Setting, Client]:
    setting = Setting(server_idle_timeout=5, method=AuthMethod.PLAIN, users={"alice": VERIFIER})
    setting.world.hold_computations = True
    client = Client(setting.world, "c1", password=b"wrong")
    setting.world.settle()
    return setting, client


def looking_up() -> tuple[Setting, Client]:
    setting = RolesSetting()
    setting.world.hold_opens = True
    return setting, setting.client()


def waiting_with_its_login() -> tuple[Setting, Client]:
    setting = Setting(server_idle_timeout=5)
    setting.world.hold_opens = True
    return setting, setting.client()


def waiting_with_a_request() -> tuple[Setting, Client]:
    setting, client = logged_in(mode=PoolMode.TRANSACTION)
    setting.world.hold_opens = True
    setting.cluster.processes[0].terminate()
    setting.world.settle()
    client.ask("row c1")
    setting.world.settle()
    return setting, client


def waiting_for_its_parameters() -> tuple[Setting, Client]:
    setting, client = logged_in(mode=PoolMode.TRANSACTION)
    setting.client().ask("row c2")
    setting.world.settle()
    setting.cluster.processes[0].stalled = True
    client.ask("row c1")
    setting.world.settle()
    return setting, client


def canceling() -> tuple[Setting, Client]:
    setting, other = logged_in(query("slow c1"))
    setting.world.hold_cancels = True
    client = Client(setting.world, "c1", start=False)
    client.port.say(messages.cancel_request(other.process_id, other.cancel_key))
    setting.world.settle()
    return setting, client


def refused_a_block() -> tuple[Setting, Client]:
    setting, client = logged_in(mode=PoolMode.STATEMENT)
    process = setting.cluster.processes[0]
    client.ask("begin c1")
    client.port.step_read()
    process.port.step_far()
    process.stalled = True
    setting.world.settle()
    return setting, client


def asked_about_its_session() -> tuple[Setting, Client]:
    setting, client = logged_in(mode=PoolMode.TRANSACTION)
    process = setting.cluster.processes[0]
    client.ask("LISTEN c1")
    client.port.step_read()
    process.port.step_far()
    process.stalled = True
    setting.world.settle()
    return setting, client


def says_goodbye() -> tuple[Setting, Client]:
    return logged_in(query("slow c1") + TERMINATE)


class Listener(Recording):
    """The end of a client's port that answers nothing; what it got is for the client to show."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.port)
        self.client = client

    def receive(self, data: bytes) -> None:
        self.client.stream += data
        self.client.received += cut(self.client.stream)

    def ended(self) -> None:
        self.client.leave()


C, S = ClientState, ServerState
Situation = tuple[Callable[[], tuple[Setting, Client]], ClientState, ServerState | None]
CLIENTS: dict[str, Situation] = {
    "before its startup packet": (in_startup, C.STARTUP, None),
    "asked for its password": (in_authentication, C.AUTHENTICATION, None),
    "its password is checked": (in_computation, C.COMPUTING, None),
    "its user is looked up": (looking_up, C.LOOKING_UP, None),
    "waits with its login": (waiting_with_its_login, C.WAITING, None),
    "waits with a request": (waiting_with_a_request, C.WAITING, None),
    "its parameters are being set": (waiting_for_its_parameters, C.WAITING, S.STARTING),
    "carries a cancel request": (canceling, C.CANCELING, None),
    "idle": (lambda: logged_in(mode=PoolMode.TRANSACTION), C.IDLE, None),
    "idle in statement mode": (lambda: logged_in(mode=PoolMode.STATEMENT), C.IDLE, None),
    "idle in a session": (logged_in, C.ACTIVE, S.ACTIVE),
    "in a query": (lambda: logged_in(query("slow c1"), PoolMode.TRANSACTION), C.ACTIVE, S.ACTIVE),
    "in a query in statement mode": (lambda: logged_in(query("slow c1"), PoolMode.STATEMENT), C.ACTIVE, S.ACTIVE),
    "in a transaction": (lambda: logged_in(query("begin c1"), PoolMode.TRANSACTION), C.ACTIVE, S.ACTIVE),
    "in a failed transaction": (lambda: logged_in(FAILED, PoolMode.TRANSACTION), C.ACTIVE, S.ACTIVE),
    "in a batch": (lambda: logged_in(extended("row c1", sync=False), PoolMode.TRANSACTION), C.ACTIVE, S.ACTIVE),
    "in a failed batch": (lambda: logged_in(extended("fail c1", sync=False), PoolMode.TRANSACTION), C.ACTIVE, S.ACTIVE),
    "in a COPY": (lambda: logged_in(query("copyin c1"), PoolMode.TRANSACTION), C.ACTIVE, S.ACTIVE),
    "in a COPY of a batch": (lambda: logged_in(extended("copyin c1", sync=False)), C.ACTIVE, S.ACTIVE),
    "pinned": (lambda: logged_in(query("LISTEN c1"), PoolMode.TRANSACTION, max_pinned=1), C.ACTIVE, S.ACTIVE),
    "its block is rolled back": (refused_a_block, C.ACTIVE, S.REFUSING),
    "asked what it left": (asked_about_its_session, C.ACTIVE, S.ASKING),
    "said Terminate": (says_goodbye, C.ACTIVE, S.ACTIVE),
}
BY_STATE = {  # what becomes of a message that a frontend may send in a session, and of one that it may not
    C.STARTUP: ("refused", "refused"),
    C.AUTHENTICATION: ("refused", "refused"),
    C.COMPUTING: ("not read", "not read"),
    C.LOOKING_UP: ("refused", "refused"),
    C.CANCELING: ("not read", "not read"),
    C.WAITING: ("goes on", "refused"),
    C.IDLE: ("goes on", "refused"),
    C.ACTIVE: ("goes on", "refused"),
}
OTHERWISE: dict[str | tuple[str, str], list[list[str]]] = {  # the SQLSTATEs of the end, where they are not those
    "its password is checked": [["28P01"]],
    ("asked for its password", "a password"): [["28P01"], ["08P01"]],  # the latter behind another message
    "its block is rolled back": [["0A000"]],  # what is sent ahead may belong to the block
    ("its block is rolled back", "CopyData"): [["0A000"], []],  # but alone it is no request
}
LEGAL = {
    "Bind": frame("B", b"\0\0" + bytes(6)),
    "Close": frame("C", b"S\0"),
    "CopyData": frame("d", b"c1\n"),
    "CopyDone": frame("c"),
    "CopyFail": frame("f", b"no more\0"),
    "Describe": frame("D", b"S\0"),
    "Execute": frame("E", b"\0" + bytes(4)),
    "Flush": frame("H"),
    "FunctionCall": frame("F", bytes(8)),
    "Parse": frame("P", b"\0row c1\0\0\0"),
    "Query": query("row c1"),
    "Sync": SYNC,
    "Terminate": TERMINATE,
}
ILLEGAL = {
    "a password": frame("p", b"secret\0"),
    "an authentication request": frame("R", bytes(4)),
    "ReadyForQuery": frame("Z", b"I"),
    "an unknown type": frame("!", b"what"),
    "type 0": frame("\0", b"what"),
    "type 255": b"\xff\0\0\0\4",
    "length 0": b"Q\0\0\0\0",
    "length 3": b"Q\0\0\0\3abc",
    "a length of a gigabyte": b"Q\x3f\xff\xff\xff",
    "the longest length": b"Q\x7f\xff\xff\xff",
    "a negative length": b"d\xff\xff\xff\xff",
    "a long Sync": frame("S", bytes(10_001)),
}
MESSAGES = {**LEGAL, **ILLEGAL}


def arrivals(message: bytes) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Ways in which a message may come: how much is read at a time, and the segments."""
    for chunk in (1, 5, 6, 1 << 16):
        yield chunk, (message,)
    for at in {*range(1, min(len(message), 12)), len(message) - 1}:
        yield 1 << 16, (message[:at], message[at:])
    yield 1 << 16, (message + message,)
    yield 1 << 16, (query("row c1") + message + query("row c1 2"),)
    yield 3, (message + SYNC + message + query("row c1"),)
    yield 1 << 16, (extended("row c1", sync=False) + message, SYNC + message)


def test_the_situations_of_clients_reach_every_state() -> None:
    reached = {(client, server) for _, client, server in CLIENTS.values()}
    assert {client for client, _ in reached} == set(ClientState) - {C.CLOSED}
    of_clients = {S.STARTING, S.ACTIVE, S.REFUSING, S.ASKING}
    assert {server for _, server in reached} - {None} == of_clients
    assert set(BY_STATE) == set(ClientState) - {C.CLOSED}


def test_the_messages_are_all_that_a_frontend_may_send_and_others() -> None:
    assert {message[0] for message in LEGAL.values()} == set(codes.FRONTEND_TYPES)
    assert len({len(message) for message in LEGAL.values()}) > 3


def let_everything_go_on(setting: Setting) -> None:
    world = setting.world
    world.hold_opens = world.hold_cancels = world.hold_computations = False
    setting.cluster.let_go = True
    for process in setting.cluster.processes:
        process.stalled = False
        process.release()
    world.settle()


def assert_nothing_is_left(setting: Setting) -> None:
    """When all have gone every count is back to zero."""
    for one in list(setting.world.service.clients.values()):
        one.end("the test is over", setting.world.now)
    setting.world.settle()
    setting.world.pass_time(40)
    setting.world.check_limits()
    assert set(setting.world.counts().values()) == {0}
    assert not setting.cluster.complaints


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("case", CLIENTS)
def test_any_message_of_a_client_in_any_state_goes_on_or_is_refused_with_08p01(case: str, name: str) -> None:
    make, client_state, server_state = CLIENTS[case]
    fate = BY_STATE[client_state][name in ILLEGAL]
    for chunk, segments in arrivals(MESSAGES[name]):
        setting, client = make()
        session = client.session
        assert session.state == client_state  # type: ignore[union-attr]
        server = session.server  # type: ignore[union-attr]
        assert (server and server.state) == server_state
        if client_state is C.CANCELING:
            Listener(client)
        setting.world.chunk = chunk
        for segment in segments:
            client.say(segment)
            setting.world.settle()
            setting.world.check_limits()
        let_everything_go_on(setting)
        setting.world.check_limits()
        fatal = [told.sqlstate for told in client.errors if told.severity == "FATAL"]
        assert client.stream == b"", "half a message"
        assert client.received[-1:] == [] or not fatal or client.received[-1][0] == "E", "something behind the end"
        gone = b"X" in {segment[:1] for segment in messages_of(segments)} or case == "said Terminate"
        if (case, name) in OTHERWISE or case in OTHERWISE:
            assert fatal in OTHERWISE.get((case, name), OTHERWISE.get(case))  # type: ignore[operator]
        elif fate == "not read":
            assert client.received == []
        elif fate == "refused" and not gone:
            assert fatal == ["08P01"]
        else:
            assert fatal == [] or gone
        if client.logged_in and session.mode is not PoolMode.STATEMENT:  # type: ignore[union-attr]
            check_answers(client)
        client.leave()
        setting.world.settle()
        assert_nothing_is_left(setting)


def messages_of(segments: tuple[bytes, ...]) -> list[bytes]:
    """The messages in these segments, as far as their lengths can be believed."""
    whole, found = b"".join(segments), []
    while len(whole) >= 5 and 4 <= int.from_bytes(whole[1:5], "big") < 1 << 20:
        size = 1 + int.from_bytes(whole[1:5], "big")
        found.append(whole[:size])
        whole = whole[size:]
    return found


# -- servers -----------------------------------------------------------------------------------------------------------

ANYTHING = "".join(map(chr, sorted(codes.BACKEND_TYPES)))
ACCEPTED = {  # types of messages with which a server connection goes on
    S.LOGIN: "RN",  # nothing is negotiated in protocol 3.0, which is asked for
    S.IDLE: "NASE",
    S.STARTING: ANYTHING,
    S.ACTIVE: ANYTHING,
    S.REFUSING: ANYTHING,
    S.ASKING: ANYTHING,
    S.CLEANING: ANYTHING.replace("G", "").replace("W", ""),  # nobody is there to go on with a COPY
    S.PROBING: ANYTHING,
}


def test_the_table_of_servers_has_every_state() -> None:
    assert set(ACCEPTED) == set(ServerState) - {S.CLOSED}


@pytest.mark.parametrize("kind", [*ANYTHING, "R", "v", "p", "!", "\0", "\xff"])
@pytest.mark.parametrize("state", ACCEPTED)
def test_any_message_of_a_server_in_any_state_is_accepted_or_ends_it(state: ServerState, kind: str) -> None:
    body = BODIES.get(kind, b"")
    message = bytes((ord(kind),)) + (4 + len(body)).to_bytes(4, "big") + body
    for chunk, segments in [(1, (message,)), (5, (message,)), (1 << 16, (message,))] + [
        (1 << 16, (message[:at], message[at:])) for at in range(1, len(message))
    ]:
        setting, session, port = in_state(state)
        assert session.state == state
        setting.world.chunk = chunk
        for segment in segments:
            port.say(segment)
            setting.world.settle()
        setting.world.check_limits()
        assert (session.state != S.CLOSED) == (kind in ACCEPTED[state])
        end_of_servers(setting, port)


@pytest.mark.parametrize("kind", [*ANYTHING, "R", "v", "p", "!", "\0", "\xff"])
@pytest.mark.parametrize("state", ACCEPTED)
def test_several_messages_of_a_server_in_one_segment_leave_nothing_behind(state: ServerState, kind: str) -> None:
    body = BODIES.get(kind, b"")
    message = bytes((ord(kind),)) + (4 + len(body)).to_bytes(4, "big") + body
    ready = frame("Z", b"I")
    for several in (message * 2, message + ready, ready + message, ready + message[:3], ready * 2 + message):
        for chunk in (1, 6, 1 << 16):
            setting, session, port = in_state(state)
            setting.world.chunk = chunk
            clients = [client.port.far for client in setting.world.service.clients.values()]
            port.say(several)
            setting.world.settle()
            setting.world.check_limits()
            port.leave()
            setting.world.settle()
            assert session.state == S.CLOSED
            for client in clients:
                assert isinstance(client, Client)
                assert client.stream == b"", "half a message"
            end_of_servers(setting, port)


@pytest.mark.parametrize("state", ACCEPTED)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_a_server_that_is_ready_more_often_than_it_was_asked_is_closed(state: ServerState, chunk: int) -> None:
    setting, session, port = in_state(state)
    setting.world.chunk = chunk
    port.say(frame("Z", b"I") * 3)
    setting.world.settle()
    assert session.state == S.CLOSED
    end_of_servers(setting, port)


def end_of_servers(setting: Setting, port: MemoryPort) -> None:
    port.leave()
    setting.world.settle()
    setting.world.check_limits()
    for client in list(setting.world.service.clients.values()):
        client.end("the test is over", setting.world.now)
    for other in list(setting.world.ports):
        other.leave()
    setting.world.settle()
    setting.world.pass_time(100)
    assert set(setting.world.counts().values()) == {0}


def test_a_cancel_request_that_takes_too_long_has_no_reply_either() -> None:
    setting = Setting(client_login_timeout=10)
    client = setting.client()
    client.ask("slow c1")
    setting.world.settle()
    setting.world.hold_cancels = True
    carrier = Recording(port := setting.world.accept())
    port.say(messages.cancel_request(client.process_id, client.cancel_key))
    setting.world.pass_time(11)
    assert carrier.over
    assert carrier.data == b""
