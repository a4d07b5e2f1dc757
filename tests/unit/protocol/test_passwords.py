"""Stored secrets: reading, writing, and what they answer."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.errors import ServerUnavailable
from pgpooler.protocol.passwords import (
    Cleartext,
    Derivation,
    Md5Digest,
    ScramKeys,
    ScramVerifier,
    Secret,
    answer_cleartext,
    answer_md5,
    decode_base64,
    derive_keys,
    equal,
    make_verifier,
    md5_digest,
    md5_response,
    parse_secret,
)

KEY = base64.b64encode(bytes(32)).decode()
VERIFIER = make_verifier(b"secret", iterations=1)
KEYS = derive_keys(b"secret", b"salt", 1)
DIGEST = md5_digest(b"secret", "alice")


def test_an_empty_secret_is_no_secret() -> None:
    assert parse_secret("") is None


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "md5",
        "md5sum",
        "md5" + "0" * 31,
        "md5" + "0" * 33,
        "md5" + "A" * 32,
        "md5" + "g" * 32,
        "md5" + "0" * 32 + "\n",
        "SCRAM-SHA-256",
        "scram-sha-256$4096:x$y:z",
        " SCRAM-SHA-256$4096:x$y:z",
        "пароль",
    ],
)
def test_what_is_neither_digest_nor_verifier_is_the_password_itself(text: str) -> None:
    assert parse_secret(text) == Cleartext(text.encode())


def test_a_password_of_bytes_that_are_not_utf8_comes_back_as_these_bytes() -> None:
    assert parse_secret(b"caf\xe9".decode("utf-8", "surrogateescape")) == Cleartext(b"caf\xe9")


def test_md5_and_32_hexadecimal_digits_are_a_digest() -> None:
    assert parse_secret("md5" + "0123456789abcdef" * 2) == Md5Digest("0123456789abcdef" * 2)


@given(st.binary(min_size=1, max_size=100), st.integers(1, 2**31 - 1), st.binary(min_size=32, max_size=32))
def test_a_verifier_that_is_written_is_read_back_the_same(salt: bytes, iterations: int, key: bytes) -> None:
    verifier = ScramVerifier(iterations, salt, key, key[::-1])
    assert parse_secret(verifier.text()) == verifier


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SCRAM-SHA-256$", "is not SCRAM-SHA-256"),
        (f"SCRAM-SHA-256$4096$c2FsdA==${KEY}:{KEY}", "is not SCRAM-SHA-256"),
        (f"SCRAM-SHA-256$4096:c2FsdA==${KEY}", "is not SCRAM-SHA-256"),
        (f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}:{KEY}", "is not SCRAM-SHA-256"),
        (f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}\n", "ServerKey of the SCRAM secret is not base64"),
        (f"SCRAM-SHA-256$:c2FsdA==${KEY}:{KEY}", "iteration count"),
        (f"SCRAM-SHA-256$0:c2FsdA==${KEY}:{KEY}", "iteration count"),
        (f"SCRAM-SHA-256$-1:c2FsdA==${KEY}:{KEY}", "iteration count"),
        (f"SCRAM-SHA-256$4x:c2FsdA==${KEY}:{KEY}", "iteration count"),
        (f"SCRAM-SHA-256$2147483648:c2FsdA==${KEY}:{KEY}", "iteration count"),
        (f"SCRAM-SHA-256$\u0661:c2FsdA==${KEY}:{KEY}", "iteration count"),
        (f"SCRAM-SHA-256$4096:${KEY}:{KEY}", "salt of the SCRAM secret is empty"),
        (f"SCRAM-SHA-256$4096:c2F*dA==${KEY}:{KEY}", "salt of the SCRAM secret is not base64"),
        (f"SCRAM-SHA-256$4096:c2FsdA==$\udc80:{KEY}", "StoredKey of the SCRAM secret is not base64"),
        (f"SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:{KEY}", "StoredKey of the SCRAM secret has 4 bytes instead of 32"),
        (f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:", "ServerKey of the SCRAM secret has 0 bytes instead of 32"),
        ("pass\0word", "zero byte"),
        ("pass\ud800word", "lone surrogate"),
    ],
)
def test_a_secret_nobody_could_log_in_with_is_an_error_that_says_why_but_not_the_secret(
    text: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as raised:
        parse_secret(text)
    assert KEY not in str(raised.value)
    assert "word" not in str(raised.value).replace("password", "")


@given(st.text())
def test_reading_any_text_gives_a_secret_or_a_value_error(text: str) -> None:
    for written in (text, "SCRAM-SHA-256$" + text, "md5" + text):
        with contextlib.suppress(ValueError):
            assert parse_secret(written) is not None or not written


def test_no_secret_shows_in_a_repr() -> None:
    for secret in (Cleartext(b"hunter2"), DIGEST, VERIFIER, KEYS, Derivation(b"hunter2", b"salty", 1)):
        text = repr(secret)
        assert "hunter2" not in text
        assert "salt=" not in text
        assert "key=" not in text
        assert DIGEST.digest not in text


def test_a_verifier_gets_a_fresh_salt_and_the_iterations_of_postgresql() -> None:
    first, second = make_verifier(b"secret"), make_verifier(b"secret")
    assert (first.iterations, len(first.salt)) == (4096, 16)
    assert first.salt != second.salt
    assert first.stored_key != second.stored_key


def test_the_keys_of_a_derivation_give_the_verifier_of_the_same_password_and_salt() -> None:
    keys = Derivation(b"secret", b"salt", 7).run()
    assert keys == derive_keys(b"secret", b"salt", 7)
    assert keys.verifier() == make_verifier(b"secret", salt=b"salt", iterations=7)
    assert keys != derive_keys(b"Secret", b"salt", 7)


def test_a_derivation_can_be_the_key_of_a_cache() -> None:
    cache = {Derivation(b"secret", b"salt", 1): KEYS}
    assert cache[Derivation(b"secret", b"salt", 1)] is KEYS
    assert Derivation(b"secret", b"salt", 2) not in cache


@pytest.mark.parametrize(
    "spelling", [b"YQ", b"YQ=", b"YR==", b"YQ==\n", b" YQ==", b"Y*Q==", b"\xff", b"-_==", b"YQ==YQ=="]
)
def test_base64_has_one_spelling(spelling: bytes) -> None:
    assert decode_base64(b"YQ==") == b"a"
    assert decode_base64(spelling) is None


def test_secrets_are_compared_whole() -> None:
    assert equal(b"secret", b"secret")
    assert not equal(b"secret", b"secreT")
    assert not equal(b"secret", b"secret\0")


def test_an_md5_answer_is_the_digest_hashed_again_with_the_salt() -> None:
    inner = hashlib.md5(b"secretalice").hexdigest()
    assert parse_secret("md5" + inner) == DIGEST
    assert md5_response(DIGEST, b"\0\1\2\3") == b"md5" + hashlib.md5(inner.encode() + b"\0\1\2\3").hexdigest().encode()


def test_a_server_that_asks_for_cleartext_or_md5_gets_it_from_a_secret_that_has_it() -> None:
    assert answer_cleartext(Cleartext(b"secret"), "alice") == b"secret"
    expected = md5_response(DIGEST, b"salt")
    assert answer_md5(Cleartext(b"secret"), "alice", b"salt") == expected
    assert answer_md5(DIGEST, "alice", b"salt") == expected


@pytest.mark.parametrize(
    ("secret", "have"),
    [
        (None, "no password"),
        (DIGEST, "only an MD5 digest"),
        (VERIFIER, "only a SCRAM verifier, which checks passwords but cannot log in"),
        (KEYS, "only the SCRAM key of the client's own login"),
    ],
)
def test_a_server_that_asks_for_what_a_secret_has_not_is_refused_with_the_reason(
    secret: Secret | None, have: str
) -> None:
    with pytest.raises(ServerUnavailable) as raised:
        answer_cleartext(secret, "alice")
    assert raised.value.message == f'the server wants a cleartext password, but for user "alice" there is {have}'
    assert raised.value.hint
    if not isinstance(secret, Md5Digest):
        with pytest.raises(ServerUnavailable, match="the server wants an MD5 password"):
            answer_md5(secret, "alice", b"salt")


def test_keys_are_of_32_bytes() -> None:
    assert isinstance(KEYS, ScramKeys)
    assert (len(KEYS.client_key), len(KEYS.server_key)) == (32, 32)
