"""A small PostgreSQL and its clients, in memory: enough of both to see who got whose rows.

The server reads statements of its own little language, each of which names who asks (`TOKEN`), and tags every row with
it.  It follows the manual where that matters to a pooler: errors skip to Sync, an open COPY eats Syncs, a failed
transaction refuses statements, DISCARD ALL is refused in a transaction.  What should never happen it writes into
`Cluster.complaints`.

    row TOKEN [n] [size]   n rows          begin, commit, rollback TOKEN      slow TOKEN    waits to be let go
    set TOKEN              leaves a mark   show TOKEN   a row with the mark   fail TOKEN    an error
    insert TOKEN           is remembered   copyin TOKEN, copyout TOKEN        fatal TOKEN   the server's end

A startup parameter in `Cluster.start_only` is taken in the StartupMessage alone, there with any value but `forbidden`.

Some real SQL it knows too, for what looks at texts: SELECT 'TOKEN' (a row, and nothing is left), LISTEN TOKEN,
UNLISTEN *, CREATE TEMP TABLE TOKEN (gone with a ROLLBACK), SET x TO 'TOKEN', PREPARE TOKEN, BEGIN, COMMIT, ROLLBACK.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from struct import pack, unpack_from

from pgpooler.config.choices import AuthMethod
from pgpooler.errors import PeerError
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Cleartext, make_verifier, md5_digest, md5_response
from pgpooler.protocol.scram import ScramClient, ScramServer, State
from tests.memory import MemoryPort, World, configure

Message = tuple[str, bytes]
Running = Generator[str, Message, None]

READ, WAIT = "read", "wait"
LONGEST = 63  # bytes of a name that PostgreSQL looks at
NOBODY = "c"  # a token that says nothing about who asks
SET_CONFIG = re.compile(r"set_config\(E'([^']*)', (?:E'([^']*)'|NULL), false\)")
STARTUP_VALUE = re.compile(r"\(E'([^']*)', E'([^']*)'\)")
OWNED = ("application_name", "mark")  # settings whose value is the token of whose they are
STATEMENTS = re.compile(r"; ?(?=(?:[^']*'[^']*')*[^']*$)")  # a semicolon outside of quotes
QUESTIONS = {  # what a question about the session's state speaks of -> the kind of state
    "pg_my_temp_schema": "temporary",
    "pg_listening_channels": "listening",
    "pg_locks": "locks",
    "pg_cursors": "cursors",
    "pg_prepared_statements": "prepared",
}
LEAVES = {"LISTEN": "listening", "CREATE TEMP TABLE": "temporary", "PREPARE": "prepared", "SET x TO": ""}
TAGS = {"CREATE TEMP TABLE": "CREATE TABLE", "SET x TO": "SET"}
SQL = re.compile(r"(BEGIN|COMMIT|ROLLBACK|SELECT |LISTEN |CREATE TEMP TABLE |PREPARE |SET x TO )'?(\w*)'?")
CLEANING = {  # statement -> what is gone after it
    "CLOSE ALL": {"cursors"},
    "SET SESSION AUTHORIZATION DEFAULT": set(),
    "UNLISTEN *": {"listening"},
    "SELECT pg_catalog.pg_advisory_unlock_all()": {"locks"},
    "DISCARD TEMP": {"temporary"},
    "DISCARD SEQUENCES": set(),
    "DEALLOCATE ALL": {"prepared"},
}
WHOSE_STATE = re.compile(r"row|set|show|begin|insert|slow|copyin|copyout|fatal|commit|rollback|fail")


def frame(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + pack("!i", len(body) + 4) + body


COLUMN = b"token\0" + pack("!ihihih", 0, 0, 25, -1, -1, 0)
DESCRIPTION = frame("T", pack("!h", 1) + COLUMN)


def cut(stream: bytearray) -> Iterator[Message]:
    """Take the whole messages off the beginning of a stream."""
    while len(stream) >= 5:
        (size,) = unpack_from("!i", stream, 1)
        assert size >= 4, f"invalid length {size} of {stream[0]:c}"
        if len(stream) < size + 1:
            return
        message = chr(stream[0]), bytes(stream[5 : size + 1])
        del stream[: size + 1]
        yield message


def is_rest_of_bind(body: bytes) -> bool:
    """What follows the names: format codes, values, and format codes again, each behind their number."""
    position = 2 + 2 * int.from_bytes(body[:2], "big")
    count = int.from_bytes(body[position : position + 2], "big")
    position += 2
    for _ in range(count):
        position += 4 + max(0, int.from_bytes(body[position : position + 4], "big", signed=True))
    return len(body) == position + 2 + 2 * int.from_bytes(body[position : position + 2], "big")


def error(sqlstate: str, text: str, severity: str = "ERROR") -> bytes:
    return messages.error_response(PeerError(text, sqlstate=sqlstate, severity=severity))


class Failure(Exception):
    """A statement failed."""

    def __init__(self, sqlstate: str, text: str, severity: str = "ERROR") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate
        self.severity = severity


class Cluster:
    """What all server processes share, and what went wrong in any of them."""

    def __init__(self) -> None:
        self.processes: list[PostgreSQL] = []
        self.inserted: list[str] = []
        self.complaints: list[str] = []
        self.login = AuthMethod.TRUST
        self.password = b""
        self.refusal: bytes = b""  # sent instead of a login
        self.reset_fails = False
        self.questions_fail = False
        self.let_go = False  # slow statements do not wait, on any server
        self.silent_probes = False
        self.version = "18.0"
        self.announced: dict[str, str] = {}  # further parameters that are reported at the login
        self.start_only = {"ignore_system_indexes"}  # parameters that cannot be set after connection start
        self.reported: dict[str, tuple[str, str]] = {}  # setting -> the parameter reported for it, the server's value
        self.canceled: list[PostgreSQL] = []

    def serve(self, port: MemoryPort, pool: object = None) -> PostgreSQL:
        process = PostgreSQL(self, port, len(self.processes) + 1)
        self.processes.append(process)
        return process

    def attach(self, world: World) -> None:
        """Be all servers of this world."""
        world.serve = self.serve
        world.on_cancel = self.cancel

    def cancel(self, server: object) -> None:
        """A cancel request arrived for a server session: let its process hear of it."""
        process = self.process_of(server)
        self.canceled.append(process)
        process.cancel()

    def process_of(self, server: object) -> PostgreSQL:
        number = getattr(server, "process_id", 0)
        return next(process for process in self.processes if process.number == number)

    @property
    def alive(self) -> list[PostgreSQL]:
        return [process for process in self.processes if not process.over]


class PostgreSQL:
    """One server process: the far end of a server connection."""

    def __init__(self, cluster: Cluster, port: MemoryPort, number: int) -> None:
        self.cluster = cluster
        self.port = port
        self.number = number
        self.stalled = False
        self.over = False
        self.inbox = bytearray()
        self.started = False
        self.status = "I"
        self.skipping = False
        self.owner: str | None = None  # whose state this session may hold
        self.settings: dict[str, str] = {}  # of the session
        self.told: dict[str, str] = {}  # the parameters that were reported when they had changed
        self.statements: list[str] = []
        self.prepared: dict[bytes, str] = {}
        self.portals: dict[bytes, str] = {}
        self.interrupted = False
        self.let_go = False  # slow statements do not wait
        self.left = False  # its client's side is closed, which it notices when it reads
        self.user = ""
        self.startup: dict[str, str] = {}  # the parameters of the StartupMessage
        self.simple = True  # it runs a Query, not an Execute
        self.state: set[str] = set()  # of QUESTIONS: what clients have left in the session
        self.undone: set[str] = set()  # the state to which a ROLLBACK goes back
        self.questions = 0
        self.running: Running = self._main()
        self.wants = next(self.running)
        port.far = self

    # -- what the pooler sends -----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        self.inbox += data
        self._run()

    def ended(self) -> None:
        self.left = True
        self._run()

    def _run(self) -> None:
        while not self.over and self.wants == READ:
            message = self._next()
            if message is not None:
                self._send(message)
            elif self.left:
                self._die()
            else:
                return

    def _next(self) -> Message | None:
        if not self.started:
            if len(self.inbox) < 4 or len(self.inbox) < unpack_from("!i", self.inbox)[0]:
                return None
            self.started = True
            body = bytes(self.inbox[4 : unpack_from("!i", self.inbox)[0]])
            del self.inbox[: len(body) + 4]
            return "", body
        if len(self.inbox) >= 5 and unpack_from("!i", self.inbox, 1)[0] < 4:
            self.cluster.complaints.append(f"server {self.number} got an invalid length")
            self.say(error("08P01", "invalid message length", "FATAL"))
            self._die()
            return None
        return next(cut(self.inbox), None)

    def _send(self, message: Message) -> None:
        try:
            self.wants = self.running.send(message)
        except StopIteration:
            self._die()

    # -- what happens to a server --------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """A cancel request came: a statement that waits fails, otherwise nothing happens."""
        if self.wants == WAIT and not self.over:
            self.interrupted = True
            self._send(("", b""))
            self._run()

    def release(self) -> None:
        """Let a slow statement go on."""
        if self.wants == WAIT and not self.over:
            self._send(("", b""))
            self._run()

    def terminate(self) -> None:
        """An administrator ends this session."""
        if not self.over:
            self.say(error("57P01", "terminating connection due to administrator command", "FATAL"))
            self._die()

    def crash(self) -> None:
        """The process is gone, in the middle of whatever it was sending."""
        self.over = True
        self.port.break_off()

    def say(self, data: bytes) -> None:
        if not self.over:
            self.port.say(data)

    def _die(self) -> None:
        if not self.over:
            self.over = True
            self.port.leave()

    # -- the session ---------------------------------------------------------------------------------------------------

    def _main(self) -> Running:
        _, packet = yield READ
        words = packet[4:].decode().split("\0")
        self.startup = dict(zip(words[::2], words[1::2], strict=False))
        self.user = self.startup["user"]
        if not (yield from self._log_in()):
            return
        if any(self.startup.get(name) == "forbidden" for name in self.cluster.start_only):
            self.say(error("42501", "permission denied to set parameter", "FATAL"))
            return
        if "application_name" in self.startup:
            self._claim(self.startup["application_name"])
        reported = {"server_version": self.cluster.version, "client_encoding": "UTF8", "TimeZone": "UTC"}
        for name, value in {**reported, **self.cluster.announced}.items():
            self.say(messages.parameter_status(name, value))
        self.say(messages.backend_key_data(self.number, pack("!i", self.number)))
        self._ready()
        while True:
            kind, body = yield READ
            if kind == "X":
                if self.inbox:
                    self.cluster.complaints.append("something follows a Terminate")
                return
            if self.skipping and kind != "S":
                continue
            try:
                yield from self._message(kind, body)
            except Failure as failure:
                self.say(error(failure.sqlstate, str(failure), failure.severity))
                if failure.severity == "FATAL":
                    return
                self.skipping = kind in "PBDEC"
                if self.status == "T":
                    self.status = "E"
                if kind in "QF":
                    self._ready()

    def _log_in(self) -> Generator[str, Message, bool]:
        cluster = self.cluster
        if cluster.refusal:
            self.say(cluster.refusal)
            return False
        right = True
        if cluster.login is AuthMethod.SCRAM_SHA_256:
            scram = ScramServer(make_verifier(cluster.password, salt=b"salt"), self.user)
            self.say(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(["SCRAM-SHA-256"])))
            try:
                _, body = yield READ
                _, first = messages.read_sasl_initial_response(body)
                self.say(messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, scram.receive(first)))
                _, body = yield READ
                final = scram.receive(body)
                right = scram.state is State.DONE
                self.say(messages.authentication(codes.AUTHENTICATION_SASL_FINAL, final))
            except PeerError:
                right = False
        elif cluster.login is AuthMethod.MD5:
            self.say(messages.authentication(codes.AUTHENTICATION_MD5_PASSWORD, b"salt"))
            _, body = yield READ
            right = body == md5_response(md5_digest(cluster.password, self.user), b"salt") + b"\0"
        elif cluster.login is AuthMethod.PLAIN:
            self.say(messages.authentication(codes.AUTHENTICATION_CLEARTEXT_PASSWORD))
            _, body = yield READ
            right = body == cluster.password + b"\0"
        if not right:
            self.say(error("28P01", f'password authentication failed for user "{self.user}"', "FATAL"))
            return False
        self.say(messages.authentication(codes.AUTHENTICATION_OK))
        return True

    def _ready(self) -> None:
        if self.status == "I":
            self.portals.clear()
        for name, (parameter, value) in self.cluster.reported.items():
            now = self.settings.get(name, value)
            if now != self.told.get(parameter, value):
                self.told[parameter] = now
                self.say(messages.parameter_status(parameter, now))
        self.say(messages.ready_for_query(ord(self.status)))

    def _message(self, kind: str, body: bytes) -> Running:
        if kind == "Q":
            self.prepared.pop(b"", None)
            self.portals.pop(b"", None)
            text = body[:-1].decode()
            self.simple = True
            for statement in STATEMENTS.split(text) if text != ";" else (text,):
                yield from self._execute(statement)
            self._ready()
        elif kind == "P":
            name, text, types = body.split(b"\0", 2)
            if len(types) < 2 or len(types) != 2 + 4 * unpack_from("!h", types)[0]:
                self.cluster.complaints.append(f"server {self.number} got a malformed Parse")
            if not name:
                self.prepared.pop(b"", None)
            if text.startswith((b"bad", b"pgpooler_refuses")):
                raise Failure("42601", f"syntax error: {text.decode()}")
            self._check_transaction(text.decode())
            if name and name[:LONGEST] in self.prepared:
                raise Failure("42P05", f'prepared statement "{name.decode()}" already exists')
            self.prepared[name[:LONGEST]] = text.decode()
            self.say(frame("1"))
        elif kind == "B":
            portal, name, rest = body.split(b"\0", 2)
            if not is_rest_of_bind(rest):
                self.cluster.complaints.append(f"server {self.number} got a malformed Bind")
            statement = self.prepared.get(name[:LONGEST])
            if statement is None:
                raise Failure("26000", f'prepared statement "{name.decode()}" does not exist')
            self._check_transaction(statement)
            self.portals[portal] = statement
            self.say(frame("2"))
        elif kind == "D":
            self._answer_describe(body)
        elif kind == "E":
            portal = body.split(b"\0", 1)[0]
            if portal not in self.portals:
                raise Failure("34000", "portal does not exist")
            self.simple = False
            yield from self._execute(self.portals[portal])
        elif kind == "C":
            if body[:1] not in (b"S", b"P"):
                self.cluster.complaints.append(f"server {self.number} got a malformed Close")
            (self.prepared if body[:1] == b"S" else self.portals).pop(body[1:-1][:LONGEST], None)
            self.say(frame("3"))
        elif kind == "S":
            self.skipping = False
            self._ready()
        elif kind == "F":
            self.say(frame("V", pack("!i", -1)))
            self._ready()
        elif kind not in "Hdcf":
            raise Failure("08P01", f"invalid frontend message type {ord(kind)}", "FATAL")

    def _check_transaction(self, text: str) -> None:
        if self.status == "E" and text.split(" ")[0].upper() not in ("COMMIT", "ROLLBACK"):
            raise Failure("25P02", "current transaction is aborted")

    def _deallocate(self, name: str) -> None:
        self._check_transaction("")
        if name == "ALL":
            self.prepared = {b"": self.prepared[b""]} if b"" in self.prepared else {}
            self.state.discard("prepared")
        elif self.prepared.pop(name.encode(), None) is None:
            raise Failure("26000", f'prepared statement "{name}" does not exist')
        self.say(frame("C", b"DEALLOCATE ALL\0" if name == "ALL" else b"DEALLOCATE\0"))

    def _claim(self, token: str) -> None:
        if self.owner not in (None, token):
            self.cluster.complaints.append(f"server {self.number}: {token} came before {self.owner} was cleaned away")
        self.owner = token

    def _execute(self, text: str) -> Running:
        self.statements.append(text)
        word, *rest = text.split()[:4] or [""]
        if text.startswith("SELECT pg_catalog.set_config"):
            self._set_config(text)
        elif text.startswith("SELECT pg_catalog.lower(name)"):
            self._answer_settings()
        elif text.startswith("SELECT 1 AS "):
            self._check_transaction(text)
            self.say(frame("T", pack("!h", 1) + text.split(" ")[-1].encode() + COLUMN[5:]))
            self.say(self.row(b"1") + frame("C", b"SELECT 1\0"))
        elif text.startswith("SELECT EXISTS"):
            self._answer_question(text)
        elif text == "DISCARD ALL":
            self._discard()
        elif text == "RESET ALL":
            self.owner = None
            self.settings.clear()
            self.say(frame("C", b"RESET\0"))
        elif word == "DEALLOCATE":
            self._deallocate(rest[0])
        elif text in CLEANING:
            if self.cluster.reset_fails:
                raise Failure("XX000", f"{text} failed")
            self.state -= CLEANING[text]
            self.say(frame("C", text.encode() + b"\0"))
        elif match := SQL.fullmatch(text.strip()):
            self._sql(*match.groups(default=""))
        elif word in ("ROLLBACK", "rollback", "commit"):
            self._end_transaction(word, rest)
        elif text in (";", ""):
            self.say(frame("I"))
        elif not WHOSE_STATE.fullmatch(word):
            raise Failure("42601", f"syntax error: {text}")
        else:
            if rest[0] != NOBODY:
                self._claim(rest[0])
            if self.status == "E":
                raise Failure("25P02", "current transaction is aborted")
            yield from self._statement(word, *rest)

    def _answer_describe(self, body: bytes) -> None:
        """Describe a statement or a portal."""
        known, code = (self.prepared, "26000") if body[:1] == b"S" else (self.portals, "34000")
        text = known.get(body[1:-1][:LONGEST])
        if text is None:
            raise Failure(code, "what is to be described does not exist")
        if body[:1] == b"S":
            self._check_transaction(text)
            self.say(frame("t", pack("!h", 0)))
        self.say(DESCRIPTION if text.split(" ")[0] in ("row", "show", "slow", "SELECT") else frame("n"))

    def _describe(self) -> None:
        """Say what the rows are like, which Execute never does."""
        if self.simple:
            self.say(DESCRIPTION)

    def _sql(self, word: str, token: str) -> None:
        """Run one of the statements of real SQL."""
        word = word.strip()
        if self.status == "E" and word not in ("COMMIT", "ROLLBACK"):
            raise Failure("25P02", "current transaction is aborted")
        if word in ("COMMIT", "ROLLBACK"):
            if self.status == "E" or word == "ROLLBACK":
                self.state &= self.undone | {"prepared"}
                word = "ROLLBACK"
            self.status = "I"
        elif word == "SELECT":
            self._describe()
            self.say(self.row(f"{token}:".encode()))
            word = "SELECT 1"
        elif word == "BEGIN":
            self.undone = set(self.state)
            self.status = "T"
        else:
            if token != NOBODY:
                self._claim(token)
            kind = LEAVES[word]
            if kind:
                self.state.add(kind)
            else:
                self.settings["mark"] = token
        self.say(frame("C", TAGS.get(word, word).encode() + b"\0"))

    def _set_config(self, text: str) -> None:
        """Set the client's settings, or again those of its start that it has reset."""
        for name in self.cluster.start_only:
            if f"'{name}'" in text:
                raise Failure("55P02", f'parameter "{name}" cannot be set after connection start')
        if "'broken'" in text:
            raise Failure("42704", 'unrecognized configuration parameter "broken"')
        again = [found.groups() for found in STARTUP_VALUE.finditer(text) if found[1] not in self.settings]
        for name, value in [found.groups() for found in SET_CONFIG.finditer(text)] or again:
            if value is None:
                self.settings.pop(name, None)
                self.owner = None if name in OWNED else self.owner
            else:
                self.settings[name] = value
                if name in OWNED:
                    self._claim(value)
        self.say(frame("T", pack("!h", 1) + COLUMN) + self.row(b"set") + frame("C", b"SELECT 1\0"))

    def _answer_settings(self) -> None:
        if self.cluster.questions_fail:
            raise Failure("57014", "canceling statement due to statement timeout")
        self.say(frame("T", pack("!h", 2) + COLUMN * 2))
        for name, value in {**self.settings, "role": "none", "session_authorization": self.user}.items():
            columns = (name.encode(), value.encode().hex().encode())
            self.say(frame("D", pack("!h", 2) + b"".join(pack("!i", len(column)) + column for column in columns)))
        self.say(frame("C", b"SELECT 2\0"))

    def _answer_question(self, text: str) -> None:
        self.questions += 1
        if self.cluster.questions_fail:
            raise Failure("57014", "canceling statement due to statement timeout")
        asked = sorted((text.index(sign), kind) for sign, kind in QUESTIONS.items() if sign in text)
        values = [b"t" if kind in self.state else b"f" for _, kind in asked]
        columns = b"".join(pack("!i", 1) + value for value in values)
        self.say(frame("T", pack("!h", len(values)) + COLUMN * len(values)))
        self.say(frame("D", pack("!h", len(values)) + columns) + frame("C", b"SELECT 1\0"))

    def _discard(self) -> None:
        if self.status != "I":
            self.cluster.complaints.append(f"server {self.number}: DISCARD ALL in a transaction")
            raise Failure("25001", "DISCARD ALL cannot run inside a transaction block")
        if self.cluster.reset_fails:
            raise Failure("XX000", "DISCARD ALL failed")
        self.owner = None
        self.settings.clear()
        self.state.clear()
        self.prepared.clear()
        self.portals.clear()
        self.say(frame("C", b"DISCARD ALL\0"))

    def _end_transaction(self, word: str, rest: list[str]) -> None:
        if rest:
            self._claim(rest[0])
        self.status = "I"
        self.say(frame("C", word.upper().encode() + b"\0"))

    def _statement(self, word: str, token: str, count: str = "1", size: str = "0") -> Running:
        tag = word.upper()
        if word in ("row", "show", "slow"):
            if word == "slow" and not (self.let_go or self.cluster.let_go):
                self.interrupted = False
                yield WAIT
                if self.interrupted:
                    raise Failure("57014", "canceling statement due to user request")
            value = self.settings.get("mark", "") if word == "show" else token
            self._describe()
            for _ in range(int(count)):
                self.say(self.row(f"{value}:".encode() + b"x" * int(size)))
            tag = f"SELECT {count}"
        elif word == "set":
            self.settings["mark"] = token
        elif word == "begin":
            self.status = "T"
        elif word == "insert":
            self.cluster.inserted.append(token)
            tag = "INSERT 0 1"
        elif word == "fail":
            raise Failure("22012", f"division by zero for {token}")
        elif word == "fatal":
            raise Failure("57P01", "terminating connection due to administrator command", "FATAL")
        elif word == "copyout":
            self.say(frame("H", b"\0\0\0"))
            for _ in range(int(count)):
                self.say(frame("d", f"{token}:".encode() + b"y" * int(size)))
            self.say(frame("c"))
            tag = f"COPY {count}"
        elif word == "copyin":
            tag = f"COPY {(yield from self._copy_in(token))}"
        self.say(frame("C", tag.encode() + b"\0"))

    def _copy_in(self, token: str) -> Generator[str, Message, int]:
        self.say(frame("G", b"\0\0\0"))
        lines = 0
        while True:
            kind, body = yield READ
            if kind == "c":
                return lines
            if kind == "f":
                raise Failure("57014", "COPY from stdin failed")
            if kind == "d":
                lines += 1
                if body.startswith(b"bad"):
                    raise Failure("22P04", "bad line")
                if not body.startswith(token.encode()):
                    self.cluster.complaints.append(f"a line of {body!r} in the COPY of {token}")
            elif kind not in "HS":
                raise Failure("08P01", f"unexpected message type {kind} during COPY from stdin")

    @staticmethod
    def row(value: bytes) -> bytes:
        return frame("D", pack("!hi", 1, len(value)) + value)


