from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.model import Auth, Backend, Configuration, User
from pgpooler.process import control

CONFIGURATION = Configuration(
    backends=(Backend(name="primary", host="127.0.0.1", user="pooler", password="hush-backend"),),
    auth=Auth(users={"alice": User(name="alice", password="hush-user")}),
)

Runner = Callable[[Coroutine[Any, Any, Any]], Any]

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
log_records = st.builds(
    control.LogRecord,
    created=st.floats(0, 4e9),
    level=st.sampled_from([10, 20, 30, 40, 50]),
    name=st.text(),
    message=st.text(),
    process=st.integers(1, 2**22),
    session=st.integers(0, 2**53),
    exception=st.text(),
    fields=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), max_size=3),
    dropped=st.integers(0, 2**31),
)
messages = (
    log_records
    | st.builds(control.Start, configuration=st.just(CONFIGURATION))
    | st.builds(control.Ready, implementation=st.text(), event_loop=st.text())
    | st.builds(control.Failed, message=st.text())
    | st.builds(control.Reloaded, notes=st.lists(st.text(), max_size=3).map(tuple))
    | st.builds(control.Drain, timeout=st.floats(0, 1e6))
    | st.builds(control.Drained, closed=st.integers(0, 2**31))
    | st.builds(control.Stop, immediately=st.booleans())
    | st.builds(control.Snapshot, values=st.dictionaries(st.text(), plain_values, max_size=4))
)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Both event loops: the supervisor runs on the one, the worker on the other."""
    runner: Runner = request.param
    return runner


async def open_pair(**options: Any) -> tuple[control.Channel, control.Channel]:
    ours, theirs = socket.socketpair()
    return await control.Channel.open(ours, **options), await control.Channel.open(theirs.detach())


async def open_raw() -> tuple[control.Channel, socket.socket]:
    """A channel whose peer is a bare socket."""
    ours, theirs = socket.socketpair()
    return await control.Channel.open(ours), theirs


def record(text: str = "hello") -> control.LogRecord:
    return control.LogRecord(created=1.0, level=20, name="test", message=text, process=1)


@given(message=messages, number=st.integers(0, 2**53), is_answer=st.booleans())
def test_a_message_is_the_same_after_encoding_and_decoding(
    message: control.Message, number: int, is_answer: bool
) -> None:
    frame = control.encode(message, number, is_answer=is_answer)
    assert struct.unpack("!I", frame[:4]) == (len(frame) - 4,)
    assert control.decode(frame[4:]) == control.Frame(control.VERSION, number, is_answer, message)


@given(sent=st.lists(messages, min_size=1, max_size=5), data=st.data())
def test_messages_arrive_in_order_however_their_bytes_are_cut(sent: list[control.Message], data: st.DataObject) -> None:
    stream = b"".join(control.encode(message) for message in sent)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))

    async def scenario() -> list[control.Message]:
        channel, raw = await open_raw()
        with raw:
            for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                raw.sendall(stream[start:stop])
                await asyncio.sleep(0)
        received = [request.message async for request in channel]
        await channel.close()
        return received

    assert asyncio.run(scenario()) == sent


@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_control_error_or_a_frame_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(control.ControlError):
        assert isinstance(control.decode(body), control.Frame)


def test_answers_find_their_calls_in_any_order(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        calls = [asyncio.create_task(supervisor.call(control.Drain(timeout=t), control.Drained, 10)) for t in (1, 2, 3)]
        requests = [await worker.receive() for _ in calls]
        for request in reversed(requests):
            assert isinstance(request.message, control.Drain)
            await request.answer(control.Drained(closed=int(request.message.timeout)))
        assert [answer.closed for answer in await asyncio.gather(*calls)] == [1, 2, 3]
        await supervisor.close()
        await worker.close()

    run(scenario())


def test_a_request_is_answered_once(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        call = asyncio.create_task(supervisor.call(control.SnapshotRequest(), control.Snapshot, 10))
        request = await worker.receive()
        await request.answer(control.Snapshot(values={"clients": 1}))
        await request.answer(control.Failed(message="too late"))
        assert (await call).values == {"clients": 1}
        await worker.close()
        assert [request.message async for request in supervisor] == []
        await supervisor.close()

    run(scenario())


def test_a_refused_request_raises_the_words_of_the_peer(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        call = asyncio.create_task(supervisor.call(control.Reload(configuration=CONFIGURATION), control.Reloaded, 10))
        await (await worker.receive()).answer(control.Failed(message="pool_mode statement is not there yet"))
        with pytest.raises(control.ControlError, match="pool_mode statement is not there yet"):
            await call
        await supervisor.close()
        await worker.close()

    run(scenario())


def test_a_call_without_an_answer_ends_at_its_timeout_and_the_channel_lives_on(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        with pytest.raises(TimeoutError):
            await supervisor.call(control.SnapshotRequest(), control.Snapshot, 0.01)
        late = await worker.receive()
        await late.answer(control.Snapshot(values={"late": True}))
        call = asyncio.create_task(supervisor.call(control.SnapshotRequest(), control.Snapshot, 10))
        await (await worker.receive()).answer(control.Snapshot(values={"late": False}))
        assert (await call).values == {"late": False}
        await supervisor.close()
        await worker.close()

    run(scenario())


def test_a_closed_peer_ends_calls_and_receiving_after_what_had_arrived(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        await worker.send(control.Failed(message="last words"))
        call = asyncio.create_task(supervisor.call(control.SnapshotRequest(), control.Snapshot, 10))
        await worker.receive()
        await worker.close()
        with pytest.raises(control.ChannelClosed):
            await call
        assert [request.message async for request in supervisor] == [control.Failed(message="last words")]
        with pytest.raises(control.ChannelClosed):
            await supervisor.receive()
        with pytest.raises(control.ChannelClosed):
            await supervisor.send(control.Stop())
        await supervisor.close()
        await supervisor.close()

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack("!I", control.MAX_FRAME + 1), "was announced"),
        (struct.pack("!I", 9) + b"[1,2", "in the middle of a message"),
        (b"\x00\x00", "in the middle of a message"),
        (struct.pack("!I", 3) + b"\xff\xfe\xfd", "not a control message"),
        (struct.pack("!I", 2) + b"{}", "not a control message"),
        (struct.pack("!I", 34) + b'[1,0,false,{"type":"NoSuchThing"}]', "not a control message"),
        (struct.pack("!I", 11) + b'[99,"other"', "not a control message"),
        (struct.pack("!I", 12) + b'[99,"other"]', "version 99"),
    ],
)
def test_a_peer_that_breaks_the_rules_ends_the_channel_with_the_reason(run: Runner, sent: bytes, reason: str) -> None:
    async def scenario() -> None:
        channel, raw = await open_raw()
        with raw:
            raw.sendall(sent)
        with pytest.raises(control.ChannelClosed, match=reason):
            await channel.receive()
        await channel.close()

    run(scenario())


def test_a_message_that_is_too_long_is_refused_before_it_is_sent(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        with pytest.raises(control.ControlError, match="longer than"):
            await worker.send(control.Snapshot(values={"x": "x" * control.MAX_FRAME}))
        await worker.send(control.Drained())
        assert (await supervisor.receive()).message == control.Drained()
        await supervisor.close()
        await worker.close()

    run(scenario())


def test_log_records_go_to_their_own_function_and_do_not_fill_the_inbox(run: Runner) -> None:
    async def scenario() -> None:
        seen: list[control.LogRecord] = []
        supervisor, worker = await open_pair(on_log=seen.append)
        for number in range(control.MAX_INBOX + 10):
            worker.log(record(str(number)))
        await worker.send(control.Drained())
        assert (await supervisor.receive()).message == control.Drained()
        assert [line.message for line in seen] == [str(number) for number in range(control.MAX_INBOX + 10)]
        await supervisor.close()
        await worker.close()

    run(scenario())


def test_log_records_are_dropped_and_counted_while_nobody_reads(run: Runner) -> None:
    async def scenario() -> None:
        channel, raw = await open_raw()
        sent = 0
        while not channel.dropped:
            channel.log(record("x" * 4096))
            sent += 1
        assert sent * 4096 < control.MAX_LOG_BACKLOG * 4, "memory is bounded"
        channel.log(record("lost too"))
        assert channel.dropped == 2

        async def read_all() -> list[control.LogRecord]:
            reader = await control.Channel.open(raw)
            found = [request.message async for request in reader]
            await reader.close()
            return [message for message in found if isinstance(message, control.LogRecord)]

        reading = asyncio.create_task(read_all())
        while channel.dropped:
            await asyncio.sleep(0.001)
            channel.log(record("after the gap"))
        await channel.close()
        received = await reading
        assert len([line for line in received if line.message.startswith("x")]) == sent - 1
        assert received[-1].message == "after the gap"
        assert received[-1].dropped >= 2

    run(scenario())


def test_a_log_record_on_a_closed_channel_is_only_counted(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        await supervisor.close()
        with pytest.raises(control.ChannelClosed):
            await worker.receive()
        worker.log(record())
        assert worker.dropped == 1
        await worker.close()

    run(scenario())


def test_a_peer_that_reads_nothing_ends_the_channel(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SEND_TIMEOUT", 0.05)

    async def scenario() -> None:
        channel, raw = await open_raw()
        with raw, pytest.raises(control.ChannelClosed, match="reads nothing"):
            await channel.send(control.Snapshot(values={"x": "x" * 8 * 1024 * 1024}))
        await channel.close()

    run(scenario())


def test_a_configuration_survives_the_channel_and_its_secrets_are_not_printed(run: Runner) -> None:
    async def scenario() -> None:
        supervisor, worker = await open_pair()
        await supervisor.send(control.Start(configuration=CONFIGURATION))
        message = (await worker.receive()).message
        assert message == control.Start(configuration=CONFIGURATION)
        assert "hush" not in repr(message)
        assert "hush" in msgspec.json.encode(message).decode()
        await supervisor.close()
        await worker.close()

    run(scenario())
