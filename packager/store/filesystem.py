"""What a directory's filesystem is and takes: its kind, its room, its largest file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from packager.errors import HostError
from packager.store.atomic import naming_refusals

FAT32_MAX_FILE_SIZE = (1 << 32) - 1
# Beside the files themselves: directories, and what the filesystem keeps for itself.
MARGIN = 1 << 20

_MOUNTS = Path("/proc/self/mountinfo")
_FAT = frozenset({"vfat", "msdos"})
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Filesystem:
    """What a directory is on. ``device`` is the same for two that share their room.

    ``free`` is what this account may still write, in bytes; a file takes whole blocks of
    ``block`` bytes.
    """

    kind: str
    device: int
    free: int
    block: int
    read_only: bool

    @property
    def max_file_size(self) -> int | None:
        """The most bytes that one file may have here; ``None`` where no volume comes near it."""
        return FAT32_MAX_FILE_SIZE if self.kind in _FAT else None

    def room_for(self, size: int) -> int:
        """The bytes that a file of ``size`` bytes takes here."""
        return -(-size // self.block) * self.block

    def room_for_all(self, sizes: Iterable[int]) -> int:
        """The bytes that files of ``sizes`` bytes take here together, in one directory."""
        return sum(map(self.room_for, sizes)) + MARGIN


def read_filesystem(directory: Path) -> Filesystem:
    """The filesystem that holds ``directory``; raises ``HostError`` where the system refuses."""
    with naming_refusals(directory):
        status = os.statvfs(directory)
        device = directory.stat().st_dev
        mounts = _MOUNTS.read_text("utf-8", errors="surrogateescape") if _MOUNTS.exists() else ""
    return Filesystem(
        kind=mount_kind(mounts, directory.resolve()),
        device=device,
        free=status.f_bavail * status.f_frsize,
        block=status.f_frsize or 4096,
        read_only=bool(status.f_flag & os.ST_RDONLY),
    )


def check_writable(directory: Path, filesystem: Filesystem, *, hint: str) -> None:
    """Raise ``HostError`` with ``hint`` where this account cannot write in ``directory``."""
    if filesystem.read_only:
        raise HostError(f"{directory}: is read-only", hint=hint)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise HostError(f"{directory}: this account may not write there", hint=hint)


def nearest_existing(path: Path) -> Path:
    """``path`` if there is anything of that name, else the nearest above it that is there."""
    absolute = path.absolute()
    return next(p for p in (absolute, *absolute.parents) if os.path.lexists(p))


def mount_kind(mounts: str, path: PurePath) -> str:
    """The type of the filesystem that ``path`` is on, or ``""`` where ``mounts`` does not say.

    ``mounts`` is what ``/proc/self/mountinfo`` holds (proc(5)): of the mount points above
    ``path`` the deepest counts, and of those the last, which hides the others.
    """
    kind, depth = "", -1
    for line in mounts.splitlines():
        before, _, behind = line.partition(" - ")
        point = PurePath(_unescaped(before.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = behind.split(" ")[0], len(point.parts)
    return kind


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
