"""Channel binding at a login: what clients are offered, what is chosen of a server's offer, and what is refused."""

from __future__ import annotations

import base64
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod, ChannelBinding, TlsMode
from pgpooler.config.model import Auth, Backend, BackendTls, User
from pgpooler.errors import AuthenticationFailed, PeerError, ProtocolViolation, ServerUnavailable
from pgpooler.pooling.access import Accepted, Access, Challenge, LoginRequest
from pgpooler.pooling.port import Encryption
from pgpooler.pooling.server_login import ServerLogin
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import Cleartext, Derivation, Secret, derive_keys, make_verifier
from pgpooler.protocol.scram import MECHANISM, MECHANISM_PLUS, ScramClient, ScramServer, State
from tests.memory import MemoryPort
from tests.scripted import Client, Recording, Setting

END_POINT = bytes(range(32))
SALT = b"salty salt 16 by"
VERIFIER = make_verifier(b"secret", salt=SALT)
ENCRYPTED = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384", END_POINT)
UNBINDABLE = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384")  # the certificate is of an Edwards curve
PLUS_FIRST = [MECHANISM_PLUS, MECHANISM]
DISABLE, PREFER, REQUIRE = ChannelBinding


# -- towards clients ---------------------------------------------------------------------------------------------------


def asking(user: str, encryption: Encryption | None) -> LoginRequest:
    address = IPv4Address("10.0.0.1")
    return LoginRequest(user, "app", f"{address}:5000", address, encryption=encryption)


def users(method: AuthMethod = AuthMethod.SCRAM_SHA_256) -> Access:
    return Access(Auth(method=method, users={"alice": User(name="alice", password="secret")}), mock_secret=b"mock")


@pytest.mark.parametrize("user", ["alice", "nobody"])
@pytest.mark.parametrize(
    ("encryption", "offer"), [(None, [MECHANISM]), (UNBINDABLE, [MECHANISM]), (ENCRYPTED, PLUS_FIRST)]
)
def test_plus_is_offered_to_clients_where_there_is_something_to_bind_to(
    user: str, encryption: Encryption | None, offer: list[str]
) -> None:
    request, payload = users().begin(asking(user, encryption)).request
    assert request == codes.AUTHENTICATION_SASL
    assert messages.read_sasl_mechanisms(payload) == offer


@pytest.mark.parametrize("mechanism", [MECHANISM, MECHANISM_PLUS])
@pytest.mark.parametrize(("user", "password"), [("alice", b"secret"), ("alice", b"wrong"), ("nobody", b"secret")])
def test_with_and_without_binding_the_password_decides(mechanism: str, user: str, password: bytes) -> None:
    access = users()
    login = access.begin(asking(user, ENCRYPTED))
    end_point = END_POINT if mechanism == MECHANISM_PLUS else b""
    client = ScramClient(Cleartext(password), user, mechanism=mechanism, end_point=end_point)
    answer = login.respond(messages.sasl_initial_response(mechanism, client.client_first())[codes.HEADER :])
    assert isinstance(answer, Challenge)
    step = client.server_first(answer.payload)
    assert isinstance(step, Derivation)
    last = client.client_final(step.run())
    if (user, password) == ("alice", b"secret"):
        accepted = login.respond(last)
        assert isinstance(accepted, Accepted)
        assert accepted.payload is not None
        client.server_final(accepted.payload)
    else:
        with pytest.raises(AuthenticationFailed, match=f'^password authentication failed for user "{user}"$'):
            login.respond(last)


@pytest.mark.parametrize("encryption", [None, UNBINDABLE])
def test_plus_cannot_be_chosen_where_it_was_not_offered(encryption: Encryption | None) -> None:
    login = users().begin(asking("alice", encryption))
    with pytest.raises(ProtocolViolation, match="invalid SASL authentication mechanism"):
        login.respond(messages.sasl_initial_response(MECHANISM_PLUS, b"p=tls-server-end-point,,n=,r=x")[5:])


def test_a_client_that_was_not_shown_the_offer_of_plus_is_refused() -> None:
    login = users().begin(asking("alice", ENCRYPTED))
    with pytest.raises(AuthenticationFailed, match="channel binding negotiation error"):
        login.respond(messages.sasl_initial_response(MECHANISM, b"y,,n=,r=x")[5:])


