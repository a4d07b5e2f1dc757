"""The spec describes what PostgreSQL and libpq really say: every recorded message is decoded and encoded unchanged."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance, encode, frontend, split
from spec.listener import Heard
from spec.messages import Sender
from tests.integration.recorder import Recorder

StartServer = Callable[..., PostgresServer]


@pytest.fixture
def recorder(postgres: PostgresServer) -> Iterator[Recorder]:
    recorder = Recorder(postgres)
    yield recorder
    with contextlib.suppress(OSError):
        recorder.stop()


def connect(recorder: Recorder, server: PostgresServer, **parameters: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host="127.0.0.1",
        port=recorder.port,
        **{
            "user": server.superuser,
            "password": server.password,
            "dbname": "postgres",
            "sslmode": "disable",
            "autocommit": True,
            **parameters,
        },
    )


def checked(recorder: Recorder) -> list[list[Heard]]:
    """What was heard, each message checked: what was decoded is encoded to the very bytes that were recorded."""
    conversations = recorder.heard()
    for conversation in conversations:
        for heard in conversation:
            assert encode(heard.instance, heard.version) == heard.data, heard.instance
    return conversations


def said(conversation: list[Heard], sender: Sender) -> list[str]:
    return [heard.instance.name for heard in conversation if heard.instance.sender is sender]


def first(conversation: list[Heard], name: str) -> Instance:
    return next(heard.instance for heard in conversation if heard.instance.name == name)


def ask(connection: psycopg.Connection[Any], *requests: Instance) -> None:
    """Send requests that libpq would not make on the connection it opened, and wait for all their replies."""
    cycles = sum(request.name in ("Sync", "Query", "FunctionCall") for request in requests)
    received = b""
    with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.setblocking(True)
        stream.sendall(b"".join(encode(request) for request in requests))
        while [message[:1] for message in split(received, Sender.BACKEND)[0]].count(b"Z") < cycles:
            received += stream.recv(65536)


def error_fields(instance: Instance) -> dict[bytes, bytes]:
    fields: Any = instance["fields"]
    return dict(fields)


def test_a_login_with_scram_and_a_simple_query(recorder: Recorder, postgres: PostgresServer) -> None:
    with connect(recorder, postgres) as connection:
        connection.pgconn.exec_(b"select 1 as one; select; ")
        connection.pgconn.exec_(b"")
    (conversation,) = checked(recorder)
    assert said(conversation, Sender.FRONTEND) == [
        "StartupMessage",
        "SASLInitialResponse",
        "SASLResponse",
        "Query",
        "Query",
        "Terminate",
    ]
    replies = said(conversation, Sender.BACKEND)
    assert replies[:4] == [
        "AuthenticationSASL",
        "AuthenticationSASLContinue",
        "AuthenticationSASLFinal",
        "AuthenticationOk",
    ]
    assert set(replies[4:]) == {
        "ParameterStatus",
        "BackendKeyData",
        "ReadyForQuery",
        "RowDescription",
        "DataRow",
        "CommandComplete",
        "EmptyQueryResponse",
    }
    startup = first(conversation, "StartupMessage")
    assert startup["parameters"][0] == (b"user", postgres.superuser.encode())  # type: ignore[index]
    assert startup["minor"] == 0
    assert len(first(conversation, "BackendKeyData")["key"]) == 4  # type: ignore[arg-type]


def test_protocol_3_2_and_its_longer_cancel_key(recorder: Recorder, postgres: PostgresServer) -> None:
    with connect(recorder, postgres, max_protocol_version="3.2") as connection:
        connection.execute("select 1")
        connection.cancel_safe()
    session, cancel = checked(recorder)
    assert first(session, "StartupMessage")["minor"] == 2
    key = first(session, "BackendKeyData")["key"]
    assert isinstance(key, bytes)
    newest = postgres.version_number >= 18
    assert len(key) == (32 if newest else 4)
    assert ("NegotiateProtocolVersion" in said(session, Sender.BACKEND)) is not newest
    assert first(cancel, "CancelRequest")["key"] == key


def test_extended_queries_with_parameters_nulls_and_binary_values(recorder: Recorder, postgres: PostgresServer) -> None:
    with connect(recorder, postgres) as connection:
        row = connection.execute("select %s::int, %s::text, %b::bytea", (1, None, b"\0\xff"), prepare=True).fetchone()
        assert row == (1, None, b"\0\xff")
        connection.execute("select %s::text", ("x" * 100_000,), binary=True)
        with connection.pipeline():
            connection.execute("select 1")
            connection.execute("deallocate all")
    (conversation,) = checked(recorder)
    assert {"Parse", "Bind", "Describe", "Execute", "Sync"} <= set(said(conversation, Sender.FRONTEND))
    assert {"ParseComplete", "BindComplete", "NoData"} <= set(said(conversation, Sender.BACKEND))
    values = first(conversation, "Bind")["values"]
    assert isinstance(values, tuple)
    assert values[1:] == (None, b"\0\xff")


def test_statements_and_portals_are_described_suspended_and_closed(
    recorder: Recorder, postgres: PostgresServer
) -> None:
    with connect(recorder, postgres) as connection:
        ask(
            connection,
            frontend("Parse", statement=b"s", query=b"select generate_series(1, $1)", types=(23,)),
            frontend("Describe", kind=b"S", target=b"s"),
            frontend("Bind", portal=b"p", statement=b"s", formats=(0,), values=(b"3",), result_formats=(1,)),
            frontend("Describe", kind=b"P", target=b"p"),
            frontend("Execute", portal=b"p", limit=2),
            frontend("Flush"),
            frontend("Execute", portal=b"p", limit=-1),
            frontend("Close", kind=b"P", target=b"p"),
            frontend("Close", kind=b"S", target=b"none"),
            frontend("Sync"),
        )
    (conversation,) = checked(recorder)
    replies = said(conversation, Sender.BACKEND)
    start = replies.index("ParseComplete")
    assert replies[start:] == [
        "ParseComplete",
        "ParameterDescription",
        "RowDescription",
        "BindComplete",
        "RowDescription",
        "DataRow",
        "DataRow",
        "PortalSuspended",
        "DataRow",
        "CommandComplete",
        "CloseComplete",
        "CloseComplete",
        "ReadyForQuery",
    ]


def test_copy_in_both_directions_and_a_copy_that_fails(recorder: Recorder, postgres: PostgresServer) -> None:
    with connect(recorder, postgres) as connection, connection.cursor() as cursor:
        cursor.execute("create temporary table t (a int, b text)")
        with cursor.copy("copy t from stdin") as copy:
            for number in range(10):
                copy.write_row((number, None))
        with cursor.copy("copy t to stdout (format binary)") as copy:
            assert b"".join(bytes(piece) for piece in copy)
        with pytest.raises(ValueError, match="gives up"), cursor.copy("copy t from stdin"):
            raise ValueError("the program gives up")
    (conversation,) = checked(recorder)
    assert {"CopyData", "CopyDone", "CopyFail"} <= set(said(conversation, Sender.FRONTEND))
    assert {"CopyInResponse", "CopyOutResponse", "CopyData", "CopyDone", "ErrorResponse"} <= set(
        said(conversation, Sender.BACKEND)
    )
    assert first(conversation, "CopyInResponse").fields == {"format": 0, "column_formats": (0, 0)}
    assert first(conversation, "CopyOutResponse").fields == {"format": 1, "column_formats": (1, 1)}


def test_errors_notices_notifications_and_parameter_changes(recorder: Recorder, postgres: PostgresServer) -> None:
    with connect(recorder, postgres) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1 / 0")
        connection.execute("do $$ begin raise notice 'look' using hint = 'there', column = 'c'; end $$")
        connection.execute("listen somewhere")
        connection.execute("notify somewhere, 'something'")
        connection.execute("set application_name to 'recorded'")
    (conversation,) = checked(recorder)
    error, notice = (
        error_fields(first(conversation, "ErrorResponse")),
        error_fields(first(conversation, "NoticeResponse")),
    )
    assert error[b"C"] == b"22012"
    assert error[b"V"] == b"ERROR"
    assert (notice[b"M"], notice[b"H"], notice[b"c"]) == (b"look", b"there", b"c")
    notification = first(conversation, "NotificationResponse")
    assert (notification["channel"], notification["payload"]) == (b"somewhere", b"something")
    changes = [heard.instance.fields for heard in conversation if heard.instance.name == "ParameterStatus"]
    assert {"parameter": b"application_name", "setting": b"recorded"} in changes


def test_a_function_call(recorder: Recorder, postgres: PostgresServer) -> None:
    int4pl = 177
    one = (1).to_bytes(4, "big")
    with connect(recorder, postgres) as connection:
        ask(
            connection,
            frontend("FunctionCall", function=int4pl, formats=(1,), arguments=(one, one), result_format=1),
            frontend("FunctionCall", function=int4pl, formats=(), arguments=(b"1", None), result_format=0),
        )
    (conversation,) = checked(recorder)
    results = [heard.instance["result"] for heard in conversation if heard.instance.name == "FunctionCallResponse"]
    assert results[0] == (2).to_bytes(4, "big")


def test_a_cancel_request(recorder: Recorder, postgres: PostgresServer) -> None:
    with connect(recorder, postgres) as connection:
        timer = threading.Timer(0.2, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(60)")
        timer.join()
    session, cancel = checked(recorder)
    assert said(cancel, Sender.FRONTEND) == ["CancelRequest"]
    assert said(cancel, Sender.BACKEND) == []
    for field in ("process_id", "key"):
        assert first(cancel, "CancelRequest")[field] == first(session, "BackendKeyData")[field]


def test_a_request_for_encryption_that_is_declined(recorder: Recorder, postgres: PostgresServer) -> None:
    with socket.create_connection(("127.0.0.1", recorder.port)) as client:
        client.sendall(encode(frontend("GSSENCRequest")))
        assert client.recv(1) == b"N"
        user = (b"user", b"somebody")
        client.sendall(encode(frontend("StartupMessage", minor=0, parameters=(user,))))
        assert client.recv(1) in b"RE"
    (conversation,) = checked(recorder)
    assert said(conversation, Sender.FRONTEND)[:2] == ["GSSENCRequest", "StartupMessage"]


def test_a_version_too_new_and_unknown_options_are_negotiated(recorder: Recorder, postgres: PostgresServer) -> None:
    user = (b"user", postgres.superuser.encode())
    option = (b"_pq_.unheard_of", b"1")
    with socket.create_connection(("127.0.0.1", recorder.port)) as client:
        client.sendall(encode(frontend("StartupMessage", minor=9999, parameters=(user, option))))
        while not client.recv(4096).startswith(b"v"):
            pass
    (conversation,) = checked(recorder)
    newest = 0x30002 if postgres.version_number >= 18 else 0x30000
    negotiation = first(conversation, "NegotiateProtocolVersion")
    assert negotiation.fields == {"version": newest, "options": (b"_pq_.unheard_of",)}


def test_passwords_in_clear_and_as_md5_digest_and_a_stream_both_ways(start_server: StartServer) -> None:
    with start_server() as server:
        server.execute("set password_encryption to md5", "create role old login password 'secret'")
        server.set_authentication(
            f"host replication all 127.0.0.1/32 password\nhost all {server.superuser} 127.0.0.1/32 password",
            "host all old 127.0.0.1/32 md5",
        )
        recorder = Recorder(server)
        with contextlib.closing(connect(recorder, server, replication="true")) as connection:
            position = connection.pgconn.exec_(b"IDENTIFY_SYSTEM").get_value(0, 2)
            assert position is not None
            connection.pgconn.exec_(b"START_REPLICATION PHYSICAL " + position)
        connect(recorder, server, user="old", password="secret").close()
        clear, digest = checked(recorder)
    assert first(clear, "PasswordMessage")["password"] == server.password.encode()
    assert "AuthenticationCleartextPassword" in said(clear, Sender.BACKEND)
    assert "CopyBothResponse" in said(clear, Sender.BACKEND)
    assert "AuthenticationMD5Password" in said(digest, Sender.BACKEND)
    assert str(first(digest, "PasswordMessage")["password"]).startswith("b'md5")
