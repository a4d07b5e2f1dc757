"""Values as operators write them: numbers, times, booleans, hosts.  Each function raises ValueError with the reason."""

from __future__ import annotations

import difflib
import enum
import ipaddress
import re
from collections.abc import Iterable
from typing import Final, TypeVar

from pgpooler.config.choices import ResetPolicy

Choice = TypeVar("Choice", bound=enum.StrEnum)

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SOCKET_PATH_LIMIT: Final = 107
"""Longest path of a unix socket, in bytes (sun_path without its last zero)."""

_TIME: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_OCTAL: Final = re.compile(r"(?:0o?)?([0-7]{3})")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")


def read_integer(text: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"expected a whole number, found {text!r}")
    return _bounded(int(text), low, high)


def _bounded(number: int, low: int, high: int) -> int:
    if not low <= number <= high:
        raise ValueError(f"expected a number from {low} to {high}, found {number}")
    return number


def read_seconds(text: str, high: int) -> float:
    """A time in seconds: `500ms`, `10s`, `5m`, `2h`, `1d`; a bare number is seconds."""
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"expected a time such as 500ms, 10s, 5m or 2h (a bare number is seconds), found {text!r}")
    seconds = float(found[1]) * UNITS[found[2]]
    if seconds > high:
        raise ValueError(f"expected a time of at most {high} seconds, found {text!r}")
    return seconds


def read_boolean(text: str) -> bool:
    """`true`, `yes`, `on`, `false`, `no` or `off`."""
    value = BOOLEANS.get(text.lower())
    if value is None:
        raise ValueError(f"expected true or false (yes, no, on, off), found {text!r}")
    return value


def read_choice(text: str, choices: type[Choice]) -> Choice:
    """One of a few words."""
    try:
        return choices(text)
    except ValueError:
        words = [choice.value for choice in choices]
        raise ValueError(f"expected one of {', '.join(words)}, found {text!r}{did_you_mean(text, words)}") from None


def read_reset_query(text: str) -> str:
    """`always`, `smart`, `never`, or a statement, which is any text of at least two words."""
    words = [policy.value for policy in ResetPolicy]
    if text not in words and len(text.split()) < 2:
        nearest = did_you_mean(text.lower(), words)
        raise ValueError(
            f"expected one of {', '.join(words)}, or a statement, which has at least two words; found {text!r}{nearest}"
        )
    return text


def read_octal(text: str) -> int:
    """Permissions, as chmod takes them."""
    found = _OCTAL.fullmatch(text)
    if not found:
        raise ValueError(f"expected permissions in octal such as 0770, found {text!r}")
    return int(found[1], 8)


def read_listen_host(text: str) -> str:
    """A name or an address, or `*`."""
    return text if text == "*" else _host(text)


def read_backend_host(text: str) -> str:
    """A name or an address, or the absolute folder of a unix socket."""
    if not text.startswith("/"):
        return _host(text)
    check_socket_path(f"{text}/.s.PGSQL.65535")
    return text


def check_socket_path(path: str) -> None:
    """Refuse a path that the system cannot bind or connect to."""
    if len(path.encode()) > SOCKET_PATH_LIMIT:
        raise ValueError(f"the unix socket's path {path!r} is longer than {SOCKET_PATH_LIMIT} bytes")


def _host(text: str) -> str:
    looks_like_address = ":" in text or bool(re.fullmatch(r"[0-9.]+", text))
    if looks_like_address:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            hint = "; the port has a key of its own" if re.fullmatch(r"(\[.*\]|[^:]*):[0-9]+", text) else ""
            raise ValueError(f"{text!r} is not an IP address{hint}") from None
    elif not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is neither a host name nor an IP address")
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, if there is one."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
