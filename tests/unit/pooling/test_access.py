"""Who may log in and how: every method against every kind of secret, and what an unknown user gets to see."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod
from pgpooler.config.hba_file import read_hba
from pgpooler.config.model import Auth, User
from pgpooler.config.source import Sources
from pgpooler.errors import AuthenticationFailed, ConfigurationError, PeerError, ProtocolViolation
from pgpooler.pooling.access import Accepted, Access, Challenge, ClientAuthentication, LoginRequest, Lookup, Reply
from pgpooler.pooling.auth_query.found import Found
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import (
    Cleartext,
    Derivation,
    Md5Digest,
    ScramKeys,
    ScramVerifier,
    derive_keys,
    make_verifier,
    md5_digest,
    md5_response,
)
from pgpooler.protocol.scram import MECHANISM, ScramClient, mock_salt

PASSWORD = b"secret"
DIGEST = "md5" + md5_digest(PASSWORD, "alice").digest
VERIFIER = make_verifier(PASSWORD, iterations=4096)
SECRETS = {"cleartext": "secret", "digest": DIGEST, "verifier": VERIFIER.text()}
ASKING_METHODS = (AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN)
PASSWORD_REQUESTS = (codes.AUTHENTICATION_CLEARTEXT_PASSWORD, codes.AUTHENTICATION_MD5_PASSWORD)


def access(method: AuthMethod, secrets: dict[str, str], previous: Access | None = None) -> Access:
    users = {name: User(name=name, password=secret) for name, secret in secrets.items()}
    return Access(Auth(method=method, users=users), mock_secret=b"mock", previous=previous)


def asking(user: str) -> LoginRequest:
    """A login over TCP in clear text."""
    address = IPv4Address("10.0.0.1")
    return LoginRequest(user, "app", f"{address}:5000", address, encryption=None)


def log_in(exchange: ClientAuthentication, password: bytes, seen: list[object] | None = None) -> Accepted:
    """What an honest client does; `seen` collects the kind and length of everything it gets to see."""
    seen = [] if seen is None else seen
    request, payload = exchange.request
    seen.append((request, len(payload)))
    if request in PASSWORD_REQUESTS:
        if request == codes.AUTHENTICATION_MD5_PASSWORD:
            password = md5_response(md5_digest(password, exchange.user), payload)
        return finished(exchange, exchange.respond(password + b"\0"))
    assert request == codes.AUTHENTICATION_SASL
    assert messages.read_sasl_mechanisms(payload) == [MECHANISM]
    scram = ScramClient(Cleartext(password), exchange.user)
    challenge = exchange.respond(initial_response(scram.client_first()))
    assert isinstance(challenge, Challenge)
    step = scram.server_first(challenge.payload)
    assert isinstance(step, Derivation)
    seen.append((len(challenge.payload), len(step.salt), step.iterations))
    accepted = finished(exchange, exchange.respond(scram.client_final(step.run())))
    assert accepted.payload is not None
    scram.server_final(accepted.payload)
    return accepted


def finished(exchange: ClientAuthentication, reply: Reply) -> Accepted:
    if isinstance(reply, Derivation):
        return exchange.derived(reply.run())
    assert isinstance(reply, Accepted)
    return reply


def initial_response(data: bytes, mechanism: str = MECHANISM) -> bytes:
    """The body of a SASLInitialResponse."""
    return messages.sasl_initial_response(mechanism, data)[codes.HEADER :]


def refused(users: Access, user: str, password: bytes) -> list[object]:
    """Fail to log in; everything the client got to see."""
    seen: list[object] = []
    with pytest.raises(AuthenticationFailed) as raised:
        log_in(users.begin(asking(user)), password, seen)
    error = raised.value
    assert error.message == f'password authentication failed for user "{user}"'
    return [*seen, error.sqlstate, error.severity, error.detail, error.hint]


@pytest.mark.parametrize(
    ("method", "kind", "request_code"),
    [
        (AuthMethod.SCRAM_SHA_256, "cleartext", codes.AUTHENTICATION_SASL),
        (AuthMethod.SCRAM_SHA_256, "verifier", codes.AUTHENTICATION_SASL),
        (AuthMethod.MD5, "cleartext", codes.AUTHENTICATION_MD5_PASSWORD),
        (AuthMethod.MD5, "digest", codes.AUTHENTICATION_MD5_PASSWORD),
        (AuthMethod.MD5, "verifier", codes.AUTHENTICATION_SASL),
        (AuthMethod.PLAIN, "cleartext", codes.AUTHENTICATION_CLEARTEXT_PASSWORD),
        (AuthMethod.PLAIN, "digest", codes.AUTHENTICATION_CLEARTEXT_PASSWORD),
        (AuthMethod.PLAIN, "verifier", codes.AUTHENTICATION_CLEARTEXT_PASSWORD),
    ],
)
def test_the_right_password_is_accepted_and_a_wrong_one_refused(
    method: AuthMethod, kind: str, request_code: int
) -> None:
    users = access(method, {"alice": SECRETS[kind]})
    assert users.begin(asking("alice")).request[0] == request_code
    log_in(users.begin(asking("alice")), PASSWORD)
    for wrong in (b"Secret", b"secre", b"secret ", DIGEST.encode(), VERIFIER.text().encode()):
        refused(users, "alice", wrong)


def test_method_scram_refuses_the_right_password_of_a_user_with_an_md5_secret() -> None:
    users = access(AuthMethod.SCRAM_SHA_256, {"alice": DIGEST, "bob": "secret"})
    assert refused(users, "alice", PASSWORD) == refused(users, "bob", b"wrong")


@pytest.mark.parametrize("method", ASKING_METHODS)
@pytest.mark.parametrize("kind", SECRETS)
def test_an_unknown_user_sees_what_one_with_a_wrong_password_sees(method: AuthMethod, kind: str) -> None:
    users = access(method, {"alice": SECRETS[kind]})
    assert refused(users, "nobody", b"wrong") == refused(users, "alice", b"wrong")


def test_an_unknown_user_is_treated_as_most_users_are() -> None:
    few = make_verifier(PASSWORD, iterations=10).text()
    many = make_verifier(PASSWORD, iterations=20).text()
    users = access(AuthMethod.MD5, {"a": few, "b": many, "c": many, "d": DIGEST})
    assert refused(users, "nobody", b"wrong") == refused(users, "b", b"wrong")
    users = access(AuthMethod.MD5, {"a": few, "b": DIGEST, "c": DIGEST})
    assert refused(users, "nobody", b"wrong") == refused(users, "b", b"wrong")
    users = access(AuthMethod.PLAIN, {"a": few, "b": many, "c": many})
    reply = users.begin(asking("nobody")).respond(b"secret\0")
    assert isinstance(reply, Derivation)
    assert reply.iterations == 20


@pytest.mark.parametrize("method", ASKING_METHODS)
def test_the_salt_of_a_name_does_not_tell_whether_it_exists(method: AuthMethod) -> None:
    def salt(users: Access) -> bytes:
        exchange = users.begin(asking("alice"))
        if exchange.request[0] != codes.AUTHENTICATION_SASL:
            return b""
        challenge = exchange.respond(initial_response(b"n,,n=,r=x"))
        assert isinstance(challenge, Challenge)
        return challenge.payload.split(b",")[1]

    assert salt(access(method, {"alice": "secret"})) == salt(access(method, {"bob": "secret"}))
    assert salt(access(method, {"alice": "other"})) == salt(access(method, {"alice": "secret"}))


@pytest.mark.parametrize("method", ASKING_METHODS)
def test_a_user_without_a_secret_is_like_one_who_does_not_exist(method: AuthMethod) -> None:
    users = access(method, {"alice": "", "bob": "secret"})
    for password in (b"secret", b"x"):
        assert refused(users, "alice", password) == refused(users, "nobody", password)
    assert users.server_credentials("alice") is None


@pytest.mark.parametrize("method", [AuthMethod.MD5, AuthMethod.PLAIN])
@pytest.mark.parametrize("user", ["alice", "empty", "nobody"])
def test_an_empty_password_is_refused_whoever_sends_it(method: AuthMethod, user: str) -> None:
    users = access(method, {"alice": "secret", "empty": ""})
    with pytest.raises(AuthenticationFailed, match="empty password returned by client"):
        users.begin(asking(user)).respond(b"\0")


@pytest.mark.parametrize("method", ASKING_METHODS)
def test_no_users_at_all_means_nobody_logs_in(method: AuthMethod) -> None:
    refused(access(method, {}), "alice", PASSWORD)


def test_trust_asks_for_nothing_but_knows_its_users() -> None:
    users = access(AuthMethod.TRUST, {"alice": "secret", "bob": ""})
    assert users.begin(asking("alice")).request == (codes.AUTHENTICATION_OK, b"")
    assert users.begin(asking("bob")).request == (codes.AUTHENTICATION_OK, b"")
    with pytest.raises(AuthenticationFailed, match='role "nobody" does not exist') as raised:
        users.begin(asking("nobody"))
    assert raised.value.sqlstate == "28000"
    with pytest.raises(ProtocolViolation):
        users.begin(asking("alice")).respond(b"secret\0")


def test_trust_without_a_list_of_users_lets_everybody_in() -> None:
    users = access(AuthMethod.TRUST, {})
    assert users.begin(asking("anybody")).request == (codes.AUTHENTICATION_OK, b"")
    assert users.server_credentials("anybody") is None


def test_every_md5_login_has_a_salt_of_its_own() -> None:
    users = access(AuthMethod.MD5, {"alice": "secret"})
    salts = {users.begin(asking("alice")).request[1] for _ in range(10)}
    assert len(salts) > 1
    assert {len(salt) for salt in salts} == {4}


def test_the_answer_to_one_md5_salt_does_not_serve_another() -> None:
    users = access(AuthMethod.MD5, {"alice": "secret"})
    first, second = users.begin(asking("alice")), users.begin(asking("alice"))
    other_salt = bytes(255 - byte for byte in second.request[1])
    for salt in {first.request[1], other_salt} - {second.request[1]}:
        with pytest.raises(AuthenticationFailed):
            second.respond(md5_response(md5_digest(PASSWORD, "alice"), salt) + b"\0")


def test_a_password_is_derived_with_the_salt_and_iterations_of_the_users_own_verifier() -> None:
    exchange = access(AuthMethod.PLAIN, {"alice": VERIFIER.text()}).begin(asking("alice"))
    reply = exchange.respond(b"secret\0")
    assert reply == Derivation(PASSWORD, VERIFIER.salt, VERIFIER.iterations)
    with pytest.raises(AuthenticationFailed):
        exchange.derived(derive_keys(b"wrong", VERIFIER.salt, VERIFIER.iterations))


@pytest.mark.parametrize("method", [*ASKING_METHODS, AuthMethod.TRUST])
def test_keys_nobody_asked_for_are_never_accepted(method: AuthMethod) -> None:
    users = access(method, {"alice": "secret"})
    with pytest.raises(PeerError):
        users.begin(asking("alice")).derived(derive_keys(PASSWORD, b"salt", 1))


def test_another_mechanism_than_the_one_offered_is_a_protocol_violation() -> None:
    for mechanism in ("SCRAM-SHA-256-PLUS", "scram-sha-256", "SCRAM-SHA-1", "PLAIN", ""):
        exchange = access(AuthMethod.SCRAM_SHA_256, {"alice": "secret"}).begin(asking("alice"))
        with pytest.raises(ProtocolViolation, match="invalid SASL authentication mechanism"):
            exchange.respond(initial_response(b"n,,n=,r=x", mechanism))


def test_a_first_response_without_data_gets_an_empty_challenge() -> None:
    exchange = access(AuthMethod.SCRAM_SHA_256, {"alice": "secret"}).begin(asking("alice"))
    assert exchange.respond(b"SCRAM-SHA-256\0\xff\xff\xff\xff") == Challenge(b"")
    assert isinstance(exchange.respond(b"n,,n=,r=x"), Challenge)


@pytest.mark.parametrize("size", ["00000000", "00000003", "0000000b", "7fffffff", "80000000", "fffffffe", "ffffffff"])
def test_a_first_response_that_lies_about_its_length_is_a_protocol_violation(size: str) -> None:
    """PgBouncer, CVE-2026-6664: such a length overflowed and ended the pooler."""
    exchange = access(AuthMethod.SCRAM_SHA_256, {"alice": "secret"}).begin(asking("alice"))
    with pytest.raises(ProtocolViolation):
        exchange.respond(b"SCRAM-SHA-256\0" + bytes.fromhex(size) + b"n,,n=,r=x")


@given(
    st.sampled_from([*ASKING_METHODS, AuthMethod.TRUST]),
    st.sampled_from(["alice", "nobody"]),
    st.lists(st.binary(max_size=60) | st.just(initial_response(b"n,,n=,r=x")) | st.just(b"x\0"), max_size=3),
)
def test_whatever_a_client_sends_is_a_challenge_or_an_error_for_it(
    method: AuthMethod, user: str, bodies: list[bytes]
) -> None:
    users = access(method, {"alice": VERIFIER.text()})
    with contextlib.suppress(PeerError):
        exchange = users.begin(asking(user))
        for body in bodies:
            assert isinstance(exchange.respond(body), Challenge | Derivation)


def test_a_user_name_of_any_bytes_can_fail_to_log_in() -> None:
    for method in ASKING_METHODS:
        refused(access(method, {"alice": "secret"}), "caf\udce9\udcff", b"x")


# -- towards servers ---------------------------------------------------------------------------------------------------


def test_the_secret_of_a_user_is_what_logs_in_to_servers() -> None:
    users = access(AuthMethod.PLAIN, {"alice": "secret", "bob": DIGEST, "carol": VERIFIER.text()})
    assert users.server_credentials("alice") == Cleartext(PASSWORD)
    assert users.server_credentials("bob") == Md5Digest(DIGEST[3:])
    assert users.server_credentials("carol") == VERIFIER
    assert users.server_credentials("nobody") is None


@pytest.mark.parametrize("method", ASKING_METHODS)
def test_a_user_with_a_verifier_logs_in_to_servers_with_the_keys_of_the_last_client(method: AuthMethod) -> None:
    users = access(method, {"alice": VERIFIER.text()})
    assert isinstance(users.server_credentials("alice"), ScramVerifier)
    refused(users, "alice", b"wrong")
    assert isinstance(users.server_credentials("alice"), ScramVerifier)
    log_in(users.begin(asking("alice")), PASSWORD)
    keys = users.server_credentials("alice")
    assert keys == derive_keys(PASSWORD, VERIFIER.salt, VERIFIER.iterations)
    refused(users, "alice", b"wrong")
    assert isinstance(users.server_credentials("alice"), ScramKeys)


# -- load and reload ---------------------------------------------------------------------------------------------------


def test_every_unreadable_secret_is_named_without_being_shown() -> None:
    with pytest.raises(ConfigurationError) as raised:
        access(AuthMethod.PLAIN, {"alice": "SCRAM-SHA-256$x:y$z", "bob": "secret", "carol": "pass\0word"})
    assert [str(problem) for problem in raised.value.problems] == [
        'user "alice": the SCRAM secret is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>',
        'user "carol": the password contains a zero byte, which cannot be sent',
    ]


def test_after_a_reload_the_new_password_counts_and_the_old_one_does_not() -> None:
    for method in ASKING_METHODS:
        old = access(method, {"alice": "secret", "bob": "secret"})
        log_in(old.begin(asking("alice")), PASSWORD)
        new = access(method, {"alice": "changed"}, previous=old)
        refused(new, "alice", PASSWORD)
        log_in(new.begin(asking("alice")), b"changed")
        refused(new, "bob", PASSWORD)


def test_a_reload_keeps_what_did_not_change_and_forgets_keys_of_what_did() -> None:
    other = make_verifier(b"other", iterations=1).text()
    old = access(AuthMethod.SCRAM_SHA_256, {"alice": VERIFIER.text(), "bob": other})
    log_in(old.begin(asking("alice")), PASSWORD)
    log_in(old.begin(asking("bob")), b"other")
    new = access(AuthMethod.SCRAM_SHA_256, {"alice": VERIFIER.text(), "bob": VERIFIER.text()}, previous=old)
    assert isinstance(new.server_credentials("alice"), ScramKeys)
    assert isinstance(new.server_credentials("bob"), ScramVerifier)


def test_a_reload_may_change_the_method() -> None:
    users: Access | None = None
    for method in (*ASKING_METHODS, *reversed(ASKING_METHODS)):
        users = access(method, {"alice": "secret"}, previous=users)
        log_in(users.begin(asking("alice")), PASSWORD)
        refused(users, "alice", b"wrong")


def test_a_reload_keeps_the_salts_of_the_process() -> None:
    auth = Auth(users={"alice": User(name="alice", password="secret")})
    old = Access(auth)
    first = old.begin(asking("nobody")).respond(initial_response(b"n,,n=,r=x"))
    second = Access(auth, previous=old).begin(asking("nobody")).respond(initial_response(b"n,,n=,r=x"))
    other = Access(auth).begin(asking("nobody")).respond(initial_response(b"n,,n=,r=x"))
    assert isinstance(first, Challenge)
    assert isinstance(second, Challenge)
    assert isinstance(other, Challenge)
    assert first.payload.split(b",")[1:] == second.payload.split(b",")[1:]
    assert first.payload.split(b",")[1] != other.payload.split(b",")[1]


def test_no_secret_shows_in_a_repr() -> None:
    users = access(AuthMethod.SCRAM_SHA_256, {"alice": "hunter2"})
    exchange = users.begin(asking("alice"))
    assert repr(users) == "Access(methods=scram-sha-256, users=1)"
    assert repr(exchange) == "ScramAuthentication(user='alice', request=10)"
    assert "hunter2" not in repr(vars(users))


def test_a_login_on_the_event_loop_never_derives_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    users = access(AuthMethod.SCRAM_SHA_256, {"alice": "secret"})
    keys = derive_keys(PASSWORD, mock_salt(b"mock", "alice"), 4096)
    monkeypatch.setattr("hashlib.pbkdf2_hmac", None)
    exchange = users.begin(asking("alice"))
    scram = ScramClient(keys, "alice")
    challenge = exchange.respond(initial_response(scram.client_first()))
    assert isinstance(challenge, Challenge)
    assert scram.server_first(challenge.payload) == keys
    assert isinstance(exchange.respond(scram.client_final(keys)), Accepted)


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_a_role_cannot_keep_us_computing_with_a_verifier_of_its_own_making(user: str) -> None:
    """Whoever may change a password may store a verifier of 2**31 - 1 iterations, which take half an hour."""
    endless = ScramVerifier(2**31 - 1, b"salt", VERIFIER.stored_key, VERIFIER.server_key)
    users = access(AuthMethod.PLAIN, {"alice": endless.text()})
    with pytest.raises(AuthenticationFailed, match=f'password authentication failed for user "{user}"'):
        users.begin(asking(user)).respond(PASSWORD + b"\0")


@pytest.mark.parametrize("method", ["md5", "password", "trust"])
def test_what_is_looked_up_is_made_ready_for_the_entry_that_decides_and_no_other(method: str) -> None:
    """PBKDF2 takes a millisecond, in which no query gets on: under scram-sha-256 it is done in a thread."""
    rules = read_hba(f"host app all all {method}\nhost all all all scram-sha-256\n", "hba", Sources("", {}))
    users = Access(Auth(hba_file="hba", hba=rules, auth_user="pooler"))
    lookup = users.begin(asking("alice"))
    assert isinstance(lookup, Lookup)
    found = Found(Cleartext(PASSWORD))
    assert users.to_derive(lookup, found) is None
    exchange, entry = users.looked_up(lookup, found, None, 1.0)
    assert entry.verifier is None
    if method != "trust":
        log_in(exchange, PASSWORD)
