"""Normal operation: a queue of requests, and how replies consume it.

A `Configuration` is one reading of what was said so far: how far the backend has come in the queue, what remains to be
said in reply to the request it is at, and what is known besides (`semantics`).  There is one, except after a COPY from
the frontend failed with requests behind it, where only later replies tell how many of these the backend ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spec.codec import Instance
from spec.conversation import ENDS_A_CYCLE, IGNORED_IN_COPY, REPLY
from spec.grammar import Done, Expression, Msg, after, legal
from spec.results import Fault
from spec.semantics import Facts, Request

COPIES_FROM_FRONTEND = frozenset({"CopyInResponse", "CopyBothResponse"})
DURING_COPY = frozenset({"CopyData", "CopyDone"})
"""What the backend may say before the frontend has ended such a COPY."""

VOID = frozenset({"CopyDone", "CopyFail"})
"""Requests that mean nothing behind a COPY that has failed."""

NOTHING = Done()
READY = Msg("ReadyForQuery")


class Requests:
    """The requests of a connection by their number, without those that no reading needs any longer.

    CopyData and Flush are not kept: they have no reply and change nothing, wherever they stand.
    """

    def __init__(self) -> None:
        self._kept: list[Request] = []
        self._dropped = 0

    def append(self, request: Request) -> None:
        """Add one at the end."""
        self._kept.append(request)

    def __getitem__(self, number: int) -> Request:
        return self._kept[number - self._dropped]

    @property
    def end(self) -> int:
        """The number that the next request will have."""
        return self._dropped + len(self._kept)

    def forget_before(self, number: int) -> None:
        """Drop the requests before this one, from time to time."""
        if number - self._dropped > max(64, len(self._kept) // 2):
            del self._kept[: number - self._dropped]
            self._dropped = number


@dataclass
class Configuration:
    """One reading: the request whose turn it is (None if the backend waits), and what is still to be said to it.

    `next` is the number of the first request behind it that the backend has not taken yet.
    """

    requests: Requests
    facts: Facts
    request: Request | None = None
    rest: Expression = NOTHING
    next: int = 0
    is_skipping: bool = False
    is_copying: bool = False
    has_failed: bool = False
    is_series: bool = False

    def advance(self) -> None:
        """Take requests from the queue up to one that is owed a reply."""
        while isinstance(self.rest, Done):
            self.request = None
            if self.next == self.requests.end:
                return
            request = self.requests[self.next]
            self.next += 1
            if self.is_skipping and request.kind not in ("Sync", "Terminate"):
                continue
            # A Sync that ends the skipping has nothing left to do that could fail.
            self.is_skipping, self.has_failed = False, self.is_skipping
            if self.is_series and request.kind in ENDS_A_CYCLE - {"Sync"}:
                self.facts.continue_series()
            self.is_series = request.kind not in ENDS_A_CYCLE and (self.is_series or REPLY[request.kind] != Done())
            self.request, self.rest = request, REPLY[request.kind]
            self.facts.begin(request)

    @property
    def legal(self) -> frozenset[str]:
        """The names of the replies that the grammar allows next, without ErrorResponse and asynchronous messages."""
        names = legal(self.rest)
        if self.is_copying and self._behind_copy() is None:
            return names & DURING_COPY
        return names

    def may_fail(self) -> bool:
        """Return whether an ErrorResponse that does not end the connection is legal."""
        return self.request is not None and not self.has_failed and self.facts.result.may_fail

    def replied(self, reply: Instance) -> list[Fault] | None:
        """Learn a reply; return what is wrong with its contents, or None, and nothing learnt, if it is not legal."""
        if reply.name not in self.legal or self.request is None:
            return None
        if self.is_copying and reply.name not in DURING_COPY:
            behind = self._behind_copy()
            assert behind is not None
            self.next, self.is_copying = behind, False
        if reply.name in COPIES_FROM_FRONTEND:
            self.is_copying = True
        faults = list(self.facts.answered(self.request, reply))
        self.rest = after(self.rest, reply.name)
        self.advance()
        return faults

    def failed(self) -> list[Configuration]:
        """Return the readings after an ErrorResponse: more than one if it is unclear what a COPY has ignored."""
        return [self._failed_before(number) for number in self._where_copy_failed()]

    def _failed_before(self, number: int) -> Configuration:
        """Return the reading in which the backend has taken the requests before this one when it reports an error."""
        request = self.request
        assert request is not None
        failed = Configuration(self.requests, self.facts.fork(), request, next=number, is_series=self.is_series)
        failed.facts.failed()
        if request.kind in ENDS_A_CYCLE:
            failed.rest, failed.has_failed = READY, True
            while failed.next < self.requests.end and self.requests[failed.next].kind in VOID:
                failed.next += 1
        else:
            failed.is_skipping = True
        failed.advance()
        return failed

    def _copied(self) -> Iterator[int]:
        """Yield the numbers of the requests from here on that a COPY takes: what it ignores, and what ends it."""
        for number in range(self.next, self.requests.end):
            yield number
            if self.requests[number].kind not in IGNORED_IN_COPY:
                return

    def _behind_copy(self) -> int | None:
        """Return the number behind the CopyDone that ended the COPY under way, None if it has not ended well."""
        taken = list(self._copied())
        return taken[-1] + 1 if taken and self.requests[taken[-1]].kind == "CopyDone" else None

    def _where_copy_failed(self) -> list[int]:
        """Return every number at which the backend may go on after an error."""
        if not self.is_copying:
            return [self.next]
        return [self.next, *(number + 1 for number in self._copied())]

    # Looking

    @property
    def owed(self) -> list[Request]:
        """The requests that are not answered yet, in order."""
        look = Configuration(self.requests, Facts(), self.request, self.rest, self.next, self.is_skipping)
        owed = []
        if self.is_copying:
            look.next = max(self._where_copy_failed())
        while look.request is not None:
            owed.append(look.request)
            look.rest = Done()
            look.advance()
        return owed

    @property
    def is_idle(self) -> bool:
        """Whether nothing is owed and no series of extended messages is open."""
        return self.request is None and not self.is_skipping and not self.is_series

    @property
    def reads_data(self) -> bool:
        """Whether a COPY from the frontend is under way that the frontend has not ended."""
        return self.is_copying and all(self.requests[number].kind in IGNORED_IN_COPY for number in self._copied())

    @property
    def goes_both_ways(self) -> bool:
        """Whether a COPY both ways is under way."""
        copy = self.facts.result.copy
        return self.is_copying and copy is not None and copy.name == "CopyBothResponse"

    @property
    def has_ended_copy_both(self) -> bool:
        """Whether the frontend has ended its side of a COPY both ways that is still under way."""
        return self.goes_both_ways and self._behind_copy() is not None

    def said_ready(self) -> None:
        """Go on behind a ReadyForQuery that was not legal: behind the next request that it may have answered."""
        for number in range(self.next, self.requests.end + 1):
            if self.request is not None and self.request.kind in ENDS_A_CYCLE:
                break
            if number == self.requests.end:
                self.request = None
                break
            self.request, self.next = self.requests[number], number + 1
        self.rest, self.is_skipping, self.is_copying, self.is_series = Done(), False, False, False
        self.advance()


def merged(readings: list[Configuration]) -> list[Configuration]:
    """Return the readings without those that equal another."""
    if len(readings) == 1:
        return readings
    different: list[Configuration] = []
    for reading in readings:
        if reading not in different:
            different.append(reading)
    return different
