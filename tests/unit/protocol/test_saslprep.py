"""SASLprep as PostgreSQL applies it.  tests/integration/test_scram_against_postgresql.py compares it with libpq."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.protocol.saslprep import saslprep


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        pytest.param("I\u00adX", "IX", id="soft hyphen is mapped to nothing"),
        pytest.param("user", "user", id="nothing to do"),
        pytest.param("USER", "USER", id="case is kept"),
        pytest.param("\u00aa", "a", id="compatibility character"),
        pytest.param("\u2168", "IX", id="roman numeral"),
        pytest.param("a\u00a0b\u2003c", "a b c", id="non-ASCII spaces become spaces"),
        pytest.param("e\u0301", "\u00e9", id="combining accent is composed"),
        pytest.param("\ufb01x", "fix", id="ligature"),
        pytest.param("\uff21\uff22", "AB", id="full width"),
        pytest.param("\u05d0a1\u05d0", None, id="mixed writing directions"),
        pytest.param("\u06271", None, id="right-to-left text that does not end so"),
        pytest.param("\u0627\u00b2", None, id="right-to-left text that ends with a digit that would be mapped"),
        pytest.param("\u00b2\u0627", None, id="right-to-left text that begins with one"),
        pytest.param("\u06271\u0628", "\u06271\u0628", id="right-to-left text with a digit inside"),
        pytest.param("\u00e9\u0007", None, id="control character beside a letter that is not ASCII"),
        pytest.param("\ue000", None, id="private use"),
        pytest.param("\ufffd", None, id="replacement character"),
        pytest.param("\u200e\u00e9", None, id="writing direction mark"),
        pytest.param("\U000e0041", None, id="tag"),
        pytest.param("\u0221", None, id="unassigned in Unicode 3.2"),
        pytest.param("\U0001f600", None, id="emoji, assigned after Unicode 3.2"),
        pytest.param("\u00ad", None, id="nothing is left"),
    ],
)
def test_a_password_is_prepared_or_where_that_is_prohibited_used_as_it_is(password: str, prepared: str | None) -> None:
    assert saslprep(password.encode()) == (password if prepared is None else prepared).encode()


@pytest.mark.parametrize(
    "password",
    [b"", b"\x07\x7f", b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82"],
)
def test_ascii_and_bytes_that_are_not_utf8_stay_what_they_are(password: bytes) -> None:
    assert saslprep(password) == password


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_can_be_prepared_and_preparing_twice_changes_nothing(password: bytes) -> None:
    prepared = saslprep(password)
    assert saslprep(prepared) == prepared
