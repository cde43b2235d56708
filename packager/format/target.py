"""The hosts a bundle is for."""

from __future__ import annotations

from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.fields import Fields


@dataclass(frozen=True)
class Target:
    """A kind of host: ``linux_x86_64``, the Pythons it may have, the oldest glibc."""

    platform: str
    python: tuple[str, ...]
    glibc: str

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {"platform": self.platform, "python": list(self.python), "glibc": self.glibc}

    @classmethod
    def parse(cls, fields: Fields) -> Target:
        """Read one; raises what ``fields`` raises."""
        fields.only("platform", "python", "glibc")
        return cls(
            platform=fields.line("platform"),
            python=fields.lines("python"),
            glibc=fields.line("glibc"),
        )
