"""Which matrices of the model an adapter changes, and how its own become llama.cpp's.

PEFT keeps, of each linear layer that it changes, A (rank, inputs) and B (outputs, rank). What the
architecture does to the rows of the layer's matrix on the way to GGUF, it does to those of B.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packager.errors import MalformedError, UsageError
from packager.format.safetensors_header import TensorEntry
from packager.quantize.architectures.architecture import Architecture
from packager.quantize.architectures.weights import Part, Weight
from packager.quantize.config import ModelConfig
from packager.quantize.lora.config import ADAPTER_CONFIG, MERGE, AdapterConfig
from packager.quantize.sourcing import SOURCE_DTYPES

_HALF = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight\Z")
_EMBEDDINGS = "token_embd.weight"
# What PEFT calls tensors beside those of plain LoRA, and what they are.
_OTHERS = (
    ("lora_embedding_", "of the embeddings, which llama.cpp may use for the output as well", MERGE),
    ("lora_magnitude_vector", "of DoRA", MERGE),
    (
        ".base_layer.",
        "a copy of the model's own",
        "save the adapter without it (PEFT: save_embedding_layers=False)",
    ),
)


@dataclass(frozen=True)
class Halves:
    """The two tensors of one module: ``a`` (rank, inputs) and ``b`` (outputs, rank)."""

    a: TensorEntry
    b: TensorEntry

    @property
    def rank(self) -> int:
        """The dimension between them."""
        return self.a.shape[0]


@dataclass(frozen=True)
class PlacedPair:
    """The matrices for the tensor ``name`` of the GGUF model: A, and of B the rows of ``part``.

    ``head_rows`` is that of :class:`Weight`. B is multiplied by ``factor``.
    """

    name: str
    halves: Halves
    part: Part
    head_rows: int
    factor: float

    def arrange(self, b: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output's rows of ``b`` (outputs, rank), in the output's order."""
        part = self.part
        chosen = b[part.first + part.pick : part.first + part.rows * part.step : part.step]
        if self.head_rows:
            by_half = chosen.reshape(-1, 2, self.head_rows // 2, b.shape[1])
            chosen = by_half.swapaxes(1, 2).reshape(-1, b.shape[1])
        return chosen if self.factor == 1.0 else chosen * np.float32(self.factor)


def pair_up(entries: Iterable[TensorEntry]) -> dict[str, Halves]:
    """The tensors of an adapter by the name of the module that they are for.

    Raises ``UsageError`` for tensors that are not of plain LoRA, ``MalformedError`` where one of
    two is missing or their shapes do not fit.
    """
    found: dict[str, dict[str, TensorEntry]] = {}
    for entry in entries:
        match = _HALF.match(entry.name)
        if match is None:
            raise _stranger(entry.name)
        if entry.dtype not in SOURCE_DTYPES:
            raise UsageError(
                f"{entry.name} is {entry.dtype}; it is converted from {', '.join(SOURCE_DTYPES)}"
            )
        found.setdefault(match[1], {})[match[2]] = entry
    if not found:
        raise UsageError("the adapter has no tensors")
    return {module: _halves(module, halves) for module, halves in found.items()}


def _stranger(name: str) -> UsageError:
    whole = ("", "no tensor of plain LoRA, and may have been trained as a whole", MERGE)
    _, fact, hint = next(other for other in (*_OTHERS, whole) if other[0] in name)
    return UsageError(f"adapter: {name!a} is {fact}", hint=hint)


def _halves(module: str, halves: Mapping[str, TensorEntry]) -> Halves:
    if len(halves) != 2:
        raise MalformedError(f"the adapter has only one of two tensors for {module!a}")
    a, b = halves["A"], halves["B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise MalformedError(
            f"the adapter's tensors for {module!a} have the shapes {list(a.shape)} and "
            f"{list(b.shape)}, whose product is no matrix"
        )
    return Halves(a, b)


def place_pairs(
    pairs: Mapping[str, Halves],
    architecture: Architecture,
    model: ModelConfig,
    adapter: AdapterConfig,
) -> tuple[PlacedPair, ...]:
    """Where ``pairs`` go in a model of ``architecture``, in the order of the output.

    Raises ``UsageError`` for a module that llama.cpp has no such matrix of, ``MalformedError``
    where shapes are not those of the model, or ranks not those of the configuration.
    """
    targets = _targets(architecture, model)
    placed: dict[str, PlacedPair] = {}
    for module, halves in pairs.items():
        weights = targets.get(architecture.usual_name(f"{module}.weight"), ())
        if not weights:
            raise UsageError(
                f"the adapter changes {module!a}, which is no matrix of its own in "
                f"{model.architecture}, as llama.cpp computes it",
                hint=MERGE,
            )
        if halves.rank != adapter.rank_of(module):
            raise MalformedError(
                f"the adapter's tensors for {module!a} are of rank {halves.rank}; "
                f"{ADAPTER_CONFIG} says {adapter.rank_of(module)}"
            )
        # A file states one alpha for all, which llama.cpp divides by the rank of each.
        factor = adapter.alpha_of(module) / adapter.usual_alpha
        for weight in weights:
            if weight.name in placed:
                raise MalformedError(f"the adapter changes {module!a} under two names")
            placed[weight.name] = _place(module, halves, weight, factor)
    return tuple(placed[name] for name in sorted(placed))


def _place(module: str, halves: Halves, weight: Weight, factor: float) -> PlacedPair:
    [part] = weight.parts
    if (halves.b.shape[0], halves.a.shape[1]) != part.shape:
        raise MalformedError(
            f"the adapter changes {module!a} as a matrix of "
            f"{[halves.b.shape[0], halves.a.shape[1]]}; the model's is {list(part.shape)}: is it "
            "for another model?"
        )
    return PlacedPair(weight.name, halves, part, weight.head_rows, factor)


def _targets(architecture: Architecture, model: ModelConfig) -> dict[str, tuple[Weight, ...]]:
    """The matrices that llama.cpp adds to, by the name of the source tensor that holds each."""
    found: dict[str, tuple[Weight, ...]] = {}
    for weight in architecture.weights(model):
        for part in _plain_parts(weight):
            found[part.name] = (*found.get(part.name, ()), weight)
    return found


def _plain_parts(weight: Weight) -> Iterator[Part]:
    """The part of a matrix of its own; none of embeddings, of norms, or of stacked experts."""
    if len(weight.shape) == 2 and len(weight.parts) == 1 and weight.name != _EMBEDDINGS:
        [part] = weight.parts
        if len(part.shape) == 2 and part.scales is None and not part.transposed:
            yield part
