"""Looks up the addresses of names: each name once at a time, in a thread of its own.

The system's lookup can take half a minute, and can be neither canceled nor given a time limit.  With a thread for each
name that is being looked up, a slow one delays no other name; with daemon threads, it does not delay the end either.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

Address = tuple[int, Any]
"""A family of sockets, and an address as sockets of that family take it."""


class Names:
    """The lookups under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a name, in the order in which they are to be tried.  Raises OSError if there are none."""
        with contextlib.suppress(socket.gaierror, UnicodeError):
            return _look_up(host, port, socket.AI_NUMERICHOST)
        found = self._under_way.get((host, port))
        if found is None:
            found = self._under_way[host, port] = self._loop.create_future()
            thread = threading.Thread(target=self._run, args=(host, port, found), name=f"lookup-{host}", daemon=True)
            thread.start()
        # Whoever loses patience leaves the lookup to those who come after.
        return await asyncio.shield(found)

    def _run(self, host: str, port: int, found: asyncio.Future[list[Address]]) -> None:
        result: list[Address] | OSError
        try:
            result = _look_up(host, port)
        except OSError as error:
            result = error
        except UnicodeError as error:
            result = OSError(f"{host!r} is no name: {error}")
        with contextlib.suppress(RuntimeError):  # nobody waits any more: the event loop is closed
            self._loop.call_soon_threadsafe(self._finish, host, port, found, result)

    def _finish(
        self, host: str, port: int, found: asyncio.Future[list[Address]], result: list[Address] | OSError
    ) -> None:
        del self._under_way[host, port]
        if isinstance(result, OSError):
            found.set_exception(result)
            found.exception()  # seen: all who asked may have gone
        else:
            found.set_result(result)


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    return [(entry[0], entry[4]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]
