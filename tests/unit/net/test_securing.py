"""Taking TLS up with servers that do not play by the rules, and cancel requests over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import TlsMode
from pgpooler.config.model import Backend, BackendTls, ClientTls, Configuration
from pgpooler.config.tls_files import Contexts, client_context
from pgpooler.net.connector import Connector
from pgpooler.net.relay import Relay
from pgpooler.net.tls import TlsPort
from pgpooler.pooling.deadlines import Deadlines
from pgpooler.protocol.certificates import end_point_binding
from tests.certificates import Authority
from tests.unit.net.test_connector import Asking, Serving

AUTHORITY = Authority(Path(mkdtemp(prefix="pgpooler-test-")))
SHOWN = AUTHORITY.certify("server")
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
PATIENCE = 30.0

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(serve: Serve, body: Callable[[Connector, int], Awaitable[Any]], mode: TlsMode = TlsMode.REQUIRE) -> Any:
    """Let `body` use a connector while `serve` answers on a port."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        relay = Relay(loop, Deadlines())
        connector = Connector(loop, relay)
        connector.tls = Contexts.of(Configuration(backends=(backend(0, mode),))).backends
        finished: list[asyncio.Task[None]] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            finished.append(task)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        try:
            return await asyncio.wait_for(body(connector, server.sockets[0].getsockname()[1]), PATIENCE)
        finally:
            await connector.close()
            relay.close()
            server.close()
            await asyncio.wait_for(asyncio.gather(*finished, return_exceptions=True), PATIENCE)

    return asyncio.run(main())


def backend(port: int, mode: TlsMode) -> Backend:
    ca = str(AUTHORITY.file) if mode.verified else ""
    return Backend(name="primary", host="127.0.0.1", port=port or 5432, tls=BackendTls(mode=mode, ca=ca))


def opened(serve: Serve, mode: TlsMode = TlsMode.REQUIRE, timeout: float = 15.0) -> Asking:
    async def body(connector: Connector, port: int) -> Asking:
        asking = Asking(backend(port, mode), timeout)
        connector.open(asking)  # type: ignore[arg-type]
        await asking.answered.wait()
        return asking

    result = run(serve, body, mode)
    assert isinstance(result, Asking)
    return result


