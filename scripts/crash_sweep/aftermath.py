"""What must hold of a home, whatever happened to the command that was changing it."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from packager.errors import AirpackError
from packager.isolated.lifecycle import smoke, verify_history
from packager.isolated.scrub import scrub
from packager.isolated.trust_store import read_keyring
from packager.progress import Silent
from packager.store.generations import (
    current_number,
    installed_names,
    numbers_of,
    read_generation,
)
from packager.store.home import Home

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
# What differs from one run of a command to the next: times, process ids, and what hangs on them.
_TIMED = ("lock", "log.jsonl", "log.jsonl.head", "receipt.json", "receipt.json.sig")


@dataclass(frozen=True)
class Visible:
    """What a person sees: of each model its generations and the current one; whom it trusts."""

    models: tuple[tuple[str, tuple[int, ...], int | None], ...]
    trust: str

    def __str__(self) -> str:
        models = [f"{name} {numbers} current {current}" for name, numbers, current in self.models]
        return "; ".join([*models, f"trust {self.trust}"])


def read_visible(root: Path) -> Visible:
    """What the home at ``root`` shows."""
    home = Home(root)
    models = tuple(
        (name, numbers_of(home, name), current_number(home, name)) for name in installed_names(home)
    )
    ring = read_keyring(home)
    keys = ",".join(sorted(key.key.key_id for key in ring.keys))
    return Visible(models, f"{keys} threshold {ring.threshold}")


def find_faults(root: Path) -> frozenset[str]:
    """What is wrong with the home, if there is one: its log, its list, its bytes."""
    if not root.is_dir():
        return frozenset()
    home = Home(root)
    found = [*_find_log_faults(home), *_find_list_faults(home), *_find_damage(home)]
    return frozenset(fault.replace(str(root), "") for fault in found)


def _find_log_faults(home: Home) -> Iterator[str]:
    try:
        verify_history(home)
    except AirpackError as error:
        yield f"log: {error.message}"


def _find_list_faults(home: Home) -> Iterator[str]:
    for name in installed_names(home):
        if current_number(home, name) not in numbers_of(home, name):
            yield f"list: {name}: no generation is current"


def _find_damage(home: Home) -> Iterator[str]:
    """Every installed file and every evidence that is not as it should be."""
    found = scrub(home, None, None, Silent(), now=NOW, operator="sweep")
    yield from (f"scrub: {damage.file.path}: {damage.fact}" for damage in found.damage)
    yield from (f"scrub: {fact}" for fact in found.unreadable)


def find_smoke_faults(root: Path) -> Iterator[str]:
    """What is wrong with the answers of the current generation of every model."""
    home = Home(root)
    for name in installed_names(home):
        number = current_number(home, name)
        assert number is not None
        for variant in read_generation(home, name, number).receipt.variants:
            if not smoke(home, name, variant, Silent()).ok:
                yield f"smoke: {name} {variant} does not answer as it did at the build"


def read_tree(root: Path) -> dict[str, str]:
    """Every path below ``root``, with its mode, number of names, and what it holds."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        entry = stat.filemode(status.st_mode)
        if path.is_symlink():
            entry += f" -> {path.readlink()}"
        elif path.is_file():
            entry += f" {status.st_nlink}"
            if path.name not in _TIMED:
                entry += f" {hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[path.relative_to(root).as_posix()] = entry
    return found


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """The paths that one tree has and the other has not, or has otherwise."""
    return [
        *(f"left over: {path} {found[path]}" for path in sorted(found.keys() - wanted.keys())),
        *(f"missing: {path} {wanted[path]}" for path in sorted(wanted.keys() - found.keys())),
        *(
            f"differs: {path}: {found[path]}, not {wanted[path]}"
            for path in sorted(found.keys() & wanted.keys())
            if found[path] != wanted[path]
        ),
    ]


def find_partials(root: Path) -> list[str]:
    """What the command that has succeeded should have left nothing of."""
    marks = ("partial", ".staging", ".removed-")
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return [f"left behind: {path}" for path in paths if any(mark in path for mark in marks)]
