"""How a client gets in: startup packets, authentication, the parameters it asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.choices import AuthMethod, PatternKind
from pgpooler.config.model import Pattern, Rule
from pgpooler.errors import PeerError
from pgpooler.pooling.login import parse_options, startup_settings
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes, messages
from pgpooler.protocol.passwords import make_verifier
from pgpooler.protocol.startup import StartupMessage
from tests.memory import MemoryPort
from tests.scripted import TERMINATE, Client, Recording, Setting, query

SSL, GSS = codes.SSL_REQUEST, codes.GSSENC_REQUEST


def asking(kind: int) -> bytes:
    return messages.packet(messages.UINT32.pack(kind))


def raw(setting: Setting, *pieces: bytes) -> tuple[MemoryPort, Recording]:
    """A connection that sends these bytes, each piece in a segment of its own."""
    port = setting.world.accept()
    recording = Recording(port)
    for piece in pieces:
        port.say(piece)
        setting.world.settle()
    return port, recording


def startup(**parameters: str) -> bytes:
    return messages.startup_message(codes.PROTOCOL_3_0, parameters)


ALICE = startup(user="alice", database="shop")


# -- before authentication ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(SSL,), (GSS,), (SSL, GSS), (GSS, SSL)])
def test_encryption_requests_are_answered_no_in_either_order(order: tuple[int, ...]) -> None:
    """W13"""
    setting = Setting()
    _, recording = raw(setting, *(asking(kind) for kind in order), ALICE)
    assert recording.data.startswith(b"N" * len(order) + b"R\0\0\0\x08\0\0\0\0")


def test_an_encryption_request_is_answered_once() -> None:
    setting = Setting()
    _, recording = raw(setting, asking(SSL), asking(SSL))
    assert recording.data.startswith(b"NE")
    assert b"0A000" in recording.data
    assert recording.over


@pytest.mark.parametrize("kind", [SSL, GSS])
def test_bytes_stuffed_behind_an_encryption_request_are_refused(kind: int) -> None:
    """PgBouncer, CVE-2021-3935, Odyssey, CVE-2021-43766: they were carried out once encryption had begun."""
    setting = Setting()
    _, recording = raw(setting, asking(kind) + ALICE)
    assert b"08P01" in recording.data
    assert b"received unencrypted data" in recording.data
    assert recording.over


def test_protocol_2_is_refused_in_its_own_words() -> None:
    setting = Setting()
    _, recording = raw(setting, asking(0x00020000))
    assert recording.data.startswith(b"EFATAL:  unsupported frontend protocol 2.0")
    assert recording.data.endswith(b"\n\0")
    assert recording.over


def test_protocol_4_is_refused() -> None:
    setting = Setting()
    _, recording = raw(setting, messages.startup_message(0x00040000, {"user": "alice"}))
    assert b"0A000" in recording.data
    assert recording.over


def test_an_unknown_minor_version_is_negotiated() -> None:
    setting = Setting()
    _, recording = raw(setting, messages.startup_message(0x0003270F, {"user": "alice", "_pq_.x": "1"}))
    assert recording.data.startswith(b"v\0\0\0\x13\0\3\0\2\0\0\0\1_pq_.x\0")


@pytest.mark.parametrize(
    "packet",
    [
        b"\0\0\0\0",
        b"\0\0\0\7",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        (10_000_000).to_bytes(4, "big") + bytes(100),
        messages.packet(ALICE[4:-1]),
        messages.packet(b"\0\3\0\0user\0alice"),
        startup(database="shop"),
        startup(user=""),
    ],
)
def test_a_bad_startup_packet_is_refused_and_leaves_nothing_behind(packet: bytes) -> None:
    setting = Setting()
    _, recording = raw(setting, packet)
    assert recording.over
    assert recording.data.startswith(b"E")
    assert messages.read_error(bytes(recording.data[5:])).severity == "FATAL"
    assert set(setting.world.counts().values()) == {0}


@given(st.binary(max_size=60), st.sampled_from((b"", asking(SSL), ALICE)), st.integers(1, 9))
def test_garbage_never_crashes_and_never_leaks(garbage: bytes, before: bytes, chunk: int) -> None:
    setting = Setting(client_login_timeout=10, session_idle_timeout=10, server_idle_timeout=10)
    setting.world.chunk = chunk
    raw(setting, before, garbage)
    setting.world.check_limits()
    setting.world.pass_time(100)
    assert set(setting.world.counts().values()) == {0}


# -- authentication ----------------------------------------------------------------------------------------------------

VERIFIER = make_verifier(b"secret", salt=b"salt", iterations=2).text()


def guarded(method: AuthMethod, password: str = "secret", **settings: object) -> Setting:
    setting = Setting(method=method, users={"alice": password, "bob": password}, **settings)
    setting.cluster.password = b"secret"
    return setting


def with_password(setting: Setting, password: bytes, **more: object) -> Client:
    client = Client(setting.world, "x", password=password, **more)  # type: ignore[arg-type]
    setting.world.settle()
    setting.world.check_limits()
    return client


METHODS = [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN]


@pytest.mark.parametrize("method", METHODS)
def test_who_knows_the_password_is_let_in(method: AuthMethod) -> None:
    assert with_password(guarded(method), b"secret").logged_in


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_password_is_refused_while_idle_connections_exist(method: AuthMethod) -> None:
    """W1: no cached AuthenticationOk for whoever names the right user."""
    setting = guarded(method)
    setting.leave(with_password(setting, b"secret"))
    assert setting.sizes == (1, 0, 0, 0)
    client = with_password(setting, b"wrong")
    assert client.sqlstates == ["28P01"]
    assert client.over
    assert setting.sizes == (1, 0, 0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_user_learns_nothing_about_databases_and_rules(method: AuthMethod) -> None:
    """W26: what a stranger may learn is that the password was wrong."""
    setting = guarded(method, rules=(Rule(user=(Pattern(kind=PatternKind.EXACT, text="alice"),), backend="primary"),))
    client = with_password(setting, b"secret", user="stranger")
    assert client.sqlstates == ["28P01"]
    assert 'user "stranger"' in client.errors[0].message


def test_who_matches_no_rule_is_told_so_after_the_password() -> None:
    setting = guarded(
        AuthMethod.MD5, rules=(Rule(user=(Pattern(kind=PatternKind.EXACT, text="alice"),), backend="primary"),)
    )
    client = with_password(setting, b"secret", user="bob")
    assert client.kinds == "RRE"
    assert client.sqlstates == ["3D000"]
    assert set(setting.world.counts().values()) == {0}


def test_a_query_instead_of_a_password_is_refused() -> None:
    setting = guarded(AuthMethod.MD5)
    _, recording = raw(setting, ALICE, query("row x"))
    assert b"expected password response, got message type 81" in recording.data
    assert recording.over


def test_a_password_longer_than_the_limit_is_not_waited_for() -> None:
    setting = guarded(AuthMethod.PLAIN)
    _, recording = raw(setting, ALICE, b"p" + (70_000).to_bytes(4, "big"))
    assert b"invalid message length" in recording.data
    assert recording.over


def test_a_slow_check_of_a_password_keeps_nobody_else_waiting() -> None:
    setting = guarded(AuthMethod.PLAIN, password=VERIFIER)
    setting.cluster.login = AuthMethod.TRUST
    setting.world.hold_computations = True
    client = with_password(setting, b"secret")
    assert client.session.state == ClientState.COMPUTING  # type: ignore[union-attr]
    assert not client.port.reading
    client.say(query("row x"))
    setting.world.hold_computations = False
    setting.world.settle()
    assert client.rows == ["x"]


def test_a_wrong_password_against_a_verifier_is_refused() -> None:
    setting = guarded(AuthMethod.PLAIN, password=VERIFIER)
    client = with_password(setting, b"wrong")
    assert client.sqlstates == ["28P01"]
    assert set(setting.world.counts().values()) == {0}


def test_a_client_may_leave_while_its_password_is_checked() -> None:
    setting = guarded(AuthMethod.PLAIN, password=VERIFIER)
    setting.world.hold_computations = True
    client = with_password(setting, b"secret")
    client.leave()
    setting.world.settle()
    assert set(setting.world.counts().values()) == {0}
    setting.world.hold_computations = False
    setting.world.settle()
    assert set(setting.world.counts().values()) == {0}


def test_a_check_that_takes_too_long_ends_with_the_login() -> None:
    setting = guarded(AuthMethod.PLAIN, password=VERIFIER, client_login_timeout=10)
    setting.world.hold_computations = True
    client = with_password(setting, b"secret")
    setting.world.pass_time(10)
    assert client.over
    setting.world.hold_computations = False
    setting.world.settle()
    assert set(setting.world.counts().values()) == {0}


def test_a_check_that_breaks_is_an_error_for_its_client_only() -> None:
    setting = guarded(AuthMethod.PLAIN, password=VERIFIER)
    setting.world.hold_computations = True
    client = with_password(setting, b"secret")
    ((_, done),) = setting.world.computations
    setting.world.computations.clear()
    done(RuntimeError("no thread"), setting.world.now)
    setting.world.settle()
    assert client.sqlstates == ["XX000"]


# -- what stands behind the login in the same segment ------------------------------------------------------------------


def eager(setting: Setting, behind: bytes, chunk: int) -> Client:
    """A client without parameters that does not wait for the server's leave to ask."""
    client = Client(setting.world, "", start=False)
    setting.world.chunk = chunk
    client.port.say(startup(user="alice", database="shop") + behind)
    setting.world.settle()
    return client


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_what_is_sent_together_with_the_login_is_not_lost_while_a_connection_is_opened(chunk: int) -> None:
    client = eager(Setting(), query("row x"), chunk)
    assert client.rows == ["x"]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_what_is_sent_together_with_the_login_is_not_lost_when_a_connection_is_idle(chunk: int) -> None:
    setting = Setting()
    setting.leave(setting.client())
    client = eager(setting, query("row x") + query("insert x"), chunk)
    assert client.rows == ["x"]
    assert setting.cluster.inserted == ["x"]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_a_login_with_terminate_behind_it_leaves_nothing_behind(chunk: int) -> None:
    setting = Setting()
    setting.leave(setting.client())
    eager(setting, query("insert x") + TERMINATE, chunk)
    assert setting.cluster.inserted == ["x"]
    assert len(setting.world.service.clients) == 0
    assert setting.sizes == (1, 0, 0, 0)


