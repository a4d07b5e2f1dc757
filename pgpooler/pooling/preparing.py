"""Prepared statements in the pooled modes: what becomes of a client's Parse, Bind, Describe and Close in a lease.

The server hears our names instead of the client's (`statements`).  A statement that it does not have is prepared in
front of the request that needs it, and its replies are dropped.  What is prepared already is not prepared again: a
Close of nothing goes to the server instead of the Parse, and its CloseComplete comes back to the client as the
ParseComplete it waits for.  So it is always the server that keeps the order, and that skips after an error.

What a request does to a statement is taken as done for what follows in its batch, because that is skipped if it is not.
What follows a Sync waits until it is known: see `_unsettled`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING

from pgpooler.errors import FeatureNotSupported, PeerError
from pgpooler.pooling import evidence, sql_names
from pgpooler.pooling.dropped import Dropped
from pgpooler.pooling.expected import (
    DROP,
    GOES_ON,
    Expected,
    OfClientClose,
    OfClientParse,
    OfDescribe,
    OfServer,
    OfStray,
    OfUnkept,
    OfUnnamed,
)
from pgpooler.pooling.owed import BATCH
from pgpooler.pooling.parameters import rereading
from pgpooler.pooling.requests import APART, DROPPED, HOLD, PASS, REFUSE, REWRITTEN, WAIT, own_name, read_names
from pgpooler.pooling.statements import LONGEST_KEPT, LONGEST_NAME, MOST_KEPT, PREFIX, UNNAMED, Statement
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.lease import Lease
    from pgpooler.pooling.server import ServerSession

NO_STATEMENT = PREFIX + b"none"  # the name of none
CLOSE_NOTHING = messages.message(codes.CLOSE, b"S" + NO_STATEMENT + b"\0")
CLOSE_UNNAMED = messages.message(codes.CLOSE, b"S\0")
FLUSH = messages.message(codes.FLUSH, b"")
UNKNOWN = b"\0C26000\0"  # field of the error about a statement that does not exist
OUTDATED = re.compile(rb"\0C0A000\0.*\0RRevalidateCachedQuery\0|\0C42(?!501)", re.DOTALL)
"""In an error about a statement whose result has changed, or that cannot be analysed (class 42, but for privileges)."""
RESULT_CHANGED = FeatureNotSupported("cached plan must not change result type", severity="ERROR")  # its own words
DEALLOCATE = b"DEALLOCATE"
DEALLOCATE_ALL = (b"DEALLOCATE ALL", b"DISCARD ALL")  # tags
SETTINGS_CHANGED = FeatureNotSupported(
    "the prepared statement was made under other settings and cannot be prepared again in the middle of a pipeline",
    severity="ERROR",
    detail="DateStyle, TimeZone or another setting that constants are read by has another value now.",
    hint="Send a Sync before it, or prepare the statement again after changing such a setting.",
)


class Preparing:
    """The prepared statements of one lease after the other on one server connection."""

    __slots__ = (
        "_alone",
        "_apart",
        "_bound",
        "_client",
        "_described",
        "_dropped",
        "_expected",
        "_failed_apart",
        "_lease",
        "_misshapen",
        "_server",
        "_touched",
        "_unbound",
        "awaited",
        "batch",
        "keeps",
        "quiet",
    )

    def __init__(self, server: ServerSession, lease: Lease) -> None:
        self._server = server
        self._lease = lease
        self._client: ClientSession | None = None
        self._expected: deque[Expected] = deque()
        self._described: OfDescribe | None = None  # its types have come, the shape comes next
        self._unbound: Statement | None = None  # the unnamed one, prepared in this batch and not used in it
        self._alone = True  # nothing of the batch is unanswered before the first reply that is expected next
        self._dropped: deque[Dropped] = deque()  # what SQL under way closes, if it succeeds
        self._touched: dict[Hashable, int] = {}  # names and statements -> the batch that did something to them last
        self._bound: list[Statement] = []  # by requests that are under way
        self._misshapen: Statement | None = None  # its rows have another shape here than its client was told
        self._apart: Statement | None = None  # is being prepared under other settings than those in force
        self._failed_apart: Statement | None = None
        self.batch = b""  # what prepares it
        self.awaited: OfDescribe | None = None  # the client waits for this reply
        self.quiet = False  # nothing but statements of ours is under way: notices are about them, and were told before
        self.keeps: set[bytes] = set()  # names of statements that only this server has: the lease cannot end

    def begin(self, client: ClientSession) -> None:
        """The lease of a client in a pooled mode begins."""
        self._client = client

    def end(self) -> None:
        """The lease is over.  If replies are still to come, nobody knows any more what the server has."""
        self.lost()
        if self._client is not None and UNNAMED in self.keeps:
            self._client.statements.unnamed = None
        self._client = None
        self.keeps.clear()
        self.awaited = self._unbound = self._misshapen = self._apart = self._failed_apart = None

    def lost(self) -> None:
        """Nobody knows which replies have come: nor, then, what the server has."""
        if self._expected:
            self._server.statements.lost = True
            self._server.statements.clear()
            self._expected.clear()
        self.settled()

    def settled(self) -> None:
        """Nothing is owed any more."""
        self._touched.clear()
        self._bound.clear()
        self._dropped.clear()
        self._described = None

    @property
    def watches(self) -> bool:
        """Replies to Parse, Close and Describe are to be looked at."""
        return bool(self._expected) or self._described is not None

    @property
    def reason(self) -> str:
        """Why the lease cannot end, for people; empty: it can."""
        return "a prepared statement that is too long to be kept" if self.keeps else ""

    # -- requests ------------------------------------------------------------------------------------------------------

    def look(self, client: ClientSession, kind: int) -> int:
        """Look at an extended request at which the framer has stopped; return what is to become of it (`requests`)."""
        owed = self._server.owed
        if not owed.requests or owed.requests[-1] != BATCH:
            self._alone = True
        if owed.skipping or kind == codes.EXECUTE:
            self._alone = False
            return PASS
        if kind == codes.PARSE:
            return self._parse(client)
        if kind == codes.BIND:
            fate = self._bind(client)
            self._alone = False
            return fate
        return self._describe_or_close(client, kind)

    def _parse(self, client: ClientSession) -> int:
        framer = client.framer
        names = read_names(framer, 0, 1)
        if names is None:
            return WAIT
        if not names:
            return PASS
        name = names[0][:LONGEST_NAME]
        if name and self._unsettled(name):
            return HOLD
        if framer.length > LONGEST_KEPT or (name and client.statements.size + framer.length > MOST_KEPT):
            return self._parse_unkept(client, name)
        if not framer.take(LONGEST_KEPT):
            return WAIT
        body = framer.body()[len(names[0]) + 1 :]
        text = body.partition(b"\0")[0]
        left = self._server.service.texts.look(text)
        state = self._lease.session_state
        if left & evidence.PINNING and state.refuses(left):
            return REFUSE
        if left & evidence.STATEMENTS and self._must_know(client, text):
            return HOLD
        if name:
            return self._parse_named(client, name, body, left)
        statement = Statement(UNNAMED, body, None if state.unsure else client.settings.digest, left)
        self.keeps.discard(UNNAMED)
        self._unbound = statement
        self._expect(
            OfUnnamed(
                codes.PARSE_COMPLETE, self._server.statements, statement, client=client.statements, alone=self._alone
            ),
            UNNAMED,
        )
        return PASS

    def sync(self) -> None:
        """A Sync follows: an unnamed statement that was not used may be bound later, on a server that reads it anew."""
        statement, self._unbound = self._unbound, None
        if statement is not None and self._server.statements.has(statement) and not self._server.owed.skipping:
            self._describe(statement)

    def _parse_named(self, client: ClientSession, name: bytes, body: bytes, left: int) -> int:
        server, owed = self._server, self._server.owed
        if owed.asked > owed.answered:
            return HOLD  # until it is known what is there, and whether the transaction has failed
        if name in client.statements.named:
            self._make_stray(client, name)  # and the server refuses the name that is taken
            self._expect(Expected(codes.PARSE_COMPLETE, GOES_ON))
            return PASS
        if self._misshapen is not None:
            self._forget(self._misshapen)
            self._misshapen = None
        failed = server.status == codes.FAILED  # then the server decides what it refuses
        state = self._lease.session_state
        alone = failed or state.unsure or state.left & evidence.TEMPORARY  # a temporary table may hide another one
        statement = server.pool.statements.get(body, None if alone else client.settings.digest, left)
        if self._unsettled(statement):
            return HOLD
        shared = server.statements.has(statement)
        if not shared and statement.shape and not left & evidence.STATEMENTS:
            return self._prepare_and_compare(statement)  # those who have it were told that shape
        if not shared:
            self._make_room()
        insert = CLOSE_NOTHING if shared else statement.parse(statement.name)
        self._lease.insert(insert, codes.CLOSE if shared else codes.PARSE)
        self._expect(
            OfClientParse(client.statements, name, statement, server.statements, shared=shared), name, statement
        )
        if statement.shape is None:
            self._describe(statement)
        return DROPPED

    def _parse_unkept(self, client: ClientSession, name: bytes) -> int:
        """Pass on a statement that is too long to be kept.  Only this server has it, so the client stays with it."""
        self._lease.session_state.note(evidence.UNREAD | evidence.CLEANING)
        if name:
            self._server.statements.strays.add(name)
        else:
            client.statements.unnamed = self._server.statements.unnamed = None
        self._expect(OfUnkept(self.keeps, name), name)
        return PASS

    def _bind(self, client: ClientSession) -> int:
        names = read_names(client.framer, 0, 2)
        if names is None:
            return WAIT
        if not names:
            return PASS
        portal, said = names
        name = said[:LONGEST_NAME]
        statement = self._statement(client, name)
        fate = self._make_ready(client, name, statement)
        if fate != PASS or statement is None:
            return self._under_own_name(portal + b"\0", said) if fate == PASS else fate
        state = self._lease.session_state
        if statement.left:
            if statement.left & evidence.PINNING and state.refuses(statement.left):
                return REFUSE
            if statement.left & evidence.STATEMENTS and self._must_know(client, statement.text):
                return HOLD
            state.note_text(statement.left, statement.text)
        self._bound.append(statement)
        if statement is self._unbound:
            self._unbound = None
        if not statement.name:
            return PASS
        self._server.statements.named.move_to_end(statement)
        self._lease.replace_head(portal + b"\0" + statement.name + b"\0", len(portal) + len(said) + 2)
        return REWRITTEN

    def _describe_or_close(self, client: ClientSession, kind: int) -> int:
        framer = client.framer
        if not framer.take(codes.SMALL_MESSAGE_LIMIT):
            return WAIT
        body = framer.body()
        if body[:1] != b"S" or not body.endswith(b"\0"):
            if kind == codes.CLOSE and body[:1] == b"P":
                self._expect(Expected(codes.CLOSE_COMPLETE, GOES_ON))
            else:
                self._alone = False
            return PASS
        name = body[1:-1][:LONGEST_NAME]
        if kind == codes.CLOSE:
            return self._close(client, name, body[1:-1])
        statement = self._statement(client, name)
        fate = self._make_ready(client, name, statement)
        if fate != PASS or statement is None:
            self._alone = False
            return self._under_own_name(b"S", body[1:-1]) if fate == PASS else fate
        if statement is self._unbound:
            self._unbound = None
        self._expect(OfDescribe(GOES_ON, self, statement))
        if not statement.name:
            return PASS
        self._lease.replace_head(b"S" + statement.name + b"\0", len(body))
        return REWRITTEN

    def _close(self, client: ClientSession, name: bytes, said: bytes) -> int:
        if self._unsettled(name):
            return HOLD
        self.keeps.discard(name)
        if name:
            self._expect(OfClientClose(client.statements, name, self._server.statements), name)
            return self._under_own_name(b"S", said)
        self._unbound = None
        self._expect(OfUnnamed(codes.CLOSE_COMPLETE, self._server.statements, None, client=client.statements), UNNAMED)
        return PASS

    # -- what they need ------------------------------------------------------------------------------------------------

    def _statement(self, client: ClientSession, name: bytes) -> Statement | None:
        return client.statements.named.get(name) if name else client.statements.unnamed

    def _make_ready(self, client: ClientSession, name: bytes, statement: Statement | None) -> int:
        """See to it that the server has the statement a request speaks of, or has none if the client has none."""
        server = self._server
        if self._unsettled(name) or (statement is not None and self._unsettled(statement)):
            return HOLD
        if statement is None:
            if not name and server.statements.unnamed is not None and UNNAMED not in self.keeps:
                self._lease.insert(CLOSE_UNNAMED, codes.CLOSE)  # somebody else's
                self._expect(OfUnnamed(codes.CLOSE_COMPLETE, server.statements, None), UNNAMED)
            self.keeps.discard(UNNAMED)
            return PASS
        if statement is self._misshapen:
            self._misshapen = None
            self._forget(statement)
            return self._refuse(RESULT_CHANGED)
        if server.statements.has(statement):
            return PASS
        if not self._reads_alike(client, statement) and statement is not self._failed_apart:
            return self._prepare_apart(client, statement)
        self._failed_apart = None
        if statement.shape is not None:
            return self._prepare_and_compare(statement)
        self._prepare(statement)
        if statement.name:
            self._describe(statement)
        return PASS

    def _reads_alike(self, client: ClientSession, statement: Statement) -> bool:
        """The settings in force read the statement's constants as they were read when it was prepared."""
        if statement.digest is None or self._lease.session_state.unsure or statement.digest == client.settings.digest:
            return True
        return client.settings.reading(statement.digest) is client.settings

    def _prepare_apart(self, client: ClientSession, statement: Statement) -> int:
        """Have a statement prepared under the settings it was made with, which are not those in force any more."""
        server = self._server
        if server.owed.requests:
            return self._refuse(SETTINGS_CHANGED) if server.owed.open_batch else HOLD
        if statement.digest is not None:
            then, now = client.settings.reading(statement.digest), client.settings
            self._apart = statement
            self.batch = (
                _run(rereading(now, then))
                + statement.parse(statement.name)
                + messages.message(codes.DESCRIBE, b"S" + statement.name + b"\0")
                + _run(rereading(then, now))
            )
        return APART

    def prepared_apart(self, error: PeerError | None, shape: bytes) -> None:
        """That is done, or it failed: then it is tried again under the settings in force, and the client hears why."""
        statement, self._apart = self._apart, None
        if statement is None:
            return
        if error is not None:
            self._failed_apart = statement
            return
        if statement.name:
            self._server.statements.named[statement] = None
        else:
            self._server.statements.unnamed = statement
        if statement.shape is not None and statement.shape != shape:
            self.compared(statement, same=False)

    def _prepare(self, statement: Statement) -> None:
        """Let the server prepare a statement for us, in front of what the client has said."""
        statements = self._server.statements
        if statement.name:
            self._make_room()
        self._lease.insert(statement.parse(statement.name), codes.PARSE)
        if statement.name:
            self._expect(OfServer(codes.PARSE_COMPLETE, statements, statement), statement)
        else:
            self._expect(OfUnnamed(codes.PARSE_COMPLETE, statements, statement), UNNAMED)

    def _prepare_and_compare(self, statement: Statement) -> int:
        """Let the server prepare a statement of which it is known what its rows have looked like so far."""
        self.quiet = not self._server.owed.requests
        self._prepare(statement)
        self._describe(statement, compare=True)
        self._lease.insert(FLUSH, codes.FLUSH)
        return HOLD

    def _describe(self, statement: Statement, *, compare: bool = False) -> None:
        """Ask the server for the shape of a statement's rows."""
        self._lease.insert(messages.message(codes.DESCRIBE, b"S" + statement.name + b"\0"), codes.DESCRIBE)
        described = OfDescribe(DROP, self, statement, compare=compare)
        self._expect(described)
        if compare:
            self.awaited = described

    def _make_room(self) -> None:
        """Close what was used longest ago, up to max_prepared_statements."""
        statements = self._server.statements
        limit = self._server.pool.route.max_prepared_statements
        while 0 < limit <= len(statements.named):
            oldest = next((known for known in statements.named if not self._unsettled(known)), None)
            if oldest is None:
                return  # of none it is certain that it is there; the next time there is more to choose from
            self._forget(oldest)

    def _forget(self, statement: Statement) -> None:
        """Let the server close a statement."""
        statements = self._server.statements
        self._lease.insert(messages.message(codes.CLOSE, b"S" + statement.name + b"\0"), codes.CLOSE)
        if statement.name:
            self._expect(OfServer(codes.CLOSE_COMPLETE, statements, statement), statement)
        else:
            self._expect(OfUnnamed(codes.CLOSE_COMPLETE, statements, None), UNNAMED)

    def _make_stray(self, client: ClientSession, name: bytes) -> None:
        """Let the server know a client's statement by the client's own name."""
        statements = self._server.statements
        if name not in statements.strays and not name.startswith(self._server.pool.statements.prefix):
            self._lease.insert(client.statements.named[name].parse(name), codes.PARSE)
            self._expect(OfStray(statements, name), name)

    def _under_own_name(self, before: bytes, name: bytes) -> int:
        """Pass on a name that the client uses for no statement of the protocol, unless it could be one of ours."""
        own = own_name(name, self._server.pool.statements.prefix)
        if own == name:
            return PASS
        self._lease.replace_head(before + own + b"\0", len(before) + len(name) + 1)
        return REWRITTEN

    def _refuse(self, error: PeerError) -> int:
        self._lease.refusals.refuse(error)
        return REFUSE

    def _unsettled(self, key: Hashable) -> bool:
        """An earlier batch did something to this name or statement, and it is not known yet whether it succeeded."""
        owed = self._server.owed
        return owed.answered <= self._touched.get(key, -1) < owed.asked

    def _expect(self, expected: Expected, *touched: Hashable) -> None:
        self._alone = True
        expected.batch = self._server.owed.asked
        self._expected.append(expected)
        for key in touched:
            self._touched[key] = expected.batch

    # -- statements that speak of statements ---------------------------------------------------------------------------

    def unknown(self, client: ClientSession, text: bytes) -> list[bytes]:
        """Name the client's statements of which a text speaks and which the server does not know by that name."""
        named, strays = client.statements.named, self._server.statements.strays
        if not named:
            return []
        return [name for name in sql_names.spoken_of(text) if name in named and name not in strays]

    def deallocates(self, client: ClientSession, text: bytes) -> None:
        """Take the statements for closed that a text closes which is going to run."""
        batch = self._server.owed.asked
        for name in sql_names.deallocated(text):
            dropped = Dropped(batch, client.statements, self._server.statements, name)
            self._touched.update(dict.fromkeys(dropped.named, batch))
            self._dropped.append(dropped)

    def strays(self, client: ClientSession, names: list[bytes]) -> bytes:
        """Make what prepares statements under the client's names for them, when nothing else is under way."""
        self._server.statements.strays.update(names)
        return b"".join(client.statements.named[name].parse(name) for name in names)

    def query(self, client: ClientSession) -> None:
        """A Query goes to the server: it ends the unnamed statement."""
        client.statements.unnamed = self._server.statements.unnamed = self._unbound = None
        self.keeps.discard(UNNAMED)

    def _must_know(self, client: ClientSession, text: bytes) -> bool:
        """Let the server know by name the client's statements of which a text speaks; True: not before it is known
        what is there.
        """
        owed = self._server.owed
        if (client.statements.named or self.watches) and owed.asked > owed.answered:
            return True
        for name in self.unknown(client, text):
            self._make_stray(client, name)
        self.deallocates(client, text)
        return False

    def look_at_tag(self, tag: bytes) -> None:
        """Note a CommandComplete after which statements are gone."""
        if tag != DEALLOCATE and tag not in DEALLOCATE_ALL:
            return
        if self._dropped:
            self._dropped.popleft()
        elif self._client is not None and tag != DEALLOCATE:
            self._client.statements.clear()
            self._server.statements.clear()

    # -- replies -------------------------------------------------------------------------------------------------------

    def reply(self, kind: int, body: bytes) -> int:
        """A reply of one of our kinds has come whole; return what is to become of it (`expected`)."""
        described = self._described
        if described is not None:
            self._described = None
            described.shape(kind, body)
            return described.fate
        if kind not in (codes.PARSE_COMPLETE, codes.CLOSE_COMPLETE, codes.PARAMETER_DESCRIPTION):
            return GOES_ON
        expected = self._expected.popleft()
        expected.come()
        if isinstance(expected, OfDescribe):
            expected.types(body)
            self._described = expected
        return expected.fate

    def compared(self, statement: Statement, *, same: bool) -> None:
        """The shape of a statement is known on this server too: the client's request is run, or refused."""
        self.awaited = None
        self.quiet = False
        if not same:
            self._misshapen = statement
            self.outdated(statement)

    def outdated(self, statement: Statement) -> None:
        """The statement's rows have another shape by now."""
        self._server.pool.statements.outdated(statement)

    def error(self, body: bytes) -> None:
        """The server reports an error: what it has not yet done of the batch, it does not do."""
        if OUTDATED.search(body):
            prepared = [one.statement for one in self._expected if isinstance(one, (OfServer, OfClientParse))]
            for statement in self._bound + prepared:
                self.outdated(statement)
        if UNKNOWN in body and PREFIX in body:  # by a DO or a function that closes statements
            named = self._server.statements.named
            for statement in [known for known in named if b'"' + known.name + b'"' in body]:
                del named[statement]
        self._described = None
        self.quiet = False
        self._undo(self._server.owed.answered)

    def ready(self) -> None:
        """A ReadyForQuery has come: whatever the batch has not answered was skipped."""
        self._undo(self._server.owed.answered - 1)
        if not self._server.owed.requests:
            self.settled()

    def _undo(self, batch: int) -> None:
        undone = []
        while self._expected and self._expected[0].batch <= batch:
            undone.append(self._expected.popleft())
        if undone:
            undone[0].first = True
        for expected in reversed(undone):
            expected.undo()
        dropped = []
        while self._dropped and self._dropped[0].batch <= batch:
            dropped.append(self._dropped.popleft())
        for one in reversed(dropped):
            one.undo()


def _run(text: str) -> bytes:
    """Make what runs a statement of ours within a batch and leaves neither statement nor portal."""
    parse = NO_STATEMENT + b"\0" + messages.encode_text(text) + bytes(3)
    bind = NO_STATEMENT + b"\0" + NO_STATEMENT + bytes(7)
    return (
        messages.message(codes.PARSE, parse)
        + messages.message(codes.BIND, bind)
        + messages.message(codes.EXECUTE, NO_STATEMENT + bytes(5))
        + messages.message(codes.CLOSE, b"P" + NO_STATEMENT + b"\0")
        + CLOSE_NOTHING
    )
