"""Transaction blocks in statement mode: the one that a request leaves open is rolled back and refused.

From BEGIN on each CommandComplete is held until it is known what follows, so that the error stands in the place of the
last: a refused BEGIN is answered by the error alone, and no statement both succeeds and fails.  `BEGIN; ...; COMMIT` in
one Query ends idle and gets every reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.errors import FeatureNotSupported
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.server import ServerSession

BEGUN = (b"BEGIN\0", b"START TRANSACTION\0")  # tags of what begins a block
NO_BLOCKS = "transaction blocks are not allowed in statement pooling mode"
OTHER_MODES = "Connect through a rule with pool_mode transaction or session."
BLOCK_REFUSED = messages.error_response(
    FeatureNotSupported(NO_BLOCKS, severity="ERROR", hint=OTHER_MODES)
) + messages.ready_for_query(codes.IDLE)
PIPELINE_REFUSED = FeatureNotSupported(
    NO_BLOCKS,
    detail="More was sent before the block was refused.  It may belong to the block, and is not run outside of it.",
    hint=OTHER_MODES,
)


class BlockGuard:
    """Watches the replies of one lease in statement mode."""

    __slots__ = ("_client", "_has_begun", "_held", "_refusal", "_server")

    def __init__(self, server: ServerSession, client: ClientSession) -> None:
        self._server = server
        self._client = client
        self._has_begun = False  # what is answered now has begun a block
        self._held = b""  # the CommandComplete that is held
        self._refusal = b""  # what the client is told once its block is rolled back

    def takes(self, kind: int, now: float) -> bool:
        """Look at a message that has arrived whole; True: it does not go to the client with the others."""
        server = self._server
        framer = server.framer
        if kind == codes.READY_FOR_QUERY and server.status != codes.IDLE:
            server.lease.pass_on_run()
            framer.drop()
            self._refuse(now)
            return True
        if kind == codes.COMMAND_COMPLETE and (self._has_begun or framer.body() in BEGUN):
            server.lease.pass_on_run()
            self.let_go()
            self._has_begun = True
            self._held = messages.message(kind, framer.body())
            framer.drop()
            return True
        self._has_begun &= kind != codes.READY_FOR_QUERY
        return False

    def let_go(self) -> None:
        """Something follows what is held: it goes out first."""
        if self._held:
            self._client.port.write_all(self._held)
            self._held = b""

    def _refuse(self, now: float) -> None:
        """A request left a transaction open: roll back before anybody is told."""
        server = self._server
        self._held = b""
        self._has_begun = False
        # After an error the client knows already, and a request has only one.
        self._refusal = messages.ready_for_query(codes.IDLE) if server.status == codes.FAILED else BLOCK_REFUSED
        if server.owed.doubt or server.owed.requests:
            server.close(server.owed.doubt or "a transaction block in statement mode left replies owed", now)
        else:
            server.between.refuse_block(now)

    def rolled_back(self, now: float) -> None:
        """Tell the client.  What it sent ahead may belong to the block: then it is not run, and the client is ended."""
        client = self._client
        if client.held or not client.framer.at_boundary():
            client.refuse(PIPELINE_REFUSED, now)
        else:
            client.port.write_all(self._refusal)
            client.settle(now)
