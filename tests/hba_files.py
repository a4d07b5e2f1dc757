"""Drawn files in the form of pg_hba.conf and pg_ident.conf: what is right, what is nearly right, and how it is split.

What is said about a line of a drawn file can be put to the first line of its record, by which PostgreSQL counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from pgpooler.config.hba import (
    ALL,
    REPLICATION,
    SAMEUSER,
    CertificateCheck,
    CertificateName,
    ConnectionKind,
    HbaMethod,
    HbaName,
    HbaRule,
    IdentLine,
    NameKind,
)

NAMES = (
    "alice",
    "bob",
    "shop",
    "all",
    "al ice",
    "a,b",
    'a"b',
    "#c",
    "replication",
    "sameuser",
    "Alice",
    "пользователь",
)
"""Names of users and databases as they are, keywords among them."""
EXPRESSIONS = ("^al", "b$", "a.c", "[ab]+$", "(x|y)", "^shop$", "o", "^a,b$", '"')
"""Regular expressions that mean the same to Python and to PostgreSQL."""


@dataclass(frozen=True)
class DrawnFile:
    """The records of a file."""

    records: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(record + "\n" for record in self.records)

    def record_of(self, line: int) -> int:
        """The first line of the record that has this line: those before it end in a backslash."""
        lines = self.text.split("\n")
        while line > 1 and lines[line - 2].rstrip("\r").endswith("\\"):
            line -= 1
        return line


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


# -- files of any kind -------------------------------------------------------------------------------------------------

right_names = st.one_of(
    st.sampled_from(["all", "alice", "bob", "shop", "sameuser", "replication", "/^al", "/b$", "/(x|y)"]),
    st.sampled_from(NAMES).map(quoted),
    st.sampled_from(EXPRESSIONS).map(lambda text: quoted("/" + text)),
    st.sampled_from(['al"ic"e', '"al"ice', '""', 'a"', '"all"', '"@names"', '"+alice"', "@"]),
)
wrong_names = st.sampled_from(["/[", "+alice", "samerole", "samegroup", "@names", '"open', "a#b", "x\\", "+"])


def lists(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Names separated by commas."""
    commas = st.sampled_from([",", ", ", ",,", ",\t", " ,"])
    return st.tuples(st.lists(of, min_size=1, max_size=3), commas).map(lambda drawn: drawn[1].join(drawn[0]))


written_connections = st.sampled_from(["local", "host", "hostssl", "hostnossl"]) | st.sampled_from(
    ["host", "hostssl", "hostgssenc", "hostnogssenc", '"host"', "hots", "host,local", "Host", "include"]
)
right_addresses = st.sampled_from(
    [
        "all",
        "127.0.0.1/32",
        "127.0.0.0/8",
        "10.1.2.3 255.0.0.0",
        "10.1.2.3   255.0.255.0",
        "0.0.0.0/0",
        "::1/128",
        "::/0",
        "fe80::1 ffff::",
        '"127.0.0.1/32"',
        "10.0.0.0/08",
    ]
)
wrong_addresses = st.sampled_from(
    [
        '"all"',
        "127.0.0.1/33",
        "127.0.0.1/-1",
        "127.0.0.1/",
        "127.0.0.1",
        "127.0.0.1 ::1",
        "::1 255.0.0.0",
        "::1/129",
        "256.1.1.1/8",
        "example.com",
        ".example.com",
        "example.com/8",
        "samehost",
        "samenet",
        "127.0.0.1/8,10.0.0.0/8",
        "1.2.3.4 mask",
    ]
)
right_methods = st.sampled_from(["trust", "reject", "scram-sha-256", "md5", "password", '"trust"'])
wrong_methods = st.sampled_from(["peer", "cert", "ident", "ldap", "tust", "md5,trust"])
written_options = st.sampled_from(
    [
        "map=m",
        '"map=m n"',
        "map=",
        "clientcert=verify-ca",
        "clientcert=verify-full",
        "clientcert=1",
        "clientname=CN",
        "clientname=DN",
        "clientname=XX",
        "map=m,clientcert=verify-ca",
        "nonsense",
        "nonsense=1",
        "=",
    ]
)
right_endings = st.one_of(
    st.tuples(
        st.just("hostssl"), st.just("cert"), st.sampled_from(["", "map=m", "clientcert=verify-full", '"map=m n"'])
    ),
    st.tuples(
        st.just("hostssl"), right_methods, st.sampled_from(["", "clientcert=verify-ca", "clientcert=verify-full"])
    ),
    st.tuples(st.just("local"), st.just("peer"), st.sampled_from(["", "map=m", "map="])),
    st.tuples(st.sampled_from(["local", "host", "hostnossl"]), right_methods, st.just("")),
)
"""Connection, method and options that go together."""
blanks = st.sampled_from([" ", "\t", "   ", " \t ", "\\\n", " \\\n ", " \r "])
noise = st.sampled_from(["", "   ", "# a comment", " # all, \\\n of this", "\\\n", "\r", "\t\\", ","])


