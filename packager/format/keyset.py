"""A key set: whose signatures count and how many are needed, as a numbered document.

The document is canonical JSON, and its keys sign its bytes: each signature is a file of its own
beside it, ``<document>.<key id>.sig``. Which set may take the
place of which is for :mod:`packager.trust.rotation` to say; here is only the form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import MalformedError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields

FORMAT = "airpack-key-set"
FORMAT_VERSION = 1
MAX_KEY_SET_SIZE = 1 << 21
MAX_KEYS = 256
MAX_SIGNATURES = 64
MAX_SIGNATURE_SIZE = 1 << 13  # ML-DSA-87 signatures are 4,627 bytes

_MEMBERS = ("format", "format_version", "number", "threshold", "require_algorithms", "keys")
_KEY_MEMBERS = ("name", "spki", "not_before", "not_after", "revoked", "reason")
_SIGNATURE = re.compile(r"\.([0-9a-f]{16})\.sig\Z")


@dataclass(frozen=True)
class KeyEntry:
    """A public key, by its SPKI in DER (RFC 5280 s.4.1.2.7), and when its word counts.

    ``not_before`` and ``not_after`` are moments or dates; ``reason`` says why it is revoked.
    """

    name: str
    spki: bytes
    not_before: str | None = None
    not_after: str | None = None
    revoked: bool = False
    reason: str | None = None

    @property
    def key_id(self) -> str:
        """The first 16 hexadecimal digits of the digest of the SPKI."""
        return hashlib.sha256(self.spki).hexdigest()[:16]


@dataclass(frozen=True)
class KeySet:
    """Keys, and the policy that their signatures must meet.

    ``number`` counts the sets of a team from 1. 0 is a host's own keyring, made by hand there and
    signed by nobody.
    """

    number: int
    threshold: int
    require_algorithms: tuple[str, ...]
    keys: tuple[KeyEntry, ...]

    @property
    def fingerprint(self) -> Digest:
        """The digest of the document: what two people compare by voice."""
        return Digest.of(encode_key_set(self))


@dataclass(frozen=True)
class SignedKeySet:
    """A key set and the signatures that came with it, by key id; none of them checked yet."""

    key_set: KeySet
    signatures: Mapping[str, bytes]

    @property
    def document(self) -> bytes:
        """The bytes that are signed."""
        return encode_key_set(self.key_set)


def encode_key_set(key_set: KeySet) -> bytes:
    """Write a key set as canonical JSON."""
    return canonical.encode(key_set_json(key_set))


def key_set_json(key_set: KeySet) -> dict[str, Json]:
    """The key set as a document."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "number": key_set.number,
        "threshold": key_set.threshold,
        "require_algorithms": list(key_set.require_algorithms),
        "keys": [key_json(entry) for entry in key_set.keys],
    }


def key_json(entry: KeyEntry) -> dict[str, Json]:
    """One key as a document."""
    return {
        "name": entry.name,
        "spki": base64.b64encode(entry.spki).decode("ascii"),
        "not_before": entry.not_before,
        "not_after": entry.not_after,
        "revoked": entry.revoked,
        "reason": entry.reason,
    }


def parse_key_set(data: bytes, what: str) -> KeySet:
    """Read a key set strictly; raises ``MalformedError`` unless it is as airpack writes it."""
    document = canonical.decode(data, what=what, max_size=MAX_KEY_SET_SIZE)
    fields = Fields.of(document, what)
    if fields.text("format") != FORMAT:
        raise fields.refuse("format", f"not {FORMAT}")
    if fields.integer("format_version") != FORMAT_VERSION:
        raise fields.refuse("format_version", f"this airpack reads version {FORMAT_VERSION} only")
    key_set = parse_key_set_fields(fields)
    if encode_key_set(key_set) != data:  # it is verified as it is written, whoever wrote it
        raise fields.refuse("keys", "one leaves out a member, which should be null")
    return key_set


def parse_key_set_fields(fields: Fields) -> KeySet:
    """Read the members of a key set; raises ``MalformedError``."""
    fields.only(*_MEMBERS)
    keys = fields.each("keys", parse_key)
    if not 1 <= len(keys) <= MAX_KEYS:
        raise fields.refuse("keys", f"{len(keys)} keys; there may be 1 to {MAX_KEYS}")
    if len({entry.key_id for entry in keys}) < len(keys):
        raise fields.refuse("keys", "a key stands twice")
    return KeySet(
        number=fields.integer("number"),
        threshold=fields.integer("threshold", least=1, most=len(keys)),
        require_algorithms=parse_algorithms(fields),
        keys=keys,
    )


def parse_algorithms(fields: Fields) -> tuple[str, ...]:
    """The algorithms of which a signature is needed each: sorted, each once."""
    algorithms = fields.texts("require_algorithms")
    if list(algorithms) != sorted(set(algorithms)):
        raise fields.refuse("require_algorithms", "one stands twice, or out of order")
    return algorithms


def parse_key(fields: Fields) -> KeyEntry:
    """Read one key; raises ``MalformedError``."""
    fields.only(*_KEY_MEMBERS)
    spki = fields.base64("spki")
    revoked = fields.flag("revoked")
    if fields.has("reason") and not revoked:
        raise fields.refuse("reason", "the key is not revoked")
    return KeyEntry(
        name=fields.line("name"),
        spki=spki,
        not_before=fields.timestamp("not_before") if fields.has("not_before") else None,
        not_after=fields.timestamp("not_after") if fields.has("not_after") else None,
        revoked=revoked,
        reason=fields.line("reason") if fields.has("reason") else None,
    )


def key_set_signature_name(document_name: str, key_id: str) -> str:
    """The name of the signature that the key ``key_id`` makes over the document."""
    return f"{document_name}.{key_id}.sig"


def key_set_signature_id(document_name: str, name: str) -> str | None:
    """The key id in the name of one of the document's signatures, or ``None`` for another file."""
    if not name.startswith(document_name):
        return None
    match = _SIGNATURE.fullmatch(name[len(document_name) :])
    return match[1] if match else None


def check_signature_count(count: int, what: str) -> None:
    """Raise ``MalformedError`` for more signatures than a team has people."""
    if count > MAX_SIGNATURES:
        raise MalformedError(f"{what}: has more than {MAX_SIGNATURES} signatures")
