"""A short run of the tagged stress (tests/stress), which `tox run -e stress` runs for minutes with 200 clients."""

from __future__ import annotations

import os
import random

import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.data_planes import DataPlaneFactory
from tests.integration.servers import TwoServers
from tests.stress import course

CLIENTS = 20
SECONDS = 3.0
POOL = 4
SEED = int(os.environ.get("PGPOOLER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_clients_that_do_everything_at_once_meet_nothing_of_each_other(
    mode: str, data_plane: DataPlaneFactory, two_servers: TwoServers, postgres: PostgresServer, database: str
) -> None:
    size = CLIENTS if mode == "session" else POOL
    running = data_plane(two_servers.configuration(routing={"defaults": {"pool_mode": mode, "pool_size": size}}))
    done = course.run(
        running,
        postgres,
        database,
        clients=CLIENTS,
        seconds=SECONDS,
        seed=SEED,
        transactions=mode != "statement",
    )
    print(f"seed {SEED}: {done}")
    assert done.findings.wrong == [], f"PGPOOLER_TEST_SEED={SEED}"
    assert sum(done.findings.steps.values()) > CLIENTS
    assert done.server_connections <= size
