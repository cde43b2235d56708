"""Mistral 7B, Nemo, Small: to llama.cpp, Llamas."""

from __future__ import annotations

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.llama import llama_layer
from packager.quantize.config import Dialect

MISTRAL = Architecture(
    names=("MistralForCausalLM",),
    gguf_name="llama",
    layer=llama_layer,
    dialect=Dialect(defaults={"num_key_value_heads": 8}),
    layers_of_70b=80,
)