@pytest.mark.parametrize("size", ["00000000", "00000003", "7fffffff", "80000000", "fffffffe"])
def test_a_first_response_with_plus_must_not_lie_about_its_length(size: str) -> None:
    login = users().begin(asking("alice", ENCRYPTED))
    with pytest.raises(ProtocolViolation, match="malformed SASLInitialResponse"):
        login.respond(b"SCRAM-SHA-256-PLUS\0" + bytes.fromhex(size) + b"p=tls-server-end-point,,n=,r=x")


# -- towards servers ---------------------------------------------------------------------------------------------------


def login_to(
    encryption: Encryption | None,
    channel_binding: ChannelBinding = PREFER,
    secret: Secret | None = Cleartext(b"secret"),  # noqa: B008 - a value
) -> ServerLogin:
    backend = Backend(name="primary", host="pg1", channel_binding=channel_binding)
    login = ServerLogin(backend, "alice", "app", secret)
    login.encryption = encryption
    return login


def ask(login: ServerLogin, request: int, payload: bytes = b"") -> bytes:
    """Let a server ask for this; the answer's body."""
    answer = login.receive(codes.AUTHENTICATION, messages.authentication(request, payload)[codes.HEADER :])
    assert isinstance(answer, bytes)
    return answer[codes.HEADER :]


def offer(login: ServerLogin, *names: str) -> tuple[str, bytes]:
    """Let a server offer these; the mechanism that is chosen, and its first data."""
    body = ask(login, codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(names))
    mechanism, data = messages.read_sasl_initial_response(body)
    assert data is not None
    return mechanism, data


PLAIN, CAPABLE, BOUND = b"n,,", b"y,,", b"p=tls-server-end-point,,"


@pytest.mark.parametrize(
    ("encryption", "channel_binding", "offered", "mechanism", "header"),
    [
        (ENCRYPTED, PREFER, PLUS_FIRST, MECHANISM_PLUS, BOUND),
        (ENCRYPTED, PREFER, PLUS_FIRST[::-1], MECHANISM_PLUS, BOUND),
        (ENCRYPTED, PREFER, [MECHANISM_PLUS], MECHANISM_PLUS, BOUND),
        (ENCRYPTED, PREFER, [MECHANISM], MECHANISM, CAPABLE),
        (ENCRYPTED, REQUIRE, PLUS_FIRST, MECHANISM_PLUS, BOUND),
        (ENCRYPTED, DISABLE, PLUS_FIRST, MECHANISM, PLAIN),
        (ENCRYPTED, DISABLE, [MECHANISM], MECHANISM, PLAIN),
        (UNBINDABLE, PREFER, PLUS_FIRST, MECHANISM, PLAIN),
        (UNBINDABLE, PREFER, [MECHANISM], MECHANISM, PLAIN),
        (None, PREFER, [MECHANISM], MECHANISM, PLAIN),
        (None, DISABLE, PLUS_FIRST, MECHANISM, PLAIN),
        (None, PREFER, ["OAUTHBEARER", MECHANISM], MECHANISM, PLAIN),
    ],
)
def test_of_what_a_server_offers_the_best_is_chosen_that_is_possible_and_wanted(
    encryption: Encryption | None, channel_binding: ChannelBinding, offered: list[str], mechanism: str, header: bytes
) -> None:
    chosen, first = offer(login_to(encryption, channel_binding), *offered)
    assert chosen == mechanism
    assert first.startswith(header + b"n=,r=")


@pytest.mark.parametrize(
    ("encryption", "channel_binding", "offered", "complaint"),
    [
        (None, REQUIRE, [MECHANISM], "channel binding is required, but the connection is not encrypted"),
        (UNBINDABLE, REQUIRE, PLUS_FIRST, "gives nothing to bind to"),
        (ENCRYPTED, REQUIRE, [MECHANISM], "the server does not ask for SCRAM-SHA-256-PLUS"),
        (None, PREFER, PLUS_FIRST, "offers SCRAM-SHA-256-PLUS on a connection that is not encrypted"),
        (None, REQUIRE, PLUS_FIRST, "offers SCRAM-SHA-256-PLUS on a connection that is not encrypted"),
        (UNBINDABLE, PREFER, [MECHANISM_PLUS], "none of which fits"),
        (ENCRYPTED, DISABLE, [MECHANISM_PLUS], "none of which fits"),
    ],
)
def test_an_offer_that_does_not_do_is_refused_with_the_reason(
    encryption: Encryption | None, channel_binding: ChannelBinding, offered: list[str], complaint: str
) -> None:
    with pytest.raises(ServerUnavailable, match=complaint):
        offer(login_to(encryption, channel_binding), *offered)


