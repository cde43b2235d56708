"""One thread's share: read a slab, widen it to float32, quantize it, write it in its place."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from packager.errors import EngineError, IntegrityError, TruncatedError, UsageError
from packager.quantize.fp8 import fp8_scales_range, widen_fp8
from packager.quantize.kernels import Kernels
from packager.quantize.mxfp4 import scales_range, widen_mxfp4
from packager.quantize.slabs import Output, Slab
from packager.quantize.source import SourceTensor
from packager.quantize.types import F32, LARGEST_ON_LATTICE, LATTICE_TYPES
from packager.store.atomic import naming_refusals

_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h; waits for nothing
_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

_MAX_ELEMENT_SIZE = 4  # bytes, of float32: the widest among sources and outputs


@dataclass(frozen=True)
class Target:
    """A file that threads write one after the other.

    The system would let one in at a time, too, but have the others burn their time meanwhile.
    """

    descriptor: int
    lock: Lock = field(default_factory=Lock)

    def write(self, view: memoryview, position: int) -> None:
        """Write ``view`` at byte ``position``, and have the disk begin with it at once."""
        with self.lock:
            write_all(self.descriptor, view, position)
        # Left to the fsync at the end, writing would begin when all computing is over.
        _sync_file_range(self.descriptor, position, len(view), _SYNC_FILE_RANGE_WRITE)


class Worker:
    """Buffers for slabs cut from up to ``capacity`` elements, used again for every slab.

    ``shards`` maps paths to descriptors open for reading, ``targets`` are the outputs.
    """

    def __init__(
        self,
        kernels: Kernels,
        shards: Mapping[Path, int],
        targets: Sequence[Target],
        *,
        capacity: int,
    ) -> None:
        self._kernels = kernels
        self._shards = shards
        self._targets = targets
        self._raw = np.empty(capacity * _MAX_ELEMENT_SIZE, np.uint8)
        self._wide = np.empty(capacity, np.float32)
        self._out = np.empty(capacity * _MAX_ELEMENT_SIZE, np.uint8)
        self._is_finite = np.empty(capacity, np.bool_)

    def convert(self, slab: Slab) -> None:
        """Read one slab, and write it to each of its outputs.

        Raises ``TruncatedError`` where the shard ends early, ``IntegrityError`` for a weight
        that is infinite or not a number, ``UsageError`` for one beyond the type's range.
        """
        raw = self._raw[: slab.source_size]
        self._read(raw, slab.source, slab.source_begin)
        wide = self._wide[: slab.elements]
        if slab.piece.scales is None:
            self._widen(raw, wide, slab)
        elif slab.piece.covered is not None:
            self._widen_fp8(raw, wide, slab, slab.piece.scales, slab.piece.covered)
        else:
            begin, size = scales_range(slab, slab.piece.scales)
            scales = self._raw[slab.source_size :][:size]
            self._read(scales, slab.piece.scales, begin)
            with np.errstate(over="ignore", invalid="ignore"):
                widen_mxfp4(raw, scales, wide, slab)
        if slab.tensor.plus:
            wide += np.float32(slab.tensor.plus)
        self._check_finite(wide, slab)
        for output in slab.outputs:
            size = self._quantize(wide, slab, output)
            self._targets[output.file].write(self._out[:size].data, output.begin)

    def _read(self, target: np.ndarray, source: SourceTensor, begin: int) -> None:
        with naming_refusals(source.path):
            read_all(self._shards[source.path], target.data, begin, source)

    def _widen(self, raw: np.ndarray, wide: np.ndarray, slab: Slab) -> None:
        """Write ``raw``, bytes of the source, as float32, in the order llama.cpp wants."""
        if slab.source.entry.dtype == "BF16":
            # A bfloat16 is the upper half of a float32.
            bits = wide.view(np.uint32)
            _copy(raw.view("<u2"), bits, slab)
            np.left_shift(bits, 16, out=bits)
        elif slab.source.entry.dtype == "F16":
            halves = self._out.view("<u2")[: wide.size]
            _copy(raw.view("<u2"), halves, slab)
            self._kernels.widen_f16(halves.ctypes.data, wide.ctypes.data, wide.size)
        else:
            _copy(raw.view("<f4"), wide, slab)

    def _widen_fp8(
        self,
        raw: np.ndarray,
        wide: np.ndarray,
        slab: Slab,
        scales: SourceTensor,
        covered: tuple[int, int],
    ) -> None:
        begin, size = fp8_scales_range(slab, scales, covered)
        factors = np.empty(size, np.uint8)
        self._read(factors, scales, begin)
        floats = self._out.view("<f4")[: raw.size]
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
            widen_fp8(raw, factors, scales.entry.dtype, floats, slab, covered)
        _copy(floats, wide, slab)

    def _check_finite(self, wide: np.ndarray, slab: Slab) -> None:
        if not np.isfinite(wide, out=self._is_finite[: wide.size]).all():
            raise IntegrityError(
                f"{slab.source.shard}: the tensor {slab.source.entry.name} holds infinity or "
                "not-a-number",
                hint="the model is broken as published; take another revision",
            )

    def _quantize(self, wide: np.ndarray, slab: Slab, output: Output) -> int:
        kind = output.type
        if kind in LATTICE_TYPES and max(wide.max(), -wide.min()) > LARGEST_ON_LATTICE:
            raise _beyond_range(slab, output)
        target = self._out.ctypes.data
        size = self._kernels.quantize(
            kind,
            wide.ctypes.data,
            target,
            rows=slab.rows,
            columns=slab.columns,
            matrix=None if output.matrix is None else output.matrix.ctypes.data,
        )
        if size != kind.row_size(slab.elements):
            raise EngineError(f"ggml wrote {size} bytes of {kind.name}, not what its blocks take")
        # As float32 they are those that were found finite.
        if kind is not F32 and not self._kernels.is_valid(kind, target, size):
            raise _beyond_range(slab, output)
        return size


def _beyond_range(slab: Slab, output: Output) -> UsageError:
    return UsageError(
        f"{slab.source.shard}: the tensor {slab.source.entry.name} holds a value beyond "
        f"the range of {output.type.name}",
        hint="choose the type BF16 or F32",
    )


def _copy(source: np.ndarray, target: np.ndarray, slab: Slab) -> None:
    """Copy the rows that are wanted, those of each head in llama.cpp's order.

    Where they are reordered, row i of a head's first half goes next to row i of the second:
    transformers rotates pairs of rows half a head apart, llama.cpp's ``llama`` neighbours.
    """
    piece = slab.piece
    if piece.transposed:
        rows = source.reshape(slab.columns, slab.rows, piece.step)[:, :, piece.pick].T
        np.copyto(target.reshape(slab.rows, slab.columns), rows)
        return
    if not slab.tensor.head_rows:
        wanted = source.reshape(slab.rows, piece.step, slab.columns)[:, piece.pick]
        np.copyto(target.reshape(slab.rows, slab.columns), wanted)
        return
    half = slab.tensor.head_rows // 2
    by_half = source.reshape(-1, 2, half, slab.columns)
    by_pair = target.reshape(-1, half, 2, slab.columns)
    np.copyto(by_pair, by_half.swapaxes(1, 2))


def read_all(descriptor: int, view: memoryview, begin: int, source: SourceTensor) -> None:
    """Fill ``view`` from byte ``begin`` of a shard; raises ``TruncatedError`` at its end."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], begin + done)
        if count == 0:
            raise TruncatedError(f"{source.shard}: ends within the tensor {source.entry.name}")
        done += count


def write_all(descriptor: int, view: memoryview, position: int) -> None:
    """Write ``view`` at byte ``position``, however often the system stops short."""
    while view:
        count = os.pwrite(descriptor, view, position)
        view = view[count:]
        position += count
