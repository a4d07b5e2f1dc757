"""Which requests to a server are those of the client that holds it, and which are the pooler's own.

A message to a server that is the next one its client sent, at least but for the name of a prepared statement, is
forwarded.  What was left out in front of it must be what a pooler may answer by itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from spec.codec import Instance
from spec.events import Said
from spec.pooling_rules import VOID
from spec.pooling_state import Connection
from spec.statements import Statement, renamed, statement_named


def forwarded(said: Said, client: Connection, server: Connection) -> bool:
    """Return whether a message to a server is the client's next request; if so forget those that were left out."""
    is_copying = server.is_copying
    has_passed_over = False
    refusals = len(client.refusals)
    for number, asked in enumerate(client.asked):
        but_for_its_name = not (has_passed_over and said.instance.name == "Close")
        is_same = _is_same(asked, said, but_for_its_name=but_for_its_name) and not _is_stray(asked, said, client)
        if is_same and not _asks_for_shape(asked, said, client, server, has_passed_over=has_passed_over):
            gone = [client.asked.popleft() for _ in range(number + 1)]
            left_out = gone[:-1]
            if id(asked) in client.ignored and not server.reads_data:
                _ignore_next(client)
            for one in gone:
                if client.ignored.pop(id(one), None) is None:
                    client.goes_on(one.instance)
            for refusal in client.refusals[len(client.refusals) - _count_queries(left_out) :]:
                server.owners[id(refusal)] = (refusal, server.holder)
            return True
        if may_go_to_no_server(asked.instance):
            has_passed_over = True
        elif id(asked) in client.ignored:
            continue
        elif asked.instance.name == "Query" and refusals > 0:
            has_passed_over = True  # the pooler's own stands in for it
            refusals -= 1
        elif asked.instance.name not in VOID or is_copying:
            return False
    return False


def _ignore_next(client: Connection) -> None:
    """Of two Syncs one was left out: it need not have been the first."""
    upcoming = next((asked for asked in client.asked if asked.instance.name not in VOID), None)
    if upcoming is not None and upcoming.instance.name == "Sync":
        client.ignored[id(upcoming)] = upcoming


def _asks_for_shape(asked: Said, said: Said, client: Connection, server: Connection, *, has_passed_over: bool) -> bool:
    """Return whether this is a Describe of the pooler's own: it follows a Parse, or the Close that stands for one."""
    last = server.last
    if said.instance.name != "Describe" or asked.data == said.data or last is None:
        return False
    if last.name == "Parse" and statement_named(last) == statement_named(said.instance):
        return has_passed_over or _means_another(asked, said, client, server)
    return last.name == "Close" and _means_another(asked, said, client, server)


def _is_stray(asked: Said, said: Said, client: Connection) -> bool:
    """Return whether a Parse prepares again what the client has under this name already."""
    name = statement_named(said.instance)
    is_known = name is not None and client.meaning(name) is not None
    return said.instance.name == "Parse" and is_known and name != statement_named(asked.instance)


def _means_another(asked: Said, said: Said, client: Connection, server: Connection) -> bool:
    """Return whether two requests mean different statements by the names in them, as far as that is known."""
    theirs, meant = server.meant[id(said.instance)], _meaning(asked, client)
    if theirs is None:
        return False
    if meant is None:  # if it is certain that there is none, it cannot be this
        return client.statements.is_sure and not client.has_lost_count and bool(statement_named(asked.instance))
    return theirs.text != meant.text


def _meaning(asked: Said, client: Connection) -> Statement | None:
    """Return what a client's request means by a name, given those before it that have not gone to a server."""
    name = statement_named(asked.instance)
    if name is None:
        return None
    meant = client.meaning(name)
    for before in client.asked:
        if before is asked:
            break
        if before.instance.name in ("Parse", "Close") and statement_named(before.instance) == name:
            is_parse = before.instance.name == "Parse"
            meant = Statement(before.instance["query"], before.instance["types"]) if is_parse else None
    return meant


def comes_second(said: Said, client: Connection, server: Connection) -> bool:
    """Return whether a request that is the same as the one before it is one too many: the client's is one of them.

    Which of the two, the requests do not say.  So the replies to either are the client's, but it need not get them all:
    whether it gets one for each request of its own, the judge of its own conversation knows.
    """
    first = server.last
    if said.instance.name not in ("Parse", "Describe") or first != said.instance or client.served is first:
        return False
    if server.owners.get(id(first), (None, None))[1] != server.holder:
        return False
    assert first is not None
    server.doubled |= {id(first): first, id(said.instance): said.instance}
    client.due = deque(replace(due, is_reply=False) if due.answers is first else due for due in client.due)
    upcoming = next((asked for asked in client.asked if asked.instance.name not in VOID), None)
    is_the_clients_too = upcoming is not None and _is_same(upcoming, said, but_for_its_name=True)
    return not (upcoming is not None and is_the_clients_too and not _means_another(upcoming, said, client, server))


def follows_own_parse(request: Instance, server: Connection) -> bool:
    """Return whether a Describe may be the pooler's own, though the client asks the same: so was the Parse before."""
    last = server.last
    if request.name != "Describe" or last is None or last.name != "Parse":
        return False
    is_own = server.owners.get(id(last), (None, server.holder))[1] is None
    return is_own and statement_named(last) == statement_named(request)


def is_own_column(described: Instance, server: Connection) -> bool:
    """Return whether the columns are those of a Query of the pooler's own that gave them their names."""
    owned = (request for request, owner in server.owners.values() if owner is None and request.name == "Query")
    texts = [request["query"] for request in owned]
    columns = described["columns"]
    assert isinstance(columns, tuple)
    names = [column[0] for column in columns if isinstance(column, tuple)]
    assert all(isinstance(one, bytes) for one in (*texts, *names))
    return any(text.endswith(b" AS " + name) for text in texts for name in names if name)  # type: ignore[union-attr, operator]


def _count_queries(asked: list[Said]) -> int:
    return sum(one.instance.name == "Query" for one in asked)


def may_go_to_no_server(request: Instance) -> bool:
    """Return whether a pooler may answer a request by itself: it prepares a statement, or closes one."""
    return request.name in ("Parse", "Close") and statement_named(request) is not None


def _is_same(asked: Said, said: Said, *, but_for_its_name: bool) -> bool:
    """Return whether two requests are the same, or at least the same but for the name of a prepared statement."""
    if asked.data == said.data:
        return True
    if not but_for_its_name or asked.instance.name != said.instance.name or statement_named(said.instance) is None:
        return False
    return renamed(asked.instance) == renamed(said.instance)


def learn_own(request: Instance, server: Connection, *, is_forwarded: bool) -> None:
    """Note which statements and portals of a server are the pooler's own."""
    name = statement_named(request)
    if request.name == "Parse" and name is not None:
        server.injected.pop(name, None)
        if not is_forwarded:
            server.injected[name] = Statement(request["query"], request["types"])
    elif request.name == "Bind":
        portal = request["portal"]
        assert isinstance(portal, bytes)
        (server.opened.discard if is_forwarded else server.opened.add)(portal)
