"""Adapters on this host: each comes with the variant that it changes, and is opened on top of it.

That the two belong together is in the signed index, by digest, and checked when that is parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import UsageError
from packager.format.bundle import Bundle
from packager.format.variant import Variant


@dataclass(frozen=True)
class EngineFiles:
    """What the engine opens of a variant: a model, and an adapter to apply to it or ``None``."""

    model: Path
    adapter: Path | None


def with_bases(bundle: Bundle, variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """``variants`` of ``bundle`` and those that they are adapters to, in the bundle's order."""
    names = {variant.name for variant in variants}
    names |= {variant.base.variant for variant in variants if variant.base is not None}
    return tuple(variant for variant in bundle.variants if variant.name in names)


def engine_files(bundle: Bundle, variant: Variant, root: Path) -> EngineFiles:
    """The files of ``variant``, which an engine opens, in the generation's directory ``root``.

    Raises ``UsageError`` for a variant that no engine opens.
    """
    base = bundle.base_of(variant) or variant
    if variant.model is None or base.model is None:
        raise UsageError(
            f"{bundle.name} {variant.name}: carried as it is; the engine cannot open it"
        )
    model = root / base.name / base.model
    return EngineFiles(model, root / variant.name / variant.model if variant.base else None)
