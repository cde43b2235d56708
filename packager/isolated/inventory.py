"""What a host, or a bundle, or an inventory that came back, says is held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from packager.errors import UsageError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.inventory import (
    MAX_INVENTORY_SIZE,
    Inventory,
    inventory_of,
    merge_inventories,
    parse_inventory,
)
from packager.isolated.media import open_media, read_evidence
from packager.store.atomic import read_capped
from packager.store.blobs import has_blob
from packager.store.generations import Generation, generations, installed_names
from packager.store.home import Home


@dataclass(frozen=True)
class Base:
    """What is held, and the index of the bundle that it was read from, if it was one.

    Nobody has verified either.
    """

    inventory: Inventory
    bundle: Bundle | None


def take_inventory(home: Home) -> Inventory:
    """What the generations of this host hold; their bytes are not read.

    Raises ``IntegrityError`` where the evidence of a generation is damaged.
    """
    found = (g for name in installed_names(home) for g in generations(home, name))
    held = merge_inventories(map(_inventory_of, found))
    there = tuple(file for file in held.files if has_blob(home, file.digest, file.size))
    return replace(held, files=there)


def _inventory_of(generation: Generation) -> Inventory:
    receipt, bundle = generation.receipt, generation.bundle
    installed = [v for v in bundle.variants if v.name in receipt.variants]
    return inventory_of(bundle, receipt.bundle, installed)


def read_base(path: Path) -> Base:
    """The inventory in the file ``path``, or what a host holds that installed the bundle there.

    Raises ``UsageError`` where there is neither, and ``IntegrityError`` for a malformed one.
    """
    if path.is_dir():
        evidence = read_evidence(open_media([path]))[0]
        index = parse_bundle(evidence.index)
        return Base(inventory_of(index, Digest.of(evidence.sums), index.variants), index)
    if not path.exists():
        raise UsageError(
            f"{path}: there is no such inventory, nor bundle",
            hint="on the isolated host: airpack inventory -o FILE",
        )
    return Base(parse_inventory(read_capped(path.resolve(), MAX_INVENTORY_SIZE), str(path)), None)
