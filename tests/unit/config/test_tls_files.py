"""The sections `tls`: what is wrong with them or with the files they name is said at its place, with the file."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from pgpooler.config.choices import TlsMode, TlsVersion
from pgpooler.config.model import BackendTls, ClientTls
from pgpooler.config.tls_files import Contexts, backend_context, client_context
from pgpooler.errors import ConfigurationError
from pgpooler.protocol.certificates import end_point_binding
from tests.certificates import Authority, Certificate
from tests.unit.config.conftest import Folder

REST = "backends: [{name: primary, host: pg1}]\nauth: {method: trust}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of all kinds."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    good = authority.certify("good")
    authority.certify("other")
    authority.certify("rsa", key="rsa")
    authority.certify("ed25519", key="ed25519")
    authority.certify("expired", days=(-10, -1))
    authority.certify("future", days=(3, 10))
    (folder / "both.pem").write_bytes(good.cert.read_bytes() + good.key.read_bytes())
    (folder / "chain.crt").write_bytes(good.cert.read_bytes() + authority.file.read_bytes())
    (folder / "empty.crt").write_text("")
    (folder / "broken.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    protected = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (folder / "protected.key").write_bytes(protected)
    return folder


@pytest.fixture
def there(made: Path, folder: Folder) -> Folder:
    """A folder for a configuration, with these certificates in it."""
    for file in made.iterdir():
        (folder.path / file.name).write_bytes(file.read_bytes())
    return folder


WRONG = [
    ("{cert: good.crt, key: ▸other.key}", "the private key in {}/other.key does not belong to the certificate in {}"),
    ("{cert: good.crt, key: ▸rsa.key}", "the private key in {}/rsa.key does not belong to the certificate in {}"),
    ("{cert: good.crt, key: ▸ed25519.key}", "does not belong to the certificate"),
    ("{cert: good.crt, key: ▸protected.key}", "protected by a passphrase: store it without"),
    (
        "{cert: good.crt, key: ▸missing.key}",
        "the private key cannot be read: {}/missing.key: No such file or directory",
    ),
    (
        "{cert: ▸missing.crt, key: good.key}",
        "the certificate cannot be read: {}/missing.crt: No such file or directory",
    ),
    ("{cert: ▸., key: good.key}", "Is a directory"),
    ("{cert: ▸empty.crt, key: good.key}", "there is no certificate in PEM in {}/empty.crt"),
    ("{cert: ▸good.key, key: good.key}", "there is no certificate in PEM in {}/good.key"),
    ("{cert: ▸broken.crt, key: good.key}", "the certificate in {}/broken.crt with {}/good.key cannot be used: "),
    ("{cert: ▸good.crt}", "there is no private key in PEM in {}/good.crt: it can be in a file of its own, 'key'"),
    ("{cert: good.crt, key: ▸good.crt}", "there is no private key in PEM in {}/good.crt"),
    ("{cert: good.crt, key: good.key, ca: ▸missing.crt}", "the authorities cannot be read: {}/missing.crt"),
    ("{cert: good.crt, key: good.key, ca: ▸good.key}", "there is no certificate in PEM in {}/good.key"),
    ("{cert: good.crt, key: good.key, ca: ▸broken.crt}", "the authorities in {}/broken.crt cannot be used: "),
    ("{cert: good.crt, key: good.key, ciphers: ▸NONE-SUCH}", "OpenSSL knows none of the ciphers 'NONE-SUCH'"),
    ("{cert: good.crt, key: good.key, min_version: ▸TLSv1.1}", "expected one of TLSv1.2, TLSv1.3"),
    ("{cert: good.crt, key: good.key, mode: ▸required}", "did you mean 'require'"),
    ("{mode: ▸prefer}", "'mode: prefer' needs the certificate that clients are shown: add 'cert'"),
    ("{mode: ▸verify-full, ca: authority.crt}", "needs the certificate that clients are shown"),
    ("{cert: good.crt, key: good.key, mode: ▸verify-ca}", "needs the authorities that certify clients: add 'ca'"),
    ("{▸crt: good.crt}", "did you mean 'cert'"),
]


@pytest.mark.parametrize(("section", "message"), WRONG)
def test_what_is_wrong_with_a_section_is_said_at_its_place_with_the_file(
    there: Folder, section: str, message: str
) -> None:
    assert message.replace("{}", str(there.path)) in there.marked(f"{REST}tls: {section}\n")[0]


WRONG_BACKENDS = [
    ("{mode: ▸verify-ca}", "needs the authorities that certify the server: add 'ca'"),
    ("{mode: verify-full, ca: ▸missing.crt}", "the authorities cannot be read: {}/missing.crt"),
    ("{cert: good.crt, key: ▸other.key}", "does not belong to the certificate"),
    ("{key: ▸other.key}", "'key' has no effect without 'cert'"),
    ("{mode: ▸on}", "expected one of disable, allow, prefer"),
]


@pytest.mark.parametrize(("section", "message"), WRONG_BACKENDS)
def test_what_is_wrong_with_a_section_of_a_backend_is_said_at_its_place(
    there: Folder, section: str, message: str
) -> None:
    text = f"backends: [{{name: primary, host: pg1, tls: {section}}}]\nauth: {{method: trust}}\n"
    assert message.replace("{}", str(there.path)) in there.marked(text)[0]


DOUBTFUL = [
    ("{cert: expired.crt, key: expired.key}", "{}/expired.crt: certificate has expired"),
    ("{cert: future.crt, key: future.key}", "{}/future.crt: certificate is not yet valid"),
    ("{mode: disable, cert: good.crt, key: good.key}", "the other keys have no effect"),
    ("{ca: authority.crt}", "the other keys have no effect beside 'mode: disable', or without 'cert'"),
]


@pytest.mark.parametrize(("section", "message"), DOUBTFUL)
def test_what_cannot_have_been_meant_is_a_warning(there: Folder, section: str, message: str) -> None:
    (warning,) = there.load(f"{REST}tls: {section}\n").warnings
    assert message.replace("{}", str(there.path)) in warning.message


@pytest.mark.parametrize(
    ("host", "section", "message"),
    [
        ("/run/postgresql", "{mode: prefer}", "nothing is encrypted over a unix socket"),
        ("pg1", "{mode: require, ca: authority.crt}", "'ca' has no effect with 'mode: require'"),
    ],
)
def test_what_cannot_have_been_meant_of_a_backend_is_a_warning(
    there: Folder, host: str, section: str, message: str
) -> None:
    text = f"backends: [{{name: primary, host: {host}, tls: {section}}}]\nauth: {{method: trust}}\n"
    (warning,) = there.load(text).warnings
    assert message in warning.message


@pytest.mark.parametrize(
    "section",
    [
        "{}",
        "{mode: disable}",
        "{cert: good.crt, key: good.key}",
        "{cert: chain.crt, key: good.key}",
        "{cert: both.pem}",
        "{cert: rsa.crt, key: rsa.key, ca: authority.crt, mode: verify-full}",
        "{cert: ed25519.crt, key: ed25519.key, min_version: TLSv1.3}",
        "{cert: good.crt, key: good.key, ciphers: ECDHE+AESGCM}",
    ],
)
def test_what_can_be_used_is_taken_without_a_word(there: Folder, section: str) -> None:
    loaded = there.load(f"{REST}tls: {section}\n")
    assert loaded.warnings == ()
    contexts = Contexts.of(loaded.configuration)
    assert (contexts.clients is None) is (section in ("{}", "{mode: disable}"))


@pytest.mark.parametrize("kind", ["good", "rsa", "ed25519", "expired"])
def test_channels_are_bound_to_the_certificate_that_is_really_shown(made: Path, kind: str) -> None:
    shown = Certificate(made / f"{kind}.crt", made / f"{kind}.key")
    assert client_context(ClientTls(**shown.keys)).end_point == end_point_binding(shown.der)


@pytest.mark.parametrize(
    ("mode", "verified", "named"),
    [
        (TlsMode.REQUIRE, ssl.CERT_NONE, False),
        (TlsMode.VERIFY_CA, ssl.CERT_REQUIRED, False),
        (TlsMode.VERIFY_FULL, ssl.CERT_REQUIRED, True),
    ],
)
def test_a_server_is_looked_at_as_the_mode_says(made: Path, mode: TlsMode, verified: int, named: bool) -> None:
    context = backend_context(BackendTls(mode=mode, ca=str(made / "authority.crt"), min_version=TlsVersion.TLS_1_3))
    assert (context.verify_mode, context.check_hostname) == (verified, named)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.options & ssl.OP_NO_RENEGOTIATION, "what is written in the middle of one would be lost"


def test_the_xml_form_has_the_same_sections(there: Folder) -> None:
    xml = """<pgpooler>
  <auth method="trust"/>
  <tls mode="require" cert="good.crt" key="good.key"/>
  <backends><backend name="a" host="pg1"><tls mode="verify-full" ca="authority.crt"/></backend></backends>
