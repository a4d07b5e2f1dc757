"""The YAML form: a main file that holds `logging`, `backends` and `routing`, or names a file for each by `path`.

Only the shape of YAML is used: every value stays the text that was written, so `no`, `0123` and `12:30` reach the model
unchanged.  Anchors, aliases and merge keys (`<<`) work; tags other than YAML's own do not.
"""

from __future__ import annotations

from typing import Final

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from pgpooler.config.source import Absent, Broken, Entry, Items, Node, Place, Section, Sources, Text, is_text
from pgpooler.config.values import did_you_mean

PARTS: Final[dict[str, dict[str, str] | None]] = {
    "logging": None,
    "backends": {"backends": ""},
    "routing": {"defaults": "defaults", "routing": "rules"},
}
"""The parts that may be files of their own, and what the keys of such a file become: a key of the part, or ("") the
whole part.  None: the file is the part."""

TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "null", "bool", "int", "float", "timestamp", "merge", "value", "seq", "map")
)
NULL: Final = "tag:yaml.org,2002:null"
MERGE: Final = "tag:yaml.org,2002:merge"


def read_yaml(sources: Sources) -> Node:
    """The whole configuration as one tree, with the parts that are files of their own put in their places."""
    root = _read_file(sources, sources.main, None)
    if not isinstance(root, Section):
        return root
    entries = dict(root.entries)
    for name in PARTS:
        if name in entries:
            entries[name] = Entry(entries[name].place, _part(sources, name, entries[name].node))
    return Section(entries, root.place)


def _part(sources: Sources, name: str, node: Node) -> Node:
    """A part as written inline, or from the file it names."""
    if not isinstance(node, Section) or "path" not in node.entries:
        return node
    for key, entry in node.entries.items():
        if key != "path":
            sources.error(entry.place, f"{key!r} does not go with 'path'; it belongs into that file")
    path = node.entries["path"].node
    if not isinstance(path, Text) or not path.text:
        sources.error(path.place, f"expected the path of the {name} file")
        return Broken(node.place)
    text = sources.expand(path)
    return Broken(node.place) if text is None else _from_file(sources, name, text, path.place)


def _from_file(sources: Sources, name: str, path: str, asked_at: Place) -> Node:
    root = _read_file(sources, path, asked_at)
    keys = PARTS[name]
    if not isinstance(root, Section) or keys is None:
        return root
    entries: dict[str, Entry] = {}
    whole: Node = Broken(root.place)
    for key, entry in root.entries.items():
        if key not in keys:
            sources.error(entry.place, f"unknown key {key!r} in the {name} file{did_you_mean(key, keys)}")
        elif keys[key]:
            entries[keys[key]] = entry
        else:
            whole = entry.node
    if "" not in keys.values():
        return Section(entries, root.place)
    if name not in root.entries:
        sources.error(root.place, f"the key {name!r} is missing in this file")
    return whole


def _read_file(sources: Sources, path: str, asked_at: Place | None) -> Node:
    shown = sources.shown(path) if asked_at else path
    text = sources.read(path, asked_at)
    if text is None:
        return Broken(Place(shown))
    node = parse_yaml(text, shown, sources)
    if isinstance(node, Section | Broken):
        return node
    if isinstance(node, Absent):
        sources.error(node.place, "the file is empty")
    else:
        sources.error(node.place, "expected keys and values at the top of the file")
    return Broken(node.place)


def parse_yaml(text: str, file: str, sources: Sources) -> Node:
    """One YAML document as a tree.  Syntax errors are reported, never raised."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        parts = [part for part in (error.context, error.problem) if part]
        hint = '; write * in quotes: "*"' if error.context == "while scanning an alias" else ""
        sources.error(place, f"not valid YAML: {', '.join(parts)}{hint}")
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        sources.error(place, f"not valid YAML: {error.reason}")
    except (ValueError, OverflowError):
        mark = loader.get_mark()
        sources.error(Place(file, mark.line + 1, mark.column + 1), "not valid YAML: no such character")
    except RecursionError:
        sources.error(Place(file), "not valid YAML: nested too deeply")
    else:
        return Absent(Place(file)) if node is None else _Converter(file, sources).convert(node)
    return Broken(Place(file))


class _Converter:
    """Turns PyYAML's nodes into ours, each once however often it is aliased."""

    def __init__(self, file: str, sources: Sources) -> None:
        self.file = file
        self.sources = sources
        self.done: dict[yaml.Node, Node] = {}
        self.open: set[yaml.Node] = set()

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def convert(self, node: yaml.Node) -> Node:
        if node not in self.done:
            if node in self.open:
                self.sources.error(self.place(node), "this value contains itself")
                return Broken(self.place(node))
            self.open.add(node)
            self.done[node] = self._convert(node)
            self.open.discard(node)
        return self.done[node]

    def _convert(self, node: yaml.Node) -> Node:
        place = self.place(node)
        if node.tag not in TAGS:
            self.sources.error(place, f"the tag {node.tag} is not allowed here")
            return Broken(place)
        if isinstance(node, ScalarNode):
            return Absent(place) if node.tag == NULL else self._text(node, place)
        if isinstance(node, SequenceNode):
            return Items(tuple(self.convert(item) for item in node.value), place)
        assert isinstance(node, MappingNode)
        return self._section(node, place)

    def _text(self, node: yaml.Node, place: Place) -> Node:
        if not is_text(node.value):
            self.sources.error(place, "the value holds a character that no text can hold")
            return Broken(place)
        return Text(node.value, place)

    def _section(self, node: MappingNode, place: Place) -> Node:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            key_place = self.place(key_node)
            key = self.convert(key_node)
            if key_node.tag == MERGE and merged:
                self.sources.error(key_place, "the key '<<' is here twice; give it a list")
            elif key_node.tag == MERGE:
                self._merge(self.convert(value_node), merged)
            elif not isinstance(key, Text):
                self.sources.error(key_place, "expected the name of a key")
            elif key.text in entries:
                first = entries[key.text].place
                self.sources.error(key_place, f"the key {key.text!r} is here twice; the first is in line {first.line}")
            else:
                entries[key.text] = Entry(key_place, self.convert(value_node))
        return Section({**merged, **entries}, place)

    def _merge(self, node: Node, merged: dict[str, Entry]) -> None:
        """Take over the keys of `<<`; of several the first wins, as YAML has it."""
        for part in node.items if isinstance(node, Items) else (node,):
            if isinstance(part, Section):
                for name, entry in part.entries.items():
                    merged.setdefault(name, entry)
            elif not isinstance(part, Broken):
                self.sources.error(part.place, "expected keys and values to merge")
