"""SCRAM-SHA-256-PLUS between libpq, PgPooler and PostgreSQL, and with somebody between them who ends TLS."""

from __future__ import annotations

import contextlib
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.dbapi
import psycopg
import pytest
from cryptography.hazmat.primitives import hashes

from pgpooler.demo.postgres import PostgresServer
from pgpooler.protocol.passwords import make_verifier
from tests.certificates import Authority, Certificate
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.interceptor import Interceptor, unchanged, without_plus
from tests.integration.poolers import PoolerFactory
from tests.integration.wire import Address

SIGNATURES: dict[str, dict[str, Any]] = {
    "ECDSA with SHA-256": {},
    "ECDSA with SHA-384": {"algorithm": hashes.SHA384()},
    "RSA with SHA-512": {"key": "rsa", "algorithm": hashes.SHA512()},
    "RSASSA-PSS with SHA-384": {"key": "rsa", "algorithm": hashes.SHA384(), "pss": True},
    "Ed25519": {"key": "ed25519", "algorithm": None},
}
CHECK_FAILED = "SCRAM channel binding check failed"
NEGOTIATION_ERROR = "SCRAM channel binding negotiation error"


@dataclass(frozen=True)
class Door:
    """Where one may log in, and as whom."""

    address: Address
    user: str
    password: str

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        host, port = self.address
        return psycopg.connect(
            host=host,
            port=port,
            user=self.user,
            password=self.password,
            dbname="postgres",
            **parameters,
        )


def select_1(door: Door, **parameters: Any) -> str:
    """What becomes of a login and a query: nothing, or the error."""
    try:
        with door.connect(**parameters) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error as error:
        return str(error)
    return ""


Start = Callable[..., Door]


@pytest.fixture
def start(tls_server: PostgresServer, authority: Authority, data_plane: DataPlaneFactory) -> Start:
    """Start PgPooler before a server with TLS: `start(certificate)` towards clients, `backend` what is set on it."""

    def start_one(certificate: Certificate | None = None, port: int = 0, **backend: Any) -> Door:
        address = {"host": "127.0.0.1", "port": port or tls_server.port}
        users = {tls_server.superuser: {"password": tls_server.password}}
        configuration: dict[str, Any] = {
            "backends": [{"name": "primary", **address, "tls": {"mode": "require"}, **backend}],
            "auth": {"users": users},
        }
        if certificate is not None:
            configuration["tls"] = {"mode": "allow", **certificate.keys}
        return Door(data_plane(configuration).address, tls_server.superuser, tls_server.password)

    return start_one


@pytest.fixture
def of_stranger(tmp_path: Path) -> Certificate:
    """What somebody in between shows."""
    return Authority(tmp_path, "stranger").certify("whoever")


# -- towards clients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("channel_binding", ["disable", "prefer", "require"])
def test_libpq_binds_to_the_certificate_that_pgpooler_shows(
    signature: str, channel_binding: str, start: Start, tmp_path: Path
) -> None:
    shown = Authority(tmp_path, **SIGNATURES[signature]).certify("pooler")
    failure = select_1(start(shown), sslmode="require", channel_binding=channel_binding)
    if signature == "Ed25519" and channel_binding == "require":
        assert "channel binding is required, but server did not offer" in failure
    else:
        assert failure == ""


def test_without_tls_libpq_logs_in_unless_it_requires_channel_binding(start: Start, authority: Authority) -> None:
    door = start(authority.certify("pooler"))
    assert select_1(door, sslmode="disable") == ""
    assert "channel binding" in select_1(door, sslmode="disable", channel_binding="require")


def test_pg8000_which_has_a_scram_of_its_own_binds_too(start: Start, authority: Authority) -> None:
    door = start(authority.certify("pooler"))
    context = ssl.create_default_context(cafile=str(authority.file))
    host, port = door.address
    connection = pg8000.dbapi.connect(door.user, host, "postgres", port, door.password, ssl_context=context)
    with contextlib.closing(connection):
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        assert list(cursor.fetchone()) == [1]


@pytest.mark.parametrize("channel_binding", ["prefer", "require"])
def test_whoever_ends_the_clients_tls_is_found_out_by_pgpooler(
    channel_binding: str, start: Start, authority: Authority, of_stranger: Certificate
) -> None:
    door = start(authority.certify("pooler"))
    with Interceptor(door.address, of_stranger) as between:
        through = Door(between.address, door.user, door.password)
        assert CHECK_FAILED in select_1(through, sslmode="require", channel_binding=channel_binding)
        assert select_1(through, sslmode="require", channel_binding="disable") == ""  # nobody notices
    assert select_1(door, sslmode="require", channel_binding="require") == ""


def test_whoever_takes_the_offer_of_plus_away_is_found_out_by_pgpooler(
    start: Start, authority: Authority, of_stranger: Certificate
) -> None:
    door = start(authority.certify("pooler"))
    with Interceptor(door.address, of_stranger, change=without_plus) as between:
        through = Door(between.address, door.user, door.password)
        assert NEGOTIATION_ERROR in select_1(through, sslmode="require")


