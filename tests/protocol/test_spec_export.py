"""protocol.json holds everything normative: what is read back from it is what it was made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec import export
from spec.conversation import ASYNCHRONOUS, REPLY, RULES, SKIPPED_AFTER_ERROR, STARTUP
from spec.grammar import Alt, Cat, Done, Expression, Many, Msg, Never
from spec.messages import ANSWERS, ERROR_FIELDS, MESSAGES, REQUESTED_PHASE


@pytest.fixture(scope="module")
def protocol() -> Any:
    return json.loads(export.text())


def test_the_formats_of_all_messages_are_rebuilt(protocol: Any) -> None:
    assert tuple(export.imported_message(message) for message in protocol["messages"]) == MESSAGES


def test_conversations_are_rebuilt_as_the_same_expressions(protocol: Any) -> None:
    assert export.expression(protocol["startup"]) == STARTUP
    assert {request: export.expression(reply) for request, reply in protocol["replies"].items()} == REPLY


def expressions() -> st.SearchStrategy[Expression]:
    leaves = st.builds(Never) | st.builds(Done) | st.builds(Msg, st.sampled_from(("Query", "Sync", "DataRow")))
    return st.recursive(
        leaves,
        lambda inner: st.builds(Alt, inner, inner) | st.builds(Cat, inner, inner) | st.builds(Many, inner),
        max_leaves=20,
    )


@given(expressions())
def test_any_expression_is_rebuilt(expression: Expression) -> None:
    assert export.expression(json.loads(json.dumps(export.exported(expression)))) == expression


@pytest.mark.parametrize("field", [message.fields for message in MESSAGES if message.fields][:1])
def test_a_field_is_no_expression(field: Any) -> None:
    with pytest.raises(TypeError, match="is no expression"):
        export.expression(export.exported(field))


def test_the_sets_of_names_and_the_rules_are_all_there(protocol: Any) -> None:
    assert frozenset(protocol["asynchronous"]) == ASYNCHRONOUS
    assert frozenset(protocol["skipped_after_error"]) == SKIPPED_AFTER_ERROR
    assert [(rule["name"], rule["anchor"], rule["text"]) for rule in protocol["rules"]] == [
        (rule.name, rule.anchor, rule.text) for rule in RULES
    ]
    assert {request: answers.encode() for request, answers in protocol["answers"].items()} == ANSWERS
    assert protocol["requested_phases"] == {request: phase.value for request, phase in REQUESTED_PHASE.items()}
    assert [field["code"].encode() for field in protocol["error_fields"]] == [field.code for field in ERROR_FIELDS]


def test_the_shape_is_as_documented(protocol: Any) -> None:
    assert protocol["protocol"] == 1
    assert protocol["versions"] == ["3.0", "3.2"]
    query = next(message for message in protocol["messages"] if message["name"] == "Query")
    assert query["fields"] == [{"name": "query", "field": {"is": "Text", "least": 0}}]
    assert (query["sender"], query["type"], query["since"], query["phase"]) == ("F", "Q", "3.0", "session")
    assert protocol["replies"]["Sync"] == {"is": "Msg", "name": "ReadyForQuery"}
    assert set(protocol) == {key for key in protocol if f'"{key}"' in (export.__doc__ or "")}


def test_every_name_in_a_conversation_is_a_message(protocol: Any) -> None:
    named = {message["name"] for message in protocol["messages"]}

    def messages(expression: Any) -> set[str]:
        own = {expression["name"]} if expression["is"] == "Msg" else set()
        return own.union(*(messages(part) for part in expression.values() if isinstance(part, dict)))

    for expression in (protocol["startup"], *protocol["replies"].values()):
        assert messages(expression) <= named
