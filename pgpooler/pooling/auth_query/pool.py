"""The questions to one backend: a queue of users, and the few connections over which they are asked for.

Everybody who asks for a user whose question is still in the queue gets the same answer.  One that is under way already
is not shared: it may not know of what was changed before the second login began.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from pgpooler.config.routing import Route
from pgpooler.errors import PeerError
from pgpooler.pooling.auth_query.connection import AuthQueryConnection, Question
from pgpooler.pooling.auth_query.found import Answer, Asker, Cache, Found, unavailable
from pgpooler.pooling.auth_query.source import Source
from pgpooler.pooling.backend_use import BackendUse
from pgpooler.pooling.pool import FIRST_RETRY, LAST_RETRY, PoolKey
from pgpooler.protocol import codes

if TYPE_CHECKING:
    from pgpooler.pooling.port import Port
    from pgpooler.pooling.service import Service

CONNECTIONS = 2
LONGEST_QUEUE = 1000  # users
LONGEST_WAIT = 10.0  # seconds from the question to its answer, or half of client_login_timeout where that is less


class AuthQueryPool:
    """Asks one backend, as its Source says."""

    def __init__(self, service: Service, source: Source, route: Route) -> None:
        self.service = service
        self.source = source
        self.route = route  # any that leads to the backend: it says how long connecting may take
        self.key = PoolKey(source.backend.name, source.database, source.user)
        self.use = BackendUse(source.backend)  # these connections do not count against its pool_size
        self.limit = CONNECTIONS
        self.idle: list[AuthQueryConnection] = []
        self.busy: set[AuthQueryConnection] = set()
        self.opening = 0
        self.queue: OrderedDict[str, Question] = OrderedDict()
        self.nobody = Found()
        self.retired = False
        self.paused = False
        self.failures = 0
        self.retry_at = 0.0
        self.due = 0.0
        self._users = Cache()
        self._strangers = Cache()  # apart, so that invented names drive out nobody

    def __repr__(self) -> str:
        return f"<AuthQueryPool {self.source}: {self.size} connections, {len(self.queue)} questions>"

    @property
    def size(self) -> int:
        """All connections."""
        return len(self.idle) + len(self.busy) + self.opening

    # -- questions -----------------------------------------------------------------------------------------------------

    def ask(self, user: str, asker: Asker, now: float, *, afresh: bool) -> None:
        """Say what is known of the user, or ask.  `afresh`: what is remembered has proved wrong."""
        if afresh:
            self._users.forget(user)
        known = self._users.get(user, now) or self._strangers.get(user, now)
        if known is not None:
            asker(replace(known, cached=True), now)
        elif not _is_text(user):
            asker(self.nobody, now)
        elif (now < self.retry_at and not self.size) or (user not in self.queue and len(self.queue) >= LONGEST_QUEUE):
            asker(unavailable(), now)
        else:
            question = self.queue.setdefault(user, Question(user, now + self._patience))
            question.askers.append(asker)
            self._serve(now)

    def forget(self, user: str) -> None:
        """Remember nothing about this user."""
        self._users.forget(user)

    @property
    def _patience(self) -> float:
        login = self.service.configuration.timeouts.client_login_timeout
        return min(LONGEST_WAIT, login / 2) if login else LONGEST_WAIT

    def _serve(self, now: float) -> None:
        """Give the first questions to connections that have nothing to do; open more where there are too few."""
        while self.queue and self.idle:
            _, question = self.queue.popitem(last=False)
            connection = self.idle.pop()
            self.busy.add(connection)
            connection.ask(question)
        may_open = not self.paused and not self.retired and now >= self.retry_at
        while may_open and self.size < CONNECTIONS and self.opening < len(self.queue):
            self.opening += 1
            self.service.effects.open(self)
        self.service.deadlines.at(self._next_look(now), self)

    def _next_look(self, now: float) -> float:
        """When to look next: when the first in the queue loses patience, or a connection may be tried again."""
        if not self.queue:
            return 0.0
        until = next(iter(self.queue.values())).until
        return min(until, self.retry_at) if self.retry_at > now else until

    def answered(self, connection: AuthQueryConnection, question: Question, answer: Answer, now: float) -> None:
        """A question is answered, and its connection free for the next."""
        self.busy.discard(connection)
        if isinstance(answer, Found) and not self.retired:
            self._remember(question.user, answer, now)
        self._take_back(connection, now)
        question.answer(answer, now)
        self._serve(now)

    def _remember(self, user: str, found: Found, now: float) -> None:
        cache, ttl = (
            (self._strangers, self.source.negative_ttl)
            if found.secret is None
            else (self._users, self.source.cache_ttl)
        )
        if ttl:
            cache.put(user, found, now + ttl)

    # -- connections ---------------------------------------------------------------------------------------------------

    def connected(self, port: Port, now: float) -> None:
        """The network reached the backend: log in over this port."""
        lifetime, timeout = self.route.server_lifetime, self.route.server_connect_timeout
        connection = AuthQueryConnection(self, port, now + lifetime if lifetime else 0.0)
        connection.begin(now + (timeout or LONGEST_WAIT))

    def opened(self, connection: AuthQueryConnection, now: float) -> None:
        """A connection is ready for questions."""
        self.opening -= 1
        self.failures = 0
        self.retry_at = 0.0
        self.nobody = connection.nobody
        self._take_back(connection, now)
        self._serve(now)

    def _take_back(self, connection: AuthQueryConnection, now: float) -> None:
        connection.rest(now)
        self.idle.append(connection)
        if self.retired or self.paused:
            connection.close("no longer needed", now)
        elif connection.status != codes.IDLE:
            connection.close("auth_query leaves a transaction open", now)
        elif 0 < connection.expires_at <= now:
            connection.close("server_lifetime is over", now)

    def failed(self, error: PeerError, now: float) -> None:
        """The backend could not be reached."""
        self.login_failed(f"{error.message} {error.detail or ''}".rstrip(), now)

    def login_failed(self, reason: str, now: float) -> None:
        """A connection could not be opened; if there is no other, everybody who waits is told that it failed."""
        self.opening -= 1
        self.retry_at = now + min(FIRST_RETRY * 2**self.failures, LAST_RETRY) * random.uniform(0.5, 1.0)  # noqa: S311
        self.failures = min(self.failures + 1, 16)
        self.log("warning", f"auth_query failed: {self.source}: {reason}")
        if not self.size:
            self._give_up(now)

    def closed(self, connection: AuthQueryConnection, question: Question | None, reason: str, now: float) -> None:
        """A connection ended; a question that it left unanswered is asked again, once."""
        self.busy.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.log("debug", f"auth_query connection closed: {self.source}: {reason}")
        if question is None:
            return
        if question.repeated or now >= question.until or self.retired:
            self.log("warning", f"auth_query failed: {self.source}: {reason}")
            question.answer(unavailable(), now)
        else:
            question.repeated = True
            waiting = self.queue.get(question.user)
            if waiting is not None:
                question.askers += waiting.askers
            self.queue[question.user] = question
            self.queue.move_to_end(question.user, last=False)
        self._serve(now)

    def _give_up(self, now: float) -> None:
        while self.queue:
            _, question = self.queue.popitem(last=False)
            question.answer(unavailable(), now)

    def tick(self, now: float) -> float:
        """Tell those who have waited too long that it failed."""
        late = 0
        while self.queue and now >= next(iter(self.queue.values())).until:
            _, question = self.queue.popitem(last=False)
            late += len(question.askers)
            question.answer(unavailable(), now)
        if late:
            reason = "paused" if self.paused else "no connection became free in time"
            self.log("warning", f"auth_query failed: {self.source}: {late} logins waited for too long: {reason}")
        self._serve(now)
        return self._next_look(now)

    # -- the operator --------------------------------------------------------------------------------------------------

    def pause(self, now: float) -> None:
        """Ask nothing more; connections are closed as they come free."""
        self.paused = True
        while self.idle:
            self.idle[-1].close("paused", now)

    def resume(self, now: float) -> None:
        """Go on."""
        self.paused = False
        self._serve(now)

    def retire(self, now: float) -> None:
        """The configuration has changed: nothing of this one is used any more.  Who waits begins anew."""
        self.retired = True
        self.service.deadlines.forget(self)
        while self.idle:
            self.idle[-1].close("the configuration changed", now)
        self._give_up(now)

    def close(self, now: float) -> None:
        """Close every connection, as the last thing the service does."""
        self.retire(now)
        for connection in list(self.busy):
            connection.close("PgPooler is shutting down", now)

    def log(self, level: str, text: str) -> None:
        """Log a line."""
        self.service.effects.log(level, 0, text)

    def snapshot(self) -> dict[str, object]:
        """Counts, as plain values."""
        return {
            "backend": self.key.backend,
            "database": self.key.database,
            "user": self.key.user,
            "server_connections": self.size,
            "questions": len(self.queue) + len(self.busy),
            "remembered": len(self._users),
        }


def _is_text(user: str) -> bool:
    """Say whether a name is UTF-8 throughout; others cannot be asked for."""
    try:
        user.encode()
    except UnicodeEncodeError:
        return False
    return True
