"""A worker: the data plane, put together and run as the supervisor says.

Started by the supervisor as `python -m pgpooler.process.worker --control-fd N --listen-fds 5,6`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from pgpooler.config.model import Configuration
from pgpooler.config.tls_files import Contexts
from pgpooler.errors import ConfigurationError
from pgpooler.implementation import description
from pgpooler.net.connector import Connector
from pgpooler.net.listener import Listener
from pgpooler.net.relay import Relay
from pgpooler.pooling.access import Access
from pgpooler.pooling.deadlines import Deadlines
from pgpooler.pooling.service import Service
from pgpooler.process import control, logs

LOOK_INTERVAL = 0.05  # seconds between two looks at whether everybody has gone
FAREWELL = 3.0  # seconds in which the last words to clients may go out
SUPERVISORS_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that whole groups of processes get: the supervisor decides, and tells the worker over the channel."""

logger = logging.getLogger("pgpooler.worker")


class DataPlane:
    """Poller, sessions, pools and listeners of one process.  Must be made inside a running event loop."""

    def __init__(
        self, configuration: Configuration, listening: Sequence[socket.socket], mock_secret: bytes = b""
    ) -> None:
        """Take over listening sockets.  Raises ConfigurationError for a configuration this version cannot run."""
        loop = asyncio.get_running_loop()
        contexts = Contexts.of(configuration)
        deadlines = Deadlines()
        self.relay = Relay(loop, deadlines)
        self.connector = Connector(loop, self.relay)
        self._use(contexts)
        access = Access(configuration.auth, mock_secret=mock_secret or None)
        self.service = Service(configuration, access, self.connector, deadlines)
        self.listeners = [Listener(loop, self.relay, self.service, one) for one in listening]

    async def reload(self, configuration: Configuration) -> None:
        """Go on with another configuration.  Raises ConfigurationError, and then nothing has changed."""
        previous = self.service.access
        loop = asyncio.get_running_loop()
        access = await loop.run_in_executor(None, lambda: Access(configuration.auth, previous=previous))
        contexts = await loop.run_in_executor(None, lambda: Contexts.of(configuration))
        self.service.reload(configuration, access, self.relay.clock())
        self._use(contexts)
        self.relay.rearm()

    def _use(self, contexts: Contexts) -> None:
        """Shake hands with these from now on; connections that stand keep what was agreed on."""
        self.relay.tls = contexts.clients
        self.connector.tls = contexts.backends

    def pause(self) -> int:
        """Lease no server connection any more; return how many are still in use."""
        in_use = self.service.pools.pause(self.relay.clock())
        self.relay.rearm()
        return in_use

    def resume(self) -> None:
        """Serve those who wait, and go on."""
        self.service.pools.resume(self.relay.clock())
        self.relay.rearm()

    async def drain(self, timeout: float) -> int:
        """Accept nobody, wait until the clients have gone or `timeout` seconds are over (0: no limit), then stop."""
        self.close_listeners()
        self.service.drain()
        over = self.relay.clock() + timeout
        while self.service.clients and (not timeout or self.relay.clock() < over):
            await asyncio.sleep(LOOK_INTERVAL)
        return await self.stop()

    async def stop(self) -> int:
        """Tell all clients that it is over, and end; return how many had to be told."""
        self.close_listeners()
        closed = self.service.close_clients(self.relay.clock())
        over = self.relay.clock() + FAREWELL
        while any(port.queue for port in self.relay.ports) and self.relay.clock() < over:
            self.relay.rearm()
            await asyncio.sleep(LOOK_INTERVAL)
        await self.close()
        return closed

    async def close(self) -> None:
        """End at once."""
        self.close_listeners()
        self.service.close_servers(self.relay.clock())
        await self.connector.close()
        self.relay.close()

    def close_listeners(self) -> None:
        """Accept nobody any more."""
        for listener in self.listeners:
            listener.close()


