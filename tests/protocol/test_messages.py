"""What pgpooler.protocol.messages writes, the spec reads with the same values, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from pgpooler.errors import PeerError, ProtocolViolation
from pgpooler.protocol import codes, messages
from spec import strategies
from spec.codec import Instance, Malformed, backend, decode, encode, format_of, frontend
from spec.messages import LATEST, MESSAGES, Message, Phase, Sender
from spec.mutators import NearValid, near_valid
from spec.types import Constant

F, B = Sender.FRONTEND, Sender.BACKEND

# Any text a peer may have sent: UTF-8 or not, as `decode_text` represents it, but no zero.
texts = strategies.texts().map(messages.decode_text)
utf8_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
ascii_names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
process_ids = st.integers(1, 2**31 - 1)
cancel_keys = st.binary(min_size=4, max_size=256)


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def read(data: bytes, sender: Sender, phase: Phase = Phase.SESSION) -> Instance:
    return decode(data, sender, phase)


# --- codes


def constant_name(message: Message) -> str:
    """The name of a message as pgpooler.protocol.codes spells it: BackendKeyData is BACKEND_KEY_DATA."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", message.name).upper()


def test_every_type_letter_is_that_of_the_spec() -> None:
    for message in MESSAGES:
        if message.type not in (b"", b"R", b"p"):
            assert getattr(codes, constant_name(message)) == message.type[0]
    assert bytes((codes.AUTHENTICATION, codes.PASSWORD)) == b"Rp"


def test_the_types_of_each_side_are_those_of_the_spec() -> None:
    frontend_types = {m.type for m in MESSAGES if m.sender is F and m.phase is Phase.SESSION}
    backend_types = {m.type for m in MESSAGES if m.sender is B} - {b"R", b"v"}
    assert {bytes((kind,)) for kind in codes.FRONTEND_TYPES} == frontend_types
    assert {bytes((kind,)) for kind in codes.BACKEND_TYPES} == backend_types


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (codes.AUTHENTICATION_OK, "AuthenticationOk"),
        (codes.AUTHENTICATION_KERBEROS_V5, "AuthenticationKerberosV5"),
        (codes.AUTHENTICATION_CLEARTEXT_PASSWORD, "AuthenticationCleartextPassword"),
        (codes.AUTHENTICATION_MD5_PASSWORD, "AuthenticationMD5Password"),
        (codes.AUTHENTICATION_GSS, "AuthenticationGSS"),
        (codes.AUTHENTICATION_GSS_CONTINUE, "AuthenticationGSSContinue"),
        (codes.AUTHENTICATION_SSPI, "AuthenticationSSPI"),
        (codes.AUTHENTICATION_SASL, "AuthenticationSASL"),
        (codes.AUTHENTICATION_SASL_CONTINUE, "AuthenticationSASLContinue"),
        (codes.AUTHENTICATION_SASL_FINAL, "AuthenticationSASLFinal"),
    ],
)
def test_every_authentication_request_has_the_number_of_the_spec(code: int, name: str) -> None:
    assert dict(format_of(B, name).fields)["code"] == Constant(32, code)


def test_limits_are_those_of_the_spec() -> None:
    assert format_of(F, "StartupMessage").most == codes.STARTUP_LIMIT
    assert format_of(F, "SASLResponse").most == codes.AUTHENTICATION_LIMIT
    assert format_of(F, "Sync").most == codes.SMALL_MESSAGE_LIMIT
    assert format_of(F, "Query").most == codes.LARGE_MESSAGE_LIMIT


# --- written by us, read by the spec


