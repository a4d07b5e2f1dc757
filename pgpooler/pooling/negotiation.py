"""Whether a client's connection is encrypted: what it is offered, and what it must bring (protocol-flow-ssl).

Over a unix socket nothing is encrypted, and nothing is demanded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.choices import TlsMode
from pgpooler.errors import INVALID_AUTHORIZATION, AuthenticationFailed
from pgpooler.protocol.startup import EncryptionRequest, Startup

if TYPE_CHECKING:
    from pgpooler.pooling.client import ClientSession
    from pgpooler.protocol.startup import StartupMessage

TLS_HANDSHAKE = 0x16
"""The first byte of TLS (ContentType handshake, RFC 8446 section 5.1), and of no startup packet."""


def answer(client: ClientSession, startup: Startup, request: EncryptionRequest) -> None:
    """Answer a request for encryption, and take it up if that is TLS and there is a certificate.

    Raises ProtocolViolation for bytes behind the request: they were sent by whoever is between the client and us.
    """
    offered = request.kind == "SSL" and _offered(client)
    if not offered:
        client.port.write_all(b"N")
    if client.framer.position < client.framer.end:
        raise Startup.stuffed(request)
    if offered:
        startup.gss_asked = True  # within TLS it is no request any more, but a version that nobody speaks
        client.port.write_all(b"S")
        client.port = client.port.encrypt(b"")


def begun(client: ClientSession, startup: Startup, now: float) -> bool:
    """Take TLS up with a client that begins it without asking; False for one that does not."""
    framer = client.framer
    if framer.position == framer.end or framer.buffer[framer.position] != TLS_HANDSHAKE:
        return False
    if startup.ssl_asked or startup.gss_asked or client.port.encryption is not None:
        return False
    if _offered(client):
        client.port = client.port.encrypt(framer.take_rest())
    else:
        client.close("it began TLS, which is not offered", now)
    return True


def _offered(client: ClientSession) -> bool:
    port = client.port
    return client.service.configuration.tls.offered and port.address is not None and port.encryption is None


def check(client: ClientSession, startup: StartupMessage) -> None:
    """Raise AuthenticationFailed where `tls.mode` demands more than the client brings."""
    demand, port = client.service.configuration.tls.demand, client.port
    if not demand.required or port.address is None:
        return
    if port.encryption is None:
        raise AuthenticationFailed(
            f'no pg_hba.conf entry for host "{port.address}", user "{startup.user}", database "{startup.database}", '
            "no encryption",
            sqlstate=INVALID_AUTHORIZATION,
            hint=f"PgPooler demands TLS (tls: mode {demand}): connect with sslmode=require, or stricter.",
        )
    if not demand.verified:
        return
    certificate = port.encryption.certificate
    if certificate is None:
        raise AuthenticationFailed("connection requires a valid client certificate", sqlstate=INVALID_AUTHORIZATION)
    if demand is TlsMode.VERIFY_FULL and certificate.common_name != startup.user:
        raise AuthenticationFailed(
            f'certificate authentication failed for user "{startup.user}"', sqlstate=INVALID_AUTHORIZATION
        )
