"""Reading a file back from its device: what the page cache holds proves nothing of a medium."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packager.isolated.chunks import read_fully
from packager.store.atomic import open_regular

_ALIGNMENT = 4096  # bytes; no device in use has larger sectors


def aligned_buffer(size: int) -> memoryview:
    """A buffer of ``size`` bytes, a multiple of 4096, that a device can read into."""
    return memoryview(mmap.mmap(-1, size))


@contextmanager
def open_uncached(path: Path) -> Iterator[UncachedFile]:
    """Open the regular file ``path``, which is on the disk, for reading from there.

    Raises ``IntegrityError`` for what is no regular file.
    """
    with open_regular(path) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        yield UncachedFile(descriptor)


class UncachedFile:
    """Reads around the page cache where the filesystem can, else what it has to read anew."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._direct = self._set_direct(True)

    def read(self, buffer: memoryview, position: int, size: int) -> int:
        """Read ``size`` bytes from ``position``; returns how many came before an end or an error.

        ``buffer`` is of :func:`aligned_buffer`, ``position`` a multiple of 4096, and ``buffer``
        large enough for ``size`` rounded up to one.
        """
        if self._direct:
            whole = -(-size // _ALIGNMENT) * _ALIGNMENT
            if read_at_once(self._descriptor, buffer[:whole], position) >= size:
                return size
            # The end, a bad sector, or a filesystem that wants another alignment.
            self._direct = not self._set_direct(False)
        return read_fully(self._descriptor, buffer[:size], position)

    def _set_direct(self, wanted: bool) -> bool:
        """Ask for direct reads or for others; returns whether the filesystem does that."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        flags = flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
        except OSError:
            return False
        return True


def read_at_once(descriptor: int, buffer: memoryview, position: int) -> int:
    """The bytes that one read from ``position`` gives; none where the system refuses it."""
    try:
        return os.preadv(descriptor, [buffer], position)
    except OSError:
        return 0
