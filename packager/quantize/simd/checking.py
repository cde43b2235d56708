"""Compiled kernels are believed only once they gave ggml's bytes here, for all kinds of blocks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from packager.format.ggml_types import GgmlType

_COLUMNS = 1280  # five super-blocks: batches of sixteen cross the ends of rows
_ROWS = 47  # a number that no batch divides

# source, target, rows, columns, matrix: addresses and counts
Quantize = Callable[[int, int, int, int, int | None], None]
# source, target, count
Widen = Callable[[int, int, int], None]


def gives_the_same(kind: GgmlType, quantize: Quantize, ggml: ctypes.CDLL) -> bool:
    """Whether ``quantize`` gives ggml's bytes of ``kind``, with and without a matrix."""
    values, matrix = sample_values(), sample_matrix()
    ours = np.zeros(kind.row_size(values.size), np.uint8)
    theirs = np.zeros_like(ours)
    for weights in (None, matrix.ctypes.data):
        source = values.ctypes.data
        quantize(source, ours.ctypes.data, _ROWS, _COLUMNS, weights)
        ggml.ggml_quantize_chunk(
            kind.number, source, theirs.ctypes.data, 0, _ROWS, _COLUMNS, weights
        )
        if not np.array_equal(ours, theirs):
            return False
    return True


def widens_the_same(widen: Widen, ggml: ctypes.CDLL) -> bool:
    """Whether ``widen`` gives ggml's float32 of every half-precision number but NaN."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[~np.isnan(halves.view(np.float16))]
    ours = np.zeros(halves.size, np.uint32)
    theirs = np.zeros_like(ours)
    widen(halves.ctypes.data, ours.ctypes.data, halves.size)
    ggml.ggml_fp16_to_fp32_row(halves.ctypes.data, theirs.ctypes.data, halves.size)
    return bool(np.array_equal(ours, theirs))


def sample_values() -> np.ndarray:
    """Usual and unusual weights: float32 (rows, columns), the same every time."""
    random = np.random.default_rng(20)
    values = random.standard_normal((_ROWS, _COLUMNS), np.float32)
    values *= np.float32(0.02)
    by_block = values.reshape(-1, 32)
    by_block[::3] *= np.exp(random.standard_normal((len(by_block[::3]), 1), np.float32))
    values[5:10] = random.standard_t(2, (5, _COLUMNS))
    values[10] = np.abs(values[10])
    values[11] = -np.abs(values[11])
    values[12, ::7] = 0
    values[13, random.random(_COLUMNS) < 0.97] = -0.0
    values[14] = 0.125
    values[15] *= np.float32(1e-20)
    values[16] *= np.float32(1e-38)
    values[17] *= np.float32(1e12)
    values[18] *= np.float32(1e36)
    values[19, 700] = np.nan
    values[20, 300] = -np.inf
    values[21] = 0
    values[22, ::64] = 300
    values[23] = np.round(values[23] * 100)
    return values


def sample_matrix() -> np.ndarray:
    """What columns matter, float32 (columns,): some nothing, some a thousand times the others."""
    random = np.random.default_rng(21)
    matrix = random.random(_COLUMNS, np.float32) ** 4
    matrix[::50] *= 1000
    matrix[256:272] = 0
    return matrix
