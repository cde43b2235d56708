"""What binds an adapter to the one file that it was made for and tested with."""

from __future__ import annotations

from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields


@dataclass(frozen=True)
class AdapterBase:
    """The variant of the same bundle that an adapter changes, and the digest of its model file."""

    variant: str
    digest: Digest

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {"variant": self.variant, "digest": self.digest.hex}

    @classmethod
    def parse(cls, fields: Fields) -> AdapterBase:
        """Read one; raises what ``fields`` raises."""
        fields.only("variant", "digest")
        return cls(fields.line("variant"), fields.digest("digest"))
