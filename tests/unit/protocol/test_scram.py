"""SCRAM-SHA-256 in both roles, against each other, against the RFC's example and against peers that break the rules."""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgpooler.errors import AuthenticationFailed, FeatureNotSupported, PeerError, ProtocolViolation, ServerUnavailable
from pgpooler.protocol.passwords import (
    Cleartext,
    Derivation,
    ScramKeys,
    ScramVerifier,
    Secret,
    derive_keys,
    make_verifier,
    md5_digest,
)
from pgpooler.protocol.saslprep import saslprep
from pgpooler.protocol.scram import ScramClient, ScramServer, State, make_nonce, mock_salt, mock_verifier

SALT = b"salty salt 16 by"
NONCE = b"clientnonce"
CLIENT_FIRST = b"n,,n=,r=" + NONCE
VERIFIER = make_verifier(b"secret", salt=SALT, iterations=1)

passwords = st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=40).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


class Step(enum.IntEnum):
    """The four messages of an exchange."""

    CLIENT_FIRST = 0
    SERVER_FIRST = 1
    CLIENT_FINAL = 2
    SERVER_FINAL = 3


T = TypeVar("T")
Tamper = Callable[[Step, bytes], bytes]


def exchange(client: ScramClient, server: ScramServer, tamper: Tamper = lambda step, payload: payload) -> None:
    """Let the two talk, through somebody who may change what they say."""
    first = server.receive(tamper(Step.CLIENT_FIRST, client.client_first()))
    step = client.server_first(tamper(Step.SERVER_FIRST, first))
    keys = step.run() if isinstance(step, Derivation) else step
    final = server.receive(tamper(Step.CLIENT_FINAL, client.client_final(keys)))
    client.server_final(tamper(Step.SERVER_FINAL, final))


def outcome(action: Callable[[], T]) -> T | PeerError:
    """What comes of an action: its result, or the error that a peer is told; any other error is ours."""
    try:
        return action()
    except PeerError as error:
        return error


def started_client() -> ScramClient:
    client = ScramClient(Cleartext(b"secret"), "alice", nonce=NONCE)
    client.client_first()
    return client


def started_server() -> ScramServer:
    server = ScramServer(VERIFIER, "alice", nonce=b"servernonce")
    server.receive(CLIENT_FIRST)
    return server


def client_final(binding: bytes = b"biws", nonce: bytes = NONCE + b"servernonce", more: bytes = b"") -> bytes:
    """A client-final-message with a proof that is well formed, and wrong."""
    return b"c=" + binding + b",r=" + nonce + more + b",p=" + base64.b64encode(bytes(32))


# -- what must succeed -------------------------------------------------------------------------------------------------


