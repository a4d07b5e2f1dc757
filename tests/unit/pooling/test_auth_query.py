"""Users who are not listed: looked up on the server, over connections apart, and let in or refused by the answer."""

from __future__ import annotations

import pytest

from pgpooler.config.choices import AuthMethod, PatternKind, PoolMode
from pgpooler.config.model import AUTH_QUERY, Backend, Pattern, Rule
from pgpooler.errors import PeerError
from pgpooler.pooling.auth_query.connection import IDLE_TIMEOUT, SETTINGS
from pgpooler.pooling.auth_query.pool import CONNECTIONS, LONGEST_QUEUE, LONGEST_WAIT
from pgpooler.pooling.states import ClientState
from pgpooler.protocol import codes, messages
from tests.memory import LINGER
from tests.roles import ASKER, PASSWORD, WRONG, RolesSetting, digest, looking_up, verifier
from tests.scripted import Client, Failure

SCRAM, MD5, PLAIN, TRUST = AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN, AuthMethod.TRUST
UNAVAILABLE = "08006"


def seen(client: Client) -> list[tuple[str, int, bytes]]:
    """What a client sees of a failed login, without what is drawn anew each time or belongs to its name."""
    shown = []
    for kind, body in client.received:
        if kind == "R":
            request, payload = messages.read_authentication(body)
            names = payload if request == codes.AUTHENTICATION_SASL else b""
            counts = payload.rpartition(b",i=")[2] if request == codes.AUTHENTICATION_SASL_CONTINUE else b""
            shown.append((kind, len(body), b"%d" % request + names + counts))
        else:
            shown.append((kind, len(body), body.replace(client.user.encode(), b"USER")))
    return shown


# -- who gets in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "secret"),
    [
        (SCRAM, verifier()),
        (SCRAM, PASSWORD),
        (MD5, verifier()),
        (MD5, digest("alice")),
        (MD5, PASSWORD),
        (PLAIN, verifier()),
        (PLAIN, digest("alice")),
        (PLAIN, PASSWORD),
        (TRUST, digest("alice")),
    ],
)
def test_a_user_who_is_not_listed_gets_in_with_the_secret_of_the_server(method: AuthMethod, secret: str) -> None:
    setting = RolesSetting(method)
    setting.cluster.rows["alice"] = [["alice", secret]]
    setting.cluster.roles["alice"] = digest("alice") if secret == digest("alice") else verifier()
    client = setting.log_in()
    assert client.logged_in
    client.ask("row c1")
    setting.world.settle()
    assert client.rows == ["c1"]
    assert setting.asked == ["alice"]
    if method is not TRUST:
        assert setting.outcome("alice", WRONG) == "28P01"
    assert setting.outcome("nobody") == ("28000" if method is TRUST else "28P01")


def test_the_clients_proof_logs_in_to_every_server_connection_that_is_opened_later() -> None:
    setting = RolesSetting(pool_size=3, pool_mode=PoolMode.TRANSACTION)
    clients = [setting.log_in() for _ in range(3)]
    for round_number in range(3):
        for client in clients:
            client.ask("slow c")
        setting.world.settle()
        working = [process for process in setting.cluster.alive if not process.asks]
        assert len(working) == 3
        for process in working:
            process.release()
        setting.world.settle()
        assert all(len(client.rows) == round_number + 1 for client in clients)
        for process in working:
            process.terminate()
        setting.world.settle()


def test_a_listed_user_is_not_looked_up() -> None:
    setting = RolesSetting(users={ASKER: "the pooler's own", "alice": PASSWORD})
    assert setting.outcome() == "in"
    assert setting.outcome(password=WRONG) == "28P01"
    assert setting.asked == []
    assert setting.cluster.askers == []


def test_without_an_auth_user_nobody_is_looked_up() -> None:
    setting = RolesSetting(auth={"auth_user": ""})
    assert setting.outcome() == "28P01"
    assert setting.asked == []


# -- who does not, and what that looks like ----------------------------------------------------------------------------

