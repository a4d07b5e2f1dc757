"""The world outside for real: connecting, cancel requests, arithmetic in a thread."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pgpooler.config.model import Backend
from pgpooler.config.routing import Router
from pgpooler.errors import PeerError
from pgpooler.net.connector import Connector
from pgpooler.net.port import SocketPort
from pgpooler.net.relay import Relay
from pgpooler.pooling.backend_use import BackendUse
from pgpooler.pooling.deadlines import Deadlines
from pgpooler.pooling.port import Port
from tests.memory import configure
from tests.unit.net.fakes import reset

BACKEND = Backend(name="primary", host="127.0.0.1")


class Asking:
    """What the connector sees of a pool."""

    def __init__(self, backend: Backend, timeout: float = 15.0) -> None:
        (self.route,) = Router(configure(backends=(backend,), server_connect_timeout=timeout)).routes
        self.use = BackendUse(backend)
        self.port: Port | None = None
        self.error: PeerError | None = None
        self.answered = asyncio.Event()

    def connected(self, port: Port, now: float) -> None:
        self.port = port
        self.answered.set()

    def failed(self, error: PeerError, now: float) -> None:
        self.error = error
        self.answered.set()


class Serving:
    """What the connector sees of a server connection."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.pool = Asking(BACKEND)
        self.process_id = 7
        self.cancel_key = b"key!"