def test_the_server_role_follows_the_example_of_rfc_7677() -> None:
    verifier = make_verifier(b"pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    server = ScramServer(verifier, "user", nonce=b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert server.receive(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    answer = server.receive(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert answer == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert server.state is State.DONE
    assert server.keys == derive_keys(b"pencil", verifier.salt, 4096)


@given(passwords, st.binary(min_size=1, max_size=64), st.integers(1, 3))
@example("пароль".encode(), SALT, 2)
@example(b"\xff\xfe", SALT, 1)
def test_both_roles_agree_on_any_password(password: bytes, salt: bytes, iterations: int) -> None:
    client = ScramClient(Cleartext(password), "alice")
    server = ScramServer(make_verifier(password, salt=salt, iterations=iterations), "alice")
    exchange(client, server)
    assert (client.state, server.state) == (State.DONE, State.DONE)
    assert server.keys == derive_keys(password, salt, iterations)


@given(passwords, passwords)
def test_passwords_are_the_same_exactly_when_saslprep_makes_them_the_same(right: bytes, given_one: bytes) -> None:
    client = ScramClient(Cleartext(given_one), "alice")
    server = ScramServer(make_verifier(right, iterations=1), "alice")
    if saslprep(right) == saslprep(given_one):
        exchange(client, server)
    else:
        with pytest.raises(AuthenticationFailed, match=r'^password authentication failed for user "alice"$'):
            exchange(client, server)
        assert server.state is State.FAILED
        assert server.keys is None


def test_a_password_typed_in_another_normal_form_is_the_same_password() -> None:
    exchange(
        ScramClient(Cleartext("cafe\u0301".encode()), "alice"),
        ScramServer(make_verifier("caf\u00e9".encode(), iterations=1), "alice"),
    )


def test_the_keys_a_client_proved_log_in_where_the_same_verifier_is_stored() -> None:
    server = ScramServer(VERIFIER, "alice")
    exchange(ScramClient(Cleartext(b"secret"), "alice"), server)
    assert server.keys is not None
    client = ScramClient(server.keys, "alice")
    exchange(client, ScramServer(VERIFIER, "alice"))
    assert client.state is State.DONE


def test_keys_can_be_kept_for_the_next_login() -> None:
    kept: dict[Derivation, ScramKeys] = {}
    for _ in range(2):
        client, server = ScramClient(Cleartext(b"secret"), "alice"), ScramServer(VERIFIER, "alice")
        step = client.server_first(server.receive(client.client_first()))
        assert isinstance(step, Derivation)
        keys = kept.setdefault(step, derive_keys(step.password, step.salt, step.iterations))
        client.server_final(server.receive(client.client_final(keys)))
    assert len(kept) == 1


def test_a_client_that_would_bind_the_channel_if_only_it_were_offered_is_accepted() -> None:
    server = ScramServer(VERIFIER, "alice", nonce=b"servernonce")
    server.receive(b"y" + CLIENT_FIRST[1:])
    with pytest.raises(AuthenticationFailed):
        server.receive(client_final(binding=base64.b64encode(b"y,,")))


def test_the_user_name_inside_scram_is_ignored() -> None:
    server = ScramServer(VERIFIER, "alice")
    server.receive(b"n,,n=bob=2C=3D,r=" + NONCE)
    assert server.state is State.FINAL


def test_optional_extensions_are_ignored() -> None:
    server = ScramServer(VERIFIER, "alice", nonce=b"servernonce")
    server.receive(CLIENT_FIRST + b",x=1,Y=")
    with pytest.raises(AuthenticationFailed):
        server.receive(client_final(more=b",z=2"))


def test_a_client_that_sends_no_data_at_first_gets_an_empty_challenge() -> None:
    server = ScramServer(VERIFIER, "alice")
    assert server.receive(None) == b""
    assert server.receive(CLIENT_FIRST).startswith(b"r=" + NONCE)


def test_nonces_are_fresh_and_printable() -> None:
    assert make_nonce() != make_nonce()
    first = ScramClient(Cleartext(b"secret"), "alice").client_first()
    assert first != ScramClient(Cleartext(b"secret"), "alice").client_first()
    assert first.startswith(b"n,,n=,r=")


# -- unknown users -----------------------------------------------------------------------------------------------------


def test_an_unknown_user_gets_the_same_salt_every_time_and_another_with_another_secret() -> None:
    assert mock_salt(b"secret", "nobody") == mock_salt(b"secret", "nobody")
    assert mock_salt(b"secret", "nobody") != mock_salt(b"secret", "nobody2")
    assert mock_salt(b"secret", "nobody") != mock_salt(b"other", "nobody")
    assert len(mock_salt(b"secret", "nobody")) == 16
    assert mock_salt(b"secret", "\udcff")


@given(passwords)
def test_no_password_fits_an_unknown_user_and_the_messages_look_the_same(password: bytes) -> None:
    def transcript(verifier: ScramVerifier) -> list[tuple[Step, int]]:
        seen: list[tuple[Step, int]] = []

        def look(step: Step, payload: bytes) -> bytes:
            seen.append((step, len(payload)))
            return payload

        with pytest.raises(AuthenticationFailed, match=r'^password authentication failed for user "alice"$'):
            exchange(ScramClient(Cleartext(password), "alice"), ScramServer(verifier, "alice"), look)
        return seen

    wrong = make_verifier(password + b"x", iterations=1)
    assert transcript(mock_verifier(b"mock", "alice", 1)) == transcript(wrong)


# -- clients that break the rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", "The message is empty."),
        (b"n,,n=,r=" + b"x" * 1017, "The message has 1025 bytes, more than 1024."),
        (b"n,,n=,r=\0", "The message contains a zero byte."),
        (b"n,,n=,r=x\0", "The message contains a zero byte."),
        (
            b"p=tls-server-end-point,,n=,r=x",
            "The client selected SCRAM-SHA-256, but its message binds the channel.",
        ),
        (b"p,,n=,r=x", 'Unexpected channel-binding flag "p".'),
        (b"px=tls-server-end-point,,n=,r=x", 'Unexpected channel-binding flag "px=tls-server-end-point".'),
        (b"x,,n=,r=x", 'Unexpected channel-binding flag "x".'),
        (b"N,,n=,r=x", 'Unexpected channel-binding flag "N".'),
        (b"nn,,n=,r=x", 'Unexpected channel-binding flag "nn".'),
        (b",,n=,r=x", 'Unexpected channel-binding flag "".'),
        (b"\xff" * 100, 'Unexpected channel-binding flag "' + r"\xff" * 40 + '".'),
        (b"n", 'Attribute "n" is missing.'),
        (b"n,", 'Attribute "n" is missing.'),
        (b"n,,", 'Expected attribute "n" but found "".'),
        (b"n,b=x,n=,r=x", 'Expected a comma but found "b=x".'),
        (b"n,,n=", 'Attribute "r" is missing.'),
        (b"n,,n=,", 'Expected attribute "r" but found "".'),
        (b"n,,r=x,n=", 'Expected attribute "n" but found "r=x".'),
        (b"n,,n=,r", 'Expected attribute "r" but found "r".'),
        (b"n,,n=,r=", "The nonce is empty."),
        (b"n,,n=,r=x,", 'Unexpected attribute "".'),
        (b"n,,n=,r=x,r=y", 'Unexpected attribute "r=y".'),
        (b"n,,n=,r=x,m=y", 'Unexpected attribute "m=y".'),
        (b"n,,n=,r=x,xy=z", 'Unexpected attribute "xy=z".'),
        (b"n,,n=,r=x,1=z", 'Unexpected attribute "1=z".'),
        (b"n,,n=,r=x,\n=z", 'Unexpected attribute "?=z".'),
    ],
)
def test_a_malformed_first_message_is_refused_with_the_reason(payload: bytes, detail: str) -> None:
    server = ScramServer(VERIFIER, "alice")
    with pytest.raises(ProtocolViolation, match=r"^malformed SCRAM message$") as raised:
        server.receive(payload)
    assert raised.value.detail == detail
    assert server.state is State.FAILED


