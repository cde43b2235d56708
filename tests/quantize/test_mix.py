"""The mixture of tensor types is llama.cpp's.

``tests/references/mixtures.json`` is what ``llama-quantize --dry-run`` said of models of many
shapes (scripts/make_mixture_references.py). For some types the counts of Llama 2 7B are here
too: those that llama.cpp prints when it loads the widely published files.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import REFERENCES

from packager.errors import UsageError
from packager.quantize.mix import (
    Choice,
    ModelShape,
    Override,
    Overrides,
    always_needs_matrix,
    choose_types,
    is_quantizable,
)
from packager.quantize.types import TENSOR_TYPES, TYPE_NAMES, FileType, file_type, tensor_type

MODELS: dict[str, Any] = json.loads((REFERENCES / "mixtures.json").read_text())

LLAMA_3_8B = ModelShape(layers=32, queries_per_key=4)

Layout = list[tuple[str, tuple[int, ...]]]


def shape_of(model: dict[str, Any]) -> ModelShape:
    queries, keys = model["heads"]
    return ModelShape(
        layers=model["layers"],
        queries_per_key=queries // keys,
        is_70b=model["layers"] == 80,
        experts=model["experts"],
    )


def layout(model: dict[str, Any]) -> Layout:
    """Names and shapes of a whole file, in llama.cpp's order."""
    width, inner, experts = model["width"], model["inner"], model["experts"]
    tensors: Layout = [(f"{name}.weight", (1000, width)) for name in sorted(model["outside"])]
    tensors.append(("output_norm.weight", (width,)))
    for layer in range(model["layers"]):
        for part in sorted(model["parts"]):
            columns = inner if part.startswith("ffn_down") else width
            shape = (experts, 64, columns) if part.endswith("_exps") else (64, columns)
            tensors.append((f"blk.{layer}.{part}.weight", shape))
        tensors.append((f"blk.{layer}.attn_norm.weight", (width,)))
    return tensors


def chosen(
    kind: FileType, model: str, *, overrides: Overrides | None = None, has_matrix: bool = False
) -> dict[str, Choice]:
    tensors = layout(MODELS[model]["shape"])
    choices = choose_types(
        kind,
        shape_of(MODELS[model]["shape"]),
        tensors,
        overrides=overrides,
        has_matrix=has_matrix,
    )
    return {name: choice for (name, _), choice in zip(tensors, choices, strict=True)}


def by_part(choices: dict[str, Choice]) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    for name, choice in choices.items():
        part = name.removesuffix(".weight").split(".")[-1]
        parts.setdefault(part, []).append(choice.type.name)
    return {
        part: kinds[0]
        if len(set(kinds)) == 1
        else ", ".join(f"{len(list(run))} {kind}" for kind, run in groupby(kinds))
        for part, kinds in parts.items()
        if not part.endswith("_norm")
    }


def counts(type_name: str) -> dict[str, int]:
    found = chosen(file_type(type_name), "llama-2-7b")
    return dict(Counter(choice.type.name for choice in found.values() if choice.type.block > 1))


@pytest.mark.parametrize("has_matrix", [False, True])
@pytest.mark.parametrize("type_name", TYPE_NAMES)
@pytest.mark.parametrize("model", MODELS)
def test_every_type_of_every_model_is_mixed_as_llama_quantize_does(
    model: str, type_name: str, has_matrix: bool
) -> None:
    said = MODELS[model]["types"]
    expected = said[type_name]
    if has_matrix:
        expected = said.get(f"{type_name} with matrix", expected)

    assert by_part(chosen(file_type(type_name), model, has_matrix=has_matrix)) == expected


