"""TLS on one connection, without its socket: plain bytes at one end, records at the other (`ssl`, memory BIO)."""

from __future__ import annotations

import ssl
from typing import Any, Final

from pgpooler.pooling.port import ClientCertificate, Encryption
from pgpooler.protocol.certificates import end_point_binding

LONGEST_RECORD: Final = 5 + 16384 + 2048
"""Bytes of one record with its header (RFC 5246 section 6.2.3, the longer of both versions)."""

SHORT_NAMES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
"""Attributes of a distinguished name that have a short one (RFC 2253 section 2.3); others keep OpenSSL's."""
ESCAPED: Final = frozenset(',+"\\<>;')


class Tunnel:
    """What the two ends of a connection have agreed on, and the bytes on their way in and out."""

    __slots__ = ("context", "host", "incoming", "outgoing", "tls")

    def __init__(self, context: ssl.SSLContext, host: str | None = None, *, server_side: bool = False) -> None:
        """Begin at one end; as the client with `host`, the name or address that the server goes by."""
        self.context = context
        self.host = host
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, host)

    def shake(self) -> bool:
        """Take the next step of the handshake; return whether it was the last.  Raises ssl.SSLError."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def end(self) -> None:
        """Say that nothing more will come (close_notify)."""
        try:
            self.tls.unwrap()
        except (ssl.SSLError, ValueError):  # the peer has not said so yet, or has broken off
            return

    def encryption_of_client(self, end_point: bytes) -> Encryption:
        """What was agreed on with a client.  Raises ValueError for a certificate with a name that is none."""
        return Encryption(*self._agreed(), end_point, client_certificate(self.tls.getpeercert() or {}))

    def encryption_of_server(self) -> Encryption:
        """What was agreed on with a server."""
        return Encryption(*self._agreed(), end_point_binding(self.tls.getpeercert(binary_form=True) or b""))

    def _agreed(self) -> tuple[str, str]:
        cipher = self.tls.cipher()
        return self.tls.version() or "", cipher[0] if cipher else ""


def client_certificate(certificate: dict[str, Any]) -> ClientCertificate | None:
    """Read what `ssl` tells of a verified certificate; nothing for none.  Raises ValueError for a name with a zero."""
    if not certificate:
        return None
    subject: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())
    common_names = [value for part in subject for name, value in part if name == "commonName"]
    if any("\0" in value for part in subject for _, value in part):
        raise ValueError("the name in its certificate contains a zero byte")  # it could be cut off there
    written = ("+".join(f"{SHORT_NAMES.get(name, name)}={_escape(value)}" for name, value in part) for part in subject)
    return ClientCertificate(",".join(reversed(list(written))), common_names[0] if common_names else "")


def _escape(value: str) -> str:
    """RFC 2253 section 2.4."""
    text = "".join(f"\\{character}" if character in ESCAPED else character for character in value)
    if text[:1] in ("#", " "):
        text = "\\" + text
    if text.endswith(" ") and len(text) > 1:
        text = text[:-1] + "\\ "
    return text