class Worker:
    """Does what the supervisor asks until it says stop, or is gone."""

    def __init__(self, channel: control.Channel, listening: Sequence[socket.socket]) -> None:
        self._channel = channel
        self._listening = listening
        self._data_plane: DataPlane | None = None

    async def run(self) -> None:
        """Serve until told to end."""
        async for request in self._channel:
            if await self._handle(request, request.message):
                return
        logger.error("the supervisor is gone: %s", self._channel.closed_by)
        if self._data_plane is not None:
            await self._data_plane.close()

    async def _handle(self, request: control.Request, message: control.Message) -> bool:
        """Do what one message asks; return whether it was the last."""
        data_plane = self._data_plane
        if isinstance(message, control.Start):
            await request.answer(self._start(message))
        elif data_plane is None:
            await request.answer(control.Failed(message="the worker has not been started"))
        elif isinstance(message, control.Reload):
            await request.answer(await _reload(data_plane, message.configuration))
        elif isinstance(message, control.Pause):
            await request.answer(control.Paused(in_use=data_plane.pause()))
        elif isinstance(message, control.Resume):
            data_plane.resume()
            await request.answer(control.Resumed())
        elif isinstance(message, control.SnapshotRequest):
            await request.answer(control.Snapshot(values=data_plane.service.snapshot()))
        elif isinstance(message, control.Drain):
            return await self._drain(data_plane, request, message.timeout)
        elif isinstance(message, control.Stop):
            await (data_plane.close() if message.immediately else data_plane.stop())
            return True
        return False

    def _start(self, start: control.Start) -> control.Message:
        if self._data_plane is not None:
            return control.Failed(message="the worker has been started already")
        logs.set_level(start.configuration.logging.level)
        try:
            self._data_plane = DataPlane(start.configuration, self._listening, start.mock_secret)
        except ConfigurationError as error:
            return control.Failed(message=str(error))
        if start.paused:
            self._data_plane.pause()
        return control.Ready(implementation=description(), event_loop=event_loop_name())

    async def _drain(self, data_plane: DataPlane, request: control.Request, timeout: float) -> bool:
        """Drain, and meanwhile listen for a more urgent order."""
        draining = asyncio.ensure_future(data_plane.drain(timeout))
        while not draining.done():
            order = asyncio.ensure_future(self._channel.receive())
            await asyncio.wait({draining, order}, return_when=asyncio.FIRST_COMPLETED)
            if not order.done():
                order.cancel()
                continue
            if order.exception() is not None or isinstance(order.result().message, control.Stop):
                draining.cancel()
                await asyncio.wait({draining})
                immediately = order.exception() is not None or getattr(order.result().message, "immediately", False)
                await (data_plane.close() if immediately else data_plane.stop())
                return True
            await order.result().answer(control.Failed(message="the worker is draining"))
        await request.answer(control.Drained(closed=draining.result()))
        return True


async def _reload(data_plane: DataPlane, configuration: Configuration) -> control.Message:
    try:
        await data_plane.reload(configuration)
    except ConfigurationError as error:
        return control.Failed(message=str(error))
    logs.set_level(configuration.logging.level)
    return control.Reloaded()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed; asyncio's own loop serves as well."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def event_loop_name() -> str:
    """Name the running event loop, with its version."""
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        return f"uvloop {version('uvloop')}"
    return "asyncio"


def allow_many_files() -> None:
    """Raise the number of descriptors this process may have as far as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(control_descriptor: int, listen_descriptors: Sequence[int]) -> None:
    """Run a worker over these descriptors."""
    channel = await control.Channel.open(control_descriptor)
    handler = logs.ChannelHandler(channel)
    logging.getLogger().addHandler(handler)
    try:
        await Worker(channel, [socket.socket(fileno=descriptor) for descriptor in listen_descriptors]).run()
    except Exception:
        logger.exception("the worker ends because of an error of its own")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        await channel.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser(prog="pgpooler.process.worker", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True, help="socket to the supervisor")
    parser.add_argument("--listen-fds", required=True, help="listening sockets, separated by commas")
    options = parser.parse_args(arguments)
    for number in SUPERVISORS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    allow_many_files()
    descriptors = [int(number) for number in options.listen_fds.split(",") if number]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(options.control_fd, descriptors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
