"""The architectures that can become GGUF: one small file each, stating only what differs."""

from __future__ import annotations

from collections.abc import Mapping

from packager.errors import UsageError
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.llama import LLAMA
from packager.quantize.architectures.mistral import MISTRAL
from packager.quantize.architectures.qwen2 import QWEN2
from packager.quantize.architectures.qwen3 import QWEN3
from packager.quantize.config import architecture_of, parse_config

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture for architecture in (LLAMA, MISTRAL, QWEN2, QWEN3)
}


def find_architecture(config: Mapping[str, object]) -> Architecture:
    """The architecture of a parsed ``config.json``.

    Raises ``UsageError`` for one that is not supported, and for weights quantized already.
    """
    name = architecture_of(config)
    if name not in ARCHITECTURES:
        raise UsageError(
            f"config.json: the architecture {name!a} is not converted to GGUF here "
            f"(supported: {', '.join(ARCHITECTURES)})",
            hint="carry the model as it is: use a variant with `format: safetensors`",
        )
    if config.get("quantization_config") is not None:
        raise UsageError(
            "config.json: the weights are quantized already (quantization_config)",
            hint="start from the model's 16-bit weights, or use `format: safetensors`",
        )
    return ARCHITECTURES[name]


def check_supported(config: Mapping[str, object]) -> str:
    """GGUF's name for the architecture of ``config``, a parsed ``config.json``.

    Raises ``UsageError`` where the model cannot be converted, ``MalformedError`` where the
    configuration makes no sense. Needs nothing but the configuration, so a recipe can be
    refused before any weight is fetched.
    """
    architecture = find_architecture(config)
    parse_config(config, architecture.defaults)
    return architecture.gguf_name
