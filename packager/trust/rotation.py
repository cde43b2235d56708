"""Which key set may take the place of which: the rules of python-tuf's root metadata.

Pure, and without a clock: a host that lay still for years can still follow, set by set. The
steps for set n + 1 on a host that follows set n, each ending the matter if it fails:

1. its number is n + 1: none is left out, none comes back;
2. as many usable keys of set n as its threshold have signed the document of set n + 1, and one of
   each kind that it requires;
3. as many usable keys of set n + 1 as *its* threshold have, and one of each kind;
4. what set n revoked, set n + 1 names, revoked: it can never be trusted anew.

Usable is a key that neither the set itself nor this host has revoked; dates do not count here.
A first set has none before it: it must meet step 3, and a person must compare its fingerprint.
(TUF specification s.5.3.4: "signed by a threshold of keys" of both.)
"""

from __future__ import annotations

from collections.abc import Iterable

from packager.errors import TrustError
from packager.format.keyset import SignedKeySet, key_set_signature_name
from packager.trust.keyring import Keyring


def accept_first(signed: SignedKeySet, keyring: Keyring) -> Keyring:
    """The keyring that a first set makes, once a person has compared its fingerprint.

    What ``keyring`` has revoked stays revoked. Set 0, a host's own keyring, nobody signs. Raises
    ``TrustError`` where the set's own keys do not meet its policy.
    """
    adopted = keyring.with_set(signed)
    if signed.key_set.number:
        _require_signed(signed, adopted, f"set {signed.key_set.number} itself")
    return adopted


def follow(keyring: Keyring, chain: Iterable[SignedKeySet]) -> Keyring:
    """The keyring after each set of the ``chain``, in the order of their numbers.

    The set that is in effect may stand first in it. Raises ``TrustError`` where a set may not
    take the place of the one before it; then none of them does.
    """
    for signed in sorted(chain, key=lambda signed: signed.key_set.number):
        if signed.key_set != keyring.as_set().key_set:
            keyring = _next(keyring, signed)
    return keyring


def _next(keyring: Keyring, signed: SignedKeySet) -> Keyring:
    """The steps of this module's docstring."""
    before, after = keyring.as_set().key_set, signed.key_set
    _check_number(before.number, after.number)
    _require_signed(signed, keyring, f"set {before.number}")
    adopted = keyring.with_set(signed)
    _require_signed(signed, adopted, f"set {after.number} itself")
    still_revoked = {entry.key_id for entry in after.keys if entry.revoked}
    for entry in before.keys:
        if entry.revoked and entry.key_id not in still_revoked:
            raise TrustError(
                f"key set {after.number}: does not name key {entry.key_id} ({entry.name}) as "
                f"revoked, as set {before.number} does",
                hint=f"airpack keys set new OUT --after SET-{before.number} keeps it",
            )
    return adopted


def _check_number(before: int, after: int) -> None:
    if after == before + 1:
        return
    if after > before:
        raise TrustError(
            f"key set {after}: this host follows set {before}, and set {before + 1} is missing "
            "between them",
            hint="airpack trust import FILE..., with every set from there on",
        )
    fact = "another set with that number" if after == before else f"set {before}, a newer one"
    raise TrustError(f"key set {after}: this host follows {fact}")


def _require_signed(signed: SignedKeySet, keyring: Keyring, whose: str) -> None:
    """Raise ``TrustError`` unless the signatures meet the policy of ``keyring``."""
    number = signed.key_set.number
    signers = count_signers(signed, keyring)
    if len(signers) < keyring.threshold:
        raise TrustError(
            f"key set {number}: signed by {len(signers)} of the {keyring.threshold} keys that "
            f"{whose} requires",
            hint="ask the sender for the missing signatures, and put them beside it: both the "
            "old set's keys and the new set's sign a new set",
        )
    if lacking := keyring.lacking_algorithms(signers):
        raise TrustError(
            f"key set {number}: no signature by a key of the kind {lacking[0]}, which {whose} "
            "requires",
            hint="ask the sender for that signature, and put it beside the set",
        )


def count_signers(signed: SignedKeySet, keyring: Keyring) -> tuple[str, ...]:
    """The ids of the usable keys of ``keyring`` that signed the set.

    Raises ``TrustError`` where a signature under such a key's id is not that key's.
    """
    document = signed.document
    signers = []
    for trusted in keyring.usable:
        key_id = trusted.key.key_id
        signature = signed.signatures.get(key_id)
        if signature is None:
            continue
        if not trusted.key.verifies(signature, document):
            raise TrustError(
                f"key set {signed.key_set.number}: {key_set_signature_name('*', key_id)} is not a "
                f"signature by {trusted.name!a} over this set",
                hint="copy the set and its signatures again from where they were made",
            )
        signers.append(key_id)
    return tuple(signers)