def query(text: str) -> bytes:
    return frame("Q", text.encode() + b"\0")


def extended(text: str, *, sync: bool = True, name: str = "") -> bytes:
    """Parse, Bind, Execute, and perhaps Sync."""
    batch = frame("P", f"{name}\0{text}\0".encode() + pack("!h", 0))
    batch += frame("B", f"\0{name}\0".encode() + pack("!hhh", 0, 0, 0)) + frame("E", b"\0" + pack("!i", 0))
    return batch + (SYNC if sync else b"")


SYNC = frame("S")
FLUSH = frame("H")
TERMINATE = frame("X")
COPY_DONE = frame("c")
COPY_FAIL = frame("f", b"no more\0")


def copy_data(token: str) -> bytes:
    return frame("d", f"{token}\n".encode())


class Client:
    """One client: the far end of a client connection.  It logs in by itself and keeps everything it gets."""

    def __init__(
        self,
        world: World,
        token: str = "",
        *,
        user: str = "alice",
        database: str = "shop",
        password: bytes = b"",
        parameters: dict[str, str] | None = None,
        version: int = codes.PROTOCOL_3_0,
        capacity: int | None = None,
        start: bool = True,
    ) -> None:
        self.world = world
        self.token = token
        self.user = user
        self.password = password
        self.stalled = False
        self.port = world.accept(capacity=capacity)
        self.session = self.port.session
        self.port.far = self
        self.over = False
        self.stream = bytearray()
        self.received: list[Message] = []
        self.process_id = 0
        self.cancel_key = b""
        self.logged_in = False
        self.after_login = bytearray()  # every byte since the first ReadyForQuery
        self.said = bytearray()  # every byte of requests
        self.scram: ScramClient | None = None
        startup = {"user": user, "database": database}
        if token:
            startup["application_name"] = token
        if start:
            self.port.say(messages.startup_message(version, {**startup, **(parameters or {})}))

    # -- the far end of the port ---------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        if self.logged_in:
            self.after_login += data
        self.stream += data
        for kind, body in cut(self.stream):
            self.received.append((kind, body))
            if not self.logged_in:
                self._log_in(kind, body)
                if self.logged_in:
                    self.after_login += self.stream

    def ended(self) -> None:
        self.leave()

    def _log_in(self, kind: str, body: bytes) -> None:
        if kind == "K":
            self.process_id, self.cancel_key = messages.read_backend_key_data(body)
        elif kind == "Z":
            self.logged_in = True
        elif kind == "R":
            request, payload = messages.read_authentication(body)
            if request == codes.AUTHENTICATION_CLEARTEXT_PASSWORD:
                self.port.say(messages.password_message(self.password))
            elif request == codes.AUTHENTICATION_MD5_PASSWORD:
                self.port.say(messages.password_message(md5_response(md5_digest(self.password, self.user), payload)))
            elif request == codes.AUTHENTICATION_SASL:
                self.scram = ScramClient(Cleartext(self.password), self.user)
                self.port.say(messages.sasl_initial_response("SCRAM-SHA-256", self.scram.client_first()))
            elif request == codes.AUTHENTICATION_SASL_CONTINUE:
                assert self.scram is not None
                step = self.scram.server_first(payload)
                keys = step.run() if hasattr(step, "run") else step
                self.port.say(messages.sasl_response(self.scram.client_final(keys)))  # type: ignore[arg-type]

    # -- what it does --------------------------------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        self.said += data
        self.port.say(data)

    def ask(self, text: str) -> None:
        self.say(query(text))

    def terminate(self) -> None:
        self.say(TERMINATE)
        self.leave()

    def leave(self) -> None:
        self.over = True
        self.port.leave()

    def break_off(self) -> None:
        self.over = True
        self.port.break_off()

    # -- what it got ---------------------------------------------------------------------------------------------------

    @property
    def kinds(self) -> str:
        """The types of all messages since login."""
        kinds = "".join(kind for kind, _ in self.received)
        return kinds.partition("Z")[2] if self.logged_in else kinds

    @property
    def rows(self) -> list[str]:
        """The tag in front of every row and every line of COPY OUT."""
        rows = [body[6:] for kind, body in self.received if kind == "D"]
        rows += [body for kind, body in self.received if kind == "d"]
        return [row.split(b":")[0].decode() for row in rows]

    @property
    def errors(self) -> list[PeerError]:
        return [messages.read_error(body) for kind, body in self.received if kind == "E"]

    @property
    def sqlstates(self) -> list[str]:
        return [failure.sqlstate for failure in self.errors]


