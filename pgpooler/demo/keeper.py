"""Keeps one PostgreSQL server on behalf of another process, and takes it away when that process is gone.

This file is run, not imported: `python -I -S keeper.py DIRECTORY`, in a session of its own so that Ctrl-C at the
terminal does not reach it.  Its standard input is a pipe from its owner.  Each line there is one request in JSON, and
each is answered by one line on standard output.  When the pipe ends, for whatever reason (also when the owner was
killed with signal 9), the server is stopped and DIRECTORY removed.  There is no other way out.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

POLL_INTERVAL = 0.01
"""Seconds between two looks at whether the server is ready."""
READY_TIMEOUT = 60.0
"""Seconds a server may take from its start to accepting connections."""
STOP_TIMEOUT = 20.0
"""Seconds a server may take to stop before the next harsher signal."""
READY_LINE = 7
"""Index of the line of postmaster.pid that says whether connections are accepted."""


class Keeper:
    """Owns at most one `postgres` process, and the directory with everything that belongs to it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.server: subprocess.Popen[bytes] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request: `run` a command to its end, `start` the server or `stop` it."""
        match request["do"]:
            case "run":
                return {"code": self._spawn(request).wait()}
            case "start":
                return {"ready": self._start(request)}
            case "stop":
                self.stop(request["signal"])
                return {"stopped": True}
        return {"error": f"unknown request {request['do']!r}"}

    def _spawn(self, request: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start a program, as another user if the request names one, its output going to the log file."""
        identity: dict[str, Any] = {}
        if request["user"] is not None:
            identity = {"user": request["user"], "group": request["group"], "extra_groups": []}
        with open(os.path.join(self.directory, "log"), "ab") as log:
            return subprocess.Popen(  # noqa: S603
                request["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                **identity,
            )

    def _start(self, request: dict[str, Any]) -> bool:
        """Start the server; true once it accepts connections, false when it ended instead or took too long."""
        self.stop(signal.SIGQUIT)
        # A file left by a server that was killed would tell of that server, not of this one.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._pid_file())
        self.server = self._spawn(request)
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline and self.server.poll() is None:
            if self._is_ready(self.server.pid):
                return True
            # The owner waits for our answer, so anything to read here means that it is gone.
            if select.select([sys.stdin], [], [], POLL_INTERVAL)[0]:
                break
        self.stop(signal.SIGQUIT)
        return False

    def _pid_file(self) -> str:
        return os.path.join(self.directory, "data", "postmaster.pid")

    def _is_ready(self, pid: int) -> bool:
        """Whether postmaster.pid says, of this very process, that connections are accepted (as pg_ctl decides it)."""
        try:
            with open(self._pid_file(), encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > READY_LINE and lines[0] == str(pid) and lines[READY_LINE].strip() == "ready"

    def stop(self, number: int) -> None:
        """Stop the server with a signal (manual: server-shutdown), then with harsher ones if it does not obey."""
        server, self.server = self.server, None
        if server is None:
            return
        for attempt in (number, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                if attempt == signal.SIGKILL:
                    os.killpg(server.pid, attempt)
                else:
                    server.send_signal(attempt)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_TIMEOUT)
                return

    def serve(self) -> None:
        """Answer requests until the owner is gone, then clean up."""
        try:
            for line in sys.stdin.buffer:
                print(json.dumps(self.answer(json.loads(line))), flush=True)
        except BrokenPipeError:
            pass  # The owner went away before it read the answer.
        finally:
            self.stop(signal.SIGQUIT)
            shutil.rmtree(self.directory, ignore_errors=True)


def end(number: int, frame: object) -> None:
    """Turn a request to terminate into an ordinary way out, so that the server does not outlive us."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Keeper(sys.argv[1]).serve()
