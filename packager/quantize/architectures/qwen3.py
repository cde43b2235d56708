"""Qwen 3, dense: norms on queries and keys, and heads of a size of their own."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import (
    attention,
    gated_feed_forward,
    head_norms,
    only,
    pre_norms,
)
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from pre_norms(config)
    yield from attention(config)
    yield from head_norms(config)
    yield from gated_feed_forward(config)


def _check(config: ModelConfig) -> Iterable[Entry]:
    only(config, attention_bias=False)
    return ()


QWEN3 = Architecture(
    names=("Qwen3ForCausalLM",),
    gguf_name="qwen3",
    layer=_layer,
    entries=_check,
    dialect=Dialect(
        defaults={"head_dim": 128, "num_key_value_heads": 32, "use_sliding_window": False}
    ),
)
