"""Where PgPooler listens, and how it reaches its servers: addresses, unix sockets, names, and slow ones among them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgpooler.demo import tools
from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import background, refusal, value, wait_for
from tests.integration.data_planes import DataPlaneFactory
from tests.integration.poolers import Pooler, PoolerFactory, PoolerFailed
from tests.integration.test_limits_and_timeouts import SilentServer, connect, full_backlog

# There are machines without IPv6; what they cannot do is refused, which is tested below for every machine.
try:
    with socket.socket(socket.AF_INET6) as _probe:
        _probe.bind(("::1", 0))
    IPV6 = True
except OSError:
    IPV6 = False


def configuration(postgres: PostgresServer, **sections: Any) -> dict[str, Any]:
    """Everybody to one server."""
    return {
        "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port}],
        "auth": {"users": {postgres.superuser: {"password": postgres.password}}},
        **sections,
    }


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """A directory whose path is short enough for the address of a unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="pgp-"))
    yield directory
    shutil.rmtree(directory)


def through(running: Pooler, host: str, postgres: PostgresServer) -> dict[str, Any]:
    """Connect at this host (or socket directory) and say what the session is."""
    with closing(connect(running, postgres, host=host)) as connection:
        return {"answer": value(connection, "SELECT 6 * 7"), "host": connection.info.host}


# -- listening ---------------------------------------------------------------------------------------------------------


def test_clients_come_over_every_address_that_is_listened_on(
    pooler: PoolerFactory, postgres: PostgresServer, socket_directory: Path
) -> None:
    hosts = ["127.0.0.1", "127.0.0.2", *(["::1"] if IPV6 else [])]
    listen = {"host": hosts, "unix_socket_dir": str(socket_directory), "unix_socket_mode": "0700"}
    running = pooler(configuration(postgres, listen=listen, logging={"level": "debug"}))
    for host in [*hosts, str(socket_directory)]:
        assert through(running, host, postgres) == {"answer": 42, "host": host}
    shown = {"127.0.0.1:", "127.0.0.2:", "unix", *({"[::1]:"} if IPV6 else ())}
    for peer in shown - {"127.0.0.2:"}:  # clients of 127.0.0.2 come from 127.0.0.1
        wait_for(lambda peer=peer: f"client connected from {peer}" in running.log_text(), running.log_text)
    path = socket_directory / f".s.PGSQL.{running.port}"
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    running.stop()
    assert not path.exists()


