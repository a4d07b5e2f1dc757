"""NORMATIVE: what a pooler may do between the two sides it stands between, and a judge of it.

The judge hears every message on every connection of a pooler, client side and server side, in the order in which the
pooler read or wrote them, and who holds which server connection.  It says which rule is broken, and where.

A message to a server that is the next one its client sent is *forwarded*; any other is the pooler's own, *injected*,
which only some kinds of messages may be.  What a server says in reply to a forwarded request is *due* to the client;
what a client gets that is not due to it is *faked*, which only few kinds of messages may be.

A prepared statement belongs to the client that prepared it, but lives in the session of a server, which other clients
use in between.  So a pooler may do with its *name* what it likes: forward Parse, Bind, Describe and Close under another
one, prepare it again where it is missing, keep it where the client has closed it, and answer Parse and Close without
the server.  What the name stands for, it may not change: that is the rule of statements.  `pooling_rules` has them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from spec.codec import Instance
from spec.conversation import ASYNCHRONOUS, ENDS_A_CYCLE, Rule
from spec.events import Canceled, Event, Gone, Leased, Released, Said, Side
from spec.forwarding import comes_second, follows_own_parse, forwarded, is_own_column, learn_own, may_go_to_no_server
from spec.messages import Sender
from spec.pooling_rules import (
    ACKNOWLEDGED,
    CANCEL,
    DONE,
    EXCLUSION,
    FAKED,
    FIDELITY,
    FORWARDED,
    INJECTED,
    ISOLATION,
    RELEASE,
    REPLACED,
    STATEMENTS,
    TRANSPARENCY,
)
from spec.pooling_state import Connection, Due, note_parameter, parameter
from spec.session import Judge, Violation
from spec.statements import USED, Statement, statement_named
from spec.types import Item

ANYWHERE = ASYNCHRONOUS - {"ParameterStatus"}
"""What has no order; what a ParameterStatus says is in force from then on."""


class PoolingJudge:
    """Judges a pooler by everything that happens on its connections."""

    def __init__(self) -> None:
        self.clients: dict[int, Connection] = {}
        self.servers: dict[int, Connection] = {}
        self.found = FoundTypes()

    def hear(self, event: Event) -> list[Violation]:
        """Return what is wrong with this event, given everything before it."""
        match event:
            case Said(Side.CLIENT):
                return list(self._client_side(event))
            case Said(Side.SERVER):
                return list(self._server_side(event))
            case Leased():
                return list(self._leased(event))
            case Released():
                return list(self._released(event))
            case Canceled():
                return list(self._canceled(event))
            case Gone():
                self._gone(event)
        return []

    # -- the client's side ---------------------------------------------------------------------------------------------

    def _client_side(self, said: Said) -> Iterator[Violation]:
        client = self.clients.setdefault(said.connection, Connection(Judge()))
        turn, was_ambiguous = client.judge.replied_to(said.instance), client.judge.is_ambiguous
        yield from client.judge.hear(said.instance)
        if said.instance.sender is Sender.FRONTEND:
            if said.instance.name in FORWARDED:
                client.asked.append(said)
            server = self.servers.get(client.holder) if client.holder is not None else None
            if said.instance.name == "Sync" and server is not None and server.reads_data:
                client.ignore_syncs()
            return
        note_parameter(client, said.instance)
        if not client.welcomed:
            client.welcomed = said.instance.name == "ReadyForQuery"
            return
        client.count_again()
        request = turn.instance if turn is not None else None
        name = statement_named(request) if request is not None else None
        due = _delivered(client, said.data, client.statements.known.get(name) if name is not None else None)
        if said.instance.name == "ReadyForQuery":
            yield from self._kept_back(said, client)
            if client.is_rolled_back:
                yield _broken(TRANSPARENCY, said, "the client is not told that its transaction was rolled back")
        client.is_rolled_back &= said.instance.name not in ("ReadyForQuery", "ErrorResponse")
        if due is not None and said.instance.name not in ASYNCHRONOUS:
            client.served = due.answers
        if due is not None and request is not None:
            yield from _used(said, client, request, due, self.found)
        elif due is None:
            yield from self._faked(said, client, request)
        if request is not None:
            client.statements.learn(request, said.instance)
        elif was_ambiguous and said.instance.name not in ASYNCHRONOUS:
            client.has_lost_count = True

    def _faked(self, said: Said, client: Connection, request: Instance | None) -> Iterator[Violation]:
        """Learn what no server said: it may stand for what one said, or for what none was asked."""
        name = said.instance.name
        if name in ACKNOWLEDGED and request is not None and may_go_to_no_server(request):
            client.asked = deque(asked for asked in client.asked if asked.instance is not request)
        elif name in FAKED:
            client.fakes += 1
            if name == "ParameterStatus":
                yield from self._faked_parameter(said, client)
            elif name == "ErrorResponse" and _next_reply(client) == name:
                _strike_out(client, name)
            elif name == "ReadyForQuery":
                yield from self._faked_ready(said, client)
        elif any(said.data == due.said.data for due in client.due):
            yield _broken(TRANSPARENCY, said, "a reply comes before another one that was due first, or instead of it")
        else:
            yield _broken(ISOLATION, said, "the client gets what no server said to it")

    def _faked_ready(self, said: Said, client: Connection) -> Iterator[Violation]:
        """Learn a ReadyForQuery of the pooler's own: instead of the server's, or for a request that goes to none."""
        server = self.servers.get(client.holder) if client.holder is not None else None
        status = server.judge.status if server is not None else b"I"
        if said.instance["status"] != status:
            what = f"the client is told status {said.instance['status']!r}, and its server is at {status!r}"
            yield _broken(TRANSPARENCY, said, what)
        if "ReadyForQuery" in {due.said.instance.name for due in client.due}:
            left = _strike_out(client, "ReadyForQuery") - REPLACED
            if left:
                yield _broken(TRANSPARENCY, said, f"the client never got {', '.join(sorted(left))}")
        elif server is None or not server.owes(said.connection):
            _answered_without_server(client)

    def _faked_parameter(self, said: Said, client: Connection) -> Iterator[Violation]:
        server = self.servers.get(client.holder) if client.holder is not None else None
        if server is not None and parameter(said.instance) not in server.reported:
            yield _broken(FIDELITY, said, f"the server has never reported {parameter(said.instance)}")

    def _kept_back(self, said: Said, client: Connection) -> Iterator[Violation]:
        """Judge whether parameters that did not reach the client before a ReadyForQuery are as it believes them."""
        server = self.servers.get(client.holder) if client.holder is not None else None
        if server is not None:
            for name in sorted(client.passed_over - client.parameters_due()):
                yield from _fidelity(said, name, server, client)
            client.passed_over.clear()

    # -- the server's side ---------------------------------------------------------------------------------------------

    def _server_side(self, said: Said) -> Iterator[Violation]:
        server = self.servers.setdefault(said.connection, Connection(Judge()))
        if said.instance.name == "RowDescription" and is_own_column(said.instance, server):
            server.is_marking = True
            _choose_own(server)
        turn, owner, is_sure = server.judge.replying_to, server.owner(), not server.judge.is_ambiguous
        yield from server.judge.hear(said.instance)
        client = self.clients.get(server.holder) if server.holder is not None else None
        if said.instance.sender is Sender.FRONTEND:
            yield from self._request(said, server, client)
            return
        note_parameter(server, said.instance)
        if not server.welcomed:
            server.welcomed = said.instance.name == "ReadyForQuery"
            return
        if said.instance.name == "CopyInResponse" and client is not None and server.reads_data:
            client.ignore_syncs()
        if client is not None and owner is None and said.instance.name == "CommandComplete":
            _rolled_back(said.instance, server, client)
        used = None
        if turn is not None and is_sure:
            if (name := statement_named(turn.instance)) is not None:
                used = name, server.statements.known.get(name)
                self.found.learn(used[1], said.instance)
            server.statements.learn(turn.instance, said.instance)
        stands_in = client is not None and turn is not None and _is_in(turn.instance, client.refusals)
        if client is not None and turn is not None and stands_in and said.instance.name in DONE:
            client.refusals = [one for one in client.refusals if one is not turn.instance]  # it has not failed
        owner = None if server.is_marking else owner
        server.is_marking &= said.instance.name != "ReadyForQuery"
        if client is not None and owner == server.holder:
            is_reply = turn is not None and said.instance.name != "ParameterStatus"
            is_reply = is_reply and (turn is None or id(turn.instance) not in server.doubled)
            client.due.append(Due(said, is_reply, used, turn.instance if turn is not None else None))
        elif client is not None and _is_for_session(said.instance, stands_in=stands_in):
            client.due.append(Due(said, is_reply=False))  # said beside what the pooler has asked
        elif client is None and turn is None:
            server.stray.append(Due(said, is_reply=False))
        elif client is not None and owner is not None:
            what = f"a reply to client {owner} comes in the lease of client {server.holder}"
            yield _broken(ISOLATION, said, what)
        if server.judge.idle and not server.judge.is_ambiguous:
            server.owners.clear()
            server.doubled.clear()

    def _request(self, said: Said, server: Connection, client: Connection | None) -> Iterator[Violation]:
        server.stray.clear()
        server.note(said.instance)
        if not server.welcomed or (client is None and server.holder is not None):
            return  # whose requests are not known, any more: nothing to compare with
        is_forwarded = client is not None and (comes_second(said, client, server) or forwarded(said, client, server))
        if is_forwarded and follows_own_parse(said.instance, server):
            server.doubled[id(said.instance)] = said.instance
        server.last = server.last if said.instance.name == "Flush" else said.instance
        server.owners[id(said.instance)] = (said.instance, server.holder if is_forwarded else None)
        if not (self._is_own(said.instance, server) or is_forwarded):
            yield _broken(TRANSPARENCY, said, f"the server is asked {said.instance.name} as no client has asked it")
        learn_own(said.instance, server, is_forwarded=is_forwarded)
        if client is None:
            return
        if is_forwarded:
            client.refusals.clear()
        elif said.instance.name == "Query":
            client.refusals.append(said.instance)
        if is_forwarded and client.fresh:
            client.fresh = False
            for name in sorted(server.parameters.keys() - client.parameters_due()):
                yield from _fidelity(said, name, server, client)

    def _is_own(self, request: Instance, server: Connection) -> bool:
        """Return whether a pooler may say this to a server of its own accord."""
        if request.name == "Execute":
            return request["portal"] in server.opened
        if request.name != "Bind":
            return request.name in INJECTED
        statement = server.injected.get(statement_named(request) or b"")
        of_clients = (known for client in self.clients.values() for known in client.statements.known.values())
        return statement is not None and all(known != statement for known in of_clients)

    # -- leases --------------------------------------------------------------------------------------------------------

    def _leased(self, lease: Leased) -> Iterator[Violation]:
        client = self.clients.setdefault(lease.client, Connection(Judge()))
        server = self.servers.setdefault(lease.server, Connection(Judge()))
        if server.holder is not None or client.holder is not None:
            yield _broken(EXCLUSION, lease, f"{lease}: one of the two is in a lease already")
        if not server.judge.idle or server.judge.status != b"I":
            yield _broken(RELEASE, lease, f"{lease}: status {server.judge.status!r}, owed {server.judge.owed}")
        server.holder, client.holder = lease.client, lease.server
        client.fresh, client.fakes = True, 0
        client.passed_over.clear()
        client.refusals.clear()
        client.due.extend(server.stray)  # nobody's, and perhaps not read before the lease began

    def _released(self, lease: Released) -> Iterator[Violation]:
        client, server = self.clients.get(lease.client), self.servers.get(lease.server)
        if server is not None:
            server.holder = None
        if client is None:
            return
        client.holder = None
        left = {due.said.instance.name for due in client.due if due.is_reply}
        if server is not None:  # what it said by itself may not have been read before the lease was over
            server.stray = [due for due in client.due if due.answers is None and not due.is_reply]
        client.due.clear()
        if left and not lease.lost and not client.judge.is_over and not (left <= REPLACED and client.fakes):
            yield _broken(TRANSPARENCY, lease, f"{lease}: the client never got {', '.join(sorted(left))}")

    def _canceled(self, cancel: Canceled) -> Iterator[Violation]:
        server = self.servers.get(cancel.server)
        if server is None or server.holder != cancel.client:
            yield _broken(CANCEL, cancel, f"{cancel}: the client does not hold that server connection")

    def _gone(self, gone: Gone) -> None:
        (self.clients if gone.side is Side.CLIENT else self.servers).pop(gone.connection, None)


def _rolled_back(complete: Instance, server: Connection, client: Connection) -> None:
    """Learn that a statement of the pooler's own ended the transaction, of which the client has to hear by an error."""
    if complete["tag"] == b"ROLLBACK" and server.judge.status != b"I":
        client.is_rolled_back = server.judge.status == b"T"
        client.judge.rolled_back()