</pgpooler>
"""
    loaded = there.load(xml, name="pgpooler.xml").configuration
    assert loaded.tls == ClientTls(mode=TlsMode.REQUIRE, cert=f"{there.path}/good.crt", key=f"{there.path}/good.key")
    assert loaded.backends[0].tls == BackendTls(mode=TlsMode.VERIFY_FULL, ca=f"{there.path}/authority.crt")


def test_backends_with_the_same_settings_share_what_was_read(there: Folder) -> None:
    same = "tls: {mode: verify-full, ca: authority.crt}"
    text = f"""
auth: {{method: trust}}
backends:
  - {{name: a, host: pg1, {same}}}
  - {{name: b, host: pg2, {same}}}
  - {{name: c, host: pg3, tls: {{}}}}
  - {{name: d, host: pg4}}
routing: {{rules: [{", ".join(f"{{user: {name}, backend: {name}}}" for name in "abcd")}]}}
"""
    loaded = there.load(text).configuration
    backends = Contexts.of(loaded).backends
    assert len(backends) == 2
    assert [one.tls.mode for one in loaded.backends] == ["verify-full", "verify-full", "prefer", "disable"]


def test_a_file_that_went_bad_after_the_check_is_named_too(there: Folder) -> None:
    text = f"tls: {{cert: good.crt, key: good.key}}\n{REST.replace('pg1}', 'pg1, tls: {cert: rsa.crt, key: rsa.key}}')}"
    configuration = there.load(text).configuration
    (there.path / "good.key").unlink()
    (there.path / "rsa.crt").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        Contexts.of(configuration)
    assert [str(problem) for problem in caught.value.problems] == [
        f"tls: the private key cannot be read: {there.path}/good.key: No such file or directory",
        f"tls of backend 'primary': there is no certificate in PEM in {there.path}/rsa.crt",
    ]