def test_only_the_addresses_that_were_asked_for_are_listened_on(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    running = pooler(configuration(postgres))
    for host in ("127.0.0.2", *(["::1"] if IPV6 else [])):
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(running, postgres, host=host)


def test_a_star_means_every_address_of_both_kinds(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    running = pooler(configuration(postgres, listen={"host": "*"}))
    for host in ("127.0.0.1", "127.0.0.3", *(["::1"] if IPV6 else [])):
        assert through(running, host, postgres)["answer"] == 42


@pytest.mark.parametrize("host", ["300.1.2.3", "no such host", "192.0.2.77"])
def test_an_address_that_cannot_be_listened_on_is_refused_and_nothing_else_is_bound_instead(
    pooler: PoolerFactory, postgres: PostgresServer, host: str
) -> None:
    with pytest.raises(PoolerFailed) as failure:
        pooler(configuration(postgres, listen={"host": ["127.0.0.1", host]}))
    assert failure.value.code != 0
    assert host in failure.value.output
    assert "connect with" not in failure.value.output


def test_psql_goes_over_the_unix_socket(
    pooler: PoolerFactory, postgres: PostgresServer, socket_directory: Path
) -> None:
    running = pooler(configuration(postgres, listen={"unix_socket_dir": str(socket_directory)}))
    url = f"postgresql:///postgres?host={socket_directory}&port={running.port}"
    completed = tools.run_psql(
        f"{url}&user={postgres.superuser}&password={postgres.password}", "-c", r"\conninfo", "-c", "SELECT 6 * 7"
    )
    assert completed.returncode == 0, completed.stderr
    assert str(socket_directory) in completed.stdout
    assert completed.stdout.splitlines()[-1] == "42"


# -- connecting --------------------------------------------------------------------------------------------------------


def test_a_server_is_reached_over_its_unix_socket(
    pooler: PoolerFactory, postgres: PostgresServer, socket_directory: Path
) -> None:
    inner = pooler(configuration(postgres, listen={"unix_socket_dir": str(socket_directory)}))
    places = [(str(socket_directory), inner.port)]  # another PgPooler is a server as well
    if postgres.socket_directory is not None:
        places.append((str(postgres.socket_directory), postgres.port))
    for directory, port in places:
        backend = {"name": "primary", "host": directory, "port": port}
        running = pooler(configuration(postgres, backends=[backend]))
        with background() as start, closing(connect(running, postgres)) as connection:
            assert value(connection, "SELECT 6 * 7") == 42
            sleeping = start(connection.execute, "SELECT pg_sleep(120)")
            with closing(connect(running, postgres)) as other:
                query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
                wait_for(lambda: value(other, query, connection.info.backend_pid))  # noqa: B023
            connection.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result(60)


def test_a_unix_socket_that_is_not_there_is_named_in_the_error(
    pooler: PoolerFactory, postgres: PostgresServer, socket_directory: Path
) -> None:
    backend = {"name": "primary", "host": str(socket_directory), "port": 5432}
    running = pooler(configuration(postgres, backends=[backend]))
    fields = refusal(("127.0.0.1", running.port), postgres.superuser, postgres.password)
    assert fields["C"] == "08006"
    assert str(socket_directory) in fields["D"]
    assert "No such file" in fields["D"]


def test_a_server_may_be_given_by_its_name(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    # localhost may mean ::1 too, where nobody listens: then the next address is tried.
    backend = {"name": "primary", "host": "localhost", "port": postgres.port}
    running = pooler(configuration(postgres, backends=[backend]))
    assert through(running, "127.0.0.1", postgres)["answer"] == 42


def test_a_name_that_does_not_exist_is_told_to_the_client(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    backend = {"name": "primary", "host": "no-such-host.invalid", "port": 5432}
    running = pooler(configuration(postgres, backends=[backend]))
    fields = refusal(("127.0.0.1", running.port), postgres.superuser, postgres.password)
    assert fields["C"] == "08006"
    assert "primary (no-such-host.invalid:5432)" in fields["D"]


Names = Callable[[str], list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Names]:
    """Names that resolve as the test says; all other names are the system's own."""
    resolvers: dict[str, Names] = {}
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **keywords: Any) -> Any:
        if host not in resolvers or keywords.get("flags", 0) & socket.AI_NUMERICHOST:
            return system(host, port, *arguments, **keywords)
        return [entry for address in resolvers[host](host) for entry in system(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return resolvers


def test_when_the_first_address_of_a_name_refuses_the_next_is_tried(
    data_plane: DataPlaneFactory, postgres: PostgresServer, names: dict[str, Names]
) -> None:
    names["two.addresses"] = lambda name: ["127.0.0.9", postgres.host]
    backend = {"name": "primary", "host": "two.addresses", "port": postgres.port}
    running = data_plane(configuration(postgres, backends=[backend]))
    with closing(connect(running, postgres)) as connection:
        assert value(connection, "SELECT 6 * 7") == 42


def test_when_the_first_address_of_a_name_does_not_answer_the_next_is_tried_in_time(
    data_plane: DataPlaneFactory, postgres: PostgresServer, names: dict[str, Names]
) -> None:
    with full_backlog("127.0.0.9", postgres.port):
        names["two.addresses"] = lambda name: ["127.0.0.9", postgres.host]
        backend = {"name": "primary", "host": "two.addresses", "port": postgres.port, "server_connect_timeout": "2s"}
        running = data_plane(configuration(postgres, backends=[backend]))
        with closing(connect(running, postgres)) as connection:
            assert value(connection, "SELECT 6 * 7") == 42


def test_a_cancel_request_goes_to_the_address_that_the_server_connection_goes_to(
    data_plane: DataPlaneFactory, postgres: PostgresServer, names: dict[str, Names]
) -> None:
    addresses = [postgres.host, "127.0.0.9"]
    names["two.servers"] = lambda name: addresses
    backend = {"name": "primary", "host": "two.servers", "port": postgres.port}
    with closing(SilentServer("127.0.0.9", postgres.port)) as other:
        running = data_plane(configuration(postgres, backends=[backend]))
        with background() as start, closing(connect(running, postgres)) as connection:
            sleeping = start(connection.execute, "SELECT pg_sleep(120)")
            active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
            with closing(psycopg.connect(postgres.url(), autocommit=True)) as observer:
                wait_for(lambda: value(observer, active, connection.info.backend_pid))
            addresses.reverse()
            connection.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result(60)
        assert other.accepted == 0


def elsewhere(postgres: PostgresServer, host: str, **keys: Any) -> dict[str, Any]:
    """The database `elsewhere` on another host, everything else on the real server, given as a name."""
    backends = [
        {"name": "primary", "host": "localhost", "port": postgres.port},
        {"name": "elsewhere", "host": host, "port": postgres.port, **keys},
    ]
    rules = [{"database": "elsewhere", "backend": "elsewhere"}, {"default": True, "backend": "primary"}]
    return configuration(postgres, backends=backends, routing={"rules": rules})


def test_a_slow_name_lookup_delays_nobody_else(
    data_plane: DataPlaneFactory, postgres: PostgresServer, names: dict[str, Names]
) -> None:
    answer = threading.Event()
    asked = []

    def slow(name: str) -> list[str]:
        asked.append(name)
        assert answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    names["slow.lookup"] = slow
    running = data_plane(elsewhere(postgres, "slow.lookup"))
    with background() as start, closing(connect(running, postgres)) as before:
        # More than event loops have threads for.
        hopeless = [
            start(refusal, running.address, postgres.superuser, postgres.password, "elsewhere") for _ in range(20)
        ]
        wait_for(lambda: running.snapshot()["waiting"] == 20)
        for _ in range(100):
            assert value(before, "SELECT 6 * 7") == 42
        for _ in range(3):
            with closing(connect(running, postgres)) as another, closing(connect(running, postgres)) as third:
                assert value(another, "SELECT 6 * 7") + value(third, "SELECT 6 * 7") == 84
        assert not any(one.done() for one in hopeless)
        answer.set()
        for one in hopeless:
            assert "Temporary failure in name resolution" in one.result(60)["D"]
    assert len(asked) == 1, "one lookup of a name at a time is enough"


def test_a_lookup_that_is_given_up_blocks_no_thread_for_the_next(
    data_plane: DataPlaneFactory, postgres: PostgresServer, names: dict[str, Names]
) -> None:
    answer = threading.Event()
    asked = []

    def slow(name: str) -> list[str]:
        asked.append(name)
        assert answer.wait(60)
        return [postgres.host]

    names["slow.lookup"] = slow
    configured = elsewhere(postgres, "slow.lookup", server_connect_timeout="100ms")
    running = data_plane(configured)
    for _ in range(3):
        fields = refusal(running.address, postgres.superuser, postgres.password, "elsewhere")
        assert "server_connect_timeout" in fields["D"]
        with closing(connect(running, postgres)) as connection:
            assert value(connection, "SELECT 6 * 7") == 42
    assert len(asked) == 1
    answer.set()
    wait_for(lambda: _reaches_elsewhere(running, postgres))


def _reaches_elsewhere(running: Any, postgres: PostgresServer) -> bool:
    """The name resolves at last; that there is no such database is the server's own answer."""
    fields = refusal(running.address, postgres.superuser, postgres.password, "elsewhere")
    return fields["C"] == "3D000"


def test_an_unreachable_server_delays_nobody_else(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    with full_backlog() as port:
        configured = elsewhere(postgres, "127.0.0.1", server_connect_timeout="3s")
        configured["backends"][1]["port"] = port
        running = pooler(configured)
        with background() as start, closing(connect(running, postgres)) as before:
            hopeless = [
                start(refusal, ("127.0.0.1", running.port), postgres.superuser, postgres.password, "elsewhere")
                for _ in range(10)
            ]
            while not all(one.done() for one in hopeless):
                assert value(before, "SELECT 6 * 7") == 42
                with closing(connect(running, postgres)) as another:
                    assert value(another, "SELECT 6 * 7") == 42
            assert {one.result(60)["C"] for one in hopeless} == {"08006"}


def test_a_listener_survives_clients_that_come_and_go_at_once(pooler: PoolerFactory, postgres: PostgresServer) -> None:
    running = pooler(configuration(postgres))
    with closing(connect(running, postgres)) as connection:
        for _ in range(200):
            socket.create_connection(("127.0.0.1", running.port)).close()
        assert value(connection, "SELECT 6 * 7") == 42
    worker = max(running.process_ids())
    wait_for(lambda: len(os.listdir(f"/proc/{worker}/fd")) < 100)
