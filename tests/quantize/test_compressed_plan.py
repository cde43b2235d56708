"""What becomes of each tensor in compressed-tensors, and what config.json says of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import REFERENCES, files_of, safetensors_bytes, write_llama
from support.random_checkpoints import write_random

from packager.errors import MalformedError, UsageError
from packager.format.safetensors_header import TensorEntry
from packager.quantize.architectures import find_architecture
from packager.quantize.compressed.linears import Choice, choose
from packager.quantize.compressed.plan import plan_variant
from packager.quantize.compressed.schemes import SCHEMES, find_scheme
from packager.quantize.config import parse_config
from packager.quantize.safetensors_writer import NewTensor, lay_out

FP8, W4A16 = find_scheme("FP8_DYNAMIC"), find_scheme("W4A16")
FAMILIES = [
    "llama2", "llama3", "mistral", "ministral", "ministral3", "mixtral", "qwen2", "qwen3",
    "qwen3-moe", "gemma2", "gemma3", "phi3", "phi4-mini", "granite", "granite4", "smollm3",
    "olmo2", "olmo3", "bert", "bert-cased", "xlm-roberta",
]  # fmt: skip
# GGUF's names of what are linear layers in transformers, routers and what is outside layers apart.
MATRIX = re.compile(
    r"blk\.\d+\.(attn_(q|k|v|qkv|output)|ffn_(gate|up|down)(_exps|_shexp)?)\.weight\Z"
)


def choose_of(tensors: Mapping[str, tuple[int, ...]], scheme: str = "FP8_DYNAMIC") -> Choice:
    return choose(
        [TensorEntry(name, "BF16", shape, 0, 0) for name, shape in tensors.items()],
        find_scheme(scheme),
    )


def is_ignored(module: str, choice: Choice) -> bool:
    """As compressed-tensors and vLLM have it."""
    return any(
        re.match(each[3:], module) if each.startswith("re:") else each == module
        for each in choice.ignore
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrices_of_a_family_are_quantized_and_nothing_else(family: str) -> None:
    """Those that its architecture maps to the matrices of layers in GGUF."""
    folder = REFERENCES / family
    config = json.loads((folder / "config.json").read_text())
    architecture = find_architecture(config)
    matrices = {
        part.name
        for weight in architecture.weights(parse_config(config, architecture.dialect))
        for part in weight.parts
        if MATRIX.match(weight.name)
    }

    choice = plan_variant(files_of(folder), FP8).choice

    assert {architecture.usual_name(name) for name in choice.quantized} == matrices
    assert not any(is_ignored(name.removesuffix(".weight"), choice) for name in choice.quantized)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_config_says_what_the_presets_of_the_library_are(tmp_path: Path, scheme: str) -> None:
    model = write_llama(tmp_path / "m")
    before = json.loads((model / "config.json").read_text())

    after = json.loads(plan_variant(files_of(model), find_scheme(scheme)).documents["config.json"])

    quantization = after.pop("quantization_config")
    assert after == before
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["quantization_status"] == "compressed"
    assert quantization["ignore"] == ["lm_head"]
    assert quantization["kv_cache_scheme"] is None
    storage, weights, activations = {
        "FP8_DYNAMIC": ("float-quantized", (8, "float", "channel", None), (8, "float")),
        "W8A8": ("int-quantized", (8, "int", "channel", None), (8, "int")),
        "W8A16": ("pack-quantized", (8, "int", "group", 128), None),
        "W4A16": ("pack-quantized", (4, "int", "group", 128), None),
    }[scheme]
    (group,) = quantization["config_groups"].values()
    assert quantization["format"] == storage
    assert group["targets"] == ["Linear"]
    keys = ("num_bits", "type", "strategy", "group_size")
    assert tuple(group["weights"][key] for key in keys) == weights
    assert (group["weights"]["symmetric"], group["weights"]["dynamic"]) == (True, False)
    if activations is None:
        assert group["input_activations"] is None
    else:
        expected = (*activations, "token", None)
        assert tuple(group["input_activations"][key] for key in keys) == expected
        assert group["input_activations"]["dynamic"] is True


def test_rows_that_groups_do_not_divide_are_left_alone_and_listed(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "m", intermediate_size=320)

    choice = plan_variant(files_of(model), W4A16).choice

    down = [f"model.layers.{number}.mlp.down_proj" for number in range(3)]
    assert choice.undivided == tuple(f"{name}.weight" for name in down)
    assert choice.ignore == ("lm_head", *down)
    assert "model.layers.0.mlp.up_proj.weight" in choice.quantized


def test_a_model_whose_rows_no_group_divides_is_refused_with_what_does() -> None:
    with pytest.raises(UsageError, match="groups of 128 divide the rows of no linear") as caught:
        plan_variant(files_of(REFERENCES / "llama3"), W4A16)

    assert "FP8_DYNAMIC" in (caught.value.hint or "")


def test_experts_of_a_layer_are_quantized_together_or_not_at_all(tmp_path: Path) -> None:
    """vLLM runs them in one kernel."""
    model = write_random(tmp_path / "m", "mixtral", hidden_size=128, intermediate_size=96)

    choice = plan_variant(files_of(model), W4A16).choice

    assert not any("experts" in name for name in choice.quantized)
    assert all(name.endswith(".w2.weight") for name in choice.undivided)
    assert is_ignored("model.layers.0.block_sparse_moe.experts.0.gate_proj", choice)
    assert is_ignored("model.layers.0.block_sparse_moe.gate", choice)
    assert not is_ignored("model.layers.0.self_attn.q_proj", choice)


@pytest.mark.parametrize(
    ("family", "experts", "attention"),
    [
        (
            "gpt-oss-bf16",
            "model.layers.0.mlp.experts.0.gate_proj",
            "model.layers.0.self_attn.q_proj",
        ),
        (
            "granite-moe",
            "model.layers.1.block_sparse_moe.experts.0.gate_proj",
            "model.layers.1.shared_mlp.input_linear",
        ),
    ],
)
def test_experts_in_one_tensor_are_left_alone_and_ignored_as_linear_layers(
    family: str, experts: str, attention: str
) -> None:
    choice = plan_variant(files_of(REFERENCES / family), FP8).choice

    assert len(choice.stacked) == 4
    assert is_ignored(experts, choice)
    assert f"{attention}.weight" in choice.quantized
    assert not is_ignored(attention, choice)


def test_in_a_model_that_sees_only_its_text_is_quantized_however_its_parts_are_called() -> None:
    text = "language_model.model.layers.0."
    choice = choose_of(
        {
            f"{text}self_attn.q_proj.weight": (64, 64),
            f"{text}mlp.gate.weight": (4, 64),
            "language_model.lm_head.weight": (99, 64),
            "language_model.model.embed_tokens.weight": (99, 64),
            "vision_tower.encoder.layers.0.self_attn.q_proj.weight": (64, 64),
            "model.visual.blocks.0.attn.qkv.weight": (64, 64),
            "multi_modal_projector.linear_1.weight": (64, 64),
            "model.vision_embed_tokens.img_projection.0.weight": (64, 64),
        }
    )

    assert choice.quantized == {f"{text}self_attn.q_proj.weight"}
    for prefix in ("", "model."):
        for module in (
            "vision_tower.encoder.layers.0.self_attn.q_proj",
            "visual.blocks.3.attn.qkv",
            "multi_modal_projector.linear_1",
            "vision_embed_tokens.img_projection.0",
            "language_model.layers.0.mlp.gate",
        ):
            assert is_ignored(prefix + module, choice)
    assert is_ignored("lm_head", choice)
    for layer in ("model.language_model.layers.0.", text):
        assert not is_ignored(f"{layer}self_attn.q_proj", choice)
        assert not is_ignored(f"{layer}mlp.gate_proj", choice)


def test_layers_that_are_not_known_to_be_linear_stay_and_are_ignored() -> None:
    choice = choose_of(
        {
            "model.layers.0.self_attn.q_proj.weight": (64, 64),
            "model.layers.0.mamba.in_proj.weight": (64, 64),
            "model.layers.0.mamba.conv1d.weight": (64, 1, 4),
            "model.layers.0.mlp.shared_expert_gate.weight": (1, 64),
            "model.layers.0.input_layernorm.weight": (64,),
            "model.mtp.fc.weight": (64, 64),
            "score.weight": (2, 64),
        }
    )

    assert choice.quantized == {"model.layers.0.self_attn.q_proj.weight"}
    assert choice.stacked == ()
    assert choice.ignore == (
        "lm_head",
        "model.layers.0.mamba.in_proj",
        "model.layers.0.mlp.shared_expert_gate",
        r"re:(?:.*\.)?mtp\..*",
        "score",
    )


def test_a_model_without_linear_layers_that_are_known_is_refused() -> None:
    with pytest.raises(UsageError, match="no linear layers that are known by name"):
        choose_of({"h.0.attn.c_attn.weight": (64, 192)})


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors", "mxfp4"])
def test_weights_quantized_already_are_refused(tmp_path: Path, method: str) -> None:
    model = write_llama(tmp_path / "m", quantization_config={"quant_method": method})

    with pytest.raises(UsageError, match=f"quantized already .*{method}") as caught:
        plan_variant(files_of(model), FP8)

    assert "format: safetensors" in (caught.value.hint or "")


def test_linear_layers_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "m")
    name = "model.layers.0.mlp.up_proj.weight"
    (model / "model.safetensors").write_bytes(
        safetensors_bytes({name: ("I8", (16, 16), bytes(256))})
    )

    with pytest.raises(UsageError, match=r"up_proj\.weight is I8; it is quantized from BF16"):
        plan_variant(files_of(model), FP8)


def test_a_number_in_config_that_json_cannot_say_is_refused(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "m")
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace("1e-05", "1e999"))

    with pytest.raises(MalformedError, match=r"config\.json: holds a number beyond"):
        plan_variant(files_of(model), FP8)


def test_shards_keep_their_names_and_the_index_lists_what_is_in_them(tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(REFERENCES / "qwen3", model)
    files = files_of(model)
    index = json.loads(files["model.safetensors.index.json"].read_text())

    plan = plan_variant(files, FP8)

    after = json.loads(plan.documents["model.safetensors.index.json"])
    weight_map = after["weight_map"]
    for name, shard in index["weight_map"].items():
        assert weight_map[name] == shard
        if name in plan.choice.quantized:
            assert weight_map[f"{name}_scale"] == shard
    assert len(weight_map) == len(index["weight_map"]) + len(plan.choice.quantized)
    assert [shard.name for shard in plan.shards] == sorted(set(index["weight_map"].values()))
    data = sum(shard.size - len(shard.header) for shard in plan.shards)
    assert after["metadata"]["total_size"] == data


def test_every_tensor_of_a_new_file_is_aligned() -> None:
    file = lay_out(
        [
            NewTensor("b", "F8_E4M3", (3, 5)),
            NewTensor("a", "BF16", (3, 1)),
            NewTensor("shape", "I64", (2,)),
            NewTensor("c", "I32", (1, 3)),
        ],
        what="m",
    )

    assert list(file.positions) == ["shape", "c", "a", "b"]
    sizes = np.array([8, 4, 2, 1])
    assert not (np.array(list(file.positions.values())) % sizes).any()
    assert file.size == len(file.header) + 16 + 12 + 6 + 15
