"""What each architecture takes, what it refuses by name, and other spellings of the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkpoints import REFERENCES, files_of, safetensors_bytes
from support.watching import Watching

from packager.errors import AirpackError, MalformedError, UsageError
from packager.format.safetensors_header import SafetensorsHeader
from packager.progress import Silent
from packager.quantize.architectures import check_supported
from packager.quantize.pipeline import quantize
from packager.quantize.source import read_header

GGUF_NAMES = {
    "bert": "bert",
    "bert-cased": "bert",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gpt-oss": "gpt-oss",
    "gpt-oss-bf16": "gpt-oss",
    "granite": "granite",
    "granite-moe": "granitemoe",
    "granite4": "granite",
    "llama-gpt2": "llama",
    "llama2": "llama",
    "llama3": "llama",
    "ministral": "llama",
    "ministral3": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "nomic-bert": "nomic-bert",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "phi3": "phi3",
    "phi4-mini": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3-moe": "qwen3moe",
    "smollm3": "smollm3",
    "xlm-roberta": "bert",
}


def config_of(family: str) -> dict[str, object]:
    config: dict[str, object] = json.loads((REFERENCES / family / "config.json").read_text())
    return config


def refusal_of(config: dict[str, object]) -> AirpackError | None:
    try:
        check_supported(config)
    except AirpackError as error:
        return error
    return None


def test_every_reference_is_of_a_supported_architecture() -> None:
    families = [path.name for path in REFERENCES.iterdir() if (path / "config.json").is_file()]

    found = {family: check_supported(config_of(family)) for family in families}

    assert found == GGUF_NAMES


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
SLIDING_YARN = {"full_attention": {"rope_type": "default"}, "sliding_attention": YARN}
OTHER_BASE = {
    "full_attention": {"rope_type": "default", "rope_theta": 500000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gemma2", {"query_pre_attn_scalar": 256}, "query_pre_attn_scalar"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_act"),
        ("gemma2", {"attention_bias": True}, "attention_bias"),
        ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3", {"rope_parameters": SLIDING_YARN}, "sliding attention"),
        ("gpt-oss", {"swiglu_limit": 5.0}, "swiglu_limit"),
        ("gpt-oss", {"quantization_config": {"quant_method": "fp8"}}, "quantized already.*fp8"),
        ("granite4", {"layer_types": ["attention", "mamba"]}, "layer_types"),
        ("granite4", {"num_local_experts": 4}, "num_local_experts"),
        ("granite4", {"position_embedding_type": None}, "position_embedding_type"),
        ("nomic-bert", {"prenorm": True}, "prenorm"),
        ("nomic-bert", {"activation_function": "gelu"}, "hidden_act"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"hidden_act": "relu"}, "hidden_act"),
        ("olmo2", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("olmo3", {"rope_parameters": OTHER_BASE}, "sliding attention"),
        ("phi3", {"rope_parameters": {"rope_type": "llama3"}}, "llama3"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("qwen3", {"rope_parameters": {**YARN, "beta_fast": 16.0}}, "beta_fast"),
        ("qwen3-moe", {"norm_topk_prob": False}, "norm_topk_prob"),
        ("qwen3-moe", {"mlp_only_layers": [0]}, "mlp_only_layers"),
        ("qwen3-moe", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, "no_rope_layers"),
        ("llama3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused_from_the_configuration_alone(
    family: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_supported({**config_of(family), **changes})


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gemma3", {"layer_types": ["sliding_attention"]}, "1 for 3 layers"),
        ("gpt-oss", {"intermediate_size": 40}, "multiple of 32"),
        ("mixtral", {"num_local_experts": 1}, "num_local_experts"),
        ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ("granite", {"residual_multiplier": 0}, "residual_multiplier"),
        ("phi4-mini", {"rope_parameters": {"rope_type": "longrope"}}, "short_factor"),
        ("qwen3-moe", {"moe_intermediate_size": 0}, "moe_intermediate_size"),
        ("xlm-roberta", {"max_position_embeddings": 2}, "max_position_embeddings"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_their_place(
    family: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(MalformedError, match=said):
        check_supported({**config_of(family), **changes})


@pytest.mark.parametrize("family", GGUF_NAMES)
def test_a_configuration_cut_down_anywhere_is_taken_or_refused_by_an_error_of_ours(
    family: str,
) -> None:
    config = config_of(family)
    changed = [
        {**config, key: value} for key in config for value in (None, 0, -1, [], {}, "x", 10**9)
    ]
    refusals = [error for one in changed if (error := refusal_of(one))]

    assert refusals
    assert all(error.message.startswith("config.json: ") for error in refusals)


class Checkpoint:
    """The files of a reference, and a copy of them that may be changed."""

    def __init__(self, family: str, folder: Path) -> None:
        self.files = files_of(REFERENCES / family)
        self.config = config_of(family)
        self._folder = folder
        folder.mkdir()

    def change_config(self, config: dict[str, object]) -> None:
        self._write("config.json", json.dumps(config).encode())

    def change_tensors(
        self, name_of: Callable[[str], str], **added: tuple[str, tuple[int, ...], bytes]
    ) -> None:
        """Rewrite the shard with other names, and tensors ``added`` to it."""
        data = self.files["model.safetensors"].read_bytes()
        header: SafetensorsHeader = read_header(self.files["model.safetensors"], "model")
        tensors = {
            name_of(entry.name): (entry.dtype, entry.shape, data[entry.begin : entry.end])
            for entry in header.tensors
        }
        extra = {name.replace("__", "."): value for name, value in added.items()}
        self._write("model.safetensors", safetensors_bytes({**tensors, **extra}))

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.write_bytes(data)
        self.files[name] = path

    def bytes(self) -> bytes:
        """The Q8_0 file."""
        out = self._folder / "out.gguf"
        quantize(self.files, "Q8_0", out, name="model", progress=Silent())
        return out.read_bytes()


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gemma3", "Gemma3ForConditionalGeneration"),
        ("ministral3", "Mistral3ForConditionalGeneration"),
    ],
)
def test_the_text_part_of_a_model_with_eyes_is_the_model_without(
    family: str, name: str, prefix: str, tmp_path: Path
) -> None:
    plain = Checkpoint(family, tmp_path / "plain")
    seeing = Checkpoint(family, tmp_path / "seeing")
    text = {key: value for key, value in seeing.config.items() if key != "architectures"}
    seeing.change_config({"architectures": [name], "text_config": text, "vision_config": {}})
    seeing.change_tensors(
        lambda theirs: (
            f"language_model.{theirs}"
            if theirs.startswith("lm_head.")
            else prefix + theirs.removeprefix("model.")
        ),
        vision_tower__patch__weight=("BF16", (2, 2), bytes(8)),
    )

    assert seeing.bytes() == plain.bytes()


def test_a_decoder_saved_without_its_head_is_the_same_model(tmp_path: Path) -> None:
    plain = Checkpoint("qwen2", tmp_path / "plain")
    headless = Checkpoint("qwen2", tmp_path / "headless")
    headless.change_tensors(lambda name: name.removeprefix("model."))

    assert headless.bytes() == plain.bytes()


def test_a_bert_made_for_guessing_words_long_ago_is_the_same_encoder(tmp_path: Path) -> None:
    plain = Checkpoint("bert", tmp_path / "plain")
    old = Checkpoint("bert", tmp_path / "old")
    old.change_tensors(
        lambda name: (
            "bert."
            + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
        ),
        bert__embeddings__position_ids=("I64", (1, 160), bytes(8 * 160)),
        cls__predictions__bias=("BF16", (480,), bytes(2 * 480)),
    )

    assert old.bytes() == plain.bytes()


def test_one_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    twice = Checkpoint("bert", tmp_path / "twice")
    norm = ("BF16", (64,), bytes(128))
    twice.change_tensors(lambda name: name, bert__embeddings__LayerNorm__weight=norm)

    with pytest.raises(MalformedError, match="another name"):
        twice.bytes()


@pytest.mark.parametrize(
    ("family", "dropped", "legacy"),
    [
        (
            "gemma3",
            ("rope_parameters",),
            {
                "rope_theta": 1000000.0,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        (
            "phi4-mini",
            ("rope_parameters",),
            {"rope_theta": 10000.0, "partial_rotary_factor": 0.75, "rope_scaling": "su"},
        ),
        ("olmo3", ("rope_parameters",), {"rope_theta": 500000.0, "rope_scaling": "yarn"}),
        ("granite4", (), {"layer_types": ["attention", "attention"]}),
        ("ministral", ("layer_types",), {}),
        ("gpt-oss", ("layer_types",), {}),
        ("olmo3", ("layer_types",), {}),
    ],
)
def test_older_spellings_of_a_configuration_mean_the_same(
    family: str, dropped: tuple[str, ...], legacy: dict[str, object], tmp_path: Path
) -> None:
    new = Checkpoint(family, tmp_path / "new")
    old = Checkpoint(family, tmp_path / "old")
    kept = {key: value for key, value in old.config.items() if key not in dropped}
    if isinstance(kind := legacy.get("rope_scaling"), str):
        rope = old.config["rope_parameters"]
        assert isinstance(rope, dict)
        found = {**rope.get("full_attention", rope), "type": kind}
        legacy = {**legacy, "rope_scaling": {k: v for k, v in found.items() if k != "rope_type"}}
    old.change_config({**kept, **legacy})

    assert old.bytes() == new.bytes()


def test_a_tensor_that_llama_cpp_has_no_use_for_is_refused_not_dropped(tmp_path: Path) -> None:
    odd = Checkpoint("mixtral", tmp_path / "odd")
    odd.change_tensors(
        lambda name: name, model__layers__0__extra__weight=("BF16", (2, 2), bytes(8))
    )

    with pytest.raises(UsageError, match=r"model\.layers\.0\.extra\.weight"):
        odd.bytes()


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    lacking = Checkpoint("mixtral", tmp_path / "lacking")
    expert = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
    lacking.change_tensors(lambda name: name.replace(expert, "lost"))

    with pytest.raises(MalformedError, match=expert.replace(".", r"\.")):
        lacking.bytes()


@pytest.mark.parametrize(("kind", "said"), [("Q8_0", True), ("MXFP4_MOE", False)])
def test_experts_in_mxfp4_that_become_another_type_are_told(
    kind: str, said: bool, tmp_path: Path
) -> None:
    progress = Watching()
    quantize(
        files_of(REFERENCES / "gpt-oss"), kind, tmp_path / "o.gguf", name="m", progress=progress
    )

    assert any("MXFP4" in note for note in progress.notes) == said


def test_yarn_with_bounds_that_are_not_rounded_is_told(tmp_path: Path) -> None:
    exact = Checkpoint("gpt-oss", tmp_path / "exact")
    rope = exact.config["rope_parameters"]
    assert isinstance(rope, dict)
    exact.change_config({**exact.config, "rope_parameters": {**rope, "truncate": False}})
    progress = Watching()

    quantize(exact.files, "MXFP4_MOE", tmp_path / "o.gguf", name="m", progress=progress)

    assert any("YaRN" in note for note in progress.notes)


def test_a_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    broken = Checkpoint("gpt-oss", tmp_path / "broken")
    header = read_header(broken.files["model.safetensors"], "model")
    entry = next(e for e in header.tensors if e.name.endswith("0.mlp.experts.down_proj_scales"))
    data = bytearray(broken.files["model.safetensors"].read_bytes())
    data[entry.begin] = 255
    broken._write("model.safetensors", bytes(data))

    with pytest.raises(AirpackError, match=r"down_proj_blocks holds infinity or not-a-number"):
        broken.bytes()
