"""The part of a file that is here already, on disk and in a running hash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from packager.connected.cache import Cache
from packager.connected.source.hashing import content_hasher
from packager.connected.source.retry import RetryableError
from packager.errors import AirpackError, DigestMismatchError, TrailingDataError, TruncatedError
from packager.format.lock import ContentId, LockedFile
from packager.progress import Task
from packager.store.atomic import make_directory, naming_refusals

_BUFFER_SIZE = 1 << 20


def present_size(file: LockedFile, cache: Cache) -> int:
    """How many bytes of ``file`` an earlier run has left."""
    try:
        size = cache.partial(file.content).stat().st_size
    except FileNotFoundError:
        return 0
    return size if size <= file.size else 0


@contextmanager
def open_partial(file: LockedFile, cache: Cache, task: Task) -> Iterator[Partial]:
    """What there is of ``file``, hashed again, ready to grow. The caller holds its lock."""
    path = cache.partial(file.content)
    make_directory(path.parent)
    with naming_refusals(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    partial = Partial(file, cache, task, descriptor)
    try:
        partial.take_in()
        yield partial
    except BaseException:  # an interrupt too: an empty file is no beginning; it is raised again
        if partial.size == 0:
            with suppress(AirpackError):  # the first error is what counts
                cache.discard(file.content)
        raise
    finally:
        os.close(descriptor)


class Partial:
    """The bytes of one file that are here, and the hash over them; ``size`` of them.

    ``furthest`` is the most there ever was, in bytes: what progress is measured by, since a
    server that ignores ranges makes it start over.
    """

    def __init__(self, file: LockedFile, cache: Cache, task: Task, descriptor: int) -> None:
        self._file = file
        self._cache = cache
        self._task = task
        self._descriptor = descriptor
        self._path = cache.partial(file.content)
        self._hasher = content_hasher(file.content.kind, file.size)
        self._pieced = False
        self.size = 0
        self.furthest = 0
        self.etag: str | None = None

    def take_in(self) -> None:
        """Hash what an earlier process has left, and go on from there."""
        with naming_refusals(self._path):
            if os.fstat(self._descriptor).st_size > self._file.size:
                os.ftruncate(self._descriptor, 0)
            while data := os.pread(self._descriptor, _BUFFER_SIZE, self.size):
                self._hasher.update(data)
                self.size += len(data)
            if self.size and self._etag_path.exists():
                self.etag = self._etag_path.read_text("ascii", errors="replace")[:200]
        self.furthest = self.size
        self._pieced = self.size > 0

    @property
    def _etag_path(self) -> Path:
        return self._cache.partial_etag(self._file.content)

    def join(self, offset: int, etag: str | None) -> None:
        """Go on with an answer that begins at ``offset``, which the server calls ``etag``."""
        if offset != self.size:
            self.restart()
        self._pieced = self.size > 0
        if etag == self.etag:
            return
        self.etag = etag
        with naming_refusals(self._etag_path):
            if etag is None:
                self._etag_path.unlink(missing_ok=True)
            else:
                self._etag_path.write_text(etag, "ascii", errors="replace")

    def append(self, chunk: bytes) -> None:
        """Add ``chunk``; raises ``TrailingDataError`` beyond the locked size."""
        if self.size + len(chunk) > self._file.size:
            self.restart()
            raise TrailingDataError(
                f"{self._file.path}: the hub sends more than the {self._file.size} bytes locked"
            )
        with naming_refusals(self._path):
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._hasher.update(chunk)
        self.size += len(chunk)
        if self.size > self.furthest:
            self._task.advance(self.size - self.furthest)
            self.furthest = self.size

    def restart(self) -> None:
        """Forget what is here."""
        with naming_refusals(self._path):
            os.ftruncate(self._descriptor, 0)
        self._hasher = content_hasher(self._file.content.kind, self._file.size)
        self._pieced = False
        self.size = 0

    def check(self) -> None:
        """Return if the file is whole and right; raises ``RetryableError`` if it may yet be."""
        if self.size < self._file.size:
            raise RetryableError(
                TruncatedError(
                    f"{self._file.path}: the hub stops at {self.size} of {self._file.size} bytes",
                    hint="run it again: it resumes where it was",
                )
            )
        found = ContentId(self._file.content.kind, self._hasher.hexdigest())
        if found == self._file.content:
            return
        pieced = self._pieced
        self.restart()
        error = DigestMismatchError(
            f"{self._file.path}: the hub sends {found}, and the lock says {self._file.content}",
            hint="do not use it; ask whoever runs the hub or the mirror, then lock again",
        )
        if pieced:
            # A part from earlier may be what is wrong: a lost page, another mirror's bytes.
            raise RetryableError(error)
        raise error
