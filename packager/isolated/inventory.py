"""What a host, or a bundle, or an inventory that came back, says is held."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from packager import __version__
from packager.errors import UsageError
from packager.format.bundle import Bundle, parse_bundle
from packager.format.digest import Digest
from packager.format.held import is_requirements
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

_HERE = Path(sys.prefix)
_RECORD = Path("lib", "airpack", "requirements.txt")  # setup.sh leaves it
_MAX_RECORD_SIZE = 1 << 20  # bytes


@dataclass(frozen=True)
class Base:
    """What is held, and the index of the bundle that it was read from, if it was one.

    Nobody has verified either.
    """

    inventory: Inventory
    bundle: Bundle | None


def take_inventory(home: Home, environment: Path = _HERE) -> Inventory:
    """What the generations of this host hold; their bytes are not read.

    ``environment`` is the one that airpack runs in: which bundles it was set up from is told by
    what ``setup.sh`` left there. Raises ``IntegrityError`` where that, or the evidence of a
    generation, is damaged.
    """
    record = _read_record(environment)
    found = (g for name in installed_names(home) for g in generations(home, name))
    held = merge_inventories(_inventory_of(generation, record) for generation in found)
    there = tuple(file for file in held.files if has_blob(home, file.digest, file.size))
    return replace(held, files=there)


def _read_record(environment: Path) -> Digest | None:
    """The digest of the requirements that ``setup.sh`` installed there, if it did."""
    path = environment / _RECORD
    return Digest.of(read_capped(path, _MAX_RECORD_SIZE)) if path.exists() else None


def _inventory_of(generation: Generation, record: Digest | None) -> Inventory:
    receipt, bundle = generation.receipt, generation.bundle
    installed = [v for v in bundle.variants if v.name in receipt.variants]
    inventory = inventory_of(bundle, receipt.bundle, installed)
    if _sets_up(bundle, record):
        return inventory
    return replace(inventory, set_up_with=())  # to install a bundle is not to be set up with it


def _sets_up(bundle: Bundle, record: Digest | None) -> bool:
    """Whether this very airpack is what a host gets that is set up with ``bundle``.

    Without a ``record`` it came here another way than by a medium; what counts then is its
    version.
    """
    if record is None:
        return bundle.airpack == __version__
    return any(f.digest == record for f in bundle.files if is_requirements(f.path))


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
