"""``airpack repair``: volumes that are bad or missing, made whole from the others.

A volume that has no good copy is written whole, to a directory of its own or, if that is asked
for, in place. Nothing that is written lacks its signed digest, and a source is touched only in
place, and there only where it is bad.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.errors import AirpackError, IntegrityError, MissingVolumeError, NoSpaceError
from packager.format.sizes import format_size
from packager.format.sums import SUMS_NAME, signature_name
from packager.format.volumes import VolumeFile
from packager.isolated.media import Media, regular_size
from packager.isolated.recover import recover_chunks
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


@dataclass(frozen=True)
class Repair:
    """What was made whole: the paths of the volumes, and how many chunks were rebuilt."""

    volumes: tuple[Path, ...]
    chunks: int


def repair(found: Verification, media: Media, to: Path | None, progress: Progress) -> Repair:
    """Make every volume whole that has no good copy: in ``to``, or in place where that is None.

    ``found`` is what verifying ``media`` gave. Raises ``IntegrityError`` or
    ``MissingVolumeError`` where some of it is beyond what is here, and ``NoSpaceError``; then
    nothing has changed.
    """
    bundle = found.verified.bundle
    broken = _broken(found)
    _check_possible(found)
    if not broken:
        return Repair((), 0)
    directory = media.directories[0] if to is None else to / bundle.title
    make_directory(directory)
    with ExitStack() as stack:
        paths, targets, wanted = [], {}, []
        for volume in broken:
            path = media.find(volume.name) if to is None else None
            if path is not None and regular_size(path) is not None:
                paths.append(path)
                targets[volume.name] = stack.enter_context(_mended(path, volume))
                wanted += [chunk for chunk in found.lost if chunk in volume.chunks]
            else:
                paths.append(path or directory / volume.name)
                targets[volume.name] = stack.enter_context(_written(paths[-1], volume))
                wanted += volume.chunks
        _fill(found.verified, media, wanted, targets, progress)
    if to is not None:
        _copy_small_files(found.verified, media, directory)
    return Repair(tuple(paths), len(found.lost))


def _broken(found: Verification) -> tuple[VolumeFile, ...]:
    """The volumes of which no copy is good."""
    good = {state.name for state in found.volumes if state.state == GOOD}
    return tuple(v for v in found.verified.bundle.volume_files if v.name not in good)


def _check_possible(found: Verification) -> None:
    bundle = found.verified.bundle
    hopeless = [chunk for chunk in found.lost if chunk not in found.rebuildable]
    if not hopeless:
        return
    names = ", ".join(dict.fromkeys(bundle.volume_of(chunk).name for chunk in hopeless))
    kind: type[AirpackError] = IntegrityError
    if not any(entry.chunk is not None for entry in found.damage):
        kind = MissingVolumeError
    raise kind(
        f"{bundle.title}: {len(hopeless)} chunk(s) of {names} are lost, and "
        f"{len(bundle.parity)} parity volume(s) cannot make that good",
        hint="name every medium of this bundle, or copy these volumes again from its source",
    )


@contextmanager
def _mended(path: Path, volume: VolumeFile) -> Iterator[int]:
    """A descriptor to write into the file at ``path``, which is there, with its right size."""
    with naming_refusals(path):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with naming_refusals(path):
            os.truncate(descriptor, volume.size)
        yield descriptor
        with naming_refusals(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _written(path: Path, volume: VolumeFile) -> Iterator[int]:
    """A descriptor to write a new file through, which becomes ``path`` if the block succeeds."""
    _check_space(path.parent, volume)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with naming_refusals(path):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        with naming_refusals(path):
            os.truncate(descriptor, volume.size)
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


def _check_space(directory: Path, volume: VolumeFile) -> None:
    with naming_refusals(directory):
        status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if volume.size > free:
        raise NoSpaceError(
            f"{directory}: {format_size(volume.size)} needed, {format_size(free)} free",
            hint="airpack repair BUNDLE --to DIR, on a larger disk",
        )


def _fill(
    verified: VerifiedBundle,
    media: Media,
    wanted: Sequence[int],
    targets: Mapping[str, int],
    progress: Progress,
) -> None:
    """Write each of the chunks ``wanted`` into the open file of its volume."""
    bundle = verified.bundle

    def write(chunk: int, data: memoryview) -> None:
        volume = bundle.volume_of(chunk)
        with naming_refusals(Path(volume.name)):
            write_all(targets[volume.name], data, volume.place(chunk)[0])

    total = sum(bundle.volume_of(chunk).place(chunk)[1] for chunk in wanted)
    with progress.task("repairing", total) as task:
        failed = recover_chunks(verified, media, wanted, good=write, task=task)
    if failed:
        raise IntegrityError(
            f"{bundle.title}: {len(failed)} chunk(s) could not be rebuilt; a medium gives other "
            "bytes than a moment ago",
            hint="copy the media to a disk, then repair there",
        )


def _copy_small_files(verified: VerifiedBundle, media: Media, directory: Path) -> None:
    """Make ``directory`` a medium of its own: with every small file that is good."""
    volumes = {volume.name for volume in verified.bundle.volume_files}
    write_file(directory / SUMS_NAME, verified.evidence.sums)
    for key_id, signature in verified.evidence.signatures.items():
        write_file(directory / signature_name(key_id), signature)
    for name in sorted({*verified.sums} - volumes):
        good = (p for p in media.copies(name) if has_digest(p, verified.sums[name]))
        if (path := next(good, None)) is not None:
            write_file(directory / name, read_capped(path, MAX_SMALL_FILE_SIZE))
