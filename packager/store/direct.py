"""Reading and writing around the page cache, where the filesystem can; open(2), ``O_DIRECT``."""

from __future__ import annotations

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
