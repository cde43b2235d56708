"""Granite 3 and 4 (dense): a Llama with four scales."""

from __future__ import annotations

from collections.abc import Iterable

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.llama import llama_layer
from packager.quantize.config import ModelConfig
from packager.quantize.gguf_writer import Entry, float32
from packager.quantize.numbers import positive

_SCALES = (
    ("attention_multiplier", "attention.scale"),
    ("embedding_multiplier", "embedding_scale"),
    ("residual_multiplier", "residual_scale"),
    ("logits_scaling", "logit_scale"),
)


def scales(config: ModelConfig) -> Iterable[Entry]:
    """What attention, embeddings and residuals are multiplied by, and logits divided."""
    for theirs, ours in _SCALES:
        yield float32(ours, positive(config.fields, theirs, 1.0))


GRANITE = Architecture(
    names=("GraniteForCausalLM",),
    gguf_name="granite",
    layer=llama_layer,
    entries=scales,
)
