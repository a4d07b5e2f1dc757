"""Logins without a password: what a certificate or the operating system says of a client, and what an entry wants.

Also the errors for a client whom no entry of the HBA file lets in.  As in PostgreSQL they say nothing that the client
does not know of itself (auth-pg-hba-conf, auth-cert, auth-peer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgpooler.config.hba import CertificateCheck, CertificateName, HbaMethod, HbaRule
from pgpooler.config.hba_rules import IdentMaps
from pgpooler.errors import INVALID_AUTHORIZATION, AuthenticationFailed

if TYPE_CHECKING:
    from pgpooler.pooling.access import LoginRequest


def no_entry(request: LoginRequest) -> AuthenticationFailed:
    """Make the error for a client for whom the HBA file has no entry."""
    kind = "replication connection from host" if request.replication else "host"
    return AuthenticationFailed(f"no hba_file entry for {kind} {_described(request)}", sqlstate=INVALID_AUTHORIZATION)


def rejected(request: LoginRequest) -> AuthenticationFailed:
    """Make the error for a client whom an entry rejects."""
    kind = "replication connection" if request.replication else "connection"
    return AuthenticationFailed(
        f"hba_file rejects {kind} for host {_described(request)}", sqlstate=INVALID_AUTHORIZATION
    )


def _described(request: LoginRequest) -> str:
    host = "[local]" if request.address is None else str(request.address)
    target = "" if request.replication else f', database "{request.database}"'
    encryption = "no encryption" if request.encryption is None else "SSL encryption"
    return f'"{host}", user "{request.user}"{target}, {encryption}'


def check_certificate(rule: HbaRule, maps: IdentMaps, request: LoginRequest) -> None:
    """Raise AuthenticationFailed unless the client showed the certificate that the entry asks for."""
    full = rule.method is HbaMethod.CERT or rule.clientcert is CertificateCheck.VERIFY_FULL
    if not full and rule.clientcert is CertificateCheck.NOTHING:
        return
    certificate = request.encryption.certificate if request.encryption is not None else None
    if certificate is None:
        raise AuthenticationFailed("connection requires a valid client certificate", sqlstate=INVALID_AUTHORIZATION)
    name = certificate.subject if rule.clientname is CertificateName.DN else certificate.common_name
    if full and not (name and maps.allows(rule.map, name, request.user)):
        raise failed(HbaMethod.CERT, request.user)


def check_peer(rule: HbaRule, maps: IdentMaps, request: LoginRequest) -> None:
    """Raise AuthenticationFailed unless the system's user at the other end of the unix socket may be this user."""
    if not (request.system_user and maps.allows(rule.map, request.system_user, request.user)):
        raise failed(HbaMethod.PEER, request.user)


NAMES = {HbaMethod.CERT: "certificate", HbaMethod.PEER: "Peer"}
"""How PostgreSQL calls the methods in its errors."""


def unknown(method: HbaMethod, user: str) -> AuthenticationFailed:
    """Make the error for a user who does not exist, under a method that asks for no password."""
    if method in NAMES:
        return failed(method, user)
    return AuthenticationFailed(f'role "{user}" does not exist', sqlstate=INVALID_AUTHORIZATION)


def failed(method: HbaMethod, user: str) -> AuthenticationFailed:
    """Make the one error for the wrong name and for a user who does not exist."""
    return AuthenticationFailed(
        f'{NAMES[method]} authentication failed for user "{user}"', sqlstate=INVALID_AUTHORIZATION
    )
