"""spec.codec is right: bytes written down by hand, round trips, and faults at the offset where they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec import strategies
from spec.codec import (
    Instance,
    Malformed,
    Unsayable,
    backend,
    decode,
    encode,
    format_of,
    frontend,
    message_end,
    pieces,
    read,
    split,
)
from spec.messages import MESSAGES, VERSIONS, Message, Phase, Sender, Version, in_force

F, B = Sender.FRONTEND, Sender.BACKEND

BY_HAND = [
    (frontend("Query", query=b"select 1"), b"Q\0\0\0\x0dselect 1\0"),
    (frontend("Sync"), b"S\0\0\0\4"),
    (frontend("Parse", statement=b"s", query=b"q", types=(23, 0)), b"P\0\0\0\x12s\0q\0\0\2\0\0\0\x17\0\0\0\0"),
    (
        frontend("Bind", portal=b"", statement=b"s", formats=(1,), values=(None, b"xy"), result_formats=(0, 1)),
        b"B\0\0\0\x1d\0s\0" + b"\0\1\0\1" + b"\0\2\xff\xff\xff\xff\0\0\0\2xy" + b"\0\2\0\0\0\1",
    ),
    (frontend("Describe", kind=b"S", target=b"s"), b"D\0\0\0\7Ss\0"),
    (frontend("Execute", portal=b"", limit=7), b"E\0\0\0\x09\0\0\0\0\7"),
    (
        frontend("FunctionCall", function=1598, formats=(), arguments=(b"a",), result_format=1),
        b"F\0\0\0\x13\0\0\x06\x3e\0\0\0\1\0\0\0\1a\0\1",
    ),
    (backend("AuthenticationOk"), b"R\0\0\0\x08\0\0\0\0"),
    (backend("AuthenticationMD5Password", salt=b"salt"), b"R\0\0\0\x0c\0\0\0\5salt"),
    (backend("AuthenticationSASL", mechanisms=(b"A", b"B")), b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"),
    (backend("BackendKeyData", process_id=258, key=b"keys"), b"K\0\0\0\x0c\0\0\1\2keys"),
    (backend("ReadyForQuery", status=b"I"), b"Z\0\0\0\5I"),
    (backend("ErrorResponse", fields=((b"S", b"ERROR"), (b"M", b"no"))), b"E\0\0\0\x10SERROR\0Mno\0\0"),
    (backend("DataRow", values=(b"", None)), b"D\0\0\0\x0e\0\2\0\0\0\0\xff\xff\xff\xff"),
    (
        backend("RowDescription", columns=((b"c", 1, 2, 23, 4, -1, 0),)),
        b"T\0\0\0\x1a\0\1c\0\0\0\0\1\0\2\0\0\0\x17\0\4\xff\xff\xff\xff\0\0",
    ),
    (backend("CopyInResponse", format=0, column_formats=(0, 0)), b"G\0\0\0\x0b\0\0\2\0\0\0\0"),
    (backend("NegotiateProtocolVersion", version=0x30002, options=(b"o",)), b"v\0\0\0\x0e\0\3\0\2\0\0\0\1o\0"),
    (backend("FunctionCallResponse", result=None), b"V\0\0\0\x08\xff\xff\xff\xff"),
]

STARTUP_BY_HAND = [
    (frontend("SSLRequest"), b"\0\0\0\x08\x04\xd2\x16\x2f"),
    (frontend("GSSENCRequest"), b"\0\0\0\x08\x04\xd2\x16\x30"),
    (frontend("CancelRequest", process_id=1, key=b"keys"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1keys"),
    (frontend("StartupMessage", minor=2, parameters=((b"user", b"u"),)), b"\0\0\0\x10\0\3\0\2user\0u\0\0"),
]

every_format = pytest.mark.parametrize(
    ("message", "version"),
    [(message, version) for version in VERSIONS for message in in_force(version)],
    ids=lambda x: f"{x.sender.value}-{x.name}" if isinstance(x, Message) else f"{x[0]}.{x[1]}",
)


def phase_of(message: Message) -> Phase:
    return message.phase or Phase.SESSION


@pytest.mark.parametrize(("instance", "data"), BY_HAND, ids=lambda x: x.name if isinstance(x, Instance) else "")
def test_a_message_has_the_bytes_the_manual_prescribes(instance: Instance, data: bytes) -> None:
    assert encode(instance) == data
    assert decode(data, instance.sender) == instance


@pytest.mark.parametrize(("instance", "data"), STARTUP_BY_HAND, ids=lambda x: x.name if isinstance(x, Instance) else "")
def test_a_startup_packet_has_the_bytes_the_manual_prescribes(instance: Instance, data: bytes) -> None:
    assert encode(instance) == data
    assert decode(data, F, Phase.STARTUP) == instance


@every_format
@given(data=st.data())
def test_what_was_encoded_is_decoded_to_the_same_values(
    message: Message, version: Version, data: st.DataObject
) -> None:
    instance = data.draw(strategies.instances_of(message))
    assert decode(encode(instance, version), message.sender, phase_of(message), version) == instance


@given(version=strategies.versions(), sender=st.sampled_from(Sender), data=st.data())
def test_what_is_decoded_is_encoded_to_the_same_bytes(version: Version, sender: Sender, data: st.DataObject) -> None:
    raw = data.draw(st.binary(max_size=60)) if data.draw(st.booleans()) else b""
    length = (len(raw) + 4).to_bytes(4, "big")
    letters = [m.type for m in MESSAGES if m.sender is sender and m.type not in (b"", b"p")]
    whole = data.draw(st.sampled_from(letters)) + length + raw
    try:
        instance = decode(whole, sender, version=version)
    except Malformed:
        return
    assert encode(instance, version) == whole


@given(sender=st.sampled_from(Sender), data=st.data())
def test_a_stream_is_split_into_its_messages(sender: Sender, data: st.DataObject) -> None:
    stream = data.draw(strategies.streams(sender))
    rest = data.draw(st.just(b"") | strategies.instances(sender).map(lambda instance: encode(instance)[:-1]))
    encoded = strategies.encoded(stream)
    assert split(encoded + rest, sender) == ([encode(instance) for instance in stream], rest)
    reading = read(encoded + rest, sender)
    assert (list(reading.instances), reading.rest, reading.fault) == (stream, rest, None)


@given(instance=strategies.instances(B))
def test_pieces_are_the_encoded_message(instance: Instance) -> None:
    assert b"".join(piece.data for piece in pieces(instance)) == encode(instance)


@pytest.mark.parametrize(
    ("data", "sender", "offset"),
    [
        (b"?\0\0\0\4", B, 0),
        (b"Z\0\0\0\3", B, 1),
        (b"Z\xff\xff\xff\xff", B, 1),
        (b"Z\x7f\xff\xff\xff", B, 1),
        (b"S\0\0\x27\x11", F, 1),
        (b"Z\0\0\0\5X", B, 5),
        (b"Z\0\0\0\6II", B, 6),
        (b"Z\0\0\0\4", B, 5),
        (b"Z\0\0\0\5", B, 5),
        (b"Z\0\0\0\5IZ", B, 6),
        (b"Q\0\0\0\5x", F, 5),
        (b"D\0\0\0\x0a\0\1\xff\xff\xff\xfe", B, 7),
        (b"R\0\0\0\x08\0\0\0\1", B, 5),
        (b"p\0\0\0\5\0", F, 0),
        (b"E\0\0\0\5\0", B, 5),
    ],
)
def test_a_fault_is_found_where_it_is(data: bytes, sender: Sender, offset: int) -> None:
    with pytest.raises(Malformed) as caught:
        decode(data, sender)
    assert caught.value.offset == offset


def test_a_fault_in_a_stream_counts_from_its_beginning() -> None:
    good = encode(backend("ReadyForQuery", status=b"I"))
    for bad, offset in ((b"?", 0), (b"Z\0\0\0\1", 1), (b"Z\0\0\0\5X", 5)):
        reading = read(good + bad, B)
        assert reading.instances == (backend("ReadyForQuery", status=b"I"),)
        assert reading.fault is not None
        assert reading.fault.offset == len(good) + offset


def test_an_unknown_type_and_a_bad_length_are_refused_before_the_body_arrives() -> None:
    assert message_end(b"", B) is None
    assert message_end(b"Z\0\0", B) is None
    assert message_end(b"Z\0\0\0\5", B) == 6
    for data in (b"?", b"D\x40\0\0\0"):
        with pytest.raises(Malformed):
            message_end(data, B)


@pytest.mark.parametrize(
    "instance",
    [
        frontend("Query", query=b"a\0b"),
        frontend("Describe", kind=b"X", target=b""),
        frontend("Execute", portal=b"", limit=2**31),
        frontend("Sync", extra=1),
        frontend("Query"),
        frontend("CancelRequest", process_id=1, key=b"123"),
        frontend("Describe", kind=b"S", target=b"x" * 10_000),
        backend("AuthenticationSASL", mechanisms=(b"",)),
        backend("DataRow", values=(b"",) * 65_536),
        backend("ErrorResponse", fields=()),
        backend("ErrorResponse", fields=((b"\0", b""),)),
    ],
    ids=lambda instance: instance.name,
)
def test_values_that_do_not_fit_are_not_encoded(instance: Instance) -> None:
    with pytest.raises(Unsayable):
        encode(instance)


def test_counts_reach_65535() -> None:
    row = backend("DataRow", values=(None,) * 65_535)
    assert decode(encode(row), B) == row


def test_a_long_cancel_key_belongs_to_protocol_3_2() -> None:
    long = backend("BackendKeyData", process_id=1, key=bytes(32))
    assert decode(encode(long, (3, 2)), B, version=(3, 2)) == long
    with pytest.raises(Unsayable):
        encode(long, (3, 0))
    with pytest.raises(Malformed):
        decode(encode(long, (3, 2)), B, version=(3, 0))


def test_nobody_sends_the_other_sides_messages() -> None:
    with pytest.raises(KeyError, match="no message DataRow from the frontend"):
        format_of(F, "DataRow")
