"""Statements that SQL closes: DEALLOCATE, DEALLOCATE ALL and DISCARD ALL (sql-deallocate, sql-discard)."""

from __future__ import annotations

from pgpooler.pooling.sql_names import ALL
from pgpooler.pooling.statements import ClientStatements, ServerStatements, Statement

DEALLOCATE = b"DEALLOCATE"
DEALLOCATE_ALL = (b"DEALLOCATE ALL", b"DISCARD ALL")
"""Tags of CommandComplete."""


class Dropped:
    """What one such statement closes: it counts as closed for what follows, until an error says that it was not run."""

    __slots__ = ("_client", "_had", "_server", "_strays", "batch", "named", "number")

    def __init__(self, batch: int, client: ClientStatements, server: ServerStatements, name: bytes) -> None:
        self.batch = batch
        self.number = 0  # in the order of what was noted
        self._client = client
        self._server = server
        every = name == ALL
        self.named = {known: one for known, one in client.named.items() if every or known == name}
        self._had: list[Statement] = list(server.named) if every else []
        self._strays = set(server.strays) if every else server.strays & {name}
        for known in self.named:
            client.remove(known)
        server.strays -= self._strays
        if every:
            server.named.clear()

    def undo(self) -> None:
        """They are not closed."""
        for name, statement in self.named.items():
            if name not in self._client.named:
                self._client.add(name, statement)
        self._server.strays |= self._strays
        for statement in self._had:
            self._server.named.setdefault(statement, None)
