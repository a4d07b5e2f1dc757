"""What must hold between values, and that every violation is found at its place, all in one run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.load import load
from pgpooler.config.routing import Router

BACKEND = "backends: [{name: primary, host: pg1}]\n"
REST = BACKEND + "auth: {method: trust}\n"


VERIFIER = f"SCRAM-SHA-256$4096:{'A' * 22}==${'A' * 43}=:{'A' * 43}="


def rules(text: str) -> str:
    return f"{REST}routing:\n  rules:\n{text}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {backend: primary, user: ▸'~ ('}", "bad regular expression"),
        ("- {backend: primary, user: ▸[]}", "the list is empty"),
        ("- {backend: primary, user: ▸''}", "must not be empty"),
        ("- {backend: primary, user: [a, ▸~]}", "missing (null)"),
        ("- {backend: primary, user: ▸{a: b}}", "expected a name, a prefix"),
        ("- {backend: primary, user: [▸[a]]}", "expected a name, a prefix"),
        ("- ▸{backend: primary}", "matches nobody"),
        ("- ▸{backend: primary, default: false}", "matches nobody"),
        ("- {backend: primary, default: ▸maybe}", "expected true or false"),
        ("- {backend: primary, user: a, default: ▸true}", "matches everything"),
        ("- ▸{user: a}", "the key 'backend' of an entry of 'rules' is missing"),
        ("- {user: a, backend: ▸primray}", "did you mean 'primary'"),
        ("- {user: a, backend: primary, ▸databse: b}", "did you mean 'database'"),
        ("- {user: a, backend: primary, pool_mode: ▸transactional}", "did you mean 'transaction'"),
        ("- {user: a, backend: primary, pool_size: ▸many}", "whole number"),
        ("- {user: a, backend: primary, query_wait_timeout: ▸-1}", "expected a time"),
        ('- {user: [▸~ "^a,b"], backend: primary}', "does not close"),
        ("- ▸primary", "expected the keys of an entry of 'rules'"),
    ],
)
def test_w15_a_rule_that_is_wrong_is_refused_and_never_matches_more_than_was_meant(
    folder, text: str, message: str
) -> None:
    assert message in folder.marked(rules(f"    {text}\n"))[0]


def test_names_are_given_only_once(folder) -> None:
    messages = folder.marked(
        """
auth: {method: trust}
backends:
  - {name: primary, host: pg1}
  - {name: ▸primary, host: pg2}
routing:
  rules:
    - {name: x, user: a, backend: primary}
    - {name: ▸x, user: b, backend: primary}
