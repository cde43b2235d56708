"""Sequences only grow: what keeps an old, signed, vulnerable bundle from coming back.

The host remembers, for each bundle name, the highest sequence it installed and the digest of
that bundle's signed sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from packager.errors import MalformedError, PolicyError, TrustError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.trust.verify import VerifiedBundle

SEQUENCES_NAME = "sequences.json"
MAX_SEQUENCES_SIZE = 1 << 22


@dataclass(frozen=True)
class Mark:
    """The highest sequence installed under ``name``, and which bundle it was."""

    name: str
    sequence: int
    bundle: Digest


@dataclass(frozen=True)
class Sequences:
    """The marks of a host, one for each name."""

    marks: tuple[Mark, ...] = ()

    def find(self, name: str) -> Mark | None:
        """The mark of ``name``, if it was ever installed."""
        return next((mark for mark in self.marks if mark.name == name), None)

    def check(self, verified: VerifiedBundle) -> None:
        """Raise ``PolicyError`` if ``verified`` goes back, or reuses a sequence."""
        bundle = verified.bundle
        mark = self.find(bundle.name)
        if mark is None or bundle.sequence > mark.sequence:
            return
        if bundle.sequence < mark.sequence:
            raise PolicyError(
                f"{bundle.title} has sequence {bundle.sequence}; this host has had {mark.sequence}",
                hint="install a newer release, or say --allow-downgrade (it is logged)",
            )
        if verified.digest != mark.bundle:
            raise PolicyError(
                f"{bundle.title} has sequence {bundle.sequence}, as another bundle here had",
                hint="ask for a release with a higher sequence, or say --allow-downgrade",
            )

    def raised(self, verified: VerifiedBundle) -> Sequences:
        """These marks with that of ``verified`` brought up to it, never down."""
        bundle = verified.bundle
        mark = self.find(bundle.name)
        if mark is not None and bundle.sequence < mark.sequence:
            return self
        others = tuple(other for other in self.marks if other.name != bundle.name)
        new = Mark(bundle.name, bundle.sequence, verified.digest)
        return replace(self, marks=tuple(sorted((*others, new), key=lambda m: m.name)))


def encode_sequences(sequences: Sequences) -> bytes:
    """Write the marks as canonical JSON."""
    return canonical.encode(
        [{"name": m.name, "sequence": m.sequence, "bundle": m.bundle.hex} for m in sequences.marks]
    )


def parse_sequences(data: bytes, what: str) -> Sequences:
    """Read the marks; raises ``TrustError`` if the file is damaged."""
    try:
        document = canonical.decode(data, what=what, max_size=MAX_SEQUENCES_SIZE)
        fields = Fields.of({"marks": document}, what)
        marks = fields.each("marks", _parse_mark)
        names = [mark.name for mark in marks]
        if names != sorted(set(names)):
            raise fields.refuse("marks", "a name stands twice, or out of order")
    except MalformedError as error:
        raise TrustError(
            f"{what}: the record of sequences is damaged: {error.message.removeprefix(f'{what}: ')}"
        ) from None
    return Sequences(marks)


def _parse_mark(fields: Fields) -> Mark:
    fields.only("name", "sequence", "bundle")
    return Mark(fields.text("name"), fields.integer("sequence", least=1), fields.digest("bundle"))
