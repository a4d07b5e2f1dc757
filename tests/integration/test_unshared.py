"""Startup parameters that PostgreSQL takes only at the start of a connection: their client has a server of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from tests.integration.clients import Connection, background, opening, server_process, value, wait_for
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane
from tests.integration.servers import TwoServers
from tests.integration.wire import Address, Wire, error_fields, query

MODES = pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
SHOW = "SHOW ignore_system_indexes"
ASKED_FOR = ({"ignore_system_indexes": "on"}, {"options": "-c ignore_system_indexes=on"})

Start = Callable[..., RunningDataPlane]


@pytest.fixture
def start(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Start:
    """Start a data plane in a pool mode: `start(mode, pool_size=2, users={"name": "password"})`."""

    def run(mode: str, *, pool_size: int = 2, users: dict[str, str] | None = None) -> RunningDataPlane:
        passwords = {**two_servers.users, **(users or {})}
        return data_plane(
            two_servers.configuration(
                auth={"users": {user: {"password": password} for user, password in passwords.items()}},
                routing={"defaults": {"pool_mode": mode, "pool_size": pool_size}},
            )
        )

    return run


@pytest.fixture
def observer(postgres: PostgresServer, database: str) -> Iterator[Connection]:
    """A direct connection to the database of the test, which is not one of PgPooler's."""
    with closing(psycopg.connect(postgres.url(database), autocommit=True, application_name="observer")) as connection:
        yield connection


@pytest.fixture
def ordinary(postgres: PostgresServer) -> Iterator[str]:
    """A role that is no superuser; its password is `secret`."""
    name = f"ordinary_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield name
    postgres.execute(f"DROP ROLE {name}")


@contextmanager
def client(under_test: RunningDataPlane, database: str, **startup: str) -> Iterator[Wire]:
    """A raw connection that sends exactly these startup parameters."""
    wire, messages = opening(under_test.address, "postgres", "postgres", database, **startup)
    with wire:
        assert messages[-1].name == "ReadyForQuery", messages[-1]
        yield wire


def shown(wire: Wire, text: str = SHOW) -> str:
    """The only value of the only row."""
    (answer,) = wire.values(text)
    return str(answer)


def processes(observer: Connection) -> set[int]:
    """The server processes of others on the test's database, as the server itself sees them."""
    rows = observer.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    return {pid for (pid,) in rows}


@MODES
@pytest.mark.parametrize("startup", ASKED_FOR, ids=["parameter", "options"])
def test_what_can_be_set_only_at_the_start_is_in_force_for_its_client_alone(
    start: Start, database: str, mode: str, startup: dict[str, str]
) -> None:
    under_test = start(mode)
    with client(under_test, database, **startup) as own, client(under_test, database) as other:
        for _ in range(3):
            assert shown(own) == "on"
            assert shown(other) == "off"
        (pool,) = under_test.snapshot()["pools"]
        assert [entry["reason"] for entry in pool["pinned"]] == [
            "startup parameters that can be set only at the start of a connection"
        ]
    under_test.wait_until_unused()
    with client(under_test, database) as other:
        assert shown(other) == "off"


@MODES
def test_the_client_keeps_one_server_process_which_ends_when_the_client_leaves(
    start: Start, database: str, observer: Connection, mode: str
) -> None:
    under_test = start(mode, pool_size=1)
    with client(under_test, database, ignore_system_indexes="on", application_name="alone") as own:
        served_by = {shown(own, "SELECT pg_backend_pid()") for _ in range(3)}
        assert served_by == {str(pid) for pid in processes(observer)}
    wait_for(lambda: not processes(observer))
    with client(under_test, database) as other:
        assert shown(other, "SELECT pg_backend_pid()") not in served_by
        assert shown(other, "SHOW application_name") == ""


@MODES
def test_everything_else_that_was_asked_for_is_in_force_too(start: Start, database: str, mode: str) -> None:
    under_test = start(mode)
    startup = {
        "options": r'-c ignore_system_indexes=on --work-mem=1234kB -c search_path="a\ b",pg_catalog',
        "application_name": "alone",
        "client_encoding": "LATIN1",
        "TimeZone": "Asia/Tokyo",
    }
    wire, messages = opening(under_test.address, "postgres", "postgres", database, **startup)
    with wire:
        told = {message["parameter"]: message["setting"] for message in messages if message.name == "ParameterStatus"}
        expected = {b"application_name": b"alone", b"client_encoding": b"LATIN1", b"TimeZone": b"Asia/Tokyo"}
        assert {name: told.get(name) for name in expected} == expected
        for name, setting in (("work_mem", "1234kB"), ("search_path", '"a b",pg_catalog'), ("TimeZone", "Asia/Tokyo")):
            assert shown(wire, f"SHOW {name}") == setting
        wire.ask("SET work_mem TO '5MB'")
        wire.ask("RESET ALL")
        assert shown(wire, "SHOW work_mem") == "1234kB", "what was asked for at the start is what RESET goes back to"


