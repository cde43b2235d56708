"""What each variant costs in quality, measured beside the original, and whether that is too much.

The figures are kept in the cache under the digest of both models and the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packager.connected.artefacts import find_document, keep_document
from packager.connected.source.local import read_text
from packager.connected.variants.gguf import Model, Models, Original
from packager.connected.variants.quality import Baseline, measure_quality
from packager.connected.workshop import Workshop, key_of
from packager.errors import PolicyError
from packager.format.digest import Digest
from packager.format.lock import LockedFile
from packager.format.quality import MILLIONTHS, Quality
from packager.format.recipe import SAFETENSORS, QualityGate, Recipe

MEASURE_VERSION = "1"
"""Bumped whenever the same models and text may be given other figures: part of the cache's key."""

_SUFFIX = ".quality.json"
_MAX_SIZE = 1 << 16


def measure_models(
    workshop: Workshop, models: Models, made: Mapping[str, Model]
) -> dict[str, Quality]:
    """The quality of each model that was ``made``, by name; nothing where the recipe does not ask.

    To be called by the only maker. Raises ``PolicyError`` where the perplexity of any rises by
    more than the recipe allows, ``UsageError`` for too short a text, ``EngineError``.
    """
    gate = workshop.recipe.quality
    if gate is None or not made:
        return {}
    for line in _doubts(workshop.recipe, gate, made):
        workshop.progress.note(line)
    found = _measured(workshop, models.original(), made, workshop.named_file(gate.text))
    for name, quality in found.items():
        workshop.progress.note(f"{name}: {quality.line}")
    _check(found, gate)
    return found


def _doubts(recipe: Recipe, gate: QualityGate, made: Mapping[str, Model]) -> Iterator[str]:
    """What the figures will not tell."""
    if recipe.calibration is not None and recipe.calibration.text == gate.text:
        yield (
            f"{gate.text}: quality is measured on the text that the importance matrix comes from, "
            "which flatters it; take another"
        )
    others = [v.name for v in recipe.variants if v.format != SAFETENSORS and v.name not in made]
    if others:
        yield f"quality is measured of GGUF models alone: not of {', '.join(others)}"


def _check(found: Mapping[str, Quality], gate: QualityGate) -> None:
    allowed = gate.max_increase_ppm / MILLIONTHS
    bad = [f"{name} {q.increase:+.1%}" for name, q in found.items() if q.increase > allowed]
    if bad:
        raise PolicyError(
            f"quality: the perplexity rises by more than {allowed:.1%}: {', '.join(bad)}",
            hint="take a type of more bits, calibrate, or raise max_perplexity_increase",
        )


def _measured(
    workshop: Workshop, original: Original, made: Mapping[str, Model], text: LockedFile
) -> dict[str, Quality]:
    keys = {name: _key(workshop, original.model, model, text) for name, model in made.items()}
    found = {name: held for name, key in keys.items() if (held := _held(workshop, name, key))}
    missing = {name: made[name].path for name in made if name not in found}
    if missing:
        for name, quality in measure_quality(
            missing,
            Baseline(original.model.path, original.type),
            read_text(workshop.recipe_folder, text),
            folder=workshop.cache.root / "derived",
            what=text.path,
            libraries=workshop.libraries,
            progress=workshop.progress,
        ):
            # At once: whoever is interrupted with the next one does not measure this one again.
            keep_document(workshop.cache, keys[name], _SUFFIX, quality.encode())
            found[name] = quality
    return {name: found[name] for name in made}


def _key(workshop: Workshop, original: Model, model: Model, text: LockedFile) -> Digest:
    return key_of(
        {
            "what": "quality",
            "measure": MEASURE_VERSION,
            "engine": workshop.engine,
            "original": original.key.hex,
            "model": model.key.hex,
            "text": text.content.hex,
        }
    )


def _held(workshop: Workshop, name: str, key: Digest) -> Quality | None:
    return find_document(
        workshop.cache,
        key,
        _SUFFIX,
        Quality.parse,
        most=_MAX_SIZE,
        name=f"the figures of {name}",
        progress=workshop.progress,
    )