class Recording:
    """The end of a port that only keeps what it gets."""

    def __init__(self, port: MemoryPort) -> None:
        self.stalled = False
        self.data = bytearray()
        self.over = False
        self.port = port
        port.far = self

    def receive(self, data: bytes) -> None:
        self.data += data

    def ended(self) -> None:
        self.over = True
        self.port.leave()


def direct_transcript(said: bytes, token: str) -> bytes:
    """What a client that says this gets from a server of its own, with slow statements let go at once."""
    world = World(configure())
    port = MemoryPort(world, "direct")
    process = Cluster().serve(port)
    process.let_go = True
    process.receive(messages.startup_message(codes.PROTOCOL_3_0, {"user": token, "database": token}))
    port.incoming.clear()
    process.receive(said)
    return bytes(port.incoming)


class Setting:
    """A world with servers, and shortcuts."""

    def __init__(self, **settings: object) -> None:
        self.world = World(configure(**settings))  # type: ignore[arg-type]
        self.cluster = Cluster()
        self.cluster.attach(self.world)
        self.number = 0

    def client(self, user: str = "alice") -> Client:
        """A client that came as far as it can come at once."""
        self.number += 1
        client = Client(self.world, f"c{self.number}", user=user)
        self.world.settle()
        self.world.check_limits()
        return client

    def clients(self, count: int, user: str = "alice") -> list[Client]:
        return [self.client(user) for _ in range(count)]

    def leave(self, *clients: Client) -> None:
        for client in clients:
            client.terminate()
            self.world.settle()
            self.world.check_limits()

    def server(self, client: Client) -> int:
        """The process that serves the client."""
        return client.process_id

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        pool = self.world.pool
        return len(pool.idle), len(pool.busy), pool.opening, len(pool.waiters)
