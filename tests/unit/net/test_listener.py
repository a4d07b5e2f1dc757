"""Accepting clients: many at once, and more than the process may have files open."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pgpooler.config.hba_file import read_hba
from pgpooler.config.source import Sources
from pgpooler.net.listener import Listener
from pgpooler.net.relay import Relay
from pgpooler.pooling.deadlines import Deadlines
from tests.memory import World, configure

ROOT = Path(__file__).parents[3]
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
GSS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x30"


@pytest.fixture
def exhausted() -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-m", "tests.unit.net.exhausted"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        if process.poll() is None:
            process.kill()


def test_a_listener_that_runs_out_of_files_pauses_and_goes_on(exhausted: subprocess.Popen[str]) -> None:
    assert exhausted.stdout is not None
    assert exhausted.stdin is not None
    port = int(exhausted.stdout.readline().split()[1])
    clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(60)]
    assert "cannot accept clients" in exhausted.stdout.readline()
    # Those who are in are served meanwhile, and none of these wake-ups is another attempt.
    for request in (SSL_REQUEST, GSS_REQUEST):
        for client in clients[:20]:
            client.sendall(request)
            assert client.recv(1) == b"N"
    assert "cannot accept clients" in exhausted.stdout.readline(), "it paused, tried again and found it still so"
    for client in clients[:50]:
        client.close()
    # Those in the backlog are served now, each in its turn.
    for client in clients[50:]:
        client.sendall(SSL_REQUEST)
        assert client.recv(1) == b"N"
        client.close()
    exhausted.stdin.close()
    rest = exhausted.stdout.read()
    assert exhausted.wait(20) == 0
    assert rest.count("\n") < 20, "it pauses instead of trying without end"


def run(clients: int) -> World:
    """Let that many clients connect to a listener in this process."""

    async def scenario() -> World:
        loop = asyncio.get_running_loop()
        world = World(configure())
        relay = Relay(loop, Deadlines())
        listening = socket.create_server(("127.0.0.1", 0), backlog=200)
        listener = Listener(loop, relay, world.service, listening)
        address = listening.getsockname()
        connections = [socket.create_connection(address) for _ in range(clients)]
        try:
            while len(world.service.clients) < clients:
                await asyncio.sleep(0.001)
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address).close()
        finally:
            for connection in connections:
                connection.close()
            relay.close()
        return world

    return asyncio.run(scenario())


def test_a_crowd_of_clients_is_accepted() -> None:
    world = run(100)
    assert len(world.service.clients) == 100
    assert all(client.port.peer.startswith("127.0.0.1:") for client in world.service.clients.values())


@pytest.mark.parametrize(("entry", "asked"), [("local all all peer", True), ("local all all md5", False)])
def test_who_is_at_the_other_end_of_a_unix_socket_is_asked_only_where_an_entry_wants_to_know(
    tmp_path: Path, entry: str, asked: bool
) -> None:
    """The system may have to ask a directory service for the name, and everybody would wait for it."""
    configuration = configure()
    rules = read_hba(entry, "hba", Sources("pgpooler.yaml", {}))
    auth = msgspec.structs.replace(configuration.auth, hba_file="hba", hba=rules)

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        world = World(msgspec.structs.replace(configuration, auth=auth))
        relay = Relay(loop, Deadlines())
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as connection:
            listening.bind(str(tmp_path / "socket"))
            listening.listen()
            listener = Listener(loop, relay, world.service, listening)
            connection.connect(str(tmp_path / "socket"))
            while not world.service.clients:
                await asyncio.sleep(0.001)
            listener.close()
            names = [client.port.system_user for client in world.service.clients.values()]
            relay.close()
        return names

    assert asyncio.run(scenario()) == [pwd.getpwuid(os.getuid()).pw_name if asked else ""]
