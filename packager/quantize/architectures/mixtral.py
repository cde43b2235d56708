"""Mixtral: to llama.cpp, a Llama with experts."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, experts, pre_norms
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from pre_norms(config)
    yield from attention(config, interleaved=True)
    yield from experts(
        config,
        config.feed_forward,
        router="block_sparse_moe.gate",
        each="block_sparse_moe.experts.{}",
        names=("w1", "w3", "w2"),
    )


MIXTRAL = Architecture(
    names=("MixtralForCausalLM",),
    gguf_name="llama",
    layer=_layer,
    dialect=Dialect(
        defaults={
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
        },
        has_experts=True,
    ),
)
