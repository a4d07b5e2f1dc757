"""What went wrong in other poolers and must not go wrong here, in memory: one test for each lesson.

Each names the pooler, and the issue or CVE.  The whole list, with the lessons that are tested elsewhere, is
docs/reference/lessons-of-peers.md.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgpooler.config.choices import AuthMethod, PoolMode
from pgpooler.config.model import Backend
from pgpooler.pooling.access import Access
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes, messages
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
    direct_transcript,
    error,
    extended,
    frame,
    query,
)

MODES = list(PoolMode)
SHARING = [PoolMode.TRANSACTION, PoolMode.STATEMENT]
METHODS = [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN]
OWN_USER = Backend(name="primary", host="pg1", user="pooler", password="of the pooler")


def body(message: bytes) -> bytes:
    return message[5:]


def with_password(setting: Setting, password: bytes, **more: object) -> Client:
    client = Client(setting.world, "x", password=password, **more)  # type: ignore[arg-type]
    setting.world.settle()
    setting.world.check_limits()
    return client


def process_of(setting: Setting) -> PostgreSQL:
    (process,) = setting.cluster.alive
    return process


def assert_next_gets_its_own(setting: Setting) -> None:
    """Another client is served with nothing but its own rows, and nothing went wrong on the servers."""
    other = setting.client()
    other.say(query(f"row {other.token}") + extended(f"row {other.token} 2"))
    setting.world.settle()
    assert other.kinds == "TDCZ12DDCZ"
    assert set(other.rows) == {other.token}
    assert not setting.cluster.complaints


# -- who is let in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["user", "database", "application_name", "unheard_of"])
@pytest.mark.parametrize("size", [63, 64, 127, 1024, 9_900, 10_001, 1_000_000])
@pytest.mark.parametrize("chunk", [1000, 1 << 16])
def test_names_of_any_length_before_the_login_are_cut_or_refused(what: str, size: int, chunk: int) -> None:
    """PgBouncer, CVE-2012-4575: a long database name in the startup packet ended the pooler."""
    setting = Setting(method=AuthMethod.MD5, users={"alice": "secret"})
    setting.world.chunk = chunk
    port = setting.world.accept()
    recording = Recording(port)
    port.say(messages.startup_message(codes.PROTOCOL_3_0, {"user": "alice", "database": "shop", what: "n" * size}))
    setting.world.settle()
    if size > 10_000:
        assert messages.read_error(body(bytes(recording.data))).sqlstate == "08P01"
        assert recording.over
        assert set(setting.world.counts().values()) == {0}
    else:
        request, _ = messages.read_authentication(body(bytes(recording.data)))
        assert request == codes.AUTHENTICATION_MD5_PASSWORD
    assert with_password(setting, b"secret").logged_in


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("user", ["stranger", "pooler", "", "pooler\x01"])
@pytest.mark.parametrize("password", [b"", b"wrong", b"of the pooler"])
def test_who_is_unknown_is_not_let_in_as_the_user_of_the_backend(
    method: AuthMethod, user: str, password: bytes
) -> None:
    """PgBouncer, CVE-2015-6817: an unknown user was logged in as auth_user, whose password was at hand."""
    setting = Setting(method=method, users={"alice": "secret"}, backends=(OWN_USER,))
    assert with_password(setting, b"secret").logged_in
    before = list(process_of(setting).statements)
    stranger = with_password(setting, password, user=user)
    assert stranger.sqlstates == (["28P01"] if user else ["28000"])
    assert stranger.over
    assert process_of(setting).statements == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("warm", [False, True])
def test_nothing_a_stranger_asks_for_reaches_a_server(warm: bool, mode: PoolMode) -> None:
    """PgBouncer, CVE-2025-12819: search_path of a startup packet was in force while the password was looked up."""
    setting = Setting(method=AuthMethod.SCRAM_SHA_256, users={"alice": "secret"}, pool_mode=mode, pool_size=2)
    if warm:
        assert with_password(setting, b"secret").logged_in
    before = [list(process.statements) for process in setting.cluster.processes]
    asked = {"search_path": "trap", "options": "-c search_path=trap -c role=postgres", "application_name": "trap"}
    for user in ("alice", "stranger"):
        assert with_password(setting, b"wrong", user=user, parameters=asked).sqlstates == ["28P01"]
    assert [process.statements for process in setting.cluster.processes] == before


def test_no_secret_is_logged_or_shown() -> None:
    """Pgpool-II, CVE-2023-22332: what one user logs in with was shown to another."""
    setting = Setting(method=AuthMethod.PLAIN, users={"alice": "secret"}, backends=(OWN_USER,), pool_size=2)
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"of the pooler"
    client = with_password(setting, b"secret")
    with_password(setting, b"a wrong one")
    setting.cluster.password = b"another"
    with_password(setting, b"secret")
    setting.leave(client)
    shown = [text for _, _, text in setting.world.log_lines]
    shown += [repr(setting.world.service.snapshot()), repr(client.session), repr(setting.world.pools)]
    shown += [repr(server) for pool in setting.world.pools for server in (*pool.idle, *pool.busy)]
    shown.append(repr(setting.world.service.access))
    keys = [client.cancel_key.hex(), repr(client.cancel_key)]
    for secret in ("secret", "a wrong one", "of the pooler", "another", "SCRAM-SHA-256$", *keys):
        assert not [text for text in shown if secret in text], secret


@pytest.mark.parametrize("mode", MODES)
def test_the_same_text_of_two_users_is_answered_by_servers_of_their_own(mode: PoolMode) -> None:
    """Pgpool-II, CVE-2024-45624: a cached result was given to a user whom row security would have shown another."""
    setting = Setting(pool_mode=mode)
    for _ in range(2):
        for user in ("alice", "bob"):
            client = Client(setting.world, "", user=user)
            client.ask("row c")
            setting.world.settle()
            assert client.rows == ["c"]
            setting.leave(client)
    assert {process.user: process.statements.count("row c") for process in setting.cluster.processes} == {
        "alice": 2,
        "bob": 2,
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("secret", ["cleartext", "verifier"])
@pytest.mark.parametrize("pool", ["cold", "warm", "reloaded", "in use"])
def test_a_wrong_password_is_refused_whatever_state_the_pool_is_in(
    pool: str, secret: str, method: AuthMethod, mode: PoolMode
) -> None:
    """Pgpool-II, CVE-2025-46801: with a connection at hand any password was good enough."""
    password = "secret" if secret == "cleartext" else make_verifier(b"secret", salt=b"salt", iterations=2).text()
    settings = {"method": method, "users": {"alice": password}, "pool_mode": mode, "pool_size": 2}
    setting = Setting(**settings)
    possible = secret == "cleartext" or method is not AuthMethod.MD5  # which a verifier cannot answer
    if pool != "cold":
        first = with_password(setting, b"secret")
        assert first.logged_in or not possible
        if possible and pool != "in use":
            setting.leave(first)
    if pool == "reloaded":
        setting.world.reload(configure(**settings))  # type: ignore[arg-type]
    before = [list(process.statements) for process in setting.cluster.processes]
    for wrong in (b"wrong", b"", b"secret ", b"Secret", password.encode() if secret == "verifier" else b"secre"):
        client = with_password(setting, wrong)
        assert client.sqlstates == ["28P01"]
        assert client.over
    assert [process.statements for process in setting.cluster.processes] == before


@pytest.mark.parametrize("mode", MODES)
def test_a_server_connection_that_was_lost_is_made_again_with_what_its_client_proved(mode: PoolMode) -> None:
    """PgBouncer #1432, #1504: with SCRAM passed through no server could be logged in to after a reconnect."""
    verifier = make_verifier(b"secret", salt=b"salt").text()
    setting = Setting(method=AuthMethod.SCRAM_SHA_256, users={"alice": verifier}, pool_mode=mode)
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"secret"
    client = with_password(setting, b"secret")
    for number in range(1, 4):
        client.ask("row x")
        setting.world.settle()
        assert client.rows == ["x"] * number
        process_of(setting).terminate()
        setting.world.settle()
        if mode is PoolMode.SESSION:
            assert client.sqlstates == ["57P01"]
            client = with_password(setting, b"secret")
            client.say(query("row x") * number)
    assert len(setting.cluster.processes) >= 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_after_a_change_of_the_password_the_old_one_opens_nothing(method: AuthMethod, mode: PoolMode) -> None:
    """PgBouncer #1034, #1186: a remembered secret was used on although the password had changed."""
    setting = Setting(method=method, users={"alice": "old"}, pool_mode=mode, pool_size=2)
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"old"
    client = with_password(setting, b"old")
    setting.cluster.password = b"new"
    changed = configure(method=method, users={"alice": "new"}, pool_mode=mode, pool_size=2)
    access = Access(changed.auth, previous=setting.world.service.access)
    setting.world.service.reload(changed, access, setting.world.now)
    client.ask("row x")
    setting.world.settle()
    assert client.rows == ["x"], "who is in stays in"
    assert with_password(setting, b"old").sqlstates == ["28P01"]
    for process in setting.cluster.alive:
        process.terminate()
    setting.world.settle()
    again = with_password(setting, b"new")
    again.ask("row x")
    setting.world.settle()
    assert again.rows == ["x"]


