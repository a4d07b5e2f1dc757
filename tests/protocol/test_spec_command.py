"""`python -m spec` as it is called: what it prints, where to, and the exit status."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spec import tables
from spec.__main__ import COMMANDS, address, main
from spec.codec import Instance, backend, encode, frontend
from spec.messages import Sender
from spec.trace import Event, Writer

ROOT = Path(__file__).parents[2]
F, B = Sender.FRONTEND, Sender.BACKEND

LOGIN = (
    frontend("StartupMessage", minor=0, parameters=((b"user", b"somebody"),)),
    backend("AuthenticationOk"),
    backend("BackendKeyData", process_id=1, key=b"keys"),
    backend("ReadyForQuery", status=b"I"),
)
READY = backend("ReadyForQuery", status=b"I")
SYNC = frontend("Sync")


def events(*instances: Instance, connection: int = 1) -> list[Event]:
    """Each message as an event of its own, a tenth of a second after the one before."""
    return [
        Event(connection, number / 10, instance.sender, encode(instance, (3, 0)))
        for number, instance in enumerate(instances)
    ]


def written(path: Path, *events_: Event) -> str:
    with path.open("w", encoding="utf-8") as file:
        writer = Writer(file, "127.0.0.1:5432")
        for event in events_:
            writer.write(event)
    return str(path)


Run = subprocess.CompletedProcess[str]


def spec(*arguments: str, **settings: str) -> Run:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "spec", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **settings},
    )


# -- judge -------------------------------------------------------------------------------------------------------------


def test_judge_prints_a_verdict_on_every_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = (*LOGIN, SYNC, READY)
    both = [*events(*conversation), *events(*LOGIN, connection=12)]
    assert main(["judge", written(tmp_path / "good", *both)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "connection  seconds  bytes of client  bytes of server  violations  verdict",
        "         1    0.500               28               34           0  conforms",
        "        12    0.300               23               28           0  conforms",
        "Connections: 2 conforms.",
    ]
    assert output.err == ""


def test_judge_says_in_which_line_which_rule_was_broken_and_what_was_legal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = (*LOGIN, SYNC, READY, READY)
    assert main(["judge", written(tmp_path / "bad", *events(*conversation))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("line 8, connection 1, 0.600000 s: ")
    assert re.fullmatch(r" {4}rule   [a-z-]+ \(protocol-[a-z-]+(#[A-Z-]+)?\)", lines[1])
    said = lines.index("    said   ReadyForQuery, by the backend")
    assert said > 2, "the rule is not said"
    legal = lines[said + 1].removeprefix("    legal  ").split(", ")
    assert "NoticeResponse" in legal
    assert "ReadyForQuery" not in legal
    assert lines[-1] == "Connections: 1 violates."
    assert lines[-2].split()[-2:] == ["1", "violates"]


def test_bytes_that_are_no_message_are_a_violation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [*events(*LOGIN), Event(1, 1.0, F, b"Q\0\0\0\2")]
    assert main(["judge", written(tmp_path / "bad", *bad)]) == 1
    assert "invalid length 2" in capsys.readouterr().out


def test_judge_reads_standard_input(tmp_path: Path) -> None:
    path = written(tmp_path / "good", *events(*LOGIN))
    with open(path, encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "spec", "judge", "-"],
            cwd=ROOT,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "conforms" in done.stdout


def test_an_encrypted_connection_is_not_judged_and_alone_it_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encrypted = [
        Event(1, 0.0, F, encode(frontend("SSLRequest"))),
        Event(1, 0.1, B, b"S"),
        Event(1, 0.2, F, b"\x16\x03\x01 whatever"),
        Event(1, 0.3, B, b"\x16\x03\x03 whatever"),
    ]
    assert main(["judge", written(tmp_path / "encrypted", *encrypted)]) == 2
    assert "encrypted" in capsys.readouterr().out
    beside = events(*LOGIN, connection=2)
    assert main(["judge", written(tmp_path / "both", *encrypted, *beside)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Connections: 1 conforms, 1 encrypted."


def test_a_trace_without_a_connection_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", written(tmp_path / "empty")]) == 2
    assert "No connection, so nothing was judged." in capsys.readouterr().out


def test_a_file_that_is_no_trace_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text('{"trace": 1, "target": "x"}\n{"connection": 1}\n', encoding="utf-8")
    assert main(["judge", str(path)]) == 2
    assert capsys.readouterr() == ("", f"python -m spec: {path}:2: the key 'at' is missing\n")


def test_a_file_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", str(tmp_path / "missing")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "No such file or directory" in output.err


# -- tables, export ----------------------------------------------------------------------------------------------------


def test_tables_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables"]) == 0
    assert capsys.readouterr() == (tables.page(), "")


def test_export_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export"]) == 0
    assert "replies" in json.load(io.StringIO(capsys.readouterr().out))


@pytest.mark.parametrize("command", ["tables", "export"])
def test_the_standard_library_is_enough(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "spec", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m spec export | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


# -- usage -------------------------------------------------------------------------------------------------------------


def test_without_a_command_it_says_what_there_is() -> None:
    done = spec()
    assert (done.returncode, done.stdout) == (2, "")
    for command in COMMANDS:
        assert command in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_teaches_with_examples(command: str) -> None:
    done = spec(command, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m spec {command}" in done.stdout.partition("examples:\n")[2]
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    "arguments",
    [
        ["judge"],
        ["guess"],
        ["record"],
        ["record", "--listen", "7000", "--target", "127.0.0.1:5432"],
        ["record", "--listen", "127.0.0.1:7000", "--target", "127.0.0.1:65536"],
        ["record", "--listen", "127.0.0.1:7000", "--target", "127.0.0.1:5432", "--connections", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m spec" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:5432", ("127.0.0.1", 5432)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:5432", ("::1", 5432)),
        (":7000", ("127.0.0.1", 7000)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, place: tuple[str, int]) -> None:
    assert address(text) == place
