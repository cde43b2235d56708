"""``airpack inventory`` and ``airpack diff``: what is held, and what would have to travel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, file_argument, home
from packager.cli.screen import Screen
from packager.cli.text import counted, one_line, table
from packager.errors import UsageError
from packager.format.bundle import Bundle, VariantFile
from packager.format.held import SetupFile
from packager.format.inventory import Inventory, encode_inventory
from packager.format.sizes import format_size
from packager.isolated.inventory import Base, read_base, take_inventory
from packager.store.atomic import write_file


@click.command(cls=Command)
@click.option(
    "-o", "output", type=file_argument, required=True, metavar="FILE", help="Where to write it."
)
@click.pass_obj
def inventory(screen: Screen, output: Path) -> None:
    """Write the digests of what this host holds, for `airpack build --base` on the other side.

    It names models, versions and digests, and the bundles that airpack was set up with here;
    nothing else of this host.
    """
    held = take_inventory(home())
    write_file(output, encode_inventory(held))
    screen.result(
        {
            "ok": True,
            "inventory": str(output),
            "files": len(held.files),
            "size": held.size,
            "bundles": [
                {"name": b.name, "version": b.version, "sequence": b.sequence} for b in held.bundles
            ],
            "set_up_with": [setup.bundle for setup in held.set_up_with],
        },
        f"wrote {output}: {counted(len(held.files), 'file')}, {format_size(held.size)}, of "
        f"{counted(len(held.bundles), 'bundle')}; {_set_up_with(held)}",
    )


def _set_up_with(held: Inventory) -> str:
    if not held.set_up_with:
        return "airpack was set up with none of them, and will travel again"
    return f"airpack was set up with {', '.join(setup.bundle for setup in held.set_up_with)}"


@click.command(cls=Command)
@click.argument("a", type=directory_argument)
@click.argument("b", type=directory_argument)
@click.pass_obj
def diff(screen: Screen, a: Path, b: Path) -> None:
    """Show what a delta from A to B would carry. Verifies nothing.

    A and B are bundles, or one of them is the inventory of a host, which is what the other then
    starts from.
    """
    places = [(str(path), read_base(path)) for path in (a, b)]
    if places[1][1].bundle is None:
        places.reverse()
    (start, base), (end, target) = places
    if target.bundle is None:
        raise UsageError(f"{a} and {b}: both are inventories", hint="airpack diff INVENTORY BUNDLE")
    found = _compare(base, target.bundle)
    screen.result(
        {
            "ok": True,
            "verified": False,
            "from": _title(start, base),
            "to": _title(end, target),
            "carried": [_document(file) for file in found.carried],
            "held": [_document(file) for file in found.held],
            "removed": [_document(file) for file in found.removed],
            "carried_size": _size(found.carried),
            "held_size": _size(found.held),
        },
        _text(found),
    )


_File = VariantFile | SetupFile


@dataclass(frozen=True)
class _Difference:
    """What would travel, what would not, and what is no longer there, as far as paths tell."""

    carried: tuple[_File, ...]
    held: tuple[_File, ...]
    removed: tuple[_File, ...]


def _compare(base: Base, target: Bundle) -> _Difference:
    held: tuple[_File, ...] = tuple(f for f in _of_variants(target) if _has(base.inventory, f))
    if target.setup and base.inventory.find_setup(target.setup.files):
        held += target.setup.files
    stay = {file.path for file in held}
    files: tuple[_File, ...] = target.files
    files += target.held
    if target.set_up_with:
        files += target.set_up_with.files
    paths = {file.path for file in files}
    before = _of_variants(base.bundle) if base.bundle else ()
    return _Difference(
        carried=tuple(file for file in files if file.path not in stay),
        held=held,
        removed=tuple(file for file in before if file.path not in paths),
    )


def _of_variants(bundle: Bundle) -> tuple[VariantFile, ...]:
    return tuple(f for variant in bundle.variants for f in bundle.variant_files(variant))


def _has(held: Inventory, file: VariantFile) -> bool:
    return held.find(file.digest, file.size) is not None


def _title(path: str, side: Base) -> str:
    return side.bundle.title if side.bundle else path


def _size(files: Sequence[_File]) -> int:
    return sum(file.size for file in files)


def _document(file: _File) -> dict[str, object]:
    return {"path": file.path, "size": file.size}


def _text(found: _Difference) -> str:
    kinds = (("carried", found.carried), ("held", found.held), ("removed", found.removed))
    rows = [
        (kind, format_size(file.size), one_line(file.path))
        for kind, files in kinds
        for file in files
    ]
    summary = (
        f"a delta carries {counted(len(found.carried), 'file')}, "
        f"{format_size(_size(found.carried))}; {counted(len(found.held), 'file')}, "
        f"{format_size(_size(found.held))}, stay at home"
    )
    warning = "NOT VERIFIED: what bundles and inventories say of themselves"
    return "\n".join([warning, *([table(rows)] if rows else ()), summary])
