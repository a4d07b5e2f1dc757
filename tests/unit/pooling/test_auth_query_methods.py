"""Users who are looked up, among entries of an HBA file, failed logins that count, and servers that demand TLS."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pgpooler.config.choices import AuthMethod, TlsMode
from pgpooler.config.hba_file import read_hba
from pgpooler.config.model import Backend, BackendTls, Configuration
from pgpooler.config.source import Sources
from pgpooler.errors import PeerError
from pgpooler.pooling.port import ClientCertificate, Encryption
from pgpooler.protocol import codes, messages
from tests.roles import PASSWORD, WRONG, RolesSetting, digest, looking_up
from tests.scripted import Client

TLS = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384")
SCRAM, PLAIN = AuthMethod.SCRAM_SHA_256, AuthMethod.PLAIN


def by_entries(text: str, **auth: object) -> Configuration:
    sources = Sources("pgpooler.yaml", {})
    rules = read_hba(text, "hba", sources)
    assert sources.errors == []
    return looking_up(auth={"hba_file": "hba", "hba": rules, **auth})


def guarded(text: str, **auth: object) -> RolesSetting:
    setting = RolesSetting()
    setting.world.reload(by_entries(text, **auth))
    return setting


def log_in(setting: RolesSetting, user: str, password: str = PASSWORD, encryption: Encryption | None = None) -> Client:
    client = Client(setting.world, user=user, password=password.encode(), start=False)
    client.port.address, client.port.encryption = ip_address("10.0.0.1"), encryption
    client.port.say(messages.startup_message(codes.PROTOCOL_3_0, {"user": user, "database": "shop"}))
    setting.world.settle()
    setting.world.check_limits()
    return client


# -- HBA files ---------------------------------------------------------------------------------------------------------

ENTRIES = """
host    all rejected all reject
host    all plain    all password
host    all digest   all md5
hostssl all shown    all cert
host    all trusted  all trust
host    all all      10.0.0.1/32 scram-sha-256
"""


def test_the_entry_that_fits_says_how_a_user_who_is_looked_up_proves_who_it_is() -> None:
    setting = guarded(ENTRIES)
    roles = setting.cluster.roles
    roles.update(plain=digest("plain"), digest=digest("digest"), trusted=digest("trusted"), shown=digest("shown"))
    asked = {
        "plain": codes.AUTHENTICATION_CLEARTEXT_PASSWORD,
        "digest": codes.AUTHENTICATION_MD5_PASSWORD,
        "alice": codes.AUTHENTICATION_SASL,
    }
    for user, request in asked.items():
        client = log_in(setting, user)
        assert messages.read_authentication(client.received[0][1])[0] == request
        assert client.logged_in
        assert log_in(setting, user, WRONG).sqlstates == ["28P01"]
    assert log_in(setting, "trusted").logged_in
    certificate = ClientCertificate(subject="CN=shown", common_name="shown")
    assert log_in(setting, "shown", encryption=with_certificate(certificate)).logged_in


def with_certificate(certificate: ClientCertificate) -> Encryption:
    return Encryption(TLS.protocol, TLS.cipher, b"", certificate)


def test_who_is_refused_before_a_password_is_not_looked_up() -> None:
    setting = guarded(ENTRIES)
    setting.cluster.roles.update(rejected=digest("rejected"), shown=digest("shown"))
    assert log_in(setting, "rejected").sqlstates == ["28000"]
    assert log_in(setting, "shown", encryption=TLS).sqlstates == ["28000"]  # without a certificate
    other = ClientCertificate(subject="CN=alice", common_name="alice")
    assert log_in(setting, "shown", encryption=with_certificate(other)).sqlstates == ["28000"]
    assert setting.asked == []


def test_where_no_password_is_asked_for_one_who_does_not_exist_is_refused_without_it() -> None:
    setting = guarded(ENTRIES)
    certificate = ClientCertificate(subject="CN=shown", common_name="shown")
    assert log_in(setting, "trusted").sqlstates == ["28000"]
    assert log_in(setting, "shown", encryption=with_certificate(certificate)).sqlstates == ["28000"]
    assert setting.asked == ["trusted", "shown"]


def test_a_reload_that_rejects_a_user_rejects_it_also_while_it_is_looked_up() -> None:
    setting = guarded(ENTRIES)
    setting.cluster.slow = True
    client = log_in(setting, "alice")
    setting.world.reload(by_entries("host all all all reject"))
    setting.cluster.release()
    setting.world.settle()
    assert client.sqlstates == ["28000"]


# -- failed logins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0.0, 60.0])
def test_a_wrong_password_of_one_who_is_looked_up_counts_once_and_one_who_does_not_exist_likewise(ttl: float) -> None:
    setting = guarded("host all all all password", failed_logins_limit=2, auth_query_cache_ttl=ttl)
    assert log_in(setting, "alice").logged_in
    for user in ("alice", "nobody"):
        outcomes = [log_in(setting, user, WRONG).sqlstates for _ in range(4)]
        assert outcomes == [["28P01"], ["28P01"], ["53400"], ["53400"]]


def test_a_lookup_that_fails_is_no_failed_login() -> None:
    setting = guarded("host all all all scram-sha-256", failed_logins_limit=1)
    setting.world.unreachable["primary"] = "connection refused"
    assert [log_in(setting, "alice").sqlstates for _ in range(3)] == [["08006"]] * 3
    setting.world.unreachable.clear()
    setting.world.pass_time(1)
    assert log_in(setting, "alice").logged_in


def test_who_has_failed_too_often_is_not_looked_up() -> None:
    setting = guarded("host all all all scram-sha-256", failed_logins_limit=1)
    assert log_in(setting, "alice", WRONG).sqlstates == ["28P01"]
    assert setting.asked == ["alice"]
    assert log_in(setting, "alice").sqlstates == ["53400"]
    assert setting.asked == []


# -- TLS towards the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "first"), [(TlsMode.ALLOW, None), (TlsMode.PREFER, TLS)])
def test_a_server_that_refuses_the_lookup_is_asked_the_other_way_too(mode: TlsMode, first: Encryption | None) -> None:
    setting = RolesSetting(backends=(Backend(name="primary", host="pg1", tls=BackendTls(mode=mode)),))
    setting.world.hold_opens = True
    setting.cluster.refusal = messages.error_response(PeerError("no entry", sqlstate="28000", severity="FATAL"))
    client = setting.log_in()
    port = setting.world.answer_open()
    assert port is not None
    port.encryption = first
    setting.world.settle()
    assert port.closed
    assert client.received == []
    setting.cluster.refusal = b""
    setting.world.hold_opens = False
    setting.world.settle()
    assert client.logged_in
    assert [process.over for process in setting.cluster.askers] == [True, False]


def test_the_other_way_is_tried_once() -> None:
    setting = RolesSetting(backends=(Backend(name="primary", host="pg1", tls=BackendTls(mode=TlsMode.ALLOW)),))
    setting.cluster.refusal = messages.error_response(PeerError("no entry", sqlstate="28000", severity="FATAL"))
    setting.world.hold_opens = True
    client = setting.log_in()
    setting.world.answer_open()
    setting.world.settle()
    assert client.received == []
    second = setting.world.answer_open()
    assert second is not None
    second.encryption = TLS
    setting.world.settle()
    assert setting.world.opening == []
    assert client.sqlstates == ["08006"]


def test_of_a_password_in_clear_text_nothing_is_computed_but_what_its_entry_asks_for() -> None:
    setting = guarded(ENTRIES)
    for user in ("digest", "plain"):
        setting.cluster.roles[user] = digest(user)
        setting.cluster.rows[user] = [[user, PASSWORD]]
        assert log_in(setting, user).logged_in
    assert [pool.entry.verifier for pool in setting.world.pools] == [None, None]
