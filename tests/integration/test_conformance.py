"""The conformance suite against real servers, and against PgPooler in front of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pgpooler.demo import scenario
from pgpooler.demo.postgres import PostgresServer
from spec.conformance.command import main
from spec.conformance.scripts import Script
from spec.conformance.shrinking import shorter
from spec.conformance.stage import Deviation, unique_name
from spec.conformance.suite import Outcome, Result, Suite
from spec.conformance.target import Target, target
from spec.conformance.themes import THEMES
from tests.certificates import Authority
from tests.integration import servers
from tests.integration.intended import INTENDED
from tests.integration.poolers import Pooler, PoolerFactory
from tests.integration.servers import TwoServers

StartServer = Callable[..., PostgresServer]

PATIENCE = 30.0
"""Seconds of silence that count as hanging: far beyond what anything here takes."""
POOL_SIZE = 10
"""More than the sessions that a script has at once."""
PROVIDERS = [provider.name for provider in servers.survey() if provider.is_available]


def of_server(server: PostgresServer) -> Target:
    return target(server.url(), PATIENCE)


def examined(examinee: Target, direct: Target | None = None) -> list[Outcome]:
    """What came of every script; nothing may be left, and no script may break a rule itself."""
    suite = Suite(examinee, direct)
    assert suite.problem() == ""
    outcomes = list(suite.run(THEMES.values()))
    assert suite.left == []
    assert [(name_of(outcome), outcome.slips) for outcome in outcomes if outcome.slips] == []
    return outcomes


def name_of(outcome: Outcome) -> str:
    return f"{outcome.theme}: {outcome.script.name}"


def deviations(outcomes: list[Outcome]) -> dict[str, object]:
    """What does not conform though it is offered, by name."""
    return {
        name_of(outcome): outcome.deviation or outcome.reason
        for outcome in outcomes
        if outcome.result in (Result.DEVIATES, Result.COULD_NOT_RUN)
    }


@pytest.fixture(params=PROVIDERS)
def any_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server from each provider that there is here: several major versions if there are."""
    (provider,) = [entry for entry in servers.survey() if entry.name == request.param]
    with provider.start(password=scenario.SUPERUSER_PASSWORD) as server:
        yield server


def test_postgresql_itself_conforms(any_server: PostgresServer) -> None:
    assert deviations(examined(of_server(any_server))) == {}


def single_shortenings() -> list[Script]:
    """Every script that the shrinking of a wrong answer may come to by leaving one step out."""
    return [
        candidate
        for theme in THEMES.values()
        for script in theme.scripts
        if not script.needs
        for candidate in shorter(script, Deviation("answer", "", "", len(script.steps) - 1), anything=False)
    ]


def test_what_the_shrinking_may_leave_out_changes_nothing_of_what_is_right(postgres: PostgresServer) -> None:
    theme = replace(THEMES["simple"], scripts=tuple(single_shortenings()))
    outcomes = list(Suite(of_server(postgres)).run([theme]))
    assert len(outcomes) > 50
    assert deviations(outcomes) == {}


@pytest.fixture
def start(two_servers: TwoServers, pooler: PoolerFactory) -> Callable[[str], Pooler]:
    """Start PgPooler in a pool mode."""

    def run(mode: str) -> Pooler:
        return pooler(two_servers.configuration(routing={"defaults": {"pool_mode": mode, "pool_size": POOL_SIZE}}))

    return run


@pytest.mark.parametrize("mode", INTENDED)
def test_pgpooler_deviates_where_it_is_intended_and_nowhere_else(start: Callable[[str], Pooler], mode: str) -> None:
    outcomes = examined(target(start(mode).url(), PATIENCE))
    found = deviations(outcomes)
    assert set(found) == set(INTENDED[mode]), found
    refused = {outcome.script.needs for outcome in outcomes if outcome.result is Result.NOT_OFFERED}
    assert (("transaction blocks",) in refused) is (mode == "statement")


def test_pgpooler_answers_as_the_server_behind_it_does(
    start: Callable[[str], Pooler], postgres: PostgresServer
) -> None:
    found = deviations(examined(target(start("session").url(), PATIENCE), of_server(postgres)))
    assert set(found) == set(INTENDED["session"]), found


def test_what_needs_tls_conforms_at_postgresql_and_at_pgpooler(
    tls_server: PostgresServer, pooler: PoolerFactory, authority: Authority
) -> None:
    running = pooler(
        {
            "backends": [{"name": "primary", "host": tls_server.host, "port": tls_server.port}],
            "auth": {"users": {tls_server.superuser: {"password": tls_server.password}}},
            "tls": {"mode": "prefer", **authority.certify("pooler", file="conformance").keys},
        }
    )
    login = f"postgresql://{tls_server.superuser}:{tls_server.password}"
    for examinee in (of_server(tls_server), target(f"{login}@{running.host}:{running.port}/postgres", PATIENCE)):
        outcomes = list(Suite(examinee).run([THEMES["startup"]]))
        assert deviations(outcomes) == {}
        within = [outcome.result for outcome in outcomes if outcome.script.needs == ("TLS",)]
        assert within
        assert set(within) == {Result.CONFORMS}


@pytest.mark.parametrize("method", ["password", "md5", "scram-sha-256"])
def test_the_suite_logs_in_however_the_server_asks(start_server: StartServer, method: str) -> None:
    with start_server() as server:
        encryption = "md5" if method == "md5" else "scram-sha-256"
        server.execute(f"SET password_encryption TO '{encryption}'", "CREATE ROLE app LOGIN PASSWORD 'secret'")
        server.set_authentication(f"host all app 127.0.0.1/32 {method}")
        login = target(server.url(user="app", password="secret", database="postgres"), PATIENCE)
        outcomes = list(Suite(login).run([THEMES["authentication"]]))
    results = {outcome.script.name: outcome.result for outcome in outcomes if outcome.result is not Result.CONFORMS}
    scram = "SCRAM-SHA-256 proves both sides to each other"
    assert results == ({} if method == "scram-sha-256" else {scram: Result.NOT_OFFERED})


def test_an_ordinary_user_without_rights_is_told_what_could_not_run(postgres: PostgresServer, database: str) -> None:
    role = unique_name()
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database=database)
    try:
        login = target(postgres.url(database=database, user=role, password="secret"), PATIENCE)
        outcomes = list(Suite(login).run([THEMES["transactions"], THEMES["state"]]))
    finally:
        postgres.execute(f"DROP ROLE {role}")
    assert {outcome.result for outcome in outcomes} == {Result.CONFORMS, Result.NOT_OFFERED, Result.COULD_NOT_RUN}
    reasons = [outcome.reason for outcome in outcomes if outcome.result is Result.COULD_NOT_RUN]
    assert all(reason.endswith(": 42501 permission denied for schema public") for reason in reasons)


def test_the_command_prints_a_table_and_writes_json(
    postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    assert main(["--target", postgres.url(), "--theme", "simple", "--theme", "function", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["theme", "scripts", "conforms", "deviates", "not", "offered", "could", "not", "run"]
    assert [line.split()[0] for line in lines[3:6]] == ["simple", "function", "all"]
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["status"] == 0
    assert {script["result"] for script in results["scripts"]} == {"conforms"}
    assert postgres.password not in file.read_text(encoding="utf-8").replace("postgres", "")


def test_the_command_says_when_nothing_can_be_examined(
    postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--target", postgres.url(user="postgres", password="wrong")]) == 2
    assert "28P01 password authentication failed" in capsys.readouterr().err
