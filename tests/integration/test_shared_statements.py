"""Prepared statements of many clients on few server connections: nobody is given a plan that is not his."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import Instance
from tests.integration.clients import Script, Switch, answers, assert_as_direct
from tests.integration.conftest import DataPlanes
from tests.integration.wire import (
    SYNC,
    Address,
    Wire,
    called,
    close,
    closed,
    described,
    parse,
    prepared,
    query,
    ran,
    row_values,
    sqlstate,
)

LIMIT = 3
"""The limit of prepared statements for each server connection where statements are to be evicted."""
OWN_NAME = re.compile(r"pgpooler_[0-9a-f]{8}_[1-9][0-9]*")


@contextmanager
def clients(address: Address, database: str, count: int = 2, **parameters: str) -> Iterator[list[Wire]]:
    """Clients that have logged in."""
    with ExitStack() as stack:
        yield [stack.enter_context(Wire(address).log_in(database=database, **parameters)) for _ in range(count)]


def outline(messages: list[Instance]) -> list[str]:
    """What was done with statements, the first value of each row, and the SQLSTATE of each error."""
    heard = []
    for message in messages:
        if message.name == "ErrorResponse":
            heard.append(sqlstate(message))
        elif message.name == "DataRow":
            heard += row_values([message])[:1]
        elif message.name in ("ParseComplete", "CloseComplete"):
            heard.append(message.name)
    return heard


def statements(client: Wire) -> list[tuple[str, str, str]]:
    """Names, texts and types of parameters of what is prepared on the server connection that serves now."""
    found = client.values("SELECT name, statement, parameter_types FROM pg_prepared_statements WHERE NOT from_sql")
    return list(zip(found[::3], found[1::3], found[2::3], strict=True))


def assert_in_order(client: Wire, switch: Switch, limit: int) -> None:
    """Both server connections hold names of ours alone, each text but once, and no more of them than allowed."""
    for _ in range(2):
        switch.turn()
        found = statements(client)
        assert [name for name, *_ in found if not OWN_NAME.fullmatch(name)] == []
        assert len({(text, types) for _, text, types in found}) == len(found) <= limit, found


# -- plans that depend on settings -------------------------------------------------------------------------------------

SCHEMAS = "".join(
    f"CREATE SCHEMA {name}; CREATE TABLE {name}.whose AS SELECT '{name}' AS x; " for name in ("one", "two")
)
FOLDED: dict[str, tuple[str, str, str]] = {
    # a setting -> two values of it, and a text that PostgreSQL reads in another way under each
    "DateStyle": ("SQL, DMY", "SQL, MDY", "SELECT date '2024-12-31' - date '01/02/2024'"),
    "TimeZone": ("Asia/Tokyo", "America/New_York", "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')"),
    "IntervalStyle": ("postgres", "sql_standard", "SELECT extract(epoch FROM interval '-1 2:00:00')"),
    "search_path": ("one", "two", "SELECT x FROM whose"),
    "standard_conforming_strings": ("on", "off", r"SELECT length('a\\b')"),
    "client_encoding": ("UTF8", "LATIN1", "SELECT length('é')"),
}


@pytest.fixture
def with_schemas(postgres: PostgresServer, shared_database: str) -> Iterator[str]:
    postgres.execute(SCHEMAS, database=shared_database)
    yield shared_database
    postgres.execute("DROP SCHEMA one, two CASCADE", database=shared_database)


@pytest.mark.parametrize("setting", FOLDED)
@pytest.mark.parametrize("name", [b"s", b""], ids=["named", "unnamed"])
def test_the_same_text_under_another_setting_is_another_statement(
    name: bytes, setting: str, data_planes: DataPlanes, postgres: PostgresServer, with_schemas: str
) -> None:
    """Bugs 3 and 6, PgBouncer #879: what a plan means is settled when it is parsed."""
    *settings, text = FOLDED[setting]
    direct = (postgres.host, postgres.port)
    script = (prepared(text, name), ran(name=name), ran(name=name), ran(name=name))
    expected: list[list[list[str]]] = []
    for value in settings:
        with Wire(direct).log_in(database=with_schemas, **{setting: value}) as client:
            expected.append([outline(answers(client, request)) for request in script])
    assert expected[0] != expected[1]
    address = data_planes().address
    with ExitStack() as stack:
        switch = stack.enter_context(Switch(address, with_schemas))
        both = [stack.enter_context(Wire(address).log_in(database=with_schemas, **{setting: x})) for x in settings]
        for step, request in enumerate(script):
            for client, right in zip(both, expected, strict=True):
                assert outline(answers(client, request)) == right[step], step
            switch.turn()


