"""What the supervisor and its workers say to each other, and the channel they say it over.

The messages are data: each is a struct with a tag, sent as JSON behind a length of four bytes over a pair of unix
sockets.  A message that expects an answer is numbered (`Channel.call`); the answer carries the same number.

    supervisor -> worker   Start, Reload, Pause, Resume, Drain, Stop, SnapshotRequest
    worker -> supervisor   Ready, Reloaded, Paused, Resumed, Drained, Snapshot, Failed (each an answer),
                           LogRecord (unasked)

A channel never blocks the event loop.  It ends in one way: `closed_by` says why, calls under way fail with
`ChannelClosed`, and `receive` raises it once everything that had arrived is read.  A worker whose channel has ended
has lost its supervisor and ends too, so that a killed supervisor leaves no orphan.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import msgspec

from pgpooler.config.model import Configuration
from pgpooler.errors import PgPoolerError

VERSION: Final = 1
"""Version of the messages; both ends must speak the same, else the channel is closed with a clear reason."""

MAX_FRAME: Final = 32 * 1024 * 1024
"""Longest message in bytes: room for a configuration with 100,000 users, or a snapshot of as many clients."""

MAX_LOG_BACKLOG: Final = 1024 * 1024
"""Bytes that may wait to be written before log records are dropped (and counted) instead of queued."""

MAX_INBOX: Final = 1024
"""Messages that may wait to be received; beyond it the peer is no longer read.  Log records do not wait here."""

SEND_TIMEOUT: Final = 10.0
"""Seconds after which a peer that reads nothing counts as broken."""

_LENGTH: Final = struct.Struct("!I")


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Begin to serve with this configuration; answered by Ready or Failed.

    `mock_secret` decides the salts that clients are shown; the same for every worker, so that they do not change when
    one is replaced.  Empty: the worker makes one of its own.  `paused`: serve nobody before Resume.
    """

    configuration: Configuration
    mock_secret: bytes = b""
    paused: bool = False


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker serves.  `implementation` is "python" or "compiled", `event_loop` e.g. "uvloop 0.21"."""

    implementation: str = ""
    event_loop: str = ""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request could not be done; everything is as it was before."""

    message: str


