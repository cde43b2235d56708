"""GGUF models in the cache: taken where they are there, else made, all in one pass.

Beside a model lies its own digest, since a damaged one would load, and answer, and be signed;
and which of its tensors fell back to another type, which the file itself does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.workshop import Workshop, key_of
from packager.errors import IntegrityError, MalformedError
from packager.format import canonical
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.lock import Lock
from packager.format.recipe import Recipe
from packager.quantize import VERSION as QUANTIZE_VERSION
from packager.quantize.mix import Overrides
from packager.quantize.pipeline import quantize_all
from packager.quantize.plan import Fallback
from packager.quantize.source import read_tensors
from packager.quantize.wanted import Wanted
from packager.store.atomic import read_capped, write_file
from packager.store.digests import file_digest

_GGUF_SUFFIX = ".gguf"
_SUM_SUFFIX = ".gguf.sha256"
_SUM_SIZE = 64
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


def make_models(workshop: Workshop, wanted: Mapping[str, Wanted]) -> dict[str, Model]:
    """The files ``wanted``, each under the name that messages call it by.

    To be called by the only maker. Raises what :func:`packager.quantize.pipeline.quantize_all`
    raises.
    """
    keys = {name: gguf_key(workshop, file) for name, file in wanted.items()}
    models: dict[Digest, Model] = {}
    missing: dict[Digest, Wanted] = {}
    for name, key in keys.items():
        held = models.get(key) or _held(workshop.cache, key)
        if held is None:
            missing[key] = wanted[name]
        else:
            models[key] = held
            workshop.progress.note(f"{name}: quantized before, taken from the cache")
    models |= _quantize(workshop, missing)
    for name, key in keys.items():
        for line in _fallback_lines(models[key].fallbacks):
            workshop.progress.note(f"{name}: {line}")
    return {name: models[key] for name, key in keys.items()}


@dataclass(frozen=True)
class Original:
    """The model as published, or one hardly to be told from it, in a file of ``type``."""

    model: Model
    type: str


def make_original(workshop: Workshop) -> Original:
    """The original as a GGUF file; to be called by the only maker."""
    kind = _exact_type(workshop)
    made = make_models(workshop, {"the original": Wanted.of(kind)})
    return Original(made["the original"], kind)


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
    return _recorded(cache, _file_key(recipe, lock, engine, wanted))


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


def _held(cache: Cache, key: Digest) -> Model | None:
    """The model made from ``key``, if the cache holds it and it is what it was."""
    recorded = _recorded(cache, key)
    if recorded is None or file_digest(recorded.path) != recorded.digest:
        return None
    return recorded


def _recorded(cache: Cache, key: Digest) -> Model | None:
    path, sum_path = cache.derived(key, _GGUF_SUFFIX), cache.derived(key, _SUM_SUFFIX)
    fallbacks = cache.derived(key, _FALLBACKS_SUFFIX)
    if not (path.exists() and sum_path.exists() and fallbacks.exists()):
        return None
    try:
        digest = Digest(read_capped(sum_path, _SUM_SIZE).decode("ascii", "replace"))
        return Model(key, path, digest, _decode_fallbacks(fallbacks))
    except IntegrityError:  # no digest, more than one, or fallbacks that are none
        return None


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
        return {key: _publish(cache, key, out, made[out].fallbacks) for key, out in outs.items()}
    finally:
        for out in outs.values():
            out.unlink(missing_ok=True)


def _publish(cache: Cache, key: Digest, out: Path, fallbacks: tuple[Fallback, ...]) -> Model:
    """Keep the model in ``out``, with what is known of it beside it."""
    digest = file_digest(out)
    write_file(cache.derived(key, _FALLBACKS_SUFFIX), _encode_fallbacks(fallbacks))
    write_file(cache.derived(key, _SUM_SUFFIX), digest.hex.encode("ascii"))
    return Model(key, cache.publish(out, key, _GGUF_SUFFIX), digest, fallbacks)


def _encode_fallbacks(fallbacks: tuple[Fallback, ...]) -> bytes:
    return canonical.encode({"fallbacks": [dict(fallback._asdict()) for fallback in fallbacks]})


def _decode_fallbacks(path: Path) -> tuple[Fallback, ...]:
    document = canonical.decode(
        read_capped(path, _MAX_FALLBACKS_SIZE), what=str(path), max_size=_MAX_FALLBACKS_SIZE
    )
    fields = Fields.of(document, str(path), MalformedError)
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
