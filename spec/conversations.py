"""Hypothesis strategies for whole conversations: a client's script, and what a legal server answers to it.

The server draws its answers from `Judge.legal`: the grammar says what may come next, and `Server` knows what each text
of the scripts means, so that the contents are right: widths of rows, tags, transaction status.  It keeps its own
account of these, so that a judge that counts wrongly is found out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec import phrases as say
from spec.codec import Instance, backend
from spec.conversation import ASYNCHRONOUS
from spec.messages import Sender
from spec.scripts import ENDS_BLOCK, MEANINGS, MISSING, STREAMS, Meaning, replication_scripts, scripts
from spec.semantics import Request
from spec.session import Judge

Conversation = list[tuple[Sender, Instance]]
T = TypeVar("T")

MOST_ROWS = 3  # in a set, or in a COPY


# --- the server


@dataclass
class Run:
    """One statement being run: what it may yield next, and what it has yielded."""

    kind: str
    meaning: Meaning
    must_fail: bool
    limit: int = 0
    sets: int = 0
    rows: int = 0
    copied: int = 0
    copy_began: bool = False

    @property
    def wanted(self) -> set[str]:
        """The names of the replies that make sense now, as far as the grammar allows them."""
        if self.must_fail:
            return {"ErrorResponse"} | (self._rows if self.meaning.must_fail else set())
        if not self.meaning.tag and not self.meaning.copy:
            return {"EmptyQueryResponse"}
        return {"ErrorResponse"} | self._rows | self._copy | self._end

    @property
    def _rows(self) -> set[str]:
        names: set[str] = set()
        if self.meaning.width is None or self.copy_began:
            return names
        if self.kind != "Execute" and self.sets < (2 if self.meaning.adds_sets else 1):
            names.add("RowDescription")
        if self.rows < (self.limit if self.limit > 0 else MOST_ROWS) and not self._is_silent:
            names.add("DataRow")
        return names

    @property
    def _is_silent(self) -> bool:
        """Whether what rewrite rules add is not sent."""
        return self.kind == "Execute" and self.meaning.adds_sets

    @property
    def _copy(self) -> set[str]:
        if not self.meaning.copy:
            return set()
        names = {"CopyDone"} if self.copy_began else {self.meaning.copy}
        return names | ({"CopyData"} if self.copied < MOST_ROWS else set())

    @property
    def _end(self) -> set[str]:
        if 0 < self.limit == self.rows and not self._is_silent:
            return {"PortalSuspended"}
        if not self.meaning.tag:
            return set()
        is_begun = self.copy_began if self.meaning.copy else bool(self.sets) or self.meaning.width is None
        return {"CommandComplete"} if is_begun or (self.kind == "Execute" and not self.meaning.copy) else set()

    def learn(self, name: str) -> None:
        """Count what was said."""
        self.sets += name == "RowDescription"
        self.rows = 0 if name == "RowDescription" else self.rows + (name == "DataRow")
        self.copied += name == "CopyData"
        self.copy_began |= name == self.meaning.copy

    @property
    def tag(self) -> bytes:
        """The tag, with the number of rows sent."""
        number = self.copied if self.meaning.copy else self.rows
        return self.meaning.tag % number if b"%d" in self.meaning.tag else self.meaning.tag


@dataclass
class Server:
    """Answers requests: draws from what is legal, with contents that are right."""

    draw: DrawFn
    judge: Judge
    meanings: Mapping[bytes, tuple[Meaning, ...]]
    statements: dict[bytes, Meaning] = field(default_factory=dict)
    portals: dict[bytes, Meaning] = field(default_factory=dict)
    status: bytes = b"I"
    request: Request | None = None
    runs: list[Run] = field(default_factory=list)
    has_failed: bool = False

    def reply(self, is_waited_for: bool) -> Instance | None:
        """Return the next message, or None to wait for the client, unless that waits, too."""
        if self.judge.is_ambiguous:
            self.judge.choose(self.pick(range(len(self.judge.readings))))
        self.take_turn()
        if self.happens(20):
            return self.noise()
        return self.answer(self.request, is_waited_for) if self.request is not None else None

    def take_turn(self) -> None:
        """Go on to the request whose turn it is."""
        if self.judge.replying_to is not self.request:
            self.request, self.has_failed = self.judge.replying_to, False
            self.runs = self.begin(self.request) if self.request else []

    def answer(self, request: Request, is_waited_for: bool) -> Instance | None:
        """Return the next message of the reply to a request."""
        possible = self.judge.legal if self.judge.may_fail else self.judge.legal - {"ErrorResponse"}
        names = possible & self._wanted(request)
        if names - {"ErrorResponse"}:
            names -= set() if self.happens(10) else {"ErrorResponse"}
        elif not (is_waited_for or self._must_fail(request) or self.happens(4)):
            return None
        return self._said(self.pick(sorted(names)), request)

    def noise(self) -> Instance:
        """Return a message that answers nothing."""
        return self.pick((say.NOTICE, say.NOTIFICATION, say.PARAMETER))

    def happens(self, one_in: int) -> bool:
        """Decide whether something happens that should happen once in so many times."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def pick(self, choices: Sequence[T]) -> T:
        """Choose one of several."""
        return self.draw(st.sampled_from(choices))

    def begin(self, request: Request) -> list[Run]:
        """Return what there is to run for a request whose turn it is, and forget what it replaces."""
        if request.kind == "Execute":
            meaning = self.portals.get(request.text("portal"), MISSING)
            return [Run("Execute", meaning, self._fails(meaning), request.limit)]
        if request.kind == "Parse" and not request.text("statement"):
            self.statements.pop(b"", None)
        if request.kind not in ("Query", "ReplicationCommand"):
            return []
        self.statements.pop(b"", None)
        texts = [text for text in request.text("query").split(b"; ") if text] or [b""]
        return [Run(request.kind, meaning, False) for text in texts for meaning in self.meanings[text]]

    def _fails(self, meaning: Meaning) -> bool:
        """Return whether a text can only fail."""
        return meaning.must_fail or (self.status == b"E" and meaning.tag not in (*ENDS_BLOCK, b""))

    def _named(self, request: Request, field_: str) -> Meaning:
        return self.statements.get(request.text(field_), MISSING)

    def _must_fail(self, request: Request) -> bool:
        """Return whether an error is the only reply there is."""
        match request.kind:
            case "Parse":
                return request.text("statement") in self.statements or self._fails(self._parsed(request))
            case "Bind":
                meaning, values = self._named(request, "statement"), request.instance["values"]
                is_taken = request.text("portal") and request.text("portal") in self.portals
                assert isinstance(values, tuple)
                return self._fails(meaning) or len(values) != meaning.parameters or bool(is_taken)
            case "DescribeStatement":
                return self._named(request, "target") is MISSING
            case "DescribePortal":
                return request.text("target") not in self.portals
            case "FunctionCall":
                return self.status == b"E"
        return bool(self.runs) and self._fails(self.runs[0].meaning)

    def _parsed(self, request: Request) -> Meaning:
        """Return what a Parse prepares: an error while running is none while parsing."""
        (meaning,) = self.meanings[request.text("query")]
        return replace(meaning, must_fail=meaning.must_fail and meaning.width is None)

    def _wanted(self, request: Request) -> set[str]:
        """Return the names of the replies that make sense now, as far as the grammar allows them."""
        if self.has_failed:
            return {"ReadyForQuery"}
        if self.runs:
            self.runs[0].must_fail = self._fails(self.runs[0].meaning)
            return self.runs[0].wanted
        if self._must_fail(request):
            return {"ErrorResponse"}
        match request.kind:
            case "Query" | "ReplicationCommand":
                return {"ReadyForQuery"}
            case "Sync":
                return {"ReadyForQuery"} | ({"ErrorResponse"} if self.status == b"I" else set())
            case "DescribeStatement" | "DescribePortal":
                shape = "NoData" if self._width(request) is None else "RowDescription"
                return {"ParameterDescription", shape, "ErrorResponse"}
        return set(self.judge.legal - ASYNCHRONOUS)

    def _width(self, request: Request) -> int | None:
        """Return the number of columns in force."""
        if self.runs:
            return self.runs[0].meaning.width
        known = self.portals if request.kind == "DescribePortal" else self.statements
        meaning = known[request.text("target")]
        return None if meaning.adds_sets else meaning.width

    def _said(self, name: str, request: Request) -> Instance:
        """Return the message of this name with right contents, and keep account of it."""
        said = self.message(name, request)
        if self.runs:
            self.runs[0].learn(name)
        match name:
            case "ErrorResponse":
                is_at_end = bool(self.runs) and self.runs[0].meaning.tag == b"COMMIT"
                self.status = {b"T": b"I" if is_at_end else b"E"}.get(self.status, self.status)
                self.has_failed, self.runs = True, []
            case "ParseComplete":
                (self.statements[request.text("statement")],) = self.meanings[request.text("query")]
            case "BindComplete":
                self.portals[request.text("portal")] = self._named(request, "statement")
            case "CloseComplete":
                self._close(request)
            case "CommandComplete" | "PortalSuspended" | "EmptyQueryResponse" | "CopyDone":
                if name == "CopyDone" and self.runs[0].meaning.tag:
                    return said
                run = self.runs.pop(0)
                self.status = run.meaning.status or self.status
            case "ReadyForQuery" if self.status == b"I":
                self.portals.clear()
        return said

    def _close(self, request: Request) -> None:
        target = request.text("target")
        if request.instance["kind"] == b"P":
            self.portals.pop(target, None)
        elif target in self.statements:
            closed = self.statements.pop(target)
            self.portals = {name: meaning for name, meaning in self.portals.items() if meaning is not closed}

    def message(self, name: str, request: Request) -> Instance:
        """Return the message of this name, with contents that are right."""
        match name:
            case "RowDescription":
                return say.described(self._width(request) or 0)
            case "DataRow":
                return say.row(self._width(request) or 0)
            case "ParameterDescription":
                return say.parameters(*(23,) * self._named(request, "target").parameters)
            case "CommandComplete":
                is_void = self.status == b"E" and self.runs[0].tag == b"COMMIT"
                return say.complete(b"ROLLBACK" if is_void else self.runs[0].tag)
            case "CopyInResponse" | "CopyOutResponse" | "CopyBothResponse":
                return say.copy_begins(name)
            case "CopyData":
                return say.copied()
            case "ReadyForQuery":
                return say.ready(self.status)
            case "ErrorResponse":
                return say.error()
            case "FunctionCallResponse":
                return say.FUNCTION_RESULT
        return backend(name)


