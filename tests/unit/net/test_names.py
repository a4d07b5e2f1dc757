"""Looking up names: addresses need no lookup, a name is looked up once at a time."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from pgpooler.net import names
from pgpooler.net.names import Names


class Lookups:
    """Stands in for the system's lookup, which answers when it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        monkeypatch.setattr(names, "_look_up", self.look_up)

    def look_up(self, host: str, port: int, flags: int = 0) -> list[tuple[int, Any]]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        self.asked.append(host)
        self.go.wait(20)
        if host == "missing":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, ("127.0.0.1", port))]


def test_an_address_needs_no_lookup() -> None:
    found = asyncio.run(asyncio.wait_for(_addresses("127.0.0.1"), 20))
    assert found == [(socket.AF_INET, ("127.0.0.1", 5432))]


async def _addresses(host: str) -> list[tuple[int, Any]]:
    return await Names(asyncio.get_running_loop()).addresses(host, 5432)


def test_a_name_is_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = Lookups(monkeypatch)

    async def scenario() -> None:
        known = Names(asyncio.get_running_loop())
        waiting = [asyncio.ensure_future(known.addresses("pg1", 5432)) for _ in range(3)]
        await asyncio.sleep(0)
        lookups.go.set()
        assert await asyncio.gather(*waiting) == [[(socket.AF_INET, ("127.0.0.1", 5432))]] * 3
        await known.addresses("pg1", 5432)

    asyncio.run(scenario())
    assert lookups.asked == ["pg1", "pg1"], "once for three at a time, and again later"


def test_who_loses_patience_leaves_the_lookup_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """W22: a slow lookup blocks nobody."""
    lookups = Lookups(monkeypatch)

    async def scenario() -> None:
        known = Names(asyncio.get_running_loop())
        impatient, patient = (asyncio.ensure_future(known.addresses("pg1", 5432)) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        lookups.go.set()
        assert await patient

    asyncio.run(scenario())


def test_a_name_that_does_not_exist_is_an_error_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = Lookups(monkeypatch)

    async def scenario() -> list[object]:
        known = Names(asyncio.get_running_loop())
        waiting = [asyncio.ensure_future(known.addresses("missing", 5432)) for _ in range(2)]
        await asyncio.sleep(0)
        lookups.go.set()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    assert all(isinstance(error, OSError) for error in asyncio.run(scenario()))
