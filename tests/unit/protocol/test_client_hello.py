"""What a client names when it begins TLS, as OpenSSL writes it."""

from __future__ import annotations

import ssl
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from pgpooler.protocol.client_hello import names_protocols

NAMES = st.lists(st.text("abc/1.", min_size=1, max_size=20), max_size=4)


@cache
def hello(names: tuple[str, ...], server: str | None = None, version: str = "TLSv1_3") -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion[version]
    if names:
        context.set_alpn_protocols(list(names))
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("nobody answers")


def in_records(data: bytes, sizes: list[int]) -> bytes:
    """The same message, spread over records of these sizes; what is left stands in a last one."""
    body, records = data[5:], b""
    for size in [*sizes, len(body)]:
        fragment, body = body[:size], body[size:]
        if fragment:
            records += data[:3] + len(fragment).to_bytes(2) + fragment
    return records


@given(
    NAMES, st.sampled_from([None, "localhost"]), st.sampled_from(["TLSv1_2", "TLSv1_3"]), st.lists(st.integers(1, 99))
)
def test_a_client_names_protocols_or_does_not(
    names: list[str], server: str | None, version: str, sizes: list[int]
) -> None:
    beginning = in_records(hello(tuple(names), server, version), sizes)
    assert names_protocols(beginning) is bool(names)
    assert names_protocols(beginning + b"\x17\x03\x03\0\x01x") is bool(names), "what follows does not matter"


@given(st.integers(0, 300))
def test_half_a_beginning_leaves_a_doubt(size: int) -> None:
    whole = hello((), "localhost")
    assert names_protocols(whole[: min(size, len(whole) - 1)])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_beginning_raise_nothing(data: bytes) -> None:
    assert names_protocols(data) in (True, False)
    assert names_protocols(b"\x15" + data)
    assert names_protocols(b"\x16\x03\x01" + (4 + len(data)).to_bytes(2) + b"\x02" + len(data).to_bytes(3) + data)
