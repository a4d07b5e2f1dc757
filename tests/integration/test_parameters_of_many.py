"""Settings of many clients on few server connections: each has its own, or its statements do not run."""

from __future__ import annotations

import random
import uuid
from contextlib import ExitStack

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance
from tests.integration.clients import Switch, answers, wait_for
from tests.integration.conftest import DataPlanes, StartServer
from tests.integration.data_planes import DataPlaneFactory
from tests.integration.test_session_mode import REFUSED, STARTUPS, session
from tests.integration.wire import SYNC, Wire, bind, error_fields, execute, parse, query

MODES = ["transaction", "statement"]

PATHS = (
    "\"a\"\"b\", '''', \" , \", \"$user\", '', UPPER, \"UPPER\"", '"""a"""', "'$user', pg_temp", "''", '"\\a"',
    '"a;b", "--"', "DEFAULT", "größer",
)  # fmt: skip


def test_search_path_is_byte_for_byte_the_same_after_a_thousand_changes_of_the_server_connection(
    data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """Bug 5, PgBouncer #396, #452, Odyssey #809: quotes grew with every replay."""
    address = data_planes().address
    with ExitStack() as stack:
        direct = stack.enter_context(Wire((postgres.host, postgres.port)).log_in(database=shared_database))
        switch = stack.enter_context(Switch(address, shared_database))
        clients, expected = [], []
        for path in PATHS:
            clients.append(stack.enter_context(Wire(address).log_in(database=shared_database)))
            for one in (direct, clients[-1]):
                assert answers(one, query(f"SET search_path = {path}"))[0].name == "CommandComplete"
            expected.append(direct.values("SHOW search_path"))
        for turn in range(334):
            first = 1 + turn // 2 % (len(clients) - 2)
            for number in (0, first, first + 1):  # each of the three on another server connection than before
                assert clients[number].values("SHOW search_path") == expected[number], f"{PATHS[number]} in turn {turn}"
            switch.turn()


OWN_VALUES = {
    "work_mem": ("1MB", "2MB"),
    "TimeZone": ("Asia/Tokyo", "Asia/Kabul"),
    "my.setting": ("one", "two"),
    "role": ("pg_monitor", "pg_read_all_data"),
    "application_name": ("a", "b"),
}


@pytest.mark.parametrize("mode", MODES)
def test_clients_that_set_and_reset_at_random_each_see_their_own(
    mode: str, data_planes: DataPlanes, shared_database: str
) -> None:
    """Bugs 3 and 4."""
    chance = random.Random(5)
    show = "SELECT " + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in OWN_VALUES)
    with ExitStack() as stack:
        address = data_planes(mode).address
        switch = stack.enter_context(Switch(address, shared_database))
        clients = [stack.enter_context(Wire(address).log_in(database=shared_database)) for _ in range(6)]
        own = [dict(zip(OWN_VALUES, client.values(show), strict=True)) for client in clients]
        unset = dict(own[0])
        for turn in range(100):
            number = chance.randrange(len(clients))
            name = chance.choice(list(OWN_VALUES))
            value = chance.choice((*OWN_VALUES[name], None))
            answers(clients[number], query(f"RESET {name}" if value is None else f"SET {name} = '{value}'"))
            own[number][name] = unset[name] if value is None else value
            switch.turn()
            for other in (number, chance.randrange(len(clients))):
                assert clients[other].values(show) == list(own[other].values()), f"client {other} in turn {turn}"


# -- what cannot be set again ------------------------------------------------------------------------------------------

INSERT = "INSERT INTO kept VALUES (1)"
REQUESTS = {
    "a query": [query(INSERT)],
    "a series": [parse(INSERT) + bind() + execute() + SYNC],
    "a statement": [bind(name=b"s") + execute() + SYNC],
    "several": [query(INSERT), parse(INSERT) + bind() + execute() + SYNC, query("BEGIN; " + INSERT + "; COMMIT")],
}
SPOILT = {
    # what is made, set, and taken away again
    "a role": ("CREATE ROLE {name}", "SET ROLE {name}", "DROP ROLE {name}"),
    "a session authorization": ("CREATE ROLE {name}", "SET SESSION AUTHORIZATION {name}", "DROP ROLE {name}"),
    "a value": (
        "CREATE TEXT SEARCH CONFIGURATION {name} (COPY = simple)",
        "SET default_text_search_config = 'public.{name}'",
        "DROP TEXT SEARCH CONFIGURATION {name}",
    ),
}


def up_to_the_end(client: Wire, ready: int) -> list[Instance]:
    """Every message up to so many ReadyForQuery, or to the end of the connection."""
    messages: list[Instance] = []
    while ready and (message := client.message()) is not None:
        messages.append(message)
        ready -= message.name == "ReadyForQuery"
    return messages


