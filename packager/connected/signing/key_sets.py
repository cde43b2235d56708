"""Key sets: begun, and signed by one person after the other, on the connected side."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from packager.connected.signing.keys import SigningKey
from packager.connected.signing.sign import read_made_elsewhere
from packager.errors import TrustError
from packager.format.keyset import KeyEntry, KeySet
from packager.store.atomic import read_capped
from packager.store.key_sets import read_key_set, write_key_set_signature
from packager.trust.keyring import keyring_of_set
from packager.trust.keys import MAX_KEY_FILE_SIZE, parse_public_key


@dataclass(frozen=True)
class Changes:
    """What is to differ from the set before; keys to remove or revoke by their key ids.

    ``policy`` is a threshold and the algorithms of which a signature is required, or ``None``
    where it stays.
    """

    added: tuple[KeyEntry, ...] = ()
    removed: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    reason: str | None = None
    policy: tuple[int, tuple[str, ...]] | None = None


def next_key_set(before: KeySet | None, changes: Changes) -> KeySet:
    """The set that comes after ``before``, or the first one.

    Raises ``TrustError`` for a key id that ``before`` has not, for a key that it has already or
    has revoked, and for a policy that the keys could not meet.
    """
    before = before or KeySet(0, 1, (), ())
    _check_known(before, (*changes.removed, *changes.revoked))
    threshold, algorithms = changes.policy or (before.threshold, before.require_algorithms)
    kept = [entry for entry in before.keys if entry.key_id not in changes.removed]
    new = KeySet(
        number=before.number + 1,
        threshold=threshold,
        require_algorithms=tuple(sorted(set(algorithms))),
        keys=(*(_revoked(entry, changes) for entry in kept), *changes.added),
    )
    keyring_of_set(new)
    return new


def _check_known(before: KeySet, key_ids: Collection[str]) -> None:
    known = {entry.key_id: entry for entry in before.keys}
    for key_id in key_ids:
        if key_id not in known:
            raise TrustError(
                f"key set {before.number}: no key has the id {key_id}",
                hint="airpack keys set show SET",
            )
        if known[key_id].revoked:
            raise TrustError(
                f"key set {before.number}: key {key_id} is revoked, and every later set names it so"
            )


def _revoked(entry: KeyEntry, changes: Changes) -> KeyEntry:
    if entry.key_id not in changes.revoked:
        return entry
    return replace(entry, revoked=True, reason=changes.reason)


def sign_key_set(path: Path, key: SigningKey) -> str:
    """Put the signature of ``key`` beside the set at ``path``; returns the key id."""
    document = read_key_set(path).document
    write_key_set_signature(path, key.public.key_id, key.sign(document))
    return key.public.key_id


def import_key_set_signature(path: Path, signature: Path, public: Path) -> str:
    """Put a signature made elsewhere beside the set at ``path``; returns the key id.

    Raises ``TrustError`` for one that is not the public key's over this set.
    """
    key = parse_public_key(read_capped(public, MAX_KEY_FILE_SIZE), str(public))
    document = read_key_set(path).document
    made = read_made_elsewhere(signature, key, document, path)
    write_key_set_signature(path, key.key_id, made)
    return key.key_id
