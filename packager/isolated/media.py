"""The media a bundle came on: directories, in any order, that nobody vouches for yet.

Everything read here is bounded and comes from regular files only. What it says is believed
only behind :func:`packager.trust.verify.verify_bundle`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import (
    AirpackError,
    IntegrityError,
    MissingVolumeError,
    TrustError,
    UsageError,
)
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE
from packager.format.digest import Digest
from packager.format.patch import PATCH_NAME
from packager.format.sums import (
    MAX_SUMS_SIZE,
    SPARE_PREFIX,
    SUMS_NAME,
    signature_key_id,
    signature_name,
    spare_name,
)
from packager.store.atomic import naming_refusals, read_capped
from packager.trust.keys import MAX_KEY_FILE_SIZE, MAX_SIGNATURE_SIZE, PublicKey, parse_public_key
from packager.trust.verify import Evidence

MAX_NAMES = 4096  # on one medium: volumes, wheels, signatures and the rest
MAX_SIGNATURES = 64

# What systems leave on any stick, in lower case; never part of a bundle, never read. Not
# autorun.inf: that one comes from a person or from malware, and is worth a question.
_DROPPINGS = frozenset(
    {
        "system volume information", "$recycle.bin", "recycler", "found.000", "lost+found",
        "thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Media:
    """The directories that together hold one bundle."""

    directories: tuple[Path, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The directories as absolute paths, fit for a document whatever bytes they hold."""
        paths = (str(directory.absolute()) for directory in self.directories)
        return tuple(path.encode("utf-8", "backslashreplace").decode("utf-8") for path in paths)

    def find(self, name: str) -> Path | None:
        """Where the file ``name`` lies, on the first medium that has it."""
        return next(iter(self.copies(name)), None)

    def copies(self, name: str) -> tuple[Path, ...]:
        """Where the file ``name`` lies, on every medium that has it."""
        paths = (directory / name for directory in self.directories)
        return tuple(path for path in paths if os.path.lexists(path))

    def require(self, name: str) -> Path:
        """Where the file ``name`` lies; raises ``MissingVolumeError`` if on no medium."""
        path = self.find(name)
        if path is None:
            places = ", ".join(str(directory) for directory in self.directories)
            raise MissingVolumeError(f"{name} is on none of the media: {places}")
        return path

    def names(self) -> Iterator[tuple[Path, str]]:
        """Every directory and name on the media, but hidden files and systems' droppings."""
        for directory in self.directories:
            for name in _list_names(directory):
                yield directory, name


def open_media(paths: Iterable[Path]) -> Media:
    """The media at ``paths``: bundle directories, or directories holding just one.

    A directory named twice counts once. Raises ``UsageError`` where there is no bundle.
    """
    found = {directory.resolve(): directory for directory in map(_bundle_directory, paths)}
    return Media(tuple(found.values()))


def _bundle_directory(path: Path) -> Path:
    with naming_refusals(path):
        if not path.is_dir():
            raise UsageError(f"{path}: no such directory")
        if _holds_sums(path):
            return path
        children = (child for child in sorted(path.iterdir()) if not child.name.startswith("."))
        inside = [c for c in children if _holds_sums(c) and not (c / PATCH_NAME).is_file()]
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(sorted(child.name for child in inside))
        raise UsageError(f"{path}: holds several bundles ({names}); name one of them")
    raise UsageError(f"{path}: not a bundle; there is no {SUMS_NAME} in it")


def _holds_sums(directory: Path) -> bool:
    return any((directory / name).exists() for name in (SUMS_NAME, spare_name(SUMS_NAME)))


def _list_names(directory: Path) -> list[str]:
    with naming_refusals(directory), os.scandir(directory) as entries:
        names = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _DROPPINGS:
                continue
            names.append(entry.name)
            if len(names) > MAX_NAMES:
                raise IntegrityError(f"{directory}: holds more than {MAX_NAMES} files")
    return sorted(names)


def read_evidence(media: Media) -> tuple[Evidence, ...]:
    """What the decision to trust is made from, as read from the media: at least one reading.

    The sums, their signatures and the index each have a spare copy, and one of two may be bad:
    every combination that differs is given, the files under their own names first. Raises
    ``MissingVolumeError``, ``IntegrityError`` or ``HostError`` where there is none.
    """
    names = {directory: frozenset(_list_names(directory)) for directory in media.directories}
    indices = _readings(media, INDEX_NAME, MAX_INDEX_SIZE)
    readings: list[Evidence] = []
    for sums in _readings(media, SUMS_NAME, MAX_SUMS_SIZE):
        listed = [index for index in indices if Digest.of(index).hex.encode("ascii") in sums]
        index = (listed or indices)[0]
        signatures = (_read_signatures(names, spare=spare) for spare in (False, True))
        readings += [Evidence(sums, found, index) for found in signatures]
    return tuple(readings)


def _readings(media: Media, name: str, max_size: int) -> tuple[bytes, ...]:
    """The contents, each once, of all copies and spare copies of ``name`` that can be read."""
    paths = (*media.copies(name), *media.copies(spare_name(name)))
    if not paths:
        media.require(name)
    found: list[bytes] = []
    errors: list[AirpackError] = []
    for path in paths:
        try:
            found.append(read_capped(path, max_size))
        except AirpackError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return tuple(dict.fromkeys(found))


def _read_signatures(names: Mapping[Path, frozenset[str]], *, spare: bool) -> dict[str, bytes]:
    """The signatures by key id; of each the spare copy, if ``spare`` and there is one."""
    signatures: dict[str, bytes] = {}
    for directory, present in names.items():
        for name in sorted(present):
            key_id = signature_key_id(name.removeprefix(SPARE_PREFIX))
            if key_id is None or key_id in signatures:
                continue
            if len(signatures) == MAX_SIGNATURES:
                raise IntegrityError(f"{directory}: more than {MAX_SIGNATURES} signatures")
            copies = sorted(present & {signature_name(key_id), spare_name(signature_name(key_id))})
            with suppress(IntegrityError):  # then the other copy has to do
                path = directory / copies[-1 if spare else 0]
                signatures[key_id] = read_capped(path, MAX_SIGNATURE_SIZE + 1)
    return signatures


def read_run_key(path: Path, media: Media) -> PublicKey:
    """Read the public key a person named for this run.

    Raises ``TrustError`` for one that came on the medium itself: it would vouch for itself.
    """
    with naming_refusals(path):
        real = path.resolve()
        inside = [d for d in media.directories if real.is_relative_to(d.resolve())]
    if inside:
        raise TrustError(
            f"{path}: this key came on the medium that it should vouch for",
            hint="get the key another way, or compare its fingerprint with the sender by voice",
        )
    return parse_public_key(read_capped(real, MAX_KEY_FILE_SIZE), str(path))


def check_not_beside_sums(path: Path) -> None:
    """Raise ``TrustError`` for a key file that lies in a bundle's directory, or below one."""
    with naming_refusals(path):
        for directory in path.resolve().parents:
            if _holds_sums(directory):
                raise TrustError(
                    f"{path}: this key came with the bundle that it should vouch for",
                    hint="get the key another way than on the medium",
                )


def regular_size(path: Path) -> int | None:
    """The size in bytes of a regular file, or ``None`` for any other kind of thing."""
    with naming_refusals(path):
        status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None
