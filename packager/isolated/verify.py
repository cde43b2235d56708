"""``airpack verify``: the signature, then every file, then every chunk; damage is named."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packager.errors import AirpackError, IntegrityError, TrustError
from packager.format.bundle import Bundle
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, carries_key_id, signature_name, spare_name
from packager.isolated.chunks import read_chunks, volume_places
from packager.isolated.media import Media, read_evidence, regular_size
from packager.isolated.recover import can_be_rebuilt
from packager.progress import Progress
from packager.store.digests import file_digest
from packager.trust.keyring import Keyring
from packager.trust.verify import VerifiedBundle, verify_bundle

GOOD, BAD, MISSING, REPAIRABLE = "good", "bad", "missing", "repairable"
MAX_SMALL_FILE_SIZE = 1 << 32  # bytes; FAT32 takes no larger file, and wheels are far below it


@dataclass(frozen=True)
class VolumeState:
    """A volume of either kind on a medium. ``medium`` is ``None`` where it is missing."""

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
    lost: tuple[int, ...]
    rebuildable: frozenset[int]

    @property
    def repairable(self) -> bool:
        """Whether something is bad or missing, and all of it can be made good from what is here."""
        whole = {entry.volume for entry in self.damage if entry.chunk is None}
        volumes = {volume.name for volume in self.verified.bundle.volume_files}
        return (
            not (self.ok or self.strangers)
            and {*whole, *self.missing} <= volumes
            and self.rebuildable == {*self.lost}
        )

    @property
    def ok(self) -> bool:
        """Whether everything that was signed is there, and nothing else."""
        return not (self.damage or self.missing or self.strangers)


def authenticate(media: Media, keyring: Keyring, *, now: datetime) -> VerifiedBundle:
    """Read the evidence on ``media`` and decide on it; reads nothing of the payload.

    Raises what :func:`verify_bundle` raises of the first reading, if none holds, and
    ``IntegrityError`` for media of different bundles.
    """
    refusals: list[AirpackError] = []
    for evidence in read_evidence(media):
        try:
            verified = verify_bundle(evidence, keyring, now=now)
        except (TrustError, IntegrityError) as error:
            refusals.append(error)
        else:
            _check_same_bundle(media, verified)
            return verified
    raise refusals[0]


def _check_same_bundle(media: Media, verified: VerifiedBundle) -> None:
    """Each medium must hold the sums that were signed, or a spare copy of them."""
    for directory in media.directories:
        copies = (directory / name for name in (SUMS_NAME, spare_name(SUMS_NAME)))
        if not any(has_digest(path, verified.digest) for path in copies if path.exists()):
            raise IntegrityError(
                f"{directory}: holds another bundle than {verified.bundle.title}, or none",
                hint="name only media of one bundle",
            )


def verify_media(verified: VerifiedBundle, media: Media, progress: Progress) -> Verification:
    """Read every byte that was signed and say what is bad, missing or strange.

    What lies on several media is read on each of them.
    """
    bundle = verified.bundle
    damage = list(_small_damage(verified, media))
    bad_copies: Counter[int] = Counter()
    for copy in range(len(media.directories)):
        if places := volume_places(bundle, media, copy):
            damage += _size_damage(bundle, places)
            bad, unreadable = _bad_chunks(verified, places, progress)
            damage += [chunk_damage(bundle, chunk, places) for chunk in bad]
            bad_copies.update((*bad, *unreadable))
    lost = _lost_chunks(bundle, media, bad_copies)
    rebuildable = can_be_rebuilt(bundle, lost)
    beyond_help = {bundle.volume_of(chunk).name for chunk in {*lost} - rebuildable}
    damaged = {entry.medium / entry.volume for entry in damage}
    return Verification(
        verified=verified,
        volumes=tuple(
            _state(volume.name, path, damaged, beyond_help)
            for volume in bundle.volume_files
            for path in media.copies(volume.name) or (None,)
        ),
        damage=tuple(damage),
        missing=tuple(name for name in verified.sums if media.find(name) is None),
        strangers=tuple(find_strangers(media, verified.sums)),
        lost=lost,
        rebuildable=rebuildable,
    )


def _lost_chunks(bundle: Bundle, media: Media, bad_copies: Mapping[int, int]) -> tuple[int, ...]:
    """The chunks of which no copy is good."""
    lost: list[int] = []
    for volume in bundle.volume_files:
        copies = len(media.copies(volume.name))
        lost += (c for c in volume.chunks if not copies or bad_copies.get(c, 0) >= copies)
    return tuple(lost)


def find_strangers(media: Media, sums: Mapping[str, Digest]) -> Iterable[Path]:
    """The things on the media that nobody signed for and that are no signature."""
    known = {SUMS_NAME, spare_name(SUMS_NAME), *sums}
    for directory, name in media.names():
        if name not in known and not carries_key_id(name):
            yield directory / name


def _small_damage(verified: VerifiedBundle, media: Media) -> Iterable[Damage]:
    volumes = {volume.name for volume in verified.bundle.volume_files}
    signed = {**verified.sums, SUMS_NAME: verified.digest, spare_name(SUMS_NAME): verified.digest}
    for key_id, signature in verified.evidence.signatures.items():
        name = signature_name(key_id)
        signed |= {copy: Digest.of(signature) for copy in (name, spare_name(name))}
    for directory, name in media.names():
        if name not in signed or name in volumes:
            continue
        if not has_digest(directory / name, signed[name]):
            size = regular_size(directory / name)
            yield Damage(directory, name, None, 0, size or 0, ())


def has_digest(path: Path, digest: Digest) -> bool:
    """Whether the small file at ``path`` is a file, can be read, and is as signed."""
    size = regular_size(path)
    if size is None or size > MAX_SMALL_FILE_SIZE:
        return False
    try:
        return file_digest(path) == digest
    except IntegrityError:  # a sector that the device does not give
        return False


def _size_damage(bundle: Bundle, places: Mapping[str, Path]) -> Iterable[Damage]:
    """What is no volume at all, or has bytes behind its end; missing bytes show as bad chunks."""
    for volume in bundle.volume_files:
        if volume.name not in places:
            continue
        medium = places[volume.name].parent
        size = regular_size(places[volume.name])
        if size is None:
            paths = tuple(dict.fromkeys(p for c in volume.chunks for p in _paths(bundle, c)))
            yield Damage(medium, volume.name, None, 0, volume.size, paths)
        elif size > volume.size:
            yield Damage(medium, volume.name, None, volume.size, size - volume.size, ())


def _bad_chunks(
    verified: VerifiedBundle, places: dict[str, Path], progress: Progress
) -> tuple[list[int], list[int]]:
    """The chunks that are not as signed, in order, and those of what is no file at all."""
    present = [v for v in verified.bundle.volume_files if v.name in places]
    regular = {v.name: places[v.name] for v in present if regular_size(places[v.name]) is not None}
    chunks = [chunk for v in present if v.name in regular for chunk in v.chunks]
    bad: list[int] = []
    lock = threading.Lock()

    def note_bad(chunk: int) -> None:
        with lock:
            bad.append(chunk)

    total = sum(volume.size for volume in present if volume.name in regular)
    with progress.task("verifying", total) as task:
        read_chunks(verified, regular, chunks, good=_accept, bad=note_bad, task=task)
    return sorted(bad), [chunk for v in present if v.name not in regular for chunk in v.chunks]


def _accept(_chunk: int, _data: memoryview) -> None:
    """Nothing more to do: the chunk has its digest."""


def chunk_damage(bundle: Bundle, chunk: int, places: Mapping[str, Path]) -> Damage:
    """Name what a bad chunk is: its volume, its place there, and the files it touches."""
    volume = bundle.volume_of(chunk)
    offset, size = volume.place(chunk)
    medium = places[volume.name].parent
    return Damage(medium, volume.name, chunk, offset, size, _paths(bundle, chunk))


def _paths(bundle: Bundle, chunk: int) -> tuple[str, ...]:
    """The files inside the payload that ``chunk`` has bytes of; none, for one of parity."""
    if chunk >= len(bundle.payload.chunks):
        return ()
    offset, size = bundle.payload.chunk_range(chunk)
    return tuple(file.path for file in bundle.files_touching(offset, offset + size))


def _state(name: str, path: Path | None, damaged: set[Path], beyond_help: set[str]) -> VolumeState:
    if path is not None and path not in damaged:
        return VolumeState(name, path.parent, GOOD)
    medium = None if path is None else path.parent
    if name not in beyond_help:
        return VolumeState(name, medium, REPAIRABLE)
    return VolumeState(name, medium, MISSING if path is None else BAD)
