"""The importance matrix file is llama.cpp's own: what it wrote is read, and written again.

``tests/references/demo.imatrix.gguf`` is of the demo model, as float32, on its held-out text:
``llama-imatrix -m demo-f32.gguf -f held-out.txt -c 128 -o demo.imatrix.gguf``.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.checkpoints import REFERENCES

from packager.errors import AirpackError, HostError, IntegrityError, MalformedError
from packager.format.digest import Digest
from packager.quantize.gguf_writer import Entry, TensorInfo, encode_header, text, texts, uint32
from packager.quantize.imatrix import (
    ImportanceMatrix,
    TensorImportance,
    parse_matrix,
    read_matrix,
)
from packager.quantize.kernels import load_kernels
from packager.quantize.types import F16, F32


def importance(sums: list[list[float]], counts: list[int]) -> TensorImportance:
    return TensorImportance(np.array(sums, np.float32), np.array(counts, np.int64))


def matrix(**tensors: TensorImportance) -> ImportanceMatrix:
    named = {name.replace("__", "."): value for name, value in tensors.items()}
    return ImportanceMatrix(named, ("calibration.txt",), 3, 512)


SMALL = matrix(
    blk__0__ffn_down__weight=importance([[1, 4, 9]], [2]),
    blk__0__ffn_up_exps__weight=importance([[2, 4], [0, 0], [6, 9]], [2, 0, 3]),
)


class _Parameters(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def written_by_ggml(of: ImportanceMatrix, path: Path) -> bytes:
    """What the calls of ``IMatrixCollector::save_imatrix`` write for the same numbers."""
    library = load_kernels().library
    for name in ("ggml_init", "gguf_init_empty", "ggml_new_tensor_2d", "ggml_get_data"):
        getattr(library, name).restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.ggml_init(_Parameters(16 << 20, None, False)))
    file = ctypes.c_void_p(library.gguf_init_empty())
    library.gguf_set_val_str(file, b"general.type", b"imatrix")
    names = [name.encode() for name in of.datasets]
    library.gguf_set_arr_str(
        file, b"imatrix.datasets", (ctypes.c_char_p * len(names))(*names), len(names)
    )
    library.gguf_set_val_u32(file, b"imatrix.chunk_count", ctypes.c_uint32(of.chunk_count))
    library.gguf_set_val_u32(file, b"imatrix.chunk_size", ctypes.c_uint32(of.chunk_size))
    for name in sorted(of.tensors):
        entry = of.tensors[name]
        for suffix, values in ((".in_sum2", entry.sums), (".counts", entry.counts[:, None])):
            data = np.ascontiguousarray(values, np.float32)
            rows, columns = (ctypes.c_int64(size) for size in data.shape)
            tensor = ctypes.c_void_p(library.ggml_new_tensor_2d(context, 0, columns, rows))
            library.ggml_set_name(tensor, (name + suffix).encode())
            ctypes.memmove(library.ggml_get_data(tensor), data.ctypes.data, data.nbytes)
            library.gguf_add_tensor(file, tensor)
    library.gguf_write_to_file(file, str(path).encode(), ctypes.c_bool(False))
    library.gguf_free(file)
    library.ggml_free(context)
    return path.read_bytes()


def same(first: ImportanceMatrix, second: ImportanceMatrix) -> bool:
    return first.encode() == second.encode()


def test_ggml_writes_the_same_bytes(tmp_path: Path) -> None:
    assert SMALL.encode() == written_by_ggml(SMALL, tmp_path / "theirs.gguf")


def test_what_ggml_wrote_is_read(tmp_path: Path) -> None:
    written_by_ggml(SMALL, tmp_path / "theirs.gguf")

    found = read_matrix(tmp_path / "theirs.gguf")

    assert same(found, SMALL)
    assert found.digest == SMALL.digest == Digest.of(SMALL.encode())
    assert (found.datasets, found.chunk_count, found.chunk_size) == (("calibration.txt",), 3, 512)


def test_a_file_of_llama_imatrix_is_read_and_written_again_byte_for_byte() -> None:
    path = REFERENCES / "demo.imatrix.gguf"

    found = read_matrix(path)

    assert found.encode() == path.read_bytes()
    assert (found.datasets, found.chunk_size) == (("held-out.txt",), 128)
    assert len(found.tensors) == 3 * 7
    tokens = found.chunk_count * 128
    assert {tuple(entry.counts) for entry in found.tensors.values()} == {(tokens,)}


def test_means_are_the_sums_over_the_tokens_and_ones_where_there_were_none() -> None:
    experts = SMALL.tensors["blk.0.ffn_up_exps.weight"]

    assert [experts.means(number).tolist() for number in range(3)] == [[1, 2], [1, 1], [2, 3]]


def test_one_row_is_for_whatever_part_of_the_tensor() -> None:
    assert SMALL.tensors["blk.0.ffn_down.weight"].means(7).tolist() == [0.5, 2.0, 4.5]


def test_one_count_may_be_for_all_rows() -> None:
    found = importance([[2, 4, 6, 8]], [2]).of_experts(2)

    assert [found.means(number).tolist() for number in range(2)] == [[1, 2], [3, 4]]


def test_the_digest_changes_with_any_number() -> None:
    other = matrix(**{**SMALL.tensors, "blk.0.ffn_down.weight": importance([[1, 4, 9]], [3])})

    assert other.digest != SMALL.digest


columns = st.integers(1, 9)


@st.composite
def tensors(draw: st.DrawFn) -> TensorImportance:
    shape = (draw(st.integers(1, 4)), draw(columns))
    sums = draw(arrays.arrays(np.float32, shape, elements=st.floats(0, 2.0**100, width=32)))
    counts = draw(arrays.arrays(np.int64, shape[0], elements=st.integers(0, 1 << 24)))
    return TensorImportance(sums, counts)


@given(
    st.builds(
        ImportanceMatrix,
        st.dictionaries(
            st.text("abcdefgh._0123456789", min_size=1, max_size=40), tensors(), min_size=1
        ),
        st.lists(st.text(max_size=20), max_size=3).map(tuple),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, (1 << 32) - 1),
    )
)
def test_any_matrix_comes_back_as_it_was(of: ImportanceMatrix) -> None:
    found = parse_matrix(of.encode(), what="m")

    assert same(found, of)
    assert (found.datasets, found.chunk_count, found.chunk_size) == (
        of.datasets,
        of.chunk_count,
        of.chunk_size,
    )
    for name, entry in of.tensors.items():
        assert found.tensors[name].sums.tolist() == entry.sums.tolist()
        assert found.tensors[name].counts.tolist() == entry.counts.tolist()


@settings(max_examples=300)
@given(st.data())
def test_any_byte_changed_is_read_or_refused_by_an_error_of_ours(data: st.DataObject) -> None:
    raw = bytearray(SMALL.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_matrix(bytes(raw), what="m")
    except AirpackError as error:
        assert error.message.startswith("m: ")  # noqa: PT017
    else:
        for entry in found.tensors.values():
            assert np.isfinite(entry.sums).all()
            assert (entry.counts >= 0).all()


@given(st.data())
def test_a_file_cut_before_its_last_number_is_refused(data: st.DataObject) -> None:
    raw = SMALL.encode()
    padding = 32 - 3 * 4  # after the three counts
    size = data.draw(st.integers(0, len(raw) - padding - 1))

    with pytest.raises(IntegrityError, match="m: "):
        parse_matrix(raw[:size], what="m")


def file(entries: list[Entry] | None = None, **values: list[float]) -> bytes:
    """A GGUF file of float32 tensors of one dimension, with the metadata of a matrix."""
    known = [
        text("general.type", "imatrix"),
        texts("imatrix.datasets", ["a"]),
        uint32("imatrix.chunk_count", 1),
        uint32("imatrix.chunk_size", 512),
    ]
    infos, blobs, offset = [], [], 0
    for name, numbers in values.items():
        infos.append(TensorInfo(name.replace("__", "."), F32, (len(numbers),), offset))
        blobs.append(struct.pack(f"<{len(numbers)}f", *numbers).ljust(32, b"\0"))
        offset += 32
    return encode_header(known if entries is None else entries, infos) + b"".join(blobs)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (struct.pack("<ii", 7, 3) + b"abc", "no importance matrix in GGUF form"),
        (b"", "no importance matrix"),
        (file(), "without entries"),
        (file([text("general.type", "model")], a__in_sum2=[1]), "a GGUF file, but no importance"),
        (file([text("general.type", "imatrix")], a__in_sum2=[1], a__counts=[1]), "datasets"),
        (file(a__in_sum2=[1]), "lacks its counts"),
        (file(a__counts=[1]), "lacks its sums"),
        (file(a__in_sum2=[1], a__counts=[1], b__weight=[1]), "neither sums nor counts"),
        (file(__in_sum2=[1], __counts=[1]), "neither sums nor counts"),
        (file(a__in_sum2=[1, 2, 3], a__counts=[1, 1]), "3 sums for 2 counts"),
        (file(a__in_sum2=[1, float("nan")], a__counts=[1]), "sum of squares that is none"),
        (file(a__in_sum2=[1, float("inf")], a__counts=[1]), "sum of squares that is none"),
        (file(a__in_sum2=[-1], a__counts=[1]), "sum of squares that is none"),
        (file(a__in_sum2=[1], a__counts=[-1]), "count that is none"),
        (file(a__in_sum2=[1], a__counts=[float("nan")]), "count that is none"),
        (file(a__in_sum2=[1], a__counts=[1e30]), "count that is none"),
    ],
)
def test_what_is_no_importance_matrix_is_refused_with_the_reason(data: bytes, match: str) -> None:
    with pytest.raises(MalformedError, match=f"m.gguf: .*{match}"):
        parse_matrix(data, what="m.gguf")


def test_an_old_file_is_refused_with_the_command_that_converts_it() -> None:
    with pytest.raises(MalformedError) as caught:
        parse_matrix(struct.pack("<i", 3) + bytes(100), what="old.dat")
    assert "llama-imatrix --in-file" in str(caught.value.hint)


def test_numbers_of_sixteen_bits_are_refused() -> None:
    data = encode_header(
        [text("general.type", "imatrix")],
        [TensorInfo("a.in_sum2", F16, (4,), 0), TensorInfo("a.counts", F32, (1,), 32)],
    ) + bytes(64)

    with pytest.raises(MalformedError, match="not float32"):
        parse_matrix(data, what="m")


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no such file"):
        read_matrix(tmp_path / "none.gguf")
    with pytest.raises(IntegrityError, match="not a regular file"):
        read_matrix(tmp_path)