@pytest.mark.parametrize(
    ("type_name", "expected"),
    [
        ("Q5_K_M", {"Q5_K": 193, "Q6_K": 33}),
        ("Q4_K_M", {"Q4_K": 193, "Q6_K": 33}),
        ("Q4_K_S", {"Q4_K": 217, "Q5_K": 8, "Q6_K": 1}),
        ("Q3_K_L", {"Q3_K": 129, "Q5_K": 96, "Q6_K": 1}),
        ("Q3_K_M", {"Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
    ],
)
def test_llama_2_7b_has_as_many_tensors_of_each_type_as_published_files(
    type_name: str, expected: dict[str, int]
) -> None:
    assert counts(type_name) == expected


def test_an_alias_is_the_type_that_llama_quantize_takes_it_for() -> None:
    for alias in ("Q3_K", "Q4_K", "Q5_K"):
        assert file_type(alias) is file_type(f"{alias}_M")


@pytest.mark.parametrize(
    ("type_name", "columns", "expected"),
    [
        ("Q5_K_S", 96, "Q5_1"),
        ("Q6_K", 96, "Q8_0"),
        ("Q3_K_S", 96, "Q4_0"),
        ("Q2_K", 96, "Q4_0"),
        ("TQ2_0", 96, "Q4_0"),
        ("IQ2_XXS", 96, "IQ4_NL"),
        ("IQ4_XS", 96, "IQ4_NL"),
        ("Q4_K_S", 24, "F16"),
        ("Q8_0", 24, "F16"),
        ("IQ4_NL", 24, "F16"),
    ],
)
def test_rows_that_do_not_fit_a_type_take_the_next(
    type_name: str, columns: int, expected: str
) -> None:
    kind = file_type(type_name)
    (choice,) = choose_types(kind, LLAMA_3_8B, [("blk.9.ffn_up.weight", (64, columns))])

    assert choice.type.name == expected
    assert choice.instead_of is kind.default


def test_rows_that_fit_nothing_that_llama_cpp_falls_back_to_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"blk\.0\.attn_q\.weight: rows of 96 .* Q1_0"):
        choose_types(file_type("Q1_0"), LLAMA_3_8B, [("blk.0.attn_q.weight", (64, 96))])


def test_tied_embeddings_are_quantized_as_the_output_they_also_are() -> None:
    for type_name, expected in [("Q4_K_M", "Q6_K"), ("Q4_0", "Q6_K"), ("Q8_0", "Q8_0")]:
        (choice,) = choose_types(
            file_type(type_name), LLAMA_3_8B, [("token_embd.weight", (1000, 2048))]
        )
        assert (choice.type.name, choice.instead_of) == (expected, None)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.attn_q.bias", (4, 256)),
        ("blk.0.attn_q_norm.weight", (4, 256)),
        ("blk.0.ffn_gate_inp.weight", (8, 256)),
        ("position_embd.weight", (512, 256)),
        ("token_types.weight", (2, 256)),
        ("output_norm.weight", (256,)),
        ("blk.0.attn_q.weight", (1, 256)),
    ],
)
def test_small_and_touchy_tensors_stay_as_they_are(name: str, shape: tuple[int, ...]) -> None:
    assert not is_quantizable(name, shape)
    assert choose_types(file_type("Q4_0"), LLAMA_3_8B, [(name, shape)]) == [
        Choice(tensor_type("F32"))
    ]


def test_one_row_for_each_expert_is_a_matrix_all_the_same() -> None:
    assert is_quantizable("blk.0.ffn_up_exps.weight", (8, 1, 256))


def test_an_override_is_for_the_tensors_that_its_pattern_names_and_no_others() -> None:
    overrides = Overrides(patterns=(Override("blk.*.ffn_down.weight", tensor_type("Q8_0")),))

    plain = chosen(file_type("Q4_K_S"), "llama-3-8b")
    changed = chosen(file_type("Q4_K_S"), "llama-3-8b", overrides=overrides)

    for name, choice in changed.items():
        if name.endswith("ffn_down.weight"):
            assert choice.type.name == "Q8_0"
        else:
            assert choice == plain[name]


def test_of_two_patterns_the_first_one_counts() -> None:
    overrides = Overrides(
        patterns=(
            Override("blk.0.ffn_down.weight", tensor_type("F16")),
            Override("blk.[0-3].ffn_down.weight", tensor_type("Q8_0")),
        )
    )

    found = chosen(file_type("Q4_K_M"), "llama-3-8b", overrides=overrides)

    assert [found[f"blk.{layer}.ffn_down.weight"].type.name for layer in range(4)] == [
        "F16", "Q8_0", "Q8_0", "Q8_0",
    ]  # fmt: skip


def test_a_tensor_that_the_recipe_names_is_not_counted_as_in_llama_quantize() -> None:
    r"""``--tensor-type 'blk\.0\.attn_v\.weight=q8_0'`` moves the first two of Q3_K_M on."""
    overrides = Overrides(patterns=(Override("blk.0.attn_v.weight", tensor_type("Q8_0")),))

    found = chosen(file_type("Q3_K_M"), "llama-3-8b", overrides=overrides)

    assert [found[f"blk.{layer}.attn_v.weight"].type.name for layer in range(4)] == [
        "Q8_0", "Q5_K", "Q5_K", "Q4_K",
    ]  # fmt: skip


