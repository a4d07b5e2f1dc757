"""Servers in memory that know roles with passwords, and tell them to whoever asks with an auth_query.

A role's password is a text as in pg_authid, None where there is none.  It decides how the role logs in, as it does in
PostgreSQL with the method md5 of pg_hba.conf.
"""

from __future__ import annotations

from collections.abc import Generator
from struct import pack, unpack_from

from msgspec.structs import replace

from pgpooler.config.choices import AuthMethod
from pgpooler.config.model import Configuration
from pgpooler.errors import PeerError
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import ScramVerifier, make_verifier, md5_digest, md5_response, parse_secret
from pgpooler.protocol.scram import ScramServer, State, mock_verifier
from tests.memory import MemoryPort, configure
from tests.scripted import COLUMN, READ, WAIT, Client, Cluster, Failure, Message, PostgreSQL, Running, Setting, frame

ASKER = "pooler"
ASKERS_PASSWORD = "the pooler's own"
PASSWORD = "open sesame"
WRONG = "Open sesame"
ITERATIONS = 20  # fewer than usual, so that tests are quick


def verifier(password: str = PASSWORD, salt: bytes = b"salt of 16 bytes", iterations: int = ITERATIONS) -> str:
    return make_verifier(password.encode(), salt=salt, iterations=iterations).text()


def digest(user: str, password: str = PASSWORD) -> str:
    return "md5" + md5_digest(password.encode(), user).digest


