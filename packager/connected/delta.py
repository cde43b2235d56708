"""A delta: what the host holds already does not travel again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packager.connected.layout import Member
from packager.errors import UsageError
from packager.format.bundle import MAX_FILES
from packager.format.held import HeldFile
from packager.format.inventory import Inventory
from packager.format.relpath import check_distinct, check_relpath


@dataclass(frozen=True)
class Delta:
    """The files of the variants, parted: those that travel, and those that stay at home."""

    carried: tuple[Member, ...]
    held: tuple[HeldFile, ...]

    @property
    def held_size(self) -> int:
        """The bytes that stay at home."""
        return sum(file.size for file in self.held)


def leave_out(members: Sequence[Member], base: Inventory | None) -> Delta:
    """Part ``members`` into those that ``base`` lacks, which travel, and the others.

    Raises ``UnsafeContentError`` for a path, and ``UsageError`` for too many files.
    """
    check_distinct(check_relpath(member.path) for member in members)
    if len(members) > MAX_FILES:
        raise UsageError(f"{len(members)} files: a bundle holds at most {MAX_FILES}")
    held = tuple(_held(members, base)) if base else ()
    left_out = {file.path for file in held}
    return Delta(tuple(m for m in members if m.path not in left_out), held)


def _held(members: Iterable[Member], base: Inventory) -> Iterable[HeldFile]:
    for member in members:
        there = base.find(member.digest, member.size)
        if there is not None:
            yield HeldFile(member.path, member.size, member.digest, there.bundle)
