"""Routing over two real servers: where a connection goes, what `pgpooler route` says, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

import psycopg
import pytest
import yaml

from pgpooler import cli
from pgpooler.demo import scenario
from tests.integration.clients import opening, refusal, value
from tests.integration.poolers import Pooler, PoolerFactory, PoolerFailed
from tests.integration.servers import TwoServers
from tests.integration.wire import error_fields, row_values

READER = scenario.READER
SUPERUSER = "the superuser"  # of whatever servers the tests got
NO_ROUTE = "no route"

# What a client can meet: the name of a server, no route, or an error of the server it was sent to.
NO_SUCH_DATABASE = "3D000 from the server"
NO_SUCH_USER = "28P01 from the server"

Where = Mapping[tuple[str, str], str]


def configured(two_servers: TwoServers, rules: str, **sections: Any) -> str:
    """A configuration whose rules are this text."""
    text = yaml.safe_dump(two_servers.configuration(**sections), sort_keys=False)
    return text + "routing:\n  rules:\n" + "".join(f"    {line}\n" for line in rules.strip().splitlines())


def reached(running: Pooler, two_servers: TwoServers, user: str, database: str) -> str:
    """Where a client with this user and database really gets."""
    name = two_servers.primary.superuser if user == SUPERUSER else user
    address = (running.host, running.port)
    wire, messages = opening(address, name, two_servers.users[name], database)
    with wire:
        if messages[-1].name == "ReadyForQuery":
            return str(row_values(wire.ask("SELECT name FROM backend_id"))[0])
        fields = error_fields(messages[-1])
        return NO_ROUTE if fields["M"].startswith("no route for user") else f"{fields['C']} from the server"


def told(running: Pooler, two_servers: TwoServers, user: str, database: str) -> dict[str, Any]:
    """What `pgpooler route` says about the configuration that this PgPooler runs."""
    name = two_servers.primary.superuser if user == SUPERUSER else user
    output = io.StringIO()
    words = ["route", "--config", str(running.configuration_path), "--user", name, "--database", database, "--json"]
    with contextlib.redirect_stdout(output):
        code = cli.main(words)
    answer: dict[str, Any] = json.loads(output.getvalue())
    assert code == (0 if answer["route"] else 1)
    return answer


def assert_routes(running: Pooler, two_servers: TwoServers, expected: Where) -> None:
    """Every client gets where it should, and `pgpooler route` knew it."""
    found = {client: reached(running, two_servers, *client) for client in expected}
    assert found == expected
    for client, where in expected.items():
        route = told(running, two_servers, *client)["route"]
        if where == NO_ROUTE:
            assert route is None
        elif where in (scenario.PRIMARY, scenario.REPLICA):
            assert route["backend"]["name"] == where


SEED = {
    (SUPERUSER if case.user == "postgres" else case.user, case.database): case.expected
    for case in scenario.routing_cases()
}


def test_the_eight_cases_of_the_seed_and_a_true_user_rule_reach_their_servers(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    running = pooler(two_servers.routed_configuration())
    assert len(SEED) == 9
    assert_routes(running, two_servers, SEED)
    rules = {client: told(running, two_servers, *client)["route"]["rule"]["name"] for client in SEED}
    assert rules[READER, "misc"] == "reader"
    assert rules[READER, "reporting"] == "reporting"
    assert rules[SUPERUSER, "default_test"] == "everything else"


DEFAULT = "- {default: true, backend: primary}"
CASES: dict[str, tuple[str, Where]] = {
    "a user and a database in one rule must both match": (
        f"""
        - {{user: {READER}, database: misc, backend: replica}}
        {DEFAULT}
        """,
        {
            (READER, "misc"): "replica",
            (SUPERUSER, "misc"): NO_SUCH_DATABASE,
            (READER, "reporting"): NO_SUCH_USER,
            (SUPERUSER, "main"): "primary",
        },
    ),
    "a user of any database": (
        f"""
        - {{user: {READER}, backend: replica}}
        {DEFAULT}
        """,
        {(READER, "misc"): "replica", (READER, "reporting"): "replica", (SUPERUSER, "postgres"): "primary"},
    ),
    "a regular expression in quotes behind the tilde": (
        f"""
        - database: ~ "^(reporting|dwh)"
          backend: replica
        {DEFAULT}
        """,
        {
            (SUPERUSER, "reporting"): "replica",
            (SUPERUSER, "dwh_test"): "replica",
            (SUPERUSER, "main"): "primary",
            (SUPERUSER, "misc"): NO_SUCH_DATABASE,
        },
    ),
    "a regular expression without quotes": (
        f"""
        - database: ~ ^(reporting|dwh)_?
          backend: replica
        {DEFAULT}
        """,
        {(SUPERUSER, "reporting"): "replica", (SUPERUSER, "dwh_test"): "replica", (SUPERUSER, "app"): "primary"},
    ),
    "a regular expression quoted with its tilde": (
        f"""
        - {{database: '~ ^(reporting|dwh)', backend: replica}}
        {DEFAULT}
        """,
        {(SUPERUSER, "reporting"): "replica", (SUPERUSER, "dwh_test"): "replica", (SUPERUSER, "app"): "primary"},
    ),
    "a regular expression is searched for, not matched from the start": (
        f"""
        - {{database: '~ _test$', backend: replica}}
        {DEFAULT}
        """,
        {
            (SUPERUSER, "dwh_test"): "replica",
            (SUPERUSER, "analytics_test"): "replica",
            (SUPERUSER, "default_test"): NO_SUCH_DATABASE,
            (SUPERUSER, "main"): "primary",
        },
    ),
    "a regular expression for users": (
        f"""
        - {{user: '~ ^reporting_', backend: replica}}
        {DEFAULT}
        """,
        {(READER, "misc"): "replica", (SUPERUSER, "main"): "primary"},
    ),
    "a list with a name, a prefix and a regular expression": (
        f"""
        - {{database: [reporting, "analytics_*", '~ ^dwh_'], backend: replica}}
        {DEFAULT}
        """,
        {
            (SUPERUSER, "reporting"): "replica",
            (SUPERUSER, "analytics_test"): "replica",
            (SUPERUSER, "dwh_test"): "replica",
            (SUPERUSER, "default_test"): "primary",
            (SUPERUSER, "misc"): NO_SUCH_DATABASE,
        },
    ),
    "a list of users with a prefix": (
        f"""
        - {{user: [nobody, "reporting_*"], backend: replica}}
        {DEFAULT}
        """,
        {(READER, "reporting"): "replica", (SUPERUSER, "app"): "primary"},
    ),
    "a prefix": (
        f"""
        - {{database: "analytics_*", backend: replica}}
        {DEFAULT}
        """,
        {(SUPERUSER, "analytics_test"): "replica", (SUPERUSER, "app"): "primary"},
    ),
    "a prefix that matches everything": (
        """
        - {database: "*", backend: replica}
        """,
        {(SUPERUSER, "postgres"): "replica", (READER, "misc"): "replica", (SUPERUSER, "main"): NO_SUCH_DATABASE},
    ),
    "an exact name is no prefix": (
        f"""
        - {{database: post, backend: replica}}
        - {{database: "postgres_*", backend: replica}}
        {DEFAULT}
        """,
        {(SUPERUSER, "postgres"): "primary"},
    ),
    "the first rule that matches decides": (
        """
        - {database: postgres, backend: replica}
        - {database: "*", backend: primary}
        """,
        {(SUPERUSER, "postgres"): "replica", (SUPERUSER, "main"): "primary"},
    ),
    "no rule matches": (
        """
        - {database: main, backend: primary}
        """,
        {(SUPERUSER, "main"): "primary", (SUPERUSER, "app"): NO_ROUTE, (READER, "reporting"): NO_ROUTE},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rules_route_as_they_read(pooler: PoolerFactory, two_servers: TwoServers, case: str) -> None:
    rules, expected = CASES[case]
    lines = [line.removeprefix("        ") for line in rules.strip("\n").splitlines()]
    assert_routes(pooler(configured(two_servers, "\n".join(lines).strip())), two_servers, expected)


def test_without_rules_everybody_goes_to_the_first_backend(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    expected = {(SUPERUSER, "postgres"): "primary", (SUPERUSER, "reporting"): NO_SUCH_DATABASE}
    assert_routes(pooler(two_servers.configuration()), two_servers, expected)
    turned = two_servers.configuration(backends=[two_servers.backend("replica"), two_servers.backend("primary")])
    expected = {(SUPERUSER, "postgres"): "replica", (SUPERUSER, "reporting"): "replica"}
    assert_routes(pooler(turned), two_servers, expected)


def test_a_client_without_a_route_is_told_so_only_after_it_has_proved_who_it_is(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    running = pooler(configured(two_servers, "- {database: main, backend: primary}"))
    address = (running.host, running.port)
    user, password = two_servers.primary.superuser, two_servers.primary.password
    unrouted = refusal(address, user, password, "unrouted")
    assert (unrouted["S"], unrouted["C"]) == ("FATAL", "3D000")
    assert unrouted["M"] == f'no route for user "{user}" and database "unrouted"'
    for database in ("unrouted", "main"):
        wrong = refusal(address, user, "a wrong password", database)
        assert (wrong["C"], wrong["M"]) == ("28P01", f'password authentication failed for user "{user}"')
        unknown = refusal(address, "nobody_at_all", "a wrong password", database)
        assert (unknown["C"], unknown["M"]) == ("28P01", 'password authentication failed for user "nobody_at_all"')


def test_a_client_that_names_no_database_means_the_one_called_like_its_user(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    users = {"main": {"password": "p1"}, "app": {"password": "p2"}}
    backends = [
        two_servers.backend("primary", user=two_servers.primary.superuser, password=two_servers.primary.password)
    ]
    configuration = two_servers.configuration(
        auth={"users": users},
        backends=backends,
        routing={"rules": [{"database": "main", "backend": "primary"}]},
    )
    running = pooler(configuration)
    address = (running.host, running.port)
    wire, messages = opening(address, "main", "p1", "")
    with wire:
        assert messages[-1].name == "ReadyForQuery"
        assert row_values(wire.ask("SELECT current_database()")) == ["main"]
    assert refusal(address, "app", "p2", "")["M"] == 'no route for user "app" and database "app"'


def test_a_backend_with_a_user_of_its_own_is_logged_in_to_as_that_user(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    backends = [two_servers.backend("replica", user=READER, password=scenario.READER_PASSWORD)]
    configuration = two_servers.configuration(
        backends=backends, auth={"users": {"only_here": {"password": "sésame ouvre-toi"}}}
    )
    running = pooler(configuration)
    with running.connect("reporting", "only_here", "sésame ouvre-toi") as connection:
        assert value(connection, "SELECT current_user") == READER
        assert value(connection, "SELECT name FROM backend_id") == "replica"
    secret = scenario.READER_PASSWORD
    assert refusal((running.host, running.port), READER, secret, "reporting")["C"] == "28P01"
    assert secret not in running.log_text()


# -- the forms of the configuration ------------------------------------------------------------------------------------


def test_the_four_files_and_the_inline_form_route_alike(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    files = scenario.configuration_files(two_servers.primary, two_servers.replica, host="127.0.0.1", port=0)
    main = files.pop("pgpooler.yaml").replace("port: 0", "port: @PORT@")
    for running in (pooler(main, files=files), pooler(two_servers.routed_configuration())):
        assert_routes(running, two_servers, SEED)


def test_the_xml_form_routes_to_its_named_pools(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    primary, replica = two_servers.primary, two_servers.replica
    users = "".join(
        f"<user name={quoteattr(user)} password={quoteattr(secret)}/>" for user, secret in two_servers.users.items()
    )
    running = pooler(
        f"""\
