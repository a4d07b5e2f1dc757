"""Prepared statements in the pooled modes: what becomes of a client's Parse, Bind, Describe and Close in a lease.

The server hears our names instead of the client's (`statements`).  A statement that it does not have is prepared in
front of the request that needs it, and its replies are dropped.  What is prepared already is not prepared again: a
Close of nothing goes to the server instead of the Parse, and its CloseComplete comes back to the client as the
ParseComplete it waits for.  So it is always the server that keeps the order, and that skips after an error.

What a request does to a statement is taken as done for what follows in its batch, because that is skipped if it is not.
What follows a Sync waits until it is known (`pending`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgpooler.pooling import evidence, sql_names
from pgpooler.pooling.dropped import DEALLOCATE, DEALLOCATE_ALL, Dropped
from pgpooler.pooling.expected import GOES_ON, Expected, OfClientClose, OfClientParse, OfDescribe, OfUnkept, OfUnnamed
from pgpooler.pooling.pending import Pending
from pgpooler.pooling.provider import CLOSE_NOTHING, Provider
from pgpooler.pooling.requests import DROPPED, HOLD, PASS, REFUSE, REWRITTEN, WAIT, own_name, read_names
from pgpooler.pooling.statements import LONGEST_KEPT, LONGEST_NAME, MOST_KEPT, PREFIX, UNNAMED, Statement
from pgpooler.protocol import codes

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.lease import Lease
    from pgpooler.pooling.server import ServerSession
    from pgpooler.protocol.framer import Framer

UNKNOWN = b"\0C26000\0"  # field of the error about a statement that does not exist
OUTDATED = re.compile(rb"\0C0A000\0.*\0RRevalidateCachedQuery\0|\0C42(?!501|P05)", re.DOTALL)
"""In an error about a statement whose result has changed, or that cannot be analysed: class 42, but for privileges and
for a name that is taken."""


class Preparing:
    """The prepared statements of one lease after the other on one server connection."""

    __slots__ = (
        "_bound",
        "_client",
        "_copies",
        "_lease",
        "_server",
        "_unbound",
        "_undescribed",
        "keeps",
        "pending",
        "provider",
    )

    def __init__(self, server: ServerSession, lease: Lease) -> None:
        self._server = server
        self._lease = lease
        self._client: ClientSession | None = None
        self._undescribed: Statement | None = None  # a named one that is new, whose rows nobody has asked for
        self._unbound: Statement | None = None  # the unnamed one, prepared in this batch and not used in it
        self._bound: list[Statement] = []  # by requests that are under way
        self._copies: set[bytes] = set()  # portals whose Execute begins a COPY from the client
        self.pending = Pending(server.owed)
        self.provider = Provider(server, lease, self.pending)
        self.keeps: set[bytes] = set()  # names of statements that only this server has: the lease cannot end

    def begin(self, client: ClientSession) -> None:
        """The lease of a client in a pooled mode begins."""
        self._client = client

    def end(self) -> None:
        """The lease is over.  If replies are still to come, nobody knows any more what the server has."""
        self.lost()
        if self._client is not None and UNNAMED in self.keeps:
            self._client.statements.unnamed = None
        self._client = self._unbound = self._undescribed = None
        self._copies.clear()
        self.keeps.clear()
        self.provider.end()

    def lost(self) -> None:
        """Nobody knows which replies have come: nor, then, what the server has."""
        self._bound.clear()
        if not self.pending.clear():
            self._server.statements.lost = True
            self._server.statements.clear()

    @property
    def reason(self) -> str:
        """Why the lease cannot end, for people; empty: it can."""
        return "a prepared statement that is too long to be kept" if self.keeps else ""

    # -- requests ------------------------------------------------------------------------------------------------------

    def look(self, client: ClientSession, kind: int) -> int:
        """Look at an extended request at which the framer has stopped; return what is to become of it (`requests`)."""
        self.pending.request()
        owed = self._server.owed
        if owed.skipping or owed.copy_in or owed.doubt:
            self.pending.alone = False
            return self._look_in_doubt(client, kind)
        if self._undescribed is not None and not self._describe_new(client, kind):
            return WAIT
        if kind == codes.EXECUTE:
            self.pending.alone = False
            return self._execute(client) if self._copies else PASS
        if kind == codes.PARSE:
            return self._parse(client)
        if kind == codes.BIND:
            fate = self._bind(client)
            self.pending.alone = False
            return fate
        return self._describe_or_close(client, kind)

    def _look_in_doubt(self, client: ClientSession, kind: int) -> int:
        """Pass on what perhaps is not run as it is, with one reply to each request, if any.

        A statement that is prepared then has the client's own name, and only this server has it.
        """
        owed = self._server.owed
        in_copy = owed.copy_in and owed.open_batch and not owed.swallowed
        certain = not owed.doubt and (owed.skipping or in_copy)  # that it is not run
        if kind != codes.PARSE or certain:
            return PASS
        names = read_names(client.framer, 1)
        if names is None:
            return WAIT
        if names:
            name = names[0][:LONGEST_NAME]
            self._lease.session_state.note(evidence.UNREAD | evidence.CLEANING)
            self._client_only(client, name)
            self.keeps.add(name)
        return PASS

    def _client_only(self, client: ClientSession, name: bytes) -> None:
        """The client prepares a statement that only this server will have."""
        if name:
            client.statements.remove(name)
            self._server.statements.strays.add(name)
        else:
            client.statements.unnamed = self._server.statements.unnamed = None

    def _parse(self, client: ClientSession) -> int:
        framer = client.framer
        names = read_names(framer, 1)
        if names is None:
            return WAIT
        if not names:
            return PASS
        name = names[0][:LONGEST_NAME]
        if name and self.pending.unsettled(name):
            return HOLD
        if name and name in self.keeps:  # then the server refuses a name that is taken
            self._lease.session_state.note(evidence.UNREAD | evidence.CLEANING)
            self.pending.expect(Expected(codes.PARSE_COMPLETE, GOES_ON), name)
            return PASS
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
        self.pending.expect(
            OfUnnamed(
                codes.PARSE_COMPLETE,
                self._server.statements,
                statement,
                client=client.statements,
                alone=self.pending.alone,
            ),
            UNNAMED,
        )
        return PASS

    def sync(self) -> None:
        """A Sync follows: an unnamed statement that was not used may be bound later, on a server that reads it anew."""
        statements = (self._undescribed, self._unbound)
        self._undescribed = self._unbound = None
        owed = self._server.owed
        if owed.skipping or owed.copy_in or owed.doubt:
            return
        for statement in statements:
            if statement is not None and self._server.statements.has(statement):
                self.provider.describe(statement)

    def _describe_new(self, client: ClientSession, kind: int) -> bool:
        """Ask what the rows of a new statement look like, before anything else is run, unless the client asks for that.

        An error answers what the client says next; False: that is not here whole.
        """
        framer, statement = client.framer, self._undescribed
        if framer.length <= evidence.LONGEST_READ and not framer.take(evidence.LONGEST_READ):
            return False
        self._undescribed = None
        if kind == codes.DESCRIBE and framer.head(codes.SMALL_MESSAGE_LIMIT):
            body = framer.body()
            if body[:1] == b"S" and self._statement(client, body[1:-1][:LONGEST_NAME]) is statement:
                return True
        if statement is not None and self._server.statements.has(statement):
            self.provider.describe(statement)
        return True

    def _parse_named(self, client: ClientSession, name: bytes, body: bytes, left: int) -> int:
        server = self._server
        if self.pending.earlier:
            return HOLD  # until it is known what is there, and whether the transaction has failed
        if name in client.statements.named:
            self.provider.make_stray(client, name)  # and the server refuses the name that is taken
            self.pending.expect(Expected(codes.PARSE_COMPLETE, GOES_ON))
            return PASS
        self.provider.forget_misshapen()
        failed = server.status == codes.FAILED  # then the server decides what it refuses
        state = self._lease.session_state
        alone = failed or state.unsure or state.left & evidence.TEMPORARY  # a temporary table may hide another one
        statement = server.pool.statements.get(body, None if alone else client.settings.digest, left)
        if self.pending.unsettled(statement):
            return HOLD
        shared = server.statements.has(statement)
        if not shared and statement.shape and not left & evidence.STATEMENTS:
            return self.provider.prepare_and_compare(statement)  # those who have it were told that shape
        if not shared:
            self.provider.make_room(statement)
        insert = CLOSE_NOTHING if shared else statement.parse(statement.name)
        self._lease.insert(insert, codes.CLOSE if shared else codes.PARSE)
        self.pending.expect(
            OfClientParse(client.statements, name, statement, server.statements, shared=shared), name, statement
        )
        if statement.shape is None:
            self._undescribed = statement
        return DROPPED

    def _parse_unkept(self, client: ClientSession, name: bytes) -> int:
        """Pass on a statement that is too long to be kept.  Only this server has it, so the client stays with it."""
        self._lease.session_state.note(evidence.UNREAD | evidence.CLEANING)
        self._client_only(client, name)
        self.pending.expect(OfUnkept(self.keeps, name), name)
        return PASS

    def _bind(self, client: ClientSession) -> int:
        names = read_names(client.framer, 2)
        if names is None:
            return WAIT
        if not names:
            return PASS
        portal, said = names
        name = said[:LONGEST_NAME]
        statement = self._statement(client, name)
        portal_known = portal[:LONGEST_NAME]
        self._copies.discard(portal_known)
        if not self._is_here(client.framer, statement):
            return WAIT
        fate = self.provider.make_ready(client, name, statement)
        if fate != PASS:
            return fate
        if statement is None:
            if not name:
                self.keeps.discard(UNNAMED)
            return self._under_own_name(portal + b"\0", said)
        state = self._lease.session_state
        if statement.left:
            if statement.left & evidence.PINNING and state.refuses(statement.left):
                return REFUSE
            if statement.left & evidence.STATEMENTS:
                if self._must_know(client, statement.text):
                    return HOLD
                self.deallocates(client, statement.text)
            state.note_text(statement.left, statement.text)
            if statement.left & evidence.READS_DATA:
                self._copies.add(portal_known)
        self._bound.append(statement)
        if statement is self._unbound:
            self._unbound = None
        if not statement.name:
            return PASS
        self._server.statements.named.move_to_end(statement)
        self._lease.replace_head(portal + b"\0" + statement.name + b"\0", len(portal) + len(said) + 2)
        return REWRITTEN

    def _is_here(self, framer: Framer, statement: Statement | None) -> bool:
        """A Bind is here whole, if something of ours goes in front: an error of that answers it, and comes behind it.

        A very long one is not waited for; then its client may hear of an error while it is still sending.
        """
        if statement is not None and not statement.left and self._server.statements.has(statement):
            return True
        return framer.length > evidence.LONGEST_READ or framer.take(evidence.LONGEST_READ)

    def _execute(self, client: ClientSession) -> int:
        """Some portal begins a COPY from the client: perhaps it is this one."""
        names = read_names(client.framer, 1)
        if names is None:
            return WAIT
        if names and names[0][:LONGEST_NAME] in self._copies:
            self._server.owed.begins_copy(codes.EXECUTE)
        return PASS

    def _describe_or_close(self, client: ClientSession, kind: int) -> int:
        framer = client.framer
        if not framer.take(codes.SMALL_MESSAGE_LIMIT):
            return WAIT
        body = framer.body()
        if body[:1] != b"S" or not body.endswith(b"\0"):
            if kind == codes.CLOSE and body[:1] == b"P":
                self.pending.expect(Expected(codes.CLOSE_COMPLETE, GOES_ON))
            else:
                self.pending.alone = False
            return PASS
        name = body[1:-1][:LONGEST_NAME]
        if kind == codes.CLOSE:
            return self._close(client, name, body[1:-1])
        statement = self._statement(client, name)
        fate = self.provider.make_ready(client, name, statement)
        if fate != PASS or statement is None:
            self.pending.alone = False
            return self._under_own_name(b"S", body[1:-1]) if fate == PASS else fate
        if statement is self._unbound:
            self._unbound = None
        self.pending.expect(OfDescribe(GOES_ON, self.provider, statement))
        if not statement.name:
            return PASS
        self._lease.replace_head(b"S" + statement.name + b"\0", len(body))
        return REWRITTEN

    def _close(self, client: ClientSession, name: bytes, said: bytes) -> int:
        if self.pending.unsettled(name):
            return HOLD
        self.keeps.discard(name)
        if name:
            self.pending.expect(OfClientClose(client.statements, name, self._server.statements), name)
            return self._under_own_name(b"S", said)
        self._unbound = None
        self.pending.expect(
            OfUnnamed(codes.CLOSE_COMPLETE, self._server.statements, None, client=client.statements), UNNAMED
        )
        return PASS

    # -- what they need ------------------------------------------------------------------------------------------------

    def _statement(self, client: ClientSession, name: bytes) -> Statement | None:
        return client.statements.named.get(name) if name else client.statements.unnamed

    def _under_own_name(self, before: bytes, name: bytes) -> int:
        """Pass on a name that the client uses for no statement of the protocol, unless it could be one of ours."""
        own = own_name(name, self._server.pool.statements.prefix)
        if own == name:
            return PASS
        self._lease.replace_head(before + own + b"\0", len(before) + len(name) + 1)
        return REWRITTEN

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
            self.pending.drop(dropped)

    def strays(self, client: ClientSession, names: list[bytes]) -> bytes:
        """Make what prepares statements under the client's names for them, when nothing else is under way."""
        self._server.statements.strays.update(names)
        return b"".join(client.statements.named[name].parse(name) for name in names)

    def query(self, client: ClientSession) -> None:
        """A Query goes to the server: it ends the unnamed statement."""
        client.statements.unnamed = self._server.statements.unnamed = self._unbound = self._undescribed = None
        self.keeps.discard(UNNAMED)

    def _must_know(self, client: ClientSession, text: bytes) -> bool:
        """Let the server know by name the client's statements of which a text speaks; True: not before it is known
        what is there.
        """
        if self.pending.earlier and (client.statements.named or self.pending.watches):
            return True
        for name in self.unknown(client, text):
            self.provider.make_stray(client, name)
        return False

    def look_at_tag(self, tag: bytes) -> None:
        """Note a CommandComplete after which statements are gone."""
        if tag != DEALLOCATE and tag not in DEALLOCATE_ALL:
            return
        if not self.pending.dropped() and self._client is not None and tag != DEALLOCATE:
            self._client.statements.clear()
            self._server.statements.clear()

    # -- replies -------------------------------------------------------------------------------------------------------

    def error(self, body: bytes) -> None:
        """The server reports an error: with it the batch is over, and a statement may be out of date."""
        if OUTDATED.search(body):
            for statement in self._bound + self.pending.being_prepared():
                self._server.pool.statements.outdated(statement)
        if UNKNOWN in body and PREFIX in body:  # by a DO or a function that closes statements
            named = self._server.statements.named
            for statement in [known for known in named if b'"' + known.name + b'"' in body]:
                del named[statement]
        self.provider.quiet = False
        self.pending.error()

    def ready(self) -> None:
        """A ReadyForQuery has come."""
        self.pending.ready()
        if not self._server.owed.requests and not self._server.owed.doubt:
            self._bound.clear()
            self.pending.clear()