@pytest.mark.parametrize("how", REQUESTS)
@pytest.mark.parametrize("what", SPOILT)
def test_without_its_settings_no_statement_of_a_client_is_run(
    what: str, how: str, data_planes: DataPlanes, postgres: PostgresServer, database: str
) -> None:
    """W19, bugs 4 and 14: it would run as somebody else; and the error reaches nobody else (PgDog #876)."""
    made, change, spoil = (text.format(name=f"r{uuid.uuid4().hex}") for text in SPOILT[what])
    postgres.execute("CREATE TABLE kept (x int)", "GRANT ALL ON kept TO PUBLIC", database=database)
    name = f"r{uuid.uuid4().hex}"
    made, change, spoil = (text.format(name=name) for text in SPOILT[what])
    postgres.execute(made, database=database)
    address = data_planes().address
    with ExitStack() as stack:
        switch = stack.enter_context(Switch(address, database))
        client, other = (stack.enter_context(Wire(address).log_in(database=database)) for _ in range(2))
        direct = stack.enter_context(Wire((postgres.host, postgres.port)).log_in(database=database))
        assert answers(client, query(change))[0].name == "CommandComplete"
        assert answers(client, parse(INSERT, name=b"s") + SYNC)[0].name == "ParseComplete"
        other.values("SELECT 1")
        postgres.execute(spoil, database=database)
        switch.turn()
        expected = error_fields(direct.ask(change)[0])
        client.send(*REQUESTS[how])
        heard = up_to_the_end(client, len(REQUESTS[how]))
        errors = [error_fields(message) for message in heard if message.name == "ErrorResponse"]
        assert {(error["C"], error["M"]) for error in errors} == {(expected["C"], expected["M"])}
        assert {message.name for message in heard} <= {"ErrorResponse", "ReadyForQuery"}
        for _ in range(2):
            assert other.values("SELECT current_user, count(*) FROM kept") == ["postgres", "0"]
            switch.turn()


# -- what a client asks for at its start, and what the server has by itself --------------------------------------------


def test_startup_parameters_mean_the_same_on_every_server_connection(
    data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """W19."""
    address = data_planes().address
    with Switch(address, shared_database) as switch:
        for startup in (*STARTUPS, *REFUSED):
            expected = session((postgres.host, postgres.port), postgres, shared_database, startup)
            assert session(address, postgres, shared_database, startup) == expected, startup
            switch.turn()


def assert_is_told_what_show_says(client: Wire) -> None:
    """Each parameter has, in SHOW, the value that the client was told last."""
    told = {name: setting.decode() for name, setting in client.told.items()}
    shown = client.values("SELECT " + ", ".join(f"current_setting('{name}')" for name in told))
    assert dict(zip(told, shown, strict=True)) == {name: setting.decode() for name, setting in client.told.items()}


def test_a_client_is_told_what_differs_on_its_next_server_connection(
    data_planes: DataPlanes, postgres: PostgresServer, database: str
) -> None:
    """W19: a database may have been given other settings since the first server connection was opened."""
    address = data_planes().address
    with Wire(address).log_in(database=database) as client, Wire(address).log_in(database=database) as own:
        own.ask("SET DateStyle = 'SQL'")
        for setting in ("DateStyle = 'German'", "TimeZone = 'Asia/Tokyo'", "application_name = 'the database'"):
            postgres.execute(f"ALTER DATABASE {database} SET {setting}")
        with Switch(address, database) as switch:
            for _ in range(4):
                assert_is_told_what_show_says(client)
                assert_is_told_what_show_says(own)
                assert own.told["DateStyle"].startswith(b"SQL")
                switch.turn()


def test_what_the_server_changes_by_itself_is_told_and_hides_nothing_of_the_clients_own(
    start_server: StartServer, data_plane: DataPlaneFactory
) -> None:
    """W19, bug 20: a ParameterStatus may come while nobody asks anything."""
    server = start_server()
    under_test = data_plane(
        {
            "backends": [{"name": "own", "host": server.host, "port": server.port}],
            "auth": {"users": {server.superuser: {"password": server.password}}},
            "routing": {"defaults": {"pool_mode": "transaction", "pool_size": 2}},
        }
    )
    with ExitStack() as stack:
        switch = stack.enter_context(Switch(under_test.address, "postgres"))
        client = stack.enter_context(under_test.wire().log_in())
        own = stack.enter_context(under_test.wire().log_in(TimeZone="Asia/Kabul"))
        own.ask("SET DateStyle = 'SQL'")
        server.execute("ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'", "ALTER SYSTEM SET DateStyle = 'German'")
        server.execute("SELECT pg_reload_conf()")
        for _ in range(2):
            wait_for(lambda: client.values("SHOW TimeZone") == ["Asia/Tokyo"])
            wait_for(lambda: client.values("SHOW DateStyle")[0].startswith("German"))
            assert_is_told_what_show_says(client)
            assert_is_told_what_show_says(own)
            assert own.told["TimeZone"] == b"Asia/Kabul"
            assert own.told["DateStyle"].startswith(b"SQL")
            switch.turn()
