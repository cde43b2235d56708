"""The digests of files on this disk."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from packager.format.digest import Digest
from packager.progress import Task
from packager.store.atomic import naming_refusals, open_regular

_BUFFER_SIZE = 1 << 20

S = TypeVar("S")
T = TypeVar("T")


def file_digest(path: Path, task: Task | None = None) -> Digest:
    """The digest of a regular file, read through one small buffer.

    ``task`` advances by the bytes read, as they are read.
    """
    state = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_SIZE))
    with naming_refusals(path), open_regular(path) as descriptor:
        while count := os.readv(descriptor, [buffer]):
            state.update(buffer[:count])
            if task:
                task.advance(count)
    return Digest(state.hexdigest())


class GrowingDigest:
    """The digest of a file of ``size`` bytes that pass by in order; of no file, if some do not."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0
        self._state = hashlib.sha256()

    def take(self, data: memoryview, offset: int) -> None:
        """Take the bytes at ``offset``, if those before them came, all of them."""
        if offset == self._position:
            self._state.update(data)
            self._position += len(data)

    @property
    def value(self) -> Digest | None:
        """The digest, once every byte came; else ``None``."""
        return Digest(self._state.hexdigest()) if self._position == self._size else None


def file_digests(paths: Sequence[Path], task: Task) -> list[Digest]:
    """The digest of each of ``paths``, in their order, read by every core."""
    return on_every_core(file_digest, paths, task)


def on_every_core(work: Callable[[S, Task], T], items: Sequence[S], task: Task) -> list[T]:
    """What ``work`` makes of each of ``items``, in their order, a thread for each core.

    ``task`` advances as ``work`` says. An error with one item, or a person's interrupt, ends
    the work on all others the next time that they advance.
    """
    shared = _SharedTask(task)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(work, item, shared) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            shared.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _StoppedError(Exception):
    """Another thread failed; nobody sees this one."""


class _SharedTask:
    """A task that several threads advance, until it is stopped: then whoever advances it ends."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._stopped = False
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            if self._stopped:
                raise _StoppedError
            self._task.advance(amount)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
