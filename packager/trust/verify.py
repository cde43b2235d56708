"""The decision: may this bundle's index be believed?

Pure: bytes, a keyring and *now* go in; a :class:`VerifiedBundle` comes out, or an error says
why not. Everything behind this module takes a ``VerifiedBundle``, so that bytes which nobody
signed cannot reach the store. The steps, in this order, each ending the matter if it fails:

1. the signatures whose key ids are in the keyring are checked over the raw bytes of the sums;
   each key counts once; fewer than the threshold, and nothing further is read;
2. the sums are parsed;
3. the index must have the digest that the sums give, and is parsed only then;
4. the index may ask for more signers than the keyring does, never for fewer;
5. the sums must list each volume of the index;
6. an expiry must lie ahead of *now*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from packager.errors import (
    DigestMismatchError,
    MalformedError,
    PolicyError,
    TrustError,
)
from packager.format.bundle import INDEX_NAME, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, parse_sums
from packager.format.timestamps import parse_timestamp
from packager.trust.keyring import Keyring
from packager.trust.keys import MAX_SIGNATURE_SIZE


@dataclass(frozen=True)
class Signer:
    """A trusted key that signed."""

    key_id: str
    name: str


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


def verify_bundle(evidence: Evidence, keyring: Keyring, *, now: datetime) -> VerifiedBundle:
    """Decide, in the steps of this module's docstring.

    Raises ``TrustError``, ``IntegrityError`` or ``PolicyError``.
    """
    signers = find_signers(evidence, keyring)
    _require(len(signers), keyring.threshold, "the keyring")
    sums = parse_sums(evidence.sums)
    bundle = _parse_listed_index(evidence.index, sums)
    _require(len(signers), bundle.signers, "the bundle's release policy")
    _check_volumes_listed(bundle, sums)
    _check_expiry(bundle, now)
    return VerifiedBundle(bundle, sums, signers, evidence)


def find_signers(evidence: Evidence, keyring: Keyring) -> tuple[Signer, ...]:
    """The distinct trusted keys whose signatures over the sums hold.

    Raises ``TrustError`` where no signature counts, or where one under a trusted key's id is
    not that key's: a signature that ought to hold and does not is damage or forgery.
    """
    if not keyring.keys:
        raise TrustError(
            "this host trusts no key yet",
            hint="airpack trust add FILE.pub, with a file that did not come on this medium",
        )
    if not evidence.signatures:
        raise TrustError(f"no signature: the bundle has no {SUMS_NAME}.<key-id>.sig")
    signers = []
    for key_id, signature in sorted(evidence.signatures.items()):
        trusted = keyring.find(key_id)
        if trusted is None:
            continue
        _check_signature_size(key_id, signature)
        if not trusted.key.verifies(signature, evidence.sums):
            raise TrustError(f"the signature of {key_id} ({trusted.name}) does not hold")
        signers.append(Signer(key_id, trusted.name))
    if not signers:
        ids = ", ".join(sorted(evidence.signatures)[:5])
        raise TrustError(
            f"signed by {ids}, none of which this host trusts",
            hint="compare the fingerprint with the sender, then: airpack trust add FILE.pub",
        )
    return tuple(signers)


def _check_signature_size(key_id: str, signature: bytes) -> None:
    if not signature:
        raise TrustError(f"the signature of {key_id} is empty")
    if len(signature) > MAX_SIGNATURE_SIZE:
        raise TrustError(f"the signature of {key_id} is over {MAX_SIGNATURE_SIZE} bytes")


def _require(count: int, needed: int, who: str) -> None:
    if count < needed:
        raise TrustError(f"{count} of the {needed} signatures that {who} requires")


def _parse_listed_index(index: bytes, sums: Mapping[str, Digest]) -> Bundle:
    if INDEX_NAME not in sums:
        raise MalformedError(f"{SUMS_NAME}: does not list {INDEX_NAME}")
    if Digest.of(index) != sums[INDEX_NAME]:
        raise DigestMismatchError(f"{INDEX_NAME}: not the file that was signed")
    return parse_bundle(index)


def _check_volumes_listed(bundle: Bundle, sums: Mapping[str, Digest]) -> None:
    for volume in bundle.volumes:
        if volume.name not in sums:
            raise MalformedError(f"{SUMS_NAME}: does not list {volume.name}")


def _check_expiry(bundle: Bundle, now: datetime) -> None:
    if bundle.expires is not None and parse_timestamp(bundle.expires) <= now:
        raise PolicyError(
            f"{bundle.title} expired on {bundle.expires}; this host's clock says {now:%Y-%m-%d}",
            hint="ask for a newer release, or check this host's clock",
        )
