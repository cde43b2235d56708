"""A digest is a type: the sha256 of some bytes, never a bare string."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from packager.errors import MalformedError

_HEX = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, order=True)
class Digest:
    """A sha256 (FIPS 180-4), as 64 lower-case hexadecimal digits."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.match(self.hex):
            raise MalformedError(f"not a sha256 digest: {self.hex[:80]!r}")

    def __str__(self) -> str:
        return self.hex

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """The digest of ``data``."""
        return cls(hashlib.sha256(data).hexdigest())
