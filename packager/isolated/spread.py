"""Which volumes go to which medium: decided, and refused where it cannot be, before any writing.

Each medium gets all small files. Whole volumes are dealt out in their order, each to the first
medium that has room; one that lies on a medium already, whole or in part, stays there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import HostError, NoSpaceError, UsageError
from packager.format.sizes import format_size
from packager.format.sums import MAX_SUMS_SIZE, SUMS_NAME
from packager.format.volumes import VolumeFile
from packager.isolated.media import regular_size
from packager.isolated.source import Source
from packager.store.atomic import TEMPORARY_PREFIX, naming_refusals, read_capped
from packager.store.filesystem import MARGIN, Filesystem, check_writable, read_filesystem


@dataclass(frozen=True)
class Medium:
    """A directory for a share of the bundle, as it is before the copy.

    ``lacking`` are the bytes that the small files still take; ``held`` has those that each volume
    takes already which is there, whole or in part, and ``whole`` the names of the whole ones.
    """

    directory: Path
    filesystem: Filesystem
    lacking: int
    held: Mapping[str, int]
    whole: frozenset[str]


@dataclass(frozen=True)
class Share:
    """What one medium is to hold: the directory there, and its volumes in order.

    ``size`` counts the small files too, ``missing`` what of all that is not there yet, and
    ``room`` what stays free behind it; in bytes.
    """

    directory: Path
    volumes: tuple[VolumeFile, ...]
    size: int
    missing: int
    room: int


@dataclass(frozen=True)
class Plan:
    """The share of each medium, and the names of the volumes that none has room for."""

    shares: tuple[Share, ...]
    left: tuple[str, ...]


def plan_copy(source: Source, targets: Iterable[Path], wanted: Collection[str]) -> Plan:
    """Decide which of the volumes ``wanted`` go below which of the directories ``targets``.

    Raises ``UsageError``, ``HostError`` or ``NoSpaceError`` for what cannot be a target; nothing
    is written.
    """
    directories = {target.resolve(): target / source.bundle.title for target in targets}
    media = [_read_medium(source, directory) for directory in directories.values()]
    volumes = [volume for volume in source.bundle.volume_files if volume.name in wanted]
    return deal(volumes, media, sum(file.size for file in source.small))


def deal(volumes: Sequence[VolumeFile], media: Sequence[Medium], small_size: int) -> Plan:
    """Deal ``volumes`` out to ``media``, beside small files of ``small_size`` bytes together.

    Raises ``NoSpaceError`` where a medium has no room for the small files, or its filesystem none
    for a file as large as a volume.
    """
    for medium in media:
        _check_file_sizes(volumes, medium)
    free = _room_for_volumes(media)
    places: dict[str, Medium] = {}
    for volume in volumes:  # what is there stays there, before anything else takes its room
        for medium in media:
            held = medium.held.get(volume.name)
            if held is not None and volume.name not in places and _take(free, medium, volume, held):
                places[volume.name] = medium
            elif held is not None and volume.name not in medium.whole:
                free[medium.filesystem.device] += held  # it is removed
    for volume in volumes:
        for medium in media:
            if volume.name not in places and _take(free, medium, volume, 0):
                places[volume.name] = medium
    shares = []
    for medium in media:
        dealt = tuple(v for v in volumes if places.get(v.name) is medium)
        shares.append(
            Share(
                directory=medium.directory,
                volumes=dealt,
                size=small_size + sum(volume.size for volume in dealt),
                missing=medium.lacking
                + sum(_rest(medium, volume, medium.held.get(volume.name, 0)) for volume in dealt),
                room=max(0, free[medium.filesystem.device]),
            )
        )
    return Plan(tuple(shares), tuple(v.name for v in volumes if v.name not in places))


def _room_for_volumes(media: Sequence[Medium]) -> dict[int, int]:
    """The bytes free on each device once all small files are there."""
    free = {m.filesystem.device: m.filesystem.free - MARGIN for m in media}
    for medium in media:
        device = medium.filesystem.device
        free[device] -= medium.lacking
        if medium.lacking and free[device] < 0:
            raise NoSpaceError(
                f"{medium.directory.parent}: {format_size(medium.lacking + MARGIN)} needed for "
                f"the small files alone, {format_size(medium.filesystem.free)} free",
                hint="free some space there, or take a larger medium",
            )
    return free


def _take(free: dict[int, int], medium: Medium, volume: VolumeFile, held: int) -> bool:
    """Whether ``medium`` has room for ``volume`` beside the bytes ``held`` of it; then it is taken.

    A whole one needs none, on a full medium either.
    """
    rest = _rest(medium, volume, held)
    device = medium.filesystem.device
    if rest > max(0, free[device]):
        return False
    free[device] -= rest
    return True


def _rest(medium: Medium, volume: VolumeFile, held: int) -> int:
    """The bytes that ``volume`` still takes there beside the ``held`` that it takes already."""
    if volume.name in medium.whole:
        return 0
    return max(0, medium.filesystem.room_for(volume.size) - held)


def _check_file_sizes(volumes: Sequence[VolumeFile], medium: Medium) -> None:
    most = medium.filesystem.max_file_size
    large = next((v for v in volumes if most is not None and v.size > most), None)
    if large is not None:
        raise NoSpaceError(
            f"{medium.directory.parent}: {large.name} is {large.size} bytes, and a file on "
            f"{medium.filesystem.kind} (FAT) has {most} at most",
            hint="format the medium as exFAT or ext4, or build again with --volume-size auto",
        )


def _read_medium(source: Source, directory: Path) -> Medium:
    target = directory.parent
    _check_target(source, directory)
    there = directory if directory.exists() else target
    filesystem = read_filesystem(there)
    check_writable(there, filesystem, hint="mount it for writing, or take another medium")
    with naming_refusals(directory):
        names = {path.name for path in directory.iterdir()} if directory.exists() else set()
    whole = {
        volume.name
        for volume in source.bundle.volume_files
        if volume.name in names and regular_size(directory / volume.name) == volume.size
    }
    return Medium(
        directory=directory,
        filesystem=filesystem,
        lacking=sum(
            filesystem.room_for(file.size)
            for file in source.small
            if file.name not in names or regular_size(directory / file.name) != file.size
        ),
        held={
            name: sum(_disk_size(directory / there) for there in both & names)
            for name in source.volume_names
            if (both := {name, TEMPORARY_PREFIX + name}) & names
        },
        whole=frozenset(whole),
    )


def _disk_size(path: Path) -> int:
    return path.lstat().st_blocks * 512


def _check_target(source: Source, directory: Path) -> None:
    target = directory.parent
    with naming_refusals(target):
        if not target.is_dir():
            raise UsageError(
                f"{target}: no such directory", hint=f"mount the medium there, or: mkdir {target}"
            )
        real = target.resolve() / directory.name
        if real.is_relative_to(source.directory.resolve()):
            raise UsageError(f"{directory}: is the bundle to copy, or inside it")
        if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
            raise HostError(
                f"{directory}: not a directory",
                hint=f"remove it: rm -- {shlex.quote(str(directory))}",
            )
        if directory.exists() and directory.samefile(source.directory):
            raise UsageError(f"{directory}: is the bundle to copy, or inside it")
        sums = directory / SUMS_NAME
        if os.path.lexists(sums) and read_capped(sums, MAX_SUMS_SIZE) != read_capped(
            source.directory / SUMS_NAME, MAX_SUMS_SIZE
        ):
            raise UsageError(
                f"{directory}: holds another bundle of that name and version",
                hint=f"look at it, then remove it: rm -r {directory}",
            )