class RolesCluster(Cluster):
    """What all servers share: the roles."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: dict[str, str | None] = {ASKER: verifier(ASKERS_PASSWORD), "alice": verifier()}
        self.rows: dict[str, list[list[str | None]]] = {}  # what is answered about a user, if not name and password
        self.columns = 2
        self.encryption: str | None = "scram-sha-256"  # password_encryption
        self.questions: list[str] = []  # the users that were asked for
        self.texts: set[str] = set()  # of all queries ever prepared on connections that ask
        self.slow = False  # questions wait to be let go
        self.failing: Failure | None = None
        self.gone = 0  # so many questions end the connection without a reply
        self.announced = {"scram_iterations": str(ITERATIONS)}

    def serve(self, port: MemoryPort, pool: object = None) -> PostgreSQL:
        process = RolesPostgreSQL(self, port, len(self.processes) + 1)
        self.processes.append(process)
        return process

    @property
    def askers(self) -> list[PostgreSQL]:
        """The servers at the other end of connections that ask."""
        return [process for process in self.processes if process.asks]

    def release(self) -> None:
        """Let all questions go."""
        self.slow = False
        for process in self.askers:
            process.release()


class RolesPostgreSQL(PostgreSQL):
    """One server process."""

    cluster: RolesCluster

    @property
    def asks(self) -> bool:
        return self.startup.get("application_name") == "pgpooler auth_query"

    def _log_in(self) -> Generator[str, Message, bool]:
        if self.cluster.refusal:
            self.say(self.cluster.refusal)
            return False
        secret = parse_secret(self.cluster.roles.get(self.user) or "")
        if isinstance(secret, ScramVerifier) or secret is None:
            right = yield from self._log_in_with(secret or mock_verifier(b"server", self.user, ITERATIONS))
        else:
            self.say(messages.authentication(codes.AUTHENTICATION_MD5_PASSWORD, b"salt"))
            _, body = yield READ
            right = body == md5_response(secret, b"salt") + b"\0"
        if not right:
            text = f'password authentication failed for user "{self.user}"'
            self.say(messages.error_response(PeerError(text, sqlstate="28P01", severity="FATAL")))
            return False
        self.say(messages.authentication(codes.AUTHENTICATION_OK))
        return True

    def _log_in_with(self, verifier: ScramVerifier) -> Generator[str, Message, bool]:
        scram = ScramServer(verifier, self.user)
        self.say(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(["SCRAM-SHA-256"])))
        try:
            _, body = yield READ
            _, first = messages.read_sasl_initial_response(body)
            self.say(messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, scram.receive(first)))
            _, body = yield READ
            self.say(messages.authentication(codes.AUTHENTICATION_SASL_FINAL, scram.receive(body)))
        except PeerError:
            return False
        return scram.state is State.DONE

    def _message(self, kind: str, body: bytes) -> Running:
        if not self.asks:
            yield from super()._message(kind, body)
        elif kind == "P":
            self.text = body.split(b"\0")[1].decode()
            self.cluster.texts.add(self.text)
            self.say(frame("1"))
        elif kind == "B":
            self.values = _bound(body)
            self.say(frame("2"))
        elif kind == "D":
            count = self.cluster.columns if self.values else 1
            self.say(frame("T", pack("!h", count) + COLUMN * count) if count else frame("n"))
        elif kind == "E":
            yield from self._answer(unpack_from("!i", body, 1)[0])
        else:
            yield from super()._message(kind, body)

    def _answer(self, limit: int) -> Running:
        cluster = self.cluster
        rows: list[list[str | None]] = [[cluster.encryption]]
        if self.values:
            (user,) = self.values
            cluster.questions.append(user)
            if cluster.gone:
                cluster.gone -= 1
                self._die()
                return
            if cluster.slow:
                yield WAIT
            if cluster.failing is not None:
                raise cluster.failing
            known = user in cluster.roles
            rows = cluster.rows.get(user, [[user, cluster.roles[user]][: cluster.columns]] if known else [])
        for row in rows[:limit]:
            values = b"".join(
                pack("!i", -1) if value is None else pack("!i", len(value.encode())) + value.encode() for value in row
            )
            self.say(frame("D", pack("!h", len(row)) + values))
        self.say(frame("s") if len(rows) >= limit else frame("C", b"SELECT\0"))


def _bound(body: bytes) -> list[str]:
    """The values of a Bind, all texts."""
    position = body.index(b"\0", body.index(b"\0") + 1) + 1
    formats, count = unpack_from("!hh", body, position)
    assert formats == 0
    position += 4
    values = []
    for _ in range(count):
        (size,) = unpack_from("!i", body, position)
        values.append(body[position + 4 : position + 4 + size].decode())
        position += 4 + size
    return values


def looking_up(method: AuthMethod = AuthMethod.SCRAM_SHA_256, auth: dict | None = None, **keys) -> Configuration:
    """A configuration that lists nobody but the one who asks."""
    made = configure(**{"method": method, "users": {ASKER: ASKERS_PASSWORD}, **keys})
    return replace(
        made, auth=replace(made.auth, **{"auth_user": ASKER, "auth_query_negative_ttl": 0.0, **(auth or {})})
    )


class RolesSetting(Setting):
    """A world whose servers know roles."""

    def __init__(self, method: AuthMethod = AuthMethod.SCRAM_SHA_256, auth: dict | None = None, **keys: object) -> None:
        super().__init__()
        self.world = type(self.world)(looking_up(method, auth, **keys))
        self.cluster: RolesCluster = RolesCluster()
        self.cluster.attach(self.world)

    def log_in(self, user: str = "alice", password: str = PASSWORD, **keys) -> Client:
        """A client that came as far as it can come at once."""
        client = Client(self.world, user=user, password=password.encode(), **keys)
        self.world.settle()
        self.world.check_limits()
        return client

    def outcome(self, user: str = "alice", password: str = PASSWORD) -> str:
        """How a login ends: `in`, or an SQLSTATE."""
        client = self.log_in(user, password)
        if client.logged_in:
            client.terminate()
            self.world.settle()
            return "in"
        (sqlstate,) = client.sqlstates
        return sqlstate

    @property
    def asked(self) -> list[str]:
        """The users that were asked for since this was looked at last."""
        asked, self.cluster.questions = self.cluster.questions, []
        return asked
