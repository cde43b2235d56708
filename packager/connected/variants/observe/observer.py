"""The watched engine, seen from outside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from packager.connected.variants.observe.logits import Scores
from packager.quantize.imatrix import TensorImportance
from packager.runtime.engine import Engine, EngineOptions

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_SPARE = 8  # tokens of context that the engine wants for itself

Windows = Sequence[Sequence[int]]
"""Token ids, each window of them read by itself."""


class Observer(Engine):
    """A model opened to be watched while it reads windows of tokens; raises as an engine does."""

    worker = "packager.connected.variants.observe.worker"

    def __init__(self, model: Path, *, window: int, libraries: Path | None = None) -> None:
        """Open ``model`` for windows of at most ``window`` tokens."""
        options = EngineOptions(
            context=window + _SPARE, measuring=True, pooling="mean", libraries=libraries
        )
        super().__init__(model, options)

    def __enter__(self) -> Self:
        return self

    def importance(self, windows: Windows) -> Iterator[dict[str, TensorImportance] | None]:
        """Read every window: yields ``None`` once each, and at the end what went into each tensor.

        By name in the GGUF file, those of the layers alone.
        """
        with tempfile.TemporaryDirectory(prefix="airpack-") as folder:
            out = Path(folder) / "importance.npz"
            arguments: dict[str, object] = {"windows": _plain(windows), "out": str(out)}
            for _ in self._events("importance", arguments):
                yield None
            with np.load(out) as arrays:
                yield {
                    key.removeprefix("sums:"): TensorImportance(
                        arrays[key].astype(np.float32),
                        arrays["counts:" + key.removeprefix("sums:")],
                    )
                    for key in arrays
                    if key.startswith("sums:")
                }

    def record(self, windows: Windows, out: Path) -> Iterator[None]:
        """Write the log-probabilities of each window's second half to ``out``; windows are of one
        length."""
        for _ in self._events("record", {"windows": _plain(windows), "out": str(out)}):
            yield None

    def compare(self, windows: Windows, original: Path) -> Iterator[Scores]:
        """The scores of each window beside what was recorded of the original."""
        arguments: dict[str, object] = {"windows": _plain(windows), "original": str(original)}
        for event in self._events("compare", arguments):
            yield Scores(**cast("dict[str, Any]", event))


def _plain(windows: Windows) -> list[list[int]]:
    return [list(window) for window in windows]
