"""Mutants that no test notices, each with its reason.

An entry is known by its module and by the two lines of the diff, so that it outlives changes elsewhere in the module.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutation.operators import Mutant


@dataclass(frozen=True)
class Survivor:
    """Why no test can, or should, notice that `before` became `after`."""

    path: str
    before: str
    after: str
    reason: str


SURVIVORS = (
    Survivor(
        "pgpooler/pooling/client.py",
        "self.service.deadlines.at(self.last_traffic + self.pool.route.session_idle_timeout, self)",
        "self.service.deadlines.at(self.last_traffic - self.pool.route.session_idle_timeout, self)",
        "The same: the client is looked at too early, and says itself when to look next.",
    ),
    Survivor(
        "pgpooler/pooling/client.py",
        "self.framer.feed(EMPTY, 0, 0)",
        "pass",
        "The same: `keep` has left the framer at the bytes that it kept.",
    ),
    Survivor(
        "pgpooler/pooling/deadlines.py",
        "if when and (not target.due or when < target.due):",
        "if when and (not target.due or when <= target.due):",
        "The same: the target gets a second entry for the time at which it is due, and the first is passed over.",
    ),
    Survivor(
        "pgpooler/pooling/deadlines.py",
        "if self._forgotten > 100 and self._forgotten * 2 > len(self._heap):",
        "if self._forgotten > 101 and self._forgotten * 2 > len(self._heap):",
        "Speed: how many forgotten entries are worth a clean-up.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/__init__.py",
        "CACHE_SIZE = 8 << 20  # bytes",
        "CACHE_SIZE = (7) << 20  # bytes",
        "Speed: how much memory the cache may take.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/__init__.py",
        "CACHE_SIZE = 8 << 20  # bytes",
        "CACHE_SIZE = 8 << (19)  # bytes",
        "Speed: how much memory the cache may take.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/leavings.py",
        'b"RESET": CLEANING,',
        'b"": CLEANING,',
        "The same: a tag that is in no table is CLEANING, too.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/reading.py",
        "return 0 <= place < len(self._tokens) and self._tokens[place].kind in (WORD, QUOTED)",
        "return 1 <= place < len(self._tokens) and self._tokens[place].kind in (WORD, QUOTED)",
        "The same: no statement begins with a name before a dot or a parenthesis.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/reading.py",
        "return 0 <= place < len(self._tokens) and self._tokens[place].kind in (WORD, QUOTED)",
        "return 0 < place < len(self._tokens) and self._tokens[place].kind in (WORD, QUOTED)",
        "The same: no statement begins with a name before a dot or a parenthesis.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/reading.py",
        'temporary = self._names(place - 1) and self._tokens[place - 1].word.startswith(b"pg_temp")',
        'temporary = self._names(place + 1) and self._tokens[place - 1].word.startswith(b"pg_temp")',
        "The same: behind pg_temp and a dot stands a name, in what PostgreSQL accepts.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/reading.py",
        'if not self._open and self._key(self._first) == b"create" and {b"table", b"foreign"} & set(self._keys[:6]):',
        'if not self._open and self._key(self._first) == b"create" and {b"table",} & set(self._keys[:6]):',
        "The same: FOREIGN TABLE holds TABLE, and what else is FOREIGN has neither AS nor FOR.",
    ),
    Survivor(
        "pgpooler/pooling/evidence/reading.py",
        'b"materialized": frozenset((b"as", b"not")),',
        'b"materialized": frozenset((b"not",)),',
        "Guarded twice: in the list of a WITH no name before a parenthesis is a call.",
    ),
    Survivor(
        "pgpooler/pooling/owed.py",
        "self._pass_over_ends_of_copy()",
        "pass",
        "Guarded twice: `ready` and `error` leave no end of a COPY at the head of the queue.",
    ),
    Survivor(
        "pgpooler/pooling/pool.py",
        'return server.owed.doubt or server.tainted or "the server is not idle"',
        'return server.owed.doubt and server.tainted or "the server is not idle"',
        "For people: the reason in the log.",
    ),
    Survivor(
        "pgpooler/pooling/pools.py",
        "self._service.deadlines.at(pool.retry_at, pool)",
        "pass",
        "Guarded twice: whoever asks to forget the pool has asked for a look at it at that time before.",
    ),
    Survivor(
        "pgpooler/protocol/framer.py",
        "if self.length <= here:",
        "if self.length < here:",
        "The same: nothing is missing of a message that ends with the bytes at hand.",
    ),
    Survivor(
        "pgpooler/protocol/sql.py",
        "if text[stop - 1] >= 0x80 and stop < len(text) and text[stop] in SECOND_BYTES:",
        "if text[stop - 1] >= 129 and stop < len(text) and text[stop] in SECOND_BYTES:",
        "The same: in no encoding does a character of two bytes begin with 0x80.",
    ),
    Survivor(
        "pgpooler/protocol/sql.py",
        'if word[-1] in b"+-" and stop - start > 1 and ONLY_THESE_MAY_END_IN_A_SIGN.isdisjoint(word):',
        'if word[-1] in b"+-" and stop + start > 1 and ONLY_THESE_MAY_END_IN_A_SIGN.isdisjoint(word):',
        "The same: an operator of one sign is cut into that sign.",
    ),
    Survivor(
        "pgpooler/protocol/sql.py",
        "if end < 0:",
        "if end < 1:",
        "The same: an end is -1 or behind the beginning.",
    ),
    Survivor(
        "pgpooler/protocol/startup.py",
        "self.before_protocol_3 = 0 < version < codes.PROTOCOL_3_0  # to PostgreSQL 0.0 is no version yet",
        "self.before_protocol_3 = 0 < version <= codes.PROTOCOL_3_0  # to PostgreSQL 0.0 is no version yet",
        "The same: protocol 3.0 is supported, and never an error.",
    ),
)


def reason_for(mutant: Mutant) -> str:
    """Return the reason why a mutant survives; empty: nobody knows one."""
    key = (mutant.path, *(" ".join(line[1:].strip() for line in mutant.diff if line[0] == sign) for sign in "-+"))
    return next((known.reason for known in SURVIVORS if (known.path, known.before, known.after) == key), "")
