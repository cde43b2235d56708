"""Gemma 2: norms around every block, soft caps, a sliding window in every other layer."""

from __future__ import annotations

from collections.abc import Iterable

from packager.errors import UsageError
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import (
    attention,
    ends,
    gated_feed_forward,
    norm,
    only,
)
from packager.quantize.architectures.sliding import sliding_entries
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, float32
from packager.quantize.numbers import positive

# transformers multiplies by 1 + weight.
PLUS = 1.0


def gemma_ends(config: ModelConfig) -> Iterable[Weight]:
    """What stands outside the layers of a Gemma."""
    return ends(config, plus=PLUS)


def gemma_layer(config: ModelConfig) -> Iterable[Weight]:
    """One layer of a Gemma 2."""
    for ours, theirs in (
        ("attn_norm", "input_layernorm"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ):
        yield norm(ours, theirs, config.width, plus=PLUS)
    yield from attention(config)
    yield from gated_feed_forward(config)


def check_gemma(config: ModelConfig, *, layers_of_27b: int) -> None:
    """Refuse what llama.cpp computes otherwise: it takes the scale of attention from the shape."""
    only(config, attention_bias=False, tie_word_embeddings=True, use_bidirectional_attention=False)
    size = config.head_size
    if config.layers == layers_of_27b:
        size = config.width // config.heads
    if (found := positive(config.fields, "query_pre_attn_scalar")) != size:
        raise UsageError(
            f"config.json: query_pre_attn_scalar: {found} is not what llama.cpp computes here "
            f"({size})",
            hint="use `format: safetensors`",
        )


def _entries(config: ModelConfig) -> Iterable[Entry]:
    check_gemma(config, layers_of_27b=46)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        yield float32(key, positive(config.fields, key))
    yield from sliding_entries(config, full_every=2)


GEMMA2 = Architecture(
    names=("Gemma2ForCausalLM",),
    gguf_name="gemma2",
    layer=gemma_layer,
    outside=gemma_ends,
    entries=_entries,
    dialect=Dialect(
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
        },
        keys={"hidden_activation": "hidden_act"},
        activations=("gelu_pytorch_tanh",),
    ),
    keeps_window=True,
)
