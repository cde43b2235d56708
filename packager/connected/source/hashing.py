"""Content ids of files, and whether a file still holds what was promised."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from packager.errors import DigestMismatchError, TrailingDataError, TruncatedError
from packager.format.lock import GIT_BLOB, ContentId, LockedFile
from packager.progress import Task
from packager.store.atomic import naming_refusals, open_regular

_BUFFER_SIZE = 1 << 20
_LOCK_AGAIN = "if the change is wanted, lock again: airpack lock RECIPE"


class Hasher(Protocol):
    """The part of ``hashlib`` objects that is used here."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take ``data`` in."""

    def hexdigest(self) -> str:
        """The digest so far."""


def content_hasher(kind: str, size: int) -> Hasher:
    """What computes the id of ``kind`` over a file of ``size`` bytes."""
    if kind == GIT_BLOB:
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.sha256()


def hash_file(path: Path, kind: str, size: int, task: Task) -> ContentId:
    """Read the regular file ``path`` of ``size`` bytes, in one reused buffer."""
    hasher = content_hasher(kind, size)
    buffer = memoryview(bytearray(_BUFFER_SIZE))
    with open_regular(path) as descriptor, naming_refusals(path):
        while count := os.readv(descriptor, [buffer]):
            hasher.update(buffer[:count])
            task.advance(count)
    return ContentId(kind, hasher.hexdigest())


def check_file(path: Path, file: LockedFile, task: Task) -> None:
    """Read ``path``; raises ``IntegrityError`` unless it holds what ``file`` says."""
    size = path.stat().st_size
    if size != file.size:
        error = TruncatedError if size < file.size else TrailingDataError
        raise error(f"{path}: {size} bytes, and the lock says {file.size}", hint=_LOCK_AGAIN)
    if hash_file(path, file.content.kind, size, task) != file.content:
        raise changed_error(path)


def changed_error(path: Path) -> DigestMismatchError:
    """``path`` holds other bytes than the lock says."""
    return DigestMismatchError(f"{path}: not the bytes that the lock says", hint=_LOCK_AGAIN)
