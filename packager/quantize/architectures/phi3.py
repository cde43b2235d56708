"""Phi-3, Phi-3.5 and Phi-4: queries, keys and values in one matrix, gate and way up in another."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import pre_norms
from packager.quantize.architectures.weights import Weight, linear
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, uint32
from packager.quantize.rope import RopeSupport


def _layer(config: ModelConfig) -> Iterable[Weight]:
    queries = config.heads * config.head_size
    keys = config.key_value_heads * config.head_size
    width, inner = config.width, config.feed_forward
    yield from pre_norms(config)
    yield from linear("attn_qkv", "self_attn.qkv_proj", (queries + 2 * keys, width))
    yield from linear("attn_output", "self_attn.o_proj", (width, queries))
    yield from linear("ffn_up", "mlp.gate_up_proj", (2 * inner, width))
    yield from linear("ffn_down", "mlp.down_proj", (width, inner))


def _entries(config: ModelConfig) -> Iterable[Entry]:
    # Without this key llama.cpp took any Phi-3 for one with a window; it uses none today.
    yield uint32("attention.sliding_window", config.sliding_window or 0)


PHI3 = Architecture(
    names=("Phi3ForCausalLM",),
    gguf_name="phi3",
    layer=_layer,
    entries=_entries,
    dialect=Dialect(
        defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
        rope=RopeSupport(("linear", "yarn", "longrope"), partial=True),
    ),
)
