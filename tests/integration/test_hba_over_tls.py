"""HBA files over TLS: with the same file, PgPooler lets in whom PostgreSQL lets in, by whatever certificate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.x509.oid import NameOID

from pgpooler.demo.local import LocalServer
from tests.certificates import Authority, Certificate
from tests.integration import tls_servers
from tests.integration.data_planes import DataPlaneFactory

MAPPED = ("mapped", "by_subject", "one_of_them")
ENTRIES = (
    *tls_servers.DOORS,
    "hostssl all mapped      127.0.0.1/32 cert map=certs",
    "hostssl all by_subject  127.0.0.1/32 cert clientname=DN map=subjects",
    "hostssl all one_of_them 127.0.0.1/32 scram-sha-256 clientcert=verify-full clientname=CN",
    "host    all postgres    127.0.0.1/32 scram-sha-256",
    "host    all all         127.0.0.1/32 reject",
)
MAPS = r"""
certs     /^(.*)@shop$              \1
certs     alice                     mapped
subjects  "/^CN=alice,O=Shop$"      by_subject
"""
NOWHERE = "/nonexistent"


@pytest.fixture
def server(tls_server: LocalServer) -> Iterator[LocalServer]:
    """The server, with more entries and users for a while."""
    assert tls_server.data_directory is not None
    maps = tls_server.data_directory / "pg_ident.conf"
    before = maps.read_text(encoding="utf-8")
    maps.write_text(MAPS, encoding="utf-8")
    tls_server.execute(*(f"CREATE ROLE {user} LOGIN PASSWORD '{tls_servers.PASSWORD}'" for user in MAPPED))
    tls_server.set_authentication(*ENTRIES)
    try:
        yield tls_server
    finally:
        maps.write_text(before, encoding="utf-8")
        tls_server.set_authentication(*tls_servers.DOORS)
        tls_server.execute(*(f"DROP ROLE {user}" for user in MAPPED))


def outcome(port: int, user: str, password: str, mode: str, certificate: Certificate | None) -> str:
    """Whether libpq comes in, and how."""
    cert, key = (certificate.cert, certificate.key) if certificate else (NOWHERE, NOWHERE)
    parameters: dict[str, Any] = {"sslmode": mode, "sslcert": str(cert), "sslkey": str(key), "gssencmode": "disable"}
    where = {"host": "127.0.0.1", "port": port, "dbname": "postgres"}
    try:
        with psycopg.connect(**where, user=user, password=password, **parameters) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            return "encrypted" if connection.pgconn.ssl_in_use else "in clear text"
    except psycopg.OperationalError:
        return "refused"


def test_with_the_same_file_the_same_clients_come_in(
    server: LocalServer, data_plane: DataPlaneFactory, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "pg_hba.conf").write_text("\n".join(ENTRIES), encoding="utf-8")
    (tmp_path / "pg_ident.conf").write_text(MAPS, encoding="utf-8")
    users = (*tls_servers.USERS, *MAPPED, server.superuser)
    passwords = dict.fromkeys(users, tls_servers.PASSWORD) | {server.superuser: server.password}
    shown = authority.certify("pooler", hosts=("localhost",))
    login = {"user": server.superuser, "password": server.password}
    in_front = data_plane(
        {
            "backends": [{"name": "primary", "host": server.host, "port": server.port, **login}],
            "auth": {
                "hba_file": "pg_hba.conf",
                "ident_file": "pg_ident.conf",
                "users": {user: {"password": password} for user, password in passwords.items()},
            },
            "tls": {**shown.keys, "ca": str(authority.file)},
        }
    )
    organization = ((NameOID.ORGANIZATION_NAME, "Shop"),)
    common = {
        "none": None,
        "alice": authority.certify("alice", hosts=()),
        "alice of the shop": authority.certify("alice", hosts=(), more=organization, file="alice-of-the-shop"),
        "forged": Authority(authority.folder, "forger").certify("alice", hosts=(), file="forged-alice"),
    }
    different, seen = {}, set()
    for user, mode in itertools.product(users, ("disable", "prefer", "require")):
        own = {
            "own": authority.certify(user, hosts=(), file=f"own-{user}"),
            "at the shop": authority.certify(f"{user}@shop", hosts=(), file=f"shop-{user}"),
        }
        for (name, certificate), right in itertools.product({**common, **own}.items(), (True, False)):
            password = passwords[user] if right else "wrong"
            expected = outcome(server.port, user, password, mode, certificate)
            found = outcome(in_front.port, user, password, mode, certificate)
            seen.add((user, expected))
            if expected != found:
                different[user, mode, name, right] = (expected, found)
    assert different == {}
    assert {user for user, expected in seen if expected != "refused"} == set(users), "each comes in somehow"
    assert {user for user, expected in seen if expected == "refused"} == set(users), "and not in every way"
