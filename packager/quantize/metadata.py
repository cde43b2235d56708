"""The model's part of the GGUF metadata: what it is called, its shape, its rotary positions."""

from __future__ import annotations

import math
import re

from packager.errors import UsageError
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.config import ModelConfig, RopeScaling
from packager.quantize.gguf_writer import Entry, float32, text, uint32
from packager.quantize.types import FileType

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION in ggml.h

# llama.cpp looks for these in the name, and then reads the vocabulary otherwise
# (llama-vocab.cpp, "set attributes by model/tokenizer/architecture name").
_TRAPS = re.compile(r"(phi)-?(3)|(modern)-(bert)", re.IGNORECASE)


def model_entries(
    architecture: Architecture, config: ModelConfig, kind: FileType, name: str
) -> tuple[Entry, ...]:
    """Everything about the model but its tokenizer. ``name`` becomes ``general.name``."""
    prefix = architecture.gguf_name
    return (
        text("general.architecture", architecture.gguf_name),
        text("general.type", "model"),
        text("general.name", _TRAPS.sub(_apart, name)),
        uint32("general.file_type", kind.number),
        uint32("general.quantization_version", QUANTIZATION_VERSION),
        uint32(f"{prefix}.vocab_size", config.vocabulary),
        uint32(f"{prefix}.context_length", config.context),
        uint32(f"{prefix}.embedding_length", config.width),
        uint32(f"{prefix}.block_count", config.layers),
        uint32(f"{prefix}.feed_forward_length", config.feed_forward),
        uint32(f"{prefix}.attention.head_count", config.heads),
        uint32(f"{prefix}.attention.head_count_kv", config.key_value_heads),
        uint32(f"{prefix}.attention.key_length", config.head_size),
        uint32(f"{prefix}.attention.value_length", config.head_size),
        float32(f"{prefix}.attention.layer_norm_rms_epsilon", config.norm_epsilon),
        uint32(f"{prefix}.rope.dimension_count", config.head_size),
        float32(f"{prefix}.rope.freq_base", config.rope_base),
        *_rope_scaling_entries(f"{prefix}.rope.scaling", config.rope_scaling),
    )


def rope_factors(architecture: Architecture, config: ModelConfig) -> tuple[float, ...] | None:
    """Llama 3's divisors of the rotary frequencies, one for each pair of a head, or ``None``.

    Slow rotations are divided by ``factor``, fast ones are left, those between are blended
    (transformers, ``_compute_llama3_parameters``). llama.cpp takes them as the tensor
    ``rope_freqs.weight``, for the ``llama`` architecture only.
    """
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return None
    if architecture.gguf_name != "llama":
        raise UsageError(
            f"config.json: llama3 rope scaling is not known for {architecture.name}",
            hint="use `format: safetensors`",
        )
    factor = scaling.number("factor", 8.0)
    low = scaling.number("low_freq_factor", 1.0)
    high = scaling.number("high_freq_factor", 4.0)
    trained = scaling.number("original_max_position_embeddings")
    factors = []
    for pair in range(config.head_size // 2):
        wavelength = 2 * math.pi * config.rope_base ** (2 * pair / config.head_size)
        if wavelength < trained / high:
            factors.append(1.0)
        elif wavelength > trained / low:
            factors.append(factor)
        else:
            blend = (trained / wavelength - low) / (high - low)
            factors.append(1 / ((1 - blend) / factor + blend))
    return tuple(factors)


def _rope_scaling_entries(prefix: str, scaling: RopeScaling | None) -> list[Entry]:
    if scaling is None or scaling.kind == "llama3":
        return []
    entries = [
        text(f"{prefix}.type", scaling.kind),
        float32(f"{prefix}.factor", scaling.number("factor")),
    ]
    if scaling.kind == "yarn":
        trained = int(scaling.number("original_max_position_embeddings"))
        entries.append(uint32(f"{prefix}.original_context_length", trained))
        for theirs, ours in (
            ("attention_factor", "yarn_attn_factor"),
            ("beta_fast", "yarn_beta_fast"),
            ("beta_slow", "yarn_beta_slow"),
        ):
            if theirs in scaling.numbers:
                entries.append(float32(f"{prefix}.{ours}", scaling.number(theirs)))
    return entries


def _apart(match: re.Match[str]) -> str:
    return " ".join(part for part in match.groups() if part)
