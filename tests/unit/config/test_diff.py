"""What a reload changes, in words, without secrets."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.diff import difference, rule_text
from pgpooler.config.matchers import parse_pattern
from pgpooler.config.model import Backend, Configuration, Routing, Rule

OLD = """
listen: {port: 6432}
backends:
  - {name: primary, host: pg1, pool_size: 10}
  - {name: replica, host: pg2}
routing:
  defaults: {pool_size: 20}
  rules:
    - {name: reports, database: [reporting, "dwh_*"], backend: replica, query_wait_timeout: 90}
    - {default: true, backend: primary}
auth: {users: {alice: {password: secret1}, bob: {password: secret2}}}
"""


def changes(folder, *replacements: tuple[str, str]) -> list[str]:
    new = OLD
    for old_text, new_text in replacements:
        assert old_text in new
        new = new.replace(old_text, new_text)
    before = folder.load(OLD).configuration
    after = folder.load(new).configuration
    return [str(change) for change in difference(before, after)]


def test_the_same_configuration_has_no_differences_wherever_things_stand(folder) -> None:
    assert changes(folder) == []
    assert changes(folder, ("backends:", "\n\n# a comment\nbackends:"), ("port: 6432", "port:   6432")) == []


def test_every_changed_value_is_named_with_its_path(folder) -> None:
    assert changes(folder, ("pool_size: 10", "pool_size: 11"), ("pool_size: 20", "pool_size: 5, max_queue: 3")) == [
        "backends.primary.pool_size: 10 -> 11",
        "routing.defaults.pool_size: 20 -> 5",
        "routing.defaults.max_queue: 3 (new)",
    ]


def test_a_reset_statement_is_named_as_it_is_written(folder) -> None:
    *backend, rule = changes(
        folder,
        ("pool_size: 10", "pool_size: 10, server_reset_query: smart, max_pinned: 0"),
        ("query_wait_timeout: 90", "server_reset_query: DISCARD ALL"),
    )
    assert backend == ["backends.primary.server_reset_query: smart (new)", "backends.primary.max_pinned: 0 (new)"]
    assert rule.endswith("name: reports, server_reset_query: DISCARD ALL}")


def test_what_a_reload_cannot_change_is_said_to_need_a_restart(folder) -> None:
    assert changes(folder, ("port: 6432", 'port: 6433, host: "*"')) == [
        "listen.host: 0.0.0.0 -> *; takes effect after a restart",
        "listen.port: 6432 -> 6433; takes effect after a restart",
    ]


def test_w32_a_changed_secret_is_a_change_but_is_not_shown(folder) -> None:
    (change,) = changes(folder, ("secret1", "secret3"))
    assert change == "auth.users.alice.password: ******** -> ********"


def test_users_and_backends_that_come_and_go_are_named(folder) -> None:
    lines = changes(folder, (", bob: {password: secret2}", ""), ("- {name: replica, host: pg2}", SECOND))
    assert "auth.users.bob: bob (gone)" in lines
    assert "auth.users.bob.password: ******** (gone)" in lines
    assert "backends: primary, replica -> primary, replica, third" in lines
    assert "backends.third: third (new)" in lines
    assert not any("secret" in line for line in lines)


SECOND = "- {name: replica, host: pg2}\n  - {name: third, host: pg3}"


def test_rules_are_compared_in_their_order(folder) -> None:
    first = "    - {name: reports"
    assert changes(folder, (first, "    - {user: ~ ^x, backend: primary}\n" + first)) == [
        "routing.rules[1]: {backend: primary, user: [~ ^x]} (new)"
    ]
    (change,) = changes(folder, ("wait_timeout: 90", "wait_timeout: 1m"))
    assert change.startswith("routing.rules[1]: {backend: replica, database: [reporting, dwh_*], name: reports")
    assert change.endswith("query_wait_timeout: 60s}")


rules = st.lists(st.sampled_from("abcd"), max_size=6).map(
    lambda users: tuple(Rule(user=(parse_pattern(user),), backend="x") for user in users)
)


@given(rules, rules)
def test_the_changes_of_the_rules_are_what_leads_from_the_old_to_the_new(
    old: tuple[Rule, ...], new: tuple[Rule, ...]
) -> None:
    backends = (Backend(name="x", host="h"),)
    changes = difference(
        Configuration(backends=backends, routing=Routing(rules=old)),
        Configuration(backends=backends, routing=Routing(rules=new)),
    )
    before, after = [rule_text(rule) for rule in old], [rule_text(rule) for rule in new]
    gone = Counter(change.old for change in changes if change.old)
    come = Counter(change.new for change in changes if change.new)
    assert Counter(before) - gone == Counter(after) - come
    assert gone <= Counter(before)
    assert come <= Counter(after)
    assert bool(changes) == (before != after)
    for change in changes:
        number = int(re.findall(r"\d+", change.path)[0]) - 1
        assert after[number] == change.new if change.new else before[number] == change.old
        assert change.old != change.new


def test_the_order_of_backends_counts_because_the_first_serves_without_rules(folder) -> None:
    swapped = OLD.replace("primary, host: pg1, pool_size: 10", "X").replace("replica, host: pg2", "Y")
    swapped = swapped.replace("X", "replica, host: pg2").replace("Y", "primary, host: pg1, pool_size: 10")
    lines = difference(folder.load(OLD).configuration, folder.load(swapped).configuration)
    assert [str(line) for line in lines] == ["backends: primary, replica -> replica, primary"]