REFUSED: tuple[dict[str, str], ...] = (
    {"ignore_system_indexes": "perhaps"},
    {"ignore_system_indexes": "on", "work_mem": "a lot"},
    {"ignore_system_indexes": "on", "no_such_setting": "1"},
    {"shared_buffers": "1MB"},
    {"options": "-c post_auth_delay=-1"},
)


def end_of_login(address: Address, user: str, password: str, database: str, startup: dict[str, str]) -> dict[str, str]:
    """The fields of the error that ends the login."""
    wire, messages = opening(address, user, password, database, **startup)
    with wire:
        assert messages[-1].name == "ErrorResponse", startup
        return error_fields(messages[-1])


@MODES
def test_what_postgresql_refuses_at_the_start_is_refused_with_its_error(
    start: Start, postgres: PostgresServer, database: str, ordinary: str, mode: str
) -> None:
    under_test = start(mode, pool_size=1, users={ordinary: "secret"})
    logins = [("postgres", "postgres", startup) for startup in REFUSED]
    logins.append((ordinary, "secret", {"log_disconnections": "on"}))
    direct = (postgres.host, postgres.port)
    expected = [end_of_login(direct, *login[:2], database, login[2]) for login in logins]
    assert expected[-1]["C"] == "42501"
    assert [end_of_login(under_test.address, *login[:2], database, login[2]) for login in logins] == expected
    with client(under_test, database) as other:
        assert shown(other) == "off"


@MODES
def test_many_clients_of_both_kinds_share_two_places(start: Start, database: str, mode: str) -> None:
    """Nobody is lost, and everybody has what it asked for."""
    under_test = start(mode, pool_size=2)

    def one(number: int) -> list[str]:
        with client(under_test, database, **(ASKED_FOR[0] if number % 2 else {})) as wire:
            return [shown(wire) for _ in range(3)]

    with background() as run:
        answers = [run(one, number) for number in range(20)]
        expected = [["on" if number % 2 else "off"] * 3 for number in range(20)]
        assert [answer.result() for answer in answers] == expected


def test_a_driver_gets_what_it_asks_for_in_its_options(start: Start, database: str) -> None:
    under_test = start("transaction", pool_size=2)
    url = f"postgresql://postgres:postgres@127.0.0.1:{under_test.port}/{database}?sslmode=disable"
    with psycopg.connect(url, options="-c ignore_system_indexes=on") as connection:
        process = server_process(connection)
        connection.commit()
        assert value(connection, SHOW) == "on"
        connection.commit()
        for _ in range(10):
            assert server_process(connection) == process
            connection.commit()
        assert connection.info.backend_pid == process


def test_a_client_that_leaves_during_a_slow_login_leaves_nothing(
    start: Start, database: str, observer: Connection
) -> None:
    """The server lets its client in after a second; the client does not wait for that."""
    under_test = start("transaction", pool_size=1)
    wire = Wire(under_test.address)
    wire.authenticate("postgres", "postgres", database, options="-c post_auth_delay=1")
    wait_for(lambda: under_test.inside(lambda plane: any(pool.unshared.logins for pool in plane.service.pools)))
    wire.close()
    under_test.wait_until_unused()
    with client(under_test, database) as other:
        assert shown(other) == "off"
    wait_for(lambda: len(processes(observer)) == 1)


def test_a_query_on_a_connection_of_its_own_can_be_canceled(start: Start, database: str) -> None:
    under_test = start("transaction", pool_size=2)
    url = f"postgresql://postgres:postgres@127.0.0.1:{under_test.port}/{database}?sslmode=disable"
    with psycopg.connect(url, options="-c ignore_system_indexes=on", autocommit=True) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SET statement_timeout TO 50; SELECT pg_sleep(60)")
        assert value(connection, SHOW) == "on"


def test_a_block_is_refused_in_statement_mode_there_too(start: Start, database: str) -> None:
    under_test = start("statement")
    with client(under_test, database, ignore_system_indexes="on") as own:
        own.send(query("BEGIN"))
        refused = own.until("ReadyForQuery")
        assert [error_fields(message)["C"] for message in refused if message.name == "ErrorResponse"] == ["0A000"]
        assert shown(own) == "on"
