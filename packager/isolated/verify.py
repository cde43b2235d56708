"""``airpack verify``: the signature, then every file, then every chunk; damage is named."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.format.bundle import Bundle, Volume
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, carries_key_id
from packager.isolated.chunks import read_chunks, volume_places
from packager.isolated.media import Media, read_evidence, regular_size
from packager.progress import Progress
from packager.store.digests import file_digest
from packager.trust.keyring import Keyring
from packager.trust.verify import VerifiedBundle, verify_bundle

GOOD, BAD, MISSING = "good", "bad", "missing"


@dataclass(frozen=True)
class VolumeState:
    """One file of the payload on its medium. ``medium`` is ``None`` where it is missing."""

    name: str
    medium: Path | None
    state: str


@dataclass(frozen=True)
class Damage:
    """Bytes that are not what was signed: a chunk of a volume, or a whole small file.

    ``offset`` and ``size`` are bytes within the file ``volume``; ``files`` are the paths inside
    the payload that the damage touches.
    """

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
    """Read every byte that was signed and say what is bad, missing or strange."""
    bundle = verified.bundle
    places = volume_places(bundle, media.find)
    damage = [
        *_small_damage(verified, media),
        *_size_damage(bundle, places),
        *_chunk_damage(verified, places, progress),
    ]
    damaged = {entry.volume for entry in damage}
    return Verification(
        verified=verified,
        volumes=tuple(
            _state(volume, places.get(volume.name), damaged) for volume in bundle.volumes
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
        path = directory / name
        size = regular_size(path)
        if size is None or file_digest(path) != verified.sums[name]:
            yield Damage(name, None, 0, size or 0, ())


def _size_damage(bundle: Bundle, places: Mapping[str, Path]) -> Iterable[Damage]:
    """Volumes with bytes behind their end; missing bytes show as bad chunks."""
    for volume in bundle.volumes:
        if volume.name in places:
            size = regular_size(places[volume.name])
            if size is None or size > volume.size:
                yield Damage(volume.name, None, volume.size, (size or 0) - volume.size, ())


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
    return [chunk_damage(bundle, chunk) for chunk in sorted(bad)]


def _accept(_chunk: int, _data: memoryview) -> None:
    """Nothing more to do: the chunk has its digest."""


def volume_chunks(bundle: Bundle, volume: Volume) -> range:
    """The numbers of the chunks that ``volume`` holds."""
    first = volume.offset // bundle.payload.chunk_size
    return range(first, first + -(-volume.size // bundle.payload.chunk_size))


def chunk_damage(bundle: Bundle, chunk: int) -> Damage:
    """Name what a bad chunk is: its volume, its place there, and the files it touches."""
    offset, size = bundle.payload.chunk_range(chunk)
    volume = next(v for v in bundle.volumes if v.offset <= offset < v.offset + v.size)
    files = tuple(file.path for file in bundle.files_touching(offset, offset + size))
    return Damage(volume.name, chunk, offset - volume.offset, size, files)


def _state(volume: Volume, path: Path | None, damaged: set[str]) -> VolumeState:
    if path is None:
        return VolumeState(volume.name, None, MISSING)
    return VolumeState(volume.name, path.parent, BAD if volume.name in damaged else GOOD)
