"""Passphrases: from a file, a descriptor or the terminal, and never an argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from packager.cli.screen import Screen
from packager.connected.signing.keys import SigningKey, is_encrypted, open_key, read_passphrase
from packager.errors import UsageError


def _take_descriptor(ctx: click.Context, _param: click.Parameter, number: int | None) -> None:
    if number is None:
        return
    if ctx.params.get("passphrase_file"):
        raise UsageError("--passphrase-file and --passphrase-fd exclude each other")
    ctx.params["passphrase_file"] = Path(f"/dev/fd/{number}")


_file_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="F",
    is_eager=True,  # so that the next option finds it
    help="A file with the passphrase on its first line.",
)
_descriptor_option = click.option(
    "--passphrase-fd",
    type=click.IntRange(0),
    metavar="N",
    expose_value=False,
    callback=_take_descriptor,
    help="An open descriptor with the passphrase on its next line; a line for each key.",
)


def passphrase_option(command: Callable[..., None]) -> Callable[..., None]:
    """Let ``command`` take a passphrase's place, as ``passphrase_file``."""
    return _file_option(_descriptor_option(command))


def unlock(screen: Screen, path: Path, passphrase_file: Path | None) -> SigningKey:
    """Open a private key, with the passphrase from its file or from the terminal."""
    if not is_encrypted(path):
        return open_key(path, None)
    if passphrase_file:
        return open_key(path, read_passphrase(passphrase_file))
    passphrase = screen.ask_secret(f"Passphrase of {path}", hint="--passphrase-file F")
    return open_key(path, passphrase)
