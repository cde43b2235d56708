"""A stick with a real FAT32 filesystem, in a file: mtools writes and reads it, nobody mounts it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SECTOR_SIZE = 512


@dataclass(frozen=True)
class Stick:
    """The filesystem in ``image``. What one puts and takes keeps its name and its bytes, or not."""

    image: Path

    def put(self, *paths: Path) -> subprocess.CompletedProcess[str]:
        """Copy files or directories to the stick; what has the name of one that is there stays."""
        return self._run("mcopy", "-s", "-D", "s", *map(str, paths), "::/")

    def names(self, directory: str = "") -> list[str]:
        """The names in a directory of the stick, sorted."""
        listed = self._run("mdir", "-b", "-a", f"::/{directory}").stdout.splitlines()
        return sorted(line.rstrip("/").rpartition("/")[2] for line in listed)

    def take(self, name: str, to: Path) -> Path:
        """Copy a file or a directory from the stick into the directory ``to``."""
        to.mkdir(parents=True, exist_ok=True)
        done = self._run("mcopy", "-s", f"::/{name}", str(to))
        assert done.returncode == 0, done.stderr
        return to / name

    def _run(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tool, "-i", str(self.image), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def make_stick(image: Path, size: int) -> Stick:
    """Format ``image``, a sparse file of ``size`` bytes, with clusters of one sector.

    So FAT32 can be as small as 34 MB: what makes it FAT32 is the number of clusters.
    """
    if not shutil.which("mformat"):
        pytest.skip("mtools is not here, and nothing else writes FAT32 without a mount")
    image.touch()
    os.truncate(image, size)
    sectors = str(size // SECTOR_SIZE)
    command = ["mformat", "-i", str(image), "-F", "-c", "1", "-T", sectors, "-v", "AIRPACK", "::"]
    subprocess.run(command, check=True)
    return Stick(image)