NOBODIES = {
    "there is no such role": None,
    "it has no password, or an expired one": [["alice", None]],
    "its password is empty": [["alice", ""]],
    "its secret cannot be read": [["alice", "SCRAM-SHA-256$rubbish"]],
    "the row is about another": [["bobby", verifier()]],
    "the row is about nobody": [[None, verifier()]],
    "there are two rows": [["alice", verifier()], ["alice", verifier()]],
}


@pytest.mark.parametrize("method", [SCRAM, MD5, PLAIN])
@pytest.mark.parametrize("encryption", ["scram-sha-256", "md5", "on", None])
@pytest.mark.parametrize("rows", NOBODIES.values(), ids=NOBODIES)
def test_nobody_can_tell_why_a_login_failed(method: AuthMethod, encryption: str | None, rows: list | None) -> None:
    setting = RolesSetting(method)
    setting.cluster.encryption = encryption
    secret = digest("right") if encryption in ("md5", "on") and method is not SCRAM else verifier()
    setting.cluster.roles["right"] = secret
    wrong = seen(setting.log_in("right", WRONG))
    assert [kind for kind, _, _ in wrong] in (["R", "E"], ["R", "R", "E"])
    if rows is None:
        del setting.cluster.roles["alice"]
    else:
        setting.cluster.rows["alice"] = rows
    for password in (PASSWORD, WRONG):
        assert seen(setting.log_in("alice", password)) == wrong


def test_the_salt_of_one_who_does_not_exist_is_the_same_every_time() -> None:
    setting = RolesSetting()
    del setting.cluster.roles["alice"]

    def salt() -> bytes:
        (_, body) = setting.log_in().received[1]
        return body.partition(b",s=")[2].partition(b",")[0]

    assert salt() == salt()
    setting.world.reload(looking_up(pool_size=7))
    before = salt()
    assert before == salt()


def test_an_md5_secret_under_method_scram_looks_like_a_wrong_password() -> None:
    setting = RolesSetting()
    wrong = seen(setting.log_in(password=WRONG))
    setting.cluster.roles["alice"] = digest("alice")
    assert seen(setting.log_in()) == wrong


def test_as_many_iterations_are_shown_for_nobody_as_the_server_would_take() -> None:
    setting = RolesSetting()
    setting.cluster.reported["scram_iterations"] = "54"
    setting.cluster.roles["alice"] = verifier(iterations=54)
    wrong = seen(setting.log_in(password=WRONG))
    assert wrong[1][2].endswith(b"54")
    assert seen(setting.log_in("carol")) == wrong


@pytest.mark.parametrize("reported", ["0", "-1", "99999999999", "2147483647", "many", ""])
def test_a_server_cannot_make_anybody_compute_for_ever(reported: str) -> None:
    setting = RolesSetting()
    setting.cluster.reported["scram_iterations"] = reported
    assert seen(setting.log_in("nobody"))[1][2].endswith(b"4096")


def test_cve_2015_6817_nobody_becomes_the_auth_user() -> None:
    for method in (SCRAM, MD5, PLAIN):
        setting = RolesSetting(method)
        for user in ("nobody", "x" * 64, "alice ", "ALICE", "alice\udcff"):
            for password in (PASSWORD, "the pooler's own", WRONG):
                assert setting.outcome(user, password) == "28P01"
        assert {process.user for process in setting.cluster.processes} == {ASKER}
        assert all(process.asks for process in setting.cluster.processes)


def test_where_no_route_leads_anywhere_nobody_is_asked_and_nothing_told() -> None:
    rule = Rule(backend="primary", database=(Pattern(kind=PatternKind.EXACT, text="shop"),))
    setting = RolesSetting(rules=(rule,))
    wrong = seen(setting.log_in(password=WRONG))
    assert setting.asked == ["alice"]
    assert seen(setting.log_in(database="nowhere")) == wrong
    assert setting.asked == []


# -- the question ------------------------------------------------------------------------------------------------------


