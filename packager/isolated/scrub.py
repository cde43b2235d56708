"""Reading every installed byte again, and mending from a medium what the disk has forgotten.

The bytes are read around the page cache where the filesystem can, since what memory holds
proves nothing of a disk. A file of a generation and its blob in the store are one file with two
names; a file that is not is judged by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from packager.errors import AirpackError, IntegrityError
from packager.format.canonical import Json
from packager.format.digest import Digest
from packager.isolated.evidence import read_origin, read_signed_generation, write_evidence
from packager.isolated.media import Media
from packager.isolated.stage import stage_files
from packager.isolated.uncached import open_uncached
from packager.progress import Progress, Task
from packager.store.blobs import relink_blob
from packager.store.digests import on_every_core
from packager.store.direct import aligned_buffer
from packager.store.generations import (
    Generation,
    generation_directory,
    installed_names,
    numbers_of,
    sweep_leftovers,
)
from packager.store.home import Home
from packager.store.journal import append_event
from packager.trust.verify import VerifiedBundle

_BUFFER_SIZE = 1 << 20
_MAX_LOGGED = 100  # paths; a line of the log is bounded


@dataclass(frozen=True)
class InstalledFile:
    """A model file as a generation has it, and what the signed index says of it."""

    name: str
    generation: int
    variant: str
    path: Path
    size: int
    digest: Digest


@dataclass(frozen=True)
class Damage:
    """What is wrong with ``file``, in a few words."""

    file: InstalledFile
    fact: str


@dataclass(frozen=True)
class Scrubbed:
    """What was read, in files and bytes, and what of it is not as it was installed.

    ``unreadable`` are generations whose own evidence is damaged: their files are not known.
    """

    files: int
    size: int
    damage: tuple[Damage, ...]
    unreadable: tuple[str, ...] = ()
    mended: tuple[InstalledFile, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was installed, or is so again."""
        return not self.damage and not self.unreadable


@dataclass(frozen=True)
class Source:
    """A bundle that was verified, and the media that it lies on."""

    verified: VerifiedBundle
    media: Media


def scrub(
    home: Home,
    name: str | None,
    source: Source | None,
    progress: Progress,
    *,
    now: datetime,
    operator: str,
) -> Scrubbed:
    """Read every byte of the model ``name``, or of all; mend what is damaged from ``source``.

    Raises ``UsageError`` for a model that is not installed, and what :func:`stage_files` raises
    where the medium cannot give what it should. The log has the outcome.
    """
    with home.changing():
        names = [name] if name is not None else installed_names(home)
        if source is not None:
            sweep_leftovers(home)
            _mend_evidence(home, names, source.verified)
        installed, unreadable = _installed(home, names)
        found = _read_all(installed, unreadable, progress)
        if source is not None and found.damage:
            found = _mend(home, found, source, progress)
        append_event(home.log, "scrub", _event(name, found, operator), now=now)
    return found


def _event(name: str | None, found: Scrubbed, operator: str) -> dict[str, Json]:
    damaged = [str(damage.file.path) for damage in found.damage]
    return {
        "name": name,
        "files": found.files,
        "size": found.size,
        "damaged": [*damaged[:_MAX_LOGGED], *found.unreadable[:_MAX_LOGGED]],
        "mended": [str(file.path) for file in found.mended[:_MAX_LOGGED]],
        "operator": operator,
    }


def _installed(home: Home, names: Iterable[str]) -> tuple[list[InstalledFile], tuple[str, ...]]:
    files: list[InstalledFile] = []
    unreadable = []
    for name in names:
        for number in numbers_of(home, name):
            try:
                files += _files_of(read_signed_generation(home, name, number))
            except IntegrityError as error:
                unreadable.append(error.message)
    return files, tuple(unreadable)


def _files_of(generation: Generation) -> Iterable[InstalledFile]:
    bundle = generation.bundle
    for variant in bundle.variants:
        if variant.name in generation.receipt.variants:
            for file in bundle.variant_files(variant):
                inside = file.path.removeprefix(f"models/{bundle.name}/")
                yield InstalledFile(
                    generation.name,
                    generation.number,
                    variant.name,
                    generation.path / inside,
                    file.size,
                    file.digest,
                )


def _read_all(
    installed: Sequence[InstalledFile],
    unreadable: tuple[str, ...],
    progress: Progress,
) -> Scrubbed:
    """Read each file once, whatever names it has, with every core."""
    by_inode: dict[object, list[InstalledFile]] = {}
    for file in installed:
        by_inode.setdefault(_identity(file.path), []).append(file)
    firsts = [files[0] for files in by_inode.values()]
    size = sum(file.size for file in firsts)
    with progress.task("scrubbing", size) as task:
        faults = on_every_core(_fault, firsts, task)
    damage = tuple(
        Damage(file, fault)
        for first, fault in zip(firsts, faults, strict=True)
        if fault is not None
        for file in by_inode[_identity(first.path)]
    )
    return Scrubbed(len(firsts), size, damage, unreadable)


def _identity(path: Path) -> object:
    """What is the same for two names of one file, and for no others."""
    try:
        status = path.lstat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _fault(file: InstalledFile, task: Task) -> str | None:
    """What is wrong with ``file``, or ``None``."""
    try:
        size = file.path.lstat().st_size
        digest, read = _digest_on_disk(file.path, size, task)
    except FileNotFoundError:
        return "missing"
    except (OSError, AirpackError):
        return "cannot be read"
    if read < size:
        return f"the disk gives an error at byte {read}"
    if size != file.size:
        return f"{size} bytes, not {file.size}"
    return None if digest == file.digest else "other bytes than were installed"


def _digest_on_disk(path: Path, size: int, task: Task) -> tuple[Digest, int]:
    """The digest of what the disk gives of the file, and how many bytes that was."""
    state = hashlib.sha256()
    position = 0
    buffer = aligned_buffer(_BUFFER_SIZE)
    with open_uncached(path) as device:
        while position < size:
            wanted = min(len(buffer), size - position)
            count = device.read(buffer, position, wanted)
            state.update(buffer[:count])
            task.advance(count)
            position += count
            if count < wanted:
                break
    return Digest(state.hexdigest()), position


def _mend_evidence(home: Home, names: Iterable[str], verified: VerifiedBundle) -> None:
    """Write what generations of this very bundle keep of it again, where they cannot be read."""
    for name in names:
        for number in numbers_of(home, name):
            try:
                read_signed_generation(home, name, number)
            except IntegrityError:
                directory = generation_directory(home, name, number)
                if read_origin(directory) == verified.digest:
                    write_evidence(verified, directory)


def _mend(home: Home, found: Scrubbed, source: Source, progress: Progress) -> Scrubbed:
    """Bring what is damaged from the medium, and give it its names again."""
    carried = {file.digest: file for file in source.verified.bundle.files}
    mendable = {d.file.digest: d.file for d in found.damage if d.file.digest in carried}
    files = [carried[digest] for digest in mendable]
    stage_files(source.verified, files, source.media, home, progress)
    mended: Mapping[Path, InstalledFile] = {
        d.file.path: d.file for d in found.damage if d.file.digest in mendable
    }
    for file in mended.values():
        relink_blob(home, file.digest, file.path)
    left = tuple(d for d in found.damage if d.file.path not in mended)
    return Scrubbed(found.files, found.size, left, found.unreadable, tuple(mended.values()))
