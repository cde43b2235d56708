"""The decision: may this bundle's index be believed?

Pure: bytes, a keyring and *now* go in; a :class:`VerifiedBundle` comes out, or an error says
why not. Everything behind this module takes a ``VerifiedBundle``, so that bytes which nobody
signed cannot reach the store. The steps, in this order, each ending the matter if it fails:

1. the signatures whose key ids are in the keyring are checked over the raw bytes of the sums;
   each key counts once; fewer than the threshold, or none of a kind of key that the policy
   requires, and nothing further is read;
2. the sums are parsed;
3. the index must have the digest that the sums give, and is parsed only then;
4. the index may ask for more signers than the keyring does, never for fewer;
5. the sums must list each volume of the index, and no other lock than the index names;
6. an expiry must lie ahead of *now*, told by a clock that can be right: one that says the
   bundle is not built yet tells nothing.

A key that is revoked, or outside its dates at *now*, counts as if it had not signed. *Now* is
what :mod:`packager.trust.clock` makes of the host's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from packager.errors import (
    AirpackError,
    DigestMismatchError,
    IntegrityError,
    MalformedError,
    PolicyError,
    TrustError,
)
from packager.format.bundle import INDEX_NAME, LOCK_NAME, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, parse_sums, signature_name
from packager.format.timestamps import parse_timestamp
from packager.trust.keyring import Keyring, TrustedKey
from packager.trust.keys import MAX_SIGNATURE_SIZE, PublicKey

T = TypeVar("T")

CLOCK_TOLERANCE = timedelta(days=1)  # between the clocks of the two hosts


@dataclass(frozen=True)
class Signer:
    """A trusted key that signed."""

    key_id: str
    name: str
    key: PublicKey


@dataclass(frozen=True)
class Evidence:
    """What was read from the medium, as raw bytes; signatures by the key id in their name."""

    sums: bytes
    signatures: Mapping[str, bytes]
    index: bytes


@dataclass(frozen=True)
class VerifiedBundle:
    """An index that trusted keys signed. Made by :func:`verify_bundle` and nowhere else."""

    bundle: Bundle
    sums: Mapping[str, Digest]
    signers: tuple[Signer, ...]
    evidence: Evidence

    @property
    def digest(self) -> Digest:
        """What names this very bundle: the digest of the signed sums."""
        return Digest.of(self.evidence.sums)


def first_believed(readings: Iterable[Evidence], decide: Callable[[Evidence], T]) -> T:
    """What ``decide`` makes of the first of the ``readings`` that it does not refuse.

    Raises its refusal of the first of all, ``TrustError`` or ``IntegrityError``, if none holds.
    """
    refusals: list[AirpackError] = []
    for evidence in readings:
        try:
            return decide(evidence)
        except (TrustError, IntegrityError) as error:
            refusals.append(error)
    raise refusals[0]


def verify_bundle(evidence: Evidence, keyring: Keyring, *, now: datetime) -> VerifiedBundle:
    """Decide, in the steps of this module's docstring.

    Raises ``TrustError``, ``IntegrityError`` or ``PolicyError``.
    """
    signers = require_signers(evidence, keyring, now=now)
    sums = parse_sums(evidence.sums)
    bundle = _parse_listed_index(evidence.index, sums)
    _require(len(signers), bundle.signers, "the bundle's release policy")
    _check_volumes_listed(bundle, sums)
    _check_lock(bundle, sums)
    _check_expiry(bundle, now)
    return VerifiedBundle(bundle, sums, signers, evidence)


def choose_signatures(
    readings: Mapping[str, Sequence[bytes]], sums: bytes, keyring: Keyring
) -> dict[str, bytes]:
    """Of the ``readings`` of each signature, by key id, the first that holds over ``sums``.

    Where none does, or the keyring does not know the key, it is the first of all: to decide on
    it is for :func:`find_signers`.
    """
    chosen: dict[str, bytes] = {}
    for key_id, copies in readings.items():
        trusted = keyring.find(key_id)
        holding = (copy for copy in copies if trusted and trusted.key.verifies(copy, sums))
        chosen[key_id] = next(holding, copies[0])
    return chosen


def require_signers(evidence: Evidence, keyring: Keyring, *, now: datetime) -> tuple[Signer, ...]:
    """The keys that signed, as many and of such kinds as the keyring's policy has it: step 1.

    Raises ``TrustError`` where :func:`find_signers` does, and where they do not meet the policy.
    """
    signers = find_signers(evidence, keyring, now=now)
    _require(len(signers), keyring.threshold, "the keyring")
    if lacking := keyring.lacking_algorithms(signer.key_id for signer in signers):
        raise TrustError(
            f"{SUMS_NAME}: no signature by a trusted key of the kind {lacking[0]}, which the "
            "keyring requires",
            hint=f"ask {_holders(keyring, lacking[0], now)} for a signature, and put it beside "
            f"{SUMS_NAME}",
        )
    return signers


def _holders(keyring: Keyring, algorithm: str, now: datetime) -> str:
    """Whose signatures of that kind would count."""
    usable = [k for k in keyring.keys if k.key.algorithm == algorithm and k.fault(now) is None]
    return " or ".join(f"{k.name} (key {k.key.key_id})" for k in usable[:3]) or "the sender"


def find_signers(evidence: Evidence, keyring: Keyring, *, now: datetime) -> tuple[Signer, ...]:
    """The distinct keys, trusted at ``now``, whose signatures over the sums hold.

    Raises ``TrustError`` where no signature counts, or where one under a trusted key's id is
    not that key's: a signature that ought to hold and does not is damage or forgery.
    """
    if not keyring.keys:
        raise TrustError(
            "this host trusts no key yet",
            hint="airpack trust add FILE.pub, with a file that did not come on this medium",
        )
    if not evidence.signatures:
        raise TrustError(
            f"no signature: the bundle has no {SUMS_NAME}.<key-id>.sig",
            hint="copy it from another medium, or from where the bundle was built and signed",
        )
    signers: list[Signer] = []
    faults: list[str] = []
    for key_id, signature in sorted(evidence.signatures.items()):
        trusted = keyring.find(key_id)
        if trusted is None:
            continue
        fault = trusted.fault(now)
        if fault:
            faults.append(f"key {key_id} ({trusted.name}) {fault}")
            continue
        _check_signature(trusted, signature, evidence.sums)
        signers.append(Signer(key_id, trusted.name, trusted.key))
    if not signers and faults:
        raise TrustError(
            f"{SUMS_NAME}: {'; '.join(faults[:5])}; this host takes it to be {now:%Y-%m-%d}",
            hint="ask for a release signed with a key that is valid, or check this host's clock",
        )
    if not signers:
        ids = ", ".join(sorted(evidence.signatures)[:5])
        raise TrustError(
            f"{SUMS_NAME}: signed by {ids}, none of which this host trusts",
            hint="compare the fingerprint with the sender, then: airpack trust add FILE.pub",
        )
    return tuple(signers)


def _check_signature(trusted: TrustedKey, signature: bytes, sums: bytes) -> None:
    what = signature_name(trusted.key.key_id)
    if not signature:
        raise TrustError(f"{what}: is empty")
    if len(signature) > MAX_SIGNATURE_SIZE:
        raise TrustError(f"{what}: over {MAX_SIGNATURE_SIZE} bytes, too large for a signature")
    if not trusted.key.verifies(signature, sums):
        raise TrustError(
            f"{what}: not a signature by {trusted.name!a} over this {SUMS_NAME}",
            hint=f"install nothing from this medium; if it is only damaged, {SUMS_NAME} and its "
            "signatures, copied again from another medium or from where it was built, mend it",
        )


def _require(count: int, needed: int, who: str) -> None:
    if count < needed:
        raise TrustError(
            f"{SUMS_NAME}: signed by {count} of the {needed} trusted keys that {who} requires",
            hint=f"ask for the missing signature, and put it beside {SUMS_NAME}",
        )


def _parse_listed_index(index: bytes, sums: Mapping[str, Digest]) -> Bundle:
    if INDEX_NAME not in sums:
        raise MalformedError(f"{SUMS_NAME}: does not list {INDEX_NAME}")
    if Digest.of(index) != sums[INDEX_NAME]:
        raise DigestMismatchError(f"{INDEX_NAME}: not the file that was signed")
    return parse_bundle(index)


def _check_volumes_listed(bundle: Bundle, sums: Mapping[str, Digest]) -> None:
    for volume in bundle.volume_files:
        if volume.name not in sums:
            raise MalformedError(f"{SUMS_NAME}: does not list {volume.name}")


def _check_lock(bundle: Bundle, sums: Mapping[str, Digest]) -> None:
    if sums.get(LOCK_NAME, bundle.lock) != bundle.lock:
        raise MalformedError(f"{INDEX_NAME}: lock: not the {LOCK_NAME} that {SUMS_NAME} lists")


def _check_expiry(bundle: Bundle, now: datetime) -> None:
    if bundle.expires is None:
        return
    if now < parse_timestamp(bundle.created) - CLOCK_TOLERANCE:
        raise PolicyError(
            f"{bundle.title} expires on {bundle.expires} and was built on {bundle.created}; this "
            f"host takes it to be {now:%Y-%m-%d}, so nothing can be said of its expiry",
            hint="set this host's clock: date --set 'YYYY-MM-DD HH:MM'",
        )
    if parse_timestamp(bundle.expires) <= now:
        raise PolicyError(
            f"{bundle.title} expired on {bundle.expires}; this host takes it to be {now:%Y-%m-%d}",
            hint="ask for a newer release, or check this host's clock",
        )
