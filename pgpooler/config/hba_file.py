"""Reads files in the form of PostgreSQL's pg_hba.conf and pg_ident.conf (auth-pg-hba-conf, auth-username-maps).

What PostgreSQL refuses is refused; so is, by name, what PgPooler cannot do: groups, whose members only the server
knows, host names, the addresses of this machine, files within files, GSSAPI, and methods that ask another service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeVar

from pgpooler.config.hba import (
    ALL,
    BACK_REFERENCE,
    DATABASE_KEYWORDS,
    USER_KEYWORDS,
    CertificateCheck,
    CertificateName,
    ConnectionKind,
    HbaMethod,
    HbaName,
    HbaRule,
    IdentLine,
    NameKind,
)
from pgpooler.config.hba_words import Field, Record, Word, read_records
from pgpooler.config.matchers import compile_expression
from pgpooler.config.source import Place, Sources
from pgpooler.config.values import Choice, did_you_mean, read_choice

T = TypeVar("T")

FIELDS: Final = "TYPE DATABASE USER ADDRESS METHOD, without ADDRESS for local"
GROUPS: Final = ("samerole", "samegroup")
NO_GROUPS: Final = "PgPooler does not know who is a member of which role; list the users or write a /regex"
NO_NAMES: Final = "host names are not looked up; write the address"
UNSUPPORTED_CONNECTIONS: Final = ("hostgssenc", "hostnogssenc")
UNSUPPORTED_METHODS: Final = {
    "ident": "write peer for a local entry; elsewhere anybody could claim to be anybody",
    "plain": "it is called password in this file",
    **dict.fromkeys(("gss", "sspi", "pam", "bsd", "ldap", "radius", "oauth"), "PgPooler asks no other service"),
}
METHODS_WITH_MAP: Final = (HbaMethod.PEER, HbaMethod.CERT)


class _Wrong(Exception):
    """A line that cannot be read: where, and why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message


def read_hba(text: str, file: str, sources: Sources, maps: Collection[str] | None = None) -> tuple[HbaRule, ...]:
    """Read the entries of a pg_hba.conf; every line that cannot be read is reported.

    `maps` are the user name maps that there are, None if that is not known.
    """
    return tuple(_each(read_records(text, file, sources), lambda record: _hba_rule(record, maps), sources))


def read_ident(text: str, file: str, sources: Sources) -> tuple[IdentLine, ...]:
    """Read the lines of a pg_ident.conf; every line that cannot be read is reported."""
    return tuple(_each(read_records(text, file, sources), _ident_line, sources))


def _each(records: Iterator[Record], read: Callable[[Record], T], sources: Sources) -> Iterator[T]:
    for record in records:
        try:
            yield read(record)
        except _Wrong as wrong:
            sources.error(wrong.place, wrong.message)


class _Fields:
    """The fields of one record, taken one after the other."""

    def __init__(self, record: Record, form: str) -> None:
        self._fields = iter(record.fields)
        self._end = record.end
        self._form = form

    def several(self, what: str) -> Field:
        """Take a field that may be a list."""
        field = next(self._fields, None)
        if field is None:
            raise _Wrong(self._end, f"the line ends before the {what}; expected {self._form}")
        return field

    def one(self, what: str) -> Word:
        """Take a field of one word."""
        word, *more = self.several(what)
        if more:
            raise _Wrong(more[0].place, f"expected one {what}, found a list")
        return word

    def rest(self) -> Iterator[Word]:
        """Take all the words that are left."""
        for field in self._fields:
            yield from field


# -- pg_hba.conf -------------------------------------------------------------------------------------------------------


def _hba_rule(record: Record, maps: Collection[str] | None) -> HbaRule:
    fields = _Fields(record, FIELDS)
    first = fields.one("connection type")
    connection = _connection(first)
    databases = tuple(_name(word, DATABASE_KEYWORDS) for word in fields.several("database"))
    users = tuple(_name(word, USER_KEYWORDS) for word in fields.several("user"))
    address, mask = ("", "") if connection is ConnectionKind.LOCAL else _address(fields)
    word = fields.one("method")
    method = _method(word)
    if method is HbaMethod.PEER and connection is not ConnectionKind.LOCAL:
        raise _Wrong(word.place, "'peer' is only for local entries: only a unix socket tells who is at its other end")
    if method is HbaMethod.CERT and connection is not ConnectionKind.HOSTSSL:
        raise _Wrong(word.place, "'cert' is only for hostssl entries: only TLS shows a certificate")
    options = _options(fields.rest(), connection, method, maps)
    return HbaRule(
        connection=connection,
        databases=databases,
        users=users,
        address=address,
        mask=mask,
        method=method,
        map=options.get("map", ""),
        clientcert=CertificateCheck(options.get("clientcert", "")),
        clientname=CertificateName(options.get("clientname", "CN")),
        place=str(first.place),
    )


def _connection(word: Word) -> ConnectionKind:
    if word.text in UNSUPPORTED_CONNECTIONS:
        raise _Wrong(word.place, f"PgPooler does not do GSSAPI encryption; write 'host' instead of {word.text!r}")
    return _choice(word, "connection type", ConnectionKind)


def _choice(word: Word, what: str, choices: type[Choice]) -> Choice:
    try:
        return read_choice(word.text, choices)
    except ValueError as error:
        raise _Wrong(word.place, f"bad {what}: {error}") from None


