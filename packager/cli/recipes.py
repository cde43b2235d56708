"""``airpack init`` and ``airpack lock``: what will be built, said by a person, then pinned."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import file_argument
from packager.cli.screen import Screen
from packager.cli.text import counted
from packager.connected.init import init_recipe
from packager.connected.lock import lock_path, lock_recipe
from packager.errors import UsageError
from packager.format.sizes import format_size
from packager.store.atomic import write_file

recipe_argument = click.argument("recipe", type=file_argument)


@click.command(cls=Command)
@click.argument("source")
@click.option(
    "-o",
    "output",
    type=file_argument,
    metavar="RECIPE",
    help="Where to write it; ./<name>.yaml if not given.",
)
@click.pass_obj
def init(screen: Screen, source: str, output: Path | None) -> None:
    """Write a first recipe.

    SOURCE is a hub repository (owner/name) or a local directory.
    """
    path = output or _recipe_path(source)
    if path.exists():
        raise UsageError(f"{path}: exists; a recipe is never overwritten", hint="-o OTHER.yaml")
    text = init_recipe(source, screen, recipe_folder=path.parent)
    write_file(path, text.encode("utf-8"))
    screen.result(
        {"ok": True, "recipe": str(path)},
        f"wrote {path}; read it, then: airpack lock {path}; "
        f"airpack build {path} --locked -o DIR --key KEY",
    )


@click.command(cls=Command)
@recipe_argument
@click.pass_obj
def lock(screen: Screen, recipe: Path) -> None:
    """Pin the commit and every file that RECIPE asks for, by size and digest.

    Writes the recipe's name with the suffix .lock.json.
    """
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
        f"locked: {counted(len(locked.files), 'file')}, {format_size(locked.size)}, "
        f"revision {locked.revision}, licence {locked.licence or 'not stated'}; wrote {path}",
    )


def _recipe_path(source: str) -> Path:
    """The recipe in this directory that is named after ``source``."""
    folder = Path(source)
    name = folder.resolve().name if folder.is_dir() else folder.name
    if not name:
        raise UsageError(f"{source}: gives the recipe no name", hint="-o RECIPE.yaml")
    return Path(f"{name.lower()}.yaml")