def test_a_client_that_waits_is_not_read_from() -> None:
    setting = Setting()
    _, waiter = setting.clients(2)
    waiter.say(query("row c2") * 1000)
    setting.world.settle()
    assert not waiter.port.reading
    assert len(waiter.port.incoming) == 1000 * len(query("row c2"))


# -- startup parameters ------------------------------------------------------------------------------------------------


hostile = st.text(alphabet=st.sampled_from("'\\;-\"$E\n\t \x01é\udcff"), max_size=12) | st.text(max_size=20)


def test_what_was_asked_for_at_the_start_has_names_in_lower_case_and_counts_more_than_options() -> None:
    parameters = {"DateStyle": "iso", "application_name": "x"}
    options = "-c application_name=y -c Geqo=off"
    settings = startup_settings(StartupMessage(codes.PROTOCOL_3_0, "alice", "shop", parameters, options))
    assert settings.values == {"application_name": "x", "geqo": "off", "datestyle": "iso"}


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", []),
        ("   ", []),
        ("-c geqo=off", [("geqo", "off")]),
        ("-cgeqo=off", [("geqo", "off")]),
        ("--geqo=off", [("geqo", "off")]),
        ("--search-path=a", [("search_path", "a")]),
        ("-c search-path=a", [("search_path", "a")]),
        ("-c a.b=1  -c  c=2", [("a.b", "1"), ("c", "2")]),
        (r"-c search_path=a,\ b", [("search_path", "a, b")]),
        (r"-c x=a\\b", [("x", r"a\b")]),
        ("-c x=", [("x", "")]),
        ("-c x=a=b", [("x", "a=b")]),
    ],
)
def test_options_are_read_as_postgresql_reads_them(options: str, settings: list[tuple[str, str]]) -> None:
    assert parse_options(options) == settings