@pytest.mark.parametrize(
    ("request_code", "payload"),
    [
        (codes.AUTHENTICATION_OK, b""),
        (codes.AUTHENTICATION_CLEARTEXT_PASSWORD, b""),
        (codes.AUTHENTICATION_MD5_PASSWORD, b"salt"),
    ],
)
@pytest.mark.parametrize("encryption", [ENCRYPTED, UNBINDABLE, None])
def test_where_binding_is_required_nothing_else_is_answered(
    encryption: Encryption | None, request_code: int, payload: bytes
) -> None:
    with pytest.raises(ServerUnavailable, match=r"^channel binding is required, but "):
        ask(login_to(encryption, REQUIRE), request_code, payload)
    ask(login_to(encryption, PREFER), request_code, payload)


@pytest.mark.parametrize("secret", [Cleartext(b"secret"), derive_keys(b"secret", SALT, 4096)])
@pytest.mark.parametrize("theirs", [END_POINT, bytes(32)])
def test_a_server_of_another_certificate_does_not_let_us_in(secret: Secret, theirs: bytes) -> None:
    """Somebody between us and the server has a certificate of his own."""
    login = login_to(ENCRYPTED, REQUIRE, secret)
    mechanism, first = offer(login, *PLUS_FIRST)
    server = ScramServer(VERIFIER, "alice", mechanism=mechanism, end_point=theirs)
    challenge = messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, server.receive(first))
    answer = login.receive(codes.AUTHENTICATION, challenge[codes.HEADER :])
    last = (login.derived(answer.run()) if isinstance(answer, Derivation) else answer)[codes.HEADER :]
    if theirs != END_POINT:
        with pytest.raises(AuthenticationFailed, match="channel binding check failed"):
            server.receive(last)
        return
    assert ask(login, codes.AUTHENTICATION_SASL_FINAL, server.receive(last)) == b""
    assert ask(login, codes.AUTHENTICATION_OK) == b""
    assert server.state is State.DONE


@given(
    st.sampled_from([None, ENCRYPTED, UNBINDABLE]),
    st.sampled_from(ChannelBinding),
    st.lists(st.sampled_from([*PLUS_FIRST, "PLAIN", ""]) | st.text(max_size=20)),
)
def test_whatever_a_server_offers_what_is_chosen_was_offered_and_is_wanted(
    encryption: Encryption | None, channel_binding: ChannelBinding, offered: list[str]
) -> None:
    payload = b"".join(name.encode("utf-8", "replace") + b"\0" for name in offered)
    login = login_to(encryption, channel_binding)
    try:
        mechanism, data = messages.read_sasl_initial_response(ask(login, codes.AUTHENTICATION_SASL, payload))
    except ServerUnavailable:
        mechanism, data = "", None
    assert mechanism in ("", *offered)
    assert mechanism != "" or data is None
    assert not mechanism or channel_binding is not REQUIRE or mechanism == MECHANISM_PLUS
    assert mechanism != MECHANISM_PLUS or (encryption is ENCRYPTED and channel_binding is not DISABLE)


# -- the whole way -----------------------------------------------------------------------------------------------------


