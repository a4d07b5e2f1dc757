"""`pgpooler demo` as a newcomer meets it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgpooler.demo import ports
from tests.integration import servers

TIMEOUT = 120


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demonstration puts its files, so that leftovers are seen (pytest's are too deep for unix sockets)."""
    with tempfile.TemporaryDirectory(prefix="pgpooler-test-") as directory:
        yield Path(directory)


@pytest.fixture
def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary)}


@pytest.fixture
def free_port() -> Iterator[str]:
    reservation = ports.reserve()
    yield str(reservation.number)
    reservation.release()


def command(*arguments: str) -> list[str]:
    """The command line; servers of its own, from the provider that the tests use."""
    provider = servers.own_provider().name
    return [sys.executable, "-m", "pgpooler", "demo", "--provider", provider, "--image", servers.IMAGE, *arguments]


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def test_the_demo_passes_its_own_checks_and_leaves_nothing_behind(
    environment: dict[str, str], free_port: str, temporary: Path
) -> None:
    completed = run(environment, "--check", "--json", "--port", free_port)
    assert completed.returncode == 0, completed.stderr + completed.stdout
    result = json.loads(completed.stdout)
    assert result["passed"]
    subjects = [check["subject"] for check in result["checks"]]
    assert len([subject for subject in subjects if subject.startswith("routed by")]) == 9
    assert "session mode resets it for the next client" in subjects
    assert not list(temporary.iterdir())


def test_the_table_of_the_checks_has_one_line_for_each_and_a_sum(environment: dict[str, str], free_port: str) -> None:
    completed = run(environment, "--check", "--port", free_port)
    assert completed.returncode == 0
    lines = completed.stdout.splitlines()
    assert "CHECK" in lines[0]
    assert "GOT" in lines[0]
    assert [line for line in lines if line.startswith("ok  routed by user ")]
    assert re.fullmatch(r"(\d+) of \1 checks passed", lines[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_says_how_to_connect_and_a_signal_removes_everything(
    number: signal.Signals, environment: dict[str, str], free_port: str, temporary: Path
) -> None:
    arguments = command("--port", free_port)
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as demonstration:
        assert demonstration.stdout is not None
        urls = []
        for line in demonstration.stdout:
            urls += re.findall(r"(postgresql://\S+) .*# answers (\w+)", line)
            if "Ctrl-C" in line:
                break
        assert {name for _, name in urls} == {"primary", "replica"}
        # Still connected when the signal comes: that must not hold it up.
        with contextlib.closing(psycopg.connect(urls[0][0], autocommit=True)) as connection:
            answer = connection.execute("SELECT name FROM backend_id").fetchone()
            assert answer == (urls[0][1],)
            demonstration.send_signal(number)
            assert demonstration.wait(TIMEOUT) == 0
    assert not list(temporary.iterdir())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(free_port)))


def test_a_port_that_somebody_else_has_is_refused_when_it_was_asked_for(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        completed = run(environment, "--check", "--port", str(port))
    assert completed.returncode == 1
    assert f"port {port} is taken" in completed.stderr


def test_a_machine_reads_where_everything_is(environment: dict[str, str], free_port: str) -> None:
    arguments = command("--json", "--port", free_port)
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as demonstration:
        assert demonstration.stdout is not None
        facts: dict[str, Any] = json.loads(demonstration.stdout.readline())
        assert facts["port"] == int(free_port)
        assert [backend["name"] for backend in facts["backends"]] == ["primary", "replica"]
        assert Path(facts["configuration"]).exists()
        demonstration.send_signal(signal.SIGTERM)
    assert demonstration.returncode == 0
