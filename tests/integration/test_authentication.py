"""How clients of a real PgPooler prove who they are: every method, every kind of secret, every way to fail."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgpooler.demo.postgres import PostgresServer
from pgpooler.protocol.passwords import make_verifier, md5_digest
from tests.integration.clients import value
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.poolers import PoolerFactory, PoolerFailed

USER = "reader"
PASSWORD = "the reader's"
SECRETS = {
    "cleartext": PASSWORD,
    "digest": "md5" + md5_digest(PASSWORD.encode(), USER).digest,
    "verifier": make_verifier(PASSWORD.encode(), iterations=4096).text(),
}
METHODS = {"scram-sha-256": "scram-sha-256", "md5": "md5", "plain": "password"}
"""The methods, and what an HBA file calls them."""
HOUR = "1h"
"""A window that no test outlasts."""


def configuration(postgres: PostgresServer, secret: str = PASSWORD, **auth: Any) -> dict[str, Any]:
    """A configuration whose backend has a user of its own, so that it does not matter how the client's is known."""
    login = {"user": postgres.superuser, "password": postgres.password}
    users = {USER: {"password": secret}, "other": {"password": secret}}
    return {
        "backends": [{"name": "primary", "host": postgres.host, "port": postgres.port, **login}],
        "auth": {"users": users, **auth},
    }


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def connect(where: RunningDataPlane, user: str, password: str | None, **parameters: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        **{
            "host": "127.0.0.1",
            "port": where.port,
            "dbname": "postgres",
            "user": user,
            "password": password,
            "sslmode": "disable",
            "gssencmode": "disable",
            **parameters,
        }
    )


def refusal(where: RunningDataPlane, user: str, password: str | None, **parameters: str) -> str:
    """What libpq says of a login that fails."""
    with pytest.raises(psycopg.OperationalError) as raised:
        connect(where, user, password, **parameters)
    return str(raised.value)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("by_file", [False, True], ids=["method", "hba_file"])
@pytest.mark.parametrize("method", METHODS)
def test_the_right_password_lets_in_and_everything_else_is_refused_alike(
    data_plane: DataPlaneFactory, postgres: PostgresServer, tmp_path: Path, method: str, by_file: bool, secret: str
) -> None:
    (tmp_path / "pg_hba.conf").write_text(f"host all all 127.0.0.0/8 {METHODS[method]}\n", encoding="utf-8")
    auth = {"hba_file": "pg_hba.conf"} if by_file else {"method": method}
    running = data_plane(configuration(postgres, SECRETS[secret], **auth))
    provable = (method, secret) != ("scram-sha-256", "digest")
    if provable:
        with connect(running, USER, PASSWORD) as connection:
            assert value(connection, "SELECT current_user") == postgres.superuser
    answers = {
        refusal(running, USER, "wrong"),
        refusal(running, USER, SECRETS["verifier"]),
        refusal(running, "stranger", "wrong").replace("stranger", USER),
        refusal(running, "stranger", PASSWORD).replace("stranger", USER),
    }
    if not provable:
        answers.add(refusal(running, USER, PASSWORD))
    (answer,) = answers
    assert f'FATAL:  password authentication failed for user "{USER}"' in answer


@pytest.mark.parametrize("method", METHODS)
def test_a_driver_that_insists_on_another_method_is_not_talked_into_a_weaker_one(
    data_plane: DataPlaneFactory, postgres: PostgresServer, method: str
) -> None:
    running = data_plane(configuration(postgres, method=method))
    name = METHODS[method]
    with connect(running, USER, PASSWORD, require_auth=name) as connection:
        assert value(connection, "SELECT 1") == 1
    assert "authentication method requirement" in refusal(running, USER, PASSWORD, require_auth=f"!{name}")


def test_the_first_entry_that_fits_decides_for_each_user_and_database(
    data_plane: DataPlaneFactory, postgres: PostgresServer, tmp_path: Path
) -> None:
    entries = f"""
host postgres  {USER}     127.0.0.1/32 scram-sha-256   # the first that fits
host postgres  {USER}     all          trust
host postgres  /^oth      127.0.0.0/8  trust
host template1 all        all          reject
host all       "stranger" 10.0.0.0/8   trust
"""
    (tmp_path / "pg_hba.conf").write_text(entries, encoding="utf-8")
    running = data_plane(configuration(postgres, hba_file="pg_hba.conf"))
    for user, password in ((USER, PASSWORD), ("other", None)):
        with connect(running, user, password) as connection:
            assert value(connection, "SELECT current_user") == postgres.superuser
    assert "password authentication failed" in refusal(running, USER, "wrong")
    from_here = 'host "127.0.0.1", user "{}", database "{}", no encryption'.format
    rejected = "FATAL:  hba_file rejects connection for " + from_here(USER, "template1")
    assert rejected in refusal(running, USER, PASSWORD, dbname="template1")
    for user in ("stranger", "unknown"):
        assert "FATAL:  no hba_file entry for " + from_here(user, "postgres") in refusal(running, user, PASSWORD)


