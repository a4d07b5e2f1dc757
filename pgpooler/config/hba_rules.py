"""Which entry of a pg_hba.conf decides a login, and which database users a name from outside may log in as.

As in PostgreSQL the first entry that fits connection, address, database and user decides, and no other is tried
(auth-pg-hba-conf).  Regular expressions are those of Python.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from pgpooler.config.hba import (
    ALL,
    BACK_REFERENCE,
    REPLICATION,
    SAMEUSER,
    ConnectionKind,
    HbaName,
    HbaRule,
    IdentLine,
    NameKind,
)
from pgpooler.config.matchers import compile_expression

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
DatabaseTest: TypeAlias = Callable[[str, str, bool], bool]
UserTest: TypeAlias = Callable[[str], bool]

ENCRYPTED: Final = {ConnectionKind.HOSTSSL: True, ConnectionKind.HOSTNOSSL: False}
"""What an entry asks of the encryption of a TCP connection; absent: nothing."""


class HbaRules:
    """The entries of one file, ready to be asked."""

    def __init__(self, rules: Iterable[HbaRule]) -> None:
        self._rules = [_CompiledRule(rule) for rule in rules]

    def first(
        self, user: str, database: str, address: Address | None, *, encrypted: bool, replication: bool
    ) -> HbaRule | None:
        """Return the entry that decides; None: there is none.

        `address` is None for a unix socket.  `replication` stands for physical replication: it has no database, and
        only the keyword means it.
        """
        for compiled in self._rules:
            if (
                compiled.takes(address, encrypted)
                and any(test(database, user, replication) for test in compiled.databases)
                and any(test(user) for test in compiled.users)
            ):
                return compiled.rule
        return None


class _CompiledRule:
    """One entry with its tests."""

    __slots__ = ("databases", "encrypted", "local", "mask", "network", "rule", "users", "version")

    def __init__(self, rule: HbaRule) -> None:
        self.rule = rule
        self.local = rule.connection is ConnectionKind.LOCAL
        self.encrypted = ENCRYPTED.get(rule.connection)
        self.version = self.network = self.mask = 0
        if rule.address:
            address = ipaddress.ip_address(rule.address)
            self.version = address.version
            self.mask = int(ipaddress.ip_address(rule.mask))
            self.network = int(address) & self.mask
        self.databases = [_database_test(name) for name in rule.databases]
        self.users = [_user_test(name) for name in rule.users]

    def takes(self, address: Address | None, encrypted: bool) -> bool:
        """Whether the entry is for such a connection."""
        if address is None or self.local:
            return address is None and self.local
        if self.encrypted is not None and self.encrypted is not encrypted:
            return False
        return not self.version or (address.version == self.version and int(address) & self.mask == self.network)


def _database_test(name: HbaName) -> DatabaseTest:
    if name == REPLICATION:
        return lambda database, user, replication: replication
    if name == ALL:
        return lambda database, user, replication: not replication
    if name == SAMEUSER:
        return lambda database, user, replication: not replication and database == user
    test = _user_test(name)
    return lambda database, user, replication: not replication and test(database)


def _user_test(name: HbaName) -> UserTest:
    text = name.text
    if name == ALL:
        return lambda user: True
    if name.kind is NameKind.REGEX:
        search = compile_expression(text).search
        return lambda user: search(user) is not None
    return lambda user: user == text


class IdentMaps:
    """The user name maps of one file, ready to be asked."""

    def __init__(self, lines: Iterable[IdentLine]) -> None:
        self._lines: dict[str, list[Callable[[str, str], bool]]] = {}
        for line in lines:
            self._lines.setdefault(line.map, []).append(_ident_test(line))

    def allows(self, name: str, system_user: str, user: str) -> bool:
        """Whether this name from outside may log in as `user`; without a map (an empty name) if it is the same."""
        if not name:
            return system_user == user
        return any(test(system_user, user) for test in self._lines.get(name, ()))


def _ident_test(line: IdentLine) -> Callable[[str, str], bool]:
    user_test = _user_test(line.user)
    if line.system_user.kind is not NameKind.REGEX:
        system_user = line.system_user.text
        return lambda name, user: name == system_user and user_test(user)
    search = compile_expression(line.system_user.text).search
    if line.user.kind is not NameKind.EXACT or BACK_REFERENCE not in line.user.text:
        return lambda name, user: search(name) is not None and user_test(user)
    before, _, after = line.user.text.partition(BACK_REFERENCE)

    def replaced(name: str, user: str) -> bool:
        found = search(name)
        # A group that took no part stands for nobody, as PostgreSQL has it.
        return found is not None and found[1] is not None and user == before + found[1] + after

    return replaced
