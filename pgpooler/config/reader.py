"""From texts to values: reads a tree by the types of the model, and reports everything that does not fit.

What is read keeps its places, so that `checks.py` can point at the words; `build` then makes the model's instances.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec.inspect as types
from msgspec import Struct

from pgpooler.config import values
from pgpooler.config.keys import Key, keys_of
from pgpooler.config.matchers import parse_pattern
from pgpooler.config.model import Pattern, Rule, User
from pgpooler.config.pgbouncer import renamed
from pgpooler.config.source import Absent, Entry, Items, Node, Place, Section, Sources, Text
from pgpooler.config.userlist import parse_userlist

Lines = TypeVar("Lines")

LATER: Final = frozenset(("admin", "analytics", "fairness_delay", "gui"))
"""Keys of the plan that this version does not have: named as such rather than as unknown."""

FILE_SUFFIX: Final = "_file"
"""A secret may stand in a file of its own: `password_file` instead of `password`."""

INVALID: Final[Any] = object()
"""What a value is read as after its problem has been reported."""


@dataclass
class Read:
    """One section as read: the values by field name, and where each is written.

    `places` also knows the fields whose values were invalid, so that nobody calls them missing.
    """

    kind: type[Struct]
    place: Place
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)


def build(read: Any) -> Any:
    """The model's instances for what was read without problems."""
    if isinstance(read, Read):
        return read.kind(**{name: build(value) for name, value in read.values.items()})
    if isinstance(read, tuple):
        return tuple(build(item) for item in read)
    if isinstance(read, dict):
        return {name: build(item) for name, item in read.items()}
    return read


