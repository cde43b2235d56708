"""Where everything will lie in the payload, and in which volumes, before anything is written.

How large a volume is, where nobody says (``volume_size: auto``): as few of them as have 1 GiB at
most, all of one size. They fill media well, since what stays empty on a medium is less than one
volume: under 7% of a 16 GB stick, where volumes of FAT32's limit may waste a quarter. With
parity there are 20 at least, so that one of parity costs a twentieth, and never more than 255
with them; only for that, and for the number of names, do they grow above 1 GiB. They never grow
beyond FAT32's limit, whatever the disk that they are built on: the bundle is carried on sticks.
The size depends on the payload alone, so that the same recipe gives the same volumes anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import UsageError
from packager.format.bundle import MAX_FILES, PayloadFile
from packager.format.digest import Digest
from packager.format.parity import MAX_VOLUMES_WITH_PARITY
from packager.format.relpath import check_distinct, check_relpath
from packager.format.sizes import format_size
from packager.format.tar import TarLayout, plan_tar
from packager.format.volumes import (
    MAX_CHUNK_SIZE,
    MAX_PAYLOAD_SIZE,
    MIN_CHUNK_SIZE,
    ParityVolume,
    Payload,
    Volume,
    parity_name,
    volume_name,
)
from packager.store.filesystem import FAT32_MAX_FILE_SIZE

LARGEST_AUTO = 1 << 30
MOST_VOLUMES = 10_000  # the sums, of at most 1 MiB, list each in 80 bytes
VOLUMES_WITH_PARITY = 20
_CHUNKS_AIMED_AT = 1 << 14


@dataclass(frozen=True)
class Member:
    """A file to pack: its path in the payload, where it lies now, and what it must be."""

    path: str
    source: Path
    size: int
    digest: Digest


@dataclass(frozen=True)
class Cut:
    """How a payload is cut: chunks of ``chunk_size`` bytes, volumes, and ``parity`` more."""

    chunk_size: int
    volumes: tuple[Volume, ...]
    parity: int

    @property
    def stripes(self) -> int:
        """How many chunks each parity volume has: as many as the first volume."""
        return _ceil(self.volumes[0].size, self.chunk_size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of each volume, then of each parity volume."""
        sums = self.stripes * self.chunk_size
        return (*(volume.size for volume in self.volumes), *(sums for _ in range(self.parity)))


@dataclass(frozen=True)
class PayloadPlan:
    """Where everything will lie, decided before anything is written. Sizes in bytes."""

    members: tuple[Member, ...]
    layout: TarLayout
    cut: Cut

    @property
    def chunk_size(self) -> int:
        """The bytes of a chunk."""
        return self.cut.chunk_size

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The payload's volumes, without those of parity."""
        return self.cut.volumes

    @property
    def files(self) -> tuple[PayloadFile, ...]:
        """The index's view of the members."""
        pairs = zip(self.members, self.layout.entries, strict=True)
        return tuple(PayloadFile(m.path, m.size, e.offset, m.digest) for m, e in pairs)

    def draft(self) -> tuple[Payload, tuple[ParityVolume, ...]]:
        """The payload and its parity as the index will have them, but for their digests."""
        cut, size, nothing = self.cut, self.layout.size, Digest.of(b"")
        chunks = (nothing,) * _ceil(size, cut.chunk_size)
        sums = (nothing,) * cut.stripes
        return Payload(size, cut.chunk_size, chunks), tuple(
            ParityVolume(parity_name(number), len(sums) * cut.chunk_size, sums)
            for number in range(1, cut.parity + 1)
        )


