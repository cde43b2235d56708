"""What a bundle takes, said before it is written: on the disk it is built on, and on its media.

Any medium that gets a share gets all small files, and whole volumes. So it needs room for the
small files and one volume at least, and which media are enough follows from the sizes alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packager.connected.packing.layout import volume_limit
from packager.errors import HostError, NoSpaceError
from packager.format.bundle import Bundle
from packager.format.sizes import format_size
from packager.store.atomic import naming_refusals, unfinished_place
from packager.store.filesystem import (
    FAT32_MAX_FILE_SIZE,
    check_writable,
    nearest_existing,
    read_filesystem,
)

GIGABYTE = 10**9
LABELS = tuple(
    n * GIGABYTE
    for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16_000, 32_000)
)
# What a stick of 16 GB has in truth, and its filesystem leaves: never less than that.
USABLE = 0.93
_ELSEWHERE = "build elsewhere: -o DIR"


@dataclass(frozen=True)
class Media:
    """So many media, each sold as one of ``capacity`` bytes, take a bundle."""

    count: int
    capacity: int

    def __str__(self) -> str:
        thousands, rest = divmod(self.capacity // GIGABYTE, 1000)
        size = f"{rest} GB" if rest else f"{thousands} TB"
        return f"one medium of {size}" if self.count == 1 else f"{self.count} of {size}"


@dataclass(frozen=True)
class Footprint:
    """The files of a bundle by their sizes in bytes: volumes and small files.

    The last ``parity`` of the ``volumes`` are those of parity.
    """

    volumes: tuple[int, ...]
    parity: int
    small: tuple[int, ...]

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(self.volumes) + self.small_size

    @property
    def small_size(self) -> int:
        """The bytes of the small files, which every medium gets."""
        return sum(self.small)

    @property
    def least_medium(self) -> int:
        """The bytes that a medium needs, to take a share at all."""
        return self.small_size + max(self.volumes)

    def media(self, choices: int = 3) -> tuple[Media, ...]:
        """Which media take all of it: one, if any sold is large enough, and more that are smaller.

        The fewest first, up to so many ``choices``.
        """
        smallest: dict[int, Media] = {}
        for capacity in reversed(LABELS):
            count = self._count(int(capacity * USABLE))
            if count is not None:
                smallest[count] = Media(count, capacity)
        return tuple(smallest.values())[:choices]

    def _count(self, capacity: int) -> int | None:
        """How many media with room for ``capacity`` bytes it takes; ``None``: they are too small.

        As ``airpack copy`` deals volumes out. All but one have the same size.
        """
        room, largest = capacity - self.small_size, max(self.volumes)
        each = room // largest
        if each < 1:
            return None
        large = self.volumes.count(largest)
        count = -(-large // each)
        smaller = sum(self.volumes) - large * largest
        has_place = count * each > large or room - each * largest >= smaller
        return count if has_place else count + 1

    def lines(self, *, is_exact: bool = True) -> Iterator[str]:
        """What it takes, in words; to the byte where it is known."""
        largest = format_size(max(self.volumes))
        count = len(self.volumes) - self.parity
        volumes = (
            f"one volume of {largest}" if count == 1 else f"{count} volumes of up to {largest}"
        )
        parity = f", {self.parity} of parity" if self.parity else ""
        yield (
            f"the bundle takes {_bytes(self.size, is_exact)}: {volumes}{parity}, and "
            f"{format_size(self.small_size)} of small files, which each medium gets"
        )
        media = ", or ".join(map(str, self.media()))
        yield (
            f"a medium needs {_bytes(self.least_medium, is_exact)} at least, for the small files "
            f"and one volume; all of it fits {media}"
        )
        if max(self.volumes) > FAT32_MAX_FILE_SIZE:
            yield (
                f"volumes of {largest} fit no FAT32 medium, but exFAT and ext4; "
                "--volume-size auto fits all"
            )


def _bytes(size: int, is_exact: bool) -> str:
    return f"{format_size(size)} ({size} bytes)" if is_exact else f"about {format_size(size)}"


def footprint_of(bundle: Bundle, directory: Path) -> Footprint:
    """What the ``bundle`` built in ``directory`` takes."""
    sizes = {volume.name: volume.size for volume in bundle.volume_files}
    with naming_refusals(directory):
        small = [p.stat().st_size for p in directory.iterdir() if p.name not in sizes]
    return Footprint(tuple(sizes.values()), len(bundle.parity), tuple(small))


def check_place(output: Path, volume_size: int | None) -> None:
    """Refuse an ``output`` that no bundle can be built in, at once and without making it.

    Raises ``HostError`` for one that cannot be written to, and ``NoSpaceError`` where its
    filesystem takes no file of the ``volume_size`` that was asked for (``None``: auto).
    """
    place = nearest_existing(output)
    if not place.is_dir():
        raise HostError(f"{place}: no directory that can be written to", hint=_ELSEWHERE)
    filesystem = read_filesystem(place)
    check_writable(place, filesystem, hint=_ELSEWHERE)
    most = filesystem.max_file_size
    if volume_size is not None and most is not None and volume_limit(volume_size) > most:
        raise NoSpaceError(
            f"{place}: volumes of {format_size(volume_size)} were asked for, and a file on "
            f"{filesystem.kind} (FAT) has {most} bytes at most",
            hint="--volume-size auto, or build on exFAT or ext4: -o DIR",
        )


def check_room(directory: Path, footprint: Footprint) -> None:
    """Raise ``NoSpaceError`` unless the bundle fits the disk where it is to be ``directory``.

    What an unfinished build of it left there counts as free: it is removed, or gone on with.
    """
    filesystem = read_filesystem(nearest_existing(directory))
    needed = filesystem.room_for_all((*footprint.volumes, *footprint.small))
    free = filesystem.free + _disk_size(unfinished_place(directory))
    if free < needed:
        raise NoSpaceError(
            f"{directory.parent}: {format_size(needed)} needed, {format_size(free)} free",
            hint="free some space; or build on a larger disk, -o DIR, and spread it over several "
            "media from there: airpack copy BUNDLE MEDIUM...",
        )


def _disk_size(directory: Path) -> int:
    """What the files in ``directory`` take; another build may be naming and removing them now."""
    size = 0
    gone = suppress(FileNotFoundError, NotADirectoryError)
    with naming_refusals(directory), gone, os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_blocks * 512
    return size
