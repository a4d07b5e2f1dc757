"""Guessing passwords through the whole data plane in memory: an HBA file decides, and the throttle ends it."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from pgpooler.config.choices import AuthMethod
from pgpooler.config.hba_file import read_hba
from pgpooler.config.source import Sources
from pgpooler.protocol.passwords import make_verifier
from tests.scripted import Client, Setting

METHODS = [AuthMethod.SCRAM_SHA_256, AuthMethod.MD5, AuthMethod.PLAIN]
VERIFIER = make_verifier(b"secret", salt=b"salt", iterations=2).text()


def guarded(
    method: AuthMethod, *, limit: int = 2, hba: str = "", password: str = "secret", window: float = 60.0
) -> Setting:
    setting = Setting(method=method, users={"alice": password, "bob": password})
    setting.cluster.password = b"secret"
    reload(setting, limit=limit, hba=hba, window=window)
    return setting


def reload(setting: Setting, *, limit: int, hba: str = "", window: float = 60.0) -> None:
    sources = Sources("pgpooler.yaml", {})
    rules = read_hba(hba, "hba", sources)
    assert sources.errors == []
    before = setting.world.service.configuration
    auth = msgspec.structs.replace(
        before.auth, failed_logins_limit=limit, failed_logins_window=window, hba_file="hba" if hba else "", hba=rules
    )
    setting.world.reload(msgspec.structs.replace(before, auth=auth))


def attempt(
    setting: Setting,
    password: bytes,
    *,
    user: str = "alice",
    database: str = "shop",
    address: str = "10.0.0.1",
    settle: bool = True,
) -> Client:
    client = Client(setting.world, "x", user=user, database=database, password=password)
    client.port.address = None if address == "unix" else ip_address(address)
    if settle:
        setting.world.settle()
        setting.world.check_limits()
    return client


def outcomes(setting: Setting, *passwords: bytes, **who: str) -> list[str]:
    """What becomes of logins, one after the other: the error, or nothing."""
    codes = []
    for password in passwords:
        client = attempt(setting, password, **who)  # type: ignore[arg-type]
        codes.append("" if client.logged_in else client.sqlstates[0])
        if client.logged_in:
            client.terminate()
            setting.world.settle()
    return codes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("password", ["secret", VERIFIER])
def test_after_too_many_failures_even_the_right_password_has_to_wait(method: AuthMethod, password: str) -> None:
    setting = guarded(method, password=password)
    setting.cluster.login = AuthMethod.TRUST
    assert outcomes(setting, b"a", b"b", b"secret", b"c") == ["28P01", "28P01", "53400", "53400"]
    assert outcomes(setting, b"secret", address="10.0.0.2") == [""]
    assert outcomes(setting, b"secret", user="bob") == [""]
    setting.world.pass_time(60)
    assert outcomes(setting, b"secret") == [""]
    assert outcomes(setting, b"a", b"secret", b"b", b"secret") == ["28P01", "", "28P01", ""]
    counts = setting.world.counts()
    assert (counts["clients"], counts["admitted"]) == (0, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("password", ["secret", VERIFIER])
def test_the_throttle_does_not_tell_who_exists(method: AuthMethod, password: str) -> None:
    setting = guarded(method, password=password)
    told = []
    for user in ("alice", "stranger"):
        clients = [attempt(setting, b"wrong", user=user) for _ in range(4)]
        errors = [client.errors[0] for client in clients]
        told.append(
            [
                (client.kinds, error.sqlstate, error.message.replace(user, "USER"), error.detail, error.hint)
                for client, error in zip(clients, errors, strict=True)
            ]
        )
    assert told[0] == told[1]
    assert [kinds[-2:] for kinds, *_ in told[0]] == ["RE", "RE", "E", "E"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("password", ["secret", VERIFIER])
def test_guesses_made_at_the_same_time_are_no_more_than_those_made_one_by_one(
    method: AuthMethod, password: str
) -> None:
    setting = guarded(method, password=password)
    setting.world.hold_computations = True
    clients = [attempt(setting, b"guess %d" % number, settle=False) for number in range(10)]
    clients.append(attempt(setting, b"secret", settle=False))
    setting.world.settle()
    setting.world.hold_computations = False
    setting.world.settle()
    codes = [client.sqlstates for client in clients]
    assert codes.count(["28P01"]) == 2
    assert codes.count(["53400"]) == 9


def test_a_unix_socket_is_never_throttled() -> None:
    setting = guarded(AuthMethod.MD5, limit=1)
    assert outcomes(setting, *[b"wrong"] * 5, b"secret", address="unix") == ["28P01"] * 5 + [""]


def test_failures_survive_a_reload_and_a_limit_of_zero_ends_the_throttle() -> None:
    setting = guarded(AuthMethod.MD5)
    assert outcomes(setting, b"a", b"b", b"secret") == ["28P01", "28P01", "53400"]
    reload(setting, limit=2)
    assert outcomes(setting, b"secret") == ["53400"]
    reload(setting, limit=0)
    assert outcomes(setting, b"secret", *[b"wrong"] * 5) == [""] + ["28P01"] * 5


def test_who_is_refused_by_the_hba_file_has_not_guessed() -> None:
    setting = guarded(AuthMethod.MD5, limit=1, hba="host shop alice 10.0.0.0/8 reject\nhost all all all md5\n")
    assert outcomes(setting, *[b"secret"] * 3) == ["28000"] * 3
    assert outcomes(setting, b"secret", address="11.0.0.1") == [""]


def test_after_a_reload_the_new_entries_decide_and_those_who_are_in_stay() -> None:
    setting = guarded(AuthMethod.MD5, hba="host all all all scram-sha-256\n")
    client = attempt(setting, b"secret")
    assert client.logged_in
    reload(setting, limit=2, hba="host all alice all reject\nhost all all 10.0.0.0/8 password\n")
    assert outcomes(setting, b"secret") == ["28000"]
    assert outcomes(setting, b"secret", user="bob") == [""]
    assert outcomes(setting, b"secret", user="bob", address="11.0.0.1") == ["28000"]
    client.ask("row x")
    setting.world.settle()
    assert client.rows == ["x"]


def test_the_operating_system_says_who_is_at_a_unix_socket() -> None:
    setting = guarded(AuthMethod.MD5, hba="local all all peer\n")
    for user, expected in (("alice", ""), ("bob", "28000")):
        client = Client(setting.world, "x", user=user)
        client.port.address, client.port.system_user = None, "alice"
        setting.world.settle()
        assert ("" if client.logged_in else client.sqlstates[0]) == expected


def test_who_is_let_in_without_a_proof_does_not_wipe_out_its_failures() -> None:
    """An entry that trusts the same user elsewhere must not help to guess here."""
    setting = guarded(AuthMethod.MD5, hba="host open all all trust\nhost all all all md5\n")
    assert outcomes(setting, b"a") == ["28P01"]
    assert outcomes(setting, b"", database="open") == [""]
    assert outcomes(setting, b"b", b"secret") == ["28P01", "53400"]


def test_within_a_window_without_length_nobody_is_kept_out_and_everybody_is_told() -> None:
    setting = guarded(AuthMethod.MD5, limit=1, window=0.0)
    assert outcomes(setting, b"a", b"b", b"secret") == ["28P01", "28P01", ""]
