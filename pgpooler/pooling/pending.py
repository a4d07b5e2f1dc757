"""Replies to Parse, Close and Describe that are still to come on one server connection, and what they will have done.

Requests are counted in batches: whatever ends in one ReadyForQuery.  What an earlier batch does is not certain before
its ReadyForQuery has come; what the same batch does is, for whoever comes behind it: otherwise that is skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from pgpooler.pooling.dropped import Dropped
from pgpooler.pooling.expected import GOES_ON, Expected, OfClientParse, OfDescribe, OfServer
from pgpooler.pooling.owed import BATCH, Owed
from pgpooler.pooling.statements import Statement
from pgpooler.protocol import codes

KINDS = (codes.PARSE_COMPLETE, codes.CLOSE_COMPLETE, codes.PARAMETER_DESCRIPTION)


class Pending:
    """What is not certain yet.

    `alone`: nothing without an expected reply of its own stands between the last one that has and what comes next.
    """

    __slots__ = ("_described", "_dropped", "_expected", "_noted", "_owed", "_touched", "alone")

    def __init__(self, owed: Owed) -> None:
        self._owed = owed
        self._expected: deque[Expected] = deque()
        self._described: OfDescribe | None = None  # its types have come, the shape comes next
        self._dropped: deque[Dropped] = deque()  # what SQL under way closes
        self._noted = 0  # of both so far
        self._touched: dict[Hashable, int] = {}  # names and statements -> the batch that did something to them last
        self.alone = True

    @property
    def watches(self) -> bool:
        """Replies to Parse, Close and Describe are to be looked at."""
        return bool(self._expected) or self._described is not None

    @property
    def earlier(self) -> bool:
        """An earlier batch has not been answered."""
        return self._owed.asked > self._owed.answered

    def unsettled(self, key: Hashable) -> bool:
        """An earlier batch did something to this name or statement, and it is not known yet whether it succeeded."""
        return self._owed.answered <= self._touched.get(key, -1) < self._owed.asked

    # -- requests ------------------------------------------------------------------------------------------------------

    def request(self) -> None:
        """An extended request comes: perhaps the first of its batch."""
        if not self._owed.requests or self._owed.requests[-1] != BATCH:
            self.alone = True

    def expect(self, expected: Expected, *touched: Hashable) -> None:
        """A request was sent, or will be, to which this reply comes; it does something to these names or statements."""
        self.alone = True
        self._noted += 1
        expected.batch, expected.number = self._owed.asked, self._noted
        self._expected.append(expected)
        for key in touched:
            self._touched[key] = expected.batch

    def drop(self, dropped: Dropped) -> None:
        """SQL that closes statements is sent."""
        self._noted += 1
        dropped.number = self._noted
        self._touched.update(dict.fromkeys(dropped.named, dropped.batch))
        self._dropped.append(dropped)

    # -- replies -------------------------------------------------------------------------------------------------------

    def reply(self, kind: int, body: bytes) -> int:
        """A reply of one of our kinds has come whole; return what is to become of it (`expected`)."""
        described = self._described
        if described is not None:
            self._described = None
            described.shape(kind, body)
            return described.fate
        if kind not in KINDS or not self._expected:
            return GOES_ON
        expected = self._expected.popleft()
        expected.come()
        if isinstance(expected, OfDescribe):
            expected.types(body)
            self._described = expected
        return expected.fate

    def dropped(self) -> bool:
        """SQL that closes statements has succeeded; False: nobody knows which."""
        if self._dropped:
            self._dropped.popleft()
            return True
        return False

    def being_prepared(self) -> list[Statement]:
        """Return what is being prepared."""
        return [one.statement for one in self._expected if isinstance(one, (OfServer, OfClientParse))]

    def error(self) -> None:
        """The server reports an error: what it has not yet done of the batch, it does not do."""
        if self._described is not None:
            self._described.undo()
            self._described = None
        self._undo(self._owed.answered - self._owed.swallowed)  # a failed COPY may have eaten none of those Syncs

    def ready(self) -> None:
        """A ReadyForQuery has come: whatever the batch has not answered was skipped."""
        if not self._owed.doubt:
            self._undo(self._owed.answered - 1)

    def _undo(self, batch: int) -> None:
        """Undo what has been noted up to this batch, the last first."""
        undone: list[Expected | Dropped] = []
        if self._expected and self._expected[0].batch <= batch:
            self._expected[0].first = True
        while self._expected and self._expected[0].batch <= batch:
            undone.append(self._expected.popleft())
        while self._dropped and self._dropped[0].batch <= batch:
            undone.append(self._dropped.popleft())
        for noted in sorted(undone, key=lambda noted: noted.number, reverse=True):
            noted.undo()

    def clear(self) -> bool:
        """Nothing is to come any more; False: something was, and nobody knows what has become of it."""
        certain = not self._expected
        self._expected.clear()
        self._touched.clear()
        self._dropped.clear()
        self._described = None
        return certain