@given(salt=st.binary(min_size=4, max_size=4), data=st.binary(max_size=100), names=st.lists(ascii_names, max_size=3))
def test_authentication_requests_are_written_as_the_spec_reads_them(salt: bytes, data: bytes, names: list[str]) -> None:
    write = messages.authentication
    assert read(write(codes.AUTHENTICATION_OK), B) == backend("AuthenticationOk")
    cleartext = write(codes.AUTHENTICATION_CLEARTEXT_PASSWORD)
    assert read(cleartext, B) == backend("AuthenticationCleartextPassword")
    md5 = write(codes.AUTHENTICATION_MD5_PASSWORD, salt)
    assert read(md5, B) == backend("AuthenticationMD5Password", salt=salt)
    sasl = write(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(names))
    assert read(sasl, B) == backend("AuthenticationSASL", mechanisms=tuple(raw(name) for name in names))
    challenge = write(codes.AUTHENTICATION_SASL_CONTINUE, data)
    assert read(challenge, B) == backend("AuthenticationSASLContinue", data=data)
    final = write(codes.AUTHENTICATION_SASL_FINAL, data)
    assert read(final, B) == backend("AuthenticationSASLFinal", data=data)


@given(process_id=process_ids, key=cancel_keys)
def test_cancel_keys_are_written_as_the_spec_reads_them(process_id: int, key: bytes) -> None:
    told = messages.backend_key_data(process_id, key)
    assert read(told, B) == backend("BackendKeyData", process_id=process_id, key=key)
    asked = messages.cancel_request(process_id, key)
    assert read(asked, F, Phase.STARTUP) == frontend("CancelRequest", process_id=process_id, key=key)


@given(name=texts, value=texts, status=st.sampled_from(b"ITE"))
def test_parameters_and_readiness_are_written_as_the_spec_reads_them(name: str, value: str, status: int) -> None:
    parameter = messages.parameter_status(name, value)
    assert read(parameter, B) == backend("ParameterStatus", parameter=raw(name), setting=raw(value))
    assert read(messages.ready_for_query(status), B) == backend("ReadyForQuery", status=bytes((status,)))


@given(options=st.lists(texts, max_size=4))
def test_a_negotiation_is_written_as_the_spec_reads_it(options: list[str]) -> None:
    written = messages.negotiate_protocol_version(codes.PROTOCOL_3_2, options)
    expected = backend("NegotiateProtocolVersion", version=0x30002, options=tuple(raw(option) for option in options))
    assert read(written, B) == expected


@given(
    write=st.sampled_from((messages.error_response, messages.notice_response)),
    message=utf8_texts,
    detail=st.none() | utf8_texts,
    hint=st.none() | utf8_texts,
)
def test_errors_and_notices_are_written_as_the_spec_reads_them_whatever_the_script(
    write: Callable[[PeerError], bytes], message: str, detail: str | None, hint: str | None
) -> None:
    error = PeerError(message, sqlstate="53300", severity="FATAL", detail=detail, hint=hint)
    written = write(error)
    assert int.from_bytes(written[1:5], "big") == len(written) - 1
    expected = [(b"S", b"FATAL"), (b"V", b"FATAL"), (b"C", b"53300"), (b"M", message.encode())]
    expected += [(code, text.encode()) for code, text in ((b"D", detail), (b"H", hint)) if text]
    instance = read(written, B)
    assert instance["fields"] == tuple(expected)
    assert instance.name == ("ErrorResponse" if write is messages.error_response else "NoticeResponse")


@given(message=st.text(max_size=40))
def test_an_error_about_any_text_at_all_is_well_formed(message: str) -> None:
    assert read(messages.error_response(PeerError(message, detail=message)), B).name == "ErrorResponse"


@given(text=texts, mechanism=ascii_names, data=st.binary(max_size=100))
def test_what_is_said_to_a_server_is_written_as_the_spec_reads_it(text: str, mechanism: str, data: bytes) -> None:
    password = messages.password_message(raw(text))
    assert read(password, F, Phase.PASSWORD) == frontend("PasswordMessage", password=raw(text))
    initial = messages.sasl_initial_response(mechanism, data)
    expected = frontend("SASLInitialResponse", mechanism=mechanism.encode(), data=data)
    assert read(initial, F, Phase.SASL_INITIAL) == expected
    assert read(messages.sasl_response(data), F, Phase.SASL) == frontend("SASLResponse", data=data)
    assert read(messages.query(text), F) == frontend("Query", query=raw(text))
    assert read(messages.SYNC, F) == frontend("Sync")
    assert read(messages.TERMINATE, F) == frontend("Terminate")
    assert read(messages.SSL_REQUEST, F, Phase.STARTUP) == frontend("SSLRequest")