# -- cancel requests ---------------------------------------------------------------------------------------------------


def target(situation: str) -> tuple[Setting, Client]:
    """A client in this situation, whose cancel key somebody is going to use."""
    mode = PoolMode.SESSION if "session" in situation else PoolMode.TRANSACTION
    setting = Setting(pool_mode=mode, query_wait_timeout=0)
    client = Client(setting.world, "c1", version=codes.PROTOCOL_3_2)
    setting.number = 1
    setting.world.settle()
    if situation == "waits with a request":
        setting.client().ask("slow c2")
        setting.world.settle()
        client.ask("row c1")
    elif situation == "its parameters are being set":
        setting.client()
        process_of(setting).stalled = True
        client.ask("row c1")
    elif situation in ("runs a query", "runs a query in a session"):
        client.ask("slow c1")
    elif situation == "is in a transaction":
        client.ask("begin c1")
    elif situation == "is gone":
        client.terminate()
    setting.world.settle()
    return setting, client


@pytest.mark.parametrize("behind", [b"", TERMINATE, query("insert c"), bytes(5000), b"\xff" * 9])
@pytest.mark.parametrize(
    ("situation", "canceled"),
    [
        ("is idle", False),
        ("is idle in a session", False),
        ("is in a transaction", False),
        ("runs a query", True),
        ("runs a query in a session", True),
        ("waits with a request", True),
        ("its parameters are being set", True),
        ("is gone", False),
    ],
)
def test_a_cancel_request_is_closed_without_a_byte_and_changes_nothing_but_what_it_is_for(
    situation: str, canceled: bool, behind: bytes
) -> None:
    """PgBouncer #927, #928, #1383, #298: the carrier got FATAL, for bytes behind it or for the moment it came."""
    setting, client = target(situation)
    for key, hits in ((client.cancel_key + b"!", False), (client.cancel_key[:4], False), (client.cancel_key, canceled)):
        recording = Recording(port := setting.world.accept())
        port.say(messages.cancel_request(client.process_id, key) + behind)
        setting.world.settle()
        assert recording.data == b""
        assert recording.over
        assert client.sqlstates == (["57014"] if hits else [])
    for process in setting.cluster.alive:
        process.stalled = False
        process.let_go = True
        process.release()
    setting.world.settle()
    if situation != "is gone":
        client.ask(f"row {client.token}")
        setting.world.settle()
        assert client.rows[-1:] == [client.token]
    assert setting.cluster.inserted == []
    assert not setting.cluster.complaints


