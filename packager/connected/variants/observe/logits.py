"""Take every logit of a window of tokens, and judge them beside the original model's.

As ``llama-perplexity --kl-divergence`` does: of each window only the second half is judged,
whose tokens have at least half a window before them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packager.connected.variants.observe.tensors import Tensors
from packager.errors import EngineError
from packager.store.atomic import write_all

_LOGITS = b"result_output"
_ROWS_AT_ONCE = 64  # bounds the memory with vocabularies of 256,000
_ITEM_SIZE = 4  # bytes of a log-probability in the file of the original


@dataclass
class Logits:
    """The logits of the last window, float32 (tokens, vocabulary), in the pieces they came in."""

    pieces: list[NDArray[np.float32]] = field(default_factory=list)

    def wants(self, tensors: Tensors, tensor: int) -> bool:
        """Whether ``tensor`` is what the model says of each token."""
        return tensors.name(tensor) == _LOGITS

    def takes(self, tensors: Tensors, tensor: int) -> None:
        """Keep them."""
        values = tensors.values(tensor)
        self.pieces.append(values.reshape(-1, values.shape[-1]).astype(np.float32, copy=False))

    def take_scored(self, window: int) -> NDArray[np.float32]:
        """Those that predict the second half of a window of ``window`` tokens; forgets all.

        Row i is for the token at ``window // 2 + 1 + i``.
        """
        rows = np.concatenate(self.pieces) if self.pieces else np.empty((0, 0), np.float32)
        self.pieces.clear()
        if len(rows) != window:
            raise EngineError(f"the engine gave the logits of {len(rows)} tokens, not of {window}")
        return rows[-_scored(window) - 1 : -1]


@dataclass(frozen=True)
class Scores:
    """One window judged, a value for each scored token.

    ``losses`` and ``original_losses`` in nats; ``divergences`` the Kullback-Leibler divergence
    from the original's distribution, in nats; ``agrees`` whether the likeliest token is the same.
    """

    losses: list[float]
    original_losses: list[float]
    divergences: list[float]
    agrees: list[bool]


def answers_size(windows: Iterable[int], vocabulary: int) -> int:
    """The bytes of the file of the original, which read ``windows`` of so many tokens."""
    return sum(map(_scored, windows)) * vocabulary * _ITEM_SIZE


def write_logprobs(path: Path, window: int, scored: NDArray[np.float32]) -> None:
    """Write the log-probabilities of the ``scored`` logits of window number ``window``, float32,
    to their place in the file of the original; all windows are of one length."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        offset = window * scored.size * _ITEM_SIZE
        for rows in _blocks(scored):
            write_all(descriptor, _logprobs(rows).astype("<f4").tobytes(), offset)
            offset += rows.size * _ITEM_SIZE
    finally:
        os.close(descriptor)


def check_vocabulary(path: Path, windows: Iterable[int], vocabulary: int) -> None:
    """Refuse a model of ``vocabulary`` words where the original, whose file ``path`` is and which
    read ``windows`` of so many tokens, knows more or fewer. Raises ``EngineError``."""
    if path.stat().st_size != answers_size(windows, vocabulary):
        raise EngineError("the original's vocabulary is another than this variant's")


def judge(
    path: Path, window: int, scored: NDArray[np.float32], targets: NDArray[np.int64]
) -> Scores:
    """Judge the ``scored`` logits (tokens, vocabulary) of window number ``window``.

    ``path`` holds the original's log-probabilities, ``targets`` are the tokens that really came.
    """
    count, vocabulary = scored.shape
    scores = Scores([], [], [], [])
    with path.open("rb") as stream:
        stream.seek(window * count * vocabulary * _ITEM_SIZE)
        for start, rows in zip(range(0, count, _ROWS_AT_ONCE), _blocks(scored), strict=True):
            data = stream.read(rows.size * _ITEM_SIZE)
            original = np.frombuffer(data, "<f4").reshape(rows.shape).astype(np.float64)
            _judge_rows(scores, original, _logprobs(rows), targets[start : start + len(rows)])
    return scores


def _judge_rows(
    scores: Scores,
    original: NDArray[np.float64],
    found: NDArray[np.float64],
    targets: NDArray[np.int64],
) -> None:
    places = np.arange(len(targets))
    scores.losses.extend((-found[places, targets]).tolist())
    scores.original_losses.extend((-original[places, targets]).tolist())
    # Rounding leaves an equal pair a hair below zero.
    divergences = np.sum(np.exp(original) * (original - found), axis=1)
    scores.divergences.extend(np.maximum(divergences, 0.0).tolist())
    scores.agrees.extend((original.argmax(axis=1) == found.argmax(axis=1)).tolist())


def _scored(window: int) -> int:
    """How many tokens are judged of a window of so many: all behind its middle."""
    return window - window // 2 - 1


def _blocks(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]


def _logprobs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    return exact
