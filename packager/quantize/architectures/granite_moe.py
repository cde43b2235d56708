"""Granite 3 with experts, alone or beside a network that all tokens share."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, pre_norms
from packager.quantize.architectures.granite import scales
from packager.quantize.architectures.weights import Part, Weight, linear, slice_of_each, whole
from packager.quantize.config import MAX_WIDTH, Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, uint32


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from pre_norms(config)
    yield from attention(config, interleaved=True)
    yield from _experts(config)
    if (size := _shared_size(config)) > 0:
        ours = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
        yield from shared_network(config, size, ours)


def _experts(config: ModelConfig) -> Iterable[Weight]:
    count, size, width = config.experts, config.feed_forward, config.width
    inward, outward = (count, 2 * size, width), (count, width, size)
    moe = "block_sparse_moe"
    yield whole("ffn_gate_inp.weight", f"{moe}.router.layer.weight", (count, width))
    # Gate and way up are one matrix in the source, the gate first.
    source = f"{moe}.input_linear.weight"
    yield slice_of_each("ffn_gate_exps.weight", source, inward, size)
    yield slice_of_each("ffn_up_exps.weight", source, inward, size, first=size)
    yield slice_of_each("ffn_down_exps.weight", f"{moe}.output_linear.weight", outward, width)


def shared_network(config: ModelConfig, size: int, ours: tuple[str, str, str]) -> Iterable[Weight]:
    """The feed-forward network of all tokens, under the names ``ours``: gate, way up, way down."""
    inward = (2 * size, config.width)
    for number, name in enumerate(ours[:2]):
        part = Part("shared_mlp.input_linear.weight", inward, size, first=number * size)
        yield Weight(f"{name}.weight", (size, config.width), (part,))
    yield from linear(ours[2], "shared_mlp.output_linear", (config.width, size))


def _shared_size(config: ModelConfig) -> int:
    return config.fields.integer("shared_intermediate_size", 0, most=MAX_WIDTH)


def _entries(config: ModelConfig) -> Iterable[Entry]:
    yield from scales(config)
    if (size := _shared_size(config)) > 0:
        yield uint32("expert_shared_feed_forward_length", size)


GRANITE_MOE = Architecture(
    names=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    gguf_name="granitemoe",
    layer=_layer,
    entries=_entries,
    dialect=Dialect(defaults={"num_local_experts": 8, "num_experts_per_tok": 2}, has_experts=True),
)
