"""``airpack repair``: what is bad or missing, made whole from what is good, and from patches.

A volume that has no good copy is written whole, to a directory of its own; or, if that is asked
for, each bad copy is mended in place. Small files come back from their spare copies or from the
payload. Nothing that is written lacks its signed digest, and a source is touched only in place,
and there only where it is bad.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from packager.errors import (
    AirpackError,
    HostError,
    IntegrityError,
    MissingVolumeError,
    NoSpaceError,
    UsageError,
)
from packager.format.sizes import format_size
from packager.format.sums import SUMS_NAME, spare_name
from packager.format.ticket import format_ranges
from packager.format.volumes import VolumeFile
from packager.isolated.media import Media, regular_size
from packager.isolated.patch import OpenPatch
from packager.isolated.recover import beyond_parity, can_be_rebuilt, recover_chunks
from packager.isolated.restore import Extract, Restoration, check_way, replacing, restore
from packager.isolated.small import SmallFileState
from packager.isolated.verify import GOOD, Verification
from packager.progress import Progress
from packager.store.atomic import make_directory, naming_refusals, write_all
from packager.trust.verify import VerifiedBundle

_MAX_LIST = 200  # characters of chunk numbers in a message
_ELSEWHERE = "airpack repair BUNDLE --to DIR"


@dataclass(frozen=True)
class Repair:
    """What was made whole: the paths of the volumes, and how many chunks were bad or missing.

    ``small_files`` are the paths of those put back; ``beyond`` the names of those of which
    nothing here has the right bytes.
    """

    volumes: tuple[Path, ...]
    chunks: int
    small_files: tuple[Path, ...] = ()
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Target:
    """A volume to make whole at ``path``: only its ``chunks``, or as a new file all of it."""

    volume: VolumeFile
    path: Path
    chunks: Collection[int]
    is_new: bool


@dataclass(frozen=True)
class _Plan:
    """All that will be written, and the small files that cannot be."""

    targets: tuple[_Target, ...]
    small: tuple[Restoration, ...]
    beyond: tuple[str, ...]


def repair(
    found: Verification,
    media: Media,
    to: Path | None,
    progress: Progress,
    patches: Sequence[OpenPatch] = (),
) -> Repair:
    """Make whole what is not: in place, or where ``to`` is given, as one more medium there.

    That has the volumes of which no copy is good, and all small files. ``found`` is what verifying
    ``media`` gave; ``patches`` are opened for the same bundle. Raises ``IntegrityError`` or
    ``MissingVolumeError`` where a volume is beyond what is here, ``UsageError`` where ``to`` would
    overwrite a medium, ``HostError`` where something is in the way, and ``NoSpaceError``; then
    nothing has changed.
    """
    _check_possible(found, patches)
    if to is None:
        plan = _plan_in_place(found, media, patches)
    else:
        directory = to / found.verified.bundle.title
        _check_not_a_source(directory, media)
        plan = _plan_medium(found, directory, patches)
    _check_places(plan)
    for path in (*(t.path for t in plan.targets), *(file.path for file in plan.small)):
        make_directory(path.parent)
    with ExitStack() as stack:
        opened = [(t, stack.enter_context(_opened(t))) for t in plan.targets]
        _fill(found.verified, media, opened, progress, patches)
    restore(plan.small, found.verified, media, patches, progress)
    return Repair(
        tuple(target.path for target in plan.targets),
        _count(plan.targets, found),
        tuple(file.path for file in plan.small),
        plan.beyond,
    )


def _plan_in_place(found: Verification, media: Media, patches: Sequence[OpenPatch]) -> _Plan:
    """Mend every bad copy where it lies, and put on the first medium what is on none."""
    bad: dict[Path, set[int]] = defaultdict(set)
    for entry in found.damage:
        chunks = bad[entry.medium / entry.volume]
        chunks.update(() if entry.chunk is None else (entry.chunk,))
    targets: list[_Target] = []
    for volume in found.verified.bundle.volume_files:
        paths = media.copies(volume.name)
        if not paths:
            new = media.directories[0] / volume.name
            targets.append(_Target(volume, new, volume.chunks, is_new=True))
        for path in paths:
            if path not in bad:
                continue
            if regular_size(path) is None:
                targets.append(_Target(volume, path, volume.chunks, is_new=True))
            else:
                targets.append(_Target(volume, path, bad[path], is_new=False))
    wanted = [file for file in found.small_files if not file.is_good]
    return _Plan(tuple(targets), *_plan_small(wanted, patches))


def _plan_medium(found: Verification, directory: Path, patches: Sequence[OpenPatch]) -> _Plan:
    """One more medium, if there is a file of which no copy is good."""
    good = {state.name for state in found.volumes if state.state == GOOD}
    targets = tuple(
        _Target(volume, directory / volume.name, volume.chunks, is_new=True)
        for volume in found.verified.bundle.volume_files
        if volume.name not in good
    )
    best: dict[str, SmallFileState] = {}
    for file in sorted(found.small_files, key=lambda file: not file.is_good):
        best.setdefault(file.name, file)
    if not targets and all(best[file.name].is_good for file in found.small_faults):
        return _Plan((), (), ())
    return _Plan(targets, *_plan_small([*best.values()], patches, directory))


def _plan_small(
    files: Sequence[SmallFileState], patches: Sequence[OpenPatch], directory: Path | None = None
) -> tuple[tuple[Restoration, ...], tuple[str, ...]]:
    """Where to have ``files`` from, and the names of those that cannot be had.

    They are put into ``directory``, or where that is not given, each in its own place.
    """
    patched = {
        file.digest: Extract(patch.path, file.offset, file.size)
        for patch in patches
        for file in patch.files
    }
    plan: list[Restoration] = []
    beyond: list[str] = []
    for file in files:
        source = file.source or (patched.get(file.digest) if file.digest else None)
        if source is None or file.digest is None:
            beyond.append(file.name)
        else:
            plan.append(Restoration((directory or file.medium) / file.name, file.digest, source))
    # A directory is a bundle once it has sums: first in the plan, they appear last.
    plan.sort(key=lambda file: file.path.name not in (SUMS_NAME, spare_name(SUMS_NAME)))
    return tuple(plan), tuple(dict.fromkeys(beyond))


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


def _check_places(plan: _Plan) -> None:
    """Raise ``HostError`` or ``NoSpaceError`` where what is planned cannot be written."""
    needed: dict[Path, int] = defaultdict(int)
    for target in plan.targets:
        needed[target.path.parent] += target.volume.size if target.is_new else 0
    for file in plan.small:
        needed[file.path.parent] += file.size
    for directory, size in needed.items():
        with naming_refusals(directory):
            place = directory.absolute()
            place = next(path for path in (place, *place.parents) if path.is_dir())
            status = os.statvfs(place)
        if not os.access(place, os.W_OK | os.X_OK):
            raise HostError(f"{place}: cannot be written to", hint=_ELSEWHERE)
        free = status.f_bavail * status.f_frsize
        if size > free:
            raise NoSpaceError(
                f"{directory}: {format_size(size)} needed, {format_size(free)} free",
                hint=f"{_ELSEWHERE}, on a larger disk",
            )
    for path in (*(t.path for t in plan.targets if t.is_new), *(f.path for f in plan.small)):
        check_way(path)


@contextmanager
def _opened(target: _Target) -> Iterator[int]:
    """A descriptor to write ``target`` through, of its right size."""
    if target.is_new:
        with replacing(target.path) as new:
            os.truncate(new.descriptor, target.volume.size)
            yield new.descriptor
        return
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


def _fill(
    verified: VerifiedBundle,
    media: Media,
    targets: Sequence[tuple[_Target, int]],
    progress: Progress,
    patches: Sequence[OpenPatch],
) -> None:
    """Write into each of the open files ``targets`` the chunks that it lacks."""
    if not targets:
        return
    bundle = verified.bundle
    wanted = sorted({chunk for target, _ in targets for chunk in target.chunks})
    copies: dict[str, list[tuple[_Target, int]]] = defaultdict(list)
    for target, descriptor in targets:
        copies[target.volume.name].append((target, descriptor))

    def write(chunk: int, data: memoryview) -> None:
        volume = bundle.volume_of(chunk)
        for target, descriptor in copies[volume.name]:
            if chunk in target.chunks:
                with naming_refusals(target.path):
                    write_all(descriptor, data, volume.place(chunk)[0])

    total = sum(bundle.volume_of(chunk).place(chunk)[1] for chunk in wanted)
    with progress.task("repairing", total) as task:
        failed = recover_chunks(verified, media, wanted, good=write, task=task, patches=patches)
    if failed:
        raise IntegrityError(
            f"{bundle.title}: {len(failed)} chunk(s) could not be rebuilt; a medium gives other "
            "bytes than a moment ago",
            hint="copy the media to a disk, then repair there",
        )