def test_while_certificates_are_exchanged_everybody_binds_to_the_one_that_was_shown(
    tls_server: PostgresServer, pooler: PoolerFactory, tmp_path: Path
) -> None:
    """The certificate and its digest change together: nobody is shown the one and bound to the other."""
    kinds = {"ecdsa": hashes.SHA256(), "rsa": hashes.SHA384()}
    made = [Authority(tmp_path, kind, key=kind, algorithm=kinds[kind]).certify("one", file=kind) for kind in kinds]
    used = Certificate(tmp_path / "used.crt", tmp_path / "used.key")

    def use(certificate: Certificate) -> None:
        used.cert.write_bytes(certificate.cert.read_bytes())
        used.key.write_bytes(certificate.key.read_bytes())

    use(made[0])
    running = pooler(
        {
            "backends": [{"name": "primary", "host": tls_server.host, "port": tls_server.port}],
            "auth": {"users": {tls_server.superuser: {"password": tls_server.password}}},
            "tls": {"mode": "require", **used.keys},
        }
    )
    door = Door(("127.0.0.1", running.port), tls_server.superuser, tls_server.password)
    over = threading.Event()
    failures: list[str] = []

    def crowd() -> None:
        while not over.is_set():
            failures.append(select_1(door, channel_binding="require"))

    def reloads() -> int:
        return running.log_text().count("the configuration is reloaded")

    with contextlib.ExitStack() as stack:
        for _ in range(2):
            thread = threading.Thread(target=crowd)
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        for turn in range(1, 9):
            use(made[turn % 2])
            running.reload()
            wait_until(lambda turn=turn: reloads() == turn)  # type: ignore[misc]
            enough = len(failures) + 3  # so one login at least has begun since
            wait_until(lambda enough=enough: len(failures) >= enough)  # type: ignore[misc]
    assert set(failures) == {""}


# -- towards servers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel_binding", ["disable", "prefer", "require"])
@pytest.mark.parametrize("maximum", ["3.0", "3.2"])
def test_pgpooler_binds_to_the_certificate_that_postgresql_shows(
    channel_binding: str, maximum: str, start: Start, authority: Authority
) -> None:
    tls = {"mode": "verify-full", "ca": str(authority.file)}
    door = start(host="localhost", channel_binding=channel_binding, tls=tls, max_protocol_version=maximum)
    assert select_1(door) == ""


def test_without_tls_pgpooler_logs_in_unless_it_must_bind(start: Start) -> None:
    assert select_1(start(tls={"mode": "disable"})) == ""
    failure = select_1(start(tls={"mode": "allow"}, channel_binding="require"))
    assert "channel binding is required, but the connection is not encrypted" in failure
    assert "Backend primary (127.0.0.1:" in failure


INTERCEPTED = [
    ("disable", True, unchanged, ""),
    ("prefer", True, unchanged, CHECK_FAILED),
    ("require", True, unchanged, CHECK_FAILED),
    ("disable", True, without_plus, ""),
    ("prefer", True, without_plus, NEGOTIATION_ERROR),
    ("require", True, without_plus, "channel binding is required, but the server does not ask for SCRAM-SHA-256-PLUS"),
    ("disable", False, unchanged, ""),
    ("prefer", False, unchanged, ""),  # as with libpq: to the server the connection is a plain one, and was always
    ("require", False, unchanged, "channel binding is required, but the server does not ask for SCRAM-SHA-256-PLUS"),
]


@pytest.mark.parametrize(("channel_binding", "encrypts", "change", "complaint"), INTERCEPTED)
def test_whoever_ends_the_servers_tls_is_found_out_as_libpq_would_find_him_out(
    channel_binding: str,
    encrypts: bool,
    change: Callable[[bytes], bytes],
    complaint: str,
    start: Start,
    tls_server: PostgresServer,
    of_stranger: Certificate,
) -> None:
    target = (tls_server.host, tls_server.port)
    with Interceptor(target, of_stranger, encrypts=encrypts, change=change) as between:
        door = start(port=between.address[1], channel_binding=channel_binding, server_idle_timeout=0.01)
        failure = select_1(door)
        direct = Door(between.address, tls_server.superuser, tls_server.password)
        of_libpq = select_1(direct, sslmode="require", channel_binding=channel_binding)
    assert bool(of_libpq) == bool(failure) == bool(complaint)
    assert complaint in failure


# -- both ways at once -------------------------------------------------------------------------------------------------


@pytest.fixture
def role(tls_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """A user and the verifier that the server has of the password `secret`."""
    name = f"bound_{uuid.uuid4().hex}"
    verifier = make_verifier(b"secret").text()
    tls_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{verifier}'")
    yield name, verifier
    tls_server.execute(f"DROP ROLE {name}")


def test_what_a_client_proved_with_channel_binding_logs_in_to_the_server_with_channel_binding(
    role: tuple[str, str], tls_server: PostgresServer, authority: Authority, data_plane: DataPlaneFactory
) -> None:
    """PgPooler knows the verifier alone: each login is bound to the certificate of its own connection."""
    name, verifier = role
    address = {"host": "127.0.0.1", "port": tls_server.port}
    started: RunningDataPlane = data_plane(
        {
            "backends": [{"name": "primary", **address, "tls": {"mode": "require"}, "channel_binding": "require"}],
            "auth": {"users": {name: {"password": verifier}}},
            "tls": {"mode": "require", **authority.certify("pooler").keys},
        }
    )
    assert select_1(Door(started.address, name, "secret"), channel_binding="require") == ""
    assert "password authentication failed" in select_1(Door(started.address, name, "wrong"), channel_binding="require")
