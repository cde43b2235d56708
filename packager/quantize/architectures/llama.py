"""Llama 1 to 3.3, and the many models of the same build (TinyLlama, SmolLM2, Yi, DeepSeek LLM)."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, gated_feed_forward, pre_norms
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.rope import RopeSupport


def llama_layer(config: ModelConfig) -> Iterable[Weight]:
    """One layer of a Llama."""
    yield from pre_norms(config)
    yield from attention(config, interleaved=True)
    yield from gated_feed_forward(config)


LLAMA = Architecture(
    names=("LlamaForCausalLM",),
    gguf_name="llama",
    layer=llama_layer,
    dialect=Dialect(rope=RopeSupport(("linear", "yarn", "llama3"))),
    layers_of_70b=80,
)
