"""Weights that come in MXFP4 (gpt-oss): 4-bit floats, 32 of which share a power of two.

OCP Microscaling Formats 1.0, sections 5.3.3 (FP4 E2M1) and 5.4.1 (E8M0). Two values share a
byte, the earlier in its lower half. Their float32 is exact, and ggml makes MXFP4 of it again that
has the same values.
"""

from __future__ import annotations

import numpy as np

from packager.quantize.floats import E8M0_POWERS
from packager.quantize.slabs import Slab
from packager.quantize.source import SourceTensor

BLOCK = 32

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], np.float32)
# byte -> its two values
_PAIRS = np.stack([np.tile(_VALUES, 16), np.repeat(_VALUES, 16)], axis=1)


def scales_range(slab: Slab, scales: SourceTensor) -> tuple[int, int]:
    """Where in the shard of ``scales`` those of ``slab`` begin, and their size, in bytes."""
    blocks = slab.columns // BLOCK
    size = slab.rows * slab.piece.step * blocks
    return scales.entry.begin + slab.source_row * blocks, size


def widen_mxfp4(raw: np.ndarray, scales: np.ndarray, wide: np.ndarray, slab: Slab) -> None:
    """Write the rows of ``slab`` as float32 to ``wide``.

    ``raw`` has two values a byte, ``scales`` a byte for each 32 values, row by row.
    """
    piece, blocks = slab.piece, slab.columns // BLOCK
    pairs = raw.reshape(slab.rows, piece.step, blocks * BLOCK // 2)[:, piece.pick]
    powers = E8M0_POWERS[scales.reshape(slab.rows, piece.step, blocks)[:, piece.pick]]
    np.take(_PAIRS, pairs, axis=0, out=wide.reshape(*pairs.shape, 2), mode="clip")
    by_block = wide.reshape(slab.rows, blocks, BLOCK)
    by_block *= powers[:, :, np.newaxis]
