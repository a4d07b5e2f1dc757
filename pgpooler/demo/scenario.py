"""The two servers of the demonstration: their databases, users, marker tables, and the rules that route to them.

Every database has a table `backend_id` whose one row names the server it is on.  Only the database `postgres` exists
on both, so a wrong route is seen at once: by the other name, or by error 3D000 from the server.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgpooler.demo import tools
from pgpooler.demo.server import ExternalServer, PostgresServer, PostgresUnavailable

PRIMARY = "primary"
REPLICA = "replica"
SUPERUSER_PASSWORD = "postgres"  # noqa: S105
READER = "reporting_reader"
READER_PASSWORD = "rreader"  # noqa: S105

DATABASES: Mapping[str, tuple[str, ...]] = {
    PRIMARY: ("postgres", "main", "app", "default_test", "by_transaction", "by_statement"),
    REPLICA: ("postgres", "reporting", "analytics_test", "dwh_test", "misc"),
}
"""The first of each is there anyway; the others are made."""

READABLE = ("reporting", "misc")
"""The databases of the replica whose marker table the reader may read."""

POOL_SIZES: Mapping[str, int] = {PRIMARY: 10, REPLICA: 20}
"""How many server connections each backend may have, over all its pools."""

RULES = """\
- {name: reporting, database: reporting, backend: replica}
- {name: applications, database: [main, app, postgres], backend: primary}
- {name: analytics, database: "analytics_*", backend: replica}
- {name: warehouse, database: '~ ^(reporting|dwh)_.*', backend: replica}
- {name: reader, user: reporting_reader, backend: replica}
- {name: transactions, database: by_transaction, backend: primary, pool_mode: transaction, pool_size: 2}
- {name: statements, database: by_statement, backend: primary, pool_mode: statement, pool_size: 2}
- {name: everything else, default: true, backend: primary}
"""

MARK = "made by PgPooler for its demonstration or its tests"
"""The comment on every object made on a server that is not ours; nothing without it is ever dropped."""
CHANGE_LOCK = 0x50675065
USE_LOCK = 0x50675066
"""Advisory locks for processes that share such a server: who makes or drops things, and who uses them."""


@dataclass(frozen=True)
class RoutingCase:
    """Who connects where, and which server must answer by which rule."""

    user: str
    database: str
    expected: str
    rule: str


def routing_cases(superuser: str = "postgres") -> tuple[RoutingCase, ...]:
    """The nine routing cases: every kind of matcher once, and one that only the rule for a user can satisfy."""
    return (
        RoutingCase(superuser, "main", PRIMARY, "list of databases"),
        RoutingCase(superuser, "app", PRIMARY, "list of databases"),
        RoutingCase(superuser, "postgres", PRIMARY, "list of databases"),
        RoutingCase(superuser, "reporting", REPLICA, "exact database"),
        RoutingCase(superuser, "analytics_test", REPLICA, "prefix"),
        RoutingCase(superuser, "dwh_test", REPLICA, "regular expression"),
        RoutingCase(superuser, "default_test", PRIMARY, "default"),
        RoutingCase(READER, "reporting", REPLICA, "exact database"),
        RoutingCase(READER, "misc", REPLICA, "user"),
    )


@contextlib.contextmanager
def prepared(server: PostgresServer, name: str) -> Iterator[None]:
    """Have the databases, users and tables of one server while the block runs.

    On a server that is not ours they are dropped afterwards, by the last of the processes that use them.
    """
    if not isinstance(server, ExternalServer):
        _create(server, name)
        yield
        return
    psycopg = tools.import_psycopg()
    with contextlib.closing(psycopg.connect(server.url(), autocommit=True)) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [CHANGE_LOCK])
        _create(server, name)
        connection.execute("SELECT pg_advisory_lock_shared(%s), pg_advisory_unlock(%s)", [USE_LOCK, CHANGE_LOCK])
        try:
            yield
        finally:
            connection.execute("SELECT pg_advisory_lock(%s), pg_advisory_unlock_shared(%s)", [CHANGE_LOCK, USE_LOCK])
            (is_last,) = connection.execute("SELECT pg_try_advisory_lock(%s)", [USE_LOCK]).fetchone()
            if is_last:
                _drop(server, name)


def _create(server: PostgresServer, name: str) -> None:
    """Make what is missing.  An object of the same name that is not marked as ours is an error."""
    present = {
        str(object_name): str(comment)
        for object_name, comment in server.execute(
            "SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database "
            "UNION ALL SELECT 'role ' || rolname, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles"
        )
    }
    wanted = DATABASES[name][1:]
    for object_name in (*wanted, f"role {READER}"):
        if present.get(object_name, MARK) != MARK:
            raise PostgresUnavailable(
                f"{server} already has {object_name!r}, not made by PgPooler: give a server that may be changed"
            )
    for database in wanted:
        if database not in present:
            server.execute(*_database(database))
    if name == REPLICA and f"role {READER}" not in present:
        server.execute(*_reader())
    for database in DATABASES[name]:
        server.execute(*_marker_table(database, name), database=database)


def script(name: str) -> str:
    """The same for a server that has nothing yet, as a script for psql."""
    statements = [statement for database in DATABASES[name][1:] for statement in _database(database)]
    if name == REPLICA:
        statements += _reader()
    lines = [statement + ";" for statement in statements]
    for database in DATABASES[name]:
        lines += [f"\\connect {database}", *(statement + ";" for statement in _marker_table(database, name))]
    return "\n".join(lines) + "\n"


def _database(database: str) -> list[str]:
    return [f"CREATE DATABASE {database}", f"COMMENT ON DATABASE {database} IS '{MARK}'"]


def _reader() -> list[str]:
    return [
        f"CREATE ROLE {READER} LOGIN PASSWORD '{READER_PASSWORD}'",
        f"COMMENT ON ROLE {READER} IS '{MARK}'",
        f"GRANT CONNECT ON DATABASE postgres TO {READER}",
    ]


def _marker_table(database: str, name: str) -> list[str]:
    statements = [
        "CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL)",
        f"COMMENT ON TABLE backend_id IS '{MARK}'",
        "TRUNCATE backend_id",
        f"INSERT INTO backend_id VALUES ('{name}')",  # noqa: S608
    ]
    if name == REPLICA and database in READABLE:
        statements += [
            f"GRANT CONNECT ON DATABASE {database} TO {READER}",
            f"GRANT USAGE ON SCHEMA public TO {READER}",
            f"GRANT SELECT ON backend_id TO {READER}",
        ]
    return statements


def _drop(server: PostgresServer, name: str) -> None:
    """Take away what `_create` made on a server that is not ours."""
    for database in DATABASES[name][1:]:
        server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    server.execute("DROP TABLE IF EXISTS backend_id")
    if name == REPLICA:
        server.execute(f"DROP OWNED BY {READER}", f"DROP ROLE {READER}")


def users(primary: PostgresServer, replica: PostgresServer) -> dict[str, str]:
    """The users that PgPooler lets in, with their passwords; they log in to the servers with the same."""
    if (primary.superuser, primary.password) != (replica.superuser, replica.password):
        raise PostgresUnavailable(
            f"{primary} (user {primary.superuser}) and {replica} (user {replica.superuser}) must let in the same "
            "superuser with the same password: PgPooler logs in as the client that it serves"
        )
    return {primary.superuser: primary.password, READER: READER_PASSWORD}


def configuration_files(primary: PostgresServer, replica: PostgresServer, *, host: str, port: int) -> dict[str, str]:
    """The four configuration files (name to text) that put PgPooler on `host`:`port` in front of the two servers."""
    backends = "".join(
        f"- {{name: {name}, host: {json.dumps(server.host)}, port: {server.port}, pool_size: {POOL_SIZES[name]}}}\n"
        for name, server in ((PRIMARY, primary), (REPLICA, replica))
    )
    secrets = "".join(
        f"    {json.dumps(user)}: {{password: {json.dumps(password)}}}\n"
        for user, password in users(primary, replica).items()
    )
    return {
        "pgpooler.yaml": f"listen: {{host: {json.dumps(host)}, port: {port}}}\n"
        "logging: {path: logging.yaml}\n"
        "backends: {path: backends.yaml}\n"
        "routing: {path: routing.yaml}\n"
        f"auth:\n  method: scram-sha-256\n  users:\n{secrets}",
        "logging.yaml": "level: info\ndestination: stderr\n",
        "backends.yaml": f"backends:\n{_indented(backends)}",
        "routing.yaml": "# The first rule that matches decides.\n"
        f"defaults: {{pool_size: 20, pool_mode: session}}\nrouting:\n{_indented(RULES)}",
    }


def write_configuration(directory: Path, files: Mapping[str, str]) -> Path:
    """Write the files, readable by their owner alone, and return the path of the main one."""
    for name, text in files.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    return directory / "pgpooler.yaml"


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
