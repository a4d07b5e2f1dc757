"""Servers that are broken, foreign or malicious, in memory: what the client is told, and what the operator reads.

tests/integration/test_hostile_servers.py plays the same on sockets.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgpooler.config.model import Backend
from pgpooler.errors import PeerError
from pgpooler.pooling.parameters import REPORTED_LIMIT
from pgpooler.pooling.server_login import LOGIN_LIMIT
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import make_verifier
from pgpooler.protocol.scram import ScramServer
from tests.memory import MemoryPort
from tests.scripted import Client, Setting, frame, query

Answer = bytes | Callable[[bytes], bytes]

PATIENCE = 10.0  # server_connect_timeout
SALT = b"salty salt 16 by"
OK = messages.authentication(codes.AUTHENTICATION_OK)
SASL = messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(["SCRAM-SHA-256"]))
KEY = messages.backend_key_data(1, b"abcd")
READY = messages.ready_for_query(codes.IDLE)
PARAMETER = messages.parameter_status("name", "value")
NOTICE = frame("N", b"SNOTICE\0Mhello\0\0")


class Hostile:
    """The far end of a server connection: gives one answer to each thing it hears, and then none."""

    def __init__(self, port: MemoryPort, answers: list[Answer], leaves: bool) -> None:
        self.port = port
        self.answers = answers
        self.leaves = leaves
        self.stalled = False
        self.heard = bytearray()
        port.far = self

    def receive(self, data: bytes) -> None:
        self.heard += data
        if self.answers:
            answer = self.answers.pop(0)
            self.port.say(answer if isinstance(answer, bytes) else answer(data))
        if self.leaves and not self.answers:
            self.port.leave()

    def ended(self) -> None:
        self.port.leave()


def challenge(
    make_nonce: Callable[[bytes], bytes], salt: bytes = base64.b64encode(SALT), iterations: bytes = b"1"
) -> Answer:
    """An AuthenticationSASLContinue whose nonce is made from the client's."""

    def answer(heard: bytes) -> bytes:
        nonce = make_nonce(heard.rpartition(b"r=")[2])
        payload = b"r=%b,s=%b,i=%b" % (nonce, salt, iterations)
        return messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, payload)

    return answer


def longer(nonce: bytes) -> bytes:
    return nonce + b"x"


def payload(data: bytes) -> bytes:
    return messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, data)


def final(data: bytes) -> bytes:
    return messages.authentication(codes.AUTHENTICATION_SASL_FINAL, data)


def without(attribute: bytes) -> Answer:
    """A challenge in which this attribute is missing."""

    def answer(heard: bytes) -> bytes:
        attributes = (b"r=" + longer(heard.rpartition(b"r=")[2]), b"s=" + base64.b64encode(SALT), b"i=1")
        kept = (part for part in attributes if not part.startswith(attribute))
        return messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, b",".join(kept))

    return answer


