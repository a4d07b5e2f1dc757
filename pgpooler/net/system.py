"""The system calls of the data plane, in their Python spelling.

This is the only module with two spellings: a compiled build may replace these few functions by ones that call libc.
Each tells by its number what happened, because an exception per empty socket would cost more than the call.
"""

from __future__ import annotations

import socket

WOULD_BLOCK = -1
BROKEN = -2


def receive(connection: socket.socket, view: memoryview) -> int:
    """recv(2) into `view`: bytes read, 0 at the peer's end, WOULD_BLOCK, or BROKEN when the connection is reset."""
    try:
        return connection.recv_into(view)
    except (BlockingIOError, InterruptedError):
        return WOULD_BLOCK
    except OSError:
        return BROKEN


def send(connection: socket.socket, buffer: bytearray | bytes, start: int, stop: int) -> int:
    """send(2) of buffer[start:stop]: bytes taken, WOULD_BLOCK, or BROKEN when nobody reads any more."""
    try:
        if start == 0 and stop == len(buffer):
            return connection.send(buffer)
        return connection.send(memoryview(buffer)[start:stop])
    except (BlockingIOError, InterruptedError):
        return WOULD_BLOCK
    except OSError:
        return BROKEN
