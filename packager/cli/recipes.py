"""``airpack init`` and ``airpack lock``: what will be built, said by a person, then pinned."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import file_argument
from packager.cli.screen import Screen
from packager.connected.init import init_recipe
from packager.connected.lock import lock_path, lock_recipe
from packager.errors import UsageError
from packager.format.sizes import format_size
from packager.store.atomic import write_file

recipe_argument = click.argument("recipe", type=file_argument)


@click.command(cls=Command)
@click.argument("source")
@click.option("-o", "output", type=file_argument, metavar="RECIPE", help="Where to write it.")
@click.pass_obj
def init(screen: Screen, source: str, output: Path | None) -> None:
    """Write a first recipe for SOURCE, a hub repository (owner/name) or a local directory."""
    path = output or Path(f"{Path(source).name.lower()}.yaml")
    if path.exists():
        raise UsageError(f"{path}: exists; a recipe is never overwritten", hint="-o OTHER.yaml")
    text = init_recipe(source, screen, recipe_folder=path.parent)
    write_file(path, text.encode("utf-8"))
    screen.result(
        {"ok": True, "recipe": str(path)},
        f"wrote {path}; read it, then: airpack build {path} -o DIR --key KEY",
    )


@click.command(cls=Command)
@recipe_argument
@click.pass_obj
def lock(screen: Screen, recipe: Path) -> None:
    """Pin the commit, and the size and digest of every file, that RECIPE asks for."""
    locked = lock_recipe(recipe, screen)
    path = lock_path(recipe)
    screen.result(
        {
            "ok": True,
            "lock": str(path),
            "revision": locked.revision,
            "licence": locked.licence,
            "files": len(locked.files),
            "size": locked.size,
        },
        f"locked: {len(locked.files)} files, {format_size(locked.size)}, "
        f"revision {locked.revision}, licence {locked.licence or 'not stated'}; wrote {path}",
    )
