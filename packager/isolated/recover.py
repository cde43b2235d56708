"""Have chunks that are bad or missing: from another copy, a patch, or their stripe.

Whatever comes out has its signed digest: a rebuilt chunk is checked like a read one.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.errors import MissingVolumeError
from packager.format.bundle import Bundle, PayloadFile
from packager.format.parity import combine, recovery, tile_size
from packager.isolated.chunks import ChunkHandler, read_fully
from packager.isolated.media import Media, regular_size
from packager.isolated.patch import OpenPatch
from packager.progress import Task
from packager.store.atomic import open_regular
from packager.store.open_files import allow_open_files
from packager.trust.verify import VerifiedBundle

_AT_ONCE = 8  # lost chunks of a stripe that are rebuilt together, to bound memory
_WORKERS = 2  # one adds up while the other reads and hashes


def recover_chunks(
    verified: VerifiedBundle,
    media: Media,
    lost: Iterable[int],
    *,
    good: ChunkHandler,
    task: Task,
    patches: Sequence[OpenPatch] = (),
) -> tuple[int, ...]:
    """Give ``good`` each of the chunks ``lost`` that can be had; returns those that cannot.

    What ``patches`` hold counts as one more copy of each chunk. ``good`` is called from several
    threads. ``task`` advances by the bytes of each lost chunk.
    """
    stripes = by_stripe(verified.bundle, lost)
    with _open_copies(verified.bundle, media) as copies, _open_patches(patches) as patched:
        work = _Recovery(verified.bundle, copies, patched, good, task)
        with ThreadPoolExecutor(_WORKERS) as pool:
            futures = [pool.submit(work.recover_stripe, s, tuple(n)) for s, n in stripes.items()]
            try:
                return tuple(sorted(chunk for future in futures for chunk in future.result()))
            except BaseException:  # an interrupt too must end the others; it is raised again
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def by_stripe(bundle: Bundle, chunks: Iterable[int]) -> Mapping[int, list[int]]:
    """``chunks`` by the number of the stripe that each is in."""
    stripes: dict[int, list[int]] = defaultdict(list)
    for chunk in sorted(chunks):
        stripes[chunk - bundle.volume_of(chunk).chunks.start].append(chunk)
    return stripes


def chunks_of(bundle: Bundle, file: PayloadFile) -> range:
    """The numbers of the chunks that ``file`` has bytes in."""
    size = bundle.payload.chunk_size
    return range(file.offset // size, -(-file.end // size))


def can_be_rebuilt(bundle: Bundle, lost: Iterable[int]) -> frozenset[int]:
    """Those of the chunks ``lost``, all that are, whose stripe has parity enough for them."""
    stripes = by_stripe(bundle, lost).values()
    return frozenset(chunk for s in stripes if len(s) <= len(bundle.parity) for chunk in s)


def beyond_parity(bundle: Bundle, lost: Iterable[int]) -> tuple[int, ...]:
    """The fewest of the chunks ``lost``, all that are, with which parity makes good the others.

    Ascending; those of the payload before those of parity, and of the fewest volumes.
    """
    within = len(bundle.parity)
    stripes = by_stripe(bundle, lost).values()
    return tuple(sorted(chunk for s in stripes for chunk in s[: max(0, len(s) - within)]))


@contextmanager
def _open_copies(bundle: Bundle, media: Media) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The descriptors of all copies of each volume, in the order of the volumes."""
    paths = [media.copies(volume.name) for volume in bundle.volume_files]
    allow_open_files(sum(map(len, paths)))
    with ExitStack() as stack:
        yield tuple(
            tuple(stack.enter_context(open_regular(path)) for path in copies if _is_file(path))
            for copies in paths
        )


@contextmanager
def _open_patches(patches: Sequence[OpenPatch]) -> Iterator[dict[int, list[_Source]]]:
    """Where each chunk lies that the patches hold, by its number."""
    places: dict[int, list[_Source]] = defaultdict(list)
    with ExitStack() as stack:
        for patch in patches:
            descriptor = stack.enter_context(open_regular(patch.path))
            for chunk in patch.chunks:
                places[chunk.number].append(_Source(descriptor, chunk.offset, chunk.size))
        yield places


def _is_file(path: Path) -> bool:
    return regular_size(path) is not None


