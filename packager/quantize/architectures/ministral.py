"""Ministral 8B: to llama.cpp, a Llama, without the sliding window of some layers."""

from __future__ import annotations

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.llama import llama_layer
from packager.quantize.config import Dialect

MINISTRAL = Architecture(
    names=("MinistralForCausalLM",),
    gguf_name="llama",
    layer=llama_layer,
    dialect=Dialect(defaults={"num_key_value_heads": 8}),
)
