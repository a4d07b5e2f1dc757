"""The framer cuts every stream exactly as the spec does, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from pgpooler.errors import ProtocolViolation
from pgpooler.protocol import codes
from pgpooler.protocol.framer import LONGEST, Framer, watching
from spec import strategies
from spec.codec import Instance, Malformed, encode, frontend, split
from spec.messages import MESSAGES, MOST_LENGTH, Phase, Sender
from spec.mutators import NearValid, near_valid

PASS, DROP = "pass", "drop"  # what becomes of a watched message; an int: look at that many bytes, then pass
BAD_LENGTHS = (0, 1, 2, 3, LONGEST + 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
ALL_TYPES = bytes(range(1, 256))

Fate = str | int
fates = st.sampled_from((PASS, DROP)) | st.integers(0, 20)


@dataclass
class Session:
    """Uses a framer as a session does: one buffer for all that is received, which is overwritten every time."""

    fates: Mapping[int, Fate]
    framer: Framer = field(default_factory=Framer)
    out: bytes = b""
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    most_kept: int = 0

    def __post_init__(self) -> None:
        self.watched = watching(bytes(self.fates))
        self.buffer = bytearray()

    def receive(self, chunk: bytes) -> None:
        """Take one chunk, look at what is watched, and give the buffer back."""
        self.buffer = bytearray(b"\xaa" * 3 + chunk + b"\xaa" * 3)
        self.framer.feed(self.buffer, 3, 3 + len(chunk))
        try:
            self._cut()
        finally:
            self._flush()
            self.framer.keep()
            self.buffer[:] = b"\x55" * len(self.buffer)
            self.most_kept = max(self.most_kept, len(self.framer.kept))

    def _cut(self) -> None:
        framer = self.framer
        while kind := framer.run(self.watched):
            fate = self.fates[kind]
            if fate == DROP:
                if not framer.take(LONGEST):
                    return
                self.seen.append((kind, framer.body()))
                self._flush()
                framer.drop()
                continue
            if isinstance(fate, int):
                if not framer.head(fate):
                    return
                self.seen.append((kind, framer.body()[:fate]))
            else:
                self.seen.append((kind, b""))
            framer.pass_on()

    def _flush(self) -> None:
        self.out += self.framer.buffer[self.framer.mark : self.framer.position]
        self.framer.passed()


def fed(fates: Mapping[int, Fate], chunks: Iterable[bytes]) -> Session:
    session = Session(fates)
    for chunk in chunks:
        session.receive(chunk)
    return session


def refused(session: Session, chunks: Iterable[bytes]) -> bool:
    """Whether the framer refuses one of these chunks."""
    try:
        for chunk in chunks:
            session.receive(chunk)
    except ProtocolViolation:
        return True
    return False


def expected(fates: Mapping[int, Fate], whole: list[bytes]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """What is passed on and what is seen of a list of whole messages."""
    out, seen = b"", []
    for message in whole:
        kind, body = message[0], message[5:]
        fate = fates.get(kind)
        if fate != DROP:
            out += message
        if fate is not None:
            seen.append((kind, body if fate == DROP else body[:fate] if isinstance(fate, int) else b""))
    return out, seen


@st.composite
def watched_types(draw: st.DrawFn, sender: Sender) -> dict[int, Fate]:
    """Draw which types are watched, and what becomes of each."""
    letters = sorted({m.type[0] for m in MESSAGES if m.sender is sender and m.type})
    return draw(st.dictionaries(st.sampled_from(letters), fates, max_size=len(letters)))


@given(sender=st.sampled_from(Sender), data=st.data())
def test_runs_and_takes_are_the_same_however_the_bytes_arrive(sender: Sender, data: st.DataObject) -> None:
    stream = strategies.encoded(data.draw(strategies.streams(sender, least=1)))
    table = data.draw(watched_types(sender))
    session = fed(table, data.draw(strategies.chunks(stream)))
    assert (session.out, session.seen) == expected(table, split(stream, sender)[0])
    assert session.framer.at_boundary()


@given(sender=st.sampled_from(Sender), length=st.sampled_from(BAD_LENGTHS), data=st.data())
def test_a_bad_length_is_refused_after_everything_before_it_was_passed_on(
    sender: Sender, length: int, data: st.DataObject
) -> None:
    stream = strategies.encoded(data.draw(strategies.streams(sender)))
    table = data.draw(watched_types(sender))
    kind = data.draw(st.integers(1, 255))
    bad = bytes((kind,)) + length.to_bytes(4, "big") + data.draw(st.binary(max_size=9))
    session = Session(table)
    assert refused(session, data.draw(strategies.chunks(stream + bad)))
    assert (session.out, session.seen) == expected(table, split(stream, sender)[0])


@pytest.mark.parametrize("length", BAD_LENGTHS)
@pytest.mark.parametrize("watched", [True, False])
def test_a_bad_length_is_refused_as_soon_as_the_header_is_whole(length: int, watched: bool) -> None:
    header = b"Q" + length.to_bytes(4, "big")
    session = Session({ord("Q"): PASS} if watched else {})
    for byte in header[:4]:
        session.receive(bytes((byte,)))
    with pytest.raises(ProtocolViolation, match="invalid message length"):
        session.receive(header[4:])


@pytest.mark.parametrize("length", [4, 5, LONGEST])
def test_lengths_up_to_the_bound_are_accepted(length: int) -> None:
    session = fed({}, [b"d" + length.to_bytes(4, "big")])
    assert session.framer.passing == length - 4


def test_the_bound_is_that_of_the_spec() -> None:
    assert LONGEST == codes.LARGE_MESSAGE_LIMIT == MOST_LENGTH


@pytest.mark.parametrize("fate", [None, PASS, DROP, 0, 3, 100])
@pytest.mark.parametrize("cut", range(1, 12))
def test_a_header_may_be_split_at_every_byte(fate: Fate | None, cut: int) -> None:
    stream = encode(frontend("Query", query=b"ab")) + encode(frontend("Sync"))
    table = {} if fate is None else {ord("Q"): fate}
    session = fed(table, [stream[:cut], stream[cut:]])
    assert (session.out, session.seen) == expected(table, split(stream, Sender.FRONTEND)[0])


@pytest.mark.parametrize("fate", [None, PASS, DROP, 3])
def test_a_stream_may_be_cut_at_any_two_places(fate: Fate | None) -> None:
    query, sync = encode(frontend("Query", query=b"abcd")), encode(frontend("Sync"))
    stream = query + sync + query
    table = {} if fate is None else {ord("Q"): fate}
    for first in range(1, len(stream)):
        for second in range(first + 1, len(stream)):
            session = fed(table, [stream[:first], stream[first:second], stream[second:]])
            assert (session.out, session.seen) == expected(table, [query, sync, query]), (first, second)


def test_a_head_is_seen_as_soon_as_its_bytes_are_there() -> None:
    session = Session({ord("Q"): 3})
    message = encode(frontend("Query", query=b"abcdef"))
    session.receive(message[:7])
    assert session.seen == []
    session.receive(message[7:8])
    assert session.seen == [(ord("Q"), b"abc")]


@given(near=near_valid(phase=Phase.SESSION), data=st.data())
def test_nearly_valid_messages_are_cut_as_the_spec_cuts_them_or_refused(near: NearValid, data: st.DataObject) -> None:
    session = Session(dict.fromkeys(ALL_TYPES, DROP))
    was_refused = refused(session, data.draw(strategies.chunks(near.data)))
    event(f"refused: {was_refused}")
    try:
        whole, rest = split(near.data, near.sender, near.phase, near.version)
    except Malformed:
        # The framer knows the general bounds only; types and their own bounds are the session's business.
        length = int.from_bytes(near.data[1:5], "big")
        within = 4 <= length <= LONGEST
    else:
        within = True
        assert session.seen == [(message[0], message[5:]) for message in whole]
        assert session.framer.at_boundary() == (rest == b"")
    assert was_refused is not within


@given(data=st.binary(max_size=60), chunked=st.data())
@example(data=b"\0\0\0\0\x08abcd", chunked=None)
def test_garbage_is_cut_or_refused_the_same_way_however_it_arrives(data: bytes, chunked: st.DataObject | None) -> None:
    def outcome(chunks: Iterable[bytes]) -> tuple[bytes, list[tuple[int, bytes]], bool]:
        session = Session(dict.fromkeys(range(0, 256, 2), DROP))
        was_refused = refused(session, chunks)
        return session.out, session.seen, was_refused

    other = [data[i : i + 1] for i in range(len(data))] if chunked is None else chunked.draw(strategies.chunks(data))
    assert outcome([data] if data else []) == outcome(other)


# --- large messages


def test_messages_above_a_mebibyte_stream_through_without_being_kept() -> None:
    size = 8 << 20
    header = b"D" + (size + 4).to_bytes(4, "big")
    session = fed({ord("Z"): DROP}, [header[:3], header[3:]])
    for _ in range(size // 65536):
        session.receive(bytes(65536))
    session.receive(b"Z\0\0\0\5I")
    assert len(session.out) == size + 5
    assert session.seen == [(ord("Z"), b"I")]
    assert session.most_kept <= 5


def test_the_head_of_a_large_message_is_seen_and_the_rest_streams() -> None:
    body = b"portal\0statement\0" + bytes(4 << 20)
    message = b"B" + (len(body) + 4).to_bytes(4, "big") + body
    session = fed({ord("B"): 17}, (message[i : i + 4096] for i in range(0, len(message), 4096)))
    assert session.seen == [(ord("B"), b"portal\0statement\0")]
    assert session.out == message
    assert session.most_kept <= 4096


def test_a_message_that_announces_more_than_may_be_taken_is_refused_before_it_arrives() -> None:
    framer = Framer()
    buffer = bytearray(b"p\0\1\0\0")
    framer.feed(buffer, 0, len(buffer))
    assert framer.run(watching(b"p")) == ord("p")
    with pytest.raises(ProtocolViolation, match="invalid message length"):
        framer.take(codes.AUTHENTICATION_LIMIT)


def test_a_message_of_exactly_the_length_that_may_be_taken_is_taken() -> None:
    framer = Framer()
    buffer = bytearray(b"p\0\0\0\x08body")
    framer.feed(buffer, 0, len(buffer))
    assert framer.run(watching(b"p")) == ord("p")
    assert framer.take(8)
    assert framer.body() == b"body"
    with pytest.raises(ProtocolViolation, match="invalid message length") as refused:
        framer.take(7)
    assert refused.value.detail == "The message of type 'p' announces 8 bytes."


def test_unknown_types_can_be_watched() -> None:
    table = watching(b"Q", unknown=codes.FRONTEND_TYPES)
    assert {kind for kind in range(256) if not table[kind]} == set(codes.FRONTEND_TYPES) - {ord("Q")}
    assert not any(watching(b""))


# --- startup packets


@given(packets=st.lists(strategies.startup_packets(), min_size=1, max_size=4), data=st.data())
def test_startup_packets_are_cut_however_they_arrive(packets: list[Instance], data: st.DataObject) -> None:
    stream = strategies.encoded(packets)
    framer, bodies = Framer(), []
    for chunk in data.draw(strategies.chunks(stream)):
        buffer = bytearray(chunk)
        framer.feed(buffer, 0, len(buffer))
        while framer.startup(codes.STARTUP_LIMIT):
            bodies.append(framer.body())
            framer.drop()
        framer.keep()
        buffer[:] = b"\x55" * len(buffer)
    assert bodies == [message[4:] for message in split(stream, Sender.FRONTEND, Phase.STARTUP)[0]]
    assert framer.at_boundary()


@pytest.mark.parametrize("length", [*range(8), 10_005, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_startup_packet_of_a_bad_length_is_refused(length: int) -> None:
    framer = Framer()
    buffer = bytearray(length.to_bytes(4, "big"))
    framer.feed(buffer, 0, 3)
    assert not framer.startup(codes.STARTUP_LIMIT)
    framer.keep()
    framer.feed(buffer, 3, 4)
    with pytest.raises(ProtocolViolation, match="invalid length of startup packet"):
        framer.startup(codes.STARTUP_LIMIT)


@pytest.mark.parametrize("length", [8, 10_000, 10_004])
def test_a_startup_packet_may_be_as_long_as_postgresql_allows(length: int) -> None:
    framer = Framer()
    buffer = bytearray(length.to_bytes(4, "big") + bytes(length - 4))
    framer.feed(buffer, 0, len(buffer))
    assert framer.startup(codes.STARTUP_LIMIT)
    assert len(framer.body()) == length - 4
