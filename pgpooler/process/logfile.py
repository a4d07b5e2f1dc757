"""The log file: where it lies, and when a new one is begun.

The file is either one `path`, or a `directory` with a strftime pattern that is expanded again whenever it would give
another name.  A new file is also begun when the age or the size of the settings is reached; where the pattern gives no
new name then (and always with a plain path), the old file is renamed, the moment appended:
`pgpooler.log.20261123-021500`.

Ages end at whole multiples of the age in local time, as PostgreSQL's log_rotation_age does, so that a restart does not
put the rotation off: 86400 means midnight.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from logging import LogRecord
from logging.handlers import BaseRotatingHandler
from typing import Final

from pgpooler.config.model import LogFile

MEBIBYTE: Final = 1024 * 1024
COMPLAINT_INTERVAL: Final = 60.0
"""Seconds between two complaints on standard error, and between two attempts to rotate, while the disk refuses."""

_ROTATED: Final = re.compile(r"\.\d{8}-\d{6}(-\d+)?$")


class RotatingLogFile(BaseRotatingHandler):
    """A logging handler that writes the file of `settings` and begins new ones as they say.

    `at_start` is False when the file is opened again by a reload: then `append: false` does not empty it.  Raises
    OSError when the file cannot be opened; later failures are told on standard error and never to the caller.
    """

    def __init__(self, settings: LogFile, *, at_start: bool = True, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        self._complain_after = 0.0
        self._rotate_after = 0.0
        now = clock()
        path = self.path_at(now)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mode = "a" if settings.append or not at_start else "w"
        super().__init__(path, mode=mode, encoding="utf-8", errors="backslashreplace")
        self.mode = "a"
        written = self._status()
        self._period = self._period_at(written.st_mtime if written.st_size else now)
        self._looked_at = int(now)

    def path_at(self, now: float) -> str:
        """The absolute path of the file that is written at `now`."""
        if self.settings.path:
            return os.path.abspath(self.settings.path)
        name = time.strftime(self.settings.filename, time.localtime(now))
        return os.path.abspath(os.path.join(self.settings.directory, name))

    def shouldRollover(self, record: LogRecord) -> bool:  # noqa: N802 - the name of the base class
        """Say whether `record` belongs into a new file."""
        now = self._clock()
        if now < self._rotate_after:
            return False
        if int(now) != self._looked_at:
            self._looked_at = int(now)
            if self.path_at(now) != self.baseFilename or self._period_at(now) != self._period:
                return True
        limit = self.settings.rotation_size_mb * MEBIBYTE
        return bool(limit) and self._status().st_size >= limit

    def doRollover(self) -> None:  # noqa: N802 - the name of the base class
        """Begin a new file; when that fails, go on with the old one and try again later."""
        now = self._clock()
        path = self.path_at(now)
        try:
            if path == self.baseFilename:
                self._set_aside(now)
            self._switch(path)
            self._remove_old()
        except OSError as error:
            self._rotate_after = now + COMPLAINT_INTERVAL
            self._complain(error)
        else:
            self._period = self._period_at(now)

    def reopen(self) -> None:
        """Open the file by its name again, because something else (logrotate) has renamed it."""
        self.acquire()
        try:
            self._switch(self.baseFilename)
        except OSError as error:
            self._complain(error)
        finally:
            self.release()

    def handleError(self, record: LogRecord) -> None:  # noqa: N802 - the name of the base class
        """Tell on standard error that a record was lost, at most once a minute."""
        self._complain(sys.exc_info()[1])

    def _status(self) -> os.stat_result:
        if self.stream is None:
            self.stream = self._open()
        return os.fstat(self.stream.fileno())

    def _period_at(self, now: float) -> int:
        age = self.settings.rotation_age
        return int((now + time.localtime(now).tm_gmtoff) // age) if age else 0

    def _set_aside(self, now: float) -> None:
        """Give the current file a name of its own, unless it is empty or gone."""
        if not self._status().st_size:
            return
        stem = self.baseFilename + time.strftime(".%Y%m%d-%H%M%S", time.localtime(now))
        name, number = stem, 1
        while os.path.exists(name):
            number += 1
            name = f"{stem}-{number}"
        with suppress(FileNotFoundError):
            os.rename(self.baseFilename, name)

    def _switch(self, path: str) -> None:
        old_path, old_stream = self.baseFilename, self.stream
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.baseFilename = path
        try:
            self.stream = self._open()
        except OSError:
            self.baseFilename = old_path
            raise
        if old_stream is not None:
            old_stream.close()

    def _remove_old(self) -> None:
        """Remove the oldest of the files that are no longer written, so that `keep` of them stay."""
        if not self.settings.keep:
            return
        folder = os.path.dirname(self.baseFilename)
        with os.scandir(folder) as entries:
            old = [entry for entry in entries if entry.path != self.baseFilename and self._is_ours(entry)]
        old.sort(key=lambda entry: (entry.stat().st_mtime_ns, entry.name))
        for entry in old[: -self.settings.keep]:
            with suppress(FileNotFoundError):
                os.unlink(entry.path)

    def _is_ours(self, entry: os.DirEntry[str]) -> bool:
        name, rotated = _ROTATED.subn("", entry.name)
        if not entry.is_file(follow_symlinks=False):
            return False
        if self.settings.path:
            return bool(rotated) and name == os.path.basename(self.settings.path)
        try:
            time.strptime(name, os.path.basename(self.settings.filename))
        except ValueError:
            return False
        return True

    def _complain(self, error: BaseException | None) -> None:
        now = self._clock()
        if now >= self._complain_after and sys.stderr is not None:
            self._complain_after = now + COMPLAINT_INTERVAL
            with suppress(OSError):
                print(f"pgpooler: the log file {self.baseFilename} cannot be written: {error}", file=sys.stderr)
