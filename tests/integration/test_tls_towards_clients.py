"""TLS towards clients: libpq in all its modes, and clients that do not play by the rules."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import pq

from pgpooler.demo.local import LocalServer
from tests.certificates import Authority, Certificate
from tests.integration import tls_servers
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.faults import FaultProxy
from tests.integration.poolers import PoolerFactory
from tests.integration.wire import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    TERMINATE,
    Address,
    Closed,
    Wire,
    cancel_request,
    error_fields,
    query,
    sqlstate,
    startup,
)

NOWHERE = "/nonexistent"
SLEEP = "SELECT pg_sleep(600)"
DIRECT_SINCE = 17
SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@pytest.fixture(scope="session")
def shown(authority: Authority) -> Certificate:
    """What PgPooler shows its clients."""
    return authority.certify("pooler", hosts=("localhost",))


def configuration(server: LocalServer, **tls: object) -> dict[str, Any]:
    """PgPooler before a server, which it enters as the superuser, unencrypted."""
    backend = {"name": "primary", "host": server.host, "port": server.port}
    login = {"user": server.superuser, "password": server.password}
    users = {name: {"password": tls_servers.PASSWORD} for name in tls_servers.USERS}
    users[server.superuser] = {"password": server.password}
    return {"backends": [backend | login], "auth": {"users": users}, "tls": tls}


@pytest.fixture
def in_front(tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate) -> RunningDataPlane:
    """PgPooler before a server, with TLS for those who want it."""
    return data_plane(configuration(tls_server, **shown.keys))


def log_in(port: int, user: str = "postgres", password: str = "postgres", **parameters: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(
        **{
            "host": "localhost",
            "hostaddr": "127.0.0.1",
            "port": port,
            "user": user,
            "password": password,
            "dbname": "postgres",
            "autocommit": True,
            "sslmode": "require",
            **parameters,
        }
    )


def outcome(port: int, **parameters: Any) -> str:
    """Whether libpq comes in, and how."""
    try:
        with log_in(port, **parameters) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            return "encrypted" if connection.pgconn.ssl_in_use else "in clear text"
    except psycopg.OperationalError:
        return "refused"


DEMANDS = {
    "disable": "postgres",
    "prefer": "postgres",
    "require": "only_tls",
    "verify-ca": "with_certificate",
    "verify-full": "own_certificate",
}
"""The modes of PgPooler, and the user of whom PostgreSQL demands the same."""


@pytest.mark.parametrize("demand", DEMANDS)
def test_libpq_comes_in_and_is_encrypted_where_it_is_so_at_postgresql(
    demand: str, tls_server: LocalServer, data_plane: DataPlaneFactory, authority: Authority, shown: Certificate
) -> None:
    """All modes of libpq, asking or beginning at once, with and without certificates, against all modes of ours."""
    user = DEMANDS[demand]
    password = tls_servers.PASSWORD if user in tls_servers.USERS else tls_server.password
    own = authority.certify(user, hosts=())
    others = authority.certify("somebody", hosts=())
    strange = Authority(authority.folder, "stranger")
    forged = strange.certify(user, hosts=(), file=f"forged-{user}")
    in_front = data_plane(configuration(tls_server, mode=demand, **shown.keys, ca=str(authority.file)))
    if demand == "disable":
        tls_server.execute("ALTER SYSTEM SET ssl = off", "SELECT pg_reload_conf()")
        wait_until(lambda: outcome(tls_server.port, sslmode="require") == "refused")
    negotiations = ["postgres", "direct"] if tls_server.version_number >= DIRECT_SINCE else ["postgres"]
    certificates = {"none": (NOWHERE, NOWHERE)}
    for name, one in (("own", own), ("another's", others), ("forged", forged)):
        certificates[name] = (str(one.cert), str(one.key))
    seen = set()
    different = {}
    try:
        for mode, negotiation, gss, (name, (cert, key)) in itertools.product(
            SSLMODES, negotiations, ("disable", "prefer"), certificates.items()
        ):
            if gss == "prefer" and name != "none":
                continue
            roots = [authority.file, strange.file] if mode.startswith("verify") else [Path(NOWHERE)]
            for root in roots:
                parameters = {"sslmode": mode, "sslnegotiation": negotiation, "gssencmode": gss}
                parameters |= {"sslcert": cert, "sslkey": key, "sslrootcert": str(root)}
                parameters |= {"user": user, "password": password}
                expected, found = outcome(tls_server.port, **parameters), outcome(in_front.port, **parameters)
                seen.add(expected)
                if expected != found:
                    different[mode, negotiation, gss, name, root.name] = (expected, found)
    finally:
        if demand == "disable":
            tls_server.execute("ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()")
            wait_until(lambda: outcome(tls_server.port, sslmode="require") == "encrypted")
    assert different == {}
    assert len(seen) >= 2, "the cases differ"


# -- what is said before and instead of TLS ----------------------------------------------------------------------------


class TlsWire(Wire):
    """A raw connection within TLS."""

    def __init__(self, address: Address, *, direct: bool = False, protocols: tuple[str, ...] = ("postgresql",)) -> None:
        super().__init__(address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if not direct:
            self.send(SSL_REQUEST)
            assert self.byte() == b"S"
        self.socket = context.wrap_socket(self.socket)


def test_a_session_within_tls_is_one_like_any_other(in_front: RunningDataPlane) -> None:
    with TlsWire(in_front.address) as wire:
        wire.log_in(minor=2)
        assert wire.values("SELECT 1") == ["1"]
        assert len(wire.key) == 32
        wire.send(TERMINATE)
        assert wire.everything() == b""


@pytest.mark.parametrize("stuffed", [startup("postgres", "postgres"), b"\0", b"\x16\x03\x01\0\x05hello", SSL_REQUEST])
def test_what_stands_unencrypted_behind_the_request_is_refused(in_front: RunningDataPlane, stuffed: bytes) -> None:
    """Whoever stands between could have put it there, and it would count as the client's (CVE-2021-23214)."""
    with in_front.wire() as wire:
        wire.send(SSL_REQUEST + stuffed)
        error = wire.last_words()
        assert error is not None
        assert error_fields(error)["M"] == "received unencrypted data after SSL request"
        assert sqlstate(error) == "08P01"


