"""The payload's shape: a plain, deterministic, uncompressed tar.

Only the layout is computed here: where each header and each file lies, before a byte is
written. airpack never parses a tar; the signed index says where each file is. The headers are
there so that ``cat payload.* | tar x`` works on a host that has nothing but coreutils.
Headers are GNU format (base-256 sizes above 8 GiB, long names in an extra record), as
described in the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

BLOCK_SIZE = 512
END_SIZE = 2 * BLOCK_SIZE  # two zero blocks end an archive


@dataclass(frozen=True)
class TarEntry:
    """One file of the payload; offsets and size in bytes from the payload's start."""

    path: str
    size: int
    header: bytes
    header_offset: int

    @property
    def offset(self) -> int:
        """Where the file's own bytes begin."""
        return self.header_offset + len(self.header)

    @property
    def end(self) -> int:
        """Where the next header begins: the file, padded to whole blocks."""
        return self.offset + -(-self.size // BLOCK_SIZE) * BLOCK_SIZE


@dataclass(frozen=True)
class TarLayout:
    """Every entry in order, and the payload's size in bytes."""

    entries: tuple[TarEntry, ...]
    size: int


def plan_tar(files: Iterable[tuple[str, int]]) -> TarLayout:
    """Lay out ``files``, pairs of path and size, in the order given."""
    entries: list[TarEntry] = []
    position = 0
    for path, size in files:
        entry = TarEntry(path, size, _header(path, size), position)
        entries.append(entry)
        position = entry.end
    return TarLayout(tuple(entries), position + END_SIZE)


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
