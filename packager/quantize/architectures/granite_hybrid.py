"""Granite 4 without Mamba layers and experts (micro, 350m, 1b): to llama.cpp, a Granite.

Its configuration is that of the hybrid models, which are not converted here.
"""

from __future__ import annotations

from collections.abc import Iterable

from packager.errors import UsageError
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import attention, only, pre_norms
from packager.quantize.architectures.granite import scales
from packager.quantize.architectures.granite_moe import shared_network
from packager.quantize.architectures.weights import Weight
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry


def _layer(config: ModelConfig) -> Iterable[Weight]:
    yield from pre_norms(config)
    yield from attention(config, interleaved=True)
    yield from shared_network(config, config.feed_forward, ("ffn_gate", "ffn_up", "ffn_down"))


def _entries(config: ModelConfig) -> Iterable[Entry]:
    only(config, num_local_experts=0)
    kinds = set(config.fields.texts("layer_types", ()))
    positions = config.fields.optional_text("position_embedding_type")
    if not kinds or kinds - {"attention", "full_attention"} or positions != "rope":
        raise UsageError(
            "config.json: only Granites of attention layers (layer_types) with rotary positions "
            "(position_embedding_type: rope) are converted",
            hint="use `format: safetensors`",
        )
    yield from scales(config)


GRANITE_HYBRID = Architecture(
    names=("GraniteMoeHybridForCausalLM",),
    gguf_name="granite",
    layer=_layer,
    entries=_entries,
    dialect=Dialect(
        # Without these keys it has experts and Mamba layers.
        defaults={"num_local_experts": 8, "shared_intermediate_size": 1024},
        keys={"shared_intermediate_size": "intermediate_size"},
    ),
)
