"""Where every tensor of the GGUF file goes, as what, before a byte of weights is read."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gguf

from packager.errors import MalformedError, UsageError
from packager.quantize.architectures import find_architecture
from packager.quantize.architectures.architecture import Architecture, Shape
from packager.quantize.config import ModelConfig, parse_config
from packager.quantize.gguf_writer import TensorInfo, aligned, encode_header
from packager.quantize.metadata import model_entries, rope_factors
from packager.quantize.mix import ModelShape, choose_type
from packager.quantize.source import SourceTensor, read_documents, read_tensors
from packager.quantize.tokenizer.entries import tokenizer_entries
from packager.quantize.types import F32, FileType, file_type

SOURCE_DTYPES = ("BF16", "F16", "F32")

# Left over from older versions of transformers; computed, not learnt.
_COMPUTED_SUFFIXES = (".rotary_emb.inv_freq", ".self_attn.bias", ".self_attn.masked_bias")


class Fallback(NamedTuple):
    """A tensor whose rows did not fit the type that its place called for."""

    name: str
    wanted: str
    type: str


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output. ``position`` is its byte offset in the file.

    Its values come from ``source``, or are the ready bytes ``data``. ``head_rows`` is the number
    of rows of each attention head whose order changes, 0 where none does.
    """

    info: TensorInfo
    position: int
    source: SourceTensor | None = None
    data: bytes = b""
    head_rows: int = 0


@dataclass(frozen=True)
class Plan:
    """The file to be: ``header``, then ``tensors`` in the order of their positions, padded."""

    header: bytes
    tensors: tuple[PlannedTensor, ...]
    size: int
    fallbacks: tuple[Fallback, ...]
    parameters: int
    notes: tuple[str, ...]

    @property
    def source_size(self) -> int:
        """Bytes of weights that will be read."""
        return sum(tensor.source.entry.size for tensor in self.tensors if tensor.source)


@dataclass(frozen=True)
class _Draft:
    """A tensor before it has its place in the file."""

    name: str
    layer: int | None
    shape: Shape
    source: SourceTensor | None
    data: bytes = b""
    head_rows: int = 0


def make_plan(files: Mapping[str, Path], type_name: str, *, name: str) -> Plan:
    """Plan the GGUF file of type ``type_name`` for the model in ``files``.

    ``files`` maps names in the repository to local paths; ``name`` becomes ``general.name``.
    Raises ``UsageError`` for what cannot be converted, ``MalformedError`` and
    ``UnsafeContentError`` for a source that is broken.
    """
    kind = file_type(type_name)
    documents = read_documents(files)
    architecture = find_architecture(documents.config)
    config = parse_config(documents.config, architecture.defaults)
    # Tensors first: a vocabulary is built as large as config.json says, so it must be true.
    drafts = _draft_tensors(architecture, config, read_tensors(files))
    tokenizer = tokenizer_entries(documents, config.vocabulary)
    infos, fallbacks = _type_and_place(drafts, kind, _mix_shape(architecture, config))
    header = encode_header(
        (*model_entries(architecture, config, kind, name), *tokenizer.entries), infos
    )
    tensors = tuple(
        PlannedTensor(info, len(header) + info.offset, draft.source, draft.data, draft.head_rows)
        for draft, info in zip(drafts, infos, strict=True)
    )
    return Plan(
        header=header,
        tensors=tensors,
        size=aligned(tensors[-1].position + tensors[-1].info.size),
        fallbacks=fallbacks,
        parameters=sum(tensor.info.elements for tensor in tensors if tensor.source),
        notes=(*tokenizer.notes, *_notes(config)),
    )


def _draft_tensors(
    architecture: Architecture, config: ModelConfig, source: Mapping[str, SourceTensor]
) -> list[_Draft]:
    """The output's tensors in llama.cpp's order: outside the blocks, then block by block."""
    expected = architecture.tensors(config)
    _check_complete(expected, source, architecture, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.gguf_name.upper()], config.layers)
    drafts = []
    for theirs, shape in expected.items():
        ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if ours is None:
            raise MalformedError(f"{theirs}: llama.cpp has no name for this tensor")
        head_rows = config.head_size if architecture.is_rotary(theirs) else 0
        drafts.append(_Draft(ours, _layer(ours), shape, source[theirs], head_rows=head_rows))
    if (factors := rope_factors(architecture, config)) is not None:
        data = struct.pack(f"<{len(factors)}f", *factors)
        drafts.append(_Draft("rope_freqs.weight", None, (len(factors),), None, data))
    return sorted(
        drafts, key=lambda draft: (-1 if draft.layer is None else draft.layer, draft.name)
    )


def _type_and_place(
    drafts: Iterable[_Draft], kind: FileType, model: ModelShape
) -> tuple[list[TensorInfo], tuple[Fallback, ...]]:
    infos: list[TensorInfo] = []
    fallbacks = []
    offset = 0
    for draft in drafts:
        choice = choose_type(kind, model, draft.name, draft.shape, draft.layer)
        # Ready bytes are float32, as every tensor of one dimension is.
        info = TensorInfo(draft.name, F32 if draft.data else choice.type, draft.shape, offset)
        if choice.instead_of is not None:
            fallbacks.append(Fallback(draft.name, choice.instead_of.name, choice.type.name))
        infos.append(info)
        offset = aligned(offset + info.size)
    return infos, tuple(fallbacks)


def _check_complete(
    expected: Mapping[str, Shape],
    source: Mapping[str, SourceTensor],
    architecture: Architecture,
    config: ModelConfig,
) -> None:
    """Refuse a source that lacks a tensor, has one too many, or one of another shape."""
    for name, shape in expected.items():
        if name not in source:
            raise MalformedError(f"the source lacks the tensor {name}, which config.json calls for")
        tensor = source[name]
        if tensor.entry.shape != shape:
            raise MalformedError(
                f"{tensor.shard}: {name} has the shape {list(tensor.entry.shape)}, but config.json "
                f"calls for {list(shape)}"
            )
        if tensor.entry.dtype not in SOURCE_DTYPES:
            raise UsageError(
                f"{tensor.shard}: {name} is {tensor.entry.dtype}; weights are converted from "
                f"{', '.join(SOURCE_DTYPES)}",
                hint="start from the model's 16-bit weights, or use `format: safetensors`",
            )
    for name, tensor in source.items():
        is_tied_output = name == "lm_head.weight" and config.tied_embeddings
        if name in expected or is_tied_output or name.endswith(_COMPUTED_SUFFIXES):
            continue
        raise UsageError(
            f"{tensor.shard}: {name!a} is no tensor of {architecture.name}",
            hint="use `format: safetensors`",
        )


def _mix_shape(architecture: Architecture, config: ModelConfig) -> ModelShape:
    return ModelShape(
        layers=config.layers,
        queries_per_key=config.heads // config.key_value_heads,
        tied_embeddings=config.tied_embeddings,
        is_70b=architecture.is_70b(config),
    )


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else None


def _notes(config: ModelConfig) -> tuple[str, ...]:
    window = config.sliding_window
    if window is None or window >= config.context:
        return ()
    note = f"llama.cpp attends to the whole context, not to a sliding window of {window} tokens"
    return (f"{note}: answers may differ beyond it",)