def test_a_client_has_no_influence_on_the_question_but_by_its_name() -> None:
    setting = RolesSetting()
    name = "x'; DROP ROLE alice; --$1\"\\"
    parameters = {
        "options": "-c search_path=evil",
        "search_path": "evil",
        "DateStyle": "German",
        "role": "postgres",
        "client_encoding": "LATIN1",
    }
    for user in ("alice", name):
        setting.log_in(user, parameters=parameters, database="other")
    assert setting.asked == ["alice", name]
    assert setting.cluster.texts == {AUTH_QUERY, "SHOW password_encryption"}
    for asker in setting.cluster.askers:
        assert asker.startup == {"user": ASKER, "database": "postgres", **SETTINGS, "": ""}
        assert asker.startup["search_path"] == "pg_catalog"


def test_a_backend_may_have_a_query_a_user_and_a_database_of_its_own() -> None:
    other = {
        "auth_query": "SELECT a, b FROM c.d($1)",
        "auth_user": "alice",
        "auth_password": PASSWORD,
        "auth_dbname": "e",
    }
    backends = (Backend(name="primary", host="pg1"), Backend(name="other", host="pg2", **other))
    shop = Rule(backend="primary", database=(Pattern(kind=PatternKind.EXACT, text="shop"),))
    setting = RolesSetting(backends=backends, rules=(shop, Rule(backend="other", default=True)))
    setting.cluster.roles["bobby"] = verifier()
    for database in ("shop", "rest"):
        assert setting.log_in("bobby", database=database).logged_in
    assert [(asker.user, asker.startup["database"]) for asker in setting.cluster.askers] == [
        (ASKER, "postgres"),
        ("alice", "e"),
    ]
    assert {AUTH_QUERY, other["auth_query"]} < setting.cluster.texts


def test_those_who_ask_for_one_user_at_once_share_one_question() -> None:
    setting = RolesSetting(pool_size=0)
    setting.world.hold_opens = True
    clients = [setting.log_in() for _ in range(50)]
    assert [client.session.state for client in clients] == [ClientState.LOOKING_UP] * 50
    setting.world.hold_opens = False
    setting.world.settle()
    assert all(client.logged_in for client in clients)
    assert setting.asked == ["alice"]


def test_a_question_under_way_says_nothing_about_a_login_that_begins_later() -> None:
    setting = RolesSetting()
    setting.cluster.slow = True
    first = setting.log_in()
    second = setting.log_in()
    third = [setting.log_in() for _ in range(5)]
    assert setting.asked == ["alice", "alice"]
    setting.cluster.release()
    setting.world.settle()
    assert all(client.scram is not None for client in (first, second, *third))
    assert setting.asked == ["alice"]


def test_there_are_never_more_connections_than_two_whoever_asks() -> None:
    setting = RolesSetting(method=MD5, client_login_timeout=0)
    setting.cluster.slow = True
    for number in range(30):
        setting.log_in(f"user{number}")
    assert len(setting.cluster.askers) == CONNECTIONS
    setting.cluster.release()
    setting.world.settle()
    assert sorted(setting.asked) == sorted(f"user{number}" for number in range(30))
    assert len(setting.cluster.askers) == CONNECTIONS


def test_lookups_take_no_place_of_a_pool_nor_of_its_backend() -> None:
    setting = RolesSetting(pool_size=1, backend_pool_size=1, pool_mode=PoolMode.TRANSACTION)
    busy = setting.log_in()
    busy.ask("begin c")
    setting.world.settle()
    assert setting.log_in(password=WRONG).sqlstates == ["28P01"]
    assert setting.log_in("nobody").sqlstates == ["28P01"]
    assert setting.world.pool.use.used == 1