class Reader:
    """Reads the sections of one configuration.  `backend_references` collects the names used, for the check."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.backend_references: list[tuple[str, Place]] = []
        self._texts: dict[str, Callable[[str], Any]] = {
            "listen_host": values.read_listen_host,
            "backend_host": values.read_backend_host,
            "octal": values.read_octal,
            "reset_query": values.read_reset_query,
            "path": sources.absolute,
        }
        self._nodes: dict[str, Callable[[Node], Any]] = {
            "matcher": self.matcher,
            "users": self.users,
            "workers": self.workers,
            "backend": self.backend_reference,
        }

    def section(self, node: Node, kind: type[Struct], title: str) -> Any:
        """A section as `Read`, or INVALID when it is no section at all."""
        if not isinstance(node, Section):
            return self._expected(node, f"the keys of {title}")
        read = Read(kind, node.place)
        keys = keys_of(kind)
        for name, entry in node.entries.items():
            secret = keys.get(name.removesuffix(FILE_SUFFIX))
            if name in keys:
                self._store(read, keys[name], entry, self.value(entry.node, keys[name]))
            elif name.endswith(FILE_SUFFIX) and secret and secret.reader == "secret":
                self._store(read, secret, entry, self.secret_file(entry.node, name))
            else:
                self._unknown(name, entry, keys, title)
        for key in keys.values():
            if key.required and key.field not in read.places:
                self.sources.error(node.place, f"the key {key.name!r} of {title} is missing")
        if kind is Rule:
            read.values["place"] = str(node.place)
        return read

    def _store(self, read: Read, key: Key, entry: Entry, value: Any) -> None:
        if key.field in read.places:
            self.sources.error(entry.place, f"'{key.name}' and '{key.name}{FILE_SUFFIX}' are both given; keep one")
        read.places[key.field] = entry.node.place
        if value is not INVALID:
            read.values[key.field] = value

    def _unknown(self, name: str, entry: Entry, keys: Iterable[str], title: str) -> None:
        if name in LATER:
            message = f"{name!r} is not in this version of PgPooler; take it out"
        else:
            message = f"unknown key {name!r} in {title}{renamed(name) or values.did_you_mean(name, keys)}"
        self.sources.error(entry.place, message)

    def _expected(self, node: Node, what: str) -> Any:
        """Report a node of the wrong shape."""
        if isinstance(node, Absent):
            self.sources.error(node.place, f"the value is missing (null); expected {what}")
        elif isinstance(node, Text):
            self.sources.error(node.place, f"expected {what}, found {node.text!r}")
        elif isinstance(node, Items | Section):
            found = "a list" if isinstance(node, Items) else "keys and values"
            self.sources.error(node.place, f"expected {what}, found {found}")
        return INVALID

    def value(self, node: Node, key: Key) -> Any:
        """A value of any key."""
        if key.reader in self._nodes:
            return self._nodes[key.reader](node)
        if isinstance(key.type, types.StructType):
            return self.section(node, key.type.cls, f"'{key.name}'")
        if isinstance(key.type, types.VarTupleType):
            return self.list_of(node, key, key.type.item_type)
        return self.text(node, key.name, key.type, key.reader)

    def list_of(self, node: Node, key: Key, item_type: types.Type) -> Any:
        """A list; one text alone is a list of one."""
        if isinstance(item_type, types.StructType):
            items = self._items(node, f"a list for '{key.name}'")
            title = f"an entry of '{key.name}'"
            read = [self._entry(item, item_type.cls, title) for item in items]
        else:
            assert isinstance(item_type, types.Metadata)
            reader = (item_type.extra or {}).get("reader", "")
            items = (node,) if isinstance(node, Text) else self._items(node, f"a value or a list for '{key.name}'")
            read = [self.text(item, key.name, item_type.type, reader) for item in items]
        return INVALID if not read or INVALID in read else tuple(read)

    def _entry(self, node: Node, kind: type[Struct], title: str) -> Read:
        """A section in a list; one that is none at all counts as a section with nothing but invalid values."""
        read = self.section(node, kind, title)
        if read is INVALID:
            return Read(kind, node.place, places={key.field: node.place for key in keys_of(kind).values()})
        assert isinstance(read, Read)
        return read

    def _items(self, node: Node, what: str) -> tuple[Node, ...]:
        if not isinstance(node, Items):
            self._expected(node, what)
            return ()
        if not node.items:
            self.sources.error(node.place, "the list is empty; take the key out, or put something in")
        return node.items

    def text(self, node: Node, name: str, kind: types.Type, reader: str) -> Any:
        """A single value."""
        if not isinstance(node, Text):
            return self._expected(node, f"a value for '{name}'")
        text = self.sources.expand(node)
        if text is None:
            return INVALID
        try:
            return self._convert(text, kind, reader)
        except ValueError as error:
            self.sources.error(node.place, f"bad value for '{name}': {error}")
            return INVALID

    def _convert(self, text: str, kind: types.Type, reader: str) -> Any:
        if not text:
            raise ValueError("it must not be empty")
        if reader in self._texts:
            return self._texts[reader](text)
        if isinstance(kind, types.IntType):
            return values.read_integer(text, kind.ge or 0, kind.le or 0)
        if isinstance(kind, types.FloatType):
            return values.read_seconds(text, int(kind.le or 0))
        if isinstance(kind, types.BoolType):
            return values.read_boolean(text)
        if isinstance(kind, types.EnumType):
            assert issubclass(kind.cls, enum.StrEnum)
            return values.read_choice(text, kind.cls)
        return text

    def secret_file(self, node: Node, name: str) -> Any:
        """A secret from the first line of a file."""
        path = self.text(node, name, types.StrType(), "path")
        if path is INVALID:
            return INVALID
        content = self.sources.read(path, node.place)
        if content is None:
            return INVALID
        secret = content.removesuffix("\n").removesuffix("\r")
        if not secret or "\n" in secret or "\0" in secret:
            self.sources.error(node.place, f"expected one line with the secret in {path}")
            return INVALID
        return secret

    def matcher(self, node: Node) -> tuple[Pattern, ...]:
        """One pattern or a list of them.  Texts are taken as they are: `$` and `{` belong to regular expressions."""
        patterns = []
        for item in (node,) if isinstance(node, Text) else self._items(node, MATCHER_EXPECTED):
            if not isinstance(item, Text):
                self._expected(item, MATCHER_EXPECTED)
                continue
            try:
                patterns.append(parse_pattern(item.text))
            except ValueError as error:
                self.sources.error(item.place, str(error))
        return tuple(patterns) or INVALID

    def backend_reference(self, node: Node) -> Any:
        """The name of a backend."""
        name = self.text(node, "backend", types.StrType(), "")
        if name is not INVALID:
            self.backend_references.append((name, node.place))
        return name

    def workers(self, node: Node) -> Any:
        """The number of workers; the original's list of workers with their backends is taken as one worker."""
        if isinstance(node, Items):
            for item in node.items:
                self._worker(item)
            self.sources.warn(node.place, "the list form of 'workers' has no effect: one worker serves all backends")
            return 1
        text = self.text(node, "workers", types.StrType(), "")
        if text not in ("1", INVALID):
            problem = "this version runs one worker; write 1 or take the key out"
            self.sources.error(node.place, f"bad value for 'workers': {problem}, found {text!r}")
            return INVALID
        return INVALID if text is INVALID else 1

    def _worker(self, node: Node) -> None:
        if not isinstance(node, Section) or "backends" not in node.entries:
            self._expected(node, "'backends' and a list of their names")
            return
        for name, entry in node.entries.items():
            if name != "backends":
                self._unknown(name, entry, ("backends",), "an entry of 'workers'")
                continue
            for item in self._items(entry.node, "a list of names of backends"):
                self.backend_reference(item)

    def users(self, node: Node) -> Any:
        """Users by name."""
        if not isinstance(node, Section):
            return self._expected(node, "users by name, each with a password: {alice: {password: ...}}")
        users: dict[str, Read] = {}
        for name, entry in node.entries.items():
            if not name:
                self.sources.error(entry.place, "the user's name is empty")
            read = self.section(entry.node, User, f"user {name!r}")
            if read is not INVALID:
                read.values["name"], read.place = name, entry.place
                users[name] = read
        return users

    def lines(self, path: str, asked_at: Place, parse: Callable[[str, str, Sources], Lines]) -> Lines | None:
        """What a file of lines says; None when it cannot be read at all, which is reported."""
        content = self.sources.read(path, asked_at)
        if content is None:
            return None
        shown = self.sources.shown(os.path.relpath(path, os.path.dirname(os.path.abspath(self.sources.main))))
        return parse(content, shown, self.sources)

    def users_file(self, path: str, asked_at: Place, users: dict[str, Read]) -> None:
        """Add the users of a file in the form of userlist.txt."""
        for name, name_place, secret, secret_place in self.lines(path, asked_at, parse_userlist) or ():
            if name in users:
                self.sources.error(name_place, f"user {name!r} is here twice; the first is at {users[name].place}")
                continue
            users[name] = Read(User, name_place, {"name": name, "password": secret}, {"password": secret_place})


MATCHER_EXPECTED: Final = "a name, a prefix x*, a regular expression ~ ^re, or a list of these"
