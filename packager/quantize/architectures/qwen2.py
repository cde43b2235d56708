"""Qwen 1.5, 2 and 2.5: biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, gated_feed_forward, pre_norms
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from pre_norms(config)
    yield from attention(config, bias=True, output_bias=False)
    yield from gated_feed_forward(config)


QWEN2 = Architecture(
    names=("Qwen2ForCausalLM",),
    gguf_name="qwen2",
    layer=_layer,
    dialect=Dialect(defaults={"num_key_value_heads": 32, "use_sliding_window": False}),
    layers_of_70b=80,
)
