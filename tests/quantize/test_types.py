"""Every type of file, weighed by an importance matrix or not: the bytes are ggml's.

Each tensor is compared with ``ggml_quantize_chunk`` called once for all of it (once for each
expert), on the values that a file of type F32 holds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import files_of, write_llama
from support.random_checkpoints import write_random

from packager.errors import UsageError
from packager.format.ggml_types import GgmlType
from packager.format.gguf_header import GgufHeader, parse_header
from packager.progress import Silent
from packager.quantize.imatrix import ImportanceMatrix, TensorImportance
from packager.quantize.kernels import find_library, load_kernels
from packager.quantize.mix import Override, Overrides, is_quantizable
from packager.quantize.pipeline import quantize_all
from packager.quantize.tables import holding_tables
from packager.quantize.types import TYPE_NAMES, file_type, tensor_type
from packager.quantize.wanted import Wanted

NEEDING = tuple(name for name in TYPE_NAMES if file_type(name).needs_matrix)

LLAMA = "llama"
EXPERTS = "experts"
# ggml searches seconds for each hundred thousand weights of these.
SLOW = {LLAMA: ("IQ1_M",), EXPERTS: ("IQ1_S", "IQ1_M", "IQ2_S", "IQ2_M", "IQ3_XXS")}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A Llama and a mixture of experts, both with rows of whole blocks."""
    folder = tmp_path_factory.mktemp("models")
    return {
        LLAMA: write_llama(
            folder / LLAMA,
            vocab_size=272,
            num_hidden_layers=1,
            num_key_value_heads=1,
            intermediate_size=256,
        ),
        EXPERTS: write_random(
            folder / EXPERTS,
            "mixtral",
            hidden_size=256,
            intermediate_size=256,
            num_local_experts=3,
            num_hidden_layers=1,
            vocab_size=400,
        ),
    }


@pytest.fixture(scope="module", autouse=True)
def tables() -> Iterator[None]:
    """ggml builds those of a type in seconds: once for all tests, not once for each pass."""
    with holding_tables(load_kernels()):
        yield


@cache
def call() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(str(find_library())).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    return function


def by_ggml(kind: GgmlType, values: np.ndarray, weights: np.ndarray | None) -> bytes:
    """``values``, float32 (rows, columns), as ``kind``, in one call."""
    target = ctypes.create_string_buffer(kind.row_size(values.size))
    size = call()(
        ctypes.c_int(kind.number),
        ctypes.c_void_p(values.ctypes.data),
        target,
        ctypes.c_int64(0),
        *(ctypes.c_int64(count) for count in values.shape),
        None if weights is None else ctypes.c_void_p(weights.ctypes.data),
    )
    assert size == len(target)
    return target.raw


def header_of(path: Path) -> GgufHeader:
    with path.open("rb") as stream:
        return parse_header(stream, file_size=path.stat().st_size, what=path.name)


def data_of(path: Path) -> dict[str, tuple[GgmlType, tuple[int, ...], bytes]]:
    """Type, shape (rows first) and bytes of each tensor."""
    data = path.read_bytes()
    return {
        tensor.name: (
            tensor.type,
            tensor.shape[::-1],
            data[tensor.offset : tensor.offset + tensor.size],
        )
        for tensor in header_of(path).tensors
    }


def some_matrix(folder: Path, *, but: tuple[str, ...] = ()) -> ImportanceMatrix:
    """What ``llama-imatrix`` would tell of the model: all but its embeddings, and ``but``."""
    f32 = folder.parent / f"{folder.name}-f32.gguf"
    if not f32.exists():
        quantize_all(files_of(folder), {f32: Wanted.of("F32")}, name="m", progress=Silent())
    random = np.random.default_rng(2)
    tensors = {}
    for name, (_, shape, _) in data_of(f32).items():
        if is_quantizable(name, shape) and name not in ("token_embd.weight", *but):
            experts = shape[0] if len(shape) == 3 else 1
            sums = (random.standard_normal((experts, shape[-1])) ** 2 * 900).astype(np.float32)
            counts = np.array([1000, 0, 7][:experts])
            tensors[name] = TensorImportance(sums, counts)
    return ImportanceMatrix(tensors, ("a.txt",), 2, 512)


def made(folder: Path, out: Path, wanted: Wanted) -> Path:
    quantize_all(files_of(folder), {out: wanted}, name="m", progress=Silent())
    return out


def assert_ggmls(out: Path, folder: Path, matrix: ImportanceMatrix | None) -> None:
    plain = data_of(folder.parent / f"{folder.name}-f32.gguf")
    for name, (kind, shape, data) in data_of(out).items():
        values = np.frombuffer(plain[name][2], np.float32).reshape(-1, *shape[-2:])
        values = values if len(shape) > 1 else values.reshape(1, 1, -1)
        found = matrix.tensors.get(name) if matrix else None
        expected = b"".join(
            by_ggml(kind, np.ascontiguousarray(rows), found.means(number) if found else None)
            for number, rows in enumerate(values)
        )
        assert data == expected, (name, kind.name)


