"""The store: files by content. A blob is there whole or not at all, and never changes.

An unfinished blob lies beside its final name, as ``<digest>.incoming``, and only whoever holds
the home's lock writes one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.format.digest import Digest
from packager.store.atomic import fsync_directory, make_directory, naming_refusals, write_all
from packager.store.digests import file_digest
from packager.store.home import Home

_INCOMING = ".incoming"


@dataclass(frozen=True)
class IncomingBlob:
    """A blob being written, at any offsets and from any thread."""

    path: Path
    descriptor: int

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset`` bytes; raises ``NoSpaceError``, ``HostError``."""
        with naming_refusals(self.path):
            write_all(self.descriptor, data, offset)


@contextmanager
def incoming_blob(home: Home, digest: Digest, size: int) -> Iterator[IncomingBlob]:
    """Open the blob ``digest`` of ``size`` bytes for writing.

    Leaving the block publishes it, read-only, behind fsync; an error in the block removes it.
    The caller has checked every byte that it writes.
    """
    final = home.blob(digest)
    make_directory(final.parent)
    path = final.with_name(final.name + _INCOMING)
    with naming_refusals(path):
        path.unlink(missing_ok=True)  # of an install that was killed
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with naming_refusals(path):
            os.truncate(descriptor, size)
        yield IncomingBlob(path, descriptor)
        with naming_refusals(path):
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            path.rename(final)
            fsync_directory(final.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def undoing_blobs(home: Home, digests: Iterable[Digest]) -> Iterator[None]:
    """Remove the blobs of ``digests`` that came in the block, if it fails and nothing has them."""
    new = {digest for digest in digests if not home.blob(digest).exists()}
    try:
        yield
    except BaseException:
        for path in map(home.blob, new):
            if path.exists():
                _remove_unlinked(path)
        raise


def has_blob(home: Home, digest: Digest, size: int) -> bool:
    """Whether the store holds that content, by its name and size."""
    try:
        return home.blob(digest).stat().st_size == size
    except FileNotFoundError:
        return False


def is_intact(home: Home, digest: Digest, size: int) -> bool:
    """Whether the store holds that content, read whole: disks forget, and say nothing."""
    return has_blob(home, digest, size) and file_digest(home.blob(digest)) == digest


def link_blob(home: Home, digest: Digest, path: Path) -> None:
    """Give the blob a second name, at ``path``, without a second copy of its bytes."""
    with naming_refusals(path):
        os.link(home.blob(digest), path)


def collect_garbage(home: Home) -> int:
    """Remove every blob that no generation links to; returns the bytes freed."""
    freed = 0
    with naming_refusals(home.blobs):
        for path in sorted(home.blobs.glob("??/*")):
            freed += _remove_unlinked(path)
    return freed


def sweep_incoming(home: Home) -> None:
    """Remove the unfinished blobs of a process that died; the caller holds the home's lock."""
    with naming_refusals(home.blobs):
        for path in home.blobs.glob(f"??/*{_INCOMING}"):
            path.unlink()


def _remove_unlinked(path: Path) -> int:
    """Remove a blob that no generation links to; returns the bytes freed."""
    with naming_refusals(path):
        status = path.stat()
        if status.st_nlink > 1:
            return 0
        path.unlink()
        return status.st_size
