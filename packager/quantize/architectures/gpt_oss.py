"""gpt-oss: experts in MXFP4, biases everywhere, and sinks that attention may leave unused."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, norm, only
from packager.quantize.architectures.sliding import sliding_entries
from packager.quantize.architectures.weights import Part, Weight, linear, whole
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, uint32

_GATE_UP, _DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
_BLOCK = 32


def _layer(config: ModelConfig) -> Iterable[Weight]:
    count, inner, width = config.experts, config.feed_forward, config.width
    yield norm("attn_norm", "input_layernorm", width)
    yield norm("post_attention_norm", "post_attention_layernorm", width)
    yield from attention(config)
    yield whole("attn_sinks.weight", "self_attn.sinks", (config.heads,))
    yield from linear("ffn_gate_inp", "mlp.router", (count, width), bias=True)
    # Of the rows of gate and way up, the even ones are the gate's.
    for pick, ours in enumerate(("ffn_gate_exps", "ffn_up_exps")):
        yield _experts(config, ours, _GATE_UP, (inner, width), step=2, pick=pick)
        bias = Part(f"{_GATE_UP}_bias", (count, 2 * inner), count * inner, step=2, pick=pick)
        yield Weight(f"{ours}.bias", (count, inner), (bias,), by_element=True)
    yield _experts(config, "ffn_down_exps", _DOWN, (width, inner))
    yield whole("ffn_down_exps.bias", f"{_DOWN}_bias", (count, width))


def _experts(
    config: ModelConfig,
    ours: str,
    theirs: str,
    shape: tuple[int, int],
    *,
    step: int = 1,
    pick: int = 0,
) -> Weight:
    """A matrix of ``shape`` for each expert, in MXFP4, or in floats and on its side."""
    count, (rows, columns) = config.experts, shape
    is_mxfp4 = config.fields.has("quantization_config")
    blocks = (count, rows * step, columns // _BLOCK, _BLOCK // 2)
    parts = tuple(
        Part(
            f"{theirs}_blocks" if is_mxfp4 else theirs,
            blocks if is_mxfp4 else (count, columns, rows * step),
            rows,
            first=expert * rows * step,
            step=step,
            pick=pick,
            transposed=not is_mxfp4,
            scales=f"{theirs}_scales" if is_mxfp4 else None,
        )
        for expert in range(count)
    )
    return Weight(f"{ours}.weight", (count, *shape), parts)


def _entries(config: ModelConfig) -> Iterable[Entry]:
    only(config, tie_word_embeddings=False, swiglu_alpha=1.702, swiglu_limit=7.0)
    for key, size in (("hidden_size", config.width), ("intermediate_size", config.feed_forward)):
        if size % _BLOCK:
            raise config.fields.refuse(key, f"{size} is no multiple of {_BLOCK}, as MXFP4 needs")
    yield uint32("expert_feed_forward_length", config.feed_forward)
    yield from sliding_entries(config, full_every=2)


def _notes(config: ModelConfig) -> Iterable[str]:
    for key in ("rope_parameters", "rope_scaling"):
        if config.fields.optional_mapping(key).values.get("truncate") is False:
            yield "llama.cpp rounds the bounds between which YaRN blends, which the model does not"


GPT_OSS = Architecture(
    names=("GptOssForCausalLM",),
    gguf_name="gpt-oss",
    layer=_layer,
    entries=_entries,
    notes=_notes,
    dialect=Dialect(
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 64,
            "num_local_experts": 128,
            "num_experts_per_tok": 4,
            "rms_norm_eps": 1e-5,
            "rope_theta": 150000.0,
            "sliding_window": 128,
            "attention_bias": True,
        },
        has_experts=True,
    ),
    quantized_sources=("mxfp4",),
    keeps_window=True,
)
