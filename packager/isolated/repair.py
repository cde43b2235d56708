"""``airpack repair``: volumes that are bad or missing, made whole from the others and from patches.

A volume that has no good copy is written whole, to a directory of its own or, if that is asked
for, in place. Nothing that is written lacks its signed digest, and a source is touched only in
place, and there only where it is bad.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from packager.errors import (
    AirpackError,
    IntegrityError,
    MissingVolumeError,
    NoSpaceError,
    UsageError,
)
from packager.format.sizes import format_size
from packager.format.sums import SUMS_NAME, signature_name, spare_name
from packager.format.ticket import format_ranges
from packager.format.volumes import VolumeFile
from packager.isolated.media import Media, regular_size
from packager.isolated.patch import OpenPatch
from packager.isolated.recover import beyond_parity, can_be_rebuilt, recover_chunks
from packager.isolated.verify import GOOD, MAX_SMALL_FILE_SIZE, Verification, has_digest
from packager.progress import Progress
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    make_directory,
    naming_refusals,
    read_capped,
    write_all,
    write_file,
)
from packager.trust.verify import VerifiedBundle

_MAX_LIST = 200  # characters of chunk numbers in a message


@dataclass(frozen=True)
class Repair:
    """What was made whole: the paths of the volumes, and how many chunks were bad or missing."""

    volumes: tuple[Path, ...]
    chunks: int


@dataclass(frozen=True)
class _Target:
    """A volume to make whole at ``path``: only its ``chunks``, or as a new file all of it."""

    volume: VolumeFile
    path: Path
    chunks: Sequence[int]
    is_new: bool


def repair(
    found: Verification,
    media: Media,
    to: Path | None,
    progress: Progress,
    patches: Sequence[OpenPatch] = (),
) -> Repair:
    """Make every volume whole that has no good copy: in ``to``, or in place where that is None.

    ``found`` is what verifying ``media`` gave; ``patches`` are opened for the same bundle. Raises
    ``IntegrityError`` or ``MissingVolumeError`` where some of it is beyond what is here,
    ``UsageError`` where ``to`` would overwrite a medium, and ``NoSpaceError``; then nothing has
    changed.
    """
    bundle = found.verified.bundle
    _check_possible(found, patches)
    directory = media.directories[0] if to is None else to / bundle.title
    if to is not None:
        _check_not_a_source(directory, media)
    targets = _plan(found, media, directory, in_place=to is None)
    if not targets:
        return Repair((), 0)
    _check_space(targets)
    make_directory(directory)
    with ExitStack() as stack:
        files = {
            t.volume.name: stack.enter_context((_written if t.is_new else _mended)(t))
            for t in targets
        }
        wanted = [chunk for target in targets for chunk in target.chunks]
        _fill(found.verified, media, wanted, files, progress, patches)
    if to is not None:
        _copy_small_files(found.verified, media, directory)
    return Repair(tuple(t.path for t in targets), _count(targets, found))


def _plan(
    found: Verification, media: Media, directory: Path, *, in_place: bool
) -> tuple[_Target, ...]:
    """What to write for each volume of which no copy is good."""
    good = {state.name for state in found.volumes if state.state == GOOD}
    bad: dict[Path, list[int]] = defaultdict(list)
    for entry in found.damage:
        if entry.chunk is not None:
            bad[entry.medium / entry.volume].append(entry.chunk)
    targets: list[_Target] = []
    for volume in found.verified.bundle.volume_files:
        if volume.name in good:
            continue
        path = media.find(volume.name) if in_place else None
        if path is not None and regular_size(path) is not None:
            targets.append(_Target(volume, path, bad[path], is_new=False))
        else:
            place = path or directory / volume.name
            targets.append(_Target(volume, place, volume.chunks, is_new=True))
    return tuple(targets)


def _count(targets: Sequence[_Target], found: Verification) -> int:
    """How many chunks were bad where they were mended, or lost of what was written anew."""
    lost = {*found.lost}
    return sum(len(lost.intersection(t.chunks)) if t.is_new else len(t.chunks) for t in targets)


def _check_possible(found: Verification, patches: Sequence[OpenPatch]) -> None:
    """Raise where chunks are lost that neither ``patches`` have nor parity can make good."""
    bundle = found.verified.bundle
    patched = {chunk.number for patch in patches for chunk in patch.chunks}
    lost = [chunk for chunk in found.lost if chunk not in patched]
    rebuildable = can_be_rebuilt(bundle, lost)
    hopeless = [chunk for chunk in lost if chunk not in rebuildable]
    if not hopeless:
        return
    names = ", ".join(dict.fromkeys(bundle.volume_of(chunk).name for chunk in hopeless))
    kind: type[AirpackError] = IntegrityError
    if not any(entry.chunk is not None for entry in found.damage):
        kind = MissingVolumeError
    needed = shorten(format_ranges(beyond_parity(bundle, lost)), _MAX_LIST, placeholder=" ...")
    raise kind(
        f"{bundle.title}: {len(hopeless)} chunk(s) of {names} are lost, and "
        f"{len(bundle.parity)} parity volume(s) cannot make that good; needed: {needed}",
        hint="name every medium and patch of this bundle; airpack verify BUNDLE --ticket FILE "
        "asks its source for just these chunks",
    )


def _check_not_a_source(directory: Path, media: Media) -> None:
    """Refuse to write among what is only read: that takes the word that says so."""
    with naming_refusals(directory):
        if directory.resolve() in {medium.resolve() for medium in media.directories}:
            raise UsageError(
                f"{directory}: is the bundle itself; --to makes another medium beside it",
                hint="--to another directory, or --in-place",
            )


def _check_space(targets: Sequence[_Target]) -> None:
    """Raise ``NoSpaceError`` where the volumes to be written anew do not fit."""
    needed: dict[Path, int] = defaultdict(int)
    for target in targets:
        needed[target.path.parent] += target.volume.size if target.is_new else 0
    for directory, size in needed.items():
        with naming_refusals(directory):
            place = directory.absolute()
            status = os.statvfs(next(p for p in (place, *place.parents) if p.is_dir()))
        free = status.f_bavail * status.f_frsize
        if size > free:
            raise NoSpaceError(
                f"{directory}: {format_size(size)} needed, {format_size(free)} free",
                hint="airpack repair BUNDLE --to DIR, on a larger disk",
            )


@contextmanager
def _mended(target: _Target) -> Iterator[int]:
    """A descriptor to write into the file of ``target``, which is there, with its right size."""
    with naming_refusals(target.path):
        descriptor = os.open(target.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with naming_refusals(target.path):
            os.truncate(descriptor, target.volume.size)
        yield descriptor
        with naming_refusals(target.path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _written(target: _Target) -> Iterator[int]:
    """A descriptor to write a new file through, that of ``target`` if the block succeeds."""
    path = target.path
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with naming_refusals(path):
        # Whatever lies under this name is a dead process's, or a trap: never written into.
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with naming_refusals(path):
            os.truncate(descriptor, target.volume.size)
        yield descriptor
        with naming_refusals(path):
            os.fsync(descriptor)
            temporary.rename(path)
            fsync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _fill(
    verified: VerifiedBundle,
    media: Media,
    wanted: Sequence[int],
    targets: Mapping[str, int],
    progress: Progress,
    patches: Sequence[OpenPatch],
) -> None:
    """Write each of the chunks ``wanted`` into the open file of its volume."""
    bundle = verified.bundle

    def write(chunk: int, data: memoryview) -> None:
        volume = bundle.volume_of(chunk)
        with naming_refusals(Path(volume.name)):
            write_all(targets[volume.name], data, volume.place(chunk)[0])

    total = sum(bundle.volume_of(chunk).place(chunk)[1] for chunk in wanted)
    with progress.task("repairing", total) as task:
        failed = recover_chunks(verified, media, wanted, good=write, task=task, patches=patches)
    if failed:
        raise IntegrityError(
            f"{bundle.title}: {len(failed)} chunk(s) could not be rebuilt; a medium gives other "
            "bytes than a moment ago",
            hint="copy the media to a disk, then repair there",
        )


def _copy_small_files(verified: VerifiedBundle, media: Media, directory: Path) -> None:
    """Make ``directory`` a medium of its own: with every small file that is good."""
    volumes = {volume.name for volume in verified.bundle.volume_files}
    evidence = {SUMS_NAME: verified.evidence.sums} | {
        signature_name(key_id): data for key_id, data in verified.evidence.signatures.items()
    }
    for name, data in evidence.items():
        for copy in (name, spare_name(name)):
            write_file(directory / copy, data)
    for name in sorted({*verified.sums} - volumes):
        good = (p for p in media.copies(name) if has_digest(p, verified.sums[name]))
        if (path := next(good, None)) is not None:
            write_file(directory / name, read_capped(path, MAX_SMALL_FILE_SIZE))
