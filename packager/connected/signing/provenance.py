"""``airpack sign``, the part that speaks of how a bundle was made: its provenance, in an envelope.

The sums carry the digest of ``provenance.json``, and so its signature; the envelope says the same
to tools that know DSSE and nothing of airpack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packager.connected.signing.keys import SigningKey
from packager.errors import DigestMismatchError
from packager.format.digest import Digest
from packager.format.envelope import (
    IN_TOTO,
    Envelope,
    encode_envelope,
    envelope_name,
    pre_authentication_encoding,
)
from packager.format.statement import MAX_PROVENANCE_SIZE, PROVENANCE_NAME
from packager.format.sums import spare_name
from packager.store.atomic import read_capped, write_file


def sign_provenance(directory: Path, sums: Mapping[str, Digest], key: SigningKey) -> None:
    """Write the envelope of ``key``, and a spare copy; none, where the ``sums`` list no provenance.

    Raises ``DigestMismatchError`` where it is not the one that they list.
    """
    if PROVENANCE_NAME not in sums:
        return
    path = directory / PROVENANCE_NAME
    statement = read_capped(path, MAX_PROVENANCE_SIZE)
    if Digest.of(statement) != sums[PROVENANCE_NAME]:
        raise DigestMismatchError(
            f"{path}: not the file that the sums list",
            hint=f"airpack repair {directory} --in-place, then this command again",
        )
    signature = key.sign(pre_authentication_encoding(IN_TOTO, statement))
    data = encode_envelope(Envelope(statement, key.public.key_id, signature))
    name = envelope_name(key.public.key_id)
    for copy in (spare_name(name), name):
        write_file(directory / copy, data)


def envelope_sizes(statement: bytes, signature_sizes: Iterable[int]) -> Iterator[int]:
    """The size in bytes of the envelope of ``statement`` for each size of a signature."""
    for size in signature_sizes:
        yield len(encode_envelope(Envelope(statement, "0" * 16, bytes(size))))