def _name(word: Word, keywords: tuple[HbaName, ...]) -> HbaName:
    """Read one database or user."""
    text = word.text
    if text.startswith("/"):
        try:
            compile_expression(text[1:])
        except ValueError as error:
            raise _Wrong(word.place, str(error)) from None
        return HbaName(NameKind.REGEX, text[1:])
    if not word.quoted:
        for keyword in keywords:
            if keyword.text == text:
                return keyword
        if keywords == DATABASE_KEYWORDS and text in GROUPS:
            raise _Wrong(word.place, f"{text!r} is not supported: {NO_GROUPS}")
        if keywords == USER_KEYWORDS and text.startswith("+"):
            raise _Wrong(word.place, f"{text!r} is not supported: {NO_GROUPS}")
    return HbaName(NameKind.EXACT, text)


def _address(fields: _Fields) -> tuple[str, str]:
    """Read `all`, an address with /bits, or an address and a mask in two fields; ("", "") is every address."""
    word = fields.one("address")
    if word.text == ALL.text and not word.quoted:
        return "", ""
    if word.text in ("samehost", "samenet") and not word.quoted:
        message = f"{word.text!r} is not supported: the addresses of this machine may change unseen; write them"
        raise _Wrong(word.place, message)
    written, slash, bits = word.text.partition("/")
    address = _ip_address(word, written, NO_NAMES)
    if not slash:
        mask_word = fields.one("netmask of the address (or write the address as ADDRESS/BITS)")
        mask = _ip_address(mask_word, mask_word.text, "write the address as ADDRESS/BITS, or a netmask behind it")
        if mask.version != address.version:
            raise _Wrong(mask_word.place, f"the netmask {mask} does not go with the IPv{address.version} address")
        return str(address), str(mask)
    size = address.max_prefixlen
    if not (bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= size):
        raise _Wrong(word.place, f"expected 0 to {size} bits behind the slash, found {bits!r}")
    mask_number = ((1 << int(bits)) - 1) << (size - int(bits))
    return str(address), str(type(address)(mask_number))


def _ip_address(word: Word, text: str, advice: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _Wrong(word.place, f"{text!r} is not an IP address; {advice}") from None
    if "%" in text:
        raise _Wrong(word.place, f"write the address without its zone: {text.partition('%')[0]}")
    return address


def _method(word: Word) -> HbaMethod:
    if word.text in UNSUPPORTED_METHODS:
        raise _Wrong(word.place, f"the method {word.text!r} is not supported: {UNSUPPORTED_METHODS[word.text]}")
    return _choice(word, "method", HbaMethod)


OPTIONS: Final[dict[str, type[CertificateCheck] | type[CertificateName] | None]] = {
    "map": None,
    "clientcert": CertificateCheck,
    "clientname": CertificateName,
}
"""The options of an entry, and the values they may have."""


def _options(
    words: Iterator[Word], connection: ConnectionKind, method: HbaMethod, maps: Collection[str] | None
) -> dict[str, str]:
    """Read what stands behind the method; of an option that is there twice the last counts, as in PostgreSQL."""
    options: dict[str, str] = {}
    for word in words:
        name, separator, value = word.text.partition("=")
        if not separator:
            raise _Wrong(word.place, f"expected an option as name=value, found {word.text!r}")
        if name not in OPTIONS:
            raise _Wrong(word.place, f"unknown option {name!r}{did_you_mean(name, OPTIONS)}; there is {_known()}")
        choices = OPTIONS[name]
        if choices is None:
            if method not in METHODS_WITH_MAP:
                raise _Wrong(word.place, "'map' is only for the methods peer and cert")
            if maps is not None and value and value not in maps:
                message = f"there is no map {value!r} in the 'ident_file'{did_you_mean(value, maps)}"
                raise _Wrong(word.place, message)
        elif connection is not ConnectionKind.HOSTSSL:
            raise _Wrong(word.place, f"{name!r} is only for hostssl entries")
        elif not value or value not in list(choices):
            known = ", ".join(choice for choice in choices if choice)
            raise _Wrong(word.place, f"expected one of {known} for {name!r}, found {value!r}")
        elif value == CertificateCheck.VERIFY_CA and method is HbaMethod.CERT:
            raise _Wrong(word.place, "the method cert always means verify-full")
        options[name] = value
    return options


def _known() -> str:
    return ", ".join(OPTIONS)


# -- pg_ident.conf -----------------------------------------------------------------------------------------------------


def _ident_line(record: Record) -> IdentLine:
    fields = _Fields(record, "MAPNAME SYSTEM-USERNAME DATABASE-USERNAME")
    name = fields.one("map name")
    system_user = _name(fields.one("system user name"), ())
    word = fields.one("database user name")
    user = _name(word, USER_KEYWORDS)
    for more in fields.rest():
        raise _Wrong(more.place, f"expected the end of the line, found {more.text!r}")
    refers_back = user.kind is NameKind.EXACT and BACK_REFERENCE in user.text
    if refers_back and system_user.kind is NameKind.REGEX and not compile_expression(system_user.text).groups:
        raise _Wrong(word.place, f"there are no parentheses in /{system_user.text} for {BACK_REFERENCE} to mean")
    return IdentLine(map=name.text, system_user=system_user, user=user)
