"""The entry of an HBA file that fits a client decides how it logs in, and what it may be told when it may not."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.hba import HbaMethod, HbaRule, for_everybody
from pgpooler.config.hba_file import read_hba, read_ident
from pgpooler.config.model import Auth, User
from pgpooler.config.source import Sources
from pgpooler.errors import AuthenticationFailed
from pgpooler.pooling.access import Access, LoginRequest
from pgpooler.pooling.port import ClientCertificate, Encryption
from pgpooler.protocol import codes
from pgpooler.protocol.passwords import make_verifier, md5_digest
from tests import hba_files
from tests.unit.pooling.test_access import log_in

HERE = IPv4Address("10.0.0.1")
PLAIN_TLS = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384")
IDENT = r"""
certs  /^(.*)@shop$  \1
certs  /CN=boss      all
staff  root          alice
"""


def access(hba: str, users: dict[str, str] | None = None) -> Access:
    sources = Sources("pgpooler.yaml", {})
    listed = {"alice": "secret", "bob": "secret"} if users is None else users
    auth = Auth(
        hba_file="hba",
        hba=read_hba(hba, "hba", sources),
        ident=read_ident(IDENT, "ident", sources),
        users={name: User(name=name, password=password) for name, password in listed.items()},
    )
    assert sources.errors == []
    return Access(auth, mock_secret=b"mock")


def showing(common_name: str, subject: str = "") -> Encryption:
    """TLS with a certificate."""
    certificate = ClientCertificate(subject=subject or f"CN={common_name},O=Shop", common_name=common_name)
    return Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384", b"", certificate)


def request(
    user: str = "alice",
    *,
    address: IPv4Address | None = HERE,
    encryption: Encryption | None = None,
    replication: bool = False,
    system_user: str = "",
) -> LoginRequest:
    return LoginRequest(user, "shop", "", address, encryption, replication, system_user)


def asked(users: Access, asking: LoginRequest) -> int:
    """The kind of the first authentication message."""
    return users.begin(asking).request[0]


def refusal(users: Access, asking: LoginRequest) -> str:
    with pytest.raises(AuthenticationFailed) as raised:
        users.begin(asking)
    assert raised.value.sqlstate == "28000"
    assert (raised.value.detail, raised.value.hint) == (None, None)
    return raised.value.message


def test_every_entry_has_a_method_of_its_own() -> None:
    users = access(
        """
        host all alice 10.0.0.1/32 scram-sha-256
        host all bob 10.0.0.1/32 md5
        host all all 10.0.0.1/32 password
        host all all 10.0.0.0/8 trust
        local all all reject
        """
    )
    assert asked(users, request("alice")) == codes.AUTHENTICATION_SASL
    assert asked(users, request("bob")) == codes.AUTHENTICATION_MD5_PASSWORD
    assert asked(users, request("carol")) == codes.AUTHENTICATION_CLEARTEXT_PASSWORD
    assert asked(users, request(address=IPv4Address("10.0.0.2"))) == codes.AUTHENTICATION_OK
    for user in ("alice", "bob"):
        log_in(users.begin(request(user)), b"secret")


def test_who_is_refused_by_the_file_is_told_what_it_is_itself() -> None:
    users = access("host all all 10.0.0.0/8 reject\nlocal replication all reject\n")
    assert refusal(users, request()) == (
        'hba_file rejects connection for host "10.0.0.1", user "alice", database "shop", no encryption'
    )
    assert refusal(users, request(address=IPv4Address("11.0.0.1"), encryption=PLAIN_TLS)) == (
        'no hba_file entry for host "11.0.0.1", user "alice", database "shop", SSL encryption'
    )
    assert refusal(users, request(address=None)) == (
        'no hba_file entry for host "[local]", user "alice", database "shop", no encryption'
    )
    assert refusal(users, request(address=None, replication=True)) == (
        'hba_file rejects replication connection for host "[local]", user "alice", no encryption'
    )
    assert refusal(users, request(replication=True)) == (
        'no hba_file entry for replication connection from host "10.0.0.1", user "alice", no encryption'
    )


CERT_FAILED = 'certificate authentication failed for user "alice"'


@pytest.mark.parametrize(
    ("options", "encryption", "expected"),
    [
        ("", showing("alice"), None),
        ("", showing("Alice"), CERT_FAILED),
        ("", showing("bob"), CERT_FAILED),
        ("", showing("", "O=Shop"), CERT_FAILED),
        ("", PLAIN_TLS, "connection requires a valid client certificate"),
        ("map=certs", showing("alice@shop"), None),
        ("map=certs", showing("alice"), CERT_FAILED),
        ("map=certs", showing("bob@shop"), CERT_FAILED),
        ("clientname=DN", showing("alice"), CERT_FAILED),
        ("clientname=DN", showing("x", "alice"), None),
        ("clientname=DN map=certs", showing("boss"), None),
        ("clientname=CN map=certs", showing("boss"), CERT_FAILED),
    ],
)
def test_the_name_of_a_certificate_must_be_the_user_or_lead_to_it(
    options: str, encryption: Encryption, expected: str | None
) -> None:
    users = access(f"hostssl all all all cert {options}")
    if expected is None:
        assert asked(users, request(encryption=encryption)) == codes.AUTHENTICATION_OK
    else:
        assert refusal(users, request(encryption=encryption)) == expected
    assert refusal(users, request(encryption=None)).startswith("no hba_file entry")


def test_a_certificate_besides_the_password() -> None:
    users = access(
        "hostssl all bob all scram-sha-256 clientcert=verify-ca\nhostssl all all all md5 clientcert=verify-full"
    )
    for user in ("alice", "bob"):
        needed = "connection requires a valid client certificate"
        assert refusal(users, request(user, encryption=PLAIN_TLS)) == needed
    assert asked(users, request("bob", encryption=showing("alice"))) == codes.AUTHENTICATION_SASL
    assert asked(users, request("alice", encryption=showing("alice"))) == codes.AUTHENTICATION_MD5_PASSWORD
    assert refusal(users, request("alice", encryption=showing("bob"))) == CERT_FAILED


def test_method_cert_without_a_file_asks_everybody_for_a_certificate() -> None:
    users = Access(Auth(method="cert", users={"alice": User(name="alice")}))  # type: ignore[arg-type]
    assert asked(users, request(encryption=showing("alice"))) == codes.AUTHENTICATION_OK
    for asking in (request(), request(address=None), request(encryption=PLAIN_TLS)):
        assert refusal(users, asking) == "connection requires a valid client certificate"


def test_the_user_of_the_system_must_be_the_user_or_lead_to_it() -> None:
    users = access("local all bob peer\nlocal all all peer map=staff")
    failed = 'Peer authentication failed for user "{}"'.format
    assert asked(users, request("bob", address=None, system_user="bob")) == codes.AUTHENTICATION_OK
    assert asked(users, request("alice", address=None, system_user="root")) == codes.AUTHENTICATION_OK
    assert refusal(users, request("bob", address=None, system_user="root")) == failed("bob")
    assert refusal(users, request("alice", address=None, system_user="alice")) == failed("alice")
    assert refusal(users, request("alice", address=None)) == failed("alice")


def test_who_is_not_listed_is_refused_like_who_is_not_who_it_says() -> None:
    users = access("hostssl all all all cert\nlocal all all peer\nhost all all all trust")
    by_certificate = [refusal(users, request("carol", encryption=showing(name))) for name in ("carol", "alice")]
    by_system = [refusal(users, request("carol", address=None, system_user=name)) for name in ("carol", "alice")]
    assert by_certificate[0] == by_certificate[1]
    assert by_system[0] == by_system[1]
    assert refusal(users, request("carol")) == 'role "carol" does not exist'
    everybody = access("hostssl all all all cert\nlocal all all peer\nhost all all all trust", users={})
    for asking in (
        request("carol"),
        request("carol", encryption=showing("carol")),
        request("carol", address=None, system_user="carol"),
    ):
        assert asked(everybody, asking) == codes.AUTHENTICATION_OK


SECRETS = {
    "cleartext": "secret",
    "digest": "md5" + md5_digest(b"secret", "alice").digest,
    "verifier": make_verifier(b"secret", iterations=2).text(),
}


def heard(users: Access, asking: LoginRequest, password: bytes) -> list[object]:
    """The kind and length of everything that a client who fails gets to see, in order."""
    seen: list[object] = []
    try:
        exchange = users.begin(asking)
        if exchange.request[0] == codes.AUTHENTICATION_OK:
            return ["let in"]
        log_in(exchange, password, seen)
    except AuthenticationFailed as error:
        return [*seen, error.sqlstate, error.severity, error.message, error.detail, error.hint]
    return [*seen, "let in"]


@given(
    st.lists(hba_files.rules().filter(lambda rule: rule.method is not HbaMethod.TRUST), max_size=3),
    st.sampled_from([method for method in HbaMethod if method is not HbaMethod.TRUST]),
    st.sampled_from(sorted(SECRETS)),
    st.sampled_from(["alice", "bob", "shop"]),
    st.sampled_from([None, HERE]),
    st.sampled_from([None, PLAIN_TLS, showing("bob"), showing("stranger")]),
    st.sampled_from([b"wrong", b"Secret", b"secret "]),
)
def test_whether_a_name_is_listed_shows_nowhere_but_with_the_right_proof(
    rules: list[HbaRule],
    method: HbaMethod,
    kind: str,
    user: str,
    address: IPv4Address | None,
    encryption: Encryption | None,
    password: bytes,
) -> None:
    """Under whatever entry decides a wrong password and an unknown user look the same."""

    def listing(*names: str) -> Access:
        users = {name: User(name=name, password=SECRETS[kind]) for name in names}
        hba = (*rules, *for_everybody(method))
        return Access(Auth(hba_file="hba", hba=hba, users=users), mock_secret=b"mock")

    asking = request(user, address=address, encryption=None if address is None else encryption)
    answers = [heard(listing(*names), asking, password) for names in (("somebody", user), ("somebody", "else"))]
    proved = asking.encryption is not None and asking.encryption.certificate is not None
    if answers[0] != ["let in"]:
        assert answers[0] == answers[1]
    else:
        assert proved, "only a certificate opens without a password"
        assert asking.encryption is not None
        assert asking.encryption.certificate is not None
        assert user in asking.encryption.certificate.subject
