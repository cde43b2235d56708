"""Weights that come in MXFP4: their floats are exact, and become MXFP4 again without a loss."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st

from packager.format.ggml_types import BY_NAME
from packager.format.safetensors_header import TensorEntry
from packager.quantize.gguf_writer import TensorInfo
from packager.quantize.kernels import load_kernels
from packager.quantize.mxfp4 import scales_range, widen_mxfp4
from packager.quantize.plan import PlannedTensor
from packager.quantize.slabs import Slab, cut_into_slabs
from packager.quantize.source import SourceTensor
from packager.quantize.sourcing import Piece

MXFP4 = BY_NAME["MXFP4"]
# E8M0: far enough from both ends that ggml finds a scale for every block.
SCALES = st.integers(8, 246)


def slabs_of(experts: int, rows: int, blocks: int, step: int, pick: int, size: int) -> list[Slab]:
    shape = (experts, rows * step, blocks, 16)
    codes = SourceTensor(
        TensorEntry("b", "U8", shape, 100, 100 + experts * rows * step * blocks * 16),
        "s",
        Path("s"),
    )
    scales = SourceTensor(
        TensorEntry("s", "U8", shape[:-1], 7, 7 + experts * rows * step * blocks), "s", Path("s")
    )
    pieces = tuple(
        Piece(codes, rows, number * rows * step, step, pick, scales=scales)
        for number in range(experts)
    )
    info = TensorInfo("t", MXFP4, (experts, rows, blocks * 32), 0)
    return list(cut_into_slabs([[PlannedTensor(info, 0, pieces)]], size))


@given(
    experts=st.integers(1, 3),
    rows=st.integers(1, 8),
    blocks=st.integers(1, 3),
    step=st.integers(1, 2),
    size=st.integers(1, 400),
    data=st.data(),
)
def test_floats_are_exact_and_become_mxfp4_of_the_same_values(
    experts: int, rows: int, blocks: int, step: int, size: int, data: st.DataObject
) -> None:
    pick = data.draw(st.integers(0, step - 1))
    count = experts * rows * step * blocks
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = random.integers(0, 256, (count, 16), np.uint8)
    scales = np.array(data.draw(st.lists(SCALES, min_size=count, max_size=count)), np.uint8)
    expected = reference(codes, scales).reshape(experts * rows, step, blocks * 32)[:, pick]
    kernels = load_kernels()
    found, kept = [], []

    for slab in slabs_of(experts, rows, blocks, step, pick, size):
        wide = np.empty(slab.elements, np.float32)
        first = slab.source_begin - 100
        begin, length = scales_range(slab, slab.piece.scales or slab.source)
        widen_mxfp4(
            codes.reshape(-1)[first : first + slab.source_size],
            scales[begin - 7 : begin - 7 + length],
            wide,
            slab,
        )
        out = np.empty(MXFP4.row_size(slab.elements), np.uint8)
        kernels.quantize(
            MXFP4, wide.ctypes.data, out.ctypes.data, rows=slab.rows, columns=slab.columns
        )
        found.append(wide)
        kept.append(dequantize(out, gguf.GGMLQuantizationType.MXFP4))

    assert np.array_equal(np.concatenate(found), expected.reshape(-1))
    assert np.array_equal(np.concatenate(kept), expected.reshape(-1))


def reference(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The values by the letter of the specification, float32 (blocks, 32)."""
    values = np.zeros((len(codes), 32), np.float32)
    for place in range(32):
        code = codes[:, place // 2] >> (4 * (place % 2)) & 15
        exponent, mantissa = code >> 1 & 3, code & 1
        normal = (1 + mantissa / 2) * 2.0 ** (exponent.astype(int) - 1)
        magnitude = np.where(exponent == 0, mantissa / 2, normal)
        values[:, place] = np.where(code & 8, -magnitude, magnitude)
    return values * np.ldexp(np.float32(1), scales.astype(int) - 127)[:, np.newaxis]
