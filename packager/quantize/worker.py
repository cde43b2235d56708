"""One thread's share: read a slab, widen it to float32, quantize it, write it in its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from packager.errors import EngineError, IntegrityError, TruncatedError, UsageError
from packager.quantize.kernels import Kernels
from packager.quantize.slabs import Slab
from packager.store.atomic import naming_refusals

_MAX_ELEMENT_SIZE = 4  # bytes, of float32: the widest among sources and outputs


class Worker:
    """Buffers for slabs of up to ``capacity`` elements, used again for every slab.

    ``shards`` maps paths to descriptors open for reading, ``target`` is the output's.
    """

    def __init__(
        self, kernels: Kernels, shards: Mapping[Path, int], target: int, *, capacity: int
    ) -> None:
        self._kernels = kernels
        self._shards = shards
        self._target = target
        self._raw = np.empty(capacity * _MAX_ELEMENT_SIZE, np.uint8)
        self._wide = np.empty(capacity, np.float32)
        self._out = np.empty(capacity * _MAX_ELEMENT_SIZE, np.uint8)
        self._is_finite = np.empty(capacity, np.bool_)

    def convert(self, slab: Slab) -> None:
        """Convert one slab.

        Raises ``TruncatedError`` where the shard ends early, ``IntegrityError`` for a weight
        that is infinite or not a number, ``UsageError`` for one beyond the type's range.
        """
        raw = self._raw[: slab.source_size]
        with naming_refusals(slab.source.path):
            read_all(self._shards[slab.source.path], raw.data, slab)
        wide = self._wide[: slab.elements]
        widen(raw, slab.source.entry.dtype, wide, slab)
        self._check_finite(wide, slab)
        size = self._quantize(wide, slab)
        write_all(self._target, self._out[:size].data, slab.target_begin)

    def _check_finite(self, wide: np.ndarray, slab: Slab) -> None:
        if not np.isfinite(wide, out=self._is_finite[: wide.size]).all():
            raise IntegrityError(
                f"{slab.source.shard}: the tensor {slab.source.entry.name} holds infinity or "
                "not-a-number",
                hint="the model is broken as published; take another revision",
            )

    def _quantize(self, wide: np.ndarray, slab: Slab) -> int:
        kind = slab.tensor.info.type
        target = self._out.ctypes.data
        size = self._kernels.quantize(
            kind, wide.ctypes.data, target, rows=slab.rows, columns=slab.columns
        )
        if size != kind.row_size(slab.elements):
            raise EngineError(f"ggml wrote {size} bytes of {kind.name}, not what its blocks take")
        if not self._kernels.is_valid(kind, target, size):
            raise UsageError(
                f"{slab.source.shard}: the tensor {slab.source.entry.name} holds a value beyond "
                f"the range of {kind.name}",
                hint="choose the type BF16 or F32",
            )
        return size


def widen(raw: np.ndarray, dtype: str, wide: np.ndarray, slab: Slab) -> None:
    """Write ``raw`` (bytes of ``dtype``) as float32 to ``wide``, in the order llama.cpp wants."""
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        bits = wide.view(np.uint32)
        _copy(raw.view("<u2"), bits, slab)
        np.left_shift(bits, 16, out=bits)
    else:
        _copy(raw.view("<f2" if dtype == "F16" else "<f4"), wide, slab)


def _copy(source: np.ndarray, target: np.ndarray, slab: Slab) -> None:
    """Copy rows; within each head, row i of the first half goes next to row i of the second.

    transformers rotates pairs of rows half a head apart, llama.cpp's ``llama`` neighbours.
    """
    if not slab.tensor.head_rows:
        np.copyto(target, source)
        return
    half = slab.tensor.head_rows // 2
    by_half = source.reshape(-1, 2, half, slab.columns)
    by_pair = target.reshape(-1, half, 2, slab.columns)
    np.copyto(by_pair, by_half.swapaxes(1, 2))


def read_all(descriptor: int, view: memoryview, slab: Slab) -> None:
    """Fill ``view`` from the shard of ``slab``; raises ``TruncatedError`` at its end."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], slab.source_begin + done)
        if count == 0:
            raise TruncatedError(
                f"{slab.source.shard}: ends within the tensor {slab.source.entry.name}"
            )
        done += count


def write_all(descriptor: int, view: memoryview, position: int) -> None:
    """Write ``view`` at byte ``position``, however often the system stops short."""
    while view:
        count = os.pwrite(descriptor, view, position)
        view = view[count:]
        position += count
