"""TLS towards servers: what PgPooler tries and whom it trusts is what libpq tries and whom it trusts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgpooler.demo import postgres as providers
from pgpooler.demo.local import LocalServer
from pgpooler.demo.postgres import PostgresServer
from spec.messages import Sender
from tests.certificates import Authority, Certificate
from tests.integration import tls_servers
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.poolers import PoolerFactory
from tests.integration.recorder import Recorder
from tests.integration.wire import SSL_REQUEST

NOWHERE = "/nonexistent"
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
USERS = ("postgres", "only_tls", "only_plain", "by_certificate")
HOSTS = ("localhost", "127.0.0.1")  # the certificate is made out to the first
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
SLEEP = "SELECT pg_sleep(600)"


@pytest.fixture(scope="session")
def server_without_tls() -> Iterator[PostgresServer]:
    """A server that answers the request for TLS with N."""
    with providers.choose(providers.EMBEDDED).start(password="postgres") as server:
        for user in tls_servers.USERS:
            server.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{tls_servers.PASSWORD}'")
        yield server


def outcome(connect: Callable[[], psycopg.Connection[Any]]) -> str:
    """Whether the server lets in, and how."""
    try:
        with connect() as connection:
            row = connection.execute(ENCRYPTED).fetchone()
            return "encrypted" if row and row[0] else "in clear text"
    except psycopg.OperationalError:
        return "refused"


def password_of(user: str) -> str:
    return tls_servers.PASSWORD if user in tls_servers.USERS else "postgres"


def compare(
    server: PostgresServer, data_plane: DataPlaneFactory, authority: Authority, *, hosts: tuple[str, ...]
) -> set[str]:
    """Connect in every way, by libpq and by PgPooler, which must agree; return what came of it.

    Each way is a backend of its own, which is reached by a user called like its number.
    """
    stranger = Authority(authority.folder, "stranger")
    own = authority.certify("by_certificate", hosts=())
    ways = list(itertools.product(MODES, USERS, hosts, (authority.file, stranger.file), (None, own)))
    backends, rules = [], []
    for number, (mode, user, host, ca, shown) in enumerate(ways):
        tls = {"mode": mode, "ca": str(ca), **(shown.keys if shown else {})}
        backend = {"name": f"way{number}", "host": host, "port": server.port, "tls": tls}
        backends.append(backend | {"user": user, "password": password_of(user)})
        rules.append({"user": f"user{number}", "backend": f"way{number}"})
    configured = {"backends": backends, "routing": {"rules": rules}, "auth": {"method": "trust"}}
    in_front = data_plane(configured)
    different, seen = {}, set()
    for number, (mode, user, host, ca, shown) in enumerate(ways):
        expected = outcome(lambda: by_libpq(server, mode, user, host, ca, shown))  # noqa: B023
        found = outcome(lambda: by_pooler(in_front, f"user{number}"))  # noqa: B023
        seen.add(expected)
        if found != expected:
            different[mode, user, host, ca.name, bool(shown)] = (expected, found)
    assert different == {}
    return seen


def by_libpq(
    server: PostgresServer, mode: str, user: str, host: str, ca: Path, shown: Certificate | None
) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=host,
        hostaddr="127.0.0.1",
        port=server.port,
        user=user,
        password=password_of(user),
        dbname="postgres",
        sslmode=mode,
        # With a root certificate, require would be as strict as verify-ca.
        sslrootcert=str(ca) if mode.startswith("verify") else NOWHERE,
        sslcert=str(shown.cert) if shown else NOWHERE,
        sslkey=str(shown.key) if shown else NOWHERE,
        gssencmode="disable",
    )


def by_pooler(in_front: RunningDataPlane, user: str) -> psycopg.Connection[Any]:
    return psycopg.connect(host="127.0.0.1", port=in_front.port, user=user, dbname="postgres", sslmode="disable")


def test_a_server_with_tls_is_entered_where_and_as_libpq_enters_it(
    tls_server: LocalServer, data_plane: DataPlaneFactory, authority: Authority
) -> None:
    seen = compare(tls_server, data_plane, authority, hosts=HOSTS)
    assert seen == {"encrypted", "in clear text", "refused"}


def test_a_server_without_tls_is_entered_where_libpq_enters_it(
    server_without_tls: PostgresServer, data_plane: DataPlaneFactory, authority: Authority
) -> None:
    seen = compare(server_without_tls, data_plane, authority, hosts=HOSTS[:1])
    assert seen == {"in clear text", "refused"}


REASONS = {
    "the certificate is not trusted": (
        {"mode": "verify-ca", "ca": "stranger"},
        "localhost",
        "self-signed certificate in certificate chain",
    ),
    "another name": ({"mode": "verify-full", "ca": "authority"}, "127.0.0.1", "not valid for '127.0.0.1'"),
    "not trusted by the system": ({"mode": "verify-full"}, "localhost", "self-signed certificate in certificate chain"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_why_a_server_is_not_trusted_is_said(
    reason: str, tls_server: LocalServer, data_plane: DataPlaneFactory, authority: Authority
) -> None:
    tls, host, words = REASONS[reason]
    stranger = Authority(authority.folder, "stranger")
    files = {"authority": str(authority.file), "stranger": str(stranger.file)}
    tls = {name: files.get(value, value) for name, value in tls.items()}
    in_front = data_plane(one_backend(tls_server, tls, host=host))
    with pytest.raises(psycopg.OperationalError, match=words):
        by_pooler(in_front, "alice")


def one_backend(server: LocalServer, tls: dict[str, str], *, user: str = "postgres", **keys: Any) -> dict[str, Any]:
    backend = {"name": "primary", "host": "localhost", "port": server.port, "tls": tls, **keys}
    login = {"user": user, "password": password_of(user)}
    return {"backends": [backend | login], "auth": {"method": "trust"}}


def test_a_server_that_does_not_offer_tls_is_refused_where_it_must(
    server_without_tls: PostgresServer, data_plane: DataPlaneFactory
) -> None:
    assert isinstance(server_without_tls, LocalServer)
    in_front = data_plane(one_backend(server_without_tls, {"mode": "require"}))
    with pytest.raises(psycopg.OperationalError, match="does not offer TLS, which mode require demands"):
        by_pooler(in_front, "alice")


def test_a_wrong_password_is_not_tried_again_in_clear_text(
    tls_server: LocalServer, data_plane: DataPlaneFactory
) -> None:
    """libpq does so in mode prefer; a pooler would then send it again and again."""
    recorder = Recorder(tls_server)
    wrong = one_backend(tls_server, {"mode": "prefer"}, port=recorder.port, host="127.0.0.1")
    wrong["backends"][0]["password"] = "wrong"
    in_front = data_plane(wrong)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        by_pooler(in_front, "alice")
    recorder.listening.close()
    assert len(recorder.connections) == 1


def test_a_cancel_request_goes_the_way_its_connection_went(
    tls_server: LocalServer, data_plane: DataPlaneFactory
) -> None:
    """In clear text its key would be known to whoever listens (CVE-2016-2193 is what one can do with it)."""
    recorder = Recorder(tls_server)
    in_front = data_plane(one_backend(tls_server, {"mode": "require"}, port=recorder.port, host="127.0.0.1"))
    with by_pooler(in_front, "alice") as connection:
        errors: list[str | None] = []

        def sleep() -> None:
            try:
                connection.execute(SLEEP)
            except psycopg.errors.QueryCanceled as error:
                errors.append(error.sqlstate)

        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        while sleeper.is_alive():
            connection.cancel_safe()
            sleeper.join(0.05)
        assert errors == ["57014"]
    in_front.wait_until_unused()
    assert len(recorder.connections) >= 2
    for record in list(recorder.connections):
        sent = b"".join(data for sender, data in record if sender is Sender.FRONTEND)
        assert sent.startswith(SSL_REQUEST + b"\x16\x03"), "a handshake, and nothing else"
    recorder.listening.close()


def test_a_statement_runs_on_over_tls_in_transaction_mode(
    tls_server: LocalServer, data_plane: DataPlaneFactory, authority: Authority
) -> None:
    tls = {"mode": "verify-full", "ca": str(authority.file)}
    configured = one_backend(tls_server, tls) | {"routing": {"defaults": {"pool_mode": "transaction", "pool_size": 2}}}
    in_front = data_plane(configured)
    connections = [by_pooler(in_front, "alice") for _ in range(6)]
    try:
        for number in range(120):
            connection = connections[number % 6]
            assert connection.execute("SELECT repeat(%s, %s)", ("x", number * 500)).fetchone() == ("x" * number * 500,)
            connection.commit()
    finally:
        for connection in connections:
            connection.close()
    assert in_front.idle() <= 2


def test_a_server_that_dies_within_tls_is_noticed(
    tls_server: LocalServer, data_plane: DataPlaneFactory, authority: Authority
) -> None:
    in_front = data_plane(one_backend(tls_server, {"mode": "require"}))
    with by_pooler(in_front, "alice") as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        tls_server.execute(f"SELECT pg_terminate_backend({row[0]})")
        with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
            connection.execute("SELECT 1")
    with by_pooler(in_front, "alice") as connection:
        assert connection.execute(ENCRYPTED).fetchone() == (True,)


# -- reload ------------------------------------------------------------------------------------------------------------


def test_a_backend_is_encrypted_after_a_reload_and_nobody_is_dropped(
    tls_server: LocalServer, pooler: PoolerFactory, authority: Authority
) -> None:
    running = pooler(one_backend(tls_server, {"mode": "disable"}))
    with running.connect(user="alice") as before:
        assert before.execute(ENCRYPTED).fetchone() == (False,)
        running.write(one_backend(tls_server, {"mode": "verify-full", "ca": str(authority.file)}))
        running.reload()
        wait_until(lambda: "the configuration is reloaded" in running.log_text())
        with running.connect(user="alice") as after:
            assert after.execute(ENCRYPTED).fetchone() == (True,)
        assert before.execute(ENCRYPTED).fetchone() == (False,), "its own connection is kept as long as it stays"
        running.write(one_backend(tls_server, {"mode": "verify-full", "ca": NOWHERE}))
        running.reload()
        wait_until(lambda: "the configuration is not reloaded" in running.log_text())
        assert f"the authorities cannot be read: {NOWHERE}: No such file or directory" in running.log_text()
        with running.connect(user="alice") as after:
            assert after.execute(ENCRYPTED).fetchone() == (True,)
