"""Which tensor of a file gets which type: llama.cpp's own mixture.

The rules are those of ``llama_tensor_get_type``, ``tensor_type_fallback`` and
``tensor_allows_quantization`` in llama.cpp's ``src/llama-quant.cpp`` (those for Falcon,
BailingMoE 3 and GLM 5 left out); the same recipe type then gives the same file as
``llama-quantize``. They were found by measuring perplexity: a few bits more where the model is
sensitive (the output, the values of attention, the way down of the feed-forward network), and
only in some layers. What a recipe says of a tensor itself comes first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from packager.errors import UsageError
from packager.format.ggml_types import GgmlType
from packager.quantize.mix_rules import (
    AFTER_ATTENTION,
    AFTER_ATTENTION_OF_FIVE_BITS,
    ATTENTION_VALUE,
    EMBEDDINGS,
    FALLBACKS,
    FEED_FORWARD_DOWN,
    FEED_FORWARD_IN,
    LOWEST,
    OUTPUT_OF_FIVE_BITS,
    QUERY_AND_KEY,
    ModelShape,
    Place,
    first_that_holds,
)
from packager.quantize.types import (
    F16,
    F32,
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_XXS,
    MXFP4,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_0,
    FileType,
)

__all__ = (
    "HOW_TO_GET_A_MATRIX",
    "Choice",
    "ModelShape",
    "Override",
    "Overrides",
    "always_needs_matrix",
    "choose_types",
    "is_quantizable",
)

Shape = tuple[int, ...]

HOW_TO_GET_A_MATRIX = (
    "make one in the recipe, calibrate: {text: FILE, imatrix: true}, or take one that "
    "llama-imatrix made, calibrate: {imatrix: FILE}"
)

_LAYER = re.compile(r"blk\.(\d+)\.")

# Parts of names of tensors that stay as they are, small or touchy (``tensor_allows_quantization``).
_KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel",
    "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight",
    "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight",
    "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
    "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd", "sam.pos_embd",
    "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook",
    "mm.a.code_embd",
)  # fmt: skip
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")

_OUTPUT_NAME = "output.weight"
_EMBEDDING_NAMES = ("token_embd.weight", "per_layer_token_embd.weight")

# The first of these that a name holds is its part of the model; the order is llama.cpp's.
_VALUE, _KEY, _QUERY, _AFTER, _UP, _GATE, _DOWN = (
    "value", "key", "query", "after attention", "up", "gate", "down"
)  # fmt: skip
_PARTS = (
    ("attn_qkv.weight", _VALUE),
    ("attn_kv_b.weight", _VALUE),
    ("attn_v.weight", _VALUE),
    ("attn_k.weight", _KEY),
    ("attn_q.weight", _QUERY),
    ("attn_output.weight", _AFTER),
    ("ffn_up", _UP),
    ("ffn_gate", _GATE),
    ("ffn_down", _DOWN),
)
_RULES = {
    _VALUE: ATTENTION_VALUE,
    _KEY: QUERY_AND_KEY,
    _QUERY: QUERY_AND_KEY,
    _AFTER: AFTER_ATTENTION,
    _UP: FEED_FORWARD_IN,
    _GATE: FEED_FORWARD_IN,
    _DOWN: FEED_FORWARD_DOWN,
}

# Without an importance matrix these are garbage (``tensor_requires_imatrix``).
_NEEDING_MATRIX = (IQ3_XXS, IQ2_XXS, IQ2_XS, IQ2_S, IQ1_M, IQ1_S)
# And these end the process (``ggml_quantize_requires_imatrix``), wherever they are asked for.
_REFUSED_BY_GGML = (IQ2_XXS, IQ2_XS, IQ1_S)


class Override(NamedTuple):
    """A type for the tensors whose names (in the GGUF file) ``pattern`` matches, as a shell's."""

    pattern: str
    type: GgmlType


