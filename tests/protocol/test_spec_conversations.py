"""spec.conversations and spec.spoilt: what is generated is legal, reaches everything, and is judged as it says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from spec import phrases as say
from spec.codec import decode, encode
from spec.conversation import REPLY, RULES
from spec.conversations import Conversation, conversations, sessions
from spec.grammar import Expression, after, legal
from spec.messages import Phase as MessagePhase
from spec.messages import Sender
from spec.scripts import copying, named_scripts, plain_scripts
from spec.session import Judge, Violation
from spec.spoilt import (
    ANY,
    BEGINNINGS,
    CHANGES,
    ENDINGS,
    LEGAL,
    Entry,
    Mutator,
    NearValid,
    begun,
    changed,
    ended,
    has_one_end,
    heard,
    near_valid_conversations,
)

UNSHRUNK = settings(
    phases=[Phase.generate],
    max_examples=100,
    derandomize=False,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
ROUNDS = 40
"""How often that many examples are drawn, until all that is looked for was among them."""

SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

LOGIN = (say.startup(), say.AUTHENTICATED, say.ready())

every_entry = pytest.mark.parametrize("entry", [*BEGINNINGS, *ENDINGS], ids=lambda entry: entry[0])
every_ending = pytest.mark.parametrize("entry", ENDINGS, ids=lambda entry: entry[0])
every_change = pytest.mark.parametrize("mutator", CHANGES, ids=lambda mutator: mutator.name)

State = tuple[str, Expression, str]


def violations(conversation: Conversation) -> list[Violation]:
    judge = Judge()
    return [violation for _, message in conversation for violation in judge.hear(message)]


# --- legal conversations


@given(conversation=conversations())
@SLOW
def test_a_generated_conversation_breaks_no_rule(conversation: Conversation) -> None:
    assert violations(conversation) == []


@given(conversation=sessions(named_scripts()))
@SLOW
def test_named_statements_over_several_cycles_break_no_rule(conversation: Conversation) -> None:
    assert violations(conversation) == []


@given(conversation=sessions(may_be_cut=False))
@SLOW
def test_a_session_that_is_not_cut_ends_idle_with_nothing_owed(conversation: Conversation) -> None:
    judge = Judge()
    for _, message in conversation:
        judge.hear(message)
    assert judge.idle
    assert any(reading.is_idle and not reading.owed for reading in judge.readings)


@given(conversation=conversations())
@SLOW
def test_every_generated_message_can_be_encoded(conversation: Conversation) -> None:
    judge = Judge()
    for sender, message in conversation:
        judge.hear(message)
        if sender is Sender.BACKEND:
            assert decode(encode(message, judge.version), sender, MessagePhase.SESSION, judge.version) == message
        else:
            assert encode(message)


def alternatives(name: str) -> set[State]:
    """Every reply that is possible at any place of what answers a request."""
    found: set[State] = set()
    states, new = {REPLY[name]}, [REPLY[name]]
    while new:
        state = new.pop()
        for reply in legal(state):
            found.add((name, state, reply))
            rest = after(state, reply)
            if rest not in states:
                states.add(rest)
                new.append(rest)
    return found


def said(conversation: Conversation) -> set[State]:
    """The alternatives that a conversation takes."""
    judge = Judge()
    taken: set[State] = set()
    for sender, message in conversation:
        reading = judge.readings[0]
        if sender is Sender.BACKEND and reading.request and message.name in reading.legal:
            taken.add((reading.request.kind, reading.rest, message.name))
        judge.hear(message)
    return taken


def test_every_alternative_of_every_reply_is_reached() -> None:
    missing = {alternative for name in REPLY for alternative in alternatives(name)}

    @UNSHRUNK
    @given(conversation=sessions(plain_scripts(), may_be_cut=False) | sessions(is_replication=True))
    def reach(conversation: Conversation) -> None:
        missing.difference_update(said(conversation))

    for _ in range(ROUNDS):
        if missing:
            reach()
    assert [f"{request}: {reply}" for request, _, reply in missing] == []


def test_errors_fatal_errors_and_ambiguities_are_generated() -> None:
    seen: Counter[str] = Counter()

    @UNSHRUNK
    @given(conversation=conversations() | sessions(copying().map(lambda requests: [*requests, say.SYNC])))
    def look(conversation: Conversation) -> None:
        judge = Judge()
        for _, message in conversation:
            judge.hear(message)
            seen["ambiguous"] += judge.is_ambiguous
            seen[f"status {judge.status.decode()}"] += 1
        seen["long"] += len(conversation) > 40
        seen["terminated"] += conversation[-1][1].name == "Terminate"
        seen["fatal"] += conversation[-1][1] == say.FATAL
        seen["cancel"] += conversation[-1][1].name == "CancelRequest"

    wanted = ("ambiguous", "status I", "status T", "status E", "terminated", "fatal", "cancel", "long")
    for _ in range(ROUNDS):
        if not all(seen[what] for what in wanted):
            look()
    assert [what for what in wanted if not seen[what]] == []


# --- nearly valid conversations


def test_the_names_of_the_catalogue_are_unique_and_its_verdicts_are_rules() -> None:
    names = [entry[0] for entry in (*BEGINNINGS, *ENDINGS)] + [mutator.name for mutator in CHANGES]
    assert len(set(names)) == len(names)
    assert {verdict for _, verdict, _ in (*BEGINNINGS, *ENDINGS)} <= {rule.name for rule in RULES} | {LEGAL}


def test_every_rule_about_messages_is_broken_by_something_in_the_catalogue() -> None:
    broken = {verdict for _, verdict, _ in (*BEGINNINGS, *ENDINGS)}
    # These are about bytes and ends of connections, or permit something; one has its own names for what breaks it.
    others = {"asynchronous", "closing-needs-a-reason", "well-formed", "copy-out"}
    assert {rule.name for rule in RULES} - broken == others


def assert_judged_as_due(near: NearValid) -> None:
    """Everything but the last message is legal, and that one breaks the rule it is said to break, if any."""
    judge = Judge()
    for _, message in near.conversation[:-1]:
        assert judge.hear(message) == ()
    last = judge.hear(near.conversation[-1][1])
    assert [violation.rule.name for violation in last] == ([near.verdict] if near.verdict != LEGAL else [])


@every_entry
def test_the_last_message_of_an_entry_is_judged_as_it_says(entry: Entry) -> None:
    name, verdict, messages = entry
    conversation = heard(messages if entry in BEGINNINGS else (*LOGIN, *messages))
    assert_judged_as_due(NearValid(name, conversation, verdict))


@every_ending
@given(data=st.data())
@settings(SLOW, max_examples=5)
def test_it_is_judged_like_that_behind_any_session(entry: Entry, data: st.DataObject) -> None:
    assert_judged_as_due(data.draw(ended(entry)))


COPY_WITH_SYNCS = (
    say.query(b"COPY t FROM STDIN"),
    say.SYNC,
    say.SYNC,
    say.copy_begins("CopyInResponse"),
    say.query(b"ROLLBACK"),
    say.SYNC,
    say.error(),
    *(say.ready(), say.ready()),
)
"""Both ReadyForQuery may be the last that are owed; or ROLLBACK and a Sync are still to be answered."""
ROLLED_BACK = (say.query(b"ROLLBACK"), say.complete(b"ROLLBACK"), say.ready())


def test_a_session_may_have_several_ends_though_a_rollback_was_answered() -> None:
    assert not has_one_end([*LOGIN, *COPY_WITH_SYNCS, *ROLLED_BACK])
    again = heard((*LOGIN, *COPY_WITH_SYNCS, *ROLLED_BACK, say.parse(b"SELECT 1"), say.SYNC, say.ready()))
    assert violations(again) == [], "this answers the Sync behind the first ROLLBACK"


def test_a_rollback_answers_no_other_command() -> None:
    """The counterexample that a random session was: a COPY cannot be answered like a ROLLBACK."""
    session = [
        say.query(b"COPY t FROM STDIN") if message == say.query(b"ROLLBACK") else message for message in COPY_WITH_SYNCS
    ]
    assert has_one_end([*LOGIN, *session, *ROLLED_BACK])
    assert [
        one.rule.name for one in violations(heard((*LOGIN, say.query(b"SELECT 1"), say.complete(b"ROLLBACK"))))
    ] == ["transaction-status"]


@every_change
@given(data=st.data())
@settings(SLOW, max_examples=20)
def test_a_changed_conversation_is_noticed(mutator: Mutator, data: st.DataObject) -> None:
    near = data.draw(changed(mutator))
    judge = Judge()
    assert any(judge.hear(message) for _, message in near.conversation) or not judge.idle


@given(near=near_valid_conversations())
@example(near=begun(BEGINNINGS[0]))
@SLOW
def test_the_catalogue_as_a_whole_keeps_its_word(near: NearValid) -> None:
    if near.verdict != ANY:
        assert_judged_as_due(near)
