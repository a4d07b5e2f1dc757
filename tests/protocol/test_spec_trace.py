"""A trace is read back as it was written, and a bad one is refused with the line and what is wrong there."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec.messages import Sender
from spec.trace import BadTrace, Event, Writer, parse, read, target_of

F, B = Sender.FRONTEND, Sender.BACKEND
HEADER = '{"trace": 1, "target": "127.0.0.1:5432"}'
SAID = '{"connection": 1, "at": 0.25, "from": "F", "bytes": "00ff"}'
ENDED = '{"connection": 1, "at": 1, "ended": "B"}'


def written(events: list[Event]) -> str:
    file = io.StringIO()
    writer = Writer(file, "127.0.0.1:5432")
    for event in events:
        writer.write(event)
    return file.getvalue()


@st.composite
def event_lists(draw: st.DrawFn) -> list[Event]:
    """Events of a few connections, in which no side goes on after its end."""
    events: list[Event] = []
    ended: set[tuple[int, Sender]] = set()
    for _ in range(draw(st.integers(0, 12))):
        connection, sender = draw(st.integers(1, 3)), draw(st.sampled_from(Sender))
        if (connection, sender) in ended:
            continue
        data = draw(st.binary(max_size=20))
        if not data:
            ended.add((connection, sender))
        events.append(Event(connection, draw(st.integers(0, 10**9)) / 1_000_000, sender, data))
    return events


def test_the_format_is_as_it_is_documented() -> None:
    text = written([Event(1, 0.25, F, b"\x00\xff"), Event(1, 1.0, B)])
    assert text.splitlines() == [HEADER, SAID, '{"connection": 1, "at": 1.0, "ended": "B"}']


@given(event_lists())
def test_what_is_written_is_read_back(events: list[Event]) -> None:
    assert list(parse(io.StringIO(written(events)))) == events


def test_events_know_their_line_and_empty_lines_are_passed_over() -> None:
    events = list(parse([HEADER, SAID, "", "  ", ENDED]))
    assert [(event.line, event.is_end) for event in events] == [(2, False), (5, True)]


def test_a_file_is_read_by_its_path_and_says_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "one.trace"
    path.write_text("\n".join([HEADER, SAID]), encoding="utf-8")
    assert list(read(path)) == [Event(1, 0.25, F, b"\x00\xff")]
    assert target_of(path) == "127.0.0.1:5432"


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (SAID[:30], "this is no JSON"),
        ("[1]", "a line is one JSON object"),
        ("[" * 100_000, "this is no event"),
        (SAID.replace("0.25", "1" * 5_000), "this is no event"),
        (SAID.replace('"connection": 1, ', ""), "the key 'connection' is missing"),
        (SAID.replace('"at": 0.25, ', ""), "the key 'at' is missing"),
        (SAID.replace("bytes", "byte"), "the key 'bytes' is missing"),
        (SAID.replace("{", '{"extra": 1, '), "the key 'extra' is unknown here"),
        (ENDED.replace("{", '{"from": "F", '), "the key 'from' is unknown here"),
        (SAID.replace('"connection": 1', '"connection": 0'), "connection is a whole number from 1, not 0"),
        (SAID.replace('"connection": 1', '"connection": true'), "connection is a whole number from 1, not True"),
        (SAID.replace("0.25", '"now"'), "at is a number of seconds, not 'now'"),
        (SAID.replace("0.25", "-1"), "at is a number of seconds, not -1"),
        (SAID.replace("0.25", "NaN"), "at is a number of seconds, not nan"),
        (SAID.replace("0.25", "1" * 400), "at is a number of seconds"),
        (SAID.replace('"F"', '"C"'), "a side is F (frontend) or B (backend), not 'C'"),
        (ENDED.replace('"B"', "[]"), "a side is F (frontend) or B (backend), not []"),
        (SAID.replace("00ff", "00f"), "bytes are an even number of hexadecimal digits"),
        (SAID.replace("00ff", "select"), "bytes are an even number of hexadecimal digits"),
        (SAID.replace('"00ff"', "[0, 255]"), "bytes are a text of hexadecimal digits, not [0, 255]"),
        (SAID.replace("00ff", ""), "bytes are never empty"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_what_is_wrong(bad: str, what: str) -> None:
    events = parse([HEADER, SAID, bad, ENDED], "traffic.jsonl")
    assert next(events) == Event(1, 0.25, F, b"\x00\xff")
    with pytest.raises(BadTrace) as failure:
        next(events)
    assert str(failure.value).startswith("traffic.jsonl:3: ")
    assert what in str(failure.value)
    assert failure.value.line == 3


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("", "nothing is there"),
        (SAID, "a trace begins with"),
        (HEADER.replace("1,", "2,", 1), "this is format 2; only format 1 is known"),
        (HEADER.replace("1,", "true,", 1), "this is format True"),
        (HEADER.replace('"127.0.0.1:5432"', "5432"), "target is a text, not 5432"),
        ('{"trace": 1}', "the key 'target' is missing"),
        ("COPY", "this is no JSON"),
        ("\x00\x01", "this is no JSON"),
    ],
)
def test_a_file_that_does_not_begin_as_a_trace_is_none(header: str, what: str) -> None:
    with pytest.raises(BadTrace, match="line 1: ") as failure:
        list(parse([header] if header else []))
    assert what in str(failure.value)


@pytest.mark.parametrize("further", [SAID.replace('"F"', '"B"'), ENDED])
def test_nothing_comes_from_a_side_that_has_ended(further: str) -> None:
    with pytest.raises(BadTrace, match="line 3: the backend of connection 1 has ended before"):
        list(parse([HEADER, ENDED, further]))


def test_bytes_that_are_no_text_are_refused_as_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadTrace, match="this is no JSON"):
        list(read(path))
