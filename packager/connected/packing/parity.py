"""Write the parity volumes of a payload that is packed already.

Stripes run across all volumes, so this is a second reading of the payload: from the files that
went into it, which lie on a faster disk than a bundle that is built on a stick. Each chunk must
have the digest that it was packed with. A few chunks are in memory at a time, and the sums.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from packager.connected.packing.layout import PayloadPlan
from packager.connected.packing.payload import PayloadReader
from packager.errors import IntegrityError
from packager.format.digest import Digest
from packager.format.parity import combine, parity_matrix, tile_size
from packager.format.volumes import ParityVolume, Payload, Volume, parity_name, volume_chunks
from packager.progress import Progress, Task
from packager.store.atomic import naming_refusals
from packager.store.open_files import allow_open_files

_MOST_UNCHECKED = 2  # blocks that wait in memory


@dataclass(frozen=True)
class WrittenParity:
    """The parity volumes as the index has them, and the digest of each whole file."""

    volumes: tuple[ParityVolume, ...]
    digests: dict[str, Digest]


def write_parity(
    plan: PayloadPlan, payload: Payload, directory: Path, progress: Progress
) -> WrittenParity:
    """Write the parity volumes of ``plan``, packed as ``payload``, into ``directory``, fsynced.

    Raises ``IntegrityError`` where a member is no longer what was packed, ``NoSpaceError`` or
    ``HostError`` for what the system refuses.
    """
    count = plan.cut.parity
    if count == 0:
        return WrittenParity((), {})
    allow_open_files(len(plan.volumes) + count)
    with ExitStack() as stack:
        columns = [
            _Column(volume, payload, stack.enter_context(PayloadReader(plan, volume.offset)))
            for volume in plan.volumes
        ]
        writers = [
            stack.enter_context(_Writer(directory / parity_name(n + 1), payload.chunk_size))
            for n in range(count)
        ]
        task = stack.enter_context(progress.task("parity", payload.size))
        checker = stack.enter_context(ThreadPoolExecutor(1))
        stripes = _Stripes(columns, payload.chunk_size, count, checker, task)
        for _ in range(plan.cut.stripes):
            for tile in stripes.next_sums():
                for writer, data in zip(writers, tile, strict=True):
                    writer.write(data)
        for writer in writers:
            writer.finish()
    size = plan.cut.stripes * payload.chunk_size
    made = tuple(ParityVolume(w.path.name, size, tuple(w.chunks)) for w in writers)
    return WrittenParity(made, {w.path.name: Digest(w.whole.hexdigest()) for w in writers})


class _Column:
    """What one volume has of each stripe: read in order, and compared with what was packed."""

    def __init__(self, volume: Volume, payload: Payload, reader: PayloadReader) -> None:
        self._volume = volume
        self._reader = reader
        self._chunk_size = payload.chunk_size
        self._expected = (payload.chunks[number] for number in volume_chunks(payload, volume))
        self._state = hashlib.sha256()
        self._read = self._checked = 0

    def read(self, buffer: memoryview) -> bytes:
        """The next bytes, as many as there are in ``buffer`` or left, through that."""
        view = buffer[: self._volume.size - self._read]
        self._reader.fill(view)
        self._read += len(view)
        return bytes(view)

    def check(self, data: bytes) -> None:
        """Take what was read next; raises ``IntegrityError`` at the end of a changed chunk."""
        self._state.update(data)
        self._checked += len(data)
        if self._checked % self._chunk_size == 0 or self._checked == self._volume.size:
            found, self._state = Digest(self._state.hexdigest()), hashlib.sha256()
            if found != next(self._expected):
                raise IntegrityError(
                    f"{self._volume.name}: what is in it changed while its parity was computed"
                )


@dataclass(frozen=True)
class _Stripes:
    """The stripes of a packed payload, and what they add up to."""

    columns: Sequence[_Column]
    chunk_size: int
    count: int
    checker: ThreadPoolExecutor
    task: Task

    def next_sums(self) -> Iterator[list[bytes]]:
        """The parity of the next stripe, tile by tile: of each parity volume some bytes."""
        matrix = parity_matrix(len(self.columns), self.count)
        size = tile_size(self.chunk_size, self.count)
        for _ in range(0, self.chunk_size, size):
            yield combine(matrix, self._blocks(size), size)

    def _blocks(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes of each column; all are checked by the end."""
        buffer = memoryview(bytearray(size))
        checks: deque[Future[None]] = deque()
        for column in self.columns:
            data = column.read(buffer)
            if data:
                checks.append(self.checker.submit(column.check, data))
                self.task.advance(len(data))
            yield data
            if len(checks) > _MOST_UNCHECKED:
                checks.popleft().result()
        for check in checks:
            check.result()


class _Writer:
    """A parity volume being written: its path, its chunks' digests, and the hash of all of it."""

    def __init__(self, path: Path, chunk_size: int) -> None:
        self.path = path
        self.chunks: list[Digest] = []
        self.whole = hashlib.sha256()
        self._chunk_size = chunk_size
        self._chunk = hashlib.sha256()
        self._filled = 0
        with naming_refusals(path):
            self._stream = open(path, "wb", buffering=0)  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> _Writer:  # noqa: PYI034
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stream.close()

    def write(self, data: bytes) -> None:
        """Add a piece of the chunk at hand."""
        with naming_refusals(self.path):
            rest = memoryview(data)
            while rest:
                rest = rest[self._stream.write(rest) :]
        self.whole.update(data)
        self._chunk.update(data)
        self._filled += len(data)
        if self._filled == self._chunk_size:
            self.chunks.append(Digest(self._chunk.hexdigest()))
            self._chunk, self._filled = hashlib.sha256(), 0

    def finish(self) -> None:
        """Have it on the disk."""
        with naming_refusals(self.path):
            os.fsync(self._stream.fileno())