def _answered_without_server(client: Connection) -> None:
    """Forget the requests up to one that ends in ReadyForQuery: the pooler has answered them."""
    while client.asked:
        asked = client.asked.popleft()
        client.goes_on(asked.instance)
        if asked.instance.name == "Query" and client.refusals:
            client.refusals.pop(0)
        if asked.instance.name in ENDS_A_CYCLE and client.ignored.pop(id(asked), None) is None:
            break


def _choose_own(server: Connection) -> None:
    """Of several readings, keep the one in which the server has come to a Query of the pooler's own."""
    for number, reading in enumerate(server.judge.readings):
        request = reading.request
        if request is not None and request.kind == "Query" and server.owners[id(request.instance)][1] is None:
            server.judge.choose(number)
            break


def _is_for_session(said: Instance, *, stands_in: bool) -> bool:
    """Return whether the client is to get what a server says beside a statement of the pooler's own.

    `stands_in`: that statement stands in for a request of the client.
    """
    return said.name == "NotificationResponse" or (stands_in and said.name in ASYNCHRONOUS)


def _is_in(request: Instance, requests: list[Instance]) -> bool:
    return any(one is request for one in requests)


def _delivered(client: Connection, data: bytes, meant: Statement | None) -> Due | None:
    """Strike out what is delivered; what answers nothing may be missing, if the lease was over before it came.

    A notice or a notification may overtake replies that are kept back (protocol-async: it may stand anywhere).  Of what
    need not be delivered nothing is that is about another statement than the one that the client has asked about.
    """
    for number, due in enumerate(client.due):
        if due.said.data == data and due.said.instance.name in ANYWHERE:
            del client.due[number]
            return due
    for number, due in enumerate(client.due):
        theirs = due.used[1] if due.used is not None and not due.is_reply else None
        is_about_another = meant is not None and theirs is not None and theirs.text != meant.text
        if due.said.data == data and not is_about_another:
            passed_over = [client.due.popleft() for _ in range(number + 1)][:-1]
            said = (one.said.instance for one in passed_over)
            client.passed_over |= {parameter(one)[0] for one in said if one.name == "ParameterStatus"}
            return due
        if due.is_reply:
            return None
    return None


