"""SCRAM-SHA-256-PLUS in both roles, against each other, against scramp's clients, and with somebody between them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient as ForeignClient

from pgpooler.errors import AuthenticationFailed, PeerError, ProtocolViolation, ServerUnavailable
from pgpooler.protocol.passwords import Cleartext, Derivation, make_verifier
from pgpooler.protocol.scram import MECHANISM, MECHANISM_PLUS, ScramClient, ScramServer, State, mechanisms

END_POINT = bytes(range(32))
SALT = b"salty salt 16 by"
VERIFIER = make_verifier(b"secret", salt=SALT, iterations=1)

end_points = st.sampled_from([b"", END_POINT, bytes(28), bytes(64)])


def client(mechanism: str = MECHANISM_PLUS, end_point: bytes = END_POINT) -> ScramClient:
    return ScramClient(Cleartext(b"secret"), "alice", mechanism=mechanism, end_point=end_point)


def server(mechanism: str = MECHANISM_PLUS, end_point: bytes = END_POINT) -> ScramServer:
    return ScramServer(VERIFIER, "alice", mechanism=mechanism, end_point=end_point, nonce=b"servernonce")


def exchange(left: ScramClient, right: ScramServer) -> None:
    step = left.server_first(right.receive(left.client_first()))
    assert isinstance(step, Derivation)
    left.server_final(right.receive(left.client_final(step.run())))


def outcome(action: Callable[[], bytes]) -> bytes | PeerError:
    """What comes of an action: its result, or the error that a peer is told; any other error is ours."""
    try:
        return action()
    except PeerError as error:
        return error


def client_final(header: bytes, end_point: bytes = b"") -> bytes:
    """A client-final-message with a proof that is well formed, and wrong."""
    binding = base64.b64encode(header + end_point)
    return b"c=" + binding + b",r=noncservernonce,p=" + base64.b64encode(bytes(32))


def test_plus_is_offered_first_and_only_where_there_is_something_to_bind_to() -> None:
    assert mechanisms(END_POINT) == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
    assert mechanisms(b"") == ["SCRAM-SHA-256"]


@given(end_points, end_points, st.sampled_from([MECHANISM, MECHANISM_PLUS]))
def test_both_sides_agree_exactly_when_their_tls_ends_at_the_same_certificate(
    ours: bytes, theirs: bytes, mechanism: str
) -> None:
    """With somebody between them the end points differ, and nothing of what he can choose gets him through."""
    if mechanism not in mechanisms(ours):
        with pytest.raises(ProtocolViolation, match="invalid SASL authentication mechanism"):
            server(mechanism, ours)
        return
    left, right = client(mechanism, theirs), server(mechanism, ours)
    if mechanism == MECHANISM_PLUS:
        passes = ours == theirs
    else:
        passes = not (ours and theirs)  # otherwise somebody took PLUS out of the offer
    if passes:
        exchange(left, right)
        assert (left.state, right.state) == (State.DONE, State.DONE)
    else:
        with pytest.raises(AuthenticationFailed) as raised:
            exchange(left, right)
        assert raised.value.sqlstate == "28000"
        assert right.keys is None


@pytest.mark.parametrize("end_point", [b"", END_POINT])
def test_a_client_that_cannot_bind_is_let_in_without(end_point: bytes) -> None:
    exchange(client(MECHANISM, b""), server(MECHANISM, end_point))


@pytest.mark.parametrize(
    ("mechanism", "end_point", "header"),
    [
        (MECHANISM_PLUS, END_POINT, b"p=tls-server-end-point,,"),
        (MECHANISM, END_POINT, b"y,,"),
        (MECHANISM, b"", b"n,,"),
    ],
)
def test_a_client_says_whether_it_binds_and_whether_it_could(mechanism: str, end_point: bytes, header: bytes) -> None:
    left = client(mechanism, end_point)
    first = left.client_first()
    assert first.startswith(header + b"n=,r=")
    nonce = first.partition(b"r=")[2]
    step = left.server_first(b"r=" + nonce + b"x,s=YQ==,i=1")
    assert isinstance(step, Derivation)
    binding = left.client_final(step.run()).split(b",")[0].removeprefix(b"c=")
    assert base64.b64decode(binding) == header + (end_point if mechanism == MECHANISM_PLUS else b"")


def test_a_client_that_was_not_shown_the_offer_is_refused_as_postgresql_refuses_it() -> None:
    """Somebody between the two took SCRAM-SHA-256-PLUS out of it."""
    right = server(MECHANISM)
    with pytest.raises(AuthenticationFailed, match=r"^SCRAM channel binding negotiation error$") as raised:
        right.receive(b"y,,n=,r=nonc")
    assert raised.value.sqlstate == "28000"
    assert right.state is State.FAILED


@pytest.mark.parametrize("kind", ["tls-unique", "tls-exporter", "", "tls-server-end-point2", "TLS-SERVER-END-POINT"])
def test_another_kind_of_channel_binding_is_refused_as_postgresql_refuses_it(kind: str) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        server().receive(f"p={kind},,n=,r=nonc".encode())
    assert raised.value.message == f'unsupported SCRAM channel-binding type "{kind}"'


@pytest.mark.parametrize("flag", [b"n", b"y"])
def test_who_selects_plus_must_bind(flag: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"^malformed SCRAM message$") as raised:
        server().receive(flag + b",,n=,r=nonc")
    assert raised.value.detail == "The client selected SCRAM-SHA-256-PLUS, but its message does not bind the channel."


@pytest.mark.parametrize("end_point", [b"", END_POINT])
@pytest.mark.parametrize("kind", [b"tls-server-end-point", b"tls-unique"])
def test_who_does_not_select_plus_must_not_bind(kind: bytes, end_point: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"^malformed SCRAM message$"):
        server(MECHANISM, end_point).receive(b"p=" + kind + b",,n=,r=nonc")


@pytest.mark.parametrize(
    "binding",
    [
        client_final(b"n,,"),
        client_final(b"y,,"),
        client_final(b"p=tls-server-end-point,,"),
        client_final(b"p=tls-server-end-point,,", END_POINT[:-1]),
        client_final(b"p=tls-server-end-point,,", END_POINT + b"\0"),
        client_final(b"p=tls-unique,,", END_POINT),
        client_final(b"", END_POINT),
    ],
)
def test_a_binding_to_anything_else_is_refused_as_postgresql_refuses_it(binding: bytes) -> None:
    right = server()
    right.receive(b"p=tls-server-end-point,,n=,r=nonc")
    with pytest.raises(AuthenticationFailed, match=r"^SCRAM channel binding check failed$") as raised:
        right.receive(binding)
    assert raised.value.sqlstate == "28000"


def test_a_right_binding_does_not_make_up_for_a_wrong_proof() -> None:
    right = server()
    right.receive(b"p=tls-server-end-point,,n=,r=nonc")
    with pytest.raises(AuthenticationFailed, match=r"^password authentication failed"):
        right.receive(client_final(b"p=tls-server-end-point,,", END_POINT))


@given(st.integers(0, 31), st.integers(1, 255))
def test_one_wrong_bit_of_the_digest_is_noticed(position: int, change: int) -> None:
    other = bytearray(END_POINT)
    other[position] ^= change
    with pytest.raises(PeerError, match="channel binding check failed"):
        exchange(client(end_point=bytes(other)), server())


@given(st.binary(max_size=60))
def test_whatever_flag_a_client_writes_it_is_answered_or_told_why_not(flag: bytes) -> None:
    for right in (server(), server(MECHANISM), server(MECHANISM, b"")):
        answer = outcome(partial(right.receive, flag + b",n=,r=nonc"))
        assert not isinstance(answer, PeerError) or answer.sqlstate in ("08P01", "0A000", "28000")


@pytest.mark.parametrize("end_point", [b"", END_POINT])
def test_scramp_is_let_in_by_our_server_role(end_point: bytes) -> None:
    """The other way round it cannot judge: its server role wants a user name, which we leave empty as libpq does."""
    offered = mechanisms(end_point)
    binding = ("tls-server-end-point", end_point) if end_point else None
    left = ForeignClient(offered, "alice", "secret", channel_binding=binding)
    assert left.mechanism_name == offered[0]
    verifier = make_verifier(b"secret", salt=SALT)
    right = ScramServer(verifier, "alice", mechanism=left.mechanism_name, end_point=end_point)
    left.set_server_first(right.receive(left.get_client_first().encode()).decode())
    left.set_server_final(right.receive(left.get_client_final().encode()).decode())
    assert right.state is State.DONE


def test_a_server_that_speaks_of_an_error_is_refused_with_plus_too() -> None:
    left = client()
    nonce = left.client_first().partition(b"r=")[2]
    step = left.server_first(b"r=" + nonce + b"x,s=YQ==,i=1")
    assert isinstance(step, Derivation)
    left.client_final(step.run())
    with pytest.raises(ServerUnavailable, match='"channel-bindings-dont-match"'):
        left.server_final(b"e=channel-bindings-dont-match")
