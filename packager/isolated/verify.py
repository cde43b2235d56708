"""``airpack verify``: the signature, then every file, then every chunk; damage is named."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.errors import IntegrityError
from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, carries_key_id
from packager.format.volumes import Volume
from packager.isolated.chunks import read_chunks, volume_places
from packager.isolated.media import Media, read_evidence, regular_size
from packager.progress import Progress
from packager.store.digests import file_digest
from packager.trust.keyring import Keyring
from packager.trust.verify import VerifiedBundle, verify_bundle

GOOD, BAD, MISSING = "good", "bad", "missing"
MAX_SMALL_FILE_SIZE = 1 << 32  # bytes; FAT32 takes no larger file, and wheels are far below it


@dataclass(frozen=True)
class VolumeState:
    """One file of the payload on its medium. ``medium`` is ``None`` where it is missing."""

    name: str
    medium: Path | None
    state: str


@dataclass(frozen=True)
class Damage:
    """Bytes that are not what was signed: a chunk of a volume, or a whole small file.

    ``offset`` and ``size`` are bytes within the file ``volume`` in the directory ``medium``;
    ``files`` are the paths inside the payload that the damage touches.
    """

    medium: Path
    volume: str
    chunk: int | None
    offset: int
    size: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What was found on the media."""

    verified: VerifiedBundle
    volumes: tuple[VolumeState, ...]
    damage: tuple[Damage, ...]
    missing: tuple[str, ...]
    strangers: tuple[Path, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was signed is there, and nothing else."""
        return not (self.damage or self.missing or self.strangers)


def authenticate(media: Media, keyring: Keyring, *, now: datetime) -> VerifiedBundle:
    """Read the evidence on ``media`` and decide on it; reads nothing of the payload."""
    return verify_bundle(read_evidence(media), keyring, now=now)


def verify_media(verified: VerifiedBundle, media: Media, progress: Progress) -> Verification:
    """Read every byte that was signed and say what is bad, missing or strange.

    What lies on several media is read on each of them.
    """
    bundle = verified.bundle
    damage = list(_small_damage(verified, media))
    for copy in range(len(media.directories)):
        if places := volume_places(bundle, media, copy):
            damage += _size_damage(bundle, places)
            damage += _chunk_damage(verified, places, progress)
    damaged = {entry.medium / entry.volume for entry in damage}
    return Verification(
        verified=verified,
        volumes=tuple(
            _state(volume, path, damaged)
            for volume in bundle.volumes
            for path in media.copies(volume.name) or (None,)
        ),
        damage=tuple(damage),
        missing=tuple(name for name in verified.sums if media.find(name) is None),
        strangers=tuple(find_strangers(media, verified.sums)),
    )


def find_strangers(media: Media, sums: Mapping[str, Digest]) -> Iterable[Path]:
    """The things on the media that nobody signed for and that are no signature."""
    for directory, name in media.names():
        if name != SUMS_NAME and name not in sums and not carries_key_id(name):
            yield directory / name


def _small_damage(verified: VerifiedBundle, media: Media) -> Iterable[Damage]:
    volumes = {volume.name for volume in verified.bundle.volumes}
    for directory, name in media.names():
        if name not in verified.sums or name in volumes:
            continue
        size = regular_size(directory / name)
        if not _has_digest(directory / name, size, verified.sums[name]):
            yield Damage(directory, name, None, 0, size or 0, ())


def _has_digest(path: Path, size: int | None, digest: Digest) -> bool:
    if size is None or size > MAX_SMALL_FILE_SIZE:
        return False
    try:
        return file_digest(path) == digest
    except IntegrityError:  # a sector that the device does not give
        return False


def _size_damage(bundle: Bundle, places: Mapping[str, Path]) -> Iterable[Damage]:
    """What is no volume at all, or has bytes behind its end; missing bytes show as bad chunks."""
    for volume in bundle.volumes:
        if volume.name not in places:
            continue
        medium = places[volume.name].parent
        size = regular_size(places[volume.name])
        if size is None:
            files = bundle.files_touching(volume.offset, volume.offset + volume.size)
            paths = tuple(file.path for file in files)
            yield Damage(medium, volume.name, None, 0, volume.size, paths)
        elif size > volume.size:
            yield Damage(medium, volume.name, None, volume.size, size - volume.size, ())


def _chunk_damage(
    verified: VerifiedBundle, places: dict[str, Path], progress: Progress
) -> Iterable[Damage]:
    bundle = verified.bundle
    regular = {name: path for name, path in places.items() if regular_size(path) is not None}
    present = [volume for volume in bundle.volumes if volume.name in regular]
    chunks = [chunk for volume in present for chunk in volume_chunks(bundle, volume)]
    bad: list[int] = []
    lock = threading.Lock()

    def note_bad(chunk: int) -> None:
        with lock:
            bad.append(chunk)

    total = sum(volume.size for volume in present)
    with progress.task("verifying", total) as task:
        read_chunks(verified, regular, chunks, good=_accept, bad=note_bad, task=task)
    return [chunk_damage(bundle, chunk, places) for chunk in sorted(bad)]


def _accept(_chunk: int, _data: memoryview) -> None:
    """Nothing more to do: the chunk has its digest."""


def volume_chunks(bundle: Bundle, volume: Volume) -> range:
    """The numbers of the chunks that ``volume`` holds."""
    first = volume.offset // bundle.payload.chunk_size
    return range(first, first + -(-volume.size // bundle.payload.chunk_size))


def chunk_damage(bundle: Bundle, chunk: int, places: Mapping[str, Path]) -> Damage:
    """Name what a bad chunk is: its volume, its place there, and the files it touches."""
    offset, size = bundle.payload.chunk_range(chunk)
    volume = next(v for v in bundle.volumes if v.offset <= offset < v.offset + v.size)
    files = tuple(file.path for file in bundle.files_touching(offset, offset + size))
    medium = places[volume.name].parent
    return Damage(medium, volume.name, chunk, offset - volume.offset, size, files)


def _state(volume: Volume, path: Path | None, damaged: set[Path]) -> VolumeState:
    if path is None:
        return VolumeState(volume.name, None, MISSING)
    return VolumeState(volume.name, path.parent, BAD if path in damaged else GOOD)
