"""What a client of the stress does and what it must be answered: a plan that depends on nothing but seed and number.

A plan is an endless row of steps; a step is a row of exchanges, each some bytes and the answers they must bring,
message by message. Every value carries the client's token, so what belongs to another one is seen at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from spec.codec import encode, frontend
from tests.integration.wire import SYNC, bind, copy_data, execute, parse, query

COPY_DONE = encode(frontend("CopyDone"))
COPY_FAIL = encode(frontend("CopyFail", reason=b"no more"))
STATEMENTS = (b"s1", b"s2", b"_pg3_0", b"__asyncpg_stmt_1__")
"""All clients call their prepared statements by the same names."""
TABLE = "public.stress_rows"
SHOW = (
    "SELECT current_setting('application_name'), current_setting('search_path'),"
    " coalesce(current_setting('stress.token', true), '')"
)
SEARCH_PATH = '"$user", public'
Row = tuple[str | None, ...]


def application_name(number: int) -> str:
    """What a client calls itself at login."""
    return f"client {number}"


@dataclass(frozen=True)
class Answer:
    """What comes up to a ReadyForQuery: the types of the messages (with the status at the end), rows, error code."""

    kinds: str
    rows: tuple[Row, ...] = ()
    sqlstate: str = ""


CANCELED = "57014"


@dataclass(frozen=True)
class Exchange:
    """Bytes to send, and the answers to wait for; the rest of the world may happen before the next one."""

    data: bytes
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Step:
    """One thing that a client does. `cancel_after`: it asks to cancel that late; then CANCELED is right, too.

    `leave`: how it leaves; it comes back then.
    """

    name: str
    exchanges: tuple[Exchange, ...] = ()
    cancel_after: float | None = None
    leave: str = ""


@dataclass
class Dialogue:
    """Collects what one step sends together with what must come back."""

    status: str = "I"
    exchanges: list[Exchange] = field(default_factory=list)
    _data: list[bytes] = field(default_factory=list)
    _answers: list[Answer] = field(default_factory=list)
    _kinds: str = ""
    _rows: list[Row] = field(default_factory=list)
    _sqlstate: str = ""

    def query(self, text: str, *rows: Row, sqlstate: str = "", status: str = "", copied: bytes = b"") -> None:
        """A simple query; `status` is the one it ends with, if that is another."""
        self._data += [query(text), copied]
        self.status = status or self.status
        answer = "E" if sqlstate else "T" + "D" * len(rows) + "C" if rows else "C"
        self._answers.append(Answer(("G" if copied else "") + answer + "Z" + self.status, rows, sqlstate))

    def copy_out(self, text: str, *lines: Row) -> None:
        self._data.append(query(text))
        self._answers.append(Answer("H" + "d" * len(lines) + "cCZ" + self.status, lines))

    def request(self, data: bytes, kinds: str, *rows: Row, sqlstate: str = "") -> None:
        """A message of the extended protocol, which is skipped behind an error."""
        self._data.append(data)
        if not self._sqlstate:
            self._kinds += "E" if sqlstate else kinds
            self._rows += rows
            self._sqlstate = sqlstate

    def run(self, name: bytes, parameter: str, row: Row) -> None:
        """Bind and Execute a statement with one parameter and one row."""
        self.request(bind(parameter.encode(), name=name), "2")
        self.request(execute(), "DC", row)

    def sync(self) -> None:
        self._data.append(SYNC)
        if self._sqlstate and self.status == "T":
            self.status = "E"
        self._answers.append(Answer(self._kinds + "Z" + self.status, tuple(self._rows), self._sqlstate))
        self._kinds, self._rows, self._sqlstate = "", [], ""

    def wait(self) -> None:
        """Read all answers before anything more is sent."""
        if self._data:
            self.exchanges.append(Exchange(b"".join(self._data), tuple(self._answers)))
        self._data, self._answers = [], []


class Plan:
    """The steps of one client; what it has set, prepared and written so far is what it must find."""

    def __init__(self, seed: int, number: int, *, transactions: bool) -> None:
        self._dice = random.Random(f"{seed}/{number}")
        self._number = number
        self._count = 0
        self._stored = 0
        self._names = [name for name, kind in KINDS.items() if transactions or not kind.needs_transactions]
        self._weights = [KINDS[name].weight for name in self._names]
        self.forget()

    def forget(self) -> None:
        """What a new session knows."""
        self.prepared: dict[bytes, str] = {}
        self.settings = {
            "application_name": application_name(self._number),
            "search_path": SEARCH_PATH,
            "stress.token": "",
        }

    def steps(self) -> Iterator[Step]:
        while True:
            (name,) = self._dice.choices(self._names, self._weights)
            yield KINDS[name].make(self, name)
            self._count += 1

    def token(self) -> str:
        """A new value that no other client has."""
        self._count += 1
        return f"token {self._number} {self._count}"

    # -- kinds of steps ------------------------------------------------------------------------------------------------

    def simple(self, name: str) -> Step:
        talk = Dialogue()
        for _ in range(self._dice.randint(1, 3)):
            token = self.token()
            talk.query(f"SELECT '{token}'", (token,))
        return finished(name, talk)

    def pipeline(self, name: str) -> Step:
        """Unnamed statements, an error here and there, a Sync now and then."""
        talk = Dialogue()
        for _ in range(self._dice.randint(1, 8)):
            token = self.token()
            if self._dice.random() < 0.1:
                talk.request(parse("SELECT 1 / $1::int"), "1")
                talk.request(bind(b"0"), "", sqlstate="22012")  # planning computes it
                talk.request(execute(), "skipped")
            talk.request(parse(f"SELECT '{token}', $1::text"), "1")
            talk.run(b"", token, (token, token))
            if self._dice.random() < 0.4:
                talk.sync()
        talk.sync()
        return finished(name, talk)

    def unnamed_later(self, name: str) -> Step:
        """An unnamed statement is used again behind a Sync."""
        talk, token = Dialogue(), self.token()
        talk.request(parse(f"SELECT '{token}', $1::text"), "1")
        talk.sync()
        for _ in range(self._dice.randint(1, 3)):
            talk.wait()
            talk.run(b"", token, (token, token))
            talk.sync()
        return finished(name, talk)

    def named(self, name: str) -> Step:
        talk = Dialogue()
        for _ in range(self._dice.randint(1, 4)):
            self._use(talk, self._dice.choice(STATEMENTS))
            if self._dice.random() < 0.5:
                talk.sync()
                talk.wait()
        talk.sync()
        return finished(name, talk)

    def _use(self, talk: Dialogue, statement: bytes) -> None:
        """Prepare a statement if it is not there, or anew; and run it."""
        token = self.token()
        if statement in self.prepared and self._dice.random() < 0.15:
            talk.request(encode(frontend("Close", kind=b"S", target=statement)), "3")
            del self.prepared[statement]
        if statement not in self.prepared:
            self.prepared[statement] = token
            talk.request(parse(f"SELECT '{token}', $1::text", name=statement), "1")
        for _ in range(self._dice.randint(1, 3)):
            talk.run(statement, token, (self.prepared[statement], token))

    def misnamed(self, name: str) -> Step:
        """A name that is taken, or one that nobody has prepared."""
        talk, statement = Dialogue(), self._dice.choice(STATEMENTS)
        if statement in self.prepared:
            talk.request(parse("SELECT 'another'", name=statement), "", sqlstate="42P05")
        else:
            talk.request(bind(b"", name=statement), "", sqlstate="26000")
        talk.sync()
        return finished(name, talk)

    def deallocate(self, name: str) -> Step:
        talk = Dialogue()
        if self._dice.random() < 0.3:
            talk.query("DISCARD ALL")
            self.forget()
        else:
            talk.query("DEALLOCATE ALL")
            self.prepared = {}
        return finished(name, talk)

    def set(self, name: str) -> Step:
        talk = Dialogue()
        setting, token = self._dice.choice(list(self.settings)), self.token()
        choice = self._dice.random()
        if choice < 0.2:
            talk.query(f"RESET {setting}")
            self.settings[setting] = Plan.default(self._number, setting)
        elif choice < 0.5:
            written = f'"{token}"' if setting == "search_path" else token
            talk.query(f"SELECT set_config('{setting}', '{written}', false)", (written,))
            self.settings[setting] = written
        else:
            talk.query(f"SET {setting} = '{token}'")
            self.settings[setting] = f'"{token}"' if setting == "search_path" else token
        if self._dice.random() < 0.7 or choice < 0.2:  # behind a RESET under way the server's own value may be seen
            talk.wait()
        talk.query(SHOW, tuple(self.settings.values()))
        return finished(name, talk)

    @staticmethod
    def default(number: int, setting: str) -> str:
        return {"application_name": application_name(number), "search_path": SEARCH_PATH}.get(setting, "")

    def show(self, name: str) -> Step:
        talk = Dialogue()
        talk.query(SHOW, tuple(self.settings.values()))
        return finished(name, talk)

    def transaction(self, name: str) -> Step:
        talk, token = Dialogue(), self.token()
        commits = self._dice.random() < 0.6
        talk.query("BEGIN", status="T")
        before = dict(self.settings)
        if self._dice.random() < 0.3:
            talk.query(f"SET stress.token = '{token}'")
            self.settings["stress.token"] = token
        for _ in range(self._dice.randint(1, 3)):
            if self._dice.random() < 0.5:
                talk.wait()
            self._use(talk, self._dice.choice(STATEMENTS))
            talk.sync()
            talk.query(SHOW, tuple(self.settings.values()))
        talk.query(f"INSERT INTO {TABLE} VALUES ({self._number}, '{token}')")
        if not commits and self._dice.random() < 0.5:
            talk.query("SELECT 1/0", sqlstate="22012", status="E")
        talk.query("COMMIT" if commits else "ROLLBACK", status="I")
        if commits:
            self._stored += 1
        else:
            self.settings = before
        self._count_rows(talk)
        return finished(name, talk)

    def _count_rows(self, talk: Dialogue) -> None:
        talk.query(f"SELECT count(*) FROM {TABLE} WHERE client = {self._number}", (str(self._stored),))

    def copy(self, name: str) -> Step:
        talk, lines = Dialogue(), self._dice.randint(1, 30)
        data = b"".join(copy_data(f"{self._number}\t{self.token()}\n".encode()) for _ in range(lines))
        if self._dice.random() < 0.2:
            talk.query(f"COPY {TABLE} FROM STDIN", sqlstate="57014", copied=data + COPY_FAIL)
        else:
            talk.query(f"COPY {TABLE} FROM STDIN", copied=data + COPY_DONE)
            self._stored += lines
        self._count_rows(talk)
        tokens = [self.token() for _ in range(lines)]
        values = ", ".join(f"('{token}')" for token in tokens)
        talk.copy_out(f"COPY (VALUES {values}) TO STDOUT", *((f"{token}\n",) for token in tokens))
        talk.query(f"DELETE FROM {TABLE} WHERE client = {self._number}")
        self._stored = 0
        return finished(name, talk)

    def cancel(self, name: str) -> Step:
        talk, token = Dialogue(), self.token()
        talk.query(f"SELECT '{token}', pg_sleep({self._dice.uniform(0.02, 0.3):.3f})", (token, ""))
        talk.wait()
        return Step(name, tuple(talk.exchanges), cancel_after=self._dice.uniform(0, 0.1))

    def leave(self, name: str) -> Step:
        """Terminate, or a connection that breaks: at rest, in a request, in a message, in a transaction."""
        self.forget()
        return Step(name, leave=self._dice.choice(list(LEAVING)))


@dataclass(frozen=True)
class Kind:
    """How a step is made, and how often it comes."""

    make: Callable[[Plan, str], Step]
    weight: int
    needs_transactions: bool = False


KINDS: Mapping[str, Kind] = {
    "simple": Kind(Plan.simple, 10),
    "pipeline": Kind(Plan.pipeline, 10),
    "unnamed later": Kind(Plan.unnamed_later, 5),
    "named": Kind(Plan.named, 20),
    "misnamed": Kind(Plan.misnamed, 3),
    "deallocate": Kind(Plan.deallocate, 1),
    "set": Kind(Plan.set, 8),
    "show": Kind(Plan.show, 5),
    "transaction": Kind(Plan.transaction, 10, needs_transactions=True),
    "copy": Kind(Plan.copy, 5),
    "cancel": Kind(Plan.cancel, 3),
    "leave": Kind(Plan.leave, 3),
}

LEAVING: Mapping[str, bytes] = {
    "terminate": encode(frontend("Terminate")),
    "at rest": b"",
    "in a query": query("SELECT 'nobody reads this', pg_sleep(0.05)"),
    "in a pipeline": parse("SELECT 'nobody reads this'", name=STATEMENTS[0]) + bind(name=STATEMENTS[0]) + execute(),
    "in a message": query("SELECT 'never complete'")[:-5],
    "in a transaction": query("BEGIN") + query(f"INSERT INTO {TABLE} VALUES (-1, 'never committed')"),
    "in a copy": query(f"COPY {TABLE} FROM STDIN") + copy_data(b"-1\tnever complete\n"),
}
"""What is sent last."""


def finished(name: str, talk: Dialogue) -> Step:
    talk.wait()
    return Step(name, tuple(talk.exchanges))