# -- pipelines ---------------------------------------------------------------------------------------------------------

MIX = extended("row c1", sync=False) + frame("D", b"P\0") + SYNC + SYNC + query("row c1 2") + query("row c1;fail c1")
BLOCK = query("begin c1") + query("insert c1;row c1;row c1") + query("commit c1")
BATCHES = extended("insert c1", sync=False) + extended("fail c1", sync=False) + extended("row c1") + query("row c1")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("depth", [1, 50, 2_500])
@pytest.mark.parametrize("chunk", [1 << 10, 1 << 16])
def test_a_server_is_not_let_go_at_the_first_ready_for_query_of_a_pipeline(
    chunk: int, depth: int, mode: PoolMode
) -> None:
    """PgBouncer #52, Odyssey: the next client read answers to Syncs that were still under way."""
    setting = Setting(pool_mode=mode)
    client = setting.client()
    said = (MIX + BATCHES + (b"" if mode is PoolMode.STATEMENT else BLOCK)) * depth
    setting.world.chunk = chunk
    client.say(said)
    for _ in range(7):
        for step in setting.world.steps():
            step()
    other = setting.client()
    if mode is PoolMode.SESSION:
        setting.leave(client)
    assert bytes(client.after_login) == direct_transcript(said, "c1")
    other.ask(f"row {other.token}")
    setting.world.settle()
    assert other.rows == [other.token]
    assert not setting.cluster.complaints


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", [Client.terminate, Client.leave, Client.break_off])
@pytest.mark.parametrize("steps", range(0, 60, 6))
def test_who_leaves_in_the_middle_of_a_pipeline_leaves_no_answer_to_the_next(
    steps: int, how: Callable[[Client], None], mode: PoolMode
) -> None:
    """PgBouncer #52: the same, with a client that does not wait for its answers."""
    setting = Setting(pool_mode=mode)
    client = setting.client()
    setting.world.chunk = 97
    block = b"" if mode is PoolMode.STATEMENT else BLOCK
    client.say((MIX + BATCHES + block) * 20 + block[: len(query("begin c1"))])
    for _ in range(steps):
        for step in setting.world.steps():
            step()
    how(client)
    setting.world.settle()
    assert_next_gets_its_own(setting)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_an_answer_to_flush_comes_and_the_server_stays(chunk: int, mode: PoolMode) -> None:
    """PgCat PR 953, pgpool-II #79, asyncpg #1058: without a Sync the client hung, or lost its server at the Flush."""
    setting = Setting(pool_mode=mode)
    client = setting.client()
    setting.world.chunk = chunk
    whole = extended("row c1")
    parse_length = 1 + int.from_bytes(whole[1:5], "big")
    client.say(whole[:parse_length] + frame("D", b"S\0") + FLUSH)
    setting.world.settle()
    assert client.kinds == "1tT"
    other = setting.client()
    other.ask("row c2")
    setting.world.settle()
    assert other.rows == [], "its server was given to somebody else"
    client.say(whole[parse_length:-5] + FLUSH)
    setting.world.settle()
    assert client.kinds == "1tT2DC"
    assert other.rows == []
    client.say(SYNC)
    setting.world.settle()
    assert client.kinds == "1tT2DCZ"
    if mode is PoolMode.SESSION:
        setting.leave(client)
    assert other.rows == ["c2"]
    assert not setting.cluster.complaints


