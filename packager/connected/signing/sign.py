"""Signatures over a bundle's sums: one detached file for each signer."""

from __future__ import annotations

import shlex
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.model_signing import sign_variants
from packager.connected.signing.provenance import sign_provenance
from packager.errors import TrustError, UsageError
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, parse_sums, signature_name, spare_name
from packager.store.atomic import read_capped, write_file
from packager.trust.keys import (
    MAX_KEY_FILE_SIZE,
    MAX_SIGNATURE_SIZE,
    P256,
    PublicKey,
    parse_public_key,
)

_COORDINATE_SIZE = 32  # bytes, of r and of s on P-256


def sign_bundle(directory: Path, key: SigningKey) -> str:
    """Add the signatures of ``key``, over each variant and the provenance, too; returns its id."""
    sums = _read_sums(directory)
    listed = parse_sums(sums)
    sign_variants(directory, listed, key)
    sign_provenance(directory, listed, key)
    return _add(directory, key.public.key_id, key.sign(sums))


def import_signature(directory: Path, signature: Path, public: Path) -> str:
    """Add a signature made elsewhere, once it holds; returns the key id.

    Raises ``TrustError`` for one that is not the public key's over this bundle's sums.
    """
    key = parse_public_key(read_capped(public, MAX_KEY_FILE_SIZE), str(public))
    made = read_made_elsewhere(signature, key, _read_sums(directory), directory / SUMS_NAME)
    return _add(directory, key.key_id, made)


def read_made_elsewhere(signature: Path, key: PublicKey, data: bytes, document: Path) -> bytes:
    """The signature in a file, as airpack keeps it; it must be that of ``key`` over ``data``.

    ECDSA is taken as r and s one behind the other, too, as tokens give it (PKCS #11 v3.1 s.6.3.12
    CKM_ECDSA). Raises ``TrustError`` for one that does not hold over ``document``, which has the
    ``data``.
    """
    found = read_capped(signature, MAX_SIGNATURE_SIZE)
    if key.verifies(found, data):
        return found
    if key.algorithm == P256 and len(found) == 2 * _COORDINATE_SIZE:
        r, s = found[:_COORDINATE_SIZE], found[_COORDINATE_SIZE:]
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        if key.verifies(der, data):
            return der
    stock = f"openssl dgst -sha256 -sign KEY -out SIG {shlex.quote(str(document))}"
    raise TrustError(
        f"{signature}: not a signature of {key.key_id} over {document.name}",
        hint=stock if key.algorithm == P256 else None,
    )


def _read_sums(directory: Path) -> bytes:
    path = directory / SUMS_NAME
    if not path.is_file():
        raise UsageError(f"{directory}: not a bundle; there is no {SUMS_NAME} in it")
    data = read_capped(path, MAX_SUMS_SIZE)
    parse_sums(data)
    return data


def _add(directory: Path, key_id: str, signature: bytes) -> str:
    name = signature_name(key_id)
    for copy in (name, spare_name(name)):
        write_file(directory / copy, signature)
    return key_id
