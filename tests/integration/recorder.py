"""A relay between clients and a server that records what passed, in the order in which it passed."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

from pgpooler.demo.postgres import PostgresServer
from spec.listener import Heard, Listener
from spec.messages import Sender

Record = list[tuple[Sender, bytes]]
"""The bytes of one connection; empty ones mean that this side has ended it."""


class Recorder:
    """A relay between clients and a server that records every connection's bytes in the order they passed."""

    def __init__(self, server: PostgresServer) -> None:
        self.target = (server.host, server.port)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.connections: list[Record] = []
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            record: Record = []
            self.connections.append(record)
            self._start(self._relay, client, record)

    def _relay(self, client: socket.socket, record: Record) -> None:
        # One thread for both directions: what is recorded first also happened first.
        with client, socket.create_connection(self.target) as server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, (Sender.FRONTEND, server))
            selector.register(server, selectors.EVENT_READ, (Sender.BACKEND, client))
            while True:
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    sender, destination = key.data
                    try:
                        data = source.recv(65536)
                        record.append((sender, data))
                        destination.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return

    def stop(self) -> None:
        """Accept no more, and wait until every connection is over."""
        # Closing alone would leave `accept` waiting.
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for thread in self.threads:
            thread.join()

    def heard(self) -> list[list[Heard]]:
        """What was said on each connection, in order of their beginning."""
        self.stop()
        conversations = []
        for record in self.connections:
            listener = Listener()
            conversations.append([heard for sender, data in record for heard in listener.hear(sender, data)])
            assert listener.rest == {Sender.FRONTEND: b"", Sender.BACKEND: b""}
        return conversations
