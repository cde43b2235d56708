"""Make the variants of a model, and record how they answer.

Both steps are kept in the cache under the digest of all that they were made from, so that an
interrupted build goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from packager.connected.evidence.beside import is_evidence
from packager.connected.inside.closure import check_closure
from packager.connected.inside.templates import carried_template, model_template
from packager.connected.packing.layout import Member
from packager.connected.variants.compressed import make_compressed, replaces
from packager.connected.variants.gguf import Model, Models
from packager.connected.variants.gguf_types import asked_for
from packager.connected.variants.goldens import golden_of
from packager.connected.variants.lora import MadeAdapter, bind_adapters, convert_adapters
from packager.connected.variants.matrix import find_matrix
from packager.connected.variants.measuring import measure_models
from packager.connected.variants.memory import memory_of
from packager.connected.variants.published import PublishedModel, is_gguf, published_models
from packager.connected.variants.schemes import scheme_of
from packager.connected.workshop import Workshop, only_maker
from packager.format.digest import Digest
from packager.format.golden import Golden
from packager.format.lock import SHA256, LockedFile
from packager.format.memory import MemoryNeed
from packager.format.quality import Quality
from packager.format.recipe import COMPRESSED_TENSORS, GGUF, LORA
from packager.format.recipe import Variant as RecipeVariant
from packager.format.template import ChatTemplate
from packager.format.variant import Variant, variant_directory
from packager.quantize.plan import Fallback
from packager.quantize.wanted import Wanted
from packager.store.digests import file_digest


@dataclass(frozen=True)
class MadeVariant:
    """A variant as the index has it, and its files as they go into the payload.

    ``fallbacks`` are the tensors whose rows did not fit their type, ``matrix`` is the digest of
    the importance matrix that was used, if any.
    """

    variant: Variant
    members: tuple[Member, ...]
    fallbacks: tuple[Fallback, ...] = ()
    matrix: Digest | None = None


@dataclass(frozen=True)
class _Running:
    """What was found out of a model by running it, and of what it takes to run."""

    golden: Golden
    quality: Quality | None
    memory: MemoryNeed | None
    template: ChatTemplate | None


def make_variants(workshop: Workshop) -> tuple[MadeVariant, ...]:
    """Make every variant of the recipe, or take it from the cache."""
    variants = workshop.recipe.variants
    asked = [variant for variant in variants if variant.format == GGUF]
    made = _make_ggufs(workshop, asked) if asked else {}
    compressed = [variant for variant in variants if variant.format == COMPRESSED_TENSORS]
    made |= _make_compressed(workshop, compressed) if compressed else {}
    return tuple(made.get(variant.name) or _carry_source(workshop, variant) for variant in variants)


def _make_ggufs(workshop: Workshop, asked: Sequence[RecipeVariant]) -> dict[str, MadeVariant]:
    """The GGUF variants that are ``asked`` for, and the adapters to them, by name."""
    carried = [variant for variant in asked if variant.file is not None]
    with only_maker(workshop), published_models(workshop, carried) as published:
        converted = convert_adapters(workshop)
        models = Models(workshop)
        wanted = _wanted(workshop, models, [v for v in asked if v.file is None])
        ready = models.make(wanted) | {name: found.model for name, found in published.items()}
        running = _run_models(workshop, models, ready)
        adapters = bind_adapters(workshop, converted, ready)
    made = {
        name: _made_gguf(workshop, name, file, ready[name], running[name])
        for name, file in wanted.items()
    }
    made |= {
        name: _carried_gguf(workshop, name, found, running[name])
        for name, found in published.items()
    }
    return made | {name: _made_adapter(workshop, name, a) for name, a in adapters.items()}


def _run_models(
    workshop: Workshop, models: Models, ready: Mapping[str, Model]
) -> dict[str, _Running]:
    templates = {name: model_template(workshop, name, m.path) for name, m in ready.items()}
    qualities = measure_models(workshop, models, ready)
    return {
        name: _Running(
            golden_of(workshop, name, model),
            qualities.get(name),
            memory_of(model.path),
            templates[name],
        )
        for name, model in ready.items()
    }


def _wanted(
    workshop: Workshop, models: Models, asked: Sequence[RecipeVariant]
) -> dict[str, Wanted]:
    """What file each variant is, and the matrix for those that quantize."""
    files = {variant.name: Wanted(*asked_for(variant)) for variant in asked}
    # Plain floats have no use for it, and are then not made again for another one.
    weighed = [name for name, file in files.items() if file.quantizes]
    found = find_matrix(workshop, models) if weighed else None
    if found is not None:
        for name in weighed:
            files[name] = replace(files[name], matrix=found.matrix, matrix_name=found.name)
    return files


def _made_gguf(
    workshop: Workshop,
    name: str,
    wanted: Wanted,
    model: Model,
    running: _Running,
) -> MadeVariant:
    recipe = workshop.recipe
    directory = variant_directory(recipe.name, name)
    file_name = f"{recipe.name}-{name}.gguf"
    members = (
        Member(f"{directory}/{file_name}", model.path, model.path.stat().st_size, model.digest),
        *_source_members(workshop, directory, is_evidence),
    )
    return MadeVariant(
        Variant(
            name,
            GGUF,
            wanted.kind.name,
            directory,
            file_name,
            running.golden,
            running.quality,
            memory=running.memory,
            template=running.template,
        ),
        members,
        fallbacks=model.fallbacks,
        matrix=wanted.matrix.digest if wanted.matrix else None,
    )


def _carried_gguf(
    workshop: Workshop,
    name: str,
    published: PublishedModel,
    running: _Running,
) -> MadeVariant:
    """The files as they are, under the names by which an engine finds the parts of a split."""
    directory = variant_directory(workshop.recipe.name, name)
    locked = {file.path: file for file in workshop.lock.files}
    members = (
        *(
            _member(f"{directory}/{PurePosixPath(path).name}", workshop.sources[path], locked[path])
            for path in published.paths
        ),
        *_source_members(workshop, directory, is_evidence),
    )
    file_name = published.model.path.name
    variant = Variant(
        name,
        GGUF,
        published.type,
        directory,
        file_name,
        running.golden,
        running.quality,
        memory=running.memory,
        template=running.template,
    )
    return MadeVariant(variant, members)


def _made_adapter(workshop: Workshop, name: str, adapter: MadeAdapter) -> MadeVariant:
    directory = variant_directory(workshop.recipe.name, name)
    file_name = f"{workshop.recipe.name}-{name}.gguf"
    file, sources = adapter.file, workshop.adapters[name]
    members = (
        Member(f"{directory}/{file_name}", file.path, file.path.stat().st_size, file.digest),
        *(
            _member(f"{directory}/{locked.path}", sources[locked.path], locked)
            for locked in workshop.lock.adapter(name).files
            if is_evidence(locked.path)
        ),
    )
    variant = Variant(
        name, LORA, file.type, directory, file_name, adapter.golden, base=adapter.base
    )
    return MadeVariant(variant, members)


def _make_compressed(workshop: Workshop, asked: Sequence[RecipeVariant]) -> dict[str, MadeVariant]:
    """The compressed-tensors variants that are ``asked`` for, by name: the source but for what
    is quantized; no engine in the bundle opens them."""
    schemes = {variant.name: scheme_of(variant) for variant in asked}
    with only_maker(workshop):
        files = make_compressed(workshop, schemes)
    for name in schemes:
        check_closure(name, workshop.sources)
    variants = {}
    for name, scheme in schemes.items():
        directory = variant_directory(workshop.recipe.name, name)
        members = (
            *(
                Member(f"{directory}/{file.name}", file.path, file.path.stat().st_size, file.digest)
                for file in files[name]
            ),
            *_source_members(workshop, directory, lambda path: not replaces(path)),
        )
        template = carried_template(workshop, name)
        variant = Variant(
            name, COMPRESSED_TENSORS, scheme.name, directory, None, None, template=template
        )
        variants[name] = MadeVariant(variant, members)
    return variants


def _carry_source(workshop: Workshop, wanted: RecipeVariant) -> MadeVariant:
    """The source's own files, as they are; no engine in the bundle opens them."""
    check_closure(wanted.name, workshop.sources)
    directory = variant_directory(workshop.recipe.name, wanted.name)
    members = _source_members(workshop, directory, lambda _path: True)
    template = carried_template(workshop, wanted.name)
    variant = Variant(
        wanted.name, wanted.format, "as published", directory, None, None, template=template
    )
    return MadeVariant(variant, tuple(members))


def _source_members(
    workshop: Workshop, directory: str, wanted: Callable[[str], bool]
) -> Sequence[Member]:
    locked = {file.path: file for file in workshop.lock.files}
    return [
        _member(f"{directory}/{path}", source, locked[path])
        for path, source in sorted(workshop.sources.items())
        if wanted(path) and not is_gguf(path)
    ]


def _member(path: str, source: Path, locked: LockedFile) -> Member:
    """A file of the source, which was found to be as the lock says when it was fetched."""
    content = locked.content
    digest = Digest(content.hex) if content.kind == SHA256 else file_digest(source)
    return Member(path, source, locked.size, digest)
