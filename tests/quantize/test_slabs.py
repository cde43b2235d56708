"""Slabs cover every tensor, once, in whole rows and whole heads."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from packager.format.ggml_types import BY_NAME
from packager.format.safetensors_header import TensorEntry
from packager.quantize.gguf_writer import TensorInfo
from packager.quantize.plan import PlannedTensor
from packager.quantize.slabs import cut_into_slabs, slab_size
from packager.quantize.source import SourceTensor
from packager.quantize.sourcing import Piece


def planned(
    pieces: int, rows: int, columns: int, *, head_rows: int, step: int, dtype: str, kind: str
) -> PlannedTensor:
    """A tensor of ``pieces`` pieces of ``rows`` rows, every ``step``-th of one source tensor."""
    size = rows * step * columns * (4 if dtype == "F32" else 2)
    entry = TensorEntry("t", dtype, (pieces * rows * step, columns), 100, 100 + pieces * size)
    source = SourceTensor(entry, "s", Path("s"))
    return PlannedTensor(
        TensorInfo("t", BY_NAME[kind], (pieces, rows, columns), 0),
        64,
        tuple(Piece(source, rows, number * rows * step, step) for number in range(pieces)),
        head_rows=head_rows,
    )


@given(
    pieces=st.integers(1, 3),
    heads=st.integers(1, 20),
    head_rows=st.sampled_from([0, 2, 6, 64]),
    blocks=st.integers(1, 3),
    step=st.integers(1, 2),
    dtype=st.sampled_from(["F32", "BF16"]),
    kind=st.sampled_from(["F32", "Q8_0", "Q4_K"]),
    size=st.integers(1, 1 << 18),
)
def test_slabs_are_a_partition_of_source_and_target(
    pieces: int,
    heads: int,
    head_rows: int,
    blocks: int,
    step: int,
    dtype: str,
    kind: str,
    size: int,
) -> None:
    unit = head_rows or 1
    tensor = planned(
        pieces,
        heads * unit,
        blocks * 256,
        head_rows=head_rows,
        step=step,
        dtype=dtype,
        kind=kind,
    )

    slabs = list(cut_into_slabs([[tensor]], size))

    source, target = tensor.pieces[0].source.entry.begin, tensor.position
    for slab in slabs:
        (output,) = slab.outputs
        assert (slab.source_begin, output.begin) == (source, target)
        assert slab.rows % unit == 0
        assert slab.source_size <= size or slab.rows == unit
        source += slab.source_size
        target += tensor.info.type.row_size(slab.elements)
    assert source == tensor.pieces[0].source.entry.end
    assert target == tensor.position + tensor.info.size


@given(st.integers(1, 1024))
def test_all_buffers_together_stay_small_up_to_many_threads(threads: int) -> None:
    assert 1 << 20 <= slab_size(threads) <= 4 << 20
    assert threads > 64 or threads * slab_size(threads) <= 64 << 20