def _next_reply(client: Connection) -> str:
    """Return the name of the first reply that is due; empty: none is."""
    return next((due.said.instance.name for due in client.due if due.is_reply), "")


def _strike_out(client: Connection, name: str) -> set[str]:
    """Strike out what is due up to the first message of this name; return the names of the replies among it."""
    names: set[str] = set()
    while client.due:
        due = client.due.popleft()
        names |= {due.said.instance.name} if due.is_reply else set()
        if due.said.instance.name == name:
            break
    return names


class FoundTypes:
    """The types that servers have found for the parameters of statements, which a pooler may give them again."""

    def __init__(self) -> None:
        self._found: set[tuple[Statement, Item]] = set()

    def learn(self, statement: Statement | None, reply: Instance) -> None:
        """Learn the reply to a Describe of a statement."""
        if statement is not None and reply.name == "ParameterDescription":
            self._found.add((statement, reply["types"]))

    def is_same(self, own: Statement, theirs: Statement) -> bool:
        """Return whether two statements say the same."""
        return own == theirs or (own.text == theirs.text and (own, theirs.types) in self._found)


def _used(said: Said, client: Connection, request: Instance, due: Due, found: FoundTypes) -> Iterator[Violation]:
    """Judge whether the server used the statement that the client meant."""
    meant = statement_named(request)
    if said.instance.name not in USED or due.used is None or meant is None:
        return
    name, theirs = due.used
    own = client.statements.known.get(meant)
    if (theirs is None and name == meant) or client.has_lost_count:
        return  # it may have got its name in SQL, or nobody knows what the client has
    if theirs is None:
        yield _broken(STATEMENTS, said, f"{meant!r} became {name!r}, which nobody has prepared on this server")
    elif own is None and client.statements.is_sure:
        yield _broken(STATEMENTS, said, f"the client has prepared no {meant!r}, and got {theirs.text!r}")
    elif own is not None and not found.is_same(own, theirs):
        yield _broken(STATEMENTS, said, f"the client has prepared {own} as {meant!r}, and got {theirs}")


def _fidelity(said: Said, name: bytes, server: Connection, client: Connection) -> Iterator[Violation]:
    theirs, told = server.parameters.get(name), client.parameters.get(name)
    if theirs != told:
        yield _broken(FIDELITY, said, f"{name.decode()} is {theirs!r}, and the client was told {told!r}")


def _broken(rule: Rule, event: Event, what: str) -> Violation:
    said = event.instance if isinstance(event, Said) else None
    sender = said.sender if said is not None else Sender.BACKEND
    return Violation(rule, sender, what, said.name if said is not None else "", frozenset())
