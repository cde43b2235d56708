"""The connected side's cache: what was fetched, what is half fetched, what was derived from it.

    blobs/sha256-<hex>    whole and checked, under what it holds; never written to again
    partial/sha256-<hex>  the first bytes of one, and beside it ``….etag``, what the server
                          called it; survives the process that wrote it
    derived/<hex>.gguf    made from blobs, under the digest of all that it was made from
    kernels/…             quantization kernels compiled for this CPU
    locks/…               one empty file for each name that a process works on (flock(2))

A blob appears by rename, after its file is on the disk. Deleting the whole folder is always
safe, and costs only time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.format.digest import Digest
from packager.format.lock import ContentId
from packager.store.atomic import fsync_directory, make_directory, naming_refusals
from packager.store.cache_root import cache_root

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Cache:
    """The cache below the folder ``root``."""

    root: Path

    @classmethod
    def of_environment(cls) -> Cache:
        """The cache of this user; see :func:`cache_root`."""
        return cls(cache_root())

    def blob(self, content: ContentId) -> Path:
        """Where the bytes of ``content`` are, once they are whole."""
        return self.root / "blobs" / _name(content)

    def partial(self, content: ContentId) -> Path:
        """Where the first bytes of ``content`` are, until they are whole."""
        return self.root / "partial" / _name(content)

    def partial_etag(self, content: ContentId) -> Path:
        """Where the server's name for what ``partial`` is a part of is kept."""
        return self.root / "partial" / f"{_name(content)}.etag"

    def accept(self, content: ContentId) -> Path:
        """Turn the partial bytes of ``content``, found right, into its blob."""
        blob = self.blob(content)
        with naming_refusals(self.partial_etag(content)):
            # First: of what is whole nobody asks the server again, and a kill leaves nothing over.
            self.partial_etag(content).unlink(missing_ok=True)
        _publish(self.partial(content), blob)
        return blob

    def discard(self, content: ContentId) -> None:
        """Forget the partial bytes of ``content``."""
        with naming_refusals(self.partial(content)):
            self.partial(content).unlink(missing_ok=True)
            self.partial_etag(content).unlink(missing_ok=True)

    def derived(self, key: Digest, suffix: str) -> Path:
        """Where the artefact made from ``key`` is, once it is whole; ``suffix`` as ``.gguf``."""
        return self.root / "derived" / f"{key.hex}{suffix}"

    def temporary(self, key: Digest, suffix: str) -> Path:
        """Where to write the artefact made from ``key`` before :meth:`publish`.

        The folder is there. Two processes making the same one write two files.
        """
        path = self.derived(key, suffix)
        make_directory(path.parent)
        return path.with_name(f".tmp-{os.getpid()}-{path.name}")

    def publish(self, temporary: Path, key: Digest, suffix: str) -> Path:
        """Make what was written to ``temporary`` the artefact of ``key``, at once."""
        path = self.derived(key, suffix)
        _publish(temporary, path)
        return path

    @contextmanager
    def locked(
        self,
        name: str,
        *,
        sleep: Callable[[float], object],
        on_wait: Callable[[], None],
    ) -> Iterator[None]:
        """Be the only process, and the only thread, that works on ``name``.

        The kernel lets go of the lock when its holder dies, so none is ever stale. ``on_wait``
        is called once if somebody else holds it.
        """
        path = self.root / "locks" / name
        make_directory(path.parent)
        with naming_refusals(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _take(descriptor, sleep, on_wait)
            yield
        finally:
            os.close(descriptor)


def _name(content: ContentId) -> str:
    return f"{content.kind}-{content.hex}"


def _take(descriptor: int, sleep: Callable[[float], object], on_wait: Callable[[], None]) -> None:
    waited = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waited:
                on_wait()
            waited = True
            # Not a blocking flock: the thread must notice when the whole fetch is called off.
            sleep(_POLL_SECONDS)
        else:
            return


def _publish(temporary: Path, final: Path) -> None:
    make_directory(final.parent)
    with naming_refusals(final):
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.rename(final)
        fsync_directory(final.parent)
        fsync_directory(temporary.parent)
