"""The tests' own PgPooler: it starts with any configuration, tells what went wrong, and leaves nothing."""

from __future__ import annotations

import psycopg
import pytest

from pgpooler.demo import scenario
from tests.integration.poolers import PoolerFactory, PoolerFailed
from tests.integration.servers import TwoServers


def test_every_routing_case_reaches_its_server(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    running = pooler(two_servers.routed_configuration())
    for case in scenario.routing_cases(two_servers.primary.superuser):
        with running.connect(case.database, case.user, two_servers.users[case.user]) as connection:
            assert connection.execute("SELECT name FROM backend_id").fetchone() == (case.expected,)
    assert running.stop() == 0


def test_a_pooler_runs_with_the_four_files_and_psql_goes_through_it(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    files = scenario.configuration_files(two_servers.primary, two_servers.replica, host="127.0.0.1", port=0)
    main = files.pop("pgpooler.yaml").replace("port: 0", "port: @PORT@")
    running = pooler(main, files=files)
    user, password = next(iter(two_servers.users.items()))
    completed = running.psql("-c", "SELECT name FROM backend_id", database="dwh_test", user=user, password=password)
    assert completed.stdout == "replica\n", completed.stderr


def test_a_wrong_configuration_is_reported_with_what_pgpooler_said(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    with pytest.raises(PoolerFailed) as failure:
        pooler(two_servers.configuration(routing={"rules": [{"database": "x", "backend": "nowhere"}]}))
    assert failure.value.code == 2
    assert "nowhere" in failure.value.output
    assert "pgpooler.yaml:" in failure.value.output


def test_two_poolers_run_side_by_side(pooler: PoolerFactory, two_servers: TwoServers) -> None:
    first, second = (pooler(two_servers.configuration()) for _ in range(2))
    assert first.port != second.port
    for running in (first, second):
        with running.connect(user=two_servers.primary.superuser, password=two_servers.primary.password) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_all_processes_of_a_pooler_are_known_and_gone_when_it_stopped(
    pooler: PoolerFactory, two_servers: TwoServers
) -> None:
    running = pooler(two_servers.configuration())
    assert running.process.pid in running.process_ids()
    assert len(running.process_ids()) >= 2
    running.stop()
    assert not running.process_ids()
    with pytest.raises(psycopg.OperationalError):
        running.connect()
