"""Media that a person changes while a command waits: the next stick, and where it is."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from packager.cli.hosts import keyring_for, now
from packager.cli.screen import Screen
from packager.cli.text import counted, one_line
from packager.errors import AirpackError
from packager.format.bundle import Bundle
from packager.isolated.media import Media, open_media
from packager.isolated.verify import authenticate
from packager.trust.keyring import Keyring

_GO_ON = "-"
_NAMES_SHOWN = 8


def open_all_media(
    screen: Screen, paths: Iterable[Path], keys: Iterable[Path], *, whole: bool = False
) -> tuple[Media, Keyring]:
    """The media at ``paths`` and the keys to judge them by.

    While volumes are missing that parity cannot make good (any volume, if ``whole``) and a person
    is there, waits for the medium that has them. Nothing here is more than a question: what the
    media hold is judged by whoever gets them.
    """
    media = open_media(paths)
    ring = keyring_for(media, keys)
    if not screen.may_ask:
        return media, ring
    try:
        bundle = authenticate(media, ring, now=now()).bundle
    except AirpackError:  # the command itself meets it, and says so
        return media, ring
    while missing := _missing(bundle, media, whole=whole):
        answer = ask_for_medium(
            f"{bundle.title}: missing {listed(missing)}",
            f"Enter once the next medium is mounted, its directory, or {_GO_ON} to go on without",
        )
        if answer == _GO_ON:
            break
        try:
            media = _with_medium(media, answer, ring)
        except AirpackError as error:
            screen.warn(one_line(error.message))
    return media, ring


def _missing(bundle: Bundle, media: Media, *, whole: bool) -> list[str]:
    absent = [v.name for v in bundle.volume_files if media.find(v.name) is None]
    return absent if whole or len(absent) > len(bundle.parity) else []


def _with_medium(media: Media, answer: str, ring: Keyring) -> Media:
    """``media`` and the one at ``answer``, if it is of the same bundle; read anew, if empty."""
    more = [Path(answer).expanduser()] if answer else []
    wider = open_media([*media.directories, *more])
    authenticate(wider, ring, now=now())
    return wider


def ask_for_medium(fact: str, question: str) -> str:
    """Say ``fact``, ask on the terminal, and return what a person typed, less its spaces.

    Raises ``click.Abort`` where the terminal has ended.
    """
    click.echo(f"{one_line(fact)}\n{question}: ", err=True, nl=False)
    line = sys.stdin.readline()
    if not line:
        raise click.Abort
    return line.strip()


def listed(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    every = [*names]
    more = len(every) - _NAMES_SHOWN
    shown = ", ".join(every[:_NAMES_SHOWN])
    return f"{shown} and {counted(more, 'other')}" if more > 0 else shown