def plan_payload(
    members: Sequence[Member], max_volume_size: int | None, parity: int = 0
) -> PayloadPlan:
    """Lay out ``members`` in volumes of at most ``max_volume_size`` bytes, ``None`` for auto.

    Whatever the index would refuse is refused here, before an hour of packing: raises
    ``UnsafeContentError`` for a path, ``UsageError`` for too much, or too small a volume.
    """
    check_distinct(check_relpath(member.path) for member in members)
    layout = plan_tar((member.path, member.size) for member in members)
    if len(members) > MAX_FILES or layout.size > MAX_PAYLOAD_SIZE:
        raise UsageError(
            f"{len(members)} files, {format_size(layout.size)}: a bundle holds at most "
            f"{MAX_FILES} files, {format_size(MAX_PAYLOAD_SIZE)}"
        )
    return PayloadPlan(tuple(members), layout, cut_payload(layout.size, max_volume_size, parity))


def cut_payload(size: int, max_volume_size: int | None, parity: int) -> Cut:
    """Cut a payload of ``size`` bytes; raises ``UsageError`` for too many volumes."""
    chunk_size = choose_chunk_size(size)
    if max_volume_size is None:
        limit = _auto_size(size, chunk_size, parity)
    else:
        limit = volume_limit(max_volume_size)
    _check_count(size, limit, chunk_size, parity)
    volume_size = limit // chunk_size * chunk_size
    volumes = tuple(
        Volume(volume_name(number), min(volume_size, size - offset), offset)
        for number, offset in enumerate(range(0, size, volume_size), start=1)
    )
    return Cut(chunk_size, volumes, parity)


def volume_limit(wanted: int) -> int:
    """The most bytes of a volume, where ``wanted`` were asked for.

    Who asks for 4 GiB means what FAT32 takes, which is one byte less.
    """
    return FAT32_MAX_FILE_SIZE if wanted == FAT32_MAX_FILE_SIZE + 1 else wanted


def choose_chunk_size(payload_size: int) -> int:
    """The power of two, within the format's bounds, that gives about 16,384 chunks."""
    size = MIN_CHUNK_SIZE
    while size < MAX_CHUNK_SIZE and size * _CHUNKS_AIMED_AT < payload_size:
        size *= 2
    return size


def _auto_size(payload_size: int, chunk_size: int, parity: int) -> int:
    """The bytes of a volume, in whole chunks, as this module's text says."""
    least = VOLUMES_WITH_PARITY if parity else 1
    count = min(max(least, _ceil(payload_size, LARGEST_AUTO)), _most_volumes(parity))
    size = _ceil(_ceil(payload_size, max(1, count)), chunk_size) * chunk_size
    return min(size, FAT32_MAX_FILE_SIZE // chunk_size * chunk_size)


def _most_volumes(parity: int) -> int:
    return MAX_VOLUMES_WITH_PARITY - parity if parity else MOST_VOLUMES


def _check_count(payload_size: int, limit: int, chunk_size: int, parity: int) -> None:
    """Raise ``UsageError`` where volumes of at most ``limit`` bytes would be too many.

    It says which size would do.
    """
    most = _most_volumes(parity)
    if most < 1:
        raise UsageError(
            f"{parity} parity volumes: there may be {MAX_VOLUMES_WITH_PARITY} volumes in all",
            hint=f"--parity {MAX_VOLUMES_WITH_PARITY - 1} or fewer",
        )
    if limit // chunk_size * chunk_size * most >= payload_size:
        return
    least = _ceil(_ceil(payload_size, most), chunk_size) * chunk_size
    beside = f" beside {parity} of parity" if parity else ""
    raise UsageError(
        f"volumes of {format_size(limit)} are too small for {format_size(payload_size)}: there "
        f"may be {most}{beside}, of whole chunks of {format_size(chunk_size)}",
        hint=f"--volume-size {least} or more{_beyond_fat32(least)}",
    )


def _beyond_fat32(volume_size: int) -> str:
    if volume_size <= FAT32_MAX_FILE_SIZE:
        return ""
    return ", on media of exFAT or ext4: FAT32 takes no such file"


def _ceil(size: int, unit: int) -> int:
    return -(-size // unit)
