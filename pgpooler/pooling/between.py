"""What we ask a server that a client holds: before its request, between two, and after one.

While such a statement runs nothing of the client's goes to the server, and what the server says is for us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.errors import PeerError
from pgpooler.pooling.parameters import NONE_SET, Settings
from pgpooler.pooling.states import ServerState
from pgpooler.protocol import codes, messages

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.pooling.server import ServerSession

STARTING_TIMEOUT = 30.0  # seconds until a connection that does not answer us is closed
OURS = (ServerState.STARTING, ServerState.REFUSING, ServerState.ASKING)
"""States in which the server of a client runs a statement of our own."""
NAMES, APART, END = "names of statements", "a statement under its settings", "the end of replies"
"""What is asked beside plain statements."""


class Between:
    """The statements of ours on one server connection while a client holds it."""

    __slots__ = ("_becoming", "_restoring", "_server", "begins", "rows", "shape")

    def __init__(self, server: ServerSession) -> None:
        self._server = server
        self._becoming: Settings | None = NONE_SET  # the settings in force once what runs has succeeded
        self.begins = False  # the lease begins: what the server says by itself is not for the client yet
        self._restoring = False  # the client has not heard yet that the server is ready
        self.rows: list[bytes] = []  # that the server has answered with
        self.shape = b""  # of the rows of the statement that was prepared for a client

    def end(self) -> None:
        """The client is gone."""
        self._restoring = False

    # -- what is asked -------------------------------------------------------------------------------------------------

    def prepare(self, statement: str, now: float, settings: Settings | None = None) -> None:
        """Run a statement of ours before the client may go on, after which these settings are in force."""
        self._server.settings, self._becoming = None, settings
        self._begin(ServerState.STARTING, now)
        self.begins = settings is not None
        self._server.ask(statement)

    def restore(self, statement: str, now: float) -> None:
        """Run a statement of ours after the client's, before the client hears that the server is ready."""
        self._restoring = True
        self.prepare(statement, now)

    def make_known(self, parses: bytes, now: float) -> None:
        """Have statements prepared before the client may go on; what the server thinks of them it will say again."""
        self._batch(NAMES, parses, now)

    def prepare_apart(self, batch: bytes, now: float) -> None:
        """Have a statement prepared under settings of its own before the client may go on."""
        self._batch(APART, batch, now)

    def find_end(self, now: float) -> None:
        """The statement of ours that marks the end of the client's replies is being answered; then it goes on."""
        server = self._server
        self._becoming = server.settings
        server.asked = END
        server.error = None
        server.owed.sent(codes.QUERY)
        self._begin(ServerState.STARTING, now)

    def ask_for_session_state(self, now: float) -> None:
        """Ask the server what the client has left in the session; the lease goes on, or ends, when it has answered."""
        self.rows.clear()
        self._begin(ServerState.ASKING, now)
        self._server.ask(self._server.lease.session_state.question())

    def refuse_block(self, now: float) -> None:
        """Roll back what the client left open, once the client is not in the middle of a message."""
        self._begin(ServerState.REFUSING, now)
        if self._server.client is not None:
            self._server.client.settle(now)

    def _batch(self, asked: str, batch: bytes, now: float) -> None:
        self._becoming = self._server.settings
        self.shape = b""
        self._begin(ServerState.STARTING, now)
        self._server.send_batch(asked, batch)

    def _begin(self, state: ServerState, now: float) -> None:
        self.begins = False
        self._server.state = state
        self._server.have_patience(STARTING_TIMEOUT, now)

    # -- what is answered ----------------------------------------------------------------------------------------------

    def answered(self, client: ClientSession, asked: str, error: PeerError | None, now: float) -> None:
        """The server is ready again: the client goes on, or has to go."""
        server = self._server
        if server.state == ServerState.ASKING:
            self._go_on(client)
            state = server.lease.session_state
            refusal = state.answer([] if error else self.rows)
            client.kept(refusal, now, answered=error is None or state.evidence_counts)
        elif server.state == ServerState.REFUSING:
            if error is not None:
                server.close(f"{asked} failed: {error.message}", now)
            else:
                self._go_on(client)
                server.lease.rolled_back(now)
        elif error is not None and not self._restoring and asked not in (NAMES, APART):
            server.pool.unshared.setting_failed(server, client, error, now)
        else:  # of any other error the client will hear
            if asked == APART:
                server.lease.preparing.provider.prepared_apart(error, self.shape)
            self._prepared(client, now)

    def _prepared(self, client: ClientSession, now: float) -> None:
        self._go_on(client)
        self._server.settings = self._becoming
        if self._restoring:
            self._restoring = False
            client.port.write_all(messages.ready_for_query(self._server.status))
        client.granted(now)
        client.settle(now)

    def _go_on(self, client: ClientSession) -> None:
        """The client reads again what the server says."""
        self._server.state = ServerState.ACTIVE
        self._server.until = 0.0
        client.tell(self._server.parameters)
