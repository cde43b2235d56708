"""``airpack verify``: the signature, then every file, then every chunk; damage is named."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from packager.errors import IntegrityError, MissingVolumeError
from packager.format.bundle import INDEX_NAME, Bundle, PayloadFile
from packager.format.digest import Digest
from packager.format.sums import SUMS_NAME, spare_name
from packager.isolated.chunks import read_chunks, volume_places
from packager.isolated.media import Media, read_evidence, regular_size
from packager.isolated.recover import can_be_rebuilt, chunks_of
from packager.isolated.small import (
    SmallFileState,
    can_be_anybodys,
    has_digest,
    may_be_absent,
    names_of_signer,
    read_small_files,
)
from packager.progress import Progress
from packager.trust.keyring import Keyring
from packager.trust.verify import Signer, VerifiedBundle, first_believed, verify_bundle

_COPY_AGAIN = (
    f"name every medium of this bundle, each has its {SUMS_NAME}, signatures and {INDEX_NAME}, and "
    "spare copies of them; or copy these again from where it was built: they are small"
)

GOOD, BAD, MISSING, REPAIRABLE = "good", "bad", "missing", "repairable"


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
    """What was found on the media.

    ``damage`` names small files too, whole; ``missing`` what is on none of the media; ``lost``
    the chunks of which no copy is good, and ``rebuildable`` those that parity gives back.
    """

    verified: VerifiedBundle
    volumes: tuple[VolumeState, ...]
    small_files: tuple[SmallFileState, ...]
    damage: tuple[Damage, ...]
    missing: tuple[str, ...]
    strangers: tuple[Path, ...]
    lost: tuple[int, ...]
    rebuildable: frozenset[int]

    @property
    def ok(self) -> bool:
        """Whether everything that was signed is there, and nothing else."""
        return not (self.damage or self.missing or self.strangers)

    @property
    def repairable(self) -> bool:
        """Whether something is bad or missing, and all of it can be made good from what is here."""
        return (
            not (self.ok or self.strangers)
            and not self.hopeless
            and all(self.state_of(file) == REPAIRABLE for file in self.small_faults)
        )

    @property
    def small_faults(self) -> tuple[SmallFileState, ...]:
        """The small files that are bad, wherever they are, and those that are on no medium."""
        return tuple(
            file
            for file in self.small_files
            if (not file.is_good and file.size is not None) or file.name in self.missing
        )

    @property
    def small_gaps(self) -> tuple[SmallFileState, ...]:
        """The small files that are not on a medium, but on another, or that need not be there."""
        return tuple(
            file for file in self.small_files if file.size is None and file.name not in self.missing
        )

    @cached_property
    def hopeless(self) -> frozenset[int]:
        """The lost chunks that parity does not give back."""
        return frozenset(self.lost) - self.rebuildable

    @property
    def lost_files(self) -> dict[int, Digest]:
        """The small files of which nothing here has the bytes, by their line in the sums, from 1.

        Of those that are the same there is one.
        """
        lost = {file.digest for file in self.small_faults if file.source is None}
        wanted: dict[Digest, int] = {}
        for line, digest in enumerate(self.verified.sums.values(), start=1):
            if digest in lost:
                wanted.setdefault(digest, line)
        return {line: digest for digest, line in wanted.items()}

    def state_of(self, file: SmallFileState) -> str:
        """The word for a small file on a medium."""
        if file.is_good:
            return GOOD
        if isinstance(file.source, Path) or self._is_in_payload(file.source):
            return REPAIRABLE
        return MISSING if file.size is None else BAD

    def _is_in_payload(self, file: PayloadFile | None) -> bool:
        if file is None:
            return False
        return self.hopeless.isdisjoint(chunks_of(self.verified.bundle, file))


def authenticate(media: Media, keyring: Keyring, *, now: datetime) -> VerifiedBundle:
    """Read the evidence on ``media`` and decide on it; reads nothing of the payload.

    Raises what :func:`verify_bundle` raises of the first reading, if none holds, and
    ``IntegrityError`` for media of different bundles.
    """
    try:
        readings = read_evidence(media, keyring)
        verified = first_believed(readings, lambda e: verify_bundle(e, keyring, now=now))
    except (IntegrityError, MissingVolumeError) as error:
        error.hint = error.hint or _COPY_AGAIN
        raise
    _check_same_bundle(media, verified)
    return verified


def _check_same_bundle(media: Media, verified: VerifiedBundle) -> None:
    """Each medium must hold the sums that were signed, or the index, or a spare copy of one."""
    digests = {SUMS_NAME: verified.digest, INDEX_NAME: verified.sums[INDEX_NAME]}
    marks = {copy: d for name, d in digests.items() for copy in (name, spare_name(name))}
    for directory in media.directories:
        there = ((directory / name, digest) for name, digest in marks.items())
        if not any(os.path.lexists(path) and has_digest(path, digest) for path, digest in there):
            raise IntegrityError(
                f"{directory}: holds another bundle than {verified.bundle.title}, or none",
                hint=f"name only media of one bundle; if this is one, and its {SUMS_NAME} and "
                f"{INDEX_NAME} are bad, copy these into it from another medium",
            )


def verify_media(verified: VerifiedBundle, media: Media, progress: Progress) -> Verification:
    """Read every byte that was signed and say what is bad, missing or strange.

    What lies on several media is read on each of them.
    """
    bundle = verified.bundle
    small_files = read_small_files(verified, media)
    damage = [
        Damage(file.medium, file.name, None, 0, file.size, ())
        for file in small_files
        if file.size is not None and not file.is_good
    ]
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
        small_files=small_files,
        damage=tuple(damage),
        missing=tuple(_missing(verified, small_files, media)),
        strangers=tuple(find_strangers(media, verified.sums, bundle, verified.signers)),
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


def find_strangers(
    media: Media, sums: Mapping[str, Digest], bundle: Bundle, signers: Iterable[Signer] = ()
) -> Iterable[Path]:
    """The things on the media that nobody signed for and that can be no signature.

    What should be one of the ``signers``' is judged elsewhere, whatever it is.
    """
    theirs = (names_of_signer(signer.key_id, bundle) for signer in signers)
    known = {SUMS_NAME, spare_name(SUMS_NAME), *sums}.union(*theirs)
    for directory, name in media.names():
        if name not in known and not can_be_anybodys(directory / name, bundle):
            yield directory / name


def _missing(
    verified: VerifiedBundle, small_files: Iterable[SmallFileState], media: Media
) -> Iterable[str]:
    """What is on none of the media, and should be."""
    names = {*verified.sums, *(file.name for file in small_files if not may_be_absent(file.name))}
    return (name for name in sorted(names) if media.find(name) is None)


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
