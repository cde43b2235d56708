"""Llama 1 to 3.3, and the many models of the same build (TinyLlama, SmolLM, Yi, DeepSeek LLM)."""

from __future__ import annotations

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.config import Defaults

LLAMA = Architecture(
    name="LlamaForCausalLM",
    gguf_name="llama",
    interleaves_rotary_pairs=True,
    layers_of_70b=80,
    defaults=Defaults(key_value_heads_are_heads=True),
)