@pytest.mark.parametrize("setting", FOLDED)
def test_a_client_that_changes_its_setting_keeps_the_plans_that_it_has(
    setting: str, data_planes: DataPlanes, postgres: PostgresServer, with_schemas: str
) -> None:
    """Bugs 3 and 6."""
    first, second, text = FOLDED[setting]
    quiet = query("SET escape_string_warning TO off")
    change = query(f"SET {setting} TO {second if setting == 'DateStyle' else repr(second)}")
    script: Script = (quiet, prepared(text), ran(), change, ran(), prepared(text, b"t"), ran(name=b"t"), ran())
    script += (query(f"RESET {setting}"), ran(name=b"t"), ran(), described(), prepared(text, b"u"), ran(name=b"u"))
    assert_as_direct(script, data_planes().address, postgres, with_schemas, **{setting: first})


# -- definitions that change -------------------------------------------------------------------------------------------

MADE = "DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT 1 AS a, 'x'::varchar(9) AS b"
CHANGES: dict[str, str] = {
    "a column more": "ALTER TABLE t ADD c int",
    "a column less": "ALTER TABLE t DROP b",
    "another type": "ALTER TABLE t ALTER a TYPE bigint",
    "another length": "ALTER TABLE t ALTER b TYPE varchar(5)",
    "another name": "ALTER TABLE t RENAME b TO c",
    "a table like it": MADE,
    "a table unlike it": "DROP TABLE t; CREATE TABLE t AS SELECT 1.5 AS a",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [b"s", b""], ids=["named", "unnamed"])