@pytest.mark.parametrize("said", [startup("postgres", "postgres"), SSL_REQUEST, query("SELECT 1"), b"\x15\x03\x01"])
def test_who_goes_on_unencrypted_though_tls_was_agreed_on_is_left(in_front: RunningDataPlane, said: bytes) -> None:
    with in_front.wire() as wire:
        wire.send(SSL_REQUEST)
        assert wire.byte() == b"S"
        wire.send(said)
        wire.end_sending()
        answer = wire.everything()
        assert answer[:1] in (b"", b"\x15"), "nothing but an alert"


@pytest.mark.parametrize("request_within", [SSL_REQUEST, GSSENC_REQUEST], ids=["TLS", "GSSAPI"])
@pytest.mark.parametrize("direct", [False, True], ids=["asked", "direct"])
def test_a_request_for_encryption_within_tls_is_answered_as_by_postgresql(
    tls_server: LocalServer, in_front: RunningDataPlane, request_within: bytes, direct: bool
) -> None:
    if direct and tls_server.version_number < DIRECT_SINCE:
        assert direct_is_refused(tls_server)
        return
    answers = []
    for address in ((tls_server.host, tls_server.port), in_front.address):
        with TlsWire(address, direct=direct) as wire:
            wire.send(request_within)
            first = wire.byte()
            wire.received = first + wire.received if first == b"E" else b""
            error = wire.message() if first == b"E" else None
            answers.append((first, error and sqlstate(error)))
    assert answers[0] == answers[1]


def direct_is_refused(server: LocalServer) -> bool:
    """PostgreSQL before 17 does not know TLS without a request."""
    with pytest.raises(ssl.SSLError):
        TlsWire((server.host, server.port), direct=True)
    return True


