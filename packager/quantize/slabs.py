"""Cutting tensors into slabs: as many whole rows as fit a small buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packager.format.safetensors_header import DTYPE_BITS
from packager.quantize.plan import PlannedTensor
from packager.quantize.source import SourceTensor

_LARGEST_SLAB = 4 << 20
_SMALLEST_SLAB = 1 << 20
_ALL_SLABS = 64 << 20


@dataclass(frozen=True)
class Slab:
    """``rows`` rows of ``columns`` elements, from ``source_begin`` in the shard of ``source``
    to ``target_begin`` in the output (bytes)."""

    tensor: PlannedTensor
    source: SourceTensor
    rows: int
    columns: int
    source_begin: int
    source_size: int
    target_begin: int

    @property
    def elements(self) -> int:
        """How many weights."""
        return self.rows * self.columns


def slab_size(threads: int) -> int:
    """Bytes of input each of ``threads`` threads takes at a time."""
    return max(_SMALLEST_SLAB, min(_LARGEST_SLAB, _ALL_SLABS // threads))


def cut_into_slabs(tensors: Iterable[PlannedTensor], size: int) -> Iterator[Slab]:
    """The slabs of ``tensors``, in order, each of about ``size`` bytes of input.

    A slab holds whole rows, and whole attention heads where their rows change order.
    """
    for tensor in tensors:
        if tensor.source is not None:
            yield from _cut(tensor, tensor.source, size)


def _cut(tensor: PlannedTensor, source: SourceTensor, size: int) -> Iterator[Slab]:
    all_rows, columns = _as_rows(tensor)
    row_size = columns * DTYPE_BITS[source.entry.dtype] // 8
    step = max(size // row_size, 1)
    if tensor.head_rows:
        step = max(step // tensor.head_rows, 1) * tensor.head_rows
    for first in range(0, all_rows, step):
        rows = min(step, all_rows - first)
        yield Slab(
            tensor=tensor,
            source=source,
            rows=rows,
            columns=columns,
            source_begin=source.entry.begin + first * row_size,
            source_size=rows * row_size,
            target_begin=tensor.position + tensor.info.type.row_size(first * columns),
        )


def _as_rows(tensor: PlannedTensor) -> tuple[int, int]:
    """(rows, columns); one dimension is one row, or a column where its elements change order."""
    shape = tensor.info.shape
    if len(shape) == 2:
        return shape[0], shape[1]
    return (shape[0], 1) if tensor.head_rows else (1, shape[0])
