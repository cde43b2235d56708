"""``airpack build``: from a recipe to a signed bundle."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, file_argument, now
from packager.cli.passphrases import passphrase_option, unlock
from packager.cli.screen import Screen
from packager.cli.text import counted
from packager.cli.ticket import answer_ticket
from packager.connected.build import BuildRequest, check_output, check_request
from packager.connected.build import build as build_bundle
from packager.connected.cache import Cache
from packager.connected.expected import (
    Expected,
    ExpectedSetup,
    expect,
    expect_setup,
    expected_footprint,
    models_at_hand,
    sources_at_hand,
)
from packager.connected.lock import lock_path, lock_recipe, read_lock, read_recipe
from packager.connected.packing.footprint import Footprint, check_place, footprint_of
from packager.errors import UsageError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE, parse_bundle
from packager.format.inventory import Inventory
from packager.format.lock import Lock
from packager.format.recipe import Recipe
from packager.format.sizes import format_size, parse_size
from packager.isolated.inventory import read_base
from packager.quantize.executors.choice import find_executor
from packager.quantize.executors.threads import Threads
from packager.store.atomic import read_capped
from packager.store.filesystem import nearest_existing, read_filesystem


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
@click.option(
    "--volume-size",
    metavar="N|auto",
    help="The most that a volume may have, as 4GiB; auto suits every medium.",
)
@click.option(
    "--parity",
    type=click.IntRange(0, 254),
    metavar="N",
    help="Parity volumes: as many lost or bad volumes can be rebuilt.",
)
@click.option(
    "--base",
    type=directory_argument,
    metavar="INVENTORY|BUNDLE",
    help="Leave out what the host holds, and airpack itself if it was set up with the same: its "
    "inventory, or a bundle that it was set up with and has installed.",
)
@click.option(
    "--with-setup",
    is_flag=True,
    help="Carry airpack itself even so, for a host that must be set up anew.",
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
@click.option(
    "--accepted-by",
    metavar="NAME",
    help="Who accepts the licences; gated models need it, and the bundle records it.",
)
@click.option(
    "--strip-remote-code",
    is_flag=True,
    help="Leave out of JSON files the keys that make loaders run code, which never travels; only "
    "for a model that runs without.",
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
    with_setup: bool,
    for_ticket: Path | None,
    executor: str | None,
    accepted_by: str | None,
    strip_remote_code: bool,
    dry_run: bool,
) -> None:
    """Build the bundle that RECIPE describes into DIR/<name>-<version>/."""
    if for_ticket:
        answer_ticket(screen, recipe, output, keys, passphrase_file, for_ticket)
        return
    if recipe.is_dir():
        raise UsageError(f"{recipe}: a directory, not a recipe", hint="airpack init SOURCE")
    parsed = read_recipe(recipe)
    wanted_size = _volume_size(volume_size, parsed)
    check_output(parsed, output)
    check_place(output, wanted_size)
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
        volume_size=wanted_size,
        parity=parity,
        now=_build_time(),
        base=held,
        with_setup=with_setup,
        executor=quantizing,
        strip_remote_code=strip_remote_code,
        accepted_by=accepted_by,
    )
    cache = Cache.of_environment()
    if dry_run:
        _say_plan(screen, request, cache)
    else:
        _say_made(screen, request, build_bundle(request, cache, screen))


def _say_made(screen: Screen, request: BuildRequest, made: Path) -> None:
    recipe = request.recipe
    bundle = parse_bundle(read_capped(made / INDEX_NAME, MAX_INDEX_SIZE))
    signers = [key.public.key_id for key in request.keys]
    footprint = footprint_of(bundle, made)
    if not signers:
        screen.warn(f"not signed; no host will install it before: airpack sign {made} --key FILE")
    screen.result(
        {
            "ok": True,
            "name": recipe.name,
            "version": recipe.version,
            "sequence": recipe.sequence,
            "path": str(made),
            "signers": signers,
            "size": footprint.size,
            "payload_size": bundle.payload.size,
            "held": {"files": len(bundle.held), "size": sum(file.size for file in bundle.held)},
            "set_up_with": bundle.set_up_with.bundle if bundle.set_up_with else None,
            **_needs(footprint),
        },
        f"built: {made}, {format_size(footprint.size)}"
        + "".join(f"\nsigned by: {key_id}" for key_id in signers),
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


def _say_plan(screen: Screen, request: BuildRequest, cache: Cache) -> None:
    directory = check_request(request)
    recipe, lock = request.recipe, request.lock
    sources = sources_at_hand(lock, cache, request.recipe_folder)
    models = models_at_hand(recipe, lock, cache)
    expected = expect(recipe, lock, sources, request.base, models=models)
    setup = expect_setup(recipe, cache, request.setup_base, screen)
    footprint = expected_footprint(
        expected, setup.sizes, request.volume_size, request.parity_volumes
    )
    free = read_filesystem(nearest_existing(directory)).free
    if free < footprint.size:
        screen.warn(
            f"{directory.parent}: about {format_size(footprint.size)} needed, "
            f"{format_size(free)} free"
        )
    screen.result(
        {
            "ok": True,
            "dry_run": True,
            "path": str(directory),
            "revision": lock.revision,
            "licence": lock.licence,
            "fetch_size": lock.size,
            "variants": [variant.name for variant in recipe.variants],
            "variants_size": expected.size,
            "exact": expected.is_exact,
            "held": {"files": len(expected.held), "size": expected.held_size},
            "set_up_with": setup.set_up_with.bundle if setup.set_up_with else None,
            "size": footprint.size,
            **_needs(footprint),
            "free": free,
        },
        "\n".join(
            [
                _source_line(directory, lock),
                *_variants_lines(recipe, expected, request.base),
                *_setup_lines(setup, request.setup_base),
                *footprint.lines(is_exact=False),
                f"{format_size(free)} free there",
            ]
        ),
    )


def _source_line(directory: Path, lock: Lock) -> str:
    files = f"{counted(len(lock.files), 'file')}, {format_size(lock.size)}"
    return f"would build {directory} from {files}, revision {lock.revision}"


def _variants_lines(recipe: Recipe, expected: Expected, base: Inventory | None) -> list[str]:
    names = ", ".join(variant.name for variant in recipe.variants)
    about = "" if expected.is_exact else "about "
    lines = [f"variants {names}: {about}{format_size(expected.size)}"]
    if base is not None:
        later = "; so will GGUF files that the base has, which is seen once they are made"
        lines.append(
            f"{counted(len(expected.held), 'file')}, {format_size(expected.held_size)}, stay at "
            f"home{'' if expected.is_made else later}"
        )
    return lines


def _setup_lines(setup: ExpectedSetup, base: Inventory | None) -> list[str]:
    if base is None:
        return []
    if setup.set_up_with:
        line = (
            f"airpack itself, {format_size(setup.set_up_with.size)}, stays at home: the host was "
            f"set up with the same by {setup.set_up_with.bundle}"
        )
    elif setup.is_exact or not base.set_up_with:
        line = "airpack itself travels: by the base, the host was not set up with the same"
    else:
        line = (
            "airpack itself is counted; it stays at home if the host was set up with the same, "
            "which is seen once its wheels are fetched"
        )
    return [line]


def _needs(footprint: Footprint) -> dict[str, object]:
    """What its media need, as JSON has it; sizes in bytes."""
    return {
        "volumes": {
            "count": len(footprint.volumes) - footprint.parity,
            "parity": footprint.parity,
            "largest": max(footprint.volumes),
        },
        "small_size": footprint.small_size,
        "least_medium": footprint.least_medium,
        "media": [{"count": m.count, "capacity": m.capacity} for m in footprint.media()],
    }
