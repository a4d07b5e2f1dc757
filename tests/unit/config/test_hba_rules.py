"""Which entry decides: the first that fits, by a slower reading of the same rules, and names from outside."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.hba import (
    ALL,
    REPLICATION,
    SAMEUSER,
    ConnectionKind,
    HbaMethod,
    HbaName,
    HbaRule,
    IdentLine,
    NameKind,
    for_everybody,
)
from pgpooler.config.hba_file import read_ident
from pgpooler.config.hba_rules import Address, HbaRules, IdentMaps
from pgpooler.config.source import Sources
from tests import hba_files

requested_names = st.sampled_from(hba_files.NAMES)
origins = st.none() | st.ip_addresses()


def names_match(names: tuple[HbaName, ...], wanted: str, user: str) -> bool:
    return any(
        name == ALL
        or (name == SAMEUSER and wanted == user)
        or (name.kind is NameKind.EXACT and name.text == wanted)
        or (name.kind is NameKind.REGEX and re.search(name.text, wanted))
        for name in names
    )


def fits(rule: HbaRule, user: str, database: str, address: Address | None, encrypted: bool, replication: bool) -> bool:
    """The manual's description of an entry, word by word, on the digits of the addresses."""
    if (rule.connection is ConnectionKind.LOCAL) != (address is None):
        return False
    if rule.connection is (ConnectionKind.HOSTNOSSL if encrypted else ConnectionKind.HOSTSSL):
        return False
    if rule.address and address is not None:
        wanted, mask = ipaddress.ip_address(rule.address), ipaddress.ip_address(rule.mask)
        if wanted.version != address.version:
            return False
        digits = zip(wanted.packed, mask.packed, address.packed, strict=True)
        if any((one ^ other) & bits for one, bits, other in digits):
            return False
    if not names_match(rule.users, user, user):
        return False
    return REPLICATION in rule.databases if replication else names_match(rule.databases, database, user)


@given(
    st.lists(hba_files.rules(), max_size=8),
    requested_names,
    requested_names,
    origins,
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_the_first_entry_that_fits_decides(
    rules: list[HbaRule],
    user: str,
    database: str,
    address: Address | None,
    encrypted: bool,
    replication: bool,
    data: st.DataObject,
) -> None:
    written = [ipaddress.ip_address(rule.address) for rule in rules if rule.address]
    if written and data.draw(st.booleans()):
        address = data.draw(st.sampled_from(written))
    expected = next((rule for rule in rules if fits(rule, user, database, address, encrypted, replication)), None)
    found = HbaRules(rules).first(user, database, address, encrypted=encrypted, replication=replication)
    assert found is expected


@given(st.sampled_from(HbaMethod), requested_names, requested_names, origins, st.booleans(), st.booleans())
def test_one_method_for_everybody_is_for_everybody(
    method: HbaMethod, user: str, database: str, address: Address | None, encrypted: bool, replication: bool
) -> None:
    rule = HbaRules(for_everybody(method)).first(user, database, address, encrypted=encrypted, replication=replication)
    assert rule is not None
    assert rule.method is method


MAPS = r"""
staff  root       postgres
staff  alice      alice
staff  alice      bob
certs  /^(.*)@example\.org$  \1
certs  /^(.*)@example\.org$  guest
certs  /^admin                all
certs  /^(x)?y$               u\1
plain  \1         \1
odd    /^(.*)-x$  "a\1b\1"
any    carol      /^c
"""


@pytest.mark.parametrize(
    ("name", "system_user", "user", "allowed"),
    [
        ("", "alice", "alice", True),
        ("", "alice", "bob", False),
        ("staff", "alice", "bob", True),
        ("staff", "alice", "carol", False),
        ("staff", "bob", "bob", False),
        ("nobody", "alice", "alice", False),
        ("certs", "alice@example.org", "alice", True),
        ("certs", "alice@example.org", "guest", True),
        ("certs", "alice@example.org", "bob", False),
        ("certs", "alice@example.com", "alice", False),
        ("certs", "administrator", "anybody", True),
        ("certs", "xy", "ux", True),
        ("certs", "y", "u", False),
        ("certs", "all@example.org", "anybody", False),
        ("plain", r"\1", r"\1", True),
        ("odd", "k-x", r"akb\1", True),
        ("odd", "k-x", "akbk", False),
        ("any", "carol", "charles", True),
        ("any", "carol", "alice", False),
    ],
)
def test_a_map_says_as_whom_a_name_from_outside_may_log_in(
    name: str, system_user: str, user: str, allowed: bool
) -> None:
    sources = Sources("pgpooler.yaml", {})
    maps = IdentMaps(read_ident(MAPS, "ident", sources))
    assert sources.errors == []
    assert maps.allows(name, system_user, user) is allowed


@given(st.lists(hba_files.ident_lines, max_size=5), hba_files.texts, hba_files.texts)
def test_without_a_map_only_the_same_name_may_log_in(lines: list[IdentLine], system_user: str, user: str) -> None:
    assert IdentMaps(lines).allows("", system_user, user) is (system_user == user)
