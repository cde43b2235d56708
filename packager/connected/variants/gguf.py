"""GGUF models in the cache: taken where they are there, else made, all in one pass.

Beside a model lies which of its tensors fell back to another type, which the file does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.connected.artefacts import (
    Artefact,
    find_document,
    find_file,
    keep_document,
    keep_file,
    recorded_file,
)
from packager.connected.cache import Cache
from packager.connected.workshop import Workshop, key_of
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.lock import Lock
from packager.format.recipe import Recipe
from packager.progress import Progress, Silent
from packager.quantize import VERSION as QUANTIZE_VERSION
from packager.quantize.mix import Overrides
from packager.quantize.pipeline import QuantizedModel, quantize_all
from packager.quantize.plan import Fallback
from packager.quantize.source import read_tensors
from packager.quantize.wanted import Wanted

_GGUF_SUFFIX = ".gguf"
_FALLBACKS_SUFFIX = ".gguf.fallbacks.json"
_MAX_FALLBACKS_SIZE = 16 << 20
# The file that holds a source's weights as they are; other sources are widened to the first.
_EXACT_TYPES = {"BF16": "BF16", "F16": "F16", "F32": "F32"}


@dataclass(frozen=True)
class Model:
    """A GGUF file in the cache, under ``key``; ``fallbacks`` are the tensors whose rows did not
    fit their type."""

    key: Digest
    path: Path
    digest: Digest
    fallbacks: tuple[Fallback, ...]


@dataclass(frozen=True)
class Original:
    """The model as published, or one hardly to be told from it, in a file of ``type``."""

    model: Model
    type: str


class Models:
    """The models of one build: each is looked for, and read, once.

    For the only maker. What makes one raises what
    :func:`packager.quantize.pipeline.quantize_all` raises.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._known: dict[Digest, Model] = {}

    def make(self, wanted: Mapping[str, Wanted]) -> dict[str, Model]:
        """The files ``wanted``, each under the name that messages call it by."""
        keys = {name: gguf_key(self._workshop, file) for name, file in wanted.items()}
        missing = {key: name for name, key in keys.items() if not self._find(name, key)}
        self._known |= _quantize(self._workshop, {key: wanted[n] for key, n in missing.items()})
        for name, key in keys.items():
            for line in _fallback_lines(self._known[key].fallbacks):
                self._workshop.progress.note(f"{name}: {line}")
        return {name: self._known[key] for name, key in keys.items()}

    def original(self) -> Original:
        """The original as a GGUF file."""
        kind = _exact_type(self._workshop)
        made = self.make({"the original": Wanted.of(kind)})
        return Original(made["the original"], kind)

    def _find(self, name: str, key: Digest) -> bool:
        """Whether the model made from ``key`` is there."""
        if key not in self._known:
            held = _held(self._workshop, name, key)
            if held is None:
                return False
            self._known[key] = held
            self._workshop.progress.note(f"{name}: quantized before, taken from the cache")
        return True


def _exact_type(workshop: Workshop) -> str:
    """The type of file that holds the weights of the source as they are, as nearly as may be."""
    sizes: dict[str, int] = {}
    for tensor in read_tensors(workshop.sources).values():
        sizes[tensor.entry.dtype] = sizes.get(tensor.entry.dtype, 0) + tensor.entry.size
    return _EXACT_TYPES.get(max(sizes, key=lambda dtype: sizes[dtype]), "BF16")


def model_made_before(
    cache: Cache, recipe: Recipe, lock: Lock, engine: str, wanted: Wanted
) -> Model | None:
    """The model that the cache says it has; its bytes are not read, as they are by the build."""
    key = _file_key(recipe, lock, engine, wanted)
    return _with_fallbacks(cache, key, recorded_file(cache, key, _GGUF_SUFFIX), Silent())


def gguf_key(workshop: Workshop, wanted: Wanted) -> Digest:
    """What the ``wanted`` file is kept under: the digest of all that its bytes depend on."""
    return _file_key(workshop.recipe, workshop.lock, workshop.engine, wanted)


