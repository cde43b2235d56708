"""A signed bundle of zeros: as large as one likes, every digest true, nearly nothing on the disk.

    python scripts/bench/simulated.py SIZE OUTPUT KEY [PARITY]

The volumes are sparse files. Only the tar's headers are written, and the parity of the chunks
they are in. A terabyte takes some twenty seconds, for the digests of long runs of zeros.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from signed import TITLE, member, sign_volumes
from tensors import tensor_head

from packager.connected.packing.layout import Member, PayloadPlan, plan_payload
from packager.format.digest import Digest
from packager.format.parity import combine, parity_matrix
from packager.format.sizes import parse_size
from packager.format.volumes import ParityVolume, Payload, parity_name

_ZEROS = bytes(4 << 20)
_INSTALLED = 16 << 30  # bytes of payload, up to which its files are safetensors files
Patches = Mapping[int, bytes]
"""What is not zero in a file, by offset."""


def main(size: int, output: Path, key: Path, parity: int) -> None:
    """Write ``output``/bench-1.0.0 with about ``size`` bytes of payload."""
    directory = output / TITLE
    directory.mkdir(parents=True)
    plan = plan_payload(make_shards(size), None, parity)
    chunks = _Chunks(plan)
    payload = Payload(plan.layout.size, plan.chunk_size, tuple(chunks.digests()))
    files = {
        volume.name: SparseFile(volume.size, _within(chunks.headers, volume.offset, volume.size))
        for volume in plan.volumes
    }
    sums = [*_parity(plan, chunks)]
    files |= {parity_name(number): file for number, file in enumerate(sums, start=1)}
    for name, file in files.items():
        file.write(directory / name)
    digests = _digests(files)
    volumes = [
        ParityVolume(parity_name(number), file.size, tuple(_sums_digests(file, plan.chunk_size)))
        for number, file in enumerate(sums, start=1)
    ]
    sign_volumes(directory, plan, payload, volumes, digests, key)


def _digests(files: Mapping[str, SparseFile]) -> dict[str, Digest]:
    """The digest of each of ``files``; those of nothing but zeros share theirs."""
    zeros = _zero_digests({file.size for file in files.values() if not file.patches})
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(lambda f: f.digest() if f.patches else zeros[f.size], files.values())
        return dict(zip(files, found, strict=True))


def make_shards(size: int) -> list[Member]:
    """Files of zeros, of about ``size`` bytes together, no two of one size, so of one digest.

    There are as many as keep both them and the volumes that have a header quick to digest. Small
    ones begin as an install wants it, so that each has to be digested.
    """
    count = max(1, isqrt(size >> 30))
    sizes = [size // count - 512 * number for number in range(count)]
    if sum(sizes) <= _INSTALLED:
        digests = {size: SparseFile(size, {0: tensor_head(size)}).digest() for size in sizes}
    else:
        digests = _zero_digests(sizes)
    paths = (Path(f"model-{n:05d}-of-{count:05d}.safetensors") for n in range(1, count + 1))
    return [member(p, size, digests[size]) for p, size in zip(paths, sizes, strict=True)]


def _zero_digests(sizes: Iterable[int]) -> dict[int, Digest]:
    """The digest of so many zeros, for each of ``sizes``, in one pass."""
    state, done, found = hashlib.sha256(), 0, {}
    for size in sorted(sizes):
        _add_zeros(state, size - done)
        done, found[size] = size, Digest(state.copy().hexdigest())
    return found


def zeros_digest(size: int) -> Digest:
    """The digest of ``size`` zeros."""
    return _zero_digests([size])[size]


def _add_zeros(state: hashlib._Hash, count: int) -> None:
    while count > 0:
        state.update(memoryview(_ZEROS)[:count])
        count -= len(_ZEROS)


@dataclass(frozen=True)
class SparseFile:
    """A file of ``size`` bytes, zeros but for ``patches``."""

    size: int
    patches: Patches

    def digest(self) -> Digest:
        """What it would have if it were read."""
        state, done = hashlib.sha256(), 0
        for offset, data in sorted(self.patches.items()):
            _add_zeros(state, offset - done)
            state.update(data)
            done = offset + len(data)
        _add_zeros(state, self.size - done)
        return Digest(state.hexdigest())

    def write(self, path: Path) -> None:
        """Make it, with a hole wherever it has only zeros."""
        with path.open("xb") as stream:
            for offset, data in self.patches.items():
                os.pwrite(stream.fileno(), data, offset)
            stream.truncate(self.size)


class _Chunks:
    """The chunks of the payload, of which only those with a header are not all zeros."""

    def __init__(self, plan: PayloadPlan) -> None:
        self._plan = plan
        self.headers = {entry.header_offset: entry.header for entry in plan.layout.entries}
        if sum(entry.size for entry in plan.layout.entries) <= _INSTALLED:
            self.headers |= {entry.offset: tensor_head(entry.size) for entry in plan.layout.entries}
        # They begin at a multiple of 512 and have no more bytes, so each lies within one chunk.
        self.written = {offset // plan.chunk_size for offset in self.headers}

    def digests(self) -> Iterator[Digest]:
        """Of each chunk, in order; the zeros of one size share theirs."""
        size, whole = self._plan.chunk_size, self._plan.layout.size
        zeros = Digest.of(bytes(size))
        written = {number: Digest.of(self.data(number)) for number in self.written}
        count = -(-whole // size)
        for number in range(count - 1):
            yield written.get(number, zeros)
        yield written.get(count - 1) or Digest.of(bytes(whole - (count - 1) * size))

    def data(self, number: int) -> bytes:
        """The bytes of a chunk."""
        begin = number * self._plan.chunk_size
        data = bytearray(min(self._plan.chunk_size, self._plan.layout.size - begin))
        for offset, header in _within(self.headers, begin, len(data)).items():
            data[offset : offset + len(header)] = header
        return bytes(data)


def _within(patches: Patches, begin: int, size: int) -> dict[int, bytes]:
    """Those of ``patches`` that lie in a range, by their offset there."""
    return {o - begin: data for o, data in patches.items() if begin <= o < begin + size}


def _parity(plan: PayloadPlan, chunks: _Chunks) -> Sequence[SparseFile]:
    """The parity volumes: zeros wherever all of a stripe is."""
    count = plan.cut.parity
    if not count:
        return ()
    size, stripes = plan.chunk_size, plan.cut.stripes
    matrix = parity_matrix(len(plan.volumes), count)
    found: list[dict[int, bytes]] = [{} for _ in range(count)]
    for stripe in sorted({number % stripes for number in chunks.written}):
        numbers = (volume.offset // size + stripe for volume in plan.volumes)
        blocks = (chunks.data(n) if n in chunks.written else b"" for n in numbers)
        for patches, data in zip(found, combine(matrix, blocks, size), strict=True):
            patches[stripe * size] = data
    return [SparseFile(stripes * size, patches) for patches in found]


def _sums_digests(file: SparseFile, chunk_size: int) -> Iterator[Digest]:
    zeros = Digest.of(bytes(chunk_size))
    for offset in range(0, file.size, chunk_size):
        yield Digest.of(file.patches[offset]) if offset in file.patches else zeros


if __name__ == "__main__":
    size, output, key, *more = sys.argv[1:]
    main(parse_size(size), Path(output), Path(key), int(more[0]) if more else 0)
