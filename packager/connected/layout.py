"""Where everything will lie in the payload, and in which volumes, before anything is written."""

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
    Volume,
    volume_name,
)

FAT32_MAX_FILE_SIZE = (1 << 32) - 1
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
class PayloadPlan:
    """Where everything will lie, decided before anything is written. Sizes in bytes."""

    members: tuple[Member, ...]
    layout: TarLayout
    chunk_size: int
    volumes: tuple[Volume, ...]

    @property
    def files(self) -> tuple[PayloadFile, ...]:
        """The index's view of the members."""
        pairs = zip(self.members, self.layout.entries, strict=True)
        return tuple(PayloadFile(m.path, m.size, e.offset, m.digest) for m, e in pairs)


def plan_payload(
    members: Sequence[Member], max_volume_size: int | None, parity: int = 0
) -> PayloadPlan:
    """Lay out ``members``; volumes of at most ``max_volume_size``, or what FAT32 can hold.

    With ``parity`` volumes asked for and no size, there are about twenty volumes, so that one of
    parity costs a twentieth. Whatever the index would refuse is refused here, before an hour of
    packing: raises ``UnsafeContentError`` for a path, ``UsageError`` for too much, or too small a
    volume.
    """
    check_distinct(check_relpath(member.path) for member in members)
    layout = plan_tar((member.path, member.size) for member in members)
    if len(members) > MAX_FILES or layout.size > MAX_PAYLOAD_SIZE:
        raise UsageError(
            f"{len(members)} files, {format_size(layout.size)}: a bundle holds at most "
            f"{MAX_FILES} files, {format_size(MAX_PAYLOAD_SIZE)}"
        )
    chunk_size = choose_chunk_size(layout.size)
    if parity and max_volume_size is None:
        share = -(-layout.size // VOLUMES_WITH_PARITY)
        max_volume_size = -(-share // chunk_size) * chunk_size
    volume_size = _volume_size(layout.size, chunk_size, max_volume_size)
    volumes = tuple(
        Volume(volume_name(number), min(volume_size, layout.size - offset), offset)
        for number, offset in enumerate(range(0, layout.size, volume_size), start=1)
    )
    if parity and len(volumes) + parity > MAX_VOLUMES_WITH_PARITY:
        least = -(-layout.size // max(1, MAX_VOLUMES_WITH_PARITY - parity) // chunk_size) + 1
        raise UsageError(
            f"{len(volumes)} volumes and {parity} of parity: there may be "
            f"{MAX_VOLUMES_WITH_PARITY} in all",
            hint=f"--volume-size {least * chunk_size} or more",
        )
    return PayloadPlan(tuple(members), layout, chunk_size, volumes)


def _volume_size(payload_size: int, chunk_size: int, wanted: int | None) -> int:
    """The most whole chunks that ``wanted`` bytes and FAT32 hold."""
    limit = min(FAT32_MAX_FILE_SIZE if wanted is None else wanted, FAT32_MAX_FILE_SIZE)
    size = limit // chunk_size * chunk_size
    if size * MOST_VOLUMES < payload_size:
        least = max(chunk_size, -(-payload_size // MOST_VOLUMES // chunk_size) * chunk_size)
        raise UsageError(
            f"volumes of {format_size(limit)} are too small for {format_size(payload_size)}",
            hint=f"--volume-size {least} or more",
        )
    return size


def choose_chunk_size(payload_size: int) -> int:
    """The power of two, within the format's bounds, that gives about 16,384 chunks."""
    size = MIN_CHUNK_SIZE
    while size < MAX_CHUNK_SIZE and size * _CHUNKS_AIMED_AT < payload_size:
        size *= 2
    return size