@given(parameters=st.dictionaries(texts.filter(bool), texts, max_size=5))
def test_a_startup_message_is_written_as_the_spec_reads_it(parameters: dict[str, str]) -> None:
    written = messages.startup_message(codes.PROTOCOL_3_2, parameters)
    pairs = tuple((raw(name), raw(value)) for name, value in parameters.items())
    assert read(written, F, Phase.STARTUP) == frontend("StartupMessage", minor=2, parameters=pairs)


@pytest.mark.parametrize(
    "write",
    [
        lambda: messages.query("select 1\0; drop table t"),
        lambda: messages.parameter_status("a\0b", ""),
        lambda: messages.startup_message(codes.PROTOCOL_3_0, {"user": "a\0b"}),
        lambda: messages.negotiate_protocol_version(codes.PROTOCOL_3_0, ["a\0b"]),
        lambda: messages.password_message(b"sec\0ret"),
        lambda: messages.sasl_initial_response("SCRAM\0", b""),
        lambda: messages.sasl_mechanisms(["SCRAM\0X"]),
    ],
)
def test_a_text_with_a_zero_is_never_written(write: Callable[[], bytes]) -> None:
    with pytest.raises(ProtocolViolation, match="zero"):
        write()


# --- written by the spec, read by us


def values(instance: Instance) -> Any:
    """What our reader of this message should return."""
    fields: dict[str, Any] = dict(instance.fields)
    match instance.name:
        case "PasswordMessage":
            return fields["password"]
        case "SASLInitialResponse":
            return messages.decode_text(fields["mechanism"]), fields["data"]
        case "BackendKeyData":
            return fields["process_id"] % 2**32, fields["key"]
        case "NegotiateProtocolVersion":
            return fields["version"] % 2**32, [messages.decode_text(option) for option in fields["options"]]
        case "ParameterStatus":
            return messages.decode_text(fields["parameter"]), messages.decode_text(fields["setting"])
        case "ReadyForQuery":
            return fields["status"][0]
        case "DataRow":
            return list(fields["values"])
    raise AssertionError(instance.name)


READERS: dict[str, tuple[Callable[[bytes], Any], Phase]] = {
    "PasswordMessage": (messages.read_password, Phase.PASSWORD),
    "SASLInitialResponse": (messages.read_sasl_initial_response, Phase.SASL_INITIAL),
    "BackendKeyData": (messages.read_backend_key_data, Phase.SESSION),
    "NegotiateProtocolVersion": (messages.read_negotiate_protocol_version, Phase.SESSION),
    "ParameterStatus": (messages.read_parameter_status, Phase.SESSION),
    "ReadyForQuery": (messages.read_ready_for_query, Phase.SESSION),
    "DataRow": (messages.read_data_row, Phase.SESSION),
}

every_reader = pytest.mark.parametrize("name", READERS)


def format_named(name: str) -> Message:
    return next(message for message in MESSAGES if message.name == name and message.since <= LATEST)


@every_reader
@given(data=st.data())
def test_a_valid_message_is_read_as_the_spec_wrote_it(name: str, data: st.DataObject) -> None:
    reader, _ = READERS[name]
    instance = data.draw(strategies.instances_of(format_of(format_named(name).sender, name)))
    assert reader(encode(instance)[5:]) == values(instance)


@every_reader
@given(body=st.binary(max_size=30) | st.lists(st.sampled_from((b"\0", b"I", b"ab", b"\xff\xff\xff\xff"))).map(b"".join))
def test_any_body_is_read_as_the_spec_reads_it_or_refused_as_the_spec_refuses_it(name: str, body: bytes) -> None:
    reader, phase = READERS[name]
    message = format_of(format_named(name).sender, name)
    whole = messages.message(message.type[0], body)
    try:
        expected = values(decode(whole, message.sender, phase))
    except Malformed:
        event("malformed")
        with pytest.raises(ProtocolViolation):
            reader(body)
    else:
        event("well-formed")
        assert reader(body) == expected