def test_output_and_token_embedding_have_types_of_their_own() -> None:
    overrides = Overrides(output=tensor_type("Q8_0"), token_embedding=tensor_type("Q5_K"))

    untied = chosen(file_type("Q4_K_M"), "llama-3-8b", overrides=overrides)
    tied = chosen(file_type("Q4_K_M"), "llama-3.2-1b", overrides=overrides)
    tied_output = chosen(
        file_type("Q4_K_M"), "llama-3.2-1b", overrides=Overrides(output=tensor_type("Q8_0"))
    )

    assert untied["output.weight"].type.name == "Q8_0"
    assert untied["token_embd.weight"].type.name == "Q5_K"
    assert tied["token_embd.weight"].type.name == "Q5_K"
    assert tied_output["token_embd.weight"].type.name == "Q8_0"


def test_an_override_holds_for_a_file_of_plain_floats_too() -> None:
    overrides = Overrides(patterns=(Override("token_embd.weight", tensor_type("Q8_0")),))

    found = chosen(file_type("BF16"), "llama-3-8b", overrides=overrides)

    assert found["token_embd.weight"].type.name == "Q8_0"
    assert found["output.weight"].type.name == "BF16"


def test_an_override_that_the_rows_do_not_fit_falls_back_and_is_told() -> None:
    overrides = Overrides(patterns=(Override("*attn_q.weight", tensor_type("Q4_K")),))

    found = chosen(file_type("Q8_0"), "qwen2.5-0.5b", overrides=overrides)

    choice = found["blk.0.attn_q.weight"]
    assert (choice.type.name, choice.instead_of) == ("Q5_0", tensor_type("Q4_K"))


@pytest.mark.parametrize("pattern", ["blk.*.ffn_dwon.weight", "output_norm.weight", "attn_q"])
def test_a_pattern_that_names_nothing_is_refused(pattern: str) -> None:
    overrides = Overrides(patterns=(Override(pattern, tensor_type("Q8_0")),))

    with pytest.raises(UsageError, match=r"names no tensor") as caught:
        chosen(file_type("Q4_K_M"), "llama-3-8b", overrides=overrides)
    assert "blk.*.ffn_down.weight" in str(caught.value.hint)


def test_the_types_that_need_a_matrix_are_those_that_llama_quantize_refuses() -> None:
    needing = {name for name in TYPE_NAMES if always_needs_matrix(file_type(name), Overrides())}

    assert needing == {
        "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S",
    }  # fmt: skip
    for name in TYPE_NAMES:
        found = chosen(file_type(name), "llama-3-8b")
        assert any(choice.needs_matrix for choice in found.values()) == (name in needing)


def test_an_override_may_need_a_matrix_where_the_type_does_not() -> None:
    kind = file_type("Q4_K_M")

    for overrides in (
        Overrides(patterns=(Override("blk.0.ffn_up.weight", tensor_type("IQ2_S")),)),
        Overrides(output=tensor_type("IQ1_S")),
    ):
        assert always_needs_matrix(kind, overrides)
        assert any(c.needs_matrix for c in chosen(kind, "llama-3-8b", overrides=overrides).values())
    assert not always_needs_matrix(kind, Overrides(output=tensor_type("IQ3_XXS")))


@given(
    type_name=st.sampled_from(TYPE_NAMES),
    columns=st.integers(1, 40).map(lambda blocks: blocks * 8),
    part=st.sampled_from(
        ["attn_q", "attn_v", "attn_qkv", "attn_output", "ffn_up", "ffn_down", "ffn_down_exps"]
    ),
    layers=st.integers(1, 90),
    experts=st.sampled_from([0, 4, 8, 64]),
    override=st.none() | st.sampled_from(sorted(TENSOR_TYPES)),
    has_matrix=st.booleans(),
)
def test_whatever_is_chosen_the_rows_are_whole_blocks_of_it(
    type_name: str,
    columns: int,
    part: str,
    layers: int,
    experts: int,
    override: str | None,
    has_matrix: bool,
) -> None:
    model = ModelShape(layers, 4, is_70b=layers == 80, experts=experts)
    tensors = [(f"blk.{layer}.{part}.weight", (2, columns)) for layer in range(layers)]
    overrides = Overrides((Override("blk.*", tensor_type(override)),) if override else ())
    if columns % 128 and "Q1_0" in (type_name, override):
        return  # has a test of its own

    choices = choose_types(
        file_type(type_name), model, tensors, overrides=overrides, has_matrix=has_matrix
    )

    assert len(choices) == layers
    for choice in choices:
        assert columns % choice.type.block == 0
        assert choice.instead_of is None or columns % choice.instead_of.block
