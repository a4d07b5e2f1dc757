"""Who may log in and how, and under which names: the entries of pg_hba.conf and pg_ident.conf as values.

The manual describes them (auth-pg-hba-conf, auth-username-maps); `hba_file` reads them and `hba_rules` asks them.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct


class ConnectionKind(enum.StrEnum):
    """The connections an entry is for; `host` is TCP, encrypted or not."""

    LOCAL = "local"
    HOST = "host"
    HOSTSSL = "hostssl"
    HOSTNOSSL = "hostnossl"


class HbaMethod(enum.StrEnum):
    """How an entry lets clients prove who they are."""

    SCRAM_SHA_256 = "scram-sha-256"
    MD5 = "md5"
    PASSWORD = "password"  # noqa: S105 - the word that asks for one
    CERT = "cert"
    PEER = "peer"
    TRUST = "trust"
    REJECT = "reject"


class CertificateCheck(enum.StrEnum):
    """What an entry asks of a client's certificate besides its method."""

    NOTHING = ""
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class CertificateName(enum.StrEnum):
    """Which name of a certificate counts: the common name, or the whole distinguished name (RFC 2253)."""

    CN = "CN"
    DN = "DN"


class NameKind(enum.StrEnum):
    """What a word in the place of a name means."""

    KEYWORD = "keyword"
    EXACT = "exact"
    REGEX = "regex"


class HbaName(Struct, frozen=True):
    """One database or user: a keyword (`all`, `sameuser`, `replication`), exactly `text`, or found by the regex."""

    kind: NameKind
    text: str


class HbaRule(Struct, frozen=True, kw_only=True):
    """One entry.  An empty `address` is every address; `place` is its file:line:column."""

    connection: ConnectionKind
    databases: tuple[HbaName, ...]
    users: tuple[HbaName, ...]
    address: str = ""
    mask: str = ""
    method: HbaMethod
    map: str = ""
    clientcert: CertificateCheck = CertificateCheck.NOTHING
    clientname: CertificateName = CertificateName.CN
    place: str = ""


class IdentLine(Struct, frozen=True, kw_only=True):
    """One line of a user name map; the first `\\1` in an exact `user` is what `system_user` found in parentheses."""

    map: str
    system_user: HbaName
    user: HbaName


ALL: Final = HbaName(NameKind.KEYWORD, "all")
SAMEUSER: Final = HbaName(NameKind.KEYWORD, "sameuser")
REPLICATION: Final = HbaName(NameKind.KEYWORD, "replication")
DATABASE_KEYWORDS: Final = (ALL, SAMEUSER, REPLICATION)
USER_KEYWORDS: Final = (ALL,)
BACK_REFERENCE: Final = r"\1"


def for_everybody(method: HbaMethod) -> tuple[HbaRule, ...]:
    """Return the entries that let every client use one method."""
    return tuple(
        HbaRule(connection=kind, databases=(ALL, REPLICATION), users=(ALL,), method=method)
        for kind in (ConnectionKind.LOCAL, ConnectionKind.HOST)
    )


# -- as an operator writes them ----------------------------------------------------------------------------------------

_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_.:*-]+")


def rule_text(rule: HbaRule) -> str:
    """Write an entry on one line; reading it again gives the same entry."""
    words = [rule.connection.value, _names(rule.databases, DATABASE_KEYWORDS), _names(rule.users, USER_KEYWORDS)]
    if rule.connection is not ConnectionKind.LOCAL:
        words.append(_address_text(rule.address, rule.mask))
    words.append(rule.method.value)
    for option, value in (("map", rule.map), ("clientcert", rule.clientcert.value)):
        if value:
            words.append(_quoted_unless_plain(f"{option}={value}", plain=re.compile(r"[a-z]+=[A-Za-z0-9_-]+")))
    if rule.clientname is not CertificateName.CN:
        words.append(f"clientname={rule.clientname.value}")
    return " ".join(words)


def ident_text(line: IdentLine) -> str:
    """Write a line of a user name map; reading it again gives the same line."""
    names = (line.system_user,), (line.user,)
    words = [_names(name, keywords) for name, keywords in zip(names, ((), USER_KEYWORDS), strict=True)]
    return " ".join([_quoted_unless_plain(line.map), *words])


def _names(names: Iterable[HbaName], keywords: tuple[HbaName, ...]) -> str:
    return ",".join(_name_text(name, keywords) for name in names)


def _name_text(name: HbaName, keywords: tuple[HbaName, ...]) -> str:
    if name.kind is NameKind.KEYWORD:
        return name.text
    if name.kind is NameKind.REGEX:
        return _quoted_unless_plain("/" + name.text, plain=re.compile(r'/[^\s,"#]*[^\s,"#\\]'))
    if any(name.text == keyword.text for keyword in keywords):
        return f'"{name.text}"'
    return _quoted_unless_plain(name.text)


def _quoted_unless_plain(text: str, *, plain: re.Pattern[str] = _PLAIN_WORD) -> str:
    return text if plain.fullmatch(text) else '"' + text.replace('"', '""') + '"'


def _address_text(address: str, mask: str) -> str:
    if not address:
        return "all"
    bits = ipaddress.ip_address(mask)
    size = bits.max_prefixlen
    prefix = size - (int(bits) ^ ((1 << size) - 1)).bit_length()
    contiguous = int(bits) == ((1 << prefix) - 1) << (size - prefix)
    return f"{address}/{prefix}" if contiguous else f"{address} {mask}"