def comes_in(address: Address, *, direct: bool, protocols: tuple[str, ...]) -> bool:
    try:
        with TlsWire(address, direct=direct, protocols=protocols) as wire:
            wire.log_in()
            return wire.values("SELECT 1") == ["1"]
    except (OSError, Closed):
        return False


@pytest.mark.parametrize("protocols", [(), ("http/1.1",), ("http/1.1", "postgresql"), ("postgresql",)])
def test_who_begins_at_once_must_name_the_protocol_as_at_postgresql(
    tls_server: LocalServer, in_front: RunningDataPlane, protocols: tuple[str, ...]
) -> None:
    found = comes_in(in_front.address, direct=True, protocols=protocols)
    assert found is ("postgresql" in protocols)
    if tls_server.version_number >= DIRECT_SINCE:
        assert found is comes_in((tls_server.host, tls_server.port), direct=True, protocols=protocols)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",), ("http/1.1", "postgresql")])
def test_who_asked_before_may_name_no_protocol_but_not_only_others_as_at_postgresql(
    tls_server: LocalServer, in_front: RunningDataPlane, protocols: tuple[str, ...]
) -> None:
    found = comes_in(in_front.address, direct=False, protocols=protocols)
    assert found is (protocols != ("http/1.1",))
    if tls_server.version_number >= DIRECT_SINCE:
        assert found is comes_in((tls_server.host, tls_server.port), direct=False, protocols=protocols)


def test_without_a_certificate_nobody_can_begin_at_once(tls_server: LocalServer, data_plane: DataPlaneFactory) -> None:
    plain = configuration(tls_server)
    del plain["tls"]
    in_front = data_plane(plain)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TlsWire(in_front.address, direct=True)
    with in_front.wire() as wire:
        wire.send(SSL_REQUEST)
        assert wire.byte() == b"N"
        wire.log_in()


def test_who_must_encrypt_and_does_not_is_told_so_in_postgresqls_words(
    tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate
) -> None:
    in_front = data_plane(configuration(tls_server, mode="require", **shown.keys))
    with in_front.wire() as wire:
        wire.send(startup("postgres", "shop"))
        error = wire.last_words()
        assert error is not None
        fields = error_fields(error)
        assert fields["C"] == "28000"
        assert fields["M"] == (
            'no pg_hba.conf entry for host "127.0.0.1", user "postgres", database "shop", no encryption'
        )


def test_who_must_show_a_certificate_and_does_not_is_told_so_in_postgresqls_words(
    tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate, authority: Authority
) -> None:
    in_front = data_plane(configuration(tls_server, mode="verify-ca", **shown.keys, ca=str(authority.file)))
    for address, user in ((in_front.address, "postgres"), ((tls_server.host, tls_server.port), "with_certificate")):
        with TlsWire(address) as wire:
            wire.send(startup(user, "postgres"))
            error = wire.message()
            assert error is not None
            assert (error_fields(error)["C"], error_fields(error)["M"]) == (
                "28000",
                "connection requires a valid client certificate",
            )


# -- cancel ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["prefer", "require"])
@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "in clear text"])
def test_a_cancel_request_is_taken_encrypted_and_unencrypted(
    mode: str, encrypted: bool, tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate
) -> None:
    """libpq before version 17 sends it in clear text, also for a connection that is encrypted."""
    in_front = data_plane(configuration(tls_server, mode=mode, **shown.keys))
    with TlsWire(in_front.address) as wire:
        wire.log_in(minor=2)
        wire.send(query(SLEEP))
        wait_until(lambda: in_front.snapshot()["pools"][0]["in_use"])
        request = cancel_request(wire.process_id, wire.key)
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(sqlstate(wire.until("ErrorResponse")[-1])))
        reader.start()
        while reader.is_alive():  # until the query has begun there is nothing to cancel
            with TlsWire(in_front.address) if encrypted else in_front.wire() as carrier:
                carrier.send(request)
                assert carrier.everything() == b""
            reader.join(0.05)
        assert errors == ["57014"]


