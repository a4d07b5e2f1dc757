"""Clients that are broken, foreign or malicious: refused or closed, never a crash, a hang or a leaked slot."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.demo.postgres import PostgresServer
from spec.codec import encode, frontend
from spec.messages import Phase, Sender
from spec.mutators import NearValid, Verdict, near_valid
from tests.integration.data_planes import DataPlaneFactory, RunningDataPlane, wait_until
from tests.integration.servers import TwoServers
from tests.integration.wire import SSL_REQUEST, SYNC, TERMINATE, Wire, error_fields, query, sqlstate, startup, typed

IMPOSSIBLE_LENGTHS = (0, 1, 2, 3, 0x3FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SESSION_TYPES = b"BCDEFHPQSXcdf"
PASSWORD = ord("p")


@pytest.fixture(scope="module")
def pooled(two_servers: TwoServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDataPlane]:
    """PgPooler with few connections, shared by tests that each leave it as it was."""
    factory = DataPlaneFactory(tmp_path_factory.mktemp("pooled"))
    yield factory(
        two_servers.configuration(
            limits={"max_client_conn": 20},
            routing={"defaults": {"pool_size": 2}},
        )
    )
    factory.stop()


def assert_healthy(data_plane: RunningDataPlane) -> None:
    """Nothing is left of the clients before, and a good client is served."""
    data_plane.wait_until_unused()
    with data_plane.wire() as good:
        good.log_in()
        assert good.values("SELECT 'good'") == ["good"]
        good.send(TERMINATE)
        assert good.everything() == b""
    data_plane.wait_until_unused()


# -- before the login ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_any_bytes_at_the_start_lead_to_an_error_or_a_close(pooled: RunningDataPlane, data: bytes) -> None:
    with pooled.wire() as client:
        client.send_if_possible(data)
        client.end_sending()
        client.everything()
    pooled.wait_until_unused()


def test_a_startup_packet_of_10_mb_is_refused_before_it_has_arrived(pooled: RunningDataPlane) -> None:
    with pooled.wire() as client:
        client.send_if_possible(struct.pack("!II", 10_000_000, 196608))
        error = client.last_words()
        assert sqlstate(error) == "08P01"
        client.send_if_possible(bytes(10_000_000))
    assert_healthy(pooled)


def test_every_message_before_the_startup_is_refused(pooled: RunningDataPlane) -> None:
    """CVE-2015-4054: nothing may be read as if a startup packet had come before."""
    for kind in SESSION_TYPES + b"p\0\xff":
        with pooled.wire() as client:
            client.send_if_possible(typed(kind, b"\0\0\0\0\0\0\0"))
            client.end_sending()
            error = client.last_words()
            assert error is None or sqlstate(error) in ("08P01", "0A000"), chr(kind)
    assert_healthy(pooled)


@pytest.mark.parametrize("step", ["password", "proof"])
def test_every_message_instead_of_a_proof_ends_the_login(pooled: RunningDataPlane, step: str) -> None:
    for kind in SESSION_TYPES + b"\0\xff":
        with pooled.wire() as client:
            begin_login(client, step)
            client.send_if_possible(typed(kind, b"\0\0\0\0\0\0\0"))
            assert sqlstate(client.last_words()) == "08P01", chr(kind)
    assert_healthy(pooled)


def begin_login(client: Wire, step: str) -> None:
    """Go as far as the SASLInitialResponse (`password`) or the SASLResponse (`proof`), and leave that out."""
    client.send(startup("postgres", "postgres"))
    client.until("AuthenticationSASL")
    if step == "proof":
        first = b"n,,n=,r=abcdefghijklmnop"
        client.send(encode(frontend("SASLInitialResponse", mechanism=b"SCRAM-SHA-256", data=first)))
        client.until("AuthenticationSASLContinue")


WRONG_PROOFS = {
    "nothing": b"",
    "a zero": b"\0",
    "a word": b"hello",
    "another nonce": b"c=biws,r=abcdefghijklmnop,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "no proof": b"c=biws,r=abcdefghijklmnop",
    "other channel binding": b"c=eSws,r=abcdefghijklmnop,p=AAAA",
    "a proof that is no base64": b"c=biws,r=abcdefghijklmnop,p=####",
    "a proof of the wrong length": b"c=biws,r=abcdefghijklmnop,p=AAAA",
    "commas": b"," * 1000,
    "65,000 bytes": b"c=biws,r=" + b"x" * 65_000,
}


@pytest.mark.parametrize("case", WRONG_PROOFS)
def test_a_proof_that_is_none_ends_the_login(pooled: RunningDataPlane, case: str) -> None:
    with pooled.wire() as client:
        begin_login(client, "proof")
        client.send_if_possible(typed(PASSWORD, WRONG_PROOFS[case]))
        assert sqlstate(client.last_words()) in ("08P01", "28P01")
    assert_healthy(pooled)


@pytest.mark.parametrize("step", ["password", "proof"])
@pytest.mark.parametrize("length", [*IMPOSSIBLE_LENGTHS, 65_536])
def test_a_proof_of_impossible_length_ends_the_login(pooled: RunningDataPlane, step: str, length: int) -> None:
    """CVE-2026-6664."""
    with pooled.wire() as client:
        begin_login(client, step)
        client.send_if_possible(typed(PASSWORD, bytes(100), length=length))
        assert sqlstate(client.last_words()) == "08P01"
    assert_healthy(pooled)


@pytest.mark.parametrize("method", ["plain", "md5"])
def test_password_messages_that_are_none_end_the_login(
    two_servers: TwoServers, data_plane: DataPlaneFactory, method: str
) -> None:
    """CVE-2026-6664, the other methods."""
    users = {"postgres": {"password": "postgres"}}
    under_test = data_plane(two_servers.configuration(auth={"method": method, "users": users}))
    bodies = (
        b"",
        b"\0",
        b"x",
        b"postgres",
        b"post\0gres\0",
        b"postgres\0\0",
        b"md5\0",
        b"x" * 65_000,
        b"y" * 64 + b"\0",
    )
    messages = [typed(PASSWORD, body) for body in bodies]
    messages += [typed(PASSWORD, b"postgres\0", length=length) for length in (*IMPOSSIBLE_LENGTHS, 65_536)]
    messages += [typed(kind, b"postgres\0") for kind in SESSION_TYPES + b"\0"]
    for message in messages:
        with under_test.wire() as client:
            client.send(startup("postgres", "postgres"))
            client.until("AuthenticationCleartextPassword", "AuthenticationMD5Password")
            client.send_if_possible(message)
            assert sqlstate(client.last_words()) in ("08P01", "28P01"), message[:40]
    under_test.wait_until_unused()


# -- in the session ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", IMPOSSIBLE_LENGTHS)
def test_a_message_of_impossible_length_ends_the_session(pooled: RunningDataPlane, length: int) -> None:
    """W10: such a message must not be waited for."""
    for kind in SESSION_TYPES:
        with pooled.wire() as client:
            client.log_in()
            client.send_if_possible(typed(kind, b"SELECT 1\0", length=length))
            error = client.last_words()
            assert kind == ord("X") or sqlstate(error) == "08P01", chr(kind)
    assert_healthy(pooled)


def test_a_small_message_that_announces_more_than_10_kb_ends_the_session(pooled: RunningDataPlane) -> None:
    for kind in b"CDEHSXcf":
        with pooled.wire() as client:
            client.log_in()
            client.send_if_possible(typed(kind, length=10_001))
            assert sqlstate(client.last_words()) == "08P01", chr(kind)
    assert_healthy(pooled)


@pytest.mark.parametrize("kind", b"pRZ!\0\x01\x7f\x80\xff")
def test_a_message_of_a_type_that_there_is_not_ends_the_session_as_in_postgresql(
    pooled: RunningDataPlane, postgres: PostgresServer, kind: int
) -> None:
    answers = []
    for address in ((postgres.host, postgres.port), pooled.address):
        with Wire(address) as client:
            client.log_in(postgres.superuser, postgres.password)
            client.send_if_possible(typed(kind, b"SELECT 1\0"))
            error = client.last_words()
            assert error is not None
            answers.append({name: text for name, text in error_fields(error).items() if name in "SVC"})
    assert answers[0] == answers[1]
    assert_healthy(pooled)


def test_a_message_of_a_type_that_there_is_not_is_not_piled_up(pooled: RunningDataPlane) -> None:
    """Type 0 was once taken for the sign that nothing had come, and everything behind it was kept."""
    with pooled.wire() as client:
        client.log_in()
        client.send_if_possible(typed(0) + bytes(1_000_000))
        assert sqlstate(client.last_words()) == "08P01"
    assert_healthy(pooled)


@given(near_valid(Sender.FRONTEND, Phase.SESSION))
def test_a_nearly_valid_message_in_a_session_is_answered_as_postgresql_answers_it(
    pooled: RunningDataPlane, postgres: PostgresServer, near: NearValid
) -> None:
    """With two exceptions: PostgreSQL says nothing about an impossible length, we do; and a batch that has no Sync gets

    our refusal alone, because nothing tells when its replies would be complete.
    """
    answers = []
    for address in ((postgres.host, postgres.port), pooled.address):
        with Wire(address) as client:
            client.log_in(postgres.superuser, postgres.password)
            client.send_if_possible(near.data)
            if near.verdict is not Verdict.CUT_OFF:
                client.send_if_possible(SYNC + query("SELECT 'the end'"))
                answers.append(answers_to_the_end(client))
    pooled.wait_until_unused()
    if answers:
        theirs, ours = answers
        refusal = [("ErrorResponse", "08P01")]
        ends = [number for number, (name, _) in enumerate(theirs, 1) if name == "ReadyForQuery"]
        whole_requests = theirs[: max(ends, default=0)]
        assert (
            ours == theirs or (theirs[-1:] != refusal and ours == theirs + refusal) or ours == whole_requests + refusal
        )


def answers_to_the_end(client: Wire) -> list[tuple[str, str]]:
    """Names of messages, and SQLSTATEs of errors, up to the answer to a last query or the close of the connection."""
    answers = []
    ended = False
    while not (ended and answers[-1][0] == "ReadyForQuery") and (message := client.message()) is not None:
        answers.append((message.name, error_fields(message)["C"] if message.name == "ErrorResponse" else ""))
        ended = ended or (message.name == "DataRow" and message["values"] == (b"the end",))
    return answers


def test_what_is_no_sql_is_the_servers_to_refuse(pooled: RunningDataPlane) -> None:
    with pooled.wire() as client:
        client.log_in()
        for text in ("", ";", "nonsense", "SELECT 'x", "\x01\x02", "SELECT " + "(" * 5000):
            messages = client.ask(text)
            assert messages[-1].name == "ReadyForQuery"
        assert client.values("SELECT 'still here'") == ["still here"]
    assert_healthy(pooled)


# -- many, and half open -------------------------------------------------------------------------------------------


def hold_half_open(step: str, client: Wire) -> None:
    if step == "three bytes":
        client.send(b"\0\0\0")
    elif step == "encryption asked for":
        client.send(SSL_REQUEST)
        assert client.byte() == b"N"
    elif step == "half a startup":
        client.send(startup("postgres")[:10])
    elif step in ("password", "proof"):
        begin_login(client, step)
    else:
        assert step == "nothing"


@pytest.mark.parametrize(
    "step", ["nothing", "three bytes", "encryption asked for", "half a startup", "password", "proof"]
)
def test_a_client_that_does_not_log_in_is_told_so_and_closed(
    two_servers: TwoServers, data_plane: DataPlaneFactory, step: str
) -> None:
    """W24: client_login_timeout."""
    under_test = data_plane(two_servers.configuration(timeouts={"client_login_timeout": 0.3}))
    with under_test.wire() as client:
        hold_half_open(step, client)
        error = client.last_words()
        assert error is not None
        assert "client_login_timeout" in error_fields(error)["M"]


def test_200_clients_that_send_three_bytes_and_stay_keep_nobody_out(
    two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    """W24: they do not count as clients before they have logged in, and they do not stay."""
    under_test = data_plane(
        two_servers.configuration(limits={"max_client_conn": 2}, timeouts={"client_login_timeout": 2})
    )
    silent = [under_test.wire() for _ in range(200)]
    try:
        for client in silent:
            client.send(b"\0\0\0")
        wait_until(lambda: under_test.snapshot()["clients"] == 200)
        with under_test.wire() as good:
            good.log_in()
            assert good.values("SELECT 1") == ["1"]
        for client in silent:
            assert client.last_words() is not None
            client.close()
    finally:
        for client in silent:
            client.close()


@pytest.mark.parametrize("with_reset", [False, True], ids=["close", "reset"])
def test_500_connections_that_are_closed_at_once_leave_nothing(pooled: RunningDataPlane, with_reset: bool) -> None:
    for number in range(500):
        client = pooled.wire()
        if number % 3 == 1:
            client.send(startup("postgres")[: number % 40])
        elif number % 3 == 2:
            client.send(startup("postgres"))
        client.reset() if with_reset else client.close()
    assert_healthy(pooled)


def test_one_client_too_many_is_told_so_and_a_place_that_is_left_is_free_at_once(
    two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    under_test = data_plane(two_servers.configuration(limits={"max_client_conn": 2}))
    with under_test.wire() as one, under_test.wire() as other, under_test.wire() as surplus:
        one.log_in()
        other.log_in()
        surplus.send(startup("postgres"))
        assert sqlstate(surplus.last_words()) == "53300"
        other.close()
        wait_until(lambda: under_test.snapshot()["admitted"] == 1)
        with under_test.wire() as successor:
            successor.log_in()


# -- who may log in ------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_refused_while_idle_connections_exist(
    two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    """W1, CVE-2025-46801."""
    under_test = data_plane(two_servers.configuration())
    with under_test.wire() as good:
        good.log_in()
        backend = good.values("SELECT pg_backend_pid()")
        good.send(TERMINATE)
    wait_until(lambda: under_test.idle() == 1)
    for password in ("wrong", "", "postgres "):
        with under_test.wire() as bad:
            answer = bad.authenticate("postgres", password, "postgres")
            assert sqlstate(answer) == "28P01"
            assert bad.rest() == []
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(host="127.0.0.1", port=under_test.port, user="postgres", password=password or "x")
    under_test.wait_until_unused()
    assert under_test.idle() == 1
    with under_test.wire() as good:
        good.log_in()
        assert good.values("SELECT pg_backend_pid()") == backend


def shape(value: Any) -> Any:
    """What a message looks like when random texts of the same length count as equal."""
    return len(value) if isinstance(value, bytes) else value


def test_an_unknown_user_and_a_wrong_password_look_the_same(pooled: RunningDataPlane) -> None:
    """PgBouncer #774: who exists could be told from the answer."""
    seen = []
    salts = []
    for user, password in (("postgres", "wrong"), ("postgrex", "wrong"), ("postgrex", "postgres")):
        for _ in range(2):
            with pooled.wire() as client:
                client.send(startup(user, "postgres"))
                messages = client.until("AuthenticationSASL")
                first = b"n=,r=" + b"a" * 24
                client.send(encode(frontend("SASLInitialResponse", mechanism=b"SCRAM-SHA-256", data=b"n,," + first)))
                messages += client.until("AuthenticationSASLContinue")
                challenge = messages[-1]["data"]
                assert isinstance(challenge, bytes)
                salts.append((user, challenge.split(b",")[1]))
                wrong = challenge.split(b",")[0].removeprefix(b"r=")
                proof = b"c=biws,r=" + wrong + b",p=" + b"A" * 43 + b"="
                client.send(encode(frontend("SASLResponse", data=proof)))
                messages += client.rest()
                assert password
                seen.append(
                    [
                        (
                            message.name,
                            {name: text.replace(user, "someone") for name, text in error_fields(message).items()}
                            if message.name == "ErrorResponse"
                            else {name: shape(value) for name, value in message.fields.items()},
                            challenge.split(b",")[2],
                        )
                        for message in messages
                    ]
                )
    assert all(one == seen[0] for one in seen)
    assert seen[0][-1][1]["C"] == "28P01"
    assert len(set(salts)) == 2, "a user's salt must be the same every time, also of a user who does not exist"


