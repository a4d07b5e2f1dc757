"""Where scripts are played: on a server itself, and on the same server through PgPooler in one of its modes.

In transaction and statement mode a client must not be able to live on one server connection by chance.  The pool has
two of them, and one of ours holds one at any time: between two steps of a script's client the connection that it has
just used is taken, and the other one is given back.  So every step of a client that holds nothing is served by
another server connection than the step before, without any measuring of time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgpooler.pooling.states import ServerState
from pgpooler.process.worker import DataPlane
from spec.conformance.target import Target
from tests.integration.data_planes import RunningDataPlane, wait_until
from tests.integration.differential.comparison import Heard
from tests.integration.differential.player import Player
from tests.integration.differential.scripts import Script
from tests.integration.wire import Wire, query

TWO = 2
"""Server connections that a pool has; as many clients may a script have."""
HOLDING = "SELECT pg_backend_pid(); COPY held FROM STDIN"
"""Holds a server connection in every pool mode, for as long as the COPY waits for data."""
GIVING_BACK = b"c\0\0\0\4"


@dataclass
class Performance:
    """What a script heard, which server process was free for each of its steps, and what it has left behind."""

    heard: list[Heard]
    free: list[int] = field(default_factory=list)
    left: Mapping[str, object] = field(default_factory=dict)


class Direct:
    """The server itself."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def play(self, script: Script) -> Performance:
        """Play a script."""
        return Performance(Player(self.target).play(script))


class Holder:
    """A client of ours that holds a server connection or none."""

    def __init__(self, target: Target) -> None:
        self.wire = Wire((target.host, target.port)).log_in(target.user, target.password, target.database)
        self.process_id = 0

    def take(self) -> None:
        """Wait for a server connection and hold it."""
        self.wire.send(query(HOLDING))
        messages = self.wire.until("CopyInResponse")
        (row,) = [message for message in messages if message.name == "DataRow"]
        values: Any = row["values"]
        self.process_id = int(values[0])

    def give_back(self) -> None:
        """Hold none any more."""
        if self.process_id:
            self.wire.send(GIVING_BACK)
            self.wire.until()
            self.process_id = 0


class Through:
    """PgPooler in one pool mode in front of the server; `holders` is empty where clients keep their connection."""

    def __init__(self, data_plane: RunningDataPlane, target: Target, *, is_shared: bool) -> None:
        self.data_plane = data_plane
        self.target = target
        self.holders = [Holder(target) for _ in range(TWO if is_shared else 0)]

    def close(self) -> None:
        """Let the holders go."""
        for holder in self.holders:
            holder.wire.close()

    def play(self, script: Script) -> Performance:
        """Play a script, its client changing its server connection from step to step if it is alone."""
        if not self.holders or len(script.clients) > 1:
            performance = Performance(Player(self.target).play(script))
        else:
            with self.one_held() as free:
                performance = Performance(Player(self.target, lambda: self.change(free)).play(script), free)
        wait_until(lambda: self.in_use() == 0)
        return performance

    @contextlib.contextmanager
    def one_held(self) -> Iterator[list[int]]:
        """Have one of two server connections held; yield the list of those that are free for the script's steps."""
        self.holders[0].take()
        try:
            yield []
        finally:
            for holder in self.holders:
                holder.give_back()

    def change(self, free: list[int]) -> None:
        """Take the server connection that the script's client has just used, and give the other one back.

        A client that is pinned keeps its own.
        """
        wait_until(lambda: self.in_use() is not None)
        if self.in_use() == TWO:
            return
        (holding,) = [holder for holder in self.holders if holder.process_id]
        (idle,) = [holder for holder in self.holders if holder is not holding]
        free.append(holding.process_id)
        idle.take()
        holding.give_back()

    def in_use(self) -> int | None:
        """Return how many server connections clients have; None while PgPooler itself does something with one."""

        def count(data_plane: DataPlane) -> int | None:
            key = (self.target.database, self.target.user)
            pools = [pool for pool in data_plane.service.pools if (pool.key.database, pool.key.user) == key]
            busy = [server for pool in pools for server in pool.busy]
            is_settled = not any(pool.opening for pool in pools) and all(it.state == ServerState.ACTIVE for it in busy)
            return len(busy) if is_settled else None

        return self.data_plane.inside(count)
