"""The tables of spec.messages are complete and agree with themselves."""

from __future__ import annotations

import pytest

from spec.codec import formats_for
from spec.messages import (
    ANSWERS,
    AUTHENTICATION_REQUESTS,
    ERROR_FIELDS,
    LATEST,
    MESSAGES,
    MOST_LENGTH,
    PROOFS,
    REQUESTED_PHASE,
    SMALL_LENGTH,
    STARTUP_PACKETS,
    VERSIONS,
    Message,
    Phase,
    Sender,
    Version,
    in_force,
)
from spec.types import Constant, Rest

# The letters and names of the manual's page protocol-message-formats, written down here a second time on purpose.
FRONTEND_LETTERS = b"BCdcfDEHFpPQSX"
BACKEND_LETTERS = b"RK23CdcGHWDIEVvnNAtS1sZT"
NAMES = """
    AuthenticationOk AuthenticationKerberosV5 AuthenticationCleartextPassword AuthenticationMD5Password
    AuthenticationGSS AuthenticationGSSContinue AuthenticationSSPI AuthenticationSASL AuthenticationSASLContinue
    AuthenticationSASLFinal BackendKeyData Bind BindComplete CancelRequest Close CloseComplete CommandComplete CopyData
    CopyDone CopyFail CopyInResponse CopyOutResponse CopyBothResponse DataRow Describe EmptyQueryResponse ErrorResponse
    Execute Flush FunctionCall FunctionCallResponse GSSENCRequest GSSResponse NegotiateProtocolVersion NoData
    NoticeResponse NotificationResponse ParameterDescription ParameterStatus Parse ParseComplete PasswordMessage
    PortalSuspended Query ReadyForQuery RowDescription SASLInitialResponse SASLResponse SSLRequest StartupMessage Sync
    Terminate
"""

every_version = pytest.mark.parametrize("version", VERSIONS)


def letters(sender: Sender) -> set[bytes]:
    return {message.type for message in MESSAGES if message.sender is sender} - {b""}


def test_every_message_of_the_manual_is_stated_and_no_other() -> None:
    assert {message.name for message in MESSAGES} == set(NAMES.split())


def test_every_type_letter_of_the_manual_is_stated_and_no_other() -> None:
    assert letters(Sender.FRONTEND) == {bytes((letter,)) for letter in FRONTEND_LETTERS}
    assert letters(Sender.BACKEND) == {bytes((letter,)) for letter in BACKEND_LETTERS}


@every_version
def test_a_type_letter_means_one_message_except_where_a_number_or_the_phase_decides(version: Version) -> None:
    for message in in_force(version):
        phase = message.phase or Phase.SESSION
        alternatives = formats_for(message.sender, message.type, phase, version)
        if message.type in (b"R", b""):
            leading = [next(f for _, f in other.fields if isinstance(f, Constant)) for other in alternatives]
            assert len(set(leading)) == len(alternatives)
        else:
            assert alternatives == (message,)


def test_a_message_has_two_forms_only_where_the_cancel_key_grew() -> None:
    repeated = [m.name for m in MESSAGES if m.since != (3, 0)]
    assert repeated == ["CancelRequest", "BackendKeyData"]
    for name, (least, most) in {"CancelRequest": (4, 256), "BackendKeyData": (4, 256)}.items():
        old, new = ({m.name: m for m in in_force(version)}[name] for version in VERSIONS)
        assert dict(old.fields)["key"] == Rest(4, 4)
        assert dict(new.fields)["key"] == Rest(least, most)


def test_the_letter_p_means_something_else_in_each_phase_of_authentication() -> None:
    assert [(m.name, m.phase) for m in PROOFS] == [
        ("PasswordMessage", Phase.PASSWORD),
        ("SASLInitialResponse", Phase.SASL_INITIAL),
        ("SASLResponse", Phase.SASL),
        ("GSSResponse", Phase.GSS),
    ]
    assert formats_for(Sender.FRONTEND, b"p", Phase.SESSION, LATEST) == ()


def test_every_authentication_request_says_what_is_expected_next_or_expects_nothing() -> None:
    names = {message.name for message in AUTHENTICATION_REQUESTS}
    assert names - set(REQUESTED_PHASE) == {"AuthenticationKerberosV5", "AuthenticationSASLFinal"}
    assert set(REQUESTED_PHASE) <= names


def test_lengths_are_bounded_as_postgresql_bounds_them() -> None:
    small = {m.type for m in MESSAGES if m.sender is Sender.FRONTEND and m.most == SMALL_LENGTH}
    large = {m.type for m in MESSAGES if m.sender is Sender.FRONTEND and m.most == MOST_LENGTH}
    assert small == {b"C", b"D", b"E", b"S", b"H", b"X", b"c", b"f"}
    assert large == {b"Q", b"P", b"B", b"F", b"d"}
    assert {m.most for m in PROOFS} == {65_535}
    assert {m.most - 4 for m in STARTUP_PACKETS} == {10_000}
    assert MOST_LENGTH < 2**30


def test_startup_packets_have_no_type_and_the_numbers_of_the_manual() -> None:
    codes = {m.name: m.fields[0][1] for m in STARTUP_PACKETS}
    assert codes["CancelRequest"] == Constant(32, (1234 << 16) + 5678)
    assert codes["SSLRequest"] == Constant(32, (1234 << 16) + 5679)
    assert codes["GSSENCRequest"] == Constant(32, (1234 << 16) + 5680)
    assert codes["StartupMessage"] == Constant(16, 3)
    assert all(m.type == b"" and m.phase is Phase.STARTUP for m in STARTUP_PACKETS)
    assert ANSWERS == {"SSLRequest": b"SN", "GSSENCRequest": b"GN"}


def test_every_error_field_of_the_manual_is_stated_once() -> None:
    codes = [field.code for field in ERROR_FIELDS]
    assert sorted(codes) == sorted(bytes((code,)) for code in b"SVCMDHPpqWstcdnFLR")
    assert {field.code for field in ERROR_FIELDS if field.always} == {b"S", b"V", b"C", b"M"}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{m.sender.value}-{m.name}-{m.since[1]}")
def test_every_message_says_what_it_means_and_where_the_manual_has_it(message: Message) -> None:
    assert message.meaning.endswith(".")
    assert message.anchor == f"protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-{message.name.upper()}"
    names = [name for name, _ in message.fields]
    assert len(set(names)) == len(names)