@pytest.mark.parametrize("nonce", [b"a b", b"\x7f", b"\n", "é".encode(), b"\xff"])
def test_a_nonce_that_is_not_printable_is_a_protocol_violation(nonce: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"^non-printable characters in SCRAM nonce$"):
        ScramServer(VERIFIER, "alice").receive(b"n,,n=,r=" + nonce)


@pytest.mark.parametrize("payload", [b"n,a=bob,n=,r=x", b"n,,m=x,n=,r=x"])
def test_authorization_identities_and_mandatory_extensions_are_not_supported(payload: bytes) -> None:
    with pytest.raises(FeatureNotSupported):
        ScramServer(VERIFIER, "alice").receive(payload)


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", "The message is empty."),
        (client_final() + b"\0", "The message contains a zero byte."),
        (client_final(more=b",x=" + b"y" * 1024), "The message has 1105 bytes, more than 1024."),
        (client_final().partition(b",p=")[0], 'Attribute "p" is missing.'),
        (b"r=x,p=", 'Expected attribute "c" but found "r=x".'),
        (b"c=biws,p=", 'Attribute "r" is missing.'),
        (client_final(more=b",m=x"), 'Unexpected attribute "m=x".'),
        (client_final(more=b",p=x"), 'Unexpected attribute "p=x".'),
        (client_final(more=b","), 'Unexpected attribute "".'),
        (client_final()[:-4], "The proof in the last message is malformed."),
        (client_final()[:-1], "The proof in the last message is malformed."),
        (client_final() + b",x=y", "The proof in the last message is malformed."),
        (client_final()[:-3] + b"*A=", "The proof in the last message is malformed."),
    ],
)
def test_a_malformed_last_message_is_refused_with_the_reason(payload: bytes, detail: str) -> None:
    server = started_server()
    with pytest.raises(ProtocolViolation, match=r"^malformed SCRAM message$") as raised:
        server.receive(payload)
    assert raised.value.detail == detail
    assert server.state is State.FAILED


