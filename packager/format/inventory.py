"""The inventory: the digests that an isolated host holds, so that the next trip is smaller.

Canonical JSON that goes back over the gap, and so says nothing of the host but this: which
files of installed variants it holds, by digest and size, which bundles it has, and from which of
them airpack was set up there. The store keeps no wheel: that the host was set up with them is all
that the last says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from packager.format import canonical
from packager.format.bundle import Bundle
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.format.fields import Fields
from packager.format.held import Setup, SetupFile, parse_setup, parse_title
from packager.format.variant import Variant
from packager.format.volumes import MAX_PAYLOAD_SIZE

FORMAT = "airpack-inventory"
FORMAT_VERSION = 1
MAX_INVENTORY_FILES = 1 << 18
MAX_INVENTORY_BUNDLES = 1 << 12
MAX_INVENTORY_SIZE = 128 << 20  # every file in under 300 bytes, and room


@dataclass(frozen=True, order=True)
class InventoryFile:
    """A file that the host holds, of ``size`` bytes; the bundle titled ``bundle`` carried it."""

    digest: Digest
    size: int
    bundle: str


@dataclass(frozen=True, order=True)
class InventoryBundle:
    """A bundle that the host has installed; ``digest`` is that of its signed sums."""

    name: str
    version: str
    sequence: int
    digest: Digest


@dataclass(frozen=True)
class Inventory:
    """What a host holds: files in order of their digests, and bundles in their own order.

    ``set_up_with`` is not held: airpack was set up there from any of these.
    """

    files: tuple[InventoryFile, ...]
    bundles: tuple[InventoryBundle, ...]
    set_up_with: tuple[Setup, ...] = ()

    @property
    def digest(self) -> Digest:
        """What names this very inventory: the digest of its document."""
        return Digest.of(encode_inventory(self))

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @cached_property
    def _by_digest(self) -> dict[Digest, InventoryFile]:
        return {file.digest: file for file in self.files}

    def find(self, digest: Digest, size: int) -> InventoryFile | None:
        """The file with that digest and that size in bytes, if the host holds it."""
        file = self._by_digest.get(digest)
        return file if file is not None and file.size == size else None

    def find_setup(self, wanted: Collection[SetupFile]) -> Setup | None:
        """The setup that has every file that is ``wanted``, if the host was set up with one."""
        return next((s for s in self.set_up_with if {*wanted} <= {*s.files}), None)


def inventory_of(bundle: Bundle, digest: Digest, variants: Iterable[Variant]) -> Inventory:
    """What a host holds that has installed ``variants`` of ``bundle``, whose digest is given.

    It counts as set up with what the bundle has for that.
    """
    files: dict[Digest, InventoryFile] = {}
    for variant in variants:
        for held in bundle.held_files(variant):
            files[held.digest] = InventoryFile(held.digest, held.size, held.bundle)
        for file in bundle.carried_files(variant):
            files[file.digest] = InventoryFile(file.digest, file.size, bundle.title)
    entry = InventoryBundle(bundle.name, bundle.version, bundle.sequence, digest)
    setups = (bundle.setup,) if bundle.setup else ()
    return Inventory(tuple(sorted(files.values())), (entry,), setups)


def merge_inventories(inventories: Iterable[Inventory]) -> Inventory:
    """What all of them hold together; of two that hold a file, the later says who carried it.

    So it is of two that were set up with the same files.
    """
    files: dict[Digest, InventoryFile] = {}
    bundles: set[InventoryBundle] = set()
    setups: dict[tuple[SetupFile, ...], Setup] = {}
    for inventory in inventories:
        files.update((file.digest, file) for file in inventory.files)
        bundles.update(inventory.bundles)
        setups.update((setup.files, setup) for setup in inventory.set_up_with)
    return Inventory(
        tuple(sorted(files.values())), tuple(sorted(bundles)), tuple(sorted(setups.values()))
    )


def encode_inventory(inventory: Inventory) -> bytes:
    """Write the document, having read it back as any host will; raises ``MalformedError``."""
    files: list[Json] = [
        {"digest": f.digest.hex, "size": f.size, "bundle": f.bundle} for f in inventory.files
    ]
    bundles: list[Json] = [
        {"name": b.name, "version": b.version, "sequence": b.sequence, "digest": b.digest.hex}
        for b in inventory.bundles
    ]
    data = canonical.encode(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "files": files,
            "bundles": bundles,
            "set_up_with": [setup.encode() for setup in inventory.set_up_with],
        }
    )
    parse_inventory(data)
    return data


def parse_inventory(data: bytes, where: str = "inventory") -> Inventory:
    """Read an inventory, called ``where`` in errors; raises ``MalformedError``."""
    document = canonical.decode(data, what=where, max_size=MAX_INVENTORY_SIZE)
    fields = Fields.of(document, where)
    if fields.text("format") != FORMAT:
        raise fields.refuse("format", f"not {FORMAT}")
    if fields.integer("format_version", least=1) != FORMAT_VERSION:
        raise fields.refuse("format_version", f"this airpack reads {FORMAT_VERSION}")
    fields.only("format", "format_version", "files", "bundles", "set_up_with")
    inventory = Inventory(
        files=_parse_list(fields, "files", MAX_INVENTORY_FILES).each("files", _parse_file),
        bundles=_parse_list(fields, "bundles", MAX_INVENTORY_BUNDLES).each(
            "bundles", _parse_bundle
        ),
        set_up_with=_parse_list(fields, "set_up_with", MAX_INVENTORY_BUNDLES).each(
            "set_up_with", parse_setup
        ),
    )
    digests = [file.digest for file in inventory.files]
    if digests != sorted({*digests}):
        raise fields.refuse("files", "not each once, in order of their digests")
    if list(inventory.bundles) != sorted({*inventory.bundles}):
        raise fields.refuse("bundles", "not each once, in order")
    if list(inventory.set_up_with) != sorted({*inventory.set_up_with}):
        raise fields.refuse("set_up_with", "not each once, in order")
    return inventory


def _parse_list(fields: Fields, key: str, most: int) -> Fields:
    if len(fields.items(key)) > most:
        raise fields.refuse(key, f"more than {most} entries")
    return fields


def _parse_file(fields: Fields) -> InventoryFile:
    fields.only("digest", "size", "bundle")
    return InventoryFile(
        digest=fields.digest("digest"),
        size=fields.integer("size", most=MAX_PAYLOAD_SIZE),
        bundle=parse_title(fields, "bundle"),
    )


def _parse_bundle(fields: Fields) -> InventoryBundle:
    fields.only("name", "version", "sequence", "digest")
    return InventoryBundle(
        name=fields.bare_name("name"),
        version=fields.bare_name("version"),
        sequence=fields.integer("sequence", least=1),
        digest=fields.digest("digest"),
    )
