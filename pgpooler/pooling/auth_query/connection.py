"""One connection that asks a server for secrets: login, one question after the other, and the end.

LOGIN     the login reads what the server sends, then we, until it has said how it keeps passwords
ASKING    a question is under way
IDLE      nothing is, and nothing is expected but notices
CLOSED    over
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.errors import PeerError, ProtocolViolation
from pgpooler.pooling.auth_query.found import USUAL, Answer, Asker, Found, unavailable
from pgpooler.pooling.port import Port, Session
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.pooling.states import ServerState
from pgpooler.pooling.traffic import EVERYTHING
from pgpooler.protocol import codes, messages
from pgpooler.protocol.framer import Framer
from pgpooler.protocol.passwords import ITERATIONS, ScramVerifier, Secret, parse_iterations, parse_secret
from pgpooler.protocol.scram import ITERATIONS_LIMIT

if TYPE_CHECKING:
    from pgpooler.pooling.auth_query.pool import AuthQueryPool

IDLE_TIMEOUT = 60.0  # seconds without a question after which a connection is closed
MESSAGE_LIMIT = 1 << 16  # bytes of one message of the server; secrets are short
ROWS = 2  # as many are asked for: one too many shows
SETTINGS = {
    "application_name": "pgpooler auth_query",
    "client_encoding": "UTF8",
    "search_path": "pg_catalog",
    "statement_timeout": "10000",
}
"""What the session has whatever is set for the role, the database or by a client (runtime-config-client)."""
HOW_IT_KEEPS_PASSWORDS = "SHOW password_encryption"
CANNOT_BE_A_NAME = ("22021", "22P05")
"""character_not_in_repertoire, untranslatable_character: no role of the server can have such a name."""
SILENT = (
    codes.PARSE_COMPLETE,
    codes.BIND_COMPLETE,
    codes.COMMAND_COMPLETE,
    codes.PORTAL_SUSPENDED,
    codes.EMPTY_QUERY_RESPONSE,
)
"""Replies to a question that say nothing."""
ASYNCHRONOUS = (codes.NOTICE_RESPONSE, codes.NOTIFICATION_RESPONSE, codes.PARAMETER_STATUS)


class Question:
    """One user to be asked for, and who wants to know."""

    __slots__ = ("askers", "repeated", "until", "user")

    def __init__(self, user: str, until: float) -> None:
        self.user = user
        self.until = until  # when patience ends
        self.askers: list[Asker] = []
        self.repeated = False  # its first connection ended without an answer

    def answer(self, answer: Answer, now: float) -> None:
        """Tell everybody."""
        for asker in self.askers:
            asker(answer, now)


class AuthQueryConnection(Session):
    """One connection of an AuthQueryPool."""

    __slots__ = (
        "columns",
        "error",
        "expires_at",
        "falls_back",
        "framer",
        "iterations",
        "login",
        "pool",
        "port",
        "question",
        "rows",
        "service",
        "state",
        "status",
        "until",
        "usual",
    )

    def __init__(self, pool: AuthQueryPool, port: Port, expires_at: float) -> None:
        super().__init__()
        self.pool = pool
        self.service = pool.service
        self.port = port
        self.framer = Framer()
        self.state = ServerState.LOGIN
        self.login: ServerLogin | None = None
        self.question: Question | None = None
        self.falls_back = False  # the login is tried once more, with or without TLS
        self.usual: type[Secret] = ScramVerifier  # the kind of secret that the server makes
        self.iterations = ITERATIONS
        self.error: PeerError | None = None  # the server's last
        self.columns = 0
        self.rows: list[list[bytes | None]] = []
        self.status = codes.IDLE
        self.expires_at = expires_at  # server_lifetime; 0: never
        self.until = 0.0  # when patience with the server ends, or with its having nothing to do
        port.session = self

    def __repr__(self) -> str:
        return f"<AuthQueryConnection {self.state.name} {self.pool.source}>"

    # -- login ---------------------------------------------------------------------------------------------------------

    def begin(self, until: float) -> None:
        """Log in; that must be over by `until` (0: no limit)."""
        source = self.pool.source
        self.login = ServerLogin(source.backend, source.user, source.database, source.secret, SETTINGS)
        self._patient(until)
        self.port.write_all(self.login.startup())

    def logged_in(self, login: ServerLogin, now: float) -> None:
        """The server let us in: ask it how it keeps passwords."""
        self.login = None
        # Reported from PostgreSQL 16 on; before there is one number (runtime-config-connection).
        reported = parse_iterations(login.parameters.get("scram_iterations", "").encode("utf-8", "replace"))
        if reported is not None and reported <= ITERATIONS_LIMIT:
            self.iterations = reported
        self._send(HOW_IT_KEEPS_PASSWORDS)

    def fail(self, error: PeerError, now: float) -> None:
        """The server cannot be used, or not in this way."""
        self.falls_back = self.login is not None and not self.pool.retired and self.login.falls_back(error)
        self.close(f"{error.message}{f' ({error.detail})' if error.detail else ''}", now)

    # -- questions -----------------------------------------------------------------------------------------------------

    def ask(self, question: Question) -> None:
        """Ask for one user."""
        self.state = ServerState.ASKING
        self.question = question
        self._patient(question.until)
        self._send(self.pool.source.query, question.user)

    def _send(self, query: str, *values: str) -> None:
        """Run a query with texts bound to its parameters; the server infers their types."""
        self.error = None
        self.columns = 0
        self.rows = []
        bound = b""
        for value in values:
            raw = messages.encode_text(value)
            bound += messages.INT32.pack(len(raw)) + raw
        self.port.write_all(
            messages.message(codes.PARSE, b"\0" + messages.encode_text(query) + b"\0" + bytes(2))
            + messages.message(codes.BIND, bytes(4) + messages.INT16.pack(len(values)) + bound + bytes(2))
            + messages.message(codes.DESCRIBE, b"P\0")
            + messages.message(codes.EXECUTE, b"\0" + messages.INT32.pack(ROWS))
            + messages.SYNC
        )

    def receive(self, buffer: bytearray, start: int, stop: int, now: float) -> None:
        """Take what the server sent."""
        self.framer.feed(buffer, start, stop)
        try:
            if self.login is not None:
                self.login.work(self, now)
            if self.login is None:
                self._read(now)
        except PeerError as error:
            self.fail(error, now)
        if self.state != ServerState.CLOSED:
            self.framer.keep()

    def _read(self, now: float) -> None:
        framer = self.framer
        while self.state != ServerState.CLOSED and framer.run(EVERYTHING) and framer.take(MESSAGE_LIMIT):
            kind, body = framer.type, framer.body()
            framer.drop()
            if kind in ASYNCHRONOUS:
                continue
            if kind == codes.ERROR_RESPONSE:
                self.error = messages.read_error(body)
            elif self.state == ServerState.IDLE:
                raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} though it was asked nothing")
            elif kind == codes.READY_FOR_QUERY:
                self.status = messages.read_ready_for_query(body)
                self._ready(now)
            else:
                self._reply(kind, body)

    def _reply(self, kind: int, body: bytes) -> None:
        if kind == codes.ROW_DESCRIPTION:
            self.columns = int.from_bytes(body[:2], "big")
        elif kind == codes.DATA_ROW:
            row = messages.read_data_row(body)
            if len(row) != self.columns or len(self.rows) == ROWS:
                raise ProtocolViolation("the server sent rows that it did not announce in answer to auth_query")
            self.rows.append(row)
        elif kind == codes.NO_DATA:
            self.columns = 0
        elif kind not in SILENT:
            raise ProtocolViolation(f"the server sent a message of type {chr(kind)!r} in answer to auth_query")

    def _ready(self, now: float) -> None:
        """Everything about the question has come."""
        question, self.question = self.question, None
        if question is None:
            self._learn()
            self.pool.opened(self, now)
            return
        answer = self._answer(question.user)
        self.pool.answered(self, question, answer, now)

    def _learn(self) -> None:
        """Note how the server keeps passwords; one that does not say makes verifiers."""
        value = self.rows[0][0] if self.error is None and self.columns and self.rows else None
        if value is not None:
            self.usual = USUAL.get(value.decode("ascii", "replace"), ScramVerifier)

    def _answer(self, user: str) -> Answer:
        if self.error is not None and self.error.sqlstate in CANNOT_BE_A_NAME:
            return self.nobody
        if self.error is not None:
            return self._misfit(f"{self.error.sqlstate} {self.error.message}")
        if self.columns != 2:
            return self._misfit(f"it returns {self.columns} columns instead of two, the user's name and the secret")
        # From here on the result depends on the user, and may not show.
        if not self.rows:
            return self.nobody
        name, text = self.rows[0]
        if len(self.rows) > 1:
            return self._doubt(user, "there is more than one row")
        if name != messages.encode_text(user):
            return self._doubt(user, "the row is about another user")
        try:
            secret = None if text is None else parse_secret(messages.decode_text(text))
        except ValueError as error:
            return self._doubt(user, str(error))
        return Found(secret, self.usual, self.iterations)

    @property
    def nobody(self) -> Found:
        """What is said of a user who may not log in."""
        return Found(None, self.usual, self.iterations)

    def _misfit(self, reason: str) -> PeerError:
        self.pool.log("warning", f"auth_query failed: {self.pool.source}: {reason}")
        return unavailable()

    def _doubt(self, user: str, reason: str) -> Found:
        self.pool.log("warning", f'auth_query says nothing of use about "{user}": {self.pool.source}: {reason}')
        return self.nobody

    # -- the end -------------------------------------------------------------------------------------------------------

    def rest(self, now: float) -> None:
        """Wait for the next question, for a while."""
        self.state = ServerState.IDLE
        self._patient(now + IDLE_TIMEOUT)

    def _patient(self, until: float) -> None:
        self.until = until
        self.service.deadlines.at(until, self)

    def end(self, reason: str, now: float) -> None:
        """The server closed the connection, or it broke."""
        self.close(self.error.message if self.error is not None else reason, now)

    def hang_up(self, now: float) -> None:
        """Reading is never paused."""

    def drained(self, now: float) -> None:
        """Nothing waits for the queue."""

    def tick(self, now: float) -> float:
        """Lose patience with the server, or with having nothing to do."""
        if self.until and now >= self.until:
            idle = self.state == ServerState.IDLE
            self.close("unused for a while" if idle else "it did not answer in time", now)
            return 0.0
        return self.until

    def close(self, reason: str, now: float) -> None:
        """End the connection and tell the pool.  The only way out."""
        if self.state == ServerState.CLOSED:
            return
        state, self.state = self.state, ServerState.CLOSED
        self.service.deadlines.forget(self)
        if state == ServerState.IDLE:
            self.port.write_all(messages.TERMINATE)
        self.port.close()
        question, self.question = self.question, None
        if self.falls_back:
            self.service.effects.fall_back(self.pool)
        elif state == ServerState.LOGIN:
            self.pool.login_failed(reason, now)
        else:
            self.pool.closed(self, question, reason, now)
