"""What servers hear of the prepared statements of clients, and when two of those are one and the same.

All in memory.  That PostgreSQL itself then answers as if each client had it alone is tried in tests/integration.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from struct import pack

import pytest

from pgpooler.config.choices import PoolMode
from pgpooler.pooling import preparing
from pgpooler.pooling.states import ClientState
from tests.memory import configure
from tests.protocol.test_prepared_statements import bind, close, describe, execute, parse
from tests.scripted import DESCRIPTION, SYNC, Client, PostgreSQL, Setting, copy_data, frame, query

RUN = execute() + SYNC
Answer = Callable[[PostgreSQL, bytes], object]


class Statements(Setting):
    """A world in transaction mode which keeps what servers hear, and in which a test may answer for them."""

    def __init__(self, patch: pytest.MonkeyPatch, **settings: object) -> None:
        super().__init__(**{"pool_mode": PoolMode.TRANSACTION, "server_reset_query": "smart", **settings})
        self.heard: list[tuple[int, str, bytes]] = []
        self.answers: dict[str, Answer] = {}
        message = PostgreSQL._message

        def hear(process: PostgreSQL, kind: str, body: bytes) -> object:
            self.heard.append((process.number, kind, body))
            if kind in self.answers:
                self.answers[kind](process, body)
                return iter(())
            return message(process, kind, body)

        patch.setattr(PostgreSQL, "_message", hear)

    def plain(self, **parameters: str) -> Client:
        client = Client(self.world, "", parameters=parameters)
        self.world.settle()
        return client

    def say(self, client: Client, *said: bytes) -> str:
        """Let a client say this, and return the types of what it gets."""
        before = len(client.received)
        client.say(b"".join(said))
        self.world.settle()
        self.world.check_limits()
        return "".join(kind for kind, _ in client.received[before:])

    def occupy(self) -> Client:
        """Let a client of its own hold a server connection: the one that was used last."""
        client = self.plain()
        assert self.say(client, query("BEGIN")) == "CZ"
        return client

    def parsed(self, text: str) -> list[bytes]:
        """The names under which a text has been prepared."""
        return [body.split(b"\0")[0] for _, kind, body in self.heard if kind == "P" and self.text(body) == text]

    @staticmethod
    def text(body: bytes) -> str:
        return body.split(b"\0")[1].decode()

    @property
    def prefix(self) -> bytes:
        return self.world.pool.statements.prefix


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Statements:
    return Statements(monkeypatch, pool_size=2)


def fails(sqlstate: str, text: str, *, routine: str = "") -> Answer:
    """An error in a language that PgPooler does not speak."""

    def answer(process: PostgreSQL, body: bytes) -> None:
        fields = [f"SFEHLER\0VERROR\0C{sqlstate}\0M{text}\0", f"R{routine}\0" if routine else "", "\0"]
        process.say(frame("E", "".join(fields).encode()))
        process.skipping = True

    return answer


# -- who shares --------------------------------------------------------------------------------------------------------


def test_statements_with_other_types_of_parameters_are_others(setting: Statements) -> None:
    one, other = setting.plain(), setting.plain()
    setting.say(one, parse("s", "SELECT 'x'"), SYNC)
    setting.say(other, frame("P", b"s\0SELECT 'x'\0" + pack("!hi", 1, 23)), SYNC)
    setting.say(setting.plain(), frame("P", b"s\0SELECT 'x'\0" + pack("!hi", 1, 25)), SYNC)
    assert len(set(setting.parsed("SELECT 'x'"))) == 3


def test_statements_of_clients_with_other_settings_that_texts_are_read_by_are_others(setting: Statements) -> None:
    one, other, third = setting.plain(), setting.plain(datestyle="German"), setting.plain(work_mem="1MB")
    for client in (one, other, third):
        setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    assert len(set(setting.parsed("SELECT 'x'"))) == 2


@pytest.mark.parametrize("before", ["SET x TO 'c'", "CREATE TEMP TABLE c"])
def test_while_a_text_may_mean_something_else_its_statement_is_nobody_elses(setting: Statements, before: str) -> None:
    """A setting of the transaction may be in force that nobody knows; a temporary table may hide another one."""
    one, other = setting.plain(), setting.plain()
    setting.say(one, parse("s", "SELECT 'x'"), SYNC)
    setting.say(other, query("BEGIN"), query(before))
    setting.say(other, parse("s", "SELECT 'x'"), SYNC)
    first, second = setting.parsed("SELECT 'x'")
    assert first != second


def test_names_differ_in_what_postgresql_keeps_of_them(setting: Statements) -> None:
    """A name is cut to 63 bytes."""
    client = setting.plain()
    assert setting.say(client, parse("n" * 70, "SELECT 'x'"), SYNC) == "1Z"
    assert setting.say(client, bind("n" * 63 + "m"), RUN) == "2DCZ"
    assert setting.say(client, bind("n" * 62), RUN) == "EZ"
    assert setting.say(client, parse("n" * 64, "SELECT 'y'"), SYNC) == "EZ"
    assert client.sqlstates == ["26000", "42P05"]


# -- ours and theirs ---------------------------------------------------------------------------------------------------


def test_nobody_reaches_a_statement_by_our_name_for_it(setting: Statements) -> None:
    one, other = setting.plain(), setting.plain()
    setting.say(one, parse("s", "SELECT 'x'"), SYNC)
    (ours,) = (name.decode() for name in setting.parsed("SELECT 'x'"))
    assert setting.say(other, bind(ours), RUN) == "EZ"
    assert setting.say(other, describe(ours), SYNC) == "EZ"
    assert setting.say(other, close(ours), SYNC) == "3Z"
    assert other.sqlstates == ["26000", "26000"]
    assert setting.say(one, bind("s"), RUN) == "2DCZ"
    assert setting.parsed("SELECT 'x'") == [ours.encode()]


def test_an_error_about_a_statement_speaks_of_the_clients_name_and_the_next_request_has_it_again(
    setting: Statements,
) -> None:
    """Something like a DO has closed it, of which nobody was told."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.cluster.processes[0].prepared.clear()
    assert setting.say(client, bind("s"), RUN) == "EZ"
    assert [error.message for error in client.errors] == ['prepared statement "s" does not exist']
    assert setting.say(client, bind("s"), RUN) == "2DCZ"


