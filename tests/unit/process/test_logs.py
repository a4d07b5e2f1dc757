"""W16: level, destination and format have an effect; W-injection: nobody can forge a line of the log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import LogDestination, LogFormat, LogLevel
from pgpooler.config.model import LogFile, Logging
from pgpooler.process import control, logs

LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[(FATAL|ERROR|WARN|INFO|DEBUG)\] (\[session (\d+)\] )?(.*)"
)

logger = logging.getLogger("pgpooler.test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


def make(message: str, *arguments: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "pgpooler.test", "msg": message, "args": arguments, "levelno": level, "created": 1.9876, **extra}
    )


def install(tmp_path: Path, **settings: Any) -> Path:
    path = tmp_path / "pgpooler.log"
    values = Logging(destination=LogDestination.FILE, file=LogFile(path=str(path)), **settings)
    logs.install(logs.open_handler(values), values.level)
    return path


def test_a_text_line_has_time_level_session_and_message() -> None:
    line = logs.TextFormatter().format(make("client %s left", "alice", session=42))
    match = LINE.fullmatch(line)
    assert match
    assert match.groups() == ("INFO", "[session 42] ", "42", "client alice left")
    assert ".987] " in line


def test_a_line_that_belongs_to_no_session_has_no_session_brackets() -> None:
    assert logs.TextFormatter().format(make("listening")).endswith("[INFO] listening")


@pytest.mark.parametrize(
    ("level", "name"),
    [(logging.DEBUG, "DEBUG"), (logging.WARNING, "WARN"), (logging.ERROR, "ERROR"), (logging.CRITICAL, "FATAL")],
)
def test_levels_are_named_as_in_the_configuration(level: int, name: str) -> None:
    assert f"[{name}] x" in logs.TextFormatter().format(make("x", level=level))
    assert json.loads(logs.JSONFormatter().format(make("x", level=level)))["level"] == name.lower()


def test_a_line_end_in_a_name_does_not_forge_a_line() -> None:
    name = "eve\r\n[2026-11-23 02:26:40.902] [INFO] [session 1] client root logged in\x1b[2J\x85\u2028"
    line = logs.TextFormatter().format(make("no such user: %s", name))
    assert len(line.splitlines()) == 1
    assert r"eve\r\n[2026" in line
    assert r"\x1b[2J\x85\u2028" in line


@given(text=st.text())
def test_whatever_is_logged_is_one_line_of_printable_text(text: str) -> None:
    line = logs.TextFormatter().format(make("%s", text))
    assert len(line.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)


@given(text=st.text(st.characters(codec=None)), extra=st.text(st.characters(codec=None)))
def test_whatever_is_logged_is_one_json_object_on_one_line(text: str, extra: str) -> None:
    line = logs.JSONFormatter().format(make("%s", text, user=extra))
    assert len(line.split("\n")) == 1
    values = json.loads(line)
    assert values["message"] == text.encode("utf-8", "backslashreplace").decode()
    assert values["user"] == extra.encode("utf-8", "backslashreplace").decode()


def test_a_traceback_cannot_forge_a_line_either() -> None:
    try:
        raise ValueError("bad\n[2026-11-23 02:26:40.902] [INFO] forged")
    except ValueError:
        record = make("it failed", level=logging.ERROR, exc_info=sys.exc_info())
    lines = logs.TextFormatter().format(record).split("\n")
    assert LINE.fullmatch(lines[0])
    assert all(line.startswith("    ") for line in lines[1:])
    assert any("forged" in line for line in lines)


def test_a_very_long_message_is_cut_and_says_so() -> None:
    line = logs.TextFormatter().format(make("x" * (logs.MAX_TEXT + 7)))
    assert line.endswith("x... (7 more characters)")


def test_json_has_the_extra_values_and_they_cannot_replace_the_standard_ones() -> None:
    record = make("login", session=7, process=99, user="alice", seconds=0.5, ok=True, level_name=None, time="forged")
    values = json.loads(logs.JSONFormatter().format(record))
    assert values.pop("time") != "forged"
    assert values == {
        "level": "info",
        "logger": "pgpooler.test",
        "process": 99,
        "session": 7,
        "message": "login",
        "user": "alice",
        "seconds": 0.5,
        "ok": True,
        "level_name": None,
    }


def test_json_times_have_milliseconds_and_the_offset_from_utc() -> None:
    values = json.loads(logs.JSONFormatter().format(make("x")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.987[+-]\d\d:\d\d", values["time"])


def test_the_format_of_the_settings_is_used(tmp_path: Path) -> None:
    path = install(tmp_path, format=LogFormat.JSON)
    logger.info("hello", extra={"session": 3})
    assert json.loads(path.read_text())["session"] == 3
    path = install(tmp_path / "text", format=LogFormat.TEXT)
    logger.info("hello", extra={"session": 3})
    assert LINE.fullmatch(path.read_text().rstrip("\n"))


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        (LogLevel.ERROR, ["error"]),
        (LogLevel.WARN, ["warning", "error"]),
        (LogLevel.INFO, ["info", "warning", "error"]),
        (LogLevel.DEBUG, ["debug", "info", "warning", "error"]),
    ],
)
def test_the_level_of_the_settings_decides_what_is_written(tmp_path: Path, level: LogLevel, seen: list[str]) -> None:
    path = install(tmp_path, level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == seen


def test_the_destination_stderr_writes_there_and_to_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Logging(destination=LogDestination.STDERR, file=LogFile(path=str(tmp_path / "unused.log")))
    logs.install(logs.open_handler(settings), settings.level)
    logger.info("to the terminal")
    captured = capsys.readouterr()
    assert "to the terminal" in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
    assert logs.file_path() == ""


def test_installing_another_handler_closes_the_one_before(tmp_path: Path) -> None:
    first = install(tmp_path / "1")
    logger.info("one")
    second = install(tmp_path / "2")
    logger.info("two")
    assert first.read_text().endswith("one\n")
    assert second.read_text().endswith("two\n")
    assert "two" not in first.read_text()
    assert logs.file_path() == str(second)


def test_reopen_reaches_the_installed_file(tmp_path: Path) -> None:
    path = install(tmp_path)
    logger.info("one")
    path.rename(tmp_path / "moved")
    logs.reopen()
    logger.info("two")
    assert "two" in path.read_text()
    assert "one" in (tmp_path / "moved").read_text()


def test_a_record_is_the_same_after_its_way_over_the_channel(tmp_path: Path) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = make(
            "%s is %d", "answer", 42, level=logging.ERROR, session=5, process=77, user="bob", exc_info=sys.exc_info()
        )
    message = control.decode(control.encode(logs.to_message(record))[4:]).message
    assert isinstance(message, control.LogRecord)
    arrived = logs.from_message(message)
    for formatter in (logs.TextFormatter(), logs.JSONFormatter()):
        assert formatter.format(arrived) == formatter.format(record)


def test_a_name_with_undecodable_bytes_passes_the_channel() -> None:
    record = make("user %s", b"al\xffice".decode("utf-8", "surrogateescape"), user="\udcff")
    control.encode(logs.to_message(record))


def test_extra_values_from_a_worker_cannot_overwrite_the_record() -> None:
    message = control.LogRecord(
        created=1.0, level=20, name="x", message="m", process=1, fields={"levelno": 50, "msg": "forged", "user": "a"}
    )
    arrived = logs.from_message(message)
    assert (arrived.levelno, arrived.getMessage(), vars(arrived)["user"]) == (20, "m", "a")


def test_dropped_records_are_told_in_the_log(tmp_path: Path) -> None:
    path = install(tmp_path)
    logs.write(control.LogRecord(created=1.0, level=20, name="x", message="after", process=1234, dropped=17))
    first, second = path.read_text().splitlines()
    assert "17 log records of process 1234 were dropped" in first
    assert second.endswith("after")


def test_a_worker_logs_over_the_channel_from_any_thread() -> None:
    async def scenario() -> list[control.LogRecord]:
        ours, theirs = socket.socketpair()
        received: list[control.LogRecord] = []
        supervisor = await control.Channel.open(ours, on_log=received.append)
        worker = await control.Channel.open(theirs)
        logs.install(logs.ChannelHandler(worker), LogLevel.INFO)
        logger.info("from the loop", extra={"session": 9})
        logger.debug("below the level")
        await asyncio.to_thread(logger.warning, "from a thread")
        await asyncio.sleep(0)
        await worker.close()
        async for _ in supervisor:
            pass
        await supervisor.close()
        return received

    received = asyncio.run(scenario())
    assert [(line.message, line.level, line.session) for line in received] == [
        ("from the loop", logging.INFO, 9),
        ("from a thread", logging.WARNING, 0),
    ]


def test_logging_after_the_loop_has_ended_harms_nobody() -> None:
    async def scenario() -> control.Channel:
        ours, theirs = socket.socketpair()
        channel = await control.Channel.open(ours)
        logs.install(logs.ChannelHandler(channel), LogLevel.INFO)
        theirs.close()
        await channel.close()
        return channel

    channel = asyncio.run(scenario())
    logger.info("nobody hears this")
    assert channel.dropped == 1
