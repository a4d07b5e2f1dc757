"""A server must prove itself: nothing is given to one that skips a step of the login."""

from __future__ import annotations

import pytest

from pgpooler.errors import ProtocolViolation, ServerUnavailable
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Cleartext
from pgpooler.protocol.scram import MECHANISM


def body(message: bytes) -> bytes:
    return message[5:]


def login_in_scram() -> ServerLogin:
    login = ServerLogin("alice", "app", Cleartext(b"secret"))
    offer = body(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms([MECHANISM])))
    assert login.receive(codes.AUTHENTICATION, offer)
    return login


def test_a_server_that_asks_for_the_cleartext_password_in_the_middle_of_scram_does_not_get_it() -> None:
    request = body(messages.authentication(codes.AUTHENTICATION_CLEARTEXT_PASSWORD))
    with pytest.raises(ProtocolViolation, match="in the middle of SCRAM"):
        login_in_scram().receive(codes.AUTHENTICATION, request)


def test_a_server_that_begins_scram_twice_is_refused() -> None:
    offer = body(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms([MECHANISM])))
    with pytest.raises(ProtocolViolation, match="in the middle of SCRAM"):
        login_in_scram().receive(codes.AUTHENTICATION, offer)


def test_a_server_that_lets_us_in_before_its_scram_proof_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="without proving"):
        login_in_scram().receive(codes.AUTHENTICATION, body(messages.authentication(codes.AUTHENTICATION_OK)))


@pytest.mark.parametrize(
    "message",
    [
        messages.ready_for_query(codes.IDLE),
        messages.backend_key_data(1, b"1234"),
        messages.parameter_status("TimeZone", "UTC"),
    ],
)
def test_a_server_that_is_ready_before_it_let_us_in_is_refused(message: bytes) -> None:
    for login in (ServerLogin("alice", "app", None), login_in_scram()):
        with pytest.raises(ProtocolViolation, match="before it let us in"):
            login.receive(message[0], body(message))
        assert not login.done


def test_unknown_mechanisms_are_named_without_control_characters() -> None:
    offer = body(messages.authentication(codes.AUTHENTICATION_SASL, b"EVIL\r\n\x1b\xff\0\0"))
    with pytest.raises(ServerUnavailable) as raised:
        ServerLogin("alice", "app", Cleartext(b"secret")).receive(codes.AUTHENTICATION, offer)
    assert raised.value.message.isascii()
    assert raised.value.message.isprintable()
