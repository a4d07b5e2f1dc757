"""The relay's own epoll, nested in the asyncio loop: asyncio watches its one descriptor.

Rules, each learnt by trying:

- a paused descriptor keeps EPOLLRDHUP | EPOLLET: HUP cannot be masked, and with an empty mask a peer that resets causes
  a wake-up without end; edge-triggered it causes one;
- a descriptor is taken out before it is closed;
- a batch may hold an event for a number that was closed and reused within it: a registration made during a batch hears
  nothing of that batch;
- an exception is caught per handler: one that left `run_ready` would be repeated at once and without end.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Protocol

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
HANG_UP = select.EPOLLRDHUP
ERROR = select.EPOLLERR
GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
PAUSED = select.EPOLLRDHUP | select.EPOLLET
BATCH = 64  # events per wake-up, so that asyncio's timers stay under a millisecond


class Handler(Protocol):
    """Who is told about a descriptor."""

    batch: int

    def ready(self, events: int, now: float) -> None:
        """Something happened on the descriptor."""

    def crashed(self, error: Exception, now: float) -> None:
        """`ready` raised this: end the connection."""


class Poller:
    """Which handler belongs to which descriptor, and what it waits for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._epoll = select.epoll()
        self._clock = clock
        self._handlers: dict[int, Handler] = {}
        self._batch = 0

    def __len__(self) -> int:
        return len(self._handlers)

    def fileno(self) -> int:
        """The descriptor that asyncio watches."""
        return self._epoll.fileno()

    def register(self, descriptor: int, handler: Handler, events: int) -> None:
        """Watch a descriptor."""
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler
        handler.batch = self._batch

    def modify(self, descriptor: int, events: int) -> None:
        """Wait for other events on a watched descriptor."""
        self._epoll.modify(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        """Watch the descriptor no more; it must not be closed yet."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def run_ready(self) -> int:
        """Tell the handlers of up to one batch of events; return how many there were."""
        events = self._epoll.poll(0, BATCH)
        if not events:
            return 0
        self._batch += 1
        now = self._clock()
        for descriptor, happened in events:
            handler = self._handlers.get(descriptor)
            if handler is None or handler.batch == self._batch:
                continue
            try:
                handler.ready(happened, now)
            except Exception as error:  # one connection's bug must not end the others
                handler.crashed(error, now)
        return len(events)

    def close(self) -> None:
        """Forget everything."""
        self._handlers.clear()
        self._epoll.close()
