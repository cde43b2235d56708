"""Make each variant of a model, and record how it answers.

Both steps are kept in the cache under the digest of all that they were made from, so that an
interrupted build goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.pack import Member
from packager.errors import MalformedError
from packager.format import canonical
from packager.format.bundle import Variant, variant_directory
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.golden import Golden
from packager.format.lock import Lock
from packager.format.recipe import GGUF, Recipe
from packager.format.recipe import Variant as RecipeVariant
from packager.progress import Progress
from packager.quantize import VERSION as QUANTIZE_VERSION
from packager.quantize.pipeline import quantize
from packager.runtime.smoke import record_golden
from packager.store.atomic import read_capped, write_file
from packager.store.digests import file_digest

_MAX_GOLDEN_SIZE = 16 << 20
# What a person should find beside a GGUF file, whatever else stays behind.
_EVIDENCE_PREFIXES = ("license", "licence", "notice", "readme", "use_policy")


@dataclass(frozen=True)
class Workshop:
    """What every variant is made with and from."""

    recipe: Recipe
    lock: Lock
    sources: Mapping[str, Path]
    text: str | None
    engine: str
    libraries: Path
    cache: Cache
    progress: Progress


@dataclass(frozen=True)
class MadeVariant:
    """A variant as the index has it, and its files as they go into the payload."""

    variant: Variant
    members: tuple[Member, ...]


def make_variant(workshop: Workshop, wanted: RecipeVariant) -> MadeVariant:
    """Make one variant, or take it from the cache."""
    if wanted.format == GGUF and wanted.type is not None:
        return _make_gguf(workshop, wanted.name, wanted.type)
    return _carry_source(workshop, wanted)


def _make_gguf(workshop: Workshop, name: str, type_name: str) -> MadeVariant:
    recipe = workshop.recipe
    directory = variant_directory(recipe.name, name)
    file_name = f"{recipe.name}-{name}.gguf"
    key = _gguf_key(workshop, type_name)
    model = _quantized(workshop, key, name, type_name)
    golden = _golden(workshop, key, name, model)
    members = [
        _member(f"{directory}/{file_name}", model),
        *_source_members(workshop, directory, _is_evidence),
    ]
    variant = Variant(name, GGUF, type_name, directory, file_name, golden)
    return MadeVariant(variant, tuple(members))


def _carry_source(workshop: Workshop, wanted: RecipeVariant) -> MadeVariant:
    """The source's own files, as they are; no engine in the bundle opens them."""
    directory = variant_directory(workshop.recipe.name, wanted.name)
    members = _source_members(workshop, directory, lambda _path: True)
    variant = Variant(wanted.name, wanted.format, "as published", directory, None, None)
    return MadeVariant(variant, tuple(members))


def _quantized(workshop: Workshop, key: Digest, name: str, type_name: str) -> Path:
    cached = workshop.cache.derived(key, ".gguf")
    if cached.exists():
        workshop.progress.note(f"{name}: quantized before, taken from the cache")
        return cached
    temporary = workshop.cache.temporary(key, ".gguf")
    try:
        made = quantize(
            workshop.sources,
            type_name,
            temporary,
            name=workshop.recipe.name,
            progress=workshop.progress,
        )
        published = workshop.cache.publish(temporary, key, ".gguf")
    finally:
        temporary.unlink(missing_ok=True)
    for tensor in made.fallbacks:
        workshop.progress.note(f"{name}: {tensor}")
    return published


def _golden(workshop: Workshop, model_key: Digest, name: str, model: Path) -> Golden:
    recipe = workshop.recipe
    key = _key(
        {
            "what": "golden",
            "model": model_key.hex,
            "prompts": list(recipe.smoke.prompts),
            "max_tokens": recipe.smoke.max_tokens,
            "text": workshop.text,
            "engine": workshop.engine,
            "cpus": len(os.sched_getaffinity(0)),
        }
    )
    cached = workshop.cache.derived(key, ".golden.json")
    if cached.exists():
        return _read_golden(cached)
    workshop.progress.note(f"{name}: recording how it answers")
    golden = record_golden(
        model,
        prompts=recipe.smoke.prompts,
        max_tokens=recipe.smoke.max_tokens,
        text=workshop.text,
        libraries=workshop.libraries,
        progress=workshop.progress,
    )
    write_file(cached, canonical.encode(golden.encode()))
    return golden


def _read_golden(path: Path) -> Golden:
    document = canonical.decode(
        read_capped(path, _MAX_GOLDEN_SIZE), what=str(path), max_size=_MAX_GOLDEN_SIZE
    )
    return Golden.parse(Fields.of(document, str(path), MalformedError))


def _source_members(
    workshop: Workshop, directory: str, wanted: Callable[[str], bool]
) -> Sequence[Member]:
    return [
        _member(f"{directory}/{path}", source)
        for path, source in sorted(workshop.sources.items())
        if wanted(path)
    ]


def _is_evidence(path: str) -> bool:
    return "/" not in path and path.lower().startswith(_EVIDENCE_PREFIXES)


def _member(path: str, source: Path) -> Member:
    return Member(path, source, source.stat().st_size, file_digest(source))


def _gguf_key(workshop: Workshop, type_name: str) -> Digest:
    return _key(
        {
            "what": "gguf",
            "quantize": QUANTIZE_VERSION,
            "engine": workshop.engine,
            "name": workshop.recipe.name,
            "type": type_name,
            "files": [[file.path, str(file.content)] for file in workshop.lock.files],
        }
    )


def _key(made_from: dict[str, Json]) -> Digest:
    return Digest.of(canonical.encode(made_from))
