from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgpooler.process.notify import Notifier, passed_sockets


def receive(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd holds: a datagram socket, with a name in the file system or an abstract one."""
    endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    endpoint.settimeout(5)
    endpoint.bind(
        str(tmp_path / "notify") if request.param == "file" else f"\0pgpooler-test-{os.getpid()}-{id(endpoint)}"
    )
    yield endpoint
    endpoint.close()


def test_systemd_is_told_every_state(manager: socket.socket) -> None:
    name = manager.getsockname()
    address = "@" + name[1:].decode() if isinstance(name, bytes) else name
    environment = {"NOTIFY_SOCKET": address}
    notifier = Notifier(environment)
    assert environment == {}, "children must not speak in our name"
    notifier.ready("listening on\n127.0.0.1:6432")
    assert receive(manager) == {
        "READY": "1",
        "MAINPID": str(os.getpid()),
        "STATUS": "listening on 127.0.0.1:6432",
    }
    notifier.reloading()
    told = receive(manager)
    assert told["RELOADING"] == "1"
    assert int(told["MONOTONIC_USEC"]) > 0
    notifier.status("restarting the worker")
    assert receive(manager) == {"STATUS": "restarting the worker"}
    notifier.stopping("draining")
    assert receive(manager) == {"STOPPING": "1", "STATUS": "draining"}


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nonexistent/socket"}])
def test_without_a_listening_systemd_nothing_happens(environment: dict[str, str]) -> None:
    Notifier(environment).ready("listening")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": ""},
    ],
)
def test_sockets_that_are_not_meant_for_us_are_not_taken(environment: dict[str, str]) -> None:
    assert passed_sockets(environment) == []
    assert environment == {}


ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
from pgpooler.process.notify import passed_sockets
try:
    found = passed_sockets()
except OSError as error:
    sys.exit(str(error))
print([(s.getsockname()[1], s.getblocking(), s.get_inheritable()) for s in found], "LISTEN_FDS" in os.environ)
"""


def run_activated(passed: socket.socket) -> subprocess.CompletedProcess[str]:
    """Run ACTIVATED with `passed` as descriptor 3, as systemd does it."""
    return subprocess.run(
        [sys.executable, "-c", ACTIVATED, str(passed.fileno())],
        env={**os.environ, "LISTEN_FDS": "1"},
        pass_fds=[passed.fileno()],
        capture_output=True,
        text=True,
    )


def test_a_socket_of_systemd_is_adopted_and_hidden_from_children() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = run_activated(listener)
        assert result.stderr == ""
        assert result.stdout.strip() == f"[({listener.getsockname()[1]}, False, False)] False"


def test_a_descriptor_that_is_no_listening_socket_is_refused_with_advice() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        result = run_activated(wrong)
        assert result.returncode == 1
        assert "ListenStream=" in result.stderr
