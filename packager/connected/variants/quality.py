"""Measure what quantizing cost: each variant reads a text beside the original model.

Perplexity, mean Kullback-Leibler divergence over the whole vocabulary, and how often the
likeliest token is the same, as ``llama-perplexity --kl-divergence`` has them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packager.connected.artefacts import check_space
from packager.connected.variants.observe.logits import Scores, answers_size
from packager.connected.variants.observe.observer import Observer, Windows
from packager.connected.variants.observe.reading import WINDOW, read_windows
from packager.errors import EngineError
from packager.format.digest import Digest
from packager.format.gguf_header import parse_header
from packager.format.quality import MICRONATS, MILLIONTHS, NANONATS, Quality
from packager.progress import Progress
from packager.store.atomic import TEMPORARY_PREFIX, naming_refusals

# 4,096 scored tokens: with a vocabulary of 150,000 the original's answers are 2.5 GB meanwhile.
_MOST_WINDOWS = 16
_EMBEDDINGS = "token_embd.weight"


@dataclass(frozen=True)
class Baseline:
    """The model that stands for the original, and the ``type`` of its file."""

    model: Path
    type: str


def measure_quality(
    variants: Mapping[str, Path],
    baseline: Baseline,
    text: str,
    *,
    folder: Path,
    what: str,
    libraries: Path | None = None,
    progress: Progress,
) -> Iterator[tuple[str, Quality]]:
    """Measure the GGUF files ``variants``, by name, beside ``baseline`` on ``text``, one by one.

    ``folder`` holds the original's answers meanwhile, four bytes for each scored token and word
    of the vocabulary. ``what`` names the text. Raises ``EngineError``, ``NoSpaceError``, and
    ``UsageError`` for too short a text.
    """
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder) as place:
        answers = Path(place.name)
        windows = _record(baseline, text, answers, what, libraries, progress)
        for name, model in variants.items():
            tally = _compare(name, model, windows, answers, libraries, progress)
            yield name, _summary(tally, Digest.of(text.encode("utf-8")), baseline.type)


def _record(
    baseline: Baseline,
    text: str,
    answers: Path,
    what: str,
    libraries: Path | None,
    progress: Progress,
) -> Windows:
    """Let the original read; returns what it read."""
    with Observer(baseline.model, window=WINDOW, libraries=libraries) as observer:
        windows = read_windows(observer, text, most=_MOST_WINDOWS, what=what)
        _reserve(answers, answers_size(map(len, windows), _vocabulary(baseline.model)))
        total = sum(map(len, windows))
        with progress.task("quality: original", total, unit="token") as task:
            for window, _ in zip(windows, observer.record(windows, answers), strict=True):
                task.advance(len(window))
    return windows


def _reserve(answers: Path, size: int) -> None:
    """Have ``size`` bytes for ``answers``: the engine's process could only say that it has none."""
    check_space(answers.parent, size, "to keep the original's answers for a while")
    with naming_refusals(answers), answers.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)


def _vocabulary(model: Path) -> int:
    """How many words the GGUF ``model`` knows."""
    with naming_refusals(model), model.open("rb") as stream:
        header = parse_header(stream, file_size=model.stat().st_size, what=str(model))
    for tensor in header.tensors:
        if tensor.name == _EMBEDDINGS:
            return tensor.shape[1]
    raise EngineError(f"{model}: has no {_EMBEDDINGS}, so its vocabulary is not known")


def _compare(
    name: str,
    model: Path,
    windows: Windows,
    answers: Path,
    libraries: Path | None,
    progress: Progress,
) -> _Tally:
    tally = _Tally()
    total = sum(map(len, windows))
    with (
        Observer(model, window=WINDOW, libraries=libraries) as observer,
        progress.task(f"quality: {name}", total, unit="token") as task,
    ):
        for window, scores in zip(windows, observer.compare(windows, answers), strict=True):
            tally.add(scores)
            task.advance(len(window))
    return tally


@dataclass
class _Tally:
    losses: list[float] = field(default_factory=list)
    originals: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)
    agreeing: int = 0

    def add(self, scores: Scores) -> None:
        self.losses.extend(scores.losses)
        self.originals.extend(scores.original_losses)
        self.divergences.extend(scores.divergences)
        self.agreeing += sum(scores.agrees)


def _summary(tally: _Tally, text: Digest, baseline: str) -> Quality:
    tokens = len(tally.losses)
    pairs = zip(tally.losses, tally.originals, strict=True)
    differences = [loss - original for loss, original in pairs]
    return Quality(
        text=text,
        baseline=baseline,
        tokens=tokens,
        loss=round(_mean(tally.losses) * MICRONATS),
        original_loss=round(_mean(tally.originals) * MICRONATS),
        loss_error=round(_error_of_mean(differences) * MICRONATS),
        divergence=round(_mean(tally.divergences) * NANONATS),
        divergence_error=round(_error_of_mean(tally.divergences) * NANONATS),
        agreement=round(tally.agreeing / tokens * MILLIONTHS),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _error_of_mean(values: Sequence[float]) -> float:
    """The standard error, as if the tokens were independent of each other."""
    mean = _mean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / max(1, len(values) - 1) / len(values))
