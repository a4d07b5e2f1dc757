"""Socket addresses as people write them."""

from __future__ import annotations

import socket
from typing import Any


def peer_name(connection: socket.socket, address: Any) -> str:
    """Name the other end: `10.0.0.1:5000`, `[::1]:5000`, or `unix` with the process that connected."""
    if connection.family == socket.AF_UNIX:
        return "unix"
    return f"[{address[0]}]:{address[1]}" if connection.family == socket.AF_INET6 else f"{address[0]}:{address[1]}"


def tune(connection: socket.socket) -> None:
    """Send at once, and notice a peer that is gone: what every connection of a pooler wants."""
    connection.setblocking(False)
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
