"""``airpack copy``: a bundle to one or several media, whole volumes to each.

What is copied is checked against the index on its way, so that a bad source does not spread. A
file appears under its name once it is whole and on the disk; until then it lies beside it, and
an interrupted copy goes on there, at the first chunk that is not good.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packager.errors import IntegrityError
from packager.format.digest import Digest
from packager.format.volumes import VolumeFile
from packager.isolated.chunks import read_fully
from packager.isolated.media import regular_size
from packager.isolated.source import SmallFile, Source
from packager.isolated.spread import Share
from packager.isolated.uncached import open_uncached
from packager.progress import Progress, Task
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    make_directory,
    naming_refusals,
    open_regular,
    write_all,
)
from packager.store.direct import aligned_buffer

# Buffers of 1 to 4 MiB, reused, make hashing free beside the copy; larger or fresh ones do not.
_BUFFER_SIZE = 1 << 20
# So often is the medium told to keep what it has: else all waiting would come at the end.
_SYNC_SIZE = 64 << 20


def copy_share(source: Source, share: Share, progress: Progress, *, verify: bool) -> None:
    """Copy the small files and the volumes of ``share``, but for what is there already.

    With ``verify`` all that was written is read back from the device. Raises ``IntegrityError``
    for a source or a medium that is bad, ``NoSpaceError``, ``HostError``; what is written by
    then is good, and the next run goes on from there.
    """
    make_directory(share.directory)
    work = _Copy(source, share, progress)
    work.remove_leftovers()
    with progress.task(f"copying to {share.directory}", share.size) as task:
        small = [file for file in source.small if work.copy_small(file, task)]
        volumes = [volume for volume in share.volumes if work.copy_volume(volume, task)]
    if verify:
        work.read_back(small, volumes)


class _Copy:
    """The copying to one medium, through one buffer."""

    def __init__(self, source: Source, share: Share, progress: Progress) -> None:
        self._source = source
        self._share = share
        self._progress = progress
        self._buffer = aligned_buffer(max(_BUFFER_SIZE, source.bundle.payload.chunk_size))

    def remove_leftovers(self) -> None:
        """Remove what an earlier run began here and this one does not go on with."""
        shared = {volume.name for volume in self._share.volumes}
        kept = {name for name in shared if not os.path.lexists(self._share.directory / name)}
        names = {file.name for file in self._source.small} | {*self._source.volume_names} - kept
        for name in names:
            with naming_refusals(self._temporary(name)):
                self._temporary(name).unlink(missing_ok=True)

    def copy_small(self, file: SmallFile, task: Task) -> bool:
        """Copy ``file`` unless it is there; returns whether it was written."""
        path, temporary = self._share.directory / file.name, self._temporary(file.name)
        if self._is_there(file):
            task.advance(file.size)
            return False
        with self._opened(temporary) as target, open_regular(self._path(file.name)) as origin:
            state, position = hashlib.sha256(), 0
            while count := read_fully(origin, self._buffer, position):
                state.update(self._buffer[:count])
                self._write(target, temporary, position, count)
                position += count
                task.advance(count)
            if Digest(state.hexdigest()) != file.digest:
                temporary.unlink()
                raise IntegrityError(f"{self._path(file.name)}: changed while it was copied")
            self._finish(target, temporary, path, position)
        return True

    def copy_volume(self, volume: VolumeFile, task: Task) -> bool:
        """Copy ``volume`` unless it is there, each chunk good; returns whether it was written."""
        path, temporary = self._share.directory / volume.name, self._temporary(volume.name)
        if os.path.lexists(path):
            position = self._good_size(path, volume, task)
            if position == volume.size == regular_size(path):
                return False
            self._progress.note(f"{path}: damaged or not whole; copying it from there on")
            with naming_refusals(path):
                path.replace(temporary)
        else:
            position = self._good_size(temporary, volume, task)
        with self._opened(temporary) as target:
            with open_regular(self._path(volume.name)) as origin:
                self._copy_chunks(volume, position, origin, target, task)
            self._finish(target, temporary, path, volume.size)
        return True

    def _copy_chunks(
        self, volume: VolumeFile, position: int, origin: int, target: int, task: Task
    ) -> None:
        """Copy the chunks from the one at ``position`` on."""
        temporary = self._temporary(volume.name)
        synced = position
        while position < volume.size:
            size = min(len(self._buffer), volume.size - position)
            read_size = read_fully(origin, self._buffer[:size], position)
            good = self._checked_size(volume, position, read_size)
            self._write(target, temporary, position, good)
            task.advance(good)
            if good < size:
                raise self._bad_chunk(volume, position + good)
            position += size
            if position - synced >= _SYNC_SIZE:
                with naming_refusals(temporary):
                    os.fdatasync(target)
                synced = position

    def read_back(self, small: list[SmallFile], volumes: list[VolumeFile]) -> None:
        """Read what was written from the device; what is not good there is removed."""
        total = sum(file.size for file in small) + sum(volume.size for volume in volumes)
        with self._progress.task(f"reading back {self._share.directory}", total) as task:
            for file in small:
                if not self._is_there(file):
                    raise self._bad_medium(file.name)
                task.advance(file.size)
            for volume in volumes:
                path = self._share.directory / volume.name
                if self._good_size(path, volume, task) != volume.size:
                    raise self._bad_medium(volume.name)

    def _is_there(self, file: SmallFile) -> bool:
        """Whether the medium has ``file`` as it is in the source."""
        path = self._share.directory / file.name
        if not os.path.lexists(path) or regular_size(path) != file.size:
            return False
        state, position = hashlib.sha256(), 0
        with open_uncached(path) as device:
            while position < file.size:
                size = min(len(self._buffer), file.size - position)
                if device.read(self._buffer, position, size) < size:
                    return False
                state.update(self._buffer[:size])
                position += size
        return Digest(state.hexdigest()) == file.digest

    def _good_size(self, path: Path, volume: VolumeFile, task: Task) -> int:
        """The bytes from the start of what lies at ``path`` that are good chunks of ``volume``."""
        if not os.path.lexists(path) or regular_size(path) is None:
            return 0
        position = 0
        with open_uncached(path) as device:
            while position < volume.size:
                size = min(len(self._buffer), volume.size - position)
                read_size = device.read(self._buffer, position, size)
                good = self._checked_size(volume, position, read_size)
                task.advance(good)
                position += good
                if good < size:
                    break
        return position

    def _checked_size(self, volume: VolumeFile, position: int, size: int) -> int:
        """The bytes from the start of the buffer, of ``size`` from ``position``, that are good."""
        digests = self._source.bundle.chunk_digests
        good = 0
        while good < size:
            chunk = volume.chunks.start + (position + good) // volume.chunk_size
            end = good + volume.place(chunk)[1]
            if end > size:
                break
            if hashlib.sha256(self._buffer[good:end]).hexdigest() != digests[chunk].hex:
                break
            good = end
        return good

    @contextmanager
    def _opened(self, temporary: Path) -> Iterator[int]:
        """A descriptor to write the file ``temporary`` through, with what is in it already."""
        if os.path.lexists(temporary) and regular_size(temporary) is None:
            with naming_refusals(temporary):  # a link that somebody left there leads elsewhere
                temporary.unlink()
        with naming_refusals(temporary):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _write(self, target: int, temporary: Path, position: int, size: int) -> None:
        with naming_refusals(temporary):
            write_all(target, self._buffer[:size], position)

    def _finish(self, target: int, temporary: Path, path: Path, size: int) -> None:
        """Give the file, of ``size`` bytes, its name, behind all its bytes."""
        with naming_refusals(path):
            os.ftruncate(target, size)
            os.fsync(target)
            temporary.replace(path)
            fsync_directory(path.parent)

    def _temporary(self, name: str) -> Path:
        return self._share.directory / f"{TEMPORARY_PREFIX}{name}"

    def _path(self, name: str) -> Path:
        return self._source.directory / name

    def _bad_chunk(self, volume: VolumeFile, position: int) -> IntegrityError:
        chunk = volume.chunks.start + position // volume.chunk_size
        return IntegrityError(
            f"{self._path(volume.name)}: chunk {chunk} (from byte {position}) is damaged or cannot "
            "be read; it was not copied",
            hint=f"airpack repair {self._source.directory} --in-place, then this command again",
        )

    def _bad_medium(self, name: str) -> IntegrityError:
        path = self._share.directory / name
        with naming_refusals(path):
            path.unlink(missing_ok=True)
        return IntegrityError(
            f"{path}: the medium does not give back what was written; the file is removed",
            hint="take another medium; this one fails",
        )