class Reload(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Go on with this configuration; answered by Reloaded or Failed."""

    configuration: Configuration


class Reloaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The new configuration is in force.  `notes` are for the log: what was closed, what waits for a restart."""

    notes: tuple[str, ...] = ()


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let clients wait and close server connections as they come back; answered by Paused, without waiting for them."""


class Paused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """No server connection is leased any more; `in_use` are still held or being opened."""

    in_use: int = 0


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Serve those who wait, and go on; answered by Resumed."""


class Resumed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Clients are served again."""


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Accept nobody, let transactions end, close what is left after `timeout` seconds; answered by Drained."""

    timeout: float


class Drained(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nobody is served any more; the worker ends by itself.  `closed` clients had to be closed at the timeout."""

    closed: int = 0


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End now, without an answer: tell clients first (57P01), or with `immediately` just close everything."""

    immediately: bool = False


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How is it?  Answered by Snapshot."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Pools, connections and counters at one moment, as plain JSON values."""

    values: dict[str, Any]


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One line for the log, which the supervisor alone writes; see `pgpooler.process.logs`."""

    created: float
    level: int
    name: str
    message: str
    process: int
    session: int = 0
    exception: str = ""
    fields: dict[str, str | int | float | bool | None] = {}
    dropped: int = 0


Message = (
    Start
    | Ready
    | Failed
    | Reload
    | Reloaded
    | Pause
    | Paused
    | Resume
    | Resumed
    | Drain
    | Drained
    | Stop
    | SnapshotRequest
    | Snapshot
    | LogRecord
)
MessageType = TypeVar("MessageType", bound=msgspec.Struct)


class ControlError(PgPoolerError):
    """The other process could not do, or did not understand, what it was asked."""


class ChannelClosed(ControlError):
    """The channel has ended: the peer closed it, died, broke the rules, or we closed it."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One message on the wire: version, number of the request (0: no answer expected), is it an answer, message."""

    version: int
    number: int
    is_answer: bool
    message: Message


class FrameHead(msgspec.Struct, frozen=True, array_like=True):
    """The fields of a frame that every version has in this place."""

    version: int


_frame_decoder: Final = msgspec.json.Decoder(Frame)
_head_decoder: Final = msgspec.json.Decoder(FrameHead)
_frame_encoder: Final = msgspec.json.Encoder()


def encode(message: Message, number: int = 0, *, is_answer: bool = False) -> bytes:
    """The bytes of a message, its length in front; ControlError when it is longer than MAX_FRAME."""
    body = _frame_encoder.encode(Frame(VERSION, number, is_answer, message))
    if len(body) > MAX_FRAME:
        raise ControlError(f"{type(message).__name__} of {len(body)} bytes is longer than {MAX_FRAME} bytes")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """The frame in `body` (without its length); ControlError when it is of another version or no frame at all."""
    try:
        head = _head_decoder.decode(body)
        if head.version != VERSION:
            raise ControlError(
                f"the other process speaks version {head.version} of the control messages, this one {VERSION}: "
                "restart PgPooler after an upgrade"
            )
        return _frame_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlError(f"not a control message: {error}") from error


class Request:
    """A message that arrived, and the way to answer it."""

    __slots__ = ("_channel", "message", "number")

    def __init__(self, channel: Channel, number: int, message: Message) -> None:
        self._channel = channel
        self.number = number
        self.message = message

    def __repr__(self) -> str:
        return f"<Request {self.number} {type(self.message).__name__}>"

    async def answer(self, message: Message) -> None:
        """Send the answer, once; nothing is sent when none is expected.  ChannelClosed when the channel has ended."""
        number, self.number = self.number, 0
        if number:
            await self._channel.write(encode(message, number, is_answer=True))


class Channel:
    """One end of the socket pair between supervisor and worker; open it with `Channel.open`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_log: Callable[[LogRecord], None] | None = None,
    ) -> None:
        self.closed_by: str | None = None
        self.dropped = 0
        self._reader = reader
        self._writer = writer
        self._on_log = on_log
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[Message | ChannelClosed]] = {}
        self._inbox: asyncio.Queue[Request | None] = asyncio.Queue(MAX_INBOX)
        self._task = asyncio.get_running_loop().create_task(self._read_all(), name="control channel")

    @classmethod
    async def open(cls, endpoint: socket.socket | int, *, on_log: Callable[[LogRecord], None] | None = None) -> Channel:
        """Take over one end of a pair of unix stream sockets, given as a socket or as the descriptor of one.

        `on_log` is called for each LogRecord as it arrives; without it they are received like other messages.
        """
        if isinstance(endpoint, int):
            endpoint = socket.socket(fileno=endpoint)
        endpoint.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=endpoint)
        return cls(reader, writer, on_log)

    def __repr__(self) -> str:
        return f"<Channel {self.closed_by or 'open'} calls={len(self._answers)} dropped={self.dropped}>"

    async def send(self, message: Message) -> None:
        """Send a message that has no answer.  ChannelClosed when the channel has ended, or the peer reads nothing."""
        await self.write(encode(message))

    async def call(self, message: Message, expected: type[MessageType], timeout: float | None) -> MessageType:
        """Send a request and wait for its answer, at most `timeout` seconds (TimeoutError; None: as long as it takes).

        ControlError with the peer's words when it answers Failed; ChannelClosed when the channel ends before.
        """
        self._numbers += 1
        number = self._numbers
        answer: asyncio.Future[Message | ChannelClosed] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(timeout):
                await self.write(encode(message, number))
                received = await answer
        finally:
            del self._answers[number]
        if isinstance(received, expected):
            return received
        if isinstance(received, ChannelClosed):
            raise received
        if isinstance(received, Failed):
            raise ControlError(received.message)
        raise ControlError(f"{type(message).__name__} was answered by {type(received).__name__}")

    async def receive(self) -> Request:
        """The next message that is no answer, in the order of arrival; ChannelClosed after the last one."""
        request = None
        if self.closed_by is None or not self._inbox.empty():
            request = await self._inbox.get()
        if request is None:
            raise ChannelClosed(f"the control channel is closed: {self.closed_by}")
        return request

    async def __aiter__(self) -> AsyncIterator[Request]:
        """Every message that is no answer, until the channel ends."""
        while True:
            try:
                yield await self.receive()
            except ChannelClosed:
                return

    def log(self, record: LogRecord) -> None:
        """Send a log record without ever waiting: dropped and counted when too much waits to be written.

        The first record that gets through again carries the number that did not.  Call it in the loop's thread.
        """
        if self.closed_by is not None or self._writer.transport.get_write_buffer_size() > MAX_LOG_BACKLOG:
            self.dropped += 1
            return
        if self.dropped:
            record = msgspec.structs.replace(record, dropped=self.dropped)
        try:
            self._writer.write(encode(record))
        except ControlError:
            self.dropped += 1
        else:
            self.dropped = 0

    async def close(self) -> None:
        """Write what still waits (for at most SEND_TIMEOUT seconds), then end the channel.  Safe to call twice."""
        self._end("closed by this process")
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def write(self, frame: bytes) -> None:
        """Write the bytes of one frame; the channel ends when the peer takes none of it for SEND_TIMEOUT seconds."""
        if self.closed_by is not None:
            raise ChannelClosed(f"the control channel is closed: {self.closed_by}")
        self._writer.write(frame)
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._writer.drain()
        except (TimeoutError, OSError) as error:
            reason = "the other process reads nothing" if isinstance(error, TimeoutError) else str(error)
            self._end(reason)
            self._writer.transport.abort()
            raise ChannelClosed(f"the control channel is closed: {self.closed_by}") from error

    async def _read_all(self) -> None:
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                if length > MAX_FRAME:
                    raise ControlError(f"a control message of {length} bytes was announced, {MAX_FRAME} are allowed")
                await self._dispatch(decode(await self._reader.readexactly(length)))
        except asyncio.IncompleteReadError as error:
            self._end("the other process ended in the middle of a message" if error.partial else "the peer closed it")
        except (ControlError, OSError) as error:
            self._end(str(error))
        self._writer.transport.abort()

    async def _dispatch(self, frame: Frame) -> None:
        message = frame.message
        if frame.is_answer:
            waiting = self._answers.get(frame.number)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif self._on_log is not None and isinstance(message, LogRecord):
            self._on_log(message)
        else:
            await self._inbox.put(Request(self, frame.number, message))

    def _end(self, reason: str) -> None:
        """The one way a channel ends."""
        if self.closed_by is not None:
            return
        self.closed_by = reason
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result(ChannelClosed(f"the control channel is closed: {reason}"))
        if not self._inbox.full():
            self._inbox.put_nowait(None)