CASES: dict[str, tuple[list[Answer], str, str]] = {
    # -- SCRAM
    "nonce of 64 kB": ([SASL, challenge(lambda nonce: nonce + b"x" * 65_536)], "08006", '"r" has 65560 bytes'),
    "nonce of 2 MB": ([SASL, challenge(lambda nonce: nonce + b"x" * 2_000_000)], "08P01", "invalid message length"),
    "nonce not longer": ([SASL, challenge(lambda nonce: nonce)], "08006", "does not extend"),
    "another nonce": ([SASL, challenge(lambda nonce: b"x" * 50)], "08006", "does not extend"),
    "no iterations": ([SASL, challenge(longer, iterations=b"0")], "08006", 'count "0" is not a positive'),
    "2^31 iterations": ([SASL, challenge(longer, iterations=b"2147483648")], "08006", "is not a positive number"),
    "2^31 - 1 iterations": ([SASL, challenge(longer, iterations=b"2147483647")], "08006", "asks for 2147483647"),
    "many iterations": ([SASL, challenge(longer, iterations=b"many")], "08006", "is not a positive number"),
    "a salt of 64 kB": ([SASL, challenge(longer, salt=b"YQ==" * 16384)], "08006", '"s" has 65536 bytes'),
    "no nonce": ([SASL, without(b"r=")], "08006", 'expected attribute "r"'),
    "no salt": ([SASL, without(b"s=")], "08006", 'expected attribute "s"'),
    "no iteration count": ([SASL, without(b"i=")], "08006", 'attribute "i" is missing'),
    "empty challenge": ([SASL, payload(b"")], "08006", 'expected attribute "r"'),
    "an extension": ([SASL, payload(b"m=x")], "08006", "requires an extension"),
    "wrong signature": (
        [SASL, challenge(longer), final(b"v=" + base64.b64encode(bytes(32)))],
        "08006",
        "signature is wrong: it does not know the password",
    ),
    "no signature": ([SASL, challenge(longer), final(b"")], "08006", 'expected attribute "v"'),
    "an error in SCRAM": ([SASL, challenge(longer), final(b"e=other-error")], "08006", '"other-error"'),
    "lets in before its proof": ([SASL, challenge(longer), OK + KEY + READY], "08P01", "without proving"),
    "lets in instead of SCRAM": ([SASL, OK + KEY + READY], "08P01", "without proving"),
    "wants the password too": (
        [SASL, messages.authentication(codes.AUTHENTICATION_CLEARTEXT_PASSWORD)],
        "08P01",
        "in the middle of SCRAM",
    ),
    # -- errors
    "error without fields": ([frame("E", b"\0")], "XX000", "without a message"),
    "error without a body": ([frame("E", b"")], "XX000", "without a message"),
    "error without an end": ([frame("E", b"SFATAL\0C53300\0Mfull")], "53300", "full"),
    "error without a SQLSTATE": ([frame("E", b"SFATAL\0Mfull\0\0")], "XX000", "full"),
    "error with a strange SQLSTATE": ([frame("E", b"SFATAL\0C\r\n\xff\0Mfull\0\0")], "XX000", "full"),
    "error that is not UTF-8": ([frame("E", b"SFATAL\0M\xff\xfe\0\0")], "XX000", "^\udcff\udcfe$"),
    # -- order
    "ready before it let us in": ([READY], "08P01", "type 'Z' before it let us in"),
    "parameters before it let us in": ([PARAMETER], "08P01", "type 'S' before it let us in"),
    "a key before it let us in": ([KEY], "08P01", "type 'K' before it let us in"),
    "rows": ([frame("D", b"\0\0")], "08P01", "type 'D' during the login"),
    "a row after it let us in": ([OK + frame("D", b"\0\0")], "08P01", "type 'D' during the login"),
    # -- without end
    "endless parameters": ([OK + PARAMETER * 200_000], "08P01", f"more than {LOGIN_LIMIT} bytes"),
    "endless notices": ([NOTICE * 200_000], "08P01", f"more than {LOGIN_LIMIT} bytes"),
    "endless keys": ([OK + KEY * 200_000], "08P01", f"more than {LOGIN_LIMIT} bytes"),
    "says nothing": ([], "08006", r"no login within 10 s \(server_connect_timeout\)"),
    "stops in a message": ([SASL[:9]], "08006", "no login within 10 s"),
    # -- protocol versions
    "negotiates without being asked": (
        [messages.negotiate_protocol_version(codes.PROTOCOL_3_0, [])],
        "08P01",
        "negotiates what it was not asked for",
    ),
    "negotiates a higher version": (
        [messages.negotiate_protocol_version(codes.PROTOCOL_3_2, [])],
        "08P01",
        "negotiates what it was not asked for",
    ),
    "negotiates after it let us in": (
        [OK + messages.negotiate_protocol_version(codes.PROTOCOL_3_0, ["_pq_.x"])],
        "08P01",
        "type 'v' during the login",
    ),
    "a long key in protocol 3.0": ([OK + messages.backend_key_data(1, bytes(32))], "08P01", "cancel key of 32 bytes"),
}


def hostile(answers: list[Answer], *, leaves: bool = False, chunk: int = 1 << 16) -> tuple[Setting, Client, Hostile]:
    """A client whose pool finds such a server, and as much time as a login may take."""
    backend = Backend(name="primary", host="pg1", user="pooler", password="the secret")
    setting = Setting(server_connect_timeout=PATIENCE, backends=(backend,))
    setting.world.chunk = chunk
    servers: list[Hostile] = []

    def serve(port: MemoryPort, pool: object) -> None:
        servers.append(Hostile(port, list(answers), leaves))

    setting.world.serve = serve
    client = Client(setting.world)
    setting.world.pass_time(PATIENCE)
    return setting, client, servers[0]