# --- the start of a session

EXCHANGES: tuple[list[Instance], ...] = (
    [],
    [backend("AuthenticationCleartextPassword"), say.PASSWORD],
    [backend("AuthenticationMD5Password", salt=b"salt"), say.PASSWORD],
    [
        backend("AuthenticationSASL", mechanisms=(b"SCRAM-SHA-256",)),
        say.SASL_INITIAL,
        backend("AuthenticationSASLContinue", data=b"r=12,s=,i=1"),
        say.SASL_RESPONSE,
        backend("AuthenticationSASLFinal", data=b"v="),
    ],
    [backend("AuthenticationGSS"), say.GSS_RESPONSE],
    [backend("AuthenticationSSPI"), say.GSS_RESPONSE, backend("AuthenticationGSSContinue", data=b""), say.GSS_RESPONSE],
)
"""What passes between StartupMessage and AuthenticationOk."""

ENCRYPTION: tuple[list[Instance], ...] = (
    [],
    [say.SSL_REQUEST],
    [say.GSSENC_REQUEST, say.SSL_REQUEST],
    [say.SSL_REQUEST, say.GSSENC_REQUEST],
)


@st.composite
def beginnings(draw: DrawFn, *, is_replication: bool = False) -> list[Instance]:
    """Draw everything up to the first ReadyForQuery."""
    minor = draw(st.sampled_from((0, 0, 1, 2, 3, 9999)))
    options = draw(st.sampled_from(({}, {}, {"_pq_.unheard_of": b"1"})))
    replication = {"replication": draw(st.sampled_from((b"true", b"database")))} if is_replication else {}
    agreed = draw(st.sampled_from((0, 2))) if minor >= 2 else 0
    must_negotiate = bool(options) or (minor > agreed and minor != 1)
    negotiation = [say.negotiate(min(agreed, minor), *(name.encode() for name in options))] if must_negotiate else []
    key = draw(st.binary(min_size=4, max_size=4 if agreed == 0 else 256))
    noise = st.lists(st.sampled_from((say.PARAMETER, say.NOTICE)), max_size=2)
    return [
        *draw(st.sampled_from(ENCRYPTION)),
        say.startup(minor, **options, **replication),
        *negotiation,
        *draw(st.sampled_from(EXCHANGES)),
        say.AUTHENTICATED,
        *draw(noise),
        *draw(st.sampled_from(([say.key_data(key)], []))),
        *draw(noise),
        say.ready(),
    ]


