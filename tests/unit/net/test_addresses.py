"""Socket addresses as people write them, and what every connection wants."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from pgpooler.net.addresses import ip_address, peer_name, tune


@pytest.mark.parametrize(
    ("family", "address", "name"),
    [
        (socket.AF_INET, ("10.0.0.1", 5000), "10.0.0.1:5000"),
        (socket.AF_INET6, ("::1", 5000, 0, 0), "[::1]:5000"),
        (socket.AF_UNIX, "", "unix"),
    ],
)
def test_the_other_end_is_named(family: int, address: object, name: str) -> None:
    """W29: IPv6 and unix sockets are spoken too."""
    with socket.socket(family) as connection:
        assert peer_name(connection, address) == name


@pytest.mark.parametrize(
    ("family", "address", "expected"),
    [
        (socket.AF_INET, ("10.0.0.1", 5000), IPv4Address("10.0.0.1")),
        (socket.AF_INET6, ("::1", 5000, 0, 0), IPv6Address("::1")),
        (socket.AF_INET6, ("fe80::1%eth0", 5000, 0, 2), IPv6Address("fe80::1")),
        (socket.AF_INET6, ("::ffff:10.0.0.1", 5000, 0, 0), IPv4Address("10.0.0.1")),
        (socket.AF_UNIX, "", None),
    ],
)
def test_the_address_of_the_other_end_is_a_value(family: int, address: object, expected: object) -> None:
    with socket.socket(family) as connection:
        assert ip_address(connection, address) == expected


def test_every_connection_sends_at_once_and_notices_a_dead_peer() -> None:
    with socket.socket(socket.AF_INET) as connection:
        tune(connection)
        assert not connection.getblocking()
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_unix_socket_needs_only_not_to_block() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        tune(connection)
        assert not connection.getblocking()
