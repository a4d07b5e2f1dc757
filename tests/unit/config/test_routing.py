"""Routing: the seed's cases, precedence of every setting, and where each value came from."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import PoolMode, ResetPolicy
from pgpooler.config.matchers import parse_pattern
from pgpooler.config.model import (
    NO_LIMIT,
    Backend,
    Configuration,
    Limits,
    Overrides,
    PoolSettings,
    Routing,
    Rule,
    Timeouts,
)
from pgpooler.config.routing import Route, Router

SEED = """
auth: {method: trust}
backends:
  - {name: primary, host: postgres, port: 5432, pool_size: 10}
  - {name: replica, host: postgres2, port: 5432, pool_size: 20}
routing:
  defaults: {pool_size: 20}
  rules:
    - {database: reporting, backend: replica}
    - {database: [main, app, postgres], backend: primary}
    - {database: "analytics_*", backend: replica}
    - {database: ~ "^(reporting|dwh)_.*", backend: replica}
    - {user: reporting_reader, backend: replica}
    - {default: true, backend: primary}
"""


@pytest.mark.parametrize(
    ("user", "database", "backend", "rule"),
    [
        ("postgres", "main", "primary", 2),
        ("postgres", "app", "primary", 2),
        ("postgres", "postgres", "primary", 2),
        ("postgres", "reporting", "replica", 1),
        ("postgres", "analytics_test", "replica", 3),
        ("postgres", "dwh_test", "replica", 4),
        ("postgres", "default_test", "primary", 6),
        ("reporting_reader", "reporting", "replica", 1),
        ("reporting_reader", "misc", "replica", 5),
        ("postgres", "misc", "primary", 6),
    ],
)
def test_the_routing_cases_of_the_seed_and_a_true_user_rule(
    folder, user: str, database: str, backend: str, rule: int
) -> None:
    loaded = folder.load(SEED)
    assert loaded.warnings == ()
    route = Router(loaded.configuration).route(user, database)
    assert route is not None
    assert (route.backend.name, route.rule_number) == (backend, rule)
    assert (route.backend.pool_size, route.pool_size) == (10 if backend == "primary" else 20, 20)


@pytest.mark.parametrize(
    "rule",
    [
        'database: ~ "^(reporting|dwh)_"',
        "database: ~ ^(reporting|dwh)_",
        'database: "~ ^(reporting|dwh)_"',
        "database: ~ '^(reporting|dwh)_'",
        "database: '~ \"^(reporting|dwh)_\"'",
        "database: [other, '~ ^(reporting|dwh)_']",
    ],
)
def test_all_spellings_of_a_regular_expression_mean_the_same(folder, rule: str) -> None:
    router = Router(folder.configuration(f"routing:\n  rules:\n    - backend: primary\n      {rule}\n"))
    assert router.route("x", "dwh_test")
    assert router.route("x", "reporting_")
    assert router.route("x", "my_dwh_test") is None


def test_without_rules_everything_goes_to_the_first_backend(folder) -> None:
    configuration = folder.configuration("backends: [{name: b, host: x}, {name: a, host: y}]")
    route = Router(configuration).route("anybody", "anything")
    assert route is not None
    assert (route.backend.name, route.rule_number, route.rule) == ("b", 0, "no rules: the first backend")


def test_without_a_matching_rule_there_is_no_route(folder) -> None:
    router = Router(folder.configuration("routing: {rules: [{user: a, database: b, backend: primary}]}"))
    assert router.route("a", "b")
    assert router.route("a", "c") is None
    assert router.route("c", "b") is None


def test_a_client_that_names_no_database_means_the_one_called_like_the_user(folder) -> None:
    router = Router(folder.configuration("routing: {rules: [{database: alice, backend: primary}]}"))
    assert router.route("alice", "")
    assert router.route("bob", "") is None


SOURCES = ["rule", "backend", "defaults", "sections", "built-in"]
SETTINGS = [field.name for field in msgspec.structs.fields(PoolSettings)]
IN_LIMITS, IN_TIMEOUTS = set(Limits.__struct_fields__), set(Timeouts.__struct_fields__)


def values(number: int) -> dict[str, object]:
    """A value for every setting, of which no two sources have the same, unless there are too few values."""
    words = {
        "pool_mode": ["session", "transaction", "statement"],
        "server_reset_query": ["always", "smart", "never", "DISCARD ALL"],
        "on_session_state": ["pin", "error", "allow"],
    }
    return {name: words[name][number % len(words[name])] if name in words else number + 100 for name in SETTINGS}


def settable(source: str, name: str) -> bool:
    if source == "backend":
        return name != "pool_size"
    return source in ("rule", "defaults") or (source == "sections" and name in IN_LIMITS | IN_TIMEOUTS)


def built_in(name: str, route: Route) -> object:
    if name == "server_reset_query":
        return "always" if route.pool_mode == "session" else "smart"
    return getattr(PoolSettings(), name)


@given(st.dictionaries(st.tuples(st.sampled_from(SOURCES[:-1]), st.sampled_from(SETTINGS)), st.none(), max_size=20))
def test_every_setting_comes_from_the_first_source_that_has_it(chosen: dict[tuple[str, str], None]) -> None:
    written = {
        source: {
            name: value for name, value in values(number).items() if (source, name) in chosen and settable(source, name)
        }
        for number, source in enumerate(SOURCES[:-1])
    }
    sections = written["sections"]
    configuration = Configuration(
        backends=(msgspec.convert({"name": "b", "host": "h", "pool_size": 3, **written["backend"]}, Backend),),
        routing=Routing(
            defaults=msgspec.convert(written["defaults"], Overrides),
            rules=(msgspec.convert({"name": "r", "default": True, "backend": "b", **written["rule"]}, Rule),),
        ),
        limits=msgspec.convert({name: sections[name] for name in sections if name in IN_LIMITS}, Limits),
        timeouts=msgspec.convert({name: sections[name] for name in sections if name in IN_TIMEOUTS}, Timeouts),
    )
    (route,) = Router(configuration).routes
    origins = {"rule": "rule 'r'", "backend": "backend 'b'", "defaults": "defaults", "built-in": "built-in"}
    for name in SETTINGS:
        source = next((source for source in SOURCES[:-1] if name in written[source]), "built-in")
        expected = written[source][name] if source != "built-in" else built_in(name, route)
        section = "limits" if name in IN_LIMITS else "timeouts"
        assert getattr(route, name) == expected
        assert route.origins[name] == origins.get(source, section)


def route_of(
    rule: dict[str, object] | None = None,
    backend: dict[str, object] | None = None,
    defaults: dict[str, object] | None = None,
) -> Route:
    """The one route of a configuration with these settings."""
    wanted = {"default": True, "backend": "b", **(rule or {})}
    configuration = Configuration(
        backends=(msgspec.convert({"name": "b", "host": "h", **(backend or {})}, Backend),),
        routing=Routing(rules=(msgspec.convert(wanted, Rule),), defaults=msgspec.convert(defaults or {}, Overrides)),
    )
    (route,) = Router(configuration).routes
    return route


MODES = [None, *PoolMode]
RESETS = [None, *ResetPolicy, "SELECT my_reset()"]


def test_the_built_in_reset_follows_the_pool_mode_wherever_that_is_written() -> None:
    for modes in product(MODES, repeat=3):
        route = route_of(*({"pool_mode": mode} if mode else {} for mode in modes))
        effective = next(filter(None, modes), PoolMode.SESSION)
        expected = ResetPolicy.ALWAYS if effective is PoolMode.SESSION else ResetPolicy.SMART
        assert route.pool_mode is effective
        assert route.reset_policy is expected
        assert route.server_reset_query == expected
        assert route.reset_statement == "DISCARD ALL"
        assert route.origins["server_reset_query"] == "built-in"


@pytest.mark.parametrize("mode", PoolMode)
def test_a_written_reset_is_inherited_and_no_pool_mode_changes_it(mode: PoolMode) -> None:
    for resets in product(RESETS, repeat=3):
        rule, backend, defaults = ({"server_reset_query": str(reset)} if reset else {} for reset in resets)
        route = route_of({"pool_mode": mode, **rule}, backend, defaults)
        written = next(filter(None, resets), None)
        if written is None:
            assert route.origins["server_reset_query"] == "built-in"
        elif written in list(ResetPolicy):
            assert (route.reset_policy, route.reset_statement) == (ResetPolicy(written), "DISCARD ALL")
        else:
            assert (route.reset_policy, route.reset_statement) == (ResetPolicy.ALWAYS, "SELECT my_reset()")


def test_the_reset_means_the_same_after_the_way_to_a_worker() -> None:
    configuration = Configuration(
        backends=(Backend(name="b", host="h", server_reset_query=ResetPolicy.SMART),),
        routing=Routing(defaults=Overrides(server_reset_query="RESET ALL")),
    )
    (route,) = Router(msgspec.json.decode(msgspec.json.encode(configuration), type=Configuration)).routes
    assert route.reset_policy is ResetPolicy.SMART


sizes = st.integers(0, 30)


@given(st.none() | sizes, st.none() | sizes, st.none() | sizes, st.none() | sizes, st.none() | sizes)
def test_no_pool_may_have_more_pinned_connections_than_connections(
    rule: int | None, backend: int | None, default: int | None, rule_size: int | None, default_size: int | None
) -> None:
    def keys(pinned: int | None, size: int | None = None) -> dict[str, object]:
        both = {"max_pinned": pinned, "pool_size": size}
        return {name: value for name, value in both.items() if value is not None}

    route = route_of(keys(rule, rule_size), keys(backend), keys(default, default_size))
    assert 0 <= route.pinned_limit <= (route.pool_size or NO_LIMIT)
    if route.max_pinned is None:
        assert route.pinned_limit == NO_LIMIT or 0 <= 2 * route.pinned_limit - route.pool_size <= 1
    else:
        assert route.pinned_limit in (route.max_pinned, route.pool_size)


@pytest.mark.parametrize(
    ("pinned", "pool_size", "limit"),
    [
        (None, 20, 10),
        (None, 5, 3),
        (None, 1, 1),
        (None, 0, NO_LIMIT),
        (0, 20, 0),
        (0, 0, 0),
        (7, 20, 7),
        (7, 0, 7),
        (30, 20, 20),
    ],
)
def test_half_of_a_pool_may_be_pinned_unless_said_otherwise(pinned: int | None, pool_size: int, limit: int) -> None:
    route = route_of({"pool_size": pool_size} if pinned is None else {"pool_size": pool_size, "max_pinned": pinned})
    assert route.pinned_limit == limit
    assert route.origins["max_pinned"] == ("built-in" if pinned is None else "rule 1")


def test_zero_is_a_value_and_not_inherited_over(folder) -> None:
    configuration = folder.configuration(
        "timeouts: {query_wait_timeout: 5s}\nrouting: {rules: [{default: true, backend: primary, "
        "query_wait_timeout: 0, pool_size: 0}], defaults: {pool_size: 7}}"
    )
    (route,) = Router(configuration).routes
    assert (route.query_wait_timeout, route.pool_size) == (0, 0)


def test_c3_the_cap_of_a_backend_is_not_the_size_of_its_pools(folder) -> None:
    (route,) = Router(folder.configuration("backends: [{name: a, host: x, pool_size: 3}]")).routes
    assert (route.backend.pool_size, route.pool_size) == (3, 20)


def test_c14_the_wait_for_a_server_connection_is_a_minute_unless_said_otherwise(folder) -> None:
    (route,) = Router(folder.configuration("listen: {port: 6432}")).routes
    assert route.query_wait_timeout == 60


def test_a_route_names_its_rule_with_the_place_and_says_what_the_backend_logs_in_with(folder) -> None:
    configuration = folder.configuration(
        "backends: [{name: primary, host: x, user: u, password: p}]\nrouting:\n  rules:\n"
        "    - {name: reports, user: a, backend: primary, pool_size: 1}\n"
        "    - {user: b, backend: primary, pool_size: 1}\n"
    )
    named, unnamed = Router(configuration).routes
    file = folder.path / "pgpooler.yaml"
    assert named.rule == named.origins["pool_size"] == f"rule 'reports' ({file}:4:7)"
    assert unnamed.rule == f"rule 2 ({file}:5:7)"
    assert (named.rule_name, named.rule_number, named.place) == ("reports", 1, f"{file}:4:7")
    assert (named.server_user, named.server_password) == ("u", "p")
    assert "password='********'" in repr(named)


names = st.sampled_from(["a", "b", "ab", "ba", "abc"])
texts = st.sampled_from(["a", "b", "a*", "*", "~ b$", "~ ^a"])
sides = st.none() | st.lists(texts, min_size=1, max_size=2)


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=5), names, names)
def test_the_first_rule_that_matches_wins(
    pairs: list[tuple[list[str] | None, list[str] | None]], user: str, database: str
) -> None:
    def matches(side: list[str] | None, name: str) -> bool:
        oracle = {"a": name == "a", "b": name == "b", "a*": name[0] == "a", "*": True}
        oracle |= {"~ b$": name[-1] == "b", "~ ^a": name[0] == "a"}
        return side is None or any(oracle[text] for text in side)

    def patterns(side: list[str] | None) -> object:
        return side and tuple(parse_pattern(text) for text in side)

    rules = tuple(Rule(user=patterns(one), database=patterns(two), backend="x") for one, two in pairs)
    router = Router(Configuration(backends=(Backend(name="x", host="h"),), routing=Routing(rules=rules)))
    hits = [number for number, (one, two) in enumerate(pairs, 1) if matches(one, user) and matches(two, database)]
    route: Route | None = router.route(user, database)
    assert (route.rule_number if route else None) == (hits[0] if hits else None)
