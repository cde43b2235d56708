"""Make each variant of a model, and record how it answers.

Both steps are kept in the cache under the digest of all that they were made from, so that an
interrupted build goes on where it was. Beside a model lies its own digest, since a damaged one
would load, and answer, and be signed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packager.connected.cache import Cache
from packager.connected.layout import Member
from packager.errors import IntegrityError, MalformedError
from packager.format import canonical
from packager.format.bundle import Variant, variant_directory
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.golden import Golden
from packager.format.lock import SHA256, Lock, LockedFile
from packager.format.recipe import GGUF, Recipe
from packager.format.recipe import Variant as RecipeVariant
from packager.progress import Progress
from packager.quantize import VERSION as QUANTIZE_VERSION
from packager.quantize.pipeline import quantize
from packager.runtime.smoke import record_golden
from packager.store.atomic import TEMPORARY_PREFIX, naming_refusals, read_capped, write_file
from packager.store.digests import file_digest

_MAX_GOLDEN_SIZE = 16 << 20
_GGUF_SUFFIX = ".gguf"
_SUM_SUFFIX = ".gguf.sha256"
_SUM_SIZE = 64
# What a person should find beside a GGUF file, whatever else stays behind: MODEL_LICENSE too.
_EVIDENCE = re.compile(r"licen[cs]e|notice|copying|copyright|readme|policy|terms", re.IGNORECASE)
_TEXT_SUFFIXES = ("", ".md", ".txt", ".rst", ".html", ".pdf")


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
    key = _gguf_key(recipe, workshop.lock, workshop.engine, type_name)
    with _only_maker(workshop):
        model = _quantized(workshop, key, name, type_name)
        golden = _golden(workshop, key, name, model.path)
    members = [
        Member(f"{directory}/{file_name}", model.path, model.path.stat().st_size, model.digest),
        *_source_members(workshop, directory, is_evidence),
    ]
    variant = Variant(name, GGUF, type_name, directory, file_name, golden)
    return MadeVariant(variant, tuple(members))


@contextmanager
def _only_maker(workshop: Workshop) -> Iterator[None]:
    """Be the only process that makes something in the cache: each would want every core.

    What was being written by one that was killed is removed.
    """
    cache, progress = workshop.cache, workshop.progress
    with cache.locked(
        "derived",
        sleep=time.sleep,
        on_wait=lambda: progress.note("waiting for another process that quantizes"),
    ):
        derived = cache.root / "derived"
        with naming_refusals(derived):
            for path in list(derived.glob(f"{TEMPORARY_PREFIX}*")):
                path.unlink(missing_ok=True)
        yield


def _carry_source(workshop: Workshop, wanted: RecipeVariant) -> MadeVariant:
    """The source's own files, as they are; no engine in the bundle opens them."""
    directory = variant_directory(workshop.recipe.name, wanted.name)
    members = _source_members(workshop, directory, lambda _path: True)
    variant = Variant(wanted.name, wanted.format, "as published", directory, None, None)
    return MadeVariant(variant, tuple(members))


@dataclass(frozen=True)
class Model:
    """A quantized model in the cache."""

    path: Path
    digest: Digest


def model_made_before(
    cache: Cache, recipe: Recipe, lock: Lock, engine: str, type_name: str
) -> Model | None:
    """The model that the cache says it has; its bytes are not read, as they are by the build."""
    return _recorded(cache, _gguf_key(recipe, lock, engine, type_name))


def _recorded(cache: Cache, key: Digest) -> Model | None:
    path, sum_path = cache.derived(key, _GGUF_SUFFIX), cache.derived(key, _SUM_SUFFIX)
    if not (path.exists() and sum_path.exists()):
        return None
    try:
        return Model(path, Digest(read_capped(sum_path, _SUM_SIZE).decode("ascii", "replace")))
    except IntegrityError:  # no digest at all, or more than one
        return None


def _quantized(workshop: Workshop, key: Digest, name: str, type_name: str) -> Model:
    cache, progress = workshop.cache, workshop.progress
    held = _held(cache, key)
    if held is not None:
        progress.note(f"{name}: quantized before, taken from the cache")
        return held
    temporary = cache.temporary(key, _GGUF_SUFFIX)
    try:
        made = quantize(
            workshop.sources,
            type_name,
            temporary,
            name=workshop.recipe.name,
            progress=progress,
        )
        digest = file_digest(temporary)
        write_file(cache.derived(key, _SUM_SUFFIX), digest.hex.encode("ascii"))
        published = cache.publish(temporary, key, _GGUF_SUFFIX)
    finally:
        temporary.unlink(missing_ok=True)
    for tensor in made.fallbacks:
        progress.note(f"{name}: {tensor}")
    return Model(published, digest)


def _held(cache: Cache, key: Digest) -> Model | None:
    """The model made from ``key``, if the cache holds it and it is what it was."""
    recorded = _recorded(cache, key)
    if recorded is None or file_digest(recorded.path) != recorded.digest:
        return None
    return recorded


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
        try:
            return _read_golden(cached)
        except MalformedError as error:
            workshop.progress.note(f"{error.message}; recording it again")
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
    locked = {file.path: file for file in workshop.lock.files}
    return [
        _member(f"{directory}/{path}", source, locked[path])
        for path, source in sorted(workshop.sources.items())
        if wanted(path)
    ]


def is_evidence(path: str) -> bool:
    """Whether the file ``path`` of the source goes beside a GGUF file: a licence, a model card."""
    name = PurePosixPath(path)
    return name.suffix.lower() in _TEXT_SUFFIXES and bool(_EVIDENCE.search(name.name))


def _member(path: str, source: Path, locked: LockedFile) -> Member:
    """A file of the source, which was found to be as the lock says when it was fetched."""
    content = locked.content
    digest = Digest(content.hex) if content.kind == SHA256 else file_digest(source)
    return Member(path, source, locked.size, digest)


def _gguf_key(recipe: Recipe, lock: Lock, engine: str, type_name: str) -> Digest:
    return _key(
        {
            "what": "gguf",
            "quantize": QUANTIZE_VERSION,
            "engine": engine,
            "name": recipe.name,
            "type": type_name,
            "files": [[file.path, str(file.content)] for file in lock.files],
        }
    )


def _key(made_from: dict[str, Json]) -> Digest:
    return Digest.of(canonical.encode(made_from))
