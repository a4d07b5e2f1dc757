"""Ports are chosen so that two servers that start at the same time never choose the same."""

from __future__ import annotations

import socket

from pgpooler.demo import ports


def test_a_reserved_port_is_below_those_of_client_sockets_and_free() -> None:
    reservation = ports.reserve()
    try:
        assert ports.LOWEST <= reservation.number <= ports.HIGHEST < 32768
        assert ports.is_free(reservation.number)
    finally:
        reservation.release()


def test_a_reserved_port_is_not_given_to_anybody_else_until_it_is_released() -> None:
    reservation = ports.reserve()
    assert ports._claim(reservation.number) is None
    reservation.release()
    claim = ports._claim(reservation.number)
    assert claim is not None
    claim.close()


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not ports.is_free(listener.getsockname()[1])


def test_a_port_that_nobody_serves_is_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not ports.is_answered("127.0.0.1", port)
