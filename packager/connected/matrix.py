"""The importance matrix that a recipe asks for: a ready file, locked, or gathered on a text.

What was gathered is kept in the cache under the digest of the model that read, and of the text.
"""

from __future__ import annotations

from pathlib import PurePath

from packager.connected.calibrate import calibrate
from packager.connected.local import read_text
from packager.connected.locked_matrix import NamedMatrix, read_locked_matrix
from packager.connected.models import make_original
from packager.connected.workshop import Workshop, key_of
from packager.errors import IntegrityError
from packager.format.lock import LockedFile
from packager.quantize.imatrix import ImportanceMatrix, read_matrix
from packager.store.atomic import write_file

CALIBRATE_VERSION = "1"
"""Bumped whenever another matrix may be gathered on the same text: part of the cache's key."""

_SUFFIX = ".imatrix.gguf"


def find_matrix(workshop: Workshop) -> NamedMatrix | None:
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
    return NamedMatrix(_gathered(workshop, workshop.named_file(calibration.text)), name)


def _gathered(workshop: Workshop, text: LockedFile) -> ImportanceMatrix:
    """The matrix of the original model, or one hardly to be told from it, on ``text``."""
    original = make_original(workshop).model
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
    path = workshop.cache.derived(key, _SUFFIX)
    if path.exists():
        try:
            return read_matrix(path)
        except IntegrityError as error:
            workshop.progress.note(f"{error.message}; gathering it again")
    matrix = calibrate(
        original.path,
        read_text(workshop.recipe_folder, text),
        dataset=dataset,
        libraries=workshop.libraries,
        progress=workshop.progress,
    )
    write_file(path, matrix.encode())
    return matrix
