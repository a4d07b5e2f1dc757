"""spec.session and spec.judge on conversations written down by hand, where every step is plain to see."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec import phrases as say
from spec import strategies
from spec.codec import Instance, backend, encode, frontend
from spec.conversation import ASYNCHRONOUS, ENDS_A_CYCLE, IGNORED_IN_COPY, REPLY, RULE, RULES, SKIPPED_AFTER_ERROR
from spec.grammar import names
from spec.judge import ConnectionJudge
from spec.messages import MESSAGES, Phase, Sender
from spec.session import Judge, Violation

F, B = Sender.FRONTEND, Sender.BACKEND

LOGIN = (say.startup(), say.AUTHENTICATED, say.key_data(), say.ready())
EXTENDED = (say.parse(b"SELECT 1"), say.bind(), say.execute(), say.SYNC)


def heard(*messages: Instance, judge: Judge | None = None) -> Judge:
    """A judge that has heard these messages and found nothing wrong, by default after a login."""
    if judge is None:
        judge = heard(*LOGIN, judge=Judge())
    for message in messages:
        assert judge.hear(message) == (), message
    return judge


def broken(violations: Sequence[Violation]) -> list[str]:
    return [violation.rule.name for violation in violations]


# --- what is stated


def test_rules_have_unique_names_an_anchor_and_a_sentence() -> None:
    assert len(RULE) == len(RULES)
    for rule in RULES:
        assert re.fullmatch(r"[a-z0-9-]+", rule.name)
        assert re.fullmatch(r"protocol-[a-z-]+(#PROTOCOL-[A-Z-]+)?", rule.anchor), rule
        assert rule.text.endswith(".")


def test_only_messages_that_exist_are_stated() -> None:
    replies = {message.name for message in MESSAGES if message.sender is B}
    requests = {message.name for message in MESSAGES if message.sender is F} | {
        "DescribeStatement",
        "DescribePortal",
        "ReplicationCommand",
    }
    assert set(REPLY) | ENDS_A_CYCLE | SKIPPED_AFTER_ERROR | IGNORED_IN_COPY <= requests
    assert {name for e in REPLY.values() for name in names(e)} | ASYNCHRONOUS <= replies


# --- what a judge tells


def test_a_new_judge_expects_the_beginning_of_a_connection() -> None:
    judge = Judge()
    assert judge.requests == {"SSLRequest", "GSSENCRequest", "CancelRequest", "StartupMessage"}
    assert judge.legal == {"ErrorResponse"}
    assert (judge.idle, judge.owed, judge.status) == (False, (), b"I")


def test_what_is_legal_and_owed_follows_a_session_step_by_step() -> None:
    judge = heard(say.startup(), judge=Judge())
    assert judge.owed == ("StartupMessage",)
    assert "AuthenticationSASL" in judge.legal
    assert "NegotiateProtocolVersion" not in judge.legal
    heard(*LOGIN[1:], judge=judge)
    assert judge.idle
    assert judge.legal == ASYNCHRONOUS | {"ErrorResponse"}
    assert not judge.may_fail
    heard(*EXTENDED, judge=judge)
    assert judge.owed == ("Parse", "Bind", "Execute", "Sync")
    assert judge.legal == ASYNCHRONOUS | {"ErrorResponse", "ParseComplete"}
    assert judge.may_fail
    heard(say.PARSED, say.BOUND, say.row(1), judge=judge)
    assert judge.owed == ("Execute", "Sync")
    assert judge.legal == ASYNCHRONOUS | {"ErrorResponse", "DataRow", "CommandComplete", "PortalSuspended"}
    heard(say.complete(b"SELECT 1"), say.ready(), judge=judge)
    assert (judge.idle, judge.owed) == (True, ())


def test_a_series_without_its_sync_is_not_idle() -> None:
    judge = heard(say.parse(b"SELECT 1"), say.FLUSH, say.PARSED)
    assert judge.owed == ()
    assert not judge.idle
    assert heard(say.SYNC, say.ready(), judge=judge).idle


def test_void_messages_leave_a_session_idle() -> None:
    assert heard(say.FLUSH, say.copy_data(b"x"), say.COPY_DONE, say.COPY_FAIL).idle


def test_the_status_is_that_of_the_last_ready_for_query() -> None:
    judge = heard(say.query(b"BEGIN"), say.complete(b"BEGIN"))
    assert judge.status == b"I"
    assert heard(say.ready(b"T"), judge=judge).status == b"T"


def test_a_violation_says_who_what_where_and_what_was_legal() -> None:
    judge = heard(say.query(b"SELECT 1"))
    (violation,) = judge.hear(say.PARSED)
    assert violation.rule is RULE["simple-query-is-plain"]
    assert violation.sender is B
    assert violation.said == "ParseComplete"
    assert violation.message == "the backend may not say ParseComplete in reply to Query"
    assert {"RowDescription", "CommandComplete", "EmptyQueryResponse"} <= violation.legal


def test_one_mistake_is_one_violation_and_the_judge_finds_its_way_back() -> None:
    judge = heard(*EXTENDED, *EXTENDED)
    replies = (say.BOUND, say.row(1), say.complete(b"SELECT 1"), say.ready())
    assert broken([violation for reply in replies for violation in judge.hear(reply)]) == ["reply-in-order"]
    heard(say.PARSED, say.BOUND, say.row(1), say.complete(b"SELECT 1"), say.ready(), judge=judge)
    assert judge.idle


def test_large_pipelines_are_judged_and_forgotten() -> None:
    judge = heard()
    for _ in range(2000):
        heard(*EXTENDED, judge=judge)
    assert len(judge.owed) == 8000
    for _ in range(2000):
        heard(say.PARSED, say.BOUND, say.row(1), say.complete(b"SELECT 1"), say.ready(), judge=judge)
    assert judge.idle


# --- several readings


def test_syncs_behind_a_copy_that_fails_are_counted_in_every_way_that_is_possible() -> None:
    for answered in range(4):
        judge = heard(say.query(b"COPY t FROM STDIN"), say.copy_begins("CopyInResponse"), *[say.SYNC] * 3)
        assert not judge.is_ambiguous
        heard(say.error(), *[say.ready()] * (1 + answered), judge=judge)
        assert judge.is_ambiguous is (answered < 3)
        assert judge.idle
        heard(say.query(b"SET a"), say.complete(b"SET"), judge=judge)
        assert not judge.is_ambiguous
        assert judge.owed == ("Query",)


def test_a_copy_in_an_extended_query_skips_to_the_first_sync_the_server_had_not_read() -> None:
    copy = (say.parse(b"COPY t FROM STDIN"), say.bind(), say.execute(), say.SYNC, say.SYNC)
    judge = heard(*copy, say.PARSED, say.BOUND, say.copy_begins("CopyInResponse"), say.error())
    assert judge.is_ambiguous
    # Every Sync may have been ignored, so that nothing is owed before another one comes.
    assert judge.legal >= {"ReadyForQuery"}
    heard(say.ready(), say.SYNC, say.ready(), judge=judge)
    assert broken(judge.hear(say.row(1))) == ["reply-in-order"]


def test_syncs_sent_after_the_error_was_seen_are_all_answered() -> None:
    judge = heard(say.query(b"COPY t FROM STDIN"), say.copy_begins("CopyInResponse"), say.error(), say.ready())
    heard(say.SYNC, say.SYNC, say.ready(), judge=judge)
    assert judge.owed == ("Sync",)


# --- ends


def test_a_backend_closes_after_terminate_or_says_why() -> None:
    assert heard(say.TERMINATE).ended(B) == ()
    assert heard(say.FATAL).ended(B) == ()
    assert heard(say.NOTICE).ended(B) == ()
    assert broken(heard().ended(B)) == ["closing-needs-a-reason"]
    assert heard(say.cancel(), judge=Judge()).ended(B) == ()
    assert heard(say.SSL_REQUEST, judge=Judge()).ended(B) == ()
    assert broken(heard(say.startup(), judge=Judge()).ended(B)) == ["closing-needs-a-reason"]


def test_a_backend_answers_what_came_before_terminate() -> None:
    judge = heard(say.query(b"SELECT 1"), say.TERMINATE)
    (violation,) = judge.ended(B)
    assert violation.message.endswith("not answered: Query")


def test_nothing_more_is_expected_when_the_frontend_has_gone() -> None:
    judge = heard(say.query(b"SELECT 1"))
    assert judge.ended(F) == ()
    assert judge.ended(B) == ()
    assert judge.legal == frozenset()


# --- facts


def test_what_sql_does_to_statements_is_not_held_against_the_server() -> None:
    judge = heard(say.parse(b"SELECT 1", b"s"), say.describe_statement(b"s"), say.SYNC)
    heard(say.PARSED, say.parameters(), say.described(1), say.ready(), judge=judge)
    sql = (say.query(b"DEALLOCATE s; PREPARE s AS SELECT 1, 2"), say.complete(b"DEALLOCATE"), say.complete(b"PREPARE"))
    heard(*sql, say.ready(), judge=judge)
    heard(say.bind(statement=b"s"), say.execute(), say.SYNC, say.BOUND, say.row(2), judge=judge)


def test_portals_are_forgotten_when_their_transaction_ends() -> None:
    judge = heard(say.parse(b"SELECT 1"), say.bind(portal=b"p"), say.describe_portal(b"p"), say.SYNC)
    heard(say.PARSED, say.BOUND, say.described(1), say.ready(), judge=judge)
    heard(say.execute(portal=b"p"), say.SYNC, say.row(2), judge=judge)


@pytest.mark.parametrize(
    ("text", "replies"),
    [
        (b"SELECT ';'", (say.described(1), say.row(1), say.complete(b"SELECT 1"))),
        (b"SELECT $$ ; $$; -- ;", (say.described(1), say.row(1), say.complete(b"SELECT 1"))),
        (b'SELECT 1 AS ";"/*;*/', (say.described(1), say.row(1), say.complete(b"SELECT 1"))),
        (b"SELECT E'\\';'", (say.described(1), say.row(1), say.complete(b"SELECT 1"))),
        (b"/* a /* b */ ; */ SET x", (say.complete(b"SET"),)),
        (b"SELECT 1 INTO t", (say.complete(b"SELECT 1"),)),
        (b"CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)", (say.complete(b"CREATE RULE"),)),
        (b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", (say.complete(b"CREATE FUNCTION"),)),
        (
            b"INSERT INTO ruled VALUES ('returning')",
            (say.described(1), say.row(1), say.described(1), say.complete(b"INSERT 0 5")),
        ),
        (
            b"COPY t(a, header) TO STDOUT",
            (say.copy_begins("CopyOutResponse"), say.copied(), say.COPIED_OUT, say.complete(b"COPY 1")),
        ),
        (
            b"COPY t TO STDOUT (HEADER, FORMAT csv)",
            (say.copy_begins("CopyOutResponse"), say.copied(), say.COPIED_OUT, say.complete(b"COPY 0")),
        ),
        (
            b"COPY t TO STDOUT (FORMAT csv, HEADER false)",
            (say.copy_begins("CopyOutResponse"), say.copied(), say.COPIED_OUT, say.complete(b"COPY 1")),
        ),
        (b"SHOW ALL", (say.described(3), say.row(3), say.row(3), say.complete(b"SHOW"))),
    ],
)
def test_texts_are_not_taken_for_what_they_are_not(text: bytes, replies: tuple[Instance, ...]) -> None:
    assert heard(say.query(text), *replies, say.ready()).idle


# --- bytes


def test_bytes_are_judged_however_they_are_cut() -> None:
    judge = ConnectionJudge()
    for message in (
        *LOGIN,
        say.query(b"SELECT 1"),
        say.described(1),
        say.row(1),
        say.complete(b"SELECT 1"),
        say.ready(),
    ):
        for byte in encode(message):
            assert judge.hear(message.sender, bytes((byte,))) == ()
    assert judge.judge.idle


def test_bytes_that_are_no_message_break_a_rule_and_end_the_judging() -> None:
    judge = ConnectionJudge()
    for message in LOGIN:
        assert judge.hear(message.sender, encode(message)) == ()
    violations = judge.hear(B, encode(say.ready()) + b"?")
    assert broken(violations) == ["one-ready-for-query", "well-formed"]
    assert judge.is_opaque
    assert judge.hear(B, encode(say.ready())) == ()
    assert judge.ended(B) == ()


def test_an_end_in_the_middle_of_a_message_breaks_a_rule() -> None:
    judge = ConnectionJudge()
    for message in LOGIN:
        judge.hear(message.sender, encode(message))
    judge.hear(F, encode(say.TERMINATE))
    judge.hear(B, encode(say.NOTICE)[:-1])
    assert broken(judge.ended(B)) == ["well-formed"]


def test_nobody_speaks_between_a_request_for_encryption_and_its_handshake() -> None:
    request = encode(say.SSL_REQUEST)
    judge = ConnectionJudge()
    assert broken(judge.hear(F, request + encode(say.startup()))) == ["encryption-request"]
    judge = ConnectionJudge()
    assert judge.hear(F, request) == ()
    assert broken(judge.hear(B, b"S" + encode(say.FATAL))) == ["encryption-request"]
    judge = ConnectionJudge()
    assert judge.hear(F, request) + judge.hear(B, b"S") == ()
    assert judge.is_opaque
    assert broken(judge.hear(B, b"x")) == ["encryption-request"]
    judge = ConnectionJudge()
    assert judge.hear(F, request) + judge.hear(B, b"S") + judge.hear(F, b"hello") + judge.hear(B, b"hello") == ()


def test_a_declined_request_for_encryption_is_followed_by_a_session_or_the_other_request() -> None:
    judge = ConnectionJudge()
    for sender, data in ((F, say.GSSENC_REQUEST), (B, b"N"), (F, say.SSL_REQUEST), (B, b"N"), (F, say.startup())):
        assert judge.hear(sender, data if isinstance(data, bytes) else encode(data)) == ()
    assert judge.judge.owed == ("StartupMessage",)


def test_a_connection_that_begins_with_a_handshake_is_not_judged() -> None:
    judge = ConnectionJudge()
    assert judge.hear(F, b"\x16\x03\x01") == ()
    assert judge.hear(B, b"\x16\x03\x03") == ()
    assert judge.is_opaque


# --- anything


def anything() -> st.SearchStrategy[list[Instance]]:
    """Valid messages of both sides in any order."""
    phases = [(F, phase) for phase in Phase] + [(B, Phase.SESSION)]
    return st.lists(st.sampled_from(phases).flatmap(lambda pair: strategies.instances(*pair)), max_size=30)


@given(messages=anything(), begins=st.sampled_from([(), LOGIN]), ends=st.sampled_from(list(Sender)))
def test_a_judge_never_raises_whatever_it_hears(
    messages: list[Instance], begins: tuple[Instance, ...], ends: Sender
) -> None:
    judge = Judge()
    for message in (*begins, *messages):
        violations = judge.hear(message)
        assert all(violation.rule in RULES and violation.sender is message.sender for violation in violations)
        assert judge.legal is not None
        assert (judge.owed, judge.idle, judge.status) is not None
    judge.ended(ends)


@given(data=st.lists(st.tuples(st.sampled_from(Sender), st.binary(max_size=40)), max_size=10))
def test_a_judge_of_bytes_never_raises_either(data: list[tuple[Sender, bytes]]) -> None:
    judge = ConnectionJudge()
    for sender, piece in data:
        judge.hear(sender, piece)
    for sender in Sender:
        judge.ended(sender)


@given(messages=anything())
def test_what_is_legal_is_accepted_and_what_is_not_is_reported(messages: list[Instance]) -> None:
    judge = heard()
    for message in messages:
        expected = judge.requests if message.sender is F else judge.legal
        is_reported = bool(judge.hear(message))
        if message.name not in expected:
            assert is_reported or message.sender is B
        if is_reported:
            return


def test_what_one_side_says_only_the_other_side_may_not() -> None:
    judge = heard()
    assert broken(judge.hear(frontend("DataRow", values=()))) == ["startup"]
    assert broken(judge.hear(backend("Query", query=b""))) == ["reply-in-order"]
