"""Patches as a person names them beside the media: found, decided on, and every chunk checked."""

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
    IntegrityError,
    TrailingDataError,
    TruncatedError,
)
from packager.format.patch import CHUNKS_NAME, MAX_PATCH_SIZE, PATCH_NAME, PatchChunk
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, signature_key_id
from packager.format.volumes import MAX_CHUNK_SIZE
from packager.isolated.chunks import read_fully
from packager.isolated.media import MAX_SIGNATURES, Media
from packager.store.atomic import naming_refusals, open_regular, read_capped
from packager.trust.keyring import Keyring
from packager.trust.keys import MAX_SIGNATURE_SIZE
from packager.trust.patch import VerifiedPatch, verify_patch
from packager.trust.verify import Evidence, VerifiedBundle

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
        if (path / PATCH_NAME).is_file():
            return path
        bundles = [file for file in path.glob(f"*/{SUMS_NAME}") if file.parent.name[0] != "."]
        found = [file.parent for file in bundles if (file.parent / PATCH_NAME).is_file()]
        alone = len(bundles) == len(found) == 1 and not (path / SUMS_NAME).exists()
    return found[0] if alone else None


def open_patch(
    directory: Path, verified: VerifiedBundle, keyring: Keyring, *, now: datetime
) -> OpenPatch:
    """Decide on the patch in ``directory``, for the bundle ``verified``, and read all of it.

    Raises ``TrustError`` or ``IntegrityError``, which name the directory.
    """
    try:
        found = verify_patch(_read_evidence(directory), verified, keyring, now=now)
    except AirpackError as error:
        if str(directory) in error.message:
            raise
        raise type(error)(f"{directory}: {error.message}", hint=error.hint) from None
    patch = OpenPatch(directory / CHUNKS_NAME, found)
    _check_chunks(patch)
    return patch


def _read_evidence(directory: Path) -> Evidence:
    return Evidence(
        sums=read_capped(directory / SUMS_NAME, MAX_SUMS_SIZE),
        signatures=_read_signatures(directory),
        index=read_capped(directory / PATCH_NAME, MAX_PATCH_SIZE),
    )


def _read_signatures(directory: Path) -> dict[str, bytes]:
    names = [name for _, name in Media((directory,)).names() if signature_key_id(name)]
    if len(names) > MAX_SIGNATURES:
        raise IntegrityError(f"{directory}: more than {MAX_SIGNATURES} signatures")
    return {
        str(signature_key_id(name)): read_capped(directory / name, MAX_SIGNATURE_SIZE + 1)
        for name in names
    }


def _check_chunks(patch: OpenPatch) -> None:
    """Read every chunk; raises ``IntegrityError`` for any that is not as signed."""
    path, wanted = patch.path, patch.verified.patch.size
    buffer = memoryview(bytearray(MAX_CHUNK_SIZE))
    with open_regular(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size != wanted:
            kind = TruncatedError if size < wanted else TrailingDataError
            raise kind(f"{path}: {size} bytes, not {wanted}", hint=_AGAIN)
        for chunk in patch.chunks:
            data = buffer[: chunk.size]
            whole = read_fully(descriptor, data, chunk.offset) == chunk.size
            if not whole or hashlib.sha256(data).hexdigest() != chunk.digest.hex:
                raise DigestMismatchError(
                    f"{path}: chunk {chunk.number} (bytes {chunk.offset} to "
                    f"{chunk.offset + chunk.size}) is damaged",
                    hint=_AGAIN,
                )
