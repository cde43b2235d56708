"""Whether a signed provenance holds: by the key in its name, and of the very statement listed."""

from __future__ import annotations

from packager.errors import TrustError
from packager.format.digest import Digest
from packager.format.envelope import parse_envelope
from packager.format.statement import PROVENANCE_NAME
from packager.trust.keys import PublicKey


def check_provenance(data: bytes, key: PublicKey, statement: Digest, what: str) -> None:
    """Raise unless ``data``, called ``what``, is the envelope of ``key`` round ``statement``.

    ``statement`` is the digest that the sums have for ``provenance.json``. Raises ``TrustError``
    for another key or another statement, ``MalformedError`` for what is no envelope.
    """
    envelope = parse_envelope(data, what)
    if Digest.of(envelope.payload) != statement:
        raise TrustError(f"{what}: holds another statement than {PROVENANCE_NAME}")
    if envelope.key_id != key.key_id or not key.verifies(envelope.signature, envelope.signed_bytes):
        raise TrustError(f"{what}: not a signature by the key {key.key_id}")
