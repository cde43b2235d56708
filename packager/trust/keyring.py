"""The keyring: the public keys a host trusts, and how many of them must sign."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from packager.errors import MalformedError, TrustError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.fields import Fields
from packager.format.keyset import (
    MAX_KEYS,
    MAX_SIGNATURE_SIZE,
    KeyEntry,
    KeySet,
    SignedKeySet,
    check_signature_count,
    key_json,
    key_set_json,
    parse_algorithms,
    parse_key,
    parse_key_set_fields,
)
from packager.format.relpath import has_unprintable
from packager.format.timestamps import format_timestamp, parse_timestamp
from packager.trust.keys import ALGORITHMS, PublicKey, parse_spki

KEYRING_NAME = "keyring.json"
MAX_KEYRING_SIZE = 1 << 22  # the keys twice, where they came in a set
MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True)
class TrustedKey:
    """A key under the name its host gave it, and when its word counts.

    ``not_before`` and ``not_after`` bound the moments at which it does; ``None`` is no bound.
    ``reason`` says why it is revoked, if somebody said so.
    """

    name: str
    key: PublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False
    reason: str | None = None

    def fault(self, now: datetime) -> str | None:
        """Why the key's word does not count at ``now``, or ``None`` if it does."""
        if self.revoked:
            return "is revoked" + (f" ({self.reason})" if self.reason else "")
        if self.not_before is not None and now < self.not_before:
            return f"is not valid before {format_timestamp(self.not_before)}"
        if self.not_after is not None and now >= self.not_after:
            return f"was valid until {format_timestamp(self.not_after)}"
        return None


