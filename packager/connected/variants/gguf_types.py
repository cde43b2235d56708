"""What a recipe asks of its GGUF variants, in the words of the quantization, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from packager.connected.naming import about_variant, suggesting
from packager.errors import UsageError
from packager.format.ggml_types import GgmlType
from packager.format.lock import LockedFile
from packager.format.recipe import GGUF, Recipe, Variant
from packager.quantize.mix import HOW_TO_GET_A_MATRIX, Override, Overrides, always_needs_matrix
from packager.quantize.types import TENSOR_TYPES, TYPE_NAMES, FileType, file_type, tensor_type

_NEEDS_NONE = file_type("F32")
_LEAST_TEXT = 16  # bytes; no token is of less than one, and so many are wanted at least


def check_gguf_variants(recipe: Recipe) -> None:
    """Refuse what cannot be made whatever the model, before the hours of fetching it.

    Raises ``UsageError`` for a type that is unknown, or that needs an importance matrix where
    the recipe gives none; for a matrix that nothing is quantized with, and for a quality that is
    measured of nothing.
    """
    _check_calibration(recipe)
    if recipe.quality is not None and not any(v.format == GGUF for v in recipe.variants):
        raise UsageError(
            "recipe: quality: only GGUF variants are measured, and there is none",
            hint="leave quality out, or add a variant of the format gguf",
        )
    gives_matrix = recipe.calibration is not None and recipe.calibration.gives_matrix
    for variant in recipe.variants:
        if variant.format != GGUF or variant.file is not None:
            continue
        needing = list(_needing_matrix(*asked_for(variant)))
        if needing and not gives_matrix:
            raise UsageError(
                f"variant {variant.name}: {needing[0]} with so few bits needs an importance matrix",
                hint=HOW_TO_GET_A_MATRIX,
            )


def check_texts(recipe: Recipe, texts: Iterable[LockedFile]) -> None:
    """Refuse a text to calibrate or to measure on that is surely too short for any tokenizer.

    Raises ``UsageError``.
    """
    read = {recipe.calibration and recipe.calibration.text, recipe.quality and recipe.quality.text}
    for file in texts:
        if file.path in read and file.size < _LEAST_TEXT:
            raise UsageError(
                f"{file.path}: {file.size} bytes, too short a text to calibrate or to measure on",
                hint="give some pages, of the kind that the model will read",
            )


def _check_calibration(recipe: Recipe) -> None:
    if recipe.calibration is None:
        return
    if not recipe.calibration.gives_matrix:
        raise UsageError(
            "recipe: calibrate: without imatrix nothing is made of the text",
            hint=f"calibrate: {{text: {recipe.calibration.text}, imatrix: true}}",
        )
    if all(variant.type is None for variant in recipe.variants):
        raise UsageError(
            "recipe: calibrate: nothing is quantized here to GGUF, which alone has a use for it",
            hint="leave calibrate out",
        )


def _needing_matrix(kind: FileType, overrides: Overrides) -> Iterator[str]:
    """What of a file of ``kind`` no model can be made of without an importance matrix."""
    if always_needs_matrix(kind, Overrides()):
        yield kind.name
    for override in overrides.patterns:
        if always_needs_matrix(_NEEDS_NONE, Overrides(patterns=(override,))):
            yield f"overrides: {override.pattern}: {override.type.name}"
    if always_needs_matrix(_NEEDS_NONE, Overrides(output=overrides.output)):
        yield f"output: {_name(overrides.output)}"
    if always_needs_matrix(_NEEDS_NONE, Overrides(token_embedding=overrides.token_embedding)):
        yield f"token_embedding: {_name(overrides.token_embedding)}"


def _name(kind: GgmlType | None) -> str:
    return kind.name if kind else ""


def asked_for(variant: Variant) -> tuple[FileType, Overrides]:
    """The type of file that the GGUF ``variant`` is, and the types of single tensors.

    Raises ``UsageError`` for names that are unknown.
    """
    with about_variant(variant.name):
        return _file_type(variant.type or ""), Overrides(
            patterns=tuple(
                Override(pattern, _tensor_type(name)) for pattern, name in variant.overrides
            ),
            output=_tensor_type(variant.output) if variant.output else None,
            token_embedding=(
                _tensor_type(variant.token_embedding) if variant.token_embedding else None
            ),
        )


def _file_type(name: str) -> FileType:
    with suggesting(name, TYPE_NAMES):
        return file_type(name)


def _tensor_type(name: str) -> GgmlType:
    with suggesting(name, TENSOR_TYPES):
        return tensor_type(name)
