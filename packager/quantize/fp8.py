"""Weights that come in FP8 (E4M3 without infinities): what they hold times their scales.

OCP 8-bit Floating Point 1.0, section 5, and of scales that are powers of two Microscaling Formats
1.0, section 5.4.1. The product is taken in float32.
"""

from __future__ import annotations

import numpy as np

from packager.format.safetensors_header import DTYPE_BITS
from packager.quantize.floats import E8M0_POWERS, FLOAT_TYPES, Floats, widen
from packager.quantize.prequantized import E8M0
from packager.quantize.slabs import Slab
from packager.quantize.source import SourceTensor


def _value(code: int) -> float:
    exponent, fraction = code >> 3 & 15, code & 7
    if code & 127 == 127:
        return float("nan")
    magnitude = (8 + fraction) * 2.0 ** (exponent - 10) if exponent else fraction * 2.0**-9
    return -magnitude if code & 128 else magnitude


_VALUES = np.array([_value(code) for code in range(256)], np.float32)


def fp8_scales_range(slab: Slab, scales: SourceTensor, covered: tuple[int, int]) -> tuple[int, int]:
    """Where in the shard of ``scales`` those of ``slab`` begin, and their size, in bytes.

    Each covers that many rows and columns.
    """
    rows = _scale_rows(slab, covered[0])
    size = -(-slab.columns // covered[1]) * DTYPE_BITS[scales.entry.dtype] // 8
    return scales.entry.begin + int(rows[0]) * size, int(rows[-1] + 1 - rows[0]) * size


def widen_fp8(
    raw: np.ndarray,
    scales: np.ndarray,
    dtype: str,
    wide: Floats,
    slab: Slab,
    covered: tuple[int, int],
) -> None:
    """Write the rows that ``slab`` is cut from, in the order of the source, as float32 to ``wide``.

    ``raw`` has a byte for each element; ``scales`` has the bytes of those scales, of ``dtype``.
    """
    np.take(_VALUES, raw, out=wide, mode="clip")
    rows = _scale_rows(slab, covered[0])
    width = min(covered[1], slab.columns)
    factors = _factors(scales, dtype).reshape(rows[-1] + 1 - rows[0], -1)[rows - rows[0]]
    by_row = wide.reshape(len(rows), slab.columns)
    whole = slab.columns // width
    blocks = by_row[:, : whole * width].reshape(len(rows), whole, width)
    blocks *= factors[:, :whole, np.newaxis]
    by_row[:, whole * width :] *= factors[:, whole:]


def _factors(scales: np.ndarray, dtype: str) -> Floats:
    """The scales in these bytes as float32."""
    if dtype == E8M0:
        return E8M0_POWERS.take(scales)
    return widen(scales.view(FLOAT_TYPES[dtype].word), dtype)


def _scale_rows(slab: Slab, height: int) -> np.ndarray:
    """For each row that ``slab`` is cut from, the row of scales that it has."""
    first = slab.source_row
    return np.arange(first, first + slab.rows * slab.piece.step) // height
