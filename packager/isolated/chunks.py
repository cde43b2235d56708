"""Reading chunks, of volumes and elsewhere: every core, each checked before anybody else sees it.

A worker reads a run of neighbouring chunks into its own reused buffer, checks each against its
signed digest, and hands it on only then.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packager.format.bundle import Bundle
from packager.isolated.media import Media
from packager.isolated.turns import Turns
from packager.progress import Task
from packager.store.atomic import open_regular
from packager.store.open_files import allow_open_files
from packager.trust.verify import VerifiedBundle

# Buffers of 1 to 4 MiB, reused, make hashing free beside the copy; larger or fresh ones do not.
_RUN_SIZE = 1 << 20
# Each has a buffer, and no medium is as fast as so many.
_MOST_WORKERS = 16
# Beyond the cores, where workers also wait for each other.
_WAITING_WORKERS = 2

ChunkHandler = Callable[[int, memoryview], None]


@dataclass(frozen=True)
class Run:
    """Neighbouring chunks, from the ``first`` on, that are read at once.

    They lie in the file open as ``descriptor``: ``offset`` there and ``size``, in bytes.
    """

    descriptor: int
    first: int
    offset: int
    size: int


def read_chunks(
    verified: VerifiedBundle,
    places: dict[str, Path],
    chunks: Sequence[int],
    *,
    good: ChunkHandler,
    bad: Callable[[int], None],
    task: Task,
    in_order: bool = False,
    workers: int | None = None,
) -> None:
    """Read ``chunks``, in ascending order, from the volumes at ``places``.

    ``good`` gets the number and the bytes of each chunk that has its signed digest, ``bad`` the
    number of each that has not, or that the device would not give; both from several threads.
    With ``in_order`` they are checked as before, and ``good`` gets one at a time, ascending.
    """
    bundle = verified.bundle
    allow_open_files(len(places))
    with open_all(places) as descriptors:
        runs = _runs(bundle, descriptors, chunks)
        reader = _Reader(bundle, runs, good, bad, task, in_order=in_order)
        reader.read(workers)


def read_runs(
    verified: VerifiedBundle,
    runs: Iterator[Run],
    *,
    good: ChunkHandler,
    bad: Callable[[int], None],
    task: Task,
) -> None:
    """Read the chunks of ``runs`` from wherever they lie; ``good`` and ``bad`` as above."""
    _Reader(verified.bundle, runs, good, bad, task, in_order=False).read()


@contextmanager
def open_all(places: Mapping[str, Path]) -> Iterator[dict[str, int]]:
    """A descriptor of each volume; errors in the block are not theirs, and pass as they are."""
    descriptors: dict[str, int] = {}
    try:
        for name, path in places.items():
            with open_regular(path) as descriptor:
                descriptors[name] = os.dup(descriptor)
        yield descriptors
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _runs(bundle: Bundle, descriptors: Mapping[str, int], chunks: Sequence[int]) -> Iterator[Run]:
    """Group ``chunks`` into runs that stay inside one of the open volumes."""
    for volume in bundle.volume_files:
        if volume.name not in descriptors:
            continue
        begin = bisect_left(chunks, volume.chunks.start)
        end = bisect_left(chunks, volume.chunks.stop)
        for first, count in group_chunks(chunks[begin:end], volume.chunk_size):
            offset, _ = volume.place(first)
            last, size = volume.place(first + count - 1)
            yield Run(descriptors[volume.name], first, offset, last + size - offset)


def group_chunks(chunks: Sequence[int], chunk_size: int) -> Iterator[tuple[int, int]]:
    """Group ``chunks``, ascending, into neighbours of a megabyte at most: the first, how many."""
    per_run = max(1, _RUN_SIZE // chunk_size)
    begin = 0
    while begin < len(chunks):
        first, count = chunks[begin], 1
        while count < min(per_run, len(chunks) - begin) and chunks[begin + count] == first + count:
            count += 1
        yield first, count
        begin += count


class _Reader:
    """What the workers share: the runs still to do, and where to hand chunks."""

    def __init__(
        self,
        bundle: Bundle,
        runs: Iterator[Run],
        good: ChunkHandler,
        bad: Callable[[int], None],
        task: Task,
        *,
        in_order: bool,
    ) -> None:
        self._digests = bundle.chunk_digests
        self._chunk_size = bundle.payload.chunk_size
        self._runs = enumerate(runs)
        self._good = good
        self._bad = bad
        self._task = task
        self._in_order = in_order
        self._turns = Turns()
        self._lock = threading.Lock()

    def read(self, workers: int | None = None) -> None:
        """Have all runs read; ``workers`` are as many as the cores, and some, unless told."""
        cores = len(os.sched_getaffinity(0))
        waiting = _WAITING_WORKERS if self._in_order else 0
        count = workers or min(cores + waiting, _MOST_WORKERS)
        with ThreadPoolExecutor(count) as pool, self._stopping_on_error():
            for future in [pool.submit(self._work) for _ in range(count)]:
                future.result()

    def _work(self) -> None:
        """Take runs until there are none left, or until a worker failed."""
        buffer = memoryview(bytearray(max(_RUN_SIZE, self._chunk_size)))
        while taken := self._next():
            number, run = taken
            with self._stopping_on_error():
                checked = self._check_run(run, buffer)
                if self._in_order:
                    self._turns.take(number, partial(self._hand_on, checked))
                else:
                    self._hand_on(checked)
                with self._lock:
                    self._task.advance(run.size)

    @contextmanager
    def _stopping_on_error(self) -> Iterator[None]:
        """Leave the workers no further runs if the block fails, or a person interrupts it."""
        try:
            yield
        except BaseException:  # an interrupt too must end the others; it is raised again
            with self._lock:
                self._runs = enumerate(())
            self._turns.call_off()
            raise

    def _next(self) -> tuple[int, Run] | None:
        with self._lock:
            return next(self._runs, None)

    def _check_run(self, run: Run, buffer: memoryview) -> list[tuple[int, memoryview]]:
        """The good chunks of ``run`` and their numbers; tells of those that are bad."""
        checked: list[tuple[int, memoryview]] = []
        whole = read_fully(run.descriptor, buffer[: run.size], run.offset) == run.size
        for start in range(0, run.size, self._chunk_size):
            number = run.first + start // self._chunk_size
            chunk = buffer[start : min(start + self._chunk_size, run.size)]
            # A run cut short by one bad sector or an early end is read again chunk by chunk, so
            # that only the chunks that cannot be had are lost.
            position = run.offset + start
            there = whole or read_fully(run.descriptor, chunk, position) == len(chunk)
            if there and hashlib.sha256(chunk).hexdigest() == self._digests[number].hex:
                checked.append((number, chunk))
            else:
                self._bad(number)
        return checked

    def _hand_on(self, checked: Iterable[tuple[int, memoryview]]) -> None:
        for number, chunk in checked:
            self._good(number, chunk)


def read_fully(descriptor: int, buffer: memoryview, position: int) -> int:
    """Fill ``buffer`` from ``position``; returns the bytes read before an end or an error."""
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], position + done)
        except OSError:
            return done
        if count == 0:
            return done
        done += count
    return done


def volume_places(bundle: Bundle, media: Media, copy: int = 0) -> dict[str, Path]:
    """Where each volume of either kind lies, for those of which there is copy number ``copy``."""
    copies = {volume.name: media.copies(volume.name) for volume in bundle.volume_files}
    return {name: paths[copy] for name, paths in copies.items() if copy < len(paths)}