def test_the_user_of_the_system_gets_in_over_a_unix_socket_without_a_password(
    pooler: PoolerFactory, postgres: PostgresServer, socket_directory: Path
) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    auth = configuration(postgres, hba_file="pg_hba.conf", ident_file="pg_ident.conf")
    auth["auth"]["users"][me] = {}
    files = {
        "pg_hba.conf": f"local all {me} peer\nlocal all all peer map=m\nhost all all all reject\n",
        "pg_ident.conf": f"m {me} {USER}\nm somebody other\n",
    }
    running = pooler({**auth, "listen": {"unix_socket_dir": str(socket_directory)}}, files=files)
    for user in (me, USER):
        with running.connect(host=str(socket_directory), user=user, password=None) as connection:
            assert value(connection, "SELECT 6 * 7") == 42
    with pytest.raises(psycopg.OperationalError, match='Peer authentication failed for user "other"'):
        running.connect(host=str(socket_directory), user="other", password=PASSWORD)
    with pytest.raises(psycopg.OperationalError, match="hba_file rejects connection for host"):
        running.connect(user=USER, password=PASSWORD)


def test_a_reload_takes_the_file_anew_or_says_what_is_wrong_with_it_and_changes_nothing(
    pooler: PoolerFactory, postgres: PostgresServer
) -> None:
    first = "host all all 127.0.0.0/8 scram-sha-256\n"
    running = pooler(configuration(postgres, hba_file="pg_hba.conf"), files={"pg_hba.conf": first})
    file = running.directory / "pg_hba.conf"

    def reload(text: str, answer: str) -> str:
        file.write_text(text, encoding="utf-8")
        seen = running.log_text().count(answer)
        running.reload()
        wait_until(lambda: running.log_text().count(answer) > seen)
        return running.log_text()

    with running.connect(user=USER, password=PASSWORD) as client:
        log = reload(first + "host all all 127.0.0.0/8 scram\n", "the configuration is not reloaded (1 error)")
        assert f"{file}:2:26: bad method: expected one of" in log
        with running.connect(user=USER, password=PASSWORD) as connection:
            assert value(connection, "SELECT 1") == 1
        log = reload(f"host all {USER} all reject\n" + first, "the configuration is reloaded; 1 change")
        assert f"configuration: auth.hba_file[1]: host all {USER} all reject (new)" in log
        with pytest.raises(psycopg.OperationalError, match="hba_file rejects connection"):
            running.connect(user=USER, password=PASSWORD)
        with running.connect(user="other", password=PASSWORD) as connection:
            assert value(connection, "SELECT 1") == 1
        assert value(client, "SELECT 1") == 1


@pytest.mark.parametrize("method", METHODS)
def test_after_too_many_failed_logins_nobody_may_try_again_and_a_success_forgets_them(
    data_plane: DataPlaneFactory, postgres: PostgresServer, method: str
) -> None:
    running = data_plane(configuration(postgres, method=method, failed_logins_limit=3, failed_logins_window=HOUR))
    for _ in range(2):
        assert "password authentication failed" in refusal(running, USER, "wrong")
    with connect(running, USER, PASSWORD) as connection:
        assert value(connection, "SELECT 1") == 1
    for user in (USER, "stranger"):
        for _ in range(3):
            assert "password authentication failed" in refusal(running, user, "wrong")
        answer = refusal(running, user, PASSWORD)
        assert f'FATAL:  too many failed logins for user "{user}" from host "127.0.0.1"' in answer
        assert "DETAIL:  failed_logins_limit is 3." in answer
        assert "HINT:  Try again in 3" in answer  # 3600 seconds, or a few less
    with connect(running, "other", PASSWORD) as connection:
        assert value(connection, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("auth", "advice"),
    [
        (None, "to let everybody in without a password, write 'method: trust' there"),
        ({"method": "scram-sha-256"}, "add 'users' (users: {alice: {password: ...}})"),
        ({"hba_file": "pg_hba.conf"}, "all entries of the file ask for passwords; add 'users'"),
    ],
)
def test_without_anybody_who_could_log_in_nothing_starts_and_the_error_says_what_to_write(
    pooler: PoolerFactory, postgres: PostgresServer, auth: dict[str, str] | None, advice: str
) -> None:
    written = {**configuration(postgres), "auth": auth}
    if auth is None:
        del written["auth"]
    with pytest.raises(PoolerFailed) as raised:
        pooler(written, files={"pg_hba.conf": "host all all all md5\n"})
    assert raised.value.code == 2
    assert "nobody could log in" in raised.value.output
    assert advice in raised.value.output
