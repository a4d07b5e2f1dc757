"""The replies a server still owes, in order (protocol-flow-ext-query, -pipelining, protocol-copy).

A request that ends in ReadyForQuery (Query, FunctionCall, Sync) stands in the queue from its first forwarded byte until
that ReadyForQuery.  Extended messages between two Syncs stand there as one batch.  Rules that this table of cases
encodes, each from the manual:

- after an error in a batch the server skips everything up to the next Sync;
- while COPY IN is open it ignores Sync and Flush, also those sent before it said CopyInResponse;
- CopyDone and CopyFail outside COPY mean nothing.

Where the wire leaves open what the server will do (a COPY that fails with a Sync already sent into it), `doubt` says
so, and the connection must not be used by anybody else.
"""

from __future__ import annotations

from collections import deque

from pgpooler.protocol.codes import (
    BIND,
    CLOSE,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    EXECUTE,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
)

BATCH = PARSE  # one entry for all extended messages up to the next Sync
EXTENDED = (PARSE, BIND, DESCRIBE, EXECUTE, CLOSE)
SINGLE = (QUERY, FUNCTION_CALL)
ENDS_OF_COPY = (COPY_DONE, COPY_FAIL)
END_OF_COPY = COPY_DONE  # one entry for either


class Owed:
    """What one server still owes.  `requests` is the queue; the rest are facts about COPY, errors and doubt."""

    __slots__ = (
        "_copier",
        "_may_copy",
        "answered",
        "asked",
        "copy_in",
        "doubt",
        "requests",
        "skipping",
        "swallowed",
        "unsynced",
    )

    def __init__(self) -> None:
        self.requests: deque[int] = deque()
        self.copy_in = False  # the server reads COPY data, and the client has not ended it
        self.swallowed = 0  # Syncs that the open COPY has eaten, or will
        self.skipping = False  # the server skips to a Sync that has not been sent yet
        self.doubt = ""  # why nobody can say what the server still owes
        self.asked = 0  # requests ever sent that end in ReadyForQuery
        self.answered = 0  # of those, how many have, or never will because a COPY ate them
        self._copier = 0  # QUERY, or BATCH: what may begin a COPY at any time, and
        self._may_copy = -1  # its number, counted as `asked`
        self.unsynced = False  # a Query or FunctionCall came in place of a Sync: PostgreSQL 18 may fail the next one

    def __repr__(self) -> str:
        facts = [name for name in ("copy_in", "skipping", "doubt") if getattr(self, name)]
        return f"<Owed {''.join(map(chr, self.requests)) or 'nothing'} {' '.join(facts)}>"

    @property
    def nothing(self) -> bool:
        """Nothing is owed, nothing is half asked, nothing is doubtful."""
        return not self.requests and not self.copy_in and not self.skipping and not self.doubt

    @property
    def open_batch(self) -> bool:
        """Extended messages were sent without the Sync that ends them; a Sync now would commit what they did."""
        return next((kind for kind in reversed(self.requests) if kind != END_OF_COPY), 0) == BATCH

    @property
    def complete(self) -> bool:
        """Something is owed, and everything that was asked will be answered without a further word."""
        return bool(self.requests) and not (self.open_batch or self.copy_in or self.skipping or self.doubt)

    @property
    def ready_due(self) -> bool:
        """A ReadyForQuery is owed: something that ends in one has been sent."""
        return any(kind != BATCH and kind != END_OF_COPY for kind in self.requests)

    @property
    def may_copy(self) -> bool:
        """What was sent may begin a COPY at any time, which would take what follows for its own.

        Where nobody knows what is still to come, nobody could wait for it.
        """
        return bool(self.requests) and self._may_copy >= self.answered and not self.doubt

    def begins_copy(self, kind: int) -> None:
        """A Query, or an Execute in a batch, is sent next that begins a COPY from the client."""
        self._copier = QUERY if kind == QUERY else BATCH
        self._may_copy = self.asked

    def _begins_no_copy(self) -> None:
        """The batch that the server is at has begun its COPY, or failed.  (A Query may have several.)"""
        if self.requests and self.requests[0] == BATCH and self._may_copy == self.answered:
            self._may_copy = -1

    def _come_to_copy(self) -> None:
        """A COPY begins: what was sent before the request that it is of, in the same batch or in place of its Sync, is
        past, ends of another COPY included.
        """
        requests = self.requests
        if self._may_copy != self.answered:
            return
        left = requests.count(BATCH) - (self._copier == BATCH)
        while requests and (left or requests[0] == END_OF_COPY):
            left -= requests.popleft() == BATCH

    def sent(self, kind: int) -> None:
        """Note a request of this type, at its first forwarded byte."""
        requests = self.requests
        if kind in ENDS_OF_COPY:
            if self.copy_in:
                self.copy_in = False
            elif requests:
                requests.append(END_OF_COPY)
        elif kind == SYNC:
            if self.copy_in:
                self.swallowed += 1
            else:
                self.skipping = False
                self.asked += 1
                requests.append(SYNC)
        elif kind in SINGLE or kind in EXTENDED:
            if self.copy_in:
                self._fail_copy()
            if not self.skipping:
                if kind in SINGLE:
                    self.unsynced |= bool(requests) and requests[-1] == BATCH
                    self.asked += 1
                    requests.append(kind)
                elif not requests or requests[-1] != BATCH:
                    requests.append(BATCH)

    def _fail_copy(self) -> None:
        """A request is sent into an open COPY, which fails of it, unless it has failed before that is read.

        In a batch that is all the same: the request is skipped too, unless a Sync stands before it.  Else nobody knows
        whether it is run.
        """
        self.copy_in = False
        if self.requests and self.requests[0] == BATCH and not self.swallowed:
            self.skipping = True
        else:
            self.doubt = "a request was sent into an open COPY"

    def copy_in_response(self) -> None:
        """The server reads COPY data now: forget the Syncs already sent into it, up to the end of the data."""
        requests = self.requests
        self._pass_over_ends_of_copy()
        self._come_to_copy()
        self._begins_no_copy()
        self.copy_in = True
        self.swallowed = 0
        if not requests:
            self.doubt = "the server began a COPY nobody asked for"
            return
        kept = deque((requests.popleft(),))
        while requests:
            kind = requests.popleft()
            if kind == END_OF_COPY:
                self.copy_in = False
                if kept[0] == BATCH and self._batch_goes_on():
                    self.doubt = "a batch went on behind the end of a COPY that may have begun only there"
                break
            if kind == kept[0] == BATCH:
                continue  # the same batch: this COPY may be of what came behind the end of another
            if kind == SYNC:
                self.swallowed += 1
                self.answered += 1
            else:
                self.doubt = "a request was sent into an open COPY"
                kept.append(kind)
        kept.extend(requests)
        self.requests = kept

    def _batch_goes_on(self) -> bool:
        """The batch goes on behind the last end of a COPY in it: the COPY may begin there, and swallow the Sync."""
        last = 0
        for kind in self.requests:
            if kind == SYNC:
                break
            last = kind
        return last == BATCH

    def settle(self) -> None:
        """Everything that was asked has been answered: there is no doubt any more."""
        self.requests.clear()
        self.copy_in = self.skipping = False
        self.swallowed = 0
        self.doubt = ""
        self.answered = self.asked
        self._may_copy = -1

    def error(self) -> None:
        """The server reported an error: a batch is void up to the next Sync, a Query keeps its ReadyForQuery."""
        requests = self.requests
        if self.swallowed:
            self.doubt = "a COPY failed with a Sync already sent into it"
        self.copy_in = False
        self._pass_over_ends_of_copy()
        self._begins_no_copy()
        if requests and requests[0] == BATCH:
            while requests and requests[0] != SYNC:
                if requests.popleft() in SINGLE:
                    self.doubt = "an error came from a batch without Sync, or from the Query behind it"
            self.skipping = not requests

    def ready(self) -> bool:
        """The server said ReadyForQuery; return False when it owed none."""
        requests = self.requests
        self.copy_in = False
        self.swallowed = 0
        while requests:
            kind = requests.popleft()
            if kind != BATCH and kind != END_OF_COPY:
                self.answered += 1
                self._pass_over_ends_of_copy()
                return True
        return False

    def _pass_over_ends_of_copy(self) -> None:
        """Drop what means nothing at the head of the queue: the server has ignored it."""
        requests = self.requests
        while requests and requests[0] == END_OF_COPY:
            requests.popleft()