@pytest.mark.parametrize("binding", [b"", b"eSws", b"biwsAA==", b"biw", b"cD14LCw="])
def test_another_channel_binding_than_at_first_is_a_protocol_violation(binding: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="channel-binding"):
        started_server().receive(client_final(binding=binding))


@pytest.mark.parametrize("nonce", [b"", NONCE, b"servernonce", NONCE + b"servernoncf", NONCE + b"servernonce "])
def test_another_nonce_than_at_first_is_a_protocol_violation(nonce: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"^invalid SCRAM response$"):
        started_server().receive(client_final(nonce=nonce))


def test_a_finished_or_failed_exchange_takes_no_more_messages() -> None:
    server = started_server()
    with pytest.raises(AuthenticationFailed):
        server.receive(client_final())
    for payload in (client_final(), CLIENT_FIRST, None):
        with pytest.raises(ProtocolViolation, match="unexpected SCRAM message"):
            server.receive(payload)
    with pytest.raises(ProtocolViolation, match="unexpected SCRAM message"):
        started_server().receive(None)


# -- servers that break the rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", 'expected attribute "r" but found ""'),
        (b"\0", "zero byte"),
        (b"\xff\xfe", r'expected attribute "r" but found "\\xff\\xfe"'),
        (b"s=YQ==,i=1", 'expected attribute "r"'),
        (b"r=clientnoncex,i=1", 'expected attribute "s"'),
        (b"r=clientnoncex", 'attribute "s" is missing'),
        (b"r=clientnoncex,s=YQ==", 'attribute "i" is missing'),
        (b"r=clientnoncex,s=YQ==,x=1", 'expected attribute "i"'),
        (b"r=,s=YQ==,i=1", "nonce does not extend"),
        (b"r=clientnonce,s=YQ==,i=1", "nonce does not extend"),
        (b"r=Clientnoncex,s=YQ==,i=1", "nonce does not extend"),
        (b"r=xclientnonce,s=YQ==,i=1", "nonce does not extend"),
        (b"r=clientnonce x,s=YQ==,i=1", "nonce contains characters that are not printable"),
        (b"r=clientnonce" + b"x" * 65536 + b",s=YQ==,i=1", '"r" has 65547 bytes, more than 1024'),
        (b"r=clientnoncex,s=" + b"YQ==" * 16384 + b",i=1", '"s" has 65536 bytes, more than 1024'),
        (b"r=clientnoncex,s=YQ==,i=" + b"1" * 65536, '"i" has 65536 bytes, more than 1024'),
        (b"r=clientnoncex,s=,i=1", "salt is not base64 or is empty"),
        (b"r=clientnoncex,s=Y*==,i=1", "salt is not base64 or is empty"),
        (b"r=clientnoncex,s=YQ==,i=0", 'iteration count "0" is not a positive number'),
        (b"r=clientnoncex,s=YQ==,i=-1", 'iteration count "-1" is not a positive number'),
        (b"r=clientnoncex,s=YQ==,i=", 'iteration count "" is not a positive number'),
        (b"r=clientnoncex,s=YQ==,i=1e3", 'iteration count "1e3" is not a positive number'),
        (b"r=clientnoncex,s=YQ==,i=0x10", "is not a positive number"),
        (b"r=clientnoncex,s=YQ==,i= 1", "is not a positive number"),
        (b"r=clientnoncex,s=YQ==,i=1\n", "is not a positive number"),
        (b"r=clientnoncex,s=YQ==,i=4294967297", "is not a positive number"),
        (b"r=clientnoncex,s=YQ==,i=1000001", "asks for 1000001 SCRAM iterations, more than the 1000000 allowed"),
        (b"r=clientnoncex,s=YQ==,i=2147483647", "asks for 2147483647 SCRAM iterations"),
        (b"r=clientnoncex,s=YQ==,i=1,", 'unexpected attribute ""'),
        (b"r=clientnoncex,s=YQ==,i=1,i=2", 'unexpected attribute "i=2"'),
        (b"m=x,r=clientnoncex,s=YQ==,i=1", "requires an extension that is not supported"),
        (b"e=unknown-user", 'refused SCRAM authentication: "unknown-user"'),
        (b"e=" + b"x\n" * 65536, "refused SCRAM authentication"),
    ],
)
def test_a_first_message_of_a_hostile_server_is_refused_with_the_reason(payload: bytes, complaint: str) -> None:
    client = started_client()
    with pytest.raises(ServerUnavailable, match=complaint) as raised:
        client.server_first(payload)
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 300
    assert client.state is State.FAILED


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", 'expected attribute "v"'),
        (b"\0", "zero byte"),
        (b"v=", "signature is wrong"),
        (b"v=YQ==", "signature is wrong"),
        (b"v=" + base64.b64encode(bytes(32)), 'signature is wrong: it does not know the password of user "alice"'),
        (b"v=" + base64.b64encode(bytes(33)), "signature is wrong"),
        (b"v=*", "signature is not base64"),
        (b"v=" + b"A" * 65536, '"v" has 65536 bytes, more than 1024'),
        (b"v=YQ==,v=YQ==", 'unexpected attribute "v=YQ=="'),
        (b"x=y", 'expected attribute "v"'),
        (b"e=invalid-proof", 'refused SCRAM authentication: "invalid-proof"'),
    ],
)
def test_a_last_message_of_a_hostile_server_is_refused_with_the_reason(payload: bytes, complaint: str) -> None:
    client = started_client()
    step = client.server_first(b"r=clientnoncex,s=YQ==,i=1")
    assert isinstance(step, Derivation)
    client.client_final(step.run())
    with pytest.raises(ServerUnavailable, match=complaint):
        client.server_final(payload)
    assert client.state is State.FAILED


