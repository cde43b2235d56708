"""Gather an importance matrix: what goes into each weight tensor while the model reads a text."""

from __future__ import annotations

from pathlib import Path

from packager.connected.variants.observe.observer import Observer
from packager.connected.variants.observe.reading import WINDOW, read_windows
from packager.errors import EngineError
from packager.progress import Progress
from packager.quantize.imatrix import ImportanceMatrix

# 64 thousand tokens: more changes the means by less than a text of another kind would.
_MOST_WINDOWS = 128


def calibrate(
    model: Path, text: str, *, dataset: str, libraries: Path | None = None, progress: Progress
) -> ImportanceMatrix:
    """The importance matrix of the GGUF file ``model`` on ``text``, which ``dataset`` names.

    ``libraries`` is a directory with the carried ``libgomp.so.1``. Memory is the engine's and a
    number for each column of the model. Raises ``EngineError``, and ``UsageError`` for too short
    a text.
    """
    with Observer(model, window=WINDOW, libraries=libraries) as observer:
        windows = read_windows(observer, text, most=_MOST_WINDOWS, what=dataset)
        tokens = sum(map(len, windows))
        tensors = None
        with progress.task("importance matrix", tokens, unit="token") as task:
            for number, gathered in enumerate(observer.importance(windows)):
                tensors = gathered
                task.advance(len(windows[number]) if number < len(windows) else 0)
    if not tensors:
        raise EngineError(f"{model.name}: nothing was seen of how the engine computes it")
    return ImportanceMatrix(
        tensors=tensors, datasets=(dataset,), chunk_count=len(windows), chunk_size=len(windows[0])
    )
