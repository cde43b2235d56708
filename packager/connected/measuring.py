"""What each variant costs in quality, measured beside the original, and whether that is too much.

The figures are kept in the cache under the digest of both models and the text.
"""

from __future__ import annotations

from collections.abc import Mapping

from packager.connected.local import read_text
from packager.connected.models import Model, make_original
from packager.connected.quality import Baseline, measure_quality
from packager.connected.workshop import Workshop, key_of
from packager.errors import MalformedError, PolicyError
from packager.format import canonical
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.lock import LockedFile
from packager.format.quality import MILLIONTHS, Quality
from packager.format.recipe import QualityGate
from packager.store.atomic import read_capped, write_file

MEASURE_VERSION = "1"
"""Bumped whenever the same models and text may be given other figures: part of the cache's key."""

_SUFFIX = ".quality.json"
_MAX_SIZE = 1 << 16


def measure_models(workshop: Workshop, models: Mapping[str, Model]) -> dict[str, Quality]:
    """The quality of each of ``models``, by name; nothing where the recipe does not ask.

    To be called by the only maker. Raises ``PolicyError`` where the perplexity of any rises by
    more than the recipe allows, ``UsageError`` for too short a text, ``EngineError``.
    """
    gate = workshop.recipe.quality
    if gate is None or not models:
        return {}
    found = _measured(workshop, models, workshop.named_file(gate.text))
    for name, quality in found.items():
        workshop.progress.note(f"{name}: {quality.line}")
    _check(found, gate)
    return found


def _check(found: Mapping[str, Quality], gate: QualityGate) -> None:
    allowed = gate.max_increase_ppm / MILLIONTHS
    bad = [f"{name} {q.increase:+.1%}" for name, q in found.items() if q.increase > allowed]
    if bad:
        raise PolicyError(
            f"quality: the perplexity rises by more than {allowed:.1%}: {', '.join(bad)}",
            hint="take a type of more bits, calibrate, or raise max_perplexity_increase",
        )


def _measured(
    workshop: Workshop, models: Mapping[str, Model], text: LockedFile
) -> dict[str, Quality]:
    original = make_original(workshop)
    keys = {name: _key(workshop, original.model, model, text) for name, model in models.items()}
    found = {name: quality for name, key in keys.items() if (quality := _cached(workshop, key))}
    missing = {name: models[name].path for name in models if name not in found}
    if missing:
        measured = measure_quality(
            missing,
            Baseline(original.model.path, original.type),
            read_text(workshop.recipe_folder, text),
            folder=workshop.cache.root / "derived",
            what=text.path,
            libraries=workshop.libraries,
            progress=workshop.progress,
        )
        for name, quality in measured.items():
            path = workshop.cache.derived(keys[name], _SUFFIX)
            write_file(path, canonical.encode(quality.encode()))
        found |= measured
    return {name: found[name] for name in models}


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


def _cached(workshop: Workshop, key: Digest) -> Quality | None:
    path = workshop.cache.derived(key, _SUFFIX)
    if not path.exists():
        return None
    try:
        data = read_capped(path, _MAX_SIZE)
        document = canonical.decode(data, what=str(path), max_size=_MAX_SIZE)
        return Quality.parse(Fields.of(document, str(path), MalformedError))
    except MalformedError as error:
        workshop.progress.note(f"{error.message}; measuring it again")
        return None
