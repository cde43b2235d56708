"""From media to store: each chunk is read once, checked, and only then written."""

from __future__ import annotations

import itertools
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from packager.errors import IntegrityError, MissingVolumeError, NoSpaceError
from packager.format.bundle import Bundle, PayloadFile
from packager.format.digest import Digest
from packager.format.sizes import format_size
from packager.format.volumes import Volume
from packager.isolated.chunks import read_chunks, volume_places
from packager.isolated.media import Media, regular_size
from packager.isolated.verify import chunk_damage
from packager.progress import Progress
from packager.store.atomic import make_directory, naming_refusals
from packager.store.blobs import IncomingBlob, has_blob, incoming_blob
from packager.store.home import Home
from packager.store.open_files import allow_open_files
from packager.trust.verify import VerifiedBundle

# Beside the blobs themselves: links, evidence, the log, and what the filesystem keeps for itself.
_SPACE_MARGIN = 8 << 20


def stage_files(
    verified: VerifiedBundle,
    files: Iterable[PayloadFile],
    media: Media,
    home: Home,
    progress: Progress,
) -> None:
    """Bring the content of ``files`` into the store, unless it is there.

    Raises ``MissingVolumeError``, ``IntegrityError`` or ``NoSpaceError``; then no blob of these
    files was published, and the store is as it was.
    """
    missing = _distinct(file for file in files if not has_blob(home, file.digest, file.size))
    if not missing:
        return
    bundle = verified.bundle
    chunks = _chunks_of(bundle, missing)
    places = _needed_places(bundle, media, chunks)
    _check_space(home, sum(file.size for file in missing))
    allow_open_files(len(missing) + len(places))
    with ExitStack() as stack:
        blobs = {
            file.digest: stack.enter_context(incoming_blob(home, file.digest, file.size))
            for file in missing
        }
        total = sum(bundle.payload.chunk_range(chunk)[1] for chunk in chunks)
        writer = _Writer(bundle, missing, blobs)
        with progress.task("installing", total) as task:
            read_chunks(verified, places, chunks, good=writer.write, bad=writer.refuse, task=task)
        writer.raise_damage(places)


class _Writer:
    """Puts each good chunk where its bytes belong, and remembers the bad ones."""

    def __init__(
        self, bundle: Bundle, files: list[PayloadFile], blobs: Mapping[Digest, IncomingBlob]
    ) -> None:
        self._bundle = bundle
        self._files = files
        self._ends = [file.end for file in files]
        self._blobs = blobs
        self._bad: list[int] = []
        self._lock = threading.Lock()

    def write(self, chunk: int, data: memoryview) -> None:
        begin, size = self._bundle.payload.chunk_range(chunk)
        first = bisect_right(self._ends, begin)
        for file in itertools.takewhile(lambda f: f.offset < begin + size, self._files[first:]):
            start, end = max(file.offset, begin), min(file.end, begin + size)
            piece = data[start - begin : end - begin]
            self._blobs[file.digest].write(piece, start - file.offset)

    def refuse(self, chunk: int) -> None:
        with self._lock:
            self._bad.append(chunk)

    def raise_damage(self, places: Mapping[str, Path]) -> None:
        if not self._bad:
            return
        damage = chunk_damage(self._bundle, min(self._bad), places)
        more = f", and {len(self._bad) - 1} more chunks" if len(self._bad) > 1 else ""
        raise IntegrityError(
            f"{damage.medium / damage.volume}: chunk {damage.chunk} (bytes {damage.offset} to "
            f"{damage.offset + damage.size}) is damaged{more}; it touches "
            f"{', '.join(damage.files)}",
            hint="airpack verify BUNDLE names all damage; copy the bundle again from its source",
        )


def _distinct(files: Iterable[PayloadFile]) -> list[PayloadFile]:
    """The first file of each content, in payload order."""
    ordered = sorted(files, key=lambda file: file.offset, reverse=True)
    by_digest = {file.digest: file for file in ordered}
    return sorted(by_digest.values(), key=lambda file: file.offset)


def _chunks_of(bundle: Bundle, files: list[PayloadFile]) -> list[int]:
    chunk_size = bundle.payload.chunk_size
    chunks: set[int] = set()
    for file in files:
        chunks.update(range(file.offset // chunk_size, -(-file.end // chunk_size)))
    return sorted(chunks)


def _needed_places(bundle: Bundle, media: Media, chunks: list[int]) -> dict[str, Path]:
    """Where the volumes that hold ``chunks`` lie; raises if one is missing or not a file."""
    chunk_size = bundle.payload.chunk_size
    places = volume_places(bundle, media)
    for volume in bundle.volumes:
        begin, end = volume.offset // chunk_size, -(-(volume.offset + volume.size) // chunk_size)
        if bisect_left(chunks, begin) == bisect_left(chunks, end):
            places.pop(volume.name, None)
        elif volume.name not in places:
            where = ", ".join(str(directory) for directory in media.directories)
            raise MissingVolumeError(
                f"{volume.name} is missing from {where}",
                hint="name every medium of this bundle, or copy the volume again",
            )
        else:
            _check_volume(volume, places[volume.name])
    return places


def _check_volume(volume: Volume, path: Path) -> None:
    size = regular_size(path)
    if size is None or size > volume.size:
        fact = "not a regular file" if size is None else f"{size} bytes, not {volume.size}"
        raise IntegrityError(f"{path}: {fact}", hint="copy the bundle again from its source")


def _check_space(home: Home, needed: int) -> None:
    make_directory(home.blobs)
    with naming_refusals(home.blobs):
        status = os.statvfs(home.blobs)
    free = status.f_bavail * status.f_frsize
    if free < needed + _SPACE_MARGIN:
        raise NoSpaceError(
            f"{home.root}: {format_size(needed + _SPACE_MARGIN)} needed, {format_size(free)} free",
            hint="airpack gc frees what no generation holds; or set AIRPACK_HOME to a larger disk",
        )