class BindingServer:
    """The far end of an encrypted server connection: wants SCRAM-SHA-256-PLUS, and keeps what it was told."""

    def __init__(self, port: MemoryPort) -> None:
        self.port = port
        self.stalled = False
        self.scram: ScramServer | None = None
        self.bound = False
        self.started = False
        port.encryption = ENCRYPTED
        port.far = self

    def receive(self, data: bytes) -> None:
        say = self.port.say
        if not self.started:
            self.started = True
            say(messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(PLUS_FIRST)))
        elif self.scram is None:
            mechanism, first = messages.read_sasl_initial_response(data[codes.HEADER :])
            self.scram = ScramServer(VERIFIER, "alice", mechanism=mechanism, end_point=END_POINT)
            say(messages.authentication(codes.AUTHENTICATION_SASL_CONTINUE, self.scram.receive(first)))
        elif self.scram.state is State.FINAL:
            final = self.scram.receive(data[codes.HEADER :])
            binding = base64.b64decode(data[codes.HEADER :].split(b",")[0].removeprefix(b"c="))
            self.bound = binding == BOUND + END_POINT
            say(messages.authentication(codes.AUTHENTICATION_SASL_FINAL, final))
            say(messages.authentication(codes.AUTHENTICATION_OK))
            say(messages.backend_key_data(1, b"abcd") + messages.ready_for_query(codes.IDLE))

    def ended(self) -> None:
        self.port.leave()


def test_the_service_binds_to_the_certificate_that_the_servers_port_has_seen() -> None:
    backend = Backend(name="primary", host="pg1", user="alice", password="secret", channel_binding=REQUIRE)
    setting = Setting(backends=(backend,))
    servers: list[BindingServer] = []
    setting.world.serve = lambda port, pool: servers.append(BindingServer(port))
    client = Client(setting.world)
    setting.world.settle()
    assert client.logged_in
    assert [server.bound for server in servers] == [True]


def test_the_service_offers_plus_to_a_client_whose_port_is_encrypted() -> None:
    setting = Setting(method=AuthMethod.SCRAM_SHA_256, users={"alice": "secret"})
    client = Client(setting.world, start=False)
    client.port.encryption = ENCRYPTED
    client.port.say(messages.startup_message(codes.PROTOCOL_3_0, {"user": "alice"}))
    setting.world.settle()
    kind, body = client.received[0]
    assert kind == "R"
    assert messages.read_sasl_mechanisms(messages.read_authentication(body)[1]) == PLUS_FIRST


def test_a_change_of_channel_binding_makes_all_server_connections_anew() -> None:
    backend = Backend(name="primary", host="pg1")
    setting = Setting(backends=(backend,))
    setting.leave(setting.client())
    (process,) = setting.cluster.processes
    configuration = setting.world.service.configuration
    changed = type(configuration)(
        backends=(Backend(name="primary", host="pg1", channel_binding=DISABLE),),
        auth=configuration.auth,
        routing=configuration.routing,
    )
    setting.world.reload(changed)
    setting.world.settle()
    assert process.over


def test_whoever_cannot_be_bound_to_is_told_to_the_client_with_the_backend() -> None:
    backend = Backend(name="primary", host="pg1", user="alice", password="secret", channel_binding=REQUIRE)
    setting = Setting(backends=(backend,))
    setting.cluster.login, setting.cluster.password = AuthMethod.SCRAM_SHA_256, b"secret"
    (told,) = setting.client().errors
    assert isinstance(told, PeerError)
    assert told.message == "channel binding is required, but the connection is not encrypted"
    assert told.hint == "The backend sets channel_binding to require."
    assert told.detail == "Backend primary (pg1:5432) did not let us in."


# -- mode prefer of TLS: what is tried again without -------------------------------------------------------------------


REFUSED = messages.error_response(PeerError("no", sqlstate="28000"))


@pytest.mark.parametrize(
    ("said", "attempts"),
    [
        (REFUSED, 2),
        (messages.authentication(codes.AUTHENTICATION_SASL, messages.sasl_mechanisms(PLUS_FIRST)) + REFUSED, 1),
        (messages.authentication(codes.AUTHENTICATION_CLEARTEXT_PASSWORD) + REFUSED, 1),
    ],
    ids=["refused", "refused after a failed channel binding", "refused after a password"],
)
def test_a_server_that_asked_for_a_proof_is_not_tried_again_without_tls(said: bytes, attempts: int) -> None:
    backend = Backend(name="primary", host="pg1", user="alice", password="secret", tls=BackendTls(mode=TlsMode.PREFER))
    setting = Setting(backends=(backend,))
    made: list[MemoryPort] = []

    def serve(port: MemoryPort, pool: object) -> None:
        port.encryption = None if made else ENCRYPTED
        made.append(port)
        Recording(port)
        port.say(said)

    setting.world.serve = serve
    client = Client(setting.world)
    setting.world.settle()
    assert len(made) == attempts
    assert client.sqlstates == ["28000"]
