"""Values as operators write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config import values
from pgpooler.config.choices import AuthMethod
from pgpooler.config.keys import TEN_YEARS

UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.integers(0, 3650), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_a_time_is_a_number_of_its_unit_and_seconds_without_one(number: int, unit: str, gap: str) -> None:
    text = f"{number}{gap if unit else ''}{unit}"
    assert values.read_seconds(text, TEN_YEARS) == pytest.approx(number * UNITS[unit])


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("10s", 10), ("5m", 300), ("2h", 7200), ("1.5", 1.5)])
def test_the_documented_times_mean_what_they_say(text: str, seconds: float) -> None:
    assert values.read_seconds(text, TEN_YEARS) == seconds


@pytest.mark.parametrize(
    "text", ["-1", "1 2", "10 sec", "five", "1e3", "inf", "nan", "12:30", "s", ".5", "9999d", "٣s"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        values.read_seconds(text, TEN_YEARS)


def test_ten_years_are_the_longest_time() -> None:
    assert values.read_seconds("3650d", TEN_YEARS) == TEN_YEARS
    with pytest.raises(ValueError, match="at most"):
        values.read_seconds("315360001", TEN_YEARS)


def test_the_path_of_a_unix_socket_may_be_as_long_as_the_system_takes() -> None:
    values.check_socket_path("/" + "x" * 106)
    with pytest.raises(ValueError, match="longer than 107 bytes"):
        values.check_socket_path("/" + "x" * 107)
    with pytest.raises(ValueError, match="longer than 107 bytes"):
        values.check_socket_path("/" + "ä" * 54)


@given(st.integers(1, 65535))
def test_a_number_within_bounds_is_read(number: int) -> None:
    assert values.read_integer(str(number), 1, 65535) == number


@pytest.mark.parametrize("text", ["0123", "0x10", "1_000", "1.0", "+1", "", "9" * 5000, "true"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        values.read_integer(text, 0, 10)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "999999999999"])
def test_a_number_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        values.read_integer(text, 1, 65535)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("Yes", True), ("ON", True), ("false", False), ("no", False), ("off", False)]
)
def test_the_six_words_for_true_and_false_are_read(text: str, value: bool) -> None:
    assert values.read_boolean(text) is value


@pytest.mark.parametrize("text", ["1", "0", "y", "", "treu"])
def test_other_words_are_not_true_or_false(text: str) -> None:
    with pytest.raises(ValueError, match="expected true or false"):
        values.read_boolean(text)


def test_an_unknown_choice_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"scram-sha-256, md5, plain, cert, trust.*did you mean 'trust'\?"):
        values.read_choice("thrust", AuthMethod)


@pytest.mark.parametrize(("text", "mode"), [("0777", 0o777), ("770", 0o770), ("0o700", 0o700)])
def test_permissions_are_octal_however_they_are_written(text: str, mode: int) -> None:
    assert values.read_octal(text) == mode


@pytest.mark.parametrize("text", ["511x", "0888", "7", "01777", "-777"])
def test_what_are_no_permissions_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="octal"):
        values.read_octal(text)


@given(st.ip_addresses())
def test_every_address_is_a_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert values.read_listen_host(str(address)) == str(address)
    assert values.read_backend_host(str(address)) == str(address)


@pytest.mark.parametrize("text", ["localhost", "pg-1.example.com", "pg_1", "db.", "x"])
def test_host_names_are_hosts(text: str) -> None:
    assert values.read_backend_host(text) == text


@pytest.mark.parametrize(
    "text", ["0.0.0.256", "1.2.3", "::g", "[::1]", "a b", "-a", "a/b", "pg1:5432", "1.2.3.4:5432", "ä", "a..b", "x\n"]
)
def test_w29_what_is_no_host_is_refused_rather_than_taken_as_every_address(text: str) -> None:
    with pytest.raises(ValueError, match="IP address"):
        values.read_listen_host(text)


def test_a_port_in_the_host_is_pointed_out() -> None:
    with pytest.raises(ValueError, match="the port has a key of its own"):
        values.read_backend_host("10.0.0.1:5432")


def test_a_star_is_an_address_to_listen_on_and_no_backend() -> None:
    assert values.read_listen_host("*") == "*"
    with pytest.raises(ValueError, match="neither a host name"):
        values.read_backend_host("*")


def test_a_backend_may_be_the_folder_of_a_unix_socket() -> None:
    assert values.read_backend_host("/run/postgresql") == "/run/postgresql"
    with pytest.raises(ValueError, match="longer than 107 bytes"):
        values.read_backend_host("/" + "x" * 100)
