"""Reading a file back from its device: what the page cache holds proves nothing of a medium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packager.isolated.chunks import read_fully
from packager.store.atomic import open_regular
from packager.store.direct import ALIGNMENT, set_direct


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
        self._direct = set_direct(self._descriptor, True)

    def read(self, buffer: memoryview, position: int, size: int) -> int:
        """Read ``size`` bytes from ``position``; returns how many came before an end or an error.

        ``buffer`` is of ``direct.aligned_buffer``, ``position`` a multiple of 4096, and ``buffer``
        large enough for ``size`` rounded up to one.
        """
        if self._direct:
            whole = -(-size // ALIGNMENT) * ALIGNMENT
            if read_at_once(self._descriptor, buffer[:whole], position) >= size:
                return size
            # The end, a bad sector, or a filesystem that wants another alignment.
            self._direct = set_direct(self._descriptor, False)
        return read_fully(self._descriptor, buffer[:size], position)


def read_at_once(descriptor: int, buffer: memoryview, position: int) -> int:
    """The bytes that one read from ``position`` gives; none where the system refuses it."""
    try:
        return os.preadv(descriptor, [buffer], position)
    except OSError:
        return 0
