"""Whether a model signature holds: by the key that is trusted, and over these very files.

The form is that of :mod:`packager.format.model_signature`. The statement is parsed only once its
signature holds. The keys are those that model-signing 1.1.1 takes (``sign_ec_key.py``): ECDSA
(FIPS 186-5 s.6) on P-256 with SHA-256, P-384 with SHA-384, P-521 with SHA-512.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from packager.errors import TrustError
from packager.format.digest import Digest
from packager.format.model_signature import (
    ModelSignature,
    key_hint,
    parse_model_signature,
    parse_statement,
)

_HASHES: Mapping[str, HashAlgorithm] = {
    "secp256r1": SHA256(),
    "secp384r1": SHA384(),
    "secp521r1": SHA512(),
}


def parse_model_key(pem: bytes, what: str) -> bytes:
    """The SPKI in DER of a public key in PEM that can have signed a model.

    Raises ``TrustError`` for a key of another kind, or for what is no public key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"{what}: not a public key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise TrustError(
            f"{what}: no key for OpenSSF model signatures; those are ECDSA on P-256, P-384, P-521"
        )
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signed_files(data: bytes, spki: bytes, what: str) -> Mapping[str, Digest]:
    """The files that the signature ``data``, called ``what``, by the key ``spki`` is over.

    Raises ``TrustError`` if it is not that key's, ``MalformedError`` if it is no such signature.
    """
    signed = parse_model_signature(data, what)
    if signed.key_hint not in (None, key_hint(spki)) or not _holds(spki, signed):
        raise TrustError(f"{what}: not a signature by the key {Digest.of(spki).hex[:16]}")
    return parse_statement(signed.payload, what)


def check_model_signature(data: bytes, spki: bytes, files: Mapping[str, Digest], what: str) -> None:
    """Raise ``TrustError`` or ``MalformedError`` unless ``data`` is over just these ``files``."""
    signed = signed_files(data, spki, what)
    if signed != files:
        differing = sorted(p for p in {*signed, *files} if signed.get(p) != files.get(p))
        raise TrustError(f"{what}: signs other files than these: {differing[0][:200]!a}")


def _holds(spki: bytes, signed: ModelSignature) -> bool:
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    algorithm = ec.ECDSA(_HASHES[key.curve.name])
    try:
        key.verify(signed.signature, signed.signed_bytes, algorithm)
    except InvalidSignature:
        return False
    return True
