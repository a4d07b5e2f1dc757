"""What a pooler may change in a request on its way, the name of a prepared statement, and what such a name stands for.

Statements are known by what was said of them: `Statements` learns from requests and their replies, on either side of a
pooler.  A name given to a statement in SQL (PREPARE) cannot be seen there; nothing is held against anybody for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spec.codec import Instance
from spec.types import Item

NAME_OF_STATEMENT: Mapping[str, str] = {
    "Parse": "statement",
    "Bind": "statement",
    "Describe": "target",
    "Close": "target",
}
"""The requests that name a prepared statement, and the field in which they do."""

USES = frozenset({"Bind", "Describe"})
"""Those that need one that was prepared before."""

USED = frozenset({"BindComplete", "ParameterDescription"})
"""The replies by which the server says that it had one."""

UNSURE_AFTER = frozenset({b"PREPARE", b"DEALLOCATE"})
NOTHING_AFTER = frozenset({b"DEALLOCATE ALL", b"DISCARD ALL"})
"""The tags of SQL commands that change prepared statements: nobody can say which, and all of them."""


@dataclass(frozen=True)
class Statement:
    """What was prepared: the text, and the types of its parameters as far as they were given."""

    text: Item
    types: Item


def statement_named(request: Instance) -> bytes | None:
    """Return the name by which a request means a prepared statement, None if it means none."""
    if request.name not in NAME_OF_STATEMENT or ("kind" in request.fields and request["kind"] != b"S"):
        return None
    name = request[NAME_OF_STATEMENT[request.name]]
    assert isinstance(name, bytes)
    return name


def renamed(request: Instance, name: bytes = b"") -> Instance:
    """Return the request with another name for its statement, or as it is if it means none."""
    if statement_named(request) is None:
        return request
    return Instance(request.sender, request.name, {**request.fields, NAME_OF_STATEMENT[request.name]: name})


@dataclass
class Statements:
    """What the names of prepared statements stand for in one session.

    `is_sure`: there are no others, because SQL gave no name to any.
    """

    known: dict[bytes, Statement] = field(default_factory=dict)
    is_sure: bool = True

    def learn(self, request: Instance, reply: Instance) -> None:
        """Learn a reply and what it answers."""
        name = statement_named(request)
        match request.name, reply.name:
            case "Parse", "ParseComplete" if name is not None:
                self.known[name] = Statement(request["query"], request["types"])
            case "Parse", "ErrorResponse" if name == b"":  # the server has forgotten the old one before it tries
                self.known.pop(b"", None)
            case "Close", "CloseComplete" if name is not None:
                self.known.pop(name, None)
            case "Query", _:
                self.known.pop(b"", None)
        if reply.name == "CommandComplete" and reply["tag"] in NOTHING_AFTER:
            self.known.clear()
            self.is_sure = True
        elif reply.name == "CommandComplete" and reply["tag"] in UNSURE_AFTER:
            self.is_sure = False
