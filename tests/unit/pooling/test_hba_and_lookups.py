"""Users who are looked up, under an HBA file and under the throttle."""

from __future__ import annotations

import msgspec
import pytest

from pgpooler.config.hba_file import read_hba
from pgpooler.config.source import Sources
from pgpooler.protocol import codes, messages
from tests.roles import PASSWORD, WRONG, RolesSetting, digest
from tests.scripted import Client

REQUESTS = {
    "scram-sha-256": codes.AUTHENTICATION_SASL,
    "md5": codes.AUTHENTICATION_SASL,  # the server knows a SCRAM verifier
    "password": codes.AUTHENTICATION_CLEARTEXT_PASSWORD,
}


def under(hba: str, **auth: object) -> RolesSetting:
    """Everybody is looked up, under the entries of this file."""
    sources = Sources("pgpooler.yaml", {})
    rules = read_hba(hba, "hba", sources)
    assert sources.errors == []
    setting = RolesSetting()
    before = setting.world.service.configuration
    changed = msgspec.structs.replace(before.auth, hba_file="hba", hba=rules, **auth)
    setting.world.reload(msgspec.structs.replace(before, auth=changed))
    return setting


def requested(client: Client) -> int:
    """The kind of the first authentication message."""
    kind, body = client.received[0]
    assert kind == "R"
    return messages.read_authentication(body)[0]


@pytest.mark.parametrize("method", REQUESTS)
def test_the_entry_that_fits_decides_how_one_who_is_looked_up_logs_in(method: str) -> None:
    setting = under(f"host all alice all {method}\nhost all all all reject\n")
    client = setting.log_in()
    assert client.logged_in
    assert requested(client) == REQUESTS[method]
    assert setting.outcome("alice", WRONG) == "28P01"
    assert setting.asked == ["alice", "alice"]


def test_who_is_refused_by_the_file_is_not_looked_up() -> None:
    setting = under("host all alice 11.0.0.0/8 trust\nhost all bob all reject\nlocal all all peer\n")
    assert setting.outcome("alice") == "28000"
    assert setting.outcome("bob") == "28000"
    assert setting.asked == []


def test_under_trust_only_who_exists_gets_in_and_by_the_user_of_the_system_too() -> None:
    setting = under("host all all all trust\nlocal all all peer\n")
    setting.cluster.roles["alice"] = digest("alice")
    assert setting.outcome("alice") == "in"
    assert setting.outcome("nobody") == "28000"
    for system_user, user, expected in (("alice", "alice", True), ("nobody", "nobody", False), ("x", "alice", False)):
        client = Client(setting.world, "x", user=user, password=PASSWORD.encode())
        client.port.address, client.port.system_user = None, system_user
        setting.world.settle()
        assert client.logged_in is expected
        if not expected:
            assert client.errors[0].message == f'Peer authentication failed for user "{user}"'


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("remembered", [0.0, 1000.0])
def test_who_fails_too_often_is_not_even_looked_up(method: str, remembered: float) -> None:
    setting = under(
        f"host all all all {method}\n",
        failed_logins_limit=2,
        failed_logins_window=60.0,
        auth_query_cache_ttl=remembered,
        auth_query_negative_ttl=remembered,
    )
    for user in ("alice", "nobody"):
        assert [setting.outcome(user, WRONG) for _ in range(4)] == ["28P01", "28P01", "53400", "53400"]
        assert set(setting.asked) == {user}
        assert setting.outcome(user, PASSWORD) == "53400"
        assert setting.asked == []
    setting.world.pass_time(60)
    assert setting.outcome("alice") == "in"