# -- prepared statements -----------------------------------------------------------------------------------------------


def bind(name: str) -> bytes:
    return frame("B", f"\0{name}\0".encode() + bytes(6)) + frame("E", b"\0" + bytes(4)) + SYNC


def parse(name: str, text: str) -> bytes:
    return frame("P", f"{name}\0{text}\0".encode() + bytes(2))


def close(name: str) -> bytes:
    return frame("C", f"S{name}\0".encode())


FAILS = close("another") + extended("fail c", sync=False, name="another")
NO_SUCH_STATEMENT = "EZ"
TRIES: dict[str, tuple[Callable[[str], bytes], str, str]] = {
    # what the client says, what it is answered, and what it is answered when it binds the statement afterwards
    "a Parse that failed": (lambda name: parse(name, "bad") + SYNC, "EZ", NO_SUCH_STATEMENT),
    "a Parse that was skipped": (lambda name: FAILS + parse(name, "SELECT 'c2'") + SYNC, "312EZ", NO_SUCH_STATEMENT),
    "a Parse in an earlier lease": (lambda name: parse(name, "SELECT 'c2'") + SYNC, "1Z", "2DCZ"),
    "Close": (lambda name: close(name) + SYNC, "3Z", NO_SUCH_STATEMENT),
    "nothing": (lambda name: SYNC, "Z", NO_SUCH_STATEMENT),
}