def test_a_queue_that_is_full_takes_nobody_and_says_nothing_about_who_asks() -> None:
    setting = RolesSetting(max_client_conn=0, client_login_timeout=0)
    setting.world.hold_opens = True
    for number in range(LONGEST_QUEUE):
        Client(setting.world, user=f"user{number}")
    setting.world.settle()
    more = setting.log_in("one more")
    assert more.sqlstates == [UNAVAILABLE]
    assert setting.log_in("user7").session.state == ClientState.LOOKING_UP
    setting.world.hold_opens = False
    setting.world.settle()
    assert len(setting.asked) == LONGEST_QUEUE


# -- when it cannot be asked -------------------------------------------------------------------------------------------


def broken(setting: RolesSetting, how: str) -> None:
    cluster = setting.cluster
    if how == "cannot be reached":
        setting.world.unreachable["primary"] = "connection refused"
    elif how == "does not let us in":
        cluster.roles[ASKER] = verifier("something else")
    elif how == "refuses everybody":
        cluster.refusal = messages.error_response(PeerError("too many clients", sqlstate="53300"))
    elif how == "may not be asked":
        cluster.failing = Failure("42501", "permission denied for table pg_authid")
    elif how == "returns one column":
        cluster.columns = 1
    elif how == "returns three columns":
        cluster.columns = 3
    elif how == "returns no rows at all":
        cluster.columns = 0
    elif how == "ends every connection":
        cluster.gone = 1 << 30
    else:
        assert how == "is silent"
        cluster.slow = True


HOW = (
    "cannot be reached",
    "does not let us in",
    "refuses everybody",
    "may not be asked",
    "returns one column",
    "returns three columns",
    "returns no rows at all",
    "ends every connection",
    "is silent",
)


@pytest.mark.parametrize("how", HOW)
def test_a_lookup_that_fails_ends_the_login_with_an_error_that_tells_nothing_and_a_line_that_tells_why(
    how: str,
) -> None:
    setting = RolesSetting()
    broken(setting, how)
    clients = [setting.log_in(user) for user in ("alice", "nobody", "alice")]
    setting.world.pass_time(LONGEST_WAIT)
    for client in clients:
        assert [kind for kind, _ in client.received] == ["E"]
        (failure,) = client.errors
        assert (failure.sqlstate, failure.severity) == (UNAVAILABLE, "FATAL")
        assert failure.message == "the password cannot be checked at the moment"
        assert not failure.detail
    lines = [text for level, _, text in setting.world.log_lines if level == "warning"]
    assert any("auth_query" in line and "primary (pg1:5432)" in line and f"user={ASKER}" in line for line in lines)
    assert not any(PASSWORD in line or "SCRAM-SHA-256$" in line for line in lines)


def test_a_server_that_cannot_be_reached_is_not_tried_for_every_login() -> None:
    setting = RolesSetting()
    setting.world.unreachable["primary"] = "connection refused"
    assert setting.outcome() == UNAVAILABLE
    attempts = len([text for _, _, text in setting.world.log_lines if "auth_query failed" in text])
    for _ in range(20):
        assert setting.outcome() == UNAVAILABLE
    assert len([text for _, _, text in setting.world.log_lines if "auth_query failed" in text]) == attempts
    del setting.world.unreachable["primary"]
    setting.world.pass_time(1)
    assert setting.outcome() == "in"


def test_a_server_that_is_silent_fails_the_lookup_before_the_login_takes_too_long() -> None:
    setting = RolesSetting(client_login_timeout=4)
    setting.cluster.slow = True
    client = setting.log_in()
    setting.world.pass_time(1.9)
    assert client.received == []
    setting.world.pass_time(0.2)
    assert client.sqlstates == [UNAVAILABLE]
    assert client.errors[0].message == "the password cannot be checked at the moment"
    setting.cluster.slow = False
    assert setting.outcome() == "in"


def test_a_question_that_finds_no_connection_waits_as_long_as_one_that_finds_no_answer() -> None:
    setting = RolesSetting()
    setting.world.hold_opens = True
    client = setting.log_in()
    setting.world.pass_time(LONGEST_WAIT - 0.1)
    assert client.received == []
    setting.world.pass_time(0.2)
    assert client.sqlstates == [UNAVAILABLE]