@pytest.mark.parametrize("options", ["-c", "-d 5", "geqo=off", "-c geqo", "--geqo", "-B 100", "-c =x", "\\"])
def test_other_options_are_refused(options: str) -> None:
    with pytest.raises(PeerError) as raised:
        parse_options(options)
    assert raised.value.sqlstate == "42601"


@given(st.lists(st.tuples(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), hostile), max_size=4))
def test_options_escaped_as_the_manual_says_come_back(settings: list[tuple[str, str]]) -> None:
    def escaped(value: str) -> str:
        return "".join(
            "\\" + character if character.isspace() or character == "\\" else character for character in value
        )

    assert parse_options(" ".join(f"-c {name}={escaped(value)}" for name, value in settings)) == settings


def test_options_that_cannot_be_set_are_refused_after_the_password() -> None:
    setting = guarded(AuthMethod.MD5)
    client = with_password(setting, b"secret", parameters={"options": "-d 5"})
    assert client.sqlstates == ["42601"]
    assert set(setting.world.counts().values()) == {0}


def test_each_client_gets_its_own_parameters() -> None:
    """W19: nobody inherits what another asked for at startup."""
    setting = Setting()
    first = Client(setting.world, "a", parameters={"DateStyle": "German", "options": "-c geqo=off"})
    setting.world.settle()
    setting.leave(first)
    Client(setting.world, "b")
    setting.world.settle()
    statements = setting.cluster.processes[0].statements
    assert statements[0] == (
        "SELECT pg_catalog.set_config(E'geqo', E'off', false) IS NULL, "
        "pg_catalog.set_config(E'application_name', E'a', false) IS NULL, "
        "pg_catalog.set_config(E'datestyle', E'German', false) IS NULL"
    )
    assert statements[-1] == "SELECT pg_catalog.set_config(E'application_name', E'b', false) IS NULL"


def test_a_parameter_the_server_refuses_is_told_in_its_words_and_the_connection_is_used_again() -> None:
    setting = Setting()
    client = Client(setting.world, "a", parameters={"broken": "1"})
    setting.world.settle()
    assert client.sqlstates == ["42704"]
    assert client.errors[0].severity == "FATAL"
    assert setting.sizes == (1, 0, 0, 0)
    assert setting.client().process_id == 1
