"""Mistral 7B, Nemo, Small: to llama.cpp, Llamas."""

from __future__ import annotations

from packager.quantize.architectures.architecture import Architecture

MISTRAL = Architecture(
    name="MistralForCausalLM",
    gguf_name="llama",
    interleaves_rotary_pairs=True,
    layers_of_70b=80,
)
