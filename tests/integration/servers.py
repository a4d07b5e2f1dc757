"""The PostgreSQL servers of the integration tests.

The environment variable PGPOOLER_TEST_POSTGRES forces a provider (`embedded`, `system`, `testcontainers`) or names one
or two running servers (`postgresql://user:password@host:port/postgres`, separated by a space: primary and replica).
PGPOOLER_TEST_IMAGE is the image that testcontainers uses.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from psycopg.conninfo import conninfo_to_dict

from pgpooler.demo import containers, postgres, scenario
from pgpooler.demo.postgres import PostgresServer, PostgresUnavailable, Provider

IMAGE = os.environ.get("PGPOOLER_TEST_IMAGE", containers.DEFAULT_IMAGE)
WANTED = os.environ.get("PGPOOLER_TEST_POSTGRES", "")


@functools.cache
def survey() -> tuple[Provider, ...]:
    """What each provider can do here; asked once, so that every test and the header agree."""
    return tuple(postgres.survey(IMAGE))


@functools.cache
def provider() -> Provider:
    """The provider of the servers that tests share."""
    return postgres.choose(WANTED, IMAGE)


@functools.cache
def own_provider() -> Provider:
    """The provider of servers that a test may restart and change: never one that was there before us."""
    return postgres.choose(None if postgres.urls(WANTED) else WANTED, IMAGE)


def superuser() -> tuple[str, str]:
    """Name and password of the superuser of the shared servers."""
    for address in postgres.urls(WANTED):
        parameters = conninfo_to_dict(address)
        return str(parameters.get("user", "postgres")), str(parameters.get("password", ""))
    return "postgres", scenario.SUPERUSER_PASSWORD


def header() -> list[str]:
    """Lines for pytest's header: where the servers come from, and which providers are not tested here, with why."""
    try:
        lines = [f"PostgreSQL servers: {provider()}"]
    except PostgresUnavailable as error:
        lines = [f"PostgreSQL servers: none, so integration tests fail: {error}"]
    lines += [f"PostgreSQL provider not tested: {entry}" for entry in survey() if not entry.is_available]
    return lines if node_is_here() else [*lines, "node-postgres not tested: node and npm are not both installed"]


def node_is_here() -> bool:
    """Whether programs for node can be installed and run."""
    return all(shutil.which(program) for program in ("node", "npm"))


@dataclass(frozen=True)
class TwoServers:
    """The seed's two servers: databases, users and marker tables as in `pgpooler.demo.scenario`."""

    primary: PostgresServer
    replica: PostgresServer

    @property
    def users(self) -> dict[str, str]:
        """User names and passwords that exist on the servers, the superuser's first."""
        return scenario.users(self.primary, self.replica)

    def configuration(self, **sections: Any) -> dict[str, Any]:
        """A configuration in the inline form: both backends, the users, no rules (everything goes to the primary).

        Keyword arguments replace whole sections: `routing={"rules": [...]}`.
        """
        configuration: dict[str, Any] = {
            "backends": [self.backend("primary"), self.backend("replica")],
            "auth": {"users": {user: {"password": password} for user, password in self.users.items()}},
        }
        configuration.update(sections)
        return configuration

    def routed_configuration(self, **sections: Any) -> dict[str, Any]:
        """The same with the demonstration's pool sizes and rules."""
        backends = [self.backend(name, pool_size=size) for name, size in scenario.POOL_SIZES.items()]
        routing = {"defaults": {"pool_size": 20, "pool_mode": "session"}, "rules": yaml.safe_load(scenario.RULES)}
        return self.configuration(**{"backends": backends, "routing": routing, **sections})

    def backend(self, name: str, **keys: Any) -> dict[str, Any]:
        """One entry of the section `backends`, with more keys if given."""
        server = self.primary if name == scenario.PRIMARY else self.replica
        return {"name": name, "host": server.host, "port": server.port, **keys}


@contextlib.contextmanager
def start_two_servers() -> Iterator[TwoServers]:
    """Both servers with everything in them, from one provider or from one or two URLs."""
    addresses = postgres.urls(WANTED)
    sources = [postgres.choose(address) for address in addresses[:2]]
    sources += [own_provider()] * (2 - len(sources))
    with contextlib.ExitStack() as stack:
        name, password = superuser()
        started = [stack.enter_context(source.start(superuser=name, password=password)) for source in sources]
        for server, role in zip(started, (scenario.PRIMARY, scenario.REPLICA), strict=True):
            stack.enter_context(scenario.prepared(server, role))
        yield TwoServers(*started)


def start_own_server(settings: Mapping[str, str] | None = None) -> PostgresServer:
    """A server for one test alone, superuser postgres/postgres."""
    return own_provider().start(password=scenario.SUPERUSER_PASSWORD, settings=settings)
