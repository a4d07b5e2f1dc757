"""A server whose every answer is drawn from what the grammar allows, and the tags that say whose bytes are whose.

`LegalServer` is the far end of a server connection.  It reads requests as they come and says nothing by itself: a test
lets it speak, message by message, and draws what it says (`spec.conversations.Server`).  What it says bears the tag of
the client whose text, values or data it works on; the statements that a pooler runs for itself it answers as
`own_statements` says, under a tag that no client may ever see.

A tag is `<c7>`: in texts within a comment, elsewhere as it is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from hypothesis.strategies import DrawFn

from spec import phrases as say
from spec.codec import Instance, backend, encode
from spec.conversations import Server
from spec.listener import Listener
from spec.messages import Sender
from spec.scripts import MEANINGS, MISSING, Meaning
from spec.semantics import Request
from spec.session import Judge
from spec.statements import renamed, statement_named
from tests.memory import MemoryPort
from tests.own_statements import POOLER, Answer, Settings, answer, own_statements

TAG = re.compile(rb"<(\w+)>")
COMMENT = re.compile(rb" ?/\*<(\w+)>\*/")
NO_TAG = b""
SHARED = b"s"  # the name of statements whose texts bear no tag, if their values can bear it

# -- what clients ask --------------------------------------------------------------------------------------------------

LASTING = {
    b"LISTEN here": Meaning(b"LISTEN"),
    b"UNLISTEN *": Meaning(b"UNLISTEN"),
    b"CREATE TEMP TABLE mine ()": Meaning(b"CREATE TABLE"),
    b"SELECT pg_advisory_lock(1)": Meaning(b"SELECT %d", width=1),
    b"SET application_name TO mine": Meaning(b"SET"),
    b"SET TimeZone TO mine": Meaning(b"SET"),
    b"SET my.own TO mine": Meaning(b"SET"),
    b"RESET application_name": Meaning(b"RESET"),
    b"RESET ALL": Meaning(b"RESET"),
    b"DISCARD ALL": Meaning(b"DISCARD ALL"),
    b"DEALLOCATE ALL": Meaning(b"DEALLOCATE ALL"),
}
"""Texts beside those of all scripts: what they leave in the session pins the lease or follows the client."""

CHANGES: dict[bytes, str] = {
    b"SET application_name TO mine": "application_name",
    b"SET TimeZone TO mine": "timezone",
    b"SET my.own TO mine": "my.own",
}
"""The settings that these texts give a value, which is the tag of their client."""
RESETS = (b"RESET ALL", b"DISCARD ALL")
FORGETS = (b"DEALLOCATE ALL", b"DISCARD ALL")
SESSION_SETTINGS = {"client_encoding": "UTF8", "TimeZone": "UTC", "application_name": ""}
"""The parameters that the server reports, with its own values."""


def tags(data: bytes) -> set[bytes]:
    """The tags in some bytes."""
    return set(TAG.findall(data))


def tagged(request: Instance, tag: bytes) -> Instance:
    """Return a request of a script as the client of this tag asks it: its texts, names, values and data are marked.

    The statement `s` is called so by all clients, and its text is the same for all, if it has parameters.
    """
    mark = b"<" + tag + b">"
    changed = dict(request.fields)
    name = statement_named(request)
    match request.name:
        case "Query":
            texts = [text for text in request["query"].split(b"; ") if text]  # type: ignore[union-attr]
            changed["query"] = b"; ".join(in_comment(text, mark) for text in texts or [b""])
        case "Parse" if name != SHARED or not MEANINGS[request["query"]].parameters:  # type: ignore[index]
            changed["query"] = in_comment(request["query"], mark)  # type: ignore[arg-type]
        case "Bind":
            changed["values"] = (mark,) * len(request["values"])  # type: ignore[arg-type]
        case "FunctionCall":
            changed["arguments"] = (mark,) * len(request["arguments"])  # type: ignore[arg-type]
        case "CopyData":
            changed["data"] = mark + b"\n"
    if changed.get("portal"):
        changed["portal"] = b"p" + mark
    elif name is None and changed.get("target"):
        changed["target"] = b"p" + mark
    request = Instance(request.sender, request.name, changed)
    return renamed(request, b"r" + mark) if name == b"r" else request


def in_comment(text: bytes, mark: bytes) -> bytes:
    """Mark a statement."""
    return b"%s /*%s*/" % (text, mark) if text else b"/*%s*/" % mark


# -- what they mean ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owned(Meaning):
    """What a text means, and the tag in it."""

    owner: bytes = NO_TAG
    text: bytes = b""  # without the tag


class Meanings(Mapping[bytes, tuple[Meaning, ...]]):
    """What every text means, tagged or not.  Anything that is no text of the scripts can only fail."""

    known = MEANINGS | LASTING

    def __getitem__(self, text: bytes) -> tuple[Meaning, ...]:
        found, plain = COMMENT.search(text), COMMENT.sub(b"", text)
        own = answer(plain.decode(), Settings({}), min) if found is None else None
        if own is not None:
            if own.columns is None:
                return (Owned(own.tag, owner=POOLER, text=plain),)
            return (Owned(b"SELECT %d", len(own.columns), owner=POOLER, text=plain),)
        meaning = self.known.get(plain, MISSING)
        values = {field.name: getattr(meaning, field.name) for field in fields(Meaning)}
        return (Owned(**values, owner=found[1] if found else NO_TAG, text=plain),)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


# -- the server --------------------------------------------------------------------------------------------------------


class LegalServer(Server):
    """One server process: the far end of a server connection."""

    def __init__(self, port: MemoryPort, number: int, draw: DrawFn | None = None) -> None:
        super().__init__(draw, Judge(), Meanings())  # type: ignore[arg-type]
        self.port = port
        self.number = number
        self.stalled = False
        self.over = False
        self.left = False  # nobody listens any more, or somebody has said Terminate
        self.canceled = False
        self.listener = Listener()
        self.own: deque[Instance] = deque()  # what is still to be said for the pooler itself
        self.is_for_pooler = True  # and not in place of a client's statement that is not to run
        self.askers: dict[bytes, bytes] = {}  # portal -> the tag of the values that were bound
        self.settings = Settings(dict(SESSION_SETTINGS))
        self.next: deque[Instance] = deque()  # a ReadyForQuery, behind the parameters that have changed
        self.complaints: list[str] = []
        port.far = self

    # -- the far end of the port ---------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        for heard in self.listener.hear(Sender.FRONTEND, data):
            self.complaints += [violation.message for violation in self.judge.hear(heard.instance)]
            self.left |= heard.instance.name == "Terminate"
            if len(found := tags(heard.data)) > 1:
                self.complaints.append(f"{heard.instance.name} with the tags {found}")
            if heard.instance.name == "StartupMessage":
                self.settings.user = dict(heard.instance["parameters"])[b"user"].decode()  # type: ignore[arg-type]
                self._let_in()

    def ended(self) -> None:
        self.left = True

    def _let_in(self) -> None:
        self.tell(say.AUTHENTICATED)
        for name, value in SESSION_SETTINGS.items():
            self.tell(reported(name, value))
        self.tell(backend("BackendKeyData", process_id=self.number, key=self.number.to_bytes(4, "big")))
        self.tell(say.ready())

    # -- speaking ------------------------------------------------------------------------------------------------------

    def speak(self, draw: DrawFn | None, *, is_waited_for: bool = False) -> bool:
        """Say the next message, if there is one; without `draw` the plainest one.

        `is_waited_for`: a COPY whose client has not ended it is not waited for, but fails.
        """
        self.draw = draw  # type: ignore[assignment]
        if self.over or not self.settings.user:  # nobody has said who it is
            return False
        said = self.reply(is_waited_for)
        if said is not None:
            self.tell(said)
        elif self.left:
            self.leave()
        return said is not None

    def tell(self, instance: Instance) -> None:
        """Say a message; what is said must be legal."""
        wrong = self.judge.hear(instance)
        assert not wrong, (instance, wrong)
        self.port.say(encode(instance))

    def leave(self) -> None:
        """The process ends, without a word."""
        self.over = True
        self.port.leave()

    def end(self) -> None:
        """An administrator ends the session."""
        self.take_turn()
        self.tell(say.FATAL if self.request is None else self.marked(say.FATAL, self.request))
        self.leave()

    def crash(self, part: int) -> None:
        """The process is gone in the middle of what it was about to say."""
        said = self.reply(False)
        if said is not None:
            data = encode(said)
            self.port.say(data[: part % len(data)])
        self.leave()

    # -- what is drawn -------------------------------------------------------------------------------------------------

    def happens(self, one_in: int) -> bool:
        return self.draw is not None and super().happens(one_in)

    def pick(self, choices):  # type: ignore[no-untyped-def]
        if self.draw is not None:
            return super().pick(choices)
        ends = [choice for choice in choices if choice in ("CommandComplete", "ReadyForQuery", "CopyDone")]
        return (ends or choices)[0]

    def reply(self, is_waited_for: bool) -> Instance | None:
        """Go on with what was begun: which request it answers is decided."""
        if self.next:
            return self.next.popleft()
        if self.own and self.request is not None:
            return self.noise() if self.happens(20) else self.answer(self.request, is_waited_for)
        return super().reply(is_waited_for)

    def begin(self, request: Request):  # type: ignore[no-untyped-def]
        self.own.clear()
        if request.kind == "Query" and not COMMENT.search(request.text("query")):
            self.own.extend(self._own_reply(request.text("query")))
            self.is_for_pooler = all(said.name != "ErrorResponse" for said in self.own)
        return [] if self.own else super().begin(request)

    def answer(self, request: Request, is_waited_for: bool) -> Instance | None:
        said = self._answer(request, is_waited_for)
        if said is None or said.name != "ReadyForQuery":
            return said
        if self.status == b"I":
            self.settings.keep()
        while changed := self.settings.unreported():
            self.next.append(reported(*changed))
        self.next.append(said)
        return self.next.popleft()

    def _answer(self, request: Request, is_waited_for: bool) -> Instance | None:
        if self.own:
            return self._own_answer()
        canceled, self.canceled = self.canceled, False
        if canceled and self.judge.may_fail and "ErrorResponse" in self._wanted(request):
            self._said("ErrorResponse", request)
            return self.marked(say.error(code=b"57014"), request)
        return super().answer(request, is_waited_for)

    def noise(self) -> Instance:
        """What a client's statement sets is its client's, what changes otherwise is the server's own value."""
        noise = super().noise()
        owner = self.owner(self.request) if self.request is not None else NO_TAG
        if noise.name != "ParameterStatus":
            return self.marked(noise, self.request) if self.request is not None else noise
        name, value = "application_name", f"x<{owner.decode()}>"
        if owner not in (NO_TAG, POOLER):
            self.settings.set(name, value)
        elif name not in self.settings.own:
            value = self.settings.defaults[name] = "x"
        self.settings.told[name] = value
        return reported(name, value)

    def message(self, name: str, request: Request) -> Instance:
        return self.marked(super().message(name, request), request)

    def _said(self, name: str, request: Request) -> Instance:
        meaning, was = self.runs[0].meaning if self.runs else None, self.status
        said = super()._said(name, request)
        if name == "ErrorResponse":
            self.settings.go_back()
        elif name == "CommandComplete" and isinstance(meaning, Owned):
            self._runs(meaning, was)
        if name == "BindComplete":
            found = tags(encode(request.instance))
            self.askers[request.text("portal")] = found.pop() if found else NO_TAG
            self._check(request)
        return said

    def _fails(self, meaning: Meaning) -> bool:
        return super()._fails(meaning) or (meaning.tag == b"DISCARD ALL" and self.status != b"I")

    def _runs(self, meaning: Owned, status: bytes) -> None:
        """A statement has succeeded at this transaction status."""
        if meaning.owner == POOLER and (own := answer(meaning.text.decode(), self.settings, min)) is not None:
            self._change(own)
        elif meaning.tag == b"COMMIT" and status != b"E":
            self.settings.keep()
        elif meaning.tag in (b"COMMIT", b"ROLLBACK"):
            self.settings.go_back()
        elif meaning.text in CHANGES:
            self.settings.set(CHANGES[meaning.text], f"<{meaning.owner.decode()}>")
        elif meaning.text in RESETS:
            self.settings.own.clear()
        elif meaning.text == b"RESET application_name":
            self.settings.set("application_name", None)
        if meaning.text in FORGETS:
            self.statements.clear()

    def _change(self, own: Answer) -> None:
        if own.resets:
            self.settings.own.clear()
        for name, value in own.changes:
            self.settings.set(name, value)

    def _check(self, request: Request) -> None:
        """Whoever binds must have prepared it."""
        meaning, asker = self.portals[request.text("portal")], self.askers[request.text("portal")]
        if isinstance(meaning, Owned) and asker and meaning.owner not in (NO_TAG, asker):
            self.complaints.append(f"a statement of {meaning.owner!r} runs with values of {asker!r}")

    # -- whose it is ---------------------------------------------------------------------------------------------------

    def owner(self, request: Request) -> bytes:
        """The tag of the client for whom the server works."""
        if self.own:
            return POOLER if self.is_for_pooler else NO_TAG
        meaning, asker = self.runs[0].meaning if self.runs else None, NO_TAG
        if request.kind in ("Execute", "DescribePortal"):
            portal = request.text("portal" if request.kind == "Execute" else "target")
            meaning = self.portals.get(portal)
            asker = self.askers.get(portal, NO_TAG) if meaning is not None else NO_TAG
        elif request.kind == "DescribeStatement":
            meaning = self.statements.get(request.text("target"))
        if isinstance(meaning, Owned) and meaning.owner:
            return meaning.owner
        found = tags(encode(request.instance))
        return asker or (found.pop() if len(found) == 1 else NO_TAG)

    def marked(self, said: Instance, request: Request) -> Instance:
        """Put the tag into what bears one."""
        owner = self.owner(request)
        if owner == POOLER and said.name in ("ErrorResponse", "NotificationResponse"):
            return said  # these concern whoever holds the connection
        mark = b"<" + owner + b">" if owner else b""
        changed = dict(said.fields)
        match said.name:
            case "DataRow":
                changed["values"] = tuple(mark or b"1" for _ in said["values"])  # type: ignore[union-attr]
            case "RowDescription":
                changed["columns"] = tuple((b"column" + mark, *column[1:]) for column in said["columns"])  # type: ignore
            case "CopyData":
                changed["data"] = mark + b"\n"
            case "ErrorResponse" | "NoticeResponse":
                text = request.text("query") if request.kind == "Parse" else b"of " + mark
                changed["fields"] = (*said["fields"], (b"D", text))  # type: ignore[misc]
            case "NotificationResponse":
                changed["channel"] = b"here" + mark
            case "FunctionCallResponse":
                changed["result"] = mark
        return Instance(said.sender, said.name, changed)

    # -- the pooler's own statements -----------------------------------------------------------------------------------

    def _own_reply(self, text: bytes) -> Iterator[Instance]:
        """Everything that answers a Query of the pooler's own."""
        statements = own_statements(text)
        if not statements:
            yield say.EMPTY
        for statement in statements:
            made = answer(statement, self.settings, self.pick)
            if made is None:  # what it sends in place of a statement that is not to run
                yield backend(
                    "ErrorResponse", fields=((b"S", b"ERROR"), (b"V", b"ERROR"), (b"C", b"42601"), (b"M", text))
                )
                break
            if made.columns is not None:
                yield backend("RowDescription", columns=tuple((name, 0, 0, 16, 1, -1, 0) for name in made.columns))
            for row in made.rows:
                yield backend("DataRow", values=row)
            self._change(made)
            yield say.complete(made.tag)
        yield say.ready()

    def _own_answer(self) -> Instance:
        """Return the next message for the pooler, which now and then is an error."""
        said = self.own.popleft()
        if said.name in ("RowDescription", "CommandComplete") and self.happens(30):
            self.own = deque((say.ready(),))
            said = say.error(code=b"XX000")
        if said.name == "ErrorResponse":
            self.settings.go_back()
            self.status = b"E" if self.status == b"T" else self.status
        elif said.name == "CommandComplete" and said["tag"] == b"ROLLBACK":
            self.status = b"I"
            self.settings.go_back()
        elif said.name == "CommandComplete" and said["tag"] in FORGETS:
            self.statements.clear()
        elif said.name == "ReadyForQuery":
            said = say.ready(self.status)
            self.statements.pop(b"", None)
            self.portals.clear()
        return said


def reported(name: str, value: str) -> Instance:
    """Make the ParameterStatus that reports a parameter."""
    return backend("ParameterStatus", parameter=name.encode(), setting=value.encode())