@pytest.mark.parametrize("mode", SHARING)
@pytest.mark.parametrize("policy", ["always", "smart"])
@pytest.mark.parametrize("name", ["s", ""])
@pytest.mark.parametrize("case", TRIES)
def test_a_statement_is_its_clients_own_or_does_not_exist(case: str, name: str, policy: str, mode: PoolMode) -> None:
    """PgBouncer #1038, Odyssey #588, Supavisor #1174, PgCat #875: a name meant the statement of somebody else."""
    setting = Setting(pool_mode=mode, server_reset_query=policy)
    owner, client = (Client(setting.world, "") for _ in range(2))  # nothing has to be set when they take turns
    setting.world.settle()
    tries, answer, bound = TRIES[case]
    for _ in range(3):
        owner.say(close(name) + extended("SELECT 'c1'", name=name))
        client.say(close(name) + SYNC)
        setting.world.settle()
        before = len(client.kinds)
        client.say(tries(name))
        setting.world.settle()
        owner.say(bind(name))
        setting.world.settle()
        client.say(bind(name))
        setting.world.settle()
        assert client.kinds[before:] == answer + bound
        assert bound != NO_SUCH_STATEMENT or client.sqlstates[-1] == "26000"
        client.say(close(name) + extended("SELECT 'c2'", name=name))
        setting.world.settle()
        assert client.rows[-1] == "c2"
    assert set(owner.rows) == {"c1"}
    assert set(client.rows) == {"c2"}
    assert not setting.cluster.complaints


# -- COPY --------------------------------------------------------------------------------------------------------------

BAD = frame("d", b"bad\n")
DATA = copy_data("c1")
AFTERWARDS = query("row c1") + extended("row c1")
COPIES: dict[str, tuple[bytes, ...]] = {
    "an error, and data go on": (query("copyin c1"), DATA, BAD, DATA, DATA + COPY_DONE, AFTERWARDS),
    "an error, and data go on in one segment": (query("copyin c1") + DATA + BAD + DATA * 9 + COPY_DONE, AFTERWARDS),
    "an error in the last line": (query("copyin c1") + DATA + BAD + COPY_DONE, AFTERWARDS),
    "CopyFail": (query("copyin c1"), DATA, COPY_FAIL, AFTERWARDS),
    "CopyDone and CopyFail out of place": (COPY_DONE + COPY_FAIL, AFTERWARDS, query("copyin c1") + COPY_DONE),
    "CopyFail behind an error": (query("copyin c1"), BAD, DATA + COPY_FAIL, AFTERWARDS),
    "extended": (extended("copyin c1", sync=False), DATA, COPY_DONE + SYNC, AFTERWARDS),
    "extended, Sync sent ahead": (extended("copyin c1"), DATA, COPY_DONE + SYNC, AFTERWARDS),
    "extended, an error": (extended("copyin c1", sync=False), DATA + BAD, DATA, COPY_DONE + SYNC, AFTERWARDS),
    "extended, an error, and Sync alone": (extended("copyin c1", sync=False), DATA + BAD, SYNC, AFTERWARDS),
    "extended, CopyFail": (extended("copyin c1", sync=False), DATA + COPY_FAIL + SYNC, AFTERWARDS),
    "extended, Flush": (extended("copyin c1", sync=False) + FLUSH, DATA + FLUSH, COPY_DONE + FLUSH, SYNC, AFTERWARDS),
    "out, and what follows": (query("copyout c1 50 100") + AFTERWARDS, AFTERWARDS),
    "in one query with others": (query("row c1;copyin c1;row c1"), DATA + COPY_DONE + AFTERWARDS),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 6, 1 << 16])