def test_a_row_never_has_another_shape_than_was_described(
    name: bytes, change: str, data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """Bug 6, Odyssey, pg_doorman 3.10.0, PgCat #875: a driver read the new rows by the old description."""
    script: Script = (MADE, prepared("TABLE t", name), ran(name=name), CHANGES[change], ran(name=name), ran(name=name))
    script += (closed(name), prepared("TABLE t", name), ran(name=name), MADE, ran(name=name), "DROP TABLE t")
    assert_as_direct(script, data_planes().address, postgres, shared_database)


def test_a_change_is_noticed_by_a_server_connection_that_never_saw_the_statement(
    data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """Bug 6: prepared on the fly, the new definition would be taken for the old one."""
    address = data_planes().address
    with Switch(address, shared_database) as switch, clients(address, shared_database) as (client, other):
        for text in ("TABLE t", "SELECT * FROM t WHERE a = $1::int"):
            postgres.execute(MADE, database=shared_database)
            values = [b"1"] if "$1" in text else []
            assert outline(answers(client, prepared(text), described())) == ["ParseComplete"]
            postgres.execute(CHANGES["a column more"], database=shared_database)
            switch.turn()
            for _ in range(2):
                assert outline(answers(client, ran(*values))) == ["0A000"]
                switch.turn()
            for _ in range(2):
                assert outline(answers(client, closed(), prepared(text), ran(*values)))[2:] == ["1"]
                heard = outline(answers(other, prepared(text), ran(*values), closed()))
                assert heard == ["ParseComplete", "1", "CloseComplete"]
                switch.turn()
            answers(client, closed())
    postgres.execute("DROP TABLE t", database=shared_database)


def test_a_client_that_prepares_the_text_after_the_change_gets_rows_of_the_shape_that_it_is_told(
    data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """Bug 6: nobody can know of the change before PostgreSQL says so, but whoever tries again must succeed."""
    address = data_planes().address
    with Switch(address, shared_database) as switch, clients(address, shared_database) as (client, newcomer):
        for _ in range(2):
            postgres.execute(MADE, database=shared_database)
            assert outline(answers(client, prepared("TABLE t"), ran(), closed()))[1] == "1"
            postgres.execute(CHANGES["a column more"], database=shared_database)
            first = outline(answers(newcomer, prepared("TABLE t"), ran(), closed()))
            assert first[1] in ("1", "0A000")
            answered = answers(newcomer, prepared("TABLE t"), described(), ran(), closed())
            (columns,) = [message["columns"] for message in answered if message.name == "RowDescription"]
            assert isinstance(columns, tuple)
            assert len(columns) == len(row_values(answered)) == 3
            switch.turn()
    postgres.execute("DROP TABLE t", database=shared_database)


def test_the_types_that_a_client_knows_of_its_parameters_do_not_change(
    data_planes: DataPlanes, postgres: PostgresServer, shared_database: str
) -> None:
    """Bug 6: on another server connection PostgreSQL would infer another type, and read the bytes of a value by it."""
    script: Script = (MADE, prepared("SELECT a FROM t WHERE $1 = b"), described(), ran(b"x"))
    script += ("ALTER TABLE t ALTER b TYPE bytea USING b::bytea", ran(b"x"), ran(b"x"), "DROP TABLE t")
    assert_as_direct(script, data_planes().address, postgres, shared_database)


# -- names -------------------------------------------------------------------------------------------------------------

NUMBERS = range(1, 40)
MEDDLING: dict[str, list[bytes]] = {
    "Bind": [ran(name=b"pgpooler_%d" % number) for number in NUMBERS],
    "Describe": [described(b"pgpooler_%d" % number) for number in NUMBERS],
    "Close": [closed(b"pgpooler_%d" % number) for number in NUMBERS],
    "Parse": [prepared("SELECT 'meddled'", b"pgpooler_%d" % number) for number in NUMBERS],
    "EXECUTE": [query(f"EXECUTE pgpooler_{number}") for number in NUMBERS],
    "EXECUTE in series": [parse(f'EXECUTE "pgpooler_{number}"') + ran(name=b"") for number in NUMBERS],
    "EXPLAIN EXECUTE": [query(f"EXPLAIN ANALYZE EXECUTE pgpooler_{number}") for number in NUMBERS],
    "EXECUTE in disguise": [query(f"DO $$ BEGIN EXECUTE 'EXECUTE pgpooler_{number}'; END $$") for number in NUMBERS],
    "DEALLOCATE": [query(f"DEALLOCATE pgpooler_{number}") for number in NUMBERS],
    "DEALLOCATE in disguise": [
        query(f"DO $$BEGIN EXECUTE 'DEALLOCATE pgpooler_{number}'; END$$") for number in NUMBERS
    ],
    "DEALLOCATE ALL": [query("DEALLOCATE ALL")],
    "DEALLOCATE ALL in disguise": [query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")],
    "DISCARD ALL": [query("DISCARD ALL")],
    "names of the owner": [ran(), closed(), query("DEALLOCATE s"), query("EXECUTE s")],
}


@pytest.mark.parametrize("what", MEDDLING)
def test_nobody_reaches_the_statement_of_another_by_any_name(
    what: str, data_planes: DataPlanes, database: str, postgres: PostgresServer
) -> None:
    """W20, bugs 6 and 7: nor does what a stranger does to the names on the server disturb their owner."""
    postgres.execute("CREATE TABLE kept (x int)", database=database)
    address = data_planes().address
    owned = "INSERT INTO kept VALUES (1) RETURNING 'the owner'"
    with Switch(address, database) as switch, clients(address, database) as (owner, stranger):
        assert (
            outline(answers(owner, prepared(owned), ran(), query("EXECUTE s"))) == ["ParseComplete"] + ["the owner"] * 2
        )
        for number in range(1, 4):
            for request in MEDDLING[what]:
                assert "the owner" not in outline(answers(stranger, request))
            assert outline(answers(owner, ran())) == ["the owner"]
            assert postgres.execute("SELECT count(*) FROM kept", database=database) == [(2 + number,)]
            switch.turn()


def test_what_execute_made_known_by_its_name_is_nobody_elses(data_planes: DataPlanes, database: str) -> None:
    """Bugs 6 and 7."""
    address = data_planes().address
    with clients(address, database) as (owner, stranger):
        for _ in range(3):
            assert outline(answers(owner, prepared("SELECT 'the owner'"), query("EXECUTE s"))) == [
                "ParseComplete",
                "the owner",
            ]
            assert outline(answers(stranger, query("EXECUTE s"))) == ["26000"]
            assert outline(answers(stranger, query("DEALLOCATE s"))) == ["26000"]
            assert outline(answers(stranger, prepared("SELECT 'the stranger'"), ran())) == [
                "ParseComplete",
                "the stranger",
            ]
            assert outline(answers(stranger, query("EXECUTE s"), closed())) == ["the stranger", "CloseComplete"]
            assert outline(answers(owner, ran(), query("EXECUTE s"), closed())) == [
                "the owner",
                "the owner",
                "CloseComplete",
            ]
            assert outline(answers(owner, query("EXECUTE s"))) == ["26000"]


# -- many statements ---------------------------------------------------------------------------------------------------


def test_statements_beyond_the_limit_are_prepared_again_when_they_are_needed(
    data_planes: DataPlanes, database: str
) -> None:
    """Bug 6: an eviction within a pipeline, and between Parse and Bind."""
    names = [b"%d" % number for number in range(8)]
    parses = [parse(f"SELECT 'text {name.decode()}'", name=name) for name in names]
    address = data_planes(max_prepared_statements=LIMIT).address
    with Switch(address, database) as switch, clients(address, database, 1) as (client,):
        assert outline(answers(client, b"".join(parses) + SYNC)) == ["ParseComplete"] * len(names)
        for seed in range(20):
            order = random.Random(seed).choices(names, k=20)
            series = b"".join(called(name=name) for name in order)
            assert outline(answers(client, series + SYNC)) == [f"text {name.decode()}" for name in order]
            one = order[0]
            again = close(one) + parse("SELECT 'again'", name=one) + called(name=one) + close(one)
            heard = outline(answers(client, series + again + parses[int(one)] + SYNC, *map(described, order)))
            assert heard[20:] == ["CloseComplete", "ParseComplete", "again", "CloseComplete", "ParseComplete"]
            bad = series + called(b"a value too much", name=one) + again + parses[0]
            assert outline(answers(client, bad + SYNC))[-2:] == [f"text {order[-1].decode()}", "08P01"]
            if seed % 3 == 0:
                assert_in_order(client, switch, LIMIT)
            switch.turn()


NAMES = [b"", b"a", b"b", b"c", b"pgpooler_1"]
SHARED = "SELECT 'everybody', 1 / $1::int"


def batch(chance: random.Random, own: dict[bytes, str], whose: str) -> tuple[bytes, list[str]]:
    """Some requests up to Sync and what PostgreSQL says to them; `own` are the statements of this client."""
    requests, heard, failed = b"", [], False

    def say(request: bytes, answer: str) -> bool:
        """Add a request; return whether it is carried out and succeeds."""
        nonlocal requests, failed
        requests += request
        if failed:
            return False
        heard.append(answer)
        failed = len(answer) == len("26000")
        return not failed

    for _ in range(chance.randint(1, 7)):
        name = chance.choice(NAMES)
        match chance.choice(["Parse", "Close", "run", "run", "run"]):
            case "Parse":
                text = chance.choice([SHARED, f"SELECT '{whose} {chance.randint(1, 9)}', 1 / $1::int"])
                is_taken = name != b"" and name in own
                if say(parse(text, name=name), "42P05" if is_taken else "ParseComplete"):
                    own[name] = text
            case "Close":
                if say(close(name), "CloseComplete"):
                    own.pop(name, None)
            case _:
                value = chance.choice([b"1", b"1", b"1", b"0"])
                row = own.get(name, "'26000'").split("'")[1]
                say(called(value, name=name), row if value == b"1" or row == "26000" else "22012")
    return requests + SYNC, heard


@pytest.mark.parametrize("limit", [1, LIMIT, 200])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_clients_with_the_same_names_for_different_texts_each_meet_their_own(
    mode: str, limit: int, data_planes: DataPlanes, database: str
) -> None:
    """Bug 6, PgBouncer #1038, Odyssey #588, Supavisor #1174, #1175: in any order, at the same time, and evicted."""
    chance = random.Random(limit)
    address = data_planes(mode, max_prepared_statements=limit).address
    with Switch(address, database) as switch, clients(address, database, 6) as everybody:
        owned: list[dict[bytes, str]] = [{} for _ in everybody]
        for turn in range(25):
            awaited = []
            for number in chance.sample(range(len(everybody)), len(everybody)):
                for _ in range(chance.randint(1, 3)):
                    request, expected = batch(chance, owned[number], f"client {number}")
                    everybody[number].send(request)
                    awaited.append((number, expected))
            for number, expected in awaited:
                assert outline(everybody[number].until()) == expected, f"client {number} in turn {turn}"
            switch.turn()
        assert_in_order(everybody[0], switch, limit)


# -- large ones --------------------------------------------------------------------------------------------------------


def test_a_text_of_one_mebibyte_is_prepared_on_every_server_connection(
    data_planes: DataPlanes, shared_database: str
) -> None:
    """W10."""
    start, end = "SELECT length('", "'), $1::text"
    text = start + "x" * (2**20 - len(start + end)) + end
    address = data_planes().address
    with Switch(address, shared_database) as switch, clients(address, shared_database, 1) as (client,):
        answers(client, prepared(text), prepared(text, b""))
        for name in (b"s", b"", b"s", b""):
            switch.turn()
            assert row_values(answers(client, ran(b"value", name=name))) == [str(text.count("x") - 1), "value"]


def test_a_bind_of_twenty_mebibytes_reaches_its_statement(data_planes: DataPlanes, shared_database: str) -> None:
    """W10, and bug 12."""
    large = b"y" * (20 * 2**20)
    address = data_planes().address
    with Switch(address, shared_database) as switch, clients(address, shared_database, 1) as (client,):
        answers(client, prepared("SELECT length($1), right($1, 3)"))
        for _ in range(3):
            switch.turn()
            assert row_values(answers(client, ran(large), ran(b"small"))) == [str(len(large)), "yyy", "5", "all"]