# --- the whole


@st.composite
def sessions(
    draw: DrawFn,
    requests: SearchStrategy[list[Instance]] | None = None,
    *,
    is_replication: bool = False,
    may_be_cut: bool = True,
) -> Conversation:
    """Draw a session: it ends idle or, if it may be cut, with Terminate or with a fatal error anywhere.

    `requests` are what the client asks, by default any script.
    """
    judge = Judge()
    conversation: list[Instance] = []

    def pass_on(*messages: Instance) -> None:
        for message in messages:
            judge.hear(message)
            conversation.append(message)

    pass_on(*draw(beginnings(is_replication=is_replication)))
    if requests is None:
        requests = replication_scripts() if is_replication else scripts()
    script = list(draw(requests))
    meanings: dict[bytes, tuple[Meaning, ...]] = {text: (meaning,) for text, meaning in MEANINGS.items()}
    server = Server(draw, judge, STREAMS if is_replication else meanings)
    while script or not judge.idle:
        # Nothing is pipelined behind a stream both ways.
        must_wait = not script or (is_replication and script[0].name in ("Query", "Sync") and judge.owed != ())
        reply = server.reply(must_wait) if must_wait or draw(st.booleans()) else None
        if reply is not None:
            pass_on(reply)
        elif not must_wait:
            pass_on(script.pop(0))
    if may_be_cut:
        conversation += draw(st.sampled_from(([], [say.TERMINATE])))
        if draw(st.integers(0, 9)) == 9:
            conversation = [*conversation[: draw(st.integers(1, len(conversation)))], say.FATAL]
    return [(message.sender, message) for message in conversation]


def cancels() -> SearchStrategy[Conversation]:
    """Return a strategy for connections that ask for a cancellation."""
    before = st.sampled_from(ENCRYPTION)
    key = st.binary(min_size=4, max_size=256)
    return st.tuples(before, key).map(
        lambda drawn: [(Sender.FRONTEND, message) for message in (*drawn[0], say.cancel(drawn[1]))]
    )


def conversations() -> SearchStrategy[Conversation]:
    """Return a strategy for legal conversations, both sides in the order in which they passed one point."""
    return sessions() | sessions() | sessions(is_replication=True) | cancels()
