"""A volume on its way to the disk, in a thread of its own, and what an earlier build left of it.

Written around the page cache: that costs as much as copying does, pushes the model out of it,
and leaves the disk idle until it is full. Where the filesystem cannot do that, the disk is told
to keep what it has every so often, since else all waiting would come at the end.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from packager.store.atomic import naming_refusals, write_all
from packager.store.direct import ALIGNMENT, aligned_buffer, set_direct, write_sectors

BUFFER_SIZE = 4 << 20  # a multiple of every chunk size
_SYNC_SIZE = 64 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class VolumeWriter(AbstractContextManager["VolumeWriter"]):
    """A volume of ``size`` bytes at ``path``, written in order from its start.

    What lies there already is read again, from the device, and compared: it stays as it is up to
    the first chunk that is not what would be written. Nothing else is believed, whatever a kill
    or a power cut has left. ``path`` is a regular file, or nothing.
    """

    def __init__(self, path: Path, size: int, chunk_size: int) -> None:
        self._path = path
        self._chunk_size = chunk_size
        self._position = 0
        self._synced = 0
        with naming_refusals(path):
            self._descriptor = os.open(path, _FLAGS, 0o644)
            self._here = self._keep(size)
        self._found = aligned_buffer(BUFFER_SIZE)
        self._is_direct = set_direct(self._descriptor, True)
        self._thread = ThreadPoolExecutor(1)

    def __exit__(self, *_exc: object) -> None:
        self._thread.shutdown(cancel_futures=True)  # it waits for what is being written
        os.close(self._descriptor)

    def write(self, data: memoryview) -> Future[None]:
        """Write ``data`` next: whole chunks, or the end, in a buffer that is aligned.

        Until what is returned is done ``data`` is still looked at; its ``result`` raises
        ``NoSpaceError``, or ``HostError``.
        """
        position = self._position
        self._position += len(data)
        return self._thread.submit(self._put, data, position)

    def finish(self) -> None:
        """Have it on the disk; all that was given to ``write`` is done."""
        with naming_refusals(self._path):
            os.fsync(self._descriptor)

    def _keep(self, size: int) -> int:
        """How much is here to go on with, of ``size`` bytes at most."""
        found = os.fstat(self._descriptor).st_size
        if found > size:
            os.ftruncate(self._descriptor, size)
        if found:
            # What the page cache holds proves nothing of the disk.
            os.fsync(self._descriptor)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return min(found, size)

    def _put(self, data: memoryview, position: int) -> None:
        if position < self._here:
            kept = self._count_same(data, position)
            if kept == len(data):
                return
            self._here = 0
            data, position = data[kept:], position + kept
        with naming_refusals(self._path):
            self._write(data, position)

    def _count_same(self, data: memoryview, position: int) -> int:
        """How many bytes from the start of ``data``, in whole chunks, are on the disk already."""
        size = self._read_back(len(data), position)
        same = 0
        while same < len(data):
            end = min(same + self._chunk_size, len(data))
            if end > size or bytes(self._found[same:end]) != bytes(data[same:end]):
                break
            same = end
        return same

    def _read_back(self, size: int, position: int) -> int:
        whole = -(-size // ALIGNMENT) * ALIGNMENT
        try:
            return os.preadv(self._descriptor, [self._found[:whole]], position)
        except OSError:
            return 0  # what cannot be read is written again

    def _write(self, data: memoryview, position: int) -> None:
        if self._is_direct:
            done = write_sectors(self._descriptor, data, position)
            data, position = data[done:], position + done
        if data:
            # The volume's end, or a filesystem that wants another alignment.
            self._is_direct = set_direct(self._descriptor, False)
            write_all(self._descriptor, data, position)
        if not self._is_direct and position - self._synced >= _SYNC_SIZE:
            os.fdatasync(self._descriptor)
            self._synced = position
