"""How a model answers, with an adapter or without: recorded once, and kept in the cache.

The key is the digest of all that the answers depend on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from packager.connected.artefacts import find_document, keep_document
from packager.connected.variants.gguf import Model
from packager.connected.workshop import Workshop, key_of
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.golden import Golden, parse_golden
from packager.runtime.smoke import record_golden

_SUFFIX = ".golden.json"
_MAX_SIZE = 16 << 20


@dataclass(frozen=True)
class ConvertedAdapter:
    """An adapter's GGUF file in the cache; ``type`` is that of its matrices."""

    path: Path
    digest: Digest
    type: str


def golden_of(
    workshop: Workshop, name: str, model: Model, adapter: ConvertedAdapter | None = None
) -> Golden:
    """How ``model``, the variant ``name``, answers; recorded now unless the cache has it.

    Raises what :func:`packager.runtime.smoke.record_golden` raises.
    """
    recipe = workshop.recipe
    made_from: dict[str, Json] = {
        "what": "golden",
        "model": model.key.hex,
        "prompts": list(recipe.smoke.prompts),
        "max_tokens": recipe.smoke.max_tokens,
        "text": workshop.text,
        "engine": workshop.engine,
        "cpus": len(os.sched_getaffinity(0)),
    }
    if adapter is not None:
        made_from["adapter"] = adapter.digest.hex
    cache, progress, key = workshop.cache, workshop.progress, key_of(made_from)
    what = f"the answers of {name}"
    held = find_document(
        cache, key, _SUFFIX, parse_golden, most=_MAX_SIZE, name=what, progress=progress
    )
    if held is not None:
        return held
    progress.note(f"{name}: recording how it answers")
    golden = record_golden(
        model.path,
        prompts=recipe.smoke.prompts,
        max_tokens=recipe.smoke.max_tokens,
        text=workshop.text,
        adapter=adapter.path if adapter else None,
        libraries=workshop.libraries,
        progress=progress,
    )
    keep_document(cache, key, _SUFFIX, golden.encode())
    return golden