def test_libpqs_own_encrypted_cancel_arrives(
    tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate
) -> None:
    in_front = data_plane(configuration(tls_server, mode="require", **shown.keys))
    with log_in(in_front.port) as connection:
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
        assert connection.execute("SELECT 1").fetchone() == (1,)


# -- load and loss -----------------------------------------------------------------------------------------------------


def test_much_data_passes_both_ways_unchanged(in_front: RunningDataPlane) -> None:
    rows = [f"{number}\t{'x' * (number % 3000)}\n" for number in range(5000)]
    with log_in(in_front.port) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE much (number int, text text)")
        with cursor.copy("COPY much FROM STDIN") as copy:
            for row in rows:
                copy.write(row)
        with cursor.copy("COPY (SELECT * FROM much ORDER BY number) TO STDOUT") as copy:
            assert b"".join(bytes(piece) for piece in copy) == "".join(rows).encode()
        long = "y" * 5_000_000
        assert cursor.execute("SELECT %s::text", (long,)).fetchone() == (long,)


def test_a_client_that_reads_nothing_holds_the_server_back_and_misses_nothing(in_front: RunningDataPlane) -> None:
    with TlsWire(in_front.address) as wire:
        wire.log_in()
        wire.send(query("SELECT repeat('z', 10000) FROM generate_series(1, 6000)"))
        wait_until(lambda: in_front.inside(lambda plane: any(port.queue for port in plane.relay.ports)))
        queued = in_front.inside(lambda plane: max(len(port.queue) for port in plane.relay.ports))
        assert queued < 2_000_000
        replies = wire.until()
        assert sum(reply.name == "DataRow" for reply in replies) == 6_000


BOTH_WAYS = ("to server", "to client")


def test_a_session_within_tls_is_the_same_byte_by_byte_on_both_sides(
    tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate
) -> None:
    """Handshakes included: with the client, and with the server."""
    with FaultProxy((tls_server.host, tls_server.port), split=BOTH_WAYS) as before_server:
        configured = configuration(tls_server, **shown.keys)
        configured["backends"][0] |= {"port": before_server.port, "tls": {"mode": "require"}}
        in_front = data_plane(configured)
        with FaultProxy(in_front.address, split=BOTH_WAYS) as before_us, log_in(before_us.port) as connection:
            assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
            assert connection.execute("SELECT repeat(%s, 100)", ("x",)).fetchone() == ("x" * 100,)


@pytest.mark.parametrize("count", [0, 1, 5, 100, 1000])
def test_a_server_that_is_cut_off_within_tls_ends_its_client_in_words_and_harms_no_other(
    count: int, tls_server: LocalServer, data_plane: DataPlaneFactory, shown: Certificate
) -> None:
    with FaultProxy((tls_server.host, tls_server.port)) as before_server:
        configured = configuration(tls_server, **shown.keys)
        configured["backends"][0] |= {"port": before_server.port, "tls": {"mode": "require"}}
        in_front = data_plane(configured)
        with log_in(in_front.port) as connection:
            before_server.cut_after(count)
            with pytest.raises(psycopg.OperationalError, match=r"server connection was lost|closed the connection"):
                connection.execute("SELECT repeat('x', 100000)")
        before_server.mend()
        with log_in(in_front.port) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("way", ["cut off", "reset"])
def test_a_client_that_is_cut_off_in_a_transaction_leaves_nothing(in_front: RunningDataPlane, way: str) -> None:
    with TlsWire(in_front.address) as wire:
        wire.log_in()
        wire.ask("BEGIN")
        if way == "cut off":
            raw = socket.socket(fileno=wire.socket.detach())  # closed without a close_notify
            raw.close()
        else:
            wire.reset()
    in_front.wait_until_unused()
    with log_in(in_front.port) as connection:
        assert connection.execute("SELECT now() = statement_timestamp()").fetchone() == (True,)


