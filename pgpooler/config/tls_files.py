"""The files of the sections `tls`, read into contexts of OpenSSL: certificates, keys, authorities.

A worker reads them when it starts and at every reload; `pgpooler check` reads them too, so that it says what they would
be refused for.  What is wrong is a `TlsProblem`, which names the key of the section and the file.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pgpooler.config.choices import TlsMode, TlsVersion
from pgpooler.config.model import BackendTls, ClientTls, Configuration
from pgpooler.errors import ConfigurationError, PgPoolerError, Problem
from pgpooler.protocol.certificates import end_point_binding

ALPN: Final = "postgresql"
"""What the protocol is called within TLS (protocol-flow-ssl)."""

VERSIONS: Final = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}
CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
PRIVATE_KEY: Final = "PRIVATE KEY-----"
NOT_A_PAIR: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""What OpenSSL says to a key that is another certificate's."""


class TlsProblem(PgPoolerError):
    """A section `tls` cannot be used: which of its keys is to blame, and why."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message


class _Protected(Exception):
    """The private key can be read only with a passphrase."""


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What clients shake hands with, and what they see of it.  Both change together."""

    context: ssl.SSLContext
    end_point: bytes  # what channel binding binds to, made of our certificate; b"" where it has none
    doubt: str  # why clients that look closely will not trust it; "" if nothing is known


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a configuration says of TLS, with all files read.  Backends with the same settings share a context."""

    clients: ClientContext | None  # None: nobody can encrypt
    backends: Mapping[BackendTls, ssl.SSLContext]

    @classmethod
    def of(cls, configuration: Configuration) -> Contexts:
        """Read the files.  Raises ConfigurationError."""
        problems = []
        clients, backends = None, {}
        try:
            clients = client_context(configuration.tls) if configuration.tls.offered else None
        except TlsProblem as problem:
            problems.append(Problem(f"tls: {problem.message}"))
        for backend in configuration.backends:
            try:
                if backend.tls not in backends and backend.tls.mode is not TlsMode.DISABLE:
                    backends[backend.tls] = backend_context(backend.tls)
            except TlsProblem as problem:
                problems.append(Problem(f"tls of backend {backend.name!r}: {problem.message}"))
        if problems:
            raise ConfigurationError(problems)
        return cls(clients, backends)


def client_context(tls: ClientTls) -> ClientContext:
    """Make what clients shake hands with.  Raises TlsProblem."""
    if not tls.cert:
        raise TlsProblem("mode", f"'mode: {tls.demand}' needs the certificate that clients are shown: add 'cert'")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0  # nobody resumes: a session of TLS ends with its connection, as with PostgreSQL
    _settle(context, tls)
    certificate, doubt = _shown_by(context)
    if tls.ca:
        _trust(context, tls.ca)
        # Without one, a client of the modes verify-* is told so by an ErrorResponse instead of an alert.
        context.verify_mode = ssl.CERT_OPTIONAL
    elif tls.demand.verified:
        raise TlsProblem("mode", f"'mode: {tls.demand}' needs the authorities that certify clients: add 'ca'")
    return ClientContext(context, end_point_binding(certificate), doubt)


def backend_context(tls: BackendTls) -> ssl.SSLContext:
    """Make what shakes hands with a backend.  Raises TlsProblem."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = tls.mode is TlsMode.VERIFY_FULL
    context.verify_mode = ssl.CERT_REQUIRED if tls.mode.verified else ssl.CERT_NONE
    _settle(context, tls)
    if tls.ca:
        _trust(context, tls.ca)
    elif tls.mode is TlsMode.VERIFY_FULL:
        context.load_default_certs()
    elif tls.mode is TlsMode.VERIFY_CA:
        # Anybody can have a certificate of a public authority: only together with the name does it say anything.
        raise TlsProblem("mode", "'mode: verify-ca' needs the authorities that certify the server: add 'ca'")
    return context


def _settle(context: ssl.SSLContext, tls: ClientTls | BackendTls) -> None:
    """What both directions have in common: protocol, version, ciphers, our certificate and its key."""
    context.options |= ssl.OP_NO_RENEGOTIATION  # in the middle of one OpenSSL takes nothing that is written
    context.set_alpn_protocols([ALPN])
    context.minimum_version = VERSIONS[tls.min_version]
    if tls.ciphers:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError:
            raise TlsProblem("ciphers", f"OpenSSL knows none of the ciphers {tls.ciphers!r}") from None
    if tls.cert:
        _show(context, tls.cert, tls.key)
    elif tls.key:
        raise TlsProblem("key", "'key' has no effect without 'cert'")


def _show(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Let the context show a certificate, and prove that it is ours."""
    if CERTIFICATE not in _read(cert, "cert", "the certificate"):
        raise TlsProblem("cert", f"there is no certificate in PEM in {cert}")
    if PRIVATE_KEY not in _read(key or cert, "key" if key else "cert", "the private key"):
        hint = "" if key else ": it can be in a file of its own, 'key'"
        raise TlsProblem("key" if key else "cert", f"there is no private key in PEM in {key or cert}{hint}")

    def passphrase() -> str:
        raise _Protected

    try:
        context.load_cert_chain(cert, key or None, passphrase)
    except _Protected:
        raise TlsProblem(
            "key", f"the private key in {key or cert} is protected by a passphrase: store it without"
        ) from None
    except ssl.SSLError as error:
        if error.reason in NOT_A_PAIR:
            message = f"the private key in {key or cert} does not belong to the certificate in {cert}"
            raise TlsProblem("key" if key else "cert", message) from None
        file = cert if key in ("", cert) else f"{cert} with {key}"
        raise TlsProblem("cert", f"the certificate in {file} cannot be used: {words(error)}") from None


def _trust(context: ssl.SSLContext, ca: str) -> None:
    """Let the context trust the authorities in a file."""
    if CERTIFICATE not in _read(ca, "ca", "the authorities"):
        raise TlsProblem("ca", f"there is no certificate in PEM in {ca}")
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsProblem("ca", f"the authorities in {ca} cannot be used: {words(error)}") from None


def _read(path: str, key: str, what: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise TlsProblem(key, f"{what} cannot be read: {path}: {error.strerror}") from None


def _shown_by(context: ssl.SSLContext) -> tuple[bytes, str]:
    """Shake hands with ourselves in memory: what a client sees is what the context really has, whatever the files say.

    Returns our certificate in DER, and what is wrong with it in itself: that it is expired, say.  Raises TlsProblem
    when nobody could shake hands.
    """
    certificate = _shake(context, _curious())
    looking = _curious()
    looking.verify_mode = ssl.CERT_REQUIRED
    looking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be its own authority
    looking.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(certificate))
    try:
        _shake(context, looking)
    except TlsProblem as problem:
        return certificate, problem.message
    return certificate, ""


def _curious() -> ssl.SSLContext:
    """A client that takes anything."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_ciphers("ALL:COMPLEMENTOFDEFAULT")
    return client


def _shake(context: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), context.wrap_bio(to_server, to_client, server_side=True)]
    certificate = None
    while certificate is None:
        pending = to_server.pending, to_client.pending
        for end in ends:
            try:
                end.do_handshake()
                certificate = certificate or ends[0].getpeercert(binary_form=True)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                raise TlsProblem("cert", words(error)) from None
            except ValueError:  # the client's handshake is not done yet
                continue
        if certificate is None and pending == (to_server.pending, to_client.pending):
            raise TlsProblem("cert", "nobody could shake hands with it")
    return certificate


def words(error: ssl.SSLError) -> str:
    """What OpenSSL has against it, without the places in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or str(error)).replace("_", " ").lower()
