"""Real servers for the integration tests: PostgreSQL from whatever is there, and PgPooler in processes of its own."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pgpooler.demo.local import LocalServer
from pgpooler.demo.postgres import PostgresServer
from tests.certificates import Authority
from tests.integration import servers, tls_servers
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.poolers import PoolerFactory
from tests.integration.servers import TwoServers

StartServer = Callable[..., PostgresServer]
DataPlanes = Callable[..., RunningDataPlane]


@pytest.fixture(scope="session")
def two_servers() -> Iterator[TwoServers]:
    """The seed's primary and replica; shared by all tests of one process, so leave them as they were."""
    with servers.start_two_servers() as started:
        yield started


@pytest.fixture(scope="session")
def postgres(two_servers: TwoServers) -> PostgresServer:
    """One PostgreSQL server (the primary of `two_servers`), shared likewise."""
    return two_servers.primary


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom everybody trusts in the tests of TLS."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session", params=tls_servers.MAJORS, ids=lambda major: f"postgresql-{major}")
def tls_server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[LocalServer]:
    """A server with OpenSSL, once of each version; see `tls_servers`."""
    with tls_servers.start(request.param, authority) as server:
        yield server


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers for one test alone, which may be restarted, changed and killed: `start_server(settings)`."""
    with contextlib.ExitStack() as stack:

        def start(settings: Mapping[str, str] | None = None) -> PostgresServer:
            return stack.enter_context(servers.start_own_server(settings))

        yield start


@contextlib.contextmanager
def new_database(server: PostgresServer) -> Iterator[str]:
    """Create an empty database for a while."""
    name = f"test_{uuid.uuid4().hex}"
    server.execute(f"CREATE DATABASE {name}")
    yield name
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database on `postgres` that belongs to one test alone."""
    with new_database(postgres) as name:
        yield name


@pytest.fixture(scope="module")
def shared_database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database that is shared by the tests of a module, so leave it empty."""
    with new_database(postgres) as name:
        yield name


@pytest.fixture
def pooler(tmp_path: Path) -> Iterator[PoolerFactory]:
    """Start PgPoolers: `pooler(configuration)`; each must end well and leave nothing when the test is over."""
    factory = PoolerFactory(tmp_path)
    try:
        yield factory
    finally:
        factory.stop()


@pytest.fixture
def data_plane(tmp_path: Path) -> Iterator[DataPlaneFactory]:
    """Start data planes inside this process, to look at their counts: `data_plane(configuration)`.

    When the test is over nothing may be left of any client.
    """
    factory = DataPlaneFactory(tmp_path)
    try:
        yield factory
    finally:
        factory.stop()


@pytest.fixture(scope="module")
def data_planes(two_servers: TwoServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlanes]:
    """Data planes with pools of two, shared by the tests of a module: `data_planes("statement", **defaults)`.

    When the tests are over nothing may be left of any client.
    """
    with contextlib.ExitStack() as stack:
        running: dict[object, RunningDataPlane] = {}

        def start(mode: str = "transaction", **keys: Any) -> RunningDataPlane:
            kind = (mode, *keys.items())
            if kind not in running:
                factory = DataPlaneFactory(tmp_path_factory.mktemp(mode))
                stack.callback(factory.stop)
                defaults = {"pool_mode": mode, "pool_size": 2, **keys}
                running[kind] = factory(two_servers.configuration(routing={"defaults": defaults}))
            return running[kind]

        yield start
