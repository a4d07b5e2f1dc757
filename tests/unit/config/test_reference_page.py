"""docs/reference/configuration.md says what the model says, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pgpooler.config.choices import ResetPolicy, SessionStatePolicy
from pgpooler.config.keys import keys_of
from pgpooler.config.model import (
    Auth,
    Backend,
    BackendOverrides,
    BackendTls,
    ClientTls,
    Configuration,
    Limits,
    Listen,
    LogFile,
    Logging,
    PoolSettings,
    Routing,
    Rule,
    Timeouts,
    User,
)

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
TABLES = {
    "The main file": Configuration,
    "pool settings": PoolSettings,
    "listen": Listen,
    "logging": Logging,
    "file": LogFile,
    "backends": Backend,
    "tls of a backend": BackendTls,
    "tls": ClientTls,
    "routing": Routing,
    "rules": Rule,
    "auth": Auth,
    "users": User,
    "limits": Limits,
    "timeouts": Timeouts,
}
SETTINGS = set(PoolSettings.__struct_fields__)
ABSENT = {"none", "see below", "no rules", "any"}
DEPENDENT = {"server_reset_query": "by `pool_mode`", "max_pinned": "half of `pool_size`"}
"""The pool settings whose built-in value depends on another one."""


def rows(heading: str) -> dict[str, str]:
    """Key and default of every row of the table under a heading."""
    body = re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", body, re.MULTILINE))


def written(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}s"
    return ", ".join(default) if isinstance(default, tuple) else str(default)


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_has_every_key_of_the_model_and_no_other(heading: str) -> None:
    kind = TABLES[heading]
    inherited = SETTINGS if kind is Rule else set(BackendOverrides.__struct_fields__) if kind is Backend else set()
    assert set(rows(heading)) == set(keys_of(kind)) - inherited


@pytest.mark.parametrize("heading", TABLES)
def test_the_defaults_of_the_page_are_those_of_the_model(heading: str) -> None:
    found = rows(heading)
    for name, key in keys_of(TABLES[heading]).items():
        if name not in found:
            continue
        if key.required:
            assert found[name] == "required"
        elif heading == "pool settings" and key.default is None:
            assert found[name] == DEPENDENT[name]
        elif key.default is None and name in SETTINGS:
            assert found[name] == "inherited"
        elif key.reader == "octal":
            assert found[name] == f"`0{key.default:o}`"
        elif key.default in ("", (), None, msgspec.NODEFAULT) or isinstance(key.default, msgspec.Struct):
            assert found[name] in ABSENT
        else:
            assert found[name] == f"`{written(key.default)}`"


def test_the_page_says_what_may_be_written_for_the_reset_and_for_session_state() -> None:
    for heading, choices in (("server_reset_query", ResetPolicy), ("on_session_state", SessionStatePolicy)):
        body = PAGE.split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
        assert re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE) == [choice.value for choice in choices]


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_page_load(folder) -> None:
    folder.environment = {"ALICE_PASSWORD": "a", "READER_PASSWORD": "r"}
    writer = folder.write("writer", "secret\n")
    smallest, main, logging, backends, routing, inline = examples("yaml")
    files = {"logging.yaml": logging, "backends.yaml": backends, "routing.yaml": routing}
    files["userlist.txt"] = examples("text")[0]
    assert folder.load(smallest).warnings == ()
    assert folder.load(inline, files=files).configuration.routing.rules[0].default
    loaded = folder.load(main, files=files)
    assert [rule.backend for rule in loaded.configuration.routing.rules] == ["replica", "replica", "primary"]
    assert sorted(loaded.configuration.auth.users) == ["alice", "bob", 'o"hara']
    # The md5 secret of the example file is there to show the form.
    assert ["md5" in warning.message for warning in loaded.warnings] == [True]
    (xml,) = examples("xml")
    from_xml = folder.load(xml.replace("/run/secrets/writer", str(writer)), name="pgpooler.xml")
    assert from_xml.warnings == ()
    assert len(from_xml.configuration.routing.rules) == 3
