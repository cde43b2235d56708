"""Where each tensor of the output comes from: the architecture's statement, found in the source."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from packager.errors import MalformedError, UsageError
from packager.format.safetensors_header import DTYPE_BITS
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.weights import Part, Shape, Weight
from packager.quantize.config import ModelConfig
from packager.quantize.prequantized import E8M0, FP8, Fp8Source, fp8_source
from packager.quantize.rope import rope_tensors
from packager.quantize.source import SourceTensor

SOURCE_DTYPES = ("BF16", "F16", "F32")
_BYTES = ("U8",)

# Left over from older versions of transformers; computed, not learnt.
_COMPUTED_SUFFIXES = (".rotary_emb.inv_freq", ".self_attn.bias", ".self_attn.masked_bias")


@dataclass(frozen=True)
class Piece:
    """``rows`` rows: the ``pick``-th of every ``step`` rows of ``source``, from ``first`` on.

    ``transposed`` is that of :class:`Part`; ``scales`` are those of a source in MXFP4, or in FP8,
    where ``covered`` says how many rows and columns share one.
    """

    source: SourceTensor
    rows: int
    first: int = 0
    step: int = 1
    pick: int = 0
    transposed: bool = False
    scales: SourceTensor | None = None
    covered: tuple[int, int] | None = None

    @property
    def is_mxfp4(self) -> bool:
        """Whether a byte of the source holds two values."""
        return self.scales is not None and self.covered is None

    def begin(self, columns: int) -> int:
        """Where it begins in the shard, in bytes, with rows of ``columns`` elements."""
        return self.source.entry.begin + self.first * self.row_size(columns) // self.step

    def row_size(self, columns: int) -> int:
        """Bytes of the source that are read for each row, without scales."""
        bits = 4 if self.is_mxfp4 else DTYPE_BITS[self.source.entry.dtype]
        return self.step * columns * bits // 8

    @property
    def tensors(self) -> tuple[SourceTensor, ...]:
        """The source tensors that are read."""
        return (self.source,) if self.scales is None else (self.source, self.scales)


@dataclass(frozen=True)
class Draft:
    """A tensor of the output before it has a type and a place.

    Its rows are those of ``pieces`` one by one, or it is the ready bytes ``data``, float32.
    ``head_rows``, ``plus`` and ``by_element`` are those of :class:`Weight`.
    """

    name: str
    shape: Shape
    pieces: tuple[Piece, ...] = ()
    data: bytes = b""
    head_rows: int = 0
    plus: float = 0.0
    by_element: bool = False


def draft_tensors(
    architecture: Architecture, config: ModelConfig, source: Mapping[str, SourceTensor]
) -> list[Draft]:
    """The output's tensors in llama.cpp's order: outside the layers, then layer by layer.

    ``source`` has the names of the repository. Raises ``MalformedError`` for a source that lacks
    a tensor or has one of another shape, ``UsageError`` for one that has a tensor too many or
    values that are not plain floats.
    """
    found = _in_usual_names(architecture, source)
    fp8 = _fp8_source(architecture, config)
    drafts: list[Draft] = []
    used: set[str] = set()
    # One by one: a configuration may call for far more tensors than there are.
    for weight in architecture.weights(config):
        drafts.append(_draft(weight, found, fp8))
        used.update(name for part in weight.parts for name in part.names)
    if fp8 is not None:
        in_fp8 = {name for name in used if found[name].entry.dtype == FP8}
        used.update(name for name in found if fp8.is_factor(name, in_fp8))
    _check_nothing_is_left(architecture, config, used, found)
    if config.rope is not None:
        for name, values in rope_tensors(config.rope).items():
            data = struct.pack(f"<{len(values)}f", *values)
            drafts.append(Draft(name, (len(values),), data=data))
    return sorted(drafts, key=lambda draft: (_layer(draft.name), draft.name))


def _in_usual_names(
    architecture: Architecture, source: Mapping[str, SourceTensor]
) -> dict[str, SourceTensor]:
    """The tensors of ``source`` that matter, by the names that the architecture uses."""
    found: dict[str, SourceTensor] = {}
    for theirs, tensor in source.items():
        name = architecture.usual_name(theirs)
        if architecture.leaves_out(name):
            continue
        if name in found:
            raise MalformedError(
                f"{tensor.shard}: {theirs!a} is another name for {found[name].entry.name!a}"
            )
        found[name] = tensor
    return found


def _fp8_source(architecture: Architecture, config: ModelConfig) -> Fp8Source | None:
    return None if architecture.quantized_sources else fp8_source(config.fields.values)


def _draft(weight: Weight, found: Mapping[str, SourceTensor], fp8: Fp8Source | None) -> Draft:
    return Draft(
        weight.name,
        weight.shape,
        # Scales go by rows of the source, which single elements are not.
        tuple(_piece(part, found, None if weight.by_element else fp8) for part in weight.parts),
        head_rows=weight.head_rows,
        plus=weight.plus,
        by_element=weight.by_element,
    )


def _piece(part: Part, found: Mapping[str, SourceTensor], fp8: Fp8Source | None) -> Piece:
    if part.scales is not None:
        tensor = _find(part.name, part.shape, _BYTES, found)
        scales = _find(part.scales, part.shape[:-1], _BYTES, found)
        return Piece(tensor, part.rows, part.first, part.step, part.pick, scales=scales)
    dtypes = SOURCE_DTYPES if fp8 is None else (*SOURCE_DTYPES, FP8)
    tensor = _find(part.name, part.shape, dtypes, found)
    piece = Piece(tensor, part.rows, part.first, part.step, part.pick, part.transposed)
    if fp8 is None or tensor.entry.dtype != FP8:
        return piece
    name = fp8.scales_of(part.name, found)
    scales = _find(name, None, (*SOURCE_DTYPES, E8M0), found)
    return replace(piece, scales=scales, covered=fp8.covered(tensor.entry, scales.entry))


def _find(
    name: str, shape: Shape | None, dtypes: tuple[str, ...], found: Mapping[str, SourceTensor]
) -> SourceTensor:
    """The tensor ``name``; of any shape, if ``shape`` is ``None``."""
    if name not in found:
        raise MalformedError(f"the source lacks the tensor {name}, which config.json calls for")
    tensor = found[name]
    if shape is not None and tensor.entry.shape != shape:
        raise MalformedError(
            f"{tensor.shard}: {name} has the shape {list(tensor.entry.shape)}, but "
            f"config.json calls for {list(shape)}"
        )
    if tensor.entry.dtype not in dtypes:
        raise UsageError(
            f"{tensor.shard}: {name} is {tensor.entry.dtype}; it is converted from "
            f"{', '.join(dtypes)}",
            hint="start from the model's 16-bit weights, or use `format: safetensors`",
        )
    return tensor


def _check_nothing_is_left(
    architecture: Architecture, config: ModelConfig, used: set[str], found: Iterable[str]
) -> None:
    """Refuse a tensor that llama.cpp would know nothing of."""
    for name in found:
        is_tied_output = name == "lm_head.weight" and config.tied_embeddings
        if name in used or is_tied_output or name.endswith(_COMPUTED_SUFFIXES):
            continue
        raise UsageError(
            f"{name!a} is no tensor of {config.architecture}, as {architecture.gguf_name} in "
            "llama.cpp computes it",
            hint="use `format: safetensors`",
        )


def _layer(name: str) -> int:
    """The number of the layer, -1 outside."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1
