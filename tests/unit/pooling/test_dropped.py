"""Statements that SQL closes, and what is there again when it does not run."""

from __future__ import annotations

import pytest

from pgpooler.pooling.dropped import Dropped
from pgpooler.pooling.sql_names import ALL
from pgpooler.pooling.statements import ClientStatements, ServerStatements, Statement


@pytest.fixture
def client() -> ClientStatements:
    statements = ClientStatements()
    for name in (b"a", b"b"):
        statements.add(name, Statement(b"our " + name, name, None, 0))
    return statements


@pytest.fixture
def server(client: ClientStatements) -> ServerStatements:
    statements = ServerStatements()
    statements.named.update(dict.fromkeys(client.named.values()))
    statements.strays.update((b"a", b"b", b"c"))
    return statements


def known(client: ClientStatements, server: ServerStatements) -> tuple[set[bytes], int, set[bytes], list[bytes]]:
    return set(client.named), client.size, set(server.strays), [statement.name for statement in server.named]


def test_one_statement_is_closed_under_the_name_that_sql_knows_it_by(
    client: ClientStatements, server: ServerStatements
) -> None:
    """Ours stays on the server: others may have it, too."""
    before = known(client, server)
    dropped = Dropped(1, client, server, b"a")
    assert known(client, server) == ({b"b"}, 1, {b"b", b"c"}, [b"our a", b"our b"])
    dropped.undo()
    assert known(client, server) == before


def test_all_statements_are_closed_ours_too(client: ClientStatements, server: ServerStatements) -> None:
    before = known(client, server)
    dropped = Dropped(1, client, server, ALL)
    assert known(client, server) == (set(), 0, set(), [])
    dropped.undo()
    assert known(client, server) == before


def test_what_was_prepared_since_stays_when_the_one_before_is_not_closed(
    client: ClientStatements, server: ServerStatements
) -> None:
    dropped = Dropped(1, client, server, b"a")
    client.add(b"a", another := Statement(b"our c", b"another", None, 0))
    dropped.undo()
    assert client.named[b"a"] is another
    assert client.size == len(b"another") + 1