@st.composite
def right_records(draw: st.DrawFn) -> str:
    """A record that can be read, unless ` ,` makes two fields of a list."""
    connection, method, option = draw(right_endings)
    address = [] if connection == "local" else [draw(right_addresses)]
    return draw(joined([connection, draw(lists(right_names)), draw(lists(right_names)), *address, method, option]))


@st.composite
def wrong_records(draw: st.DrawFn) -> str:
    """A record that probably cannot be read."""
    names = lists(right_names | wrong_names)
    fields = [draw(written_connections), draw(names), draw(names), draw(right_addresses | wrong_addresses)]
    fields += [draw(right_methods | wrong_methods), *draw(st.lists(written_options, max_size=2))]
    return draw(joined(fields[: draw(st.integers(0, len(fields)))]))


@st.composite
def joined(draw: st.DrawFn, fields: list[str]) -> str:
    """The fields with blanks between them and something before and behind."""
    text = draw(blanks).join(field for field in fields if field)
    return draw(st.sampled_from(["", " ", "\\\n"])) + text + draw(st.sampled_from(["", " # why", "\r"]))


hba_files = st.lists(right_records() | wrong_records() | noise, max_size=8).map(
    lambda records: DrawnFile(tuple(records))
)


# -- entries as values -------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
names = (st.sampled_from(NAMES) | texts.filter(lambda text: not text.startswith("/"))).map(
    lambda text: HbaName(NameKind.EXACT, text)
)
expressions = st.sampled_from(EXPRESSIONS).map(lambda text: HbaName(NameKind.REGEX, text))
databases = st.lists(names | expressions | st.sampled_from([ALL, SAMEUSER, REPLICATION]), min_size=1, max_size=3)
users = st.lists(names | expressions | st.just(ALL), min_size=1, max_size=3)
map_names = st.sampled_from(["", "m", "m n", 'm"', "m#,"])


@st.composite
def addresses(draw: st.DrawFn) -> tuple[str, str]:
    """Any address with any mask, or neither."""
    version = draw(st.sampled_from([0, 4, 6]))
    if not version:
        return "", ""
    ips = st.ip_addresses(v=version)
    size = 32 if version == 4 else 128
    made = type(draw(ips))
    contiguous = st.integers(0, size).map(lambda bits: made(((1 << bits) - 1) << (size - bits)))
    return str(draw(ips)), str(draw(ips | contiguous))


@st.composite
def rules(draw: st.DrawFn) -> HbaRule:
    """Any entry that can be written."""
    connection = draw(st.sampled_from(ConnectionKind))
    local, tls = connection is ConnectionKind.LOCAL, connection is ConnectionKind.HOSTSSL
    possible = [method for method in HbaMethod if local or method is not HbaMethod.PEER]
    method = draw(st.sampled_from([method for method in possible if tls or method is not HbaMethod.CERT]))
    checks = [check for check in CertificateCheck if check != "verify-ca" or method is not HbaMethod.CERT]
    address, mask = ("", "") if local else draw(addresses())
    return HbaRule(
        connection=connection,
        databases=tuple(draw(databases)),
        users=tuple(draw(users)),
        address=address,
        mask=mask,
        method=method,
        map=draw(map_names) if method in (HbaMethod.PEER, HbaMethod.CERT) else "",
        clientcert=draw(st.sampled_from(checks)) if tls else CertificateCheck.NOTHING,
        clientname=draw(st.sampled_from(CertificateName)) if tls else CertificateName.CN,
    )


ident_lines = st.builds(
    IdentLine,
    map=texts.filter(lambda text: not text.startswith(("include", "@"))),
    system_user=names | expressions,
    user=names.filter(lambda name: "\\1" not in name.text) | expressions | st.just(ALL),
)
