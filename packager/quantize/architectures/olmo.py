"""OLMo 2 and OLMo 3: norms after the blocks, and over all queries and all keys at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, gated_feed_forward, norm, only
from packager.quantize.architectures.sliding import check_sliding_rope, sliding_entries
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield norm("post_attention_norm", "post_attention_layernorm", config.width)
    yield norm("post_ffw_norm", "post_feedforward_layernorm", config.width)
    yield norm("attn_q_norm", "self_attn.q_norm", config.heads * config.head_size)
    yield norm("attn_k_norm", "self_attn.k_norm", config.key_value_heads * config.head_size)
    yield from attention(config)
    yield from gated_feed_forward(config)


def _check(config: ModelConfig) -> Iterable[Entry]:
    only(
        config,
        attention_bias=False,
        tie_word_embeddings=False,
        head_dim=config.width // config.heads,
    )
    return ()


def _entries_of_3(config: ModelConfig) -> Iterable[Entry]:
    yield from _check(config)
    check_sliding_rope(config, base=config.rope.base if config.rope else None)
    yield from sliding_entries(config, full_every=4)


OLMO2 = Architecture(
    names=("Olmo2ForCausalLM",),
    gguf_name="olmo2",
    layer=_layer,
    entries=_check,
    dialect=Dialect(defaults={"rms_norm_eps": 1e-5}),
)

OLMO3 = replace(
    OLMO2,
    names=("Olmo3ForCausalLM",),
    entries=_entries_of_3,
    dialect=Dialect(
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": 4096}
    ),
    keeps_window=True,
)
