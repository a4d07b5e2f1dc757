"""One heap for all timeouts.

A target stands in the heap at most once in earnest: `due` is the time that counts, older entries are passed over.  So a
timeout that moves with every query costs nothing per query: the target looks at its own clock when its time comes
and says when to look next.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Protocol


class Target(Protocol):
    """Something with a deadline: a session, a pool."""

    due: float

    def tick(self, now: float) -> float:
        """Look at the clock; return when to look next, 0 for never."""


class Deadlines:
    """When to look at whom.  Times are seconds of any clock that only goes forward."""

    __slots__ = ("_forgotten", "_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Target]] = []
        self._number = 0
        self._forgotten = 0

    def at(self, when: float, target: Target) -> None:
        """Look at the target at `when`, or earlier if that was asked before.  `when` 0 asks nothing."""
        if when and (not target.due or when < target.due):
            if target.due:
                self._forgotten += 1
            target.due = when
            self._number += 1
            heappush(self._heap, (when, self._number, target))

    def forget(self, target: Target) -> None:
        """Do not look at the target any more."""
        if target.due:
            target.due = 0.0
            self._forgotten += 1
            if self._forgotten > 100 and self._forgotten * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[0] == entry[2].due]
                heapify(self._heap)
                self._forgotten = 0

    def next(self) -> float:
        """Return the earliest time at which `expire` has something to do, 0 for never."""
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heappop(self._heap)
            self._forgotten -= 1
        return self._heap[0][0] if self._heap else 0.0

    def expire(self, now: float) -> None:
        """Look at every target whose time has come, at each only once: who asks again for now gets the next call."""
        last = self._number
        again: list[tuple[float, Target]] = []
        while self._heap and self._heap[0][0] <= now:
            when, number, target = heappop(self._heap)
            if target.due != when:
                self._forgotten -= 1
                continue
            target.due = 0.0
            if number > last:
                again.append((when, target))
            else:
                self.at(target.tick(now), target)
        for when, target in again:
            self.at(when, target)
