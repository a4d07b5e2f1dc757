"""What clients leave in the session, in memory: cleaned where there is evidence of it, pinned where it must last."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import PoolMode, SessionStatePolicy
from pgpooler.pooling.cleaning import KEEPING_PLANS
from pgpooler.pooling.evidence import ADVISORY_LOCK, HELD_CURSOR, LISTENING, PREPARED, TEMPORARY
from pgpooler.pooling.session_state import QUESTIONS as EVERY_QUESTION
from pgpooler.pooling.states import ClientState, ServerState
from tests.memory import configure
from tests.protocol.test_transaction_mode import LONG, Transactions, idle
from tests.scripted import SYNC, Client, PostgreSQL, extended, frame, query

QUESTIONS = KEEPING_PLANS.split("; ")
ASKS_FOR_SETTINGS = "SELECT pg_catalog.lower(name)"


def plain(setting: Transactions) -> Client:
    """A client without parameters, so that nothing is asked of the server but what it asks itself."""
    setting.number += 1
    client = Client(setting.world, "")
    client.token = f"c{setting.number}"
    setting.world.settle()
    return client


def smart(**settings: object) -> tuple[Transactions, Client, Client]:
    setting = Transactions(**{"server_reset_query": "smart", "pool_size": 2, "max_pinned": 1, **settings})
    return setting, plain(setting), plain(setting)


def until_asked(setting: Transactions, client: Client) -> PostgreSQL:
    """Let the client LISTEN, up to the moment at which its server is being asked what is in its session."""
    process = setting.process
    client.say(query("LISTEN c1"))
    while client.kinds != "CZ":
        client.port.step_read()
        process.port.step_far()
        process.port.step_read()
        client.port.step_far()
    return process


def asked(setting: Transactions) -> int:
    """How often servers were asked what is in their sessions."""
    return sum(process.questions for process in setting.cluster.processes)


# -- smart -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        query("SELECT 'c1'"),
        query("SELECT 'c1'") * 3,
        extended("SELECT 'c1'"),
        extended("SELECT 'c1'", sync=False) + extended("SELECT 'c1'"),
        query("BEGIN") + query("SELECT 'c1'") + query("COMMIT"),
        query("BEGIN") + query("SELECT 'c1'") + query("ROLLBACK"),
        extended("SELECT 'c1'", name="s1"),
        SYNC,
    ],
)
def test_where_nothing_is_left_nothing_is_cleaned(said: bytes) -> None:
    setting, one, other = smart(pool_size=1)
    setting.say(one, said)
    assert idle(one)
    assert QUESTIONS[0] not in setting.process.statements
    setting.ask(other, "SELECT '{}'")
    assert other.rows == [other.token]
    assert len(setting.cluster.processes) == 1


@pytest.mark.parametrize(
    "said",
    [query("row c1"), query("SELECT 'c1'" + LONG), frame("F", bytes(8)), extended("row c1", name="s1")],
)
def test_where_something_may_be_left_it_is_cleaned_and_plans_are_kept(said: bytes) -> None:
    setting, one, other = smart(pool_size=1)
    setting.say(one, said)
    assert idle(one)
    assert setting.process.statements[-len(QUESTIONS) :] == QUESTIONS
    setting.ask(other, "show {}")
    assert other.rows == [""]
    assert not setting.cluster.complaints


@pytest.mark.parametrize(
    "said",
    [
        query("SET x TO 'c1'"),
        query("BEGIN") + query("SET x TO 'c1'") + query("COMMIT"),
        extended("SET x TO 'c1'"),
        extended("SET x TO 'c1'", name="s1"),
    ],
)
@pytest.mark.parametrize("policy", ["always", "smart", "never"])
def test_what_a_client_sets_is_its_own_on_every_server_connection(policy: str, said: bytes) -> None:
    setting, one, other = smart(server_reset_query=policy)
    setting.say(one, said)
    assert idle(one)
    assert setting.process.statements[-1].startswith(ASKS_FOR_SETTINGS) or policy == "always"
    setting.ask(other, "show c")
    for holder, asker in ((None, one), (other, one), (one, other)):
        if holder is not None:
            setting.ask(holder, "BEGIN")
        setting.ask(asker, "show c")
        if holder is not None:
            setting.ask(holder, "COMMIT")
    assert one.rows == ["c1", "c1"]
    assert other.rows == ["", ""]
    assert not setting.cluster.complaints


def test_after_a_reported_change_the_server_is_asked_for_its_settings() -> None:
    setting, one, _ = smart(pool_size=1)
    setting.ask(one, "BEGIN")
    setting.process.say(frame("S", b"TimeZone\0Asia/Tokyo\0"))
    setting.world.settle()
    setting.ask(one, "COMMIT")
    assert setting.process.statements[-1].startswith(ASKS_FOR_SETTINGS)
    assert idle(one)


def test_a_change_that_is_taken_back_before_the_end_asks_nothing() -> None:
    """SET LOCAL of a reported parameter."""
    setting, one, _ = smart(pool_size=1)
    setting.ask(one, "BEGIN")
    for value in (b"Asia/Tokyo", b"UTC"):
        setting.process.say(frame("S", b"TimeZone\0" + value + b"\0"))
        setting.world.settle()
    setting.ask(one, "COMMIT")
    assert setting.process.statements == ["BEGIN", "COMMIT"]


def test_the_tag_of_a_set_says_nothing_where_every_text_was_read() -> None:
    """SET LOCAL has it, too."""
    setting, one, _ = smart(pool_size=1)
    setting.ask(one, "BEGIN")
    setting.process.say(frame("C", b"SET\0"))
    setting.world.settle()
    setting.ask(one, "COMMIT")
    assert setting.process.statements == ["BEGIN", "COMMIT"]


def test_a_library_that_was_loaded_ends_the_server_connection() -> None:
    setting, one, other = smart(pool_size=1, on_session_state=SessionStatePolicy.ALLOW)
    setting.ask(one, "BEGIN")
    setting.process.say(frame("C", b"LOAD\0"))
    setting.world.settle()
    setting.ask(one, "COMMIT")
    assert len(setting.cluster.alive) == 0
    setting.ask(other, "SELECT '{}'")
    assert other.rows == [other.token]


def test_what_was_left_under_never_is_cleaned_when_the_policy_becomes_smart() -> None:
    setting, one, _ = smart(pool_size=1, server_reset_query="never", on_session_state=SessionStatePolicy.ALLOW)
    setting.ask(one, "BEGIN")
    setting.ask(one, "row {}")
    setting.world.reload(configure(pool_size=1, pool_mode=PoolMode.TRANSACTION, server_reset_query="smart"))
    setting.ask(one, "COMMIT")
    assert setting.process.statements[-len(QUESTIONS) :] == QUESTIONS


# -- pins --------------------------------------------------------------------------------------------------------------


PINNING = ["LISTEN {}", "CREATE TEMP TABLE {}", "PREPARE {}"]


@pytest.mark.parametrize("policy", ["always", "smart", "never"])
@pytest.mark.parametrize("text", PINNING)
@pytest.mark.parametrize("mode", [PoolMode.TRANSACTION, PoolMode.STATEMENT])
def test_what_outlives_the_transaction_pins_the_lease(mode: PoolMode, text: str, policy: str) -> None:
    setting, one, other = smart(pool_mode=mode, server_reset_query=policy)
    setting.ask(one, text)
    (server,) = setting.world.pool.pinned
    assert server.client is one.session
    assert server.state == ServerState.ACTIVE
    assert [pin["client"] for pin in setting.world.service.snapshot()["pools"][0]["pinned"]] == [one.session.number]  # type: ignore[index, union-attr]
    setting.ask(other, "SELECT '{}'")
    setting.ask(one, "SELECT '{}'")
    assert server.client is one.session
    assert [client.rows for client in (one, other)] == [[one.token], [other.token]]
    assert [process.state for process in setting.cluster.alive].count(set()) == 1
    one.terminate()
    setting.world.settle()
    assert not setting.world.pool.pinned
    if policy != "never":
        assert all(process.state == set() for process in setting.cluster.alive)


def test_a_pinned_connection_that_dies_gives_its_place_to_another_pin() -> None:
    setting, one, other = smart(max_pinned=1)
    setting.ask(one, "LISTEN {}")
    (server,) = setting.world.pool.pinned
    setting.cluster.process_of(server).crash()
    setting.world.settle()
    setting.world.check_limits()
    setting.ask(other, "LISTEN {}")
    assert other.errors == []
    assert [server.client for server in setting.world.pool.pinned] == [other.session]


def test_what_was_not_read_takes_its_place_among_the_pinned_when_the_server_has_confirmed_it() -> None:
    setting, one, other = smart(max_pinned=1)
    setting.ask(one, "LISTEN {}" + LONG)
    assert [server.client for server in setting.world.pool.pinned] == [one.session]
    setting.ask(other, "LISTEN {}" + LONG)
    assert other.sqlstates == ["53300"], "there is no place left"


def test_what_was_not_read_pins_what_no_tag_speaks_of() -> None:
    """As `SELECT pg_advisory_lock(1)` in a text that is too long."""
    setting, one, _ = smart()
    setting.ask(one, "BEGIN")
    setting.ask(one, "SELECT '{}'" + LONG)
    setting.process.state.add("locks")
    setting.ask(one, "COMMIT")
    assert [server.client for server in setting.world.pool.pinned] == [one.session]


def test_the_place_among_the_pinned_is_taken_when_the_statement_runs() -> None:
    setting, one, other = smart(max_pinned=1)
    for client in (one, other):
        setting.ask(client, "BEGIN")
        setting.ask(client, "LISTEN {}")
    assert (one.errors, other.sqlstates) == ([], ["53300"])


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (TEMPORARY, "pg_my_temp_schema()"),
        (LISTENING, "pg_listening_channels()"),
        (ADVISORY_LOCK, "pg_locks"),
        (HELD_CURSOR, "pg_cursors"),
        (PREPARED, "pg_prepared_statements"),
    ],
)
def test_the_server_is_asked_in_the_place_where_it_keeps_such_state(kind: int, where: str) -> None:
    """What it answers is tried in tests/integration."""
    assert f"pg_catalog.{where}" in EVERY_QUESTION[kind]
    assert sum(f"pg_catalog.{where}" in question for question in EVERY_QUESTION.values()) == 1


def test_reasons_are_told_in_words() -> None:
    setting, _, two = smart()
    setting.ask(two, "LISTEN {}")
    setting.ask(two, "CREATE TEMP TABLE {}")
    (pin,) = setting.world.service.snapshot()["pools"][0]["pinned"]  # type: ignore[index]
    assert (pin["server"], pin["client"]) == (1, 2)
    assert "LISTEN" in pin["reason"]
    assert "temporary" in pin["reason"]
    assert any("pinned to server connection 1" in line for _, _, line in setting.world.log_lines)


@pytest.mark.parametrize(
    "said",
    [
        query("BEGIN") + query("LISTEN c1") + query("ROLLBACK"),
        query("BEGIN") + query("CREATE TEMP TABLE c1") + query("fail c1") + query("COMMIT"),
        extended("bad LISTEN c1"),
    ],
)
def test_what_is_gone_with_its_transaction_pins_nothing(said: bytes) -> None:
    setting, one, _ = smart()
    setting.say(one, said)
    assert idle(one)
    assert not setting.world.pool.pinned


def test_the_pin_ends_with_what_it_was_for() -> None:
    setting, one, _ = smart()
    setting.ask(one, "LISTEN {}")
    assert len(setting.world.pool.pinned) == 1
    before = asked(setting)
    setting.ask(one, "SELECT '{}'")
    setting.ask(one, "SET x TO '{}'")
    assert asked(setting) == before, "nothing has changed that pins, so nothing is asked"
    setting.ask(one, "UNLISTEN *")
    assert idle(one)
    assert not setting.world.pool.pinned


def test_a_prepared_listen_pins_again_when_it_runs_again() -> None:
    setting, one, _ = smart()
    setting.say(one, extended("LISTEN c1", name="s"))
    assert len(setting.world.pool.pinned) == 1
    setting.ask(one, "UNLISTEN *")
    assert idle(one)


def test_what_a_prepared_statement_leaves_when_it_runs_again_pins_too() -> None:
    """Its text was seen, and the server asked, before it ran; its tag says nothing of a temporary table."""
    setting, one, _ = smart()
    setting.ask(one, "LISTEN {}")
    setting.say(one, frame("P", b"s\0CREATE TEMP TABLE c1\0\0\0") + SYNC)
    setting.say(one, frame("B", b"\0s\0" + bytes(6)) + frame("E", b"\0" + bytes(4)) + SYNC)
    setting.ask(one, "UNLISTEN *")
    assert not idle(one)
    assert len(setting.world.pool.pinned) == 1


def test_nothing_slips_in_while_the_server_is_asked() -> None:
    """The next request comes before the answer: it is held, and served by the same server connection."""
    setting, one, other = smart(pool_size=1, max_pinned=1)
    process = until_asked(setting, one)
    assert process.port.session.state == ServerState.ASKING  # type: ignore[union-attr]
    one.say(query("SELECT 'c1'") + extended("SELECT 'c1'"))
    other.ask("SELECT 'c2'")
    setting.world.settle()
    assert one.rows == ["c1", "c1"]
    assert other.rows == []
    assert len(setting.cluster.processes) == 1
    one.leave()
    setting.world.settle()
    assert other.rows == ["c2"]
    assert not setting.cluster.complaints


@pytest.mark.parametrize("how", [Client.terminate, Client.leave, Client.break_off])
def test_a_client_may_leave_while_the_server_is_asked(how) -> None:  # type: ignore[no-untyped-def]
    setting, one, other = smart(pool_size=1, max_pinned=1)
    process = until_asked(setting, one)
    how(one)
    setting.world.settle()
    setting.ask(other, "SELECT '{}'")
    assert other.rows == [other.token]
    assert process.state == set()
    assert not setting.world.pool.pinned


def test_a_cancel_does_not_reach_the_question() -> None:
    setting, one, _ = smart(pool_size=1, max_pinned=1)
    until_asked(setting, one)
    setting.cancel(one)
    assert not setting.cluster.canceled


def test_a_question_that_fails_leaves_the_evidence_in_force() -> None:
    setting, one, _ = smart()
    setting.cluster.questions_fail = True
    setting.ask(one, "LISTEN {}")
    assert len(setting.world.pool.pinned) == 1
    setting.ask(one, "SELECT '{}'")
    assert one.rows == [one.token]


# -- max_pinned, on_session_state --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", PINNING)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_beyond_max_pinned_the_statement_is_refused_and_the_client_goes_on(text: str, chunk: int) -> None:
    setting, one, other = smart(pool_size=3)
    setting.world.chunk = chunk
    setting.ask(one, text)
    setting.ask(other, text)
    assert other.sqlstates == ["53300"]
    assert "max_pinned 1" in other.errors[0].message
    assert other.errors[0].severity == "ERROR"
    assert idle(other)
    setting.ask(other, "SELECT '{}'")
    assert other.rows == [other.token]
    one.terminate()
    setting.world.settle()
    setting.ask(other, text)
    assert len(setting.world.pool.pinned) == 1


def test_who_is_pinned_beyond_max_pinned_without_a_word_in_the_text_is_ended() -> None:
    setting, one, other = smart(pool_size=3)
    setting.ask(one, "LISTEN {}")
    setting.ask(other, "LISTEN {}" + LONG)
    assert other.sqlstates == ["53300"]
    assert other.errors[0].severity == "FATAL"
    assert len(setting.world.pool.pinned) == 1
    assert [process.state for process in setting.cluster.alive].count(set()) == 1


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (query("LISTEN c1"), "EZ"),
        (query("SELECT 'c1'") + query("LISTEN c1") + query("SELECT 'c1'"), "TDCZEZTDCZ"),
        (query("BEGIN") + query("LISTEN c1") + query("SELECT 'c1'") + query("COMMIT"), "CZEZEZCZ"),
        (extended("LISTEN c1"), "EZ"),
        (extended("SELECT 'c1'", sync=False) + extended("LISTEN c1", sync=False) + extended("SELECT 'c1'"), "12DCEZ"),
        (extended("bad", sync=False) + extended("LISTEN c1") + query("SELECT 'c1'"), "EZTDCZ"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_with_on_session_state_error_the_server_refuses_for_us(said: bytes, kinds: str, chunk: int) -> None:
    """The transaction fails, a batch is skipped, and the client reads a legal conversation."""
    setting, one, other = smart(on_session_state=SessionStatePolicy.ERROR)
    setting.world.chunk = chunk
    setting.say(one, said)
    assert one.kinds == kinds
    refused = [failure for failure in one.errors if failure.sqlstate == "0A000"]
    assert len(refused) == (0 if b"bad" in said else 1)
    assert not any("pgpooler_refuses" in failure.message for failure in one.errors)
    assert setting.cluster.complaints == []
    assert all(process.state == set() for process in setting.cluster.alive)
    assert idle(one)
    setting.ask(other, "SELECT '{}'")
    assert other.rows == [other.token]


def test_an_error_of_ours_is_about_the_statement_that_is_refused_and_not_about_one_that_is_skipped() -> None:
    setting, one, _ = smart(on_session_state=SessionStatePolicy.ERROR)
    said = extended("bad", sync=False) + extended("LISTEN c1") + query("CREATE TEMP TABLE c1")
    setting.say(one, said)
    assert one.kinds == "EZEZ"
    assert "temporary" in one.errors[1].message


def test_with_on_session_state_allow_it_is_cleaned_like_anything_else() -> None:
    setting, one, _ = smart(on_session_state=SessionStatePolicy.ALLOW, pool_size=1)
    setting.ask(one, "LISTEN {}")
    assert idle(one)
    assert setting.process.state == set()
    assert asked(setting) == 0


def test_a_pinned_client_that_is_quiet_too_long_is_ended() -> None:
    setting, one, other = smart(pool_size=1, max_pinned=1, pinned_idle_timeout=5)
    setting.ask(one, "LISTEN {}")
    setting.world.pass_time(3)
    setting.ask(one, "SELECT '{}'")
    setting.world.pass_time(4)
    assert one.errors == []
    other.ask("SELECT 'c2'")
    setting.world.pass_time(2)
    assert one.sqlstates == ["57P05"]
    assert "pinned_idle_timeout" in one.errors[0].message
    assert other.rows == ["c2"]


# -- the unnamed statement ---------------------------------------------------------------------------------------------

BIND = extended("", sync=False)[9:]  # of the unnamed statement, and Execute


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (BIND + SYNC, "EZ"),
        (SYNC + BIND + SYNC, "ZEZ"),
        (frame("D", b"S\0") + BIND + SYNC, "EZ"),
        (frame("C", b"S\0") + BIND + SYNC, "3EZ"),
        (frame("P", b"named\0SELECT 'c2'\0\0\0") + BIND + SYNC, "1EZ"),
        (extended("SELECT 'c2'", sync=False) + BIND + SYNC, "12DC2DCZ"),
        (query("SELECT 'c2'") + BIND + SYNC, "TDCZEZ"),
    ],
)
@pytest.mark.parametrize("mode", [PoolMode.TRANSACTION, PoolMode.STATEMENT])
@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_nobody_binds_the_unnamed_statement_of_another_client(
    said: bytes, kinds: str, mode: PoolMode, chunk: int
) -> None:
    """Where nothing is cleaned the unnamed statement of the lease before is still on the server."""
    setting, one, other = smart(pool_size=1, pool_mode=mode)
    setting.world.chunk = chunk
    setting.say(one, extended("SELECT 'c1'"))
    assert b"" in setting.process.prepared
    setting.say(other, said)
    assert other.kinds == kinds
    assert set(other.rows) <= {"c2"}
    assert set(other.sqlstates) <= {"26000"}
    assert idle(other)
    setting.ask(one, "SELECT '{}'")
    assert one.rows == ["c1"] * 2


def test_a_query_forgets_the_unnamed_statement_by_itself() -> None:
    setting, one, other = smart(pool_size=1)
    setting.say(one, extended("SELECT 'c1'"))
    setting.say(other, query("SELECT 'c2'") + BIND + SYNC)
    assert setting.process.statements == ["SELECT 'c1'", "SELECT 'c2'"]


def test_a_block_behind_a_forgotten_statement_is_refused_like_any_other() -> None:
    """The request was held, and is so no longer: the client is not taken for one that has sent too much."""
    setting, one, other = smart(pool_size=1, pool_mode=PoolMode.STATEMENT)
    setting.say(one, extended("SELECT 'c1'"))
    setting.say(other, extended("BEGIN", name="s"))
    assert other.sqlstates == ["0A000"]
    assert other.kinds.endswith("EZ")
    assert idle(other)


def test_who_parses_first_costs_no_round_trip() -> None:
    setting, one, other = smart(pool_size=1)
    for client in (one, other, one):
        setting.say(client, extended(f"SELECT '{client.token}'"))
    assert setting.process.statements == ["SELECT 'c1'", "SELECT 'c2'", "SELECT 'c1'"]


def test_in_session_mode_nothing_pins() -> None:
    setting, one, _ = smart(pool_mode=PoolMode.SESSION, pool_size=2)
    setting.ask(one, "LISTEN {}")
    assert not setting.world.pool.pinned
    assert one.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    one.terminate()
    setting.world.settle()
    assert all(process.state == set() for process in setting.cluster.alive)
