from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgpooler.config.model import Listen
from pgpooler.demo.ports import reserve
from pgpooler.process.sockets import LONGEST_UNIX_PATH, ListenError, Listeners


@pytest.fixture
def port() -> Iterator[int]:
    reservation = reserve()
    yield reservation.number
    reservation.release()


def listen(port: int, *hosts: str, folder: Path | None = None, mode: int = 0o777) -> Listen:
    return Listen(hosts=hosts, port=port, unix_socket_dir=str(folder or ""), unix_socket_mode=mode)


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_listens_on_ipv4_and_ipv6_apart(port: int) -> None:
    listeners = Listeners.open(listen(port, "127.0.0.1", "::1"))
    assert listeners.addresses == [f"127.0.0.1:{port}", f"[::1]:{port}"]
    assert connects("127.0.0.1", port)
    assert connects("::1", port)
    assert len(listeners.descriptors()) == 2
    listeners.close()
    assert not connects("127.0.0.1", port)


def test_a_star_means_every_address_of_both_families(port: int) -> None:
    listeners = Listeners.open(listen(port, "*"))
    assert listeners.addresses == [f"0.0.0.0:{port}", f"[::]:{port}"]
    assert connects("127.0.0.2", port)
    assert connects("::1", port)
    listeners.close()


def test_ipv6_alone_does_not_take_ipv4(port: int) -> None:
    listeners = Listeners.open(listen(port, "::"))
    assert connects("::1", port)
    assert not connects("127.0.0.1", port)
    listeners.close()


def test_an_address_that_is_named_twice_is_opened_once(port: int) -> None:
    listeners = Listeners.open(listen(port, "127.0.0.1", "127.0.0.1"))
    assert listeners.addresses == [f"127.0.0.1:{port}"]
    listeners.close()


def test_a_port_that_is_taken_is_refused_with_address_reason_and_advice(port: int) -> None:
    before = open_files()
    first = Listeners.open(listen(port, "127.0.0.1"))
    with pytest.raises(ListenError) as caught:
        Listeners.open(listen(port, "::1", "127.0.0.1"))
    first.close()
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "another process listens there" in str(caught.value)
    assert "listen.port" in str(caught.value)
    assert open_files() == before, "what was opened before the error is closed again"


def test_a_port_is_free_for_the_next_run_at_once(port: int) -> None:
    for _ in range(2):
        listeners = Listeners.open(listen(port, "127.0.0.1"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            listeners.sockets[0].setblocking(True)
            listeners.sockets[0].accept()[0].close()  # we close first: the port is left in TIME_WAIT
            assert client.recv(1) == b""
        listeners.close()


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "this machine has no such address"), ("no-such-host.invalid", "listen.host")],
)
def test_an_address_that_is_not_ours_is_refused_with_advice(port: int, host: str, words: str) -> None:
    with pytest.raises(ListenError, match=words) as caught:
        Listeners.open(listen(port, host))
    assert f"{host}:{port}" in str(caught.value)


def test_the_unix_socket_has_its_name_and_mode_and_is_removed_at_the_end(port: int, tmp_path: Path) -> None:
    path = tmp_path / f".s.PGSQL.{port}"
    listeners = Listeners.open(listen(port, folder=tmp_path, mode=0o770))
    assert listeners.addresses == [str(path)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o770
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listeners.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stale_unix_socket_is_replaced(port: int, tmp_path: Path) -> None:
    path = tmp_path / f".s.PGSQL.{port}"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listeners = Listeners.open(listen(port, folder=tmp_path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listeners.close()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "queue full"])
def test_a_unix_socket_that_somebody_answers_on_is_not_touched(port: int, tmp_path: Path, busy: bool) -> None:
    path = tmp_path / f".s.PGSQL.{port}"
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as client:
        alive.bind(str(path))
        alive.listen(0)
        if busy:
            client.connect(str(path))
        with pytest.raises(ListenError, match="another process listens there") as caught:
            Listeners.open(listen(port, folder=tmp_path))
        assert str(path) in str(caught.value)
        assert path.exists()


def test_a_file_that_is_no_socket_is_not_removed(port: int, tmp_path: Path) -> None:
    path = tmp_path / f".s.PGSQL.{port}"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        Listeners.open(listen(port, folder=tmp_path))
    assert path.read_text() == "precious"


def test_the_socket_file_of_a_successor_is_not_removed(port: int, tmp_path: Path) -> None:
    path = tmp_path / f".s.PGSQL.{port}"
    first = Listeners.open(listen(port, folder=tmp_path))
    path.unlink()
    second = Listeners.open(listen(port, folder=tmp_path))
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_a_missing_folder_is_named_with_advice(port: int, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="the folder does not exist; create it"):
        Listeners.open(listen(port, folder=tmp_path / "missing"))


def test_a_path_that_is_too_long_for_a_unix_socket_is_refused(port: int, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * LONGEST_UNIX_PATH)
    folder.mkdir()
    with pytest.raises(ListenError, match="at most 107 bytes"):
        Listeners.open(listen(port, folder=folder))


def test_an_error_removes_the_sockets_that_were_already_open(port: int, tmp_path: Path) -> None:
    (tmp_path / f".s.PGSQL.{port}").write_text("in the way")
    before = open_files()
    with pytest.raises(ListenError):
        Listeners.open(listen(port, "127.0.0.1", folder=tmp_path))
    assert open_files() == before
    assert not connects("127.0.0.1", port)