@pytest.mark.parametrize(
    ("model", "type_name"),
    [
        pytest.param(
            model,
            name,
            marks=[pytest.mark.sweep] if name in SLOW[model] else [],
        )
        for model in (LLAMA, EXPERTS)
        for name in TYPE_NAMES
    ],
)
def test_each_type_weighed_by_a_matrix_is_bit_identical(
    model: str, type_name: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    matrix = some_matrix(models[model])
    wanted = Wanted(file_type(type_name), matrix=matrix, matrix_name="i.gguf")

    out = made(models[model], tmp_path / "m.gguf", wanted)

    assert_ggmls(out, models[model], matrix)


@pytest.mark.parametrize("model", [LLAMA, EXPERTS])
@pytest.mark.parametrize("type_name", [name for name in TYPE_NAMES if name not in NEEDING])
def test_each_type_that_needs_no_matrix_is_bit_identical_without(
    type_name: str, model: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    some_matrix(models[model])

    out = made(models[model], tmp_path / "m.gguf", Wanted.of(type_name))

    assert_ggmls(out, models[model], None)


@pytest.mark.parametrize("type_name", NEEDING)
def test_a_type_that_needs_a_matrix_is_refused_without_and_told_how_to_make_one(
    type_name: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="without an importance matrix") as caught:
        made(models[LLAMA], tmp_path / "m.gguf", Wanted.of(type_name))

    assert "calibrate: {text: FILE, imatrix: true}" in str(caught.value.hint)
    assert not (tmp_path / "m.gguf").exists()


def test_a_matrix_that_lacks_a_tensor_which_needs_it_is_refused_by_name(
    models: Mapping[str, Path], tmp_path: Path
) -> None:
    matrix = some_matrix(models[LLAMA], but=("blk.0.ffn_up.weight",))

    with pytest.raises(UsageError, match=r"nothing on blk\.0\.ffn_up\.weight"):
        made(models[LLAMA], tmp_path / "m.gguf", Wanted(file_type("IQ2_XS"), matrix=matrix))
    made(models[LLAMA], tmp_path / "m.gguf", Wanted(file_type("Q4_K_M"), matrix=matrix))
    assert_ggmls(tmp_path / "m.gguf", models[LLAMA], matrix)


@pytest.mark.parametrize("model", [LLAMA, EXPERTS])
def test_a_matrix_of_another_model_is_refused(
    model: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    other = some_matrix(models[EXPERTS if model == LLAMA else LLAMA])
    name = "blk.0.ffn_down.weight" if model == LLAMA else "blk.0.ffn_down_exps.weight"
    wrong = TensorImportance(np.ones((1, 96), np.float32), np.ones(1, np.int64))
    matrix = ImportanceMatrix({**other.tensors, name: wrong}, (), 1, 512)

    with pytest.raises(UsageError, match="96 values for blk") as caught:
        made(models[model], tmp_path / "m.gguf", Wanted(file_type("Q4_K_M"), matrix=matrix))
    assert "another model" in str(caught.value.hint)


def test_one_count_for_all_matrices_of_a_tensor_is_for_each_of_them(
    models: Mapping[str, Path], tmp_path: Path
) -> None:
    """As ``llama-imatrix`` has it for tensors of three dimensions that are not of experts."""
    name = "blk.0.ffn_up_exps.weight"
    sums = np.random.default_rng(3).random((1, 3 * 256), np.float32) * 90
    whole = TensorImportance(sums, np.array([45]))
    matrix = ImportanceMatrix({name: whole}, (), 1, 512)

    out = made(models[EXPERTS], tmp_path / "m.gguf", Wanted(file_type("Q4_K_S"), matrix=matrix))

    some_matrix(models[EXPERTS])
    split = TensorImportance(sums.reshape(3, 256), np.array([45, 45, 45]))
    assert_ggmls(out, models[EXPERTS], ImportanceMatrix({name: split}, (), 1, 512))


def test_the_metadata_tell_of_the_matrix_in_llama_quantizes_keys_and_by_its_digest(
    models: Mapping[str, Path], tmp_path: Path
) -> None:
    matrix = some_matrix(models[LLAMA])
    wanted = Wanted(file_type("IQ3_M"), matrix=matrix, matrix_name="i.gguf")

    metadata = header_of(made(models[LLAMA], tmp_path / "m.gguf", wanted)).metadata

    assert metadata["general.file_type"] == 27
    assert metadata["quantize.imatrix.file"] == "i.gguf"
    assert metadata["quantize.imatrix.dataset"] == "a.txt"
    assert metadata["quantize.imatrix.entries_count"] == len(matrix.tensors)
    assert metadata["quantize.imatrix.chunks_count"] == 2
    assert metadata["quantize.imatrix.sha256"] == matrix.digest.hex


@pytest.mark.parametrize("kind", ["F32", "F16", "Q5_K", "Q8_0", "IQ4_XS", "IQ2_XXS", "TQ2_0"])
def test_a_tensor_gets_the_type_that_is_asked_for(
    kind: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    matrix = some_matrix(models[LLAMA])
    overrides = Overrides((Override("blk.0.ffn_down.weight", tensor_type(kind)),))

    out = made(models[LLAMA], tmp_path / "m.gguf", Wanted(file_type("Q4_K_M"), overrides, matrix))

    assert data_of(out)["blk.0.ffn_down.weight"][0].name == kind
    assert_ggmls(out, models[LLAMA], matrix)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'Q9_K'") as caught:
        file_type("Q9_K")
    assert "IQ4_XS" in str(caught.value.hint)
    with pytest.raises(UsageError, match="'Q4_K_M' is not the type of a tensor") as caught:
        tensor_type("Q4_K_M")
    assert "Q4_K" in str(caught.value.hint)
