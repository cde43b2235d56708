"""What a recipe asks of its GGUF variants, in the words of the quantization, or refused."""

from __future__ import annotations

from packager.errors import UsageError
from packager.format.recipe import GGUF, Recipe, Variant
from packager.quantize.mix import HOW_TO_GET_A_MATRIX, Override, Overrides, always_needs_matrix
from packager.quantize.types import FileType, file_type, tensor_type


def check_gguf_variants(recipe: Recipe) -> None:
    """Refuse what cannot be made whatever the model, before the hours of fetching it.

    Raises ``UsageError`` for a type that is unknown, or that needs an importance matrix where
    the recipe gives none.
    """
    gives_matrix = recipe.calibration is not None and recipe.calibration.gives_matrix
    for variant in recipe.variants:
        if variant.format != GGUF or variant.file is not None:
            continue
        kind, overrides = asked_for(variant)
        if always_needs_matrix(kind, overrides) and not gives_matrix:
            raise UsageError(
                f"variant {variant.name}: {kind.name} with so few bits needs an importance matrix",
                hint=HOW_TO_GET_A_MATRIX,
            )


def asked_for(variant: Variant) -> tuple[FileType, Overrides]:
    """The type of file that the GGUF ``variant`` is, and the types of single tensors.

    Raises ``UsageError`` for names that are unknown.
    """
    try:
        return file_type(variant.type or ""), Overrides(
            patterns=tuple(
                Override(pattern, tensor_type(name)) for pattern, name in variant.overrides
            ),
            output=tensor_type(variant.output) if variant.output else None,
            token_embedding=(
                tensor_type(variant.token_embedding) if variant.token_embedding else None
            ),
        )
    except UsageError as error:
        raise UsageError(f"variant {variant.name}: {error.message}", hint=error.hint) from None