"""
    )
    assert "another backend called 'primary'" in messages[0]
    assert "another rule called 'x'" in messages[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: {port: ▸0}", "from 1 to 65535"),
        ("listen: {port: ▸65536}", "from 1 to 65535"),
        ("listen: {host: ▸''}", "must not be empty"),
        ("listen: {host: ▸[]}", "the list is empty"),
        ("listen: {host: ▸999.0.0.1}", "not an IP address"),
        ("listen: {host: ▸[127.0.0.1, 127.0.0.1]}", "listened on twice"),
        ("listen: {host: ▸['*', 127.0.0.1]}", "listened on twice"),
        ("listen: {unix_socket_mode: ▸999, unix_socket_dir: x}", "octal"),
        (f"listen: {{unix_socket_dir: ▸/{'x' * 100}}}", "longer than 107"),
        ("listen: ▸", "missing (null)"),
        ("listen: ▸[]", "expected the keys of 'listen'"),
        ("listen: ▸x", "expected the keys of 'listen'"),
        ("logging: {destination: ▸file}", "needs the section 'file'"),
        ("logging: {destination: file, file: ▸x.log}", "expected the keys of 'file'"),
        ("logging: {destination: ▸syslog}", "expected one of file, stderr"),
        ("logging: {file: ▸{append: yes}}", "'path' or a 'directory'"),
        ("logging: {file: {directory: x, filename: ▸a/b.log}}", "must not hold a slash"),
        ("logging: {file: {path: x, append: ▸perhaps}}", "true or false"),
        ("limits: {max_client_conn: ▸0}", "from 1 to"),
        ("limits: {▸max_clients: 1}", "did you mean 'max_client_conn'"),
        ("timeouts: {drain_timeout: ▸soon}", "expected a time"),
        ("▸timeout: {}", "did you mean 'timeouts'"),
    ],
)
def test_a_value_out_of_bounds_is_refused_at_its_place(folder, text: str, message: str) -> None:
    text = text.replace("listen: ▸", "listen:▸") if text == "listen: ▸" else text
    assert message in folder.marked(f"{REST}{text}\n")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("▸[]", "the list is empty"),
        ("▸{primary: {host: pg1}}", "expected a list for 'backends'"),
        ("[▸{name: primary}]", "the key 'host' of an entry of 'backends' is missing"),
        ("[▸{host: pg1}]", "the key 'name' of an entry of 'backends' is missing"),
        ("[{name: ▸'', host: pg1}]", "must not be empty"),
        ("[{name: a, host: ▸''}]", "must not be empty"),
        ("[{name: a, host: ▸}]", "missing (null)"),
        ("[{name: a, host: ▸'pg1:5432'}]", "not an IP address; the port has a key of its own"),
        ("[{name: a, host: ▸pg/1}]", "neither a host name nor an IP address"),
        ("[{name: a, host: pg1, port: ▸70000}]", "from 1 to 65535"),
        ("[{name: a, host: pg1, password: ▸x}]", "no effect without 'user'"),
        ("[{name: a, host: pg1, user: u, password: ▸SCRAM-SHA-256$x}]", "bad secret"),
        (f"[{{name: a, host: pg1, user: u, password: ▸'{VERIFIER}'}}]", "the password itself is needed"),
        ("[{name: a, host: pg1, ▸tls: {mode: prefer}}]", "not in this version"),
        ("[▸x]", "expected the keys of an entry of 'backends'"),
    ],
)
def test_a_wrong_backend_is_refused_at_its_place(folder, text: str, message: str) -> None:
    text = text.replace("host: ▸}", "host:▸ }")
    assert message in folder.marked(f"auth: {{method: trust}}\nbackends: {text}\n")[0]


@pytest.mark.parametrize(
    "text",
    [
        f"▸{BACKEND}",
        f"{BACKEND}auth: ▸{{method: md5}}\n",
        f"{BACKEND}auth: {{method: md5, users: ▸{{}}}}\n",
        f"{BACKEND}auth: {{users_file: ▸users.txt}}\n",
    ],
)
def test_without_users_trust_must_be_written_out(folder, text: str) -> None:
    (message,) = folder.marked(text, files={"users.txt": "; nobody yet\n"})
    assert "'users'" in message
    assert "'users_file'" in message
    assert "method: trust" in message


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("{▸alice: {}}", "needs a 'password'"),
        ("{alice: {password: ▸''}}", "must not be empty"),
        ("{alice: ▸secret}", "expected the keys of user 'alice'"),
        ("{▸alice: {▸pasword: x}}", "did you mean 'password'"),
        ("{alice: {password: ▸SCRAM-SHA-256$oops}}", "bad secret"),
        ("▸[alice]", "expected users by name"),
        ("{▸'': {password: x}}", "name is empty"),
    ],
)
def test_a_user_that_is_wrong_is_refused_at_its_place(folder, users: str, message: str) -> None:
    places = folder.marked(f"{BACKEND}auth: {{users: {users}, users_file: users.txt}}\n", files={"users.txt": USERS})
    assert any(message in found for found in places)


USERS = '"bob" "secret"\n'


def test_a_secret_is_never_part_of_a_message(folder) -> None:
    text = f"{BACKEND}auth: {{users: {{alice: {{password: ▸'SCRAM-SHA-256$hunter2'}}}}}}\n"
    assert "hunter2" not in "".join(folder.marked(text))


def test_users_of_the_file_are_checked_like_the_others(folder) -> None:
    messages = folder.marked(
        f"{BACKEND}auth: {{users: {{alice: {{password: x}}}}, users_file: users.txt}}\n",
        files={"users.txt": '▸"alice" "y"\n"bob" ▸""\n▸carol\n"dave" ▸"SCRAM-SHA-256$1"\n'},
    )
    assert len(messages) == 4


def test_a_missing_users_file_is_reported_where_it_is_named(folder) -> None:
    (message,) = folder.marked(f"{BACKEND}auth: {{users_file: ▸users.txt}}\n")
    assert "No such file" in message


def test_a_secret_that_cannot_serve_the_method_is_a_warning(folder) -> None:
    text = f"{BACKEND}auth: {{users: {{alice: {{password: ▸md5{'0' * 32}}}}}}}\n"
    (message,) = folder.warnings(text)
    assert "can never log in" in message
    assert folder.load(text.replace("▸", "").replace("auth: {", "auth: {method: md5, ")).warnings == ()


def test_w16_keys_without_effect_are_warnings(folder) -> None:
    messages = folder.warnings(
        """
