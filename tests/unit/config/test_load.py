"""What a main file means: defaults, keys, secrets from elsewhere, and the default path."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import AuthMethod, LogDestination, LogFormat, LogLevel, PoolMode
from pgpooler.config.load import default_path
from pgpooler.config.model import Configuration, Listen, LogFile, Logging

BACKEND = "backends: [{name: primary, host: pg1}]\n"


def test_the_smallest_configuration_has_the_defaults_of_the_model(folder) -> None:
    configuration = folder.load(BACKEND + "auth: {method: trust}\n").configuration
    assert configuration.listen == Listen(hosts=("0.0.0.0",), port=6432)
    assert configuration.logging == Logging(destination=LogDestination.STDERR, level=LogLevel.INFO)
    assert configuration.limits.max_client_conn == 1000
    assert configuration.routing.rules == ()
    assert configuration.auth.method is AuthMethod.TRUST


def test_every_key_of_listen_is_read(folder) -> None:
    configuration = folder.configuration(
        "listen: {host: [127.0.0.1, '::1'], port: 7000, unix_socket_dir: sockets, unix_socket_mode: 0770, backlog: 9}"
    )
    assert configuration.listen == Listen(
        hosts=("127.0.0.1", "::1"),
        port=7000,
        unix_socket_dir=str(folder.path / "sockets"),
        unix_socket_mode=0o770,
        backlog=9,
    )


def test_w29_a_star_is_written_out_and_the_address_of_ipv6_is_understood(folder) -> None:
    assert folder.configuration('listen: {host: "*"}').listen.hosts == ("*",)
    assert folder.configuration("listen: {host: '::'}").listen.hosts == ("::",)


def test_w16_every_key_of_logging_is_read(folder) -> None:
    configuration = folder.configuration(
        """
logging:
  level: warn
  destination: file
  format: json
  file: {directory: logs, filename: "p-%H.log", append: no, rotation_age: 1d, rotation_size_mb: 100, keep: 7}
"""
    )
    assert configuration.logging == Logging(
        level=LogLevel.WARN,
        destination=LogDestination.FILE,
        format=LogFormat.JSON,
        file=LogFile(
            directory=str(folder.path / "logs"),
            filename="p-%H.log",
            append=False,
            rotation_age=86400.0,
            rotation_size_mb=100,
            keep=7,
        ),
    )


def test_a_log_file_makes_the_destination_a_file_unless_stderr_is_written(folder) -> None:
    text = "logging: {file: {path: /var/log/pgpooler.log}}"
    assert folder.configuration(text).logging.destination is LogDestination.FILE
    assert folder.configuration(text.replace("{file", "{destination: stderr, file")).logging.destination == "stderr"


def test_a_backend_may_set_every_inheritable_key_and_its_own_login(folder) -> None:
    configuration = folder.configuration(
        """
backends:
  - name: primary
    host: /run/postgresql
    port: 5433
    pool_size: 9
    user: pooler
    password: secret
    pool_mode: transaction
    max_queue: 1
    query_wait_timeout: 2s
    server_idle_timeout: 3s
    server_lifetime: 4s
    session_idle_timeout: 5s
    server_connect_timeout: 6s
"""
    )
    (backend,) = configuration.backends
    assert (backend.host, backend.port, backend.pool_size) == ("/run/postgresql", 5433, 9)
    assert (backend.user, backend.password, backend.pool_mode) == ("pooler", "secret", PoolMode.TRANSACTION)
    times = [backend.query_wait_timeout, backend.server_idle_timeout, backend.server_lifetime]
    assert [backend.max_queue, *times] == [1, 2, 3, 4]
    assert [backend.session_idle_timeout, backend.server_connect_timeout] == [5, 6]


def test_w32_secrets_come_from_the_environment_or_from_files_of_their_own(folder) -> None:
    folder.environment = {"ALICE": "from environment"}
    folder.write("bob.txt", "from file\r\n")
    configuration = folder.configuration(
        """
