"""What SCRAM's channel binding takes of a certificate: the digest tls-server-end-point (RFC 5929 section 4.1).

The digest is made with the hash of the certificate's signature, which a certificate names outside of what is signed
(RFC 5280 section 4.1.1.2); the walk to it through the DER (X.690) is all that is read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

SEQUENCE = 0x30
OBJECT_IDENTIFIER = 0x06
FIRST_PARAMETER = 0xA0  # context-specific, constructed, number 0

RSA = "1.2.840.113549.1.1."  # RFC 8017 appendix C
ECDSA = "1.2.840.10045.4."  # RFC 5758
NIST = "2.16.840.1.101.3.4."  # hashes below 2, signatures with them below 3
WEAK = "sha256"  # what RFC 5929 puts in place of MD5 and SHA-1

# Signature algorithms by their object identifiers.  What is not here, as Ed25519 and Ed448, names no hash of its own.
SIGNATURES = {
    RSA + "4": WEAK,  # MD5
    RSA + "5": WEAK,  # SHA-1
    RSA + "11": "sha256",
    RSA + "12": "sha384",
    RSA + "13": "sha512",
    RSA + "14": "sha224",
    ECDSA + "1": WEAK,  # SHA-1
    ECDSA + "3.1": "sha224",
    ECDSA + "3.2": "sha256",
    ECDSA + "3.3": "sha384",
    ECDSA + "3.4": "sha512",
    "1.2.840.10040.4.3": WEAK,  # DSA with SHA-1
    NIST + "3.1": "sha224",  # DSA
    NIST + "3.2": "sha256",
    NIST + "3.3": "sha384",
    NIST + "3.4": "sha512",
    NIST + "3.9": "sha3_224",  # ECDSA
    NIST + "3.10": "sha3_256",
    NIST + "3.11": "sha3_384",
    NIST + "3.12": "sha3_512",
    NIST + "3.13": "sha3_224",  # RSA
    NIST + "3.14": "sha3_256",
    NIST + "3.15": "sha3_384",
    NIST + "3.16": "sha3_512",
}
RSASSA_PSS = RSA + "10"  # names its hash in a parameter (RFC 4055 section 3.1)
HASHES = {
    "1.3.14.3.2.26": WEAK,  # SHA-1
    NIST + "2.1": "sha256",
    NIST + "2.2": "sha384",
    NIST + "2.3": "sha512",
    NIST + "2.4": "sha224",
    NIST + "2.7": "sha3_224",
    NIST + "2.8": "sha3_256",
    NIST + "2.9": "sha3_384",
    NIST + "2.10": "sha3_512",
}


class _NotDer(Exception):
    """The bytes are not what is looked for."""


def end_point_binding(certificate: bytes) -> bytes:
    """Return the data of tls-server-end-point for a server's certificate in DER.

    Empty where there is none: the signature has no hash of its own, as with Ed25519, or one that is not known here.
    Bytes that are no certificate have none either: nothing a peer sends raises an error.
    """
    try:
        name = _hash_of_signature(certificate)
    except _NotDer:
        return b""
    return hashlib.new(name, certificate, usedforsecurity=False).digest() if name else b""


def _hash_of_signature(certificate: bytes) -> str:
    """Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { algorithm, parameters }, signature }."""
    inside, _ = _enter(certificate, SEQUENCE)
    _, after_signed_part = _enter(inside, SEQUENCE)
    algorithm, _ = _enter(after_signed_part, SEQUENCE)
    identifier, parameters = _enter(algorithm, OBJECT_IDENTIFIER)
    if identifier != _RSASSA_PSS:
        return _SIGNATURES.get(identifier, "")
    fields, _ = _enter(parameters, SEQUENCE)
    if fields[:1] != bytes((FIRST_PARAMETER,)):
        return WEAK  # SHA-1 unless another one is named
    parameter, _ = _enter(fields, FIRST_PARAMETER)
    algorithm, _ = _enter(parameter, SEQUENCE)
    identifier, _ = _enter(algorithm, OBJECT_IDENTIFIER)
    return _HASHES.get(identifier, "")


def _enter(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split an element with this tag, which must come first, into its contents and what follows it."""
    if len(der) < 2 or der[0] != tag:
        raise _NotDer
    start, length = 2, der[1]
    if length >= 0x80:  # the length stands in as many bytes as the lower bits say
        start += length - 0x80
        length = int.from_bytes(der[2:start], "big")
    stop = start + length
    if stop > len(der):
        raise _NotDer
    return der[start:stop], der[stop:]


def _encode(identifier: str) -> bytes:
    """Write an object identifier (X.690 section 8.19): base 128, all bytes but the last of a number above 0x7F."""
    first, second, *others = map(int, identifier.split("."))
    encoded = b""
    for number in (first * 40 + second, *others):
        digits = bytes((number & 0x7F,))
        while number := number >> 7:
            digits = bytes((number & 0x7F | 0x80,)) + digits
        encoded += digits
    return encoded


def _encoded(table: Iterable[tuple[str, str]]) -> dict[bytes, str]:
    return {_encode(identifier): name for identifier, name in table}


_SIGNATURES = _encoded(SIGNATURES.items())
_HASHES = _encoded(HASHES.items())
_RSASSA_PSS = _encode(RSASSA_PSS)