@dataclass(frozen=True)
class Keyring:
    """Trusted keys, by distinct key id, and the policy that signatures must meet.

    ``threshold`` different keys must have signed, and among them one of each of the
    ``require_algorithms``. ``signed_set`` is the team's key set that this host follows, or
    ``None`` where the keys were added by hand.
    """

    threshold: int = 1
    keys: tuple[TrustedKey, ...] = ()
    require_algorithms: tuple[str, ...] = ()
    signed_set: SignedKeySet | None = None

    def find(self, key_id: str) -> TrustedKey | None:
        """The trusted key of that id, if there is one."""
        return next((trusted for trusted in self.keys if trusted.key.key_id == key_id), None)

    @property
    def usable(self) -> tuple[TrustedKey, ...]:
        """The keys that are not revoked."""
        return tuple(trusted for trusted in self.keys if not trusted.revoked)

    def lacking_algorithms(self, key_ids: Iterable[str]) -> tuple[str, ...]:
        """The required algorithms of which none of the keys ``key_ids`` is."""
        found = [self.find(key_id) for key_id in key_ids]
        present = {trusted.key.algorithm for trusted in found if trusted}
        return tuple(name for name in self.require_algorithms if name not in present)

    def with_key(self, trusted: TrustedKey) -> Keyring:
        """This keyring and one more key.

        Raises ``TrustError`` if it is there already, or if this host follows a key set.
        """
        self._require_by_hand()
        return self._and(trusted)

    def _and(self, trusted: TrustedKey) -> Keyring:
        present = self.find(trusted.key.key_id)
        if present:
            state = "revoked here" if present.revoked else "trusted already"
            raise TrustError(f"key {trusted.key.key_id} is {state}, as {present.name!a}")
        _check_line(trusted.name, "name for a key", "airpack trust add FILE.pub --name NAME")
        if trusted.reason is not None:
            _check_reason(trusted.reason)
        before, after = trusted.not_before, trusted.not_after
        if before is not None and after is not None and after <= before:
            raise TrustError(
                f"key {trusted.key.key_id} would be valid until {format_timestamp(after)}, and "
                f"not before {format_timestamp(before)}: never"
            )
        if len(self.keys) >= MAX_KEYS:
            raise _full()
        return replace(self, keys=(*self.keys, trusted))

    def with_run_keys(self, keys: Iterable[PublicKey]) -> Keyring:
        """This keyring and keys named for this one run."""
        ring = self
        for key in keys:
            if not ring.find(key.key_id):
                ring = ring._and(TrustedKey("named for this run", key))
        return ring

    def with_revoked(self, key_id: str, reason: str | None = None) -> Keyring:
        """This keyring with one key revoked: it stays, so that it cannot be trusted anew.

        It always can be, also where the keys that are left cannot meet the policy: then nothing
        is accepted any more. Easing the policy first would let the thief's signature suffice.
        """
        trusted = self._known(key_id)
        if trusted.revoked:
            return self
        if reason is not None:
            _check_reason(reason)
        revoked = replace(trusted, revoked=True, reason=reason)
        keys = tuple(revoked if other is trusted else other for other in self.keys)
        return replace(self, keys=keys)

    def without_key(self, key_id: str) -> Keyring:
        """This keyring less one key; raises ``TrustError`` if that breaks the policy."""
        self._require_by_hand()
        known = self._known(key_id)
        ring = replace(self, keys=tuple(trusted for trusted in self.keys if trusted is not known))
        if ring.usable:
            ring.require_within_reach()
        return ring

    def with_threshold(self, threshold: int) -> Keyring:
        """This keyring with another threshold, from 1 to the number of keys not revoked."""
        return self.with_policy(threshold, self.require_algorithms)

    def with_policy(self, threshold: int, require_algorithms: Iterable[str]) -> Keyring:
        """This keyring with another policy, which its keys must be able to meet.

        Raises ``TrustError`` if they are not, or if this host follows a key set.
        """
        self._require_by_hand()
        usable = len(self.usable)
        if not 1 <= threshold <= usable:
            raise TrustError(
                f"threshold {threshold} is not between 1 and {usable} keys",
                hint="airpack trust add FILE.pub, for each further person who signs",
            )
        wanted = tuple(sorted(set(require_algorithms)))
        ring = replace(self, threshold=threshold, require_algorithms=wanted)
        ring.require_within_reach()
        return ring

    def require_within_reach(self) -> None:
        """Raise ``TrustError`` if not even all usable keys together could meet the policy."""
        usable = [trusted.key.key_id for trusted in self.usable]
        if len(usable) < self.threshold:
            raise TrustError(
                f"{len(usable)} keys could never give the {self.threshold} signatures required",
                hint=self._way_out(f"airpack trust policy --threshold {len(usable)}"),
            )
        if lacking := self.lacking_algorithms(usable):
            raise TrustError(
                f"no usable key here is of the kind {lacking[0]}, of which a signature is required",
                hint=self._way_out(
                    f"airpack trust add FILE.pub, with a key that `airpack keys generate "
                    f"--algorithm {lacking[0]}` made; or airpack trust policy --threshold "
                    f"{self.threshold}, without that kind"
                ),
            )

    def _way_out(self, by_hand: str) -> str:
        if self.signed_set is not None:
            return "airpack trust import FILE --anew, with a new set that starts from number 1"
        return by_hand if self.usable else "airpack trust add FILE.pub"

    def _require_by_hand(self) -> None:
        if self.signed_set is not None:
            raise TrustError(
                f"this host follows key set {self.signed_set.key_set.number}; only the next set "
                "changes its keys and its policy, or airpack trust revoke takes one away",
                hint="airpack trust import FILE, with a set that `airpack keys set new` began",
            )

    def _known(self, key_id: str) -> TrustedKey:
        trusted = self.find(key_id)
        if trusted is None:
            raise TrustError(f"no trusted key has the id {key_id}", hint="airpack trust list")
        return trusted

    def with_set(self, signed: SignedKeySet) -> Keyring:
        """The keyring that ``signed`` makes of this one: its keys, its policy.

        What is revoked here stays so, named by the set or not. Whether the set may do that is for
        :mod:`packager.trust.rotation` to decide.
        """
        revoked = {trusted.key.key_id: trusted for trusted in self.keys if trusted.revoked}
        ring = keyring_of_set(signed.key_set)
        named = {trusted.key.key_id for trusted in ring.keys}
        keys = [revoked.get(t.key.key_id, t) if not t.revoked else t for t in ring.keys]
        keys += [trusted for key_id, trusted in revoked.items() if key_id not in named]
        if len(keys) > MAX_KEYS:
            raise _full()
        followed = signed if signed.key_set.number else None
        return replace(ring, keys=tuple(keys), signed_set=followed)

    def as_set(self) -> SignedKeySet:
        """The set that this host follows, or its own keys as set 0, which nobody signed."""
        if self.signed_set is not None:
            return self.signed_set
        keys = tuple(_entry(trusted) for trusted in self.keys)
        return SignedKeySet(KeySet(0, self.threshold, self.require_algorithms, keys), {})


def _check_reason(reason: str) -> None:
    _check_line(reason, "reason", "airpack trust revoke KEYID --reason TEXT")


def _full() -> TrustError:
    return TrustError(f"the keyring holds {MAX_KEYS} keys, which is its limit")


def _check_line(text: str, what: str, hint: str) -> None:
    if not 0 < len(text) <= MAX_NAME_CHARACTERS or has_unprintable(text):
        raise TrustError(
            f"{text[:80]!a} is no {what}: one line of at most {MAX_NAME_CHARACTERS} characters",
            hint=hint,
        )


