"""The XML form: backends, named pools, and routes from users and databases to pools, in one file.

It is read onto the same tree as YAML, so that keys, values and checks are the same: an attribute is a key, an element a
section, and a key with several values is written as several elements.  Three things are XML's own: `<log>` is
`logging`; a `<user>` of `<auth>` carries its name; a `<route>` becomes a rule with the name and the settings of its
`<pool>`.  Document types and entities of one's own are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from pgpooler.config.source import Broken, Entry, Items, Node, Place, Section, Sources, Text
from pgpooler.config.values import did_you_mean

ROOT: Final = "pgpooler"
DEEPEST: Final = 20
RENAMED_IN_POOL: Final = {"mode": "pool_mode", "size": "pool_size"}
ROUTE_KEYS: Final = ("user", "database", "default", "pool")

_ATTRIBUTE: Final = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")

_EVERYBODY: Final = {"default": Entry(Place(""), Text("true", Place("")))}


@dataclass
class Element:
    """One element with the places of its attributes' names and values."""

    tag: str
    place: Place
    attributes: dict[str, tuple[Place, Text]] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    text: str = ""
    text_place: Place | None = None


def read_xml(sources: Sources) -> Node:
    """The whole configuration as one tree."""
    content = sources.read(sources.main)
    root = parse_xml(content, sources.main, sources) if content is not None else None
    if root is None:
        return Broken(Place(sources.main))
    if root.tag != ROOT:
        sources.error(root.place, f"expected <{ROOT}> around everything, found <{root.tag}>")
        return Broken(root.place)
    return _Converter(sources).configuration(root)


def parse_xml(text: str, file: str, sources: Sources) -> Element | None:
    """The root element; None after a syntax error has been reported."""
    document = _Document(text, file, sources)
    try:
        document.parser.Parse(document.content, True)
    except expat.ExpatError as error:
        place = Place(file, error.lineno, error.offset + 1)
        sources.error(place, f"not valid XML: {expat.errors.messages[error.code]}")
        return None
    except _Refused as refused:
        sources.error(refused.place, refused.message)
        return None
    return document.root


