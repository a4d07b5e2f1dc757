"""Accepts clients on the listening sockets that the supervisor handed down."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

from pgpooler.net.addresses import ip_address, peer_name, system_user, tune
from pgpooler.net.relay import Relay
from pgpooler.pooling.service import Service

ACCEPTS = 16  # clients taken per wake-up, so that a storm of them does not delay those who are in
PAUSE = 0.5  # seconds without accepting after the process ran out of descriptors or memory
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

logger = logging.getLogger("pgpooler.listener")


class Listener:
    """One listening socket.  Clients beyond what the system can hold wait in its backlog."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, relay: Relay, service: Service, listening: socket.socket
    ) -> None:
        self._loop = loop
        self._relay = relay
        self._service = service
        self._socket = listening
        self._resume: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._open = True
        loop.add_reader(listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                self._exhausted(error)
                break
            tune(connection)
            port = self._relay.add(connection, peer_name(connection, address))
            port.address = ip_address(connection, address)
            if self._service.access.asks_system:
                port.system_user = system_user(connection)
            self._service.accept(port, self._relay.clock())
        self._relay.rearm()

    def _exhausted(self, error: OSError) -> None:
        if error.errno not in EXHAUSTED:
            logger.error("cannot accept a client: %s", error)
            return
        logger.error("cannot accept clients for %s s: %s; raise the limit of open files (ulimit -n)", PAUSE, error)
        self._loop.remove_reader(self._socket.fileno())
        self._resume = self._loop.call_later(PAUSE, self._again)

    def _again(self) -> None:
        self._resume = None
        if self._open:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Accept nobody any more.  The socket itself stays open in the supervisor."""
        if self._open:
            self._open = False
            if self._resume is not None:
                self._resume.cancel()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
