"""Free TCP ports for servers, safe against other demonstrations and test processes that choose one at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import sys
from collections.abc import Iterator

LOWEST = 20_000
HIGHEST = 32_767
"""Ports above this belong to the client sockets of the kernel (Linux: net.ipv4.ip_local_port_range)."""
ATTEMPTS = 200
SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
ANSWER_TIMEOUT = 5.0


class PortReservation:
    """A port that was free and that no other process using this module takes until `release`.

    Nothing listens on it yet.  The claim is an abstract unix socket with the port in its name: the kernel frees it
    when its process ends, however that happens, and no file is left.  Only Linux has these; elsewhere the port is
    merely known to have been free.
    """

    def __init__(self, number: int, claim: socket.socket | None) -> None:
        self.number = number
        self._claim = claim

    def release(self) -> None:
        """Let others choose the port."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Two sockets may share an address with SO_REUSEADDR until one of them listens.
            probe.listen(1)
        except OSError:
            return False
    return True


def is_answered(host: str, port: int) -> bool:
    """Whether something that speaks PostgreSQL's protocol serves the port; that a port listens says less.

    Any answer to an SSLRequest will do (manual: protocol-message-formats).
    """
    with contextlib.suppress(OSError), socket.create_connection((host, port), ANSWER_TIMEOUT) as connection:
        connection.sendall(SSL_REQUEST)
        return connection.recv(1) != b""
    return False


def reserve() -> PortReservation:
    """Choose a free port below the kernel's own range and claim it."""
    for port in _candidates():
        claim = _claim(port)
        if claim is not None or not sys.platform.startswith("linux"):
            if is_free(port):
                return PortReservation(port, claim)
            if claim is not None:
                claim.close()
    raise OSError(errno.EADDRINUSE, f"no free TCP port found between {LOWEST} and {HIGHEST}")


def _candidates() -> Iterator[int]:
    # Not the seeded global generator: tests that seed it alike would all choose the same ports.
    chooser = random.SystemRandom()
    return (chooser.randint(LOWEST, HIGHEST) for _ in range(ATTEMPTS))


def _claim(port: int) -> socket.socket | None:
    """An abstract unix socket that stands for the port, or None if another process holds it."""
    if not sys.platform.startswith("linux"):
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        claim.bind(f"\0pgpooler-port-{os.getuid()}-{port}")
        return claim
    claim.close()
    return None