@dataclass(frozen=True)
class Overrides:
    """What a recipe says of single tensors; of two patterns that match the first one counts.

    ``output`` is for the output, which may be the token embeddings too; ``token_embedding`` for
    those in any case.
    """

    patterns: tuple[Override, ...] = ()
    output: GgmlType | None = None
    token_embedding: GgmlType | None = None


@dataclass(frozen=True)
class Choice:
    """The type of a tensor, and the one that its rows did not fit, if any.

    ``needs_matrix``: it must not be quantized without an importance matrix.
    """

    type: GgmlType
    instead_of: GgmlType | None = None
    needs_matrix: bool = False


def choose_types(
    kind: FileType,
    model: ModelShape,
    tensors: Sequence[tuple[str, Shape]],
    *,
    overrides: Overrides | None = None,
    has_matrix: bool = False,
) -> list[Choice]:
    """The types of all ``tensors`` of a file, each a name in GGUF and its shape.

    Shapes are (n,), (rows, columns) or (experts, rows, columns), the tensors in llama.cpp's
    order: block by block. Raises ``UsageError`` for a pattern that names no tensor that can be
    quantized, or a type that a tensor's rows cannot have.
    """
    overrides = overrides or Overrides()
    names = [name for name, shape in tensors if is_quantizable(name, shape)]
    _check_patterns(overrides.patterns, names)
    mixture = _Mixture(kind, model, [name for name, _ in tensors], overrides, has_matrix)
    return [mixture.choose(name, shape) for name, shape in tensors]


def always_needs_matrix(kind: FileType, overrides: Overrides) -> bool:
    """Whether no model can be made such a file without an importance matrix."""
    ends = (overrides.output, overrides.token_embedding)
    return (
        kind.needs_matrix
        or any(pattern.type in _NEEDING_MATRIX for pattern in overrides.patterns)
        or any(end in _REFUSED_BY_GGML for end in ends)
    )


def is_quantizable(name: str, shape: Shape) -> bool:
    """Whether the tensor ``name`` of ``shape`` may be anything but float32."""
    dimensions = len(shape)
    while dimensions > 1 and shape[-dimensions] == 1:
        dimensions -= 1  # as ggml counts them
    if dimensions < 2 or not name.endswith("weight") or name in _KEPT_NAMES:
        return False
    return not any(part in name for part in _KEPT)


def _check_patterns(patterns: Iterable[Override], names: Sequence[str]) -> None:
    for pattern, _ in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"overrides: {pattern!a} names no tensor of this model that can be quantized",
                hint="names are those of the GGUF file, as blk.0.ffn_down.weight; "
                "blk.*.ffn_down.weight is that of every layer",
            )