auth:
  users:
    alice: {password: "${ALICE}"}
    bob: {password_file: bob.txt}
    carol: {password: "a$${b}c"}
  users_file: users.txt
""",
        files={"users.txt": '"dave" "${ALICE}"\n'},
    )
    assert {name: user.password for name, user in configuration.auth.users.items()} == {
        "alice": "from environment",
        "bob": "from file",
        "carol": "a${b}c",
        "dave": "${ALICE}",
    }
    names = ("pgpooler.yaml", "bob.txt", "users.txt")
    assert configuration.files == tuple(str(folder.path / name) for name in names)


def test_w32_no_secret_is_in_the_repr_of_a_configuration(folder) -> None:
    configuration = folder.configuration(
        "backends: [{name: primary, host: pg1, user: u, password: hunter2}]\nauth: {users: {a: {password: hunter2}}}\n"
    )
    assert "hunter2" not in repr(configuration)
    assert "hunter2" not in str(configuration.backends[0])
    assert "hunter2" not in f"{configuration.auth.users['a']}"


def test_w32_a_missing_variable_or_secret_file_is_an_error_at_its_place(folder) -> None:
    messages = folder.marked(
        BACKEND + 'auth:\n  users:\n    a: {password: ▸"${NOT_SET}"}\n    b: {password_file: ▸nowhere.txt}\n'
        '    c: {password: ▸"x${"}\n    d: {password_file: ▸two.txt}\n    e: {password: x, ▸password_file: one.txt}\n',
        files={"one.txt": "one\n", "two.txt": "one\ntwo\n"},
    )
    words = ("NOT_SET is not set", "No such file", "'${' is not followed", "one line with the secret", "keep one")
    assert all(word in message for word, message in zip(words, messages, strict=False))


def test_other_values_may_come_from_the_environment_too(folder) -> None:
    folder.environment = {"HOST": "pg7", "PORT": "5440"}
    configuration = folder.configuration("backends: [{name: primary, host: '${HOST}', port: '${PORT}'}]")
    assert (configuration.backends[0].host, configuration.backends[0].port) == ("pg7", 5440)


def test_a_matcher_is_taken_as_it_is_because_dollars_belong_to_expressions(folder) -> None:
    configuration = folder.configuration(r"routing: {rules: [{user: '~ ^a\${1}', backend: primary}]}")
    assert configuration.routing.rules[0].user[0].text == r"^a\${1}"


def test_workers_may_be_one_or_the_list_of_the_original_with_a_warning(folder) -> None:
    assert folder.configuration("workers: 1").workers == 1
    text = f"{BACKEND}auth: {{method: trust}}\nworkers: ▸[{{backends: [primary]}}]\n"
    (message,) = folder.warnings(text)
    assert "no effect" in message


@pytest.mark.parametrize("value", ["2", "auto", "0", "many"])
def test_more_workers_than_this_version_runs_are_refused(folder, value: str) -> None:
    (message,) = folder.marked(f"{BACKEND}auth: {{method: trust}}\nworkers: ▸{value}\n")
    assert "this version runs one worker" in message


def test_the_list_of_workers_is_checked_too(folder) -> None:
    folder.marked(
        f"{BACKEND}auth: {{method: trust}}\n"
        "workers: [{backends: [▸other]}, ▸x, ▸{}, {backends: ▸[]}, {backends: [primary], ▸id: 1}]\n"
    )


def test_the_default_path_is_config_path_or_pgpooler_yaml(monkeypatch) -> None:
    monkeypatch.delenv("CONFIG_PATH", raising=False)
    assert default_path() == "pgpooler.yaml"
    monkeypatch.setenv("CONFIG_PATH", "")
    assert default_path() == "pgpooler.yaml"
    monkeypatch.setenv("CONFIG_PATH", "/etc/pgpooler/pgpooler.yaml")
    assert default_path() == "/etc/pgpooler/pgpooler.yaml"


def test_a_loaded_configuration_is_a_configuration(folder) -> None:
    assert isinstance(folder.load(BACKEND + "auth: {method: trust}\n").configuration, Configuration)