def test_the_client_gets_no_reply_to_what_is_prepared_for_it(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    assert setting.say(client, bind("s"), RUN) == "2DCZ"
    assert len(setting.parsed("SELECT 'x'")) == 2


def test_a_name_that_is_taken_is_refused_and_keeps_its_statement(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    assert setting.say(client, parse("s", "SELECT 'y'"), SYNC) == "EZ"
    assert client.sqlstates == ["42P05"]
    assert setting.say(client, bind("s"), RUN) == "2DCZ"
    assert client.rows == ["x"]


def test_what_clients_named_on_a_server_is_closed_when_they_have_left_it(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.say(client, query("EXECUTE s"))
    assert setting.parsed("SELECT 'x'")[1:] == [b"s"]
    assert list(setting.cluster.processes[0].prepared) == setting.parsed("SELECT 'x'")[:1]


@pytest.mark.parametrize(
    "said",
    [
        query("EXECUTE s"),
        parse("", "EXECUTE s") + bind("") + RUN,
        parse("t", "EXECUTE s") + bind("t") + RUN,
        parse("t", "EXECUTE s") + SYNC + bind("t") + RUN,
    ],
)
def test_sql_knows_the_statements_of_the_protocol_by_their_names(setting: Statements, said: bytes) -> None:
    """The scripted server knows no EXECUTE: what counts is what it has heard before."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'") + SYNC)
    setting.say(client, said)
    kinds = [body for _, kind, body in setting.heard if kind in "PQE"]
    runs = next(place for place, body in enumerate(kinds) if body == b"EXECUTE s\0" or body == b"\0" + bytes(4))
    assert b"s\0SELECT 'x'\0" + bytes(2) in kinds[:runs]


def test_after_a_do_that_may_close_statements_nothing_is_believed(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, query("DO 'BEGIN PERFORM 1; END'"))
    assert "DEALLOCATE ALL" not in setting.cluster.processes[0].statements
    setting.say(client, query("DO 'BEGIN DEALLOCATE ALL; END'"))
    assert "DEALLOCATE ALL" in setting.cluster.processes[0].statements


def test_a_statement_that_was_closed_is_gone(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    assert setting.say(client, close("s"), bind("s"), RUN) == "3EZ"
    assert setting.say(client, bind("s"), RUN) == "EZ"


def test_the_close_of_a_portal_is_not_taken_for_the_reply_to_a_parse(setting: Statements) -> None:
    """A Close of nothing stands for the Parse of a statement that is there."""
    one, other = setting.plain(), setting.plain()
    setting.say(one, parse("s", "SELECT 'x'"), SYNC)
    assert setting.say(other, close("", "P"), parse("s", "SELECT 'x'"), close("", "P"), SYNC) == "313Z"


@pytest.mark.parametrize("policy", ["always", "smart", "never"])
def test_a_statement_is_there_again_whatever_is_cleaned_between_two_leases(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """DISCARD ALL closes it."""
    setting = Statements(monkeypatch, pool_size=1, server_reset_query=policy)
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    for _ in range(2):
        assert setting.say(client, query("row c"), bind("s"), RUN) == "TDCZ2DCZ"


def test_what_no_client_and_no_server_has_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Statements(monkeypatch, pool_size=1, max_prepared_statements=1)
    client = setting.plain()
    for text in ("SELECT 'x'", "SELECT 'y'", "SELECT 'z'"):
        assert setting.say(client, parse("s", text), bind("s"), RUN) == "12DCZ"
        assert setting.say(client, close("s"), SYNC) == "3Z"
    gc.collect()
    assert len(setting.world.pool.statements) == 1


# -- what has changed --------------------------------------------------------------------------------------------------


def test_a_statement_whose_result_has_changed_is_prepared_anew_when_the_client_asks(setting: Statements) -> None:
    """It is recognised in any language, and it is the client's to ask."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.answers["B"] = fails("0A000", "Plan mit anderem Ergebnis", routine="RevalidateCachedQuery")
    assert setting.say(client, bind("s"), RUN) == "EZ"
    assert len(setting.parsed("SELECT 'x'")) == 1
    del setting.answers["B"]
    assert setting.say(client, parse("t", "SELECT 'x'"), bind("t"), RUN) == "12DCZ"
    first, second = setting.parsed("SELECT 'x'")
    assert first != second


def test_another_error_leaves_a_statement_to_be_shared(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    for sqlstate in ("0A000", "42501", "22012"):
        setting.answers["B"] = fails(sqlstate, "cached plan must not change result type")
        assert setting.say(client, bind("s"), RUN) == "EZ"
    del setting.answers["B"]
    assert setting.say(client, parse("t", "SELECT 'x'"), bind("t"), RUN) == "12DCZ"
    assert len(setting.parsed("SELECT 'x'")) == 1


def test_a_statement_that_is_prepared_again_gets_the_types_that_it_had(setting: Statements) -> None:
    client = setting.plain()
    setting.answers["D"] = lambda process, body: process.say(frame("t", pack("!hi", 1, 23)) + DESCRIPTION)
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    assert setting.say(client, bind("s"), RUN) == "2DCZ"
    types = [body.split(b"\0", 2)[2] for _, kind, body in setting.heard if kind == "P"]
    assert types == [pack("!h", 0), pack("!hi", 1, 23)]


def test_what_a_batch_prepares_behind_a_deallocate_is_not_closed_by_it(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    said = (parse("", "DEALLOCATE ALL"), bind(""), execute(), parse("s", "SELECT 'y'"), SYNC)
    assert setting.say(client, *said) == "12C1Z"
    assert setting.say(client, bind("s"), RUN) == "2DCZ"
    assert client.rows == ["y"]


def test_after_a_report_of_the_server_a_text_may_mean_something_else(setting: Statements) -> None:
    one, other = setting.plain(), setting.plain()
    setting.say(one, parse("s", "SELECT 'x'"), SYNC)
    setting.say(other, query("BEGIN"))
    setting.cluster.processes[0].say(frame("S", b"DateStyle\0German\0"))
    setting.world.settle()
    setting.say(other, parse("s", "SELECT 'x'"), SYNC)
    first, second = setting.parsed("SELECT 'x'")
    assert first != second


def other_settings(setting: Statements, client: Client) -> None:
    """The client has prepared `s`; now it has another DateStyle, and comes to another server connection."""
    assert setting.say(client, parse("s", "SELECT 'x'"), SYNC) == "1Z"
    setting.cluster.processes[0].settings["datestyle"] = "German"
    assert setting.say(client, query("SET x TO 'c'")) == "CZ"
    setting.occupy()


@pytest.mark.parametrize(("before", "under"), [(b"", None), (query("BEGIN") + query("SET x TO 'c'"), "German")])
def test_a_statement_is_prepared_again_under_the_settings_it_was_made_with(
    setting: Statements, before: bytes, under: str | None
) -> None:
    """Unless nobody knows which are in force now."""
    client = setting.plain()
    other_settings(setting, client)
    setting.say(client, before)
    read_under: list[str | None] = []
    message = PostgreSQL._message

    def look(process: PostgreSQL, kind: str, body: bytes) -> object:
        if kind == "P" and setting.text(body) == "SELECT 'x'":
            read_under.append(process.settings.get("datestyle"))
        return message(process, kind, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgreSQL, "_message", look)
        assert setting.say(client, bind("s"), RUN) == "2DCZ"
    assert read_under == [under]
    assert setting.cluster.processes[1].settings["datestyle"] == "German"
    assert not setting.cluster.complaints


def test_in_the_middle_of_a_pipeline_it_is_refused(setting: Statements) -> None:
    client = setting.plain()
    other_settings(setting, client)
    assert setting.say(client, parse("", "SELECT 'y'"), bind(""), execute(), bind("s"), RUN) == "12DCEZ"
    assert client.sqlstates == ["0A000"]
    assert "other settings" in client.errors[0].message


# -- what is too long, or too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "value"), [("LONGEST_KEPT", 60), ("MOST_KEPT", 100)])
def test_who_has_a_statement_that_is_not_kept_stays_with_its_server(
    monkeypatch: pytest.MonkeyPatch, setting: Statements, limit: str, value: int
) -> None:
    monkeypatch.setattr(preparing, limit, value)
    client = setting.plain()
    long = "SELECT '" + "x" * 60 + "'"
    assert setting.say(client, parse("s", long), SYNC) == "1Z"
    if limit == "MOST_KEPT":
        assert client.session.state == ClientState.IDLE  # type: ignore[union-attr]
        assert setting.say(client, parse("t", long), SYNC) == "1Z"
    assert client.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    assert "too long to be kept" in client.session.server.kept_by  # type: ignore[union-attr]
    last = "t" if limit == "MOST_KEPT" else "s"
    assert setting.say(client, bind(last), RUN) == "2DCZ"
    assert setting.say(client, close(last), SYNC) == "3Z"
    assert client.session.state == ClientState.IDLE  # type: ignore[union-attr]


def test_who_left_with_such_a_statement_keeps_nobody_elses_server(
    monkeypatch: pytest.MonkeyPatch, setting: Statements
) -> None:
    monkeypatch.setattr(preparing, "LONGEST_KEPT", 60)
    client, other = setting.plain(), setting.plain()
    setting.say(client, parse("s", "SELECT '" + "x" * 60 + "'"), SYNC)
    client.terminate()
    setting.world.settle()
    assert setting.say(other, parse("s", "SELECT 'y'"), bind("s"), RUN) == "12DCZ"
    assert other.session.state == ClientState.IDLE  # type: ignore[union-attr]
    assert len(setting.cluster.processes) == 1


# -- notices -----------------------------------------------------------------------------------------------------------


def test_a_notice_of_the_clients_own_request_is_told_though_a_statement_is_prepared_again(setting: Statements) -> None:
    """A notice about what was prepared before is told once; but here it may be of what the client runs itself."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    message = PostgreSQL._message

    def talkative(process: PostgreSQL, kind: str, body: bytes) -> object:
        if kind == "E":
            process.say(frame("N", b"SNOTICE\0\0"))
        return message(process, kind, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgreSQL, "_message", talkative)
        said = (parse("", "SELECT 'y'"), bind(""), execute(), bind("s"), RUN)
        assert setting.say(client, *said) == "12NDC2NDCZ"


# -- what is certain, and when -----------------------------------------------------------------------------------------


def test_what_an_earlier_batch_does_is_waited_for(setting: Statements) -> None:
    """The Close is skipped, and what comes behind the Sync may not take it for done."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    assert setting.say(client, bind("none"), close("s"), SYNC, bind("s"), RUN) == "EZ2DCZ"
    assert setting.say(client, parse("t", "bad c"), SYNC, bind("t"), RUN) == "EZEZ"
    assert client.errors[-1].message == 'prepared statement "t" does not exist'


def test_an_error_concerns_its_own_batch_and_none_behind_it(setting: Statements) -> None:
    client = setting.plain()
    assert setting.say(client, bind("none"), SYNC, parse("", "SELECT 'x'"), SYNC) == "EZ1Z"
    assert setting.say(client, bind(""), RUN) == "2DCZ"


def test_what_the_server_is_known_to_skip_needs_nothing(setting: Statements) -> None:
    """Otherwise the Sync would wait for a reply that never comes."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    assert setting.say(client, bind("none")) == "E"
    assert setting.say(client, bind("s"), RUN) == "Z"
    assert setting.say(client, bind("s"), RUN) == "2DCZ"


def test_a_deallocate_that_does_not_run_closes_nothing(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    assert setting.say(client, query("fail c; DEALLOCATE s")) == "EZ"
    assert setting.say(client, query("fail c; DEALLOCATE ALL")) == "EZ"
    setting.occupy()
    assert setting.say(client, bind("s"), RUN) == "2DCZ"


def test_a_statement_that_never_came_to_be_is_not_there_again_when_its_deallocate_does_not_run(
    setting: Statements,
) -> None:
    client = setting.plain()
    said = (parse("s", "bad c"), parse("", "DEALLOCATE s"), bind(""), execute(), SYNC, bind("s"), RUN)
    assert setting.say(client, *said) == "EZEZ"
    setting.say(client, query("BEGIN"), bind("none"), SYNC)
    assert setting.say(client, parse("s", "SELECT 'x'"), SYNC, query("DEALLOCATE s"), bind("s"), RUN) == "EZEZEZ"
    assert client.sqlstates == ["42601", "26000", "26000", "25P02", "25P02", "26000"]


@pytest.mark.parametrize("text", ["DEALLOCATE s", "DEALLOCATE ALL", "DEALLOCATE ALL" + " " * 10_000])
def test_what_sql_has_closed_may_be_prepared_again(setting: Statements, text: str) -> None:
    """Also where the text is too long to be read, and only its tag says what it did."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    assert setting.say(client, query(text)) == "CZ"
    assert setting.say(client, bind("s"), RUN) == "EZ"
    assert setting.say(client, parse("s", "SELECT 'y'"), bind("s"), RUN) == "12DCZ"
    assert client.rows == ["y"]


def test_after_a_client_that_vanished_before_the_reply_nothing_is_believed(setting: Statements) -> None:
    client, other = setting.plain(), setting.plain()
    (process,) = setting.cluster.processes
    process.stalled = True
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    client.break_off()
    setting.world.settle()
    process.stalled = False
    setting.world.settle()
    assert process.statements == ["DEALLOCATE ALL"]
    assert setting.say(other, parse("s", "SELECT 'x'"), bind("s"), RUN) == "12DCZ"


def test_a_query_ends_the_unnamed_statement(setting: Statements) -> None:
    client = setting.plain()
    assert setting.say(client, parse("", "SELECT 'x'"), SYNC, query("SELECT 'y'"), bind(""), RUN) == "1ZTDCZEZ"
    setting.occupy()
    assert setting.say(client, bind(""), RUN) == "EZ"
    assert client.sqlstates == ["26000", "26000"]


def test_in_session_mode_nobody_binds_the_unnamed_statement_of_a_client_before(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("", "SELECT 'x'"), bind(""), RUN)
    setting.world.reload(configure(pool_size=1, pool_mode=PoolMode.SESSION, server_reset_query="smart"))
    other = setting.plain()
    assert setting.say(other, bind(""), RUN) == "EZ"


# -- shapes and room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_a_statement_whose_rows_look_otherwise_on_another_server_is_not_run_there(
    setting: Statements, chunk: int
) -> None:
    """The client was told what they look like, and would misread them.  What it prepares anew is another statement."""
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    described = frame("t", bytes(2)) + DESCRIPTION.replace(b"token", b"other")
    setting.answers["D"] = lambda process, body: process.say(described)
    setting.world.chunk = chunk
    assert setting.say(client, bind("s"), RUN) == "EZ"
    assert [(error.sqlstate, error.message) for error in client.errors] == [
        ("0A000", "cached plan must not change result type")
    ]
    assert setting.cluster.processes[1].statements == []
    assert setting.say(client, parse("t", "SELECT 'x'"), bind("t"), RUN) == "12DCZ"
    assert len(set(setting.parsed("SELECT 'x'"))) == 2


def test_a_transaction_in_which_a_statement_was_not_run_because_of_its_rows_has_failed(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    described = frame("t", bytes(2)) + DESCRIPTION.replace(b"token", b"other")
    setting.answers["D"] = lambda process, body: process.say(described)
    assert setting.say(client, query("BEGIN"), bind("s"), RUN, bind("s"), RUN, query("ROLLBACK")) == "CZEZEZCZ"
    assert client.sqlstates == ["0A000", "25P02"]


def test_who_prepares_a_text_whose_rows_look_otherwise_by_now_gets_a_statement_of_its_own(setting: Statements) -> None:
    client, other = setting.plain(), setting.plain()
    setting.say(client, parse("s", "SELECT 'x'"), SYNC)
    setting.occupy()
    described = frame("t", bytes(2)) + DESCRIPTION.replace(b"token", b"other")
    setting.answers["D"] = lambda process, body: process.say(described)
    said = (query("BEGIN"), parse("s", "SELECT 'x'"), bind("s"), RUN, parse("t", "SELECT 'y'"), bind("t"), RUN)
    assert setting.say(other, *said) == "CZ12DCZ12DCZ"
    assert len(set(setting.parsed("SELECT 'x'"))) == 2
    assert len(setting.cluster.processes[1].prepared) == 2


def test_a_server_has_no_more_statements_than_it_may_and_gets_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used longest ago have to go."""
    setting = Statements(monkeypatch, pool_size=1, max_prepared_statements=2)
    client = setting.plain()
    for name in "abacab":
        if name.encode() not in client.session.statements.named:  # type: ignore[union-attr]
            setting.say(client, parse(name, f"SELECT '{name}'"), SYNC)
        assert setting.say(client, bind(name), RUN) == "2DCZ"
        assert len(setting.cluster.processes[0].prepared) <= 2
    assert client.rows == list("abacab")
    counts = [len(setting.parsed(f"SELECT '{name}'")) for name in "abc"]
    assert counts == [1, 2, 1]


# -- doubt -------------------------------------------------------------------------------------------------------------


def test_where_replies_end_is_asked_for_when_the_client_has_said_all(setting: Statements) -> None:
    """A Query in place of the Sync: nobody knows if the server skips it.  What it skips for certain changes nothing.

    Of the answer to us the client gets what it would have got anyway.
    """
    client = setting.plain()
    assert setting.say(client, bind("none"), query("SELECT 'x'")) == "E"
    assert setting.say(client, bind("none")) == ""
    marks: list[bytes] = []
    message = PostgreSQL._message

    def notify(process: PostgreSQL, kind: str, body: bytes) -> object:
        if b"pgpooler_mark" in body:
            marks.append(body)
            process.say(frame("A", bytes(4) + b"here\0\0"))
        return message(process, kind, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgreSQL, "_message", notify)
        assert setting.say(client, SYNC) == "ZA"
    assert len(marks) == 1
    assert client.session.state == ClientState.IDLE  # type: ignore[union-attr]


IN_DOUBT = parse("", "copyin c") + bind("") + execute() + SYNC + close("t") + SYNC
"""A COPY may have eaten the Sync in front of the Close: nobody knows whether that was skipped."""


@pytest.mark.parametrize(
    "said",
    [
        (IN_DOUBT, parse("u", "SELECT 'u'") + SYNC),
        (query("copyin c"), copy_data("bad") + parse("u", "SELECT 'u'") + SYNC),
    ],
)
def test_nobody_gets_a_statement_that_a_client_prepared_in_doubt_under_its_own_name(
    setting: Statements, said: tuple[bytes, bytes]
) -> None:
    """It was passed on as it is, because the server may skip it, and the client has it on this server alone."""
    client, other = setting.plain(), setting.plain()
    for part in said:
        setting.say(client, part)
    setting.occupy()
    assert setting.say(client, bind("u"), RUN) == "2DCZ"
    client.terminate()
    setting.world.settle()
    assert setting.say(other, bind("u"), RUN) == "EZ"
    assert [b"u" in process.prepared for process in setting.cluster.processes] == [False, False]


def test_nor_one_that_was_prepared_before_the_doubt_was_known(setting: Statements) -> None:
    """The COPY has begun as far as anybody knows, and has failed already."""
    client, other = setting.plain(), setting.plain()
    (process,) = setting.cluster.processes
    setting.world.chunk = 1
    client.say(IN_DOUBT)
    while client.port.step_read():
        pass
    while client.kinds != "12G":
        process.port.step_far()
        process.port.step_read()
        client.port.step_far()
    assert setting.say(client, parse("u", "SELECT 'u'"), SYNC) == "EZ1Z"
    client.terminate()
    setting.world.settle()
    assert setting.say(other, bind("u"), RUN) == "EZ"
    assert b"u" not in process.prepared
    assert not process.over


def test_a_pinned_client_goes_on_with_its_statements_after_a_doubt(setting: Statements) -> None:
    client = setting.plain()
    setting.say(client, query("LISTEN c"))
    for name in "st":
        assert setting.say(client, parse(name, f"SELECT '{name}'"), SYNC) == "1Z"
    setting.say(client, IN_DOUBT)
    assert setting.say(client, SYNC) == "Z"
    assert client.session.state == ClientState.ACTIVE  # type: ignore[union-attr]
    assert setting.say(client, parse("u", "SELECT 'u'"), bind("u"), RUN) == "12DCZ"
    for _ in range(2):
        assert setting.say(client, bind("s"), RUN) == "2DCZ"
    assert setting.say(client, parse("v", "SELECT 's'"), bind("v"), RUN) == "12DCZ"
