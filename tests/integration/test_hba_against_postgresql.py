"""HBA files, read by us and by PostgreSQL: the same lines are refused, and the same line decides a login."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgpooler.config.hba import CertificateCheck, HbaMethod, HbaName, HbaRule, NameKind
from pgpooler.config.hba_file import read_hba
from pgpooler.config.model import Auth
from pgpooler.config.source import Sources
from pgpooler.demo.postgres import PostgresServer
from pgpooler.errors import AuthenticationFailed
from pgpooler.pooling.access import Access, LoginRequest
from tests import hba_files
from tests.hba_files import DrawnFile
from tests.integration import servers
from tests.integration.wire import startup

INTENDED = (
    "is not supported",  # groups, samehost, methods that ask another service
    "host names are not looked up",
    "PgPooler does not do GSSAPI encryption",
    "names are not read from a file",
    "the regular expression is empty",
)
"""What PostgreSQL takes and PgPooler says that it does not do."""
CANNOT_MATCH = "record cannot match because"
NOT_BUILT_IN = "not supported by this build"
"""What PostgreSQL says of a line that it takes, and of one that another build of it would take."""
PATIENCE = 60.0


@dataclass
class Server:
    """A server whose pg_hba.conf is written anew over and over, through a connection that was there before."""

    server: PostgresServer
    connection: psycopg.Connection[Any]

    def understands(self, text: str) -> str:
        """Take out what its version does not know: regular expressions came with PostgreSQL 16."""
        return text if self.server.version_number >= 16 else re.sub(r'(^|[\s,"])/', r"\1x", text)

    def write(self, text: str) -> None:
        """Write the file; it takes effect with `reload`."""
        row = self.connection.execute("SELECT lo_from_bytea(0, %s)", [text.encode()]).fetchone()
        assert row is not None
        self.connection.execute("SELECT lo_export(%s, current_setting('hba_file'))", row)
        self.connection.execute("SELECT lo_unlink(%s)", row)

    def reload(self) -> None:
        """Let it take effect for all who connect from now on."""
        before = self._loaded_at()
        self.connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + PATIENCE
        while self._loaded_at() == before:
            assert time.monotonic() < deadline, "the server did not reload"
            time.sleep(0.001)

    def _loaded_at(self) -> object:
        row = self.connection.execute("SELECT pg_conf_load_time()").fetchone()
        assert row is not None
        return row[0]

    def lines(self) -> dict[int, dict[str, Any]]:
        """How the server reads the file that is there, by line."""
        cursor = self.connection.execute("SELECT * FROM pg_hba_file_rules")
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        return {row["line_number"]: row for row in rows}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Under md5 PostgreSQL asks a user whom it does not know as its own new passwords would have to be asked for.
    with (
        servers.start_own_server({"password_encryption": "md5"}) as started,
        psycopg.connect(started.url(), autocommit=True) as connection,
    ):
        yield Server(started, connection)


def read(file: DrawnFile) -> tuple[dict[int, HbaRule], dict[int, str]]:
    """How we read it: the entries and the errors, by line."""
    sources = Sources("pgpooler.yaml", {})
    rules = {int(rule.place.split(":")[1]): rule for rule in read_hba(file.text, "hba", sources)}
    errors = {file.record_of(problem.line): problem.message for problem in sources.errors}
    return {file.record_of(line): rule for line, rule in rules.items()}, errors


def shown(names: tuple[HbaName, ...]) -> list[str]:
    return [("/" if name.kind is NameKind.REGEX else "") + name.text for name in names]


def check_options(rule: HbaRule, options: list[str]) -> None:
    maps = [option for option in options if option.startswith("map=") and option != "map="]
    assert maps == ([f"map={rule.map}"] if rule.map else [])
    check = CertificateCheck.VERIFY_FULL if rule.method is HbaMethod.CERT else rule.clientcert
    wanted = [f"clientcert={check.value}"] if check else []
    assert wanted == [option for option in options if option.startswith("clientcert=")]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=hba_files.hba_files)
def test_the_lines_that_postgresql_refuses_are_refused_and_the_others_mean_the_same(
    server: Server, file: DrawnFile
) -> None:
    file = DrawnFile(tuple(server.understands(record) for record in file.records))
    server.write(file.text)
    theirs = {file.record_of(line): row for line, row in server.lines().items()}
    rules, errors = read(file)
    assert rules.keys() | errors.keys() == theirs.keys()
    for line, row in theirs.items():
        error = "" if CANNOT_MATCH in (row["error"] or "") else row["error"] or ""
        if NOT_BUILT_IN in error:
            continue
        if line in errors:
            assert error or any(text in errors[line] for text in INTENDED), f"PostgreSQL takes what {errors[line]}"
            continue
        rule = rules[line]
        assert not error, f"PostgreSQL refuses line {line}: {error}"
        assert (rule.connection, rule.method) == (row["type"], row["auth_method"])
        assert shown(rule.databases) == row["database"]
        assert shown(rule.users) == row["user_name"]
        if row["address"] in (None, "all"):
            assert rule.address == ""
        else:
            assert (ip_address(rule.address), ip_address(rule.mask)) == (
                ip_address(row["address"]),
                ip_address(row["netmask"]),
            )
        check_options(rule, row["options"] or [])


# -- which line decides ------------------------------------------------------------------------------------------------

requests = st.tuples(
    st.sampled_from(hba_files.NAMES),
    st.sampled_from(hba_files.NAMES),
    st.sampled_from(["unix", "127.0.0.1", "127.1.2.3", "127.0.0.1"]),
    st.booleans(),
)
written_addresses = st.sampled_from(
    [
        "all",
        "127.0.0.1/32",
        "127.1.0.0/16",
        "127.0.0.0 255.0.0.0",
        "127.9.9.3 255.0.0.255",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "::/0",
    ]
)


@st.composite
def deciding_lines(draw: st.DrawFn) -> str:
    """A line that is right, for some of the requests."""
    connection = draw(st.sampled_from(["local", "host", "hostnossl"]))
    names = st.sampled_from(["all", "alice", "sameuser", "replication", *map(hba_files.quoted, hba_files.NAMES)])
    names |= st.sampled_from(hba_files.EXPRESSIONS).map(lambda text: hba_files.quoted("/" + text))
    lists = st.just("all") | st.lists(names, min_size=1, max_size=4).map(",".join)
    fields = [connection, draw(st.sampled_from(["replication", "all,replication"]) | lists), draw(lists)]
    if connection != "local":
        fields.append(draw(written_addresses))
    return " ".join([*fields, draw(st.sampled_from(["trust", "reject", "scram-sha-256", "md5", "password"]))])


def ask_postgresql(server: Server, user: str, database: str, origin: str, replication: bool) -> object:
    """The first thing that a client hears."""
    postgres = server.server
    if origin == "unix":
        assert postgres.socket_directory is not None
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(postgres.socket_directory / f".s.PGSQL.{postgres.port}"))
    else:
        connected = socket.create_connection((postgres.host, postgres.port), source_address=(origin, 0))
    with closing(connected):
        connected.sendall(startup(user, database, **({"replication": "true"} if replication else {})))
        return first_answer(connected)


def first_answer(connected: socket.socket) -> object:
    """The number of the authentication request, or the text of the error."""
    stream = connected.makefile("rb")
    with stream:
        kind = stream.read(1)
        body = stream.read(int.from_bytes(stream.read(4), "big") - 4)
    if kind == b"R":
        return int.from_bytes(body[:4], "big")
    fields = {field[:1]: field[1:].decode() for field in body.split(b"\0") if field}
    return f"{fields[b'C']} {fields[b'M']}"


def ask_us(access: Access, user: str, database: str, origin: str, replication: bool) -> object:
    address = None if origin == "unix" else IPv4Address(origin)
    try:
        return access.begin(LoginRequest(user, database, origin, address, None, replication)).request[0]
    except AuthenticationFailed as error:
        return f"{error.sqlstate} {error.message}".replace("hba_file", "pg_hba.conf")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(deciding_lines(), min_size=1, max_size=8), wanted=st.lists(requests, min_size=5, max_size=20))
def test_the_line_that_decides_a_login_in_postgresql_decides_it_here(
    server: Server, lines: list[str], wanted: list[tuple[str, str, str, bool]]
) -> None:
    if server.server.socket_directory is None:
        wanted = [request for request in wanted if request[2] != "unix"]
    text = "".join(server.understands(line) + "\n" for line in lines)
    server.write(text)
    server.reload()
    sources = Sources("pgpooler.yaml", {})
    access = Access(Auth(hba_file="pg_hba.conf", hba=read_hba(text, "pg_hba.conf", sources)))
    assert sources.errors == []
    heard = {request: (ask_us(access, *request), ask_postgresql(server, *request)) for request in wanted}
    assert {request: ours for request, (ours, _) in heard.items()} == {
        request: theirs for request, (_, theirs) in heard.items()
    }