auth: {method: trust}
listen: {unix_socket_mode: ▸0700}
logging:
  destination: stderr
  file: ▸{path: x.log, directory: ▸logs, filename: ▸y.log}
backends:
  - {name: primary, host: pg1}
  - {name: ▸replica, host: pg2}
"""
    )
    assert all("no effect" in message or "never used" in message for message in messages)


@pytest.mark.parametrize(
    "text",
    [
        "- {default: true, backend: primary}\n- ▸{user: a, backend: primary}",
        "- {user: a, backend: primary}\n- ▸{user: a, database: b, backend: primary}",
        "- {user: a*, backend: primary}\n- ▸{user: [ab, abc*], backend: primary}",
        "- {user: '*', backend: primary}\n- ▸{default: true, backend: primary}",
        "- {database: ~ ^re, backend: primary}\n- ▸{database: reporting, backend: primary}",
        "- {user: a, backend: primary}\n- {user: b, backend: primary}\n- ▸{user: [a, b], backend: primary}",
    ],
)
def test_a_rule_that_can_never_match_is_a_warning_with_both_places(folder, text: str) -> None:
    indented = "".join(f"    {line}\n" for line in text.split("\n"))
    (message,) = folder.warnings(rules(indented))
    number = len(text.split("\n"))
    assert f"rule {number} can never match: rule 1 (" in message
    assert "pgpooler.yaml:5:7" in message
    if number > 2:
        assert "and rule 2 (" in message


@pytest.mark.parametrize(
    "text",
    [
        "- {user: a, database: b, backend: primary}\n- {user: a, backend: primary}",
        "- {user: ~ ^a, backend: primary}\n- {user: a*, backend: primary}",
        "- {user: ab*, backend: primary}\n- {user: a*, backend: primary}",
        "- {user: a, backend: primary}\n- {database: a, backend: primary}\n- {default: true, backend: primary}",
    ],
)
def test_a_rule_that_can_match_or_may_is_no_warning(folder, text: str) -> None:
    folder.warnings(rules("".join(f"    {line}\n" for line in text.split("\n"))))


pattern = st.sampled_from(["a", "b", "ab", "a*", "b*", "'*'", "~ ^a", "~ b"])
matcher = st.lists(pattern, min_size=1, max_size=2).map(lambda items: f"[{', '.join(items)}]")
rule = st.tuples(st.none() | matcher, st.none() | matcher).filter(any)


@given(st.lists(rule, min_size=2, max_size=4))
def test_a_rule_called_unreachable_is_never_reached(
    tmp_path_factory, pairs: list[tuple[str | None, str | None]]
) -> None:
    lines = []
    for user, database in pairs:
        keys = [f"{key}: {text}" for key, text in (("user", user), ("database", database)) if text]
        lines.append(f"    - {{backend: primary, {', '.join(keys)}}}\n")
    path = tmp_path_factory.getbasetemp() / "shadowed.yaml"
    path.write_text(rules("".join(lines)))
    loaded = load(path)
    router = Router(loaded.configuration)
    names = ("a", "b", "ab", "ba", "c", "abb")
    reached = {found.rule_number for user in names for name in names if (found := router.route(user, name))}
    assert not reached & {warning.line - 4 for warning in loaded.warnings}