def test_a_connection_that_was_lost_meanwhile_costs_nobody_the_login() -> None:
    setting = RolesSetting()
    assert setting.outcome() == "in"
    setting.cluster.gone = 1
    assert setting.outcome() == "in"
    for process in list(setting.cluster.alive):
        process.terminate()
    assert setting.outcome() == "in"
    for process in list(setting.cluster.alive):
        process.crash()
    assert setting.outcome() == "in"


def test_a_name_that_no_role_can_have_is_nobodys() -> None:
    setting = RolesSetting()
    wrong = seen(setting.log_in(password=WRONG))
    for sqlstate in ("22021", "22P05"):
        setting.cluster.failing = Failure(sqlstate, "character with byte sequence 0xe2 0x98 0x83 has no equivalent")
        assert seen(setting.log_in()) == wrong


def test_a_client_that_leaves_meanwhile_is_not_waited_for() -> None:
    setting = RolesSetting()
    setting.cluster.slow = True
    client = setting.log_in()
    client.leave()
    setting.world.settle()
    assert not setting.world.service.clients
    setting.cluster.release()
    setting.world.settle()
    assert setting.outcome() == "in"


def test_an_unused_connection_is_closed_after_a_while() -> None:
    setting = RolesSetting()
    assert setting.outcome() == "in"
    assert [process.over for process in setting.cluster.askers] == [False]
    setting.world.pass_time(IDLE_TIMEOUT + 1)
    assert [process.over for process in setting.cluster.askers] == [True]
    assert setting.outcome() == "in"


def test_a_connection_does_not_outlive_server_lifetime() -> None:
    setting = RolesSetting(server_lifetime=30.0)
    for _ in range(4):
        assert setting.outcome() == "in"
        setting.world.pass_time(11)
    assert [process.over for process in setting.cluster.askers] == [True]
    assert setting.outcome() == "in"
    assert [process.over for process in setting.cluster.askers] == [True, False]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"Z\0\0\0\5I",
        b"R\0\0\0\x08\0\0\0\0",
        b"G\0\0\0\7\0\0\0",
        b"D\0\0\0\6\0\0",
        b"D\0\0\0\6\0\5",
        b"D\xff\xff\xff\xff",
        b"D\0\x10\0\0",
        b"\0\0\0\0\4",
        b"T\0\0\0\4" + b"D\0\0\0\6\0\1",
        b"E\0\0\0\4",
        b"E\0\0\0\5\0" + b"Z\0\0\0\5T",
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_a_hostile_server_ends_nothing_but_its_own_connection(nonsense: bytes, asked: bool) -> None:
    setting = RolesSetting()
    assert setting.outcome() == "in"
    asker = setting.cluster.askers[0]
    setting.cluster.slow = True
    client = setting.log_in() if asked else None
    asker.say(nonsense)
    setting.world.settle()
    if client is not None:
        setting.world.pass_time(LONGEST_WAIT)
        assert client.session.state == ClientState.CLOSED or client.logged_in
    setting.cluster.release()
    setting.world.pass_time(2)
    assert setting.outcome() == "in"
    assert setting.outcome(password=WRONG) == "28P01"


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_by_default_every_login_asks_so_that_every_change_holds_at_once() -> None:
    setting = RolesSetting(auth={"auth_query_negative_ttl": 1.0})
    for _ in range(3):
        assert setting.outcome() == "in"
    assert setting.asked == ["alice"] * 3
    setting.cluster.roles["alice"] = verifier("changed", salt=b"another")
    assert setting.outcome() == "28P01"
    assert setting.outcome(password="changed") == "in"
    del setting.cluster.roles["alice"]
    assert setting.outcome(password="changed") == "28P01"


@pytest.mark.parametrize("method", [SCRAM, MD5, PLAIN])
def test_with_a_cache_a_secret_is_asked_for_once_in_its_time(method: AuthMethod) -> None:
    setting = RolesSetting(method, auth={"auth_query_cache_ttl": 10.0})
    for _ in range(5):
        assert setting.outcome() == "in"
    assert setting.asked == ["alice"]
    setting.world.pass_time(10)
    assert setting.outcome() == "in"
    assert setting.asked == ["alice"]


