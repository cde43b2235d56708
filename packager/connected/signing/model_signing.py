"""``airpack sign``, the part that others than airpack can check: OpenSSF model signatures.

What is signed of a variant are the digests of the index: nothing is read again. Only ECDSA keys
make such signatures; a sender with an ML-DSA key signs the sums alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packager.connected.signing.keys import SigningKey
from packager.errors import DigestMismatchError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.envelope import IN_TOTO, pre_authentication_encoding
from packager.format.model_signature import (
    ModelSignature,
    encode_model_signature,
    encode_statement,
    folder_digests,
    key_hint,
    model_signature_name,
)
from packager.format.sums import spare_name
from packager.format.variant import Variant
from packager.store.atomic import read_capped, write_file
from packager.trust.keys import P256, PublicKey

_LARGEST_SIGNATURE = bytes(72)  # the DER of two integers (RFC 3279 s.2.2.3)


def sign_variants(directory: Path, sums: Mapping[str, Digest], key: SigningKey) -> None:
    """Write the signature of ``key`` over the folder of each variant, and a spare copy.

    None, where the key is no ECDSA key, or where the ``sums`` are of a patch. Raises
    ``DigestMismatchError`` where the index is not the one that they list.
    """
    if key.public.algorithm != P256 or INDEX_NAME not in sums:
        return
    path = directory / INDEX_NAME
    index = read_capped(path, MAX_INDEX_SIZE)
    if Digest.of(index) != sums[INDEX_NAME]:
        raise DigestMismatchError(
            f"{path}: not the file that the sums list",
            hint=f"airpack repair {directory} --in-place, then this command again",
        )
    bundle = parse_bundle(index)
    for variant in bundle.variants:
        statement = _statement(bundle, variant)
        signature = key.sign(pre_authentication_encoding(IN_TOTO, statement))
        data = _encode(statement, signature, key.public)
        name = model_signature_name(variant.name, key.public.key_id)
        for copy in (spare_name(name), name):
            write_file(directory / copy, data)


def model_signature_sizes(bundle: Bundle, keys: Iterable[PublicKey]) -> Iterator[int]:
    """The size in bytes of each signature that ``keys`` make over a variant of ``bundle``."""
    statements = [_statement(bundle, variant) for variant in bundle.variants]
    for key in keys:
        if key.algorithm == P256:
            yield from (len(_encode(s, _LARGEST_SIGNATURE, key)) for s in statements)


def _statement(bundle: Bundle, variant: Variant) -> bytes:
    return encode_statement(variant.name, folder_digests(bundle, variant))


def _encode(statement: bytes, signature: bytes, key: PublicKey) -> bytes:
    return encode_model_signature(ModelSignature(statement, signature, key_hint(key.spki)))
