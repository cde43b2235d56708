"""Key sets as files: the document, and beside it a signature of each person who signed."""

from __future__ import annotations

import os
from pathlib import Path

from packager.errors import UsageError
from packager.format.keyset import (
    MAX_KEY_SET_SIZE,
    MAX_SIGNATURE_SIZE,
    SignedKeySet,
    check_signature_count,
    encode_key_set,
    key_set_signature_id,
    key_set_signature_name,
    parse_key_set,
)
from packager.store.atomic import naming_refusals, read_capped, write_file


def read_key_set(path: Path) -> SignedKeySet:
    """The key set at ``path`` and the signatures beside it.

    Raises ``MalformedError``, ``IntegrityError`` or ``HostError``.
    """
    key_set = parse_key_set(read_capped(path, MAX_KEY_SET_SIZE), str(path))
    found: dict[str, Path] = {}
    with naming_refusals(path.parent), os.scandir(path.parent) as entries:
        for entry in entries:
            if key_id := key_set_signature_id(path.name, entry.name):
                found[key_id] = path.parent / entry.name
                check_signature_count(len(found), str(path))
    signatures = {i: read_capped(found[i], MAX_SIGNATURE_SIZE) for i in sorted(found)}
    return SignedKeySet(key_set, signatures)


def write_new_key_set(path: Path, signed: SignedKeySet) -> None:
    """Write a key set and its signatures where nothing is yet; raises ``UsageError`` if it is."""
    names = [key_set_signature_name(path.name, key_id) for key_id in signed.signatures]
    for place in (path, *map(path.with_name, names)):
        if os.path.lexists(place):
            raise UsageError(f"{place}: exists already", hint="choose another name")
    # The document last: who finds it finds its signatures.
    for key_id, signature in signed.signatures.items():
        write_key_set_signature(path, key_id, signature)
    write_file(path, encode_key_set(signed.key_set))


def write_key_set_signature(path: Path, key_id: str, signature: bytes) -> None:
    """Put a signature beside the document at ``path``."""
    write_file(path.with_name(key_set_signature_name(path.name, key_id)), signature)
