"""Certificates for a test: an authority of its own, and what it certifies, as files in PEM."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

KEYS: dict[str, Callable[[], Any]] = {
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, as files."""

    cert: Path
    key: Path

    @property
    def keys(self) -> dict[str, str]:
        """The keys of a section `tls` that name it."""
        return {"cert": str(self.cert), "key": str(self.key)}

    @property
    def der(self) -> bytes:
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).public_bytes(serialization.Encoding.DER)


class Authority:
    """Certifies whatever a test needs, by signatures of one kind.  `file` is its own certificate, to be trusted.

    A key of kind ed25519 needs no hash: `algorithm` is None then.  `pss` is the other padding of RSA (RSASSA-PSS).
    """

    def __init__(
        self,
        folder: Path,
        name: str = "authority",
        *,
        key: str = "ecdsa",
        algorithm: Any = hashes.SHA256(),  # noqa: B008 - a value
        pss: bool = False,
    ) -> None:
        self.folder = folder
        self.name = name
        self.file = folder / f"{name}.crt"
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = KEYS[key]()
        self._algorithm = algorithm
        self._padding = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH) if pss else None
        made = self._builder(self._subject, self._key.public_key(), 0, 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file.write_bytes(self._signed(made))

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        made = builder.sign(self._key, self._algorithm, rsa_padding=self._padding)
        return made.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, public_key: Any, begins: float, ends: float) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=begins))
            .not_valid_after(now + datetime.timedelta(days=ends))
        )

    def certify(
        self,
        common_name: str,
        *,
        hosts: tuple[str, ...] = LOOPBACK,
        key: str = "ecdsa",
        days: tuple[float, float] = (0, 30),
        more: tuple[tuple[x509.ObjectIdentifier, str], ...] = (),
        file: str = "",
    ) -> Certificate:
        """Make a certificate that is valid for these days from now on; `more` stands before the common name."""
        names = [*more, (NameOID.COMMON_NAME, common_name)]
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
        private = KEYS[key]()
        builder = self._builder(subject, private.public_key(), *days)
        if hosts:
            alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(alternatives, critical=False)
        made = Certificate(self.folder / f"{file or common_name}.crt", self.folder / f"{file or common_name}.key")
        made.cert.write_bytes(self._signed(builder))
        made.key.touch(mode=0o600)
        made.key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return made


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
