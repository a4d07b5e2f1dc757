"""Logs: what a line looks like, where it goes, and how a worker's records reach the one process that writes.

The supervisor alone writes the log (`open_handler`, `install`).  A worker installs a `ChannelHandler`, which sends its
records over the control channel; the supervisor passes them to `write`.  Code anywhere logs as usual:

    logger.info("client connected from %s", address, extra={"session": session.number, "user": user})

`session` is shown in its own brackets; other extra values appear in the JSON format only, each under its name, so a
message says by itself what a reader of the text format must know.  Whatever a peer can choose (names, error texts) may
hold line ends or terminal controls: the text format escapes them, so that nobody can forge a line.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

import msgspec

from pgpooler.config.choices import LogDestination, LogFormat, LogLevel
from pgpooler.config.model import Logging
from pgpooler.process import control
from pgpooler.process.logfile import RotatingLogFile

LEVELS: Final = {
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARN: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
}
LEVEL_NAMES: Final = {
    logging.CRITICAL: "FATAL",
    logging.ERROR: "ERROR",
    logging.WARNING: "WARN",
    logging.INFO: "INFO",
    logging.DEBUG: "DEBUG",
}
MAX_TEXT: Final = 16 * 1024
"""Longest message, exception or extra value in characters; more is cut off, and the line says so."""

_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "session"}
_CONTROL_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    r"""Write every character that could end the line or steer a terminal as a backslash sequence (`\n`, `\x1b`)."""
    return _CONTROL_CHARACTERS.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def shorten(text: str) -> str:
    """Cut `text` to MAX_TEXT characters and say how many are missing."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}... ({len(text) - MAX_TEXT} more characters)"


class TextFormatter(logging.Formatter):
    """`[YYYY-MM-DD HH:MM:SS.mmm] [LEVEL] [session N] message`, local time; an exception follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several when the record carries an exception."""
        session = getattr(record, "session", 0)
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        parts = [f"[{moment}.{milliseconds:03d}]", f"[{_level_name(record.levelno)}]"]
        if session:
            parts.append(f"[session {session}]")
        parts.append(escape(shorten(record.getMessage())))
        exception = exception_text(record)
        return " ".join(parts) + "".join(f"\n    {escape(line)}" for line in exception.split("\n") if line)


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, process, session, message, the extra values, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        local = time.localtime(seconds)
        zone = time.strftime("%z", local)
        values: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{milliseconds:03d}{zone[:3]}:{zone[3:]}",
            "level": _level_name(record.levelno).lower(),
            "logger": record.name,
            "process": record.process,
        }
        if session := getattr(record, "session", 0):
            values["session"] = session
        values["message"] = _encodable(shorten(record.getMessage()))
        for name, value in extra_fields(record).items():
            values.setdefault(name, value)
        if exception := exception_text(record):
            values["exception"] = _encodable(exception)
        return msgspec.json.encode(values).decode()


class ChannelHandler(logging.Handler):
    """Sends the records of a worker over its control channel; install it in the thread of the channel's loop.

    Never waits: when the supervisor does not keep up, records are dropped, and the next one says how many.
    """

    def __init__(self, channel: control.Channel) -> None:
        super().__init__()
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; a record that cannot be formatted is told on standard error, as logging does."""
        try:
            message = to_message(record)
        except Exception:
            self.handleError(record)
            return
        if threading.get_ident() == self._thread:
            self._channel.log(message)
        else:
            with suppress(RuntimeError):  # the loop has ended, and the channel with it
                self._loop.call_soon_threadsafe(self._channel.log, message)


def to_message(record: logging.LogRecord) -> control.LogRecord:
    """The control message that carries `record`, its arguments and exception turned into text."""
    session = getattr(record, "session", 0)
    return control.LogRecord(
        created=record.created,
        level=record.levelno,
        name=record.name,
        message=_encodable(shorten(record.getMessage())),
        process=record.process or 0,
        session=session if isinstance(session, int) else 0,
        exception=_encodable(exception_text(record)),
        fields=extra_fields(record),
    )


def from_message(message: control.LogRecord) -> logging.LogRecord:
    """The record that a control message carries."""
    values: dict[str, Any] = {name: value for name, value in message.fields.items() if name not in _STANDARD_FIELDS} | {
        "name": message.name,
        "levelno": message.level,
        "levelname": _level_name(message.level),
        "msg": message.message,
        "created": message.created,
        "process": message.process,
        "exc_text": message.exception or None,
    }
    if message.session:
        values["session"] = message.session
    return logging.makeLogRecord(values)


def write(message: control.LogRecord) -> None:
    """Write a worker's record into the log of this process; the worker has applied the level already."""
    if message.dropped:
        logging.getLogger(__name__).warning(
            "%d log records of process %d were dropped: they came faster than they could be written",
            message.dropped,
            message.process,
        )
    logging.getLogger(message.name).handle(from_message(message))


def open_handler(settings: Logging, *, at_start: bool = True) -> logging.Handler:
    """The handler that `settings` describe, not yet installed; OSError when the file cannot be opened."""
    handler: logging.Handler
    if settings.destination is LogDestination.FILE:
        handler = RotatingLogFile(settings.file, at_start=at_start)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if settings.format is LogFormat.JSON else TextFormatter())
    return handler


def install(handler: logging.Handler, level: LogLevel) -> None:
    """Send every record of this process to `handler` alone, from `level` up; the handlers before it are closed."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [handler]
    set_level(level)
    for old in before:
        old.close()


def set_level(level: LogLevel) -> None:
    """Log records from `level` up; asyncio's own only from warnings up."""
    logging.getLogger().setLevel(LEVELS[level])
    logging.getLogger("asyncio").setLevel(max(LEVELS[level], logging.WARNING))


def reopen() -> None:
    """Open the log file by its name again, after logrotate has renamed it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RotatingLogFile):
            handler.reopen()


def file_path() -> str:
    """The log file that is written now; empty when the log goes to standard error."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RotatingLogFile):
            return handler.baseFilename
    return ""


def extra_fields(record: logging.LogRecord) -> dict[str, str | int | float | bool | None]:
    """The values given as `extra`, except `session`; what is no plain value becomes text."""
    return {
        name: value if isinstance(value, int | float | bool | None) else _encodable(shorten(str(value)))
        for name, value in vars(record).items()
        if name not in _STANDARD_FIELDS
    }


def exception_text(record: logging.LogRecord) -> str:
    """The traceback of a record, or nothing."""
    if record.exc_text:
        return record.exc_text
    if record.exc_info and record.exc_info[0] is not None:
        return shorten(logging.Formatter().formatException(record.exc_info))
    return ""


def _level_name(level: int) -> str:
    return LEVEL_NAMES.get(level) or str(level)


def _encodable(text: str) -> str:
    """`text` with lone surrogates (undecodable bytes of a name) written as backslash sequences."""
    return text.encode("utf-8", "backslashreplace").decode()
