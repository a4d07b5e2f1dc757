"""A PostgreSQL server in a container, through testcontainers (which finds the Docker daemon, and its own settings)."""

from __future__ import annotations

import contextlib
import gc
import importlib
import secrets
import time
import warnings
from collections.abc import Mapping
from typing import Any

from pgpooler.demo import ports, tools
from pgpooler.demo.server import PostgresServer, PostgresUnavailable, wait_for_reload

DEFAULT_IMAGE = "postgres:17"
"""Any image that understands POSTGRES_USER, POSTGRES_PASSWORD and PGDATA, and runs `postgres` as its first process."""
PORT = 5432
PING_TIMEOUT = 5
START_TIMEOUT = 120.0
"""Seconds from the start of a container, its image already there, to the first connection."""
STOP_SIGNALS = {"smart": "SIGTERM", "fast": "SIGINT", "immediate": "SIGQUIT"}
WRITE_AUTHENTICATION = """
file="$PGDATA/pg_hba.conf"
[ -e "$file.original" ] || cp "$file" "$file.original"
{ [ $# = 0 ] || printf '%s\\n' "$@"; cat "$file.original"; } > "$file"
kill -HUP 1
"""


def problem(image: str) -> str:
    """Why no container of this image can be started here; empty if it can."""
    with warnings.catch_warnings():
        # The docker package leaves the sockets of failed attempts to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        answer = _problem(image)
        gc.collect()
    return answer


def _problem(image: str) -> str:
    try:
        docker = importlib.import_module("docker")
    except ImportError as error:
        return f"the package testcontainers is not usable ({error}): pip install testcontainers"
    try:
        client = docker.from_env(timeout=PING_TIMEOUT)
    except docker.errors.DockerException:
        return "no Docker daemon answers: install Docker and start it, or set DOCKER_HOST"
    with contextlib.closing(client):
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.get(image)
            return ""
        try:
            client.images.get_registry_data(image)
        except docker.errors.DockerException as error:
            reason = str(error).splitlines()[0]
            return f"the image {image} is not on this machine and cannot be pulled ({reason})"
    return ""


class ContainerServer(PostgresServer):
    """A server in a container of its own, published on a port of this machine.

    The container is removed by `stop`; when this process is killed, by testcontainers' own reaper (Ryuk).
    """

    provider = "testcontainers"

    def __init__(
        self,
        image: str = DEFAULT_IMAGE,
        *,
        superuser: str = "postgres",
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        secret = secrets.token_urlsafe(12) if password is None else password
        super().__init__("127.0.0.1", 0, superuser=superuser, password=secret, version="0", settings=settings or {})
        self._image = image
        self._container: Any = None
        self._reservation = ports.reserve()
        try:
            self._start_container()
            self._wait_until_it_accepts()
            (row,) = self.execute("SHOW server_version")
            self.version = str(row[0]).split()[0]
            if self.settings:
                self.restart(settings=self.settings)
        except BaseException:
            self.stop()
            raise

    def _start_container(self) -> None:
        container_module = importlib.import_module("testcontainers.core.container")
        container = container_module.DockerContainer(self._image)
        container.with_env("POSTGRES_USER", self.superuser).with_env("POSTGRES_PASSWORD", self.password)
        container.with_command(["postgres", "-c", "fsync=off"])
        # A chosen port survives a restart of the container; a random one does not.
        container.ports[str(PORT)] = self._published_address(container)
        self._container = container
        try:
            container.start()
        except Exception as error:
            raise PostgresUnavailable(f"no container of {self._image} could be started: {error}") from error
        self.host = container.get_container_host_ip()
        if self.host == "localhost":
            self.host = "127.0.0.1"
        self.port = int(container.get_exposed_port(PORT))

    def _published_address(self, container: Any) -> Any:
        """Loopback only, unless the daemon (or we) are on another machine or in another container."""
        client = container.get_docker_client()
        if client.get_connection_mode().name == "docker_host" and client.host() in ("localhost", "127.0.0.1"):
            return ("127.0.0.1", self._reservation.number)
        return self._reservation.number

    def _wait_until_it_accepts(self) -> None:
        """Connect until it works: the image's own first server listens on no TCP port, so the first answer is final."""
        psycopg = tools.import_psycopg()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                self._container.get_wrapped_container().reload()
                running = self._container.get_wrapped_container().status == "running"
                if not running or time.monotonic() > deadline:
                    raise PostgresUnavailable(
                        f"the server in the container does not accept connections: {error}\n{self.log_text()[-2000:]}"
                    ) from None
            time.sleep(0.05)

    def log_text(self) -> str:
        """What the container has written so far."""
        output: tuple[bytes, bytes] = self._container.get_logs()
        return b"".join(output).decode(errors="replace")

    def set_authentication(self, *lines: str) -> None:
        """Put lines in front of pg_hba.conf (none: the original file again) and have them take effect."""
        with wait_for_reload(self):
            command = ["sh", "-c", WRITE_AUTHENTICATION, "sh", *lines]
            code, output = self._container.get_wrapped_container().exec_run(command)
            if code != 0:
                raise PostgresUnavailable(f"pg_hba.conf of the container could not be written: {output.decode()}")

    def restart(self, mode: str = "fast", settings: Mapping[str, str] | None = None) -> None:
        """Stop and start again on the same port; `settings` are added to those it had."""
        for name, value in (settings or {}).items():
            literal = value.replace("'", "''")
            self.execute(f"ALTER SYSTEM SET {name} = '{literal}'")
            self.settings[name] = value
        self.shut_down(mode)
        self._container.get_wrapped_container().start()
        self._wait_until_it_accepts()

    def shut_down(self, mode: str = "fast") -> None:
        """Stop the server but keep its files and port (`smart`, `fast` or `immediate`, as for pg_ctl)."""
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status != "running":
            return
        container.kill(signal=STOP_SIGNALS[mode])
        container.wait()

    def stop(self) -> None:
        """Remove the container and its volumes; harmless when done before."""
        container, self._container = self._container, None
        if container is not None:
            container.stop()
        self._reservation.release()
