"""Qwen 1.5, 2 and 2.5: biases on queries, keys and values."""

from __future__ import annotations

from packager.quantize.architectures.architecture import Architecture

QWEN2 = Architecture(
    name="Qwen2ForCausalLM",
    gguf_name="qwen2",
    biases_qkv=True,
    layers_of_70b=80,
)