def saying(*answers: bytes) -> Serve:
    """A server that answers the request for TLS with this, and whatever comes then with the next."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == SSL_REQUEST
        for answer in answers:
            writer.write(answer)
            await writer.drain()
            await reader.read(1)
        await reader.read()

    return serve


async def honest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.readexactly(8) == SSL_REQUEST
    writer.write(b"S")
    await writer.start_tls(client_context(ClientTls(**SHOWN.keys)).context)
    await reader.read()


def reason(asking: Asking) -> str:
    assert asking.port is None
    assert asking.error is not None
    assert asking.error.sqlstate == "08006"
    return (asking.error.detail or "").partition("): ")[2]


@pytest.mark.parametrize("mode", [TlsMode.PREFER, TlsMode.REQUIRE, TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL])
def test_an_honest_server_is_talked_to_within_tls(mode: TlsMode) -> None:
    asking = opened(honest, mode)
    assert isinstance(asking.port, TlsPort)
    assert asking.port.encryption is not None
    assert asking.port.encryption.protocol == "TLSv1.3"
    assert asking.port.encryption.end_point == end_point_binding(SHOWN.der) != b""


LOGGED_IN = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"


@pytest.mark.parametrize("stuffed", [LOGGED_IN, b"E\0\0\0\x09SFATAL\0", b"\x15\x03\x03\0\x02\x02\x28"])
@pytest.mark.parametrize("mode", [TlsMode.REQUIRE, TlsMode.VERIFY_FULL])
def test_what_a_server_sends_unencrypted_behind_its_yes_counts_for_nothing(mode: TlsMode, stuffed: bytes) -> None:
    """Whoever stands between could have put it there (CVE-2021-23222)."""
    assert reason(opened(saying(b"S" + stuffed), mode)).startswith("no TLS with the server: ")


ERROR = b"E\0\0\0\x1cSFATAL\0Mcome to evil.org\0\0"


def test_an_error_in_place_of_an_answer_is_not_believed() -> None:
    """Nobody has proved yet who says so (CVE-2024-10977)."""
    assert reason(opened(saying(ERROR))) == "the server answered the request for TLS with b'E'."


@given(st.binary(max_size=40))
def test_an_answer_that_is_none_ends_in_an_error(answer: bytes) -> None:
    assert reason(opened(saying(answer.replace(b"S", b"s").replace(b"N", b"n") or b"?"))).startswith("the server ")


def test_a_server_that_hangs_up_ends_in_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)

    assert reason(opened(serve)) == "the server hung up."


def test_a_server_that_hangs_up_while_hands_are_shaken_ends_in_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await reader.readexactly(5)
        writer.transport.abort()

    assert reason(opened(serve)) in (
        "the server ended the connection during the TLS handshake.",
        "Connection reset by peer.",
    )


@pytest.mark.parametrize("answers", [(), (b"S",)], ids=["no answer", "no handshake"])
def test_a_server_that_says_nothing_is_waited_for_as_long_as_for_a_connection(answers: tuple[bytes, ...]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(answers))
        await reader.read()

    assert reason(opened(serve, timeout=0.2)) == "no connection within 0.2 s (server_connect_timeout)."


@pytest.mark.parametrize("mode", [TlsMode.PREFER, TlsMode.REQUIRE])
def test_a_server_that_does_not_offer_tls_is_taken_only_where_that_is_enough(mode: TlsMode) -> None:
    asking = opened(saying(b"N"), mode)
    if mode is TlsMode.PREFER:
        assert asking.port is not None
        assert asking.port.encryption is None
    else:
        assert reason(asking) == "the server does not offer TLS, which mode require demands."


def test_after_a_handshake_that_failed_mode_prefer_connects_once_more_without() -> None:
    connections: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(await reader.read(8))
        if connections[-1] == SSL_REQUEST:
            writer.write(b"Sno handshake at all")

    async def body(connector: Connector, port: int) -> None:
        asking = Asking(backend(port, TlsMode.PREFER))
        connector.open(asking)  # type: ignore[arg-type]
        await asking.answered.wait()
        assert asking.port is not None
        assert asking.port.encryption is None
        asking.port.write_all(b"startup!")
        while len(connections) < 2:
            await asyncio.sleep(0)

    run(serve, body, TlsMode.PREFER)
    assert connections == [SSL_REQUEST, b"startup!"]


def test_a_reload_that_changes_how_a_server_is_reached_ends_what_was_on_its_way_to_it() -> None:
    """The pool hears of it, so that no place in it stays taken."""

    async def body(connector: Connector, port: int) -> Asking:
        asking = Asking(backend(port, TlsMode.PREFER))
        connector.open(asking)  # type: ignore[arg-type]
        connector.tls = {}
        await asking.answered.wait()
        return asking

    assert reason(run(honest, body, TlsMode.PREFER)) == "its section tls was changed by a reload."


# -- cancel ------------------------------------------------------------------------------------------------------------

REQUEST = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\7key!"
ENDS = {"close_notify": True, "cut off": True, "answered": False, "no TLS any more": False}


@pytest.mark.parametrize("way", ENDS)
def test_a_cancel_request_goes_encrypted_where_its_connection_is(way: str) -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = not requests
        requests.append(await reader.readexactly(8))
        if not first and way == "no TLS any more":
            writer.write(b"N")
            requests.append(await reader.read())
            return
        writer.write(b"S")
        await writer.start_tls(client_context(ClientTls(**SHOWN.keys)).context)
        if first:
            await reader.read()
            return
        requests.append(await reader.readexactly(16))
        if way == "cut off":
            secured = writer.transport.get_extra_info("socket")
            secured.shutdown(2)
        elif way == "answered":
            writer.write(b"E")
            await writer.drain()
            await reader.read()

    async def body(connector: Connector, port: int) -> bool:
        asking = Asking(backend(port, TlsMode.VERIFY_FULL))
        connector.open(asking)  # type: ignore[arg-type]
        await asking.answered.wait()
        assert asking.port is not None
        settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        connector.cancel(Serving(asking.port), lambda orderly, now: settled.set_result(orderly))  # type: ignore[arg-type]
        return await settled

    assert run(serve, body, TlsMode.VERIFY_FULL) is ENDS[way]
    assert requests[:2] == [SSL_REQUEST, SSL_REQUEST]
    assert requests[2:] == ([b""] if way == "no TLS any more" else [REQUEST])