def test_nothing_about_databases_or_routes_is_told_before_the_password_is_right(
    two_servers: TwoServers, data_plane: DataPlaneFactory
) -> None:
    rules = {"rules": [{"database": "main", "backend": "primary"}]}
    under_test = data_plane(two_servers.configuration(routing=rules))
    for database in ("main", "nowhere"):
        with under_test.wire() as client:
            error = client.authenticate("postgres", "wrong", database)
            assert error_fields(error)["M"] == 'password authentication failed for user "postgres"'
    with under_test.wire() as client:
        assert client.authenticate("postgres", "postgres", "nowhere").name == "AuthenticationOk"
        assert sqlstate(client.last_words()) == "3D000"


def test_what_stands_behind_the_proof_in_the_same_segment_is_run_once_it_is_right(pooled: RunningDataPlane) -> None:
    """A query behind a wrong proof never runs; behind a right one it does, as in PostgreSQL."""
    with pooled.wire() as client:
        begin_login(client, "proof")
        client.send(typed(PASSWORD, WRONG_PROOFS["another nonce"]) + query("SELECT 'must not run'"))
        error = client.last_words()
        assert sqlstate(error) in ("08P01", "28P01")
    assert_healthy(pooled)


def test_a_client_that_stays_after_its_refusal_is_closed_nevertheless(pooled: RunningDataPlane) -> None:
    with pooled.wire() as client:
        client.send(startup(None))
        pooled.wait_until_unused()
    with pooled.wire() as client:
        client.log_in()
        client.send(typed(0))
        pooled.wait_until_unused()