class _Refused(Exception):
    """Something that XML allows and this reader does not."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message


class _Document:
    """Collects elements while expat parses."""

    def __init__(self, text: str, file: str, sources: Sources) -> None:
        # A lone surrogate cannot come out of a UTF-8 file, only out of a test; it is a syntax error like any other.
        self.content = text.encode("utf-8", "replace")
        self.file = file
        self.sources = sources
        self.root: Element | None = None
        self.open: list[Element] = []
        self.parser = expat.ParserCreate("utf-8")
        self.parser.ordered_attributes = True
        self.parser.XmlDeclHandler = self.declaration
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters

    def at(self, offset: int) -> Place:
        """The place of a byte."""
        line_start = self.content.rfind(b"\n", 0, offset) + 1
        column = len(self.content[line_start:offset].decode("utf-8", "replace"))
        return Place(self.file, self.content.count(b"\n", 0, offset) + 1, column + 1)

    def here(self) -> Place:
        """Where the parser is."""
        return self.at(self.parser.CurrentByteIndex)

    def declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding and encoding.lower() not in ("utf-8", "us-ascii"):
            raise _Refused(self.here(), f"the encoding {encoding} is not supported; write the file in UTF-8")

    def doctype(self, *_: object) -> None:
        start = self.content.rfind(b"<!DOCTYPE", 0, self.parser.CurrentByteIndex + 1)  # expat is behind the name
        raise _Refused(self.at(start), "document types (<!DOCTYPE ...>) are refused")

    def start(self, tag: str, flat: list[str]) -> None:
        if len(self.open) >= DEEPEST:
            raise _Refused(self.here(), "nested too deeply")
        offset = self.parser.CurrentByteIndex
        element = Element(tag, self.at(offset))
        # Expat says where an element starts, not where its attributes do.
        position = offset + 1 + len(tag.encode())
        for name, value in zip(flat[::2], flat[1::2], strict=True):
            found = _ATTRIBUTE.match(self.content, position)
            assert found, "expat has checked the form of attributes"
            element.attributes[name] = (self.at(found.start(1)), Text(value, self.at(found.start(2) + 1)))
            position = found.end()
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def end(self, tag: str) -> None:
        self.open.pop()

    def characters(self, text: str) -> None:
        element = self.open[-1]
        element.text += text
        if not element.text_place and not text.isspace():
            blanks = len(text) - len(text.lstrip())
            element.text_place = self.at(self.parser.CurrentByteIndex + blanks)


class _Converter:
    """Turns elements into the tree that the YAML form has."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.pools: dict[str, Element] = {}
        self.used: set[str] = set()

    def configuration(self, root: Element) -> Section:
        """The root; unknown elements stay in the tree, where the reader finds and reports them."""
        entries = self.attributes(root)
        self.no_text(root)
        for child in root.children:
            if child.tag == "pools":
                self.read_pools(child)
        for child in root.children:
            if child.tag == "pools":
                continue
            key = "logging" if child.tag == "log" else child.tag
            if child.tag == "logging":
                self.sources.error(child.place, "unknown element <logging>; did you mean <log>?")
            elif key in entries:
                self.sources.error(child.place, f"<{child.tag}> is here twice; the first is at {entries[key].place}")
            else:
                entries[key] = Entry(child.place, self.part(child))
        for name, pool in self.pools.items():
            if name not in self.used:
                self.sources.error(pool.place, f"no route leads to the pool {name!r}; take it out, or add a <route>")
        return Section(entries, root.place)

    def part(self, element: Element) -> Node:
        """One of the sections."""
        if element.tag == "backends":
            return self.only(element, "backend")
        if element.tag == "auth":
            return self.auth(element)
        if element.tag == "routing":
            return self.routing(element)
        return self.node(element)

    def node(self, element: Element) -> Node:
        """Any element: a text, or a section whose repeated elements are lists."""
        if element.text_place and not element.attributes and not element.children:
            return Text(element.text.strip(), element.text_place)
        self.no_text(element)
        entries = self.attributes(element)
        for tag, children in _by_tag(element.children).items():
            if tag in entries:
                self.sources.error(children[0].place, f"{tag!r} is given as an attribute and as an element")
            nodes = tuple(self.node(child) for child in children)
            node = nodes[0] if len(nodes) == 1 else Items(nodes, children[0].place)
            entries[tag] = Entry(children[0].place, node)
        return Section(entries, element.place)

    def attributes(self, element: Element) -> dict[str, Entry]:
        return {name: Entry(place, value) for name, (place, value) in element.attributes.items()}

    def no_text(self, element: Element) -> None:
        if element.text_place:
            self.sources.error(element.text_place, f"<{element.tag}> holds text, which means nothing here")

    def only(self, element: Element, tag: str) -> Items:
        """An element that is nothing but a list of one kind of elements."""
        self.no_text(element)
        for name, (place, _) in element.attributes.items():
            self.sources.error(place, f"unknown attribute {name!r} of <{element.tag}>")
        for child in element.children:
            if child.tag != tag:
                self.unknown(child, element, (tag,))
        return Items(tuple(self.node(child) for child in element.children if child.tag == tag), element.place)

    def unknown(self, child: Element, parent: Element, known: Iterable[str]) -> None:
        hint = did_you_mean(child.tag, known)
        self.sources.error(child.place, f"unknown element <{child.tag}> in <{parent.tag}>{hint}")

    def auth(self, element: Element) -> Section:
        """`<auth>`: its `<user name=...>` elements are users by name."""
        self.no_text(element)
        entries, users = self.attributes(element), dict[str, Entry]()
        for child in element.children:
            node = self.node(child)
            name = child.attributes.get("name")
            if child.tag != "user":
                self.unknown(child, element, ("user",))
            elif not name or not isinstance(node, Section):
                self.sources.error(child.place, "<user> needs the attribute 'name'")
            elif name[1].text in users:
                first = users[name[1].text].place
                self.sources.error(name[1].place, f"user {name[1].text!r} is here twice; the first is at {first}")
            else:
                rest = {key: entry for key, entry in node.entries.items() if key != "name"}
                users[name[1].text] = Entry(name[1].place, Section(rest, node.place))
        if users:
            entries["users"] = Entry(element.place, Section(users, element.place))
        return Section(entries, element.place)

    def read_pools(self, element: Element) -> None:
        self.only(element, "pool")
        for pool in element.children:
            name = pool.attributes.get("name")
            if pool.tag != "pool":
                continue
            if not name or not name[1].text:
                self.sources.error(pool.place, "<pool> needs the attribute 'name'")
            elif name[1].text in self.pools:
                first = self.pools[name[1].text].place
                message = f"there is another pool called {name[1].text!r} at {first}"
                self.sources.error(name[1].place, message)
            else:
                self.pools[name[1].text] = pool

    def routing(self, element: Element) -> Section:
        """`<routing>`: `<defaults>` and the routes, each with what its pool says."""
        self.no_text(element)
        entries = self.attributes(element)
        rules = []
        for child in element.children:
            if child.tag == "defaults" and child.tag not in entries:
                entries[child.tag] = Entry(child.place, self.node(child))
            elif child.tag == "route":
                rules.append(self.route(child))
            else:
                self.unknown(child, element, ("route", "defaults"))
        # A pool that no route leads to is a problem already; as a rule its values are checked like the others'.
        unused = [pool for name, pool in self.pools.items() if name not in self.used]
        rules += [Section({**self.pool_entries(pool), **_EVERYBODY}, pool.place) for pool in unused]
        if rules:
            entries["rules"] = Entry(element.place, Items(tuple(rules), element.place))
        return Section(entries, element.place)

    def route(self, element: Element) -> Node:
        node = self.node(element)
        if not isinstance(node, Section):
            self.no_text(element)
            return Broken(element.place)
        entries = {}
        for name, entry in node.entries.items():
            if name not in ROUTE_KEYS:
                hint = did_you_mean(name, ROUTE_KEYS)
                self.sources.error(entry.place, f"unknown attribute {name!r} of <route>{hint}")
            elif name != "pool":
                entries[name] = entry
        pool = node.entries.get("pool")
        if not pool or not isinstance(pool.node, Text):
            self.sources.error(element.place, "<route> needs the attribute 'pool'")
            return Broken(element.place)
        if pool.node.text not in self.pools:
            name = pool.node.text
            self.sources.error(pool.node.place, f"there is no pool called {name!r}{did_you_mean(name, self.pools)}")
            return Broken(element.place)
        self.used.add(pool.node.text)
        return Section({**entries, **self.pool_entries(self.pools[pool.node.text])}, element.place)

    def pool_entries(self, pool: Element) -> dict[str, Entry]:
        """The settings of a pool, by the keys of a rule."""
        node = self.node(pool)
        entries: dict[str, Entry] = {}
        for name, entry in node.entries.items() if isinstance(node, Section) else ():
            if name in ("pool_mode", "pool_size", "user", "database", "default"):
                known = ("name", "backend", *RENAMED_IN_POOL)
                hint = did_you_mean(name.removeprefix("pool_"), known)
                self.sources.error(entry.place, f"unknown attribute {name!r} of <pool>{hint}")
            else:
                entries[RENAMED_IN_POOL.get(name, name)] = entry
        if "backend" not in entries:
            self.sources.error(pool.place, "<pool> needs the attribute 'backend'")
            entries["backend"] = Entry(pool.place, Broken(pool.place))
        return entries


def _by_tag(elements: Iterable[Element]) -> dict[str, list[Element]]:
    found: dict[str, list[Element]] = {}
    for element in elements:
        found.setdefault(element.tag, []).append(element)
    return found
