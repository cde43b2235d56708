"""The memory that an engine takes to run a variant, beside the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass

from packager.format.canonical import Json
from packager.format.fields import Fields

MAX_CONTEXT = 1 << 30


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes at ``context`` tokens: the ``cache`` of keys and values, and the engine's ``buffers``.

    The weights come on top: their size is that of the variant's model file.
    """

    context: int
    cache: int
    buffers: int

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {"context": self.context, "cache": self.cache, "buffers": self.buffers}

    @classmethod
    def parse(cls, fields: Fields) -> MemoryNeed:
        """Read one; raises what ``fields`` raises."""
        fields.only("context", "cache", "buffers")
        return cls(
            context=fields.integer("context", least=1, most=MAX_CONTEXT),
            cache=fields.integer("cache"),
            buffers=fields.integer("buffers"),
        )