@pytest.mark.parametrize(
    ("method", "kind"),
    [(MD5, "digest"), (MD5, "cleartext"), (PLAIN, "digest"), (PLAIN, "verifier"), (PLAIN, "cleartext")],
)
def test_a_changed_password_works_at_once_though_the_old_one_is_remembered(method: AuthMethod, kind: str) -> None:
    setting = RolesSetting(method, auth={"auth_query_cache_ttl": 10.0})
    make = {"digest": lambda p: digest("alice", p), "verifier": verifier, "cleartext": lambda p: p}[kind]

    def change(password: str) -> None:
        setting.cluster.roles["alice"] = digest("alice", password) if kind != "verifier" else verifier(password)
        setting.cluster.rows["alice"] = [["alice", make(password)]]

    change(PASSWORD)
    assert setting.outcome() == "in"
    change("changed")
    assert setting.outcome(password="changed") == "in"
    assert setting.asked == ["alice", "alice"]
    assert setting.outcome() == "28P01"
    assert setting.asked == ["alice"]
    assert setting.outcome(password="changed") == "in"


def test_with_scram_a_changed_password_works_at_the_second_login_while_the_old_one_is_remembered() -> None:
    setting = RolesSetting(auth={"auth_query_cache_ttl": 10.0})
    assert setting.outcome() == "in"
    setting.cluster.roles["alice"] = verifier("changed", salt=b"another")
    assert setting.outcome(password="changed") == "28P01"
    assert setting.outcome(password="changed") == "in"
    assert setting.outcome() == "28P01"


def test_a_wrong_password_asks_once_more_and_not_twice() -> None:
    setting = RolesSetting(PLAIN, auth={"auth_query_cache_ttl": 10.0})
    assert setting.outcome() == "in"
    assert setting.asked == ["alice"]
    for _ in range(3):
        assert setting.outcome(password=WRONG) == "28P01"
        assert setting.asked == ["alice"]
    del setting.cluster.roles["alice"]
    assert setting.outcome(password=WRONG) == "28P01"


def test_one_who_was_not_found_is_not_asked_for_again_for_a_short_time() -> None:
    setting = RolesSetting(auth={"auth_query_negative_ttl": 2.0})
    for _ in range(5):
        assert setting.outcome("nobody") == "28P01"
    assert setting.asked == ["nobody"]
    setting.cluster.roles["nobody"] = verifier()
    assert setting.outcome("nobody") == "28P01"
    setting.world.pass_time(2)
    assert setting.outcome("nobody") == "in"


def test_invented_names_are_forgotten_and_drive_out_nobody() -> None:
    setting = RolesSetting(MD5, auth={"auth_query_cache_ttl": 1000.0, "auth_query_negative_ttl": 1000.0})
    assert setting.outcome() == "in"
    for number in range(1200):
        assert setting.outcome(f"user{number}") == "28P01"
    assert len(setting.asked) == 1201
    assert setting.outcome() == "in"
    assert setting.outcome("user1199") == "28P01"
    assert setting.asked == []
    assert setting.outcome("user3") == "28P01"
    assert setting.asked == ["user3"]


# -- reload, pause, end ------------------------------------------------------------------------------------------------


def test_a_reload_keeps_what_is_remembered_only_where_nothing_has_changed() -> None:
    remembering = {"auth_query_cache_ttl": 1000.0}
    setting = RolesSetting(auth=remembering)
    assert setting.outcome() == "in"
    setting.world.reload(looking_up(auth=remembering, pool_size=5))
    assert setting.outcome() == "in"
    assert setting.asked == ["alice"]
    assert len(setting.cluster.askers) == 1
    setting.world.reload(looking_up(auth={**remembering, "auth_query": "SELECT a, b FROM c.d($1)"}))
    assert setting.outcome() == "in"
    assert setting.asked == ["alice"]
    assert [process.over for process in setting.cluster.askers] == [True, False]
    setting.world.reload(looking_up(auth={"auth_user": ""}))
    assert setting.outcome() == "28P01"
    assert setting.asked == []
    assert all(process.over for process in setting.cluster.askers)


