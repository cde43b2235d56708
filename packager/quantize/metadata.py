"""The model's part of the GGUF metadata: what it is called, its shape, its rotary positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from packager.quantize.architectures.architecture import Architecture
from packager.quantize.config import ModelConfig
from packager.quantize.gguf_writer import Entry, flag, float32, text, uint32
from packager.quantize.pooling import Pooling
from packager.quantize.rope import rope_entries
from packager.quantize.types import FileType

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION in ggml.h

# llama.cpp looks for these in the name, and then reads the vocabulary otherwise
# (llama-vocab.cpp, "set attributes by model/tokenizer/architecture name").
_TRAPS = re.compile(r"(phi)-?(3)|(modern)-(bert)", re.IGNORECASE)
_PHI3 = "phi-3"


def model_entries(
    architecture: Architecture,
    config: ModelConfig,
    kind: FileType,
    name: str,
    *,
    pooling: Pooling | None,
    strips_as_phi3: bool,
) -> tuple[Entry, ...]:
    """Everything about the model but its tokenizer. ``name`` becomes ``general.name``.

    ``strips_as_phi3``: special tokens take the white space after them; the name tells llama.cpp.
    """
    name = _TRAPS.sub(_apart, name)
    if strips_as_phi3:
        name = f"{name} ({_PHI3})"
    return (
        text("general.architecture", architecture.gguf_name),
        text("general.type", "model"),
        text("general.name", name),
        uint32("general.file_type", kind.number),
        uint32("general.quantization_version", QUANTIZATION_VERSION),
        *shape_entries(architecture, config),
        *_own(architecture, [pooling.entry] if pooling else []),
    )


def shape_entries(architecture: Architecture, config: ModelConfig) -> Iterator[Entry]:
    """What follows from ``config`` alone.

    Raises ``UsageError`` for what llama.cpp would compute otherwise than transformers,
    ``MalformedError`` for what makes no sense.
    """
    yield from _own(architecture, _common_entries(architecture, config))
    yield from _own(architecture, architecture.entries(config))


def _own(architecture: Architecture, entries: Iterable[Entry]) -> Iterator[Entry]:
    """``entries`` with the architecture before their keys."""
    for entry in entries:
        yield replace(entry, key=f"{architecture.gguf_name}.{entry.key}")


def _common_entries(architecture: Architecture, config: ModelConfig) -> Iterator[Entry]:
    yield uint32("vocab_size", config.vocabulary)
    yield uint32("context_length", config.context)
    yield uint32("embedding_length", config.width)
    yield uint32("block_count", config.layers)
    yield uint32("feed_forward_length", config.feed_forward)
    yield uint32("attention.head_count", config.heads)
    yield uint32("attention.head_count_kv", config.key_value_heads)
    yield uint32("attention.key_length", config.head_size)
    yield uint32("attention.value_length", config.head_size)
    yield float32(f"attention.{architecture.norm_epsilon}", config.norm_epsilon)
    if architecture.is_encoder:
        yield flag("attention.causal", False)
    if config.rope is not None:
        yield from rope_entries(config.rope)
    if config.experts:
        yield uint32("expert_count", config.experts)
        yield uint32("expert_used_count", config.experts_used)


def _apart(match: re.Match[str]) -> str:
    return " ".join(part for part in match.groups() if part)
