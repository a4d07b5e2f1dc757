"""What the judge of a pooler knows of each connection: what was said there, and what is still to come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from spec.codec import Instance
from spec.conversation import IGNORED_IN_COPY
from spec.events import Said
from spec.session import Judge
from spec.statements import Statement, Statements, statement_named


@dataclass(frozen=True)
class Due:
    """What a client has not got yet.  `is_reply`: it answers something; `answers`: what the server answers.

    `used`: the name of the statement that the server used for it, and what that was prepared of, if that is known.
    """

    said: Said
    is_reply: bool
    used: tuple[bytes, Statement | None] | None = None
    answers: Instance | None = None


@dataclass
class Connection:
    """What is known of one connection."""

    judge: Judge
    parameters: dict[bytes, bytes] = field(default_factory=dict)
    reported: set[tuple[bytes, bytes]] = field(default_factory=set)  # every value that one of them ever had
    statements: Statements = field(default_factory=Statements)
    holder: int | None = None  # of a server connection: the client that holds it; of a client: the server it holds
    welcomed: bool = False  # the first ReadyForQuery has come
    asked: deque[Said] = field(default_factory=deque)  # of a client: requests not forwarded yet
    due: deque[Due] = field(default_factory=deque)  # of a client
    owners: dict[int, tuple[Instance, int | None]] = field(default_factory=dict)  # of a server: whose a request is
    doubled: dict[int, Instance] = field(default_factory=dict)  # of a server: requests of which some are one too many
    stray: list[Due] = field(default_factory=list)  # of a server: what it said by itself since it was asked something
    passed_over: set[bytes] = field(default_factory=set)  # of a client: parameters it was not told when they came
    fakes: int = 0  # of a client: messages of the pooler's own in this lease
    ignored: dict[int, Said] = field(default_factory=dict)  # of a client: Syncs sent into a COPY, by their identity
    is_rolled_back: bool = False  # of a client: the pooler has ended its transaction, and it was not told
    fresh: bool = False  # of a client: nothing has been forwarded in this lease
    refusals: list[Instance] = field(default_factory=list)
    """Of a client: Queries of the pooler's own that may fail in the place of the client's."""
    prepared: dict[bytes, Statement] = field(default_factory=dict)  # of a server: names, if nothing fails
    meant: dict[int, Statement | None] = field(default_factory=dict)  # of a server: what its requests mean by a name
    has_lost_count: bool = False  # of a client: nobody could tell which of its requests was answered
    under_way: dict[bytes, Instance] = field(default_factory=dict)  # of a client: what did something to a name last
    served: Instance | None = None  # of a client: the request to a server of whose reply it got something last
    is_marking: bool = False  # of a server: it answers a Query of the pooler's own, as its columns tell
    last: Instance | None = None  # of a server: the request before
    injected: dict[bytes, Statement] = field(default_factory=dict)  # of a server: what the pooler prepared by itself
    opened: set[bytes] = field(default_factory=set)  # of a server: portals that the pooler bound by itself

    def note(self, request: Instance) -> None:
        """Note what a request to a server does to the names of statements, and what it means by one."""
        name = statement_named(request)
        if self.judge.idle:
            self.prepared, self.meant = dict(self.statements.known), {}
        is_free = not name or name not in self.prepared  # otherwise it fails
        if request.name == "Parse" and name is not None and is_free:
            self.prepared[name] = Statement(request["query"], request["types"])
        self.meant[id(request)] = self.prepared.get(name) if name is not None else None

    def goes_on(self, request: Instance) -> None:
        """Note that a client's request has gone to the server, or to none."""
        name = statement_named(request)
        is_taken = request.name == "Parse" and bool(name) and self.meaning(name or b"") is not None  # then it fails
        if request.name in ("Parse", "Close") and name is not None and not is_taken:
            self.under_way[name] = request

    def meaning(self, name: bytes) -> Statement | None:
        """Return what a client means by a name: what its request under way makes of it, or else what it was told."""
        request = self.under_way.get(name)
        if request is None or not any(owed.instance is request for owed in self.judge.readings[0].owed):
            return self.statements.known.get(name)
        return Statement(request["query"], request["types"]) if request.name == "Parse" else None

    def count_again(self) -> None:
        """Learn what the names of statements stand for, when there is one reading again."""
        if self.has_lost_count and not self.judge.is_ambiguous:
            self.has_lost_count = False
            prepared = self.judge.readings[0].facts.statements
            self.statements.known = {name: Statement(one.text, one.types) for name, one in prepared.items()}

    def ignore_syncs(self) -> None:
        """Note of a client whose server reads the data of a COPY which of its Syncs stand within that."""
        for asked in self.asked:
            if asked.instance.name == "Sync":
                self.ignored[id(asked)] = asked
            elif asked.instance.name not in IGNORED_IN_COPY:
                break

    def parameters_due(self) -> set[bytes]:
        """Return the names of the parameters of which a client is still to be told."""
        said = (due.said.instance for due in self.due)
        return {parameter(instance)[0] for instance in said if instance.name == "ParameterStatus"}

    def owes(self, client: int) -> bool:
        """Return whether a server has not answered everything that was forwarded for a client."""
        owed = self.judge.readings[0].owed
        return any(self.owners.get(id(request.instance), (None, None))[1] == client for request in owed)

    @property
    def is_copying(self) -> bool:
        """Whether a server is in a COPY from its client."""
        return any(reading.is_copying for reading in self.judge.readings)

    @property
    def reads_data(self) -> bool:
        """Whether a server reads the data of a COPY of which it has not got the end."""
        return any(reading.reads_data for reading in self.judge.readings)

    def owner(self) -> int | None:
        """Return the client whose request a server answers now; the holder where readings differ and one says so."""
        turns = [reading.request for reading in self.judge.readings]
        owners = [self.owners.get(id(turn.instance), (None, self.holder))[1] for turn in turns if turn is not None]
        return self.holder if self.holder in owners or not owners else owners[0]


def parameter(instance: Instance) -> tuple[bytes, bytes]:
    """Return the name and the value that a ParameterStatus reports."""
    name, value = instance["parameter"], instance["setting"]
    assert isinstance(name, bytes)
    assert isinstance(value, bytes)
    return name, value


def note_parameter(connection: Connection, instance: Instance) -> None:
    """Note what a ParameterStatus reports; anything else is none."""
    if instance.name == "ParameterStatus":
        name, value = parameter(instance)
        connection.parameters[name] = value
        connection.reported.add((name, value))
