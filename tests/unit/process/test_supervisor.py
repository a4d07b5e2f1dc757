"""The supervisor with workers that misbehave, which the real one cannot be made to do (see scripted_worker.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgpooler.demo.ports import reserve

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PATIENCE = 30.0
RUN = "import sys; from pgpooler.process.supervisor import run; sys.exit(run(sys.argv[1], 'scripted_worker'))"


class Service:
    """`pgpooler run` with the scripted worker, in a folder of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.configuration = folder / "pgpooler.yaml"
        self.log = folder / "pgpooler.log"
        self.unix_socket = folder / f".s.PGSQL.{port}"
        self.process: subprocess.Popen[str] | None = None
        self.write()

    def write(self, more: str = "", port: int = 0) -> None:
        self.configuration.write_text(
            f"listen: {{host: 127.0.0.1, port: {port or self.port}, unix_socket_dir: {self.folder}}}\n"
            f"logging: {{file: {{path: {self.log}}}}}\n"
            "backends: [{name: primary, host: 127.0.0.1}]\n"
            "auth: {method: trust}\n"
            f"timeouts: {{drain_timeout: 1s}}\n{more}"
        )

    def start(self, script: str = "", **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([*filter(None, sys.path), str(ROOT), str(HERE)])  # the build that is tested comes first
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", RUN, str(self.configuration)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "PGPOOLER_TEST_SCRIPT": script, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def serving(self, script: str = "", **environment: str) -> subprocess.Popen[str]:
        process = self.start(script, **environment)
        self.wait_for_log("connect with")
        return process

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for_log(self, words: str, times: int = 1) -> str:
        wait_until(lambda: self.text().count(words) >= times, lambda: f"{words!r} is not in the log:\n{self.text()}")
        return self.text()

    def worker(self) -> int:
        """The process id of the worker that serves now."""
        lines = [line for line in self.text().splitlines() if "serves (" in line]
        return int(lines[-1].split("worker ")[1].split()[0])

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; exit status and standard error."""
        assert self.process is not None
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


def wait_until(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    reservation = reserve()
    service = Service(tmp_path, reservation.number)
    yield service
    if service.process is not None:
        service.process.kill()
        service.process.communicate()
    reservation.release()


def test_it_says_where_it_listens_and_how_to_connect(service: Service) -> None:
    service.serving()
    service.signal(signal.SIGTERM)
    status, errors = service.end()
    assert status == 0
    assert f"listens on 127.0.0.1:{service.port}, {service.unix_socket}" in errors
    assert f'psql "host=127.0.0.1 port={service.port} user=USER dbname=DATABASE"' in errors
    assert str(service.log) in errors


def test_the_log_file_has_the_records_of_the_worker(service: Service) -> None:
    service.serving()
    service.signal(signal.SIGTERM)
    service.end()
    assert "[INFO] got Start\n" in service.text()
    assert "[INFO] got Drain\n" in service.text()
    assert "2 clients had to be disconnected" in service.text()


def test_a_module_in_the_current_folder_is_not_run_by_the_worker(service: Service) -> None:
    (service.folder / "argparse.py").write_text("raise SystemExit('imported from the current folder')\n")
    service.serving()


def test_a_worker_that_cannot_serve_ends_the_start_with_its_reason(service: Service) -> None:
    service.start("Start:refuse")
    status, errors = service.end()
    assert status == 1
    assert errors == "PgPooler cannot start: Start is refused by the script\n"
    assert "[ERROR] PgPooler cannot start" in service.text()
    assert not service.unix_socket.exists()


def test_a_worker_that_dies_before_it_serves_ends_the_start(service: Service) -> None:
    service.start("Start:exit")
    status, errors = service.end()
    assert status == 1
    assert "exited with status 7 before it served" in errors


def test_a_dead_worker_is_replaced_and_the_waiting_client_is_served_by_the_next_one(service: Service) -> None:
    service.serving()
    first = service.worker()
    with socket.create_connection(("127.0.0.1", service.port)) as waiting:
        os.kill(first, signal.SIGKILL)
        service.wait_for_log("serves (", times=2)
        waiting.settimeout(0.1)
        with pytest.raises(TimeoutError):
            waiting.recv(1)  # neither reset nor closed: it still waits in the queue of the listening socket
    assert f"worker {first} was ended by SIGKILL" in service.text()
    assert is_running(service.worker())


def test_a_worker_that_dies_again_and_again_is_restarted_ever_more_slowly(service: Service) -> None:
    service.serving("Reload:exit")
    for times in range(1, 4):
        service.write(f"limits: {{max_client_conn: {times}}}\n")
        service.signal(signal.SIGHUP)
        service.wait_for_log("serves (", times=times + 1)
    delays = [line.rpartition("starts in ")[2] for line in service.text().splitlines() if "starts in" in line]
    assert delays == ["0.0 s", "0.1 s", "0.2 s"]
    service.signal(signal.SIGTERM)
    assert service.end()[0] == 0


def test_a_worker_that_dies_of_a_reload_leaves_the_configuration_as_it_was(service: Service) -> None:
    service.serving("Reload:exit")
    service.write("limits: {max_client_conn: 1}\n")
    service.signal(signal.SIGHUP)
    text = service.wait_for_log("everything stays as it was")
    assert "the configuration is reloaded" not in text
    service.wait_for_log("serves (", times=2)


def test_a_worker_that_breaks_the_channel_is_killed_and_replaced(
    service: Service,
) -> None:
    service.serving("Reload:garbage")
    first = service.worker()
    service.write("limits: {max_client_conn: 1}\n")
    service.signal(signal.SIGHUP)
    service.wait_for_log("serves (", times=2)
    assert "lost its control channel" in service.text()
    assert not is_running(first)


def test_an_unasked_message_of_a_worker_is_logged_and_harms_nobody(service: Service) -> None:
    service.serving("Reload:unasked")
    service.write("limits: {max_client_conn: 1}\n")
    service.signal(signal.SIGHUP)
    service.wait_for_log("sent an unexpected Drained")
    service.wait_for_log("the configuration is reloaded; 1 change")


def test_a_pause_is_handed_on_and_a_new_worker_starts_paused(service: Service) -> None:
    service.serving()
    service.signal(signal.SIGUSR1)
    service.wait_for_log("paused: clients wait; 3 server connections still in use")
    os.kill(service.worker(), signal.SIGKILL)
    service.wait_for_log("serves (", times=2)
    service.signal(signal.SIGUSR2)
    service.wait_for_log("resumed")


def test_a_worker_that_cannot_be_paused_is_reported(service: Service) -> None:
    service.serving("Pause:refuse")
    service.signal(signal.SIGUSR1)
    service.wait_for_log("the worker could not be told: Pause is refused by the script")


def test_a_reload_hands_the_configuration_on_and_logs_the_differences(service: Service) -> None:
    service.serving()
    service.write("limits: {max_client_conn: 77}\n", port=service.port + 1)
    service.signal(signal.SIGHUP)
    text = service.wait_for_log("the configuration is reloaded; 2 changes")
    assert "[INFO] configuration: limits.max_client_conn: 1000 -> 77" in text
    restart = f"[WARN] configuration: listen.port: {service.port} -> {service.port + 1}; takes effect after a restart"
    assert restart in text
    assert "a note of the worker" in text


def test_a_reload_with_errors_logs_each_with_its_place_and_changes_nothing(service: Service) -> None:
    service.serving()
    service.write("limits: {max_client_conn: many, bad_key: 1}\n")
    service.signal(signal.SIGHUP)
    text = service.wait_for_log("the configuration is not reloaded (2 errors); everything stays as it was")
    assert f"{service.configuration}:6:27: " in text
    assert f"{service.configuration}:6:33: " in text
    assert "got Reload" not in text
    service.write()
    service.signal(signal.SIGHUP)
    service.wait_for_log("the configuration is reloaded; 0 changes")


def test_a_reload_the_worker_refuses_changes_nothing(service: Service) -> None:
    service.serving("Reload:refuse")
    service.write("limits: {max_client_conn: 77}\n")
    service.signal(signal.SIGHUP)
    service.wait_for_log("Reload is refused by the script")
    service.signal(signal.SIGHUP)
    service.wait_for_log("the configuration is not reloaded", times=2)


def test_a_reload_opens_the_log_file_that_logrotate_renamed(service: Service) -> None:
    service.serving()
    service.log.rename(service.folder / "rotated")
    service.signal(signal.SIGHUP)
    service.wait_for_log("the configuration is reloaded")
    assert "connect with" in (service.folder / "rotated").read_text()


def test_a_reload_can_move_the_log_and_change_its_format(service: Service) -> None:
    service.serving()
    other = service.folder / "other.log"
    before = service.configuration.read_text()
    service.configuration.write_text(
        before.replace(str(service.log), str(other)).replace("logging: {", "logging: {format: json, ")
    )
    service.signal(signal.SIGHUP)
    wait_until(lambda: other.exists() and "is reloaded" in other.read_text(), service.text)
    assert other.read_text().startswith('{"time":')


def test_a_log_that_cannot_be_opened_refuses_the_reload(service: Service) -> None:
    service.serving()
    before = service.configuration.read_text()
    service.configuration.write_text(before.replace(str(service.log), str(service.folder)))
    service.signal(signal.SIGHUP)
    service.wait_for_log("the configuration is not reloaded (1 error)")


def test_a_worker_that_floods_the_log_keeps_its_order_and_counts_what_is_lost(service: Service) -> None:
    service.serving("Reload:flood")
    service.write("limits: {max_client_conn: 77}\n")
    service.signal(signal.SIGHUP)
    service.wait_for_log("the configuration is reloaded")
    service.signal(signal.SIGTERM)
    assert service.end()[0] == 0
    lines = service.text().splitlines()
    numbers = [int(line.split("line ")[1].split()[0]) for line in lines if " line " in line]
    assert numbers == sorted(numbers)
    lost = sum(int(line.split("[WARN] ")[1].split()[0]) for line in lines if "log records of process" in line)
    assert len(numbers) + lost == 20_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_each_signal_ends_it_with_status_0_and_without_leftovers(service: Service, number: signal.Signals) -> None:
    service.serving()
    worker = service.worker()
    service.signal(number)
    assert service.end()[0] == 0
    assert not is_running(worker)
    assert not service.unix_socket.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_the_moment_it_listens_is_not_fatal_and_not_lost(
    service: Service, number: signal.Signals
) -> None:
    service.start()

    def listens() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port)).close()
            return True
        return False

    wait_until(listens, lambda: "it does not listen")
    service.signal(number)
    if number is signal.SIGHUP:
        service.wait_for_log("the configuration is reloaded")
        service.signal(signal.SIGTERM)
    assert service.end()[0] == 0


def test_a_second_sigterm_stops_fast(service: Service) -> None:
    service.write()
    service.serving("Drain:ignore")
    service.signal(signal.SIGTERM)
    service.wait_for_log("got Drain")
    service.signal(signal.SIGTERM)
    service.wait_for_log("got Stop")
    assert service.end()[0] == 0


def test_a_worker_that_never_drains_is_stopped_after_the_drain_timeout(service: Service) -> None:
    service.serving("Drain:ignore")
    service.signal(signal.SIGTERM)
    assert service.end()[0] == 0
    assert "draining did not end" in service.text()
    assert "got Stop" in service.text()


def test_sigquit_kills_a_worker_that_is_stuck(service: Service) -> None:
    service.serving("Drain:hang")
    worker = service.worker()
    service.signal(signal.SIGTERM)
    service.wait_for_log("draining")
    service.signal(signal.SIGQUIT)
    assert service.end()[0] == 0
    assert not is_running(worker)


def test_a_killed_supervisor_leaves_no_worker(service: Service) -> None:
    service.serving()
    worker = service.worker()
    service.signal(signal.SIGKILL)
    service.end()
    wait_until(lambda: not is_running(worker), lambda: "the worker is still there")


def test_a_second_run_on_the_same_port_fails_and_leaves_the_first_and_its_log_alone(service: Service) -> None:
    service.serving()
    before = service.text()
    second = Service(service.folder, service.port)
    second.configuration.write_text(second.configuration.read_text().replace("file: {", "file: {append: false, "))
    second.start()
    status, errors = second.end()
    assert status == 1
    assert errors.startswith(
        f"PgPooler cannot start: cannot listen on 127.0.0.1:{service.port}: another process listens"
    )
    assert service.text() == before
    assert service.unix_socket.exists()
    socket.create_connection(("127.0.0.1", service.port)).close()


def test_a_wrong_configuration_is_printed_line_by_line_with_status_2(service: Service) -> None:
    service.write("limits: {max_client_conn: many}\nnonsense: 1\n")
    service.start()
    status, errors = service.end()
    assert status == 2
    assert [line.split(": ")[0] for line in errors.splitlines()] == [
        f"{service.configuration}:6:27",
        f"{service.configuration}:7:1",
    ]


def test_systemd_is_told_when_it_serves_reloads_and_stops(service: Service) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(service.folder / "notify"))
        manager.settimeout(PATIENCE)
        process = service.serving(NOTIFY_SOCKET=str(service.folder / "notify"))
        ready = manager.recv(4096).decode().split("\n")
        assert ready[:2] == ["READY=1", f"MAINPID={process.pid}"]
        service.signal(signal.SIGHUP)
        assert manager.recv(4096).decode().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096).decode().startswith("READY=1")
        service.signal(signal.SIGTERM)
        assert manager.recv(4096).decode().startswith("STOPPING=1")
    assert service.end()[0] == 0
