"""Write the parity volumes of a payload that is packed already.

Stripes run across all volumes, so this is a second reading of them, of what the page cache
still holds where memory allows. One chunk of one volume is in memory at a time, and the sums.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from packager.errors import IntegrityError
from packager.format.digest import Digest
from packager.format.parity import combine, parity_matrix, tile_size
from packager.format.volumes import ParityVolume, Payload, Volume, parity_name, stripe_count
from packager.progress import Progress, Task
from packager.store.atomic import naming_refusals, open_regular
from packager.store.open_files import allow_open_files


@dataclass(frozen=True)
class WrittenParity:
    """The parity volumes as the index has them, and the digest of each whole file."""

    volumes: tuple[ParityVolume, ...]
    digests: dict[str, Digest]


def write_parity(
    payload: Payload, volumes: Sequence[Volume], count: int, directory: Path, progress: Progress
) -> WrittenParity:
    """Write ``count`` parity volumes beside ``volumes`` in ``directory``, each fsynced.

    Raises ``IntegrityError`` where a volume is shorter than it was, ``NoSpaceError`` or
    ``HostError`` for what the system refuses.
    """
    if count == 0:
        return WrittenParity((), {})
    allow_open_files(len(volumes) + count)
    stripes = stripe_count(payload, volumes)
    with ExitStack() as stack:
        sources = [stack.enter_context(open_regular(directory / v.name)) for v in volumes]
        writers = [
            stack.enter_context(_Writer(directory / parity_name(n + 1), payload.chunk_size))
            for n in range(count)
        ]
        task = stack.enter_context(progress.task("parity", payload.size))
        stripe = _Stripes(payload, volumes, sources, count, task)
        for number in range(stripes):
            for tile in stripe.sums(number):
                for writer, data in zip(writers, tile, strict=True):
                    writer.write(data)
        for writer in writers:
            writer.finish()
    size = stripes * payload.chunk_size
    made = tuple(ParityVolume(w.path.name, size, tuple(w.chunks)) for w in writers)
    return WrittenParity(made, {w.path.name: Digest(w.whole.hexdigest()) for w in writers})


@dataclass(frozen=True)
class _Stripes:
    """The stripes of a packed payload, and what they add up to."""

    payload: Payload
    volumes: Sequence[Volume]
    sources: Sequence[int]
    count: int
    task: Task

    def sums(self, number: int) -> Iterator[list[bytes]]:
        """The parity of stripe ``number``, tile by tile: of each parity volume some bytes."""
        matrix = parity_matrix(len(self.volumes), self.count)
        size = tile_size(self.payload.chunk_size, self.count)
        begin = number * self.payload.chunk_size
        for position in range(begin, begin + self.payload.chunk_size, size):
            yield combine(matrix, self._blocks(position, size), size)

    def _blocks(self, position: int, size: int) -> Iterator[bytes]:
        for volume, source in zip(self.volumes, self.sources, strict=True):
            wanted = max(0, min(size, volume.size - position))
            data = os.pread(source, wanted, position) if wanted else b""
            if len(data) != wanted:
                raise IntegrityError(f"{volume.name}: changed while its parity was computed")
            self.task.advance(wanted)
            yield data


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
