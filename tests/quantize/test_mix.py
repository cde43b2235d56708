"""The mixture of tensor types is llama.cpp's.

Worked out by hand from the rule in llama-quant.cpp. For Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M and Q5_K_M
the counts are also those that llama.cpp prints when it loads the widely published files of these
models, which its own ``llama-quantize`` made ("- type q6_K:  33 tensors").
"""

from __future__ import annotations

from collections import Counter

import pytest

from packager.quantize.mix import Choice, ModelShape, choose_type
from packager.quantize.types import TYPE_NAMES, file_type

LLAMA_2_7B = ModelShape(layers=32, queries_per_key=1, tied_embeddings=False, is_70b=False)
LLAMA_3_8B = ModelShape(layers=32, queries_per_key=4, tied_embeddings=False, is_70b=False)
LLAMA_3_70B = ModelShape(layers=80, queries_per_key=8, tied_embeddings=False, is_70b=True)
QWEN_05B = ModelShape(layers=24, queries_per_key=7, tied_embeddings=True, is_70b=False)

# First eighth, last eighth, and every third between: of 32 layers, these.
MORE_BITS_OF_32 = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}


def layout(
    model: ModelShape, *, width: int, inner: int, biased: bool
) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Names, shapes and layers of a whole file."""
    tensors: dict[str, tuple[tuple[int, ...], int | None]] = {
        "token_embd.weight": ((1000, width), None),
        "output_norm.weight": ((width,), None),
    }
    if not model.tied_embeddings:
        tensors["output.weight"] = ((1000, width), None)
    for layer in range(model.layers):
        for part in ("attn_q", "attn_k", "attn_v"):
            tensors[f"blk.{layer}.{part}.weight"] = ((128, width), layer)
            if biased:
                tensors[f"blk.{layer}.{part}.bias"] = ((128,), layer)
        for part in ("attn_output", "ffn_gate", "ffn_up"):
            tensors[f"blk.{layer}.{part}.weight"] = ((width, width), layer)
        tensors[f"blk.{layer}.ffn_down.weight"] = ((width, inner), layer)
        for part in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{part}.weight"] = ((width,), layer)
    return tensors


def choices(
    type_name: str,
    model: ModelShape,
    *,
    width: int = 4096,
    inner: int = 11008,
    biased: bool = False,
) -> dict[str, Choice]:
    return {
        name: choose_type(file_type(type_name), model, name, shape, layer)
        for name, (shape, layer) in layout(model, width=width, inner=inner, biased=biased).items()
    }


def counts(found: dict[str, Choice]) -> dict[str, int]:
    return dict(Counter(choice.type.name for choice in found.values()))


def layers_with(found: dict[str, Choice], part: str, type_name: str) -> set[int]:
    return {
        int(name.split(".")[1])
        for name, choice in found.items()
        if f".{part}." in name and choice.type.name == type_name
    }


@pytest.mark.parametrize(
    ("type_name", "expected"),
    [
        ("F32", {"F32": 291}),
        ("F16", {"F32": 65, "F16": 226}),
        ("BF16", {"F32": 65, "BF16": 226}),
        ("Q8_0", {"F32": 65, "Q8_0": 226}),
        ("Q6_K", {"F32": 65, "Q6_K": 226}),
        ("Q5_K_M", {"F32": 65, "Q5_K": 193, "Q6_K": 33}),
        ("Q5_K_S", {"F32": 65, "Q5_K": 225, "Q6_K": 1}),
        ("Q5_1", {"F32": 65, "Q5_1": 225, "Q6_K": 1}),
        ("Q5_0", {"F32": 65, "Q5_0": 225, "Q6_K": 1}),
        ("Q4_K_M", {"F32": 65, "Q4_K": 193, "Q6_K": 33}),
        ("Q4_K_S", {"F32": 65, "Q4_K": 217, "Q5_K": 8, "Q6_K": 1}),
        ("Q4_1", {"F32": 65, "Q4_1": 225, "Q6_K": 1}),
        ("Q4_0", {"F32": 65, "Q4_0": 225, "Q6_K": 1}),
        ("Q3_K_L", {"F32": 65, "Q3_K": 129, "Q5_K": 96, "Q6_K": 1}),
        ("Q3_K_M", {"F32": 65, "Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
        ("Q3_K_S", {"F32": 65, "Q3_K": 225, "Q6_K": 1}),
        ("Q2_K", {"F32": 65, "Q2_K": 129, "Q3_K": 96, "Q6_K": 1}),
    ],
)
def test_llama_2_7b_has_as_many_tensors_of_each_type_as_llama_quantize_gives(
    type_name: str, expected: dict[str, int]
) -> None:
    assert counts(choices(type_name, LLAMA_2_7B)) == expected


def test_every_type_a_recipe_may_name_is_in_the_table_above() -> None:
    assert len(TYPE_NAMES) == 17


def test_q4_k_m_gives_more_bits_to_the_right_layers() -> None:
    found = choices("Q4_K_M", LLAMA_3_8B)

    assert layers_with(found, "attn_v", "Q6_K") == MORE_BITS_OF_32
    assert layers_with(found, "ffn_down", "Q6_K") == MORE_BITS_OF_32
    assert found["output.weight"].type.name == "Q6_K"
    assert found["token_embd.weight"].type.name == "Q4_K"


def test_q4_k_s_gives_more_bits_to_the_first_layers() -> None:
    found = choices("Q4_K_S", LLAMA_3_8B)

    assert layers_with(found, "attn_v", "Q5_K") == {0, 1, 2, 3}
    assert layers_with(found, "ffn_down", "Q5_K") == {0, 1, 2, 3}


def test_llama_3_70b_has_the_values_of_attention_one_type_up() -> None:
    found = choices("Q4_K_M", LLAMA_3_70B, width=8192, inner=28672)

    assert counts(found) == {"F32": 161, "Q4_K": 441, "Q5_K": 40, "Q6_K": 81}
    assert len(layers_with(found, "attn_v", "Q5_K")) == 40


def test_q2_k_keeps_the_values_of_attention_at_four_bits_where_four_heads_share_them() -> None:
    assert layers_with(choices("Q2_K", LLAMA_3_8B), "attn_v", "Q4_K") == set(range(32))


def test_qwen_with_rows_that_are_not_blocks_of_256_falls_back_as_published_files_do() -> None:
    found = choices("Q4_K_M", QWEN_05B, width=896, inner=4864, biased=True)

    assert counts(found) == {"F32": 121, "Q5_0": 132, "Q8_0": 13, "Q4_K": 12, "Q6_K": 12}
    assert found["token_embd.weight"].type.name == "Q8_0"
    query = found["blk.0.attn_q.weight"]
    assert query.instead_of is not None
    assert (query.instead_of.name, query.type.name) == ("Q4_K", "Q5_0")
    assert found["blk.0.ffn_down.weight"].instead_of is None


@pytest.mark.parametrize(
    ("type_name", "columns", "expected"),
    [
        ("Q5_K_S", 96, "Q5_1"),
        ("Q6_K", 96, "Q8_0"),
        ("Q3_K_S", 96, "Q4_0"),
        ("Q2_K", 96, "Q4_0"),
        ("Q4_K_S", 24, "F16"),
        ("Q8_0", 24, "F16"),
        ("Q4_0", 24, "F16"),
    ],
)
def test_rows_that_do_not_fit_a_type_take_the_next(
    type_name: str, columns: int, expected: str
) -> None:
    choice = choose_type(file_type(type_name), LLAMA_3_8B, "blk.9.ffn_up.weight", (64, columns), 9)

    assert choice.type.name == expected
    assert choice.instead_of is not None


def test_tied_embeddings_are_quantized_as_the_output_they_also_are() -> None:
    tied = ModelShape(layers=16, queries_per_key=4, tied_embeddings=True, is_70b=False)

    for type_name, expected in [("Q4_K_M", "Q6_K"), ("Q4_0", "Q6_K"), ("Q8_0", "Q8_0")]:
        choice = choose_type(file_type(type_name), tied, "token_embd.weight", (1000, 2048), None)
        assert choice == Choice(choice.type)
        assert choice.type.name == expected