@pytest.mark.parametrize(
    "body", [b"\xff\xff", b"\0\1\xff\xff\xff\xfe", b"\0\2\0\0\0\1x\xff\xff\xff\xf0", b"\0\0x", b"\0"]
)
def test_a_row_with_a_count_or_a_length_that_cannot_be_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        messages.read_data_row(body)


@pytest.mark.parametrize("size", range(4))
def test_an_authentication_request_without_its_number_is_refused(size: int) -> None:
    with pytest.raises(ProtocolViolation, match="malformed authentication request"):
        messages.read_authentication(bytes(size))


@pytest.mark.parametrize("size", [0, 3, 257])
def test_a_cancel_key_of_a_length_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ProtocolViolation, match="malformed BackendKeyData"):
        messages.read_backend_key_data(bytes(4 + size))


@given(data=st.data())
def test_authentication_requests_are_read_as_the_spec_wrote_them(data: st.DataObject) -> None:
    formats = [m for m in strategies.formats(B) if m.type == b"R"]
    instance = data.draw(st.one_of([strategies.instances_of(m) for m in formats]))
    code, payload = messages.read_authentication(encode(instance)[5:])
    assert dict(format_of(B, instance.name).fields)["code"] == Constant(32, code)
    if instance.name == "AuthenticationSASL":
        names = instance["mechanisms"]
        assert isinstance(names, tuple)
        assert messages.read_sasl_mechanisms(payload) == [messages.decode_text(name) for name in names]  # type: ignore[arg-type]
    else:
        assert payload == b"".join(value for value in instance.fields.values() if isinstance(value, bytes))


@given(data=st.data())
def test_errors_and_notices_are_read_as_the_spec_wrote_them(data: st.DataObject) -> None:
    instance = data.draw(
        strategies.instances_of(format_of(B, data.draw(st.sampled_from(("ErrorResponse", "NoticeResponse")))))
    )
    fields: Any = instance["fields"]
    said = {code: messages.decode_text(text) for code, text in fields}
    error = messages.read_error(encode(instance)[5:])
    if b"M" in said:
        assert error.message == said[b"M"]
    assert error.sqlstate == (said[b"C"] if re.fullmatch("[0-9A-Z]{5}", said.get(b"C", "")) else "XX000")
    assert error.severity == (said.get(b"V") or said.get(b"S") or "ERROR")
    assert (error.detail, error.hint) == (said.get(b"D"), said.get(b"H"))


@given(error=st.builds(PeerError, utf8_texts, sqlstate=st.just("XX001"), detail=utf8_texts.filter(bool)))
def test_an_error_that_was_written_is_read_again(error: PeerError) -> None:
    again = messages.read_error(messages.error_response(error)[5:])
    assert (again.message, again.sqlstate, again.severity) == (error.message, error.sqlstate, error.severity)
    assert (again.detail, again.hint) == (error.detail, error.hint)


@given(message=texts)
def test_an_error_of_a_server_is_passed_on_byte_for_byte_whatever_its_encoding(message: str) -> None:
    written = messages.error_response(messages.read_error(b"M" + raw(message) + b"\0\0"))
    fields: Any = read(written, B)["fields"]
    assert dict(fields)[b"M"] == raw(message)


@given(body=st.binary(max_size=200))
def test_texts_come_back_as_they_were_sent(body: bytes) -> None:
    text = body.replace(b"\0", b"")
    assert messages.encode_text(messages.decode_text(text)) == text


EVERY_READER: tuple[Callable[[bytes], Any], ...] = (
    *(reader for reader, _ in READERS.values()),
    messages.read_authentication,
    messages.read_sasl_mechanisms,
    messages.read_error,
)


@given(near=near_valid(), reader=st.sampled_from(EVERY_READER))
def test_a_nearly_valid_message_never_crashes_a_reader(near: NearValid, reader: Callable[[bytes], Any]) -> None:
    try:
        reader(near.data[5:])
    except PeerError:
        event("refused")
