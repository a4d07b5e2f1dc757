from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pgpooler
from pgpooler.cli import COMMANDS, main
from pgpooler.implementation import description

CONFIGURATION = """\
listen: {host: [127.0.0.1, "::1"], port: 6433, unix_socket_dir: /run/pgpooler}
backends:
  - {name: primary, host: 10.0.0.1, pool_size: 50}
  - {name: replica, host: "fd00::2", port: 5433, server_idle_timeout: 300, user: shared, password: hush}
routing:
  defaults: {pool_size: 10}
  rules:
    - {name: reports, database: reporting, user: [bi, "etl_*"], backend: replica, query_wait_timeout: 5s}
    - {database: ~ "^app_", backend: primary}
auth: {users: {alice: {password: hush}}}
limits: {max_client_conn: 500}
"""
WRONG = """\
listen: {host: 127.0.0.1, prot: 6433}
backends: [{name: primary, host: 10.0.0.1, port: 99999}]
auth: {method: trust}
"""

Capture = pytest.CaptureFixture[str]
CELLS = re.compile("  +")


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good and a wrong configuration; CONFIG_PATH names the good one."""
    (tmp_path / "good.yaml").write_text(CONFIGURATION)
    (tmp_path / "wrong.yaml").write_text(WRONG)
    monkeypatch.setenv("CONFIG_PATH", str(tmp_path / "good.yaml"))
    return tmp_path


def pgpooler_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgpooler", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=Path(pgpooler.__file__).parents[1],
    )


def test_python_m_pgpooler_is_the_command() -> None:
    result = pgpooler_command("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"pgpooler {pgpooler.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_teaches_with_examples_and_exit_statuses(
    command: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"  pgpooler {command}" in text.partition("examples:")[2]
    assert "exit status:\n  0  done\n  1  failed\n  2  wrong usage" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    if command in ("run", "check", "route"):
        assert "CONFIG_PATH" in text.partition("environment:")[2]


def test_the_overview_names_every_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} +\w", text, re.MULTILINE) for name in COMMANDS)


def test_without_a_command_the_overview_goes_to_standard_error_with_status_2(capsys: Capture) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pgpooler demo" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], "did you mean `pgpooler run`?"),
        (["rotue", "--user", "x"], "did you mean `pgpooler route`?"),
        (["serve"], "the commands are run, check, route, demo, version"),
        (["route"], "-U/--user"),
        (["check", "--jsno"], "--jsno"),
        (["demo", "--port", "http"], "'http' is no port"),
        (["demo", "--port", "65536"], "from 1 to 65535"),
        (["demo", "--provider", "oracle"], "oracle"),
        (["--frobnicate"], "required"),
    ],
)
def test_wrong_usage_is_explained_with_status_2(arguments: list[str], words: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    errors = capsys.readouterr().err
    assert caught.value.code == 2
    assert words in errors
    assert "--help`" in errors


def test_check_prints_a_summary(configured: Path, capsys: Capture) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ok: 1 file: {configured / 'good.yaml'}",
        "listen    127.0.0.1:6433, [::1]:6433, /run/pgpooler/.s.PGSQL.6433",
        "backends  2: primary (10.0.0.1:5432), replica ([fd00::2]:5433)",
        "rules     2",
        "users     1 (scram-sha-256)",
        "tls       disable",
        "warnings  0",
    ]


def test_check_says_who_looks_up_the_users_that_are_not_listed(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "pgpooler.yaml"
    path.write_text("backends: [{name: a, host: b}]\nauth: {auth_user: pooler, auth_password: hush}\n")
    assert main(["check", "-c", str(path)]) == 0
    out = capsys.readouterr().out
    assert "users     0 (scram-sha-256), others are looked up by pooler\n" in out
    assert "hush" not in out


def test_check_says_when_a_file_decides_how_clients_log_in(configured: Path, capsys: Capture) -> None:
    (configured / "pg_hba.conf").write_text("local all all peer\nhost all all all scram-sha-256\n", encoding="utf-8")
    text = (configured / "good.yaml").read_text(encoding="utf-8").replace("auth: {", "auth: {hba_file: pg_hba.conf, ")
    path = configured / "hba.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["check", "--config", str(path)]) == 0
    assert "users     1 (hba_file: 2 lines)" in capsys.readouterr().out
    assert main(["check", "--config", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auth_method"] == "hba"


def test_check_as_json_has_the_same_facts_and_no_secret(configured: Path, capsys: Capture) -> None:
    assert main(["check", "--json"]) == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    assert json.loads(text) == {
        "ok": True,
        "files": [str(configured / "good.yaml")],
        "listen": ["127.0.0.1:6433", "[::1]:6433", "/run/pgpooler/.s.PGSQL.6433"],
        "backends": [
            {"name": "primary", "host": "10.0.0.1", "port": 5432},
            {"name": "replica", "host": "fd00::2", "port": 5433},
        ],
        "rules": 2,
        "users": 1,
        "auth_method": "scram-sha-256",
        "tls_mode": "disable",
        "warnings": [],
    }


def test_check_prints_every_problem_with_its_place_and_fails_with_2(configured: Path, capsys: Capture) -> None:
    path = str(configured / "wrong.yaml")
    assert main(["check", "--config", path]) == 2
    captured = capsys.readouterr()
    assert [line.partition(": ")[0] for line in captured.out.splitlines()] == [f"{path}:1:27", f"{path}:2:50"]
    assert captured.err == f"{path}: 2 problems\n"


def test_check_as_json_has_file_line_and_column_of_every_problem(configured: Path, capsys: Capture) -> None:
    path = str(configured / "wrong.yaml")
    assert main(["check", "-c", path, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [(each["file"], each["line"], each["column"]) for each in found["problems"]] == [
        (path, 1, 27),
        (path, 2, 50),
    ]


def test_check_shows_warnings(configured: Path, capsys: Capture) -> None:
    text = CONFIGURATION.replace("  rules:\n", "  rules:\n    - {database: '*', backend: primary}\n")
    (configured / "good.yaml").write_text(text)
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert f"warning: {configured / 'good.yaml'}:9:" in text
    assert "warnings  2" in text


@pytest.mark.parametrize("command", [["check"], ["route", "-U", "x"], ["run"]])
def test_a_missing_configuration_file_is_named_with_status_2(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CONFIG_PATH", "/nonexistent/pgpooler.yaml")
    assert main(command) == 2
    captured = capsys.readouterr()
    assert "/nonexistent/pgpooler.yaml" in captured.out + captured.err


def test_route_says_rule_server_and_where_every_value_comes_from(configured: Path, capsys: Capture) -> None:
    assert main(["route", "--user", "bi", "--database", "reporting"]) == 0
    place = f"{configured / 'good.yaml'}:8:7"
    assert [re.split("  +", line) for line in capsys.readouterr().out.splitlines()] == [
        ["client", "user bi, database reporting"],
        ["matched by", f"rule 'reports' ({place})"],
        ["backend", "replica ([fd00::2]:5433)"],
        ["server user", "shared"],
        [""],
        ["SETTING", "VALUE", "FROM"],
        ["pool_mode", "session", "built-in"],
        ["server_reset_query", "always", "built-in"],
        ["on_session_state", "pin", "built-in"],
        ["pool_size", "10", "defaults"],
        ["min_pool_size", "0", "built-in"],
        ["reserve_pool_size", "0", "built-in"],
        ["reserve_pool_timeout", "5 s", "built-in"],
        ["max_pinned", "5", "built-in"],
        ["max_prepared_statements", "200", "built-in"],
        ["max_queue", "no limit", "built-in"],
        ["max_user_client_connections", "no limit", "built-in"],
        ["max_db_client_connections", "no limit", "built-in"],
        ["query_wait_timeout", "5 s", f"rule 'reports' ({place})"],
        ["query_timeout", "off", "built-in"],
        ["transaction_timeout", "off", "built-in"],
        ["idle_transaction_timeout", "off", "built-in"],
        ["pinned_idle_timeout", "off", "built-in"],
        ["session_idle_timeout", "off", "built-in"],
        ["cancel_wait_timeout", "10 s", "built-in"],
        ["server_connect_timeout", "15 s", "built-in"],
        ["server_idle_timeout", "300 s", "backend 'replica'"],
        ["server_lifetime", "3600 s", "built-in"],
        ["backend.pool_size", "no limit", "built-in"],
        ["max_client_conn", "500", "limits"],
        ["client_login_timeout", "60 s", "built-in"],
    ]


@pytest.mark.parametrize(
    ("keys", "reset", "pinned"),
    [
        ("pool_mode: session, pool_size: 0", ["always", "built-in"], ["no limit", "built-in"]),
        ("pool_mode: transaction, pool_size: 3", ["smart", "built-in"], ["2", "built-in"]),
        ("pool_mode: statement, max_pinned: 0", ["smart", "built-in"], ["0", "defaults"]),
        ("server_reset_query: never, max_pinned: 90", ["never", "defaults"], ["20", "defaults"]),
        ("server_reset_query: SELECT my_reset()", ["SELECT my_reset()", "defaults"], ["10", "built-in"]),
    ],
)
def test_route_shows_what_a_setting_comes_to_that_depends_on_another(
    configured: Path, capsys: Capture, keys: str, reset: list[str], pinned: list[str]
) -> None:
    (configured / "good.yaml").write_text(CONFIGURATION.replace("{pool_size: 10}", f"{{{keys}}}"))
    assert main(["route", "-U", "bi", "-d", "reporting"]) == 0
    rows = {cells[0]: cells[1:] for cells in map(CELLS.split, capsys.readouterr().out.splitlines())}
    assert (rows["server_reset_query"], rows["max_pinned"]) == (reset, pinned)
    assert main(["route", "-U", "bi", "-d", "reporting", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["route"]["settings"]
    assert settings["server_reset_query"] == {"value": reset[0], "from": reset[1]}
    number = None if pinned[0] == "no limit" else int(pinned[0])
    assert settings["max_pinned"] == {"value": number, "from": pinned[1]}


def test_the_columns_of_a_table_line_up(configured: Path, capsys: Capture) -> None:
    assert main(["route", "-U", "bi", "-d", "reporting"]) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    start = table[0].index("VALUE")
    assert all(line[start - 1] == " " != line[start] for line in table)


def test_route_as_json_says_the_same(configured: Path, capsys: Capture) -> None:
    assert main(["route", "--user", "anybody", "--database", "app_shop", "--json"]) == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    found = json.loads(text)
    assert found["user"] == "anybody"
    assert found["database"] == "app_shop"
    assert found["route"]["rule"] == {"name": "", "number": 2, "place": f"{configured / 'good.yaml'}:9:7"}
    assert found["route"]["backend"] == {"name": "primary", "host": "10.0.0.1", "port": 5432}
    assert found["route"]["server_user"] is None
    assert found["route"]["settings"]["pool_size"] == {"value": 10, "from": "defaults"}
    assert found["route"]["settings"]["backend.pool_size"] == {"value": 50, "from": "backend 'primary'"}


def test_route_takes_the_user_for_the_database_as_postgresql_does(configured: Path, capsys: Capture) -> None:
    assert main(["route", "--user", "app_shop"]) == 0
    assert "user app_shop, database app_shop" in capsys.readouterr().out


def test_route_without_a_match_names_the_error_and_fails_with_1(configured: Path, capsys: Capture) -> None:
    assert main(["route", "--user", "eve", "--database", "secrets"]) == 1
    captured = capsys.readouterr()
    assert "No rule matches user 'eve' and database 'secrets'" in captured.out
    assert "3D000" in captured.out
    assert main(["route", "--user", "eve", "--database", "secrets", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "user": "eve",
        "database": "secrets",
        "route": None,
        "sqlstate": "3D000",
    }


def test_route_with_a_wrong_configuration_prints_the_problems_and_fails_with_2(
    configured: Path, capsys: Capture
) -> None:
    assert main(["route", "-U", "x", "-c", str(configured / "wrong.yaml")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wrong.yaml:1:27" in captured.err


def test_version_names_what_a_bug_report_needs(capsys: Capture) -> None:
    assert main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pgpooler"] == pgpooler.__version__
    assert found["python"].startswith(platform.python_version())
    assert found["implementation"] == description()
    assert re.fullmatch(r"uvloop \S+|asyncio", found["event_loop"])
    assert found["platform"] == platform.platform()
    assert main(["version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split("  +", line)[1] for line in lines] == list(found.values())


def test_a_reader_that_goes_away_is_no_traceback(configured: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "pgpooler", "check"],
            stdout=closed,
            stderr=subprocess.PIPE,
            cwd=Path(pgpooler.__file__).parents[1],
        )
    assert result.stderr == b""
    assert result.returncode == 1


def test_forcing_an_implementation_that_is_unknown_is_refused() -> None:
    result = pgpooler_command("version", PGPOOLER_IMPL="fast")
    assert result.returncode != 0
    assert "PGPOOLER_IMPL" in result.stderr
