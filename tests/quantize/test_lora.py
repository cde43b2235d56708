"""LoRA adapters: llama.cpp computes with ours what transformers computes with PEFT's merged.

The adapters and transformers' answers are made by scripts/make_adapter_references.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from support.adapters import CONFIG, QUERY, half, query_adapter, write_adapter_folder
from support.checkpoints import LLAMA_CONFIG, REFERENCES, files_of, read_source
from support.probes import ask_probe, log_softmax
from support.watching import Watching

from packager.errors import AirpackError, IntegrityError, MalformedError, UsageError
from packager.format.gguf_header import parse_header
from packager.progress import Silent
from packager.quantize.lora.config import parse_adapter_config
from packager.quantize.lora.convert import read_adapter, write_adapter
from packager.quantize.pipeline import quantize

ADAPTERS = REFERENCES / "adapters"
WIDTH = 256  # of LLAMA_CONFIG

# How far a log-probability may be off, relative to the largest.
ROUNDING = 1e-5
# ggml rounds the inputs of a product to half precision where the matrix has it.
HALF_PRECISION = 5e-4
DECODERS = {"granite4": ROUNDING, "llama3": ROUNDING, "phi3": HALF_PRECISION}


def convert(folder: Path, base: Mapping[str, object], out: Path) -> Path:
    adapter = read_adapter(files_of(folder), base)
    write_adapter(adapter, out, name="adapter", progress=Silent())
    return out


def config_of(family: str) -> dict[str, object]:
    return json.loads((REFERENCES / family / "config.json").read_text(encoding="utf-8"))


def divergence(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    return (np.exp(expected) * (expected - found)).sum(axis=1)


@pytest.mark.parametrize("family", DECODERS)
def test_base_and_adapter_give_the_logits_of_the_merged_model(family: str, tmp_path: Path) -> None:
    base = REFERENCES / family
    reference = json.loads((base / "reference.json").read_text(encoding="utf-8"))
    alone, expected = (
        log_softmax(np.load(folder / "reference.npy").astype(np.float64))
        for folder in (base, ADAPTERS / family)
    )
    model = tmp_path / "model.gguf"
    quantize(files_of(base), "F32", model, name=family, progress=Silent())
    adapter = convert(ADAPTERS / family, config_of(family), tmp_path / "adapter.gguf")

    prompts = [reference["tokens"][: position + 1] for position in reference["positions"]]
    request = {"model": str(model), "adapter": str(adapter), "text": reference["text"]}
    vocabulary = expected.shape[1]
    answer = ask_probe("engine_probe.py", request | {"prompts": prompts, "vocabulary": vocabulary})

    found = np.array(answer["logprobs"])
    assert np.abs(found - expected).max() / np.abs(expected).max() < DECODERS[family]
    assert divergence(expected, found).max() < 1e-5
    assert divergence(expected, alone).min() > 0.01  # without the adapter, other answers


def test_an_encoder_and_its_adapter_give_the_vectors_of_the_merged_model(tmp_path: Path) -> None:
    base = REFERENCES / "bert"
    texts = json.loads((base / "reference.json").read_text(encoding="utf-8"))["texts"]
    model = tmp_path / "model.gguf"
    quantize(files_of(base), "F32", model, name="bert", progress=Silent())
    adapter = convert(ADAPTERS / "bert", config_of("bert"), tmp_path / "adapter.gguf")

    request = {"model": str(model), "adapter": str(adapter), "texts": texts}
    found = np.array(ask_probe("embedding_probe.py", request)["vectors"])

    expected = np.load(ADAPTERS / "bert" / "reference.npy")
    assert np.abs(found - expected).max() < HALF_PRECISION
    assert np.abs(np.load(base / "reference.npy") - expected).max() > 0.1


def test_the_file_is_what_the_strict_reader_takes_and_says_what_it_is(tmp_path: Path) -> None:
    out = convert(ADAPTERS / "llama3", config_of("llama3"), tmp_path / "a.gguf")
    with out.open("rb") as stream:
        header = parse_header(stream, file_size=out.stat().st_size, what="a.gguf")
    assert header.architecture == "llama"
    assert header.metadata["general.type"] == "adapter"
    assert header.metadata["adapter.type"] == "lora"
    assert header.metadata["adapter.lora.alpha"] == 6.0
    assert {tensor.type.name for tensor in header.tensors} == {"F32"}
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    assert shapes["blk.1.attn_k.weight.lora_a"] == (96, 2)
    assert shapes["blk.1.attn_k.weight.lora_b"] == (2, 48)
    assert shapes["output.weight.lora_b"] == (4, 640)


def test_half_precision_stays_half_precision_bit_for_bit(tmp_path: Path) -> None:
    out = convert(ADAPTERS / "phi3", config_of("phi3"), tmp_path / "a.gguf")
    written = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(out).tensors}
    source = read_source(ADAPTERS / "phi3")
    name = half("model.layers.1.mlp.gate_up_proj", "B")
    assert written["blk.1.ffn_up.weight.lora_b"].dtype == np.float16
    assert (written["blk.1.ffn_up.weight.lora_b"] == source[name]).all()


def test_converting_twice_gives_the_same_bytes_and_reports_every_byte(tmp_path: Path) -> None:
    adapter = read_adapter(files_of(ADAPTERS / "granite4"), config_of("granite4"))
    watching = Watching()
    first, second = tmp_path / "1.gguf", tmp_path / "2.gguf"
    write_adapter(adapter, first, name="a", progress=watching)
    write_adapter(adapter, second, name="a", progress=Silent())
    assert first.read_bytes() == second.read_bytes()
    [task] = watching.tasks
    assert 0 < task.done <= task.total == first.stat().st_size


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({}, 6.0),
        ({"use_rslora": True}, 6 * math.sqrt(2)),
        ({"alpha_pattern": {"q_proj": 3}}, 3.0),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 3, "q_proj": 1}}, 3.0),
        ({"alpha_pattern": {"proj": 3}}, 6.0),
        ({"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"q_proj": 4}}, 3.0),
        ({"rank_pattern": {"q_proj": 4}, "use_rslora": True}, 12.0),
    ],
)
def test_patterns_and_stabilized_ranks_say_what_multiplies(
    settings: Mapping[str, object], alpha: float
) -> None:
    config = parse_adapter_config({**CONFIG, **settings})
    assert config.alpha_of(QUERY) == pytest.approx(alpha)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"bias": "all"}, "bias is set"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is set"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters is set"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"something_of_2027": 1}, "something_of_2027 is set"),
        ({"init_lora_weights": "pissa"}, "another base than the published one"),
        ({"peft_type": "IA3"}, "the type 'IA3'"),
        ({"peft_type": None}, "the type None"),
        ({"alpha_pattern": {"(a+)+": 3}}, "more than a name"),
        ({"rank_pattern": {"^model.*": 3}}, "more than a name"),
    ],
)
def test_what_is_not_plain_lora_is_refused_with_the_way_out(
    settings: Mapping[str, object], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_adapter_config({**CONFIG, **settings})
    assert said in refused.value.message
    assert "merge_and_unload" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0),
        ("r", 2.0),
        ("r", 1 << 20),
        ("lora_alpha", 0),
        ("lora_alpha", "6"),
        ("lora_alpha", 1e99),
        ("use_rslora", 1),
        ("rank_pattern", {"q_proj": 0}),
        ("alpha_pattern", {"q_proj": None}),
        ("alpha_pattern", []),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_with_its_place(
    key: str, value: object
) -> None:
    with pytest.raises(MalformedError, match=rf"adapter_config\.json: {key}"):
        parse_adapter_config({**CONFIG, key: value})


A, B = half(QUERY, "A"), half(QUERY, "B")
FITTING = {A: (2, WIDTH), B: (WIDTH, 2)}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, "no tensors"),
        ({A: (2, WIDTH)}, "only one of two tensors"),
        ({A: (2, WIDTH), B: (WIDTH, 3)}, "whose product is no matrix"),
        ({A: (WIDTH,), B: (WIDTH, 2)}, "whose product is no matrix"),
        ({A: (3, WIDTH), B: (WIDTH, 3)}, "are of rank 3; adapter_config.json says 2"),
        ({A: (2, WIDTH), B: (128, 2)}, r"as a matrix of [128, 256]; the model's is [256, 256]"),
        ({A: (2, 64), B: (WIDTH, 2)}, "is it for another model?"),
        ({**FITTING, half("model.layers.9.self_attn.q_proj", "A"): (2, WIDTH)}, "only one of two"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    shapes: Mapping[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    folder = write_adapter_folder(tmp_path, shapes)
    with pytest.raises(AirpackError) as refused:
        read_adapter(files_of(folder), LLAMA_CONFIG)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("model.layers.9.self_attn.q_proj", "no matrix of its own in LlamaForCausalLM"),
        ("model.layers.0.mlp.experts.0.w1", "no matrix of its own"),
        ("model.layers.0.input_layernorm", "no matrix of its own"),
        ("model.embed_tokens", "no matrix of its own"),
        ("vision_tower.layers.0.q_proj", "no matrix of its own"),
    ],
)
def test_a_module_that_llama_cpp_adds_nothing_to_is_refused(
    module: str, said: str, tmp_path: Path
) -> None:
    shapes = {half(module, "A"): (2, WIDTH), half(module, "B"): (WIDTH, 2)}
    folder = write_adapter_folder(tmp_path, shapes)
    with pytest.raises(UsageError) as refused:
        read_adapter(files_of(folder), LLAMA_CONFIG)
    assert repr(module) in refused.value.message
    assert said in refused.value.message


def test_an_adapter_of_the_output_needs_an_output_of_its_own(tmp_path: Path) -> None:
    rows = int(str(LLAMA_CONFIG["vocab_size"]))
    shapes = {half("lm_head", "A"): (2, WIDTH), half("lm_head", "B"): (rows, 2)}
    files = files_of(write_adapter_folder(tmp_path, shapes))
    [pair] = read_adapter(files, LLAMA_CONFIG).pairs
    assert pair.name == "output.weight"
    with pytest.raises(UsageError, match="no matrix of its own"):
        read_adapter(files, {**LLAMA_CONFIG, "tie_word_embeddings": True})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", "of the embeddings"),
        (f"base_model.model.{QUERY}.lora_magnitude_vector", "of DoRA"),
        ("base_model.model.lm_head.base_layer.weight", "a copy of the model's own"),
        ("base_model.model.lm_head.weight", "trained as a whole"),
        ("q_proj.lora_A.weight", "no tensor of plain LoRA"),
    ],
)
def test_a_tensor_beside_those_of_plain_lora_is_refused(
    name: str, said: str, tmp_path: Path
) -> None:
    folder = write_adapter_folder(tmp_path, {**FITTING, name: (2, WIDTH)})
    with pytest.raises(UsageError) as refused:
        read_adapter(files_of(folder), LLAMA_CONFIG)
    assert said in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_both_files_is_no_adapter(missing: str, tmp_path: Path) -> None:
    files = files_of(query_adapter(tmp_path, width=WIDTH))
    del files[missing]
    with pytest.raises(UsageError, match=missing):
        read_adapter(files, LLAMA_CONFIG)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = query_adapter(tmp_path / "adapter", width=WIDTH)
    weights = folder / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + np.float32(np.nan).tobytes())
    adapter = read_adapter(files_of(folder), LLAMA_CONFIG)
    with pytest.raises(IntegrityError, match=r"q_proj.*not a number"):
        write_adapter(adapter, tmp_path / "out.gguf", name="a", progress=Silent())


def test_weights_that_are_quantized_are_refused(tmp_path: Path) -> None:
    folder = query_adapter(tmp_path, width=WIDTH)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(UsageError, match="is I32"):
        read_adapter(files_of(folder), LLAMA_CONFIG)
