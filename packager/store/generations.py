"""Generations: the numbered, installed states of each model, one of them current.

A generation is prepared under a hidden name and appears by one rename; which one is current is
a symbolic link, replaced by one rename. Both are behind an fsync, so a reader sees the old
state or the new one, whatever happens in between.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import HostError, IntegrityError, MalformedError, UsageError
from packager.format.bundle import INDEX_NAME, MAX_INDEX_SIZE, Bundle, parse_bundle
from packager.format.receipt import MAX_RECEIPT_SIZE, RECEIPT_NAME, Receipt, parse_receipt
from packager.format.relpath import is_bare_name
from packager.store.atomic import (
    TEMPORARY_PREFIX,
    fsync_directory,
    make_directory,
    naming_refusals,
    point_symlink,
    read_capped,
)
from packager.store.home import Home

_STAGING = ".staging"
_REMOVED = ".removed-"
_CURRENT = "current"


@dataclass(frozen=True)
class Generation:
    """One installed state of one model."""

    name: str
    number: int
    path: Path
    current: bool
    bundle: Bundle
    receipt: Receipt

    @property
    def size(self) -> int:
        """The bytes of the installed variants, counted as if nothing were shared."""
        installed = [v for v in self.bundle.variants if v.name in self.receipt.variants]
        return sum(f.size for v in installed for f in self.bundle.variant_files(v))


@contextmanager
def staging(home: Home, name: str) -> Iterator[Path]:
    """An empty hidden directory on the store's filesystem, gone again unless it was published."""
    directory = home.models / name / _STAGING
    make_directory(directory.parent)
    with naming_refusals(directory):
        _remove_tree(directory)
        directory.mkdir()
    try:
        yield directory
    finally:
        _remove_tree(directory)
        with suppress(OSError):  # it stays where the model has a generation
            directory.parent.rmdir()


def next_number(home: Home, name: str) -> int:
    """The number that the next generation of ``name`` gets."""
    return max(_numbers(home, name), default=0) + 1


def publish(home: Home, name: str, number: int, staged: Path) -> Path:
    """Make the staged directory generation ``number`` and make it the current one.

    Raises ``NoSpaceError`` or ``HostError``; then the generation is gone, and another is current.
    """
    final = home.models / name / str(number)
    before = current_number(home, name)
    with naming_refusals(final):
        for directory, _, _ in os.walk(staged):
            fsync_directory(Path(directory))
        staged.rename(final)
        try:
            fsync_directory(final.parent)
            point_symlink(final.parent / _CURRENT, str(number))
        except BaseException:
            _unpublish(final, before)
            raise
    return final


def _unpublish(final: Path, before: int | None) -> None:
    """Take a generation back that was not made current for certain."""
    link = final.parent / _CURRENT
    if link.is_symlink() and link.readlink().name == final.name:
        # Without an fsync: the device has just refused one.
        link.unlink()
        if before is not None:
            link.symlink_to(str(before))
    _remove_tree(final)


def make_current(home: Home, name: str, number: int) -> None:
    """Point ``current`` to generation ``number``."""
    point_symlink(home.models / name / _CURRENT, str(number))


def remove_generation(home: Home, name: str, number: int) -> None:
    """Take a generation away: out of sight by one rename, then its files."""
    directory = home.models / name
    hidden = directory / f"{_REMOVED}{number}"
    with naming_refusals(directory):
        (directory / str(number)).rename(hidden)
        fsync_directory(directory)
    _remove_tree(hidden)


def remove_model(home: Home, name: str) -> None:
    """Take every generation of ``name`` away: ``current`` first, then the whole directory."""
    directory = home.models / name
    hidden = home.models / f"{_REMOVED}{name}"
    with naming_refusals(directory):
        _remove_tree(hidden)
        directory.rename(hidden)
        fsync_directory(home.models)
    _remove_tree(hidden)


def sweep_leftovers(home: Home) -> None:
    """Remove what interrupted commands left; the caller holds the home's lock."""
    for pattern in (f"*/{_STAGING}", f"*/{_REMOVED}*", f"{_REMOVED}*", f"*/{TEMPORARY_PREFIX}*"):
        for path in home.models.glob(pattern):
            _remove_tree(path)
    for path in home.trust.glob(f"{TEMPORARY_PREFIX}*"):
        _remove_tree(path)


def installed_names(home: Home) -> tuple[str, ...]:
    """The names of the models that have a generation, sorted."""
    if not home.models.is_dir():
        return ()
    names = (path.name for path in home.models.iterdir() if is_bare_name(path.name))
    return tuple(sorted(name for name in names if _numbers(home, name)))


def generations(home: Home, name: str) -> tuple[Generation, ...]:
    """Every generation of ``name``, oldest first.

    Raises ``UsageError`` if there is none, ``IntegrityError`` where one's evidence is damaged.
    """
    return tuple(read_generation(home, name, number) for number in numbers_of(home, name))


def numbers_of(home: Home, name: str) -> tuple[int, ...]:
    """The numbers of every generation of ``name``, ascending; ``UsageError`` if there is none."""
    numbers = _numbers(home, name) if is_bare_name(name) else []
    if not numbers:
        names = ", ".join(installed_names(home)) or "nothing"
        raise UsageError(f"{name!r} is not installed; installed: {names}", hint="airpack list")
    return tuple(numbers)


def current_number(home: Home, name: str) -> int | None:
    """The number of the current generation of ``name``, if one is."""
    link = home.models / name / _CURRENT
    target = link.readlink().name if link.is_symlink() else ""
    return int(target) if target.isdecimal() else None


def find_generation(home: Home, name: str, number: int | None = None) -> Generation:
    """Generation ``number`` of ``name``, or the current one; no other is looked at.

    Raises ``UsageError`` or ``HostError`` where it is not there, ``IntegrityError`` where its
    evidence is damaged.
    """
    numbers = check_number(home, name, number)
    wanted = current_number(home, name) if number is None else number
    if wanted not in numbers:
        raise HostError(f"{name}: no generation is current", hint=f"airpack rollback {name}")
    return read_generation(home, name, wanted)


def check_number(home: Home, name: str, number: int | None) -> tuple[int, ...]:
    """The numbers of ``name``, of which ``number`` is one, or ``None``; else ``UsageError``."""
    numbers = numbers_of(home, name)
    if number not in (None, *numbers):
        known = ", ".join(str(n) for n in numbers)
        raise UsageError(f"{name} has no generation {number}; it has {known}", hint="airpack list")
    return numbers


def generation_directory(home: Home, name: str, number: int) -> Path:
    """Where generation ``number`` of ``name`` lies."""
    return home.models / name / str(number)


def read_generation(home: Home, name: str, number: int) -> Generation:
    """Read what generation ``number``, which is there, says of itself.

    Raises ``IntegrityError`` where that is damaged.
    """
    path = generation_directory(home, name, number)
    try:
        bundle = parse_bundle(read_capped(path / INDEX_NAME, MAX_INDEX_SIZE))
        receipt = parse_receipt(read_capped(path / RECEIPT_NAME, MAX_RECEIPT_SIZE))
    except (MalformedError, HostError) as error:
        raise IntegrityError(
            f"{path}: its evidence is damaged: {error.message}",
            hint=f"airpack scrub {name} --repair BUNDLE; or airpack uninstall {name} "
            f"--generation {number}",
        ) from None
    return Generation(name, number, path, current_number(home, name) == number, bundle, receipt)


def _numbers(home: Home, name: str) -> list[int]:
    directory = home.models / name
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def _remove_tree(path: Path) -> None:
    with naming_refusals(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
