"""From a lock to files on this disk, each of them checked against it.

A file that is cut off stays in the cache as it is, and goes on at the next byte: after a
moment in this process, or in the next one. Nothing is believed twice: what is there is hashed
again before a byte is added, and only a whole file with the right content id gets a name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock

from packager.connected.cache import Cache
from packager.connected.source.hashing import check_file
from packager.connected.source.hub import Body, Hub
from packager.connected.source.local import check_folder
from packager.connected.source.partial import Partial, open_partial, present_size
from packager.connected.source.retry import RetryableError, retrying
from packager.errors import (
    IntegrityError,
    NoSpaceError,
    TrailingDataError,
    TruncatedError,
)
from packager.format import lock as locks
from packager.format.lock import HubCommit, LockedFile
from packager.format.sizes import format_size
from packager.progress import Progress, Task
from packager.runtime.content import check_content
from packager.store.atomic import make_directory, naming_refusals

CONNECTIONS = 4


def fetch(
    lock: locks.Lock,
    cache: Cache,
    progress: Progress,
    *,
    recipe_folder: Path = Path(),
    hub: Hub | None = None,
    check: Callable[[Mapping[str, Path]], None] = check_content,
) -> Mapping[str, Path]:
    """The locked files of the source, by their path there: checked, and of allowed content.

    Files from the hub are in ``cache``; those of a local folder, which is relative to
    ``recipe_folder``, stay where they are. Raises ``HubError``, ``IntegrityError``,
    ``NoSpaceError``, or ``UnsafeContentError`` for what airpack does not carry.
    """
    if isinstance(lock.source, HubCommit):
        hub = hub or Hub(progress=progress)
        files = fetch_files(lock.source, lock.files, cache, progress, hub)
    else:
        files = check_folder(recipe_folder / lock.source.path, lock.files, progress)
    check(files)
    return files


def fetch_files(
    commit: HubCommit, files: Iterable[LockedFile], cache: Cache, progress: Progress, hub: Hub
) -> Mapping[str, Path]:
    """Have ``files`` of ``commit`` in ``cache``; their paths there, by their path in the source."""
    wanted = tuple(files)
    missing = _missing(wanted, cache, progress)
    if missing:
        _check_space(missing, cache)
        _fetch_missing(commit, missing, cache, progress, hub)
    return {file.path: cache.blob(file.content) for file in wanted}


def _missing(
    files: tuple[LockedFile, ...], cache: Cache, progress: Progress
) -> tuple[LockedFile, ...]:
    """The files, each content once, that the cache lacks or holds damaged; largest first."""
    by_content = {file.content: file for file in files}
    held = [file for content, file in by_content.items() if cache.blob(content).exists()]
    if held:
        with progress.task("checking the cache", sum(file.size for file in held)) as task:
            for file in held:
                if _is_intact(file, cache, progress, task):
                    del by_content[file.content]
    return tuple(sorted(by_content.values(), key=lambda file: -file.size))


def _is_intact(file: LockedFile, cache: Cache, progress: Progress, task: Task) -> bool:
    blob = cache.blob(file.content)
    try:
        check_file(blob, file, task)
    except IntegrityError as error:
        progress.note(f"{error.message}; fetching it again")
        with naming_refusals(blob):
            blob.unlink(missing_ok=True)
        return False
    return True


def _check_space(files: tuple[LockedFile, ...], cache: Cache) -> None:
    needed = sum(file.size - present_size(file, cache) for file in files)
    make_directory(cache.root)
    with naming_refusals(cache.root):
        status = os.statvfs(cache.root)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpaceError(
            f"{cache.root}: {format_size(needed)} to fetch, and {format_size(free)} free",
            hint="free some space, or set AIRPACK_CACHE to a folder on a larger disk",
        )


def _fetch_missing(
    commit: HubCommit,
    files: tuple[LockedFile, ...],
    cache: Cache,
    progress: Progress,
    hub: Hub,
) -> None:
    total = sum(file.size for file in files)
    done = sum(present_size(file, cache) for file in files)
    stop = Event()
    with (
        progress.task(f"fetching {commit.repository}", total, done=done) as task,
        ThreadPoolExecutor(max_workers=CONNECTIONS) as pool,
    ):
        run = _Run(commit, cache, progress, hub, _SharedTask(task), stop)
        futures = [pool.submit(run.fetch_file, file) for file in files]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # an interrupt too must not leave threads at work
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _StoppedError(Exception):
    """Another file failed, or the user gave up: this one need not go on."""


class _SharedTask:
    """A task that several threads report to."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._mutex = Lock()

    def advance(self, amount: int) -> None:
        with self._mutex:
            self._task.advance(amount)


@dataclass(frozen=True)
class _Run:
    """What the threads of one fetch share."""

    commit: HubCommit
    cache: Cache
    progress: Progress
    hub: Hub
    task: Task
    stop: Event

    def fetch_file(self, file: LockedFile) -> None:
        """Have ``file`` in the cache, waiting for whoever is at it already."""
        with self.cache.locked(
            str(file.content).replace(":", "-"),
            sleep=self._sleep,
            on_wait=lambda: self.progress.note(f"{file.path}: waiting for another process"),
        ):
            if self.cache.blob(file.content).exists():
                check_file(self.cache.blob(file.content), file, self.task)
                return
            with open_partial(file, self.cache, self.task) as partial:
                patience = replace(self.hub.patience, sleep=self._sleep)
                retrying(lambda: self._attempt(file, partial), patience, self.progress)
            self.cache.accept(file.content)

    def _attempt(self, file: LockedFile, partial: Partial) -> None:
        """Get the bytes that are missing; raises ``RetryableError`` for as far as it got."""
        before = partial.furthest
        try:
            if partial.size < file.size:
                with self.hub.open(
                    self.commit, file.path, offset=partial.size, etag=partial.etag
                ) as body:
                    self._receive(file, body, partial)
            partial.check()
        except RetryableError as error:
            raise RetryableError(
                error.final, wait=error.wait, advanced=partial.furthest > before
            ) from None

    def _receive(self, file: LockedFile, body: Body, partial: Partial) -> None:
        if body.size is not None and body.size != file.size:
            error = TruncatedError if body.size < file.size else TrailingDataError
            raise error(
                f"{file.path} of {self.commit.repository}: the hub sends {body.size} bytes,"
                f" and the lock says {file.size}"
            )
        partial.join(body.offset, body.etag)
        for chunk in body.chunks:
            if self.stop.is_set():
                raise _StoppedError
            partial.append(chunk)

    def _sleep(self, seconds: float) -> None:
        (self.hub.patience.sleep or self.stop.wait)(seconds)
        if self.stop.is_set():
            raise _StoppedError
