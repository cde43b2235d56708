"""Media that a person changes while a command waits: the next stick, and where it is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from packager.cli.hosts import keyring_for, reckoned
from packager.cli.screen import Screen
from packager.cli.text import listed, one_line
from packager.errors import AirpackError, UsageError
from packager.format.bundle import Bundle
from packager.isolated.media import Media, open_media, read_run_key
from packager.isolated.patch import split_patches
from packager.isolated.verify import authenticate
from packager.store.atomic import naming_refusals
from packager.trust.keyring import Keyring

_GO_ON = "-"


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
    return (_awaited(screen, media, ring, whole=whole) if screen.may_ask else media), ring


@contextmanager
def opened_media(
    screen: Screen, places: Sequence[Path | str], keys: Sequence[Path]
) -> Iterator[tuple[Media, tuple[Path, ...], Keyring]]:
    """As :func:`open_media_and_patches`, or the one bundle behind an HTTP address."""
    paths = [place for place in places if isinstance(place, Path)]
    if len(paths) == len(places):
        yield open_media_and_patches(screen, paths, keys)
        return
    if len(places) > 1:
        raise UsageError("an address stands alone: it has all of the bundle, or none of it")
    from packager.isolated.http_source import open_bundle_at  # loads an HTTP client

    ring = keyring_for(Media(()), keys)
    with open_bundle_at(str(places[0]), ring, screen, now=reckoned()) as media:
        yield media, (), ring


def open_media_and_patches(
    screen: Screen, paths: Sequence[Path], keys: Sequence[Path]
) -> tuple[Media, tuple[Path, ...], Keyring]:
    """As :func:`open_all_media`, with the patches that are among ``paths``, apart.

    Who brings a patch is asked for no further medium: it may hold what is missing.
    """
    places, patches = split_patches(paths)
    if not places:
        raise UsageError(
            f"{paths[0]}: a patch; name the bundle that it is for, too",
            hint=f"airpack repair BUNDLE {shlex.quote(str(paths[0]))} --in-place",
        )
    for key in keys:
        read_run_key(key, Media(tuple(patches)))  # refuses one that came with the patch
    if patches:
        screen = replace(screen, no_input=True)
    media, ring = open_all_media(screen, places, keys)
    return media, tuple(patches), ring


def _awaited(screen: Screen, media: Media, ring: Keyring, *, whole: bool) -> Media:
    """``media``, and those that a person brings while volumes are missing."""
    try:
        bundle = authenticate(media, ring, now=reckoned()).bundle
    except AirpackError:  # the command itself meets it, and says so
        return media
    while missing := _missing(bundle, media, whole=whole):
        answer = screen.ask(
            f"{bundle.title}: missing {listed(missing)}",
            "Enter once the next medium is mounted beside these, its directory, or "
            f"{_GO_ON} to go on without",
        )
        if answer == _GO_ON:
            break
        try:
            media = _with_medium(media, answer, ring)
        except AirpackError as error:
            screen.warn(one_line(error.message))
        else:
            if _missing(bundle, media, whole=whole) == missing:
                screen.warn("nothing that was missing is there")
    return media


def _missing(bundle: Bundle, media: Media, *, whole: bool) -> list[str]:
    absent = [v.name for v in bundle.volume_files if media.find(v.name) is None]
    return absent if whole or len(absent) > len(bundle.parity) else []


def _with_medium(media: Media, answer: str, ring: Keyring) -> Media:
    """``media`` and the one at ``answer``, if it is of the same bundle; read anew, if empty."""
    more = [Path(answer).expanduser()] if answer else []
    wider = open_media([*media.directories, *more])
    authenticate(wider, ring, now=reckoned())
    return wider


def check_beside(file: Path, media: Media) -> None:
    """Refuse a place for a file about ``media`` that cannot be, before the hour that reading takes.

    Raises ``UsageError``.
    """
    with naming_refusals(file):
        parent = file.absolute().parent
        if not parent.is_dir():
            raise UsageError(f"{file}: there is no directory {parent}")
        if parent.resolve() in {directory.resolve() for directory in media.directories}:
            raise UsageError(
                f"{file}: in the bundle itself, where it would be a stranger",
                hint=f"name a place elsewhere, as ~/{file.name}",
            )
