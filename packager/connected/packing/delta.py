"""A delta: what the host holds already does not travel again.

So it is with each file of a variant by itself. With what airpack is set up from it is all or
nothing, and all from one earlier bundle: a host keeps no wheels, only what it installed from
them, so ``setup.sh`` could not complete a part of them; and of a host that has been set up with
each wheel, but from several bundles, nobody knows which of them it has now. The texts beside the
wheels always travel, and with them what tells a host which wheels it should have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packager.connected.packing.layout import Member
from packager.errors import UsageError
from packager.format.bundle import MAX_FILES
from packager.format.held import HeldFile, Setup, is_setup_part, setup_from
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


@dataclass(frozen=True)
class SetupDelta:
    """The files of ``setup/`` that travel, and what the host was set up with in place of others."""

    carried: tuple[Member, ...]
    set_up_with: Setup | None


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


def leave_out_setup(members: Sequence[Member], base: Inventory | None) -> SetupDelta:
    """Part the files of ``setup/``: without wheels and libraries if ``base`` shows the same ones.

    ``set_up_with`` names the earlier bundle, but these very files.
    """
    here = setup_from("", members)
    there = base.find_setup(here.files) if base and here else None
    if here is None or there is None:
        return SetupDelta(tuple(members), None)
    texts = tuple(member for member in members if not is_setup_part(member.path))
    return SetupDelta(texts, Setup(there.bundle, here.files))