@pytest.mark.parametrize("case", COPIES)
def test_a_copy_that_fails_or_not_is_answered_once_and_leaves_nothing(case: str, chunk: int, mode: PoolMode) -> None:
    """PgBouncer #1025, #1471, pgpool-II #79: late data leaked the server, a Sync behind it was counted wrong."""
    setting = Setting(pool_mode=mode)
    client = setting.client()
    setting.world.chunk = chunk
    for piece in COPIES[case]:
        client.say(piece)
        setting.world.settle()
        setting.world.check_limits()
    assert bytes(client.after_login) == direct_transcript(bytes(client.said), "c1")
    if mode is PoolMode.SESSION:
        setting.leave(client)
    assert setting.sizes == (1, 0, 0, 0)
    assert_next_gets_its_own(setting)


# -- timeouts ----------------------------------------------------------------------------------------------------------

RUNS = {"query_timeout": "57014", "transaction_timeout": "25P04"}
IN_TRANSACTION = {"transaction_timeout": "25P04", "idle_transaction_timeout": "25P03"}
SILENT = {"session_idle_timeout": "57P05"}
AIMS: dict[str, tuple[bytes, dict[str, str]]] = {
    "silence after the login": (b"", SILENT),
    "silence after a query": (query("row c1"), SILENT),
    "a query": (query("slow c1"), RUNS),
    "a query of the extended protocol": (extended("slow c1"), RUNS),
    "a query in a transaction": (query("begin c1") + query("slow c1"), RUNS),
    "a function call in a transaction that waits": (query("begin c1") + query("slow c1") + frame("F", bytes(8)), RUNS),
    "silence in a transaction": (query("begin c1"), {**IN_TRANSACTION, **SILENT}),
    "silence in a transaction that failed": (query("begin c1") + query("bad"), {**IN_TRANSACTION, **SILENT}),
    "silence before Sync": (extended("row c1", sync=False), {**IN_TRANSACTION, **SILENT}),
    "silence in a COPY": (query("copyin c1"), {**IN_TRANSACTION, **SILENT}),
    "silence while pinned": (query("LISTEN c1"), {"pinned_idle_timeout": "57P05", **SILENT}),
    "waiting for a server": (query("row c1"), {"query_wait_timeout": "53300"}),
}
TIMEOUTS = sorted({name for _, ends in AIMS.values() for name in ends})
PAIRS = {(situation, name, mode) for situation in AIMS for name in TIMEOUTS for mode in MODES[:2]}
PAIRS -= {("silence in a COPY", "query_timeout", mode) for mode in MODES}  # the COPY runs, too
PAIRS -= {("silence while pinned", "pinned_idle_timeout", PoolMode.SESSION)}  # nothing pins there
PAIRS -= {("waiting for a server", name, PoolMode.SESSION) for name in TIMEOUTS}  # it waits with its login


@pytest.mark.parametrize(("situation", "name", "mode"), sorted(PAIRS))
def test_a_timeout_ends_what_it_is_for_when_it_is_over_and_nothing_else(
    situation: str, name: str, mode: PoolMode
) -> None:
    """PgBouncer #629, #1395, #1120: query_timeout ended a fresh server connection with no query in flight."""
    setting = Setting(pool_mode=mode, **{"query_wait_timeout": 0, "max_pinned": 1, "server_lifetime": 0, name: 10})
    client = setting.client()
    said, ends = AIMS[situation]
    if situation == "waiting for a server":
        holder = setting.client()
        process_of(setting).stalled = True
        holder.ask(f"row {holder.token}")
        setting.world.settle()
    client.say(said)
    setting.world.settle()
    known = client.sqlstates
    setting.world.pass_time(9)
    assert client.sqlstates == known
    setting.world.pass_time(2)
    expected = [ends[name]] if name in ends else []
    assert client.sqlstates == known + expected
    setting.world.pass_time(20)
    assert client.sqlstates == known + expected, "it struck twice"
    assert expected or "waiting" in situation or not setting.cluster.canceled
    setting.world.check_limits()


