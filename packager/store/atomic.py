"""Files that are either there, whole and on the disk, or not there at all.

The order is the one that survives a power cut: write under a temporary name, fsync the file,
rename, fsync the directory. Every helper raises ``NoSpaceError`` or ``HostError`` for what the
operating system refuses.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packager.errors import HostError, IntegrityError, NoSpaceError

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def naming_refusals(path: Path) -> Iterator[None]:
    """Turn the system's refusals into errors that name ``path`` and say what to do."""
    try:
        yield
    except OSError as error:
        raise translate(error, path) from error


def translate(
    error: OSError, path: Path | None = None
) -> HostError | NoSpaceError | IntegrityError:
    """The error of ours that says what the system refused, and where."""
    # A call with two names fails for the second, which it makes; a descriptor is no name.
    named = error.filename2 or error.filename
    if path is None and named is None and error.errno == errno.ENOENT:  # getcwd(3) alone says so
        return HostError(
            "the directory that this was started in is gone",
            hint="cd; then run it again, with whole paths",
        )
    ours = isinstance(named, str) and Path(named).name.startswith(TEMPORARY_PREFIX)
    where = named if isinstance(named, str) and not (ours and path) else path or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{where}: no space left", hint="free some space, then run it again")
    if error.errno == errno.EFBIG:
        return NoSpaceError(f"{where}: the file is too large for this filesystem")
    if error.errno in (errno.EIO, errno.EUCLEAN):  # EUCLEAN: a damaged directory of the device
        return IntegrityError(f"{where}: the device gives an input/output error")
    if error.errno == errno.EROFS:
        return HostError(f"{where}: this place is read-only")
    return HostError(f"{where}: {(error.strerror or str(error)).lower()}")


def fsync_directory(directory: Path) -> None:
    """Make the names in ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make ``directory`` and what is missing above it, durably."""
    with naming_refusals(directory):
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for path in reversed(missing):
            path.mkdir(mode=0o755, exist_ok=True)
            fsync_directory(path.parent)


def unfinished_place(directory: Path) -> Path:
    """Where what is to become ``directory`` is made: beside it, hidden."""
    return directory.with_name(f".{directory.name}.unfinished")


@contextmanager
def appearing_whole(directory: Path) -> Iterator[Path]:
    """A hidden directory that gets the name ``directory`` if the block succeeds, else goes."""
    place = unfinished_place(directory)
    with naming_refusals(place):
        if os.path.lexists(place):
            shutil.rmtree(place)  # of a run that was killed
        make_directory(place)
        try:
            yield place
            name_directory(place, directory)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


def name_directory(place: Path, directory: Path) -> None:
    """Give ``place``, all of whose files are on the disk, the name ``directory`` beside it."""
    with naming_refusals(place):
        fsync_directory(place)
        place.rename(directory)
        fsync_directory(directory.parent)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` with ``data``, at once or not at all."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    with naming_refusals(path):
        try:
            # Whatever lies under this name is a dead process's, or a trap: never written into.
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset`` bytes: a filling disk takes a part without a word."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def point_symlink(link: Path, target: str) -> None:
    """Make ``link`` point to ``target``, replacing what it pointed to in one step, durably."""
    swap_symlink(link, target)
    with naming_refusals(link):
        fsync_directory(link.parent)


def swap_symlink(link: Path, target: str) -> None:
    """Do as :func:`point_symlink`, but leave the time of it to the system."""
    temporary = link.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{link.name}")
    with naming_refusals(link):
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target)
            temporary.rename(link)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_capped(path: Path, max_size: int) -> bytes:
    """The bytes of the regular file ``path``; raises ``IntegrityError`` above ``max_size``.

    A symbolic link, a device or a FIFO under that name is refused, not followed: on a medium
    that somebody else wrote it could lead anywhere, or never end.
    """
    with open_regular(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as stream:
        data = stream.read(max_size + 1)
    if len(data) > max_size:
        raise IntegrityError(f"{path}: larger than the limit of {max_size} bytes")
    return data


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open ``path`` for reading; raises ``IntegrityError`` unless it is a regular file."""
    with naming_refusals(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise IntegrityError(f"{path}: not a regular file") from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise IntegrityError(f"{path}: not a regular file")
            yield descriptor
        finally:
            os.close(descriptor)