@dataclass(frozen=True)
class _Recovery:
    """What the workers share."""

    bundle: Bundle
    copies: Sequence[Sequence[int]]
    patched: Mapping[int, Sequence[_Source]]
    good: ChunkHandler
    task: Task

    def recover_stripe(self, stripe: int, lost: tuple[int, ...]) -> tuple[int, ...]:
        """Hand on what can be had of the chunks ``lost``, all of ``stripe``; returns the others."""
        failed: list[int] = []
        for start in range(0, len(lost), _AT_ONCE):
            wanted = [c for c in lost[start : start + _AT_ONCE] if not self._take_copy(c)]
            failed += self._rebuild(stripe, wanted) if wanted else ()
        self.task.advance(sum(self._size(chunk) for chunk in lost))
        return tuple(failed)

    def _take_copy(self, chunk: int) -> bool:
        """Whether another copy of ``chunk`` was good, and handed on."""
        found = self._find(chunk)
        if found is None:
            return False
        self.good(chunk, found[1])
        return True

    def _rebuild(self, stripe: int, wanted: Sequence[int]) -> Sequence[int]:
        """Rebuild the chunks ``wanted`` and hand them on; returns those that stay lost."""
        try:
            rebuilt = self._combined(stripe, wanted)
        except MissingVolumeError:
            return wanted
        failed = []
        for chunk, data in zip(wanted, rebuilt, strict=True):
            whole = memoryview(data)[: self._size(chunk)]
            if hashlib.sha256(whole).hexdigest() == self.bundle.chunk_digests[chunk].hex:
                self.good(chunk, whole)
            else:  # what it was made from changed in between
                failed.append(chunk)
        return failed

    def _combined(self, stripe: int, wanted: Sequence[int]) -> list[bytearray]:
        """Raises ``MissingVolumeError`` where too little of the stripe is good."""
        bundle, count = self.bundle, len(self.bundle.volumes)
        numbers = [self._member(chunk) for chunk in wanted]
        present = self._present(stripe, set(numbers))
        sources, matrix = recovery(count, len(bundle.parity), present, numbers)
        size = tile_size(bundle.payload.chunk_size, len(numbers))
        rebuilt = [bytearray() for _ in numbers]
        for position in range(0, bundle.payload.chunk_size, size):
            tiles = combine(matrix, (present[n].read(position, size) for n in sources), size)
            for whole, tile in zip(rebuilt, tiles, strict=True):
                whole += tile
        return rebuilt

    def _present(self, stripe: int, wanted: set[int]) -> dict[int, _Source]:
        """As many good members of ``stripe`` as it takes, by number."""
        present: dict[int, _Source] = {}
        for number, volume in enumerate(self.bundle.volume_files):
            if len(present) == len(self.bundle.volumes):
                break
            if number in wanted:
                continue
            chunk = volume.chunks.start + stripe
            if chunk not in volume.chunks:  # behind the end of the last volume: zeros
                present[number] = _Source(-1, 0, 0)
            elif found := self._find(chunk):
                present[number] = found[0]
        return present

    def _find(self, chunk: int) -> tuple[_Source, memoryview] | None:
        """The first copy of ``chunk`` that is good, and its bytes."""
        offset, size = self.bundle.volume_of(chunk).place(chunk)
        buffer = memoryview(bytearray(size))
        copies = (_Source(d, offset, size) for d in self.copies[self._member(chunk)])
        for copy in (*copies, *self.patched.get(chunk, ())):
            whole = read_fully(copy.descriptor, buffer, copy.offset) == size
            if whole and hashlib.sha256(buffer).hexdigest() == self.bundle.chunk_digests[chunk].hex:
                return copy, buffer
        return None

    def _member(self, chunk: int) -> int:
        return self.bundle.volume_files.index(self.bundle.volume_of(chunk))

    def _size(self, chunk: int) -> int:
        return self.bundle.volume_of(chunk).place(chunk)[1]


@dataclass(frozen=True)
class _Source:
    """Where a good chunk lies: ``offset`` and ``size`` in the file open as ``descriptor``."""

    descriptor: int
    offset: int
    size: int

    def read(self, position: int, size: int) -> bytes:
        """``size`` bytes from ``position`` of the chunk, fewer at its end."""
        wanted = max(0, min(size, self.size - position))
        try:
            return os.pread(self.descriptor, wanted, self.offset + position) if wanted else b""
        except OSError:  # then the digest of what is rebuilt will not be right
            return b""