def _file_key(recipe: Recipe, lock: Lock, engine: str, wanted: Wanted) -> Digest:
    made_from: dict[str, Json] = {
        "what": "gguf",
        "quantize": QUANTIZE_VERSION,
        "engine": engine,
        "name": recipe.name,
        "type": wanted.kind.name,
        "files": [[file.path, str(file.content)] for file in lock.files],
    }
    # Only where there are any, so that what was made before there could be is still found.
    if wanted.overrides != Overrides():
        made_from["overrides"] = _overrides_json(wanted.overrides)
    if wanted.matrix is not None:
        made_from["matrix"] = [wanted.matrix_name, wanted.matrix.digest.hex]
    return key_of(made_from)


def _overrides_json(overrides: Overrides) -> Json:
    return {
        "patterns": [[pattern, kind.name] for pattern, kind in overrides.patterns],
        "output": overrides.output.name if overrides.output else None,
        "token_embedding": overrides.token_embedding.name if overrides.token_embedding else None,
    }


def _held(workshop: Workshop, name: str, key: Digest) -> Model | None:
    """The model made from ``key``, called ``name``, if it is in the cache as it was made."""
    cache, progress = workshop.cache, workshop.progress
    file = find_file(cache, key, _GGUF_SUFFIX, name=name, progress=progress)
    return _with_fallbacks(cache, key, file, progress)


def _with_fallbacks(
    cache: Cache, key: Digest, file: Artefact | None, progress: Progress
) -> Model | None:
    """The model in ``file``, if what fell back in it is known too."""
    if file is None:
        return None
    fallbacks = find_document(
        cache,
        key,
        _FALLBACKS_SUFFIX,
        _parse_fallbacks,
        most=_MAX_FALLBACKS_SIZE,
        name="the model",
        progress=progress,
    )
    return None if fallbacks is None else Model(key, file.path, file.digest, fallbacks)


def _quantize(workshop: Workshop, missing: Mapping[Digest, Wanted]) -> dict[Digest, Model]:
    cache = workshop.cache
    outs = {key: cache.temporary(key, _GGUF_SUFFIX) for key in missing}
    try:
        made = quantize_all(
            workshop.sources,
            {outs[key]: file for key, file in missing.items()},
            name=workshop.recipe.name,
            executor=workshop.executor,
            progress=workshop.progress,
        )
        return {
            key: _keep(workshop, key, out, made[out], missing[key].kind.name)
            for key, out in outs.items()
        }
    finally:
        for out in outs.values():
            out.unlink(missing_ok=True)


def _keep(workshop: Workshop, key: Digest, out: Path, made: QuantizedModel, name: str) -> Model:
    """Keep the model in ``out``, with what is known of it beside it."""
    cache = workshop.cache
    rows: list[Json] = [dict(fallback._asdict()) for fallback in made.fallbacks]
    keep_document(cache, key, _FALLBACKS_SUFFIX, {"fallbacks": rows})
    file = keep_file(cache, key, _GGUF_SUFFIX, out, name=name, progress=workshop.progress)
    return Model(key, file.path, file.digest, made.fallbacks)


def _parse_fallbacks(fields: Fields) -> tuple[Fallback, ...]:
    return fields.each(
        "fallbacks", lambda row: Fallback(row.text("name"), row.text("wanted"), row.text("type"))
    )


def _fallback_lines(fallbacks: Sequence[Fallback]) -> Iterator[str]:
    """What to say of tensors whose rows are not whole blocks: a line for each pair of types."""
    groups: dict[tuple[str, str], list[str]] = {}
    for fallback in fallbacks:
        groups.setdefault((fallback.wanted, fallback.type), []).append(fallback.name)
    for (wanted, kind), names in groups.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{kind} instead of {wanted}, whose blocks the rows do not fill: {names[0]}{others}"