<pgpooler>
  <listen host="127.0.0.1" port="@PORT@"/>
  <log level="info"/>
  <auth>{users}</auth>
  <backends>
    <backend name="primary" host="{primary.host}" port="{primary.port}" pool_size="10"/>
    <backend name="replica" host="{replica.host}" port="{replica.port}" pool_size="20"/>
  </backends>
  <pools>
    <pool name="primary_pool" backend="primary" mode="session" size="20"/>
    <pool name="readonly_pool" backend="replica" mode="session" size="20"/>
  </pools>
  <routing>
    <route database="reporting" pool="readonly_pool"/>
    <route pool="primary_pool"><database>main</database><database>app</database><database>postgres</database></route>
    <route database="analytics_*" pool="readonly_pool"/>
    <route database="~ ^(reporting|dwh)_.*" pool="readonly_pool"/>
    <route user="{READER}" pool="readonly_pool"/>
    <route default="true" pool="primary_pool"/>
  </routing>
</pgpooler>
"""
    )
    assert_routes(running, two_servers, SEED)
    assert told(running, two_servers, SUPERUSER, "main")["route"]["rule"]["name"] == "primary_pool"


def test_secrets_come_from_the_environment_and_from_files(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    superuser, password = two_servers.primary.superuser, two_servers.primary.password
    auth = {
        "users": {
            superuser: {"password": "${PGPOOLER_TEST_SECRET}"},
            READER: {"password_file": "reader.secret"},
        },
        "users_file": "userlist.txt",
    }
    backends = [
        two_servers.backend("primary"),
        two_servers.backend("replica", user="${PGPOOLER_TEST_USER}", password_file="replica.secret"),
    ]
    rules = [{"user": READER, "backend": "replica"}, {"user": "listed", "backend": "replica"}]
    running = pooler(
        two_servers.configuration(
            auth=auth, backends=backends, routing={"rules": [*rules, {"default": True, "backend": "primary"}]}
        ),
        files={
            "reader.secret": "the reader's\n",
            "replica.secret": f"{two_servers.replica.password}\n",
            "userlist.txt": '; comment\n"listed" "with ""quotes"""\n',
        },
        environment={"PGPOOLER_TEST_SECRET": password, "PGPOOLER_TEST_USER": two_servers.replica.superuser},
    )
    with running.connect("main", superuser, password) as connection:
        assert value(connection, "SELECT name FROM backend_id") == "primary"
    for user, secret in ((READER, "the reader's"), ("listed", 'with "quotes"')):
        with running.connect("misc", user, secret) as connection:
            assert value(connection, "SELECT name FROM backend_id") == "replica"
            assert value(connection, "SELECT current_user") == two_servers.replica.superuser
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        running.connect("main", superuser, "${PGPOOLER_TEST_SECRET}")


