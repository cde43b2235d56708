"""The same commands on a disk that is really full: of bytes, or of files.

A tmpfs in a namespace of its own is filled up to so many pages, or inodes, that are left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aftermath import read_visible
from commands import run
from scenes import Scene
from sweep import Known, after_again, find_new_faults, learn

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LARGE = "size=64m,nr_inodes=10000"
_FEW, _MARGIN = 24, 48  # pages: from an empty disk on, and around what the command needs
_INSIDE = "_CRASH_SWEEP_INSIDE"
# These are what makes room: a full disk must not be in their way.
_MAKE_ROOM = frozenset({"gc", "uninstall", "uninstall --generation"})


def enter_namespace() -> None:
    """Run this very command again where this user may mount a disk, unless this is there."""
    if _INSIDE not in os.environ:
        words = ["unshare", "-rm", sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, _INSIDE: "yes"})


@dataclass(frozen=True)
class Full:
    """A disk on which so much is left: pages of bytes, or inodes; the other is plenty."""

    pages: int | None
    inodes: int | None

    def __str__(self) -> str:
        return f"{self.pages} pages left" if self.inodes is None else f"{self.inodes} inodes left"


class _Disk:
    """A tmpfs at ``place``."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        _mount("-t", "tmpfs", "-o", f"mode=755,{_LARGE}", "tmpfs", place)

    def used(self) -> tuple[int, int]:
        """The pages and inodes that are taken."""
        status = os.statvfs(self.place)
        pages = (status.f_blocks - status.f_bfree) * status.f_frsize // _PAGE
        return pages, status.f_files - status.f_ffree

    def fill(self, full: Full) -> None:
        """Leave so much."""
        pages, inodes = self.used()
        if full.pages is not None:
            # A size of nothing would mean no limit.
            _mount("-o", f"remount,size={max(pages + full.pages, 1) * _PAGE}", self.place)
        if full.inodes is not None:
            _mount("-o", f"remount,nr_inodes={inodes + full.inodes}", self.place)

    def free(self) -> None:
        """Leave plenty again."""
        _mount("-o", f"remount,{_LARGE}", self.place)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def sweep_full_disk(scene: Scene, place: Path, every: int) -> tuple[int, int, list[str]]:
    """Run the scene's command on every ``every``-th full disk.

    Returns how many were full of bytes, how many of inodes, and what failed.
    """
    known = learn(scene, place)
    disk = _Disk(place / "disk")
    try:
        by_bytes, by_inodes = (kind[::every] for kind in _fulls(known, disk))
        bad = []
        for full in [*by_bytes, *by_inodes]:
            faults = list(_try_full(known, full, disk))
            if faults:
                bad.append("\n    ".join([f"FAILED: {scene.title}: {full}", *faults]))
    finally:
        subprocess.run(["umount", disk.place], check=True)
    return len(by_bytes), len(by_inodes), bad


def _fulls(known: Known, disk: _Disk) -> tuple[list[Full], list[Full]]:
    """Every page from none on, and around what the command takes; every inode until it has all."""
    home = _fresh(known, disk)
    pages, inodes = disk.used()
    run(home, known.scene.command)
    more_pages, more_inodes = (
        now - then for now, then in zip(disk.used(), (pages, inodes), strict=True)
    )
    around = range(max(0, more_pages - _MARGIN), more_pages + _MARGIN)
    by_bytes = [Full(left, None) for left in sorted({*range(_FEW), *around})]
    return by_bytes, [Full(None, left) for left in range(max(0, more_inodes) + _FEW // 2)]


def _fresh(known: Known, disk: _Disk) -> Path:
    disk.free()
    home = disk.place / "home"
    shutil.rmtree(home, ignore_errors=True)
    if known.scene.home.exists():
        subprocess.run(["cp", "-a", known.scene.home, home], check=True)
    return home


def _try_full(known: Known, full: Full, disk: _Disk) -> Iterator[str]:
    home = _fresh(known, disk)
    disk.fill(full)
    done = run(home, known.scene.command)
    yield from done.faults()
    if done.code not in (0, 13):
        yield f"exit code {done.code}, not 13: {done.text.strip()}"
    if done.code and known.scene.title in _MAKE_ROOM:
        yield f"exit code {done.code} of what should make room: {done.text.strip()}"
    seen, wanted = read_visible(home), known.before if done.code else known.after
    if seen != wanted:
        yield f"exit code {done.code}; now: {seen}; wanted: {wanted}"
    disk.free()
    yield from find_new_faults(known, home)
    yield from after_again(known, home)
