"""Which tensor of a file gets which type: llama.cpp's own mixture.

The rules are those of ``llama_tensor_get_type``, ``tensor_type_fallback`` and
``tensor_allows_quantization`` in llama.cpp's ``src/llama-quant.cpp``, for dense models without
an importance matrix; the same recipe type then gives the same file as ``llama-quantize``. They
were found by measuring perplexity: a few bits more where the model is sensitive (the output,
the values of attention, the way down of the feed-forward network), and only in some layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from packager.format.ggml_types import GgmlType
from packager.quantize.types import (
    F16,
    F32,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    FileType,
)

# What takes over where rows are not whole blocks: the nearest type with blocks of 32.
_FALLBACK = {Q2_K: Q4_0, Q3_K: Q4_0, Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}


@dataclass(frozen=True)
class ModelShape:
    """What the mixture depends on. ``queries_per_key`` is heads over key-value heads."""

    layers: int
    queries_per_key: int
    tied_embeddings: bool
    is_70b: bool


@dataclass(frozen=True)
class Choice:
    """The type of a tensor, and the one that its rows did not fit, if any."""

    type: GgmlType
    instead_of: GgmlType | None = None


def choose_type(
    kind: FileType, model: ModelShape, name: str, shape: tuple[int, ...], layer: int | None
) -> Choice:
    """The type of the tensor ``name`` (GGUF's name) of ``shape`` (rows, columns), or (n,).

    ``layer`` is the number of its block, ``None`` for tensors outside the blocks.
    """
    if len(shape) < 2 or shape[0] == 1 or not name.endswith("weight"):
        return Choice(F32)
    if not kind.quantizes:
        return Choice(kind.default)
    wanted = _preferred(kind, model, name, layer)
    if shape[-1] % wanted.block == 0:
        return Choice(wanted)
    fitting = _FALLBACK.get(wanted, wanted)
    return Choice(fitting if shape[-1] % fitting.block == 0 else F16, instead_of=wanted)


def _preferred(kind: FileType, model: ModelShape, name: str, layer: int | None) -> GgmlType:
    if name == "output.weight" or (name == "token_embd.weight" and model.tied_embeddings):
        return Q8_0 if kind.default is Q8_0 else Q6_K
    if layer is None:
        return kind.default
    part = name.split(".")[-2]
    if part == "attn_v":
        return _attention_value(kind, model, layer)
    if part == "ffn_down":
        return _feed_forward_down(kind, model.layers, layer)
    if part == "attn_output":
        return _ATTENTION_OUTPUT.get(kind.name, kind.default)
    return kind.default


_ATTENTION_OUTPUT = {"Q2_K": Q3_K, "Q3_K_M": Q4_K, "Q3_K_L": Q5_K}


def _attention_value(kind: FileType, model: ModelShape, layer: int) -> GgmlType:
    chosen = kind.default
    if kind.name == "Q2_K":
        chosen = Q4_K if model.queries_per_key >= 4 else Q3_K
    elif kind.name == "Q3_K_M":
        chosen = Q5_K if layer < 2 else Q4_K
    elif kind.name == "Q3_K_L":
        chosen = Q5_K
    elif kind.name in ("Q4_K_M", "Q5_K_M") and _gets_more_bits(layer, model.layers):
        chosen = Q6_K
    elif kind.name == "Q4_K_S" and layer < 4:
        chosen = Q5_K
    # Eight heads share these weights there: more bits cost next to nothing.
    return Q5_K if model.is_70b and chosen in (Q3_K, Q4_K) else chosen


def _feed_forward_down(kind: FileType, layers: int, layer: int) -> GgmlType:
    if kind.name == "Q2_K":
        return Q3_K
    if kind.name == "Q3_K_M":
        return Q5_K if layer < layers // 16 else Q4_K
    if kind.name == "Q3_K_L":
        return Q5_K
    if kind.name in ("Q4_K_M", "Q5_K_M") and _gets_more_bits(layer, layers):
        return Q6_K
    if kind.name == "Q4_K_S" and layer < layers // 8:
        return Q5_K
    return kind.default


def _gets_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    first = layers // 8
    return layer < first or layer >= 7 * layers // 8 or (layer - first) % 3 == 2
