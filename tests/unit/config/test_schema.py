"""The schema for editors: generated from the model, and never stricter than PgPooler."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from pgpooler.config.keys import keys_of
from pgpooler.config.model import Backend, Configuration, Logging, Rule
from pgpooler.config.schema import DOCUMENTS, schema

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}


def fits(value: Any, wanted: dict[str, Any]) -> bool:
    """The part of JSON Schema that our schemas use."""
    if "anyOf" in wanted:
        return any(fits(value, option) for option in wanted["anyOf"])
    if "const" in wanted:
        return bool(value == wanted["const"])
    names = wanted["type"] if isinstance(wanted["type"], list) else [wanted["type"]]
    if not any(
        isinstance(value, TYPES[name])
        and not (name in ("integer", "number") and value in (True, False) and isinstance(value, bool))
        for name in names
    ):
        return False
    if isinstance(value, dict):
        known, others = wanted.get("properties", {}), wanted.get("additionalProperties")
        missing = [name for name in wanted.get("required", []) if name not in value]
        return not missing and all(
            fits(item, known[name]) if name in known else isinstance(others, dict) and fits(item, others)
            for name, item in value.items()
        )
    if isinstance(value, list):
        return len(value) >= wanted.get("minItems", 0) and all(fits(item, wanted["items"]) for item in value)
    if isinstance(value, str):
        matches = re.search(wanted.get("pattern", ""), value) and value in wanted.get("enum", [value])
        return bool(matches) and len(value) >= wanted.get("minLength", 0)
    return bool(wanted.get("minimum", value) <= value <= wanted.get("maximum", value))


GOOD = """
listen: {host: ["::1", localhost], port: 6432, unix_socket_dir: x, unix_socket_mode: 0770, backlog: 9}
logging: {level: info, file: {path: x, append: no, rotation_age: 1d, keep: "${KEEP}"}}
backends:
  - {name: 0123, host: no, port: "${PORT}", pool_size: 3, pool_mode: session, user: u, password_file: secret.txt}
  - {name: c, host: c, server_reset_query: smart, on_session_state: error, max_pinned: 0, cancel_wait_timeout: 0}
routing:
  defaults: {pool_size: 20, query_wait_timeout: 500ms, server_reset_query: SELECT my_reset()}
  rules:
    - {name: x, database: ~ "^re", user: [a, 12], backend: b, server_lifetime: 1.5, server_reset_query: "${RESET}"}
    - {default: true, backend: b}
auth: {method: trust, users_file: x, users: {alice: {password: "${A}"}, bob: {}}}
limits: {max_client_conn: 10, max_user_client_connections: 3}
timeouts: {drain_timeout: 5 m, transaction_timeout: 1h}
workers: 1
"""


def test_a_good_file_fits_the_schema() -> None:
    assert fits(yaml.safe_load(GOOD), schema())


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("port: 6432", "port: 65536"),
        ("port: 6432", "prot: 6432"),
        ("level: info", "level: loud"),
        ("append: no", "append: perhaps"),
        ("pool_mode: session", "pool_mode: sessions"),
        ("500ms", "soon"),
        ("user: [a, 12]", "user: []"),
        (", backend: b, server", ", server"),
        ("method: trust", "method: none"),
        ("query: smart", "query: smrat"),
        ("state: error", "state: DISCARD ALL"),
        ("max_pinned: 0", "max_pinned: half"),
        ("cancel_wait_timeout: 0", "cancel_wait_timeout: -1"),
        ("connections: 3", "connections: -3"),
        ("transaction_timeout: 1h", "transaction_timeout: soon"),
        ("workers: 1", "workers: 2"),
        ("workers: 1", "gui: {}"),
    ],
)
def test_a_wrong_file_does_not_fit_the_schema(good: str, bad: str) -> None:
    assert good in GOOD
    assert not fits(yaml.safe_load(GOOD.replace(good, bad)), schema())


@pytest.mark.parametrize("part", ["logging", "backends", "routing"])
def test_a_part_may_be_a_file_or_inline_and_the_file_has_a_schema_of_its_own(part: str) -> None:
    content = yaml.safe_load(GOOD)
    inline = content[part]
    assert fits({**content, part: {"path": "x.yaml"}}, schema())
    assert not fits({**content, part: {"path": "x.yaml", "more": 1}}, schema())
    files = {
        "logging": inline,
        "backends": {"backends": inline},
        "routing": {"defaults": {"pool_size": 20}, "routing": [{"default": True, "backend": "b"}]},
    }
    assert fits(files[part], schema(part))
    assert not fits({**files[part], "more": 1}, schema(part))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_schema_is_json_and_says_what_it_is(document: str) -> None:
    written = json.loads(json.dumps(schema(document)))
    assert written["$schema"].startswith("https://json-schema.org/")
    assert document in written["title"]


def test_the_schema_has_every_key_with_its_meaning_and_default() -> None:
    whole = schema()
    properties = whole["properties"]
    assert list(properties) == list(keys_of(Configuration))
    assert properties["listen"]["properties"]["port"]["default"] == 6432
    assert properties["listen"]["properties"]["unix_socket_mode"]["default"] == "0777"
    inline = {name: properties[name]["anyOf"][1] for name in ("logging", "backends", "routing")}
    assert set(inline["logging"]["properties"]) == set(keys_of(Logging))
    assert set(inline["backends"]["items"]["properties"]) == {
        *keys_of(Backend),
        "auth_password_file",
        "password_file",
    }
    assert set(inline["routing"]["properties"]["rules"]["items"]["properties"]) == set(keys_of(Rule))
    assert all(found["description"] for found in inline["backends"]["items"]["properties"].values())
