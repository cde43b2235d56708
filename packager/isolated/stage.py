"""From media to store: each chunk is read once, checked, and only then written."""

from __future__ import annotations

import itertools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from packager.errors import (
    DigestMismatchError,
    IntegrityError,
    MissingVolumeError,
    NoSpaceError,
)
from packager.format.bundle import Bundle, PayloadFile
from packager.format.digest import Digest
from packager.format.sizes import format_size
from packager.format.volumes import Volume
from packager.isolated.chunks import read_chunks
from packager.isolated.media import Media, regular_size
from packager.isolated.recover import recover_chunks
from packager.progress import Progress
from packager.store.atomic import make_directory, naming_refusals
from packager.store.blobs import IncomingBlob, incoming_blob, is_intact
from packager.store.digests import file_digest
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
    missing = _distinct(file for file in files if not is_intact(home, file.digest, file.size))
    if not missing:
        return
    bundle = verified.bundle
    chunks = _chunks_of(bundle, missing)
    places = _places(bundle, media)
    _check_volumes_there(bundle, media, chunks, progress)
    _check_space(home, sum(file.size for file in missing))
    allow_open_files(len(missing) + len(places))
    with ExitStack() as stack:
        blobs = {
            file.digest: stack.enter_context(incoming_blob(home, file.digest, file.size))
            for file in missing
        }
        writer = _Writer(bundle, missing, blobs)
        there = [chunk for chunk in chunks if bundle.volume_of(chunk).name in places]
        for chunk in sorted({*chunks} - {*there}):
            writer.refuse(chunk)
        with progress.task("installing", _total(bundle, there)) as task:
            read_chunks(verified, places, there, good=writer.write, bad=writer.refuse, task=task)
        if writer.bad:
            _recover(verified, media, writer, progress)
        _check_files(missing, blobs)


def _check_files(files: Sequence[PayloadFile], blobs: Mapping[Digest, IncomingBlob]) -> None:
    """Refuse a file that is not what the index says, though every chunk of it is.

    Only a signer can bring that about; but what one signer sends must never stand in the store
    under the name of what another one sends.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = pool.map(lambda file: file_digest(blobs[file.digest].path), files)
        for file, digest in zip(files, digests, strict=True):
            if digest != file.digest:
                raise DigestMismatchError(f"{file.path}: the signed index gives another digest")


def _recover(verified: VerifiedBundle, media: Media, writer: _Writer, progress: Progress) -> None:
    """Have the chunks that were bad or not there; raises if some cannot be had."""
    bundle = verified.bundle
    if bundle.parity or len(media.directories) > 1:
        progress.note(f"{len(writer.bad)} chunk(s) bad or missing; making them good")
    with progress.task("rebuilding", _total(bundle, writer.bad)) as task:
        lost = recover_chunks(verified, media, writer.bad, good=writer.write, task=task)
    if not lost:
        return
    volume = bundle.volume_of(lost[0])
    offset, size = volume.place(lost[0])
    begin, _ = bundle.payload.chunk_range(lost[0])
    files = ", ".join(file.path for file in bundle.files_touching(begin, begin + size))
    more = f", and {len(lost) - 1} more chunks" if len(lost) > 1 else ""
    place = media.find(volume.name)
    if place is None:
        raise _missing(volume.name, media)
    raise IntegrityError(
        f"{place}: chunk {lost[0]} (bytes {offset} to {offset + size}) is damaged{more}; it "
        f"touches {files}",
        hint="airpack verify BUNDLE names all damage; copy the bundle again from its source",
    )


def _total(bundle: Bundle, chunks: Iterable[int]) -> int:
    return sum(bundle.volume_of(chunk).place(chunk)[1] for chunk in chunks)


class _Writer:
    """Puts each good chunk where its bytes belong, and remembers the bad ones."""

    def __init__(
        self, bundle: Bundle, files: list[PayloadFile], blobs: Mapping[Digest, IncomingBlob]
    ) -> None:
        self._bundle = bundle
        self._files = files
        self._ends = [file.end for file in files]
        self._blobs = blobs
        self.bad: list[int] = []
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
            self.bad.append(chunk)


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


def _places(bundle: Bundle, media: Media) -> dict[str, Path]:
    """Where the payload's volumes lie that can be read as such; the others are made good."""
    places = {v.name: path for v in bundle.volumes if (path := media.find(v.name)) is not None}
    return {name: path for name, path in places.items() if regular_size(path) is not None}


def _check_volumes_there(
    bundle: Bundle, media: Media, chunks: Sequence[int], progress: Progress
) -> None:
    """Raise where volumes that hold ``chunks`` are absent, more than parity can make good.

    So a forgotten medium is noticed at once, and not after an hour.
    """
    absent = [v.name for v in bundle.volume_files if media.find(v.name) is None]
    needed = {bundle.volume_of(chunk).name for chunk in chunks}
    wanted = [name for name in absent if name in needed]
    if wanted and len(absent) > len(bundle.parity):
        raise _missing(", ".join(wanted), media)
    if absent:
        progress.note(f"{', '.join(absent)}: missing; this install does without")
    for volume in bundle.volumes:
        if (path := media.find(volume.name)) is not None:
            _check_volume(volume, path, spared=bool(bundle.parity))


def _missing(names: str, media: Media) -> MissingVolumeError:
    where = ", ".join(str(directory) for directory in media.directories)
    return MissingVolumeError(
        f"{names}: missing from {where}",
        hint="name every medium of this bundle, or copy the volume again",
    )


def _check_volume(volume: Volume, path: Path, *, spared: bool) -> None:
    """Refuse what is no volume, unless it can be ``spared``, and what has more bytes than one."""
    size = regular_size(path)
    if size is None and not spared:
        fact = "not a regular file"
    elif size is not None and size > volume.size:
        fact = f"{size} bytes, not {volume.size}"
    else:
        return
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
