"""Messages that arrive in pieces: a whole session byte by byte on either side says what a direct one says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance, encode, frontend
from tests.integration.data_planes import DataPlaneFactory
from tests.integration.faults import FaultProxy, wait_until_read
from tests.integration.servers import TwoServers
from tests.integration.wire import (
    SYNC,
    Address,
    Wire,
    bind,
    copy_data,
    error_fields,
    execute,
    extended,
    parse,
    query,
)

COPY_DONE = encode(frontend("CopyDone"))
COPY_FAIL = encode(frontend("CopyFail", reason=b"changed my mind"))
DESCRIBE_STATEMENT = encode(frontend("Describe", kind=b"S", target=b""))

# Each request, and how many ReadyForQuery answer it.
SESSION: tuple[tuple[bytes, int], ...] = (
    (query("SELECT 1, NULL, 'two'"), 1),
    (query("SELECT repeat('x', 300), 'y' UNION ALL SELECT '', NULL"), 1),
    (query(""), 1),
    (query("SELECT nonsense"), 1),
    (query("SELECT 1; SELECT 2/0; SELECT 3"), 1),
    (extended("SELECT $1::text || $2::text", b"one", b"two"), 1),
    (extended("SELECT $1::int / $2::int", b"1", b"0"), 1),
    (parse("SELECT $1::int") + DESCRIBE_STATEMENT + bind(None) + execute() + SYNC, 1),
    (query("CREATE TEMPORARY TABLE copied (a int, b text)"), 1),
    (query("COPY copied FROM STDIN") + copy_data(b"1\tone\n2\t") + copy_data(b"two\n") + COPY_DONE, 1),
    (query("COPY copied FROM STDIN") + copy_data(b"3\tthree\n") + COPY_FAIL, 1),
    (query("COPY copied FROM STDIN") + copy_data(b"no number\tfour\n") + COPY_DONE, 1),
    (query("COPY copied TO STDOUT"), 1),
    (query("SELECT count(*) FROM copied"), 1),
    (query("DO $$ BEGIN RAISE NOTICE 'noted'; END $$"), 1),
    (query("SET application_name = 'byte by byte'"), 1),
    (query("BEGIN") + query("SELECT broken") + query("SELECT 1") + query("ROLLBACK"), 4),
    (extended("BEGIN") + extended("SELECT 1") + SYNC + extended("COMMIT"), 4),
)


def talk(address: Address, server: PostgresServer) -> list[tuple[str, object]]:
    """Everything a server says in a login and in SESSION, without what is different in every session."""
    heard: list[Instance] = []
    with Wire(address) as client:
        client.log_in(server.superuser, server.password)
        for request, replies in SESSION:
            client.send(request)
            for _ in range(replies):
                heard += client.until()
        client.send(encode(frontend("Terminate")))
        assert client.everything() == b""
    return [
        (message.name, error_fields(message) if message.name == "ErrorResponse" else message.fields)
        for message in heard
    ]


BOTH = ("to server", "to client")


@pytest.mark.parametrize(
    ("towards_clients", "towards_servers"), [(BOTH, ()), ((), BOTH), (BOTH, BOTH)], ids=["clients", "servers", "both"]
)
def test_a_session_byte_by_byte_says_what_a_direct_session_says(
    two_servers: TwoServers,
    postgres: PostgresServer,
    data_plane: DataPlaneFactory,
    towards_clients: tuple[str, ...],
    towards_servers: tuple[str, ...],
) -> None:
    """W10; the login, simple and extended queries, COPY and errors, every header split at every byte.

    PgBouncer #1058, #1446, #1520, PgDog #1228, Supavisor: a message was taken to come in one piece.
    """
    direct = talk((postgres.host, postgres.port), postgres)
    with FaultProxy((postgres.host, postgres.port), split=towards_servers) as behind:
        backend = {"name": "primary", "host": "127.0.0.1", "port": behind.port}
        under_test = data_plane(two_servers.configuration(backends=[backend]))
        with FaultProxy(under_test.address, split=towards_clients) as before:
            assert talk(before.address, postgres) == direct
            under_test.wait_until_unused()
        assert under_test.idle() == 1


@pytest.fixture
def logged_in(two_servers: TwoServers, data_plane: DataPlaneFactory) -> Iterator[Wire]:
    with data_plane(two_servers.configuration()).wire() as client:
        yield client.log_in()


def test_a_request_split_in_two_at_any_byte_is_answered_like_a_whole_one(logged_in: Wire) -> None:
    request = parse("SELECT $1::text") + bind(b"value") + execute() + SYNC + query("SELECT 2")
    logged_in.send(request)
    whole = logged_in.until() + logged_in.until()
    for at in range(1, len(request)):
        logged_in.send(request[:at])
        wait_until_read(logged_in.socket)
        logged_in.send(request[at:])
        assert logged_in.until() + logged_in.until() == whole
