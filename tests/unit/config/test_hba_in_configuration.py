"""HBA files as part of a configuration: found, checked against the rest, handed to workers, compared by a reload."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pgpooler.config.choices import AuthMethod
from pgpooler.config.diff import difference
from pgpooler.config.hba import HbaMethod, rule_text
from pgpooler.config.model import Configuration

DOCS = Path(__file__).parents[3] / "docs"
BACKEND = "backends: [{name: primary, host: pg1}]\n"
USERS = "users: {alice: {password: secret}}"
HBA = "local all all peer map=staff\nhost shop alice 10.0.0.0/8 scram-sha-256\nhostssl all all all cert\n"
IDENT = "staff root alice\n"
WITHOUT_AUTHORITY = "nobody can show a certificate that counts: add 'cert' and 'ca' to the section 'tls'"


def written(*keys: str) -> str:
    return BACKEND + f"auth: {{{', '.join(keys)}}}\n"


BOTH = written("hba_file: pg_hba.conf", "ident_file: pg_ident.conf", USERS)
FILES = {"pg_hba.conf": HBA, "pg_ident.conf": IDENT}


def test_the_entries_are_part_of_the_configuration_and_reach_the_workers(folder) -> None:
    loaded = folder.load(BOTH, files=FILES)
    auth = loaded.configuration.auth
    assert [warning.message for warning in loaded.warnings] == [WITHOUT_AUTHORITY]
    assert [rule_text(rule) for rule in auth.rules] == HBA.splitlines()
    assert [line.map for line in auth.ident] == ["staff"]
    assert {str(folder.path / name) for name in FILES} < set(loaded.configuration.files)
    assert msgspec.json.decode(msgspec.json.encode(loaded.configuration), type=Configuration) == loaded.configuration


def test_the_xml_form_names_the_files_too(folder) -> None:
    xml = """<pgpooler>
      <auth hba_file="pg_hba.conf" ident_file="pg_ident.conf"><user name="alice" password="secret"/></auth>
      <backends><backend name="primary" host="pg1"/></backends>
      <pools><pool name="p" backend="primary"/></pools><routing><route default="true" pool="p"/></routing>
    </pgpooler>"""
    configuration = folder.load(xml, name="pgpooler.xml", files=FILES).configuration
    assert [rule.method for rule in configuration.auth.rules] == ["peer", "scram-sha-256", "cert"]


@pytest.mark.parametrize("method", AuthMethod)
def test_without_a_file_the_method_is_for_everybody(folder, method: AuthMethod) -> None:
    auth = folder.load(written(f"method: {method.value}", USERS)).configuration.auth
    expected = HbaMethod.PASSWORD if method is AuthMethod.PLAIN else HbaMethod(method.value)
    assert {rule.method for rule in auth.rules} == {expected}


def test_every_wrong_line_of_both_files_is_reported_with_its_place(folder) -> None:
    files = {"pg_hba.conf": HBA.replace("map=", "▸map=") + "▸hosts all\nlocal all▸", "pg_ident.conf": "other a a\n"}
    mapped, connection, end = folder.marked(BOTH, files=files)
    assert "there is no map 'staff'" in mapped
    assert "did you mean 'host'" in connection
    assert "ends before the user" in end
    files = {"pg_hba.conf": HBA + "▸hosts all\n", "pg_ident.conf": IDENT + "staff root▸"}
    assert "ends before the database user name" in folder.marked(BOTH, files=files)[0]


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        (("hba_file: ▸missing.conf", USERS), "cannot read"),
        (("hba_file: ▸empty.conf", USERS), "the file has no entries"),
        (("hba_file: pg_hba.conf", "method: ▸trust", "ident_file: pg_ident.conf", USERS), "take out 'method'"),
        (("hba_file: ▸passwords.conf",), "all entries of the file ask for passwords"),
        (("hba_file: passwords.conf", "users: {▸alice: {}}"), "needs a 'password'"),
        (("method: ▸reject", USERS), "expected one of scram-sha-256, md5, plain, cert, trust"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, auth: tuple[str, ...], message: str) -> None:
    files = {**FILES, "empty.conf": "# nobody\n", "passwords.conf": "host all all all md5\nlocal all all reject\n"}
    assert message in folder.marked(written(*auth), files=files)[0]


def test_a_map_that_is_not_in_the_ident_file_is_refused_where_it_is_named(folder) -> None:
    without = written("hba_file: pg_hba.conf", USERS)
    assert "no map 'staff'" in folder.marked(without, files={"pg_hba.conf": HBA.replace("map=", "▸map=")})[0]


@pytest.mark.parametrize("method", ["trust", "cert", "peer"])
def test_users_need_no_password_and_need_not_be_there_where_an_entry_asks_for_none(folder, method: str) -> None:
    kind = {"trust": "host all all all", "cert": "hostssl all all all", "peer": "local all all"}[method]
    files = {"pg_hba.conf": f"host all all all md5\n{kind} {method}\n"}
    assert folder.load(written("hba_file: pg_hba.conf"), files=files).configuration.auth.users == {}
    without = folder.load(written("hba_file: pg_hba.conf", "users: {alice: {}}"), files=files).configuration
    assert without.auth.users["alice"].password == ""


def test_without_users_or_entries_nothing_starts_and_the_error_says_what_to_write(folder) -> None:
    for auth in ("", "auth: {}\n", "auth: {method: md5}\n", "auth: {method: scram-sha-256, users: {}}\n"):
        (problem,) = folder.problems(BACKEND + auth)
        assert "users: {alice: {password: ...}}" in problem.message
        assert "'method: trust'" in problem.message


def test_what_has_no_effect_is_a_warning(folder) -> None:
    folder.write("pg_ident.conf", IDENT)
    ident, window = folder.warnings(written("ident_file: ▸pg_ident.conf", "failed_logins_window: ▸1m", USERS))
    assert "'ident_file' has no effect without 'hba_file'" in ident
    assert "'failed_logins_window' has no effect" in window


@pytest.mark.parametrize("entry", ["all cert", "all md5 clientcert=verify-ca", "all md5 clientcert=verify-full"])
def test_who_asks_for_certificates_that_nobody_can_show_is_warned(folder, entry: str) -> None:
    folder.write("pg_hba.conf", f"local all all peer\nhostssl all all {entry}\n")
    (warning,) = folder.warnings(written("hba_file: ▸pg_hba.conf", USERS))
    assert WITHOUT_AUTHORITY in warning


def test_method_cert_without_an_authority_is_a_warning(folder) -> None:
    (warning,) = folder.warnings(written("method: ▸cert", USERS))
    assert WITHOUT_AUTHORITY in warning


def test_an_md5_secret_is_of_use_where_an_entry_asks_for_it(folder) -> None:
    secret = f"users: {{alice: {{password: md5{'0' * 32}}}}}"
    for method, warnings in (("scram-sha-256", 1), ("md5", 0), ("password", 0)):
        files = {"pg_hba.conf": f"host all all all {method}\nlocal all all reject\n"}
        assert len(folder.load(written("hba_file: pg_hba.conf", secret), files=files).warnings) == warnings


def test_a_reload_names_the_lines_that_changed(folder) -> None:
    def lines(hba: str, ident: str = IDENT) -> list[str]:
        before = folder.load(BOTH, files=FILES).configuration
        after = folder.load(BOTH, files={"pg_hba.conf": hba, "pg_ident.conf": ident}).configuration
        return [str(change) for change in difference(before, after)]

    assert lines("# only a comment more\n\n" + HBA.replace(" ", "   ")) == []
    assert lines(HBA + "host all all all reject\n") == ["auth.hba_file[4]: host all all all reject (new)"]
    assert lines(HBA.replace("10.0.0.0/8", "10.1.0.0/16")) == [
        "auth.hba_file[2]: host shop alice 10.0.0.0/8 scram-sha-256 -> host shop alice 10.1.0.0/16 scram-sha-256"
    ]
    assert lines(HBA, IDENT + "staff bob bob\n") == ["auth.ident_file[2]: staff bob bob (new)"]


def test_the_examples_of_the_reference_and_of_the_guide_can_be_read(folder) -> None:
    reference, guide = (DOCS / "reference" / "configuration.md"), (DOCS / "how-to" / "authenticate-clients.md")
    examples = re.findall(r"^```text\n(.*?)^```$", reference.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    _, hba, ident = examples
    loaded = folder.load(BOTH, files={"pg_hba.conf": hba, "pg_ident.conf": ident})
    assert len(loaded.configuration.auth.hba) == 5
    assert len(loaded.configuration.auth.ident) == 2
    text = guide.read_text(encoding="utf-8")
    one, several, throttled = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    entry, mapped = re.findall(r"^```text\n((?:hostssl|certs) .*?)^```$", text, re.MULTILINE | re.DOTALL)
    files = {"userlist.txt": '"bob" "secret"\n', "pg_hba.conf": entry, "pg_ident.conf": mapped}
    folder.environment = {"ALICE_PASSWORD": "secret"}
    for example in (one, several, throttled + "  " + USERS):
        warnings = {warning.message for warning in folder.load(BACKEND + example, files=files).warnings}
        assert warnings <= {WITHOUT_AUTHORITY}, "only the section tls stands elsewhere"
