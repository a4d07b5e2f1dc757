"""A server that refuses the login is asked again with TLS in mode allow, without in mode prefer (libpq-connect)."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import TlsMode
from pgpooler.config.model import Backend, BackendTls
from pgpooler.errors import PeerError
from pgpooler.pooling.port import Encryption
from pgpooler.protocol import messages
from tests.memory import MemoryPort
from tests.scripted import Client, Setting

TLS = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384")
NO_ENTRY = "28000"
WRONG_PASSWORD = "28P01"


def waiting(mode: TlsMode) -> tuple[Setting, Client]:
    """A client for whom a connection is being opened to a backend with this mode; the test is the server."""
    setting = Setting(backends=(Backend(name="primary", host="pg1", tls=BackendTls(mode=mode)),))
    setting.world.serve = None
    setting.world.hold_opens = True
    return setting, setting.client()


def answer(setting: Setting, encryption: Encryption | None, sqlstate: str) -> MemoryPort:
    """The connection stands, and the server refuses the login."""
    port = setting.world.answer_open()
    assert port is not None
    port.encryption = encryption
    port.say(messages.error_response(PeerError("refused", sqlstate=sqlstate)))
    setting.world.settle()
    setting.world.check_limits()
    assert port.closed
    return port


@pytest.mark.parametrize(("mode", "first", "second"), [(TlsMode.ALLOW, None, TLS), (TlsMode.PREFER, TLS, None)])
def test_the_other_way_is_tried_once_and_its_error_is_told(
    mode: TlsMode, first: Encryption | None, second: Encryption | None
) -> None:
    setting, client = waiting(mode)
    world = setting.world
    answer(setting, first, NO_ENTRY)
    assert len(world.opening) == 1
    assert setting.sizes == (0, 0, 1, 1), "its place is kept"
    assert not client.over
    answer(setting, second, NO_ENTRY)
    assert client.over
    assert world.opening == []
    assert world.counts()["used"] == 0


@pytest.mark.parametrize(("mode", "first"), [(TlsMode.ALLOW, None), (TlsMode.PREFER, TLS)])
def test_the_other_way_serves_the_client(mode: TlsMode, first: Encryption | None) -> None:
    setting, client = waiting(mode)
    answer(setting, first, NO_ENTRY)
    setting.cluster.attach(setting.world)
    setting.world.hold_opens = False
    setting.world.settle()
    assert client.logged_in
    setting.leave(client)
    assert setting.world.counts()["waiting"] == 0


@pytest.mark.parametrize(
    ("mode", "first", "sqlstate"),
    [
        (TlsMode.ALLOW, None, WRONG_PASSWORD),
        (TlsMode.PREFER, TLS, WRONG_PASSWORD),
        (TlsMode.PREFER, None, NO_ENTRY),
        (TlsMode.ALLOW, TLS, NO_ENTRY),
        (TlsMode.DISABLE, None, NO_ENTRY),
        (TlsMode.REQUIRE, TLS, NO_ENTRY),
        (TlsMode.VERIFY_FULL, TLS, NO_ENTRY),
    ],
)
def test_otherwise_a_refusal_is_final(mode: TlsMode, first: Encryption | None, sqlstate: str) -> None:
    """A password that is wrong is wrong either way, and nobody else must hear it."""
    setting, client = waiting(mode)
    answer(setting, first, sqlstate)
    assert setting.world.opening == []
    assert client.over


def test_a_pool_that_is_no_longer_configured_does_not_try_again() -> None:
    setting, _ = waiting(TlsMode.PREFER)
    world = setting.world
    port = world.answer_open()
    assert port is not None
    port.encryption = TLS
    pool = world.pool
    world.reload(Setting(backends=(Backend(name="primary", host="pg2"),)).world.service.configuration)
    assert pool.retired
    moved = len(world.opening)
    port.say(messages.error_response(PeerError("refused", sqlstate=NO_ENTRY)))
    world.settle()
    assert len(world.opening) == moved
