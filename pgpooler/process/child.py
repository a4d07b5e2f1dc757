"""A worker as the supervisor sees it: a process that was exec'd, its control channel, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from pgpooler.config.model import Configuration
from pgpooler.process import control

START_TIMEOUT: Final = 30.0
"""Seconds a worker may take from its start to Ready."""

RELOAD_TIMEOUT: Final = 30.0
PAUSE_TIMEOUT: Final = 30.0
"""Seconds a worker may take to answer a reload."""

DRAIN_GRACE: Final = 5.0
"""Seconds a worker may take beyond drain_timeout before it is stopped."""

EXIT_TIMEOUT: Final = 5.0
"""Seconds a worker may take to end after it said that nobody is served any more, or was told to stop."""

WORKER_MODULE: Final = "pgpooler.process.worker"

logger = logging.getLogger(__name__)


class WorkerProcess:
    """A running worker; make one with `start`.  `exited` is done, with the return code, when the process has ended."""

    def __init__(self, process: asyncio.subprocess.Process, channel: control.Channel) -> None:
        self.channel = channel
        self._process = process
        self.exited = asyncio.get_running_loop().create_task(self._wait(), name=f"worker {process.pid}")

    @classmethod
    async def start(
        cls,
        descriptors: Sequence[int],
        on_log: Callable[[control.LogRecord], None],
        module: str = WORKER_MODULE,
    ) -> WorkerProcess:
        """Exec a worker that inherits the listening sockets `descriptors`.

        It gets a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone.
        """
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = await control.Channel.open(ours, on_log=on_log)
        with its:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    module,
                    "--control-fd",
                    str(its.fileno()),
                    "--listen-fds",
                    ",".join(str(descriptor) for descriptor in descriptors),
                    env=_environment(),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(its.fileno(), *descriptors),
                    start_new_session=True,
                )
            except BaseException:
                await channel.close()
                raise
        return cls(process, channel)

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.pid} {self.channel!r}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def serve(self, configuration: Configuration, mock_secret: bytes, *, paused: bool = False) -> control.Ready:
        """Let it serve, or wait `paused`; ControlError or TimeoutError when it cannot."""
        start = control.Start(configuration=configuration, mock_secret=mock_secret, paused=paused)
        return await self.channel.call(start, control.Ready, START_TIMEOUT)

    async def reload(self, configuration: Configuration) -> control.Reloaded:
        """Hand it another configuration; ControlError or TimeoutError when it cannot take it."""
        return await self.channel.call(control.Reload(configuration=configuration), control.Reloaded, RELOAD_TIMEOUT)

    async def pause(self) -> control.Paused:
        """Let it lease no server connection any more; ControlError or TimeoutError when it does not answer."""
        return await self.channel.call(control.Pause(), control.Paused, PAUSE_TIMEOUT)

    async def resume(self) -> control.Resumed:
        """Let it go on; ControlError or TimeoutError when it does not answer."""
        return await self.channel.call(control.Resume(), control.Resumed, PAUSE_TIMEOUT)

    async def drain(self, timeout: float) -> control.Drained:
        """Let transactions end for `timeout` seconds (0: as long as they take) and wait until it has ended."""
        limit = timeout + DRAIN_GRACE if timeout else None
        drained = await self.channel.call(control.Drain(timeout=timeout), control.Drained, limit)
        await self._ended(EXIT_TIMEOUT)
        return drained

    async def stop(self, *, immediately: bool) -> None:
        """Tell it to end; after EXIT_TIMEOUT seconds (1 when `immediately`) it is killed."""
        with suppress(control.ChannelClosed):
            await self.channel.send(control.Stop(immediately=immediately))
        try:
            await self._ended(1.0 if immediately else EXIT_TIMEOUT)
        except TimeoutError:
            logger.warning("worker %d does not end; it is killed", self.pid)
            self.kill()
            await asyncio.shield(self.exited)

    def kill(self) -> None:
        """End it by SIGKILL, when it has not ended yet."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _ended(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await asyncio.shield(self.exited)

    async def _wait(self) -> int:
        """Wait for the end of the process; one whose channel has ended gets EXIT_TIMEOUT seconds to follow."""
        listening = asyncio.create_task(self._listen())
        ending = asyncio.create_task(self._process.wait())
        await asyncio.wait({listening, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await asyncio.wait({ending}, timeout=EXIT_TIMEOUT)
        if not ending.done():
            logger.error("worker %d lost its control channel (%s); it is killed", self.pid, self.channel.closed_by)
            self.kill()
        status = await ending
        await asyncio.wait({listening}, timeout=1.0)  # its last log records are still in the socket
        await self.channel.close()
        await listening
        return status

    async def _listen(self) -> None:
        """Read until the channel ends.  Log records and answers are taken before they get here; nothing else is due."""
        async for request in self.channel:
            logger.warning("worker %d sent an unexpected %s", self.pid, type(request.message).__name__)


def _environment() -> dict[str, str]:
    """The worker imports from where the supervisor does; -P keeps it from trying the current folder first."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


def describe_exit(status: int) -> str:
    """The way a process ended, in words: `exited with status 1`, `was ended by SIGKILL`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
