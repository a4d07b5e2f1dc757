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
        ("limits: {max_user_client_connections: ▸-1}", "from 0 to"),
        ("limits: {max_db_client_connections: ▸none}", "whole number"),
        ("limits: {▸pool_size: 3}", "unknown key 'pool_size'"),
        ("limits: {▸query_timeout: 3}", "unknown key 'query_timeout'"),
        ("timeouts: {▸max_pinned: 3}", "unknown key 'max_pinned'"),
        ("timeouts: {▸idle_transaction_timout: 3}", "did you mean 'idle_transaction_timeout'"),
        ("timeouts: {▸client_idle_timeout: 3}", "what PgBouncer calls client_idle_timeout is 'session_idle_timeout'"),
        ("▸default_pool_size: 3", "is 'pool_size' of a rule or of 'defaults' here"),
        ("listen: {▸listen_addr: '*'}", "is 'host' in the section 'listen' here"),
    ],
)
def test_a_value_out_of_bounds_is_refused_at_its_place(folder, text: str, message: str) -> None:
    text = text.replace("listen: ▸", "listen:▸") if text == "listen: ▸" else text
    assert message in folder.marked(f"{REST}{text}\n")[0]


COUNTS = [
    *("min_pool_size", "reserve_pool_size", "max_pinned"),
    *("max_queue", "max_user_client_connections", "max_db_client_connections"),
]
TIMES = [
    *("query_wait_timeout", "reserve_pool_timeout", "query_timeout", "transaction_timeout", "idle_transaction_timeout"),
    *("pinned_idle_timeout", "session_idle_timeout", "cancel_wait_timeout", "server_connect_timeout"),
    *("server_idle_timeout", "server_lifetime"),
]
PLACES = {
    "rule": BACKEND + "routing: {rules: [{default: true, backend: primary, KEY}]}\n",
    "backend": "backends: [{name: primary, host: pg1, KEY}]\n",
    "defaults": BACKEND + "routing: {defaults: {KEY}}\n",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("key", "message"),
    [
        *((f"{name}: ▸-1", "from 0 to 2147483647") for name in COUNTS),
        *((f"{name}: ▸2147483648", "from 0 to 2147483647") for name in COUNTS),
        *((f"{name}: ▸half", "expected a whole number") for name in COUNTS),
        *((f"{name}: ▸-1s", "expected a time") for name in TIMES),
        *((f"{name}: ▸3651d", "at most 315360000 seconds") for name in TIMES),
        ("on_session_state: ▸pinned", "expected one of pin, error, allow, found 'pinned'"),
        ("on_session_state: ▸errror", "did you mean 'error'"),
        ("server_reset_query: ▸smrat", "did you mean 'smart'"),
        ("server_reset_query: ▸Always", "did you mean 'always'"),
        ("server_reset_query: ▸DISCARD", "a statement, which has at least two words"),
        ("server_reset_query: ▸'  '", "a statement, which has at least two words"),
        ("server_reset_query: ▸''", "must not be empty"),
        ("server_reset_query: ▸[DISCARD, ALL]", "expected a value for 'server_reset_query'"),
        ("▸default_pool_size: 1", "is 'pool_size' of a rule"),
        ("▸reserve_pool: 1", "is 'reserve_pool_size' here"),
        ("▸server_reset_query_always: 1", "is 'server_reset_query: always' here"),
        ("▸min_pool_sise: 1", "did you mean 'min_pool_size'"),
    ],
)
def test_a_wrong_pool_setting_is_refused_at_its_place_wherever_it_is_written(
    folder, place: str, key: str, message: str
) -> None:
    (found,) = folder.marked(f"auth: {{method: trust}}\n{PLACES[place].replace('KEY', key)}")
    assert message in found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "key",
    [
        *(f"{name}: 0" for name in (*COUNTS, *TIMES)),
        *(f"{name}: 3650d" for name in TIMES),
        *(f"server_reset_query: {text}" for text in ("always", "smart", "never", "DISCARD ALL", "'SELECT a(), b();'")),
        *(f"on_session_state: {text}" for text in ("pin", "error", "allow")),
        "min_pool_size: 20",
        "max_pinned: 2147483647",
    ],
)
def test_every_pool_setting_may_stand_in_a_rule_a_backend_and_the_defaults(folder, place: str, key: str) -> None:
    assert folder.load(f"auth: {{method: trust}}\n{PLACES[place].replace('KEY', key)}").warnings == ()


