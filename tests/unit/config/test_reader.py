"""Any tree at all, with the keys of the model and values of every shape, is read or refused, and never breaks."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config import model
from pgpooler.config.checks import check
from pgpooler.config.keys import keys_of
from pgpooler.config.model import Configuration
from pgpooler.config.reader import INVALID, Reader, build
from pgpooler.config.routing import Router
from pgpooler.config.source import Absent, Broken, Entry, Items, Node, Place, Section, Sources, Text
from pgpooler.errors import ConfigurationError

HERE = Place("pgpooler.yaml", 1, 1)
SECTIONS = [
    model.Listen,
    model.Logging,
    model.LogFile,
    model.Backend,
    model.Rule,
    model.Routing,
    model.Auth,
    model.User,
]
KEYS = sorted({name for kind in (*SECTIONS, model.Limits, model.Timeouts) for name in keys_of(kind)})
TEXTS = [
    "a",
    "b",
    "",
    "1",
    "0",
    "10s",
    "true",
    "no",
    "~ ^a",
    "x*",
    "trust",
    "file",
    "session",
    "smart",
    "DISCARD ALL",
    "pin",
    "${A}",
    "/x",
    "*",
    "auto",
]

leaves: st.SearchStrategy[Node] = st.one_of(
    st.sampled_from(TEXTS).map(lambda text: Text(text, HERE)), st.just(Absent(HERE)), st.just(Broken(HERE))
)


def section(keys: list[str], children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    entries = st.dictionaries(st.sampled_from(keys), children.map(lambda node: Entry(HERE, node)), max_size=5)
    return entries.map(lambda found: Section(found, HERE))


def deeper(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    items = st.lists(children, max_size=3).map(lambda found: Items(tuple(found), HERE))
    return items | section([*KEYS, "password_file", "tls", "nonsense"], children)


@given(section(list(keys_of(Configuration)), st.recursive(leaves, deeper, max_leaves=20)))
def test_any_tree_gives_a_configuration_that_routes_or_a_configuration_error(tree: Node) -> None:
    sources = Sources("pgpooler.yaml", {"A": "a"})
    reader = Reader(sources)
    root = reader.section(tree, Configuration, "the configuration")
    assert root is not INVALID
    check(root, reader)
    with suppress(ConfigurationError):
        sources.raise_errors()
        # A broken part has been reported by the one who made it so; here nobody has.
        if "Broken" not in repr(tree):
            Router(build(root)).route("a", "b")
