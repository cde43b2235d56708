"""What a recipe asks of its compressed-tensors variants, or refused."""

from __future__ import annotations

from packager.connected.naming import about_variant
from packager.format.recipe import COMPRESSED_TENSORS, Recipe, Variant
from packager.quantize.compressed.schemes import Scheme, find_scheme


def check_compressed_variants(recipe: Recipe) -> None:
    """Refuse what cannot be made whatever the model: raises ``UsageError`` for unknown schemes."""
    for variant in recipe.variants:
        if variant.format == COMPRESSED_TENSORS:
            scheme_of(variant)


def scheme_of(variant: Variant) -> Scheme:
    """The scheme of ``variant``; raises ``UsageError`` for an unknown one."""
    with about_variant(variant.name):
        return find_scheme(variant.scheme or "")
