"""Gather what ``llama-imatrix`` does: sums of the squared inputs of each weight tensor.

After ``tools/imatrix/imatrix.cpp``, ``collect_imatrix``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from packager.connected.variants.observe.tensors import F32, Tensors

_PRODUCT, _PRODUCT_OF_EXPERTS = b"MUL_MAT", b"MUL_MAT_ID"
_LAYER = b"blk."


@dataclass(frozen=True)
class Gathered:
    """``sums`` float64 (experts, columns), ``counts`` int64 (experts,); one row if no experts."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Importance:
    """What has gone into each weight tensor of a layer so far, by name."""

    gathered: dict[str, Gathered] = field(default_factory=dict)

    def wants(self, tensors: Tensors, tensor: int) -> bool:
        """Whether ``tensor`` is the product of a layer's weights and float32 inputs."""
        return (
            tensors.operation(tensor) in (_PRODUCT, _PRODUCT_OF_EXPERTS)
            and tensors.name(tensors.source(tensor, 0)).startswith(_LAYER)
            and tensors.kind(tensors.source(tensor, 1)) == F32
        )

    def takes(self, tensors: Tensors, tensor: int) -> None:
        """Add the inputs of the product ``tensor``."""
        weights, inputs = tensors.source(tensor, 0), tensors.source(tensor, 1)
        squares = np.square(tensors.values(inputs).astype(np.float64))
        if tensors.operation(tensor) == _PRODUCT:
            self._add(tensors.name(weights), squares)
        else:
            chosen = tensors.values(tensors.source(tensor, 2))
            experts = tensors.shape(weights)[1]
            self._add_experts(tensors.name(weights), squares[0], chosen[0, 0], experts)

    def _add(self, name: bytes, squares: NDArray[np.float64]) -> None:
        columns = squares.shape[-1]
        rows = squares.reshape(-1, columns)
        entry = self._entry(name, 1, columns)
        entry.sums[0] += rows.sum(axis=0)
        entry.counts[0] += len(rows)

    def _add_experts(
        self,
        name: bytes,
        squares: NDArray[np.float64],
        chosen: NDArray[np.generic],
        experts: int,
    ) -> None:
        """``squares`` (tokens, 1 or slots, columns), ``chosen`` the expert (tokens, slots)."""
        entry = self._entry(name, experts, squares.shape[-1])
        spread = np.broadcast_to(squares, (*chosen.shape, squares.shape[-1]))
        for expert in np.unique(chosen):
            rows = spread[chosen == expert]
            entry.sums[expert] += rows.sum(axis=0)
            entry.counts[expert] += len(rows)

    def _entry(self, name: bytes, experts: int, columns: int) -> Gathered:
        key = name.decode("utf-8")
        if key not in self.gathered:
            self.gathered[key] = Gathered(np.zeros((experts, columns)), np.zeros(experts, np.int64))
        return self.gathered[key]
