"""``airpack scrub``: every installed byte, read again."""

from __future__ import annotations

from pathlib import Path

import click

from packager.cli.command import Command
from packager.cli.hosts import directory_argument, home, now, operator, pub_option, reckoned
from packager.cli.media import open_all_media
from packager.cli.screen import Screen
from packager.cli.text import counted
from packager.errors import IntegrityError
from packager.format.sizes import format_size
from packager.isolated.scrub import Damage, InstalledFile, Scrubbed, Source
from packager.isolated.scrub import scrub as scrub_home
from packager.isolated.verify import authenticate


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option(
    "--repair",
    "media",
    multiple=True,
    type=directory_argument,
    metavar="BUNDLE",
    help="A medium to mend from; once for each, where the bundle is on several.",
)
@pub_option
@click.pass_obj
def scrub(
    screen: Screen, name: str | None, media: tuple[Path, ...], keys: tuple[Path, ...]
) -> None:
    """Read every byte of the model NAME again, or of all models.

    What the disk no longer gives as it was installed is named, and mended from BUNDLE if that
    has it: the same bundle, or any that carries the same files. Exit code 10 if damage is left.
    """
    source = None
    if media:
        opened, ring = open_all_media(screen, media, keys)
        source = Source(authenticate(opened, ring, now=reckoned()), opened)
    done = scrub_home(home(), name, source, screen, now=now(), operator=operator())
    text = _text(done)
    if done.ok:
        screen.result(_document(done), text)
        return
    where = f"airpack scrub {name} --repair" if name else "airpack scrub --repair"
    count = len(done.damage) + len(done.unreadable)
    error = IntegrityError(
        f"{counted(count, 'installed file')} damaged",
        hint=f"{where} BUNDLE mends them from a medium; then have the disk looked at",
    )
    screen.failure(_document(done), text, error)


def _text(done: Scrubbed) -> str:
    lines = [f"mended: {_title(file)}" for file in done.mended]
    lines += [f"damaged: {_title(damage.file)}: {damage.fact}" for damage in done.damage]
    lines += [f"damaged: {fact}" for fact in done.unreadable]
    read = f"{counted(done.files, 'file')}, {format_size(done.size)} read"
    return "\n".join([*lines, f"{'ok' if done.ok else 'DAMAGED'}: {read}"])


def _title(file: InstalledFile) -> str:
    return f"{file.name} generation {file.generation}, {file.variant}: {file.path}"


def _document(done: Scrubbed) -> dict[str, object]:
    return {
        "ok": done.ok,
        "files": done.files,
        "size": done.size,
        "damaged": [_damage_document(damage) for damage in done.damage],
        "mended": [_file_document(file) for file in done.mended],
        "unreadable": list(done.unreadable),
    }


def _damage_document(damage: Damage) -> dict[str, object]:
    return {**_file_document(damage.file), "fact": damage.fact}


def _file_document(file: InstalledFile) -> dict[str, object]:
    return {
        "name": file.name,
        "generation": file.generation,
        "variant": file.variant,
        "path": str(file.path),
    }