def test_a_server_that_skips_a_step_is_refused() -> None:
    signature = b"v=" + base64.b64encode(bytes(32))
    with pytest.raises(ServerUnavailable, match="out of order"):
        started_client().server_final(signature)
    client = started_client()
    client.server_first(b"r=clientnoncex,s=YQ==,i=1")
    with pytest.raises(ServerUnavailable, match="out of order"):
        client.server_final(b"v=")
    client = started_client()
    client.server_first(b"r=clientnoncex,s=YQ==,i=1")
    with pytest.raises(ServerUnavailable, match="out of order"):
        client.server_first(b"r=clientnoncex,s=YQ==,i=1")


def test_an_optional_extension_of_a_server_is_ignored() -> None:
    assert isinstance(started_client().server_first(b"r=clientnoncex,s=YQ==,i=1,x=y"), Derivation)


@pytest.mark.parametrize(
    ("secret", "have"),
    [
        (VERIFIER, "only a SCRAM verifier, which checks passwords but cannot log in"),
        (md5_digest(b"secret", "alice"), "only an MD5 digest"),
        (None, "no password"),
    ],
)
def test_a_secret_that_cannot_log_in_with_scram_is_an_error_that_says_so(secret: Secret | None, have: str) -> None:
    with pytest.raises(ServerUnavailable) as raised:
        ScramClient(secret, "alice")
    assert raised.value.message == f'the server wants SCRAM authentication, but for user "alice" there is {have}'


@pytest.mark.parametrize("first", [b"r=clientnoncex,s=YQ==,i=1", b"r=clientnoncex,s=YWJj,i=2"])
def test_keys_of_another_verifier_than_the_servers_are_an_error_that_says_so(first: bytes) -> None:
    client = ScramClient(derive_keys(b"secret", b"abc", 1), "alice", nonce=NONCE)
    with pytest.raises(ServerUnavailable, match="belongs to another verifier"):
        client.server_first(first)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_what_just_reaches_a_limit_is_accepted() -> None:
    nonce = b"x" * (1024 - len(b"n,,n=,r="))
    assert ScramServer(VERIFIER, "alice").receive(b"n,,n=,r=" + nonce).startswith(b"r=" + nonce)
    step = started_client().server_first(b"r=" + NONCE + b"x" * (1024 - len(NONCE)) + b",s=YQ==,i=1000000")
    assert step == Derivation(b"secret", b"a", 1_000_000)


