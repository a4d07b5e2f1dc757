"""What a header alone says: which requests are refused, and which error is a server's last."""

from __future__ import annotations

import pytest

from pgpooler.errors import ProtocolViolation
from pgpooler.pooling.traffic import SMALL, check_request, drop_request, is_last_error
from pgpooler.protocol import codes
from pgpooler.protocol.framer import Framer
from tests.scripted import SYNC, TERMINATE, error, extended, query


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_a_message_that_has_little_to_say_may_be_so_long_and_no_longer(kind: int) -> None:
    """pqcomm.c: PQ_SMALL_MESSAGE_LIMIT, which bounds the length word."""
    check_request(kind, 10_000 + 1)
    with pytest.raises(ProtocolViolation, match="length"):
        check_request(kind, 10_001 + 1)


@pytest.mark.parametrize("kind", sorted(set(codes.FRONTEND_TYPES) - set(SMALL)))
def test_what_may_be_long_is_not_bounded_by_its_type(kind: int) -> None:
    check_request(kind, 1 << 20)


def test_only_these_have_little_to_say() -> None:
    assert bytes(sorted(SMALL)) == b"CDEHSXcf"


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(codes.FRONTEND_TYPES)))
def test_a_type_that_no_client_sends_is_refused(kind: int) -> None:
    with pytest.raises(ProtocolViolation, match="type"):
        check_request(kind, 5)


@pytest.mark.parametrize(("severity", "last"), [("FATAL", True), ("PANIC", True), ("ERROR", False)])
def test_the_severity_says_whether_an_error_is_the_last(severity: str, last: bool) -> None:
    assert is_last_error(error("57P01", "the end", severity)[5:]) is last


def test_what_an_error_says_of_severities_is_not_its_severity() -> None:
    assert not is_last_error(error("22012", "x" * 64 + "\0VFATAL"[1:])[5:])


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (query("row c"), b""),
        (query("row c") + query("row d"), query("row d")),
        (extended("row c"), b""),
        (extended("row c") + SYNC, SYNC),
        (SYNC, b""),
        (extended("row c", sync=False) + query("row d") + SYNC + query("row e"), query("row e")),
        (extended("row c", sync=False) + query("row d"), None),
        (query("row c")[:-1], None),
        (extended("row c", sync=False), None),
        (extended("row c", sync=False) + TERMINATE, None),
        (extended("row c", sync=False) + b"!\0\0\0\4" + SYNC, None),
        (b"", None),
    ],
)
def test_the_first_request_that_was_kept_is_dropped_if_it_is_whole(kept: bytes, left: bytes | None) -> None:
    framer = Framer()
    framer.feed(bytearray(kept), 0, len(kept))
    framer.keep()
    assert drop_request(framer) is (left is not None)
    assert framer.buffer[framer.mark : framer.end] == (kept if left is None else left)
    assert framer.passing == 0
