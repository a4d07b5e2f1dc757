"""A database of its own for every test of a driver, directly and through a PgPooler in session or transaction mode.

PgPooler runs in a process of its own: a driver's library may keep Python's global lock while it waits for an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import value, wait_for
from tests.integration.drivers.targets import Both, Target, neighbours
from tests.integration.poolers import Pooler, PoolerFactory

POOL_SIZES = {"session": 4, "transaction": 3}
"""Three: one more than there are neighbours. Who works beside them changes the server connection all the time."""
NOT_IDLE = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    " AND (state <> 'idle' OR xact_start IS NOT NULL) AND pid <> pg_backend_pid()"
)


@pytest.fixture(scope="session")
def poolers(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Mapping[str, Pooler]]:
    """A PgPooler for each pool mode, in which nothing is set but the mode and the size of its pools.

    Every test has a database, and so a pool, of its own.
    """
    factory = PoolerFactory(tmp_path_factory.mktemp("drivers"))
    try:
        yield {mode: factory(configuration(postgres, mode, size)) for mode, size in POOL_SIZES.items()}
    finally:
        factory.stop()


def configuration(postgres: PostgresServer, pool_mode: str, pool_size: int) -> dict[str, Any]:
    return {
        "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port}],
        "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
        "routing": {"defaults": {"pool_mode": pool_mode, "pool_size": pool_size}},
    }


@contextmanager
def behind(pooler: Pooler, postgres: PostgresServer, database: str) -> Iterator[Both]:
    """The test's database directly and through PgPooler; in the end nothing runs there any more."""
    login = (postgres.superuser, postgres.password, database)
    both = Both(Target(postgres.host, postgres.port, *login), Target(pooler.host, pooler.port, *login))
    yield both
    with both.direct.connect() as observer:
        wait_for(lambda: value(observer, NOT_IDLE, database) == 0, lambda: "a server connection is still in use")


@pytest.fixture
def in_session_mode(poolers: Mapping[str, Pooler], postgres: PostgresServer, database: str) -> Iterator[Both]:
    """In a pool of four connections."""
    with behind(poolers["session"], postgres, database) as both:
        yield both


@pytest.fixture
def in_transaction_mode(poolers: Mapping[str, Pooler], postgres: PostgresServer, database: str) -> Iterator[Both]:
    """In a pool of three connections, which others use at the same time."""
    with behind(poolers["transaction"], postgres, database) as both, neighbours(both.pooled):
        yield both


@pytest.fixture(params=["session", "transaction"])
def both(request: pytest.FixtureRequest) -> Both:
    """Either of the two."""
    chosen: Both = request.getfixturevalue(f"in_{request.param}_mode")
    return chosen
