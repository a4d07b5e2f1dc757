"""Files in the form of pg_hba.conf and pg_ident.conf: what comes of a line, and what is wrong with it, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
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
    ident_text,
    rule_text,
)
from pgpooler.config.hba_file import read_hba, read_ident
from pgpooler.config.source import Sources
from tests import hba_files
from tests.unit.config.conftest import MARK, marks


def name(text: str) -> HbaName:
    return HbaName(NameKind.EXACT, text)


def expression(text: str) -> HbaName:
    return HbaName(NameKind.REGEX, text)


def hba(text: str, maps: set[str] | None = None) -> tuple[HbaRule, ...]:
    """The entries of a file in which nothing is wrong."""
    sources = Sources("pgpooler.yaml", {})
    rules = read_hba(text, "hba", sources, maps)
    assert sources.errors == []
    return rules


def placeless(rule: HbaRule) -> dict[str, object]:
    return {field: getattr(rule, field) for field in rule.__struct_fields__ if field != "place"}


def problems(text: str, read=read_hba) -> list[str]:
    """What is wrong with a file, at the places that carry a mark and nowhere else."""
    sources = Sources("pgpooler.yaml", {})
    read(text.replace(MARK, ""), "hba", sources)
    found = sources.in_file_order(sources.errors)
    assert {(problem.line, problem.column) for problem in found} == set(marks(text)), found
    return [problem.message for problem in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "local all all trust",
            HbaRule(connection=ConnectionKind.LOCAL, databases=(ALL,), users=(ALL,), method=HbaMethod.TRUST),
        ),
        (
            'host shop,"all",/^db alice, "bob" 10.0.0.0/8 scram-sha-256',
            HbaRule(
                connection=ConnectionKind.HOST,
                databases=(name("shop"), name("all"), expression("^db")),
                users=(name("alice"), name("bob")),
                address="10.0.0.0",
                mask="255.0.0.0",
                method=HbaMethod.SCRAM_SHA_256,
            ),
        ),
        (
            'hostssl sameuser,replication all all cert "map=of ours" clientname=DN',
            HbaRule(
                connection=ConnectionKind.HOSTSSL,
                databases=(SAMEUSER, REPLICATION),
                users=(ALL,),
                method=HbaMethod.CERT,
                map="of ours",
                clientname=CertificateName.DN,
            ),
        ),
        (
            "hostssl all sameuser fe80::/10 md5 clientcert=verify-ca",
            HbaRule(
                connection=ConnectionKind.HOSTSSL,
                databases=(ALL,),
                users=(name("sameuser"),),
                address="fe80::",
                mask="ffc0::",
                method=HbaMethod.MD5,
                clientcert=CertificateCheck.VERIFY_CA,
            ),
        ),
        (
            "hostnossl all all 10.0.0.1 255.0.0.255 reject",
            HbaRule(
                connection=ConnectionKind.HOSTNOSSL,
                databases=(ALL,),
                users=(ALL,),
                address="10.0.0.1",
                mask="255.0.0.255",
                method=HbaMethod.REJECT,
            ),
        ),
    ],
)
def test_a_line_becomes_an_entry(line: str, expected: HbaRule) -> None:
    (rule,) = hba(line)
    assert placeless(rule) == placeless(expected)
    assert rule.place == "hba:1:1"


@given(st.lists(hba_files.rules(), max_size=5))
def test_an_entry_that_is_written_and_read_again_is_the_same(rules: list[HbaRule]) -> None:
    read = hba("\n".join(rule_text(rule) for rule in rules))
    assert [placeless(rule) for rule in read] == [placeless(rule) for rule in rules]


@given(st.lists(hba_files.ident_lines, max_size=5))
def test_a_line_of_a_map_that_is_written_and_read_again_is_the_same(lines: list[IdentLine]) -> None:
    sources = Sources("pgpooler.yaml", {})
    assert read_ident("\n".join(ident_text(line) for line in lines), "ident", sources) == tuple(lines)
    assert sources.errors == []


def test_comments_blank_lines_and_continued_lines_are_read_as_in_postgresql() -> None:
    text = "# a comment \\\nof two lines\n\n  host all, \\\nshop all#alice\\\n 10.0.0.0/8 trust\nlocal all all \\\n\n"
    sources = Sources("pgpooler.yaml", {})
    rules = read_hba(text, "hba", sources)
    assert rules == ()
    form = "expected TYPE DATABASE USER ADDRESS METHOD, without ADDRESS for local"
    assert [str(problem) for problem in sources.errors] == [
        f"hba:6:18: the line ends before the address; {form}",
        f"hba:8:1: the line ends before the method; {form}",
    ]
    (rule,) = hba('\t host\tall,\\\n shop "al\\\nice" \\\r\n10.0.0.0/8 trust # and why\r\n')
    assert (rule.databases, rule.users, rule.place) == ((ALL, name("shop")), (name("alice"),), "hba:1:3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("▸hots all all all trust", "did you mean 'host'"),
        ("host,▸local all all all trust", "expected one connection type, found a list"),
        ("▸hostgssenc all all all trust", "write 'host' instead of 'hostgssenc'"),
        ("host▸", "ends before the database"),
        ("host all▸", "ends before the user"),
        ("host all all▸", "ends before the address"),
        ("local all all▸", "ends before the method"),
        ("host all all 10.0.0.0▸", "netmask of the address (or write the address as ADDRESS/BITS)"),
        ("host all all ▸example.com trust", "host names are not looked up"),
        ("host all all ▸samenet trust", "the addresses of this machine may change"),
        ("host all all ▸10.0.0.0/33 trust", "expected 0 to 32 bits"),
        ("host all all ▸::/129 trust", "expected 0 to 128 bits"),
        ("host all all ▸fe80::1%eth0/64 trust", "write the address without its zone: fe80::1"),
        ("host all all 10.0.0.0 ▸ffff:: trust", "does not go with the IPv4 address"),
        ("host all all 10.0.0.0 ▸trust", "'trust' is not an IP address; write the address as ADDRESS/BITS"),
        ("host ▸samerole all all trust", "does not know who is a member"),
        ("host all ▸+staff all trust", "does not know who is a member"),
        ("host ▸@databases all all trust", "names are not read from a file"),
        ("host all ▸/( all trust", "bad regular expression '('"),
        ("host all ▸/ all trust", "the regular expression is empty"),
        ("host all all all ▸scram-sha", "did you mean 'scram-sha-256'"),
        ("host all all all ▸plain", "it is called password in this file"),
        ("host all all all ▸ldap", "PgPooler asks no other service"),
        ("local all all ▸ident", "write peer for a local entry"),
        ("host all all all ▸peer", "only for local entries"),
        ("host all all all ▸cert", "only for hostssl entries"),
        ("host all all all trust ▸nonsense", "expected an option as name=value"),
        ("host all all all trust ▸mapp=x", "did you mean 'map'"),
        ("host all all all trust ▸map=x", "only for the methods peer and cert"),
        ("host all all all trust ▸clientcert=verify-ca", "only for hostssl entries"),
        ("hostssl all all all md5 ▸clientcert=1", "expected one of verify-ca, verify-full"),
        ("hostssl all all all md5 ▸clientcert=", "expected one of verify-ca, verify-full"),
        ("hostssl all all all cert ▸clientcert=verify-ca", "always means verify-full"),
        ("▸include other.conf", "write the lines of that file into this one"),
        ("▸host all \0 all trust", "a character that no text can hold"),
    ],
)
def test_a_line_that_cannot_be_read_is_reported_at_its_word_and_the_others_are_read(line: str, message: str) -> None:
    text = f"local all all peer\n{line}\nhost all all all md5\n"
    assert message in problems(text)[0]
    sources = Sources("pgpooler.yaml", {})
    assert [rule.method for rule in read_hba(text.replace(MARK, ""), "hba", sources)] == ["peer", "md5"]


def test_a_map_must_be_there() -> None:
    sources = Sources("pgpooler.yaml", {})
    assert read_hba("local all all peer map=staf", "hba", sources, {"staff"}) == ()
    assert [str(problem) for problem in sources.errors] == [
        "hba:1:20: there is no map 'staf' in the 'ident_file'; did you mean 'staff'?"
    ]
    assert hba("local all all peer map=staff", {"staff"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m alice▸", "ends before the database user name"),
        ("m alice,▸bob carol", "expected one system user name"),
        ("m alice bob ▸carol", "expected the end of the line"),
        ("m alice ▸+staff", "does not know who is a member"),
        ("m ▸/( bob", "bad regular expression"),
        (r"m /^a ▸\1", "there are no parentheses in /^a"),
    ],
)
def test_a_line_of_a_map_that_cannot_be_read_is_reported_at_its_word(line: str, message: str) -> None:
    assert message in problems(line, read_ident)[0]


@given(
    st.text() | st.text(st.sampled_from('ahost l,"\\\n\r\t#@/+127.0:trusmd5=')), st.sampled_from([read_hba, read_ident])
)
def test_any_text_gives_lines_or_problems_with_their_places(text: str, read) -> None:
    sources = Sources("pgpooler.yaml", {})
    read(text, "hba", sources)
    lines = text.split("\n")
    for problem in sources.errors:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


@given(hba_files.hba_files)
def test_what_was_read_from_a_file_is_what_it_is_written_as(file: hba_files.DrawnFile) -> None:
    rules = read_hba(file.text, "hba", Sources("pgpooler.yaml", {}))
    assert [placeless(rule) for rule in hba("\n".join(map(rule_text, rules)))] == [placeless(rule) for rule in rules]
