"""The keyring: the public keys a host trusts, and how many of them must sign."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, replace

from packager.errors import MalformedError, TrustError
from packager.format import canonical
from packager.format.fields import Fields
from packager.trust.keys import PublicKey, parse_spki

KEYRING_NAME = "keyring.json"
MAX_KEYRING_SIZE = 1 << 20
MAX_KEYS = 256


@dataclass(frozen=True)
class TrustedKey:
    """A key under the name its host gave it."""

    name: str
    key: PublicKey


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
            raise TrustError(f"key {trusted.key.key_id} is trusted already, as {present.name!r}")
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

    def without_key(self, key_id: str) -> Keyring:
        """This keyring less one key; raises ``TrustError`` if that breaks the threshold."""
        if not self.find(key_id):
            raise TrustError(f"no trusted key has the id {key_id}", hint="airpack trust list")
        keys = tuple(trusted for trusted in self.keys if trusted.key.key_id != key_id)
        if keys and len(keys) < self.threshold:
            raise TrustError(
                f"{len(keys)} keys could never give the {self.threshold} signatures required",
                hint=f"airpack trust policy --threshold {len(keys)}",
            )
        return replace(self, keys=keys)

    def with_threshold(self, threshold: int) -> Keyring:
        """This keyring with another threshold, from 1 to the number of keys."""
        if not 1 <= threshold <= len(self.keys):
            raise TrustError(f"threshold {threshold} is not between 1 and {len(self.keys)} keys")
        return replace(self, threshold=threshold)


def encode_keyring(ring: Keyring) -> bytes:
    """Write a keyring as canonical JSON."""
    return canonical.encode(
        {
            "threshold": ring.threshold,
            "keys": [
                {"name": k.name, "spki": base64.b64encode(k.key.spki).decode("ascii")}
                for k in ring.keys
            ],
        }
    )


def parse_keyring(data: bytes, what: str) -> Keyring:
    """Read a keyring; raises ``TrustError`` if a byte of it is out of place."""
    try:
        document = canonical.decode(data, what=what, max_size=MAX_KEYRING_SIZE)
        fields = Fields.of(document, what)
        fields.only("threshold", "keys")
        threshold = fields.integer("threshold", least=1, most=MAX_KEYS)
        ring = Keyring()
        for trusted in fields.each("keys", _parse_key):
            ring = ring.with_key(trusted)
    except MalformedError as error:
        raise TrustError(f"the keyring is damaged: {error.message}") from None
    return replace(ring, threshold=threshold)


def _parse_key(fields: Fields) -> TrustedKey:
    fields.only("name", "spki")
    try:
        spki = base64.b64decode(fields.text("spki"), validate=True)
    except binascii.Error:
        raise fields.refuse("spki", "not base64") from None
    return TrustedKey(fields.text("name"), parse_spki(spki, fields.place("spki")))
