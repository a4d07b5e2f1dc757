"""Somebody between a client and a server, who ends TLS with a certificate of his own and reads everything."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from selectors import EVENT_READ, DefaultSelector
from types import TracebackType

from tests.certificates import Certificate
from tests.integration.wire import SSL_REQUEST, Address

Change = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    return data


def without_plus(data: bytes) -> bytes:
    """An AuthenticationSASL without SCRAM-SHA-256-PLUS; anything else as it is."""
    return data.replace(
        b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
    )


class Interceptor:
    """Listens on `address`; `encrypts`: it speaks TLS to the server too.  `change` sees what the server says."""

    def __init__(
        self, target: Address, certificate: Certificate, *, encrypts: bool = True, change: Change = unchanged
    ) -> None:
        self._target = target
        self._encrypts = encrypts
        self._change = change
        self._to_clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._to_clients.load_cert_chain(certificate.cert, certificate.key)
        self._to_servers = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._to_servers.check_hostname = False
        self._to_servers.verify_mode = ssl.CERT_NONE
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._listening.getsockname()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Interceptor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # closing alone would leave `accept` waiting
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._start(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(plain)
            assert plain.recv(len(SSL_REQUEST), socket.MSG_WAITALL) == SSL_REQUEST
            plain.sendall(b"S")
            client = stack.enter_context(self._to_clients.wrap_socket(plain, server_side=True))
            server = stack.enter_context(socket.create_connection(self._target))
            if self._encrypts:
                server.sendall(SSL_REQUEST)
                assert server.recv(1) == b"S"
                server = stack.enter_context(self._to_servers.wrap_socket(server))
            self._relay(client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with DefaultSelector() as selector:
            selector.register(client, EVENT_READ, (server, unchanged))
            selector.register(server, EVENT_READ, (client, self._change))
            while True:
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    destination, change = key.data
                    data = source.recv(1 << 20)
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        data += source.recv(1 << 20)
                    if not data:
                        return
                    destination.sendall(change(data))
