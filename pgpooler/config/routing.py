"""Routing: which backend serves a user and a database, with which settings, and where each setting was written.

Rules are tried in order and the first that matches wins.  Without any rules the first backend serves everybody.  Every
setting comes from the first of: the rule, the backend, `defaults`, the sections `limits` and `timeouts`, the built-in
value.  `pool_size` skips the backend: there it is the cap over all pools of that backend, which is a different limit.
What a built-in value depends on is known last: `server_reset_query` follows from the pool mode that came out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from pgpooler.config.choices import PoolMode, ResetPolicy
from pgpooler.config.matchers import matcher_function
from pgpooler.config.model import NO_LIMIT, Backend, BackendOverrides, Configuration, Overrides, PoolSettings, Rule

DISCARD_ALL: Final = "DISCARD ALL"
"""What resets a server connection where the operator has no statement of their own."""

BUILT_IN_RESET: Final = {
    PoolMode.SESSION: ResetPolicy.ALWAYS,
    PoolMode.TRANSACTION: ResetPolicy.SMART,
    PoolMode.STATEMENT: ResetPolicy.SMART,
}
"""What `server_reset_query` is where nobody has written it."""


class Route(PoolSettings, frozen=True, kw_only=True):
    """Where a client goes and with which settings.

    `rule_number` counts from 1 and is 0 when there are no rules; `rule_name` is empty when the rule has none; `place`
    is the rule's file:line:column.  `origins` says for every setting where its value was written.  `reset_policy` and
    `reset_statement` are what `server_reset_query` means: when to reset a server connection, and with which statement.
    """

    rule_name: str = ""
    rule_number: int = 0
    place: str = ""
    backend: Backend
    origins: Mapping[str, str]
    reset_policy: ResetPolicy
    reset_statement: str

    @property
    def pinned_limit(self) -> int:
        """Most pinned server connections of one pool, never more than its `pool_size`; NO_LIMIT where there is none."""
        if self.max_pinned is None:
            return (self.pool_size + 1) // 2 or NO_LIMIT
        return min(self.max_pinned, self.pool_size or NO_LIMIT)

    @property
    def server_user(self) -> str:
        """The user to log in to the server as; empty = the client's own."""
        return self.backend.user

    @property
    def server_password(self) -> str:
        """The password of `server_user`."""
        return self.backend.password

    @property
    def rule(self) -> str:
        """The rule in words."""
        return _rule_in_words(self.rule_name, self.rule_number, self.place)


class Router:
    """Finds the route of a user and a database.  Does no input or output and keeps no state."""

    def __init__(self, configuration: Configuration) -> None:
        self._rules: list[tuple[Callable[[str], bool], Callable[[str], bool], Route]] = []
        backends = {backend.name: backend for backend in configuration.backends}
        rules = configuration.routing.rules
        for number, rule in enumerate(rules, 1):
            route = _route(configuration, backends[rule.backend], rule, number)
            self._rules.append((matcher_function(rule.user), matcher_function(rule.database), route))
        if not rules:
            route = _route(configuration, configuration.backends[0], None, 0)
            self._rules.append((matcher_function(None), matcher_function(None), route))

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, in the order in which they are tried."""
        return tuple(route for _, _, route in self._rules)

    def route(self, user: str, database: str) -> Route | None:
        """The route of the first rule that matches, or None: the client is told 3D000.

        `database` is what the client asked for; a client that names none means the database called like the user.
        """
        for matches_user, matches_database, route in self._rules:
            if matches_user(user) and matches_database(database or user):
                return route
        return None


def _rule_in_words(name: str, number: int, place: str) -> str:
    if not number:
        return "no rules: the first backend"
    return (f"rule '{name}'" if name else f"rule {number}") + (f" ({place})" if place else "")


def _route(configuration: Configuration, backend: Backend, rule: Rule | None, number: int) -> Route:
    name, place = (rule.name, rule.place) if rule else ("", "")
    sources: list[tuple[str, Struct]] = [
        (_rule_in_words(name, number, place), rule or Overrides()),
        (f"backend '{backend.name}'", backend),
        ("defaults", configuration.routing.defaults),
        ("limits", configuration.limits),
        ("timeouts", configuration.timeouts),
        ("built-in", PoolSettings()),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field in msgspec.structs.fields(PoolSettings):
        for origin, source in sources:
            value = _setting(source, field.name)
            if value is not None:
                values[field.name], origins[field.name] = value, origin
                break
        else:
            origins[field.name] = "built-in"
    policy, statement = _reset(values.setdefault("server_reset_query", BUILT_IN_RESET[values["pool_mode"]]))
    return Route(
        backend=backend,
        rule_name=name,
        rule_number=number,
        place=place,
        origins=origins,
        reset_policy=policy,
        reset_statement=statement,
        **values,
    )


def _reset(text: str) -> tuple[ResetPolicy, str]:
    """What a `server_reset_query` means: a policy by its name, or a statement that is always run."""
    try:
        return ResetPolicy(text), DISCARD_ALL
    except ValueError:
        return ResetPolicy.ALWAYS, text


def _setting(source: Struct, name: str) -> Any:
    """What a source says about a setting; None = nothing.  A backend's own `pool_size` is another key by that name."""
    if isinstance(source, Backend) and name not in BackendOverrides.__struct_fields__:
        return None
    return getattr(source, name, None)
