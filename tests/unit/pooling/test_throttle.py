"""Failed logins by address and user: how many guesses there are in a window, and who is never kept out."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.model import Auth
from pgpooler.errors import PeerError
from pgpooler.pooling import throttle
from pgpooler.pooling.access import LoginRequest
from pgpooler.pooling.throttle import FailedLogins

HERE = IPv4Address("10.0.0.1")


def request(address: IPv4Address | IPv6Address | None = HERE, user: str = "alice") -> LoginRequest:
    return LoginRequest(user, "shop", "", address, None)


def limited(limit: int = 3, window: float = 60.0) -> Auth:
    return Auth(failed_logins_limit=limit, failed_logins_window=window)


def is_refused(failures: FailedLogins, asking: LoginRequest, auth: Auth, now: float) -> bool:
    try:
        failures.check(asking, auth, now)
    except PeerError:
        return True
    return False


def fail(failures: FailedLogins, asking: LoginRequest, auth: Auth, now: float) -> bool:
    """Guess wrong, unless that is refused; whether there was a guess."""
    if is_refused(failures, asking, auth, now):
        return False
    failures.failed(asking, auth, now)
    return True


def test_after_too_many_failed_logins_further_ones_are_refused_until_the_window_is_over() -> None:
    failures, auth = FailedLogins(), limited()
    assert [fail(failures, request(), auth, 100.0 + second) for second in range(5)] == [True, True, True, False, False]
    with pytest.raises(PeerError) as raised:
        failures.check(request(), auth, 130.5)
    error = raised.value
    assert (error.sqlstate, error.severity) == ("53400", "FATAL")
    assert error.message == 'too many failed logins for user "alice" from host "10.0.0.1"'
    assert (error.detail, error.hint) == ("failed_logins_limit is 3.", "Try again in 30 seconds.")
    with pytest.raises(PeerError, match="too many") as raised:
        failures.check(request(), auth, 159.5)
    assert raised.value.hint == "Try again in 1 second."
    assert not is_refused(failures, request(), auth, 160.0)
    assert [fail(failures, request(), auth, 160.0) for _ in range(4)] == [True, True, True, False]


@given(
    st.integers(1, 5),
    st.floats(0.1, 100.0),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.sampled_from(["alice", "bob"]), st.integers(0, 2)), max_size=60),
)
def test_no_more_guesses_than_the_limit_fall_into_the_window_of_the_first(
    limit: int, window: float, guesses: list[tuple[float, str, int]]
) -> None:
    failures, auth, now = FailedLogins(), limited(limit, window), 0.0
    windows: dict[tuple[str, int], list[float]] = {}
    for wait, user, host in guesses:
        now += wait
        asking = request(IPv4Address(host), user)
        made = windows.setdefault((user, host), [])
        if made and now >= made[0] + window:
            made.clear()
        assert fail(failures, asking, auth, now) is (len(made) < limit)
        if len(made) < limit:
            made.append(now)


def test_another_user_and_another_address_are_counted_apart() -> None:
    failures, auth = FailedLogins(), limited(1)
    assert fail(failures, request(), auth, 0.0)
    assert is_refused(failures, request(), auth, 1.0)
    assert not is_refused(failures, request(user="bob"), auth, 1.0)
    assert not is_refused(failures, request(IPv4Address("10.0.0.2")), auth, 1.0)
    assert not is_refused(failures, request(IPv6Address(int(HERE))), auth, 1.0)


def test_the_addresses_of_one_network_of_ipv6_are_counted_together() -> None:
    failures, auth = FailedLogins(), limited(1)
    assert fail(failures, request(ip_address("2001:db8::1")), auth, 0.0)
    assert is_refused(failures, request(ip_address("2001:db8::ffff:2")), auth, 1.0)
    assert not is_refused(failures, request(ip_address("2001:db8:0:1::1")), auth, 1.0)


def test_a_success_forgets_what_failed_before() -> None:
    failures, auth = FailedLogins(), limited(2)
    for _ in range(5):
        assert fail(failures, request(), auth, 0.0)
        failures.succeeded(request())
    assert len(failures) == 0


@pytest.mark.parametrize(
    ("asking", "auth"), [(request(None), limited(1)), (request(), limited(0)), (request(), Auth())]
)
def test_a_unix_socket_is_never_throttled_and_without_a_limit_nobody_is(asking: LoginRequest, auth: Auth) -> None:
    failures = FailedLogins()
    assert all(fail(failures, asking, auth, 0.0) for _ in range(100))
    assert len(failures) == 0


@pytest.mark.parametrize(
    "other",
    [
        lambda number: request(IPv4Address(number)),
        lambda number: request(ip_address("2001:db8::") + (number << 64)),
        lambda number: request(user=f"user{number}"),
    ],
)
def test_the_memory_for_failures_is_bounded_and_keeps_the_latest(
    monkeypatch: pytest.MonkeyPatch, other: Callable[[int], LoginRequest]
) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED", 10)
    failures, auth = FailedLogins(), limited(1)
    for number in range(25):
        assert fail(failures, other(number), auth, float(number) / 100)
    assert len(failures) == 10
    assert [number for number in range(25) if is_refused(failures, other(number), auth, 1.0)] == list(range(15, 25))


def test_a_reload_may_change_the_limit_and_what_failed_before_counts() -> None:
    failures = FailedLogins()
    assert fail(failures, request(), limited(5), 0.0)
    assert is_refused(failures, request(), limited(1), 1.0)
    assert not is_refused(failures, request(), limited(2), 1.0)
    assert not is_refused(failures, request(), limited(1, window=0.5), 1.0)
