"""Startup packets are read as the spec reads them, and answered as PostgreSQL answers them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from pgpooler.errors import PeerError, ProtocolViolation
from pgpooler.protocol import codes, messages
from pgpooler.protocol.startup import CancelRequest, EncryptionRequest, Startup, StartupMessage, UnsupportedProtocol
from spec import strategies
from spec.codec import Instance, decode, encode, format_of, frontend
from spec.messages import VERSIONS, Phase, Sender
from spec.mutators import NearValid, Verdict, near_valid

RESERVED = {b"user", b"database", b"options", b"replication"}
OPTION = b"_pq_."

# Where PostgreSQL 18 itself is more lenient than the manual, and we follow it: it does not look at the length of a
# request for encryption, and compares a cancel key of any length from 1 to 256.
LENIENT = {"bytes behind the last field", "cancel key of 3 bytes", "long cancel key in 3.0"}


def receive(instance: Instance) -> StartupMessage | CancelRequest | EncryptionRequest:
    return Startup().receive(encode(instance)[4:])


def startup(*parameters: tuple[bytes, bytes], minor: int = 0) -> Instance:
    return frontend("StartupMessage", minor=minor, parameters=parameters)


def accepted(*parameters: tuple[bytes, bytes], minor: int = 0) -> StartupMessage:
    packet = receive(startup(*parameters, minor=minor))
    assert isinstance(packet, StartupMessage)
    return packet


def text(raw: bytes) -> str:
    return messages.decode_text(raw)


@given(instance=strategies.startup_messages())
def test_a_startup_message_is_read_as_the_spec_wrote_it(instance: Instance) -> None:
    pairs: Any = instance["parameters"]
    said = dict(pairs)
    assume(not said.keys() & (RESERVED - {b"user"}))
    packet = receive(instance)
    assert isinstance(packet, StartupMessage)
    assert packet.user == packet.database == text(said.pop(b"user")[:63])
    options = [name for name, _ in pairs if name.startswith(OPTION)]
    assert packet.unknown_options == tuple(text(name) for name in options)
    assert packet.parameters == {text(name): text(value) for name, value in said.items() if not name.startswith(OPTION)}


@given(
    minor=st.integers(0, 4) | st.integers(0, 65_535),
    options=st.lists(strategies.texts().map(OPTION.__add__), max_size=3),
)
def test_a_negotiation_is_sent_if_and_only_if_there_is_something_to_negotiate(minor: int, options: list[bytes]) -> None:
    packet = accepted((b"user", b"u"), *((option, b"on") for option in options), minor=minor)
    agreed = (3 << 16) + min(minor, 2)
    assert packet.version == agreed
    if minor <= 2 and not options:
        assert packet.negotiation == b""
        return
    event("negotiated")
    negotiation = decode(packet.negotiation, Sender.BACKEND)
    assert negotiation.name == "NegotiateProtocolVersion"
    assert negotiation.fields == {"version": agreed, "options": tuple(options)}


@given(version=strategies.versions(), data=st.data())
def test_a_cancel_request_is_read_as_the_spec_wrote_it(version: tuple[int, int], data: st.DataObject) -> None:
    message = format_of(Sender.FRONTEND, "CancelRequest", version)
    instance = data.draw(strategies.instances_of(message))
    process_id = instance["process_id"]
    assert isinstance(process_id, int)
    assert receive(instance) == CancelRequest(process_id % 2**32, instance["key"])  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 257, 1000])
def test_a_cancel_key_of_a_length_that_cannot_be_is_refused(size: int) -> None:
    body = encode(frontend("CancelRequest", process_id=1, key=b"1234"))[4:12]
    with pytest.raises(ProtocolViolation):
        Startup().receive(body + bytes(size))


def test_a_cancel_request_without_a_process_id_is_refused() -> None:
    for size in range(4, 8):
        with pytest.raises(ProtocolViolation):
            Startup().receive(encode(frontend("CancelRequest", process_id=1, key=b"1234"))[4 : 4 + size])


def test_encryption_is_requested_at_most_once_each() -> None:
    conversation = Startup()
    ssl, gss = (encode(frontend(name))[4:] for name in ("SSLRequest", "GSSENCRequest"))
    assert conversation.receive(gss) == EncryptionRequest("GSSAPI")
    assert conversation.receive(ssl) == EncryptionRequest("SSL")
    for again in (ssl, gss):
        with pytest.raises(UnsupportedProtocol, match="unsupported frontend protocol 1234"):
            conversation.receive(again)
    assert isinstance(conversation.receive(encode(startup((b"user", b"u")))[4:]), StartupMessage)


@given(major=st.integers(0, 65_535).filter(lambda major: major != 3), minor=st.integers(0, 65_535))
def test_other_major_versions_are_refused(major: int, minor: int) -> None:
    version = (major << 16) + minor
    assume(version not in (codes.CANCEL_REQUEST, codes.SSL_REQUEST, codes.GSSENC_REQUEST))
    with pytest.raises(UnsupportedProtocol) as caught:
        Startup().receive(version.to_bytes(4, "big") + b"user\0u\0\0")
    assert caught.value.sqlstate == "0A000"
    assert caught.value.before_protocol_3 is (0 < major < 3 or (major == 0 and minor > 0))
    assert caught.value.message.endswith("server supports 3.0 to 3.2")
    assert caught.value.unframed()[0:1] == b"E"
    assert caught.value.unframed()[-2:] == b"\n\0"


def test_the_versions_we_speak_are_those_of_the_spec() -> None:
    assert tuple((version >> 16, version & 0xFFFF) for version in (codes.PROTOCOL_3_0, codes.PROTOCOL_3_2)) == VERSIONS


@pytest.mark.parametrize("parameters", [(), ((b"user", b""),), ((b"database", b"d"),)])
def test_a_startup_message_without_a_user_is_refused(parameters: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(PeerError, match="no PostgreSQL user name specified") as caught:
        receive(startup(*parameters))
    assert caught.value.sqlstate == "28000"


def test_the_database_is_the_users_unless_another_is_named() -> None:
    assert accepted((b"user", b"u")).database == "u"
    assert accepted((b"user", b"u"), (b"database", b"")).database == "u"
    assert accepted((b"database", b"d"), (b"user", b"u")).database == "d"


def test_long_names_are_cut_as_postgresql_cuts_them() -> None:
    packet = accepted((b"user", b"u" * 64), (b"database", b"d" * 100))
    assert (packet.user, packet.database) == ("u" * 63, "d" * 63)


def test_the_last_of_two_equal_parameters_counts() -> None:
    assert accepted((b"user", b"a"), (b"TimeZone", b"x"), (b"TimeZone", b"y"), (b"user", b"b")).user == "b"


@pytest.mark.parametrize(
    ("value", "replication"),
    [
        (b"database", "logical"),
        (b"true", "physical"),
        (b"on", "physical"),
        (b"1", "physical"),
        (b"Yes", "physical"),
        (b"t", "physical"),
        (b"false", ""),
        (b"off", ""),
        (b"0", ""),
        (b"of", ""),
        (b"no", ""),
    ],
)
def test_replication_is_spelt_as_postgresql_spells_booleans(value: bytes, replication: str) -> None:
    assert accepted((b"user", b"u"), (b"replication", value)).replication == replication


@pytest.mark.parametrize("value", [b"", b"o", b"maybe", b"truest", b"DATABASE"])
def test_replication_that_is_no_boolean_is_refused(value: bytes) -> None:
    with pytest.raises(PeerError, match='invalid value for parameter "replication"'):
        receive(startup((b"user", b"u"), (b"replication", value)))


@given(instance=strategies.startup_messages(), cut=st.data())
def test_a_startup_message_that_is_cut_short_is_refused(instance: Instance, cut: st.DataObject) -> None:
    body = encode(instance)[4:]
    # A cut in the middle of a name, one byte long so far, stands where the last zero should: PostgreSQL takes it.
    short = body[: cut.draw(st.integers(4, len(body) - 1))]
    assume(short[-2:-1] != b"\0" and len(short) != 5)
    with pytest.raises(PeerError):
        Startup().receive(short)


@given(near=near_valid(Sender.FRONTEND, Phase.STARTUP))
def test_a_nearly_valid_packet_never_crashes_and_is_refused_where_the_spec_refuses_it(near: NearValid) -> None:
    body = near.data[4:]
    length = int.from_bytes(near.data[:4], "big")
    assume(length == len(near.data) >= 8)  # other lengths are the framer's affair
    try:
        Startup().receive(body)
    except PeerError:
        event("refused")
    else:
        assert near.verdict is not Verdict.MALFORMED or near.mutator in LENIENT, near


@given(body=st.binary(min_size=4, max_size=60), version=st.booleans())
def test_garbage_never_crashes(body: bytes, version: bool) -> None:
    packet = codes.PROTOCOL_3_0.to_bytes(4, "big") + body if version else body
    try:
        Startup().receive(packet)
    except PeerError:
        event("refused")


def test_bytes_behind_an_unanswered_request_for_encryption_are_an_attack() -> None:
    for kind, name in (("SSL", "SSL"), ("GSSAPI", "GSSAPI encryption")):
        error = Startup.stuffed(EncryptionRequest(kind))
        assert error.sqlstate == "08P01"
        assert error.message == f"received unencrypted data after {name} request"
