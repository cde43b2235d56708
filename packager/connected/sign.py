"""Signatures over a bundle's sums: one detached file for each signer."""

from __future__ import annotations

from pathlib import Path

from packager.connected.keys import SigningKey
from packager.errors import TrustError, UsageError
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, parse_sums, signature_name, spare_name
from packager.store.atomic import read_capped, write_file
from packager.trust.keys import MAX_KEY_FILE_SIZE, MAX_SIGNATURE_SIZE, P256, parse_public_key


def sign_bundle(directory: Path, key: SigningKey) -> str:
    """Add the signature of ``key`` to the bundle; returns the key id."""
    return _add(directory, key.public.key_id, key.sign(_read_sums(directory)))


def import_signature(directory: Path, signature: Path, public: Path) -> str:
    """Add a signature made elsewhere, once it holds; returns the key id.

    Raises ``TrustError`` for one that is not the public key's over this bundle's sums.
    """
    key = parse_public_key(read_capped(public, MAX_KEY_FILE_SIZE), str(public))
    data = read_capped(signature, MAX_SIGNATURE_SIZE)
    if not key.verifies(data, _read_sums(directory)):
        stock = f"openssl dgst -sha256 -sign KEY -out SIG {directory / SUMS_NAME}"
        raise TrustError(
            f"{signature}: not a signature of {key.key_id} over {SUMS_NAME}",
            hint=stock if key.algorithm == P256 else None,
        )
    return _add(directory, key.key_id, data)


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