def test_an_error_that_ends_the_connection_arrives_within_tls(in_front: RunningDataPlane) -> None:
    with TlsWire(in_front.address) as wire:
        wire.log_in()
        wire.send(b"?\0\0\0\x04" + b"x" * 200_000)
        error = wire.last_words()
        assert sqlstate(error) == "08P01"


def test_a_wrong_password_is_refused_within_tls(in_front: RunningDataPlane) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(in_front.port, password="wrong")


LOGINS = 200
TOGETHER = 10


def slowest_of_a_hundred(port: int, crowd_at: int) -> float:
    """The 99th percentile of the time that a query takes while a crowd logs in, at this port, with TLS and SCRAM."""
    numbers = iter(range(LOGINS))

    def log_in_and_out() -> None:
        for _ in numbers:
            log_in(crowd_at).close()

    crowd = [threading.Thread(target=log_in_and_out) for _ in range(TOGETHER)]
    took = []
    with log_in(port, sslmode="disable") as connection:
        for one in crowd:
            one.start()
        while any(one.is_alive() for one in crowd):
            began = time.perf_counter()
            connection.execute("SELECT 1")
            took.append(time.perf_counter() - began)
    return sorted(took)[len(took) * 99 // 100]


def test_a_crowd_that_logs_in_delays_queries_hardly_more_than_if_it_logged_in_elsewhere(
    tls_server: LocalServer, pooler: PoolerFactory, shown: Certificate
) -> None:
    """The same crowd costs the machine as much when it goes to the server directly; what is more is PgPooler's."""
    configured = configuration(tls_server, **shown.keys)
    running = pooler(configured | {"routing": {"defaults": {"pool_mode": "transaction", "pool_size": 5}}})
    log_in(running.port).close()
    elsewhere = slowest_of_a_hundred(running.port, tls_server.port)
    here = slowest_of_a_hundred(running.port, running.port)
    assert here < 3 * elsewhere


# -- reload ------------------------------------------------------------------------------------------------------------


def certificate_of(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Wire(("127.0.0.1", port)) as wire:
        wire.send(SSL_REQUEST)
        assert wire.byte() == b"S"
        with context.wrap_socket(wire.socket) as secured:
            return secured.getpeercert(binary_form=True) or b""


@contextlib.contextmanager
def replaced(shown: Certificate, folder: Path) -> Iterator[Certificate]:
    """A copy of a certificate that may be overwritten."""
    copy = Certificate(folder / "shown.crt", folder / "shown.key")
    overwrite(copy, shown)
    yield copy


def overwrite(copy: Certificate, other: Certificate) -> None:
    copy.cert.write_bytes(other.cert.read_bytes())
    copy.key.write_bytes(other.key.read_bytes())


def test_certificates_are_exchanged_and_nobody_is_dropped(
    tls_server: LocalServer, pooler: PoolerFactory, shown: Certificate, authority: Authority, tmp_path: Path
) -> None:
    next_one = authority.certify("pooler", hosts=("localhost",), key="rsa", file="next")
    with replaced(shown, tmp_path) as used:
        running = pooler(configuration(tls_server, mode="require", **used.keys))
        with log_in(running.port) as connection:
            assert certificate_of(running.port) == shown.der
            overwrite(used, next_one)
            running.reload()
            wait_until(lambda: certificate_of(running.port) == next_one.der)
            assert connection.execute("SELECT 1").fetchone() == (1,)
            used.key.write_bytes(shown.key.read_bytes())
            running.reload()
            wait_until(lambda: "the configuration is not reloaded" in running.log_text())
            assert f"the private key in {used.key} does not belong to the certificate in {used.cert}" in (
                running.log_text()
            )
            assert certificate_of(running.port) == next_one.der
            assert connection.execute("SELECT 1").fetchone() == (1,)
            with log_in(running.port, sslmode="verify-full", sslrootcert=str(authority.file)) as another:
                assert another.pgconn.ssl_in_use


def test_libpq_here_can_begin_tls_at_once() -> None:
    """Otherwise the matrix above would be smaller than it says."""
    assert pq.version() >= DIRECT_SINCE * 10000
