"""Reading and writing around the page cache, where the filesystem can; open(2), ``O_DIRECT``."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

ALIGNMENT = 4096  # bytes; no device in use has larger sectors


def aligned_buffer(size: int) -> memoryview:
    """A buffer of ``size`` bytes, a multiple of 4096, that a device can read and write."""
    return memoryview(mmap.mmap(-1, size))


def set_direct(descriptor: int, wanted: bool) -> bool:
    """Ask for direct reads and writes or for others; returns whether they are direct now."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    flags = flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    except OSError:
        return False
    return wanted


def write_sectors(descriptor: int, data: memoryview, position: int) -> int:
    """Write the whole sectors of ``data``, directly; returns how many bytes the system took so.

    ``descriptor`` is direct; ``data`` begins in its buffer, and ``position`` in the file, at a
    multiple of 4096. Fewer are taken where the filesystem wants another alignment.
    """
    whole = len(data) // ALIGNMENT * ALIGNMENT
    done = 0
    while done < whole:
        try:
            done += os.pwrite(descriptor, data[done:whole], position + done)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return done
    return done
