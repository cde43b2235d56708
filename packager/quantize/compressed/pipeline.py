"""One pass over a shard of the source, for all files that are to be made of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from packager.errors import IntegrityError
from packager.progress import Task
from packager.quantize.compressed.encoding import Bytes, encode_rows
from packager.quantize.compressed.plan import Place, PlannedShard
from packager.quantize.compressed.schemes import Scheme
from packager.quantize.source import SourceTensor, check_unchanged
from packager.quantize.worker import read_all
from packager.store.atomic import naming_refusals, open_regular, write_all

_SLAB = 1 << 20


@dataclass(frozen=True)
class _Output:
    """A place in the file ``target``, a descriptor."""

    target: int
    scheme: Scheme
    place: Place


@dataclass(frozen=True)
class _Slab:
    """``size`` bytes of ``source`` from ``begin`` on, counted from its first; whole rows."""

    source: SourceTensor
    begin: int
    size: int
    outputs: Sequence[_Output]


def write_shards(
    shards: Mapping[Path, PlannedShard], *, threads: int | None = None, task: Task
) -> None:
    """Write files planned of one and the same shard of the source, in one pass over it.

    ``task`` counts the bytes that are read. The bytes of a file depend on its plan alone. All
    are on the disk at the end, or none is there; but a process that is killed leaves them
    unfinished, so their names should be temporary. Raises ``IntegrityError`` for a weight that is
    infinite or not a number, or a source that was changed since it was planned,
    ``TruncatedError`` for a shard that ends early, ``NoSpaceError``, ``HostError``.
    """
    threads = threads or len(os.sched_getaffinity(0))
    first = next(iter(shards.values()))
    with ExitStack() as stack:
        files = [(stack.enter_context(_reserved(out, s.size)), s) for out, s in shards.items()]
        for target, shard in files:
            for position, data in ({0: shard.header} | dict(shard.ready)).items():
                write_all(target, data, position)
        descriptor = stack.enter_context(open_regular(first.sources[0].path.resolve()))
        slabs = _cut(files)
        largest = max((slab.size for slab in slabs), default=0)
        one_pass = _Pass(descriptor, threads, largest=largest)
        pool = stack.enter_context(ThreadPoolExecutor(threads, "quantize"))
        for size in pool.map(one_pass.convert, slabs):
            task.advance(size)
        check_unchanged(first.stamps)
        for target, _ in files:
            os.fsync(target)


@contextmanager
def _reserved(path: Path, size: int) -> Iterator[int]:
    """A descriptor of the new file ``path`` of ``size`` bytes, which goes if the block fails."""
    with naming_refusals(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size)
            yield descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def _cut(files: Sequence[tuple[int, PlannedShard]]) -> list[_Slab]:
    """The slabs of a shard's tensors, in the order of their data, each of about ``_SLAB``."""
    slabs = []
    for number, source in enumerate(files[0][1].sources):
        outputs = [_Output(target, s.scheme, s.places[number]) for target, s in files]
        entry = source.entry
        is_whole = all(output.place.scales is None for output in outputs)
        row = 1 if is_whole else entry.size // max(entry.shape[0], 1)
        at_once = max(_SLAB // max(row, 1), 1) * max(row, 1)
        slabs += [
            _Slab(source, begin, min(at_once, entry.size - begin), outputs)
            for begin in range(0, entry.size, at_once)
        ]
    return slabs


class _Pass:
    """Reads slabs of up to ``largest`` bytes from the shard ``descriptor``, in several threads."""

    def __init__(self, descriptor: int, threads: int, *, largest: int) -> None:
        self._descriptor = descriptor
        self._buffers: SimpleQueue[Bytes] = SimpleQueue()
        for _ in range(threads):
            self._buffers.put(np.empty(largest, np.uint8))

    def convert(self, slab: _Slab) -> int:
        """Read one slab, and write it to each of its outputs; returns its size in bytes."""
        buffer = self._buffers.get()
        try:
            raw = buffer[: slab.size]
            begin = slab.source.entry.begin + slab.begin
            with naming_refusals(slab.source.path):
                read_all(self._descriptor, raw.data, begin, slab.source)
            for output in slab.outputs:
                _write(output, slab, raw)
        finally:
            self._buffers.put(buffer)
        return slab.size


def _write(output: _Output, slab: _Slab, raw: Bytes) -> None:
    entry, place = slab.source.entry, output.place
    if place.scales is None:
        write_all(output.target, raw.data, place.numbers + slab.begin)
        return
    rows, columns = entry.shape
    first_row = slab.begin // (entry.size // rows)
    encoded = encode_rows(raw, entry.dtype, columns, output.scheme)
    if encoded is None:
        raise IntegrityError(
            f"{slab.source.shard}: the tensor {entry.name} holds infinity or not-a-number",
            hint="the model is broken as published; take another revision",
        )
    for position, array in zip((place.numbers, place.scales), encoded, strict=True):
        write_all(output.target, array.data, position + first_row * array.shape[1])