def test_every_printable_character_but_the_comma_may_be_in_a_nonce() -> None:
    nonce = bytes(set(range(0x21, 0x7F)) - {ord(",")})
    assert ScramServer(VERIFIER, "alice").receive(b"n,,n=,r=" + nonce).startswith(b"r=" + nonce)


def test_what_just_exceeds_a_limit_is_refused() -> None:
    with pytest.raises(ServerUnavailable, match="has 1025 bytes, more than 1024"):
        started_client().server_first(b"r=" + NONCE + b"x" * (1025 - len(NONCE)) + b",s=YQ==,i=1000000")


# -- whatever anybody sends --------------------------------------------------------------------------------------------


@given(
    st.sampled_from(Step),
    st.integers(0, 2**16),
    st.binary(max_size=1) | st.sampled_from([b",", b"=", b"\0", b"A", b"1", b"n"]),
    st.booleans(),
)
def test_one_byte_changed_anywhere_makes_the_login_fail_with_an_error_for_the_peer(
    where: Step, position: int, byte: bytes, insert: bool
) -> None:
    def change(step: Step, payload: bytes) -> bytes:
        if step is not where:
            return payload
        at = position % (len(payload) + insert)
        changed = payload[:at] + byte + payload[at + (not insert) :]
        return changed if changed != payload else payload[:-1]

    client = ScramClient(Cleartext(b"secret"), "alice", nonce=NONCE)
    with pytest.raises(PeerError):
        exchange(client, ScramServer(VERIFIER, "alice", nonce=b"servernonce"), change)
    assert client.state is not State.DONE


@given(st.sampled_from(Step), st.integers(0, 2**16))
def test_a_message_cut_anywhere_makes_the_login_fail_with_an_error_for_the_peer(where: Step, position: int) -> None:
    def cut(step: Step, payload: bytes) -> bytes:
        return payload[: position % len(payload)] if step is where else payload

    with pytest.raises(PeerError):
        exchange(ScramClient(Cleartext(b"secret"), "alice"), ScramServer(VERIFIER, "alice"), cut)


fragments = st.lists(
    st.binary(max_size=8)
    | st.sampled_from([b"n", b"y", b"p=x", b"a=b", b"n=", b"r=", b"clientnonce", b"s=YQ==", b"i=1", b"m=x", b"e=x"])
    | st.sampled_from([b"c=biws", b"r=clientnonceservernonce", b"p=" + base64.b64encode(bytes(32)), b"v=YQ==", b"x=y"]),
    max_size=8,
).map(b",".join)


@given(fragments, fragments)
def test_whatever_a_client_sends_is_answered_or_an_error_for_it(first: bytes, final: bytes) -> None:
    for server, payload in ((ScramServer(VERIFIER, "alice"), first), (started_server(), final)):
        answer = outcome(partial(server.receive, payload))
        if isinstance(answer, PeerError):
            assert answer.sqlstate in ("08P01", "0A000", "28P01")
            assert server.state is State.FAILED
        else:
            assert answer.startswith(b"r=")
            assert server.state is State.FINAL


@given(fragments, fragments)
def test_whatever_a_server_sends_is_used_or_an_error_about_it(first: bytes, final: bytes) -> None:
    for payload in (first, b"r=clientnoncex,s=YQ==,i=1"):
        client = started_client()
        step: object = outcome(partial(client.server_first, payload))
        if isinstance(step, Derivation):
            assert step.iterations <= 1_000_000
            client.client_final(derive_keys(step.password, step.salt, 1))
            step = outcome(partial(client.server_final, final))
        assert isinstance(step, ServerUnavailable)
        assert step.message.isprintable()
        assert client.state is State.FAILED


def test_the_repr_of_an_exchange_shows_its_state_and_no_secret() -> None:
    assert repr(started_client()) == "ScramClient(user='alice', state=FIRST)"
    assert repr(started_server()) == "ScramServer(user='alice', state=FINAL)"
