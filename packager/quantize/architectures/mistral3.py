"""Ministral 3 and Mistral Small 3: Llamas whose queries grow with their position."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.llama import llama_layer
from packager.quantize.architectures.seeing import SEEING_PART, TEXT_PART, text_only
from packager.quantize.config import Dialect, ModelConfig
from packager.quantize.gguf_writer import Entry, float32
from packager.quantize.numbers import positive
from packager.quantize.rope import RopeSupport


def _entries(config: ModelConfig) -> Iterable[Entry]:
    rope = config.fields.optional_mapping("rope_parameters")
    if rope.has("llama_4_scaling_beta"):
        yield float32("attention.temperature_scale", positive(rope, "llama_4_scaling_beta"))


MISTRAL3 = Architecture(
    names=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    gguf_name="mistral3",
    layer=llama_layer,
    entries=_entries,
    dialect=Dialect(
        defaults={"num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5},
        rope=RopeSupport(("linear", "yarn"), reads_yarn=True),
    ),
    notes=text_only,
    renamed=TEXT_PART,
    left_out=SEEING_PART,
)