@pytest.mark.parametrize("auth", [{}, {"auth_dbname": "other"}])
def test_a_login_that_is_being_looked_up_at_a_reload_goes_by_the_new_configuration(auth: dict[str, str]) -> None:
    setting = RolesSetting()
    setting.cluster.slow = True
    client = setting.log_in()
    setting.world.reload(looking_up(auth=auth, method=PLAIN))
    setting.cluster.release()
    setting.world.settle()
    assert client.logged_in
    assert client.received[0][1] == b"\0\0\0\3"
    off = RolesSetting()
    off.cluster.slow = True
    client = off.log_in()
    off.world.reload(looking_up(auth={"auth_user": ""}))
    off.cluster.release()
    off.world.settle()
    assert client.sqlstates == ["28P01"]


def test_while_paused_nobody_is_asked_and_nothing_stays_open() -> None:
    setting = RolesSetting()
    assert setting.outcome() == "in"
    setting.world.service.pools.pause(setting.world.now)
    setting.world.settle()
    assert setting.cluster.alive == []
    client = setting.log_in()
    assert client.received == []
    setting.world.service.pools.resume(setting.world.now)
    setting.world.settle()
    assert client.logged_in


def test_the_end_of_the_service_ends_the_lookups() -> None:
    setting = RolesSetting()
    setting.cluster.slow = True
    setting.log_in()
    setting.world.service.close_clients(setting.world.now)
    setting.world.service.close_servers(setting.world.now)
    setting.cluster.release()
    setting.world.settle()
    assert setting.cluster.alive == []
    assert setting.world.deadlines.next() in (0.0, setting.world.now + LINGER)


# -- passwords that change, roles that go ------------------------------------------------------------------------------

REVOCATIONS = {
    "a wrong password": lambda cluster: None,
    "an unknown user": lambda cluster: cluster.roles.pop("alice"),
    "an expired password": lambda cluster: cluster.rows.update(alice=[["alice", None]]),
    "a role that may not log in": lambda cluster: cluster.rows.update(alice=[]),
    "a changed password": lambda cluster: cluster.roles.update(alice=verifier("changed", salt=b"another")),
}


@pytest.mark.parametrize("mode", PoolMode)
@pytest.mark.parametrize("moment", ["cold", "warm", "reloaded", "reconnected"])
@pytest.mark.parametrize("revocation", REVOCATIONS)
def test_who_may_no_longer_log_in_is_refused_whatever_the_pool_holds(
    revocation: str, moment: str, mode: PoolMode
) -> None:
    setting = RolesSetting(pool_mode=mode, pool_size=2)
    insider = None
    if moment != "cold":
        insider = setting.log_in()
        insider.ask("row c1")
        setting.world.settle()
        assert insider.rows == ["c1"]
        assert setting.outcome() == "in"
    REVOCATIONS[revocation](setting.cluster)
    if moment == "reloaded":
        setting.world.reload(looking_up(pool_mode=mode, pool_size=3))
    elif moment == "reconnected":
        for process in setting.cluster.alive:
            process.terminate()
        setting.world.settle()
    password = WRONG if revocation == "a wrong password" else PASSWORD
    for _ in range(3):
        assert setting.outcome(password=password) == "28P01"


def test_after_a_change_of_password_the_pool_logs_in_with_the_new_one_at_once() -> None:
    setting = RolesSetting(pool_mode=PoolMode.TRANSACTION, pool_size=2)
    old = setting.log_in()
    old.ask("row c1")
    setting.world.settle()
    setting.cluster.roles["alice"] = verifier("changed", salt=b"another")
    for process in setting.cluster.alive:
        process.terminate()
    setting.world.settle()
    unlucky = setting.log_in()
    assert unlucky.sqlstates == ["28P01"]
    old.ask("row c2")
    setting.world.settle()
    (failure,) = old.errors
    assert "another verifier than the server has" in failure.message
    assert "log in again" in (failure.hint or "")
    new = setting.log_in(password="changed")
    new.ask("row c3")
    setting.world.settle()
    assert new.rows == ["c3"]


