"""A bundle as the source of a copy: all of it in one directory, by its own word."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.errors import IntegrityError, MissingVolumeError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE, Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME, parse_sums, spare_name
from packager.isolated.media import Media, open_media, regular_size
from packager.isolated.verify import find_strangers
from packager.store.atomic import read_capped
from packager.store.digests import file_digest


@dataclass(frozen=True)
class SmallFile:
    """A file of the bundle that is no volume; ``size`` in bytes."""

    name: str
    size: int
    digest: Digest


@dataclass(frozen=True)
class Source:
    """What is copied. No signature was checked; ``strangers`` are not part of it."""

    directory: Path
    bundle: Bundle
    small: tuple[SmallFile, ...]
    strangers: tuple[Path, ...]

    @property
    def volume_names(self) -> tuple[str, ...]:
        """The names of the volumes, then those of the parity volumes."""
        return tuple(volume.name for volume in self.bundle.volume_files)


def open_source(path: Path) -> Source:
    """The bundle at ``path``, its small files checked against its sums.

    Raises ``IntegrityError`` for a damaged one, ``MissingVolumeError`` where a file is missing.
    """
    media = open_media([path])
    [directory] = media.directories
    signed = read_capped(media.require(SUMS_NAME), MAX_SUMS_SIZE)
    index = read_capped(media.require(INDEX_NAME), MAX_INDEX_SIZE)
    sums = parse_sums(signed)
    if sums.get(INDEX_NAME) != Digest.of(index):
        raise _damaged(directory / INDEX_NAME)
    bundle = parse_bundle(index)
    sizes = {volume.name: volume.size for volume in bundle.volume_files}
    missing = [name for name in {**sizes, **sums} if not os.path.lexists(directory / name)]
    if missing:
        raise MissingVolumeError(
            f"{directory}: {', '.join(missing)} missing",
            hint=f"airpack repair {directory} --in-place, or copy from where all of it is",
        )
    for name, size in sizes.items():
        if regular_size(directory / name) != size:
            raise _damaged(directory / name)
    strangers = tuple(find_strangers(media, sums, bundle))
    skipped = {*sizes, *(stranger.name for stranger in strangers)}
    known = {**sums, SUMS_NAME: Digest.of(signed), spare_name(SUMS_NAME): Digest.of(signed)}
    return Source(directory, bundle, _small_files(media, known, skipped), strangers)


def _small_files(
    media: Media, known: Mapping[str, Digest], skipped: set[str]
) -> tuple[SmallFile, ...]:
    files = []
    for directory, name in media.names():
        if name in skipped:
            continue
        path = directory / name
        file = SmallFile(name, regular_size(path) or 0, file_digest(path))
        if known.get(name, file.digest) != file.digest:
            raise _damaged(path)
        files.append(file)
    # A directory is a bundle once it has sums: they come last.
    sums = (SUMS_NAME, spare_name(SUMS_NAME))
    return tuple(sorted(files, key=lambda file: (file.name in sums, file.name)))


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path}: damaged; nothing was copied",
        hint=f"airpack repair {shlex.quote(str(path.parent))} --in-place, then this command again",
    )