class _Mixture:
    """Counts the tensors as they come: some rules go by how many of a part were before."""

    def __init__(
        self,
        kind: FileType,
        model: ModelShape,
        names: Sequence[str],
        overrides: Overrides,
        has_matrix: bool,
    ) -> None:
        self._kind = kind
        self._model = model
        self._overrides = overrides
        self._has_matrix = has_matrix
        self._is_tied = _OUTPUT_NAME not in names
        self._values = sum(_part(name) == _VALUE for name in names)
        self._seen: Counter[str] = Counter()

    def choose(self, name: str, shape: Shape) -> Choice:
        """The type of the next tensor."""
        if not is_quantizable(name, shape):
            return Choice(F32)
        asked_for = self._asked_for(name)
        # As llama.cpp has it, a tensor that the recipe names is not counted among its part.
        wanted = asked_for or self._preferred(name, shape)
        is_mixed_output = asked_for is None and self._is_output(name)
        fallback = Q8_0 if is_mixed_output else FALLBACKS.get(wanted)
        fitting = _fitting(wanted, fallback, name, shape[-1])
        return Choice(
            fitting,
            instead_of=None if fitting is wanted else wanted,
            needs_matrix=self._needs_matrix(name, fitting),
        )

    def _asked_for(self, name: str) -> GgmlType | None:
        """What the recipe says of this very tensor."""
        overrides = self._overrides
        if name in _EMBEDDING_NAMES and overrides.token_embedding:
            return overrides.token_embedding
        if name == _OUTPUT_NAME and overrides.output:
            return overrides.output
        for pattern, kind in overrides.patterns:
            if fnmatchcase(name, pattern):
                return kind
        return overrides.output if self._is_output(name) else None

    def _preferred(self, name: str, shape: Shape) -> GgmlType:
        kind = self._kind
        if not kind.quantizes:
            return kind.default
        if self._is_output(name):
            return self._output()
        if kind.default is MXFP4:
            return MXFP4 if len(shape) == 3 and shape[0] > 1 else Q8_0
        if name in _EMBEDDING_NAMES:
            return EMBEDDINGS.get(kind.name, kind.default)
        part = _part(name)
        return kind.default if part is None else self._of_part(part, name)

    def _is_output(self, name: str) -> bool:
        """Whether ``name`` is the output, or the token embeddings that serve as such too."""
        return name == _OUTPUT_NAME or (self._is_tied and name in _EMBEDDING_NAMES)

    def _output(self) -> GgmlType:
        if self._kind.default in (MXFP4, Q8_0):
            return Q8_0
        return Q5_K if self._kind.name in OUTPUT_OF_FIVE_BITS else Q6_K

    def _of_part(self, part: str, name: str) -> GgmlType:
        kind = self._kind
        place = self._place(part, name)
        chosen = first_that_holds(_RULES[part], kind.name, place) or kind.default
        if self._model.experts == 8:
            return self._of_eight_experts(part, chosen)
        if part == _VALUE and self._model.is_70b and kind.name not in LOWEST:
            # Eight heads share these weights there: more bits cost next to nothing.
            return Q5_K if chosen in (Q3_K, Q4_K) else chosen
        return chosen

    def _of_eight_experts(self, part: str, chosen: GgmlType) -> GgmlType:
        """Attention is a small share of such a model, and gets more bits."""
        kind = self._kind
        if part == _AFTER:
            return Q5_K if kind.name in AFTER_ATTENTION_OF_FIVE_BITS else kind.default
        if kind.name in LOWEST:
            return Q4_K if part == _KEY else chosen
        return Q8_0 if part in (_VALUE, _KEY) else chosen

    def _place(self, part: str, name: str) -> Place:
        index = self._seen[part]
        self._seen[part] += 1
        layer = _LAYER.match(name)
        has_experts = self._model.experts > 1 and self._kind.name not in LOWEST
        if layer and has_experts and part in (_UP, _GATE, _DOWN):
            index = int(layer[1])  # a layer may have several tensors of the part
        count = self._values if part == _VALUE else self._model.layers
        return Place(self._model, index, count, self._has_matrix)

    def _needs_matrix(self, name: str, kind: GgmlType) -> bool:
        if kind in _REFUSED_BY_GGML:
            return True
        if name in (*_EMBEDDING_NAMES, _OUTPUT_NAME):
            return False
        return kind in _NEEDING_MATRIX or (kind is Q2_K and self._kind.name == "Q2_K_S")


def _part(name: str) -> str | None:
    return next((part for fragment, part in _PARTS if fragment in name), None)


def _fitting(wanted: GgmlType, fallback: GgmlType | None, name: str, columns: int) -> GgmlType:
    """``wanted``, or what takes its place where rows of ``columns`` are not its blocks."""
    if columns % wanted.block == 0:
        return wanted
    if fallback is None and wanted.block > 32:
        raise UsageError(
            f"{name}: rows of {columns} are not blocks of {wanted.name}, and llama.cpp has no "
            "type to fall back to",
            hint="choose another type",
        )
    fallback = fallback or wanted
    return fallback if columns % fallback.block == 0 else F16
