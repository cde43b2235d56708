"""Qwen 3, mixture of experts: Qwen 3's attention, and experts in every layer."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import (
    attention,
    experts,
    head_norms,
    only,
    pre_norms,
)
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import MAX_WIDTH, Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, uint32


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from pre_norms(config)
    yield from attention(config)
    yield from head_norms(config)
    yield from experts(config, _size(config), router="mlp.gate", each="mlp.experts.{}")


def _entries(config: ModelConfig) -> Iterable[Entry]:
    only(
        config, norm_topk_prob=True, mlp_only_layers=[], decoder_sparse_step=1, attention_bias=False
    )
    yield uint32("expert_feed_forward_length", _size(config))


def _size(config: ModelConfig) -> int:
    return config.fields.integer("moe_intermediate_size", least=1, most=MAX_WIDTH)


QWEN3_MOE = Architecture(
    names=("Qwen3MoeForCausalLM",),
    gguf_name="qwen3moe",
    layer=_layer,
    entries=_entries,
    dialect=Dialect(
        defaults={
            "num_key_value_heads": 4,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
            "use_sliding_window": False,
        },
        has_experts=True,
    ),
)
