"""Messages of any size pass through memory that stays the same (W10, W23)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgpooler.demo.postgres import PostgresServer
from spec.codec import encode, frontend
from tests.integration.data_planes import wait_until
from tests.integration.poolers import Pooler, PoolerFactory
from tests.integration.servers import TwoServers
from tests.integration.wire import SYNC, TERMINATE, Wire, bind, copy_data, execute, parse, query, typed

MIB = 1 << 20
SMALL, LARGE = 8 * MIB, 64 * MIB
ALLOWED = 4 * MIB
"""Bytes by which the worker's memory may grow while a message passes, whatever the size of the message."""


class Worker:
    """The worker process of a PgPooler, and its memory."""

    def __init__(self, pooler: Pooler) -> None:
        (self.process_id,) = [
            process
            for process in pooler.process_ids()
            if b"pgpooler.process.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
        ]

    def memory(self, name: str) -> int:
        """VmRSS (now) or VmHWM (the most there ever was), in bytes (man 5 proc)."""
        for line in Path(f"/proc/{self.process_id}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)

    @property
    def peak(self) -> int:
        return self.memory("VmHWM")

    def forget_peak(self) -> None:
        """Let VmHWM begin again at what is used now."""
        Path(f"/proc/{self.process_id}/clear_refs").write_text("5")


@pytest.fixture
def running(two_servers: TwoServers, pooler: PoolerFactory) -> Pooler:
    return pooler(two_servers.configuration())


@pytest.fixture
def client(running: Pooler) -> Iterator[Wire]:
    with Wire((running.host, running.port)) as client:
        client.log_in()
        yield client
        client.send(TERMINATE)


def read_message(client: Wire) -> tuple[bytes, int]:
    """Type and length of the body of the next message, which is not kept."""
    while len(client.received) < 5:
        client.received += received(client)
    kind, length = client.received[:1], struct.unpack("!I", client.received[1:5])[0] - 4
    left = length - len(client.received[5:])
    client.received = client.received[5 + length :]
    while left > 0:
        data = received(client)
        client.received = data[left:]
        left -= len(data)
    return kind, length


def received(client: Wire) -> bytes:
    data = client.receive(MIB)
    assert data, "the connection was closed"
    return data


def read_until_ready(client: Wire) -> list[tuple[bytes, int]]:
    messages = []
    while not messages or messages[-1][0] != b"Z":
        messages.append(read_message(client))
        assert messages[-1][0] != b"E", messages
    return messages


def send_in_pieces(client: Wire, head: bytes, size: int, tail: bytes = b"") -> None:
    """Send `size` bytes of x between head and tail without having them in memory at once."""
    client.send(head)
    piece = b"x" * MIB
    for _ in range(size // MIB):
        client.send(piece)
    client.send(tail)


def a_row(client: Wire, size: int) -> None:
    client.send(query(f"SELECT repeat('x', {size})"))
    assert (b"D", size + 6) in read_until_ready(client)


def a_parameter(client: Wire, size: int) -> None:
    client.send(parse("SELECT length($1::text)"))
    body = b"\0\0" + struct.pack("!hhi", 0, 1, size)
    head = typed(ord("B"), body, length=4 + len(body) + size + 2)
    send_in_pieces(client, head, size, struct.pack("!h", 0) + execute() + SYNC)
    assert (b"D", 6 + len(str(size))) in read_until_ready(client)


def a_query(client: Wire, size: int) -> None:
    head = b"SELECT 1 /*"
    tail = b"*/\0"
    send_in_pieces(client, typed(ord("Q"), head, length=4 + len(head) + size + len(tail)), size, tail)
    assert (b"D", 7) in read_until_ready(client)


def copy_out(client: Wire, size: int) -> None:
    client.send(query(f"COPY (SELECT repeat('x', 1048575) FROM generate_series(1, {size // MIB})) TO STDOUT"))
    assert sum(length for kind, length in read_until_ready(client) if kind == b"d") == size


def copy_out_in_one_message(client: Wire, size: int) -> None:
    client.send(query(f"COPY (SELECT repeat('x', {size})) TO STDOUT"))
    assert (b"d", size + 1) in read_until_ready(client)


def copy_in(client: Wire, size: int) -> None:
    client.send(query("CREATE TEMPORARY TABLE copied (a text)") + query("COPY copied FROM STDIN"))
    assert read_until_ready(client)
    line = copy_data(b"x" * (MIB - 1) + b"\n")
    for _ in range(size // MIB):
        client.send(line)
    client.send(encode(frontend("CopyDone")))
    read_until_ready(client)
    assert client.values("SELECT count(*), sum(length(a)) FROM copied") == [str(size // MIB), str(size - size // MIB)]
    client.values("DROP TABLE copied")


def copy_in_in_one_message(client: Wire, size: int) -> None:
    client.send(query("CREATE TEMPORARY TABLE copied (a text)") + query("COPY copied FROM STDIN"))
    assert read_until_ready(client)
    send_in_pieces(client, typed(ord("d"), length=4 + size + 1), size, b"\n" + encode(frontend("CopyDone")))
    read_until_ready(client)
    assert client.values("SELECT length(a) FROM copied") == [str(size)]
    client.values("DROP TABLE copied")


TRANSFERS = (a_row, a_parameter, a_query, copy_out, copy_out_in_one_message, copy_in, copy_in_in_one_message)


@pytest.mark.parametrize("transfer", TRANSFERS, ids=lambda transfer: transfer.__name__)
def test_64_mib_pass_with_flat_memory(transfer: Callable[[Wire, int], None], running: Pooler, client: Wire) -> None:
    """W10, W23: what the worker needs does not depend on the size of what passes."""
    worker = Worker(running)
    transfer(client, MIB)
    before = worker.memory("VmRSS")
    worker.forget_peak()
    transfer(client, SMALL)
    small = worker.peak - before
    transfer(client, LARGE)
    large = worker.peak - before
    assert small < ALLOWED
    assert large < ALLOWED
    assert client.values("SELECT 'goes on'") == ["goes on"]


def test_both_directions_at_once_do_not_block_each_other(running: Pooler, client: Wire) -> None:
    """A client that writes its whole pipeline before it reads a byte, with a reader beside: as with PostgreSQL itself.

    64 requests of one MiB go up while 64 replies of one MiB come down.

    Odyssey #1475, Supavisor #993, pgpool-II #136: both sides wrote, and neither read.
    """
    worker = Worker(running)
    before = worker.memory("VmRSS")
    worker.forget_peak()
    request = parse("SELECT $1::text") + bind(b"x" * MIB) + execute() + SYNC
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(64):
                client.send(request)
        except BaseException as failure:
            failures.append(failure)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(64):
        assert (b"D", MIB + 6) in read_until_ready(client)
    writer.join()
    assert failures == []
    assert worker.peak - before < ALLOWED


def test_a_client_that_writes_and_does_not_read_is_slowed_down_and_not_buffered(
    running: Pooler, postgres: PostgresServer
) -> None:
    """W23: as with PostgreSQL itself, its writes stop; the worker does not collect what it sends or should read."""
    worker = Worker(running)
    with Wire((running.host, running.port)) as client:
        client.log_in()
        before = worker.memory("VmRSS")
        worker.forget_peak()
        request = memoryview(query("SELECT repeat('x', 100000)") * 1000)
        client.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < LARGE:
                sent += client.socket.send(request[sent % len(request) :])
        assert sent < LARGE
        assert worker.peak - before < ALLOWED
        client.reset()


def test_a_slow_reader_does_not_make_the_worker_grow(running: Pooler) -> None:
    """W23: a client that reads nothing of a large result for a while, then all of it."""
    worker = Worker(running)
    with Wire((running.host, running.port), receive_buffer=4096) as client:
        client.log_in()
        before = worker.memory("VmRSS")
        worker.forget_peak()
        client.send(query(f"SELECT repeat('x', 1000000) FROM generate_series(1, {LARGE // 1_000_000})"))
        assert client.socket.recv(1, socket.MSG_PEEK)
        wait_until(lambda: is_quiet(worker))
        assert worker.peak - before < ALLOWED
        rows = [length for kind, length in read_until_ready(client) if kind == b"D"]
        assert rows == [1_000_006] * (LARGE // 1_000_000)
        assert worker.peak - before < ALLOWED
        client.send(TERMINATE)


def is_quiet(worker: Worker) -> bool:
    """Whether the process waits, and has not used the processor between two looks."""

    def used() -> list[str]:
        return Path(f"/proc/{worker.process_id}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = used()
    threading.Event().wait(5 / os.sysconf("SC_CLK_TCK"))
    return used() == before


def test_many_slow_readers_at_once_leave_the_others_undisturbed(running: Pooler) -> None:
    worker = Worker(running)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire((running.host, running.port), receive_buffer=4096)) for _ in range(10)]
        for client in slow:
            client.log_in()
        before = worker.memory("VmRSS")
        worker.forget_peak()
        for client in slow:
            client.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 20)"))
        good = stack.enter_context(Wire((running.host, running.port)))
        good.log_in()
        for number in range(100):
            assert good.values(f"SELECT {number}") == [str(number)]
        # Each has at most what was read at once.
        assert worker.peak - before < ALLOWED + len(slow) * 256 * 1024
        for client in slow:
            client.reset()
        good.send(TERMINATE)
