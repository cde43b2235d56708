"""What interrupted installs have of files that are not whole yet: the next one goes on there.

``partial/<name>/<digest>`` is as long as the whole file, with holes or anything else where it
has not its bytes: whoever goes on with it reads it again, and believes only what the signed
index confirms. A blob begins here and moves into the store by one rename. What stays goes with
the next install of the model ``name`` that succeeds, with the model, or with ``airpack gc``.
Only whoever holds the home's lock touches any of it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packager.errors import (
    AirpackError,
    IntegrityError,
    NetworkUseError,
    SmokeTestError,
    UnsafeContentError,
)
from packager.format.digest import Digest
from packager.store.atomic import fsync_directory, make_directory, naming_refusals, write_all
from packager.store.blobs import remove_unlinked
from packager.store.direct import ALIGNMENT, set_direct, write_sectors
from packager.store.home import Home

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK_SIZE = 512  # bytes, of st_blocks; stat(2)
# What says that the model itself is no good, and not that something came in between.
_VERDICTS = (SmokeTestError, NetworkUseError, IntegrityError, UnsafeContentError)


@dataclass(frozen=True)
class IncomingBlob:
    """A blob being written, at any offsets and from any thread."""

    path: Path
    descriptor: int

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset`` bytes; raises ``NoSpaceError``, ``HostError``."""
        with naming_refusals(self.path):
            write_all(self.descriptor, data, offset)

    def write_direct(self, data: memoryview, offset: int) -> int:
        """Do as ``write``, around the page cache; returns how many bytes went through it.

        Those are the ends that are no whole sectors, or all where the filesystem knows no other
        way. ``data`` lies at ``offset`` modulo 4096 of a ``direct.aligned_buffer``. Nobody else
        writes meanwhile.
        """
        head = min(-offset % ALIGNMENT, len(data))
        with naming_refusals(self.path):
            write_all(self.descriptor, data[:head], offset)
            done = head + self._write_sectors(data[head:], offset + head)
            write_all(self.descriptor, data[done:], offset + done)
        return head + len(data) - done

    def _write_sectors(self, data: memoryview, offset: int) -> int:
        if not set_direct(self.descriptor, True):
            return 0
        try:
            return write_sectors(self.descriptor, data, offset)
        finally:
            set_direct(self.descriptor, False)

    def discard(self) -> None:
        """Let nothing of it stay; the caller raises the reason."""
        with naming_refusals(self.path):
            self.path.unlink()


@contextmanager
def incoming_blob(home: Home, name: str, digest: Digest, size: int) -> Iterator[IncomingBlob]:
    """Open the blob ``digest`` of ``size`` bytes, for the model ``name``, for writing.

    It has what an earlier install wrote. Leaving the block publishes it, read-only, behind
    fsync; an error in the block leaves what was written for the next install. The caller has
    checked every byte.
    """
    final, path = home.blob(digest), home.partial(name, digest)
    make_directory(final.parent)
    make_directory(path.parent)
    with naming_refusals(path):
        _move_here(find_partial(home, digest), path)
        descriptor = os.open(path, _FLAGS, 0o600)
    try:
        with naming_refusals(path):
            os.truncate(descriptor, size)
        yield IncomingBlob(path, descriptor)
        with naming_refusals(path):
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            path.rename(final)
            fsync_directory(final.parent)
        with suppress(OSError):  # they stay where they have more
            _remove_directories(path)
    except BaseException:
        with suppress(OSError):
            _remove_empty(path, descriptor)
        raise
    finally:
        os.close(descriptor)


def _move_here(found: Path | None, path: Path) -> None:
    """Make ``found`` the file at ``path``, open to writing; whatever else is there goes."""
    if found != path:
        path.unlink(missing_ok=True)
    if found is not None:
        found.chmod(0o600)
        found.rename(path)
        with suppress(OSError):  # it stays where it has more
            found.parent.rmdir()


def _remove_empty(path: Path, descriptor: int) -> None:
    """Remove the partial blob if nothing was written, and its directory if it was the only one."""
    if os.fstat(descriptor).st_blocks == 0:
        path.unlink(missing_ok=True)
    _remove_directories(path)


def _remove_directories(path: Path) -> None:
    """Remove the directory of the partial blob, and that of all, unless they have more."""
    path.parent.rmdir()
    path.parent.parent.rmdir()


@contextmanager
def taking_back(home: Home, name: str, digests: Iterable[Digest]) -> Iterator[None]:
    """Take the blobs of ``digests`` that came in the block back, if it fails and nothing has them.

    They go where something came in between; where the model was found bad, they go for good.
    """
    new = [home.blob(digest) for digest in {*digests} if not home.blob(digest).exists()]
    try:
        yield
    except _VERDICTS:
        for path in filter(Path.exists, new):
            remove_unlinked(path)
        raise
    except BaseException:
        # The first error is what counts: a blob that cannot be moved is whole where it is.
        with suppress(AirpackError):
            for path in filter(Path.exists, new):
                _put_back(path, home.partials / name / path.name)
        raise


def _put_back(blob: Path, path: Path) -> None:
    with naming_refusals(path):
        if blob.stat().st_nlink == 1:
            make_directory(path.parent)
            blob.rename(path)


def find_partial(home: Home, digest: Digest) -> Path | None:
    """Where there is a part of that file, of whatever model; ``None`` where there is none."""
    with naming_refusals(home.partials):
        for path in home.partials.glob(f"*/{digest.hex}"):
            status = path.lstat()
            # A file with a second name could be one that a generation holds.
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                return path
    return None


def room_taken(path: Path) -> int:
    """The bytes of disk that the file at ``path`` takes, holes left out."""
    with naming_refusals(path):
        return path.lstat().st_blocks * _BLOCK_SIZE


def partial_room(home: Home, name: str = "*") -> int:
    """The bytes of disk that the partial files of the model ``name`` take, or of all models."""
    with naming_refusals(home.partials):
        return sum(room_taken(path) for path in home.partials.glob(f"{name}/*"))


def remove_partials(home: Home, name: str = "*") -> int:
    """Remove the partial files of the model ``name``, or of all; returns the bytes freed."""
    freed = partial_room(home, name)
    with naming_refusals(home.partials):
        for directory in home.partials.glob(name):
            shutil.rmtree(directory)
        with suppress(OSError):  # it stays where other models have some, and may not be there
            home.partials.rmdir()
    return freed
