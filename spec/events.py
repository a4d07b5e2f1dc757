"""What happens on the connections of a pooler: the events that `pooling` judges."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from spec.codec import Instance


class Side(enum.Enum):
    """Which side of the pooler a connection is on."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class Said:
    """A message: read by the pooler from its peer, or written to it.  `data` is its bytes."""

    side: Side
    connection: int
    instance: Instance
    data: bytes


@dataclass(frozen=True)
class Leased:
    """From now on this client holds this server connection."""

    client: int
    server: int


@dataclass(frozen=True)
class Released:
    """The lease is over; `lost`: because one of the two connections is."""

    client: int
    server: int
    lost: bool = False


@dataclass(frozen=True)
class Canceled:
    """A cancel request with this client's key made the pooler send one to this server connection."""

    client: int
    server: int


@dataclass(frozen=True)
class Gone:
    """A connection has ended, on whichever side it began."""

    side: Side
    connection: int


Event: TypeAlias = Said | Leased | Released | Canceled | Gone
