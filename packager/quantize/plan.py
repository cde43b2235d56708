"""Where every tensor of the GGUF file goes, as what, before a byte of weights is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packager.errors import UsageError
from packager.quantize.architectures import find_architecture
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.config import ModelConfig, parse_config
from packager.quantize.gguf_writer import TensorInfo, aligned, encode_header
from packager.quantize.imatrix import TensorImportance
from packager.quantize.metadata import model_entries
from packager.quantize.mix import Choice, ModelShape, choose_types
from packager.quantize.pooling import Pooling, find_pooling
from packager.quantize.source import read_documents, read_tensors
from packager.quantize.sourcing import Draft, Piece, draft_tensors
from packager.quantize.tokenizer.entries import TokenizerEntries, tokenizer_entries
from packager.quantize.types import F32, MXFP4
from packager.quantize.wanted import Wanted


class Fallback(NamedTuple):
    """A tensor whose rows did not fit the type that its place called for."""

    name: str
    wanted: str
    type: str


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output. ``position`` is its byte offset in the file.

    Its rows are those of ``pieces`` one by one, or it is the ready bytes ``data``. A tensor of
    three dimensions has a piece for each expert. ``head_rows`` is the number of rows of each
    attention head whose order changes, 0 where none does; ``plus`` is added to each element.
    ``by_element``: the rows of the pieces are single elements. ``importance`` weighs the columns.
    """

    info: TensorInfo
    position: int
    pieces: tuple[Piece, ...] = ()
    data: bytes = b""
    head_rows: int = 0
    plus: float = 0.0
    by_element: bool = False
    importance: TensorImportance | None = None

    @property
    def columns(self) -> int:
        """Elements of a row; a tensor of one dimension has rows of one element."""
        is_table = len(self.info.shape) > 1 and not self.by_element
        return self.info.shape[-1] if is_table else 1


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
        return sum(
            piece.rows * piece.row_size(tensor.columns)
            for tensor in self.tensors
            for piece in tensor.pieces
        )


@dataclass(frozen=True, eq=False)
class SourceModel:
    """What all files made of a model have in common: its ``drafts`` become their tensors."""

    architecture: Architecture
    config: ModelConfig
    drafts: Sequence[Draft]
    tokenizer: TokenizerEntries
    pooling: Pooling | None


def read_model(files: Mapping[str, Path]) -> SourceModel:
    """Read all of the model in ``files``, names in the repository to local paths, but its weights.

    Raises ``UsageError`` for what cannot be converted, ``MalformedError`` and
    ``UnsafeContentError`` for a source that is broken.
    """
    documents = read_documents(files)
    architecture = find_architecture(documents.config)
    config = parse_config(documents.config, architecture.dialect)
    # Tensors first: a vocabulary is built as large as config.json says, so it must be true.
    drafts = draft_tensors(architecture, config, read_tensors(files))
    tokenizer = tokenizer_entries(documents, config.vocabulary)
    pooling = find_pooling(documents.modules, is_encoder=architecture.is_encoder)
    return SourceModel(architecture, config, drafts, tokenizer, pooling)


def make_plan(
    files: Mapping[str, Path], wanted: Wanted, *, name: str, model: SourceModel | None = None
) -> Plan:
    """Plan the GGUF file that is ``wanted`` of the model in ``files``.

    ``name`` becomes ``general.name``. ``model`` is what :func:`read_model` gave for ``files``,
    where several are planned; it is read now otherwise. Raises what that raises, and
    ``UsageError`` for a type or a matrix that does not go with the model.
    """
    model = model or read_model(files)
    architecture, config, tokenizer = model.architecture, model.config, model.tokenizer
    placed = _type_and_place(model.drafts, wanted, _mix_shape(architecture, config))
    header = encode_header(
        (
            *model_entries(
                architecture,
                config,
                wanted.kind,
                name,
                pooling=model.pooling,
                strips_as_phi3=tokenizer.strips_as_phi3,
            ),
            *wanted.entries(),
            *tokenizer.entries,
        ),
        [place.info for place in placed],
    )
    tensors = tuple(
        PlannedTensor(
            place.info,
            len(header) + place.info.offset,
            pieces=draft.pieces,
            data=draft.data,
            head_rows=draft.head_rows,
            plus=draft.plus,
            by_element=draft.by_element,
            importance=place.importance,
        )
        for draft, place in zip(model.drafts, placed, strict=True)
    )
    return Plan(
        header=header,
        tensors=tensors,
        size=aligned(tensors[-1].position + tensors[-1].info.size),
        fallbacks=tuple(place.fallback for place in placed if place.fallback),
        parameters=sum(tensor.info.elements for tensor in tensors if tensor.pieces),
        notes=(
            *tokenizer.notes,
            *(model.pooling.notes if model.pooling else ()),
            *_notes(architecture, config),
            *_notes_on_types(tensors),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Placed:
    info: TensorInfo
    importance: TensorImportance | None
    fallback: Fallback | None


def _type_and_place(
    drafts: Sequence[Draft], wanted: Wanted, model: ModelShape
) -> tuple[_Placed, ...]:
    choices = choose_types(
        wanted.kind,
        model,
        [(draft.name, draft.shape) for draft in drafts],
        overrides=wanted.overrides,
        has_matrix=wanted.has_matrix,
    )
    placed = []
    offset = 0
    for draft, choice in zip(drafts, choices, strict=True):
        # Ready bytes are float32, as every tensor of one dimension is.
        info = TensorInfo(draft.name, F32 if draft.data else choice.type, draft.shape, offset)
        importance = wanted.importance(draft.name, draft.shape, choice)
        placed.append(_Placed(info, importance, _fallback(draft.name, choice)))
        offset = aligned(offset + info.size)
    if wanted.matrix is not None and not any(place.importance for place in placed):
        raise UsageError(
            "importance matrix: names no tensor of this model",
            hint="it was made of another model; make it of this one",
        )
    return tuple(placed)


def _fallback(name: str, choice: Choice) -> Fallback | None:
    wanted = choice.instead_of
    return None if wanted is None else Fallback(name, wanted.name, choice.type.name)


def _mix_shape(architecture: Architecture, config: ModelConfig) -> ModelShape:
    return ModelShape(
        layers=config.layers,
        queries_per_key=config.heads // config.key_value_heads,
        is_70b=architecture.is_70b(config),
        experts=config.experts,
    )


def _notes_on_types(tensors: Sequence[PlannedTensor]) -> tuple[str, ...]:
    changed = [
        tensor
        for tensor in tensors
        if tensor.info.type is not MXFP4 and any(piece.is_mxfp4 for piece in tensor.pieces)
    ]
    if changed:
        return ("the experts come in MXFP4, which the type MXFP4_MOE keeps as they are",)
    if any(piece.covered for tensor in tensors for piece in tensor.pieces):
        return ("the weights come in FP8, and are multiplied by their scales first",)
    return ()


def _notes(architecture: Architecture, config: ModelConfig) -> tuple[str, ...]:
    window = config.sliding_window
    notes = tuple(architecture.notes(config))
    if architecture.keeps_window or window is None or window >= config.context:
        return notes
    note = f"llama.cpp attends to the whole context, not to a sliding window of {window} tokens"
    return (*notes, f"{note}: answers may differ beyond it")
