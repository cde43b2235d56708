"""Generations: the numbered, installed states of each model, one of them current.

A generation is prepared under a hidden name; which one is current is a symbolic link, replaced
by one rename. That rename is what publishes: a generation that has its number already, but waits
for the link, is marked by another link, ``.pending``, and counts as absent until it is current.
Each step is behind an fsync, so a reader sees the old state or the new one, whatever happens in
between. What is taken away gets a hidden name first, likewise.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import (
    AirpackError,
    HostError,
    IntegrityError,
    MalformedError,
    NoSpaceError,
    UsageError,
)
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
    swap_symlink,
)
from packager.store.home import Home

_STAGING = ".staging"
_REMOVED = ".removed-"
_CURRENT = "current"
_PENDING = ".pending"


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
        directory.mkdir(mode=0o755)  # whatever the umask: nobody else changes what is in it
    try:
        yield directory
    finally:
        # What is published is published, and an error is said already: leftovers are swept.
        with suppress(AirpackError):
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
    try:
        with naming_refusals(final):
            for directory, _, _ in os.walk(staged):
                fsync_directory(Path(directory))
            (final.parent / _PENDING).symlink_to(str(number))
            fsync_directory(final.parent)
            staged.rename(final)
            fsync_directory(final.parent)
        point_symlink(final.parent / _CURRENT, str(number))
    except BaseException:
        with suppress(AirpackError):  # the first error is what counts; the rest is swept
            _point_back(home, name, before)
            _settle(home, name)
        raise
    with suppress(AirpackError):  # the mark of what is current says nothing; it is swept
        _settle(home, name)
    return final


def _point_back(home: Home, name: str, before: int | None) -> None:
    """Make ``before`` current again, without an fsync: the device has just refused one."""
    link = home.models / name / _CURRENT
    if current_number(home, name) == before:
        return
    if before is not None:
        swap_symlink(link, str(before))
    else:
        with naming_refusals(link):
            link.unlink()


def _settle(home: Home, name: str) -> None:
    """Decide on a generation whose publishing did not end: it is there if it is current."""
    directory = home.models / name
    number = _pending_number(home, name)
    if number is None:
        return
    if number != current_number(home, name):
        _remove_tree(directory / str(number))
    with naming_refusals(directory):
        (directory / _PENDING).unlink()
        fsync_directory(directory)


def make_current(home: Home, name: str, number: int) -> None:
    """Point ``current`` to generation ``number``; an error leaves it as it was."""
    _settle(home, name)
    before = current_number(home, name)
    try:
        point_symlink(home.models / name / _CURRENT, str(number))
    except BaseException:
        with suppress(AirpackError):  # the first error is what counts
            _point_back(home, name, before)
        raise


@dataclass(frozen=True)
class Removal:
    """Generations of ``name`` that are out of sight already, at ``hidden``, and have to go."""

    name: str
    numbers: tuple[int, ...]
    hidden: Path


def remove(home: Home, name: str, number: int | None, record: Callable[[Removal], None]) -> Removal:
    """Take generation ``number`` of ``name`` away, or all: out of sight by one rename.

    Then ``record`` writes it down, and the files go. What ``record`` or the system refuses leaves
    everything as it was; only where there is no room for the record do the files make it first.
    """
    directory = home.models / name
    if number is None:
        visible, hidden = directory, home.models / f"{_REMOVED}{name}"
    else:
        visible, hidden = directory / str(number), directory / f"{_REMOVED}{number}"
    removal = Removal(name, numbers_of(home, name) if number is None else (number,), hidden)
    with naming_refusals(visible):
        visible.rename(hidden)
    try:
        with naming_refusals(visible):
            fsync_directory(visible.parent)
        record(removal)
    except NoSpaceError:
        _empty_tree(hidden)
        record(removal)
    except BaseException:
        with suppress(OSError):  # the first error is what counts
            hidden.rename(visible)
        raise
    with suppress(AirpackError):  # whoever looks finds it gone; the rest is swept
        _remove_tree(hidden)
    return removal


def find_removals(home: Home) -> tuple[Removal, ...]:
    """What was being taken away when its command was interrupted."""
    with naming_refusals(home.models):
        models = [
            Removal(path.name.removeprefix(_REMOVED), _numbers_in(path), path)
            for path in sorted(home.models.glob(f"{_REMOVED}*"))
        ]
        single = [
            Removal(path.parent.name, (int(path.name.removeprefix(_REMOVED)),), path)
            for path in sorted(home.models.glob(f"*/{_REMOVED}*"))
        ]
    return (*models, *single)


def finish_removals(home: Home, record: Callable[[Removal], None]) -> tuple[Removal, ...]:
    """Take away what interrupted commands were taking away; ``record`` writes each down.

    The caller holds the home's lock.
    """
    removals = find_removals(home)
    for removal in removals:
        _empty_tree(removal.hidden)
        record(removal)
        _remove_tree(removal.hidden)
    return removals


def sweep_leftovers(home: Home) -> None:
    """Remove what interrupted commands left, but for removals; the caller holds the home's lock."""
    with naming_refusals(home.models):
        for directory in home.models.glob("*"):
            _settle(home, directory.name)
        found = [*home.models.glob(f"*/{_STAGING}")]
        for place in ("", "trust/", "models/", "models/*/", "models/*/*/"):
            found += home.root.glob(f"{place}{TEMPORARY_PREFIX}*")
    for path in found:
        _remove_tree(path)
    for directory in (*home.partials.glob("*"), home.partials):
        with suppress(OSError):  # it stays where there is something to go on with
            directory.rmdir()


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
    return _number_at(home.models / name / _CURRENT)


def _pending_number(home: Home, name: str) -> int | None:
    """The number that waits to become current, if one does."""
    return _number_at(home.models / name / _PENDING)


def _number_at(link: Path) -> int | None:
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
    pending = _pending_number(home, name)
    absent = None if pending == current_number(home, name) else pending
    return [number for number in _numbers_in(directory) if number != absent]


def _numbers_in(directory: Path) -> tuple[int, ...]:
    return tuple(sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal()))


def _empty_tree(path: Path) -> None:
    """Remove every file below ``path``, and leave the directories, which say what was here."""
    with naming_refusals(path):
        for directory, _, names in os.walk(path):
            for name in names:
                (Path(directory) / name).unlink()


def _remove_tree(path: Path) -> None:
    with naming_refusals(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
