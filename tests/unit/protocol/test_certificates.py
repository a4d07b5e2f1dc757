"""The digest that channel binding binds to, judged by `cryptography`, which knows certificates."""

from __future__ import annotations

import datetime
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from pgpooler.protocol.certificates import SIGNATURES, end_point_binding

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
DAY = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
SHA_2 = [hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
SHA_3 = [hashes.SHA3_224(), hashes.SHA3_256(), hashes.SHA3_384(), hashes.SHA3_512()]
PRIVATE_KEYS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "DSA": lambda: dsa.generate_private_key(2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


@cache
def private_key(kind):
    return PRIVATE_KEYS[kind]()


def certificate(kind: str, algorithm: hashes.HashAlgorithm | None, pss: bool = False) -> x509.Certificate:
    key = private_key(kind)
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(DAY).not_valid_after(DAY + datetime.timedelta(days=1))
    scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH) if pss else None
    return builder.sign(key, algorithm, rsa_padding=scheme)


def der(made: x509.Certificate) -> bytes:
    return made.public_bytes(serialization.Encoding.DER)


def with_signature_algorithm(identifier: bytes, parameters: bytes) -> bytes:
    """A certificate with another signature algorithm than `cryptography` wants to sign with."""
    signed_part = element(0x30, b"\x02\x01\x05" * 50)
    algorithm = element(0x30, element(0x06, identifier) + parameters)
    return element(0x30, signed_part + algorithm + element(0x03, b"\0" * 33))


def element(tag: int, contents: bytes) -> bytes:
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 + len(octets))) + octets + contents


@pytest.mark.parametrize("pss", [False, True], ids=["PKCS1", "PSS"])
@pytest.mark.parametrize("algorithm", SHA_2 + SHA_3, ids=lambda algorithm: algorithm.name)
def test_an_rsa_certificate_is_digested_with_the_hash_it_is_signed_with(algorithm, pss):
    made = certificate("RSA", algorithm, pss)
    assert made.signature_hash_algorithm.name == algorithm.name
    assert end_point_binding(der(made)) == made.fingerprint(algorithm)


@pytest.mark.parametrize("algorithm", SHA_2 + SHA_3, ids=lambda algorithm: algorithm.name)
def test_so_is_one_of_elliptic_curves(algorithm):
    made = certificate("ECDSA", algorithm)
    assert end_point_binding(der(made)) == made.fingerprint(algorithm)


@pytest.mark.parametrize("algorithm", SHA_2, ids=lambda algorithm: algorithm.name)
def test_and_one_of_dsa(algorithm):
    made = certificate("DSA", algorithm)
    assert end_point_binding(der(made)) == made.fingerprint(algorithm)


@pytest.mark.parametrize(
    "identifier",
    [
        x509.SignatureAlgorithmOID.RSA_WITH_MD5,
        x509.SignatureAlgorithmOID.RSA_WITH_SHA1,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA1,
        x509.SignatureAlgorithmOID.DSA_WITH_SHA1,
    ],
    ids=["RSA with MD5", "RSA with SHA-1", "ECDSA with SHA-1", "DSA with SHA-1"],
)
def test_sha_256_stands_in_for_md5_and_sha_1(identifier):
    made = with_signature_algorithm(encoded(identifier), b"\x05\0")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(made)
    assert end_point_binding(made) == digest.finalize()


@pytest.mark.parametrize(
    "parameters",
    [
        element(0x30, b""),
        element(0x30, element(0xA2, b"\x02\x01\x20")),
        element(0x30, element(0xA0, element(0x30, element(0x06, bytes.fromhex("2b0e03021a")) + b"\x05\0"))),
    ],
    ids=["named none", "named a salt length alone", "named"],
)
def test_and_for_the_sha_1_of_rsassa_pss_which_need_not_be_named(parameters):
    made = with_signature_algorithm(encoded(x509.SignatureAlgorithmOID.RSASSA_PSS), parameters)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(made)
    assert end_point_binding(made) == digest.finalize()


@pytest.mark.parametrize("kind", ["Ed25519", "Ed448"])
def test_an_edwards_curve_has_no_hash_to_bind_with(kind):
    assert end_point_binding(der(certificate(kind, None))) == b""


def test_every_signature_algorithm_has_the_hash_that_cryptography_names_it_by():
    named = {
        identifier.dotted_string: name.partition("_WITH_")[2].lower()
        for name, identifier in vars(x509.SignatureAlgorithmOID).items()
        if "_WITH_" in name
    }
    weak = {"md5": "sha256", "sha1": "sha256"}
    assert {identifier: weak.get(named[identifier], named[identifier]) for identifier in SIGNATURES} == SIGNATURES


def encoded(identifier: x509.ObjectIdentifier) -> bytes:
    """The contents of an object identifier, as found in a certificate that `cryptography` writes it into."""
    usage = x509.ExtendedKeyUsage([identifier]).public_bytes()
    return usage[4:]


def test_a_signature_that_is_not_known_has_no_binding():
    assert end_point_binding(with_signature_algorithm(b"\x2a\x03\x04", b"\x05\0")) == b""


RSA_PSS = der(certificate("RSA", hashes.SHA384(), pss=True))


@given(st.binary(max_size=200))
@example(b"0")
@example(b"0\x80")
@example(b"0\xff")
@example(RSA_PSS[:-1])
def test_what_is_no_certificate_has_no_binding_and_breaks_nothing(garbage):
    assert end_point_binding(garbage) == b""


@given(st.integers(0, len(RSA_PSS) - 1), st.integers(0, 255))
def test_nor_does_a_certificate_with_a_wrong_byte(position, byte):
    spoilt = bytearray(RSA_PSS)
    spoilt[position] = byte
    assert len(end_point_binding(bytes(spoilt))) in (0, 28, 32, 48, 64)


@given(st.integers(0, len(RSA_PSS) - 1))
def test_half_a_certificate_has_no_binding(length):
    assert end_point_binding(RSA_PSS[:length]) == b""