def check_refused(setting: Setting, client: Client, server: Hostile) -> PeerError:
    """The client is told, the operator reads which backend it was, and the server has learnt nothing."""
    assert client.over
    (told,) = client.errors
    assert told.severity == "FATAL"
    assert told.detail is not None
    assert "primary (pg1:5432)" in told.detail
    (warning,) = (text for level, _, text in setting.world.log_lines if level == "warning")
    assert "backend=primary (pg1:5432)" in warning
    assert f"reason=login failed: {told.message}" in warning
    assert b"the secret" not in server.heard
    assert setting.world.counts()["used"] == 0
    setting.world.check_limits()
    return told


@pytest.mark.parametrize("case", CASES)
def test_a_server_that_does_not_let_us_in_is_named_to_the_operator_and_told_to_the_client(case: str) -> None:
    answers, sqlstate, complaint = CASES[case]
    told = check_refused(*hostile(answers))
    assert told.sqlstate == sqlstate
    assert re.search(complaint, told.message)


@pytest.mark.parametrize("case", [case for case in CASES if "endless" not in case and "MB" not in case])
def test_it_makes_no_difference_in_what_pieces_it_says_so(case: str) -> None:
    answers, _, _ = CASES[case]
    whole, pieces = check_refused(*hostile(answers)), check_refused(*hostile(answers, chunk=7))
    assert (whole.sqlstate, whole.message) == (pieces.sqlstate, pieces.message)


@pytest.mark.parametrize("said", [b"", b"R", SASL[:9], OK, OK + KEY])
def test_a_server_that_leaves_during_the_login_is_named_and_told_too(said: bytes) -> None:
    told = check_refused(*hostile([said], leaves=True))
    assert told.sqlstate == "08006"
    assert told.message == "the server ended the connection during the login (end of file)"


FIELDS = {
    b"S": b"FATAL",
    b"V": b"FATAL",
    b"C": b"53300",
    b"M": b"full",
    b"D": b"detail",
    b"H": b"hint",
    b"P": b"1",
    b"\xff": b"?",
}


@given(fields=st.lists(st.sampled_from(sorted(FIELDS))), ended=st.booleans(), more=st.binary(max_size=5))
@example(fields=[], ended=False, more=b"")
@example(fields=list(FIELDS), ended=True, more=b"")
def test_an_error_may_lack_any_field(fields: list[bytes], ended: bool, more: bytes) -> None:
    """CVE-2026-6666: PgBouncer ended at one without a SQLSTATE."""
    body = b"".join(field + FIELDS[field] + b"\0" for field in fields) + b"\0" * ended
    told = check_refused(*hostile([frame("E", body + more * ended)]))
    assert told.sqlstate == ("53300" if b"C" in fields else "XX000")
    assert told.message == ("full" if b"M" in fields else "the server sent an error without a message")
    assert told.hint == ("hint" if b"H" in fields else None)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([SASL, OK, KEY, READY, PARAMETER, NOTICE]), max_size=6))
def test_whatever_a_server_says_in_its_login_the_client_is_let_in_or_told(said: list[bytes]) -> None:
    setting, client, server = hostile([b"".join(said)], leaves=True)
    assert client.over
    assert len(client.sqlstates) == 1
    assert b"the secret" not in server.heard
    assert setting.world.counts()["used"] == 0


def test_a_server_that_does_everything_right_is_let_alone() -> None:
    """The servers above fail for the reason they name."""
    scram = ScramServer(make_verifier(b"the secret", salt=SALT), "pooler")

    def first(heard: bytes) -> bytes:
        data = messages.read_sasl_initial_response(heard[codes.HEADER :])[1]
        return messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, scram.receive(data))

    def last(heard: bytes) -> bytes:
        return final(scram.receive(heard[codes.HEADER :])) + OK + PARAMETER + KEY + READY

    setting, client, _ = hostile([SASL, first, last])
    assert client.logged_in
    assert ("S", b"name\0value\0") in client.received
    assert [level for level, _, _ in setting.world.log_lines if level == "warning"] == []


# -- in the session ----------------------------------------------------------------------------------------------------


def test_parameters_without_end_in_a_session_end_it() -> None:
    def tell(heard: bytes) -> bytes:
        return b"".join(messages.parameter_status(f"name{number}", "x" * 100_000) for number in range(20))

    setting, client, _ = hostile([OK + KEY + READY, tell])
    client.say(query("SELECT 1"))
    setting.world.settle()
    assert client.over
    assert client.sqlstates == ["08P01"]
    assert client.errors[0].message == f"the server reports parameters of more than {REPORTED_LIMIT} characters"
    assert setting.world.counts()["used"] == 0
