"""A local folder as a source, and the texts that a recipe names: listed, locked, checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packager.connected.source.hashing import changed_error, check_file, hash_file
from packager.errors import UnsafeContentError, UsageError
from packager.format.lock import SHA256, ContentId, LockedFile
from packager.progress import Progress, Task
from packager.store.atomic import naming_refusals, read_capped

MAX_TEXT_SIZE = 64 << 20
MAX_DEPTH = 32


def list_folder(folder: Path) -> tuple[str, ...]:
    """The relative paths of the files in ``folder``, in order; hidden ones are left out.

    Raises ``UsageError`` if there is no such folder, ``UnsafeContentError`` if it holds folders
    in folders more than ``MAX_DEPTH`` deep.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    with naming_refusals(folder):
        return tuple(sorted(_walk(folder)))


def _walk(folder: Path) -> Iterator[str]:
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        if prefix.count("/") > MAX_DEPTH:
            raise UnsafeContentError(f"{folder}: holds folders more than {MAX_DEPTH} deep")
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{prefix}{entry.name}/")
                else:
                    yield f"{prefix}{entry.name}"


def source_path(folder: Path, path: str) -> Path:
    """The file ``path`` of ``folder``, with links followed.

    Raises ``UnsafeContentError`` for one that leads out of the folder, or to no file: what
    travels is what was looked at, not what a link happens to reach.
    """
    real = Path(os.path.realpath(folder / path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise UnsafeContentError(
            f"{folder / path}: a link that leads out of the folder",
            hint=f"copy the folder with its links resolved: cp -rL {folder} COPY",
        )
    if not real.is_file():
        raise UnsafeContentError(f"{folder / path}: not a regular file")
    return real


def lock_folder(folder: Path, paths: Iterable[str], progress: Progress) -> tuple[LockedFile, ...]:
    """Read the files ``paths`` of ``folder`` and say what they hold, in order of path."""
    files = {path: source_path(folder, path) for path in sorted(paths)}
    total = sum(file.stat().st_size for file in files.values())
    with progress.task("reading the folder", total) as task:
        return tuple(_lock_file(path, file, task) for path, file in files.items())


def lock_texts(folder: Path, paths: Iterable[str]) -> tuple[LockedFile, ...]:
    """Say what the texts hold that a recipe in ``folder`` names; each must be UTF-8."""
    return tuple(
        LockedFile(path, len(data), ContentId(SHA256, hashlib.sha256(data).hexdigest()))
        for path in sorted(paths)
        for data in (_read_text(folder / path),)
    )


def read_text(folder: Path, file: LockedFile) -> str:
    """The text that a recipe in ``folder`` names; raises ``DigestMismatchError`` if changed."""
    data = _read_text(folder / file.path)
    if hashlib.sha256(data).hexdigest() != file.content.hex:
        raise changed_error(folder / file.path)
    return data.decode("utf-8")


def _read_text(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path}: the recipe names this text, and there is no such file")
    data = read_capped(Path(os.path.realpath(path)), MAX_TEXT_SIZE)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text, at byte {error.start}") from None
    return data


def check_folder(
    folder: Path, files: Iterable[LockedFile], progress: Progress
) -> Mapping[str, Path]:
    """Read the locked ``files`` of ``folder`` again; their paths, if nothing has changed.

    Raises ``IntegrityError`` for a file that is not what the lock says.
    """
    wanted = {file: source_path(folder, file.path) for file in files}
    with progress.task("checking the folder", sum(file.size for file in wanted)) as task:
        for file, path in wanted.items():
            check_file(path, file, task)
    return {file.path: path for file, path in wanted.items()}


def _lock_file(path: str, file: Path, task: Task) -> LockedFile:
    size = file.stat().st_size
    return LockedFile(path, size, hash_file(file, SHA256, size, task))
