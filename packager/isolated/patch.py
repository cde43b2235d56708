"""Patches as a person names them beside the media: found, decided on, every byte checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.errors import (
    AirpackError,
    DigestMismatchError,
    MissingVolumeError,
    TrailingDataError,
    TruncatedError,
)
from packager.format.patch import CHUNKS_NAME, PatchChunk, PatchFile, PatchPart
from packager.format.volumes import MAX_CHUNK_SIZE
from packager.isolated.chunks import read_fully
from packager.isolated.media import PATCH, Media, evidence_below, is_patch, read_evidence
from packager.store.atomic import naming_refusals, open_regular
from packager.trust.keyring import Keyring
from packager.trust.patch import VerifiedPatch, verify_patch
from packager.trust.verify import VerifiedBundle, first_believed

_AGAIN = "copy the patch again from where it was made"


@dataclass(frozen=True)
class OpenPatch:
    """A patch in a directory: the path of its file of chunks, and what that holds."""

    path: Path
    verified: VerifiedPatch

    @property
    def chunks(self) -> tuple[PatchChunk, ...]:
        """The chunks, ascending, each with its place in the file."""
        return self.verified.patch.chunks

    @property
    def files(self) -> tuple[PatchFile, ...]:
        """The small files, likewise."""
        return self.verified.patch.files


def split_patches(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The directories ``paths``, apart: bundles or media of such, and patches.

    A patch is a directory that holds ``patch.json``, or a directory of nothing but one such.
    """
    bundles: list[Path] = []
    patches: list[Path] = []
    for path in paths:
        inside = _patch_directory(path)
        (patches if inside else bundles).append(inside or path)
    return bundles, patches


def _patch_directory(path: Path) -> Path | None:
    with naming_refusals(path):
        found = evidence_below(path) if path.is_dir() else []
    return found[0] if len(found) == 1 and is_patch(found[0]) else None


def open_patch(
    directory: Path, verified: VerifiedBundle, keyring: Keyring, *, now: datetime
) -> OpenPatch:
    """Decide on the patch in ``directory``, for the bundle ``verified``, and read all of it.

    Raises ``TrustError``, ``IntegrityError`` or, where a file of it is not there,
    ``MissingVolumeError``; they name the directory.
    """
    try:
        readings = read_evidence(Media((directory,)), keyring, PATCH)
        found = first_believed(readings, lambda e: verify_patch(e, verified, keyring, now=now))
    except AirpackError as error:
        where = "" if str(directory) in error.message else f"{directory}: "
        raise type(error)(f"{where}{error.message}", hint=error.hint or _AGAIN) from None
    patch = OpenPatch(directory / CHUNKS_NAME, found)
    _check_content(patch)
    return patch


def _check_content(patch: OpenPatch) -> None:
    """Read every chunk and file; raises ``IntegrityError`` for any that is not as signed."""
    path, wanted = patch.path, patch.verified.patch.size
    if not os.path.lexists(path):
        raise MissingVolumeError(f"{path}: is not here", hint=_AGAIN)
    buffer = memoryview(bytearray(MAX_CHUNK_SIZE))
    with open_regular(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size != wanted:
            kind = TruncatedError if size < wanted else TrailingDataError
            raise kind(f"{path}: {size} bytes, not {wanted}", hint=_AGAIN)
        for part in patch.verified.patch.parts:
            if _digest_of(descriptor, part, buffer) != part.digest.hex:
                raise DigestMismatchError(
                    f"{path}: {part} (bytes {part.offset} to {part.offset + part.size}) is damaged",
                    hint=_AGAIN,
                )


def _digest_of(descriptor: int, part: PatchPart, buffer: memoryview) -> str:
    """The digest of what can be read of ``part``, in hexadecimal digits."""
    state = hashlib.sha256()
    position, end = part.offset, part.offset + part.size
    while position < end:
        piece = buffer[: min(len(buffer), end - position)]
        count = read_fully(descriptor, piece, position)
        state.update(piece[:count])
        if count < len(piece):
            break
        position += count
    return state.hexdigest()
