"""Public keys: what verifies a signature, and what a person compares over a telephone.

Only public halves live here, so that the isolated side never loads code that signs.
ECDSA P-256 with SHA-256 is FIPS 186-5 s.6; ML-DSA-87 is FIPS 204.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from packager.errors import TrustError
from packager.format import keyset

P256 = "p256"
ML_DSA_87 = "ml-dsa-87"
ALGORITHMS = (P256, ML_DSA_87)
MAX_KEY_FILE_SIZE = 1 << 16
MAX_SIGNATURE_SIZE = keyset.MAX_SIGNATURE_SIZE

_AnyPublicKey = ec.EllipticCurvePublicKey | mldsa.MLDSA87PublicKey


@dataclass(frozen=True)
class PublicKey:
    """A public key, by its SPKI in DER (RFC 5280 s.4.1.2.7)."""

    algorithm: str
    spki: bytes

    @property
    def fingerprint(self) -> str:
        """The sha256 of the SPKI, 64 hexadecimal digits."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def key_id(self) -> str:
        """The first 16 hexadecimal digits of the fingerprint."""
        return self.fingerprint[:16]

    @property
    def spoken_fingerprint(self) -> str:
        """The fingerprint in groups of four, eight to a line, to be read out."""
        return in_groups(self.fingerprint)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether ``signature`` is this key's over ``data``."""
        key = _load(self.spki)
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, ec.ECDSA(SHA256()))
            else:
                key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def in_groups(fingerprint: str) -> str:
    """64 hexadecimal digits in groups of four, eight to a line, to be read out."""
    groups = [fingerprint[start : start + 4] for start in range(0, 64, 4)]
    return "\n".join(" ".join(groups[start : start + 8]) for start in range(0, 16, 8))


def parse_public_key(pem: bytes, what: str) -> PublicKey:
    """Read an SPKI PEM file named ``what``; raises ``TrustError`` for any other thing."""
    if b"PRIVATE KEY" in pem:
        raise TrustError(
            f"{what}: this is a private key; only the public half may leave its host",
            hint="name the .pub file that `airpack keys generate` wrote beside it",
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"{what}: not a public key in PEM form") from None
    return _public_key(key, what)


def parse_spki(der: bytes, what: str) -> PublicKey:
    """Read an SPKI in DER; raises ``TrustError`` unless it is a key airpack accepts."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"{what}: not a public key") from None
    return _public_key(key, what)


def _public_key(key: object, what: str) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return PublicKey(P256, _spki(key))
    if isinstance(key, mldsa.MLDSA87PublicKey):
        return PublicKey(ML_DSA_87, _spki(key))
    raise TrustError(f"{what}: neither an ECDSA P-256 nor an ML-DSA-87 key")


def _spki(key: _AnyPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _load(spki: bytes) -> _AnyPublicKey:
    key = load_der_public_key(spki)
    if isinstance(key, (ec.EllipticCurvePublicKey, mldsa.MLDSA87PublicKey)):
        return key
    raise TrustError("a key of a kind that airpack does not accept")
