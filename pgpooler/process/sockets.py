"""The listening sockets: opened once by the supervisor, kept for its life, inherited by every worker.

Each port is proved free by a plain bind: SO_REUSEPORT would let a second PgPooler bind in silence and take half of the
clients.  Because the supervisor keeps the sockets open, the clients that wait in their queues survive a worker.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Final

from pgpooler.config.model import Listen
from pgpooler.errors import PgPoolerError

LONGEST_UNIX_PATH: Final = 107
"""Bytes that fit into the address of a unix socket (unix(7))."""

_REASONS: Final = {
    errno.EADDRINUSE: (
        "another process listens there, perhaps another PgPooler",
        "stop it (`ss -ltnp` names it), or set another listen.port",
    ),
    errno.EACCES: (
        "this user may not use that address",
        "set a listen.port above 1023, or a folder this user may write to",
    ),
    errno.EADDRNOTAVAIL: (
        "this machine has no such address",
        "set listen.host to one of its own (`ip address` lists them), or to * for all",
    ),
    errno.EAFNOSUPPORT: (
        "this machine has no such kind of address",
        "set listen.host to an address it has (0.0.0.0 for IPv4 only)",
    ),
}
_IPV6_MISSING: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class ListenError(PgPoolerError):
    """An address cannot be listened on; the message names it, says why, and what to do."""


class Listeners:
    """The listening sockets and the unix socket files that belong to them."""

    def __init__(self, sockets: list[socket.socket] | None = None) -> None:
        self.sockets: list[socket.socket] = sockets or []
        self._files: dict[str, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"<Listeners {', '.join(self.addresses) or 'closed'}>"

    @classmethod
    def open(cls, listen: Listen) -> Listeners:
        """Listen on every address of `listen`; ListenError, and nothing stays open, when one of them fails."""
        listeners = cls()
        try:
            for host in dict.fromkeys(listen.hosts):
                listeners._open_host(host, listen)
            if listen.unix_socket_dir:
                listeners._open_unix(listen)
        except BaseException:
            listeners.close()
            raise
        return listeners

    @property
    def addresses(self) -> list[str]:
        """The addresses as people write them: `127.0.0.1:6432`, `[::1]:6432`, `/run/pgpooler/.s.PGSQL.6432`."""
        return [address_of(listener) for listener in self.sockets]

    def descriptors(self) -> list[int]:
        """The descriptors to pass on to a worker."""
        return [listener.fileno() for listener in self.sockets]

    def close(self) -> None:
        """Stop listening, and remove the socket files that are still ours."""
        for listener in self.sockets:
            listener.close()
        self.sockets = []
        for path, identity in self._files.items():
            with suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)
        self._files = {}

    def _open_host(self, host: str, listen: Listen) -> None:
        if host == "*":
            self._open_address(socket.AF_INET, ("0.0.0.0", listen.port), listen)  # noqa: S104 - that is what * means
            try:
                self._open_address(socket.AF_INET6, ("::", listen.port), listen)
            except ListenError as error:
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _IPV6_MISSING:
                    raise
            return
        try:
            found = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {host}:{listen.port}: {error.strerror}; correct listen.host"
            ) from error
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            self._open_address(family, address, listen)

    def _open_address(self, family: int, address: tuple[object, ...], listen: Listen) -> None:
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise _listen_error(_written(address), error) from error
        self.sockets.append(listener)
        try:
            # To start again while connections of the last run are in TIME_WAIT; a live listener still refuses it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(listen.backlog)
        except OSError as error:
            self.sockets.remove(listener)
            listener.close()
            raise _listen_error(_written(address), error) from error

    def _open_unix(self, listen: Listen) -> None:
        path = os.path.join(os.path.abspath(listen.unix_socket_dir), f".s.PGSQL.{listen.port}")
        if len(os.fsencode(path)) > LONGEST_UNIX_PATH:
            raise ListenError(
                f"cannot listen on {path}: a unix socket's path has at most {LONGEST_UNIX_PATH} bytes; "
                "set a shorter listen.unix_socket_dir"
            )
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.append(listener)
        try:
            listener.setblocking(False)
            listener.bind(path)
            self._files[path] = _identity(path)
            os.chmod(path, listen.unix_socket_mode)  # before anybody can connect: nobody can until listen
            listener.listen(listen.backlog)
        except OSError as error:
            raise _listen_error(path, error) from error


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket as people write it."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return os.fsdecode(name).replace("\0", "@")
    return _written(name)


def _written(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_error(address: str, error: OSError) -> ListenError:
    if error.errno == errno.ENOENT:
        why, advice = "the folder does not exist", "create it, or set another listen.unix_socket_dir"
    else:
        why, advice = _REASONS.get(error.errno or 0, (str(error.strerror), "correct the section listen"))
    return ListenError(f"cannot listen on {address}: {why}; {advice}")


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path, follow_symlinks=False)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody answers on any more; ListenError when somebody does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise ListenError(f"cannot listen on {path}: it is there and no socket; remove it by hand")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _listen_error(path, error) from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens
        except OSError as error:
            raise _listen_error(path, error) from error
    raise _listen_error(path, OSError(errno.EADDRINUSE, ""))
