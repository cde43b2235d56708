"""SmolLM 3: a Llama whose every fourth layer has no positions."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.blocks import only
from packager.quantize.architectures.llama import llama_layer
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry

_WITHOUT_POSITIONS_EVERY = 4


def _check(config: ModelConfig) -> Iterable[Entry]:
    only(
        config,
        attention_bias=False,
        mlp_bias=False,
        no_rope_layer_interval=_WITHOUT_POSITIONS_EVERY,
        no_rope_layers=[
            int((number + 1) % _WITHOUT_POSITIONS_EVERY != 0) for number in range(config.layers)
        ],
    )
    return ()


SMOLLM3 = Architecture(
    names=("SmolLM3ForCausalLM",),
    gguf_name="smollm3",
    layer=llama_layer,
    entries=_check,
    dialect=Dialect(
        defaults={
            "num_key_value_heads": 4,
            "rope_theta": 2000000.0,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
        }
    ),
)