def keyring_of_set(key_set: KeySet) -> Keyring:
    """The keys and the policy of a set.

    Raises ``TrustError`` for a key airpack does not accept, or a policy out of their reach.
    """
    ring = Keyring()
    for entry in key_set.keys:
        ring = ring.with_key(_trusted(entry))
    return ring.with_policy(key_set.threshold, check_algorithms(key_set.require_algorithms))


def check_algorithms(names: tuple[str, ...]) -> tuple[str, ...]:
    """``names``; raises ``TrustError`` for one that is no algorithm of airpack's."""
    for name in names:
        if name not in ALGORITHMS:
            raise TrustError(f"{name[:80]!a} is no algorithm; known are {', '.join(ALGORITHMS)}")
    return names


def _trusted(entry: KeyEntry) -> TrustedKey:
    key = parse_spki(entry.spki, f"key {entry.name[:80]!a}")
    if key.spki != entry.spki:
        raise TrustError(f"key {entry.name[:80]!a}: not in the one encoding that airpack writes")
    return TrustedKey(
        name=entry.name,
        key=key,
        not_before=parse_timestamp(entry.not_before) if entry.not_before else None,
        not_after=parse_timestamp(entry.not_after) if entry.not_after else None,
        revoked=entry.revoked,
        reason=entry.reason,
    )


def _entry(trusted: TrustedKey) -> KeyEntry:
    before, after = trusted.not_before, trusted.not_after
    return KeyEntry(
        name=trusted.name,
        spki=trusted.key.spki,
        not_before=format_timestamp(before) if before else None,
        not_after=format_timestamp(after) if after else None,
        revoked=trusted.revoked,
        reason=trusted.reason,
    )


def encode_keyring(ring: Keyring) -> bytes:
    """Write a keyring as canonical JSON."""
    return canonical.encode(
        {
            "threshold": ring.threshold,
            "require_algorithms": list(ring.require_algorithms),
            "keys": [key_json(_entry(trusted)) for trusted in ring.keys],
            "set": _signed_json(ring.signed_set) if ring.signed_set else None,
        }
    )


def _signed_json(signed: SignedKeySet) -> dict[str, Json]:
    return {
        "document": key_set_json(signed.key_set),
        "signatures": {
            key_id: base64.b64encode(signature).decode("ascii")
            for key_id, signature in signed.signatures.items()
        },
    }


def parse_keyring(data: bytes, what: str) -> Keyring:
    """Read a keyring; raises ``TrustError`` if a byte of it is out of place."""
    try:
        ring = _parse_document(data, what)
    except (MalformedError, TrustError) as error:
        raise TrustError(
            f"{what}: the keyring is damaged: {error.message.removeprefix(f'{what}: ')}",
            hint=f"remove {what}, then take each key again: airpack trust add FILE.pub, or "
            "airpack trust import FILE; airpack log says which were revoked",
        ) from None
    return ring


def _parse_document(data: bytes, what: str) -> Keyring:
    fields = Fields.of(canonical.decode(data, what=what, max_size=MAX_KEYRING_SIZE), what)
    fields.only("threshold", "require_algorithms", "keys", "set")
    ring = Keyring()
    for entry in fields.each("keys", parse_key):
        ring = ring.with_key(_trusted(entry))
    ring = replace(
        ring,
        threshold=fields.integer("threshold", least=1, most=max(1, len(ring.keys))),
        require_algorithms=check_algorithms(parse_algorithms(fields)),
        signed_set=_parse_signed(fields.mapping("set")) if fields.has("set") else None,
    )
    if ring.signed_set and ring.with_set(ring.signed_set) != ring:
        raise MalformedError(f"{what}: its keys are not those of its set")
    if encode_keyring(ring) != data:
        raise MalformedError(f"{what}: not as airpack writes it")
    return ring


def _parse_signed(fields: Fields) -> SignedKeySet:
    fields.only("document", "signatures")
    document = fields.mapping("document")
    encoded = fields.mapping("signatures")
    check_signature_count(len(encoded.values), encoded.where)
    key_set = parse_key_set_fields(document)
    return SignedKeySet(key_set, {i: _parse_signature(encoded, i) for i in encoded.values})


def _parse_signature(fields: Fields, key_id: str) -> bytes:
    signature = fields.base64(key_id)
    if len(signature) > MAX_SIGNATURE_SIZE:
        raise fields.refuse(key_id, f"over {MAX_SIGNATURE_SIZE} bytes")
    return signature
