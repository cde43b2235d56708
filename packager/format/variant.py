"""One variant of a bundle, as the index describes it."""

from __future__ import annotations

from dataclasses import dataclass

from packager.format.adapter import AdapterBase
from packager.format.canonical import Json
from packager.format.fields import Fields
from packager.format.golden import Golden, parse_golden
from packager.format.memory import MemoryNeed
from packager.format.quality import Quality
from packager.format.relpath import check_relpath
from packager.format.template import ChatTemplate

_KEYS = (
    "name", "format", "type", "directory", "model", "golden", "quality", "base", "memory",
    "template",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One quantization of the model: its files under ``directory``, in the payload or held.

    ``model`` is the file the engine opens and ``golden`` how it must answer; both are absent
    where no engine in the bundle runs the format. ``quality`` is what quantizing cost, where it
    was measured, ``memory`` what the engine takes for it, where that is known. An adapter has a
    ``base``: the engine opens ``model`` on top of that one's. ``template`` is the chat template
    and what it made of the smoke prompts, where the model has one.
    """

    name: str
    format: str
    type: str
    directory: str
    model: str | None
    golden: Golden | None
    quality: Quality | None = None
    base: AdapterBase | None = None
    memory: MemoryNeed | None = None
    template: ChatTemplate | None = None

    def encode(self) -> dict[str, Json]:
        """The document that :meth:`parse` reads."""
        return {
            "name": self.name,
            "format": self.format,
            "type": self.type,
            "directory": self.directory,
            "model": self.model,
            "golden": self.golden.encode() if self.golden else None,
            "quality": self.quality.encode() if self.quality else None,
            "base": self.base.encode() if self.base else None,
            "memory": self.memory.encode() if self.memory else None,
            **({"template": self.template.encode()} if self.template else {}),
        }

    @classmethod
    def parse(cls, fields: Fields) -> Variant:
        """Read one; raises what ``fields`` raises."""
        fields.only(*_KEYS)
        return cls(
            name=fields.bare_name("name"),
            format=fields.line("format"),
            type=fields.line("type"),
            directory=check_relpath(fields.text("directory")),
            model=fields.optional_text("model"),
            golden=parse_golden(fields.mapping("golden")) if fields.has("golden") else None,
            quality=Quality.parse(fields.mapping("quality")) if fields.has("quality") else None,
            base=AdapterBase.parse(fields.mapping("base")) if fields.has("base") else None,
            memory=MemoryNeed.parse(fields.mapping("memory")) if fields.has("memory") else None,
            template=(
                ChatTemplate.parse(fields.mapping("template")) if fields.has("template") else None
            ),
        )


def variant_directory(name: str, variant: str) -> str:
    """Where the payload keeps the files of ``variant`` of the model ``name``."""
    return f"models/{name}/{variant}"
