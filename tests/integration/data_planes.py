"""The data plane of PgPooler inside the test process, in a thread with its own event loop: its counts can be seen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pgpooler.config.load import load
from pgpooler.process.worker import DataPlane, loop_factory
from tests.integration.wire import Address, Wire

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that something may take to come about before a test fails: far beyond what anything here takes."""
INTERVAL = 0.01


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    wait_until_gone(lambda: not condition())


def wait_until_gone(remaining: Callable[[], object]) -> None:
    """Wait until nothing remains (until the value is false); fail with what still does."""
    deadline = time.monotonic() + PATIENCE
    while left := remaining():
        assert time.monotonic() < deadline, f"still there: {left!r}"
        time.sleep(INTERVAL)


class RunningDataPlane:
    """A data plane that listens on `address`."""

    def __init__(self, configuration: Mapping[str, Any], directory: Path) -> None:
        path = directory / "pgpooler.yaml"
        path.write_text(yaml.safe_dump(dict(configuration), sort_keys=False), encoding="utf-8")
        self._configuration = load(path).configuration
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: Address = listening.getsockname()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._data_plane: DataPlane
        self.records: list[logging.LogRecord] = []
        self._thread = threading.Thread(target=self._run, args=(listening,), name="data plane")
        self._thread.start()
        self._started.wait(PATIENCE)
        if self._failure is not None:
            raise self._failure

    def _run(self, listening: socket.socket) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(listening))
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._data_plane = DataPlane(self._configuration, [listening])
        handler = _Recorder(self.records)
        logger = logging.getLogger("pgpooler")
        logger.addHandler(handler)
        self._started.set()
        try:
            await self._stop.wait()
            await self._data_plane.close()
        finally:
            logger.removeHandler(handler)

    @property
    def port(self) -> int:
        return self.address[1]

    def wire(self, **parameters: Any) -> Wire:
        """A raw connection to it."""
        return Wire(self.address, **parameters)

    def inside(self, work: Callable[[DataPlane], T]) -> T:
        """What `work` returns when it is called with the data plane in its own thread."""

        async def call() -> T:
            return work(self._data_plane)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def snapshot(self) -> dict[str, Any]:
        """The counts of everything."""
        return self.inside(lambda data_plane: data_plane.service.snapshot())

    def leftovers(self) -> dict[str, Any]:
        """Every count that is not what it must be when no client is there: nothing but idle server connections."""

        def count(data_plane: DataPlane) -> dict[str, Any]:
            snapshot: dict[str, Any] = data_plane.service.snapshot()
            idle = sum(pool["idle"] for pool in snapshot["pools"])
            counts = {name: snapshot[name] for name in ("clients", "admitted", "waiting", "cancel_keys")}
            for pool in snapshot["pools"]:
                counts |= {f"{pool['name']} {name}": pool[name] for name in ("in_use", "opening", "waiting")}
            counts["server connections that are not idle"] = (
                sum(backend["server_connections"] for backend in snapshot["backends"]) - idle
            )
            counts["questions"] = sum(lookups["questions"] for lookups in snapshot["auth_queries"])
            idle += sum(lookups["server_connections"] for lookups in snapshot["auth_queries"])
            counts["open sockets"] = len(data_plane.relay.ports) - idle
            counts["watched descriptors"] = len(data_plane.relay.poller) - idle
            return {name: number for name, number in counts.items() if number}

        return self.inside(count)

    def idle(self) -> int:
        """How many server connections lie idle in the pools."""
        return sum(pool["idle"] for pool in self.snapshot()["pools"])

    def wait_until_unused(self) -> None:
        """Wait until nothing is left of any client."""
        wait_until_gone(self.leftovers)

    def bugs(self) -> list[str]:
        """What it logged as an error of its own."""
        return [record.getMessage() + f" {record.exc_info}" for record in self.records if record.exc_info]

    def stop(self) -> None:
        """Stop it; it must have nothing left of any client, and must not have met a bug of its own."""
        try:
            with contextlib.suppress(RuntimeError):
                self.wait_until_unused()
            assert self.bugs() == []
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)
        assert self._failure is None, self._failure


class _Recorder(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


class DataPlaneFactory:
    """Starts data planes for one test (or module) and stops them all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[RunningDataPlane] = []

    def __call__(self, configuration: Mapping[str, Any]) -> RunningDataPlane:
        """Start one with this configuration, as it would stand in pgpooler.yaml."""
        data_plane = RunningDataPlane(configuration, self._directory)
        self._started.append(data_plane)
        return data_plane

    def stop(self) -> None:
        """Stop every one; each must have come back to base."""
        with contextlib.ExitStack() as stack:
            for data_plane in self._started:
                stack.callback(data_plane.stop)