BAD: dict[str, tuple[str, str]] = {
    "an invalid regular expression": (
        "- {database: '~ ^(open', backend: primary}",
        r"bad regular expression '\^\(open'",
    ),
    "an empty list": ("- {database: [], backend: primary}", "empty"),
    "a matcher that is null": ("- {database: ~, backend: primary}", "null"),
    "a backend that does not exist": ("- {database: main, backend: nowhere}", "nowhere"),
    "a mode that does not exist": ("- {database: main, backend: primary, pool_mode: sometimes}", "sometimes"),
    "an unknown key": ("- {database: main, backend: primary, pool_sizes: 3}", "pool_sizes"),
    "a rule without a backend": ("- {database: main}", "backend"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_rule_never_widens_access_but_is_refused_with_its_place(
    pooler: PoolerFactory, two_servers: TwoServers, case: str
) -> None:
    rule, words = BAD[case]
    text = configured(two_servers, f"- {{database: main, backend: primary}}\n{rule}\n{DEFAULT}")
    line = 1 + text.splitlines().index(f"    {rule}")
    with pytest.raises(PoolerFailed) as failure:
        pooler(text)
    assert failure.value.code == 2
    problems = [found for found in failure.value.output.splitlines() if re.search(r"pgpooler\.yaml:\d+:\d+:", found)]
    assert len(problems) == 1, failure.value.output
    assert re.search(rf"pgpooler\.yaml:{line}:\d+: .*{words}", problems[0]), problems[0]


def test_every_problem_of_every_file_is_reported_at_once(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    files = {
        "logging.yaml": "level: loud\n",
        "backends.yaml": "backends:\n  - {name: primary, host: 127.0.0.1, port: 70000}\n",
        "routing.yaml": "routing:\n  - {database: main, backend: replica}\n  - {default: true, backend: primary}\n",
    }
    main = "".join(f"{name}: {{path: {name}.yaml}}\n" for name in ("logging", "backends", "routing"))
    with pytest.raises(PoolerFailed) as failure:
        pooler(main + "auth: {users: {alice: {password: x}}}\nlimits: {max_clients: 5}\n", files=files)
    assert failure.value.code == 2
    for place in (r"logging\.yaml:1:8", r"backends\.yaml:2:\d+", r"routing\.yaml:2:\d+", r"pgpooler\.yaml:5:\d+"):
        assert re.search(place, failure.value.output), failure.value.output