TWO_BACKENDS = "backends: [{name: a, host: x}, {name: b, host: y, min_pool_size: ▸4}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backends: [{name: a, host: x, min_pool_size: ▸21}]", "'min_pool_size' 21 is more than the built-in"),
        (BACKEND + "routing: {defaults: {min_pool_size: ▸3, pool_size: 2}}", "more than the 'pool_size' 2 at"),
        (
            BACKEND + "routing: {defaults: {min_pool_size: ▸3}, rules: [{user: u, backend: primary, pool_size: 2}]}",
            "pgpooler.yaml:3:88",
        ),
        (
            BACKEND + "routing: {defaults: {pool_size: 2}, rules: [{user: u, backend: primary, min_pool_size: ▸3}]}",
            "pgpooler.yaml:3:33",
        ),
        (
            TWO_BACKENDS
            + "routing: {rules: [{user: u, backend: a, pool_size: 3}, {user: v, backend: b, pool_size: 3}]}",
            "'min_pool_size' 4 is more than the 'pool_size' 3",
        ),
        (
            TWO_BACKENDS + "routing: {defaults: {pool_size: 3}, rules: [{user: [a, b], backend: b}, "
            "{user: c, backend: b, min_pool_size: 3}, {user: d, backend: a}, {user: e, backend: b}]}",
            "'min_pool_size' 4 is more than the 'pool_size' 3",
        ),
    ],
)
def test_a_pool_that_would_keep_more_connections_than_it_may_have_is_refused_once(
    folder, text: str, message: str
) -> None:
    (found,) = folder.marked(f"auth: {{method: trust}}\n{text}\n")
    assert message in found


@pytest.mark.parametrize(
    "text",
    [
        "backends: [{name: a, host: x, pool_size: 3, min_pool_size: 4}]",
        BACKEND + "routing: {defaults: {min_pool_size: 30, pool_size: 0}}",
        BACKEND + "routing: {defaults: {min_pool_size: 3}, rules: [{user: u, backend: primary, pool_size: 3}]}",
        BACKEND + "routing: {defaults: {min_pool_size: 30}, rules: [{user: u, backend: primary, min_pool_size: 0}]}",
        BACKEND + "routing: {defaults: {min_pool_size: 30}, rules: [{user: u, backend: primary, pool_size: 40}]}",
    ],
)
def test_a_pool_may_keep_all_its_connections_and_any_number_where_it_has_no_limit(folder, text: str) -> None:
    assert folder.load(f"auth: {{method: trust}}\n{text}\n").warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        BACKEND + "routing: {defaults: {min_pool_size: 30, pool_size: ▸many}}",
        BACKEND + "routing: {defaults: ▸[], rules: [{user: u, backend: primary, min_pool_size: 30}]}",
        BACKEND + "routing: {defaults: {min_pool_size: 30}, rules: ▸[]}",
        BACKEND + "routing: {defaults: {min_pool_size: 3}, rules: [{user: u, backend: ▸secondary, pool_size: 2}]}",
        "backends: [{name: primary, host: pg1, min_pool_size: 30}]\nrouting: ▸[]",
        "backends: ▸[]\nrouting: {defaults: {min_pool_size: 30}}",
    ],
)
def test_the_sizes_of_a_pool_are_not_compared_where_one_is_not_known(folder, text: str) -> None:
    assert len(folder.marked(f"auth: {{method: trust}}\n{text}\n")) == 1


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
        ("[{name: a, host: pg1, ▸fairness_delay: 1s}]", "not in this version"),
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


# -- channel binding ---------------------------------------------------------------------------------------------------


def backend(keys: str) -> str:
    return f"auth: {{method: trust}}\nbackends: [{{name: primary, {keys}}}]\n"


