"""Qwen 3, dense: norms on queries and keys, and heads of a size of their own."""

from __future__ import annotations

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.config import Defaults

QWEN3 = Architecture(
    name="Qwen3ForCausalLM",
    gguf_name="qwen3",
    normalizes_qk=True,
    defaults=Defaults(head_size=128),
)
