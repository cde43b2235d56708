"""Every tensor's bytes are those of one ``ggml_quantize_chunk`` call over the whole tensor.

The whole tensor is read, widened, reordered and quantized here without the code under test (but
for the library call itself), and read back by ``gguf``, llama.cpp's own reader.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import numpy as np
import pytest
from support.checkpoints import REFERENCES, files_of, read_source, write_llama

from packager.progress import Silent
from packager.quantize import slabs
from packager.quantize.kernels import find_library
from packager.quantize.pipeline import quantize
from packager.quantize.types import TYPE_NAMES, file_type

DEMO = Path(__file__).parents[2] / "packager" / "demo" / "tiny-kjv"

PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def our_name(theirs: str) -> str:
    if theirs in OUTSIDE:
        return OUTSIDE[theirs]
    _, _, layer, *_, part, suffix = theirs.split(".")
    return f"blk.{layer}.{PARTS[part]}.{suffix}"


def whole_tensor(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> bytes:
    """``values`` (rows, columns) or (n,) quantized in one call."""
    library = ctypes.CDLL(str(find_library()))
    call = library.ggml_quantize_chunk
    call.restype = ctypes.c_size_t
    block, block_size = gguf.GGML_QUANT_SIZES[kind]
    values = np.ascontiguousarray(values, np.float32)
    target = ctypes.create_string_buffer(values.size // block * block_size)
    size = call(
        ctypes.c_int(kind),
        values.ctypes.data_as(ctypes.c_void_p),
        target,
        ctypes.c_int64(0),
        ctypes.c_int64(values.size // values.shape[-1]),
        ctypes.c_int64(values.shape[-1]),
        None,
    )
    assert size == len(target)
    return target.raw


def in_pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """The order of rows llama.cpp wants, spelt out: 0, half, 1, half + 1, ... in each head."""
    size = len(values) // heads
    order = [
        head * size + half * (size // 2) + row
        for head in range(heads)
        for row in range(size // 2)
        for half in (0, 1)
    ]
    return values[order]


def expected_values(folder: Path, heads: int, keys: int, *, llama: bool) -> dict[str, np.ndarray]:
    values = {our_name(name): tensor for name, tensor in read_source(folder).items()}
    for name in values:
        if llama and ".attn_q." in name:
            values[name] = in_pairs(values[name], heads)
        elif llama and ".attn_k." in name:
            values[name] = in_pairs(values[name], keys)
    return values


def assert_bytes_are_ggmls(out: Path, expected: dict[str, np.ndarray]) -> None:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    tensors.pop("rope_freqs.weight", None)
    assert set(tensors) == set(expected)
    for name, tensor in tensors.items():
        assert list(tensor.shape) == list(expected[name].shape[::-1])
        assert tensor.data.tobytes() == whole_tensor(expected[name], tensor.tensor_type), name


# What needs an importance matrix is in test_types.py; gguf does not know Q2_0.
UNWEIGHED = [name for name in TYPE_NAMES if not file_type(name).needs_matrix and name != "Q2_0"]


@pytest.mark.parametrize("type_name", UNWEIGHED)
def test_each_type_of_the_demo_model_is_bit_identical(type_name: str, tmp_path: Path) -> None:
    out = tmp_path / "demo.gguf"

    quantize(files_of(DEMO), type_name, out, name="demo", progress=Silent())

    config = gguf.GGUFReader(out)
    heads = int(config.fields["llama.attention.head_count"].contents())
    keys = int(config.fields["llama.attention.head_count_kv"].contents())
    assert_bytes_are_ggmls(out, expected_values(DEMO, heads, keys, llama=True))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("type_name", ["F32", "Q8_0", "Q4_K_M"])
def test_many_small_slabs_give_the_bytes_of_one_call(
    dtype: str, type_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slabs, "_LARGEST_SLAB", 3000)
    monkeypatch.setattr(slabs, "_SMALLEST_SLAB", 3000)
    folder = write_llama(tmp_path / "model", dtype=dtype)
    out = tmp_path / "model.gguf"

    quantize(files_of(folder), type_name, out, name="m", threads=3, progress=Silent())

    assert_bytes_are_ggmls(out, expected_values(folder, 4, 2, llama=True))


@pytest.mark.parametrize(
    ("family", "heads", "keys", "llama"),
    [
        ("llama2", 4, 4, True),
        ("llama3", 4, 2, True),
        ("mistral", 4, 2, True),
        ("qwen2", 4, 2, False),
        ("qwen3", 4, 2, False),
    ],
)
@pytest.mark.parametrize("type_name", ["F16", "Q5_0", "Q6_K"])
def test_each_family_is_bit_identical(
    family: str, heads: int, keys: int, llama: bool, type_name: str, tmp_path: Path
) -> None:
    out = tmp_path / "model.gguf"

    quantize(files_of(REFERENCES / family), type_name, out, name=family, progress=Silent())

    assert_bytes_are_ggmls(out, expected_values(REFERENCES / family, heads, keys, llama=llama))
