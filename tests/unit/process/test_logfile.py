"""W16: every documented option of the log file has an effect."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from pgpooler.config.model import LogFile
from pgpooler.process.logfile import COMPLAINT_INTERVAL, MEBIBYTE, RotatingLogFile

DAY = 86_400.0
NOON = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def write(handler: RotatingLogFile, text: str) -> None:
    handler.handle(logging.makeLogRecord({"msg": text}))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_path_names_the_file_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "pgpooler.log"
    handler = RotatingLogFile(LogFile(path=str(path), directory=str(tmp_path / "not used")))
    write(handler, "hello")
    handler.close()
    assert path.read_text() == "hello\n"
    assert contents(tmp_path / "a" / "b") == {"pgpooler.log": "hello\n"}
    assert not (tmp_path / "not used").exists()


def test_append_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "pgpooler.log"
    path.write_text("before\n")
    handler = RotatingLogFile(LogFile(path=str(path), append=True))
    write(handler, "after")
    handler.close()
    assert path.read_text() == "before\nafter\n"


def test_without_append_the_file_is_emptied_at_start_alone(tmp_path: Path) -> None:
    path = tmp_path / "pgpooler.log"
    path.write_text("before\n")
    settings = LogFile(path=str(path), append=False)
    handler = RotatingLogFile(settings)
    write(handler, "one")
    handler.reopen()
    write(handler, "two")
    handler.close()
    assert path.read_text() == "one\ntwo\n"
    reloaded = RotatingLogFile(settings, at_start=False)
    write(reloaded, "three")
    reloaded.close()
    assert path.read_text() == "one\ntwo\nthree\n"


def test_the_pattern_is_expanded_again_when_the_date_changes(tmp_path: Path) -> None:
    clock = Clock()
    handler = RotatingLogFile(LogFile(directory=str(tmp_path), filename="pg-%Y-%m-%d.log"), clock=clock)
    write(handler, "monday")
    clock.now += DAY
    write(handler, "tuesday")
    clock.now += 1
    write(handler, "tuesday again")
    handler.close()
    assert contents(tmp_path) == {"pg-2026-11-23.log": "monday\n", "pg-2026-11-24.log": "tuesday\ntuesday again\n"}


def test_rotation_size_starts_a_new_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    clock = Clock()
    handler = RotatingLogFile(LogFile(path=str(tmp_path / "pg.log"), rotation_size_mb=1), clock=clock)
    write(handler, "x" * MEBIBYTE)
    write(handler, "second file")
    write(handler, "y" * MEBIBYTE)
    write(handler, "third file, in the same second")
    handler.close()
    found = contents(tmp_path)
    assert {name: text[:3] for name, text in found.items()} == {
        "pg.log.20261123-120000": "xxx",
        "pg.log.20261123-120000-2": "sec",
        "pg.log": "thi",
    }


def test_rotation_size_without_need_for_a_new_name_of_the_pattern_sets_the_old_file_aside(tmp_path: Path) -> None:
    settings = LogFile(directory=str(tmp_path), filename="pg-%d.log", rotation_size_mb=1)
    handler = RotatingLogFile(settings, clock=Clock())
    write(handler, "x" * MEBIBYTE)
    write(handler, "new")
    handler.close()
    assert set(contents(tmp_path)) == {"pg-23.log", "pg-23.log.20261123-120000"}


def test_rotation_age_starts_a_new_file_at_whole_multiples_of_the_age(tmp_path: Path) -> None:
    clock = Clock()
    handler = RotatingLogFile(LogFile(path=str(tmp_path / "pg.log"), rotation_age=3600), clock=clock)
    write(handler, "noon")
    clock.now += 3599
    write(handler, "still noon")
    clock.now += 1
    write(handler, "one")
    handler.close()
    assert contents(tmp_path) == {"pg.log.20261123-130000": "noon\nstill noon\n", "pg.log": "one\n"}


def test_rotation_age_counts_on_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "pg.log"
    path.write_text("yesterday\n")
    os.utime(path, (NOON - DAY, NOON - DAY))
    clock = Clock()
    handler = RotatingLogFile(LogFile(path=str(path), rotation_age=DAY), clock=clock)
    clock.now += 1
    write(handler, "today")
    handler.close()
    assert contents(tmp_path) == {"pg.log.20261123-120001": "yesterday\n", "pg.log": "today\n"}


def test_rotation_age_does_not_make_empty_files(tmp_path: Path) -> None:
    clock = Clock()
    handler = RotatingLogFile(LogFile(path=str(tmp_path / "pg.log"), rotation_age=60), clock=clock)
    clock.now += 600
    write(handler, "first line")
    handler.close()
    assert contents(tmp_path) == {"pg.log": "first line\n"}


@pytest.mark.parametrize("off", [0, 0.0])
def test_zero_turns_rotation_off(tmp_path: Path, off: float) -> None:
    clock = Clock()
    settings = LogFile(path=str(tmp_path / "pg.log"), rotation_age=off, rotation_size_mb=0)
    handler = RotatingLogFile(settings, clock=clock)
    write(handler, "x" * 2 * MEBIBYTE)
    clock.now += 100 * DAY
    write(handler, "end")
    handler.close()
    assert set(contents(tmp_path)) == {"pg.log"}


def test_keep_removes_the_oldest_rotated_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "pg.log.1").write_text("somebody else's")
    (tmp_path / "pg.log.20261123-110000.gz").write_text("somebody else's")
    clock = Clock()
    handler = RotatingLogFile(LogFile(path=str(tmp_path / "pg.log"), rotation_age=60, keep=2), clock=clock)
    for minute in range(5):
        clock.now = NOON + 60 * minute
        write(handler, f"minute {minute}")
        os.utime(tmp_path / "pg.log", (clock.now, clock.now))
    handler.close()
    assert set(contents(tmp_path)) == {
        "pg.log",
        "pg.log.20261123-120400",
        "pg.log.20261123-120300",
        "pg.log.1",
        "pg.log.20261123-110000.gz",
    }


def test_keep_counts_the_files_of_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "pg-tomorrow.log").write_text("somebody else's")
    clock = Clock()
    handler = RotatingLogFile(LogFile(directory=str(tmp_path), filename="pg-%Y%m%d.log", keep=1), clock=clock)
    for day in range(4):
        clock.now = NOON + DAY * day
        write(handler, f"day {day}")
        os.utime(handler.baseFilename, (clock.now, clock.now))
    handler.close()
    assert set(contents(tmp_path)) == {"pg-20261126.log", "pg-20261125.log", "pg-tomorrow.log"}


def test_reopen_writes_a_new_file_after_logrotate_renamed_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "pg.log"
    handler = RotatingLogFile(LogFile(path=str(path)))
    write(handler, "one")
    path.rename(tmp_path / "pg.log.1")
    write(handler, "two")
    handler.reopen()
    write(handler, "three")
    handler.close()
    assert contents(tmp_path) == {"pg.log.1": "one\ntwo\n", "pg.log": "three\n"}


def test_a_file_that_vanished_is_made_again_at_the_next_rotation(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "pg.log"
    handler = RotatingLogFile(LogFile(path=str(path), rotation_age=60), clock=clock)
    write(handler, "one")
    path.unlink()
    clock.now += 60
    write(handler, "two")
    handler.close()
    assert contents(tmp_path) == {"pg.log": "two\n"}


def test_a_rotation_that_fails_is_told_once_and_loses_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    settings = LogFile(directory=str(tmp_path), filename="%d/pg.log")
    handler = RotatingLogFile(settings, clock=clock)
    write(handler, "monday")
    (tmp_path / "24").write_text("a file where a folder is needed")
    clock.now += DAY
    write(handler, "tuesday")
    clock.now += 1
    write(handler, "more")
    told = capsys.readouterr().err
    assert told.count("cannot be written") == 1
    assert str(tmp_path / "24") in told
    (tmp_path / "24").unlink()
    clock.now += COMPLAINT_INTERVAL
    write(handler, "healed")
    handler.close()
    assert (tmp_path / "23" / "pg.log").read_text() == "monday\ntuesday\nmore\n"
    assert (tmp_path / "24" / "pg.log").read_text() == "healed\n"


def test_a_file_that_cannot_be_opened_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        RotatingLogFile(LogFile(path=str(tmp_path)))


def test_a_full_disk_is_told_on_standard_error_and_does_not_reach_the_caller(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = RotatingLogFile(LogFile(path="/dev/full"))
    write(handler, "lost")
    write(handler, "lost too")
    assert capsys.readouterr().err.count("No space left on device") == 1
    with pytest.raises(OSError, match="No space"):
        handler.close()
