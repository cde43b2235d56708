"""Cutting tensors into slabs: as many whole rows as fit a small buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packager.format.ggml_types import GgmlType
from packager.quantize.plan import PlannedTensor
from packager.quantize.source import SourceTensor
from packager.quantize.sourcing import Piece

_LARGEST_SLAB = 2 << 20
_SMALLEST_SLAB = 1 << 20
_ALL_SLABS = 64 << 20


@dataclass(frozen=True, eq=False)
class Output:
    """Where a slab goes: from byte ``begin`` of the ``file``-th file, as ``type``.

    ``matrix``, float32 (columns,), weighs its columns.
    """

    file: int
    type: GgmlType
    begin: int
    matrix: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Slab:
    """``rows`` rows of ``columns`` elements, and where they go.

    They come from ``source_size`` bytes from ``source_begin`` on in the shard of ``source``, which
    is its row ``source_row``, as ``piece`` has it. ``tensor`` is that of the first file, but for
    its type the same in all.
    """

    tensor: PlannedTensor
    piece: Piece
    rows: int
    columns: int
    source_row: int
    source_begin: int
    source_size: int
    outputs: tuple[Output, ...]

    @property
    def source(self) -> SourceTensor:
        """The tensor that it is cut from."""
        return self.piece.source

    @property
    def elements(self) -> int:
        """How many weights."""
        return self.rows * self.columns


def slab_size(threads: int) -> int:
    """Bytes of input each of ``threads`` threads takes at a time."""
    return max(_SMALLEST_SLAB, min(_LARGEST_SLAB, _ALL_SLABS // threads))


def cut_into_slabs(files: Sequence[Sequence[PlannedTensor]], size: int) -> Iterator[Slab]:
    """The slabs of the tensors of ``files``, in order, each of about ``size`` bytes of input.

    The files have the same tensors but for their types. A slab holds whole rows of one piece,
    whole attention heads where their rows change order, and all rows of a transposed one.
    """
    for tensors in zip(*files, strict=True):
        first_row = 0
        for expert, piece in enumerate(tensors[0].pieces):
            yield from _cut(tensors, piece, expert, first_row, size)
            first_row += piece.rows


def _cut(
    tensors: Sequence[PlannedTensor], piece: Piece, expert: int, first_row: int, size: int
) -> Iterator[Slab]:
    tensor = tensors[0]
    columns = tensor.columns
    row_size = piece.row_size(columns)
    at_once = max(size // row_size, 1)
    if piece.transposed:
        at_once = piece.rows
    elif tensor.head_rows:
        at_once = max(at_once // tensor.head_rows, 1) * tensor.head_rows
    matrices = [each.importance.means(expert) if each.importance else None for each in tensors]
    for done in range(0, piece.rows, at_once):
        rows = min(at_once, piece.rows - done)
        yield Slab(
            tensor=tensor,
            piece=piece,
            rows=rows,
            columns=columns,
            source_row=piece.first + done * piece.step,
            source_begin=piece.begin(columns) + done * row_size,
            source_size=rows * row_size,
            outputs=tuple(
                Output(
                    number,
                    each.info.type,
                    each.position + each.info.type.row_size((first_row + done) * columns),
                    matrix,
                )
                for number, (each, matrix) in enumerate(zip(tensors, matrices, strict=True))
            ),
        )
