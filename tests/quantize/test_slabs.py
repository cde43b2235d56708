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


def planned(rows: int, columns: int, head_rows: int, dtype: str, kind: str) -> PlannedTensor:
    size = rows * columns * (4 if dtype == "F32" else 2)
    entry = TensorEntry("t", dtype, (rows, columns), 100, 100 + size)
    info = TensorInfo("t", BY_NAME[kind], (rows, columns), 0)
    return PlannedTensor(info, 64, SourceTensor(entry, "s", Path("s")), head_rows=head_rows)


@given(
    heads=st.integers(1, 20),
    head_rows=st.sampled_from([0, 2, 6, 64]),
    blocks=st.integers(1, 3),
    dtype=st.sampled_from(["F32", "BF16"]),
    kind=st.sampled_from(["F32", "Q8_0", "Q4_K"]),
    size=st.integers(1, 1 << 18),
)
def test_slabs_are_a_partition_of_source_and_target(
    heads: int, head_rows: int, blocks: int, dtype: str, kind: str, size: int
) -> None:
    tensor = planned(heads * (head_rows or 1), blocks * 256, head_rows, dtype, kind)
    assert tensor.source is not None

    slabs = list(cut_into_slabs([tensor], size))

    source, target = tensor.source.entry.begin, tensor.position
    for slab in slabs:
        assert (slab.source_begin, slab.target_begin) == (source, target)
        assert slab.rows % (head_rows or 1) == 0
        one_unit = slab.rows == (head_rows or 1)
        assert slab.source_size <= size or one_unit
        source += slab.source_size
        target += tensor.info.type.row_size(slab.elements)
    assert source == tensor.source.entry.end
    assert target == tensor.position + tensor.info.size


@given(st.integers(1, 1024))
def test_all_buffers_together_stay_small_up_to_many_threads(threads: int) -> None:
    assert 1 << 20 <= slab_size(threads) <= 4 << 20
    assert threads > 64 or threads * slab_size(threads) <= 64 << 20