# -- what a server says by itself --------------------------------------------------------------------------------------

NOTICE = frame("N", body(error("00000", "a notice", "NOTICE")))
PARAMETER = frame("S", b"TimeZone\0Mars/Olympus\0")
NOTIFICATION = frame("A", bytes(4) + b"channel\0text\0")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("said", [NOTICE, PARAMETER, NOTIFICATION, (NOTICE + PARAMETER + NOTIFICATION) * 3])
@pytest.mark.parametrize("cut", [None, 1, 4, 5, 9])
def test_what_a_server_says_while_nobody_holds_it_answers_nothing_and_comes_to_nobody_in_part(
    cut: int | None, said: bytes, mode: PoolMode
) -> None:
    """pg_doorman 3.10.7, PgDog #957, #1079, Odyssey #1444: it was given to the next client, or taken for an answer."""
    setting = Setting(pool_mode=mode)
    first, second = Client(setting.world, ""), Client(setting.world, "")
    first.ask("row c1")
    setting.world.settle()
    if mode is PoolMode.SESSION:
        process_of(setting).stalled = True  # it says so while the connection is cleaned
        first.terminate()
        setting.world.settle()
    process = process_of(setting)
    process.say(said[:cut])
    setting.world.settle()
    process.stalled = True
    second.ask("row c2")
    setting.world.settle()
    process.say(said[len(said) if cut is None else cut :])
    setting.world.settle()
    process.stalled = False
    setting.world.settle()
    assert second.rows == ["c2"]
    assert second.kinds.endswith("TDCZ")
    assert second.stream == b"", "a message came in part"
    if cut is None or cut >= 5:  # before its header is here, it has not begun; whole notifications behind it may come
        notifications = "A" * said[1:].count(NOTIFICATION)
        assert second.kinds.replace("S", "") in ("TDCZ", notifications + "TDCZ")
    assert not setting.cluster.complaints


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("said", [NOTICE, PARAMETER, NOTIFICATION, (NOTICE + PARAMETER + NOTIFICATION) * 3])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_what_a_server_says_within_a_lease_reaches_its_client_as_it_is(chunk: int, said: bytes, mode: PoolMode) -> None:
    """PgDog #957: notices and notifications that did not answer anything were lost, or ended the wait for an answer."""
    setting = Setting(pool_mode=mode)
    client = setting.client()
    client.ask("slow c1")
    setting.world.settle()
    setting.world.chunk = chunk
    process = process_of(setting)
    process.say(said)
    setting.world.settle()
    assert bytes(client.after_login) == said
    assert client.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    process.release()
    setting.world.settle()
    assert client.kinds.endswith("TDCZ")
    client.say(frame("F", bytes(8)) + query(""))
    setting.world.settle()
    assert client.kinds.endswith("TDCZVZIZ")


ANSWER = (PostgreSQL.row(b"c1:"), frame("C", b"SELECT 1\0"), frame("Z", b"I"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("late", [ANSWER, ANSWER[1:], ANSWER[2:], (frame("2"), *ANSWER), (frame("n"), *ANSWER)])
@pytest.mark.parametrize("before", range(1, 4))
def test_an_answer_that_comes_late_is_not_taken_for_the_next_clients(
    before: int, late: tuple[bytes, ...], mode: PoolMode
) -> None:
    """PgDog #876, #887, #913, pgagroal #142: a server that was out of step was handed to the next client so."""
    setting = Setting(pool_mode=mode)
    first = Client(setting.world, "")
    first.ask("row c1")
    setting.world.settle()
    if mode is PoolMode.SESSION:
        setting.leave(first)
    process = process_of(setting)
    process.say(b"".join(late[:before]))
    setting.world.settle()
    process.stalled = True
    second = Client(setting.world, "")
    second.ask("row c2")
    setting.world.settle()
    process.say(b"".join(late[before:]))
    process.stalled = False
    setting.world.settle()
    assert second.rows == ["c2"]
    assert second.kinds == "TDCZ"
    assert process.over
    assert not setting.cluster.complaints
