"""systemd: telling it how we are (sd_notify) and taking the sockets it opened for us (socket activation).

Both are small protocols over the environment, a datagram socket and inherited descriptors: no library is needed, and
without systemd everything here does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_DESCRIPTOR: Final = 3
"""systemd passes its sockets as the descriptors from this one on."""

_ACTIVATION_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Notifier:
    """Tells the service manager the state of this process; silent when none asked (NOTIFY_SOCKET is not set)."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self.address = environment.pop("NOTIFY_SOCKET", "")

    def ready(self, status: str) -> None:
        """The service serves: after start, and after a reload."""
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """The service has begun to end."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        text = "\n".join(" ".join(line.splitlines()) for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as endpoint:
                endpoint.sendto(text.encode(), address)
        except OSError:
            pass  # a service manager that does not listen must not stop the service


def passed_sockets(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets systemd opened for this process, in its order; none without socket activation.

    The variables are removed, so that no child takes the sockets for its own.  Raises OSError when a descriptor is not
    a listening stream socket.
    """
    process, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    for name in _ACTIVATION_VARIABLES:
        environment.pop(name, None)
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    return [_adopt(descriptor) for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))]


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    listener = socket.socket(fileno=descriptor)
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(
            f"systemd passed descriptor {descriptor}, which is no listening stream socket: "
            "use ListenStream= in the .socket unit, and Accept=no"
        )
    listener.setblocking(False)
    return listener
