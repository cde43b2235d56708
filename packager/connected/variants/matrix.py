"""The importance matrix that a recipe asks for: a ready file, locked, or gathered on a text.

What was gathered is kept in the cache under the digest of the model that read, and of the text.
"""

from __future__ import annotations

from pathlib import PurePath

from packager.connected.artefacts import find_bytes, keep_bytes
from packager.connected.source.local import read_text
from packager.connected.variants.calibrate import calibrate
from packager.connected.variants.gguf import Models
from packager.connected.variants.locked_matrix import NamedMatrix, read_locked_matrix
from packager.connected.workshop import Workshop, key_of
from packager.format.lock import LockedFile
from packager.quantize.imatrix import MAX_MATRIX_SIZE, ImportanceMatrix, parse_matrix

CALIBRATE_VERSION = "1"
"""Bumped whenever another matrix may be gathered on the same text: part of the cache's key."""

_SUFFIX = ".imatrix.gguf"


def find_matrix(workshop: Workshop, models: Models) -> NamedMatrix | None:
    """The matrix that the recipe names or asks for, gathered now unless the cache has it.

    To be called by the only maker. Raises ``DigestMismatchError`` for a file that changed since
    the lock, ``UsageError`` for too short a text, ``EngineError``.
    """
    calibration = workshop.recipe.calibration
    if calibration is None:
        return None
    if calibration.matrix is not None:
        return read_locked_matrix(workshop.recipe_folder, workshop.named_file(calibration.matrix))
    if calibration.text is None or not calibration.imatrix:
        return None
    name = f"{workshop.recipe.name}{_SUFFIX}"
    return NamedMatrix(_gathered(workshop, models, workshop.named_file(calibration.text)), name)


def _gathered(workshop: Workshop, models: Models, text: LockedFile) -> ImportanceMatrix:
    """The matrix of the original model, or one hardly to be told from it, on ``text``."""
    original = models.original().model
    dataset = PurePath(text.path).name
    key = key_of(
        {
            "what": "imatrix",
            "calibrate": CALIBRATE_VERSION,
            "engine": workshop.engine,
            "model": original.key.hex,
            "text": [dataset, text.content.hex],
        }
    )
    cache, progress = workshop.cache, workshop.progress
    name = "the importance matrix"
    held = find_bytes(cache, key, _SUFFIX, most=MAX_MATRIX_SIZE, name=name, progress=progress)
    if held is not None:
        return parse_matrix(held, what=name)
    matrix = calibrate(
        original.path,
        read_text(workshop.recipe_folder, text),
        dataset=dataset,
        libraries=workshop.libraries,
        progress=progress,
    )
    keep_bytes(cache, key, _SUFFIX, matrix.encode())
    return matrix
