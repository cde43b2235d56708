"""GGUF models as others published them, split or not: found, verified, carried as they are.

What the names tell is judged at the lock, from the list of the source's files; what the headers
tell once the files are here, and before any engine opens them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packager.connected.evidence.beside import is_evidence
from packager.connected.variants.gguf import Model
from packager.connected.workshop import Workshop, key_of
from packager.errors import IntegrityError, UnsafeContentError, UsageError
from packager.format.digest import Digest
from packager.format.gguf_header import GgufHeader, parse_header
from packager.format.gguf_split import ShardName, check_parts
from packager.format.globs import matches
from packager.format.lock import SHA256
from packager.format.recipe import Recipe, Variant
from packager.quantize.types import TYPE_NAMES, file_type
from packager.store.atomic import make_directory, naming_refusals
from packager.store.digests import file_digest

AS_PUBLISHED = "as published"
_SUFFIX = ".gguf"
_LINKS_PREFIX = ".published-"
_MODEL = "model"  # general.type; others are adapters, projectors, importance matrices
_TYPES = {file_type(name).number: name for name in TYPE_NAMES}


@dataclass(frozen=True)
class PublishedModel:
    """The GGUF files of a variant: ``paths`` in the source, in the order of the parts.

    ``model`` is the first, under its own name with the others beside it; ``type`` is what its
    metadata call the quantization.
    """

    paths: tuple[str, ...]
    model: Model
    type: str


def is_gguf(path: str) -> bool:
    """Whether ``path`` is called as GGUF files are."""
    return path.lower().endswith(_SUFFIX)


def wanted_files(recipe: Recipe, paths: Iterable[str], source: str) -> tuple[str, ...]:
    """The ``paths`` of ``source`` that travel, in order.

    Beside GGUF files that variants name these are what the recipe includes, or, where nothing
    is made of the weights, the evidence among it. Raises ``UsageError`` where a variant's file
    is not there, ``IntegrityError`` for a split that is not whole, ``UnsafeContentError`` for a
    GGUF file that is included and no variant's.
    """
    named = [variant for variant in recipe.variants if variant.file is not None]
    usable = [path for path in paths if not matches(path, recipe.exclude)]
    files = {path for variant in named for path in find_files(variant, usable, source)}
    others = {path for path in usable if recipe.wants(path)} - files
    if not needs_weights(recipe):
        others = {path for path in others if is_evidence(path)}
    for path in sorted(others):
        if is_gguf(path):
            raise UnsafeContentError(
                f"{path}: a GGUF file that no variant names",
                hint="name it, {name: NAME, format: gguf, file: ...}, or leave it out by"
                " source.exclude",
            )
    return tuple(sorted(files | others))


def needs_weights(recipe: Recipe) -> bool:
    """Whether something is made of the source's own weights, or measured beside them."""
    made = [v for v in recipe.variants if v.file is None and v.adapter is None]
    return recipe.quality is not None or bool(made)


def find_files(variant: Variant, paths: Iterable[str], source: str) -> tuple[str, ...]:
    """The files of ``source``, which holds ``paths``, that ``variant`` names, in order.

    Raises ``UsageError`` unless these are of one model, ``IntegrityError`` for a split of which
    a part is missing.
    """
    wanted = variant.file or ""
    present = [path for path in paths if is_gguf(path)]
    found = [wanted] if wanted in present else [p for p in present if matches(p, (wanted,))]
    models = model_files(found)
    if len(models) != 1:
        raise UsageError(
            f"variant {variant.name}: {wanted!a} names {len(models) or 'no'}"
            f" GGUF models of {source}; {_those(model_files(found or present))}",
            hint="name the file of one, or the first shard of a split",
        )
    (files,) = models.values()
    missing = [path for path in files if path not in present]
    if missing:
        raise IntegrityError(
            f"{source}: has {len(files) - len(missing)} of the {len(files)} parts of the model;"
            f" {missing[0]!a} is missing",
            hint="bring all parts of the split model",
        )
    return files


def model_files(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The GGUF models of which ``paths`` are files: all files of each, by its first.

    Of a split all parts are given that there should be. Raises ``MalformedError`` for a part
    whose number makes no sense.
    """
    models = {}
    for path in sorted(paths):
        shard = ShardName.parse(path)
        files = shard.shards() if shard else (path,)
        models[files[0]] = files
    return models


def _those(models: Mapping[str, Sequence[str]]) -> str:
    if not models:
        return "it has none"
    names = sorted(models)
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return "there are " + ", ".join(f"{name[:100]!a}" for name in names[:6]) + more


@contextmanager
def published_models(
    workshop: Workshop, variants: Sequence[Variant]
) -> Iterator[dict[str, PublishedModel]]:
    """The models of ``variants``, by their names, for as long as the block runs.

    The cache calls files by their content, and engines find the parts of a split by their names:
    so each gets a directory of links. To be called by the only maker. Raises ``IntegrityError``
    for files that are damaged or are not one whole model, ``UnsafeContentError`` for what is no
    model.
    """
    derived = workshop.cache.root / "derived"
    make_directory(derived)
    with naming_refusals(derived):
        for left in derived.glob(f"{_LINKS_PREFIX}*"):  # by one that was killed
            shutil.rmtree(left)
    with (
        naming_refusals(derived),
        tempfile.TemporaryDirectory(prefix=_LINKS_PREFIX, dir=derived) as place,
    ):
        yield {v.name: _published(workshop, v, Path(place) / v.name) for v in variants}


def _published(workshop: Workshop, variant: Variant, place: Path) -> PublishedModel:
    paths = find_files(variant, workshop.sources, "the source")
    header = _read_headers(paths, workshop.sources)
    place.mkdir()
    for path in paths:
        (place / PurePosixPath(path).name).symlink_to(workshop.sources[path].absolute())
    contents = {file.path: file.content for file in workshop.lock.files}
    first = contents[paths[0]]
    source = workshop.sources[paths[0]]
    model = Model(
        key=key_of(
            {
                "what": "published gguf",
                "files": [[PurePosixPath(p).name, str(contents[p])] for p in paths],
            }
        ),
        path=place / PurePosixPath(paths[0]).name,
        digest=Digest(first.hex) if first.kind == SHA256 else file_digest(source),
        fallbacks=(),
    )
    return PublishedModel(paths, model, _type_of(header))


def _read_headers(paths: Sequence[str], files: Mapping[str, Path]) -> GgufHeader:
    """The header of the first of ``paths``, if all together are one whole model."""
    headers = []
    for path in paths:
        file = files[path]
        with naming_refusals(file), file.open("rb") as stream:
            header = parse_header(stream, file_size=file.stat().st_size, what=path)
        headers.append((path, header))
    check_parts(headers)
    first = headers[0][1]
    kind = first.metadata.get("general.type", _MODEL)
    if kind != _MODEL:
        raise UnsafeContentError(
            f"{paths[0]}: a GGUF file of the kind {str(kind)[:60]!a}, not a model"
        )
    return first


def _type_of(header: GgufHeader) -> str:
    """The name of the quantization that the metadata state, as far as it is one known here."""
    number = header.metadata.get("general.file_type")
    if isinstance(number, bool) or not isinstance(number, int):
        return AS_PUBLISHED
    return _TYPES.get(number, AS_PUBLISHED)
