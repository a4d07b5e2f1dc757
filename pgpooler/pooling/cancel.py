"""Cancel keys: minted for clients, looked up for cancel requests (protocol-flow-canceling-requests).

A key is PgPooler's own, one per client connection; what it reaches is decided when the request comes: the server
connection that the client holds at that moment, or nothing.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pgpooler.protocol import codes

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession

CANCEL_KEY_3_2 = 32  # bytes; a middleware should not use up all 256


class Cancels:
    """Which client a cancel key means."""

    __slots__ = ("_clients",)

    def __init__(self) -> None:
        self._clients: dict[tuple[int, bytes], ClientSession] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def mint(self, client: ClientSession, process_id: int, version: int) -> bytes:
        """Make a key for the client: 4 bytes in protocol 3.0 and 3.1, 32 from 3.2 on."""
        length = CANCEL_KEY_3_2 if version >= codes.PROTOCOL_3_2 else codes.CANCEL_KEY_3_0
        key = secrets.token_bytes(length)
        while (process_id, key) in self._clients:
            key = secrets.token_bytes(length)
        self._clients[process_id, key] = client
        return key

    def forget(self, process_id: int, cancel_key: bytes) -> None:
        """The client is gone."""
        self._clients.pop((process_id, cancel_key), None)

    def find(self, process_id: int, cancel_key: bytes) -> ClientSession | None:
        """Return the client whose key this is."""
        return self._clients.get((process_id, cancel_key))
