"""The digests of files on this disk."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packager.format.digest import Digest
from packager.progress import Task
from packager.store.atomic import naming_refusals, open_regular

_BUFFER_SIZE = 1 << 20


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


def file_digests(paths: Sequence[Path], task: Task) -> list[Digest]:
    """The digest of each of ``paths``, in their order, read by every core.

    ``task`` advances by the bytes read. An error with one file, or a person's interrupt, ends
    the reading of all others within a buffer.
    """
    shared = _SharedTask(task)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(file_digest, path, shared) for path in paths]
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
