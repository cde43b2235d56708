"""The importance matrix file that a recipe names: locked, and read again as it was locked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from packager.connected.source.hashing import changed_error
from packager.errors import UsageError
from packager.format.digest import Digest
from packager.format.lock import SHA256, ContentId, LockedFile
from packager.quantize.imatrix import ImportanceMatrix, parse_matrix, read_matrix_bytes


@dataclass(frozen=True, eq=False)
class NamedMatrix:
    """An importance matrix, and what files that are made with it call it."""

    matrix: ImportanceMatrix
    name: str


def lock_matrix(folder: Path, path: str) -> LockedFile:
    """Say what the matrix at ``path`` holds, that a recipe in ``folder`` names.

    Raises ``UsageError`` where there is none, ``IntegrityError`` (``MalformedError`` among them)
    for one that is broken.
    """
    data = _read(folder / path)
    parse_matrix(data, what=path)
    return LockedFile(path, len(data), ContentId(SHA256, Digest.of(data).hex))


def read_locked_matrix(folder: Path, file: LockedFile) -> NamedMatrix:
    """The matrix that a recipe in ``folder`` names; raises ``DigestMismatchError`` if changed."""
    data = _read(folder / file.path)
    if Digest.of(data).hex != file.content.hex:
        raise changed_error(folder / file.path)
    # The name alone: the way to it is this host's, and would make the bytes depend on it.
    name = PurePath(file.path).name
    return NamedMatrix(parse_matrix(data, what=name), name)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(
            f"{path}: the recipe names this importance matrix, and there is no such file"
        )
    return read_matrix_bytes(Path(os.path.realpath(path)))