def scenario(body: Callable[[Connector, Relay], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        loop = asyncio.get_running_loop()
        relay = Relay(loop, Deadlines())
        connector = Connector(loop, relay)
        try:
            return await asyncio.wait_for(body(connector, relay), 30)
        finally:
            await connector.close()
            relay.close()

    return asyncio.run(run())


def opened(backend: Backend, timeout: float = 15.0) -> Asking:
    async def body(connector: Connector, relay: Relay) -> Asking:
        asking = Asking(backend, timeout)
        connector.open(asking)  # type: ignore[arg-type]
        await asking.answered.wait()
        return asking

    result = scenario(body)
    assert isinstance(result, Asking)
    return result


def test_a_connection_to_a_server_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        asking = opened(Backend(name="primary", host="127.0.0.1", port=port))
        assert asking.port is not None
        assert asking.port.peer == f"127.0.0.1:{port}"


def test_a_connection_over_a_unix_socket_is_made(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / ".s.PGSQL.5499"))
        listening.listen()
        asking = opened(Backend(name="primary", host=str(tmp_path), port=5499))
        assert asking.port is not None


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_a_server_that_is_not_there_is_reported_with_its_address() -> None:
    port = closed_port()
    error = opened(Backend(name="primary", host="127.0.0.1", port=port)).error
    assert error is not None
    assert error.sqlstate == "08006"
    assert error.detail == f"Backend primary (127.0.0.1:{port}): Connection refused."


def test_a_folder_without_a_socket_is_reported(tmp_path: Any) -> None:
    error = opened(Backend(name="primary", host=str(tmp_path))).error
    assert error is not None
    assert "No such file or directory" in (error.detail or "")


def test_a_name_that_does_not_exist_is_reported() -> None:
    error = opened(Backend(name="primary", host="no.such.name.invalid")).error
    assert error is not None
    assert "no.such.name.invalid" in (error.detail or "")


def test_a_name_that_can_be_none_is_reported() -> None:
    error = opened(Backend(name="primary", host="x" * 64 + ".example.org")).error
    assert error is not None
    assert "is no name" in (error.detail or "")


def cancel(answer: Callable[[socket.socket], None]) -> bool:
    """Send a cancel request to a server that answers like this; return whether that was orderly."""

    async def body(connector: Connector, relay: Relay) -> bool:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[bool] = loop.create_future()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ours = socket.create_connection(listening.getsockname())
            server_side, _ = listening.accept()
            ours.setblocking(False)
            port = relay.add(ours, "server")
            connector.cancel(Serving(port), lambda orderly, now: settled.set_result(orderly))  # type: ignore[arg-type]
            listening.setblocking(False)
            carrier, _ = await loop.sock_accept(listening)
            request = b""
            while len(request) < 16:
                request += await loop.sock_recv(carrier, 100)
            assert request == b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\7key!"
            answer(carrier)
            result = await settled
            carrier.close()
            server_side.close()
        assert isinstance(port, SocketPort)
        return result

    result = scenario(body)
    assert isinstance(result, bool)
    return result


def test_a_cancel_request_that_ends_with_the_servers_close_is_settled() -> None:
    assert cancel(socket.socket.close)


def test_a_cancel_request_that_is_reset_is_not_settled() -> None:
    assert not cancel(reset)


def test_a_cancel_request_that_is_answered_is_not_settled() -> None:
    assert not cancel(lambda carrier: carrier.sendall(b"E"))


def test_a_cancel_request_for_a_connection_that_is_closed_is_not_settled() -> None:
    async def body(connector: Connector, relay: Relay) -> bool:
        settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        port = relay.add(ours, "server")
        connector.cancel(Serving(port), lambda orderly, now: settled.set_result(orderly))  # type: ignore[arg-type]
        port.close()
        theirs.close()
        return await settled

    assert scenario(body) is False


@pytest.mark.parametrize("fails", [False, True])
def test_arithmetic_is_done_in_a_thread_and_its_failure_is_a_result(fails: bool) -> None:
    async def body(connector: Connector, relay: Relay) -> object:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        connector.compute(lambda: 1 // (0 if fails else 1), lambda result, now: done.set_result(result))
        return await done

    result = scenario(body)
    assert isinstance(result, ZeroDivisionError) if fails else result == 1


def test_a_bug_in_an_answer_is_reported_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async def body(connector: Connector, relay: Relay) -> object:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def broken(result: object, now: float) -> None:
            raise RuntimeError("a bug")

        connector.compute(int, broken)
        connector.compute(int, lambda result, now: done.set_result(result))
        return await done

    assert scenario(body) == 0
    assert "internal error" in caplog.text


def test_a_pool_whose_login_cannot_begin_hears_of_an_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Asking):
        def connected(self, port: Port, now: float) -> None:
            super().connected(port, now)
            raise RuntimeError("a bug")

    async def body(connector: Connector, relay: Relay) -> Asking:
        asking = Broken(Backend(name="primary", host="127.0.0.1", port=listening.getsockname()[1]))
        connector.open(asking)  # type: ignore[arg-type]
        await asking.answered.wait()
        assert not relay.ports
        return asking

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asking = scenario(body)
    assert asking.error is not None
    assert asking.error.sqlstate == "XX000"
    assert "a bug" in caplog.text


def test_a_bug_on_the_way_to_a_server_is_reported_to_its_pool_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a place in the pool would stay taken for ever."""

    async def broken(connector: Connector, place: object) -> socket.socket:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Connector, "_connect_to", broken)
    error = opened(BACKEND).error
    assert error is not None
    assert (error.sqlstate, error.message) == ("XX000", "internal error")
    assert "a bug" in caplog.text


def test_lines_about_sessions_carry_their_number(caplog: pytest.LogCaptureFixture) -> None:
    async def body(connector: Connector, relay: Relay) -> None:
        with caplog.at_level(logging.INFO, "pgpooler.sessions"):
            connector.log("info", 42, "closed")
            connector.log("debug", 43, "not shown")

    scenario(body)
    assert [(record.getMessage(), record.__dict__["session"]) for record in caplog.records] == [("closed", 42)]


def test_what_is_under_way_ends_with_the_connector() -> None:
    async def body(connector: Connector, relay: Relay) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ours = socket.create_connection(listening.getsockname())
            ours.setblocking(False)
            port = relay.add(ours, "server")
            connector.cancel(Serving(port), lambda orderly, now: None)  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await connector.close()

    scenario(body)
