"""The architectures that can become GGUF: one small file each, stating only what differs."""

from __future__ import annotations

from collections.abc import Mapping

from packager.errors import UsageError
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.bert import BERT, XLM_ROBERTA
from packager.quantize.architectures.gemma2 import GEMMA2
from packager.quantize.architectures.gemma3 import GEMMA3
from packager.quantize.architectures.gpt_oss import GPT_OSS
from packager.quantize.architectures.granite import GRANITE
from packager.quantize.architectures.granite_hybrid import GRANITE_HYBRID
from packager.quantize.architectures.granite_moe import GRANITE_MOE
from packager.quantize.architectures.llama import LLAMA
from packager.quantize.architectures.ministral import MINISTRAL
from packager.quantize.architectures.mistral import MISTRAL
from packager.quantize.architectures.mistral3 import MISTRAL3
from packager.quantize.architectures.mixtral import MIXTRAL
from packager.quantize.architectures.nomic_bert import NOMIC_BERT
from packager.quantize.architectures.olmo import OLMO2, OLMO3
from packager.quantize.architectures.phi3 import PHI3
from packager.quantize.architectures.qwen2 import QWEN2
from packager.quantize.architectures.qwen3 import QWEN3
from packager.quantize.architectures.qwen3_moe import QWEN3_MOE
from packager.quantize.architectures.smollm3 import SMOLLM3
from packager.quantize.config import architecture_of, parse_config
from packager.quantize.metadata import shape_entries
from packager.quantize.prequantized import fp8_source, method_of, quantized_already

_ALL = (
    LLAMA, MISTRAL, MINISTRAL, MISTRAL3, MIXTRAL, QWEN2, QWEN3, QWEN3_MOE, GEMMA2, GEMMA3, PHI3,
    GRANITE, GRANITE_MOE, GRANITE_HYBRID, SMOLLM3, OLMO2, OLMO3, GPT_OSS, BERT, XLM_ROBERTA,
    NOMIC_BERT,
)  # fmt: skip

# By the name that config.json gives it.
ARCHITECTURES: Mapping[str, Architecture] = {
    name: architecture for architecture in _ALL for name in architecture.names
}


def find_architecture(config: Mapping[str, object]) -> Architecture:
    """The architecture of a parsed ``config.json``.

    Raises ``UsageError`` for one that is not supported, and for weights that are quantized
    already in a way that is not undone here.
    """
    name = architecture_of(config)
    if name not in ARCHITECTURES:
        raise UsageError(
            f"config.json: the architecture {name!a} is not converted to GGUF here "
            f"(supported: {', '.join(ARCHITECTURES)})",
            hint="bundle a GGUF repository of the model with `format: gguf`, or carry the model "
            "as it is with `format: safetensors`",
        )
    architecture = ARCHITECTURES[name]
    method = method_of(config)
    if not architecture.quantized_sources:
        fp8_source(config)
    elif method is not None and method not in architecture.quantized_sources:
        raise quantized_already(method)
    return architecture


def check_supported(config: Mapping[str, object]) -> str:
    """GGUF's name for the architecture of ``config``, a parsed ``config.json``.

    Raises ``UsageError`` where the model cannot be converted, ``MalformedError`` where the
    configuration makes no sense. Needs nothing but the configuration, so a recipe can be
    refused before any weight is fetched.
    """
    architecture = find_architecture(config)
    model = parse_config(config, architecture.dialect)
    for _ in (
        *shape_entries(architecture, model),
        *architecture.outside(model),
        *architecture.layer(model),
    ):
        pass
    return architecture.gguf_name