@pytest.mark.parametrize(
    "keys",
    [
        "host: pg1, channel_binding: ▸require",
        "host: pg1, tls: {mode: disable}, channel_binding: ▸require",
        "host: /run/postgresql, tls: {mode: require}, channel_binding: ▸require",
    ],
)
def test_channel_binding_cannot_be_required_where_nothing_is_encrypted(folder, keys: str) -> None:
    assert folder.marked(backend(keys)) == ["'channel_binding: require' needs TLS: see 'tls'"]


@pytest.mark.parametrize(
    "keys",
    [
        "host: pg1, tls: {mode: require}, channel_binding: require",
        "host: pg1, tls: {mode: prefer}, channel_binding: require",
        "host: pg1, channel_binding: prefer",
        "host: pg1, channel_binding: disable, max_protocol_version: 3.2",
        "host: pg1, max_protocol_version: 3.0",
        "host: pg1, max_protocol_version: latest",
    ],
)
def test_everything_else_about_a_login_to_a_server_can_be_meant(folder, keys: str) -> None:
    assert folder.warnings(backend(keys)) == []


LISTED = "users: {pooler: {password: x}}"


@pytest.mark.parametrize(
    ("auth", "backend", "message"),
    [
        ("auth_user: pooler, auth_query: ▸SELECT 1", "", "needs $1"),
        ("auth_user: pooler", "auth_query: ▸SELECT 1", "needs $1"),
        ("▸auth_query: ▸SELECT a FROM b($1)", "", "nobody could log in"),
        ("auth_query: ▸SELECT a FROM b($1), users: {a: {password: x}}", "", "no effect without 'auth_user'"),
        ("auth_query_cache_ttl: ▸5s, users: {a: {password: x}}", "", "no effect without 'auth_user'"),
        ("users: {a: {password: x}}", "auth_user: ▸a", "no effect without 'auth_user'"),
        ("users: {a: {password: x}}", "auth_dbname: ▸a", "no effect without 'auth_user'"),
        (f"auth_user: ▸pooler, users: {{pooler: {{password: '{VERIFIER}'}}}}", "", "needs 'auth_password'"),
        (f"auth_user: pooler, auth_password: ▸'{VERIFIER}'", "", "the password itself is needed"),
        ("auth_user: pooler, auth_password: x", f"auth_password: ▸'{VERIFIER}'", "the password itself is needed"),
        ("auth_user: pooler, auth_password: ▸SCRAM-SHA-256$x", "", "bad secret"),
        ("auth_user: ▸''", "", "must not be empty"),
        ("auth_user: pooler, auth_password: x, auth_query_cache_ttl: ▸soon", "", "expected a time"),
    ],
)
def test_a_lookup_that_could_never_work_is_refused_at_its_place(folder, auth: str, backend: str, message: str) -> None:
    mark = "▸" if auth.startswith("▸") else ""
    text = f"backends: [{{name: primary, host: pg1{', ' + backend if backend else ''}}}]\n"
    assert message in folder.marked(f"{text}auth: {mark}{{{auth.removeprefix('▸')}}}\n")[0]


def test_users_to_be_looked_up_need_no_list(folder) -> None:
    auth = folder.load(BACKEND + "auth: {auth_user: pooler, auth_password: x}\n").configuration.auth
    assert (auth.auth_user, auth.users) == ("pooler", {})
    folder.load(BACKEND + f"auth: {{auth_user: pooler, {LISTED}}}\n")


def test_an_auth_user_without_a_password_is_a_warning(folder) -> None:
    (warning,) = folder.warnings(BACKEND + "auth: {auth_user: ▸pooler, users: {a: {password: x}}}\n")
    assert "has no password" in warning
    text = "backends: [{name: primary, host: pg1, auth_user: ▸other}]\nauth: {auth_user: pooler, auth_password: x}\n"
    (warning,) = folder.warnings(text)
    assert "'other' has no password" in warning


def test_the_password_of_the_auth_user_may_stand_in_a_file_and_never_shows(folder) -> None:
    path = folder.write("secret", "correct horse\n")
    loaded = folder.load(BACKEND + f"auth: {{auth_user: pooler, auth_password_file: {path}}}\n")
    assert loaded.configuration.auth.auth_password == "correct horse"
    assert "correct horse" not in repr(loaded.configuration)
