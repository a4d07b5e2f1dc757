"""Socket addresses as people write them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


def peer_name(connection: socket.socket, address: Any) -> str:
    """Name the other end: `10.0.0.1:5000`, `[::1]:5000`, or `unix` with the process that connected."""
    if connection.family == socket.AF_UNIX:
        return "unix"
    return f"[{address[0]}]:{address[1]}" if connection.family == socket.AF_INET6 else f"{address[0]}:{address[1]}"


def ip_address(connection: socket.socket, address: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the other end's address without port and zone; None for a unix socket.

    A client that reached an IPv6 socket over IPv4 counts as what it is: an IPv4 client.
    """
    if connection.family == socket.AF_UNIX:
        return None
    if connection.family == socket.AF_INET:
        return ipaddress.IPv4Address(address[0])
    found = ipaddress.IPv6Address(address[0].partition("%")[0])
    return found.ipv4_mapped or found


def tune(connection: socket.socket) -> None:
    """Send at once, and notice a peer that is gone: what every connection of a pooler wants."""
    connection.setblocking(False)
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
