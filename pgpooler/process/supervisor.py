"""The supervisor: `pgpooler run`.  It owns the listening sockets, the signals, the log file and the worker.

It is small on purpose and uses the standard library's event loop alone: what can break is in the worker, and a worker
that breaks is replaced, with the same listening sockets, so that the clients waiting in their queues are served by the
next one.

    SIGHUP   read the configuration again; open the log file again
    SIGTERM  drain: accept nobody, let transactions end for `drain_timeout`, then end.  Again: fast
    SIGINT   fast: tell the clients (57P01) and end
    SIGQUIT  end at once
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import secrets
import signal
import sys
import time
from typing import Any, Final

import msgspec

from pgpooler import __version__
from pgpooler.config.diff import RESTART, difference
from pgpooler.config.load import Loaded, load
from pgpooler.config.model import Configuration
from pgpooler.errors import ConfigurationError, PgPoolerError
from pgpooler.process import control, logs
from pgpooler.process.child import WORKER_MODULE, WorkerProcess, describe_exit
from pgpooler.process.notify import Notifier, passed_sockets
from pgpooler.process.sockets import ListenError, Listeners

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2

FIRST_BACKOFF: Final = 0.1
LONGEST_BACKOFF: Final = 10.0
SETTLED: Final = 30.0
"""Seconds a worker must have served before its death is again followed by a restart without delay."""

logger = logging.getLogger(__name__)


class Ending(enum.IntEnum):
    """How the service is to end, in rising urgency."""

    NOT = 0
    DRAIN = 1
    FAST = 2
    AT_ONCE = 3


ENDING_BY_SIGNAL: Final = {
    signal.SIGTERM: Ending.DRAIN,
    signal.SIGINT: Ending.FAST,
    signal.SIGQUIT: Ending.AT_ONCE,
}
PAUSED_BY_SIGNAL: Final = {signal.SIGUSR1: True, signal.SIGUSR2: False}
"""As in PgBouncer: pause, resume."""

SIGNALS: Final = (*ENDING_BY_SIGNAL, *PAUSED_BY_SIGNAL, signal.SIGHUP)
ENDING_WORDS: Final = {
    Ending.DRAIN: "draining: nobody is accepted, transactions may end",
    Ending.FAST: "stopping: clients are told and disconnected",
    Ending.AT_ONCE: "stopping at once",
}


class StartFailed(PgPoolerError):
    """A worker could not begin to serve."""


class Supervisor:
    """Runs the service until a signal ends it.  `path` is the main configuration file."""

    def __init__(
        self, path: str, configuration: Configuration, listeners: Listeners, worker_module: str = WORKER_MODULE
    ) -> None:
        self.path = path
        self.worker_module = worker_module
        self.configuration = configuration
        self.listeners = listeners
        self.worker: WorkerProcess | None = None
        self.ending = Ending.NOT
        self._notifier = Notifier()
        self._mock_secret = secrets.token_bytes(32)
        self._ending_changed = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self.paused = False
        self._paused_changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Supervisor {self.ending.name} {self.worker!r}>"

    async def run(self) -> int:
        """Serve until a signal says otherwise; the exit status."""
        loop = asyncio.get_running_loop()
        for number in ENDING_BY_SIGNAL:
            loop.add_signal_handler(number, self._end, number)
        for number, paused in PAUSED_BY_SIGNAL.items():
            loop.add_signal_handler(number, self._pause, paused)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        keeper = loop.create_task(self._keep_worker(), name="keep the worker")
        reloader = loop.create_task(self._reload_when_wanted(), name="reload")
        pauser = loop.create_task(self._pause_when_wanted(), name="pause and resume")
        ending = loop.create_task(self._ending_changed.wait())
        try:
            await asyncio.wait({keeper, ending}, return_when=asyncio.FIRST_COMPLETED)
            if keeper.done():
                await keeper
            await _cancel(keeper, reloader, pauser)
            return await self._end_worker()
        except StartFailed as error:
            _tell(f"PgPooler cannot start: {error}", logging.ERROR)
            return EXIT_FAILED
        finally:
            await _cancel(keeper, reloader, pauser, ending)
            self.listeners.close()
            if self.worker is not None:
                self.worker.kill()

    def _end(self, number: signal.Signals) -> None:
        wanted = ENDING_BY_SIGNAL[number]
        if wanted is Ending.DRAIN and self.ending is Ending.DRAIN:
            wanted = Ending.FAST
        if wanted > self.ending:
            self.ending = wanted
            logger.info("%s: %s", number.name, ENDING_WORDS[wanted])
            self._notifier.stopping(ENDING_WORDS[wanted])
            self._ending_changed.set()

    def _pause(self, paused: bool) -> None:
        self.paused = paused
        self._paused_changed.set()

    async def _pause_when_wanted(self) -> None:
        """Tell the worker what the last signal said; one that starts meanwhile is told at its start."""
        while True:
            await self._paused_changed.wait()
            self._paused_changed.clear()
            worker, paused = self.worker, self.paused
            try:
                if worker is None or worker.exited.done():
                    logger.info("%s as soon as a worker serves", "paused" if paused else "resumed")
                elif paused:
                    in_use = (await worker.pause()).in_use
                    logger.info("paused: clients wait; %s still in use", _count(in_use, "server connection"))
                else:
                    await worker.resume()
                    logger.info("resumed")
            except (control.ControlError, TimeoutError) as error:
                logger.error("the worker could not be told: %s", str(error) or "it does not answer")
            self._notifier.status("paused" if paused else f"listening on {', '.join(self.listeners.addresses)}")

    async def _keep_worker(self) -> None:
        """Keep one worker running, for ever; StartFailed when the very first cannot serve."""
        first, backoff = True, 0.0
        while True:
            started = time.monotonic()
            try:
                reason = await self._run_worker(first=first)
                first = False
            except StartFailed as error:
                if first:
                    raise
                reason = str(error)
            if time.monotonic() - started > SETTLED:
                backoff = 0.0
            logger.error("%s; another one starts in %.1f s", reason, backoff)
            self._notifier.status(f"{reason}; restarting it")
            await asyncio.sleep(backoff)
            backoff = min(max(backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)

    async def _run_worker(self, *, first: bool) -> str:
        """Run one worker to its end and say how it ended; StartFailed when it does not even begin to serve."""
        try:
            descriptors = self.listeners.descriptors()
            self.worker = worker = await WorkerProcess.start(descriptors, logs.write, self.worker_module)
        except OSError as error:
            raise StartFailed(f"the worker cannot be executed: {error}") from error
        try:
            ready = await worker.serve(self.configuration, self._mock_secret, paused=self.paused)
        except (control.ControlError, TimeoutError) as error:
            if not isinstance(error, control.ChannelClosed):
                worker.kill()
            status = await asyncio.shield(worker.exited)
            if isinstance(error, control.ChannelClosed):
                raise StartFailed(f"worker {worker.pid} {describe_exit(status)} before it served") from error
            raise StartFailed(str(error) or f"worker {worker.pid} did not get ready in time") from error
        self._announce(worker, ready, first=first)
        status = await asyncio.shield(worker.exited)
        return f"worker {worker.pid} {describe_exit(status)}"

    def _announce(self, worker: WorkerProcess, ready: control.Ready, *, first: bool) -> None:
        details = ", ".join(filter(None, [ready.implementation, ready.event_loop])) or "ready"
        logger.info("worker %d serves (%s)", worker.pid, details)
        addresses = ", ".join(self.listeners.addresses)
        self._notifier.ready(f"listening on {addresses}")
        if first:
            _tell(f"PgPooler {__version__} listens on {addresses}; process {os.getpid()}")
            _tell(f"connect with: {self._connect_example()}")
            if path := logs.file_path():
                _tell(f"log file: {path}")

    def _connect_example(self) -> str:
        user = next(iter(self.configuration.auth.users), "USER")
        host, _, port = self.listeners.addresses[0].rpartition(":")
        if host in ("0.0.0.0", "[::]"):  # noqa: S104 - compared, not bound
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
        if host.startswith("/") or not host:
            host, port = os.path.dirname(self.listeners.addresses[0]), str(self.configuration.listen.port)
        return f'psql "host={host.strip("[]")} port={port} user={user} dbname=DATABASE"'

    async def _end_worker(self) -> int:
        """End the worker as the signals ask, more urgently when another one asks for that; the exit status."""
        worker = self.worker
        self.listeners.close()  # the worker has its own copies; when it closes them, clients are refused at once
        if worker is None:
            return EXIT_OK
        while not worker.exited.done():
            self._ending_changed.clear()
            attempt = asyncio.create_task(self._ask_to_end(worker))
            changed = asyncio.create_task(self._ending_changed.wait())
            await asyncio.wait({attempt, changed}, return_when=asyncio.FIRST_COMPLETED)
            await _cancel(attempt, changed)
        status = worker.exited.result()
        if status and self.ending is not Ending.AT_ONCE:
            logger.error("worker %d %s", worker.pid, describe_exit(status))
            return EXIT_FAILED
        logger.info("PgPooler has ended")
        return EXIT_OK

    async def _ask_to_end(self, worker: WorkerProcess) -> None:
        if self.ending is Ending.DRAIN:
            try:
                drained = await worker.drain(self.configuration.timeouts.drain_timeout)
            except (control.ControlError, TimeoutError) as error:
                logger.warning("draining did not end: %s", str(error) or "the worker does not answer")
                self.ending = Ending.FAST
            else:
                logger.info("drained; %s had to be disconnected", _count(drained.closed, "client"))
                return
        await worker.stop(immediately=self.ending is Ending.AT_ONCE)

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            self._notifier.reloading()
            try:
                logs.reopen()
                await self._reload()
            except Exception:
                logger.exception("the reload failed; the configuration stays as it was")
            self._notifier.ready(f"listening on {', '.join(self.listeners.addresses)}")

    async def _reload(self) -> None:
        """Read the configuration again and go on with it, or say what is wrong and go on as before."""
        try:
            loaded = load(self.path)
            changes = difference(self.configuration, loaded.configuration)
            await self._apply(loaded)
        except ConfigurationError as error:
            _reject([str(problem) for problem in error.problems])
        except (control.ControlError, TimeoutError, OSError) as error:
            _reject([str(error) or "the worker did not answer in time"])
        else:
            for warning in loaded.warnings:
                logger.warning("%s", warning)
            for change in changes:
                logger.log(logging.WARNING if change.restart else logging.INFO, "configuration: %s", change)
            logger.info("the configuration is reloaded; %s", _count(len(changes), "change"))

    async def _apply(self, loaded: Loaded) -> None:
        """Hand a configuration to the worker and the log; nothing has changed when this raises."""
        kept = {section: getattr(self.configuration, section) for section in RESTART}
        new = msgspec.structs.replace(loaded.configuration, **kept)
        handler = None
        if new.logging != self.configuration.logging:
            handler = logs.open_handler(new.logging, at_start=False)
        try:
            if self.worker is not None and not self.worker.exited.done():
                reloaded = await self.worker.reload(new)
                for note in reloaded.notes:
                    logger.info("%s", note)
        except BaseException:
            if handler is not None:
                handler.close()
            raise
        self.configuration = new
        if handler is not None:
            logs.install(handler, new.logging.level)


def run(path: str, worker_module: str = WORKER_MODULE) -> int:
    """Run PgPooler with the configuration file `path` until a signal ends it; the exit status.

    0: ended as asked; 1: cannot listen, or the worker cannot serve; 2: the configuration is wrong.
    """
    try:
        loaded = load(path)
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_CONFIGURATION
    settings = loaded.configuration.logging
    # Whoever sees that we listen may send a signal at once: it waits until the event loop can take it.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # The log is opened second: with `append: false`, a second run by mistake would empty the log of the first.
        passed = passed_sockets()
        listeners = Listeners(passed) if passed else Listeners.open(loaded.configuration.listen)
        logs.install(logs.open_handler(settings), settings.level)
        if passed:
            logger.info("systemd passed %s; the section listen is not used", _count(len(passed), "socket"))
    except (ListenError, OSError) as error:
        print(f"PgPooler cannot start: {error}", file=sys.stderr)
        return EXIT_FAILED
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    try:
        return asyncio.run(Supervisor(path, loaded.configuration, listeners, worker_module).run())
    except Exception:
        logger.exception("PgPooler ends because of an error of its own")
        return EXIT_FAILED


def _tell(line: str, level: int = logging.INFO) -> None:
    """Log a line that the person who started PgPooler must see: also on standard error when the log is a file."""
    logger.log(level, "%s", line)
    if logs.file_path():
        print(line, file=sys.stderr)


def _reject(reasons: list[str]) -> None:
    for reason in reasons:
        logger.error("%s", reason)
    logger.error("the configuration is not reloaded (%s); everything stays as it was", _count(len(reasons), "error"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
