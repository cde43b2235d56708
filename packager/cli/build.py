"""``airpack build``: from a recipe to a signed bundle."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, file_argument, now
from packager.cli.keys import passphrase_option, unlock
from packager.cli.screen import Screen
from packager.cli.ticket import answer_ticket
from packager.connected.build import BuildRequest, check_output
from packager.connected.build import build as build_bundle
from packager.connected.cache import Cache
from packager.connected.lock import lock_path, lock_recipe, read_lock, read_recipe
from packager.errors import UsageError
from packager.format.inventory import Inventory
from packager.format.lock import Lock
from packager.format.recipe import Recipe
from packager.format.sizes import format_size, parse_size
from packager.isolated.inventory import read_base
from packager.quantize.executors.choice import find_executor
from packager.quantize.executors.threads import Threads


@click.command(cls=Command)
@click.argument("recipe", type=directory_argument)
@click.option(
    "-o",
    "output",
    type=directory_argument,
    required=True,
    metavar="DIR",
    help="Where the bundle's directory goes.",
)
@click.option(
    "--key", "keys", type=file_argument, multiple=True, help="Sign with this private key."
)
@passphrase_option
@click.option("--locked", is_flag=True, help="Use the lock as it is; fail where there is none.")
@click.option("--volume-size", default=None, metavar="N|auto", help="Size of a volume, as 4GiB.")
@click.option(
    "--parity",
    type=click.IntRange(0, 254),
    metavar="N",
    help="Parity volumes: as many lost or bad volumes can be rebuilt.",
)
@click.option(
    "--base",
    type=directory_argument,
    metavar="INVENTORY",
    help="Leave out what the host holds: its inventory, or a bundle that it has installed.",
)
@click.option(
    "--for-ticket",
    type=file_argument,
    metavar="FILE",
    help="Build only what this repair ticket asks for; RECIPE is the directory of the bundle.",
)
@click.option(
    "--executor",
    metavar="dask:ADDRESS",
    help="Quantize GGUF variants on the workers of this dask scheduler.",
)
@click.option("--dry-run", is_flag=True, help="Lock, say what would be built, and stop.")
@click.pass_obj
def build(
    screen: Screen,
    recipe: Path,
    output: Path,
    keys: tuple[Path, ...],
    passphrase_file: Path | None,
    locked: bool,
    volume_size: str | None,
    parity: int | None,
    base: Path | None,
    for_ticket: Path | None,
    executor: str | None,
    dry_run: bool,
) -> None:
    """Build the bundle that RECIPE describes into DIR/<name>-<version>/."""
    if for_ticket:
        answer_ticket(screen, recipe, output, keys, passphrase_file, for_ticket)
        return
    if recipe.is_dir():
        raise UsageError(f"{recipe}: a directory, not a recipe", hint="airpack init SOURCE")
    parsed = read_recipe(recipe)
    directory = check_output(parsed, output)
    signing = tuple(unlock(screen, path, passphrase_file) for path in keys)
    quantizing = find_executor(executor) if executor else Threads()
    held = read_base(base).inventory if base else None
    _warn_of_sequence(screen, parsed, held)
    lock = _lock_for(screen, recipe, parsed, locked)
    request = BuildRequest(
        recipe=parsed,
        recipe_folder=recipe.parent,
        lock=lock,
        output=output,
        keys=signing,
        volume_size=_volume_size(volume_size, parsed),
        parity=parity,
        now=_build_time(),
        base=held,
        executor=quantizing,
    )
    if dry_run:
        _say_plan(screen, request, directory)
        return
    made = build_bundle(request, Cache.of_environment(), screen)
    if not signing:
        screen.warn(f"not signed; no host will install it before: airpack sign {made} --key FILE")
    screen.result(
        {
            "ok": True,
            "name": parsed.name,
            "version": parsed.version,
            "sequence": parsed.sequence,
            "path": str(made),
            "signers": [key.public.key_id for key in signing],
            "size": _size_of(made),
        },
        f"built: {made}, {format_size(_size_of(made))}"
        + "".join(f"\nsigned by: {key.public.key_id}" for key in signing),
    )


def _warn_of_sequence(screen: Screen, recipe: Recipe, held: Inventory | None) -> None:
    """Say before the trip that the host will refuse this sequence, where the base shows it."""
    bundles = held.bundles if held else ()
    had = max((b.sequence for b in bundles if b.name == recipe.name), default=0)
    if recipe.sequence <= had:
        screen.warn(
            f"the base has sequence {had} of {recipe.name}: its host will refuse sequence "
            f"{recipe.sequence}; raise it in the recipe"
        )


def _lock_for(screen: Screen, path: Path, recipe: Recipe, locked: bool) -> Lock:
    """The recipe's lock if there is one and it is current; else, unless ``locked``, a new one."""
    if locked or lock_path(path).is_file():
        try:
            return read_lock(path)
        except UsageError:
            if locked:
                raise
    screen.note(f"locking {recipe.name}")
    return lock_recipe(path, screen)


def _volume_size(given: str | None, recipe: Recipe) -> int | None:
    if given is None:
        return recipe.medium.volume_size
    return None if given == "auto" else parse_size(given)


def _build_time() -> datetime:
    """Now, or the moment that SOURCE_DATE_EPOCH sets (reproducible-builds.org's convention)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return now()
    if not epoch.isdecimal() or len(epoch) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch[:40]!r} is not a number of seconds")
    return datetime.fromtimestamp(int(epoch), timezone.utc)


def _say_plan(screen: Screen, request: BuildRequest, directory: Path) -> None:
    recipe, lock = request.recipe, request.lock
    screen.result(
        {
            "ok": True,
            "dry_run": True,
            "path": str(directory),
            "revision": lock.revision,
            "licence": lock.licence,
            "fetch_size": lock.size,
            "variants": [variant.name for variant in recipe.variants],
        },
        f"would build {directory} from {len(lock.files)} files, {format_size(lock.size)}, "
        f"revision {lock.revision}: {', '.join(variant.name for variant in recipe.variants)}",
    )


def _size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())