def test_a_client_that_joins_again_does_not_bring_back_an_old_password() -> None:
    setting = RolesSetting(pool_mode=PoolMode.TRANSACTION, pool_size=2)
    old = setting.log_in()
    setting.world.pass_time(1)
    setting.cluster.roles["alice"] = verifier("changed", salt=b"another")
    new = setting.log_in(password="changed")
    moved = looking_up(pool_mode=PoolMode.TRANSACTION, pool_size=2, backends=(Backend(name="primary", host="pg9"),))
    setting.world.reload(moved)
    for client in (new, old):
        client.ask("row c")
        setting.world.settle()
        assert client.rows == ["c"]
    for process in setting.cluster.alive:
        process.terminate()
    setting.world.settle()
    new.ask("row c")
    setting.world.settle()
    assert new.rows == ["c", "c"]


def test_where_the_server_holds_another_verifier_the_client_is_told_what_to_do() -> None:
    setting = RolesSetting()
    setting.cluster.rows["alice"] = [["alice", verifier()]]
    setting.cluster.roles["alice"] = verifier(salt=b"another")
    client = setting.log_in()
    (failure,) = client.errors
    assert failure.sqlstate == "08006"
    assert 'the SCRAM key of user "alice" belongs to another verifier than the server has' in failure.message
    assert "Copy" in (failure.hint or "")
    assert "primary" in (failure.detail or "")


def test_one_who_proved_nothing_does_not_spoil_what_another_has_proved() -> None:
    setting = RolesSetting(pool_mode=PoolMode.TRANSACTION, pool_size=2)
    proved = setting.log_in()
    setting.world.reload(looking_up(TRUST, pool_mode=PoolMode.TRANSACTION, pool_size=2))
    trusted = setting.log_in(password="")
    assert trusted.logged_in
    for process in setting.cluster.alive:
        process.terminate()
    for client in (trusted, proved):
        client.ask("row c")
        setting.world.settle()
        assert client.rows == ["c"]


def test_one_who_proved_nothing_does_not_keep_out_another_who_proves_it() -> None:
    """A pool without a key fails, and is not tried again at once; with a key it can be."""
    setting = RolesSetting(TRUST)
    trusted = setting.log_in(password="")
    assert trusted.sqlstates == ["08006"]
    setting.world.reload(looking_up())
    assert setting.outcome() == "in"


def test_a_user_who_becomes_listed_logs_in_to_servers_with_what_is_listed() -> None:
    setting = RolesSetting(pool_mode=PoolMode.TRANSACTION, pool_size=2)
    assert setting.log_in().logged_in
    listed = {ASKER: "the pooler's own", "alice": "listed"}
    setting.world.reload(looking_up(users=listed, pool_mode=PoolMode.TRANSACTION, pool_size=2))
    setting.cluster.roles["alice"] = verifier("listed", salt=b"another")
    for process in setting.cluster.alive:
        process.terminate()
    setting.world.settle()
    client = setting.log_in(password="listed")
    client.ask("row c")
    setting.world.settle()
    assert client.rows == ["c"]


def test_a_snapshot_shows_the_lookups_and_no_secret() -> None:
    setting = RolesSetting(auth={"auth_query_cache_ttl": 10.0})
    assert setting.outcome() == "in"
    snapshot = setting.world.service.snapshot()
    assert snapshot["auth_queries"] == [
        {
            "backend": "primary",
            "database": "postgres",
            "user": ASKER,
            "server_connections": 1,
            "questions": 0,
            "remembered": 1,
        }
    ]
    assert "SCRAM" not in repr(setting.world.service.auth_queries._pools)
