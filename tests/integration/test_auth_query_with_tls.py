"""Users looked up on servers that demand TLS: the client binds its channel, and its proof binds that to the server."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgpooler.demo.local import LocalServer
from tests.certificates import Authority
from tests.integration.poolers import Pooler, PoolerFactory

PASSWORD = "open sesame"
WRONG = "Open sesame"
NUMBERS = itertools.count(1)
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
ASKERS = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'pgpooler auth_query'"


@pytest.fixture
def role(tls_server: LocalServer) -> Iterator[str]:
    """A role that comes in with TLS alone."""
    name = f"looked_up_{next(NUMBERS)}"
    tls_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield name
    tls_server.execute(f"DROP ROLE {name}")


def configuration(server: LocalServer, authority: Authority, **backend: Any) -> dict[str, Any]:
    ours = authority.certify("pooler", hosts=("localhost",))
    return {
        "tls": {"mode": "require", "cert": str(ours.cert), "key": str(ours.key)},
        "backends": [{"name": "primary", "host": "localhost", "port": server.port, **backend}],
        "auth": {
            "auth_user": "only_tls",
            "auth_password": "secret",
            "auth_query": "SELECT * FROM public.secret_of($1)",
        },
        "routing": {"defaults": {"pool_mode": "transaction", "pool_size": 2}},
    }


@contextlib.contextmanager
def asked_by_function(server: LocalServer) -> Iterator[None]:
    """A function for one who may log in with TLS alone."""
    server.execute(
        "CREATE FUNCTION public.secret_of(text) RETURNS TABLE (rolname name, rolpassword text) LANGUAGE sql "
        "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
        "$$ SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND rolcanlogin $$"
    )
    try:
        yield
    finally:
        server.execute("DROP FUNCTION public.secret_of(text)")


def connect(pooler: Pooler, role: str, password: str, authority: Authority) -> psycopg.Connection[Any]:
    return pooler.connect(
        user=role,
        password=password,
        host="localhost",
        sslmode="verify-full",
        sslrootcert=str(authority.file),
        channel_binding="require",
    )


@pytest.mark.parametrize(
    "backend",
    [
        {"tls": {"mode": "verify-full"}, "channel_binding": "require"},
        {"tls": {"mode": "prefer"}},
        {"tls": {"mode": "allow"}},
        {"tls": {"mode": "require"}, "max_protocol_version": "3.2"},
    ],
    ids=lambda backend: backend["tls"]["mode"],
)
def test_a_proof_that_binds_the_channel_logs_in_to_a_server_that_demands_tls(
    tls_server: LocalServer, authority: Authority, pooler: PoolerFactory, role: str, backend: dict[str, Any]
) -> None:
    mode = backend["tls"]["mode"]
    tls = {"mode": mode, "ca": str(authority.file)} if mode.startswith("verify") else {"mode": mode}
    with asked_by_function(tls_server):
        started = pooler(configuration(tls_server, authority, **{**backend, "tls": tls}))
        for _ in range(2):
            with connect(started, role, PASSWORD, authority) as connection:
                row = connection.execute("SELECT current_user::text, (" + ENCRYPTED + ")").fetchone()
                assert row == (role, mode != "allow")
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                connect(started, role, WRONG, authority)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                connect(started, "nobody", PASSWORD, authority)
        assert {row[0] for row in tls_server.execute(ASKERS)} == {True}
        assert started.stop() == 0
