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
from packager.format.relpath import has_unprintable
from packager.format.timestamps import format_timestamp, parse_timestamp
from packager.trust.keys import PublicKey, parse_spki

KEYRING_NAME = "keyring.json"
MAX_KEYRING_SIZE = 1 << 20
MAX_KEYS = 256
MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True)
class TrustedKey:
    """A key under the name its host gave it, and when its word counts.

    ``not_before`` and ``not_after`` bound the moments at which it does; ``None`` is no bound.
    """

    name: str
    key: PublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False

    def fault(self, now: datetime) -> str | None:
        """Why the key's word does not count at ``now``, or ``None`` if it does."""
        if self.revoked:
            return "is revoked"
        if self.not_before is not None and now < self.not_before:
            return f"is not valid before {format_timestamp(self.not_before)}"
        if self.not_after is not None and now >= self.not_after:
            return f"was valid until {format_timestamp(self.not_after)}"
        return None


@dataclass(frozen=True)
class Keyring:
    """Trusted keys, by distinct key id, and the ``threshold`` of signatures needed."""

    threshold: int = 1
    keys: tuple[TrustedKey, ...] = ()

    def find(self, key_id: str) -> TrustedKey | None:
        """The trusted key of that id, if there is one."""
        return next((trusted for trusted in self.keys if trusted.key.key_id == key_id), None)

    def with_key(self, trusted: TrustedKey) -> Keyring:
        """This keyring and one more key; raises ``TrustError`` if it is there already."""
        present = self.find(trusted.key.key_id)
        if present:
            state = "revoked here" if present.revoked else "trusted already"
            raise TrustError(f"key {trusted.key.key_id} is {state}, as {present.name!a}")
        if not 0 < len(trusted.name) <= MAX_NAME_CHARACTERS or has_unprintable(trusted.name):
            raise TrustError(
                f"{trusted.name[:80]!a} is no name for a key: one line of at most "
                f"{MAX_NAME_CHARACTERS} characters",
                hint="airpack trust add FILE.pub --name NAME",
            )
        if len(self.keys) >= MAX_KEYS:
            raise TrustError(f"the keyring holds {MAX_KEYS} keys, which is its limit")
        return replace(self, keys=(*self.keys, trusted))

    def with_run_keys(self, keys: Iterable[PublicKey]) -> Keyring:
        """This keyring and keys named for this one run."""
        ring = self
        for key in keys:
            if not ring.find(key.key_id):
                ring = ring.with_key(TrustedKey("named for this run", key))
        return ring

    def with_revoked(self, key_id: str) -> Keyring:
        """This keyring with one key revoked: it stays, so that it cannot be trusted anew."""
        if not self.find(key_id):
            raise _unknown(key_id)
        keys = tuple(replace(k, revoked=k.revoked or k.key.key_id == key_id) for k in self.keys)
        return replace(self, keys=keys)

    def without_key(self, key_id: str) -> Keyring:
        """This keyring less one key; raises ``TrustError`` if that breaks the threshold."""
        if not self.find(key_id):
            raise _unknown(key_id)
        keys = tuple(trusted for trusted in self.keys if trusted.key.key_id != key_id)
        if keys and len(keys) < self.threshold:
            raise TrustError(
                f"{len(keys)} keys could never give the {self.threshold} signatures required",
                hint=f"airpack trust policy --threshold {len(keys)}",
            )
        return replace(self, keys=keys)

    def with_threshold(self, threshold: int) -> Keyring:
        """This keyring with another threshold, from 1 to the number of keys not revoked."""
        usable = sum(not trusted.revoked for trusted in self.keys)
        if not 1 <= threshold <= usable:
            raise TrustError(f"threshold {threshold} is not between 1 and {usable} keys")
        return replace(self, threshold=threshold)


def _unknown(key_id: str) -> TrustError:
    return TrustError(f"no trusted key has the id {key_id}", hint="airpack trust list")


def encode_keyring(ring: Keyring) -> bytes:
    """Write a keyring as canonical JSON."""
    return canonical.encode(
        {
            "threshold": ring.threshold,
            "keys": [_key_json(trusted) for trusted in ring.keys],
        }
    )


def _key_json(trusted: TrustedKey) -> dict[str, Json]:
    before, after = trusted.not_before, trusted.not_after
    return {
        "name": trusted.name,
        "spki": base64.b64encode(trusted.key.spki).decode("ascii"),
        "not_before": format_timestamp(before) if before else None,
        "not_after": format_timestamp(after) if after else None,
        "revoked": trusted.revoked,
    }


def parse_keyring(data: bytes, what: str) -> Keyring:
    """Read a keyring; raises ``TrustError`` if a byte of it is out of place."""
    try:
        ring = _parse_document(data, what)
    except (MalformedError, TrustError) as error:
        raise TrustError(
            f"{what}: the keyring is damaged: {error.message.removeprefix(f'{what}: ')}",
            hint=f"remove {what}, then add each key again: airpack trust add FILE.pub",
        ) from None
    return ring


def _parse_document(data: bytes, what: str) -> Keyring:
    fields = Fields.of(canonical.decode(data, what=what, max_size=MAX_KEYRING_SIZE), what)
    fields.only("threshold", "keys")
    ring = Keyring()
    for trusted in fields.each("keys", _parse_key):
        ring = ring.with_key(trusted)
    threshold = fields.integer("threshold", least=1, most=max(1, len(ring.keys)))
    ring = replace(ring, threshold=threshold)
    if encode_keyring(ring) != data:
        raise MalformedError(f"{what}: not as airpack writes it")
    return ring


def _parse_key(fields: Fields) -> TrustedKey:
    fields.only("name", "spki", "not_before", "not_after", "revoked")
    try:
        spki = base64.b64decode(fields.text("spki"), validate=True)
    except ValueError:
        raise fields.refuse("spki", "not base64") from None
    return TrustedKey(
        name=fields.text("name"),
        key=parse_spki(spki, fields.place("spki")),
        not_before=_moment(fields, "not_before"),
        not_after=_moment(fields, "not_after"),
        revoked=fields.flag("revoked", False),
    )


def _moment(fields: Fields, key: str) -> datetime | None:
    text = fields.optional_text(key)
    return parse_timestamp(text) if text is not None else None
